//! Console output into points: bytes into lines, lines into metrics, and the
//! little that must be remembered between lines.
//!
//! A wrong point is worse than a missed one: a line that is not plainly
//! metrics gives nothing. Memory is bounded by [`MAX_LINE_BYTES`] and
//! [`Limits`], whatever the program prints.

mod bar;
mod clean;
mod json;
mod keyvalue;
mod line;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Point;
use crate::number;
pub use line::{LineMetrics, MAX_NAME_BYTES, MAX_VALUES_PER_LINE};

/// A longer line is skipped to its end.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// What a reader will not go beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How many different names one stream may bring forth.
    pub max_names: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_names: 1000 }
    }
}

/// Finds the metrics in one line of text, without its line end. `None` when
/// it holds neither values nor a step, epoch or progress mark.
#[must_use]
pub fn parse_line(line: &str) -> Option<LineMetrics> {
    parse(line).map(|read| read.metrics)
}

/// A line and where it is from.
struct Read {
    metrics: LineMetrics,
    /// The rank that the line says it is of.
    rank: Option<u32>,
    /// Whether it is a progress bar.
    bar: bool,
    /// The total of that bar.
    of: Option<u64>,
}

fn parse(line: &str) -> Option<Read> {
    let worth = line.len() <= MAX_LINE_BYTES && line.bytes().any(|b| b.is_ascii_digit() || b == b'{');
    if !worth {
        return None;
    }
    let stripped = clean::strip_escapes(line);
    let (text, rank) = clean::strip_prefixes(&stripped);
    let (mut bar, mut of) = (false, None);
    let metrics = match json::find(text) {
        json::Found::Object(before, mut metrics) => {
            if metrics.progress.is_none() {
                metrics.progress = bar::split(before).and_then(|bar| bar.progress());
                bar = metrics.progress.is_some();
            }
            metrics
        }
        json::Found::Broken => return None,
        json::Found::Nothing => match bar::split(text) {
            Some(found) => {
                (bar, of) = (true, found.total());
                found.metrics()
            }
            None => keyvalue::parse(text)?,
        },
    };
    (!metrics.is_empty()).then_some(Read { metrics, rank, bar, of })
}

/// Reads one stream of output. Can be stored at any byte and go on from there.
///
/// The step of a point is, in this order: the step in its own line; the newest
/// step that an earlier line named; if no line ever named a step, the epoch
/// when epochs are whole numbers, and the newest position of a progress bar
/// when they are fractions. Steps are passed on as printed: repeated and
/// falling ones (a resumed run) are not mended. Where steps with a total begin anew
/// when the epoch rises, `Epoch [2/3], Step [100/600]`, they count on from epoch to
/// epoch.
///
/// Where lines are marked with ranks, those of the rank that comes first keep the
/// names of their metrics; of another rank they are `rank3/loss`, since as many
/// curves in one would be none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineReader {
    limits: Limits,
    /// The unfinished line, at most [`MAX_LINE_BYTES`].
    #[serde(with = "bytes_as_text")]
    buffer: Vec<u8>,
    /// Inside a line that was given up as too long.
    skipping: bool,
    step: Option<u64>,
    /// A line named a step, and not what stands in for one.
    #[serde(default)]
    strong: bool,
    epoch: Option<f64>,
    fractional_epochs: bool,
    progress: Option<(u64, u64)>,
    /// The greatest total that a line gave together with its own step.
    #[serde(default)]
    planned: Option<u64>,
    /// The newest epoch and the step beside it, where lines have both and a total.
    #[serde(default)]
    place: Option<(u64, u64)>,
    /// The number of the first epoch, as soon as it is known that such steps begin
    /// anew in each.
    #[serde(default)]
    within: Option<u64>,
    /// The first epoch beside such a step was 0.
    #[serde(default)]
    from_zero: bool,
    /// The total of the newest bar that named an epoch, which is one epoch's.
    #[serde(default)]
    epochs_bar: Option<u64>,
    /// The first rank that a line with values was marked with.
    #[serde(default)]
    rank: Option<u32>,
    /// The bits of the newest value that a bar showed of each measure of an evaluation
    /// or a whole epoch, by the hash of its name.
    #[serde(default)]
    shown: BTreeMap<u64, u64>,
    /// Hashes of the names seen: small, and enough to count them.
    names: BTreeSet<u64>,
    dropped_names: u64,
    skipped_lines: u64,
}

