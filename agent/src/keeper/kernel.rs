//! What the kernel's log says while an attempt runs: whom the out-of-memory
//! killer took, and lines that explain an end. Pure: it is handed records and
//! keeps a bounded number of lines. The forms are those of kernels 4.15 to 6.x
//! (`mm/oom_kill.c`, `mm/memcontrol.c`).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Lines kept, the newest ones, and characters of each.
const LINES: usize = 50;
const LINE: usize = 300;
const KILLS: usize = 16;
const COMMAND: usize = 64;

/// Words by which a line is worth keeping, in lower case.
const TELLING: [&str; 24] = [
    "out of memory",
    "oom-kill",
    "oom_reaper",
    "killed process",
    "killed as a result of limit",
    "nvrm",
    "segfault",
    "general protection",
    "traps:",
    "i/o error",
    "ext4-fs error",
    "xfs_do_force_shutdown",
    "btrfs error",
    "remounting filesystem read-only",
    "blocked for more than",
    "soft lockup",
    "hard lockup",
    "rcu_sched self-detected stall",
    "hardware error",
    "machine check",
    "page allocation failure",
    "kernel bug at",
    "amdgpu: ring",
    "no space left",
];

/// A process that the kernel's out-of-memory killer took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomProcess {
    /// Its number, as the kernel counts.
    pub pid: i32,
    /// Its command: at most fifteen bytes in all kernels so far.
    pub command: String,
}

/// One kill as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kill {
    pub(super) process: OomProcess,
    /// The cgroup that the process was in, where the kernel says so.
    pub(super) cgroup: Option<String>,
}

/// The text of a record of `/dev/kmsg` and its microseconds since boot. What
/// has no such head is a text without a time.
fn split(record: &str) -> (Option<u64>, &str) {
    // Details follow on lines of their own.
    let first = record.lines().next().unwrap_or_default();
    let Some((head, text)) = first.split_once(';') else { return (None, first) };
    let mut fields = head.split(',');
    let is_head = fields.next().is_some_and(|f| f.parse::<u32>().is_ok());
    let time = fields.nth(1).and_then(|f| f.parse().ok());
    if is_head && time.is_some() { (time, text) } else { (None, first) }
}

/// Programs may write into the log too; the kernel marks their words with
/// another facility than its own.
fn is_of_a_program(record: &str) -> bool {
    let priority = record.split_once(',').and_then(|(priority, _)| priority.parse::<u32>().ok());
    priority.is_some_and(|priority| priority >> 3 != 0)
}

fn clean(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(most).collect()
}

/// `NAME=` up to the next comma.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let rest = text.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))?;
    Some(rest)
}

/// Since 4.19: `oom-kill:constraint=…,task_memcg=/a,task=python,pid=7,uid=0`.
fn summary(text: &str) -> Option<Kill> {
    let text = text.split_once("oom-kill:")?.1;
    // The name is the program's choice and may hold commas, so it is what
    // stands between the fields around it.
    let (before, rest) = text.split_once(",task=")?;
    let (command, rest) = rest.rsplit_once(",pid=")?;
    let pid = rest.split(',').next()?.trim().parse().ok()?;
    let cgroup = field(before, "task_memcg").map(|path| clean(path, 4096));
    Some(Kill { process: OomProcess { pid, command: clean(command, COMMAND) }, cgroup })
}

/// `Killed process 7 (python) total-vm:…` in all kernels; the line before it
/// in old ones, `Kill process 7 (python) score 1 or sacrifice child`, names
/// whom it chose, which may be the parent of whom it took.
fn killed(text: &str) -> Option<Kill> {
    let rest = text.split_once("Killed process ")?.1;
    let (pid, rest) = rest.split_once(' ')?;
    let pid = pid.trim_end_matches(',').parse().ok()?;
    let rest =
        rest.trim_start().strip_prefix("UID ").map_or(rest, |r| r.split_once(", ").map_or(r, |(_, r)| r));
    let (command, _) = rest.trim_start().strip_prefix('(')?.rsplit_once(')')?;
    // Details with parentheses of their own do not belong to the name.
    let command = command.split(") total-vm").next().unwrap_or(command);
    Some(Kill { process: OomProcess { pid, command: clean(command, COMMAND) }, cgroup: None })
}

