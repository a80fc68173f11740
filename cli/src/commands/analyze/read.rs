//! Reads the files of a run into a judge, piece by piece: memory does not grow
//! with their length.
//!
//! What a log only says at its end, such as how many steps were planned, is
//! learned in a first reading and used in a second.

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use curves::format::{Format, Schema, Wandb};
use curves::judge::schema::{Direction, MetricSpec};
use curves::judge::{Judge, MetricId, Report, Settings};
use curves::log::{Counts, Fact, Goal, Metric, Names, Reader, Record, Row, Sink, Value};
use serde::Serialize;

use super::find::{self, Part, Source};
use super::words;

/// Bytes taken from a file at a time.
const PIECE: usize = 256 * 1024;
/// Bytes of one file that are read.
const MAX_FILE_BYTES: u64 = 16 << 30;
/// Characters of a fact that are kept.
const MAX_FACT: usize = 200;
/// Goals of metrics that are kept.
const MAX_GOALS: usize = 1000;

/// What is known of a run after reading it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) source: Source,
    pub(super) facts: BTreeMap<&'static str, String>,
    pub(super) exit_code: Option<i32>,
    pub(super) alerts: u64,
    pub(super) resumed: u64,
    pub(super) values: u64,
    pub(super) steps: Option<(u64, u64)>,
    pub(super) planned: Option<u64>,
    /// Of all files together; offsets are those of the first file with any.
    pub(super) losses: Losses,
    /// What went wrong with single files.
    pub(super) notes: Vec<String>,
    pub(super) report: Report,
}

/// What became of the input.
#[derive(Debug, Default, Serialize)]
pub(super) struct Losses {
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) skipped: Loss,
    pub(super) corrupt: Loss,
    pub(super) unknown: Loss,
    pub(super) dropped: Loss,
    pub(super) torn: Loss,
}

/// How often, and where first.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Loss {
    pub(super) count: u64,
    pub(super) first_byte: Option<u64>,
}

impl Losses {
    fn add(&mut self, counts: &Counts) {
        self.bytes = self.bytes.saturating_add(counts.bytes);
        self.records = self.records.saturating_add(counts.records);
        for (loss, tally) in [
            (&mut self.skipped, counts.skipped),
            (&mut self.corrupt, counts.corrupt),
            (&mut self.unknown, counts.unknown),
            (&mut self.dropped, counts.dropped),
            (&mut self.torn, counts.torn),
        ] {
            loss.count = loss.count.saturating_add(tally.count);
            loss.first_byte = loss.first_byte.or(tally.first);
        }
    }

    /// Each kind with its name, where there is any.
    pub(super) fn told(&self) -> Vec<(&'static str, Loss)> {
        let all = [
            ("corrupt records", self.corrupt),
            ("bytes of an unfinished record at the end", self.torn),
            ("records left out", self.skipped),
            ("records of unknown kinds", self.unknown),
            ("values beyond the bounds", self.dropped),
        ];
        all.into_iter().filter(|(_, loss)| loss.count > 0).collect()
    }
}

/// Reads a run.
pub(super) fn analyse(source: &Source) -> Run {
    let first = pass(source, Settings::default());
    let (planned, goals) = (first.planned, first.goals.clone());
    let taken = if planned.is_none() && goals.is_empty() {
        first
    } else {
        let metrics = goals
            .into_iter()
            .map(|(name, goal)| {
                let direction = if goal == Goal::Minimise { Direction::Lower } else { Direction::Higher };
                (words::metric(&name), MetricSpec { direction: Some(direction), ..MetricSpec::default() })
            })
            .collect();
        let schema = curves::judge::schema::Schema { metrics, ..Default::default() };
        pass(source, Settings { planned_steps: planned, schema, ..Settings::default() })
    };
    let mut report = taken.judge.report();
    words::restore(&mut report, &taken.renamed);
    Run {
        source: source.clone(),
        facts: taken.facts,
        exit_code: taken.exit_code,
        alerts: taken.alerts,
        resumed: taken.resumed,
        values: taken.values,
        steps: taken.steps,
        planned,
        losses: taken.losses,
        notes: taken.notes,
        report,
    }
}

