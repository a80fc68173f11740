//! Which process of several failed first, in the words of the program that
//! started them: `DeepSpeed`, Open MPI, MPICH and its kin, Slurm. What torchrun
//! says stands in a summary of its own, which is read elsewhere. Pure, and never
//! a guess: a form that is not known names nobody.
//!
//! The forms are those of `deepspeed/launcher/launch.py` (0.9 to 0.17), Open
//! MPI 4 and 5 (`help-orte-launcher`, `help-prun`), Hydra's banner (MPICH 3 and 4,
//! Intel MPI) and `srun`'s errors (Slurm 20 to 24).

use crate::exit::Exit;

/// Lines from the end that are looked at.
const LINES: usize = 60;
/// More processes than a run has.
const MOST: u32 = 1 << 20;

/// One process, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its rank, as its launcher counts.
    pub rank: u32,
    /// Its process, where that is told.
    pub pid: Option<i32>,
    /// How it ended.
    pub exit: Exit,
}

/// The first that the end of an output tells of.
#[must_use]
pub fn first_failure<T: AsRef<str>>(lines: &[T]) -> Option<Failed> {
    let lines: Vec<&str> = lines[lines.len().saturating_sub(LINES)..].iter().map(AsRef::as_ref).collect();
    (0..lines.len()).find_map(|at| {
        let rest = &lines[at..];
        deepspeed(rest[0]).or_else(|| open_mpi(rest)).or_else(|| hydra(rest)).or_else(|| slurm(rest[0]))
    })
}

/// The number at the beginning of a text.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let text = text.trim_start();
    let end = text.char_indices().find(|(at, c)| !(c.is_ascii_digit() || *at == 0 && *c == '-'));
    text[..end.map_or(text.len(), |(at, _)| at)].parse().ok()
}

fn rank(text: &str) -> Option<u32> {
    number(text).filter(|rank| *rank < MOST)
}

fn ended(code: i32) -> Exit {
    if code < 0 { Exit::Signal { signal: code.saturating_neg(), core: false } } else { Exit::Code { code } }
}

fn by_signal(text: &str) -> Option<Exit> {
    number(text).filter(|signal| (1..=64).contains(signal)).map(|signal| Exit::Signal { signal, core: false })
}

/// `['/usr/bin/python', '-u', 'train.py', '--local_rank=3', …] exits with return code = -9`
fn deepspeed(line: &str) -> Option<Failed> {
    let (command, code) = line.split_once("] exits with return code = ")?;
    let (_, local) = command.split_once("--local_rank=").or_else(|| command.split_once("--local-rank="))?;
    Some(Failed { rank: rank(local)?, pid: None, exit: ended(number(code).filter(|code| *code != 0)?) })
}

/// `mpirun noticed that process rank 2 with PID 4242 on node n1 exited on signal 9 (Killed).`, and
/// `Process name: [[61442,1],0]` before `Exit code:    3`.
fn open_mpi(lines: &[&str]) -> Option<Failed> {
    if let Some((_, rest)) = lines[0].split_once(" noticed that process rank ") {
        // The sentence may be broken into lines.
        let said = lines.iter().skip(1).take(3).fold(rest.to_owned(), |said, line| said + " " + line.trim());
        let (_, signal) = said.split_once("exited on signal ")?;
        let pid = said.split_once("with PID ").and_then(|(_, pid)| number(pid)).filter(|pid| *pid > 0);
        return Some(Failed { rank: rank(&said)?, pid, exit: by_signal(signal)? });
    }
    let name = lines[0].trim_start().strip_prefix("Process name:")?.trim().strip_suffix(']')?;
    let (_, own) = name.rsplit_once(',')?;
    let code = lines.iter().skip(1).take(3).find_map(|line| line.trim_start().strip_prefix("Exit code:"))?;
    Some(Failed { rank: rank(own)?, pid: None, exit: ended(number(code).filter(|code| *code != 0)?) })
}

/// `=   RANK 1 PID 4242 RUNNING AT n1` before `=   KILLED BY SIGNAL: 9 (Killed)` or `=   EXIT CODE: 3`.
fn hydra(lines: &[&str]) -> Option<Failed> {
    let entry = |line: &str, name: &str| -> Option<String> {
        line.trim_start()
            .strip_prefix('=')?
            .trim_start()
            .strip_prefix(name)
            .map(|rest| rest.trim().to_owned())
    };
    let who = entry(lines[0], "RANK ")?;
    let pid = who.split_once("PID ").and_then(|(_, pid)| number(pid));
    let exit = lines.iter().skip(1).take(3).find_map(|line| {
        let signal = entry(line, "KILLED BY SIGNAL:").and_then(|text| by_signal(&text));
        let code = || entry(line, "EXIT CODE:").and_then(|text| number(&text)).filter(|code| *code != 0);
        signal.or_else(|| code().map(ended))
    })?;
    Some(Failed { rank: rank(&who)?, pid, exit })
}

