//! Which store holds this installation's objects: its name and its mark, kept
//! beside the database from the day the store was set up.

use std::path::Path;

use artifacts::ObjectKey;
use artifacts::store::{FsStore, own};

use super::settings::read_text;
use super::{LOCAL, NAME, ObjectsError};
use crate::home::write_file;

/// A store as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: String,
    /// Its mark; none where it was set up before there were any.
    pub(super) mark: Option<ObjectKey>,
}

/// The store in use until now, as seen from the one that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Past {
    /// There is none, or nothing was ever put there.
    None,
    Same(Option<ObjectKey>),
    Other(Identity),
}

impl Identity {
    fn read(home: &Path) -> Result<Option<Self>, ObjectsError> {
        let Some(text) = read_text(&home.join(NAME))? else { return Ok(None) };
        let mut lines = text.lines().map(str::trim);
        let name = lines.next().unwrap_or_default().to_owned();
        Ok(Some(Self { name, mark: lines.next().and_then(|id| own::mark(id).ok()) }))
    }

    /// Keeps a store's name, and its mark.
    pub(super) fn write(home: &Path, name: &str, id: &str) -> Result<(), ObjectsError> {
        Ok(write_file(&home.join(NAME), format!("{name}\n{id}\n").as_bytes(), 0o600)?)
    }
}

/// What is known of the store of before, where `now` is wanted. `rows`:
/// whether the database names objects.
pub(super) fn past(home: &Path, now: &str, rows: bool) -> Result<Past, ObjectsError> {
    let dir = home.join(LOCAL);
    let holds = || FsStore::holds_any(&dir).map_err(|source| ObjectsError::Io { path: dir.clone(), source });
    let kept = match Identity::read(home)? {
        // Whoever began with the directory and never used it may go elsewhere.
        Some(kept) if kept.name == LOCAL && now != LOCAL && !rows && !holds()? => None,
        Some(kept) => Some(kept),
        // An installation from before the name was kept has a directory.
        None => holds()?.then(|| Identity { name: LOCAL.to_owned(), mark: None }),
    };
    Ok(match kept {
        None => Past::None,
        Some(Identity { name, mark }) if name == now => Past::Same(mark),
        // Once, the address was no part of the name.
        Some(Identity { name, mark: None })
            if now.strip_prefix(&name).is_some_and(|r| r.starts_with(" at ")) =>
        {
            Past::Same(None)
        }
        Some(other) => Past::Other(other),
    })
}
