//! Whether a checkpoint may be taken: what its bytes say, how long it rested,
//! whether its program said so, and that nobody can write to it any more. Asked
//! before it is read and again before it is committed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use artifacts::complete::{Completeness, Judge, Reason};

use super::look::look;
use super::standing::Standing;
use crate::os;

/// An ordinary rest settles nothing where an earlier checkpoint had more: a
/// rest of so many times that length does.
const GRAVE: u32 = 6;
/// What is not finished is judged again after this at the soonest: what seals
/// it may lie beside it, where its own bytes tell nothing.
const AGAIN: Duration = Duration::from_secs(1);
/// Looks that found something cost at most this share of the time.
const SHARE: u32 = 20;
/// More than are open at a time.
const MOST: usize = 10_000;

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
}

/// What is known of a checkpoint besides its bytes.
pub(super) struct Facts<'a> {
    /// The checkpoint.
    pub(super) path: &'a Path,
    /// Names its very bytes.
    pub(super) token: &'a str,
    /// How long it has been as it is.
    pub(super) rested: Duration,
    /// The rest that settles what no structure does.
    pub(super) quiet: Duration,
    /// It was renamed into place.
    pub(super) was_moved: bool,
    /// The program ended: nothing is written any more.
    pub(super) ended: bool,
    /// The program, or a marker, said that it is finished.
    pub(super) is_said: bool,
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
            if done || kept.at.elapsed() < AGAIN.max(kept.took * SHARE) {
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

    /// Where it stands.
    pub(super) fn standing(&mut self, facts: &Facts<'_>) -> Standing {
        let Facts { path, token, rested, quiet, was_moved, ended, is_said } = *facts;
        let ready = match self.judged(path, token) {
            Completeness::Complete { format } => Standing::Ready { by: format },
            // The word of whom it belongs to, but for what it is not.
            Completeness::Unknown { .. } if is_said => Standing::Ready { by: "its program" },
            Completeness::Incomplete { why } if is_said && can_be_said(&why) => {
                Standing::Ready { by: "its program" }
            }
            Completeness::Unknown { why } => {
                let grave = why.is_grave();
                let needed = if grave { quiet * GRAVE } else { quiet };
                if was_moved && !grave {
                    Standing::Ready { by: "its rename into place" }
                } else if rested >= needed || ended && !grave {
                    Standing::Ready { by: "its rest" }
                } else {
                    Standing::Rests { needed, so_far: rested, why }
                }
            }
            Completeness::Incomplete { why } => Standing::Waits { why },
        };
        match ready {
            Standing::Ready { .. } => match self.writer(path, token, ended) {
                Some(why) => Standing::Waits { why },
                None => ready,
            },
            other => other,
        }
    }

    /// Who can still write to it.
    fn writer(&mut self, path: &Path, token: &str, ended: bool) -> Option<Reason> {
        if let Some((reason, until)) = self.written.get(token)
            && !ended
            && Instant::now() < *until
        {
            return Some(reason.clone());
        }
        let at = Instant::now();
        let files = Judge::files(path).into_iter().map(|file| within(path, &file));
        let Some(found) = os::writer(files) else {
            self.written.remove(token);
            return None;
        };
        let file = found.file.strip_prefix(path).ok().filter(|file| !file.as_os_str().is_empty());
        let file = file.or_else(|| path.file_name().map(Path::new)).unwrap_or(path);
        let reason = Reason::Writer {
            file: file.to_string_lossy().chars().take(200).collect(),
            by: format!("process {} ({})", found.pid, found.command),
        };
        if self.written.len() >= MOST {
            self.written.clear();
        }
        self.written.insert(token.to_owned(), (reason.clone(), at + AGAIN.max(at.elapsed() * SHARE)));
        Some(reason)
    }

    /// What is published teaches what the next one needs.
    pub(super) fn published(&mut self, path: &Path, token: &str) {
        self.judge.learn(path);
        self.kept.remove(token);
    }
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
            was_moved: true,
            ended: false,
            is_said: self.is_said,
        };
        matches!(verdicts.standing(&facts), Standing::Ready { .. })
    }
}
