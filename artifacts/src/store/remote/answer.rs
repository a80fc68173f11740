//! Reads what a store answered out of the library's errors. A missing object
//! and a missing bucket both come as 404, and only the error's code tells them
//! apart: whoever took the one for the other would give saved work up as lost.

use std::error::Error as StdError;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use crate::store::trouble::{Trouble, foreign};

/// An answer other than the one hoped for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The store says that there is no such object, in so many words.
    Absent,
    /// 404 without a word: no such object or no such bucket.
    Nothing,
    /// There is an object by that name, or somebody is just writing one.
    Taken,
    /// The object has no such bytes.
    BadRange,
    /// Something else.
    Trouble(Trouble),
}

impl Answer {
    /// What cannot be told apart is trouble.
    pub(super) fn into_trouble(self) -> Trouble {
        match self {
            Self::Trouble(trouble) => trouble,
            Self::Absent => Trouble::Senseless("it has lost an object".into()),
            Self::Nothing => Trouble::Senseless("404 without a reason".into()),
            Self::Taken => Trouble::Busy(409),
            Self::BadRange => Trouble::Senseless("a range that it just confirmed is refused".into()),
        }
    }
}

impl From<Trouble> for Answer {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// The answer in an error.
pub(super) fn read(error: &Error) -> Answer {
    let text = whole_text(error);
    let code = code(&text).unwrap_or_default();
    if let Some(answer) = by_code(code) {
        return answer;
    }
    match error {
        Error::NotFound { .. } => Answer::Nothing,
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => Answer::Taken,
        Error::PermissionDenied { .. } => Trouble::Denied(named(code, 403)).into(),
        Error::Unauthenticated { .. } => Trouble::Credentials(named(code, 401)).into(),
        _ => other(error, &text, code),
    }
}

/// Codes that say more than the status that they come with.
fn by_code(code: &str) -> Option<Answer> {
    Some(match code {
        "NoSuchKey" | "BlobNotFound" => Answer::Absent,
        "NoSuchBucket" | "ContainerNotFound" => Trouble::BucketMissing.into(),
        "InvalidRange" => Answer::BadRange,
        "RequestTimeTooSkewed" => Trouble::ClockSkew(None).into(),
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "AuthorizationHeaderMalformed"
        | "AuthenticationFailed"
        | "InvalidSecurity" => Trouble::Credentials(code.to_owned()).into(),
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "EntityTooLargeForQuota"
        | "StorageFull"
        | "InsufficientStorage"
        | "AccountQuotaExceeded" => Trouble::Full(code.to_owned()).into(),
        "SlowDown" | "ServiceUnavailable" | "RequestLimitExceeded" | "TooManyRequests" | "ServerBusy" => {
            Trouble::Busy(503).into()
        }
        "InternalError" => Trouble::Failing(500).into(),
        // What came was not what was sent.
        "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            Trouble::Torn.into()
        }
        "RequestTimeout" => Trouble::TimedOut.into(),
        "PermanentRedirect" | "TemporaryRedirect" => Trouble::Elsewhere(301).into(),
        "MethodNotAllowed" | "XMinioObjectLocked" | "InvalidObjectState" => {
            Trouble::ReadOnly(code.to_owned()).into()
        }
        _ => return None,
    })
}

