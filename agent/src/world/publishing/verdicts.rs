//! Whether a checkpoint may be taken: what its bytes say, how long it rested,
//! whether its program said so, and that nobody can write to it any more. Asked
//! before it is read and again before it is committed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use artifacts::complete::{Completeness, Judge, Reason};

use super::look::look;
use super::standing::Standing;
use crate::os::{self, Writers};

/// An ordinary rest settles nothing where an earlier checkpoint had more: a
/// rest of so many times that length does.
pub(super) const GRAVE: u32 = 6;
/// What is not finished is judged again after this at the soonest: what seals
/// it may lie beside it, where its own bytes tell nothing.
const AGAIN: Duration = Duration::from_secs(1);
/// Looks that found something cost at most this share of the time.
const SHARE: u32 = 20;
/// More than are open at a time.
const MOST: usize = 10_000;

/// Formats without a checksum whose size says nothing: a file that is written
/// anew in place looks whole all the time.
const UNPROVEN: [&str; 3] = ["numpy", "hdf5", "safetensors"];

struct Kept {
    judged: Completeness,
    at: Instant,
    took: Duration,
}

/// The judge of one attempt and what it said.
#[derive(Default)]
pub(super) struct Verdicts {
    judge: Judge,
    kept: HashMap<String, Kept>,
    /// Token -> a writer that was found, and when to look again.
    written: HashMap<String, (Reason, Instant)>,
    /// Where the last look found a writer, whatever the bytes were.
    writing: HashSet<PathBuf>,
}

/// What became of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It runs.
    Not,
    /// It ended by itself, all being well, or as it was asked to.
    Orderly,
    /// It died, and may have been in the middle of a save.
    Died {
        /// In words.
        how: String,
        /// When, by the clock of files; the epoch where nobody knows.
        at: (i64, i64),
    },
}

/// What is known of a checkpoint besides its bytes.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The checkpoint.
    pub(super) path: &'a Path,
    /// Names its very bytes.
    pub(super) token: &'a str,
    /// How long it has been as it is.
    pub(super) rested: Duration,
    /// The rest that settles what no structure does.
    pub(super) quiet: Duration,
    /// When anything in it was last written, renamed or otherwise touched.
    pub(super) touched: (i64, i64),
    /// It was renamed into place.
    pub(super) was_moved: bool,
    /// What became of the program.
    pub(super) end: &'a End,
    /// The program, or a marker, said that it is finished.
    pub(super) is_said: bool,
}

impl Facts<'_> {
    /// Whether it had rested so long when the program died; `true` for one
    /// that did not.
    fn rested_before_death(&self, needed: Duration) -> bool {
        let End::Died { at, .. } = self.end else { return true };
        let seconds = i64::try_from(needed.as_secs()).unwrap_or(i64::MAX);
        (self.touched.0.saturating_add(seconds), self.touched.1) <= *at
    }
}