fn is_telling(text: &str) -> bool {
    let text = text.to_lowercase();
    TELLING.iter().any(|word| text.contains(word))
}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct KernelEvidence {
    lines: VecDeque<String>,
    ours: Vec<OomProcess>,
}

impl KernelEvidence {
    /// Takes one record; true when there is something new to keep. `is_ours`
    /// tells whether a killed process belongs to the attempt.
    pub(super) fn take(&mut self, record: &str, is_ours: impl Fn(&Kill) -> bool) -> bool {
        if is_of_a_program(record) {
            return false;
        }
        let (time, text) = split(record);
        if let Some(kill) = summary(text).or_else(|| killed(text))
            && self.ours.len() < KILLS
            && self.ours.iter().all(|p| p.pid != kill.process.pid)
            && is_ours(&kill)
        {
            self.ours.push(kill.process);
        }
        if !is_telling(text) {
            return false;
        }
        let text = clean(text, LINE);
        let line = match time {
            Some(us) => format!("[{:>5}.{:06}] {text}", us / 1_000_000, us % 1_000_000),
            None => text,
        };
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        true
    }

    /// Which process of the attempt was taken: the main one where it was, else
    /// the first.
    pub(super) fn victim(&self, main: i32) -> Option<&OomProcess> {
        self.ours.iter().find(|p| p.pid == main).or(self.ours.first())
    }

