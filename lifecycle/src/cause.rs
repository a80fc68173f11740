//! Why an attempt ended: a name, how sure that is, what speaks for it and what
//! to do next. Pure, so that every rule stands in a table and every answer can
//! be had again from the same facts.
//!
//! Rules are tried from the strongest evidence to the weakest; the first that
//! applies decides. What a program printed is its own word and may be wrong;
//! what nobody saw is never made up: a bare SIGKILL is not called
//! out-of-memory, and silence alone is never called certain.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attempt::LossCause;
use crate::exit::Exit;

mod ending;
mod exceptions;
pub mod launchers;
mod loss;
mod marks;
mod table;
#[cfg(test)]
mod tests;

/// Lines of a stream's end in which errors are looked for.
pub const WINDOW: usize = 200;
/// Characters of a quoted line.
const QUOTED: usize = 200;

/// What ended an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It has not ended.
    Running,
    /// Nothing failed.
    Finished,
    /// The provider took the machine away, and said so.
    Preempted,
    /// The machine or its host ended.
    HostDead,
    /// The machine lived on, out of reach.
    NetworkPartition,
    /// The provider's word was wrong.
    ProviderLying,
    /// Main memory ran out.
    OutOfMemory,
    /// A GPU's memory ran out.
    GpuOutOfMemory,
    /// A GPU or its driver failed.
    GpuFault,
    /// A disk, quota or inode table was full.
    DiskFull,
    /// The program, its arguments or its data.
    UserError,
    /// No progress.
    Hang,
    /// A person ended it.
    Operator,
    /// The environment could not be made, or does not fit the machine.
    EnvironmentFailed,
    /// The machine was made and never spoke.
    NeverJoined,
    /// The run's cap was reached.
    Budget,
    /// A rule on its metrics ended it.
    EarlyStop,
    /// The machine started anew under it.
    Rebooted,
    /// A service that the program needs refused or could not be reached.
    RemoteService,
    /// Nobody knows.
    Unknown,
}

impl Cause {
    /// All causes, in the order of their declaration.
    pub const ALL: [Self; 20] = [
        Self::Running,
        Self::Finished,
        Self::Preempted,
        Self::HostDead,
        Self::NetworkPartition,
        Self::ProviderLying,
        Self::OutOfMemory,
        Self::GpuOutOfMemory,
        Self::GpuFault,
        Self::DiskFull,
        Self::UserError,
        Self::Hang,
        Self::Operator,
        Self::EnvironmentFailed,
        Self::NeverJoined,
        Self::Budget,
        Self::EarlyStop,
        Self::Rebooted,
        Self::RemoteService,
        Self::Unknown,
    ];

    /// The cause in plain words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "still running",
            Self::Finished => "finished",
            Self::Preempted => "preempted by the provider",
            Self::HostDead => "machine died",
            Self::NetworkPartition => "network partition",
            Self::ProviderLying => "provider's word was wrong",
            Self::OutOfMemory => "out of memory",
            Self::GpuOutOfMemory => "out of GPU memory",
            Self::GpuFault => "GPU fault",
            Self::DiskFull => "disk full",
            Self::UserError => "error in the program",
            Self::Hang => "hang",
            Self::Operator => "ended by a person",
            Self::EnvironmentFailed => "environment failed",
            Self::NeverJoined => "machine never joined",
            Self::Budget => "budget reached",
            Self::EarlyStop => "stopped early by a rule",
            Self::Rebooted => "machine rebooted",
            Self::RemoteService => "a service refused or was out of reach",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How sure a cause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// It fits; others do too.
    Possible,
    /// It fits better than all others.
    Likely,
    /// There is positive evidence of it.
    Certain,
}

impl Confidence {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// What the provider said of the machine after it had fallen silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderSays {
    /// It runs.
    Alive,
    /// It has ended.
    Ended,
    /// There is none.
    Absent,
}

/// Who asked for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// A person.
    Person,
    /// The cap.
    Budget,
    /// A rule on its metrics.
    Rule,
}