fn pass(source: &Source, settings: Settings) -> Taken {
    let mut taken = Taken::new(settings);
    for part in &source.parts {
        if let Err(error) = feed(part, &mut taken) {
            let name = part.path.file_name().unwrap_or_default().to_string_lossy();
            taken.notes.push(format!("{}: {error}", words::quoted(&name)));
        }
    }
    taken
}

fn feed(part: &Part, taken: &mut Taken) -> io::Result<()> {
    let path = part.path.to_string_lossy().replace('\\', "/");
    let reader: Option<Box<dyn Reader>> = match part.format {
        Format::Wandb if part.resumed => Some(Box::new(Wandb::resumed())),
        format => format.reader(&path, Schema::default()),
    };
    let mut reader = reader.ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = find::open(&part.path)?.take(MAX_FILE_BYTES);
    let mut piece = vec![0; PIECE];
    let read = loop {
        match file.read(&mut piece) {
            Ok(0) => break Ok(()),
            Ok(length) => reader.feed(&piece[..length], taken),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    // What was read before a failure counts all the same.
    reader.finish(taken);
    taken.losses.add(reader.counts());
    if read.is_ok() && file.limit() == 0 {
        taken.notes.push(format!("only the first {} GiB were read", MAX_FILE_BYTES >> 30));
    }
    read
}

/// The sink between readers and the judge.
struct Taken {
    judge: Judge,
    names: Names,
    ids: Vec<MetricId>,
    renamed: BTreeMap<String, String>,
    facts: BTreeMap<&'static str, String>,
    goals: BTreeMap<String, Goal>,
    planned: Option<u64>,
    exit_code: Option<i32>,
    alerts: u64,
    resumed: u64,
    values: u64,
    steps: Option<(u64, u64)>,
    losses: Losses,
    notes: Vec<String>,
}

impl Taken {
    fn new(settings: Settings) -> Self {
        Self {
            judge: Judge::new(settings),
            names: Names::default(),
            ids: Vec::new(),
            renamed: BTreeMap::new(),
            facts: BTreeMap::new(),
            goals: BTreeMap::new(),
            planned: None,
            exit_code: None,
            alerts: 0,
            resumed: 0,
            values: 0,
            steps: None,
            losses: Losses::default(),
            notes: Vec::new(),
        }
    }

    fn plan(&mut self, path: &[&str], value: &Value) {
        let [key] = path else { return };
        let steps = curves::settings::planned(&[((*key).to_owned(), value.clone())]);
        self.planned = steps.or(self.planned);
    }
}

impl Sink for Taken {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        let metric = self.names.intern(name)?;
        if metric.index() >= self.ids.len() {
            let shown = words::metric(name);
            self.ids.push(self.judge.metric(&shown));
            if shown != name {
                self.renamed.insert(shown, name.to_owned());
            }
        }
        Some(metric)
    }

    fn row(&mut self, row: &Row<'_>) {
        if let Some(step) = row.step {
            let (low, high) = self.steps.unwrap_or((step, step));
            self.steps = Some((low.min(step), high.max(step)));
        }
        for &(metric, value) in row.values {
            if let Some(id) = self.ids.get(metric.index()) {
                self.judge.point(*id, row.step, row.time, value);
                self.values += 1;
            }
        }
    }

    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Config { path, value } | Record::Summary { path, value } => self.plan(path, &value),
            Record::Meta(fact, text) => {
                let key = match fact {
                    Fact::RunId => "run_id",
                    Fact::Name => "name",
                    Fact::Project => "project",
                    Fact::Group => "group",
                    Fact::Commit => "commit",
                    Fact::Host => "host",
                    Fact::Accelerator => "accelerator",
                    Fact::Program => "program",
                    Fact::Status => "status",
                    _ => return,
                };
                self.facts.insert(key, text.chars().take(MAX_FACT).collect());
            }
            Record::Direction { metric, goal }
                if self.goals.len() < MAX_GOALS && !metric.contains('*') && metric.len() <= 512 =>
            {
                self.goals.insert(metric.to_owned(), goal);
            }
            Record::Alert { .. } => self.alerts += 1,
            Record::Exit { code } => self.exit_code = Some(code),
            Record::Segment { .. } => {
                self.resumed += 1;
                self.judge.segment();
            }
            _ => {}
        }
    }
}
