//! What was not taken: checkpoints that went away before they were published,
//! and what was still unfinished when the program ended. Counted, and told
//! without flooding: nothing is passed over in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use artifacts::complete;
use proto::v1;

use super::Publishing;
use super::seen::{self, Seen};
use super::standing::{self, Standing};
use super::verdicts::GRAVE;

/// Unfinished ones that are named, while the program runs and at the end.
const NAMED: usize = 8;
/// Saves that went over one before it had rested, and are told then.
const REWRITES: u32 = 4;

impl Publishing {
    /// Keeps where everything stands after a look, and finds what has gone
    /// since the look before.
    pub(super) fn look_back(
        &self,
        attempt: &str,
        standings: BTreeMap<String, Standing>,
        others: impl Iterator<Item = (String, Standing)>,
        (is_full, last): (bool, bool),
        quiet: Duration,
    ) {
        let Some(seen) = self.known(attempt) else { return };
        let mut seen = seen::lock(&seen);
        seen.count_missed(&standings);
        for (relative, standing) in &standings {
            if let Some(open) = seen.open.get_mut(relative) {
                open.was_fit = match standing {
                    // It was, before it was begun to be removed.
                    Standing::Waits { why: complete::Reason::Shrinks } => open.was_fit,
                    Standing::Ready { .. } => true,
                    // What has no step in its name may be no checkpoint.
                    Standing::Rests { .. } => complete::step_of(relative).is_some(),
                    _ => false,
                };
            }
        }
        if last {
            seen.tell_unfinished(&standings);
        } else {
            seen.tell_refused(&standings, quiet);
        }
        if is_full {
            seen.standings.clear();
        }
        seen.standings.extend(standings.into_iter().chain(others));
        let (standings, remarks) = (standing::told(seen.standings.iter()), std::mem::take(&mut seen.remarks));
        drop(seen);
        self.tell(attempt, |told| {
            told.standings = standings;
            told.remarks.extend(remarks);
        });
    }

    /// Where the checkpoints of an attempt stood at the last look. Waits for
    /// no look that is under way.
    pub fn standings(&self, attempt: &str) -> Vec<v1::CheckpointStanding> {
        self.told().get(attempt).map(|told| told.standings.clone()).unwrap_or_default()
    }

    /// What people should know and were not told yet. Waits for no look that
    /// is under way.
    pub fn remarks(&self, attempt: &str) -> Vec<String> {
        self.told().get_mut(attempt).map(|told| std::mem::take(&mut told.remarks)).unwrap_or_default()
    }
}

impl Seen {
    fn count_missed(&mut self, now: &BTreeMap<String, Standing>) {
        // A rename is no loss: the same directory or file goes on elsewhere.
        let here: BTreeSet<(u64, u64)> = self
            .open
            .iter()
            .filter(|(path, _)| now.contains_key(*path))
            .map(|(_, open)| open.inode)
            .collect();
        let gone: Vec<String> = self.open.keys().filter(|path| !now.contains_key(*path)).cloned().collect();
        let before = self.missed;
        let mut name = String::new();
        for path in gone {
            let Some(open) = self.open.remove(&path) else { continue };
            // Of a flood only the newest are looked at: what is not among them
            // any more need not be gone.
            if open.was_fit && self.flood.is_none() && !here.contains(&open.inode) {
                self.missed += 1;
                name = path;
            }
        }
        // The first, then each doubling: a program that saves faster than the
        // link is told of and does not fill the journal.
        if self.missed > 0 && before.checked_ilog2() != self.missed.checked_ilog2() {
            let name = name.strip_prefix("@/").unwrap_or(&name).chars().take(200).collect::<String>();
            self.remarks.push(match self.missed {
                1 => format!("checkpoint `{name}` went away before it was durable"),
                missed => {
                    format!("{missed} checkpoints went away before they were durable, the last one `{name}`")
                }
            });
        }
    }

    /// Tells while the program runs, once each, of what does not change any more
    /// and is not taken, and of what changes too often to be taken.
    fn tell_refused(&mut self, standings: &BTreeMap<String, Standing>, quiet: Duration) {
        let long = quiet.saturating_mul(GRAVE);
        for (path, standing) in standings {
            let Some(open) = self.open.get_mut(path).filter(|open| !open.is_told) else { continue };
            let text = match standing {
                Standing::Waits { why } if open.since.elapsed() >= long => {
                    format!("is not taken, though it has not changed for {} s: {why}", long.as_secs())
                }
                Standing::Rests { why, needed, .. } if open.rewrites >= REWRITES => format!(
                    "was saved over {} times before it had rested for {} s, and is not taken: {why}. Rename it into \
                     place, say `outlast-agent ckpt done`, or lower `checkpoints.quiet`",
                    open.rewrites,
                    needed.as_secs()
                ),
                _ => continue,
            };
            open.is_told = true;
            self.refusals += 1;
            if self.refusals <= NAMED {
                let name = path.strip_prefix("@/").unwrap_or(path).chars().take(200).collect::<String>();
                self.remarks.push(format!("checkpoint `{name}` {text}"));
            }
        }
    }

    fn tell_unfinished(&mut self, standings: &BTreeMap<String, Standing>) {
        let unfinished = standings.iter().filter_map(|(path, standing)| match standing {
            Standing::Waits { why } | Standing::Rests { why, .. } => Some((path, why)),
            _ => None,
        });
        let total = unfinished.clone().count();
        for (path, why) in unfinished.take(NAMED) {
            let name = path.strip_prefix("@/").unwrap_or(path).chars().take(200).collect::<String>();
            self.remarks.push(format!("checkpoint `{name}` was not taken: {why}"));
        }
        if total > NAMED {
            self.remarks.push(format!("{} more unfinished checkpoints were not taken", total - NAMED));
        }
    }
}
