//! Local copies of durable checkpoints: which there are, and taking them away
//! when the disk fills. What goes is renamed to a temporary name first, so that
//! nobody meets half of it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use artifacts::complete;
use lifecycle::RunSpec;

use super::Publishing;
use super::look::look;
use super::seen::{self, Seen};
use crate::health::alerts;
use crate::health::prune::{self, Copy, Room};
use crate::os;
use crate::world::layout::AttemptDir;

/// Marks what is being removed; [`complete::is_temporary`] knows the ending.
const REMOVED: &str = ".outlast-removed.tmp";

#[expect(clippy::cast_precision_loss, reason = "bytes of a disk, for display")]
fn size(bytes: u64) -> String {
    alerts::bytes(bytes as f64)
}

/// Where a relative path of a checkpoint is.
pub(super) fn path_of(dir: &AttemptDir, relative: &str) -> PathBuf {
    match relative.strip_prefix("@/") {
        Some(name) => dir.checkpoints().join(name),
        None => dir.source().join(relative),
    }
}

/// Its base name.
pub(super) fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Whether a link in the same directory leads to it (`latest`, `last.ckpt`).
pub(super) fn is_linked(path: &Path) -> bool {
    let Some(entries) = path.parent().and_then(|dir| std::fs::read_dir(dir).ok()) else { return false };
    entries.filter_map(Result::ok).take(super::NAMES).any(|entry| {
        entry.file_type().is_ok_and(|kind| kind.is_symlink())
            && std::fs::canonicalize(entry.path())
                .is_ok_and(|to| std::fs::canonicalize(path).is_ok_and(|p| p == to))
    })
}

/// Removes a copy; whether it is gone.
pub(super) fn remove(path: &Path) -> bool {
    let aside = path.with_file_name(format!(".{}{REMOVED}", name_of(path)));
    let moved = std::fs::rename(path, &aside);
    let removed = moved.and_then(|()| {
        if aside.is_dir() { std::fs::remove_dir_all(&aside) } else { std::fs::remove_file(&aside) }
    });
    match removed {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a durable checkpoint could not be pruned");
            false
        }
    }
}

/// What was done about a disk that fills.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relief {
    /// What was deleted, one sentence each.
    pub deleted: Vec<String>,
    /// Bytes that are wanted still; 0 is none.
    pub lacking: u64,
}

/// A local copy of something durable, and whose it is.
struct Local {
    dir: AttemptDir,
    attempt: String,
    path: PathBuf,
    relative: String,
    copy: Copy,
}

/// What is read of an assignment.
#[derive(serde::Deserialize)]
struct Whose {
    run_id: String,
    generation: u64,
}

fn whose(dir: &AttemptDir) -> Option<Whose> {
    serde_json::from_slice(&os::read_bounded(&dir.work(), 1 << 20).ok()?).ok()
}

/// The attempts of the same run before this one that are on the machine still,
/// the oldest first.
fn before(dir: &AttemptDir) -> Vec<(AttemptDir, String)> {
    let Some((own, state)) = whose(dir).zip(dir.path().parent().and_then(Path::parent)) else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir(state.join("attempts")) else { return Vec::new() };
    let mut found: Vec<(u64, AttemptDir, String)> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .take(1_000)
        .filter_map(|attempt| {
            let dir = AttemptDir::new(state, &attempt);
            let of = whose(&dir).filter(|of| of.run_id == own.run_id && of.generation < own.generation)?;
            Some((of.generation, dir, attempt))
        })
        .collect();
    found.sort_by_key(|(generation, ..)| *generation);
    found.into_iter().map(|(_, dir, attempt)| (dir, attempt)).collect()
}

fn device(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|meta| meta.dev())
}

impl Publishing {
    /// What is known of an attempt's durable copies, whether it is looked after
    /// here or only its files are left.
    fn with_durable<T>(&self, dir: &AttemptDir, attempt: &str, act: impl FnOnce(&mut Seen) -> T) -> T {
        let known = self.known(attempt).unwrap_or_default();
        let mut seen = seen::lock(&known);
        seen.load(dir);
        act(&mut seen)
    }

