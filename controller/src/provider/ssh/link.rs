//! One conversation with a host: the user's own `ssh`, a script on its stdin, an
//! answer on its stdout. Whatever the host sends is bounded, and what does not
//! carry the call's tag (banners, the output of start-up files) is passed over.
//!
//! The script is only sent once a first line came back. So an end before that
//! line is a failure of the connection and left nothing behind; an end after it
//! may have changed anything. The two must never be mixed up.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::time::{Instant, timeout_at};

use super::trouble::{self, Trouble};

/// More than this from a host is no answer.
const MAX_ANSWER: usize = 4 << 20;
/// The longest line of an answer.
const MAX_LINE: usize = 16 << 10;
/// The most lines of an answer.
const MAX_LINES: usize = 20_000;
/// What is kept of what the client says: its end, where the reason is.
const MAX_SAID: usize = 4096;
/// How long the client may take to end after its answer.
const GRACE: Duration = Duration::from_secs(3);

/// Why there is no whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkError {
    /// There was no connection, or no shell at its end: the script was never
    /// sent.
    Before(Trouble),
    /// The answer ended early: what the script did is not known.
    Cut(String),
}

/// How long a conversation may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Until its first line.
    pub(super) connect: Duration,
    /// From there to its end.
    pub(super) answer: Duration,
}

/// One call's script and the tag that its answer carries.
pub(super) struct Script {
    /// Letters and digits that nobody else knows.
    pub(super) tag: String,
    /// What the shell is given once it answers.
    pub(super) text: String,
}

/// Runs a script and gives the lines of its answer, each as its words.
pub(super) async fn converse(
    program: &Path,
    arguments: &[OsString],
    script: &Script,
    limits: Limits,
) -> Result<Vec<Vec<String>>, LinkError> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").env_remove("VAST_API_KEY").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let missing = |error: std::io::Error| {
        let why = format!("cannot run `{}`: {error}", program.display());
        LinkError::Before(Trouble::Client(why))
    };
    let mut child = command.spawn().map_err(missing)?;
    let (Some(stdin), Some(stdout), Some(mut stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(LinkError::Before(Trouble::Client("its pipes are missing".into())));
    };
    let mut said = Said::default();
    let mut answer = Answer::new(stdout, &script.tag);
    let end = {
        let talk = talk(stdin, &mut answer, script, limits);
        tokio::pin!(talk);
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                end = &mut talk => break end,
                more = said.hear(&mut stderr), if open => open = more,
            }
        }
    };
    // Nobody listens any longer: what else comes ends the client.
    let lines = answer.lines;
    drop(answer.from);
    let code = finish(&mut child, &mut stderr, &mut said, &end).await;
    match end {
        End::Whole => Ok(lines),
        End::Never => Err(LinkError::Before(trouble::judge(code, &said.text()))),
        End::NeverInTime => {
            let seconds = limits.connect.as_secs();
            let why = format!("no answer within {seconds} s{}", said.after_colon());
            Err(LinkError::Before(Trouble::Unreachable(why)))
        }
        End::Flood => {
            Err(LinkError::Before(Trouble::NoShell("it sends without end before any answer".into())))
        }
        End::Cut(why) => Err(LinkError::Cut(format!("{why}{}", said.after_colon()))),
    }
}

/// How a conversation ended.
enum End {
    /// With its last line.
    Whole,
    /// Before its first line.
    Never,
    /// Its first line did not come in time.
    NeverInTime,
    /// Too much came before its first line.
    Flood,
    /// In between.
    Cut(String),
}

async fn talk<R: AsyncRead + Unpin>(
    mut stdin: ChildStdin,
    answer: &mut Answer<R>,
    script: &Script,
    limits: Limits,
) -> End {
    let until = Instant::now() + limits.connect;
    let greeting = format!("printf '%s begin\\n' {}\n", script.tag);
    // Where this fails, the reading ends as well.
    let _ = stdin.write_all(greeting.as_bytes()).await;
    match timeout_at(until, answer.find("begin")).await {
        Ok(Found::Yes) => {}
        Ok(Found::Ended) => return End::Never,
        Ok(Found::TooMuch) => return End::Flood,
        Err(_) => return End::NeverInTime,
    }
    let until = Instant::now() + limits.answer;
    let rest = async {
        let _ = stdin.write_all(script.text.as_bytes()).await;
        drop(stdin);
        answer.find("end").await
    };
    match timeout_at(until, rest).await {
        Ok(Found::Yes) => End::Whole,
        Ok(Found::Ended) => End::Cut("the connection ended before the answer did".into()),
        Ok(Found::TooMuch) => End::Cut("the host sent more than an answer can be".into()),
        Err(_) => End::Cut(format!("no whole answer within {} s", limits.answer.as_secs())),
    }
}

