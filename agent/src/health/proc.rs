//! What the kernel's tables say of the whole machine. Each reader takes text and
//! gives figures or nothing: the text of a sandbox, of an old kernel or of a
//! container's fake `/proc` must never fail a sample, only leave a gap in it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use crate::os;

/// Longest table that is read; the rest of a longer one is not looked at.
const TABLE_MAX: usize = 256 * 1024;
/// Bytes per sector in `/proc/diskstats`, whatever the disk's own sector size is.
const SECTOR: u64 = 512;
/// Limits at and above this many bytes are the kernel's word for "none".
const NO_LIMIT: u64 = 1 << 60;

/// A file of the kernel's that is read again and again. It stays open: opening
/// costs more than reading.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    file: Option<File>,
}

impl Source {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text now, in a buffer that is kept between samples.
    ///
    /// # Errors
    /// As `open(2)` and `read(2)`; the next call opens it anew.
    pub(super) fn read<'b>(&mut self, buffer: &'b mut Vec<u8>) -> io::Result<Cow<'b, str>> {
        let file = match self.file.take() {
            Some(file) => file,
            None => os::open_nofollow(&self.path)?,
        };
        let length = read_at_start(&file, buffer)?;
        self.file = Some(file);
        Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()))
    }
}

fn read_at_start(file: &File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut length = 0;
    loop {
        if buffer.len() == length {
            if length >= TABLE_MAX {
                return Ok(length);
            }
            buffer.resize((length * 2).clamp(8192, TABLE_MAX), 0);
        }
        let Some(room) = buffer.get_mut(length..) else { return Ok(length) };
        match file.read_at(room, u64::try_from(length).unwrap_or(u64::MAX)) {
            Ok(0) => return Ok(length),
            Ok(n) => length += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Processor time since boot in the kernel's ticks, over all cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTime {
    pub(super) busy: u64,
    pub(super) total: u64,
}

impl CpuTime {
    /// Percent busy since `before`; `None` where the counters stood still or
    /// went backwards.
    pub(super) fn percent_since(self, before: Self) -> Option<f64> {
        let total = self.total.checked_sub(before.total).filter(|t| *t > 0)?;
        let busy = self.busy.checked_sub(before.busy)?;
        Some((to_f64(busy) / to_f64(total) * 100.0).clamp(0.0, 100.0))
    }
}

/// `/proc/stat`: its first line. Time of guests is part of `user` already.
pub(super) fn cpu(text: &str) -> Option<CpuTime> {
    let line = text.lines().find(|l| l.starts_with("cpu "))?;
    let mut total: u64 = 0;
    let mut idle: u64 = 0;
    let mut seen = 0;
    for (at, field) in line.split_ascii_whitespace().skip(1).take(8).enumerate() {
        let ticks: u64 = field.parse().ok()?;
        total = total.checked_add(ticks)?;
        if at == 3 || at == 4 {
            idle = idle.checked_add(ticks)?;
        }
        seen += 1;
    }
    (seen >= 4).then(|| CpuTime { busy: total - idle, total })
}

/// `/proc/meminfo`: total and available bytes. Kernels before 3.14 do not say
/// what is available; free, buffers and cache are taken for it.
pub(super) fn memory(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = field("MemTotal").filter(|t| *t > 0)?;
    let available = field("MemAvailable").or_else(|| {
        let cache = field("Buffers").unwrap_or(0).saturating_add(field("Cached").unwrap_or(0));
        Some(field("MemFree")?.saturating_add(cache))
    })?;
    Some((total, available.min(total)))
}

/// `/proc/pressure/*`: share of the last 10 s stalled, percent, of some and of
/// all tasks. The file for the processor has no second line on older kernels.
pub(super) fn pressure(text: &str) -> Option<(f64, f64)> {
    let share = |kind: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(kind))?;
        let value: f64 =
            line.split_ascii_whitespace().find_map(|f| f.strip_prefix("avg10="))?.parse().ok()?;
        value.is_finite().then(|| value.clamp(0.0, 100.0))
    };
    Some((share("some ")?, share("full ").unwrap_or(0.0)))
}

