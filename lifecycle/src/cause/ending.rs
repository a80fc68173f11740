//! The end of a program: what was asked, what counters, the kernel and the
//! exit status say. Its own words are read in `marks`.

use super::exceptions::{self, Aftermath};
use super::{Asked, Cause, Confidence, Evidence, Verdict, launchers, marks, window};
use crate::exit::{Exit, signal_name};

/// Xid numbers after which the machine is not to be trusted, from NVIDIA's
/// catalogue: memory that cannot be corrected, the bus, the firmware, links.
const HARDWARE_XIDS: [u32; 17] = [48, 54, 62, 64, 74, 79, 92, 94, 95, 109, 110, 119, 120, 136, 140, 143, 149];

pub(super) fn running(e: &Evidence) -> Option<Verdict> {
    let over = e.exit.is_some() || e.loss.is_some() || e.superseded;
    (!over).then(|| match &e.exited {
        Some(exit) => Verdict::new(
            Cause::Running,
            Confidence::Certain,
            format!("the program ended with {exit}; what it left is being published"),
        ),
        None => Verdict::new(
            Cause::Running,
            Confidence::Certain,
            "no end was heard of; this is what is known so far",
        ),
    })
}

pub(super) fn asked(e: &Evidence) -> Option<Verdict> {
    e.exit.as_ref()?;
    let (cause, because, next) = match e.asked? {
        Asked::Person => (Cause::Operator, "a person asked it to stop", format!("outlast resume {}", e.run)),
        Asked::Rule => {
            let because = if e.rule.is_empty() { "a rule of [early_stop] held" } else { e.rule.as_str() };
            let next = format!(
                "outlast analyze {0}; outlast fork {0}@STEP --set key=value tries it otherwise",
                e.run
            );
            (Cause::EarlyStop, because, next)
        }
        Asked::Budget => (
            Cause::Budget,
            "its cost reached the cap",
            format!(
                "raise [budget] max_usd, then: outlast run; outlast resume {} goes on under the same cap",
                e.run
            ),
        ),
    };
    let verdict = with_exit(Verdict::new(cause, Confidence::Certain, because), e);
    let verdict = match e.exit {
        Some(Exit::Signal { signal: 9, .. }) => {
            verdict.and("it did not end by itself within [run] grace, and was killed")
        }
        _ => verdict,
    };
    Some(verdict.try_next(next))
}

fn with_exit(verdict: Verdict, e: &Evidence) -> Verdict {
    match &e.exit {
        Some(exit) => verdict.and(format!("the program ended with {exit}")),
        None => verdict,
    }
}

