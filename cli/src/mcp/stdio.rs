//! The protocol over two streams: one message a line. What comes in is hostile:
//! a line has a bound, and what is no message is answered with an error of
//! JSON-RPC, never with silence, a crash or the end of the session. Nothing but
//! messages is ever written.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rmcp::RoleServer;
use rmcp::model::{ClientNotification, JsonRpcMessage, RequestId};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The longest line that is read.
pub(super) const LINE: usize = 1 << 20;
/// Messages that wait to be written.
const WAITING: usize = 64;
/// Requests that are worked on at once; more are refused.
const AT_ONCE: usize = 64;

const PARSE_ERROR: i32 = -32_700;
const INVALID_REQUEST: i32 = -32_600;
const INVALID_PARAMS: i32 = -32_602;

type Received = RxJsonRpcMessage<RoleServer>;

/// What one line is.
#[derive(Debug)]
enum Read {
    Message(Box<Received>),
    /// It is answered at once, with this error.
    Refused(Value),
    /// It asks for no answer and is none.
    Nothing,
}

/// The session's two streams.
pub(super) struct Lines<R> {
    read: BufReader<R>,
    line: Vec<u8>,
    /// The rest of a line that was too long is thrown away.
    discarding: bool,
    ended: bool,
    /// The SDK ends a session whose first message is no request.
    begun: bool,
    refusal: Option<Vec<u8>>,
    out: Option<mpsc::Sender<Vec<u8>>>,
    writer: JoinSet<io::Result<()>>,
    open: Arc<Mutex<HashSet<RequestId>>>,
}

fn refused(code: i32, why: &str, id: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": why } })
}

impl<R: AsyncRead + Send + Unpin> Lines<R> {
    /// Reads messages here and writes them there.
    pub(super) fn new<W: AsyncWrite + Send + Unpin + 'static>(read: R, mut write: W) -> Self {
        let (out, mut waiting) = mpsc::channel::<Vec<u8>>(WAITING);
        let mut writer = JoinSet::new();
        writer.spawn(async move {
            while let Some(line) = waiting.recv().await {
                write.write_all(&line).await?;
                write.flush().await?;
            }
            Ok(())
        });
        Self {
            read: BufReader::new(read),
            line: Vec::new(),
            discarding: false,
            ended: false,
            begun: false,
            refusal: None,
            out: Some(out),
            writer,
            open: Arc::default(),
        }
    }

    /// The next whole line is in `line`, or why there is none. May be dropped
    /// at any moment: what was read stays.
    async fn next(&mut self) -> Result<bool, &'static str> {
        loop {
            let got = match self.read.fill_buf().await {
                Ok(got) => got,
                Err(error) => {
                    tracing::warn!("cannot read: {error}");
                    &[]
                }
            };
            if got.is_empty() {
                self.ended = true;
                let half = !self.discarding && !self.line.is_empty();
                return if half { Err("the last line has no end") } else { Ok(false) };
            }
            let end = got.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(got.len());
            let fits = self.line.len() + taken <= LINE;
            if !self.discarding && fits {
                self.line.extend_from_slice(&got[..taken]);
            }
            self.read.consume(end.map_or(taken, |at| at + 1));
            let was = std::mem::replace(&mut self.discarding, false);
            match (end, was, fits) {
                (Some(_), true, _) => {}
                (None, true, _) => self.discarding = true,
                (_, false, false) => {
                    self.discarding = end.is_none();
                    self.line.clear();
                    return Err("the message is longer than 1 MiB");
                }
                (Some(_), false, true) => return Ok(true),
                (None, false, true) => {}
            }
        }
    }

    fn take(&mut self) -> Read {
        let line = std::mem::take(&mut self.line);
        let read = message(&line);
        let Read::Message(message) = read else { return read };
        let open = &mut *self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match &*message {
            JsonRpcMessage::Request(request) => {
                let id = serde_json::to_value(&request.id).unwrap_or_default();
                if open.contains(&request.id) {
                    return Read::Refused(refused(INVALID_REQUEST, "this id is in use", &id));
                }
                if open.len() >= AT_ONCE {
                    let why = "64 requests are worked on already: wait for an answer";
                    return Read::Refused(refused(-32_000, why, &id));
                }
                open.insert(request.id.clone());
                self.begun = true;
            }
            JsonRpcMessage::Notification(told) => {
                if let ClientNotification::CancelledNotification(cancelled) = &told.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    open.remove(id);
                }
            }
            _ => {}
        }
        if self.begun { Read::Message(message) } else { Read::Nothing }
    }
}

