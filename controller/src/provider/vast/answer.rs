//! What an answer of Vast.ai means. Errors come as JSON in several shapes, as
//! plain text and as pages of a proxy: none is required to be anything. Pure.
//!
//! Two rules: success is HTTP 200 *and* no `success: false`; and an error may
//! carry `new_contract`, a machine that was made all the same and bills.

use lifecycle::question::Trouble;
use serde_json::Value;

use crate::provider::CreateOutcome;

/// Longest text of the vendor that is shown.
const TEXT_MAX: usize = 300;

/// An HTTP answer as it came.
#[derive(Debug, Clone, Default)]
pub(super) struct Raw {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// `Retry-After` in seconds.
    pub(super) retry_after_s: Option<u64>,
    /// `X-RateLimit-Reset`, Unix seconds.
    pub(super) reset_s: Option<u64>,
}

/// Why a call did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The key is not accepted.
    Key,
    /// The key or the account may not do this.
    Forbidden,
    /// The account has no money left.
    Credit,
    /// The offer is no more.
    OfferGone,
    /// There is no such thing.
    NotFound,
    /// The request was refused as it is.
    Invalid,
    /// Too many calls: nothing was done; not again before so many milliseconds.
    Busy(u64),
    /// Too many of our own wait for their turn: nothing was sent.
    Queue,
    /// The day's searches are used up, until this Unix second if it is known.
    QuotaSpent(Option<u64>),
    /// Whether something was done is not known.
    Unknown,
}

impl Kind {
    /// The kind of trouble that it is, and the Unix milliseconds before which
    /// there is no use in asking again.
    pub(super) fn trouble(&self) -> (Trouble, u64) {
        match self {
            Self::Key | Self::Forbidden => (Trouble::Key, 0),
            Self::Credit => (Trouble::Credit, 0),
            Self::OfferGone => (Trouble::NoOffer, 0),
            Self::Invalid => (Trouble::Invalid, 0),
            Self::QuotaSpent(until_s) => (Trouble::Quota, until_s.unwrap_or(0).saturating_mul(1_000)),
            Self::NotFound | Self::Busy(_) | Self::Queue | Self::Unknown => (Trouble::Passing, 0),
        }
    }
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// For people: bounded, without control characters.
    pub(super) text: String,
    /// The machine that was made though the call failed.
    pub(super) contract: Option<u64>,
}

/// Nothing was made.
pub(super) fn rejected(failure: Failure) -> CreateOutcome {
    let (trouble, not_before_ms) = failure.kind.trouble();
    CreateOutcome::Rejected { reason: failure.text, trouble, not_before_ms }
}

/// Reads an answer.
pub(super) fn read(raw: &Raw) -> Result<Value, Failure> {
    let json: Option<Value> = serde_json::from_slice(&raw.body).ok();
    let contract = json.as_ref().and_then(|v| id(v.get("new_contract")?));
    let refused = json.as_ref().is_some_and(|v| v.get("success") == Some(&Value::Bool(false)));
    match json {
        Some(value) if raw.status == 200 && !refused && value.is_object() | value.is_array() => {
            return Ok(value);
        }
        _ => {}
    }
    let (slug, said) = words(json.as_ref(), &raw.body);
    let text = format!("Vast.ai answered {}: {said}", raw.status);
    let gone = slug.contains("no_such_ask") || said.contains("no_such_ask");
    let credit = [&slug, &said].iter().any(|text| text.to_lowercase().contains("credit"));
    let kind = match raw.status {
        401 => Kind::Key,
        402 => Kind::Credit,
        400 | 403 | 411 if credit && !gone => Kind::Credit,
        403 => Kind::Forbidden,
        410 => Kind::OfferGone,
        404 | 400 | 200 if gone => Kind::OfferGone,
        // A page of a proxy, or of an address that has moved, is no word on any
        // machine.
        404 if slug.contains("no_such") || slug.contains("not_found") => Kind::NotFound,
        404 => Kind::Unknown,
        429 if slug == "search_quota_exceeded" || said.contains("search_quota_exceeded") => {
            Kind::QuotaSpent(raw.reset_s)
        }
        429 => Kind::Busy(raw.retry_after_s.unwrap_or(0).saturating_mul(1_000)),
        // A refusal in so many words; without them a 200 says nothing.
        200 if refused => Kind::Invalid,
        400..=499 => Kind::Invalid,
        _ => Kind::Unknown,
    };
    Err(Failure { kind, text, contract })
}

