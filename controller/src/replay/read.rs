//! Recordings as others wrote them. Three forms are told apart by their
//! content: JSON of spot-traces (`metadata.gap_seconds`, `data`, `prices`),
//! lines `milliseconds,add|remove,node` (Bamboo), and lines `seconds,count`.
//! Everywhere a number is how many machines are *available*: 1 is up. Files
//! are strangers': sizes are bounded, and every problem is said with its place.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Zone;

/// Ticks or lines of a recording at most.
pub const MOST: usize = 2_000_000;
/// Bytes of a file at most.
pub const MOST_BYTES: u64 = 64 << 20;
/// Seconds between two ticks.
const GAPS: std::ops::RangeInclusive<f64> = 1.0..=3_600.0;
/// Longest recording, in milliseconds: ten years.
const LONGEST_MS: u64 = 10 * 366 * 86_400_000;

/// What is wrong with a recording, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct TraceError {
    /// Where.
    pub at: String,
    /// What.
    pub what: String,
}

fn wrong(at: impl Into<String>, what: impl Into<String>) -> TraceError {
    TraceError { at: at.into(), what: what.into() }
}

/// A recording that could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The zone.
    pub zone: Zone,
    /// What looks wrong with it and may be right.
    pub doubts: Vec<String>,
}

#[derive(Deserialize)]
struct Json {
    metadata: Metadata,
    data: Vec<f64>,
    #[serde(default)]
    prices: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct Metadata {
    gap_seconds: f64,
}

/// Reads a recording of a zone called `name`. It is up where at least `nodes`
/// machines are available.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn read(name: &str, text: &str, nodes: u32) -> Result<Recording, TraceError> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Err(wrong("the file", "it is empty"));
    }
    let zone = if text.trim_start().starts_with(['{', '[']) {
        ticks(name, text, nodes)?
    } else {
        lines(name, text, nodes)?
    };
    let doubts = doubts(&zone, nodes);
    Ok(Recording { zone, doubts })
}

fn ticks(name: &str, text: &str, nodes: u32) -> Result<Zone, TraceError> {
    let json: Json = serde_json::from_str(text)
        .map_err(|error| wrong(format!("line {} column {}", error.line(), error.column()), brief(&error)))?;
    let gap = json.metadata.gap_seconds;
    if !GAPS.contains(&gap) {
        let what = format!("{gap} is no time between two ticks: 1 to 3600 seconds");
        return Err(wrong("metadata.gap_seconds", what));
    }
    if json.data.is_empty() || json.data.len() > MOST {
        return Err(wrong("data", format!("it has {} ticks; 1 to {MOST} are read", json.data.len())));
    }
    let mut up = Vec::with_capacity(json.data.len());
    for (tick, count) in json.data.iter().enumerate() {
        if *count < 0.0 || count.fract() != 0.0 || *count > 1e6 {
            return Err(wrong(format!("data[{tick}]"), format!("{count} is no number of machines")));
        }
        up.push(*count >= f64::from(nodes));
    }
    let prices = json.prices.unwrap_or_default();
    if !prices.is_empty() && prices.len() != up.len() {
        let what = format!("{} prices for {} ticks", prices.len(), up.len());
        return Err(wrong("prices", what));
    }
    if let Some(tick) = prices.iter().position(|usd| !usd.is_finite() || !(0.0..=1e4).contains(usd)) {
        return Err(wrong(format!("prices[{tick}]"), format!("{} is no price of an hour", prices[tick])));
    }
    Ok(Zone::from_ticks(name, (gap * 1_000.0) as u64, &up, &prices))
}

/// What a parser says, without the place that it adds.
fn brief(error: &serde_json::Error) -> String {
    let said = error.to_string();
    said.rsplit_once(" at line ").map_or(said.clone(), |(what, _)| what.to_owned())
}

