//! How a run ended, whatever its metrics were: by its exit code, by the word of its
//! tracker, or by the error with which its output ends. What nobody wrote down is
//! not made up: a log that just ends says nothing. Output is hostile: a bounded
//! piece of its end is read, and what is told of it stands in quotes.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use curves::format::{Console, Format};
use curves::judge::End;
use curves::judge::schema::{Role, read_name};
use curves::log::{Metric, Names, Reader as _, Record, Row, Sink};
use lifecycle::cause::{Cause, Evidence, Verdict, judge};
use lifecycle::exit::Exit;
use serde::{Deserialize, Serialize};

use super::source::{Inside, Source};
use super::{find, words};

/// Bytes of an output's end that are read.
const TAIL: u64 = 64 << 10;
/// Characters of an error that are shown.
const SHOWN: usize = 120;

/// How it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It came to its end.
    Finished,
    /// Its program failed.
    Failed,
    /// Somebody ended it.
    Stopped,
}

/// That a run is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    /// What says so; ASCII, words of others in quotes.
    pub(crate) why: String,
    /// What to try next, where that is known.
    pub(crate) next: Option<String>,
}

impl Ending {
    /// One sentence; empty where a run just came to its end.
    pub(crate) fn sentence(&self) -> String {
        let next = self.next.as_ref().map(|next| format!("; try {next}")).unwrap_or_default();
        match self.outcome {
            Outcome::Finished => String::new(),
            Outcome::Failed => format!("The run failed: {}{next}.", self.why),
            Outcome::Stopped => format!("The run was stopped: {}.", self.why),
        }
    }

    /// The same for whoever judges the curves.
    pub(super) fn end(&self) -> End {
        End { failed: self.outcome == Outcome::Failed, text: self.sentence() }
    }
}

/// How a run ended, if anything says that it did; `known` is why it failed, where
/// somebody knows that better than the end of its output does.
pub(super) fn of(
    source: &Source,
    exit: Option<i32>,
    status: Option<&str>,
    known: Option<LastError>,
) -> Option<Ending> {
    let said = status.and_then(outcome);
    let plain = |outcome, why: String| Some(Ending { outcome, why, next: None });
    let word = || format!("its tracker says {}", words::quoted(status.unwrap_or_default()));
    match (exit, said) {
        // Who is asked to end may well do so with 0.
        (_, Some(Outcome::Stopped)) => return plain(Outcome::Stopped, word()),
        (Some(0), _) | (None, Some(Outcome::Finished)) => return plain(Outcome::Finished, String::new()),
        _ => {}
    }
    let error = known.or_else(|| output(source).and_then(|path| last_error(path).ok().flatten()));
    let known = match (exit, said) {
        (Some(code), _) => Some(format!("exit code {code}")),
        (None, Some(_)) => Some(match status {
            // MLflow's files count their words.
            Some("4") => "its tracker says \"FAILED\"".to_owned(),
            _ => word(),
        }),
        (None, None) => None,
    };
    let (why, next) = match (known, error) {
        (None, None) => return None,
        (Some(known), None) => (known, None),
        (known, Some(error)) => {
            let known = known.unwrap_or_else(|| "its output ends with an error".to_owned());
            (format!("{known}, {}", error.text()), error.next)
        }
    };
    Some(Ending { outcome: Outcome::Failed, why, next: next.map(|next| words::ascii(&next)) })
}

/// Whether the word of a tracker says that the run failed.
pub(crate) fn is_failure(status: &str) -> bool {
    outcome(status) == Some(Outcome::Failed)
}

/// What a tracker's word means; words of a run that goes on mean nothing here.
fn outcome(status: &str) -> Option<Outcome> {
    Some(match status.to_ascii_lowercase().as_str() {
        "finished" | "completed" | "success" | "succeeded" | "published" | "3" => Outcome::Finished,
        "failed" | "failure" | "crashed" | "error" | "4" => Outcome::Failed,
        "killed" | "stopped" | "cancelled" | "canceled" | "aborted" | "budget_stopped" | "5" => {
            Outcome::Stopped
        }
        _ => return None,
    })
}

/// The file with what the run printed.
fn output(source: &Source) -> Option<&Path> {
    let printed =
        |part: &&super::source::Part| part.format == Format::Console && part.inside == Inside::Bytes;
    source.parts.iter().rfind(printed).map(super::source::Part::file).or(source.output.as_deref())
}

/// The error with which an output ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LastError {
    pub(crate) line: String,
    pub(crate) cause: Option<String>,
    /// What to try next, where that is known.
    pub(crate) next: Option<String>,
}

impl LastError {
    /// What speaks for a verdict first; an exit code alone is said elsewhere.
    pub(crate) fn told(verdict: &Verdict) -> Option<Self> {
        let speaks = |line: &&String| !line.starts_with("exit code ");
        let line = verdict.because.iter().find(speaks)?;
        let line = line.strip_prefix("last error: ").unwrap_or(line);
        Some(Self::of(line.chars().take(2 * SHOWN).collect(), verdict))
    }

