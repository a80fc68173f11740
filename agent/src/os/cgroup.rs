//! The cgroups of one attempt where the system lets us make them: one of
//! version 2, by which a whole tree is ended, and those of version 1 that its
//! limits need. Best effort: a machine without cgroups is a machine like any
//! other. Never moves anything out of the limits it has: the new cgroups lie
//! below those that this process is in.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use lifecycle::spec::LimitSpec;

use super::limits::Limiter;
use super::{read_bounded, table};

/// Where hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// The leaf into which our own processes move, so that the cgroup above it may
/// hand controllers to its children (processes and controllers exclude each
/// other in version 2).
const SUPERVISOR: &str = "outlast-supervisor";
const LEGACY: [&str; 3] = ["memory", "pids", "cpu"];
/// A cgroup stays busy for a moment after the last of its processes ended.
const REMOVE_TRIES: u32 = 50;

/// One directory that this process made, and where it came from.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    back: PathBuf,
}

/// The cgroups of one attempt.
#[derive(Debug)]
pub struct Cgroup {
    unified: Option<Place>,
    legacy: Vec<(&'static str, Place)>,
    pids_max: Option<(PathBuf, u64)>,
    is_ours_alone: bool,
}

/// The path of this process in a hierarchy, as /proc tells it.
fn own_path(controller: Option<&str>) -> Option<PathBuf> {
    let text = String::from_utf8(read_bounded("/proc/self/cgroup".as_ref(), 1 << 16).ok()?).ok()?;
    let path = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        match controller {
            None => (number == "0" && names.is_empty()).then_some(path),
            Some(name) => names.split(',').any(|n| n == name).then_some(path),
        }
    })?;
    let relative = Path::new(path.strip_prefix('/')?);
    relative.components().all(|c| matches!(c, Component::Normal(_))).then(|| relative.to_path_buf())
}

/// Our own cgroup of version 2, and the one below which others are made.
fn unified() -> Option<(PathBuf, PathBuf)> {
    let roots = [Path::new(MOUNT).join("unified"), MOUNT.into()];
    let root = roots.into_iter().find(|r| r.join("cgroup.controllers").exists())?;
    let own = root.join(own_path(None)?);
    let home = match own.parent() {
        Some(parent) if own.file_name().is_some_and(|n| n == SUPERVISOR) => parent.to_path_buf(),
        _ => own.clone(),
    };
    home.join("cgroup.procs").exists().then_some((own, home))
}

/// Our own cgroup in a hierarchy of version 1.
pub(super) fn legacy(controller: &str) -> Option<PathBuf> {
    let root = Path::new(MOUNT).join(controller);
    // Version 2 names no root after a controller.
    if !root.join("cgroup.procs").exists() {
        return None;
    }
    let own = root.join(own_path(Some(controller))?);
    // Inside a container the path is the host's and the mount is ours.
    Some(if own.join("cgroup.procs").exists() { own } else { root })
}

/// The directory whose counters speak of this machine as a whole.
pub(super) fn machine() -> Option<PathBuf> {
    unified().map(|(_, home)| home)
}

fn lists(file: &Path, word: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_ascii_whitespace().any(|w| w == word))
}

/// Has `home` hand a controller to its children.
///
/// # Errors
/// Where the controller is not delegated to us, or `home` holds processes that
/// are not ours to move.
pub(super) fn enable(home: &Path, controller: &str) -> io::Result<()> {
    let control = home.join("cgroup.subtree_control");
    if lists(&control, controller) {
        return Ok(());
    }
    if !lists(&home.join("cgroup.controllers"), controller) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the controller is not handed down to us"));
    }
    let word = format!("+{controller}");
    match fs::write(&control, &word) {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            make_room(home)?;
            fs::write(&control, &word)
        }
        done => done,
    }
}

/// Moves our own processes into a leaf; refuses where others are among them.
fn make_room(home: &Path) -> io::Result<()> {
    let exe = fs::read_link("/proc/self/exe")?;
    let inside = members(home);
    let is_ours = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|e| e == exe)
            || table::has_variable(*pid, "OUTLAST_MACHINE_ID")
    };
    if !inside.iter().all(is_ours) {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "our own cgroup holds other programs too"));
    }
    let leaf = home.join(SUPERVISOR);
    match fs::create_dir(&leaf) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    for pid in inside {
        // One that has just ended is nobody's failure.
        let _ = fs::write(leaf.join("cgroup.procs"), pid.to_string());
    }
    Ok(())
}

