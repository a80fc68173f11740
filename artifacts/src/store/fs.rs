//! A store in a directory. An object appears whole and durable or not at all:
//! it is written and synced under `.tmp`, then linked to its name, which fails
//! if the name is taken. Several processes may share the directory.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Put, Store, StoreError, check_prefix};
use crate::beneath::sync_path;
use crate::key::ObjectKey;
use crate::offload::{is_full, offload, random_name};

/// Objects as files below one directory. Clones share it.
#[derive(Debug, Clone)]
pub struct FsStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Made with the store, or once it can be written to.
    scratch: Mutex<Option<Scratch>>,
    counter: AtomicU64,
    /// Directories whose own names this instance has made durable.
    synced: Mutex<HashSet<PathBuf>>,
}

/// Where objects are written before they get their names.
#[derive(Debug)]
struct Scratch {
    dir: PathBuf,
    /// Held as long as the store: a scratch directory whose lock is free
    /// belongs to nobody.
    _lock: File,
}

impl Scratch {
    /// Makes one in `root`, and removes what processes that died left.
    fn make(root: &Path) -> io::Result<Self> {
        let temporary = root.join(".tmp");
        fs::create_dir_all(&temporary)?;
        let gate = lock_file(&temporary.join("lock"))?;
        if gate.lock().is_ok() {
            remove_orphans(&temporary);
        }
        let dir = temporary.join(random_name());
        fs::create_dir(&dir)?;
        let lock = lock_file(&dir.join("lock"))?;
        // Where locks are unknown nobody ever takes another's away.
        drop(lock.try_lock());
        Ok(Self { dir, _lock: lock })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
    }
}

fn failed(what: impl FnOnce() -> String, source: io::Error) -> StoreError {
    let what = what();
    if is_full(&source) { StoreError::Full(what) } else { StoreError::Io { what, source } }
}