impl LineReader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: Vec::new(),
            skipping: false,
            step: None,
            strong: false,
            epoch: None,
            fractional_epochs: false,
            progress: None,
            planned: None,
            place: None,
            within: None,
            from_zero: false,
            epochs_bar: None,
            rank: None,
            shown: BTreeMap::new(),
            names: BTreeSet::new(),
            dropped_names: 0,
            skipped_lines: 0,
        }
    }

    /// Takes the next bytes, cut anywhere, and appends the points of the lines
    /// that they finish. A line ends with a line feed, a carriage return or a
    /// backspace, as progress bars redraw themselves with the latter two.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Point>) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|b| matches!(b, b'\n' | b'\r' | 0x08)) {
            self.take(&rest[..at]);
            self.end_line(out);
            rest = &rest[at + 1..];
        }
        self.take(rest);
    }

    /// Reads a last line that has no line end. The reader can be fed again.
    pub fn finish(&mut self, out: &mut Vec<Point>) {
        self.end_line(out);
    }

    /// Position and planned total, of the greatest total that a progress bar or
    /// an `N/M` step showed: what a remaining time can be reckoned from.
    #[must_use]
    pub fn progress(&self) -> Option<(u64, u64)> {
        self.progress
    }

    /// How many steps the run is to have, where lines say so with their step:
    /// `step:10/5000`. The total of a bar is none, nor is that of a log that names
    /// epochs: it may be of one of them.
    #[must_use]
    pub fn planned(&self) -> Option<u64> {
        self.planned.filter(|_| self.epoch.is_none())
    }

    /// The newest step that a line named, or the newest whole epoch when none
    /// ever did.
    #[must_use]
    pub fn step(&self) -> Option<u64> {
        let epoch = self.epoch.filter(|_| !self.fractional_epochs).and_then(number::as_step);
        let bar = self.progress.filter(|_| self.fractional_epochs).map(|(done, _)| done);
        self.step.or(epoch).or(bar)
    }

    /// The newest epoch that a line named, perhaps a fraction.
    #[must_use]
    pub fn epoch(&self) -> Option<f64> {
        self.epoch
    }

    /// Values left out because their name was beyond a limit.
    #[must_use]
    pub fn dropped_names(&self) -> u64 {
        self.dropped_names
    }

    /// Lines left out because they were longer than [`MAX_LINE_BYTES`].
    #[must_use]
    pub fn skipped_lines(&self) -> u64 {
        self.skipped_lines
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.skipping {
            return;
        }
        if self.buffer.len() + bytes.len() > MAX_LINE_BYTES {
            self.skipping = true;
            self.skipped_lines = self.skipped_lines.saturating_add(1);
            self.buffer = Vec::new();
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, out: &mut Vec<Point>) {
        if std::mem::take(&mut self.skipping) || self.buffer.is_empty() {
            return;
        }
        let line = std::mem::take(&mut self.buffer);
        if let Some(read) = parse(&String::from_utf8_lossy(&line)) {
            self.absorb(read, out);
        }
        self.buffer = line;
        self.buffer.clear();
    }

    /// Makes a step that counts within its epoch one that counts on.
    fn count_on(&mut self, metrics: &mut LineMetrics) {
        let epoch = metrics.epoch.and_then(number::as_step);
        let Some(((epoch, step), total)) = epoch.zip(metrics.step).zip(metrics.step_total) else { return };
        match self.place {
            Some((before, done)) if epoch > before && step <= done && self.within.is_none() => {
                // Few count epochs from zero, and who does begins with it.
                self.within = Some(u64::from(!self.from_zero));
            }
            None => self.from_zero = epoch == 0,
            _ => {}
        }
        self.place = Some((epoch, step));
        if let Some(first) = self.within {
            let passed = epoch.saturating_sub(first).checked_mul(total);
            let on = passed.and_then(|passed| passed.checked_add(step)).filter(|step| *step <= 1 << 53);
            metrics.step = on.or(metrics.step);
            // The total is of one epoch.
            metrics.progress = None;
        }
    }

    fn absorb(&mut self, Read { mut metrics, rank, bar, of }: Read, out: &mut Vec<Point>) {
        if of.is_some() && metrics.epoch.is_some() {
            self.epochs_bar = of;
        } else if of.is_some() && self.epochs_bar.is_some_and(|inner| of < Some(inner)) {
            // A bar around those of the epochs counts these, not steps.
            metrics.step = None;
        }
        self.strong |= metrics.step.is_some() && !metrics.stand_in;
        if metrics.stand_in && self.strong {
            // Two units on one axis would be none.
            metrics.step = None;
        }
        if !bar {
            self.count_on(&mut metrics);
        }
        if !metrics.values.is_empty() {
            self.rank = self.rank.or(rank);
        }
        if let Some(other) = rank.filter(|rank| self.rank.is_some_and(|first| first != *rank)) {
            // Another process: where this one is, it does not say.
            let step = metrics.step.or(self.step());
            self.dropped_names = self.dropped_names.saturating_add(metrics.dropped);
            for (name, value) in metrics.values {
                self.point(format!("rank{other}/{name}"), step, value, out);
            }
            return;
        }
        if let Some((step, total)) = metrics.progress
            && metrics.step == Some(step)
            && !bar
        {
            self.planned = self.planned.max(Some(total));
        }
        self.step = metrics.step.or(self.step);
        if let Some(epoch) = metrics.epoch {
            self.fractional_epochs |= epoch.fract() != 0.0;
            self.epoch = Some(epoch);
        }
        // Shorter bars (validation, data loading) run beside the training's own.
        let longest = self.progress.map_or(0, |(_, total)| total);
        self.progress = metrics.progress.filter(|(_, total)| *total >= longest).or(self.progress);
        self.dropped_names = self.dropped_names.saturating_add(metrics.dropped);
        let step = self.step();
        for (name, value) in metrics.values {
            if !(bar && self.repeats(&name, value)) {
                self.point(name, step, value, out);
            }
        }
    }

    /// Whether a bar shows once more what was measured before it: it keeps the measures
    /// of the last evaluation, or epoch, on its line until the next.
    fn repeats(&mut self, name: &str, value: f64) -> bool {
        let last = name.rsplit('/').next().unwrap_or(name);
        let seldom = last.starts_with("val_") || name.starts_with("val/") || last.ends_with("_epoch");
        let (hash, bits) = (hash(name), value.to_bits());
        let room = self.shown.len() < self.limits.max_names as usize || self.shown.contains_key(&hash);
        seldom && room && self.shown.insert(hash, bits) == Some(bits)
    }

    /// Gives out a value, if there is room for its name.
    fn point(&mut self, name: String, step: Option<u64>, value: f64, out: &mut Vec<Point>) {
        let hash = hash(&name);
        if !self.names.contains(&hash) {
            if name.len() > MAX_NAME_BYTES || self.names.len() >= self.limits.max_names as usize {
                self.dropped_names = self.dropped_names.saturating_add(1);
                return;
            }
            self.names.insert(hash);
        }
        out.push(Point { name, step, value });
    }
}

/// FNV-1a: the same on every machine, since stored states move between them.
fn hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Bytes as the characters of the same number: compact for mostly ASCII text,
/// and exact for the rest.
mod bytes_as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&bytes.iter().map(|&b| char::from(b)).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        let bytes = bytes.map_err(|_| Error::custom("unfinished line holds a character above U+00FF"))?;
        if bytes.len() > super::MAX_LINE_BYTES {
            return Err(Error::custom("unfinished line is longer than a line may be"));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
