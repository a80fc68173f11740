//! Finds what lies in the data directory and no run needs any more: environments
//! that were not used for long, builds that were broken off, the output of runs
//! that nobody knows. Only a person has it deleted, never the clock.
//!
//! Nothing of a run that is known is ever touched, and no environment while any
//! run is at work or about to be: which one it uses only its machine knows.
//! Links are never followed.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lifecycle::RunState;

use crate::core::{Core, CoreError};
use crate::model::{Machine, Run};

#[cfg(test)]
mod tests;

/// So long nothing must have happened to it.
pub const IDLE_MS: u64 = 30 * 86_400_000;
/// Names that are counted below one of them.
const COUNTED: usize = 2_000_000;

/// Something that no run needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is.
    pub path: PathBuf,
    /// What it takes.
    pub bytes: u64,
    /// When it was last used or changed, unix milliseconds.
    pub used_ms: u64,
    /// Why nothing needs it.
    pub why: &'static str,
    /// What must be held while it is removed.
    lock: Option<PathBuf>,
}

/// Everything that nothing has needed for `idle_ms`.
///
/// # Errors
/// Where the database or the disk fails.
pub async fn find(core: &Core, idle_ms: u64) -> Result<Vec<Leftover>, CoreError> {
    let before = core.clock.wall_ms().saturating_sub(idle_ms);
    let known = names(core).await?;
    let (runs, cache) = (core.files.root().to_owned(), core.boot.cache_dir.clone());
    let idle = !at_work(core).await?;
    let look = move || {
        let mut found = unknown_runs(&runs, &known, before);
        if idle {
            found.extend(environments(&cache, before));
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    };
    tokio::task::spawn_blocking(look).await.map_err(|e| CoreError::Impossible(e.to_string()))
}

/// Deletes what was found, unless something needs it by now; what it took.
///
/// # Errors
/// Where the database fails.
pub async fn remove(core: &Core, found: Vec<Leftover>) -> Result<u64, CoreError> {
    let mut freed = 0;
    for one in found {
        // Held first and asked then: a machine that wants an environment needs
        // the lock, and a run that begins now is seen.
        let Ok(held) = one.lock.as_deref().map(take).transpose() else { continue };
        let needed = match &one.lock {
            Some(_) => at_work(core).await?,
            None => names(core).await?.contains(&name_of(&one.path)),
        };
        if needed {
            continue;
        }
        let (path, bytes) = (one.path.clone(), one.bytes);
        let gone = tokio::task::spawn_blocking(move || {
            let done = delete(&one.path);
            drop(held);
            done
        });
        match gone.await {
            Ok(Ok(())) => freed += bytes,
            Ok(Err(error)) => tracing::warn!(path = %path.display(), %error, "could not be deleted"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "could not be deleted"),
        }
    }
    Ok(freed)
}

/// Whether any run is at work, or a machine is there that may have one.
async fn at_work(core: &Core) -> Result<bool, CoreError> {
    let busy = |run: &Run| !run.status.is_final() && run.status != RunState::Paused;
    let runs = core.all::<Run>().await?;
    let machines = core.all::<Machine>().await?;
    Ok(runs.iter().any(|run| busy(&run.body)) || machines.iter().any(|m| !m.body.status.is_final()))
}

async fn names(core: &Core) -> Result<BTreeSet<String>, CoreError> {
    Ok(core.all::<Run>().await?.into_iter().map(|run| run.body.name).collect())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn take(lock: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(lock)?;
    file.try_lock().map_err(|error| io::Error::other(error.to_string()))?;
    Ok(file)
}

/// Away under its name in one step, so that a kill in between leaves nothing
/// that looks whole.
fn delete(path: &Path) -> io::Result<()> {
    let aside = path.with_file_name(format!(".{}.gone", name_of(path)));
    if aside.symlink_metadata().is_ok() {
        fs::remove_dir_all(&aside)?;
    }
    if name_of(path).starts_with('.') {
        return fs::remove_dir_all(path);
    }
    fs::rename(path, &aside)?;
    fs::remove_dir_all(&aside)
}

/// The directories in a directory; none where there is none.
fn directories(above: &Path) -> Vec<PathBuf> {
    let Ok(listed) = fs::read_dir(above) else { return Vec::new() };
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    listed.flatten().filter(is_dir).map(|entry| entry.path()).collect()
}

/// Output of runs that the database does not know.
fn unknown_runs(above: &Path, known: &BTreeSet<String>, before: u64) -> Vec<Leftover> {
    let is_ours = |dir: &Path| {
        let is_number = |path: &PathBuf| name_of(path).parse::<u32>().is_ok();
        dir.join("state.json").is_file() || directories(dir).iter().any(is_number)
    };
    let unknown = directories(above).into_iter().filter(|dir| !known.contains(&name_of(dir)));
    let found = unknown.filter(|dir| is_ours(dir)).filter_map(|dir| {
        let (bytes, used_ms) = measure(&dir)?;
        let why = "no run of this name is known";
        (used_ms < before).then_some(Leftover { path: dir, bytes, used_ms, why, lock: None })
    });
    found.collect()
}

/// Environments that nobody used, builds that were broken off.
fn environments(cache: &Path, before: u64) -> Vec<Leftover> {
    let found = directories(cache).into_iter().filter_map(|dir| {
        let name = name_of(&dir);
        let whole = name.strip_prefix("env-");
        let gone = name.strip_prefix(".env-").and_then(|rest| rest.strip_suffix(".gone"));
        let key = whole.or(gone)?;
        let why = match whole {
            None => "its removal was broken off",
            Some(_) if dir.join(".complete").is_file() => "no run uses this environment",
            Some(_) => "its building was broken off",
        };
        let (bytes, changed_ms) = measure(&dir)?;
        // Nobody writes when it is used; where the file system notes reads,
        // these tell.
        let read = [".complete", "pyvenv.cfg", "bin/python"]
            .iter()
            .filter_map(|file| dir.join(file).metadata().ok());
        let used_ms = read.map(|meta| ms(meta.atime()).max(ms(meta.mtime()))).fold(changed_ms, u64::max);
        let lock = Some(cache.join(format!("env-{key}.lock")));
        (used_ms < before).then_some(Leftover { path: dir, bytes, used_ms, why, lock })
    });
    found.collect()
}

fn ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000)
}

/// The room that a directory takes and when something in it was last changed.
/// `None`: it cannot be looked at, or has more names than anybody counts.
fn measure(dir: &Path) -> Option<(u64, u64)> {
    let (mut bytes, mut changed, mut count) = (0, 0, 0);
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        changed = changed.max(ms(dir.symlink_metadata().ok()?.mtime()));
        for entry in fs::read_dir(&dir).ok()? {
            let entry = entry.ok()?;
            let meta = entry.metadata().ok()?;
            count += 1;
            if count > COUNTED {
                return None;
            }
            if meta.is_dir() {
                todo.push(entry.path());
                continue;
            }
            bytes += meta.blocks() * 512;
            changed = changed.max(ms(meta.mtime()));
        }
    }
    Some((bytes, changed))
}
