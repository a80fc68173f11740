//! A request and a response without a socket, and the bodies of refusals as
//! the vendor words them.

use serde_json::{Map, Value, json};

/// What came.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Decoded, in order.
    pub query: Vec<(String, String)>,
    /// After `Bearer `, or from `api_key` in the query.
    pub api_key: Option<String>,
    /// What the client calls itself.
    pub agent: String,
    /// The bytes.
    pub body: Vec<u8>,
}

impl Request {
    /// A request with a body, for tests.
    #[must_use]
    pub fn new(method: &str, path: &str, api_key: &str, body: &Value) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            api_key: Some(api_key.to_owned()),
            agent: String::new(),
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        }
    }

    /// One argument of the query.
    pub(super) fn argument(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// An argument that is JSON.
    pub(super) fn json_argument(&self, name: &str) -> Result<Option<Value>, Response> {
        let Some(text) = self.argument(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        serde_json::from_str(text)
            .map(Some)
            .map_err(|_| refuse(400, "invalid_request", &format!("{name} is not JSON")))
    }

    /// The body as an object; nothing is an empty one.
    pub(super) fn object(&self) -> Result<Map<String, Value>, Response> {
        if self.body.is_empty() {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(object)) => Ok(object),
            _ => Err(refuse(400, "invalid_args", "the body is not a JSON object")),
        }
    }
}

/// How an answer reaches its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// At once.
    #[default]
    Now,
    /// After so long.
    Late {
        /// Milliseconds.
        after_ms: u64,
    },
    /// Never: the connection is closed after so long.
    Close {
        /// Milliseconds.
        after_ms: u64,
    },
}

/// What goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Exactly as it stands in the header.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The bytes.
    pub body: Vec<u8>,
    /// Whether and when it is sent.
    pub delivery: Delivery,
}

impl Response {
    /// JSON, with the one content type that the official client accepts.
    #[must_use]
    pub fn json(status: u16, value: &Value) -> Self {
        Self::text(status, "application/json", value.to_string())
    }

    pub(super) fn text(status: u16, content_type: &str, text: String) -> Self {
        Self {
            status,
            content_type: content_type.to_owned(),
            headers: Vec::new(),
            body: text.into_bytes(),
            delivery: Delivery::Now,
        }
    }

    /// The body as JSON, or null.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Done.
pub(super) fn good(mut value: Value) -> Response {
    value["success"] = true.into();
    Response::json(200, &value)
}

/// The usual refusal.
pub(super) fn refuse(status: u16, error: &str, message: &str) -> Response {
    Response::json(status, &json!({"success": false, "error": error, "msg": message}))
}

/// An instance that does not exist, or not any more.
pub(super) fn no_such_instance(id: u64) -> Response {
    refuse(404, "no_such_instance", &format!("Instance with ID {id} does not exist."))
}
