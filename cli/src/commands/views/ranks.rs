//! `outlast ranks`: the logs that the ranks of one run left each, joined: spread
//! over ranks at the same step, and who lags or stands apart.

use std::collections::BTreeMap;
use std::path::Path;

use curves::judge::short;
use curves::view::Course;
use serde_json::{Value, json};

mod leaving;

use leaving::{Leaving, leaving};

use super::budget::Lines;
use super::load::{self, Run};
use super::stats::importance;
use super::{Answer, numbers};
use crate::args::RanksArgs;
use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// Words before the number of a rank in names of files and directories.
const WORDS: [&str; 6] = ["rank", "worker", "process", "proc", "node", "gpu"];
/// Steps at which ranks are compared.
const STEPS: usize = 500;

/// One metric over the ranks.
struct Joined {
    name: String,
    /// Rank and its course.
    courses: Vec<(u64, Course)>,
    /// Steps that all ranks have.
    shared: usize,
    /// Mean over shared steps of (largest - smallest), and the largest such.
    spread: f64,
    widest: Option<(u64, f64)>,
    /// The rank whose median distance from the mean of ranks is the largest.
    apart: Option<(u64, f64)>,
    /// Ranks that stand apart in a stretch of the run, the farthest first.
    leaving: Vec<(u64, Leaving)>,
}

/// See the module.
///
/// # Errors
/// A path without runs, or no two of them are ranks of the same run.
pub(crate) fn answer(args: &RanksArgs) -> anyhow::Result<Answer> {
    let mut runs: BTreeMap<String, Vec<(u64, Run)>> = BTreeMap::new();
    let mut alone = 0_usize;
    load::each(&args.paths, args.shown.format.as_ref(), |run| match rank(run.gathered.path()) {
        Some((stem, rank)) => runs.entry(stem).or_default().push((rank, run)),
        None => alone += 1,
    })?;
    runs.retain(|_, ranks| ranks.len() > 1);
    if runs.is_empty() {
        let message = "no two logs are of ranks of the same run";
        return Err(Failure::new(ExitCode::BadInput, message)
            .help("their paths differ in a number behind rank, worker, process, node or gpu, such as rank0/metrics.csv")
            .into());
    }
    let mut lines = Lines::new(", fewer with --metric NAME");
    let mut objects = Vec::new();
    for (stem, ranks) in &mut runs {
        ranks.sort_by_key(|(rank, _)| *rank);
        let numbers: Vec<String> = ranks.iter().map(|(rank, _)| rank.to_string()).collect();
        lines.push(
            0,
            &format!("{}: {} ranks: {}", words::path(Path::new(stem)), ranks.len(), numbers.join(", ")),
        );
        let joined = joined(ranks, &args.metrics)?;
        lagging(&joined, &mut lines);
        joined.iter().for_each(|one| lines.push(1 + importance(&one.name), &one.line()));
        objects.push(json!({
            "run": stem,
            "ranks": ranks.iter().map(|(rank, run)| json!({ "rank": rank, "path": run.gathered.path().to_string_lossy() })).collect::<Vec<_>>(),
            "metrics": joined.iter().map(Joined::object).collect::<Vec<_>>(),
        }));
    }
    if alone > 0 {
        lines.push(3, &format!("{} without a rank in the path", numbers::count(alone, "run", "runs")));
    }
    Ok(Answer {
        text: lines.fit(args.shown.tokens as usize),
        json: json!({ "runs": objects, "without_rank": alone }),
    })
}

/// The path without the number of its rank, and the number: the last one that
/// stands behind a known word.
fn rank(path: &Path) -> Option<(String, u64)> {
    let text = path.to_string_lossy().into_owned();
    let lower = text.to_ascii_lowercase();
    let mut found: Option<(usize, usize, u64)> = None;
    for word in WORDS {
        for (at, _) in lower.match_indices(word) {
            let from = at + word.len();
            let rest = lower.get(from..).unwrap_or_default();
            let skip = usize::from(rest.starts_with(['_', '-', '=', '.']));
            let digits = rest.get(skip..).unwrap_or_default().bytes().take_while(u8::is_ascii_digit).count();
            let number = rest.get(skip..skip + digits).and_then(|digits| digits.parse().ok());
            if let Some(number) = number
                && found.is_none_or(|(before, ..)| from > before)
            {
                found = Some((from + skip, from + skip + digits, number));
            }
        }
    }
    let (from, to, number) = found?;
    Some((format!("{}*{}", text.get(..from)?, text.get(to..)?), number))
}

fn joined(ranks: &[(u64, Run)], asked: &[String]) -> Result<Vec<Joined>, Failure> {
    let Some((_, first)) = ranks.first() else { return Ok(Vec::new()) };
    let names = if asked.is_empty() {
        first.columns().map(|(name, _)| name.to_owned()).filter(|name| !name.starts_with("system/")).collect()
    } else {
        first.metrics(asked)?
    };
    Ok(names
        .into_iter()
        .filter_map(|name| {
            let courses: Vec<(u64, Course)> =
                ranks.iter().filter_map(|(rank, run)| Some((*rank, run.course(&name)?))).collect();
            (courses.len() > 1).then(|| join(name, courses))
        })
        .collect())
}