impl FsStore {
    /// Opens the store in `dir`, making it if need be, and removes what
    /// processes that died left half written. Blocks briefly.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let dir = dir.as_ref();
        let scratch = Scratch::make(dir);
        let scratch = scratch.map_err(|e| failed(|| format!("open the store in {}", dir.display()), e))?;
        Ok(Self::with(dir, Some(scratch)))
    }

    /// A store in a directory that cannot be written to now, on a full disk or
    /// one that has become read-only: what is there is read, and each put tries
    /// anew to make what it needs.
    #[must_use]
    pub fn to_read(dir: impl AsRef<Path>) -> Self {
        Self::with(dir.as_ref(), None)
    }

    fn with(dir: &Path, scratch: Option<Scratch>) -> Self {
        Self(Arc::new(Inner {
            root: dir.to_owned(),
            scratch: Mutex::new(scratch),
            counter: AtomicU64::new(0),
            synced: Mutex::default(),
        }))
    }

    /// Whether a store in `dir` holds any object besides marks. Makes nothing, and
    /// asks no lock. Blocks briefly.
    ///
    /// # Errors
    /// Where a directory cannot be read.
    pub fn holds_any(dir: &Path) -> io::Result<bool> {
        // A key has at most eight parts.
        let mut open = vec![(dir.to_owned(), 8_u8)];
        while let Some((dir, depth)) = open.pop() {
            let found = match fs::read_dir(&dir) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    continue;
                }
                other => other?,
            };
            for entry in found {
                let entry = entry?;
                let name = entry.file_name();
                let kind = entry.file_type()?;
                let whole = depth == 8;
                if whole && (name == ".tmp" || name == super::own::SCOPE) {
                    continue;
                }
                if kind.is_file() {
                    return Ok(true);
                }
                if kind.is_dir() && depth > 1 {
                    open.push((entry.path(), depth - 1));
                }
            }
        }
        Ok(false)
    }

    /// Bytes that may still be written to the disk of `dir`, or of what is above
    /// it; `None` where that is not known. Blocks briefly.
    #[must_use]
    pub fn room(dir: &Path) -> Option<u64> {
        let dir = dir.ancestors().find(|dir| dir.exists())?;
        let found = rustix::fs::statvfs(dir).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    async fn run<T: Send + 'static>(
        &self,
        key: &ObjectKey,
        work: impl FnOnce(&Inner, &ObjectKey) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (inner, owned) = (Arc::clone(&self.0), key.clone());
        offload(move || work(&inner, &owned)).await.map_err(|e| failed(|| format!("object `{key}`"), e))?
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

fn remove_orphans(temporary: &Path) {
    let Ok(found) = fs::read_dir(temporary) else { return };
    for entry in found.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let free = match OpenOptions::new().write(true).open(entry.path().join("lock")) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if free {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

/// Whether the file holds exactly `bytes`; `None` if there is no file.
fn holds(path: &Path, bytes: &[u8]) -> io::Result<Option<bool>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if file.metadata()?.len() != bytes.len() as u64 {
        return Ok(Some(false));
    }
    let mut buffer = vec![0; bytes.len().min(1 << 20)];
    for expected in bytes.chunks(1 << 20) {
        let part = &mut buffer[..expected.len()];
        file.read_exact(part)?;
        if part != expected {
            return Ok(Some(false));
        }
    }
    Ok(Some(true))
}

impl Inner {
    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// The directory for what is being written.
    fn scratch(&self) -> io::Result<PathBuf> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*scratch {
            return Ok(made.dir.clone());
        }
        Ok(scratch.insert(Scratch::make(&self.root)?).dir.clone())
    }

    fn put(&self, key: &ObjectKey, bytes: &[u8]) -> io::Result<Put> {
        let path = self.path(key);
        let parent = path.parent().unwrap_or(&self.root);
        if let Some(same) = holds(&path, bytes)? {
            return Self::taken(parent, same);
        }
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let temporary = Temporary(self.scratch()?.join(number.to_string()));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary.0)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        self.make_parents(parent)?;
        loop {
            match link(&temporary.0, &path) {
                Ok(()) => {
                    sync_path(parent)?;
                    return Ok(Put::Created);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            // `None`: deleted since, so the name is free again.
            if let Some(same) = holds(&path, bytes)? {
                return Self::taken(parent, same);
            }
        }
    }

    fn taken(parent: &Path, same: bool) -> io::Result<Put> {
        if !same {
            return Ok(Put::Different);
        }
        // Whoever linked it may not have synced the name yet.
        sync_path(parent)?;
        Ok(Put::Same)
    }

    /// Makes the directories down to `parent`, each with a durable name.
    fn make_parents(&self, parent: &Path) -> io::Result<()> {
        if self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains(parent) {
            return Ok(());
        }
        if parent != self.root
            && let Some(above) = parent.parent()
        {
            self.make_parents(above)?;
            match fs::create_dir(parent) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => sync_path(above)?,
            }
        }
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).insert(parent.to_owned());
        Ok(())
    }

    fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let what = || format!("read object `{key}`");
        let file = match File::open(self.path(key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing(key.clone()));
            }
            other => other.map_err(|e| failed(what, e))?,
        };
        let size = file.metadata().map_err(|e| failed(what, e))?.len();
        let end = offset.saturating_add(len);
        if end > size {
            return Err(StoreError::OutOfRange { key: key.clone(), end, size });
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, offset).map_err(|e| failed(what, e))?;
        Ok(bytes)
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<ObjectKey>> {
        let start = prefix.rsplit_once('/').map_or("", |(whole, _)| whole);
        let mut keys = Vec::new();
        let mut open = vec![start.to_owned()];
        while let Some(dir) = open.pop() {
            let found = match fs::read_dir(self.root.join(&dir)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
                other => other?,
            };
            for entry in found {
                let entry = entry?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                let related = path.starts_with(prefix) || prefix.starts_with(&path);
                let Some(key) = path.parse::<ObjectKey>().ok().filter(|_| related) else { continue };
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    open.push(path);
                } else if kind.is_file() && path.starts_with(prefix) {
                    keys.push(key);
                }
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }
}

/// A file that goes away whatever happens to the put.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// Gives `from` the name `to`, unless that is taken.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match fs::hard_link(from, to) {
        // File systems without hard links.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported | io::ErrorKind::TooManyLinks
            ) =>
        {
            Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
        }
        other => other,
    }
}

