//! Puts the limits of an attempt into cgroup files: version 2 where its
//! controller is handed down to us, else version 1. What could not be limited
//! is said in words and never left out. Decides no limit itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lifecycle::spec::LimitSpec;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::cgroup;

/// Microseconds over which processor time is counted.
const PERIOD: u64 = 100_000;
/// The least quota that the kernel takes.
const LEAST_QUOTA: u64 = 1_000;

/// Applies limits one by one and remembers what was refused.
pub(super) struct Limiter {
    unified: Option<PathBuf>,
    /// The file that bounds processes, and its value.
    pub(super) pids_max: Option<(PathBuf, u64)>,
    /// What could not be limited, a sentence each.
    pub(super) unapplied: Vec<String>,
}

/// Makes the directory of a controller of version 1, or none.
type Legacy<'a> = &'a mut dyn FnMut(&str) -> Option<PathBuf>;

impl Limiter {
    pub(super) fn new(unified: Option<PathBuf>) -> Self {
        Self { unified, pids_max: None, unapplied: Vec::new() }
    }

    pub(super) fn apply(&mut self, limits: &LimitSpec, legacy: Legacy<'_>) {
        if let Some(bytes) = limits.memory_bytes {
            let done = self.put("memory", &memory_v2(bytes), &memory_v1(bytes), legacy);
            self.note(done.err(), &format!("memory is not limited to {}", size(bytes)));
        }
        if let Some(cpus) = limits.cpus {
            let quota = quota(cpus);
            let v2 = [("cpu.max", format!("{quota} {PERIOD}"), true)];
            let v1 = [
                ("cpu.cfs_period_us", PERIOD.to_string(), true),
                ("cpu.cfs_quota_us", quota.to_string(), true),
            ];
            let done = self.put("cpu", &v2, &v1, legacy);
            self.note(done.err(), &format!("processor time is not limited to {cpus} processors"));
        }
        if let Some(pids) = limits.pids {
            let files = [("pids.max", pids.to_string(), true)];
            let done = self.put("pids", &files, &files, legacy);
            self.pids_max = done.as_ref().ok().map(|dir| (dir.join("pids.max"), pids));
            self.note(done.err(), &format!("processes are not limited to {pids}"));
        }
    }

    fn note(&mut self, error: Option<io::Error>, sentence: &str) {
        if let Some(error) = error {
            self.unapplied.push(format!("{sentence}: {error}"));
        }
    }

    /// Writes the files of a controller, and gives the directory in which they
    /// are. Each file: name, value, and whether it must be there.
    fn put(
        &self,
        controller: &str,
        v2: &[(&str, String, bool)],
        v1: &[(&str, String, bool)],
        legacy: Legacy<'_>,
    ) -> io::Result<PathBuf> {
        let first = match &self.unified {
            Some(dir) => {
                let enabled = dir.parent().map_or(Ok(()), |home| cgroup::enable(home, controller));
                match enabled.and_then(|()| write(dir, v2)) {
                    Ok(()) => return Ok(dir.clone()),
                    Err(error) => error,
                }
            }
            None => io::Error::new(io::ErrorKind::NotFound, "no cgroup can be made here"),
        };
        match legacy(controller) {
            Some(dir) => write(&dir, v1).map(|()| dir),
            None => Err(first),
        }
    }
}

fn write(dir: &Path, files: &[(&str, String, bool)]) -> io::Result<()> {
    for (name, value, is_needed) in files {
        let path = dir.join(name);
        match fs::OpenOptions::new().write(true).open(&path).and_then(|mut f| {
            use io::Write as _;
            f.write_all(value.as_bytes())
        }) {
            Err(e) if *is_needed => return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
            _ => {}
        }
    }
    Ok(())
}

