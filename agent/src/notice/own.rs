//! The user's own word: a command that ends with 0, or a file that is there.
//! Either may say more in one line of JSON, such as
//! `{"seconds": 90, "text": "moved", "kind": "may-end"}`. Pure but for the look.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::{Kind, Notice, Word};
use crate::os::{self, Kept};

/// How long the command may take.
const LIMIT: Duration = Duration::from_secs(5);
/// What is read of it, or of the file.
const MOST: usize = 4_096;

#[derive(Debug, Default, Deserialize)]
struct More {
    #[serde(default)]
    seconds: Option<f64>,
    /// The same as a moment: who reads it late reads the same.
    #[serde(default)]
    until_unix_ms: Option<u64>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    kind: String,
}

/// What a notice says besides that it is there.
fn notice(said: &[u8], now_ms: u64) -> Notice {
    let line = said.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).find(|line| line.starts_with(b"{"));
    let more = line.and_then(|line| serde_json::from_slice::<More>(line).ok()).unwrap_or_default();
    let until = more.seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0).map(|seconds| {
        let in_ms = Duration::try_from_secs_f64(seconds)
            .map_or(u64::MAX, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        now_ms.saturating_add(in_ms)
    });
    let until = more.until_unix_ms.or(until);
    let kind = if more.kind == "may-end" { Kind::MayEnd } else { Kind::Ends };
    let text = if more.text.is_empty() { "notice" } else { &more.text };
    Notice::new(kind, text, until)
}

/// From how a command ended and what it printed.
fn word(code: Option<i32>, said: &str, now_ms: u64) -> Word {
    match code {
        Some(0) => Word::Notice(notice(said.as_bytes(), now_ms)),
        Some(1) => Word::Quiet,
        Some(code) => Word::Odd(format!("the command ended with {code}: 0 is a notice, 1 is none")),
        None => Word::Odd(format!("the command was ended by a signal, or after {} s", LIMIT.as_secs())),
    }
}

/// Runs the command. Blocks.
pub(super) fn hook(argv: &[String], cwd: &Path, env: &BTreeMap<String, String>, now_ms: u64) -> Word {
    if !cwd.is_dir() {
        // The tree is still being made.
        return Word::Quiet;
    }
    match os::run_bounded(argv, cwd, env, LIMIT, MOST, Kept::Stdout) {
        Ok(ended) => word(ended.code, &ended.said, now_ms),
        Err(error) => Word::Odd(format!("the command cannot be run: {error}")),
    }
}

/// Looks for the file. Blocks.
pub(super) fn file(path: &Path, now_ms: u64) -> Word {
    match os::read_bounded(path, MOST) {
        Ok(bytes) => Word::Notice(notice(&bytes, now_ms)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Word::Quiet,
        // One of any size is there.
        Err(_) if path.is_file() => Word::Notice(notice(b"", now_ms)),
        Err(error) => Word::Odd(format!("the file cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_it_by_its_end_and_may_say_more() {
        let Word::Notice(plain) = word(Some(0), "", 5) else { panic!("no notice") };
        assert_eq!((plain.kind, plain.until_unix_ms, plain.text.as_str()), (Kind::Ends, None, "notice"));
        let line = "checking\n {\"seconds\": 1.5, \"text\": \"mo\\u001bved\", \"kind\": \"may-end\"}\n";
        let Word::Notice(more) = word(Some(0), line, 5) else { panic!("no notice") };
        assert_eq!((more.kind, more.until_unix_ms, more.text.as_str()), (Kind::MayEnd, Some(1_505), "moved"));
        for odd in ["{", "{\"seconds\": -1}", "{\"seconds\": 1e300}", "[]", "{\"seconds\": \"x\"}"] {
            assert!(matches!(word(Some(0), odd, 5), Word::Notice(_)), "{odd}");
        }
        let Word::Notice(moment) = word(Some(0), "{\"until_unix_ms\": 77, \"seconds\": 9}", 5) else {
            panic!("no notice")
        };
        assert_eq!(moment.until_unix_ms, Some(77));
        assert_eq!(word(Some(1), "x", 5), Word::Quiet);
        assert!(matches!(word(Some(2), "x", 5), Word::Odd(_)));
        assert!(matches!(word(None, "x", 5), Word::Odd(_)));
    }

    #[test]
    fn a_file_says_it_by_being_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        assert_eq!(file(&path, 5), Word::Quiet);
        std::fs::write(&path, "").unwrap();
        assert!(matches!(file(&path, 5), Word::Notice(_)));
        std::fs::write(&path, "x".repeat(100_000)).unwrap();
        assert!(matches!(file(&path, 5), Word::Notice(_)));
        let env = BTreeMap::new();
        let echo = ["/bin/sh", "-c", "echo '{\"seconds\": 2}'"].map(str::to_owned);
        let word = hook(&echo, dir.path(), &env, 5);
        assert!(matches!(word, Word::Notice(notice) if notice.until_unix_ms == Some(2_005)));
        assert!(matches!(hook(&["/nowhere".into()], dir.path(), &env, 5), Word::Odd(_)));
    }
}