fn lines(name: &str, text: &str, nodes: u32) -> Result<Zone, TraceError> {
    let mut there: BTreeSet<&str> = BTreeSet::new();
    let (mut changes, mut last, mut first) = (Vec::new(), 0_u64, None);
    for (number, line) in text.lines().enumerate() {
        let at = || format!("line {}", number + 1);
        if number >= MOST {
            return Err(wrong(at(), format!("more than {MOST} lines")));
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parts: Vec<&str> = line.split(',').map(str::trim).collect();
        let (moment, count) = match parts.as_slice() {
            [ms, verb @ ("add" | "remove"), node] if !node.is_empty() => {
                if *verb == "add" {
                    there.insert(node)
                } else {
                    there.remove(node)
                };
                (number_of(ms).map(|ms| ms as u64), there.len() as f64)
            }
            [seconds, count] => {
                let count = number_of(count).filter(|count| count.fract() == 0.0 && *count <= 1e6);
                let count = count.ok_or_else(|| wrong(at(), "its second part is no number of machines"))?;
                (number_of(seconds).map(|seconds| (seconds * 1_000.0) as u64), count)
            }
            _ => {
                let what = "neither JSON nor `milliseconds,add|remove,node` nor `seconds,count`";
                return Err(wrong(at(), what));
            }
        };
        let moment = moment.filter(|ms| *ms <= LONGEST_MS);
        let moment = moment.ok_or_else(|| wrong(at(), "it begins with no moment"))?;
        if moment < last {
            return Err(wrong(at(), "its moment lies before that of the line above"));
        }
        let begins = *first.get_or_insert(moment);
        last = moment;
        changes.push((moment - begins, count >= f64::from(nodes)));
    }
    let length = last - first.unwrap_or(0);
    if length == 0 {
        return Err(wrong("the file", "no time passes in it"));
    }
    Ok(Zone::from_changes(name, changes, length))
}

fn number_of(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
}

/// What may be a file of the opposite polarity, or the wrong number of machines.
fn doubts(zone: &Zone, nodes: u32) -> Vec<String> {
    let mut doubts = Vec::new();
    let share = zone.up_share();
    let one_span = zone.up().len() == 1 && zone.up()[0].1 == zone.end_ms();
    if one_span && zone.up()[0].0 > 0 && share > 0.95 {
        doubts.push(
            "it is down once at its beginning and then always up: is 1 `available` in it, or `taken back`?"
                .into(),
        );
    }
    if zone.up().is_empty() {
        doubts.push(format!("it never has {nodes} available"));
    } else if share < 0.02 {
        let percent = share * 100.0;
        doubts.push(format!("it is up for {percent:.1} % of its time: is 1 `available` in it?"));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zone(text: &str, nodes: u32) -> Zone {
        read("z", text, nodes).unwrap().zone
    }

    #[test]
    fn one_is_available_in_every_form() {
        let json = r#"{"metadata": {"gap_seconds": 60}, "data": [0, 1, 1, 0, 4]}"#;
        assert_eq!(zone(json, 1).up(), [(60_000, 180_000), (240_000, 300_000)]);
        assert_eq!(zone(json, 4).up(), [(240_000, 300_000)], "counts are held against the nodes wanted");
        let events = "0,add,n1\r\n5000,add,n2\r\n9000,remove,n1\r\n20000,remove,n2\r\n30000,add,n3\r\n";
        assert_eq!(zone(events, 1).up(), [(0, 20_000)]);
        assert_eq!(zone(events, 2).up(), [(5_000, 9_000)]);
        let corners = "0,0\n10,0\n10,3\n20,3\n20,1\n60,1\n";
        assert_eq!(zone(corners, 2).up(), [(10_000, 20_000)]);
        assert_eq!(zone(corners, 1).up(), [(10_000, 60_000)]);
    }

    #[test]
    fn each_problem_is_said_with_its_place() {
        for (text, said) in [
            ("", "the file: it is empty"),
            ("{", "line 1 column 1: EOF while parsing an object"),
            (r#"{"metadata": {"gap_seconds": 60}}"#, "line 1 column 33: missing field `data`"),
            (
                r#"{"metadata": {"gap_seconds": 0}, "data": [1]}"#,
                "metadata.gap_seconds: 0 is no time between two ticks: 1 to 3600 seconds",
            ),
            (
                r#"{"metadata": {"gap_seconds": 60}, "data": []}"#,
                "data: it has 0 ticks; 1 to 2000000 are read",
            ),
            (r#"{"metadata": {"gap_seconds": 60}, "data": [1, -1]}"#, "data[1]: -1 is no number of machines"),
            (r#"{"metadata": {"gap_seconds": 60}, "data": [0.5]}"#, "data[0]: 0.5 is no number of machines"),
            (
                r#"{"metadata": {"gap_seconds": 60}, "data": [1], "prices": [1, 2]}"#,
                "prices: 2 prices for 1 ticks",
            ),
            (
                r#"{"metadata": {"gap_seconds": 60}, "data": [1], "prices": [-2]}"#,
                "prices[0]: -2 is no price of an hour",
            ),
            (
                "0,add,n1\n<html>",
                "line 2: neither JSON nor `milliseconds,add|remove,node` nor `seconds,count`",
            ),
            ("0,1\n9,many", "line 2: its second part is no number of machines"),
            ("x,1", "line 1: it begins with no moment"),
            ("10,1\n5,0", "line 2: its moment lies before that of the line above"),
            ("10,1", "the file: no time passes in it"),
        ] {
            assert_eq!(read("z", text, 1).unwrap_err().to_string(), said, "{text}");
        }
    }

    #[test]
    fn what_looks_like_the_opposite_polarity_is_doubted() {
        let made = |data: String| {
            read("z", &format!(r#"{{"metadata": {{"gap_seconds": 60}}, "data": [{data}]}}"#), 1).unwrap()
        };
        let ones = vec!["1"; 99].join(",");
        let zeros = vec!["0"; 99].join(",");
        assert!(made(format!("0,{ones}")).doubts[0].contains("then always up"));
        assert!(made(format!("{zeros},1")).doubts[0].contains("1.0 %"));
        assert!(made("0,0".into()).doubts[0].contains("never has 1"));
        assert!(made("1,1,0,1".into()).doubts.is_empty());
    }

    proptest! {
        /// Whatever bytes come: a recording or an error, and no time that
        /// does not rise.
        #[test]
        fn no_text_does_harm(text in "[0-9a-z{}\\[\\]\",.:\n -]{0,200}") {
            if let Ok(made) = read("z", &text, 1) {
                let mut last = 0;
                for (from, to) in made.zone.up() {
                    prop_assert!(last <= *from && from < to && *to <= made.zone.end_ms());
                    last = *to;
                }
            }
        }
    }
}
