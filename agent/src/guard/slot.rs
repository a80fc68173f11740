//! The slot of a host that a machine may be: its guard holds the slot's lock for
//! as long as it lives, by which it is known there. It starts in no slot that
//! its machine does not claim: one that was destroyed while it was being brought
//! up must not come to life.

use std::path::Path;
use std::time::{Duration, Instant};

use super::GuardError;
use crate::keeper::MACHINE_MARKER;
use crate::os::{self, FileLock};

/// Names the slot's lock; unset where the machine is no slot.
const SLOT_LOCK: &str = "OUTLAST_SLOT_LOCK";
/// Whoever looks at a slot holds its lock for a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// No claim is longer.
const LONGEST: usize = 4096;

/// Takes the slot that the environment names, if it names one.
pub(super) fn of_environment() -> Result<Option<FileLock>, GuardError> {
    let Some(lock) = std::env::var_os(SLOT_LOCK) else { return Ok(None) };
    let machine = std::env::var(MACHINE_MARKER).unwrap_or_default();
    take(Path::new(&lock), &machine, PATIENCE).map(Some)
}

fn take(lock: &Path, machine: &str, patience: Duration) -> Result<FileLock, GuardError> {
    let until = Instant::now() + patience;
    let held = loop {
        let io = |source| GuardError::Io { action: "lock", path: lock.to_owned(), source };
        match FileLock::try_take(lock).map_err(io)? {
            Some(held) => break held,
            None if Instant::now() >= until => return Err(GuardError::SlotTaken { lock: lock.to_owned() }),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let claim = lock.with_extension("claim");
    let text = os::read_bounded(&claim, LONGEST).unwrap_or_default();
    let line = format!("machine {machine}");
    if text.split(|byte| *byte == b'\n').any(|found| found == line.as_bytes()) {
        return Ok(held);
    }
    Err(GuardError::SlotNotOurs { claim })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_held_by_one_guard_and_waited_for_while_it_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("0.lock");
        std::fs::write(dir.path().join("0.claim"), "outlast-claim 1\nhub h\nmachine m\nend\n").unwrap();
        let held = take(&lock, "m", Duration::ZERO).unwrap();
        let second = take(&lock, "m", Duration::from_millis(60)).err();
        assert!(matches!(second, Some(GuardError::SlotTaken { .. })), "{second:?}");
        let waits = std::thread::spawn(move || take(&lock, "m", Duration::from_secs(60)).is_ok());
        drop(held);
        assert!(waits.join().unwrap());
    }

    #[test]
    fn no_guard_starts_in_a_slot_that_its_machine_does_not_claim() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("0.lock");
        let not_ours = |machine: &str| {
            matches!(take(&lock, machine, Duration::ZERO), Err(GuardError::SlotNotOurs { .. }))
        };
        assert!(not_ours("m"), "it was given back");
        std::fs::write(dir.path().join("0.claim"), "outlast-claim 1\nhub h\nmachine m\nend\n").unwrap();
        for other in ["", "n", "mm", "m\nend", "achine m"] {
            assert!(not_ours(other), "{other}");
        }
        assert!(!not_ours("m"));
    }
}
