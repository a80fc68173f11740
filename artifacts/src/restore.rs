//! Brings a tree back. No byte is believed before its chunk's hash is checked,
//! a destination appears whole or not at all, and a store that could not be
//! asked is never mistaken for content that is lost or damaged: only the
//! latter may make anybody choose an older checkpoint.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::key::ObjectKey;
use crate::manifest::{MAX_BYTES, Manifest, ManifestError};
use crate::offload::{is_full, offload, random_name};
use crate::store::{Store, StoreError};

mod fetch;
mod write;

pub use fetch::{read_tree, verify};
use write::{Style, Tree};

/// Every temporary name that a restore makes begins with this.
pub(crate) const SCRATCH: &str = ".tmp-outlast-";

/// What a verification read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Files in the tree.
    pub files: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Chunks read and hashed, each once.
    pub chunks: u64,
    /// What the tree holds.
    pub content_digest: Digest,
}

/// What a restore wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What the tree holds.
    pub content_digest: Digest,
}

/// Why a tree could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store answered that an object the tree needs is not there.
    #[error("object `{key}` is gone from the store: use another checkpoint")]
    Missing {
        /// Which.
        key: ObjectKey,
    },
    /// An object is there and its content is wrong.
    #[error("object `{key}` is damaged: {detail}")]
    Corrupt {
        /// Which.
        key: ObjectKey,
        /// What is wrong with it.
        detail: String,
    },
    /// The manifest is of a version this program does not read.
    #[error("manifest `{key}` has version {version}: upgrade this program")]
    Unsupported {
        /// Which.
        key: ObjectKey,
        /// Its version.
        version: u32,
    },
    /// The manifest given names what no honest tree can.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The destination is taken; nothing was changed.
    #[error("{} exists: move it away or restore elsewhere", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// Something in the destination stands in the way: a link where a
    /// directory must be, or a directory where a file must be.
    #[error("{} is in the way: {detail}", path.display())]
    Blocked {
        /// What.
        path: PathBuf,
        /// Why it cannot be replaced.
        detail: String,
    },
    /// No room is left on this machine or in the store.
    #[error("no room left: {0}")]
    Full(String),
    /// A local file system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The store could not be asked; the tree may be whole: try again.
    #[error("the store could not be asked: {0}")]
    Remote(String),
    /// The tree is larger than the caller allows.
    #[error("the tree has {bytes} bytes, more than the {limit} allowed here")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
}

impl RestoreError {
    fn io(path: &Path, source: io::Error) -> Self {
        let what = path.display().to_string();
        if is_full(&source) { Self::Full(what) } else { Self::Io { what, source } }
    }
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing(key) => Self::Missing { key },
            StoreError::OutOfRange { key, end, size } => {
                Self::Corrupt { key, detail: format!("it has {size} bytes where {end} are needed") }
            }
            StoreError::Full(what) => Self::Full(what),
            StoreError::Io { what, source } => Self::Io { what, source },
            StoreError::Remote(what) => Self::Remote(what),
            StoreError::BadPrefix(_) => Self::Remote(error.to_string()),
        }
    }
}

/// Reads and checks a manifest; with `expect`, it must be these very bytes.
pub async fn load_manifest(
    store: &dyn Store,
    key: &ObjectKey,
    expect: Option<Digest>,
) -> Result<Manifest, RestoreError> {
    let corrupt = |detail: String| RestoreError::Corrupt { key: key.clone(), detail };
    let size = store.size(key).await?.ok_or_else(|| RestoreError::Missing { key: key.clone() })?;
    if size > MAX_BYTES {
        return Err(corrupt(ManifestError::TooLarge(size).to_string()));
    }
    let bytes = store.get(key, 0, size).await?;
    let digest = Digest::of(&bytes);
    if let Some(expected) = expect.filter(|expected| *expected != digest) {
        return Err(corrupt(format!("its digest is {digest}, not {expected}")));
    }
    Manifest::parse(&bytes).map_err(|error| match error {
        ManifestError::Version(version) => RestoreError::Unsupported { key: key.clone(), version },
        other => corrupt(other.to_string()),
    })
}

