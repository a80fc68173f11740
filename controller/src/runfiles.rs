//! What is kept of a run outside the database: `runs/<name>/<attempt>/` with
//! `stdout.log`, `stderr.log`, `setup.log` (plain bytes: the offset in the
//! file is the offset in the stream; what is missing
//! is a hole in the file and stands in the journal), `stdout.times.jsonl` and
//! its like (when the program wrote what), `points.jsonl`, and
//! `runs/<name>/state.json`. All of it is readable without the program.
//!
//! Bytes are written and synced *before* the transaction that moves the
//! stream's position; after a crash whatever lies past the position is cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

mod times;

use times::TimesOfLogs;
pub use times::{Mark, Times};

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct FileError {
    /// Which file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// The directory of all runs.
#[derive(Debug, Clone)]
pub struct RunFiles {
    root: PathBuf,
    durable: bool,
    times: TimesOfLogs,
}

/// Bytes to put at an offset of one file.
#[derive(Debug, Clone)]
pub struct Write {
    /// Run's name.
    pub run: String,
    /// Attempt's number.
    pub attempt: u32,
    /// File name.
    pub file: &'static str,
    /// Where.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
    /// When the program wrote the first of them, for logs: unix milliseconds
    /// by the machine's clock; 0 is unknown.
    pub at_ms: u64,
}

impl RunFiles {
    /// Files under `root`. Without `durable` nothing is synced: simulations
    /// lose no power.
    #[must_use]
    pub fn new(root: PathBuf, durable: bool) -> Self {
        Self { root, durable, times: TimesOfLogs::default() }
    }

    /// The directory that holds one for each run.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of one attempt.
    #[must_use]
    pub fn attempt_dir(&self, run: &str, attempt: u32) -> PathBuf {
        self.root.join(run).join(attempt.to_string())
    }

    /// Performs all writes, then syncs what was written to.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub async fn write(&self, writes: Vec<Write>) -> Result<(), FileError> {
        if writes.is_empty() {
            return Ok(());
        }
        let this = self.clone();
        if !self.durable {
            return this.write_now(&writes);
        }
        let joined = tokio::task::spawn_blocking(move || this.write_now(&writes)).await;
        joined.unwrap_or_else(|e| {
            Err(FileError { path: self.root.clone(), source: io::Error::other(e.to_string()) })
        })
    }

    fn write_now(&self, writes: &[Write]) -> Result<(), FileError> {
        let mut open: Vec<(PathBuf, File)> = Vec::new();
        for write in writes {
            let dir = self.attempt_dir(&write.run, write.attempt);
            let path = dir.join(write.file);
            let at = match open.iter().position(|(p, _)| *p == path) {
                Some(at) => at,
                None => {
                    let file =
                        open_file(&dir, &path).map_err(|source| FileError { path: path.clone(), source })?;
                    open.push((path.clone(), file));
                    open.len() - 1
                }
            };
            let file = &open[at].1;
            file.write_all_at(&write.bytes, write.offset)
                .map_err(|source| FileError { path: path.clone(), source })?;
            if write.at_ms > 0
                && let Err(error) = self.times.note(&path, write.offset, write.at_ms)
            {
                // The bytes count, their times are an extra.
                tracing::debug!(path = %path.display(), %error, "the time of output could not be noted");
            }
        }
        if self.durable {
            for (path, file) in &open {
                file.sync_data().map_err(|source| FileError { path: path.clone(), source })?;
            }
        }
        Ok(())
    }

    /// Cuts a file back to what is durable; a missing file is fine.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn truncate(&self, run: &str, attempt: u32, file: &str, len: u64) -> Result<(), FileError> {
        let path = self.attempt_dir(run, attempt).join(file);
        let cut = || -> io::Result<()> {
            let handle = match OpenOptions::new().write(true).open(&path) {
                Ok(handle) => handle,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e),
            };
            if handle.metadata()?.len() > len {
                handle.set_len(len)?;
            }
            Ok(())
        };
        cut().map_err(|source| FileError { path: path.clone(), source })
    }

    /// Reads up to `max` bytes at an offset; empty at the end or where there
    /// is no file yet.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn read(
        &self,
        run: &str,
        attempt: u32,
        file: &str,
        offset: u64,
        max: usize,
    ) -> Result<Vec<u8>, FileError> {
        let path = self.attempt_dir(run, attempt).join(file);
        let read = || -> io::Result<Vec<u8>> {
            let handle = match File::open(&path) {
                Ok(handle) => handle,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(e) => return Err(e),
            };
            let mut bytes = vec![0; max];
            let mut filled = 0;
            while filled < max {
                match handle.read_at(&mut bytes[filled..], offset + filled as u64)? {
                    0 => break,
                    n => filled += n,
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        };
        read().map_err(|source| FileError { path: path.clone(), source })
    }

    /// How long a file is; 0 where there is none yet.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn size(&self, run: &str, attempt: u32, file: &str) -> Result<u64, FileError> {
        let path = self.attempt_dir(run, attempt).join(file);
        match fs::metadata(&path) {
            Ok(found) => Ok(found.len()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(FileError { path, source }),
        }
    }

    /// When what stands in a log was written.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn times(&self, run: &str, attempt: u32, file: &str) -> Result<Times, FileError> {
        let path = self.attempt_dir(run, attempt).join(file);
        self.times.of(&path).map_err(|source| FileError { path: path.clone(), source })
    }

    /// Replaces a whole file of an attempt: it is there complete or as before.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write_whole(&self, run: &str, attempt: u32, file: &str, bytes: &[u8]) -> Result<(), FileError> {
        let dir = self.attempt_dir(run, attempt);
        let path = dir.join(file);
        let write = || -> io::Result<()> {
            make_dir(&dir)?;
            let temporary = dir.join(format!(".{file}.tmp"));
            let mut open = OpenOptions::new();
            let mut handle = open.create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
            handle.write_all(bytes)?;
            if self.durable {
                handle.sync_data()?;
            }
            fs::rename(&temporary, &path)?;
            if self.durable { File::open(&dir)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|source| FileError { path: path.clone(), source })
    }

    /// Replaces `runs/<name>/state.json`; it is a copy for people, the row is
    /// what counts.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write_state(&self, run: &str, json: &str) -> Result<(), FileError> {
        let dir = self.root.join(run);
        let path = dir.join("state.json");
        let write = || -> io::Result<()> {
            make_dir(&dir)?;
            let temporary = dir.join(".state.json.tmp");
            let mut file = File::create(&temporary)?;
            file.write_all(json.as_bytes())?;
            if self.durable {
                file.sync_data()?;
            }
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| FileError { path: path.clone(), source })
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn open_file(dir: &Path, path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            make_dir(dir)?;
            let file = open()?;
            // The name must survive a power cut, or the position would speak
            // of bytes that nothing holds.
            File::open(dir)?.sync_all()?;
            if let Some(parent) = dir.parent() {
                File::open(parent)?.sync_all()?;
            }
            Ok(file)
        }
        other => other,
    }
}