    /// The local copies of what is durable of the run, oldest first: those of
    /// attempts before this one, too, as far as they lie on the same disk.
    fn copies(&self, dir: &AttemptDir, attempt: &str) -> Vec<Local> {
        let disk = device(&dir.checkpoints());
        let mut attempts = before(dir);
        attempts.push((dir.clone(), attempt.to_owned()));
        let mut found = Vec::new();
        for (dir, attempt) in attempts {
            let durable = self.with_durable(&dir, &attempt, |seen| seen.durable.clone());
            found.extend(durable.into_iter().filter_map(|(relative, token)| {
                let path = path_of(&dir, &relative);
                let look = look(&path)?;
                let step = complete::step_of(name_of(&path));
                let (same, linked) = (look.token == token, is_linked(&path));
                let copy = Copy { step, bytes: look.bytes, same, linked };
                let here = device(&path) == disk;
                here.then(|| Local { dir: dir.clone(), attempt: attempt.clone(), path, relative, copy })
            }));
        }
        found
    }

    /// Looks at the disk under an attempt's checkpoints and, where it is short
    /// of room, deletes local copies of what is durable: oldest first, never
    /// the newest. `filling_per_s` is how fast it fills, in bytes per second.
    /// Blocks.
    fn relieve(&self, dir: &AttemptDir, attempt: &str, spec: &RunSpec, filling_per_s: f64) -> Relief {
        // Saves in the source tree lie on the same disk: both are below one
        // directory.
        let Some((total, free)) = os::disk_room(&dir.checkpoints()) else { return Relief::default() };
        let room = Room { total, free, filling_per_s, horizon_s: spec.health.forecast_seconds };
        let cheap = prune::wanted(&room, 0).is_none() && free > total / 2;
        if cheap {
            return Relief::default();
        }
        let copies = self.copies(dir, attempt);
        let newest = copies.last().map_or(0, |local| local.copy.bytes);
        let Some(wanted) = prune::wanted(&room, newest) else { return Relief::default() };
        let plain: Vec<Copy> = copies.iter().map(|local| local.copy).collect();
        let mut relief = Relief { deleted: Vec::new(), lacking: wanted };
        // First what no program ever sees.
        if let Some(bytes) = self.keyframes.relieve(attempt) {
            relief.lacking = wanted.saturating_sub(bytes);
            relief.deleted.push(format!(
                "the copy that checkpoints were stored as differences to ({}) was deleted: the disk had {} left \
                 of {}; checkpoints take more of the link for some time",
                size(bytes),
                size(free),
                size(total)
            ));
        }
        for at in prune::choose(&plain, relief.lacking) {
            let local = &copies[at];
            if !remove(&local.path) {
                continue;
            }
            relief.lacking = relief.lacking.saturating_sub(local.copy.bytes);
            relief.deleted.push(format!(
                "the local copy of checkpoint {} ({}){} was deleted: the disk had {} left of {}; it is durable",
                name_of(&local.path),
                size(local.copy.bytes),
                if local.attempt == attempt { "" } else { " of an earlier attempt" },
                size(free),
                size(total)
            ));
            self.with_durable(&local.dir, &local.attempt, |seen| {
                seen.durable.retain(|(other, _)| *other != local.relative);
                seen.save_durable(&local.dir);
            });
        }
        relief
    }

    /// As [`Publishing::relieve`]; where that is not enough and the cache lies
    /// on the same disk, unused environments go too. Blocks.
    #[must_use]
    pub fn relieve_with(
        &self,
        dir: &AttemptDir,
        attempt: &str,
        spec: &RunSpec,
        filling_per_s: f64,
        (cache, state): (&Path, &Path),
    ) -> Relief {
        let mut relief = self.relieve(dir, attempt, spec, filling_per_s);
        if relief.lacking > 0 && device(cache).is_some_and(|cache| Some(cache) == device(dir.path())) {
            let more = drop_environments(cache, state, relief.lacking);
            relief.deleted.extend(more.deleted);
            relief.lacking = more.lacking;
        }
        relief
    }
}