    /// The lines kept, as a file holds them.
    pub(super) fn text(&self) -> String {
        self.lines.iter().fold(String::new(), |all, line| all + line + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_wrote_into_the_log_is_no_word_of_the_kernel() {
        let mut seen = KernelEvidence::default();
        for text in [
            "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
            "Out of memory: Killed process 7 (python) total-vm:1kB",
        ] {
            assert!(!seen.take(&format!("12,5,1,-;{text}"), |_| true));
            assert_eq!((seen.text(), seen.victim(7)), (String::new(), None));
            assert!(seen.take(&format!("4,6,1,-;{text}"), |_| true), "the kernel's own");
            seen = KernelEvidence::default();
        }
    }

    /// The number, the command and the cgroup of whom a line names.
    type Named = (i32, &'static str, Option<&'static str>);

    /// Recorded lines: the kernel's version, the line, whom it names.
    const RECORDED: [(&str, &str, Option<Named>); 12] = [
        (
            "4.15 memory cgroup",
            "3,1034,87112345,-;Memory cgroup out of memory: Kill process 21373 (python3) score 1967 or sacrifice child",
            None,
        ),
        (
            "4.15 memory cgroup",
            "3,1035,87112360,-;Killed process 21373 (python3) total-vm:1132084kB, anon-rss:259212kB, file-rss:9124kB, shmem-rss:0kB",
            Some((21373, "python3", None)),
        ),
        (
            "4.15 global",
            "3,900,2212345,-;Killed process 1187 (stress-ng-vm) total-vm:4023324kB, anon-rss:3721164kB, file-rss:0kB, shmem-rss:4kB",
            Some((1187, "stress-ng-vm", None)),
        ),
        (
            "4.18 (EL 8) with the user",
            "3,911,2212345,-;Killed process 3344 (java), UID 1000, total-vm:9023324kB, anon-rss:3721164kB, file-rss:0kB, shmem-rss:4kB",
            Some((3344, "java", None)),
        ),
        (
            "5.4 summary",
            "6,1500,91112345,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/outlast-a1,task_memcg=/outlast-a1,task=python3,pid=4711,uid=1000",
            Some((4711, "python3", Some("/outlast-a1"))),
        ),
        (
            "5.4 kill",
            "3,1501,91112399,-;Memory cgroup out of memory: Killed process 4711 (python3) total-vm:1132084kB, anon-rss:259212kB, file-rss:9124kB, shmem-rss:0kB, UID:1000 pgtables:692kB oom_score_adj:500",
            Some((4711, "python3", None)),
        ),
        (
            "5.15 global",
            "3,1601,91112399,-;Out of memory: Killed process 812 (pt_data_worker) total-vm:32084kB, anon-rss:59212kB, file-rss:124kB, shmem-rss:0kB, UID:0 pgtables:92kB oom_score_adj:0",
            Some((812, "pt_data_worker", None)),
        ),
        (
            "6.1 a name with a comma and parentheses",
            "6,1700,1,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=user.slice,mems_allowed=0,global_oom,task_memcg=/user.slice,task=a,pid=1 (x),pid=99,uid=0",
            Some((99, "a,pid=1 (x)", Some("/user.slice"))),
        ),
        (
            "6.18 this attempt's group of version 1",
            "6,2054,311712345678,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/x/outlast-m-1,task_memcg=/x/outlast-m-1,task=tail,pid=30177,uid=0",
            Some((30177, "tail", Some("/x/outlast-m-1"))),
        ),
        ("a driver", "3,1,1,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus.", None),
        (
            "a fault",
            "6,1,1,-;python3[77]: segfault at 0 ip 000055d0 sp 00007ffc error 4 in python3.11[55d0]",
            None,
        ),
        ("no number", "3,1,1,-;Killed process x (a) total-vm:1kB", None),
    ];

    #[test]
    fn recorded_lines_of_many_kernels_name_the_process() {
        for (kernel, record, wanted) in RECORDED {
            let (_, text) = split(record);
            let found = summary(text).or_else(|| killed(text));
            let found = found.map(|k| (k.process.pid, k.process.command, k.cgroup));
            let wanted = wanted.map(|(pid, name, cg)| (pid, name.to_owned(), cg.map(str::to_owned)));
            assert_eq!(found, wanted, "{kernel}");
            assert!(KernelEvidence::default().take(record, |_| false), "{kernel} is worth keeping");
        }
    }

    #[test]
    fn only_processes_of_the_attempt_are_named_and_the_main_one_first() {
        let mut seen = KernelEvidence::default();
        for (_, record, _) in RECORDED {
            seen.take(record, |kill| kill.process.pid != 812);
        }
        assert_eq!(seen.victim(4711).unwrap().command, "python3");
        assert_eq!(seen.victim(812).unwrap().pid, 21373, "not ours: the first that is");
        assert_eq!(seen.ours.iter().filter(|p| p.pid == 4711).count(), 1, "both lines tell of one kill");
        assert_eq!(KernelEvidence::default().victim(1), None);
    }

    #[test]
    fn a_flood_keeps_the_newest_lines_and_their_time_and_nothing_dull() {
        let mut seen = KernelEvidence::default();
        assert!(!seen.take("6,1,1,-;usb 1-1: new high-speed USB device", |_| true));
        for n in 0..1000_u32 {
            let long = "x".repeat(5000);
            assert!(
                seen.take(&format!("3,{n},{n}000001,-;Buffer I/O error on dev sda {n} {long}\u{1b}"), |_| {
                    true
                })
            );
        }
        let text = seen.text();
        assert_eq!(text.lines().count(), LINES);
        assert!(text.lines().all(|l| l.chars().count() <= LINE + 20), "lines are cut");
        assert!(text.starts_with("[  950.000001] Buffer I/O error on dev sda 950"), "{}", &text[..60]);
        assert!(!text.contains('\u{1b}'));
    }

    proptest::proptest! {
        #[test]
        fn no_record_breaks_the_reader(record in "\\PC*", tail in "[ ,;=()a-z0-9]{0,80}") {
            let mut seen = KernelEvidence::default();
            seen.take(&record, |_| true);
            seen.take(&format!("6,1,1,-;oom-kill:{tail}"), |_| true);
            seen.take(&format!("6,1,1,-;Killed process {tail}"), |_| true);
        }
    }
}