fn members(dir: &Path) -> HashSet<i32> {
    let Ok(bytes) = fs::read(dir.join("cgroup.procs")) else { return HashSet::new() };
    String::from_utf8_lossy(&bytes).lines().filter_map(|l| l.trim().parse().ok()).collect()
}

impl Cgroup {
    /// Makes the cgroups of an attempt below our own and applies its limits;
    /// `None` where none can be made. What could not be limited comes back in
    /// words, a sentence each.
    #[must_use]
    pub fn create(name: &str, limits: &LimitSpec) -> (Option<Self>, Vec<String>) {
        let place = |path: PathBuf, back: PathBuf| {
            // One that an attempt of the same name left is empty, or it is used.
            let made = fs::create_dir(&path);
            let is_made = made.is_ok() || (path.is_dir() && members(&path).is_empty());
            is_made.then_some(Place { path, back })
        };
        let unified = unified().and_then(|(own, home)| place(home.join(name), own));
        let mut limiter = Limiter::new(unified.as_ref().map(|p| p.path.clone()));
        let mut legacies: Vec<(&'static str, Place)> = Vec::new();
        limiter.apply(limits, &mut |controller| {
            let controller = LEGACY.into_iter().find(|c| *c == controller)?;
            let back = legacy(controller)?;
            let made = place(back.join(name), back)?;
            let path = made.path.clone();
            legacies.push((controller, made));
            Some(path)
        });
        // Making room may have moved us.
        let unified = unified.map(|p| Place { back: self::unified().map_or(p.back, |(own, _)| own), ..p });
        let is_empty = unified.is_none() && legacies.is_empty();
        let (pids_max, unapplied) = (limiter.pids_max, limiter.unapplied);
        let made = Self { unified, legacy: legacies, pids_max, is_ours_alone: true };
        ((!is_empty).then_some(made), unapplied)
    }

    /// The cgroups of this name that a process before us made and left.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let unified = unified()
            .map(|(own, home)| Place { path: home.join(name), back: own })
            .filter(|p| p.path.is_dir());
        let legacy: Vec<(&'static str, Place)> = LEGACY
            .into_iter()
            .filter_map(|c| legacy(c).map(|back| (c, Place { path: back.join(name), back })))
            .filter(|(_, place)| place.path.is_dir())
            .collect();
        if unified.is_none() && legacy.is_empty() {
            return None;
        }
        let found = Self { unified, legacy, pids_max: None, is_ours_alone: true };
        let own = i32::try_from(std::process::id()).ok()?;
        (!found.members().contains(&own)).then_some(found)
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.unified.iter().chain(self.legacy.iter().map(|(_, place)| place))
    }

    /// Moves this process in, so that what it starts is born inside.
    pub fn enter(&mut self) {
        let own = std::process::id().to_string();
        // We count as one of its processes for that moment.
        if let Some((file, most)) = &self.pids_max {
            let _ = fs::write(file, most.saturating_add(1).to_string());
        }
        let entered = self.places().filter(|p| fs::write(p.path.join("cgroup.procs"), &own).is_ok()).count();
        self.is_ours_alone = entered == 0;
    }

    /// Moves this process back out.
    pub fn leave(&mut self) {
        let own = std::process::id().to_string();
        let stuck = self.places().filter(|p| fs::write(p.back.join("cgroup.procs"), &own).is_err()).count();
        self.is_ours_alone = stuck == 0;
        if let Some((file, most)) = &self.pids_max {
            let _ = fs::write(file, most.to_string());
        }
    }

    /// The numbers of the processes inside.
    #[must_use]
    pub fn members(&self) -> HashSet<i32> {
        self.places().flat_map(|p| members(&p.path)).collect()
    }

    /// Ends everything inside at once where the kernel can (version 2 since
    /// 5.14), unless this process could not leave.
    pub fn kill(&self) {
        if let (true, Some(place)) = (self.is_ours_alone, &self.unified) {
            let file = place.path.join("cgroup.kill");
            if file.exists() {
                let _ = fs::write(file, "1");
            }
        }
    }

    /// The directory of version 2, if there is one.
    pub(super) fn unified_path(&self) -> Option<&Path> {
        self.unified.as_ref().map(|p| p.path.as_path())
    }

    /// The directory of a controller of version 1, if there is one.
    pub(super) fn legacy_path(&self, controller: &str) -> Option<&Path> {
        self.legacy.iter().find(|(c, _)| *c == controller).map(|(_, p)| p.path.as_path())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for place in self.places() {
            for _ in 0..REMOVE_TRIES {
                match fs::remove_dir(&place.path) {
                    Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    _ => break,
                }
            }
        }
    }
}
