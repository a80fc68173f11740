//! The database's shape and how older shapes become this one.
//!
//! Steps are only ever appended. Each runs in one transaction that also raises
//! `user_version`; before the first one a copy is kept as `<db>.v<N>.bak`. A
//! database from a later version is refused, never touched.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Step `n` (from 0) leads from schema `n` to schema `n + 1`.
const STEPS: [&str; 4] = [V1, V2, V3, V4];

const V1: &str = "
CREATE TABLE rows (
    kind    TEXT NOT NULL,
    id      TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    run     TEXT,
    body    TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX rows_by_run ON rows (kind, run, id) WHERE run IS NOT NULL;
CREATE TABLE chunks (
    digest BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    pack   TEXT NOT NULL,
    start  INTEGER NOT NULL CHECK (start >= 0),
    len    INTEGER NOT NULL CHECK (len >= 0)
) STRICT, WITHOUT ROWID;
CREATE TABLE journal (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    prev_hash TEXT NOT NULL,
    hash      TEXT NOT NULL,
    at_ms     INTEGER NOT NULL,
    actor     TEXT NOT NULL,
    verb      TEXT NOT NULL,
    object    TEXT NOT NULL,
    detail    TEXT NOT NULL
) STRICT;
";

/// The journal can be asked for one run, rows say how they were sealed, and
/// the database itself refuses to rewrite history.
const V2: &str = "
ALTER TABLE journal ADD COLUMN run TEXT;
ALTER TABLE journal ADD COLUMN form INTEGER NOT NULL DEFAULT 1;
UPDATE journal SET run = json_extract(detail, '$.run')
    WHERE json_valid(detail) AND json_type(detail, '$.run') = 'text';
CREATE INDEX journal_by_run ON journal (run, seq) WHERE run IS NOT NULL;
CREATE TRIGGER journal_is_never_changed BEFORE UPDATE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_is_never_cut BEFORE DELETE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
";

/// Chunks may be stored in another form. A stored length of 0 is the plain
/// one: rows from before are as they were.
const V3: &str = "
ALTER TABLE chunks ADD COLUMN stored INTEGER NOT NULL DEFAULT 0 CHECK (stored >= 0);
ALTER TABLE chunks ADD COLUMN codec INTEGER NOT NULL DEFAULT 0 CHECK (codec BETWEEN 0 AND 255);
";

/// Sealed chunks go by their names and have a hash of what is stored.
const V4: &str = "
ALTER TABLE chunks ADD COLUMN cipher BLOB CHECK (cipher IS NULL OR length(cipher) = 32);
";

/// The newest schema this program knows.
pub(super) const KNOWN: u32 = 4;
const _: () = assert!(STEPS.len() == KNOWN as usize, "one step per schema number");

/// The settings every connection needs.
pub(super) fn configure(conn: &Connection) -> Result<(), StoreError> {
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Invalid(format!(
            "the file system allows only journal mode `{mode}`, not WAL: use a local disk"
        )));
    }
    conn.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA mmap_size = 0;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    Ok(())
}

/// Brings a database to the newest schema.
pub(super) fn migrate(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found = version(conn)?;
    if found > KNOWN {
        return Err(StoreError::Newer { found, known: KNOWN });
    }
    if found == 0 {
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables != 0 {
            return Err(StoreError::Corrupt("it holds tables of another program".into()));
        }
    } else if found < KNOWN {
        copy(conn, &beside(path, &format!(".v{found}.bak")), true)?;
    }
    for step in found..KNOWN {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have done this step while this one waited.
        if version(&transaction)? == step {
            transaction.execute_batch(STEPS[step as usize])?;
            transaction.pragma_update(None, "user_version", step + 1)?;
            transaction.commit()?;
            tracing::info!(schema = step + 1, path = %path.display(), "database schema raised");
        }
    }
    Ok(())
}

fn version(conn: &Connection) -> Result<u32, StoreError> {
    Ok(conn.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// `path` with something appended to its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes a consistent copy of the database, readable by its owner only and
/// durable before it has its name.
pub(super) fn copy(conn: &Connection, to: &Path, replace: bool) -> Result<(), StoreError> {
    let failed = |source| StoreError::io(to, source);
    if !replace && fs::symlink_metadata(to).is_ok() {
        return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
    }
    let draft = beside(to, ".tmp");
    let Some(name) = draft.to_str() else {
        return Err(StoreError::Invalid(format!("the path {} is not UTF-8", to.display())));
    };
    private(&draft, true).map_err(failed)?;
    let written = conn
        .execute("VACUUM INTO ?1", [name])
        .map_err(StoreError::from)
        .and_then(|_| File::open(&draft).and_then(|f| f.sync_all()).map_err(failed))
        .and_then(|()| fs::rename(&draft, to).map_err(failed))
        .and_then(|()| sync_directory(to).map_err(failed));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Makes a file that only its owner can read; what lies beside a database takes
/// the same mode from it.
pub(super) fn private(path: &Path, truncate: bool) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(truncate);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Makes a new name in a directory durable.
pub(super) fn sync_directory(of: &Path) -> std::io::Result<()> {
    let parent = match of.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
