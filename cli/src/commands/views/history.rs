//! `outlast history`: values by step. Fewer of them than there are keep the
//! first, the last and every extreme; what is not finite is always among them.

use std::collections::BTreeSet;

use curves::downsample::{Place, min_max};
use curves::judge::short;
use curves::view::{Axis, Course};
use serde_json::{Value, json};

use super::load::{self, Run};
use super::{Answer, numbers};
use crate::args::HistoryArgs;
use crate::commands::analyze::{tokens, words};
use crate::exit_code::{ExitCode, Failure};

/// Values of each metric in CSV and JSON where nobody says how many.
const SAMPLES: usize = 200;
/// Metrics that are shown side by side.
const MOST: usize = 20;
/// Columns of a table.
const COLUMNS: usize = 1_000;

struct Shown<'a> {
    name: &'a str,
    course: Course,
    /// The part that was asked for.
    points: Vec<Place>,
}

/// See the module.
///
/// # Errors
/// There is no such run or metric, or several, or it has no values there.
pub(crate) fn answer(args: &HistoryArgs) -> anyhow::Result<Answer> {
    let run = load::one(&args.path, args.run.as_deref(), args.shown.format.as_ref())?;
    let whole = args.csv || args.shown.json;
    let names = if whole { meant(&run, &args.metrics)? } else { wanted(&run, &args.metrics)? };
    if args.csv && names.len() > COLUMNS {
        let message = format!("{} metrics are meant; a table has at most {COLUMNS}", names.len());
        return Err(Failure::new(ExitCode::BadInput, message).help("name fewer with --metric").into());
    }
    let shown: Vec<Shown<'_>> = names
        .iter()
        .filter_map(|name| {
            let course = run.course(name)?;
            let points = course.between(args.from, args.to).to_vec();
            Some(Shown { name, course, points })
        })
        .collect();
    if shown.iter().all(|one| one.points.is_empty()) {
        let ranges: Vec<String> = shown.iter().filter_map(range).collect();
        let message = format!("{}: no values in that range; {}", run.shown(), ranges.join(", "));
        return Err(Failure::new(ExitCode::BadInput, message)
            .help("give other steps with --from and --to")
            .into());
    }
    let samples = args.samples.map_or(SAMPLES, |samples| samples as usize);
    let text = match (args.csv, shown.len() > MOST) {
        (true, _) => csv(&shown, samples, numbers::full, words::legible),
        // Nobody sees it beside the JSON.
        (false, true) => String::new(),
        (false, false) => text(&run, &shown, args),
    };
    Ok(Answer { text, json: object(&run, &shown, samples) })
}

fn range(one: &Shown<'_>) -> Option<String> {
    let (first, last) = (one.course.points.first()?, one.course.points.last()?);
    Some(format!("{} has {} {} to {}", words::metric(one.name), one.course.axis.name(), first.0, last.0))
}

/// The metrics that are meant; without any, the one that the run is judged by.
fn meant(run: &Run, asked: &[String]) -> Result<Vec<String>, Failure> {
    if !asked.is_empty() {
        return run.metrics(asked);
    }
    let judged = run.gathered.judge();
    let first = run.columns().next().map(|(name, _)| name.to_owned());
    Ok(judged.primary.filter(|name| run.course(name).is_some()).or(first).into_iter().collect())
}

/// The same, where they are shown side by side.
pub(super) fn wanted(run: &Run, asked: &[String]) -> Result<Vec<String>, Failure> {
    let names = meant(run, asked)?;
    if names.len() > MOST {
        let message = format!("{} metrics are meant; at most {MOST} can be shown side by side", names.len());
        return Err(Failure::new(ExitCode::BadInput, message).help("name fewer with --metric"));
    }
    Ok(names)
}

