//! What keeps a store from being used, in kinds that each have a cure. Whoever
//! sets a store up is told the cure; whoever only uses it is told the kind.

use std::fmt;

use super::StoreError;

/// Why a store across the network did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Nobody answers at the address, or there is no such address.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The one who answers cannot show a certificate that is trusted.
    #[error("its certificate is not trusted: {0}")]
    Certificate(String),
    /// It took the request and gave no answer in time.
    #[error("it did not answer in time")]
    TimedOut,
    /// The connection broke before all of a request or of its answer had come.
    #[error("the connection broke before everything had come")]
    Torn,
    /// It asks for fewer requests.
    #[error("it asks to slow down (status {0})")]
    Busy(u16),
    /// It failed by itself.
    #[error("it failed (status {0})")]
    Failing(u16),
    /// The bucket is not there.
    #[error("the bucket does not exist")]
    BucketMissing,
    /// It does not know the credentials, or they are wrong or expired.
    #[error("it refuses the credentials ({0})")]
    Credentials(String),
    /// It knows the credentials, and they may not do this.
    #[error("the credentials may not do this ({0})")]
    Denied(String),
    /// Reading goes well and writing is refused.
    #[error("it is read-only ({0})")]
    ReadOnly(String),
    /// The clocks are too far apart for signatures.
    #[error("its clock and this computer's are {}", apart(*.0))]
    ClockSkew(Option<i64>),
    /// No room is left.
    #[error("it is full ({0})")]
    Full(String),
    /// It was told to create, and wrote over an object.
    #[error("it overwrites objects although it was asked only to create them")]
    Overwrites,
    /// The bucket is served elsewhere.
    #[error("the bucket is in another region or at another address (status {0})")]
    Elsewhere(u16),
    /// The answer makes no sense for a store.
    #[error("its answer is none of an object store: {0}")]
    Senseless(String),
}

fn apart(skew_ms: Option<i64>) -> String {
    skew_ms.map_or_else(|| "too far apart".to_owned(), |ms| format!("{} s apart", ms.unsigned_abs() / 1000))
}

impl Trouble {
    /// Whether the same request may go well a moment later.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::TimedOut | Self::Torn | Self::Busy(_) | Self::Failing(_))
    }

    /// What a person can do about it.
    #[must_use]
    pub fn cure(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "check `endpoint` and the network between here and there",
            Self::Certificate(_) => "give the authority that signed it as `ca_file`",
            Self::TimedOut | Self::Torn | Self::Busy(_) | Self::Failing(_) => {
                "it may pass; if it stays, look at the state of the store itself"
            }
            Self::BucketMissing => "create the bucket, or correct `bucket`",
            Self::Credentials(_) => {
                "correct the access key and its secret, and renew the session token if there is one"
            }
            Self::Denied(_) | Self::ReadOnly(_) => {
                "allow the key to put, get, list and delete objects in the bucket, and unlock the bucket if a \
                 policy or a lock forbids it"
            }
            Self::ClockSkew(_) => "set this computer's clock, best by a time service such as chrony",
            Self::Full(_) => "free space in the store, or raise the quota of the bucket",
            Self::Overwrites => {
                "use a store that honours If-None-Match; if only one controller ever writes to the bucket, \
                 `accept_overwrites = true` does without"
            }
            Self::Elsewhere(_) => "correct `region` and `endpoint`",
            Self::Senseless(_) => "check that `endpoint` names the store itself, not a web page or a proxy",
        }
    }

    /// As an error of the store.
    #[must_use]
    pub fn into_error(self) -> StoreError {
        match self {
            Self::Full(what) => StoreError::Full(what),
            other => StoreError::Remote(other.to_string()),
        }
    }
}

/// Text from elsewhere, short enough and without control characters.
#[must_use]
pub fn foreign(text: &str) -> String {
    struct Plain<'a>(&'a str);
    impl fmt::Display for Plain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.chars().take(160).try_for_each(|c| {
                if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
                    write!(f, "{}", c.escape_default())
                } else {
                    write!(f, "{c}")
                }
            })
        }
    }
    Plain(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_bounded_and_plain() {
        assert_eq!(foreign("a\x1b[2Jb\u{202e}"), "a\\u{1b}[2Jb\\u{202e}");
        assert_eq!(foreign(&"x".repeat(1000)).len(), 160);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(Trouble::Busy(503).passes() && Trouble::TimedOut.passes());
        for stays in [
            Trouble::BucketMissing,
            Trouble::Credentials("x".into()),
            Trouble::ClockSkew(None),
            Trouble::Full("x".into()),
            Trouble::Overwrites,
        ] {
            assert!(!stays.passes(), "{stays}");
            assert!(!stays.cure().is_empty());
        }
        assert_eq!(
            Trouble::ClockSkew(Some(-903_500)).to_string(),
            "its clock and this computer's are 903 s apart"
        );
    }
}
