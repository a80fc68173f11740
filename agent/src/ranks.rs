//! Several processes of one program on one machine, as `torchrun` and its kin
//! start them: which rank wrote a line, and which rank failed first. Pure, and
//! only where the launcher says so: a line without a mark belongs to nobody.

use std::fmt;

use lifecycle::cause::launchers::first_failure;
use lifecycle::exit::{Exit, signal_name};

/// Words before a rank's number in brackets: those of PyTorch's logging
/// (`[rank3]:`), of torchrun's roles (`[default3]:`) and of common launchers.
const ROLES: [&str; 6] = ["rank", "default", "trainer", "worker", "local_rank", "process"];
/// More ranks than one machine has.
const MOST: u32 = 1 << 16;
/// Lines that a launcher writes below its summary.
const AFTERWORDS: usize = 5;
const WORDS: usize = 300;

/// How a rank ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankExit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// The rank that failed first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankFailure {
    /// Its rank among all machines.
    pub rank: u32,
    /// Its rank on this machine.
    pub local_rank: Option<u32>,
    /// How it ended.
    pub exit: RankExit,
    /// Its process.
    pub pid: Option<i32>,
    /// The last thing that it said, where the launcher marks who spoke.
    pub said: Option<String>,
}

impl fmt::Display for RankFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}: ", self.rank)?;
        match self.exit {
            RankExit::Code(code) => write!(f, "exit code {code}")?,
            RankExit::Signal(signal) => write!(f, "signal {signal} ({})", signal_name(signal))?,
        }
        if let Some(pid) = self.pid {
            write!(f, " (pid {pid})")?;
        }
        match &self.said {
            Some(said) => write!(f, ": {said}"),
            None => Ok(()),
        }
    }
}

/// A line's rank and what stands behind its mark.
fn marked(line: &str) -> Option<(u32, &str)> {
    let line = line.trim_start();
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|rank| *rank < MOST);
    if let Some(inside) = line.strip_prefix('[') {
        let (mark, rest) = inside.split_once(']')?;
        let digits = mark.len() - mark.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (role, digits) = mark.split_at(mark.len() - digits);
        // Open MPI's --tag-output: [job,rank]<stream>:
        if let Some(job) = role.strip_suffix(',') {
            let rest = rest.strip_prefix("<stdout>").or_else(|| rest.strip_prefix("<stderr>"))?;
            return number(job).and(number(digits)).zip(rest.strip_prefix(':'));
        }
        let rest = rest.strip_prefix(':')?;
        let role = role.trim().to_ascii_lowercase();
        if ROLES.contains(&role.as_str()) {
            return number(digits).map(|rank| (rank, rest));
        }
        // A bare number also heads an entry of a summary, which then stands alone.
        return number(digits)
            .filter(|_| role.is_empty() && !rest.trim().is_empty())
            .map(|rank| (rank, rest));
    }
    let word = line.get(..4).filter(|word| word.eq_ignore_ascii_case("rank"))?;
    let rest = line[word.len()..].trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let (digits, rest) = rest.split_at(digits);
    number(digits).zip(rest.strip_prefix(':'))
}

/// The rank that a launcher says wrote this line: `[rank3]: …`,
/// `[default3]:…`, `[3]:…` (`torchrun --tee`), `rank 3: …`, `[1,3]<stderr>:…`.
#[must_use]
pub fn rank_of_line(line: &str) -> Option<u32> {
    marked(line).map(|(rank, _)| rank)
}