/// What a line says.
fn message(line: &[u8]) -> Read {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    if line.is_empty() {
        return Read::Nothing;
    }
    let refuse = |code, why: &str, id: &Value| Read::Refused(refused(code, why, id));
    let value: Value = match std::str::from_utf8(line).map(serde_json::from_str) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            return refuse(PARSE_ERROR, &format!("the line is no JSON: {error}"), &Value::Null);
        }
        Err(_) => return refuse(PARSE_ERROR, "the line is not UTF-8", &Value::Null),
    };
    let Some(object) = value.as_object() else {
        return refuse(INVALID_REQUEST, "a message is one JSON object; batches are not read", &Value::Null);
    };
    let asks = object.contains_key("id");
    let id = object.get("id").filter(|id| id.is_string() || id.is_i64()).cloned().unwrap_or_default();
    let method = object.get("method").map(|method| method.as_str().map(str::to_owned));
    if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return refuse(INVALID_REQUEST, "`jsonrpc` is not \"2.0\"", &id);
    }
    if asks && id.is_null() && method.is_some() {
        return refuse(INVALID_REQUEST, "`id` is neither a string nor a whole number", &id);
    }
    match (method, serde_json::from_value::<Received>(value)) {
        (_, Ok(message)) => Read::Message(Box::new(message)),
        (Some(Some(method)), Err(error)) if asks => {
            let method: String = method.chars().take(64).collect();
            refuse(INVALID_PARAMS, &format!("{method:?} does not take this: {error}"), &id)
        }
        // To a notification there is no answer, not even this one.
        (Some(Some(_)), Err(error)) => {
            tracing::debug!("a notification that cannot be read: {error}");
            Read::Nothing
        }
        _ => refuse(INVALID_REQUEST, "this is no message of JSON-RPC 2.0", &id),
    }
}

fn line_of(message: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "nobody reads any more")
}

impl<R: AsyncRead + Send + Unpin> Transport<RoleServer> for Lines<R> {
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        let id = match &item {
            JsonRpcMessage::Response(response) => Some(response.id.clone()),
            JsonRpcMessage::Error(error) => error.id.clone(),
            _ => None,
        };
        if let Some(id) = id {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
        let out = self.out.clone();
        async move {
            let out = out.ok_or_else(closed)?;
            out.send(line_of(&item)).await.map_err(|_| closed())
        }
    }

    async fn receive(&mut self) -> Option<Received> {
        loop {
            if self.refusal.is_some() {
                // Dropped while it waits, nothing is lost and nothing is half written.
                let place = self.out.as_ref()?.reserve().await.ok()?;
                place.send(self.refusal.take().unwrap_or_default());
            }
            if self.ended {
                return None;
            }
            let refusal = match self.next().await {
                Ok(false) => return None,
                Ok(true) => match self.take() {
                    Read::Message(message) => return Some(*message),
                    Read::Nothing => continue,
                    Read::Refused(refusal) => refusal,
                },
                Err(why) => {
                    self.line.clear();
                    refused(PARSE_ERROR, why, &Value::Null)
                }
            };
            self.refusal = Some(line_of(&refusal));
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.out = None;
        match self.writer.join_next().await {
            Some(written) => written.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
