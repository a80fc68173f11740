//! What programs print before they end, as frameworks and systems word it, and
//! what that means. The last error decides; a mark further up counts less,
//! since programs survive errors. What another failure brings about (a timeout
//! of the ranks that were left waiting) never outweighs that failure.

use super::Confidence::{self, Likely, Possible};
use super::table::{MARKS, Mark};
use super::{Cause, Evidence, Verdict, window};
use crate::exit::Exit;

/// What launchers raise about the failure of a child: it names no cause.
const WRAPPERS: [&str; 4] =
    ["childfailederror", "calledprocesserror", "processraisedexception", "processexitedexception"];

/// Ends of the names of exceptions.
const EXCEPTIONS: [&str; 5] = ["Error", "Exception", "Interrupt", "Exit", "Failure"];

/// Without `[rank3]:` and the like, and which rank that was.
fn unranked(line: &str) -> (Option<u32>, &str) {
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

/// The last line that names an exception, as Python prints it.
pub(super) fn exception(e: &Evidence) -> Option<String> {
    let is_one = |line: &&String| {
        let (_, text) = unranked(line);
        let head = text.split([':', ' ']).next().unwrap_or_default();
        let name = head.rsplit('.').next().unwrap_or_default();
        let named = EXCEPTIONS.iter().any(|end| name.ends_with(end)) && name.len() > 4
            || text.contains("panicked at");
        let wraps = WRAPPERS.iter().any(|wrapper| text.to_lowercase().contains(wrapper));
        named
            && !wraps
            && (text.len() == head.len()
                || text[head.len()..].starts_with(':')
                || text.contains("panicked at"))
    };
    window(&e.stderr)
        .iter()
        .rev()
        .find(is_one)
        .or_else(|| window(&e.stdout).iter().rev().find(is_one))
        .map(|l| l.trim().to_owned())
}

/// The last line with this text, in any stream.
pub(super) fn last_with(e: &Evidence, text: &str) -> Option<String> {
    [&e.stderr, &e.stdout, &e.setup]
        .into_iter()
        .find_map(|lines| window(lines).iter().rev().find(|line| line.contains(text)))
        .map(|line| line.trim().to_owned())
}

/// What a failed set-up says of itself.
pub(super) fn setup_detail(e: &Evidence) -> Option<String> {
    let telling = |line: &&String| {
        let lower = line.trim_start().to_lowercase();
        lower.starts_with("error")
            || lower.contains("no matching distribution")
            || lower.contains("no solution found")
    };
    window(&e.setup).iter().rev().find(telling).map(|line| line.trim().to_owned())
}

/// The first mark of the table that the line bears.
fn find(line: &str, also_follows: bool) -> Option<usize> {
    let lower = line.to_lowercase();
    if WRAPPERS.iter().any(|wrapper| lower.contains(wrapper)) {
        return None;
    }
    MARKS
        .iter()
        .position(|m| (also_follows || !m.follows) && m.any.split('|').any(|text| lower.contains(text)))
}

fn verdict(e: &Evidence, mark: &Mark, confidence: Confidence, line: &str) -> Verdict {
    let (rank, text) = unranked(line);
    let mut verdict = Verdict::new(mark.cause, confidence, format!("last error: {text}"));
    if let Some(rank) = rank.or_else(|| named_rank(text)) {
        verdict = verdict.and(format!("it was rank {rank}"));
    }
    if let Some(exit) = &e.exit {
        verdict = verdict.and(exit.to_string());
    }
    if let (Cause::DiskFull, Some(free)) = (mark.cause, e.disk_free) {
        verdict = verdict.and(format!("the fullest disk had {} MiB free at the last sample", free >> 20));
    }
    verdict.try_next(mark.next.replace("RUN", &e.run))
}

/// The number in `[Rank 3]` anywhere in the line.
fn named_rank(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("Rank ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn speaks(e: &Evidence) -> bool {
    matches!(e.exit, Some(Exit::Code { .. } | Exit::Signal { .. } | Exit::Unknown { .. }))
}

/// The last error itself: what the program ended with.
pub(super) fn decisive(e: &Evidence) -> Option<Verdict> {
    if !speaks(e) {
        return None;
    }
    let last = |lines: &[String]| lines.iter().rev().find(|l| !l.trim().is_empty()).cloned();
    let ends = [exception(e), Some(e.last_error_line.clone()), last(&e.stderr)];
    ends.into_iter().flatten().find_map(|line| {
        let mark = &MARKS[find(&line, false)?];
        Some(verdict(e, mark, mark.most, &line))
    })
}

/// A mark further up: programs survive errors, so that it proves less. The
/// table's order decides, not the lines'.
pub(super) fn nearby(e: &Evidence) -> Option<Verdict> {
    if !speaks(e) {
        return None;
    }
    let found = |lines: &[String]| {
        let marks = window(lines).iter().enumerate().filter_map(|(at, line)| Some((find(line, true)?, at)));
        let (mark, at) = marks.min_by_key(|(mark, at)| (*mark, usize::MAX - at))?;
        Some((&MARKS[mark], window(lines)[at].clone()))
    };
    let (mark, line) = found(&e.stderr).or_else(|| found(&e.stdout))?;
    // An exception that no mark knows is nearer to the end than this line.
    let most = if exception(e).is_some_and(|named| named != line.trim()) && !mark.follows {
        Possible
    } else {
        Likely
    };
    if most == Possible
        && matches!(mark.cause, Cause::UserError | Cause::RemoteService | Cause::EnvironmentFailed)
    {
        return None;
    }
    Some(verdict(e, mark, mark.most.min(most), &line))
}