fn other(error: &Error, text: &str, code: &str) -> Answer {
    match status(text) {
        Some(404) => return Answer::Nothing,
        Some(409 | 412) => return Answer::Taken,
        Some(416) => return Answer::BadRange,
        Some(401) => return Trouble::Credentials(named(code, 401)).into(),
        Some(403) => return Trouble::Denied(named(code, 403)).into(),
        Some(507) => return Trouble::Full(named(code, 507)).into(),
        Some(408) => return Trouble::TimedOut.into(),
        Some(status @ (429 | 503)) => return Trouble::Busy(status).into(),
        Some(status @ 500..=599) => return Trouble::Failing(status).into(),
        Some(status @ 300..=399) => return Trouble::Elsewhere(status).into(),
        Some(status) => return Trouble::Senseless(named(code, status)).into(),
        None if text.contains("redirect without LOCATION") => return Trouble::Elsewhere(301).into(),
        None => {}
    }
    let Some(http) = causes(error).find_map(|cause| cause.downcast_ref::<HttpError>()) else {
        return Trouble::Senseless(foreign(&deepest(error))).into();
    };
    match http.kind() {
        HttpErrorKind::Timeout => Trouble::TimedOut,
        HttpErrorKind::Connect | HttpErrorKind::Request => {
            let why = foreign(&deepest(error));
            let untrusted = text.contains("certificate") || why.contains("certificate");
            match http.kind() {
                _ if untrusted => Trouble::Certificate(why),
                HttpErrorKind::Connect => Trouble::Unreachable(why),
                // It was connected, and the request may have been heard.
                _ => Trouble::Torn,
            }
        }
        HttpErrorKind::Interrupted | HttpErrorKind::Decode => Trouble::Torn,
        // The library knows of more kinds than it can name: broken off in the
        // middle, mostly.
        _ => Trouble::Torn,
    }
    .into()
}

fn named(code: &str, status: u16) -> String {
    if code.is_empty() { format!("status {status}") } else { code.to_owned() }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source()).take(16)
}

fn deepest(error: &Error) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// Every message of the chain: some name their cause and some do not.
fn whole_text(error: &Error) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let message = cause.to_string();
        text.extend(message.chars().take(8 << 10));
        text.push('\n');
    }
    text
}

/// The code of an error in XML, if it looks like one.
fn code(text: &str) -> Option<&str> {
    let rest = text.split_once("<Code>")?.1;
    let code = rest.split_once("</Code>")?.0;
    let plain = (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then_some(code)
}

fn status(text: &str) -> Option<u16> {
    let rest = text.split_once("non-2xx status code: ")?.1;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        let with = |code: &str| Error::NotFound {
            path: "a".into(),
            source: format!("Server returned non-2xx status code: 404 Not Found: <Error><Code>{code}</Code>")
                .into(),
        };
        assert_eq!(read(&with("NoSuchKey")), Answer::Absent);
        assert_eq!(read(&with("NoSuchBucket")), Answer::Trouble(Trouble::BucketMissing));
        for torn in ["IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"] {
            let error = generic(&format!("non-2xx status code: 400 Bad: <Code>{torn}</Code>"));
            assert_eq!(read(&error), Answer::Trouble(Trouble::Torn));
        }
        let silent =
            Error::NotFound { path: "a".into(), source: "Server returned non-2xx status code: 404".into() };
        assert_eq!(read(&silent), Answer::Nothing);
    }

    #[test]
    fn statuses_are_told_apart() {
        let with = |status: &str| read(&generic(&format!("Server returned non-2xx status code: {status}: ")));
        assert_eq!(with("503 Service Unavailable"), Answer::Trouble(Trouble::Busy(503)));
        assert_eq!(with("500 Internal Server Error"), Answer::Trouble(Trouble::Failing(500)));
        assert_eq!(with("507 Insufficient Storage"), Answer::Trouble(Trouble::Full("status 507".into())));
        assert_eq!(with("416 Range Not Satisfiable"), Answer::BadRange);
        assert_eq!(with("301 Moved"), Answer::Trouble(Trouble::Elsewhere(301)));
        assert_eq!(with("418 I'm a teapot"), Answer::Trouble(Trouble::Senseless("status 418".into())));
        assert!(matches!(read(&generic("nonsense")), Answer::Trouble(Trouble::Senseless(_))));
    }

    #[test]
    fn a_hostile_code_is_no_code() {
        let long = "x".repeat(65);
        for bad in ["", "a\x1b[0m", &long, "a b"] {
            assert_eq!(code(&format!("<Code>{bad}</Code>")), None, "{bad}");
        }
    }
}
