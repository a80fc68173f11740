//! What the processes of one attempt use, and how full a disk is. Reads only
//! files of /proc that never wait for the process they tell of (not its
//! environment, not its command line), so a hung program cannot hang the look.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};

use super::ProcessRef;

const MAX_PROCESSES: usize = 1 << 16;
/// Processes of one tree whose input and output are added up.
const IO_PROCESSES: usize = 512;

/// What a tree of processes uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its processes, the first one first.
    pub pids: Vec<i32>,
    /// Resident bytes; what is shared counts once for each.
    pub rss_bytes: u64,
    /// Processor milliseconds so far, those of reaped children included.
    pub cpu_ms: u64,
    /// Bytes read and written so far; `None`: unreadable.
    pub io_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    pid: i32,
    parent: i32,
    ticks: u64,
    pages: u64,
}

fn parse(pid: i32, stat: &str) -> Option<Row> {
    // The name is in parentheses and may itself hold blanks and parentheses.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    // utime, stime, cutime, cstime are fields 14 to 17, rss is 24 (proc(5)).
    let times: Vec<i64> = fields.by_ref().skip(9).take(4).map_while(|f| f.parse().ok()).collect();
    let [user, system, children_user, children_system] = times[..] else { return None };
    let ticks = [user, system, children_user, children_system].iter().map(|t| t.max(&0).unsigned_abs()).sum();
    let pages = fields.nth(6)?.parse::<i64>().ok()?.max(0).unsigned_abs();
    Some(Row { pid, parent, ticks, pages })
}

fn read_text(path: &str, max: u64) -> Option<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(max).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn rows() -> Vec<Row> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| parse(pid, &read_text(&format!("/proc/{pid}/stat"), 4096)?))
        .take(MAX_PROCESSES)
        .collect()
}

fn below(root: i32, all: &[Row]) -> Vec<Row> {
    let mut children: HashMap<i32, Vec<Row>> = HashMap::new();
    for row in all {
        children.entry(row.parent).or_default().push(*row);
    }
    let mut found: Vec<Row> = all.iter().filter(|row| row.pid == root).copied().collect();
    let mut seen = HashSet::from([root]);
    let mut at = 0;
    while let Some(pid) = found.get(at).map(|row| row.pid) {
        at += 1;
        found
            .extend(children.remove(&pid).unwrap_or_default().into_iter().filter(|row| seen.insert(row.pid)));
    }
    found
}

fn system_value(name: SysconfVar, usual: u64) -> u64 {
    sysconf(name).ok().flatten().and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(usual)
}

fn io_of(pid: i32) -> Option<u64> {
    let text = read_text(&format!("/proc/{pid}/io"), 1024)?;
    let value =
        |name: &str| -> Option<u64> { text.lines().find_map(|l| l.strip_prefix(name))?.trim().parse().ok() };
    Some(value("rchar:")?.saturating_add(value("wchar:")?))
}

/// What a program uses: all that is below its keeper where that lives (also
/// what left its parents), else what is below the program itself. `None`:
/// there is no such process.
#[must_use]
pub fn usage(keeper: Option<&ProcessRef>, program: i32) -> Option<Usage> {
    let all = rows();
    let keeper = keeper.filter(|keeper| keeper.is_alive()).map(|keeper| keeper.pid);
    let mut tree = below(keeper.unwrap_or(program), &all);
    tree.retain(|row| Some(row.pid) != keeper);
    tree.sort_by_key(|row| row.pid != program);
    if tree.is_empty() {
        return None;
    }
    let ticks_per_s = system_value(SysconfVar::CLK_TCK, 100);
    let page = system_value(SysconfVar::PAGE_SIZE, 4096);
    let io: Vec<u64> = tree.iter().take(IO_PROCESSES).filter_map(|row| io_of(row.pid)).collect();
    let sum = |values: &mut dyn Iterator<Item = u64>| values.fold(0, u64::saturating_add);
    Some(Usage {
        rss_bytes: sum(&mut tree.iter().map(|row| row.pages)).saturating_mul(page),
        cpu_ms: sum(&mut tree.iter().map(|row| row.ticks)).saturating_mul(1_000) / ticks_per_s,
        io_bytes: (!io.is_empty()).then(|| sum(&mut io.into_iter())),
        pids: tree.into_iter().map(|row| row.pid).collect(),
    })
}

/// Resident bytes of this process; 0 is unknown.
#[must_use]
pub fn own_rss_bytes() -> u64 {
    let pages = || read_text("/proc/self/statm", 256)?.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
    pages().unwrap_or(0).saturating_mul(system_value(SysconfVar::PAGE_SIZE, 4096))
}

/// A disk's size and what is free for us, in bytes; `None` where it cannot be
/// known. May wait for a disk that does not answer.
#[must_use]
pub fn disk_room(path: &Path) -> Option<(u64, u64)> {
    #[allow(clippy::useless_conversion, reason = "the field types differ between targets")]
    nix::sys::statvfs::statvfs(path).ok().map(|v| {
        let unit = u64::from(v.fragment_size());
        (u64::from(v.blocks()).saturating_mul(unit), u64::from(v.blocks_available()).saturating_mul(unit))
    })
}

/// Whether any process that may be looked at was started with these bytes in
/// one of its variables. May wait for a process that does not answer.
#[must_use]
pub fn is_in_some_environment(needle: &[u8]) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else { return true };
    entries.filter_map(Result::ok).take(MAX_PROCESSES).any(|entry| {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<i32>().is_ok());
        let mut environ = Vec::new();
        is_process
            && std::fs::File::open(entry.path().join("environ"))
                .and_then(|file| file.take(1 << 20).read_to_end(&mut environ))
                .is_ok()
            && environ.windows(needle.len().max(1)).any(|window| window == needle)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read_by_its_numbers() {
        let line = "7 (a) b (c)) S 42 7 7 0 -1 4194560 1 2 3 4 50 6 700 8 20 0 1 0 987654 1000 11 18446744073709551615";
        assert_eq!(parse(7, line), Some(Row { pid: 7, parent: 42, ticks: 764, pages: 11 }));
        for bad in ["", "7 (a", "7 (a) S", "7 (a) S 1 2 3 4 5 6 7 8 9 x 1 1 1 1 1 1 1 1 1 1"] {
            assert_eq!(parse(7, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tree_with_a_worker_is_added_up() {
        let script = "while :; do :; done & echo on; wait";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
        let pid = child.id().cast_signed();
        let before = usage(None, pid).unwrap();
        assert_eq!((before.pids.len(), before.pids[0]), (2, pid));
        assert!(before.rss_bytes > 0 && before.io_bytes.is_some());
        while usage(None, pid).unwrap().cpu_ms <= before.cpu_ms {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        super::super::Tree::default().with_root(pid).kill_pass();
        child.wait().unwrap();
        assert_eq!(usage(None, pid), None);
    }

    #[test]
    fn room_and_own_size_are_known_here() {
        let (total, free) = disk_room(Path::new("/tmp")).unwrap();
        assert!(total >= free && total > 0);
        assert_eq!(disk_room(Path::new("/nowhere")), None);
        assert!(own_rss_bytes() > 100_000);
    }
}