/// All places that any of them was sampled at.
fn places(shown: &[Shown<'_>], samples: usize) -> BTreeSet<u64> {
    shown.iter().flat_map(|one| min_max(&one.points, samples)).map(|(place, _)| place).collect()
}

fn csv(shown: &[Shown<'_>], samples: usize, number: fn(f64) -> String, named: fn(&str) -> String) -> String {
    let axis = if shown.iter().all(|one| one.course.axis == Axis::Step) { "step" } else { "row" };
    let head = shown.iter().map(|one| numbers::cell(&named(one.name)));
    let mut text = format!("{}\n", [axis.to_owned()].into_iter().chain(head).collect::<Vec<_>>().join(","));
    for place in places(shown, samples) {
        text.push_str(&place.to_string());
        for one in shown {
            let found = one.points.binary_search_by_key(&place, |point| point.0).ok();
            let cell = found.and_then(|index| one.points.get(index));
            text.push(',');
            text.push_str(&cell.map(|point| number(point.1)).unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

/// As many samples as fit.
fn text(run: &Run, shown: &[Shown<'_>], args: &HistoryArgs) -> String {
    let most = args.shown.tokens as usize;
    let longest = shown.iter().map(|one| one.points.len()).max().unwrap_or(0);
    let ask = args.samples.map_or(longest, |samples| samples as usize).min(longest).max(4);
    let make = |samples: usize| {
        format!("{}{}", head(run, shown, samples, ask), csv(shown, samples, short, words::metric))
    };
    let fits = |samples: usize| tokens::bound(&make(samples)) <= most;
    if fits(ask) {
        return make(ask);
    }
    let (mut low, mut high) = (4, ask);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle) { low = middle } else { high = middle }
    }
    if fits(low) {
        return make(low);
    }
    let need = tokens::bound(&make(4)).div_ceil(100) * 100;
    let count = numbers::count(shown.len(), "metric", "metrics");
    format!("cut: {count} with 4 values each need --tokens {need}; --metric NAME shows fewer, --csv all\n")
}

fn head(run: &Run, shown: &[Shown<'_>], samples: usize, ask: usize) -> String {
    let mut lines = format!("{}\n", run.shown());
    for one in shown {
        let kept = min_max(&one.points, samples).len();
        let all = one.points.len();
        let nan = one.points.iter().filter(|p| p.1.is_nan()).count();
        let inf = one.points.iter().filter(|p| p.1.is_infinite()).count();
        let mut line =
            format!("  {}: {kept} of {}", words::metric(one.name), numbers::count(all, "value", "values"));
        if kept < all {
            line.push_str(", with the first, last and extremes");
        }
        if nan + inf > 0 {
            line.push_str(&format!("; {nan} NaN, {inf} inf in all"));
        }
        if one.course.replaced > 0 {
            line.push_str(&format!("; {} of steps logged again left out", one.course.replaced));
        }
        if one.course.axis == Axis::Row {
            line.push_str("; it has no steps: rows are counted");
        }
        lines.push_str(&format!("{}\n", words::ascii(&line)));
    }
    for note in run.notes.iter().take(3) {
        lines.push_str(&format!("  not read: {}\n", words::ascii(note)));
    }
    if samples < ask {
        lines.push_str("  more with --tokens N, a range with --from and --to, all with --csv --samples N\n");
    }
    lines
}

fn object(run: &Run, shown: &[Shown<'_>], samples: usize) -> Value {
    let metrics: Vec<Value> = shown
        .iter()
        .map(|one| {
            let kept = min_max(&one.points, samples);
            json!({
                "name": one.name,
                "axis": one.course.axis.name(),
                "values": one.points.len(),
                "shown": kept.len(),
                "replaced": one.course.replaced,
                "nan": one.points.iter().filter(|p| p.1.is_nan()).count(),
                "inf": one.points.iter().filter(|p| p.1.is_infinite()).count(),
                "points": kept.iter().map(|p| json!([p.0, numbers::json(p.1)])).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "path": run.gathered.path().to_string_lossy(), "metrics": metrics, "notes": run.notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_json_hold_more_metrics_than_can_be_shown_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let row = |step: u64| {
            let values: Vec<String> = (0..30).map(|n| format!("\"m{n}\":{}", step * 100 + n)).collect();
            format!("{{\"step\":{step},{}}}\n", values.join(","))
        };
        std::fs::write(&path, row(1) + &row(2)).unwrap();
        let mut args = HistoryArgs { path, metrics: vec!["*".to_owned()], ..HistoryArgs::default() };
        assert!(answer(&args).unwrap_err().to_string().contains("at most 20"));
        args.csv = true;
        let text = answer(&args).unwrap().text;
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!((rows.len(), rows[0].len(), rows[2][0], rows[2][30]), (3, 31, "2", "229"));
        (args.csv, args.shown.json) = (false, true);
        assert_eq!(answer(&args).unwrap().json["metrics"].as_array().unwrap().len(), 30);
    }
}
