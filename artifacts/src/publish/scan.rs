//! Reads files so that what was read is what was there: identities before,
//! content through one descriptor, identities and names again after. Never
//! maps a file, for a trainer may truncate it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::base::{Keyframe, Related, Relations};
use super::pack::{Batch, Piece};
use super::{PublishError, Selection};
use crate::beneath::{Beneath, Opened};
use crate::chunk::{Chunker, Cuts, MAX, few, outline};
use crate::identity::Identity;
use crate::manifest::{Kind, LEAST_PER_CHUNK, MAX_BYTES, ManifestError};
use crate::path::{PathError, check_link, check_path};
use crate::source::unfit;

/// Descriptors held from the first look to the last; more files than this are
/// opened again, which finds the same inode or fails.
const HELD: usize = 256;
/// Above the coarsest clock tick a kernel stamps files with: a write after
/// this pause cannot bear the stamp seen before it.
const TICK: Duration = Duration::from_millis(20);
const MAX_NAMES: usize = 1_000_000;

/// What stands in the manifest for one path.
pub(super) enum Found {
    File { mode: u32, size: u64, mtime_ms: i64 },
    Dir { mode: u32 },
    Link { target: String },
}

enum Item {
    /// `data`: bytes that the file system has room for; fewer where there are holes.
    File {
        identity: Identity,
        data: u64,
        held: Option<File>,
    },
    Dir {
        identity: Identity,
    },
    Link {
        target: String,
    },
}

/// A selection that is being read.
pub(super) struct Scan {
    root: PathBuf,
    items: Vec<(String, Item)>,
    dirs: Beneath,
    /// The root is the checkpoint itself: a name that comes or goes matters.
    sealed: Option<Identity>,
    next: usize,
    open: Option<Open>,
    /// What chunks may be differences to.
    kin: Relations,
}

/// The file that is being read.
struct Open {
    number: usize,
    chunker: Chunker<File>,
    related: Option<Related>,
}

fn changed(path: &str) -> PublishError {
    PublishError::Changed { path: path.to_owned() }
}

fn failed(path: &str, error: io::Error) -> PublishError {
    match error.kind() {
        io::ErrorKind::NotFound => changed(path),
        io::ErrorKind::NotADirectory => PublishError::Unfit {
            path: path.to_owned(),
            why: "lies behind a link: select where it really lies",
        },
        io::ErrorKind::InvalidData => {
            PathError { path: path.to_owned(), why: "is a link with a target that is not UTF-8" }.into()
        }
        _ => PublishError::Io { path: path.to_owned(), source: error },
    }
}

impl Scan {
    /// Takes the identity of every path; a chunk takes `least` bytes of the
    /// manifest.
    pub(super) fn open(selection: &Selection, least: u64) -> Result<Self, PublishError> {
        let root = &selection.root;
        let shown = root.display().to_string();
        let dirs = Beneath::open(root).map_err(|e| failed(&shown, e))?;
        let whole = selection.kind == Kind::Checkpoint
            && !selection.single_file
            && root.file_name().is_some_and(|name| name.to_str() == Some(&selection.name));
        let mut scan = Self {
            root: root.clone(),
            items: Vec::new(),
            dirs,
            sealed: None,
            next: 0,
            open: None,
            kin: Relations::default(),
        };
        if whole {
            scan.sealed = Some(root_identity(root).map_err(|e| failed(&shown, e))?);
        }
        let mut newest = (i64::MIN, 0);
        let unique: BTreeSet<&String> = selection.paths.iter().collect();
        for path in unique {
            check_path(path)?;
            let item = look(&mut scan.dirs, path, scan.items.len() < HELD)?;
            if let Item::File { identity, .. } = &item {
                newest = newest.max(identity.mtime).max(identity.ctime);
            } else if selection.single_file {
                return Err(PublishError::Unfit { path: path.clone(), why: "is not a file" });
            }
            scan.items.push((path.clone(), item));
        }
        scan.fits(least)?;
        outlive(newest);
        Ok(scan)
    }

    /// Looks for what its chunks may be differences to.
    pub(super) fn against(mut self, keyframe: Option<Arc<Keyframe>>) -> Self {
        if let Some(keyframe) = keyframe {
            let files = self.items.iter().filter(|(_, item)| matches!(item, Item::File { .. }));
            let paths: Vec<&str> = files.map(|(path, _)| path.as_str()).collect();
            self.kin = Relations::of(keyframe, &paths);
        }
        self
    }

    /// Finds out before hours of sending that no manifest can hold the tree.
    /// The chunks of holes are one and the same: each takes room where entries
    /// are described, and none where a sealed tree tells its chunks.
    fn fits(&self, per_chunk: u64) -> Result<(), PublishError> {
        let (mut told, mut described) = (0_u64, 0_u64);
        for (path, item) in &self.items {
            described = described.saturating_add(path.len() as u64);
            if let Item::File { identity, data, .. } = item {
                let data = identity.size.min(*data);
                let holes = (identity.size - data) / MAX as u64;
                told = told.saturating_add(few(data) * per_chunk);
                described = described.saturating_add((few(data) + holes) * LEAST_PER_CHUNK);
            }
        }
        let least = told.max(described);
        if least > MAX_BYTES { Err(ManifestError::TooLarge(least).into()) } else { Ok(()) }
    }

