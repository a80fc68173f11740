//! Which exception a program ended with, as the runtimes of several languages
//! print it, and whether it ended with it at all: what `logging.exception` or
//! an `except` prints looks the same as what nobody caught. An exception that
//! the program went on after must never be called certain.

use super::{Evidence, window};
use crate::exit::Exit;

/// What launchers raise about the failure of a child: it names no cause.
pub(super) const WRAPPERS: [&str; 4] =
    ["childfailederror", "calledprocesserror", "processraisedexception", "processexitedexception"];

/// Ends of the names of exceptions.
const EXCEPTIONS: [&str; 7] = ["Error", "Exception", "Interrupt", "Exit", "Failure", "Mismatch", "Group"];
/// What runtimes put before an exception: Java, .NET, Julia, Go, Node.
const HEADS: [&str; 7] = [
    "Caused by: ",
    "Unhandled exception. ",
    "ERROR: LoadError: ",
    "ERROR: ",
    "Uncaught ",
    "panic: ",
    "fatal error: ",
];
/// Those of them whose words need no name.
const SPEAKING: [&str; 2] = ["panic: ", "fatal error: "];
/// What other failures bring about, in small letters.
const CONSEQUENCES: [&str; 9] = [
    "nccl",
    "peer closed",
    "closed by peer",
    "connection closed",
    "reset by peer",
    "connectionreseterror",
    "broken pipe",
    "brokenpipeerror",
    "eoferror",
];
/// Between a cause and what Python raised meanwhile.
const CHAINED: [&str; 2] =
    ["During handling of the above exception", "was the direct cause of the following"];
/// Beginnings of lines that are printed after an exception that ended a
/// program: by Python's own end, by launchers, loggers and shells.
const AFTERWARDS: [&str; 30] = [
    "Traceback (",
    "During handling",
    "The above exception",
    "Exception ignored",
    "Exception in thread",
    "Process ",
    "terminate called",
    "Fatal Python error",
    "Current thread",
    "Thread 0x",
    "Extension modules",
    "Aborted",
    "Root Cause",
    "Failures:",
    "wandb:",
    "srun:",
    "slurmstepd:",
    "mpirun",
    "prterun",
    "Primary job",
    "make:",
    "make[",
    "Set the environment variable HYDRA",
    "For simplicity, JAX",
    "CUDA kernel errors",
    "For debugging consider",
    "Compile with `TORCH",
    "Device-side assert",
    "Cannot access gated",
    "Access to model",
];
/// Signs of such lines anywhere in them.
const ANYWHERE: [&str; 8] =
    ["Warning:", "it/s", "s/it", "resource_tracker", "exitcode", "FAILED", "torch/distributed", "%|"];
/// So many lines more are no message of an exception any longer.
const MESSAGE_LINES: usize = 12;

/// What became of a program after an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Aftermath {
    /// It ended with it.
    Ended,
    /// It may have: it said more, or chose an exit code of its own.
    Said,
    /// It went on.
    WentOn,
}

/// The exception that stands for the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exception {
    /// Its line, trimmed.
    pub(super) line: String,
    pub(super) aftermath: Aftermath,
}

/// Without `[rank3]:` and the like, and which rank that was.
pub(super) fn unranked(line: &str) -> (Option<u32>, &str) {
    let text = line.trim();
    let Some((inner, rest)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) else {
        return (None, text);
    };
    let name = inner.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let known = matches!(inner.len() - name.len(), 0 | 4 | 7) && (inner.len() < 12);
    match name.parse() {
        Ok(rank) if known => (Some(rank), rest.trim_start_matches(':').trim_start()),
        _ => (None, text),
    }
}

/// Whether the line names an exception as its runtime prints it.
fn is_exception(line: &str) -> bool {
    let (_, text) = unranked(line);
    // The bars of an `ExceptionGroup`.
    let text = text.trim_start_matches(['|', '+', ' ']);
    if text.contains("panicked at") || SPEAKING.iter().any(|head| text.starts_with(head)) {
        return true;
    }
    let text = HEADS.iter().find_map(|head| text.strip_prefix(head)).unwrap_or(text);
    // `Exception in thread "main" java.lang.X: text`.
    let text = text
        .strip_prefix("Exception in thread \"")
        .and_then(|rest| Some(rest.split_once("\" ")?.1))
        .unwrap_or(text);
    let head = text.split([':', ' ']).next().unwrap_or_default();
    let name = head.rsplit('.').next().unwrap_or_default();
    let named = EXCEPTIONS.iter().any(|end| name.ends_with(end)) && name.len() > 5;
    let wraps = WRAPPERS.iter().any(|wrapper| text.to_lowercase().contains(wrapper));
    let alone = text.len() == head.len() && text.starts_with(char::is_alphabetic);
    named && !wraps && (alone || text[head.len()..].starts_with(':') || is_group(name, &text[head.len()..]))
}