/// `name : value` of a summary.
fn entry<'a>(lines: &[&'a str], name: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| Some(line.trim().strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

/// The number before a remark in parentheses, and the number in it.
fn with_remark<T: std::str::FromStr>(value: &str) -> (Option<T>, Option<T>) {
    let (number, remark) = value.split_once('(').unwrap_or((value, ""));
    let inner = remark.split_once(':').and_then(|(_, n)| n.trim().trim_end_matches(')').parse().ok());
    (number.trim().parse().ok(), inner)
}

/// The first failure that torchrun's summary at the end of an error stream
/// names, or that another launcher tells of; `None` where nothing like it ends it.
#[must_use]
pub fn root_cause(text: &str) -> Option<RankFailure> {
    let lines: Vec<&str> = text.lines().collect();
    summary(&lines).or_else(|| other(&lines))
}

fn other(lines: &[&str]) -> Option<RankFailure> {
    let failed = first_failure(lines)?;
    let exit = match failed.exit {
        Exit::Code { code } => RankExit::Code(code),
        Exit::Signal { signal, .. } => RankExit::Signal(signal),
        Exit::NotStarted { .. } | Exit::Unknown { .. } => return None,
    };
    let said = last_words(lines, |who| who == failed.rank);
    Some(RankFailure { rank: failed.rank, local_rank: None, exit, pid: failed.pid, said })
}

/// What a rank said last, where its launcher marks who speaks.
fn last_words(lines: &[&str], is_it: impl Fn(u32) -> bool) -> Option<String> {
    lines.iter().rev().find_map(|line| {
        let (who, words) = marked(line)?;
        (is_it(who) && !words.trim().is_empty()).then(|| words.trim().chars().take(WORDS).collect())
    })
}

fn summary(lines: &[&str]) -> Option<RankFailure> {
    let at = lines.iter().rposition(|line| line.trim_start().starts_with("Root Cause (first observed"))?;
    let is_end = |line: &&str| line.trim().len() > 8 && line.trim().bytes().all(|b| b == b'=');
    let section = &lines[at + 1..];
    let end = section.iter().position(is_end).unwrap_or(section.len());
    let after = section[end..].iter().skip(1).filter(|line| !line.trim().is_empty()).count();
    if after > AFTERWORDS {
        return None;
    }
    let section = &section[..end];
    let (rank, local_rank) = with_remark::<u32>(entry(section, "rank")?);
    let (code, pid) = with_remark::<i32>(entry(section, "exitcode")?);
    let (rank, code) = (rank?, code?);
    let exit = if code < 0 { RankExit::Signal(-code) } else { RankExit::Code(code) };
    let said = last_words(&lines[..at], |who| who == rank || Some(who) == local_rank);
    Some(RankFailure { rank, local_rank, exit, pid, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "\
[rank1]: Traceback (most recent call last):
[rank1]:   File \"train.py\", line 9, in <module>
[rank1]: ValueError: bad batch
E1124 17:00:01.123000 4700 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: 1) local_rank: 1 (pid: 4712) of binary: /usr/bin/python3
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-24_17:00:01
  host      : gpu-1
  rank      : 3 (local_rank: 3)
  exitcode  : -15 (pid: 4714)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 4714
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_17:00:00
  host      : gpu-1
  rank      : 1 (local_rank: 1)
  exitcode  : 1 (pid: 4712)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
";

    #[test]
    fn the_first_failure_of_a_summary_is_named_with_its_last_words() {
        let failure = root_cause(SUMMARY).unwrap();
        assert_eq!((failure.rank, failure.local_rank, failure.pid), (1, Some(1), Some(4712)));
        assert_eq!(failure.exit, RankExit::Code(1));
        assert_eq!(failure.to_string(), "rank 1: exit code 1 (pid 4712): ValueError: bad batch");
        let killed = SUMMARY.replace("exitcode  : 1 (pid: 4712)", "exitcode  : -9 (pid: 4712)");
        let killed = killed.replace("[rank1]:", "[gone]:");
        assert_eq!(root_cause(&killed).unwrap().to_string(), "rank 1: signal 9 (SIGKILL) (pid 4712)");
    }

    #[test]
    fn a_summary_that_ends_nothing_or_is_broken_names_nobody() {
        assert_eq!(root_cause(""), None);
        let went_on = format!("{SUMMARY}{}", "epoch goes on\n".repeat(20));
        assert_eq!(root_cause(&went_on), None);
        assert!(root_cause(&format!("{SUMMARY}\nsrun: error: task 0 exited\n")).is_some());
        assert_eq!(root_cause("Root Cause (first observed failure):\n  rank : x\n  exitcode : 1\n"), None);
        let others = "[rank2]: ValueError: bad\nsrun: error: n1: task 2: Exited with exit code 4\n";
        assert_eq!(root_cause(others).unwrap().to_string(), "rank 2: exit code 4: ValueError: bad");
        let cut = &SUMMARY[..SUMMARY.find("error_file: <N/A>\n  traceback : To").unwrap()];
        assert_eq!(root_cause(cut).unwrap().rank, 1, "an end that was cut off still names it");
    }

    #[test]
    fn marks_of_launchers_are_read_and_nothing_else() {
        for (line, rank) in [
            ("[rank3]: Traceback (most recent call last):", Some(3)),
            ("[rank12]:[W1124 ProcessGroupNCCL.cpp:1] warning", Some(12)),
            ("[default0]:loss 0.5", Some(0)),
            ("[3]: hello", Some(3)),
            ("  Rank 7: epoch 1", Some(7)),
            ("rank 3: x", Some(3)),
            ("[1,5]<stderr>:oops", Some(5)),
            ("[0]:", None),
            ("[step3]: loss", None),
            ("[3] no colon", None),
            ("rank: 3", None),
            ("ranking 3: a", None),
            ("rank 99999999999: a", None),
            ("loss 3: 4", None),
            ("[", None),
            ("räk 3: x", None),
        ] {
            assert_eq!(rank_of_line(line), rank, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_readers(text in "\\PC*", tail in "[\\[\\]:,(a-z0-9 \n=-]{0,200}") {
            let _ = (rank_of_line(&text), root_cause(&text), rank_of_line(&tail));
            let _ = root_cause(&format!("Root Cause (first observed failure):\n{tail}"));
        }

        #[test]
        fn a_written_mark_is_read_back(rank in 0_u32..65_536, words in "[a-z ]{1,20}[a-z]") {
            proptest::prop_assert_eq!(rank_of_line(&format!("[rank{rank}]: {words}")), Some(rank));
            proptest::prop_assert_eq!(rank_of_line(&format!("[{rank}]: {words}")), Some(rank));
            proptest::prop_assert_eq!(rank_of_line(&format!("rank {rank}: {words}")), Some(rank));
        }
    }
}
