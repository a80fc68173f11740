//! Reads the files of a run into a judge, piece by piece: memory does not grow
//! with their length.
//!
//! What a log only says at its end, such as how many steps were planned, is
//! learned in a first reading and used in a second.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use curves::format::{
    Format, MlflowMeta, Schema, Wandb, WandbCloud, Yaml, clearml_task, mlflow_param, mlflow_tag,
};
use curves::judge::schema::Direction;
use curves::judge::{End, Judge, MetricId, Report, Settings};
use curves::log::{Counts, Fact, Goal, Metric, Names, Reader, Record, Row, Sink, Value};

use super::ending::Ending;
use super::find::{self, Inside, Part, Source};
use super::holes::{self, Next};
use super::hparams::Session;
pub(super) use super::losses::Losses;
use super::order::Order;
use super::summary::Summary;
use super::{aim, database, ending, live, packed, schema, why, words};
use crate::config::Metrics;

/// Bytes taken from a file at a time.
const PIECE: usize = 256 * 1024;
/// Bytes of one file that are read.
pub(super) const MAX_FILE_BYTES: u64 = 16 << 30;
/// So many bytes of zeros are read before it is asked whether they are a hole.
const HOLE: u64 = 1 << 20;
/// Bytes of a file that is one value or one object.
const MAX_WHOLE: u64 = 16 << 20;
/// Characters of a fact that are kept.
const MAX_FACT: usize = 200;
/// Seconds of a year.
const YEAR: f64 = 3.2e7;
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
    /// What it says of itself beside its metrics.
    pub(super) summary: Summary,
    /// Names of its metrics in the order of the log.
    pub(super) logged: Vec<String>,
    /// How it ended, if anything says that it did.
    pub(super) ending: Option<Ending>,
    /// The newest time in it, in seconds since 1970.
    pub(super) newest: Option<f64>,
}

/// Reads a run by what somebody said of its metrics; where its history is missing,
/// the output that lies beside it.
pub(super) fn analyse(source: &Source, metrics: Option<&Metrics>) -> Run {
    let run = analyse_parts(source, metrics);
    let Some(output) = source.output.as_ref().filter(|_| run.values == 0) else { return run };
    let mut source = source.clone();
    source.parts.push(Part::new(output, Format::Console, Inside::Bytes));
    let mut printed = analyse_parts(&source, metrics);
    if printed.values == 0 {
        return run;
    }
    printed
        .notes
        .insert(0, "there is no history in it: what follows was printed, in files/output.log".to_owned());
    printed
}

fn analyse_parts(source: &Source, metrics: Option<&Metrics>) -> Run {
    let keys = schema::keys(metrics);
    let pass = |settings| {
        let mut taken = Taken::new(settings);
        let said = parts(source, &keys, &mut taken);
        (taken, said)
    };
    let (first, said) = pass(Settings::default());
    let (mut taken, said, noted) = match first.better(metrics) {
        None => (first, said, Vec::new()),
        Some((settings, notes)) => {
            let (taken, said) = pass(settings);
            (taken, said, notes)
        }
    };
    taken.run(source, said.losses, [said.notes, noted].concat())
}

/// What is said of the reading itself.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) losses: Losses,
    pub(super) notes: Vec<String>,
}

/// Reads all parts of a run into a sink.
pub(super) fn parts(source: &Source, keys: &Schema, sink: &mut dyn Sink) -> Said {
    let mut said = Said::default();
    if let Some(Inside::Aim(run)) = source.parts.first().map(|part| &part.inside) {
        let (counts, notes) = aim::feed(run, &source.parts, sink);
        said.losses.add(&counts);
        said.notes = notes;
        return said;
    }
    for part in &source.parts {
        if let Err(error) = feed(part, keys, sink, &mut said) {
            said.notes.push(note(part, &error));
        }
    }
    said
}

/// What is said of a file that could not be read to its end.
pub(super) fn note(part: &Part, error: &io::Error) -> String {
    let name = part.path.file_name().unwrap_or_default().to_string_lossy();
    format!("{}: {error}", words::quoted(&name))
}

fn feed(part: &Part, keys: &Schema, sink: &mut dyn Sink, said: &mut Said) -> io::Result<()> {
    match &part.inside {
        Inside::Bytes
        | Inside::Gzip
        | Inside::Hparams
        | Inside::MlflowExperiment
        | Inside::WandbCloud
        | Inside::Yaml => {}
        Inside::Stored(run) => {
            let mut counts = Counts::default();
            let read = database::feed(part.file(), run, sink, &mut counts);
            said.losses.add(&counts);
            said.notes.extend(read?);
            return Ok(());
        }
        Inside::ClearmlTask => {
            return clearml_task(&whole(part)?, sink)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no task of ClearML's"));
        }
        Inside::MlflowParam(name) => return whole(part).map(|bytes| mlflow_param(name, &bytes, sink)),
        Inside::MlflowTag(name) => return whole(part).map(|bytes| mlflow_tag(name, &bytes, sink)),
        // Its parts are read together.
        Inside::Aim(_) => return Err(io::ErrorKind::InvalidInput.into()),
    }
    let mut reader = reader(part, keys)?;
    let (bytes, holes): (Box<dyn io::Read>, Option<File>) = match part.inside {
        Inside::Gzip => (packed::gunzip(part.file())?, None),
        _ => {
            let file = find::open(part.file())?;
            let same = file.try_clone().ok();
            (Box::new(file), same)
        }
    };
    let mut file = bytes.take(MAX_FILE_BYTES);
    let (passed, read) = through(&mut file, holes, |bytes| reader.feed(bytes, sink));
    if passed > 0 {
        let name = words::quoted(&part.path.file_name().unwrap_or_default().to_string_lossy());
        said.notes.push(format!("{name}: a hole of {passed} bytes, to which nothing was ever written"));
    }
    // What was read before a failure counts all the same.
    reader.finish(sink);
    said.losses.add(reader.counts());
    if read.is_ok() && file.limit() == 0 {
        said.notes.push(format!("only the first {} GiB were read", MAX_FILE_BYTES >> 30));
    }
    read
}

