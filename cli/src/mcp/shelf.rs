//! The directory in which the server keeps what must outlive it: codes that
//! wait for a person, and what was reserved of an allowance. Private to its
//! owner; a file is there whole or not at all; one process at a time changes
//! anything.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::exit_code::{ExitCode, Failure};

/// The largest file that is read.
const LARGEST: u64 = 4 << 20;

/// `mcp` in the data directory.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    dir: PathBuf,
}

/// While it lives no other process changes anything.
pub(crate) struct Held {
    _file: File,
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn odd(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a private file", path.display()))
}

impl Shelf {
    /// The one of this data directory, made where there is none.
    ///
    /// # Errors
    /// Where it cannot be made, or others may look into it.
    pub(crate) fn open(home: &Path) -> Result<Self, Failure> {
        let dir = home.join("mcp");
        let failed = |why: String| Failure::new(ExitCode::CannotWrite, format!("{}: {why}", dir.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| failed(e.to_string()))?;
        let meta = fs::symlink_metadata(&dir).map_err(|e| failed(e.to_string()))?;
        if !meta.is_dir() || meta.permissions().mode() & 0o077 != 0 {
            let why = failed("it is not private to you".to_owned());
            return Err(why.help(format!("chmod 700 {}", dir.display())));
        }
        Ok(Self { dir })
    }

    /// A directory that somebody else chose and guards, and a file's name in it.
    ///
    /// # Errors
    /// Where the path names no file.
    pub(crate) fn around(file: &Path) -> Result<(Self, String), Failure> {
        let name = file.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let name =
            name.ok_or_else(|| Failure::new(ExitCode::Usage, format!("{} names no file", file.display())))?;
        let above = file.parent().filter(|above| !above.as_os_str().is_empty());
        Ok((Self { dir: above.unwrap_or(Path::new(".")).to_owned() }, name))
    }

    /// Where a file of it lies.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Waits until nobody else changes anything.
    pub(crate) fn hold(&self) -> io::Result<Held> {
        let file = private().read(true).write(true).create(true).truncate(false).open(self.path("lock"))?;
        file.lock()?;
        Ok(Held { _file: file })
    }

    /// A file, or nothing.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let named = match fs::symlink_metadata(&path) {
            Ok(named) => named,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // No link, no pipe: what is opened is looked at once more.
        if !named.is_file() {
            return Err(odd(&path));
        }
        let file = File::open(&path)?;
        let meta = file.metadata()?;
        let same = (meta.dev(), meta.ino()) == (named.dev(), named.ino());
        if !same || meta.permissions().mode() & 0o077 != 0 || meta.len() > LARGEST {
            return Err(odd(&path));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Writes a file, whole, and waits until the disk has it.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = self.path(&format!("{name}.new"));
        self.remove(&format!("{name}.new"))?;
        let mut file = private().write(true).create_new(true).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, self.path(name))?;
        File::open(&self.dir)?.sync_all()
    }

    /// Gives a file another name, if it is there.
    pub(crate) fn rename(&self, name: &str, to: &str) -> io::Result<bool> {
        match fs::rename(self.path(name), self.path(to)) {
            Ok(()) => File::open(&self.dir)?.sync_all().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names of all files.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.dir)?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    /// Deletes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