fn memory_v2(bytes: u64) -> [(&'static str, String, bool); 3] {
    [
        ("memory.max", bytes.to_string(), true),
        // Kernels without swap accounting have no such file, and no such use.
        ("memory.swap.max", "0".to_owned(), false),
        ("memory.oom.group", "1".to_owned(), false),
    ]
}

fn memory_v1(bytes: u64) -> [(&'static str, String, bool); 2] {
    [
        ("memory.limit_in_bytes", bytes.to_string(), true),
        ("memory.memsw.limit_in_bytes", bytes.to_string(), false),
    ]
}

fn quota(cpus: f64) -> u64 {
    let quota = (cpus * PERIOD as f64).round();
    // Saturates; what is no number becomes the least.
    (quota as u64).max(LEAST_QUOTA)
}

fn size(bytes: u64) -> String {
    let unit =
        [("GiB", 30), ("MiB", 20), ("KiB", 10)].into_iter().find(|(_, s)| bytes.trailing_zeros() >= *s);
    unit.filter(|_| bytes > 0).map_or(format!("{bytes} bytes"), |(name, s)| format!("{} {name}", bytes >> s))
}

/// Sets how many files each process that we start may have open while `f`
/// runs, and puts our own limit back. The second value says what could not be
/// done, in words.
pub fn with_open_files<T>(most: Option<u64>, f: impl FnOnce() -> T) -> (T, Option<String>) {
    let Some(most) = most else { return (f(), None) };
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return (f(), Some(format!("open files are not limited to {most}: the limit cannot be read")));
    };
    let mut said = None;
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, most, most) {
        let least = most.min(hard);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, least, hard);
        said = Some(format!("open files are limited to {least} and not to {most}: {error}"));
    }
    let done = f();
    // Without the right to raise it again our own limit stays low: a keeper
    // needs few files.
    if setrlimit(Resource::RLIMIT_NOFILE, soft, hard).is_err() {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.min(most), most);
    }
    (done, said)
}

/// The most open files and processes that what we start can have: our own
/// hard limits, and what container tools cut them down to.
#[must_use]
pub fn own_ceilings() -> (u64, u64) {
    /// The most that podman asks for.
    const MOST: u64 = 1 << 20;
    let hard = |what| getrlimit(what).map_or(1_024, |(_, hard)| hard).min(MOST);
    let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|t| t.trim().parse().ok());
    (hard(Resource::RLIMIT_NOFILE), hard(Resource::RLIMIT_NPROC).min(pid_max.unwrap_or(MOST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> LimitSpec {
        LimitSpec { memory_bytes: Some(1 << 30), cpus: Some(1.5), pids: Some(30), open_files: None }
    }

    /// A directory that looks like a cgroup with these files.
    fn fake(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(dir.path().join(file), "").unwrap();
        }
        dir
    }

    #[test]
    fn version_two_is_used_where_its_controllers_are_handed_down() {
        let home = fake(&[]);
        fs::write(home.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(home.path().join("cgroup.subtree_control"), "memory pids cpu\n").unwrap();
        let dir = home.path().join("outlast-a");
        fs::create_dir(&dir).unwrap();
        for file in ["memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"] {
            fs::write(dir.join(file), "").unwrap();
        }
        let mut limiter = Limiter::new(Some(dir.clone()));
        limiter.apply(&limits(), &mut |_| panic!("version 1 is not needed"));
        let said = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
        assert_eq!(said("memory.max"), "1073741824");
        assert_eq!((said("memory.swap.max").as_str(), said("memory.oom.group").as_str()), ("0", "1"));
        assert_eq!((said("cpu.max").as_str(), said("pids.max").as_str()), ("150000 100000", "30"));
        assert!(limiter.unapplied.is_empty(), "{:?}", limiter.unapplied);
    }

    #[test]
    fn version_one_stands_in_and_what_is_missing_is_said() {
        let home = fake(&["cgroup.controllers", "cgroup.subtree_control"]);
        let memory = fake(&["memory.limit_in_bytes"]);
        let mut limiter = Limiter::new(Some(home.path().join("outlast-a")));
        let path = memory.path().to_path_buf();
        limiter.apply(&limits(), &mut |c| (c == "memory").then(|| path.clone()));
        assert_eq!(fs::read_to_string(memory.path().join("memory.limit_in_bytes")).unwrap(), "1073741824");
        let said = limiter.unapplied.join("\n");
        assert!(said.contains("processor time is not limited to 1.5 processors: "), "{said}");
        assert!(said.contains("processes are not limited to 30: ") && !said.contains("memory is"), "{said}");
    }

    #[test]
    fn sizes_and_quotas_are_those_of_the_kernel() {
        assert_eq!(
            (size(32 << 30), size(3 << 20), size(1000)),
            ("32 GiB".into(), "3 MiB".into(), "1000 bytes".into())
        );
        assert_eq!((quota(0.0001), quota(4.0), quota(f64::NAN)), (1000, 400_000, 1000));
    }
}