pub(super) fn lock(verdicts: &Arc<Mutex<Verdicts>>) -> MutexGuard<'_, Verdicts> {
    verdicts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Verdicts {
    /// What the bytes say. The same bytes have the same verdict, but for what
    /// lies beside them: only "not yet" is asked again.
    fn judged(&mut self, path: &Path, token: &str) -> Completeness {
        if let Some(kept) = self.kept.get(token) {
            let done = matches!(kept.judged, Completeness::Complete { .. });
            if done || kept.at.elapsed() < AGAIN.max(kept.took.saturating_mul(SHARE)) {
                return kept.judged.clone();
            }
        }
        let at = Instant::now();
        let judged = self.judge.judge(path);
        if self.kept.len() >= MOST {
            self.kept.clear();
        }
        self.kept.insert(token.to_owned(), Kept { judged: judged.clone(), at, took: at.elapsed() });
        judged
    }

    /// Whether its own structure or its framework says that it is whole.
    pub(super) fn is_whole(&self, token: &str) -> bool {
        self.kept.get(token).is_some_and(|kept| matches!(kept.judged, Completeness::Complete { .. }))
    }

    /// Where each of them stands. Who writes is asked once for all that would
    /// be taken.
    pub(super) fn standings(&mut self, all: &[Facts<'_>]) -> Vec<Standing> {
        let mut standings: Vec<Standing> = all.iter().map(|facts| self.by_bytes(facts)).collect();
        let (mut asked, mut groups) = (Vec::new(), Vec::new());
        for (at, facts) in all.iter().enumerate() {
            if !matches!(standings[at], Standing::Ready { .. }) {
                continue;
            }
            match self.written.get(facts.token) {
                Some((reason, until)) if *facts.end == End::Not && Instant::now() < *until => {
                    standings[at] = Standing::Waits { why: reason.clone() };
                }
                _ => {
                    let files = Judge::files(facts.path);
                    asked.push((at, files.is_empty()));
                    groups.push(files.iter().map(|file| within(facts.path, file)).collect());
                }
            }
        }
        let began = Instant::now();
        let found = os::writers_of(groups);
        let took = began.elapsed();
        for ((at, is_unlisted), found) in asked.into_iter().zip(found) {
            let found = if is_unlisted { Writers::Blind("it cannot be listed".into()) } else { found };
            let ready = std::mem::replace(&mut standings[at], Standing::New);
            standings[at] = self.settled(&all[at], ready, found, took);
        }
        standings
    }

    /// Where it stands but for who writes.
    fn by_bytes(&mut self, facts: &Facts<'_>) -> Standing {
        let Facts { path, token, rested, quiet, was_moved, end, is_said, .. } = *facts;
        match self.judged(path, token) {
            Completeness::Complete { format } => match end {
                End::Died { how, .. }
                    if UNPROVEN.contains(&format) && self.writing.contains(path) && !is_said =>
                {
                    Standing::Waits { why: Reason::Died { how: how.clone() } }
                }
                _ => Standing::Ready { by: format },
            },
            // The word of whom it belongs to, but for what it is not.
            Completeness::Unknown { .. } if is_said => Standing::Ready { by: "its program" },
            Completeness::Incomplete { why } if is_said && can_be_said(&why) => {
                Standing::Ready { by: "its program" }
            }
            Completeness::Unknown { why } => {
                let grave = why.is_grave();
                let needed = if grave { quiet.saturating_mul(GRAVE) } else { quiet };
                if was_moved && !grave {
                    return Standing::Ready { by: "its rename into place" };
                }
                match end {
                    End::Not | End::Orderly if rested >= needed => Standing::Ready { by: "its rest" },
                    End::Orderly if why.ends_with_its_program() => Standing::Ready { by: "its rest" },
                    End::Died { .. } if facts.rested_before_death(needed) => {
                        Standing::Ready { by: "its rest" }
                    }
                    // What was cut off looks like what is whole.
                    End::Died { how, .. } if !grave => {
                        Standing::Waits { why: Reason::Died { how: how.clone() } }
                    }
                    _ => Standing::Rests { needed, so_far: rested, why },
                }
            }
            Completeness::Incomplete { why } => Standing::Waits { why },
        }
    }

    /// What would be taken, once it was looked who writes to it.
    pub(super) fn settled(
        &mut self,
        facts: &Facts<'_>,
        ready: Standing,
        found: Writers,
        took: Duration,
    ) -> Standing {
        let Facts { path, token, rested, quiet, end, .. } = *facts;
        let found = match found {
            Writers::Writer(found) => found,
            blind => {
                self.written.remove(token);
                self.writing.remove(path);
                return match (blind, &ready) {
                    (Writers::Blind(what), Standing::Ready { by })
                        if !is_proof(by) && rested < quiet && *end == End::Not =>
                    {
                        Standing::Rests { needed: quiet, so_far: rested, why: Reason::Unseen { what } }
                    }
                    _ => ready,
                };
            }
        };
        let file = found.file.strip_prefix(path).ok().filter(|file| !file.as_os_str().is_empty());
        let file = file.or_else(|| path.file_name().map(Path::new)).unwrap_or(path);
        let reason = Reason::Writer {
            file: file.to_string_lossy().chars().take(200).collect(),
            by: format!("process {} ({})", found.pid, found.command),
        };
        for full in [self.written.len(), self.writing.len()] {
            if full >= MOST {
                self.written.clear();
                self.writing.clear();
            }
        }
        let again = Instant::now() + AGAIN.max(took.saturating_mul(SHARE));
        self.written.insert(token.to_owned(), (reason.clone(), again));
        self.writing.insert(path.to_owned());
        Standing::Waits { why: reason }
    }

    /// What is published teaches what the next one needs.
    pub(super) fn published(&mut self, path: &Path, token: &str) {
        self.judge.learn(path);
        self.kept.remove(token);
    }
}

/// Whether what makes it ready proves that it is whole, also where a writer
/// could not be seen.
fn is_proof(by: &str) -> bool {
    !UNPROVEN.contains(&by) && by != "its rename into place" && by != "its rest"
}

/// `Path::join` with an empty path would end in a separator.
fn within(path: &Path, file: &Path) -> PathBuf {
    if file.as_os_str().is_empty() { path.to_owned() } else { path.join(file) }
}

/// Whether a program may call something finished that its layout does not:
/// never what is broken or has nothing in it.
fn can_be_said(why: &Reason) -> bool {
    matches!(
        why,
        Reason::WaitsFor { .. }
            | Reason::OtherStep { .. }
            | Reason::Overwritten { .. }
            | Reason::Tracker { .. }
            | Reason::Uncommitted { .. }
            | Reason::Marked { .. }
    )
}

/// What must still be so when all of a checkpoint was read and stored.
pub(super) struct Still {
    pub(super) verdicts: Arc<Mutex<Verdicts>>,
    pub(super) path: PathBuf,
    pub(super) token: String,
    pub(super) is_said: bool,
}

impl Still {
    /// Whether it is; blocks. Whatever is not believed is found again.
    pub(super) fn holds(&self) -> bool {
        if look(&self.path).is_none_or(|look| look.token != self.token) {
            return false;
        }
        let mut verdicts = lock(&self.verdicts);
        verdicts.kept.remove(&self.token);
        verdicts.written.remove(&self.token);
        // It rested long enough to be chosen, and has not changed since.
        let facts = Facts {
            path: &self.path,
            token: &self.token,
            rested: Duration::MAX,
            quiet: Duration::ZERO,
            touched: (i64::MIN, 0),
            was_moved: true,
            end: &End::Not,
            is_said: self.is_said,
        };
        matches!(verdicts.standings(&[facts]).as_slice(), [Standing::Ready { .. }])
    }
}