    fn of(line: String, verdict: &Verdict) -> Self {
        let named =
            !matches!(verdict.cause, Cause::Unknown | Cause::UserError | Cause::Running | Cause::Finished);
        let next = verdict.next.iter().find(|next| named && !next.contains("outlast ")).cloned();
        Self { line, cause: named.then(|| verdict.cause.name().to_owned()), next }
    }

    /// In quotes, with its cause.
    pub(crate) fn text(&self) -> String {
        let cause =
            self.cause.as_ref().map(|cause| format!(" ({})", words::ascii(cause))).unwrap_or_default();
        format!("{}{cause}", words::quoted_within(&self.line, SHOWN))
    }
}

fn last_error(path: &Path) -> io::Result<Option<LastError>> {
    let mut file: File = find::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(error_in(&String::from_utf8_lossy(&bytes)))
}

/// What the shells and systems say of a program that was ended, at the beginning of
/// a line of its own.
const ENDED: [&str; 7] = [
    "Killed",
    "Segmentation fault",
    "Aborted",
    "Bus error",
    "terminate called after throwing",
    "slurmstepd: error:",
    "Fatal Python error:",
];

/// The error that a text ends with: an exception that nothing caught, or the word of
/// a shell. One after which the training went on is none.
fn error_in(text: &str) -> Option<LastError> {
    let lines: Vec<&str> = text.split(['\n', '\r']).filter(|line| !line.trim().is_empty()).collect();
    let at = thrown(&lines).into_iter().chain(ended(&lines)).max()?;
    let after = lines.get(at + 1..).unwrap_or_default();
    if after.iter().any(|line| went_on(line)) || trains(after) {
        return None;
    }
    let own = unranked(lines.get(at)?).trim();
    let verdict = judge(&Evidence {
        started: true,
        exit: Some(Exit::Unknown { reason: "its output ends".to_owned() }),
        stdout: lines.iter().map(|line| (*line).to_owned()).collect(),
        ..Evidence::default()
    });
    // Of a launcher's own error the one of its child tells more.
    let better = verdict.because.first().and_then(|because| because.strip_prefix("last error: "));
    Some(LastError::of(better.unwrap_or(own).to_owned(), &verdict))
}

/// The line of the last exception that Python or Rust printed.
fn thrown(lines: &[&str]) -> Option<usize> {
    // What Python tells of and passes over, as when its workers are taken down.
    let ignored = |at: usize| {
        let above = at.checked_sub(1).and_then(|above| lines.get(above)).map(|line| unranked(line));
        above.is_some_and(|line| {
            line.starts_with("Exception ignored") || line.starts_with("--- Logging error")
        })
    };
    let head = (0..lines.len())
        .rev()
        .find(|at| lines[*at].contains("Traceback (most recent call last)") && !ignored(*at));
    let raised = head.and_then(|head| {
        let below = lines.iter().enumerate().skip(head + 1);
        below.into_iter().find(|(_, line)| !unranked(line).starts_with([' ', '\t'])).map(|(at, _)| at)
    });
    let panicked = lines.iter().rposition(|line| line.contains("' panicked at "));
    raised.max(panicked)
}

/// Whether a program that says so has outlived an error.
fn went_on(line: &str) -> bool {
    let line = unranked(line).to_ascii_lowercase();
    let good = ["finished", "complete", "done", "saved", "saving", "retrying", "resuming"];
    good.iter().any(|word| line.contains(word)) && !line.contains("error") && !line.contains("fail")
}

fn ended(lines: &[&str]) -> Option<usize> {
    let last = lines.len().checked_sub(1)?;
    let line = unranked(lines[last]).trim();
    let says = |word: &&str| match word.contains([':', ' ']) {
        true => line.starts_with(*word),
        // A word that sentences begin with, too, stands alone.
        false => {
            line.strip_prefix(*word).is_some_and(|rest| rest.is_empty() || rest.starts_with(" (core dumped)"))
        }
    };
    ENDED.iter().any(says).then_some(last)
}

/// Without `[rank3]: ` in front, where the rest keeps its indentation.
fn unranked(line: &str) -> &str {
    let rest = line.strip_prefix("[rank").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    rest.and_then(|rest| rest.strip_prefix("]: ")).unwrap_or(line)
}

/// Whether lines hold values of a loss or a score.
fn trains(lines: &[&str]) -> bool {
    let mut found = Trains::default();
    let mut reader = Console::new();
    lines.iter().for_each(|line| reader.feed(format!("{line}\n").as_bytes(), &mut found));
    reader.finish(&mut found);
    found.values
}

#[derive(Default)]
struct Trains {
    names: Names,
    judged: Vec<bool>,
    values: bool,
}