    /// The next chunks; none at the end.
    pub(super) fn read(&mut self) -> Result<Vec<Piece>, PublishError> {
        let mut batch = Batch::default();
        while !batch.full() {
            let Some(Open { number, chunker, related }) = &mut self.open else {
                if !self.open_next()? {
                    break;
                }
                continue;
            };
            match chunker.next() {
                Ok(Some(chunk)) => {
                    let base = related.as_mut().and_then(|related| related.next(chunk.len()));
                    batch.add(*number, chunk, base);
                }
                Ok(None) => self.open = None,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(changed(&self.items[*number].0));
                }
                Err(error) => return Err(failed(&self.items[*number].0, error)),
            }
        }
        Ok(batch.into_pieces())
    }

    fn open_next(&mut self) -> Result<bool, PublishError> {
        while let Some((path, item)) = self.items.get(self.next) {
            let number = self.next;
            self.next += 1;
            let Item::File { identity, held, .. } = item else { continue };
            let file = match held {
                Some(file) => file.try_clone().map_err(|e| failed(path, e))?,
                None => match look_again(&mut self.dirs, path, true)? {
                    Item::File { identity: now, held: Some(file), .. } if now == *identity => file,
                    _ => return Err(changed(path)),
                },
            };
            let records = outline(&file, identity.size);
            let related = self.kin.file(path, &records, identity.size);
            let chunker = Chunker::new(file, Cuts::new(records, identity.size));
            self.open = Some(Open { number, chunker, related });
            return Ok(true);
        }
        Ok(false)
    }

    /// The last look: descriptors and names must still be what they were.
    pub(super) fn finish(self) -> Result<Vec<(String, Found)>, PublishError> {
        let shown = self.root.display().to_string();
        let mut dirs = Beneath::open(&self.root).map_err(|e| failed(&shown, e))?;
        if let Some(before) = &self.sealed
            && *before != root_identity(&self.root).map_err(|e| failed(&shown, e))?
        {
            return Err(changed(&shown));
        }
        let mut found = Vec::with_capacity(self.items.len());
        for (path, item) in self.items {
            let now = look_again(&mut dirs, &path, false)?;
            let node = match (item, now) {
                (Item::File { identity, held, .. }, Item::File { identity: now, .. }) if now == identity => {
                    let meta = held.map(|file| file.metadata()).transpose().map_err(|e| failed(&path, e))?;
                    if meta.is_some_and(|meta| Identity::of(&meta) != identity) {
                        return Err(changed(&path));
                    }
                    let (seconds, nanos) = identity.mtime;
                    let mtime_ms = seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000);
                    Found::File { mode: identity.mode & 0o777, size: identity.size, mtime_ms }
                }
                (Item::Dir { identity }, Item::Dir { identity: now }) => {
                    let same =
                        if self.sealed.is_some() { now == identity } else { now.same_directory(&identity) };
                    if !same {
                        return Err(changed(&path));
                    }
                    Found::Dir { mode: identity.mode & 0o777 }
                }
                (Item::Link { target }, Item::Link { target: now }) if now == target => {
                    Found::Link { target }
                }
                _ => return Err(changed(&path)),
            };
            found.push((path, node));
        }
        Ok(found)
    }
}

fn root_identity(root: &Path) -> io::Result<Identity> {
    Ok(Identity::of(&root.metadata()?))
}

/// Looks at what was fit before: if it no longer is, it has changed.
fn look_again(dirs: &mut Beneath, path: &str, hold: bool) -> Result<Item, PublishError> {
    look(dirs, path, hold).map_err(|error| match error {
        PublishError::Unfit { path, .. } | PublishError::Path(PathError { path, .. }) => changed(&path),
        other => other,
    })
}

fn look(dirs: &mut Beneath, path: &str, hold: bool) -> Result<Item, PublishError> {
    match dirs.node(path).map_err(|e| failed(path, e))? {
        Opened::Link(target) => {
            check_link(path, &target)?;
            Ok(Item::Link { target })
        }
        Opened::Node(file) => {
            let meta = file.metadata().map_err(|e| failed(path, e))?;
            let identity = Identity::of(&meta);
            if meta.is_file() {
                // A block is 512 bytes here, whatever the file system's are.
                let data = meta.blocks().saturating_mul(512);
                Ok(Item::File { identity, data, held: hold.then_some(file) })
            } else if meta.is_dir() {
                Ok(Item::Dir { identity })
            } else {
                Err(PublishError::Unfit { path: path.to_owned(), why: "is a device, socket or pipe" })
            }
        }
    }
}

/// Waits until the clock has left the tick of the newest stamp.
fn outlive((seconds, nanos): (i64, i64)) {
    let Ok(seconds) = u64::try_from(seconds) else { return };
    let stamp = Duration::new(seconds, u32::try_from(nanos).unwrap_or_default());
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().checked_sub(stamp);
    if let Some(young) = age.and_then(|age| TICK.checked_sub(age)) {
        std::thread::sleep(young);
    }
}

/// Every name below `root`, links not followed, leftovers of restores left
/// out. `leave` says of what cannot travel whether to leave it out, too; else
/// it is met again.
pub(super) fn everything(
    root: &Path,
    mut leave: impl FnMut(&str, &'static str) -> bool,
) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut open = vec![String::new()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let below = |name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
            let path = match entry.file_name().into_string() {
                Ok(name) => below(&name),
                Err(name) if leave(&below(&name.to_string_lossy()), "has a name that is not UTF-8") => {
                    continue;
                }
                Err(name) => {
                    return Err(io::Error::other(format!("name {} is not UTF-8", name.display())));
                }
            };
            if super::is_reserved(&path) {
                continue;
            }
            let kind = entry.file_type()?;
            let why = check_path(&path).err().map(|error| error.why);
            let why = why.or_else(|| if kind.is_dir() { None } else { unfit(root, &path, kind) });
            if why.is_some_and(|why| leave(&path, why)) {
                continue;
            }
            if kind.is_dir() {
                open.push(path.clone());
            }
            paths.push(path);
            if paths.len() > MAX_NAMES {
                return Err(io::Error::other("the directory holds more than 1,000,000 names"));
            }
        }
    }
    paths.sort_unstable();
    Ok(paths)
}
