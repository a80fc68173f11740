//! A control group per machine where the host allows one: the surest way to
//! end a whole tree at once. Best effort: without it the marker has to do.

use std::fs;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";

fn name(id: &str) -> String {
    format!("outlast-{id}")
}

/// The places where a machine's group may be made, the best first.
fn bases() -> Vec<PathBuf> {
    let mount = Path::new(MOUNT);
    let unified =
        if mount.join("cgroup.controllers").exists() { mount.to_owned() } else { mount.join("unified") };
    let mut bases = vec![unified.clone()];
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    if let Some(own) = own.filter(|own| !own.is_empty() && !own.split('/').any(|part| part == "..")) {
        bases.push(unified.join(own));
    }
    bases
}

/// Makes the machine's group and puts its first process there.
pub(super) fn make(id: &str, pid: i32) -> Option<PathBuf> {
    bases().into_iter().map(|base| base.join(name(id))).find(|group| {
        let made = fs::create_dir(group).is_ok() || group.is_dir();
        let joined = made && fs::write(group.join("cgroup.procs"), pid.to_string()).is_ok();
        if made && !joined {
            let _ = fs::remove_dir(group);
        }
        joined
    })
}

/// The groups that a machine may have. What its file claims counts only if it
/// can be nothing but a group of this machine.
pub(super) fn of(id: &str, claimed: Option<PathBuf>) -> Vec<PathBuf> {
    let mut groups: Vec<PathBuf> = bases().into_iter().map(|base| base.join(name(id))).collect();
    let plain = |path: &PathBuf| {
        path.starts_with(MOUNT)
            && path.file_name().is_some_and(|last| last == name(id).as_str())
            && !path.components().any(|part| part == std::path::Component::ParentDir)
    };
    if let Some(claimed) = claimed.filter(plain)
        && !groups.contains(&claimed)
    {
        groups.push(claimed);
    }
    groups.retain(|group| group.is_dir());
    groups
}

/// Ends everything in a group at once, where the kernel can.
pub(super) fn kill(group: &Path) {
    let _ = fs::write(group.join("cgroup.kill"), "1");
}

/// The processes in a group and below it.
pub(super) fn members(group: &Path) -> Vec<i32> {
    let below = tree(group);
    let lists = below.iter().filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
    lists.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Removes empty groups, the innermost first.
pub(super) fn remove(groups: &[PathBuf]) {
    for group in groups {
        // A process that has just been killed leaves its group a moment later.
        for _ in 0..40 {
            for inner in tree(group).iter().rev() {
                let _ = fs::remove_dir(inner);
            }
            if !group.is_dir() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// A group and all below it, outer ones first.
fn tree(group: &Path) -> Vec<PathBuf> {
    let mut found = vec![group.to_owned()];
    let mut next = 0;
    while let Some(group) = found.get(next) {
        let inside = fs::read_dir(group).into_iter().flatten().flatten();
        let inside: Vec<PathBuf> =
            inside.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
        found.extend(inside);
        next += 1;
    }
    found
}