impl Sink for Trains {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        let metric = self.names.intern(name)?;
        if metric.index() >= self.judged.len() {
            self.judged.push(matches!(read_name(name).role, Role::Loss | Role::Error | Role::Score));
        }
        Some(metric)
    }

    fn row(&mut self, row: &Row<'_>) {
        let judged = |metric: &Metric| self.judged.get(metric.index()).copied().unwrap_or_default();
        self.values |= row.values.iter().any(|(metric, _)| judged(metric));
    }

    fn record(&mut self, _: Record<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MEMORY: &str = "step=990 loss=2.0100\nTraceback (most recent call last):\n  File \"train.py\", line 3, in <module>\n\
        \x20   step()\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 23.6 GiB\n";

    #[test]
    fn the_error_that_a_text_ends_with_is_told_with_its_cause() {
        let found = error_in(MEMORY).unwrap();
        assert!(found.line.starts_with("torch.OutOfMemoryError: CUDA out of memory."), "{found:?}");
        assert_eq!(found.cause.as_deref(), Some("out of GPU memory"));
        assert!(found.next.unwrap().contains("batch"));
        let ranked =
            "[rank1]: Traceback (most recent call last):\n[rank1]:   File \"a.py\"\n[rank1]: KeyError: 'x'\n";
        assert_eq!(error_in(ranked).unwrap().line, "KeyError: 'x'");
        assert_eq!(error_in("step 1 loss 2\nKilled\n").unwrap().line, "Killed");
        assert!(error_in("step=1 loss=2\nKilled all zombies of the game\nstep=2 loss=1\n").is_none());
    }

    #[test]
    fn what_the_controller_knows_of_a_failure_is_told() {
        let verdict = |cause: Cause, because: &[&str]| Verdict {
            cause,
            confidence: lifecycle::cause::Confidence::Likely,
            because: because.iter().map(|text| (*text).to_owned()).collect(),
            next: vec!["outlast why".into(), "a smaller batch".into()],
        };
        let memory = verdict(Cause::GpuOutOfMemory, &["exit code 1", "last error: CUDA out of memory"]);
        let known = LastError::told(&memory).unwrap();
        let source = Source {
            path: "a-1".into(),
            parts: Vec::new(),
            format: Format::Outlast,
            why: String::new(),
            named: false,
            output: None,
        };
        let told = |known| of(&source, Some(1), Some("failed"), known).unwrap().sentence();
        assert_eq!(
            told(Some(known)),
            "The run failed: exit code 1, \"CUDA out of memory\" (out of GPU memory); try a smaller batch."
        );
        assert_eq!(
            told(LastError::told(&verdict(Cause::UserError, &["exit code 1"]))),
            "The run failed: exit code 1."
        );
        // Who was asked to end and returned 0 did not come to its end.
        assert_eq!(of(&source, Some(0), Some("cancelled"), None).unwrap().outcome, Outcome::Stopped);
    }

    #[test]
    fn what_a_program_tells_of_and_passes_over_is_no_end() {
        let thrown =
            "Traceback (most recent call last):\n  File \"a.py\", line 3\nConnectionError: hub unreachable\n";
        for text in [
            format!("step 9 loss 0.1\n{thrown}retrying upload\nSaved model to out/final.pt\n"),
            format!("step 9 loss 0.1\nTraining finished\nException ignored in: <function __del__>\n{thrown}"),
            format!("step 9 loss 0.1\n--- Logging error ---\n{thrown}"),
            "step 9 loss 0.1\nAborted early: patience of 10 reached, best model restored\n".to_owned(),
        ] {
            assert!(error_in(&text).is_none(), "{text}");
        }
        for (text, line) in [
            (format!("step 9 loss 0.1\nSaved model\n{thrown}"), "ConnectionError: hub unreachable"),
            (format!("{thrown}could not be saved: error 5\n"), "ConnectionError: hub unreachable"),
            ("step 9 loss 0.1\nAborted (core dumped)\n".to_owned(), "Aborted (core dumped)"),
            (
                "step 9 loss 0.1\nSegmentation fault (core dumped)\n".to_owned(),
                "Segmentation fault (core dumped)",
            ),
        ] {
            assert_eq!(error_in(&text).unwrap().line, line, "{text}");
        }
    }

    #[test]
    fn an_error_that_the_training_survived_is_none() {
        assert!(error_in(&format!("{MEMORY}step=1000 loss=2.0\n")).is_none());
        assert!(error_in("step=1 loss=2\nValueError is what we test\nstep=2 loss=1\n").is_none());
        assert!(error_in("").is_none() && error_in("step=1 loss=1\n").is_none());
    }

    #[test]
    fn words_of_trackers_mean_what_they_say() {
        for (word, expected) in [
            ("FAILED", Some(Outcome::Failed)),
            ("4", Some(Outcome::Failed)),
            ("finished", Some(Outcome::Finished)),
            ("KILLED", Some(Outcome::Stopped)),
            ("RUNNING", None),
            ("lost", None),
            ("", None),
        ] {
            assert_eq!(outcome(word), expected, "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_output_is_read(text in "(Traceback \\(most recent call last\\)|\\[rank|\\]: |Error: |Killed|loss=1|[ \n\r]|\\PC){0,40}") {
            if let Some(found) = error_in(&text) {
                prop_assert!(!found.line.is_empty() || !text.is_empty());
            }
        }
    }
}
