//! `--simulate-market FILE`: a market that is played on this computer. The file
//! is TOML written by hand, or a recording of availability as `outlast simulate`
//! reads it. Everything that is wrong is told at once.
//!
//! ```toml
//! boot = "5s"             # a machine boots so much longer
//! usd_per_hour = 0.40     # until the first change that says otherwise
//! speed = 60              # a recording's minute passes in a second; 1 if left out
//! notice = "20s"          # so long before its end a machine is told; never if left out
//! trace = "zone.json"     # instead of [[change]], or with it
//!
//! [[change]]
//! at = "60s"              # after the submission
//! capacity = false        # no machine is to be had from here on, and those that live end
//!                         # (with ends = false they go on)
//!
//! [[change]]
//! at = "2m"
//! capacity = true
//! usd_per_hour = 0.55     # of machines that are made from here on
//!
//! [[change]]
//! at = "3m"
//! ends = true             # those that live end, and others are to be had at once
//! ```

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use controller::replay::read::MOST_BYTES;
use lifecycle::spec::{MarketStep, PlayedMarket};
use toml::{Table, Value};

use crate::config::duration;
use crate::exit_code::{ExitCode, Failure};

const FORMS: &str = "see `outlast help run` and the guide, \"A market without an account\"";
/// What the keys of a file are.
const KEYS: [&str; 6] = ["boot", "usd_per_hour", "speed", "notice", "trace", "change"];
const CHANGE_KEYS: [&str; 5] = ["at", "capacity", "usd_per_hour", "ends", "notice"];

fn wrong(file: &Path, problems: &[String]) -> Failure {
    let told = problems.join("\n  ");
    Failure::new(ExitCode::BadInput, format!("{} is no market:\n  {told}", file.display())).help(FORMS)
}

/// Reads a market that begins now.
///
/// # Errors
/// All that is wrong with the file.
pub fn read(file: &Path, begins_ms: u64) -> Result<PlayedMarket, Failure> {
    let text = text(file)?;
    if is_recording(&text) {
        let steps = recorded(file, &text, 1.0, None, 0.0).map_err(|why| wrong(file, &[why]))?;
        let market = PlayedMarket { begins_ms, boot_ms: 0, hour_ms: 0, steps };
        market.check().map_err(|why| wrong(file, &[why]))?;
        return Ok(market);
    }
    let table: Table = toml::from_str(&text).map_err(|error| wrong(file, &[error.to_string()]))?;
    let mut problems = Vec::new();
    unknown(&table, &KEYS, "", &mut problems);
    let boot_ms = time(&table, "boot", "", &mut problems).unwrap_or(0);
    let notice_ms = time(&table, "notice", "", &mut problems);
    let usd = number(&table, "usd_per_hour", "", &mut problems).unwrap_or(0.0);
    let speed = number(&table, "speed", "", &mut problems).unwrap_or(1.0);
    if speed <= 0.0 {
        problems.push("`speed` must be more than 0".to_owned());
    }
    let mut changes = vec![Change { at_ms: 0, capacity: None, usd: Some(usd), ends: None, notice_ms: None }];
    match table.get("trace") {
        None => {}
        Some(Value::String(name)) if speed > 0.0 => {
            let place = file.parent().unwrap_or(Path::new(".")).join(name);
            let read = self::text(&place).map_err(|failure| failure.message);
            match read.and_then(|text| recorded(&place, &text, speed, notice_ms, usd)) {
                Ok(steps) => changes.extend(steps.into_iter().map(Change::from)),
                Err(why) => problems.push(format!("`trace`: {why}")),
            }
        }
        Some(Value::String(_)) => {}
        Some(_) => problems.push("`trace` must be the name of a file".to_owned()),
    }
    changes.extend(own(&table, &mut problems));
    if !problems.is_empty() {
        return Err(wrong(file, &problems));
    }
    changes.sort_by_key(|change| change.at_ms);
    let steps = steps(&changes, usd, notice_ms.unwrap_or(0));
    let hour_ms = if table.contains_key("trace") { hour_ms(speed) } else { 0 };
    let market = PlayedMarket { begins_ms, boot_ms, hour_ms, steps };
    market.check().map_err(|why| wrong(file, &[why]))?;
    Ok(market)
}

/// How long an hour of a recording takes; 0: an hour, or longer.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to an hour")]
fn hour_ms(speed: f64) -> u64 {
    if speed > 1.0 { (3_600_000.0 / speed).clamp(1.0, 3_600_000.0) as u64 } else { 0 }
}

/// A recording is JSON, or lines that begin with a number; no key of a market
/// does.
fn is_recording(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    text.starts_with(|c: char| c == '{' || c.is_ascii_digit())
        || (text.starts_with('[') && !text.starts_with("[["))
}

