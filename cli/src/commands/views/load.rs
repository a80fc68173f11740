//! Runs read into memory, and which run and which metric somebody means. A name
//! that means several is refused with the candidates, never guessed.

use std::path::{Path, PathBuf};

use curves::judge::schema::{Role, read_name};
use curves::log::{Collected, Column, Fact, Metric, Record, Row, Sink};
use curves::view::Course;

use crate::args::ReadAs;
use crate::commands::analyze::gather::{Gathered, gather};
use crate::commands::analyze::order::Order;
use crate::commands::analyze::{Skipped, no_data, words};
use crate::exit_code::{ExitCode, Failure};

/// Values of one run that are held: 24 bytes each.
const MAX_VALUES: u64 = 16 << 20;
/// Candidates that a refusal names.
const CANDIDATES: usize = 10;

/// One run in memory.
pub(super) struct Run {
    pub(super) gathered: Gathered,
    pub(super) data: Collected,
    /// What went wrong with single files, and what was left out.
    pub(super) notes: Vec<String>,
}

impl Run {
    pub(super) fn read(gathered: Gathered) -> Self {
        let mut kept = Kept { data: Collected::default(), values: 0, left_out: 0, order: Order::default() };
        let mut notes = gathered.read(&mut kept);
        notes.extend(kept.order.replaced().filter(|_| gathered.format() == "wandb"));
        if kept.left_out > 0 {
            notes.push(format!("{} values beyond the bound of {MAX_VALUES} were left out", kept.left_out));
        }
        if kept.data.left_out > 0 {
            notes.push(format!("{} facts beyond the bounds were left out", kept.data.left_out));
        }
        let mut run = Self { gathered, data: kept.data, notes };
        run.take_measurements();
        run
    }

    /// Makes columns of what was measured of the machine.
    fn take_measurements(&mut self) {
        for (key, time, value) in std::mem::take(&mut self.data.system) {
            let Some(metric) = self.data.metric(&format!("system/{key}")) else { continue };
            self.data.row(&Row { step: None, time, values: &[(metric, value)] });
        }
    }

    /// The path, as it is shown.
    pub(super) fn shown(&self) -> String {
        words::path(self.gathered.path())
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.data.fact(Fact::Name).filter(|name| !name.is_empty())
    }

    /// Names and columns that hold a value.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&str, &Column)> {
        self.data.named().filter(|(_, column)| !column.values.is_empty())
    }

    /// The course of a metric.
    pub(super) fn course(&self, name: &str) -> Option<Course> {
        self.data.column(name).filter(|column| !column.values.is_empty()).map(Course::of)
    }

    /// Whether it says something of itself beside metrics. What a log that was printed
    /// has of that is this program's own.
    fn sums_up(&self) -> bool {
        !self.data.summary.is_empty() && !self.gathered.loose()
    }

    /// Whether it has no values, or is a table or log of another program.
    fn passed_over(&self) -> bool {
        let judged = |name: &str| matches!(read_name(name).role, Role::Loss | Role::Error | Role::Score);
        (self.columns().next().is_none() && !self.sums_up())
            || (self.gathered.loose() && !self.columns().any(|(name, _)| judged(name)))
    }

    /// The metrics that somebody means: by exact name, with `*`, by the end or a
    /// part of the name where that is only one.
    ///
    /// # Errors
    /// None or several are meant.
    pub(super) fn metrics(&self, asked: &[String]) -> Result<Vec<String>, Failure> {
        let mut meant: Vec<String> = Vec::new();
        for text in asked {
            for name in self.metric(text)? {
                if !meant.contains(&name) {
                    meant.push(name);
                }
            }
        }
        Ok(meant)
    }

    fn metric(&self, text: &str) -> Result<Vec<String>, Failure> {
        if self.columns().any(|(name, _)| name == text) {
            return Ok(vec![text.to_owned()]);
        }
        let matching = |is: &dyn Fn(&str) -> bool| -> Vec<String> {
            self.columns().map(|(name, _)| name).filter(|name| is(name)).map(str::to_owned).collect()
        };
        if text.contains('*') {
            let found = matching(&|name| like(text, name));
            return if found.is_empty() { Err(self.no_metric(text)) } else { Ok(found) };
        }
        let lower = text.to_lowercase();
        let end = matching(&|name| name.to_lowercase().rsplit('/').next() == Some(&lower));
        let part = matching(&|name| name.to_lowercase().contains(&lower));
        for found in [end, part] {
            match found.len() {
                0 => {}
                1 => return Ok(found),
                _ => {
                    let message =
                        format!("{} means several metrics: {}", words::quoted(text), listed(&found));
                    return Err(Failure::new(ExitCode::BadInput, message).help("write the whole name"));
                }
            }
        }
        Err(self.no_metric(text))
    }

    fn no_metric(&self, text: &str) -> Failure {
        let all: Vec<String> = self.columns().map(|(name, _)| name.to_owned()).collect();
        let message =
            format!("{}: no metric {}; there are {}", self.shown(), words::quoted(text), listed(&all));
        Failure::new(ExitCode::BadInput, message).help("`outlast metrics PATH` lists all of them")
    }
}

/// Names for a refusal, the first of them.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(CANDIDATES).map(|name| words::metric(name)).collect();
    let more = names.len().saturating_sub(CANDIDATES);
    let tail = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("{}{tail}", shown.join(", "))
}

