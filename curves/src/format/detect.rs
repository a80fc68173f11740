//! Which format a file is, from its name and its first bytes, and why.
//!
//! Content counts for more than the name: a name can be anything. All that may
//! be is listed, the likeliest first, so that a user can say it better.

use super::json::{self, Lexer};
use super::{
    ClearMl, Console, Delimited, JsonLines, MlflowMeta, MlflowMetric, Neptune, Outlast, PluginLines, Schema,
    TensorBoard, TrainerState, Wandb, tensorboard,
};
use crate::log::Reader;

/// So many of the first bytes are enough for [`detect`].
pub const HEAD_BYTES: usize = 64 * 1024;

/// A format of files with curves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Weights & Biases' own file of a run.
    Wandb,
    /// A TensorBoard event file.
    TensorBoard,
    /// The state of the Hugging Face Trainer.
    TrainerState,
    /// The file of one metric in MLflow's file store.
    MlflowMetric,
    /// The file about a run or an experiment in MLflow's file store.
    MlflowMeta,
    /// Metrics or output of a ClearML task that ran offline.
    ClearMl,
    /// Neptune's offline log.
    Neptune,
    /// Points as Outlast keeps them.
    Outlast,
    /// A run in Aim's repository: two databases of several files, read with
    /// [`Aim`](super::Aim).
    Aim,
    /// A run in trackio's database, read row by row.
    Trackio,
    /// What a plug-in printed.
    Plugin,
    /// One JSON object a line.
    JsonLines,
    /// A table of text.
    Delimited,
    /// Console output.
    Console,
    /// An SQLite database, such as MLflow's or trackio's: read row by row, not
    /// as bytes.
    Sqlite,
    /// A zip archive, such as ClearML's offline runs.
    Zip,
    /// A gzip stream: unpack it first.
    Gzip,
}

/// One thing that a file may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guess {
    /// The format.
    pub format: Format,
    /// What speaks for it, in a few words.
    pub reason: &'static str,
    /// How much, from 1 (it could be) to 5 (it cannot be anything else).
    pub strength: u8,
}

impl Format {
    /// A reader of the file at `path`; `None` for what is not read as bytes.
    #[must_use]
    pub fn reader(self, path: &str, schema: Schema) -> Option<Box<dyn Reader + Send>> {
        Some(match self {
            Self::Wandb => Box::new(Wandb::new().counting(schema.step.as_deref())),
            Self::TensorBoard => Box::new(TensorBoard::new()),
            Self::TrainerState => Box::new(TrainerState::new()),
            Self::MlflowMetric => Box::new(MlflowMetric::new(below(path, "metrics"))),
            Self::MlflowMeta => Box::new(MlflowMeta::of_run()),
            Self::ClearMl => Box::new(ClearMl::new()),
            Self::Neptune => Box::new(Neptune::new()),
            Self::Outlast => Box::new(Outlast::new()),
            Self::Plugin => Box::new(PluginLines::new()),
            Self::JsonLines => Box::new(JsonLines::new(schema)),
            Self::Delimited => match path.strip_suffix(".tsv") {
                // dvclive keeps a table for each metric, in folders of its name.
                Some(stem) if path.contains("plots/metrics/") => {
                    Box::new(Delimited::of_metric(below(stem, "plots/metrics"), schema))
                }
                _ => Box::new(Delimited::new(schema)),
            },
            Self::Console => Box::new(Console::new()),
            Self::Aim | Self::Trackio | Self::Sqlite | Self::Zip | Self::Gzip => return None,
        })
    }
}

/// The part of a path below a folder.
fn below<'a>(path: &'a str, folder: &str) -> &'a str {
    let inner = path.rfind(&format!("/{folder}/")).map(|at| &path[at + folder.len() + 2..]);
    let inner = inner.or_else(|| path.strip_prefix(folder)?.strip_prefix('/'));
    inner.unwrap_or_else(|| path.rsplit('/').next().unwrap_or(path))
}

/// What a file may be, the likeliest first; empty when its bytes are none of
/// the known formats and no text. `path` has forward slashes.
#[must_use]
pub fn detect(path: &str, head: &[u8]) -> Vec<Guess> {
    let mut found = Found(Vec::new());
    let name = path.rsplit('/').next().unwrap_or(path);
    by_mark(head, &mut found);
    by_name(path, name, &mut found);
    if found.0.iter().all(|guess| guess.strength < 5) {
        by_text(path, name, head, &mut found);
    }
    found.0.sort_by_key(|guess| std::cmp::Reverse(guess.strength));
    found.0
}

struct Found(Vec<Guess>);

impl Found {
    /// Notes a sign; of several for one format the strongest counts.
    fn add(&mut self, format: Format, strength: u8, reason: &'static str) {
        match self.0.iter_mut().find(|guess| guess.format == format) {
            Some(guess) if guess.strength < strength => *guess = Guess { format, reason, strength },
            Some(_) => {}
            None => self.0.push(Guess { format, reason, strength }),
        }
    }
}