/// What reads the bytes of a part.
pub(super) fn reader(part: &Part, keys: &Schema) -> io::Result<Box<dyn Reader + Send>> {
    let path = part.path.to_string_lossy().replace('\\', "/");
    Ok(match (part.format, &part.inside) {
        (_, Inside::WandbCloud) => Box::new(WandbCloud::new().counting(keys.step.as_deref())),
        (_, Inside::Hparams) => Box::new(Session::default()),
        (_, Inside::Yaml) => Box::new(Yaml::new()),
        (Format::Wandb, _) if part.resumed => Box::new(Wandb::resumed().counting(keys.step.as_deref())),
        (_, Inside::MlflowExperiment) => Box::new(MlflowMeta::of_experiment()),
        (format, _) => {
            format.reader(packed::inner_name(&path), keys.clone()).ok_or(io::ErrorKind::InvalidInput)?
        }
    })
}

/// Reads all there is, and passes over holes by whole pieces: formats that count in
/// blocks stay in step. Gives how many bytes were passed over. `same` is the file
/// that is read, if it is one.
pub(super) fn through(
    file: &mut impl io::Read,
    same: Option<File>,
    mut take: impl FnMut(&[u8]),
) -> (u64, io::Result<()>) {
    let (mut piece, empty) = (vec![0; PIECE], vec![0; PIECE]);
    let (mut zeros, mut passed, mut same) = (0, 0, same);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return (passed, Ok(())),
            Ok(length) => {
                take(&piece[..length]);
                zeros = if piece[..length] == empty[..length] { zeros + length as u64 } else { 0 };
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (passed, Err(error)),
        }
        let Some(handle) = same.as_mut().filter(|_| zeros >= HOLE && zeros % PIECE as u64 == 0) else {
            continue;
        };
        let Ok(at) = handle.stream_position() else { return (passed, Ok(())) };
        let to = match holes::next(handle, at) {
            Next::At(data) => data - data.saturating_sub(at) % PIECE as u64,
            Next::End => handle.metadata().map_or(at, |meta| meta.len()),
            Next::Unknown => at,
        };
        let to = to.max(at);
        passed += to - at;
        if handle.seek(SeekFrom::Start(to)).is_err() || to == at {
            same = None;
        }
    }
}

/// All bytes of a small file.
fn whole(part: &Part) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    find::open(part.file())?.take(MAX_WHOLE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What settings depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) planned: Option<u64>,
    pub(super) goals: BTreeMap<String, Goal>,
    /// How many metrics have a name.
    pub(super) logged: usize,
}

/// The sink between readers and the judge.
pub(super) struct Taken {
    judge: Judge,
    names: Names,
    /// The same in their order, as the log has them.
    logged: Vec<String>,
    ids: Vec<MetricId>,
    renamed: BTreeMap<String, String>,
    facts: BTreeMap<&'static str, String>,
    summary: Summary,
    goals: BTreeMap<String, Goal>,
    planned: Option<u64>,
    exit_code: Option<i32>,
    alerts: u64,
    resumed: u64,
    values: u64,
    steps: Option<(u64, u64)>,
    order: Order,
    newest: Option<f64>,
    /// It says when it ended.
    over: bool,
    /// How often it had been resumed when it told its exit code.
    exit_in: u64,
    /// So many values were all that there was when the run began anew at a step.
    void: (u64, Option<u64>),
}