/// Restores a tree as `dest`, which must not exist; for a single file, `dest`
/// becomes that file. It is written beside `dest` and renamed when it is whole
/// and durable. One restore to the same `dest` at a time.
pub async fn restore(store: &dyn Store, manifest: &Manifest, dest: &Path) -> Result<Restored, RestoreError> {
    manifest.check()?;
    let place = dest.to_owned();
    let scratch = run(dest, move || Scratch::make(&place)).await?;
    let tree = Tree::new(manifest, &scratch.path, Style::Fresh)?;
    fetch::pour(store, manifest, tree).await?;
    let inner = manifest.single_file.then(|| manifest.entries.first().map(|entry| entry.path.clone()));
    let place = dest.to_owned();
    run(dest, move || scratch.settle(inner.flatten().as_deref(), &place)).await?;
    Ok(done(manifest))
}

/// Restores into a directory that exists: each file replaces what has its name
/// in one step, everything else stays. A link in the directory is never
/// followed; one in the way of a directory is an error.
pub async fn restore_over(
    store: &dyn Store,
    manifest: &Manifest,
    dest_dir: &Path,
) -> Result<Restored, RestoreError> {
    manifest.check()?;
    let tree = Tree::new(manifest, dest_dir, Style::Over)?;
    fetch::pour(store, manifest, tree).await?;
    Ok(done(manifest))
}

fn done(manifest: &Manifest) -> Restored {
    Restored {
        files: manifest.files(),
        bytes: manifest.total_bytes(),
        content_digest: manifest.content_digest(),
    }
}

async fn run<T: Send + 'static>(
    shown: &Path,
    work: impl FnOnce() -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    offload(work).await.map_err(|e| RestoreError::io(shown, e))?
}

/// A directory beside the destination that goes away unless it is settled.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn make(dest: &Path) -> Result<Self, RestoreError> {
        if dest.symlink_metadata().is_ok() {
            return Err(RestoreError::Exists { path: dest.to_owned() });
        }
        let (above, name) = beside(dest)?;
        fs::create_dir_all(above).map_err(|e| RestoreError::io(above, e))?;
        // What an earlier restore of this destination left when it was killed.
        for entry in fs::read_dir(above).map_err(|e| RestoreError::io(above, e))?.flatten() {
            if entry.file_name().to_str().is_some_and(|found| found.starts_with(&name)) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
        let path = above.join(name + &random_name());
        fs::create_dir(&path).map_err(|e| RestoreError::io(&path, e))?;
        Ok(Self { path })
    }

    /// Gives the tree, or the one file in it, its final name.
    fn settle(self, file: Option<&str>, dest: &Path) -> Result<(), RestoreError> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        let from = file.map_or_else(|| self.path.clone(), |file| self.path.join(file));
        let renamed = match renameat_with(CWD, &from, CWD, dest, RenameFlags::NOREPLACE) {
            // File systems that cannot say "unless it exists".
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match dest.symlink_metadata() {
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                Err(_) => fs::rename(&from, dest),
            },
            other => other.map_err(Into::into),
        };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => RestoreError::Exists { path: dest.to_owned() },
            _ => RestoreError::io(dest, error),
        })?;
        let (above, _) = beside(dest)?;
        crate::beneath::sync_path(above).map_err(|e| RestoreError::io(above, e))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Already renamed: then there is nothing here.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// The directory of `dest` and the beginning of scratch names for it.
fn beside(dest: &Path) -> Result<(&Path, String), RestoreError> {
    let name = dest.file_name().ok_or_else(|| RestoreError::Exists { path: dest.to_owned() })?;
    let tag = Digest::of(name.as_encoded_bytes()).to_string();
    let above = dest.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((above, format!("{SCRATCH}{}-", &tag[..16])))
}
