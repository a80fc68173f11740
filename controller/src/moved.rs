//! The marks that keep one installation from ever having two controllers while
//! its state goes from one computer to another. A mark forbids a start; only
//! the step that makes the other side unable to run takes one away.
//!
//! `moved.json` on the old side: the state is elsewhere. `arriving.json` on the
//! new side: what lies here was copied and has not been released. It is renamed
//! to `arrived.json` when it is, and the first controller that begins to work
//! here removes that: from then on the state has a history of its own.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use lifecycle::{HubId, MachineId, MachineState};
use serde::{Deserialize, Serialize};

use crate::core::CoreError;
use crate::home::{HomeError, read_text, write_file};
use crate::model::{Machine, Versioned};
use crate::store::{Kind, Mode, SqliteStore, Store as _};

const MOVED: &str = "moved.json";
const ARRIVING: &str = "arriving.json";
const ARRIVED: &str = "arrived.json";

/// Where the state of a data directory went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// `[user@]host`, as the user's SSH client takes it.
    pub to: String,
    /// The data directory there; `None`: the usual one.
    pub remote_home: Option<String>,
    /// The program there.
    pub program: String,
    /// The installation.
    pub hub: HubId,
    /// Names this one move.
    pub token: String,
    /// A controller answered there.
    pub settled: bool,
}

/// A copy that came, and of which move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The installation.
    pub hub: HubId,
    /// Names the move.
    pub token: String,
}

/// What a data directory is, for a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// There is none, or it is empty.
    Nothing,
    /// Something else than an installation.
    Foreign,
    /// A copy that has not been released: nothing can start it.
    Arriving(Arrival),
    /// A released copy at which no controller has worked yet.
    Arrived(Arrival),
    /// An installation.
    Installation(HubId),
}

fn parsed<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, HomeError> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    let damaged = |e: serde_json::Error| HomeError::Damaged { path: path.to_owned(), problem: e.to_string() };
    serde_json::from_str(&text).map(Some).map_err(damaged)
}

/// Makes a change of names in a directory outlast a power cut.
fn settle(root: &Path) -> Result<(), HomeError> {
    let synced = File::open(root).and_then(|dir| dir.sync_all());
    synced.map_err(|source| HomeError::Io { path: root.to_owned(), source })
}

fn take_away(root: &Path, name: &str) -> Result<(), HomeError> {
    let path = root.join(name);
    match fs::remove_file(&path) {
        Ok(()) => settle(root),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(HomeError::Io { path, source }),
    }
}

/// Where the state of this data directory went, if it did.
///
/// # Errors
/// Where the mark cannot be read; then nothing may start either.
pub fn moved(root: &Path) -> Result<Option<Moved>, HomeError> {
    parsed(&root.join(MOVED))
}

/// Marks a data directory. The caller holds it ([`crate::home::Hold`]), or it is
/// marked already.
///
/// # Errors
/// Where the disk refuses.
pub fn mark(root: &Path, mark: &Moved) -> Result<(), HomeError> {
    write_file(&root.join(MOVED), &serde_json::to_vec(mark).unwrap_or_default(), 0o600)
}

/// Takes the mark back: the caller is certain that the other side cannot run.
///
/// # Errors
/// Where the disk refuses.
pub fn unmark(root: &Path) -> Result<(), HomeError> {
    take_away(root, MOVED)
}

/// What this data directory is.
///
/// # Errors
/// Where it cannot be read.
pub fn standing(root: &Path) -> Result<Standing, HomeError> {
    if let Some(arrival) = parsed(&root.join(ARRIVING))? {
        return Ok(Standing::Arriving(arrival));
    }
    if let Some(arrival) = parsed(&root.join(ARRIVED))? {
        return Ok(Standing::Arrived(arrival));
    }
    if root.join("hub.json").exists() {
        let damaged =
            || HomeError::Damaged { path: root.join("hub.json"), problem: "it names no installation".into() };
        return Ok(Standing::Installation(crate::home::hub_of(root).ok_or_else(damaged)?));
    }
    match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Standing::Nothing),
        Err(source) => Err(HomeError::Io { path: root.to_owned(), source }),
        Ok(mut entries) => Ok(if entries.next().is_none() { Standing::Nothing } else { Standing::Foreign }),
    }
}

/// Marks a copy that nothing may start.
///
/// # Errors
/// Where the disk refuses.
pub fn arriving(root: &Path, arrival: &Arrival) -> Result<(), HomeError> {
    write_file(&root.join(ARRIVING), &serde_json::to_vec(arrival).unwrap_or_default(), 0o600)
}

fn rename(root: &Path, from: &str, to: &str) -> Result<(), HomeError> {
    let path = root.join(from);
    fs::rename(&path, root.join(to)).map_err(|source| HomeError::Io { path, source })?;
    settle(root)
}

/// Lets a copy be started. The other side is marked.
///
/// # Errors
/// Where it is no such copy, or the disk refuses.
pub fn release(root: &Path) -> Result<(), HomeError> {
    rename(root, ARRIVING, ARRIVED)
}