/// `srun: error: n1: task 3: Exited with exit code 1`, `srun: error: n1: tasks 0-1: Killed`.
fn slurm(line: &str) -> Option<Failed> {
    let said = line.trim_start().strip_prefix("srun: error: ")?;
    let (_, said) = said.split_once(": task")?;
    let (tasks, how) = said.trim_start_matches('s').split_once(": ")?;
    let exit = match how.strip_prefix("Exited with exit code ") {
        Some(code) => ended(number(code).filter(|code| *code != 0)?),
        None => {
            let name = how.split(" (").next().unwrap_or(how).trim();
            let named = [("Killed", 9), ("Segmentation fault", 11), ("Aborted", 6), ("Bus error", 7)];
            let signal = named.iter().find(|(known, _)| name == *known)?.1;
            Exit::Signal { signal, core: how.contains("core dumped") }
        }
    };
    Some(Failed { rank: rank(tasks)?, pid: None, exit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Option<(u32, Option<i32>, String)> {
        let lines: Vec<&str> = text.lines().collect();
        first_failure(&lines).map(|failed| (failed.rank, failed.pid, failed.exit.to_string()))
    }

    #[test]
    fn each_launcher_names_who_failed_first() {
        let deepspeed = "[2026-01-05 10:00:01,250] [INFO] [launch.py:316:sigkill_handler] Killing subprocess 4714\n\
            [2026-01-05 10:00:01,252] [ERROR] [launch.py:322:sigkill_handler] ['/usr/bin/python3', '-u', 'train.py', '--local_rank=3', '--deepspeed'] exits with return code = -9";
        assert_eq!(told(deepspeed), Some((3, None, "signal 9 (SIGKILL)".into())));
        let open_mpi = "--------------------------------------------------------------------------\n\
            mpirun noticed that process rank 2 with PID 4242 on node n1 exited on signal 11 (Segmentation fault).\n\
            --------------------------------------------------------------------------";
        assert_eq!(told(open_mpi), Some((2, Some(4242), "signal 11 (SIGSEGV)".into())));
        let broken =
            "prterun noticed that process rank 1 with PID 0 on node n1\nexited on signal 9 (Killed).";
        assert_eq!(told(broken), Some((1, None, "signal 9 (SIGKILL)".into())));
        let code = "mpirun detected that one or more processes exited with non-zero status, thus causing\n\
            the job to be terminated. The first process to do so was:\n\n  Process name: [[61442,1],5]\n  Exit code:    3";
        assert_eq!(told(code), Some((5, None, "exit code 3".into())));
        let hydra = "===================================================================================\n\
            =   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   RANK 1 PID 4242 RUNNING AT n1\n\
            =   KILLED BY SIGNAL: 9 (Killed)";
        assert_eq!(told(hydra), Some((1, Some(4242), "signal 9 (SIGKILL)".into())));
        let srun = "srun: error: n1: task 3: Exited with exit code 1\nsrun: error: n2: task 0: Killed";
        assert_eq!(told(srun), Some((3, None, "exit code 1".into())));
        let dumped = "srun: error: n1: tasks 0-1: Segmentation fault (core dumped)";
        assert_eq!(told(dumped).unwrap().0, 0);
    }

    #[test]
    fn other_words_name_nobody() {
        for text in [
            "",
            "['python', 'train.py'] exits with return code = 1",
            "['python', '--local_rank=1'] exits with return code = 0",
            "somebody noticed that process rank x exited on signal 9",
            "Process name: [[61442,1],5]\nExit code: 0",
            "=   RANK 1 PID 4242 RUNNING AT n1\n=   KILLED BY SIGNAL: 900 (?)",
            "srun: error: n1: task 3: Cannot allocate memory",
            "srun: error: Node failure on n1",
        ] {
            assert_eq!(told(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(lines in proptest::collection::vec("\\PC{0,60}", 0..6), tail in "[0-9a-z\\[\\],:=' -]{0,60}") {
            let forms = ["srun: error: a: task", "=   RANK ", "Process name: [", "x noticed that process rank ", "--local_rank="];
            let made = forms.iter().map(|form| format!("{form}{tail}")).chain(lines);
            let _ = first_failure(&made.collect::<Vec<_>>());
        }
    }
}