impl Taken {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            judge: Judge::new(settings),
            names: Names::default(),
            logged: Vec::new(),
            ids: Vec::new(),
            renamed: BTreeMap::new(),
            facts: BTreeMap::new(),
            summary: Summary::default(),
            goals: BTreeMap::new(),
            planned: None,
            exit_code: None,
            alerts: 0,
            resumed: 0,
            values: 0,
            steps: None,
            order: Order::default(),
            newest: None,
            over: false,
            exit_in: 0,
            void: (0, None),
        }
    }

    /// With which settings it had better be read again by what is known now, and
    /// what there is to say of them; `None`: with the default ones.
    pub(super) fn better(&self, metrics: Option<&Metrics>) -> Option<(Settings, Vec<String>)> {
        if self.planned.is_none() && self.goals.is_empty() && metrics.is_none() {
            return None;
        }
        let (mut schema, notes) =
            metrics.map(|metrics| schema::of(metrics, &self.logged)).unwrap_or_default();
        for (name, goal) in &self.goals {
            let direction = if *goal == Goal::Minimise { Direction::Lower } else { Direction::Higher };
            // What a person says counts before what a program does.
            schema.metrics.entry(words::metric(name)).or_default().direction.get_or_insert(direction);
        }
        Some((Settings { planned_steps: self.planned, schema, ..Settings::default() }, notes))
    }

    /// What settings depend on.
    pub(super) fn plan(&self) -> Plan {
        Plan { planned: self.planned, goals: self.goals.clone(), logged: self.logged.len() }
    }

    /// What is known of the run is told anew: it may go on after all.
    pub(super) fn forget_end(&mut self) {
        (self.exit_code, self.over) = (None, false);
        self.facts.remove("status");
    }

    /// Whether it has a value.
    pub(super) fn is_empty(&self) -> bool {
        self.values == 0
    }

    /// All that is known of the run by now.
    pub(super) fn run(&mut self, source: &Source, losses: Losses, notes: Vec<String>) -> Run {
        let mut notes = notes;
        if source.format == Format::Console {
            // It is this program's, of what was printed of the plan.
            self.summary.clear();
        }
        // How a part ended that another goes on from is not how the run did; other
        // formats say what is known of the run before their parts.
        let exit = self.exit_code.filter(|_| source.format != Format::Wandb || self.exit_in == self.resumed);
        let known = beside(source);
        let ending = ending::of(source, exit, self.facts.get("status").map(String::as_str), known.why);
        self.judge.costs(known.usd_per_hour);
        // One that goes on after all has not ended.
        self.judge.end(ending.as_ref().map(Ending::end).or(self.over.then(End::default)));
        // Other formats have parts that go on from each other, or say so themselves.
        if matches!(source.format, Format::JsonLines | Format::Delimited) {
            notes.extend(self.order.told());
        }
        notes.extend(self.order.replaced().filter(|_| source.format == Format::Wandb));
        notes.extend(why::of_table(source, &self.logged));
        // The controller starts its own anew where nothing was saved, and says so.
        if let (void, Some(from)) = self.void
            && source.format != Format::Outlast
        {
            notes.push(format!(
                "a later part begins at step {from} again, so that the {void} values before it count no more; \
                 parts that go on from each other need steps that do"
            ));
        }
        let mut report = self.judge.report();
        notes.extend(report.notes.iter().cloned());
        words::restore(&mut report, &self.renamed);
        Run {
            source: source.clone(),
            facts: self.facts.clone(),
            exit_code: exit,
            alerts: self.alerts,
            resumed: self.resumed,
            values: self.values,
            steps: self.steps,
            planned: self.planned,
            losses,
            notes,
            report,
            summary: self.summary.clone(),
            logged: self.logged.clone(),
            ending,
            newest: self.newest,
        }
    }

    fn take_plan(&mut self, path: &[&str], value: &Value) {
        let [key] = path else { return };
        let steps = curves::settings::planned(&[((*key).to_owned(), value.clone())]);
        self.planned = steps.or(self.planned);
    }
}

/// What the controller knows of a run of its own.
fn beside(source: &Source) -> live::Known {
    let first = source.parts.first().filter(|_| source.format == Format::Outlast);
    let dir = first.and_then(|part| part.path.parent()).filter(|dir| live::is_copy(dir));
    dir.map(live::Known::read).unwrap_or_default()
}

impl Sink for Taken {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        let metric = self.names.intern(name)?;
        if metric.index() >= self.ids.len() {
            let shown = words::metric(name);
            self.ids.push(self.judge.metric(&shown));
            self.logged.push(name.to_owned());
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
        // Smaller times are counted from the beginning of the run.
        if let Some(time) = row.time.filter(|time| *time > YEAR) {
            self.newest = Some(self.newest.map_or(time, |newest| newest.max(time)));
        }
        for &(metric, value) in row.values {
            if let Some(id) = self.ids.get(metric.index()) {
                self.judge.point(*id, row.step, row.time, value);
                self.values += 1;
                row.step.iter().for_each(|step| self.order.point(metric.index(), *step));
            }
        }
    }

    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Config { path, value } => self.take_plan(path, &value),
            Record::Summary { path, value } => {
                self.take_plan(path, &value);
                self.summary.take(path, &value);
            }
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
                    Fact::Parent => "parent",
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
            Record::Exit { code } => (self.exit_code, self.exit_in) = (Some(code), self.resumed),
            Record::Ended(_) => self.over = true,
            Record::System { key, time: Some(time), value } => {
                self.judge.machine(&words::metric(key), time, value);
            }
            Record::Segment { from } => {
                self.resumed += 1;
                let whole = from.zip(self.steps).filter(|(from, (low, _))| from <= low);
                if let Some((from, _)) = whole.filter(|_| self.values > self.void.0) {
                    self.void = (self.values, Some(from));
                }
                self.judge.segment_from(from);
                self.order.anew();
            }
            _ => {}
        }
    }
}