/// Deletes built environments of the cache that nothing uses, until `wanted`
/// bytes are freed: no process was started in them, no attempt of a machine
/// beside `state` is prepared with them, nobody builds them. Blocks.
fn drop_environments(cache: &Path, state: &Path, wanted: u64) -> Relief {
    let mut relief = Relief { deleted: Vec::new(), lacking: wanted };
    let Ok(entries) = std::fs::read_dir(cache) else { return relief };
    let mut built: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| name_of(path).starts_with("env-") && path.is_dir())
        .take(1_000)
        .collect();
    // The one that was completed longest ago first.
    built.sort_by_key(|path| std::fs::metadata(path.join(".complete")).and_then(|m| m.modified()).ok());
    for path in built {
        if relief.lacking == 0 {
            break;
        }
        let lock = path.with_file_name(format!("{}.lock", name_of(&path)));
        let Ok(Some(_lock)) = os::FileLock::try_take(&lock) else { continue };
        if is_prepared_with(state, &path) || os::is_in_some_environment(path.as_os_str().as_encoded_bytes()) {
            continue;
        }
        let bytes = look(&path).map_or(0, |found| found.bytes);
        // Without its mark nobody takes a half-removed one for whole.
        if std::fs::remove_file(path.join(".complete")).is_ok() && std::fs::remove_dir_all(&path).is_ok() {
            relief.lacking = relief.lacking.saturating_sub(bytes.max(1));
            relief.deleted.push(format!(
                "the unused environment {} ({}) was deleted from the cache: the disk is nearly full",
                name_of(&path),
                size(bytes)
            ));
        }
    }
    relief
}