/// The number in `NVRM: Xid (PCI:0000:44:00): 79, pid=1234, ...`.
fn xid(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("Xid")?;
    let (_, rest) = rest.split_once("): ").or_else(|| rest.split_once(": "))?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

pub(super) fn broken_hardware(e: &Evidence) -> Option<Verdict> {
    if e.exit.as_ref().is_some_and(Exit::is_success) {
        return None;
    }
    let seen = window(&e.kernel).iter().rev().find(|line| {
        xid(line).is_some_and(|n| HARDWARE_XIDS.contains(&n)) || line.contains("fallen off the bus")
    });
    let advice = "the next attempt goes to another machine; if not: outlast destroy MACHINE";
    if let Some(line) = seen {
        let verdict = Verdict::new(Cause::GpuFault, Confidence::Certain, format!("kernel: {line}"));
        return Some(with_exit(verdict, e).try_next(advice).try_next("report the GPU to the provider"));
    }
    let words = e.leave_machine.to_lowercase();
    let gpu = ["gpu", "xid", "nvidia", "ecc"].iter().any(|word| words.contains(word));
    (gpu && e.exit.is_some()).then(|| {
        let verdict =
            Verdict::new(Cause::GpuFault, Confidence::Certain, format!("the agent: {}", e.leave_machine));
        with_exit(verdict, e).try_next(advice)
    })
}

pub(super) fn memory_counters(e: &Evidence) -> Option<Verdict> {
    let exit = e.exit.as_ref().filter(|exit| !exit.is_success())?;
    if e.out_of_memory.is_empty() && e.oom_process.is_none() {
        return None;
    }
    let counted = e.out_of_memory.as_str();
    let own = counted.starts_with("certain") || e.oom_process.is_some();
    // A crash of its own beside somebody else's lack of memory is a crash.
    let crashed = matches!(exit, Exit::Signal { signal, .. } if *signal != 9);
    if crashed && !counted.starts_with("certain") {
        return None;
    }
    // The counter of a whole host says little about a program that did not
    // die of a SIGKILL, its own or one of its processes'.
    let killed = matches!(exit, Exit::Signal { signal: 9, .. } | Exit::Code { code: 137 });
    let confidence = match (own, counted.starts_with("likely")) {
        // The kill is certain; that it is why a program ended that went on and
        // then exited by itself is not.
        (true, _) if killed => Confidence::Certain,
        (true, _) => Confidence::Likely,
        (false, true) => Confidence::Likely,
        _ if killed => Confidence::Likely,
        _ => return None,
    };
    let told = if counted.is_empty() { "the kernel's log names the victim" } else { counted };
    let mut verdict = Verdict::new(Cause::OutOfMemory, confidence, told);
    if let Some((pid, command)) = &e.oom_process {
        verdict = verdict.and(format!("the kernel ended {command} (process {pid})"));
    }
    if !killed && !e.last_error_line.trim().is_empty() {
        verdict = verdict.and(format!("last error: {}", e.last_error_line.trim()));
    }
    Some(
        with_exit(verdict, e)
            .try_next("less memory: batch size, data loader workers, caching; or a machine with more")
            .try_next("if [limits] memory is set: raise it"),
    )
}

pub(super) fn no_progress(e: &Evidence) -> Option<Verdict> {
    if e.hang.is_empty() || e.exit.is_none() {
        return None;
    }
    let mut verdict = Verdict::new(Cause::Hang, Confidence::Certain, format!("the agent: {}", e.hang));
    if let Some(line) = marks::last_with(e, "Watchdog caught collective operation timeout") {
        verdict = verdict.and(line);
    }
    Some(
        verdict
            .try_next(format!("outlast why {} --full (stacks of every process)", e.run))
            .try_next("if it was only slow: raise [hang] after"),
    )
}

pub(super) fn finished(e: &Evidence) -> Option<Verdict> {
    if !e.exit.as_ref()?.is_success() {
        return None;
    }
    if e.unpublished.is_empty() {
        let verdict =
            Verdict::new(Cause::Finished, Confidence::Certain, "the program ended with exit code 0");
        // Whoever collects the work of a child that was killed may lack it.
        let (pid, command) = match &e.oom_process {
            None if e.out_of_memory.starts_with("certain") => {
                return Some(verdict.and(e.out_of_memory.clone()));
            }
            None => return Some(verdict),
            Some(process) => process,
        };
        return Some(verdict.and(format!(
            "but the kernel ended {command} (process {pid}) of it for want of memory: what that one did may be missing"
        )));
    }
    let full = e.unpublished.to_lowercase().contains("no space left");
    let cause = if full { Cause::DiskFull } else { Cause::Unknown };
    Some(
        Verdict::new(cause, Confidence::Likely, format!("its work could not be stored: {}", e.unpublished))
            .and("the program itself ended with exit code 0"),
    )
}

pub(super) fn not_started(e: &Evidence) -> Option<Verdict> {
    let Some(Exit::NotStarted { reason }) = &e.exit else { return None };
    let lower = reason.to_lowercase();
    let told = format!("not started: {reason}");
    let detail = marks::setup_detail(e);
    if lower.contains("no space left") || marks::last_with(e, "No space left on device").is_some() {
        let verdict = Verdict::new(Cause::DiskFull, Confidence::Certain, told);
        return Some(verdict.try_next("a machine with a larger disk"));
    }
    if lower.starts_with("[data]") && !e.started {
        let verdict = if e.transient {
            Verdict::new(Cause::EnvironmentFailed, Confidence::Certain, told)
                .and("the machine holds it for passing: the network, or a server")
        } else {
            Verdict::new(Cause::UserError, Confidence::Certain, told)
        };
        return Some(verdict.try_next("correct [data] in outlast.toml, or have what it names reachable"));
    }
    if lower.contains("environment") || e.started || detail.is_some() {
        let mut verdict = Verdict::new(Cause::EnvironmentFailed, Confidence::Certain, told);
        if e.transient {
            verdict = verdict.and("the machine holds it for passing: the network, or a server");
        }
        if let Some(line) = detail {
            verdict = verdict.and(format!("set-up: {line}"));
        }
        let of_image = ["podman pull", "docker pull", "[environment] image", "registry"];
        let correct = if lower.contains("neither podman nor docker") {
            "install podman on the machine, or choose one that has it"
        } else if of_image.iter().any(|mark| lower.contains(mark)) {
            "correct [environment] image, or have its registry reachable from the machine"
        } else {
            "correct requirements.txt, or install what lacks with [environment] setup"
        };
        return Some(
            verdict
                .try_next(format!("outlast logs {} --setup --attempt {}", e.run, e.attempt))
                .try_next(correct),
        );
    }
    let absent = ["no such file", "not found", "permission denied", "exec format"];
    if absent.iter().any(|mark| lower.contains(mark)) {
        return Some(
            Verdict::new(Cause::UserError, Confidence::Certain, told).try_next(
                "correct the command: outlast run -- COMMAND; paths are relative to the source tree",
            ),
        );
    }
    Some(Verdict::new(Cause::Unknown, Confidence::Likely, told))
}

/// What the kernel says of a process, where the program itself said nothing.
pub(super) fn kernel_words(e: &Evidence) -> Option<Verdict> {
    let lines = || window(&e.kernel).iter().rev();
    if let Some(line) = lines().find(|l| {
        l.contains("I/O error")
            || l.contains("EXT4-fs error")
            || l.contains("Remounting filesystem read-only")
    }) {
        let verdict = Verdict::new(Cause::HostDead, Confidence::Likely, format!("kernel: {line}"));
        return Some(
            with_exit(verdict, e).try_next("its disk fails: outlast destroy MACHINE, and report it"),
        );
    }
    // Machines may share a kernel: who did not die of a SIGKILL is not its victim.
    let killed = matches!(e.exit, Some(Exit::Signal { signal: 9, .. } | Exit::Code { code: 137 }));
    let victim = |l: &&&String| {
        l.contains("Out of memory: Killed process") || l.contains("Memory cgroup out of memory")
    };
    if let Some(line) = lines().find(|l| killed && victim(&l)) {
        let verdict = Verdict::new(Cause::OutOfMemory, Confidence::Likely, format!("kernel: {line}"));
        return Some(with_exit(verdict, e).try_next("a machine with more memory, or a smaller batch"));
    }
    let line = lines().find(|l| xid(l).is_some())?;
    // Any other Xid is mostly the program's own doing (13, 31, 43, 45).
    let verdict = Verdict::new(Cause::UserError, Confidence::Likely, format!("kernel: {line}"))
        .and("this Xid comes from what a program does on a GPU, not from the GPU");
    Some(with_exit(verdict, e).try_next("[run] env: CUDA_LAUNCH_BLOCKING = \"1\" names the failing call"))
}

/// The process that failed first in the words of a launcher without a summary,
/// some of which speak on the output.
fn by_launcher(e: &Evidence) -> Option<(launchers::Failed, String)> {
    let failed = launchers::first_failure(&e.stderr).or_else(|| launchers::first_failure(&e.stdout))?;
    let pid = failed.pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
    let told = format!("by its launcher rank {}{pid} ended first, with {}", failed.rank, failed.exit);
    Some((failed, told))
}

/// What such a launcher says, where no exception says more.
fn rank_of_others(e: &Evidence) -> Option<Verdict> {
    if e.exit.as_ref()?.is_success() || exceptions::last(e).is_some() {
        return None;
    }
    let (failed, told) = by_launcher(e)?;
    let killed = matches!(failed.exit, Exit::Signal { signal: 9, .. });
    let cause = if killed { Cause::Unknown } else { Cause::UserError };
    let mut verdict = Verdict::new(cause, Confidence::Possible, told);
    if killed {
        verdict = verdict.and("out of memory is the usual reason; no counter confirms it");
    }
    if let Some(line) = crashed_by_kernel(e) {
        verdict = verdict.and(line);
    }
    Some(verdict.try_next(format!("outlast logs {} --stderr --attempt {}", e.run, e.attempt)))
}

/// A process that the kernel saw crash, which need not be the program's first.
fn crashed_by_kernel(e: &Evidence) -> Option<String> {
    let crash = |line: &&String| {
        ["]: segfault at ", "traps: ", "general protection"].iter().any(|mark| line.contains(mark))
    };
    let line = window(&e.kernel).iter().rev().find(crash)?;
    Some(format!("a process crashed meanwhile, by the kernel's log: {line}"))
}

/// One process of several, as a launcher tells it.
pub(super) fn rank(e: &Evidence) -> Option<Verdict> {
    let lines = window(&e.stderr);
    let Some(at) = lines.iter().rposition(|l| l.contains("Root Cause (first observed failure)")) else {
        return rank_of_others(e);
    };
    let field = |name: &str| {
        let line = lines[at..].iter().take(12).find(|l| l.trim_start().starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let (rank, code) = (field("rank")?, field("exitcode")?);
    let verdict = if code.starts_with("-9") {
        Verdict::new(
            Cause::Unknown,
            Confidence::Possible,
            format!("rank {rank} was ended by SIGKILL, by whom nobody saw"),
        )
        .and("out of memory is the usual reason; no counter confirms it")
    } else {
        Verdict::new(
            Cause::UserError,
            Confidence::Possible,
            format!("rank {rank} ended first, with exit code {code}"),
        )
    };
    Some(verdict.try_next(format!("outlast logs {} --stderr --attempt {}", e.run, e.attempt)))
}

pub(super) fn signal(e: &Evidence) -> Option<Verdict> {
    let (number, core, by_shell) = match e.exit.as_ref()? {
        Exit::Signal { signal, core } => (*signal, *core, false),
        Exit::Code { code } if (129..=159).contains(code) => (*code - 128, false, true),
        _ => return None,
    };
    let name = signal_name(number);
    let told = match by_shell {
        true => format!("exit code {}, as a shell says of a command that {name} ended", number + 128),
        false => format!("{name} ended it{}", if core { ", core dumped" } else { "" }),
    };
    let (cause, confidence, why, next) = match number {
        9 => (
            Cause::Unknown,
            Confidence::Possible,
            "nobody here sent it, and no counter says that memory ran out",
            "watch its memory: outlast health MACHINE; [limits] memory makes such an end certain",
        ),
        15 | 1 | 2 => (
            Cause::Unknown,
            Confidence::Possible,
            "nobody here asked: something on the machine did",
            "is there a time limit or a container that stops it?",
        ),
        11 | 8 | 5 => (
            Cause::UserError,
            Confidence::Likely,
            "native code of the program or a library crashed",
            "[run] env: PYTHONFAULTHANDLER = \"1\" names the Python line",
        ),
        6 => (
            Cause::UserError,
            Confidence::Likely,
            "the program or a library gave up by itself",
            "the lines before the end say what it gave up on",
        ),
        7 => (
            Cause::OutOfMemory,
            Confidence::Possible,
            "mostly shared memory (/dev/shm) or a disk behind a mapped file is full",
            "fewer data loader workers, or a larger /dev/shm",
        ),
        4 => (
            Cause::EnvironmentFailed,
            Confidence::Likely,
            "a library was built for another processor",
            "install packages built for this machine",
        ),
        25 => (
            Cause::DiskFull,
            Confidence::Likely,
            "a file outgrew the allowed size",
            "raise the file size limit",
        ),
        24 => {
            (Cause::UserError, Confidence::Likely, "it used up its processor time limit", "raise the limit")
        }
        13 => (
            Cause::UserError,
            Confidence::Likely,
            "it wrote where nobody read",
            "keep the reading process alive",
        ),
        _ => (Cause::Unknown, Confidence::Possible, "nothing tells who sent it", ""),
    };
    let mut verdict = Verdict::new(cause, confidence, told).and(why);
    if let Some(named) = exceptions::last(e).filter(|named| named.aftermath != Aftermath::WentOn) {
        verdict = verdict.and(format!("last error: {}", named.line));
    }
    Some(if next.is_empty() { verdict } else { verdict.try_next(next) })
}

pub(super) fn code(e: &Evidence) -> Option<Verdict> {
    let Some(Exit::Code { code }) = &e.exit else { return None };
    let told = format!("exit code {code}");
    let logs = format!("outlast logs {} --stderr --attempt {}", e.run, e.attempt);
    if matches!(code, 126 | 127) {
        let why = if *code == 127 { "a command was not found" } else { "a command may not be executed" };
        let verdict = Verdict::new(Cause::UserError, Confidence::Likely, told).and(why);
        return Some(verdict.try_next("correct the command, or install it with [environment] setup"));
    }
    let named = exceptions::last(e);
    let (ended, passed) = match named {
        Some(named) if named.aftermath == Aftermath::WentOn => (None, Some(named.line)),
        named => (named.map(|named| named.line), None),
    };
    if let Some(line) = ended {
        let mut verdict =
            Verdict::new(Cause::UserError, Confidence::Likely, format!("last error: {line}")).and(told);
        if let Some((_, rank)) = by_launcher(e) {
            verdict = verdict.and(rank);
        }
        return Some(verdict.try_next(format!("correct it, then: outlast run; {logs}")));
    }
    let mut verdict = Verdict::new(Cause::UserError, Confidence::Possible, told);
    if let Some(line) = crashed_by_kernel(e) {
        verdict = verdict.and(line).try_next("[run] env: PYTHONFAULTHANDLER = \"1\" names the Python line");
    }
    let last = e.stderr.iter().rev().map(|l| l.trim()).find(|l| !l.is_empty()).unwrap_or(&e.last_error_line);
    Some(match last {
        "" => verdict.and("it wrote nothing to its error stream").try_next(format!("outlast logs {}", e.run)),
        last => {
            let verdict = verdict.and(format!("last line: {last}"));
            match passed {
                Some(line) => verdict.and(format!("further up, and it went on: {line}")),
                None => verdict,
            }
            .try_next(logs)
        }
    })
}

/// A machine that restarted explains the end, whatever the program had said.
pub(super) fn rebooted(e: &Evidence) -> Option<Verdict> {
    nobody_saw(e).filter(|verdict| verdict.cause == Cause::Rebooted)
}

pub(super) fn nobody_saw(e: &Evidence) -> Option<Verdict> {
    let Some(Exit::Unknown { reason }) = &e.exit else { return None };
    let told = format!("nobody saw the end: {reason}");
    let lower = reason.to_lowercase();
    let rebooted =
        e.new_boot || ["reboot", "another boot", "new boot"].iter().any(|word| lower.contains(word));
    Some(match rebooted {
        true => Verdict::new(Cause::Rebooted, Confidence::Certain, told)
            .try_next(format!("outlast status {} (it goes on from the durable step)", e.run)),
        false => Verdict::new(Cause::Unknown, Confidence::Possible, told),
    })
}