fn text(file: &Path) -> Result<String, Failure> {
    let bad =
        |why: String| Failure::new(ExitCode::BadInput, format!("{}: {why}", file.display())).help(FORMS);
    let opened = fs::File::open(file).map_err(|error| bad(error.to_string()))?;
    let mut bytes = Vec::new();
    opened.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(bad(format!("it has more than {MOST_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| bad("it is not text".to_owned()))
}

/// What one entry changes; what it does not name stays.
struct Change {
    at_ms: u64,
    capacity: Option<bool>,
    usd: Option<f64>,
    ends: Option<bool>,
    notice_ms: Option<u64>,
}

impl From<MarketStep> for Change {
    fn from(step: MarketStep) -> Self {
        let (capacity, usd) = (Some(step.capacity), Some(step.usd_per_hour));
        Self { at_ms: step.at_ms, capacity, usd, ends: Some(step.ends), notice_ms: Some(step.notice_ms) }
    }
}

fn steps(changes: &[Change], usd: f64, notice_ms: u64) -> Vec<MarketStep> {
    let (mut capacity, mut usd_per_hour) = (true, usd);
    let mut steps = Vec::with_capacity(changes.len());
    for change in changes {
        let before = capacity;
        capacity = change.capacity.unwrap_or(before);
        usd_per_hour = change.usd.unwrap_or(usd_per_hour);
        steps.push(MarketStep {
            at_ms: change.at_ms,
            capacity,
            usd_per_hour,
            // Who has no machine to give has taken those that it gave.
            ends: change.ends.unwrap_or(before && !capacity),
            notice_ms: change.notice_ms.unwrap_or(notice_ms),
        });
    }
    steps
}

/// The entries of `[[change]]`.
fn own(table: &Table, problems: &mut Vec<String>) -> Vec<Change> {
    let entries = match table.get("change") {
        None => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(_) => {
            problems.push("`change` must be an array of tables: [[change]]".to_owned());
            return Vec::new();
        }
    };
    let mut changes = Vec::new();
    for (n, entry) in (1..).zip(entries) {
        let of = format!("[[change]] {n}: ");
        let Value::Table(entry) = entry else {
            problems.push(format!("{of}must be a table"));
            continue;
        };
        unknown(entry, &CHANGE_KEYS, &of, problems);
        if !entry.contains_key("at") {
            problems.push(format!("{of}`at` is missing, for example: at = \"60s\""));
        }
        changes.push(Change {
            at_ms: time(entry, "at", &of, problems).unwrap_or(0),
            capacity: flag(entry, "capacity", &of, problems),
            usd: number(entry, "usd_per_hour", &of, problems),
            ends: flag(entry, "ends", &of, problems),
            notice_ms: time(entry, "notice", &of, problems),
        });
    }
    changes
}

fn unknown(table: &Table, known: &[&str], of: &str, problems: &mut Vec<String>) {
    for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
        problems.push(format!("{of}there is no key {key:?}; known: {}", known.join(", ")));
    }
}

fn time(table: &Table, key: &str, of: &str, problems: &mut Vec<String>) -> Option<u64> {
    let read = match table.get(key)? {
        Value::String(text) => duration(text),
        Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
        _ => None,
    };
    let ms = read.and_then(|time| u64::try_from(time.as_millis()).ok());
    if ms.is_none() {
        problems.push(format!("{of}`{key}` must be a time, for example: {key} = \"60s\""));
    }
    ms
}

fn number(table: &Table, key: &str, of: &str, problems: &mut Vec<String>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a price or a factor")]
    let read = match table.get(key)? {
        Value::Float(number) => Some(*number),
        Value::Integer(number) => Some(*number as f64),
        _ => None,
    };
    let good = read.filter(|number| (0.0..=1e6).contains(number));
    if good.is_none() {
        problems.push(format!("{of}`{key}` must be a number from 0 to a million"));
    }
    good
}

fn flag(table: &Table, key: &str, of: &str, problems: &mut Vec<String>) -> Option<bool> {
    match table.get(key)? {
        Value::Boolean(flag) => Some(*flag),
        _ => {
            problems.push(format!("{of}`{key}` must be true or false"));
            None
        }
    }
}

/// The changes of a recording, so many times as fast.
fn recorded(
    file: &Path,
    text: &str,
    speed: f64,
    notice_ms: Option<u64>,
    usd: f64,
) -> Result<Vec<MarketStep>, String> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let zone = controller::replay::read::read(&name, text, 1).map_err(|error| error.to_string())?.zone;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds of months, not negative"
    )]
    let at = |ms: u64| (ms as f64 / speed) as u64;
    let step = |ms: u64, capacity: bool| MarketStep {
        at_ms: at(ms),
        capacity,
        usd_per_hour: zone.usd_at(ms).unwrap_or(usd),
        ends: !capacity,
        notice_ms: notice_ms.unwrap_or(0),
    };
    let mut steps = Vec::new();
    if zone.up().first().is_none_or(|(from, _)| *from > 0) {
        steps.push(step(0, false));
    }
    for (from, to) in zone.up() {
        steps.push(step(*from, true));
        if *to < zone.end_ms() {
            steps.push(step(*to, false));
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests;