/// The disk that a partition's name belongs to, if it looks like one.
fn parent_of(name: &str) -> Option<&str> {
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if base.len() == name.len() || base.is_empty() {
        return None;
    }
    // nvme0n1p2 and mmcblk0p1: a `p` stands between two numbers.
    match base.strip_suffix('p') {
        Some(disk) if disk.ends_with(|c: char| c.is_ascii_digit()) => Some(disk),
        _ => Some(base),
    }
}

/// `/proc/diskstats`: bytes read and written since boot. Whole disks only:
/// partitions, and devices made of other devices, would count twice.
pub(super) fn disks(text: &str) -> Option<(u64, u64)> {
    const STACKED: [&str; 7] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd"];
    let rows = || {
        text.lines().filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(2);
            let name = fields.next()?;
            let read: u64 = fields.nth(2)?.parse().ok()?;
            let written: u64 = fields.nth(3)?.parse().ok()?;
            Some((name, read, written))
        })
    };
    let names: HashSet<&str> = rows().map(|(name, ..)| name).collect();
    let mut sum: Option<(u64, u64)> = None;
    for (name, read, written) in rows() {
        let is_part = parent_of(name).is_some_and(|disk| names.contains(disk));
        if is_part || STACKED.iter().any(|s| name.starts_with(s)) {
            continue;
        }
        let (r, w) = sum.unwrap_or_default();
        sum = Some((
            r.saturating_add(read.saturating_mul(SECTOR)),
            w.saturating_add(written.saturating_mul(SECTOR)),
        ));
    }
    sum
}

/// The bytes that left this machine and came to it since its boot, now.
pub(crate) fn bytes_moved() -> Option<(u64, u64)> {
    let text = crate::os::read_bounded(Path::new("/proc/self/net/dev"), 1 << 20).ok()?;
    let (received, sent) = network(&String::from_utf8_lossy(&text))?;
    Some((sent, received))
}

/// `/proc/net/dev`: bytes received and sent since boot by the interfaces that
/// lead out of the machine.
pub(super) fn network(text: &str) -> Option<(u64, u64)> {
    const INSIDE: [&str; 7] = ["veth", "docker", "br-", "virbr", "cni", "flannel", "cali"];
    let mut sum: Option<(u64, u64)> = None;
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let name = name.trim();
        if name == "lo" || INSIDE.iter().any(|i| name.starts_with(i)) {
            continue;
        }
        let mut fields = rest.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(received)), Some(Ok(sent))) = (fields.next(), fields.nth(7)) else { continue };
        let (r, s) = sum.unwrap_or_default();
        sum = Some((r.saturating_add(received), s.saturating_add(sent)));
    }
    sum
}

/// The memory limit that binds this process, and the files that tell it.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    limit: Source,
    used: Source,
    stat: Source,
    /// The counter in `stat` of cache that is given back when memory is short.
    reclaimable: &'static str,
}

/// What such a limit leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LimitedMemory {
    pub(super) limit: u64,
    pub(super) used: u64,
}

impl MemoryLimit {
    /// The tightest limit on the way from this process's cgroup to the root.
    /// `own` is the text of `/proc/self/cgroup`, `root` where cgroups are mounted.
    pub(super) fn find(root: &Path, own: &str) -> Option<Self> {
        let (unified, legacy) = own_cgroups(own);
        let unified_root = [root.join("unified"), root.to_path_buf()]
            .into_iter()
            .find(|r| r.join("cgroup.controllers").exists());
        let v2 = unified_root.and_then(|r| {
            let at = ["memory.max", "memory.current"];
            tightest(&r, unified?, at, "inactive_file ")
        });
        let v1 = || {
            let at = ["memory.limit_in_bytes", "memory.usage_in_bytes"];
            tightest(&root.join("memory"), legacy?, at, "total_inactive_file ")
        };
        v2.or_else(v1)
    }

