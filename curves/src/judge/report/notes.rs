//! What is odd about a log itself and may explain what is said of it.

use super::super::Judge;
use super::super::schema::Role;
use super::super::track::Track;

/// Metrics that are named.
const NAMED: usize = 3;

/// Steps that repeat or go back without a restart that the log names: values of
/// several processes, or of several lives, in one curve.
pub(super) fn notes(judge: &Judge) -> Vec<String> {
    let repeated = |track: &Track| {
        let (count, all) = (track.steps.repeated, track.count);
        // The Trainer writes the epoch into each row, two of a step among them.
        (count > 0 && track.traits.role != Role::Counter)
            .then(|| format!("{count} of {all} values of {}", track.name))
    };
    let back = |track: &Track| {
        let (from, to) = track.steps.first_back?;
        let times =
            if track.steps.back == 1 { "once".to_owned() } else { format!("{} times", track.steps.back) };
        Some(format!("{} {times}, first from {from} to {to}", track.name))
    };
    let said = |what: &str, found: Vec<String>| {
        let more = found.len().saturating_sub(NAMED);
        let named: Vec<&str> = found.iter().take(NAMED).map(String::as_str).collect();
        let others = if more > 0 { format!("; and {more} more metrics") } else { String::new() };
        (!named.is_empty()).then(|| format!("{what}: {}{others}", named.join("; ")))
    };
    let repeated = judge.tracks.iter().filter_map(repeated).collect();
    let back = judge.tracks.iter().filter_map(back).collect();
    [
        said("values under the step of the value before them", repeated),
        said("steps go back although the log names no restart", back),
    ]
    .into_iter()
    .flatten()
    .collect()
}
