//! EC2 (IMDSv2): what its answers say. Pure.

use serde::Deserialize;

use super::time::rfc3339;
use super::{Kind, Notice, Word};

pub(super) const HOST: &str = "169.254.169.254";
pub(super) const TOKEN: &str = "/latest/api/token";
pub(super) const TOKEN_TTL: (&str, &str) = ("X-aws-ec2-metadata-token-ttl-seconds", "21600");
pub(super) const TOKEN_HEADER: &str = "X-aws-ec2-metadata-token";
pub(super) const ACTION: &str = "/latest/meta-data/spot/instance-action";
pub(super) const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";

#[derive(Deserialize)]
struct Action {
    action: String,
    time: String,
}

#[derive(Deserialize)]
struct Rebalance {
    #[serde(rename = "noticeTime")]
    notice_time: String,
}

/// A session token: what may stand in a header, and not much of it.
pub(super) fn token(status: u16, body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let fit = status == 200 && !text.is_empty() && text.len() <= 1_024;
    (fit && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
}

/// The answer to [`ACTION`].
pub(super) fn action(status: u16, body: &[u8]) -> Word {
    if status == 404 {
        return Word::Quiet;
    }
    let Some(said) = (status == 200).then(|| serde_json::from_slice::<Action>(body).ok()).flatten() else {
        return Word::Odd(format!("instance-action answered {status} with something that is no notice"));
    };
    if !matches!(said.action.as_str(), "terminate" | "stop" | "hibernate") {
        return Word::Odd("instance-action names an action that is not known".into());
    }
    match rfc3339(&said.time) {
        Some(until) => Word::Notice(Notice::new(Kind::Ends, &said.action, Some(until))),
        None => Word::Odd("instance-action names no time".into()),
    }
}

/// The answer to [`REBALANCE`]: it comes earlier and promises nothing.
pub(super) fn rebalance(status: u16, body: &[u8]) -> Word {
    if status == 404 {
        return Word::Quiet;
    }
    let said = (status == 200).then(|| serde_json::from_slice::<Rebalance>(body).ok()).flatten();
    match said.filter(|said| rfc3339(&said.notice_time).is_some()) {
        Some(_) => Word::Notice(Notice::new(Kind::MayEnd, "rebalance recommendation", None)),
        None => Word::Odd(format!("rebalance answered {status} with something that is no notice")),
    }
}

/// Both together: an end outweighs a recommendation.
pub(super) fn both(action: Word, rebalance: Word) -> Word {
    match (&action, &rebalance) {
        (Word::Notice(_), _) | (_, Word::Quiet) | (Word::Odd(_), Word::Odd(_)) => action,
        _ => rebalance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_a_notice_with_its_time_and_nothing_else_is_one() {
        let body = br#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#;
        let Word::Notice(notice) = action(200, body) else { panic!("no notice") };
        assert_eq!((notice.kind, notice.text.as_str()), (Kind::Ends, "terminate"));
        assert_eq!(notice.until_unix_ms, Some(1_505_722_920_000));
        assert_eq!(action(404, b"<html>"), Word::Quiet);
        let odd: [(u16, &[u8]); 7] = [
            (200, b""),
            (200, b"<html>"),
            (200, b"[1]"),
            (200, br#"{"action":"dance","time":"2017-09-18T08:22:00Z"}"#),
            (200, br#"{"action":"stop","time":"soon"}"#),
            (500, body),
            (302, body),
        ];
        for (status, body) in odd {
            assert!(matches!(action(status, body), Word::Odd(_)), "{status} {body:?}");
            assert!(matches!(rebalance(status, body), Word::Odd(_)), "{status} {body:?}");
        }
    }

    #[test]
    fn a_recommendation_is_a_hint_that_a_notice_outweighs() {
        let hint = rebalance(200, br#"{"noticeTime":"2020-11-05T08:22:00Z"}"#);
        assert!(matches!(&hint, Word::Notice(notice) if notice.kind == Kind::MayEnd));
        let end = action(200, br#"{"action":"stop","time":"2017-09-18T08:22:00Z"}"#);
        assert_eq!(both(end.clone(), hint.clone()), end);
        assert_eq!(both(Word::Quiet, hint.clone()), hint);
        assert_eq!(both(Word::Odd("x".into()), hint.clone()), hint);
        assert_eq!(both(Word::Quiet, Word::Quiet), Word::Quiet);
    }

    #[test]
    fn a_token_that_could_end_a_header_is_none() {
        assert_eq!(token(200, b"AQAE==\n").as_deref(), Some("AQAE=="));
        assert_eq!(token(200, b"a\r\nX-Other: b"), None);
        assert_eq!(token(403, b"AQAE"), None);
        assert_eq!(token(200, &[b'a'; 2_000]), None);
    }
}