    /// The limit and what is used of it, cache that can be dropped left out.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> Option<LimitedMemory> {
        let limit = limit_bytes(&self.limit.read(buffer).ok()?)?;
        let used: u64 = self.used.read(buffer).ok()?.trim().parse().ok()?;
        let stat = self.stat.read(buffer).unwrap_or_default();
        let cache = stat.lines().find_map(|l| l.strip_prefix(self.reclaimable)?.trim().parse::<u64>().ok());
        Some(LimitedMemory { limit, used: used.saturating_sub(cache.unwrap_or(0)) })
    }
}

fn limit_bytes(text: &str) -> Option<u64> {
    text.trim().parse::<u64>().ok().filter(|l| (1..NO_LIMIT).contains(l))
}

/// The paths in `/proc/self/cgroup`: version 2, and version 1 for memory.
fn own_cgroups(text: &str) -> (Option<&str>, Option<&str>) {
    let mut found = (None, None);
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if number == "0" && names.is_empty() {
            found.0 = Some(path);
        } else if names.split(',').any(|n| n == "memory") {
            found.1 = Some(path);
        }
    }
    found
}

fn tightest(root: &Path, own: &str, files: [&str; 2], reclaimable: &'static str) -> Option<MemoryLimit> {
    let relative = Path::new(own.trim_start_matches('/'));
    // In a container the path may be the host's or lead outside; the mount is ours.
    let is_inside = relative.components().all(|c| matches!(c, Component::Normal(_)));
    let start = if is_inside { root.join(relative) } else { root.to_path_buf() };
    let mut buffer = Vec::new();
    start
        .ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter_map(|dir| {
            let limit = limit_bytes(&Source::new(dir.join(files[0])).read(&mut buffer).ok()?)?;
            Some((limit, dir))
        })
        .min_by_key(|(limit, _)| *limit)
        .map(|(_, dir)| MemoryLimit {
            limit: Source::new(dir.join(files[0])),
            used: Source::new(dir.join(files[1])),
            stat: Source::new(dir.join("memory.stat")),
            reclaimable,
        })
}

/// A counter's growth per second; `None` for a counter that went backwards.
pub(super) fn rate(now: u64, before: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then_some(())?;
    Some(to_f64(now.checked_sub(before)?) / seconds)
}

