//! Runs the user's SSH client: in a process group of its own that ends with
//! this value, asked nothing, its error stream kept bounded and cleaned. Never
//! logs what goes in.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

use super::plan::End;
use crate::provider::end_group;

/// What SSH itself exits with where it does not connect.
const NO_CONNECTION: i32 = 255;
/// The last bytes of an error stream that are kept.
const TAIL: usize = 4 << 10;
/// The longest line that is told.
const LINE: usize = 300;
/// After the end the error stream may still bring the last words.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The end of an error stream.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        let over = kept.len().saturating_sub(TAIL);
        kept.drain(..over);
    }

    fn last_line(&self, hidden: &[&str]) -> String {
        last_line(&self.0.lock().unwrap_or_else(PoisonError::into_inner), hidden)
    }
}

/// The last line that says something, fit to be shown: without control
/// characters, not long, and without what must not be seen.
fn last_line(bytes: &[u8], hidden: &[&str]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut text = text.into_owned();
    for secret in hidden.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "(hidden)");
    }
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(LINE).collect()
}

async fn read_tail(mut from: impl AsyncRead + Unpin, tail: Tail) {
    let mut piece = vec![0; 1_024];
    while let Ok(n @ 1..) = from.read(&mut piece).await {
        tail.push(&piece[..n]);
    }
}

/// Ends the whole group: the client, and what it may have started to get
/// there.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.take() {
            end_group(leader);
        }
    }
}

/// A running client.
pub(super) struct Ssh {
    // Before the client: while it is not reaped its number is its own.
    group: Group,
    child: Child,
    tail: Tail,
    reading: JoinSet<()>,
}

/// Its two pipes.
pub(super) struct Pipes {
    pub(super) to: ChildStdin,
    pub(super) from: ChildStdout,
}

/// The program: what `OUTLAST_SSH` names, else `ssh`.
pub(super) fn program() -> OsString {
    std::env::var_os("OUTLAST_SSH").filter(|name| !name.is_empty()).unwrap_or_else(|| "ssh".into())
}

impl Ssh {
    /// Starts one.
    pub(super) fn start(arguments: &[OsString]) -> Result<(Self, Pipes), End> {
        let program = program();
        let failed = |why: String| {
            End::Here(format!("the SSH client `{}` cannot be started: {why}", program.to_string_lossy()))
        };
        let mut child = Command::new(&program)
            .args(arguments)
            .env_remove("VAST_API_KEY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let group = Group(child.id());
        let pipes: (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(to), Some(from), Some(errors)) = pipes else {
            return Err(failed("it has no pipes".into()));
        };
        let tail = Tail::default();
        let mut reading = JoinSet::new();
        reading.spawn(read_tail(errors, tail.clone()));
        Ok((Self { child, group, tail, reading }, Pipes { to, from }))
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.wait().await.ok();
        // The number may belong to somebody else from now on.
        self.group.0 = None;
        status
    }

    /// Waits for its end: its exit code, and the end of all it said.
    pub(super) async fn last_words(&mut self) -> (Option<i32>, String) {
        let status = self.ended().await;
        let _ = tokio::time::timeout(LAST_WORDS, self.reading.join_next()).await;
        let said = self.tail.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (status.and_then(|status| status.code()), String::from_utf8_lossy(&said).into_owned())
    }

    /// Waits for its end, and says what a failure means. `Ok`: it ended with 0.
    pub(super) async fn outcome(&mut self, hidden: &[&str]) -> Result<(), End> {
        let status = self.ended().await;
        let _ = tokio::time::timeout(LAST_WORDS, self.reading.join_next()).await;
        let text = self.tail.last_line(hidden);
        match status.and_then(|status| status.code()) {
            Some(0) => Ok(()),
            Some(NO_CONNECTION) => Err(End::Unconnected(or(text, "it said nothing"))),
            Some(code) => Err(End::Remote { code, text: or(text, "it said nothing") }),
            None => Err(End::Unconnected(or(text, "the SSH client was killed"))),
        }
    }
}

fn or(text: String, instead: &str) -> String {
    if text.is_empty() { instead.to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_short_clean_and_tell_no_secret() {
        assert_eq!(
            last_line(b"a\nPermission denied (publickey).\r\n\n", &[]),
            "Permission denied (publickey)."
        );
        assert_eq!(last_line(b"x \x1b[31mred\x07 s3cret", &["s3cret", ""]), "x [31mred (hidden)");
        assert_eq!(last_line("y".repeat(5_000).as_bytes(), &[]).len(), LINE);
        assert_eq!(last_line(b"\xff\n", &[]), "\u{fffd}");
        assert_eq!(last_line(b"", &[]), "");
        let tail = Tail::default();
        for _ in 0..100 {
            tail.push(&[b'z'; 1_000]);
        }
        assert_eq!(tail.0.lock().unwrap().len(), TAIL);
    }
}