/// Whether a name is as a pattern with `*` says.
pub(crate) fn like(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Every run below the paths that says anything, read one at a time.
///
/// # Errors
/// A path that cannot be read or has no runs.
pub(super) fn each(paths: &[PathBuf], format: Option<&ReadAs>, take: impl FnMut(Run)) -> anyhow::Result<u64> {
    each_told(paths, format, take).map(|passed| passed.0)
}

/// The same, and gives of what was passed over how much, and the first of it with
/// the reason.
///
/// # Errors
/// As [`each`].
pub(super) fn each_told(
    paths: &[PathBuf],
    format: Option<&ReadAs>,
    mut take: impl FnMut(Run),
) -> anyhow::Result<(u64, Vec<Skipped>)> {
    let found = gather(paths, format)?;
    let (mut passed, mut taken) = (found.skipped_count, 0_u64);
    let many = found.runs.len() > 1;
    let mut skipped = found.skipped;
    for gathered in found.runs {
        let run = Run::read(gathered);
        let says_nothing = run.columns().next().is_none() && run.data.config.is_empty() && !run.sums_up();
        // A run of the controller's is one before it logs anything.
        if says_nothing || (many && !run.gathered.is_own() && run.passed_over()) {
            passed += 1;
            skipped.push(run.gathered.nothing(run.columns().next().is_some(), &run.notes));
        } else {
            taken += 1;
            take(run);
        }
    }
    if taken == 0 {
        let [path] = paths else {
            let all = paths.iter().map(|path| words::path(path)).collect::<Vec<_>>().join(", ");
            return Err(Failure::new(ExitCode::BadInput, format!("{all}: no data in any of them"))
                .help("named alone, each says why")
                .into());
        };
        return Err(no_data(path, &skipped).into());
    }
    Ok((passed, skipped))
}

/// The one run that is meant. A path that is a run's own is that run, whatever runs
/// lie below it, as those of tensorboardX's `add_hparams` do.
///
/// # Errors
/// None or several are.
pub(super) fn one(path: &Path, which: Option<&str>, format: Option<&ReadAs>) -> anyhow::Result<Run> {
    let mut runs = Vec::new();
    each(&[path.to_owned()], format, |run| {
        // Of those that cannot be meant the values are let go at once.
        let may_be = |which| rank(&run, which).is_some();
        if which.map_or_else(|| runs.is_empty() || run.gathered.path() == path, may_be) {
            runs.push(run);
        } else {
            runs.push(Run { data: Collected { meta: run.data.meta, ..Collected::default() }, ..run });
        }
    })?;
    let Some(which) = which else {
        if let Some(at) = runs.iter().position(|run| run.gathered.path() == path) {
            return Ok(runs.swap_remove(at));
        }
        return Ok(match runs.len() {
            1 => runs.pop().ok_or_else(|| nothing(path)),
            _ => Err(several(&format!("{} holds", words::path(path)), &runs)),
        }?);
    };
    let best = runs.iter().filter_map(|run| rank(run, which)).min();
    let mut meant: Vec<Run> = Vec::new();
    let mut others: Vec<Run> = Vec::new();
    for run in runs {
        if best.is_some() && rank(&run, which) == best { meant.push(run) } else { others.push(run) }
    }
    let meant = match meant.len() {
        1 => meant.pop().ok_or_else(|| nothing(path)),
        0 => {
            let mut failure = several("there are", &others);
            failure.code = ExitCode::NotFound;
            failure.message =
                format!("{}: no run {}; {}", words::path(path), words::quoted(which), failure.message);
            Err(failure)
        }
        _ => Err(several(&format!("{} means", words::quoted(which)), &meant)),
    };
    Ok(meant?)
}

/// How well a run is what somebody asked for: less is better.
fn rank(run: &Run, which: &str) -> Option<u8> {
    let path = run.gathered.path();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let id = run.data.fact(Fact::RunId);
    let names = [run.name(), id, stem.as_deref()];
    if path == Path::new(which) || path.ends_with(which) {
        Some(0)
    } else if names.contains(&Some(which)) {
        Some(1)
    } else if names.iter().flatten().any(|name| name.starts_with(which)) {
        Some(2)
    } else {
        None
    }
}

fn nothing(path: &Path) -> Failure {
    Failure::new(ExitCode::BadInput, format!("{}: no run in it", words::path(path)))
}

fn several(what: &str, runs: &[Run]) -> Failure {
    let named = |run: &Run| match run.name() {
        Some(name) => format!("{} ({})", words::typed(run.gathered.path()), words::name(name)),
        None => words::typed(run.gathered.path()),
    };
    let shown: Vec<String> = runs.iter().take(CANDIDATES).map(named).collect();
    let more = runs.len().saturating_sub(CANDIDATES);
    let tail = if more > 0 { format!(", and {more} more") } else { String::new() };
    let message = format!("{what} {} runs: {}{tail}", runs.len(), shown.join(", "));
    Failure::new(ExitCode::NotFound, message).help("name one of these paths, or add --run NAME")
}

/// A sink with a bound.
struct Kept {
    data: Collected,
    values: u64,
    left_out: u64,
    order: Order,
}

impl Sink for Kept {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        self.data.metric(name)
    }

    fn row(&mut self, row: &Row<'_>) {
        let count = row.values.len() as u64;
        if self.values + count > MAX_VALUES {
            self.left_out += count;
        } else {
            self.values += count;
            let steps =
                row.step.into_iter().flat_map(|step| row.values.iter().map(move |(id, _)| (id, step)));
            steps.for_each(|(metric, step)| self.order.point(metric.index(), step));
            self.data.row(row);
        }
    }

    fn record(&mut self, record: Record<'_>) {
        if let Record::Segment { .. } = record {
            self.order.anew();
        }
        self.data.record(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, is) in [
            ("*", "a/b", true),
            ("train/*", "train/loss", true),
            ("train/*", "val/loss", false),
            ("*loss*", "train/loss_a", true),
            ("*loss", "train/loss_a", false),
            ("a*a", "a", false),
            ("a*b*c", "aXbYc", true),
        ] {
            assert_eq!(like(pattern, name), is, "{pattern} {name}");
        }
    }
}
