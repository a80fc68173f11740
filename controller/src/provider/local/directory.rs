//! A local machine's directory: what is in it, and how it is made and erased.
//!
//! Its files are written by the machine's own processes too: reads are bounded,
//! follow no link and block on no pipe.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg, OFlag};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::processes::Stamp;

/// The first-boot script's name.
pub(super) const SCRIPT: &str = "first-boot.sh";
/// What the first boot prints.
pub(super) const BOOT_LOG: &str = "boot.log";
const INSTANCE: &str = "instance.json";
const BOOT: &str = "boot.json";
const GUARD: &str = "guard.json";
/// Where agents write themselves down, one file each.
const AGENTS: &str = "agents";
/// A machine has one agent, or a few while one takes another's place.
const MAX_AGENTS: usize = 32;
const TRASH: &str = ".trash-";
/// How much of the end of the boot log is looked at.
const WORDS: u64 = 600;
/// The longest state file read.
const MAX_STATE: u64 = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct InstanceFile {
    label: String,
    machine_id: String,
}

/// What the boot process was: how it is known again, and where it was put.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BootFile {
    #[serde(flatten)]
    pub(super) stamp: Stamp,
    pub(super) cgroup: Option<PathBuf>,
}

/// Holds the root: alone to make a machine, with others to look. Making a
/// machine takes milliseconds; nothing slow is done under this lock.
pub(super) fn lock(root: &Path, alone: bool) -> io::Result<Flock<File>> {
    if alone {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    } else if !root.is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(root.join(".lock"))?;
    let how = if alone { FlockArg::LockExclusive } else { FlockArg::LockShared };
    Flock::lock(file, how).map_err(|(_, errno)| errno.into())
}

/// The directory of one machine, whether it exists or not.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    id: String,
}

impl Directory {
    /// The id must have been checked.
    pub(super) fn new(root: &Path, id: &str) -> Self {
        Self { root: root.to_owned(), id: id.to_owned() }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn path(&self) -> PathBuf {
        self.root.join(&self.id)
    }

    pub(super) fn exists(&self) -> bool {
        fs::symlink_metadata(self.path()).is_ok()
    }

    /// Makes it under another name and moves it into place, so that there is
    /// never a machine without its label.
    pub(super) fn make(&self, label: &str, user_data: &str) -> io::Result<()> {
        let draft = Self::new(&self.root, &format!(".new-{}", self.id));
        if draft.exists() {
            fs::remove_dir_all(draft.path())?;
        }
        DirBuilder::new().mode(0o700).create(draft.path())?;
        let instance = InstanceFile { label: label.to_owned(), machine_id: self.id.clone() };
        let made = draft
            .write_state(INSTANCE, &instance)
            .and_then(|()| draft.write_script(user_data))
            .and_then(|()| fs::rename(draft.path(), self.path()))
            .and_then(|()| File::open(&self.root)?.sync_all());
        if made.is_err() {
            let _ = fs::remove_dir_all(draft.path());
        }
        made
    }

    pub(super) fn write_script(&self, user_data: &str) -> io::Result<()> {
        self.write(SCRIPT, 0o700, user_data.as_bytes())
    }

    pub(super) fn write_boot(&self, boot: &BootFile) -> io::Result<()> {
        self.write_state(BOOT, boot)
    }

    fn write_state(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        self.write(name, 0o600, &serde_json::to_vec(value)?)
    }

    fn write(&self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let directory = self.path();
        let draft = directory.join(format!(".{name}.new"));
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        // Again, since the process's own mask may have taken bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, directory.join(name))?;
        File::open(&directory)?.sync_all()
    }

    /// The label given when it was made.
    pub(super) fn label(&self) -> Result<String, String> {
        let read = self.read::<InstanceFile>(INSTANCE);
        read.map(|file| file.label).map_err(|error| format!("its {INSTANCE} cannot be read: {error}"))
    }

    /// The process that ran the first-boot script.
    /// The last lines that its first boot printed, a few hundred characters at
    /// most.
    pub(super) fn last_words(&self) -> Option<String> {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let mut log =
            OpenOptions::new().read(true).custom_flags(flags).open(self.path().join(BOOT_LOG)).ok()?;
        let meta = log.metadata().ok().filter(fs::Metadata::is_file)?;
        log.seek(SeekFrom::Start(meta.len().saturating_sub(WORDS))).ok()?;
        let mut tail = Vec::new();
        log.take(WORDS).read_to_end(&mut tail).ok()?;
        let text = String::from_utf8_lossy(&tail);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join("; ");
        let clean = last.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        Some(clean).filter(|words| !words.is_empty())
    }

    pub(super) fn boot(&self) -> Option<Stamp> {
        self.read::<BootFile>(BOOT).ok().map(|file| file.stamp)
    }

    /// The cgroup the machine was put in, as its file claims.
    pub(super) fn cgroup(&self) -> Option<PathBuf> {
        self.read::<BootFile>(BOOT).ok()?.cgroup
    }

    /// The guard, as it wrote itself down.
    pub(super) fn guard(&self) -> Option<Stamp> {
        self.read(GUARD).ok()
    }

    /// Its agents, as they wrote themselves down; those of an earlier guard may
    /// be among them.
    pub(super) fn agents(&self) -> Vec<Stamp> {
        let entries = fs::read_dir(self.path().join(AGENTS)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok()).take(MAX_AGENTS);
        names.filter_map(|name| self.read(&format!("{AGENTS}/{name}")).ok()).collect()
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<T> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(self.path().join(name))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a plain file"));
        }
        let mut text = Vec::new();
        file.take(MAX_STATE).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Takes the name away first, then the content, and what an earlier attempt
    /// could not remove.
    pub(super) fn erase(&self) -> io::Result<()> {
        let mut last = Ok(());
        for attempt in 0..5 {
            if attempt > 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
            last = self.try_erase();
            if last.is_ok() {
                break;
            }
        }
        last
    }

    fn try_erase(&self) -> io::Result<()> {
        if !self.root.is_dir() {
            return Ok(());
        }
        let prefix = format!("{TRASH}{}-", self.id);
        if self.exists() {
            let trash = (0..u32::MAX)
                .map(|n| self.root.join(format!("{prefix}{n}")))
                .find(|path| fs::symlink_metadata(path).is_err())
                .ok_or_else(|| io::Error::other("no free name for the trash"))?;
            fs::rename(self.path(), trash)?;
        }
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    fs::remove_dir_all(path).or_else(|_| {
        open_up(path);
        fs::remove_dir_all(path)
    })
}

/// Gives back the right to remove what lies in directories that were closed.
fn open_up(directory: &Path) {
    let mut todo = vec![directory.to_owned()];
    while let Some(directory) = todo.pop() {
        let _ = fs::set_permissions(&directory, Permissions::from_mode(0o700));
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        // `file_type` does not follow links.
        let inside = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        todo.extend(inside.map(|entry| entry.path()));
    }
}
