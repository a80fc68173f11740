//! What programs print before they end, as frameworks and systems word it, and
//! what that means. The last error decides; a mark further up counts less,
//! since programs survive errors. What another failure brings about (a timeout
//! of the ranks that were left waiting) never outweighs that failure.

use super::Confidence::{self, Likely, Possible};
use super::exceptions::{self, Aftermath, WRAPPERS, unranked};
use super::table::{MARKS, Mark};
use super::{Cause, Evidence, Verdict, window};
use crate::exit::Exit;

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
    let named = exceptions::last(e);
    let went_on = named.as_ref().is_some_and(|named| named.aftermath == Aftermath::WentOn);
    let most = match &named {
        Some(named) if named.aftermath == Aftermath::Said => Likely,
        _ => Confidence::Certain,
    };
    let last_words = last(&e.stderr);
    let ends = [
        named.map(|named| named.line).filter(|_| !went_on),
        Some(e.last_error_line.clone()),
        last_words.clone(),
    ];
    ends.into_iter().flatten().find_map(|line| {
        let mark = &MARKS[find(&line, false)?];
        let verdict = verdict(e, mark, mark.most.min(most), &line);
        let said = last_words.as_ref().filter(|said| most < Confidence::Certain && said.trim() != line);
        Some(match said {
            Some(said) => verdict.and(format!("after it: {}", said.trim())),
            None => verdict,
        })
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
    // An exception that no mark knows is nearer to the end than this line, or
    // this one was survived.
    let survived =
        |named: exceptions::Exception| named.line != line.trim() || named.aftermath == Aftermath::WentOn;
    let most = if exceptions::last(e).is_some_and(survived) && !mark.follows { Possible } else { Likely };
    if most == Possible
        && matches!(mark.cause, Cause::UserError | Cause::RemoteService | Cause::EnvironmentFailed)
    {
        return None;
    }
    Some(verdict(e, mark, mark.most.min(most), &line))
}