fn by_mark(head: &[u8], found: &mut Found) {
    if head.starts_with(b":W&B\xe1\xbe") {
        found.add(Format::Wandb, 5, "begins with the mark of W&B's files");
    }
    if tensorboard::has_header(head) {
        found.add(Format::TensorBoard, 5, "begins with a record length and its checksum");
    }
    if head.starts_with(b"SQLite format 3\0") {
        found.add(Format::Sqlite, 5, "begins with the mark of SQLite");
    }
    if head.starts_with(b"PK\x03\x04") {
        found.add(Format::Zip, 5, "begins with the mark of zip archives");
    }
    if head.starts_with(&[0x1f, 0x8b]) {
        found.add(Format::Gzip, 5, "begins with the mark of gzip");
    }
}

fn by_name(path: &str, name: &str, found: &mut Found) {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.to_ascii_lowercase().ends_with(suffix));
    if ends(&[".wandb"]) {
        found.add(Format::Wandb, 2, "is named like W&B's file of a run");
    }
    if name.contains("tfevents") {
        found.add(Format::TensorBoard, 2, "is named like an event file");
    }
    if name == "trainer_state.json" {
        found.add(Format::TrainerState, 4, "is named like the state of the Trainer");
    }
    if name == "meta.yaml" && path.contains("mlruns") {
        found.add(Format::MlflowMeta, 4, "is named and placed like a file of MLflow");
    }
    if ends(&[".jsonl", ".ndjson"]) {
        found.add(Format::JsonLines, 3, "is named like JSON lines");
    }
    if ends(&[".csv", ".tsv"]) {
        found.add(Format::Delimited, 3, "is named like a table");
    }
    if ends(&[".log", ".out", ".err", ".txt"]) {
        found.add(Format::Console, 2, "is named like output");
    }
}

fn by_text(path: &str, name: &str, head: &[u8], found: &mut Found) {
    let head = &head[..head.len().min(HEAD_BYTES)];
    if head.contains(&0) || head.is_empty() {
        return;
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let mut lines = head.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or(&[]);
    found.add(Format::Console, 1, "is text");
    let has = |needle: &[u8]| memchr::memmem::find(head, needle).is_some();
    let clearml = has(b"\"type\": \"training_stats_scalar\"") || has(b"\"type\": \"log\"");
    if first.starts_with(b"[{\"timestamp\"") && clearml {
        found.add(Format::ClearMl, 4, "its first line is a list of ClearML's events");
    }
    if first.starts_with(b"{\"obj\"") && has(b"\"path\"") {
        found.add(Format::Neptune, 5, "its first line is an operation of Neptune's client");
    }
    if first.starts_with(b"{\"name\"") || first.starts_with(b"{\"t\":") {
        let keys: [&[u8]; 3] = [b"\"t\":", b"\"name\":", b"\"value\":"];
        if keys.iter().all(|key| memchr::memmem::find(first, key).is_some()) {
            found.add(Format::Outlast, 5, "its first line is a point of Outlast's");
        }
    }
    if Lexer::new(first).peek() == Some(b'{') {
        if json::parse(first).is_some() {
            found.add(Format::JsonLines, 4, "its first line is a JSON object");
        } else if has(b"\"log_history\"") || has(b"\"is_world_process_zero\"") {
            found.add(Format::TrainerState, 4, "has the keys of the Trainer's state");
        }
    }
    if path.contains("metrics/") && metric_line(first) {
        found.add(Format::MlflowMetric, 4, "lies under metrics/ and holds time, value and step");
    }
    if has(b"lifecycle_stage:") && (has(b"artifact_uri:") || has(b"artifact_location:")) {
        let strength = if name == "meta.yaml" { 5 } else { 3 };
        found.add(Format::MlflowMeta, strength, "has the keys of MLflow's meta.yaml");
    }
    let second = lines.next();
    let count = |line: &[u8], sign: u8| memchr::memchr_iter(sign, line).count();
    let table = [b',', b'\t', b';'].into_iter().any(|sign| {
        let cells = count(first, sign);
        let names = !first.contains(&b'{') && !first.contains(&b':') && !first.contains(&b'=');
        cells > 0 && names && second.is_none_or(|second| count(second, sign) == cells)
    });
    if table {
        found.add(Format::Delimited, 3, "its lines have equally many cells");
    }
    let text = String::from_utf8_lossy(&head[..head.len().min(16 * 1024)]);
    if text
        .split(['\n', '\r'])
        .take(200)
        .any(|line| crate::parse_line(line).is_some_and(|m| !m.values.is_empty()))
    {
        found.add(Format::Console, 2, "its lines print metrics");
    }
}

/// `1700000000000 0.5 3`.
fn metric_line(line: &[u8]) -> bool {
    let mut words = line.split(|b| *b == b' ');
    let time = words.next().is_some_and(|word| word.len() >= 12 && word.iter().all(u8::is_ascii_digit));
    let value = words.next().is_some_and(|word| {
        fast_float2::parse_partial::<f64, _>(word).is_ok_and(|(_, used)| used == word.len())
    });
    time && value
}
