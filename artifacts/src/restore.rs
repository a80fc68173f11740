//! Brings a tree back. No byte is believed before its chunk's hash is checked,
//! a destination appears whole or not at all, and a store that could not be
//! asked is never mistaken for content that is lost or damaged: only the
//! latter may make anybody choose an older checkpoint.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::key::ObjectKey;
use crate::manifest::{Description, MAX_BYTES, Manifest, ManifestError};
use crate::offload::{is_full, offload, random_name};
use crate::seal::{Keyring, SealError};
use crate::store::{Store, StoreError};

mod base;
mod compare;
mod fetch;
mod staged;
mod stored;
mod write;

pub use compare::same_content;
pub use fetch::{read_tree, verify};
pub use stored::{verify_chunks, verify_stored};
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
    /// The manifest is of a version this program does not read, or has a chunk
    /// with such a codec: it may be as whole as any.
    #[error("manifest `{key}` cannot be read by this program: {what}")]
    Unsupported {
        /// Which.
        key: ObjectKey,
        /// What it has.
        what: String,
    },
    /// The manifest is sealed, and no key here opens it: it may be as whole as
    /// any.
    #[error("manifest `{key}` is sealed: {what}")]
    Sealed {
        /// Which.
        key: ObjectKey,
        /// To whom.
        what: String,
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

/// Reads and checks a manifest that is not sealed; with `expect`, it must be
/// these very bytes.
pub async fn load_manifest(
    store: &dyn Store,
    key: &ObjectKey,
    expect: Option<Digest>,
) -> Result<Manifest, RestoreError> {
    open_manifest(store, key, expect, &Keyring::default()).await
}

/// Reads and checks a manifest, and opens it where it is sealed.
pub async fn open_manifest(
    store: &dyn Store,
    key: &ObjectKey,
    expect: Option<Digest>,
    keys: &Keyring,
) -> Result<Manifest, RestoreError> {
    let found = load_description(store, key, expect).await?;
    found.open(key, keys).map_err(|error| opening_failed(key, error))
}

/// What it means that a sealed manifest did not open.
#[must_use]
pub fn opening_failed(key: &ObjectKey, error: SealError) -> RestoreError {
    match error {
        SealError::NoKey(to) => {
            RestoreError::Sealed { key: key.clone(), what: format!("it opens with a key of {to} alone") }
        }
        SealError::Manifest(error) => unfit(key, error),
        other => RestoreError::Corrupt { key: key.clone(), detail: other.to_string() },
    }
}

fn unfit(key: &ObjectKey, error: ManifestError) -> RestoreError {
    match error {
        ManifestError::Version(_) | ManifestError::Codec(_) => {
            RestoreError::Unsupported { key: key.clone(), what: error.to_string() }
        }
        other => RestoreError::Corrupt { key: key.clone(), detail: other.to_string() },
    }
}

/// Reads and checks a manifest as far as it stands in the clear.
pub async fn load_description(
    store: &dyn Store,
    key: &ObjectKey,
    expect: Option<Digest>,
) -> Result<Description, RestoreError> {
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
    Description::parse(&bytes).map_err(|error| unfit(key, error))
}

/// Whether a name is that of a restore that is not finished: the next one to
/// the same place goes on from it, or removes it.
#[must_use]
pub fn is_unfinished(name: &str) -> bool {
    name.starts_with(SCRATCH)
}

/// Restores a tree as `dest`, which must not exist; for a single file, `dest`
/// becomes that file. It is written beside `dest` and renamed when it is whole
/// and durable. Where this was interrupted, or the store could not be asked,
/// what was written stays, and the next restore of the same content to the
/// same `dest` fetches only what is missing or does not have its hash. One
/// restore to the same `dest` at a time.
pub async fn restore(store: &dyn Store, manifest: &Manifest, dest: &Path) -> Result<Restored, RestoreError> {
    manifest.check()?;
    let content = manifest.content_digest();
    let mut scratch = stage(manifest, dest, content, true).await?;
    let mut poured = pour(store, manifest, &scratch).await;
    if scratch.resumed && matches!(poured, Err(RestoreError::Io { .. } | RestoreError::Blocked { .. })) {
        // Perhaps what was left is in the way: not a second time.
        drop(scratch);
        scratch = stage(manifest, dest, content, false).await?;
        poured = pour(store, manifest, &scratch).await;
    }
    // Neither what does not verify nor a full disk gets better by waiting.
    scratch.kept = matches!(poured, Err(RestoreError::Remote(_) | RestoreError::Io { .. }));
    poured?;
    let inner = manifest.single_file.then(|| manifest.entries.first().map(|entry| entry.path.clone()));
    let place = dest.to_owned();
    run(dest, move || scratch.settle(inner.flatten().as_deref(), &place)).await?;
    Ok(done(manifest))
}

/// A directory to restore into: the one that an earlier try left, if `again`.
async fn stage(
    manifest: &Manifest,
    dest: &Path,
    content: Digest,
    again: bool,
) -> Result<Scratch, RestoreError> {
    let place = dest.to_owned();
    let left = run(dest, move || Ok(Scratch::is_left(&place, content))).await?;
    // Only to compare with what is there: a large tree has many.
    let names = (again && left).then(|| staged::names(manifest));
    let place = dest.to_owned();
    run(dest, move || Scratch::make(&place, content, names.as_ref())).await
}

async fn pour(store: &dyn Store, manifest: &Manifest, scratch: &Scratch) -> Result<(), RestoreError> {
    let kept = match scratch.resumed {
        true => staged::kept(manifest, &scratch.path, Style::Fresh).await?,
        false => Vec::new(),
    };
    let tree = Tree::new(manifest, &scratch.path, Style::Fresh, &kept)?;
    fetch::pour(store, manifest, tree, &kept).await
}

/// Restores into a directory that exists: each file replaces what has its name
/// in one step, everything else stays; a file that has its bytes already is
/// not fetched. A link in the directory is never
/// followed; one in the way of a directory is an error.
pub async fn restore_over(
    store: &dyn Store,
    manifest: &Manifest,
    dest_dir: &Path,
) -> Result<Restored, RestoreError> {
    manifest.check()?;
    let kept = staged::kept(manifest, dest_dir, Style::Over).await?;
    let tree = Tree::new(manifest, dest_dir, Style::Over, &kept)?;
    fetch::pour(store, manifest, tree, &kept).await?;
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

/// A directory beside the destination that goes away unless it is settled or
/// worth going on from.
struct Scratch {
    path: PathBuf,
    /// Something was in it.
    resumed: bool,
    kept: bool,
}

impl Scratch {
    /// Whether an earlier restore of this content to `dest` left anything.
    fn is_left(dest: &Path, content: Digest) -> bool {
        Self::place(dest, content).is_ok_and(|(above, _, name)| above.join(name).symlink_metadata().is_ok())
    }

    /// Where it is to be, the beginning of the names of all such, and its name.
    fn place(dest: &Path, content: Digest) -> Result<(&Path, String, String), RestoreError> {
        let (above, tag) = beside(dest)?;
        let name = format!("{tag}{}", &content.to_string()[..16]);
        Ok((above, tag, name))
    }

    /// `names`: what a directory that was left may hold; `None` takes none.
    fn make(dest: &Path, content: Digest, names: Option<&HashSet<String>>) -> Result<Self, RestoreError> {
        if dest.symlink_metadata().is_ok() {
            return Err(RestoreError::Exists { path: dest.to_owned() });
        }
        let (above, tag, name) = Self::place(dest, content)?;
        fs::create_dir_all(above).map_err(|e| RestoreError::io(above, e))?;
        let path = above.join(&name);
        let is_ours = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        let resumed = is_ours
            && names.is_some_and(|names| staged::has_strangers(&path, names).is_ok_and(|strange| !strange));
        // What earlier restores of this destination left when they were killed.
        for entry in fs::read_dir(above).map_err(|e| RestoreError::io(above, e))?.flatten() {
            let found = entry.file_name();
            let Some(found) = found.to_str().filter(|found| found.starts_with(&tag)) else { continue };
            if !(resumed && found == name) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
        if resumed {
            return Ok(Self { path, resumed, kept: false });
        }
        // What cannot be removed is not gone on from.
        let path = match fs::create_dir(&path) {
            Ok(()) => path,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = above.join(tag + &random_name());
                fs::create_dir(&path).map_err(|e| RestoreError::io(&path, e))?;
                path
            }
            Err(error) => return Err(RestoreError::io(&path, error)),
        };
        Ok(Self { path, resumed, kept: false })
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
        if !self.kept {
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

/// The directory of `dest` and the beginning of scratch names for it.
fn beside(dest: &Path) -> Result<(&Path, String), RestoreError> {
    let name = dest.file_name().ok_or_else(|| RestoreError::Exists { path: dest.to_owned() })?;
    let tag = Digest::of(name.as_encoded_bytes()).to_string();
    let above = dest.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((above, format!("{SCRATCH}{}-", &tag[..16])))
}
