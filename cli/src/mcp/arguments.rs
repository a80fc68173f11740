//! The arguments of a call, taken one by one and strictly: a wrong type, an
//! unknown name or a value out of bounds is an error that says what is right.

use rmcp::model::JsonObject;
use serde_json::Value;

use super::reply::{LEAST, MOST, USUAL};
use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// Characters of one text.
const TEXT: usize = 4096;
/// Entries of one list.
const LIST: usize = 64;

/// What a call was given.
#[derive(Debug)]
pub(super) struct Arguments {
    left: JsonObject,
    taken: Vec<&'static str>,
    granted: usize,
}

fn wrong(why: String) -> Failure {
    Failure::new(ExitCode::Usage, why)
}

impl Arguments {
    pub(super) fn new(given: Option<JsonObject>) -> Self {
        Self { left: given.unwrap_or_default(), taken: Vec::new(), granted: USUAL }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.taken.push(name);
        self.left.remove(name).filter(|value| !value.is_null())
    }

    /// A text, or nothing.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() && text.len() <= TEXT && !text.contains('\0') => {
                Ok(Some(text))
            }
            Some(_) => Err(wrong(format!("`{name}` is a text of 1 to {TEXT} bytes"))),
        }
    }

    /// A text that there must be.
    pub(super) fn needed(&mut self, name: &'static str) -> Result<String, Failure> {
        self.text(name)?.ok_or_else(|| wrong(format!("`{name}` is missing")))
    }

    /// A list of texts, or one text; empty if there is none.
    pub(super) fn texts(&mut self, name: &'static str) -> Result<Vec<String>, Failure> {
        let list = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(one) => vec![one],
        };
        let good = |text: &String| !text.is_empty() && text.len() <= TEXT && !text.contains('\0');
        let texts: Option<Vec<String>> =
            list.iter().map(|value| value.as_str().map(str::to_owned).filter(good)).collect();
        texts
            .filter(|texts| texts.len() <= LIST)
            .ok_or_else(|| wrong(format!("`{name}` is a list of at most {LIST} texts")))
    }

    /// A whole number within bounds, or nothing.
    pub(super) fn whole(&mut self, name: &'static str, low: u64, high: u64) -> Result<Option<u64>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        // Some clients send numbers as texts.
        let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        let number = number.filter(|number| (low..=high).contains(number));
        number.map(Some).ok_or_else(|| wrong(format!("`{name}` is a whole number from {low} to {high}")))
    }

    /// An amount of dollars, or nothing.
    pub(super) fn dollars(&mut self, name: &'static str) -> Result<Option<f64>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let usd = value.as_f64().filter(|usd| usd.is_finite() && *usd > 0.0 && *usd <= 1e6);
        usd.map(Some).ok_or_else(|| wrong(format!("`{name}` is an amount of dollars above 0")))
    }

    /// Yes or no; no where nothing was said.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Failure> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(wrong(format!("`{name}` is true or false"))),
        }
    }

    /// Where a list goes on: behind so many entries.
    pub(super) fn cursor(&mut self) -> Result<u64, Failure> {
        self.cursor_within(u64::from(u32::MAX))
    }

    /// Where a list goes on that grows at its front: behind the entry of this number.
    pub(super) fn behind(&mut self) -> Result<Option<u64>, Failure> {
        Ok(Some(self.cursor_within(u64::MAX)?).filter(|number| *number > 0))
    }

    fn cursor_within(&mut self, most: u64) -> Result<u64, Failure> {
        let Some(text) = self.text("cursor")? else { return Ok(0) };
        text.parse().ok().filter(|at| *at <= most).ok_or_else(|| {
            wrong("`cursor` is none that was given out".to_owned())
                .help("leave it out to begin anew, or copy `next` of the last answer")
        })
    }

    /// Tokens that the answer may have.
    pub(super) fn budget(&mut self) -> Result<usize, Failure> {
        let most = self.whole("max_tokens", LEAST as u64, MOST as u64)?;
        self.granted = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(USUAL);
        Ok(self.granted)
    }

    /// The same, once it was read.
    pub(super) fn granted(&self) -> usize {
        self.granted
    }

    /// Nothing may be left over.
    pub(super) fn end(self) -> Result<(), Failure> {
        let Some(name) = self.left.keys().next() else { return Ok(()) };
        let known = self.taken.join(", ");
        Err(wrong(format!("there is no argument {}", words::name(name)))
            .help(format!("the arguments are {known}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given(value: &Value) -> Arguments {
        Arguments::new(value.as_object().cloned())
    }

    #[test]
    fn what_is_wrong_says_what_is_right() {
        let mut arguments = given(&json!({"run": 3, "tail": -1, "set": [1], "usd": 0, "no": 1}));
        assert!(arguments.needed("run").unwrap_err().message.contains("a text"));
        assert!(arguments.whole("tail", 1, 9).unwrap_err().message.contains("from 1 to 9"));
        assert!(arguments.texts("set").unwrap_err().message.contains("a list"));
        assert!(arguments.dollars("usd").is_err());
        let left = arguments.end().unwrap_err();
        assert!(left.message.contains("`no`") || left.message.contains("no"), "{left}");
        assert!(left.help[0].contains("tail"));
    }

    #[test]
    fn budgets_have_bounds() {
        assert_eq!(given(&json!({})).budget().unwrap(), USUAL);
        assert_eq!(given(&json!({"max_tokens": 500})).budget().unwrap(), 500);
        for bad in [json!(1), json!(1e9), json!("x"), json!([])] {
            assert!(given(&json!({ "max_tokens": bad })).budget().is_err(), "{bad}");
        }
    }
}