/// Whether an attempt of this machine, or of one whose state lies beside its
/// own, is to be started with what is below `path`.
fn is_prepared_with(state: &Path, path: &Path) -> bool {
    let needle = path.as_os_str().as_encoded_bytes();
    let below = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir)
            .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).take(1_000).collect())
            .unwrap_or_default()
    };
    let machines = state.parent().map(below).unwrap_or_default();
    machines.iter().flat_map(|machine| below(&machine.join("attempts"))).any(|attempt| {
        let launch = os::read_bounded(&attempt.join("launch.json"), 4 << 20).unwrap_or_default();
        launch.windows(needle.len().max(1)).any(|window| window == needle)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(health: &str) -> RunSpec {
        let text = format!(
            r#"{{"project":"p","name":"n","command":["x"],"provider":"local","health":{{"forecast_seconds":60{health}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    /// A disk of a few megabytes; `None` where this user may not mount.
    struct Disk(tempfile::TempDir);

    impl Disk {
        fn mount(megabytes: u32) -> Option<Self> {
            let place = tempfile::tempdir().unwrap();
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(place.path());
            mount.output().is_ok_and(|done| done.status.success()).then_some(Self(place))
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        }
    }

    fn save(publishing: &Publishing, dir: &AttemptDir, name: &str, megabytes: usize, durable: bool) {
        let path = dir.checkpoints().join(name);
        std::fs::write(&path, vec![7; megabytes << 20]).unwrap();
        if durable {
            let token = look(&path).unwrap().token;
            let seen = publishing.of(name_of(dir.path()));
            let mut seen = seen::lock(&seen);
            seen.load(dir);
            seen.durable.push((format!("@/{name}"), token));
            seen.save_durable(dir);
        }
    }

    #[test]
    fn a_disk_that_fills_loses_its_old_durable_copies_only() {
        let Some(disk) = Disk::mount(40) else {
            eprintln!("skipped: a_disk_that_fills_...: a disk cannot be mounted here (not root?)");
            return;
        };
        let dir = AttemptDir::new(disk.0.path(), "a");
        std::fs::create_dir_all(dir.checkpoints()).unwrap();
        let publishing = Publishing::default();
        for step in 1..=4 {
            save(&publishing, &dir, &format!("step-{step}.bin"), 4, true);
        }
        save(&publishing, &dir, "best.bin", 4, true);
        save(&publishing, &dir, "step-5.bin", 4, true);
        save(&publishing, &dir, "step-6.bin", 4, false);
        std::fs::write(dir.checkpoints().join("step-2.bin"), "written again").unwrap();
        std::os::unix::fs::symlink("step-1.bin", dir.checkpoints().join("latest")).unwrap();
        assert_eq!(publishing.relieve(&dir, "a", &spec(""), 0.0), Relief::default(), "there is room");
        std::fs::write(dir.path().join("filler"), vec![7; 11 << 20]).unwrap();
        // What was durable is known to the next process of the agent, too.
        let publishing = Publishing::default();
        let relief = publishing.relieve(&dir, "a", &spec(""), 0.0);
        assert_eq!(relief.deleted.len(), 1, "{relief:?}");
        assert!(relief.deleted[0].contains("step-3.bin (4.2 MB)"), "{relief:?}");
        let relief = publishing.relieve(&dir, "a", &spec(""), 1e6);
        assert!(relief.deleted[0].contains("step-4.bin") && relief.lacking > 0, "{relief:?}");
        let mut left: Vec<String> = std::fs::read_dir(dir.checkpoints())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["best.bin", "latest", "step-1.bin", "step-2.bin", "step-5.bin", "step-6.bin"]);
    }

    #[test]
    fn a_full_disk_loses_what_older_attempts_of_the_run_left_first() {
        let Some(disk) = Disk::mount(40) else {
            eprintln!("skipped: a_full_disk_...: a disk cannot be mounted here (not root?)");
            return;
        };
        let publishing = Publishing::default();
        let attempt = |id: &str, run: &str, generation: u64, steps: &[u64]| {
            let dir = AttemptDir::new(disk.0.path(), id);
            std::fs::create_dir_all(dir.checkpoints()).unwrap();
            let work = format!(r#"{{"run_id":"{run}","generation":{generation},"more":1}}"#);
            std::fs::write(dir.work(), work).unwrap();
            steps.iter().for_each(|step| save(&publishing, &dir, &format!("step-{step}.bin"), 4, true));
            dir
        };
        // The names of attempts say nothing of their order.
        let second = attempt("b", "r", 2, &[3, 4]);
        let first = attempt("c", "r", 1, &[1, 2]);
        let other = attempt("d", "other", 1, &[1]);
        let newest = attempt("a", "r", 3, &[]);
        save(&publishing, &second, "best.bin", 4, true);
        std::fs::write(disk.0.path().join("filler"), vec![7; 9 << 20]).unwrap();
        // The agent was started anew: it knows the older attempts by their files alone.
        let publishing = Publishing::default();
        let mut gone = Vec::new();
        for _ in 0..5 {
            gone.extend(publishing.relieve(&newest, "a", &spec(""), 1e6).deleted);
        }
        let names: Vec<&str> = gone.iter().filter_map(|text| text.split(' ').nth(5)).collect();
        assert_eq!(names, ["step-1.bin", "step-2.bin", "step-3.bin"], "{gone:?}");
        assert!(gone[0].contains("(4.2 MB) of an earlier attempt was deleted"), "{gone:?}");
        let left = |dir: &AttemptDir, name: &str| dir.checkpoints().join(name).exists();
        assert!(left(&second, "step-4.bin") && left(&second, "best.bin") && left(&other, "step-1.bin"));
        assert!(publishing.known("c").is_none(), "what is only looked at is not remembered");
        let kept = std::fs::read_to_string(first.durable()).unwrap();
        assert_eq!(kept, "[]", "what is gone is not counted on");
        // Once the newest attempt has a newer one, that one of before goes, too.
        std::fs::remove_file(disk.0.path().join("filler")).unwrap();
        save(&publishing, &newest, "step-5.bin", 4, true);
        std::fs::write(disk.0.path().join("filler"), vec![7; 16 << 20]).unwrap();
        let gone = publishing.relieve(&newest, "a", &spec(""), 1e6).deleted;
        assert!(gone.len() == 1 && gone[0].contains("step-4.bin"), "{gone:?}");
        assert!(left(&newest, "step-5.bin"));
    }

    #[test]
    fn an_environment_in_use_stays() {
        let root = tempfile::tempdir().unwrap();
        let (cache, state) = (root.path().join("cache"), root.path().join("machines/m1"));
        let make = |name: &str| {
            let path = cache.join(name);
            std::fs::create_dir_all(path.join("bin")).unwrap();
            std::fs::write(path.join("bin/x"), vec![7; 1_000]).unwrap();
            std::fs::write(path.join(".complete"), "").unwrap();
            path
        };
        let (free, runs) = (make("env-free"), make("env-runs"));
        let (prepared, built) = (make("env-prepared"), make("env-built"));
        make("other");
        let attempt = root.path().join("machines/m2/attempts/a");
        std::fs::create_dir_all(&attempt).unwrap();
        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(attempt.join("launch.json"), format!("{{\"PATH\":\"{}/bin\"}}", prepared.display()))
            .unwrap();
        let lock = os::FileLock::try_take(&cache.join("env-built.lock")).unwrap();
        let mut child =
            std::process::Command::new("sleep").arg("600").env("VIRTUAL_ENV", &runs).spawn().unwrap();
        while !os::is_in_some_environment(runs.as_os_str().as_encoded_bytes()) {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let relief = drop_environments(&cache, &state, 1 << 30);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(relief.deleted.len(), 1, "{relief:?}");
        assert!(!free.exists() && runs.exists() && prepared.exists() && built.exists());
        assert!(cache.join("other").exists());
        drop(lock);
        assert_eq!(drop_environments(&cache, &state, 1).deleted.len(), 1, "no more than is wanted");
    }
}