/// Has the client end, and gives its exit code.
async fn finish(child: &mut Child, stderr: &mut ChildStderr, said: &mut Said, end: &End) -> Option<i32> {
    if matches!(end, End::NeverInTime | End::Flood | End::Cut(_)) {
        let _ = child.start_kill();
    }
    let until = Instant::now() + GRACE;
    if matches!(end, End::Whole) {
        if timeout_at(until, child.wait()).await.is_err() {
            let _ = child.start_kill();
        }
        return None;
    }
    let _ = timeout_at(until, async { while said.hear(stderr).await {} }).await;
    match timeout_at(until, child.wait()).await {
        Ok(status) => status.ok()?.code(),
        Err(_) => {
            let _ = child.start_kill();
            None
        }
    }
}

/// The end of what the client said on stderr.
#[derive(Default)]
struct Said(Vec<u8>);

impl Said {
    /// Hears some more; `false` once nothing more will come.
    async fn hear(&mut self, from: &mut ChildStderr) -> bool {
        let mut bytes = [0_u8; 4096];
        let Ok(read @ 1..) = from.read(&mut bytes).await else { return false };
        self.0.extend_from_slice(&bytes[..read]);
        let extra = self.0.len().saturating_sub(MAX_SAID);
        self.0.drain(..extra);
        true
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// Its last line for people, with what stands before it.
    fn after_colon(&self) -> String {
        let last = trouble::last_line(&self.text());
        if last.is_empty() { last } else { format!(": {last}") }
    }
}

/// What was looked for in an answer.
enum Found {
    Yes,
    Ended,
    TooMuch,
}

/// The lines of a host that carry the tag.
struct Answer<R> {
    from: R,
    tag: Vec<u8>,
    taken: usize,
    buffer: Vec<u8>,
    /// The rest of the present line is dropped.
    skipping: bool,
    lines: Vec<Vec<String>>,
}

impl<R: AsyncRead + Unpin> Answer<R> {
    fn new(from: R, tag: &str) -> Self {
        let tag = format!("{tag} ").into_bytes();
        Self { from, tag, taken: 0, buffer: Vec::new(), skipping: false, lines: Vec::new() }
    }

    /// Reads on to the line of one such word.
    async fn find(&mut self, word: &str) -> Found {
        loop {
            while let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                if std::mem::take(&mut self.skipping) {
                    continue;
                }
                let Some(words) = self.words(&line) else { continue };
                if words == [word] {
                    return Found::Yes;
                }
                if self.lines.len() >= MAX_LINES {
                    return Found::TooMuch;
                }
                self.lines.push(words);
            }
            if self.buffer.len() > MAX_LINE {
                self.buffer.clear();
                self.skipping = true;
            }
            let mut bytes = [0_u8; 8192];
            let Ok(read @ 1..) = self.from.read(&mut bytes).await else { return Found::Ended };
            self.taken += read;
            if self.taken > MAX_ANSWER {
                return Found::TooMuch;
            }
            self.buffer.extend_from_slice(&bytes[..read]);
        }
    }

    /// The words of a line after the tag; `None`: it is no part of the answer.
    /// A start-up file may leave the beginning of its line before it.
    fn words(&self, line: &[u8]) -> Option<Vec<String>> {
        let at = line.windows(self.tag.len()).rposition(|part| part == self.tag)?;
        let text = std::str::from_utf8(&line[at + self.tag.len()..]).ok()?;
        let plain = text.trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~'));
        plain.then(|| text.split_whitespace().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn heard(bytes: &[u8]) -> (bool, Vec<Vec<String>>) {
        let mut answer = Answer::new(bytes, "t4g");
        let found = matches!(answer.find("end").await, Found::Yes);
        (found, answer.lines)
    }

    #[tokio::test]
    async fn only_tagged_lines_are_an_answer() {
        let noise = b"Welcome!\nt4 slot 9\nt4g slot 1 up\r\n\x1b[2Jt4g node a\nt4g bad\x00x\nprompt> t4g held 3\nt4g end\nt4g slot 2";
        let (whole, lines) = heard(noise).await;
        assert!(whole);
        let lines: Vec<String> = lines.iter().map(|words| words.join(" ")).collect();
        assert_eq!(lines, ["slot 1 up", "node a", "held 3"]);
    }

    #[tokio::test]
    async fn an_answer_without_its_end_and_a_flood_are_none() {
        assert!(!heard(b"t4g slot 1 up\nt4g en").await.0);
        assert!(!heard(&vec![b'x'; MAX_ANSWER + 1]).await.0);
        assert!(!heard("t4g a\n".repeat(MAX_LINES + 2).as_bytes()).await.0);
        let long = format!("t4g {}\nt4g end\n", "a".repeat(4 * MAX_LINE));
        assert_eq!(heard(long.as_bytes()).await, (true, vec![]), "a line without end is no line");
    }

    proptest! {
        #[test]
        fn whatever_comes_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (whole, lines) = runtime.block_on(heard(&bytes));
            prop_assert!(!whole && lines.is_empty() || bytes.windows(4).any(|w| w == b"t4g "));
        }
    }
}
