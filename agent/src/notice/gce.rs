//! Google's metadata service: what its answers say. Pure.

use super::{Kind, Notice, Word};

pub(super) const HOST: &str = "metadata.google.internal";
pub(super) const FLAVOR: (&str, &str) = ("Metadata-Flavor", "Google");
pub(super) const PREEMPTED: &str = "/computeMetadata/v1/instance/preempted";
pub(super) const MAINTENANCE: &str = "/computeMetadata/v1/instance/maintenance-event";
/// Between the word and the end at the most; how much it is, is not told.
const PREEMPTED_MS: u64 = 30_000;
/// The shortest notice of maintenance. Most kinds of GPU get an hour, and
/// which one this is, is not told.
const MAINTENANCE_MS: u64 = 60_000;

/// The answer to [`PREEMPTED`], heard at `now_ms`.
pub(super) fn preempted(status: u16, body: &[u8], now_ms: u64) -> Word {
    match (status, body.trim_ascii()) {
        (200, b"FALSE") => Word::Quiet,
        (200, b"TRUE") => {
            Word::Notice(Notice::new(Kind::Ends, "preempted", Some(now_ms.saturating_add(PREEMPTED_MS))))
        }
        _ => Word::Odd(format!("instance/preempted answered {status} and neither TRUE nor FALSE")),
    }
}

/// The answer to [`MAINTENANCE`]. What is moved while it runs is not taken.
pub(super) fn maintenance(status: u16, body: &[u8], now_ms: u64) -> Word {
    match (status, body.trim_ascii()) {
        (200, b"NONE" | b"MIGRATE_ON_HOST_MAINTENANCE") | (404, _) => Word::Quiet,
        (200, b"TERMINATE_ON_HOST_MAINTENANCE") => {
            let until = Some(now_ms.saturating_add(MAINTENANCE_MS));
            Word::Notice(Notice::new(Kind::Ends, "terminate on host maintenance", until))
        }
        _ => Word::Odd(format!("instance/maintenance-event answered {status} with an unknown word")),
    }
}

/// Both together.
pub(super) fn both(preempted: Word, maintenance: Word) -> Word {
    match (&preempted, &maintenance) {
        (Word::Notice(_), _) | (_, Word::Quiet) | (Word::Odd(_), Word::Odd(_)) => preempted,
        _ => maintenance,
    }
}

/// What may stand in the query of the next question.
pub(super) fn etag(text: &str) -> Option<&str> {
    let fit = !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    fit.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_words_are_understood() {
        assert_eq!(preempted(200, b"FALSE\n", 5), Word::Quiet);
        let Word::Notice(notice) = preempted(200, b"TRUE", 5) else { panic!("no notice") };
        assert_eq!((notice.kind, notice.until_unix_ms), (Kind::Ends, Some(30_005)));
        for (status, body) in
            [(200, &b"true"[..]), (200, b""), (503, b"TRUE"), (200, b"TRUE FALSE"), (301, b"TRUE")]
        {
            assert!(matches!(preempted(status, body, 0), Word::Odd(_)), "{status} {body:?}");
        }
        assert_eq!(maintenance(200, b"NONE", 0), Word::Quiet);
        assert_eq!(maintenance(200, b"MIGRATE_ON_HOST_MAINTENANCE", 0), Word::Quiet);
        assert!(matches!(maintenance(200, b"TERMINATE_ON_HOST_MAINTENANCE", 0), Word::Notice(_)));
        assert!(matches!(maintenance(200, b"EXPLODE", 0), Word::Odd(_)));
        let late = maintenance(200, b"TERMINATE_ON_HOST_MAINTENANCE", 0);
        assert_eq!(both(Word::Quiet, late.clone()), late);
        assert_eq!(both(preempted(200, b"TRUE", 5), late), preempted(200, b"TRUE", 5));
    }

    #[test]
    fn a_tag_that_could_change_the_question_is_none() {
        assert_eq!(etag("d8e8fca2dc0f896f"), Some("d8e8fca2dc0f896f"));
        for bad in ["", "a&alt=json", "a b", "a\r\nX: y"] {
            assert_eq!(etag(bad), None);
        }
    }
}