fn join(name: String, courses: Vec<(u64, Course)>) -> Joined {
    let value = |course: &Course, step: u64| {
        let index = course.points.binary_search_by_key(&step, |point| point.0).ok()?;
        course.points.get(index).map(|point| point.1).filter(|value| value.is_finite())
    };
    let all = courses.first().map(|(_, course)| course.points.as_slice()).unwrap_or_default();
    let every = all.len().div_ceil(STEPS).max(1);
    let mut ranges: Vec<(u64, f64)> = Vec::new();
    let mut rows: Vec<(u64, Vec<f64>)> = Vec::new();
    let mut off: Vec<Vec<f64>> = vec![Vec::new(); courses.len()];
    for point in all.iter().step_by(every) {
        let values: Option<Vec<f64>> = courses.iter().map(|(_, course)| value(course, point.0)).collect();
        let Some(values) = values else { continue };
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let (low, high) = (
            values.iter().copied().fold(f64::MAX, f64::min),
            values.iter().copied().fold(f64::MIN, f64::max),
        );
        ranges.push((point.0, high - low));
        off.iter_mut().zip(&values).for_each(|(off, value)| off.push((value - mean).abs()));
        rows.push((point.0, values));
    }
    let middle = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let apart = courses
        .iter()
        .zip(&mut off)
        .filter_map(|((rank, _), off)| Some((*rank, middle(off)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .filter(|(_, off)| *off > 0.0);
    let leaving =
        leaving(&rows).into_iter().filter_map(|one| Some((courses.get(one.rank)?.0, one))).collect();
    Joined {
        name,
        leaving,
        shared: ranges.len(),
        spread: ranges.iter().map(|range| range.1).sum::<f64>() / ranges.len().max(1) as f64,
        widest: ranges.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)),
        apart,
        courses,
    }
}

/// Ranks that are not as far as the others.
fn lagging(joined: &[Joined], lines: &mut Lines) {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for (rank, course) in joined.iter().flat_map(|one| &one.courses) {
        if let Some((step, _)) = course.last() {
            let known = last.entry(*rank).or_default();
            *known = (*known).max(step);
        }
    }
    let most = last.values().copied().max().unwrap_or(0);
    for (rank, step) in last.into_iter().filter(|(_, step)| *step < most) {
        lines.push(1, &format!("  rank {rank} is at step {step}, the first at {most}"));
    }
}

impl Joined {
    fn line(&self) -> String {
        if self.shared == 0 {
            let ends: Vec<String> = self
                .lasts()
                .filter(|last| !last.1.is_finite())
                .map(|(rank, value)| format!("; rank {rank} ends at {}", short(value)))
                .collect();
            let name = words::metric(&self.name);
            return format!("  {name}: no finite values at the same steps{}", ends.concat());
        }
        let lasts: Vec<f64> = self.lasts().map(|last| last.1).filter(|value| value.is_finite()).collect();
        let mean = lasts.iter().sum::<f64>() / lasts.len() as f64;
        let mut text = format!("  {}:", words::metric(&self.name));
        let bad: Vec<String> = self
            .lasts()
            .filter(|last| !last.1.is_finite())
            .map(|(rank, value)| format!("rank {rank} ends at {}", short(value)))
            .collect();
        if !bad.is_empty() {
            text.push_str(&format!(" {},", bad.join(", ")));
        }
        match (lasts.is_empty(), bad.is_empty()) {
            (true, _) => {}
            (false, true) => text.push_str(&format!(" last mean {},", short(mean))),
            (false, false) => text.push_str(&format!(" last mean of the others {},", short(mean))),
        }
        text.push_str(&format!(" spread over ranks {} on average", short(self.spread)));
        if let Some((step, width)) = self.widest.filter(|(_, width)| *width > 0.0) {
            text.push_str(&format!(", widest {} at step {step}", short(width)));
        }
        if self.leaving.is_empty()
            && let Some((rank, off)) = self.apart
        {
            text.push_str(&format!(", rank {rank} is farthest from the mean ({})", short(off)));
        }
        for (rank, Leaving { distance, from, to, .. }) in &self.leaving {
            let (stands, until) = match to {
                None => ("stands", format!("since step {from}")),
                Some(to) => ("stood", format!("from step {from} to before {to}")),
            };
            text.push_str(&format!(
                ", rank {rank} {stands} {} apart from the others {until}",
                short(*distance)
            ));
        }
        text
    }

    /// Each rank and its last value.
    fn lasts(&self) -> impl Iterator<Item = (u64, f64)> {
        self.courses.iter().filter_map(|(rank, course)| Some((*rank, course.last()?.1)))
    }

    fn object(&self) -> Value {
        json!({
            "name": self.name,
            "shared_steps": self.shared,
            "mean_spread": numbers::json(self.spread),
            "widest": self.widest.map(|(step, width)| json!({ "step": step, "spread": numbers::json(width) })),
            "farthest": self.apart.map(|(rank, off)| json!({ "rank": rank, "distance": numbers::json(off) })),
            "apart": self.leaving.iter().map(|(rank, one)| json!({
                "rank": rank, "distance": numbers::json(one.distance), "from_step": one.from, "before_step": one.to,
            })).collect::<Vec<_>>(),
            "last": self.courses.iter().filter_map(|(rank, course)| {
                course.last().map(|(step, value)| json!({ "rank": rank, "step": step, "value": numbers::json(value) }))
            }).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_told_by_the_last_number_behind_a_known_word() {
        for (path, is) in [
            ("run/rank0/metrics.csv", Some(("run/rank*/metrics.csv", 0))),
            ("run/log_rank_12.jsonl", Some(("run/log_rank_*.jsonl", 12))),
            ("node1/rank3.csv", Some(("node1/rank*.csv", 3))),
            ("run/seed3.csv", None),
            ("ranking/a.csv", None),
        ] {
            assert_eq!(rank(Path::new(path)), is.map(|(stem, rank)| (stem.to_owned(), rank)), "{path}");
        }
    }
}
