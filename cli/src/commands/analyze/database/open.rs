//! Opens an SQLite file that belongs to somebody else: its bytes, its journal and
//! its write-ahead log stay as they are, no file appears beside it, and a program
//! that writes it is never kept waiting for longer than one short statement.
//!
//! A connection that may only read still makes the files of a write-ahead log
//! where they are missing, and cannot roll back what a killed writer left half
//! done. So what lies beside the file decides how it is opened.
//! <https://www.sqlite.org/wal.html#read_only_databases>

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tempfile::TempDir;

use super::super::find;

/// How long a writer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most bytes of a database that is copied because it cannot be read where
/// it lies.
const MAX_COPY: u64 = 4 << 30;

/// A database that can be read.
pub(super) struct Database {
    pub(super) connection: Connection,
    /// What is to be said of how it was opened.
    pub(super) note: Option<&'static str>,
    /// Where the copy lies, if it is one; removed with this.
    _copy: Option<TempDir>,
}

/// How a database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Where it lies, with locks and the index of its write-ahead log.
    Shared,
    /// Where it lies, as a file that nobody writes.
    Still,
    /// A copy of it and of its journals.
    Copied,
}

/// What lies beside a database.
#[derive(Debug, Clone, Copy)]
struct Beside {
    /// Its header speaks of a write-ahead log.
    wal: bool,
    /// Size of that log, if there is one.
    log: Option<u64>,
    /// Whether the log's index is there.
    index: bool,
}

impl Beside {
    fn way(self) -> Way {
        match (self.wal, self.log, self.index) {
            (false, ..) | (true, Some(_), true) => Way::Shared,
            // Without a log nobody has it open, and all is in the file.
            (true, None | Some(0), _) => Way::Still,
            (true, Some(_), false) => Way::Copied,
        }
    }
}

/// Opens a database, or says why it cannot be read.
///
/// # Errors
/// Where it is no database, or cannot be read.
pub(super) fn open(path: &Path) -> io::Result<Database> {
    let mut header = Vec::new();
    find::open(path)?.take(100).read_to_end(&mut header)?;
    if !header.starts_with(b"SQLite format 3\0") || header.len() < 100 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no SQLite database, or the beginning of one",
        ));
    }
    let size =
        |end: &str| fs::metadata(beside(path, end)).ok().filter(fs::Metadata::is_file).map(|m| m.len());
    let found =
        Beside { wal: header[18] == 2 || header[19] == 2, log: size("-wal"), index: size("-shm").is_some() };
    let tried = match found.way() {
        Way::Shared => connect(path, "mode=ro&readonly_shm=1"),
        Way::Still => connect(path, "mode=ro&immutable=1"),
        Way::Copied => return copied(path),
    };
    match tried {
        Ok(connection) => Ok(Database { connection, note: None, _copy: None }),
        Err(error) if needs_mending(&error) => copied(path),
        Err(error) if cut_short(&error) => {
            let connection = connect_torn(path).map_err(|_| told(&error))?;
            Ok(Database { connection, note: Some("the database is damaged or cut short"), _copy: None })
        }
        Err(error) => Err(told(&error)),
    }
}

/// A journal must be rolled back, or a log's index be made, which only a copy of
/// the user's file may see.
fn needs_mending(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen))
}

fn cut_short(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

/// The same error for people.
pub(super) fn told(error: &rusqlite::Error) -> io::Error {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => io::ErrorKind::ResourceBusy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("the database: {error}"))
}

/// The file of the same name with an ending.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}

/// `file:` with every byte that could mean something else written as a number.
fn address(path: &Path, how: &str) -> String {
    let mut out = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                out.push(char::from(*byte));
            }
            byte => out.push_str(&format!("%{byte:02x}")),
        }
    }
    format!("{out}?{how}")
}

fn connect(path: &Path, how: &str) -> rusqlite::Result<Connection> {
    let connection = raw(path, how)?;
    read_schema(&connection)?;
    Ok(connection)
}

/// A file with fewer pages than its header says: what is there is read.
fn connect_torn(path: &Path) -> rusqlite::Result<Connection> {
    let connection = raw(path, "mode=ro&immutable=1")?;
    connection.pragma_update(None, "writable_schema", true)?;
    read_schema(&connection)?;
    Ok(connection)
}

fn raw(path: &Path, how: &str) -> rusqlite::Result<Connection> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(address(&path, how), flags)?;
    connection.busy_timeout(PATIENCE)?;
    // What a stranger's schema may do is read a table; closing writes nothing.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

fn read_schema(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
}

fn copied(path: &Path) -> io::Result<Database> {
    let dir = tempfile::tempdir()?;
    let to = dir.path().join("copy");
    let mut room = MAX_COPY;
    for end in ["", "-wal", "-journal"] {
        let from = beside(path, end);
        if !end.is_empty() && !fs::symlink_metadata(&from).is_ok_and(|meta| meta.is_file()) {
            continue;
        }
        let mut from = find::open(&from)?.take(room + 1);
        let taken = io::copy(&mut from, &mut File::create_new(beside(&to, end))?)?;
        room = room.checked_sub(taken).ok_or_else(|| {
            let limit = MAX_COPY >> 30;
            io::Error::other(format!(
                "a killed writer left it unfinished, and it is over the {limit} GiB that are copied"
            ))
        })?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&to, flags).map_err(|error| told(&error))?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)
        .map_err(|error| told(&error))?;
    let note = match read_schema(&connection) {
        Ok(_) => None,
        Err(error) if cut_short(&error) => {
            connection.pragma_update(None, "writable_schema", true).map_err(|_| told(&error))?;
            read_schema(&connection).map_err(|_| told(&error))?;
            Some("the database is damaged or cut short")
        }
        Err(error) => return Err(told(&error)),
    };
    connection.pragma_update(None, "query_only", true).map_err(|error| told(&error))?;
    Ok(Database { connection, note, _copy: Some(dir) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_decides() {
        let way = |wal, log, index| Beside { wal, log, index }.way();
        assert_eq!(way(false, None, false), Way::Shared);
        assert_eq!(way(true, None, false), Way::Still);
        assert_eq!(way(true, Some(0), false), Way::Still);
        assert_eq!(way(true, None, true), Way::Still);
        assert_eq!(way(true, Some(0), true), Way::Shared);
        assert_eq!(way(true, Some(9), true), Way::Shared);
        assert_eq!(way(true, Some(9), false), Way::Copied);
    }

    #[test]
    fn no_name_of_a_file_becomes_a_setting() {
        assert_eq!(
            address(Path::new("/a b/c?mode=rwc#%.db"), "mode=ro"),
            "file:/a%20b/c%3fmode%3drwc%23%25.db?mode=ro"
        );
    }
}