/// An error's slug and what it says.
fn words(json: Option<&Value>, body: &[u8]) -> (String, String) {
    let field = |name: &str| {
        let text = json.and_then(|v| v.get(name)).and_then(Value::as_str);
        text.map(printable).filter(|text| !text.is_empty())
    };
    let slug = field("error").unwrap_or_default();
    let said = ["msg", "message", "detail"].into_iter().find_map(field);
    let said = match (said, json) {
        (Some(said), _) if slug.is_empty() || said.contains(&slug) => said,
        (Some(said), _) => printable(&format!("{slug}: {said}")),
        (None, _) if !slug.is_empty() => slug.clone(),
        (None, Some(_)) => "no reason".to_owned(),
        (None, None) => {
            let text = String::from_utf8_lossy(&body[..body.len().min(4 * TEXT_MAX)]);
            let page = text.trim_start().starts_with('<');
            if page { "a web page instead of data".to_owned() } else { printable(&text) }
        }
    };
    (slug, said)
}

/// A vendor's text on one line, bounded, without control characters.
pub(super) fn printable(text: &str) -> String {
    let clean: String = text.chars().take(TEXT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number that names something; some answers write it as text.
pub(super) fn id(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|id| *id > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failed(status: u16, body: &str) -> Failure {
        read(&Raw { status, body: body.into(), ..Raw::default() }).unwrap_err()
    }

    #[test]
    fn each_documented_shape_of_an_error_is_told_apart() {
        for (status, body, kind) in [
            (401, r#"{"success":false,"error":"auth_error","msg":"Invalid user key"}"#, Kind::Key),
            (403, r#"{"error":"forbidden","msg":"your own machine"}"#, Kind::Forbidden),
            (403, r#"{"error":"insufficient_credit","msg":"Your account lacks credit"}"#, Kind::Credit),
            (403, r#"{"error":"forbidden","msg":"no credit"}"#, Kind::Credit),
            (402, "", Kind::Credit),
            (
                404,
                r#"{"success":false,"error":"invalid_args","msg":"error 404/3603: no_such_ask Instance type by id 7 is not available"}"#,
                Kind::OfferGone,
            ),
            (410, r#"{"success":false,"error":"no_such_ask"}"#, Kind::OfferGone),
            (400, r#"{"success":false,"error":"invalid_price","msg":"too low"}"#, Kind::Invalid),
            (404, r#"{"success":false,"error":"no_such_instance"}"#, Kind::NotFound),
            (404, r#"{"success":false,"error":"not_found","msg":"x"}"#, Kind::NotFound),
            (404, "<html>no such page", Kind::Unknown),
            (404, r#"{"message":"moved to v2"}"#, Kind::Unknown),
            (429, r#"{"detail":"API requests too frequent endpoint threshold=4.5"}"#, Kind::Busy(0)),
            (429, "API requests too frequent", Kind::Busy(0)),
            (429, r#"{"error":"search_quota_exceeded","msg":"x"}"#, Kind::QuotaSpent(None)),
            (502, "<html><body>bad gateway", Kind::Unknown),
            (500, "", Kind::Unknown),
            (200, "<html>maintenance", Kind::Unknown),
            (200, r#"{"success":false,"msg":"no"}"#, Kind::Invalid),
            (200, "null", Kind::Unknown),
            (483, "invalid json", Kind::Invalid),
        ] {
            let failure = failed(status, body);
            assert_eq!((failure.kind, failure.contract), (kind, None), "{status} {body}");
            assert!(!failure.text.contains('<'), "{}", failure.text);
        }
        let raw = Raw { status: 429, retry_after_s: Some(7), ..Raw::default() };
        assert_eq!(read(&raw).unwrap_err().kind, Kind::Busy(7_000));
    }

    #[test]
    fn a_machine_that_was_made_all_the_same_is_found_in_the_error() {
        for body in [
            r#"{"success":false,"error":"bid_too_low","msg":"x","new_contract":77}"#,
            r#"{"success":false,"new_contract":"77"}"#,
        ] {
            for status in [200, 400, 410, 500] {
                assert_eq!(failed(status, body).contract, Some(77), "{status} {body}");
            }
        }
        assert_eq!(failed(400, r#"{"new_contract":null}"#).contract, None);
    }

    #[test]
    fn what_is_shown_is_short_and_has_no_control_characters() {
        let body = format!(r#"{{"msg":"\u001b[31m{}"}}"#, "x".repeat(10_000));
        let text = failed(400, &body).text;
        assert!(text.chars().count() < TEXT_MAX + 40 && !text.chars().any(char::is_control), "{text}");
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_fail(status in 0_u16..600, body in prop::collection::vec(any::<u8>(), 0..300)) {
            let answer = read(&Raw { status, body, ..Raw::default() });
            prop_assert!(status == 200 || answer.is_err());
        }
    }
}