/// Forbids it again. The caller holds the directory, and no controller has worked
/// there since it was released.
///
/// # Errors
/// Where one has, or the disk refuses.
pub fn retract(root: &Path) -> Result<(), HomeError> {
    rename(root, ARRIVED, ARRIVING)
}

/// Whether a controller may start here. The caller holds the directory.
pub(crate) fn may_start(root: &Path) -> Result<(), HomeError> {
    if let Some(mark) = moved(root)? {
        return Err(HomeError::Moved { home: root.to_owned(), to: mark.to });
    }
    if root.join(ARRIVING).exists() {
        return Err(HomeError::Arriving(root.to_owned()));
    }
    Ok(())
}

/// A controller begins to work here: this is the one place of its state from now
/// on. The caller holds the directory.
pub(crate) fn begun(root: &Path) -> Result<(), HomeError> {
    take_away(root, ARRIVED)
}

/// Files that a controller makes anew, or that mean something on one computer
/// alone.
const STAYS: [&str; 10] = [
    "cache",
    "machines",
    "controller.lock",
    "controller.json",
    "controller.log",
    "controller.log.1",
    "deploy.lock",
    "remote.json",
    MOVED,
    ARRIVING,
];

/// Whether an entry of a data directory is part of its state, by its name. A
/// name that is not known is: whatever was forgotten here is rather moved.
#[must_use]
pub fn is_state(name: &str) -> bool {
    let temporary = name.starts_with('.') && name.ends_with(".tmp");
    let shared_memory = name.ends_with("-shm");
    !STAYS.contains(&name)
        && name != ARRIVED
        && !temporary
        && !shared_memory
        && !name.starts_with("upgrade-")
        && !name.ends_with(".sock")
        && !name.ends_with(".ballast")
}

/// The machines that are not known to be gone, each with its provider. The
/// caller holds the directory; nothing is made where there is no database.
///
/// # Errors
/// Where the database cannot be read.
pub async fn machines(root: &Path) -> Result<Vec<(MachineId, String)>, CoreError> {
    let path = root.join("outlast.db");
    if !path.exists() {
        return Ok(Vec::new());
    }
    // In this task, so that it is closed when this returns.
    let store = SqliteStore::open(path, Mode::Inline)?;
    let mut found = Vec::new();
    for row in store.list(Kind::Machine).await? {
        let machine = Versioned::<Machine>::read(&row)?.body;
        // As the controller lists what is there.
        if !machine.status.is_final() && machine.status != MachineState::Abandoned {
            found.push((machine.id, machine.provider));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;
    use std::time::SystemTime;

    fn hub() -> HubId {
        HubId::from_bytes([3; 16])
    }

    #[test]
    fn a_marked_directory_starts_nobody_until_the_mark_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("h");
        assert_eq!(standing(&root).unwrap(), Standing::Nothing);
        let home = Home::open(&root, SystemTime::now()).unwrap();
        let hub = home.hub;
        drop(home);
        assert_eq!(standing(&root).unwrap(), Standing::Installation(hub));
        let to = Moved {
            to: "me@box".into(),
            remote_home: None,
            program: "outlast".into(),
            hub,
            token: "t".into(),
            settled: false,
        };
        mark(&root, &to).unwrap();
        let refused = Home::open(&root, SystemTime::now()).err().unwrap();
        assert!(matches!(refused, HomeError::Moved { .. }) && refused.to_string().contains("me@box"));
        std::fs::write(root.join(MOVED), "{").unwrap();
        assert!(Home::open(&root, SystemTime::now()).is_err(), "a damaged mark is one");
        unmark(&root).unwrap();
        assert!(Home::open(&root, SystemTime::now()).is_ok());
    }

    #[test]
    fn a_copy_starts_nobody_until_it_is_released_and_is_retracted_only_before_any_work() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let arrival = Arrival { hub: hub(), token: "t".into() };
        arriving(root, &arrival).unwrap();
        assert_eq!(standing(root).unwrap(), Standing::Arriving(arrival.clone()));
        assert!(matches!(Home::open(root, SystemTime::now()).err().unwrap(), HomeError::Arriving(_)));
        release(root).unwrap();
        assert_eq!(standing(root).unwrap(), Standing::Arrived(arrival.clone()));
        retract(root).unwrap();
        assert!(Home::open(root, SystemTime::now()).is_err());
        release(root).unwrap();
        // One that fails to start has done nothing yet.
        let home = Home::open(root, SystemTime::now()).unwrap();
        assert_eq!(standing(root).unwrap(), Standing::Arrived(arrival));
        home.begin().unwrap();
        drop(home);
        retract(root).expect_err("it has a history of its own");
        assert!(matches!(standing(root).unwrap(), Standing::Installation(_)));
    }

    #[test]
    fn what_is_made_anew_stays_and_everything_else_goes() {
        for name in ["outlast.db", "outlast.db-wal", "keys", "runs", "objects", "providers.toml", "new-thing"]
        {
            assert!(is_state(name), "{name}");
        }
        for name in [
            "cache",
            "machines",
            "controller.lock",
            "outlast.db-shm",
            "outlast.db.ballast",
            "x.sock",
            ".a.7.tmp",
            MOVED,
        ] {
            assert!(!is_state(name), "{name}");
        }
    }
}