/// `ExceptionGroup: words (2 sub-exceptions)` has its colon; older ports of it
/// have none.
fn is_group(name: &str, rest: &str) -> bool {
    name.ends_with("Group") && rest.contains("sub-exception")
}

fn is_consequence(line: &str) -> bool {
    let lower = line.to_lowercase();
    CONSEQUENCES.iter().any(|words| lower.contains(words))
}

/// Whether the program itself said this after an exception.
fn is_talk(line: &str) -> bool {
    let (rank, text) = unranked(line);
    let body = if rank.is_some() { text } else { line.trim_end() };
    let is_indented = line.starts_with(char::is_whitespace) || rank.is_some();
    let logged = {
        // `E1124 12:00:00.1 ...`, `[E1124 ...`: what launchers log.
        let mut chars = body.trim_start_matches('[').chars();
        matches!(chars.next(), Some('E' | 'W' | 'I' | 'F')) && chars.take(4).all(|c| c.is_ascii_digit())
    };
    let ruled = body.chars().take(3).all(|c| matches!(c, '-' | '=' | '*' | '^' | '~'));
    !(body.trim().is_empty()
        || is_indented
        || logged
        || ruled
        || body.starts_with(['|', '+', '['])
        || AFTERWARDS.iter().any(|begin| body.starts_with(begin))
        || ANYWHERE.iter().any(|sign| body.contains(sign))
        || is_exception(line)
        || is_consequence(line))
}

/// Words of progress: whoever counts steps has not ended.
fn is_progress(line: &str) -> bool {
    let lower = line.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.any(|word| matches!(word, "step" | "epoch" | "iter" | "iteration"))
        && lower.contains(|c: char| c.is_ascii_digit())
}

fn aftermath(lines: &[String], at: usize, e: &Evidence) -> Aftermath {
    // Only what Python prints is printed alike by those who go on.
    if !lines[..at]
        .iter()
        .any(|line| unranked(line).1.trim_start_matches(['|', '+', ' ', '-']).starts_with("Traceback ("))
    {
        return Aftermath::Ended;
    }
    let after = &lines[at + 1..];
    let talk: Vec<&String> = after.iter().filter(|line| is_talk(line)).collect();
    if talk.len() > MESSAGE_LINES || talk.iter().any(|line| is_progress(line)) {
        return Aftermath::WentOn;
    }
    // `make` has a code of its own.
    let made = after.iter().any(|line| line.starts_with("make") && line.contains("***"));
    let chosen = matches!(e.exit, Some(Exit::Code { code }) if code != 1 && code < 128) && !made;
    if talk.is_empty() && !chosen { Aftermath::Ended } else { Aftermath::Said }
}

/// The exception of these lines that stands for the end.
fn of(lines: &[String], e: &Evidence) -> Option<Exception> {
    let last = lines.iter().rposition(|line| is_exception(line))?;
    let mut at = last;
    if is_consequence(&lines[last]) {
        // What one rank raised breaks the connections of the others, who say so
        // later.
        let before = lines[..last].iter().enumerate().rev();
        let before = before
            .take_while(|(_, line)| !CHAINED.iter().any(|words| line.contains(words)) && !is_talk(line));
        at = before
            .filter(|(_, line)| is_exception(line) && !is_consequence(line))
            .map(|(at, _)| at)
            .next()
            .unwrap_or(last);
    }
    Some(Exception { line: lines[at].trim().to_owned(), aftermath: aftermath(lines, at, e) })
}

/// The last exception, of the end of the error stream, of the output, or of
/// all that is left of the error stream.
pub(super) fn last(e: &Evidence) -> Option<Exception> {
    of(window(&e.stderr), e).or_else(|| of(window(&e.stdout), e)).or_else(|| {
        let far = of(&e.stderr, e)?;
        Some(Exception { aftermath: Aftermath::WentOn, ..far })
    })
}