/// Everything that a verdict may rest on. Absent facts are empty, `None` or 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// The run's name, for advice.
    pub run: String,
    /// The attempt's number, for advice.
    pub attempt: u32,
    /// How the program ended, if that was seen.
    pub exit: Option<Exit>,
    /// How it ended by what was heard before the attempt itself came to its
    /// end, if that end is another.
    pub exited: Option<Exit>,
    /// Why the machine is believed lost, if it is.
    pub loss: Option<LossCause>,
    /// A newer attempt took its place.
    pub superseded: bool,
    /// The program itself had been started.
    pub started: bool,
    /// Somebody asked for the end before it came.
    pub asked: Option<Asked>,
    /// The rule that asked, and why it held.
    pub rule: String,
    /// The last error line as the machine chose it.
    pub last_error_line: String,
    /// The end of the error stream, cleaned, oldest first.
    pub stderr: Vec<String>,
    /// The end of the output, cleaned, oldest first.
    pub stdout: Vec<String>,
    /// The end of the set-up's output, cleaned, oldest first.
    pub setup: Vec<String>,
    /// Kernel messages during the attempt, oldest first.
    pub kernel: Vec<String>,
    /// Counters that say that memory ran out, with `certain:`, `likely:` or
    /// `probable:` in front.
    pub out_of_memory: String,
    /// Which process the out-of-memory killer took.
    pub oom_process: Option<(i32, String)>,
    /// Why the agent ended it for want of progress.
    pub hang: String,
    /// Why the machine is held for broken.
    pub leave_machine: String,
    /// What could not be stored.
    pub unpublished: String,
    /// The machine holds the failure for passing.
    pub transient: bool,
    /// Free bytes of the fullest disk in the last sample.
    pub disk_free: Option<u64>,
    /// What the machine said when it ended.
    pub farewell: Option<String>,
    /// The notice of its provider that it takes the machine, in words.
    pub notice: Option<String>,
    /// The stream broke (a reset, an end) instead of falling silent.
    pub broke: bool,
    /// Milliseconds of silence when it was given up.
    pub silent_ms: u64,
    /// The provider's word after the silence began.
    pub provider: Option<ProviderSays>,
    /// Other machines that fell silent at about the same time.
    pub others_silent: u32,
    /// The machine spoke again after it had been given up or called gone.
    pub spoke_again: bool,
    /// It came back with another boot.
    pub new_boot: bool,
    /// A later machine of the same provider worked.
    pub replacement_works: bool,
}

/// What is held for the cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The cause.
    pub cause: Cause,
    /// How sure.
    pub confidence: Confidence,
    /// What speaks for it; each names its evidence.
    pub because: Vec<String>,
    /// What to try next: commands and settings.
    pub next: Vec<String>,
}

impl Verdict {
    fn new(cause: Cause, confidence: Confidence, because: impl Into<String>) -> Self {
        Self { cause, confidence, because: vec![because.into()], next: Vec::new() }
    }

    fn and(mut self, because: impl Into<String>) -> Self {
        self.because.push(because.into());
        self
    }

    fn try_next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }
}

/// One rule: a verdict, or that it has nothing to say.
type Rule = fn(&Evidence) -> Option<Verdict>;

/// The rules, the strongest evidence first.
const RULES: [Rule; 17] = [
    ending::running,
    ending::asked,
    ending::broken_hardware,
    ending::memory_counters,
    ending::no_progress,
    loss::lost_after_the_end,
    loss::machine_lost,
    ending::finished,
    ending::not_started,
    ending::rebooted,
    marks::decisive,
    ending::kernel_words,
    marks::nearby,
    ending::rank,
    ending::signal,
    ending::code,
    ending::nobody_saw,
];

/// Judges. Never panics, and always has an answer.
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = RULES
        .iter()
        .find_map(|rule| rule(evidence))
        .unwrap_or_else(|| Verdict::new(Cause::Unknown, Confidence::Possible, "nothing tells why it ended"));
    if verdict.next.is_empty() && !matches!(verdict.cause, Cause::Finished | Cause::Running) {
        verdict.next.push(format!("outlast logs {} --attempt {}", evidence.run, evidence.attempt));
    }
    verdict.because.iter_mut().chain(&mut verdict.next).for_each(|text| *text = quoted(text));
    verdict
}

/// At most [`QUOTED`] characters, on one line.
fn quoted(text: &str) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= QUOTED {
        return line;
    }
    let mut cut: String = line.chars().take(QUOTED - 1).collect();
    cut.push('…');
    cut
}

/// The last lines of a stream.
fn window(lines: &[String]) -> &[String] {
    &lines[lines.len().saturating_sub(WINDOW)..]
}