#[expect(clippy::cast_precision_loss, reason = "a share or a rate needs no 53 bits")]
pub(super) fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_processor_is_busy_as_far_as_it_was_not_idle() {
        let before = cpu("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n").unwrap();
        let now = cpu("cpu  150 0 150 850 150 0 0 0 50 0\nintr 9\n").unwrap();
        assert_eq!(before, CpuTime { busy: 200, total: 1000 });
        assert!((now.percent_since(before).unwrap() - 100.0 / 3.0).abs() < 1e-9);
        assert_eq!(before.percent_since(now), None, "counters that went backwards");
        assert_eq!(now.percent_since(now), None);
        assert_eq!(cpu("cpu  1 2\n"), None);
        assert_eq!(cpu("cpu  1 2 3 -4\n"), None);
    }

    #[test]
    fn memory_is_what_can_still_be_had() {
        let text = "MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:  600 kB\nCached: 1 kB\n";
        assert_eq!(memory(text), Some((1_024_000, 614_400)));
        let old = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 150 kB\n";
        assert_eq!(memory(old), Some((1_024_000, 307_200)));
        assert_eq!(memory("MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\n"), None);
        assert_eq!(memory("MemTotal: 0 kB\nMemAvailable: 1 kB\n"), None);
    }

    #[test]
    fn pressure_is_the_share_of_the_last_ten_seconds() {
        let text =
            "some avg10=12.50 avg60=1.00 avg300=0.10 total=9\nfull avg10=3.25 avg60=0 avg300=0 total=1\n";
        assert_eq!(pressure(text), Some((12.5, 3.25)));
        assert_eq!(pressure("some avg10=7.00 avg60=0.00 avg300=0.00 total=5\n"), Some((7.0, 0.0)));
        assert_eq!(pressure("some avg10=NaN\n"), None);
        assert_eq!(pressure("some avg10=900\n"), Some((100.0, 0.0)));
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn only_whole_disks_count() {
        let row =
            |name: &str, read: u32, written: u32| format!(" 8 0 {name} 5 0 {read} 7 9 0 {written} 1 0 1 1\n");
        let text = [
            row("sda", 10, 20),
            row("sda1", 9, 19),
            row("nvme0n1", 100, 200),
            row("nvme0n1p1", 99, 199),
            row("mmcblk0", 1, 1),
            row("mmcblk0p2", 1, 1),
            row("dm-0", 50, 50),
            row("loop3", 70, 70),
            row("md127", 30, 30),
            // Some clouds show a partition without its disk.
            row("xvda1", 1000, 2000),
        ]
        .concat();
        assert_eq!(disks(&text), Some((1111 * 512, 2221 * 512)));
        assert_eq!(disks("8 0 sda\n"), None);
    }

    #[test]
    fn the_network_is_what_leaves_the_machine() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  \
                    eth0: 1000 2 0 0 0 0 0 0 3000 4 0 0 0 0 0 0\nveth12:7 0 0 0 0 0 0 0 7 0 0 0 0 0 0 0\n \
                    ib0:20 1 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n";
        assert_eq!(network(text), Some((1020, 3030)));
        assert_eq!(network(""), None);
    }

    #[test]
    fn the_tightest_memory_limit_of_both_kinds_of_cgroups_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("cgroup.controllers", "memory\n");
        write("a/memory.max", "1000000\n");
        write("a/memory.current", "400000\n");
        write("a/memory.stat", "anon 5\ninactive_file 100000\n");
        write("a/b/memory.max", "max\n");
        let mut buffer = Vec::new();
        let mut found = MemoryLimit::find(dir.path(), "0::/a/b\n").unwrap();
        assert_eq!(found.read(&mut buffer), Some(LimitedMemory { limit: 1_000_000, used: 300_000 }));
        assert!(MemoryLimit::find(dir.path(), "0::/\n").is_none());
        assert!(MemoryLimit::find(dir.path(), "0::/../../etc\n").is_none());

        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/c/memory.limit_in_bytes", "2000\n");
        write("memory/c/memory.usage_in_bytes", "1500\n");
        write("memory/c/memory.stat", "inactive_file 1\ntotal_inactive_file 600\n");
        let mut found = MemoryLimit::find(dir.path(), "4:cpu,memory:/c\n0::/\n").unwrap();
        assert_eq!(found.read(&mut buffer), Some(LimitedMemory { limit: 2000, used: 900 }));
        assert!(MemoryLimit::find(dir.path(), "4:memory:/\n").is_none(), "no limit is none");
    }

    #[test]
    fn a_source_is_read_anew_each_time_and_no_further_than_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table");
        std::fs::write(&path, "first").unwrap();
        let mut source = Source::new(&path);
        let mut buffer = Vec::new();
        assert_eq!(source.read(&mut buffer).unwrap(), "first");
        std::fs::write(&path, "2nd").unwrap();
        assert_eq!(source.read(&mut buffer).unwrap(), "2nd");
        std::fs::write(&path, vec![b'x'; TABLE_MAX * 3]).unwrap();
        assert_eq!(source.read(&mut buffer).unwrap().len(), TABLE_MAX);
        assert!(Source::new(dir.path().join("none")).read(&mut buffer).is_err());
        assert!(Source::new(dir.path()).read(&mut buffer).is_err(), "a directory is no table");
    }

    proptest! {
        #[test]
        fn hostile_text_fails_no_reader(text in "(?s).{0,400}", numbers in proptest::collection::vec("-?[0-9]{1,25}", 0..40)) {
            let table = numbers.join(" ");
            for text in [text.clone(), format!("cpu  {table}\n"), format!("8 0 sda {table}\n"), format!("eth0: {table}\n"),
                format!("MemTotal: {table}\nMemAvailable: {table}\n"), format!("some avg10={table}\n")] {
                let _ = cpu(&text);
                let _ = memory(&text);
                let _ = disks(&text);
                let _ = network(&text);
                let _ = own_cgroups(&text);
                if let Some((some, full)) = pressure(&text) {
                    prop_assert!((0.0..=100.0).contains(&some) && (0.0..=100.0).contains(&full));
                }
            }
        }
    }
}