#[async_trait]
impl Store for FsStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        self.put_owned(key, bytes.to_vec()).await
    }

    async fn put_owned(&self, key: &ObjectKey, bytes: Vec<u8>) -> Result<Put, StoreError> {
        self.run(key, move |inner, key| {
            inner.put(key, &bytes).map_err(|e| failed(|| format!("write object `{key}`"), e))
        })
        .await
    }

    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.run(key, move |inner, key| inner.get(key, offset, len)).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        self.run(key, |inner, key| match fs::metadata(inner.path(key)) {
            Ok(found) if found.is_file() => Ok(Some(found.len())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(|| format!("look at object `{key}`"), error)),
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        check_prefix(prefix)?;
        let (inner, owned) = (Arc::clone(&self.0), prefix.to_owned());
        let listed = offload(move || inner.list(&owned)).await.and_then(|listed| listed);
        listed.map_err(|e| failed(|| format!("list objects below `{prefix}`"), e))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        self.run(key, |inner, key| {
            let path = inner.path(key);
            match fs::remove_file(&path) {
                Ok(()) => sync_path(path.parent().unwrap_or(&inner.root)).map(|()| true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
            .map_err(|e| failed(|| format!("delete object `{key}`"), e))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        super::super::contract::contract(&FsStore::open(dir.path()).unwrap()).await;
    }

    #[tokio::test]
    async fn leftovers_go_at_open_but_not_those_of_a_living_store() {
        let dir = tempfile::tempdir().unwrap();
        let living = FsStore::open(dir.path()).unwrap();
        let dead = dir.path().join(".tmp/dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), b"").unwrap();
        fs::write(dead.join("0"), b"half").unwrap();
        let second = FsStore::open(dir.path()).unwrap();
        assert!(!dead.exists());
        let key: ObjectKey = "a/b".parse().unwrap();
        assert_eq!(living.put_if_absent(&key, b"x").await.unwrap(), Put::Created);
        assert_eq!(second.put_if_absent(&key, b"x").await.unwrap(), Put::Same);
        assert_eq!(second.list("").await.unwrap(), [key]);
        let scratch = living.0.scratch().unwrap();
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 1, "only the lock is left after a put");
        drop(living);
        assert!(!scratch.exists());
    }

    #[tokio::test]
    async fn a_directory_without_objects_is_told_from_one_with() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!FsStore::holds_any(&dir.path().join("none")).unwrap());
        let store = FsStore::open(dir.path()).unwrap();
        store.put_if_absent(&super::super::own::mark("m").unwrap(), b"m").await.unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        assert!(!FsStore::holds_any(dir.path()).unwrap());
        store.put_if_absent(&ObjectKey::pack("source", 1, 1).unwrap(), b"kept").await.unwrap();
        assert!(FsStore::holds_any(dir.path()).unwrap());
    }

    #[tokio::test]
    async fn one_that_cannot_be_written_to_is_read_and_written_to_once_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let key: ObjectKey = "a/b".parse().unwrap();
        FsStore::open(dir.path()).unwrap().put_if_absent(&key, b"kept").await.unwrap();
        fs::remove_dir_all(dir.path().join(".tmp")).unwrap();
        // In the way of whatever is written.
        fs::write(dir.path().join(".tmp"), b"").unwrap();
        assert!(FsStore::open(dir.path()).is_err());
        let store = FsStore::to_read(dir.path());
        assert_eq!(store.get(&key, 0, 4).await.unwrap(), b"kept");
        assert_eq!(store.put_if_absent(&key, b"kept").await.unwrap(), Put::Same);
        let other: ObjectKey = "a/c".parse().unwrap();
        assert!(matches!(store.put_if_absent(&other, b"x").await, Err(StoreError::Io { .. })));
        fs::remove_file(dir.path().join(".tmp")).unwrap();
        assert_eq!(store.put_if_absent(&other, b"x").await.unwrap(), Put::Created);
    }

    #[tokio::test]
    async fn objects_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let key = ObjectKey::pack("source", 1, 1).unwrap();
        FsStore::open(dir.path()).unwrap().put_if_absent(&key, b"kept").await.unwrap();
        assert_eq!(FsStore::open(dir.path()).unwrap().get(&key, 1, 2).await.unwrap(), b"ep");
    }
}
