//! `outlast group`: runs as arms with their spread over random seeds, and
//! whether the arms differ. A run counts as one number, never as its points;
//! with fewer than three runs an arm the answer is "cannot tell".

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use curves::judge::schema::{Direction, read_name};
use curves::judge::short;
use curves::statistics::{Difference, Spread, Verdict, adjust, compare, compare_pairs, spread};
use curves::view::{FEWEST_RUNS, GROUPED, Importance, Setting, date, importance};
use serde_json::{Value, json};

mod important;

use super::budget::Lines;
use super::described::Described;
use super::runs::filter_of;
use super::{Answer, load, numbers};
use crate::args::{GroupArgs, Number};
use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// Arms that are compared.
const MAX_ARMS: usize = 50;
/// The arm of runs that do not have what makes arms.
const NONE: &str = "none";

/// One run with its number.
struct Member {
    run: Described,
    value: f64,
    /// What it is paired by.
    seed: Option<String>,
}

/// See the module.
///
/// # Errors
/// A path without runs, or no metric that the runs share.
pub(crate) fn answer(args: &GroupArgs) -> anyhow::Result<Answer> {
    let mut members = Vec::new();
    let mut metric = args.metric.clone();
    let mut left_out = 0_usize;
    load::each(&args.paths, args.shown.format.as_ref(), |run| {
        let described = Described::of(&run);
        metric = metric.take().or_else(|| described.primary.clone());
        let name = metric.as_deref().and_then(|name| described.metric(name)).map(|(name, _)| name.clone());
        let value = name.and_then(|name| number(&run, &name, args));
        match value {
            Some(value) => members.push(Member { seed: seed(&described, args), run: described, value }),
            None => left_out += 1,
        }
    })?;
    let Some(metric) = metric.filter(|_| !members.is_empty()) else {
        let message = "no metric that the runs could be compared by";
        return Err(Failure::new(ExitCode::BadInput, message).help("say which: --metric NAME").into());
    };
    let results: Vec<f64> = members.iter().map(|member| member.value).collect();
    let important = args.importance.then(|| importance(&varying(&members), &results)).flatten();
    let total = members.len();
    let arms = arms(members, args)?;
    let (base, compared) = compared(&arms, args)?;
    let way = read_name(&metric).direction;
    let lines = text(&Told {
        metric: &metric,
        total,
        left_out,
        arms: &arms,
        base: &base,
        compared: &compared,
        way,
        args,
        important: important.as_deref(),
    });
    let json = json!({
        "metric": metric,
        "number": args.value.name(),
        "runs": total,
        "left_out": left_out,
        "arms": arms.iter().map(|(name, members)| arm_object(name, members, way)).collect::<Vec<_>>(),
        "base": base,
        "comparisons": compared.iter().map(|one| one.object(&base)).collect::<Vec<_>>(),
        "importance": args.importance.then(|| match &important {
            Some(found) => json!(found),
            None => json!({ "verdict": "cannot_tell", "runs_needed": FEWEST_RUNS }),
        }),
    });
    Ok(Answer { text: lines.fit(args.shown.tokens as usize), json })
}

/// The one number that a run is.
fn number(run: &load::Run, metric: &str, args: &GroupArgs) -> Option<f64> {
    let course = run.course(metric)?;
    if let Some(step) = args.at {
        return curves::view::at(&course, step).ok().map(|at| at.value);
    }
    let found = curves::view::statistics(&course.points);
    match args.value {
        Number::Last => found.last,
        Number::Min => found.min,
        Number::Max => found.max,
        Number::Best => match read_name(metric).direction {
            Direction::Higher => found.max,
            _ => found.min,
        },
        Number::Mean => found.mean,
    }
}

fn seed(run: &Described, args: &GroupArgs) -> Option<String> {
    match args.pair.as_deref()? {
        "name" => run.stem().1,
        setting => run.setting(setting).cloned(),
    }
}

/// Runs by the arm they belong to, in order of the arms' names.
fn arms(members: Vec<Member>, args: &GroupArgs) -> Result<Vec<(String, Vec<Member>)>, Failure> {
    let mut arms: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    if args.arms.is_empty() {
        for member in members {
            let run = &member.run;
            let arm = match args.by.as_deref() {
                None | Some("name") => Some(run.stem().0),
                Some("group") => run.group().cloned(),
                Some("directory") => {
                    std::path::Path::new(&run.path).parent().map(|dir| dir.to_string_lossy().into_owned())
                }
                Some("day") => run.began.map(date),
                Some(setting) => run.setting(setting).map(|value| format!("{setting}={value}")),
            };
            arms.entry(arm.unwrap_or_else(|| NONE.into())).or_default().push(member);
        }
        if let Some(by) = args.by.as_ref().filter(|_| arms.keys().all(|arm| arm == NONE)) {
            let message = format!("no run has {} to make arms by", words::quoted(by));
            return Err(Failure::new(ExitCode::BadInput, message).help(
                "--by takes a setting of the runs (`outlast settings PATH` lists them), group, directory, day or name",
            ));
        }
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let filters = args
            .arms
            .iter()
            .map(|text| Ok((text.clone(), filter_of(text)?)))
            .collect::<Result<Vec<_>, Failure>>()?;
        for member in members {
            let taken: Vec<&String> = filters
                .iter()
                .filter(|(_, filter)| filter.takes(&member.run, now))
                .map(|(text, _)| text)
                .collect();
            match taken.as_slice() {
                [] => {}
                [arm] => arms.entry((*arm).clone()).or_default().push(member),
                _ => {
                    let message = format!("{} belongs to several arms", member.run.shown);
                    return Err(Failure::new(ExitCode::BadInput, message)
                        .help("make the filters of --arm exclude each other"));
                }
            }
        }
        if let Some((text, filter)) = filters.iter().find(|(text, _)| !arms.contains_key(text)) {
            let message = format!("no run is as the arm {} says", words::quoted(text));
            return Err(Failure::new(ExitCode::BadInput, message)
                .help(format!("it was read as the filter {}", words::quoted(&filter.to_string())))
                .help("`outlast runs PATH FILTER` shows what a filter finds"));
        }
    }
    if arms.len() > MAX_ARMS {
        let message = format!("{} arms; at most {MAX_ARMS} are compared", arms.len());
        return Err(Failure::new(ExitCode::BadInput, message).help("choose other arms with --by or --arm"));
    }
    let mut arms: Vec<(String, Vec<Member>)> = arms.into_iter().collect();
    if let Some(base) = &args.base {
        let Some(at) = arms.iter().position(|(name, _)| name == base) else {
            let names: Vec<String> = arms.iter().take(10).map(|(name, _)| words::name(name)).collect();
            let message = format!("no arm {}; there are {}", words::quoted(base), names.join(", "));
            return Err(Failure::new(ExitCode::BadInput, message).help("--base names one of them"));
        };
        arms.swap(0, at);
    }
    Ok(arms)
}

/// One arm against the first.
struct Compared {
    arm: String,
    difference: Difference,
    adjusted: Option<f64>,
    paired: bool,
    /// Runs without a partner.
    unpaired: usize,
}

fn compared(arms: &[(String, Vec<Member>)], args: &GroupArgs) -> Result<(String, Vec<Compared>), Failure> {
    let Some(((base, first), others)) = arms.split_first() else { return Ok((String::new(), Vec::new())) };
    let values = |members: &[Member]| members.iter().map(|member| member.value).collect::<Vec<f64>>();
    let mut all = Vec::new();
    for (arm, members) in others {
        let (difference, unpaired) = if args.pair.is_some() {
            let pairs = pairs(first, members)?;
            let alone = first.len().max(members.len()) - pairs.len();
            (compare_pairs(&pairs), alone)
        } else {
            (compare(&values(first), &values(members)), 0)
        };
        all.push(Compared {
            arm: arm.clone(),
            difference,
            adjusted: None,
            paired: args.pair.is_some(),
            unpaired,
        });
    }
    if let Some(field) = &args.pair
        && !all.is_empty()
        && all.iter().all(|one| one.difference.runs.0 == 0)
    {
        let what =
            if field == "name" { "number at the end of its name".to_owned() } else { words::quoted(field) };
        let message = format!("no run of another arm has the same {what} as one of {}", words::name(base));
        return Err(Failure::new(ExitCode::BadInput, message)
            .help("pair by a setting that both arms have, such as --pair seed")
            .help("--base names another arm to compare with"));
    }
    let mut differences: Vec<Difference> = all.iter().map(|one| one.difference.clone()).collect();
    let adjusted = adjust(&mut differences);
    for ((one, difference), p) in all.iter_mut().zip(differences).zip(adjusted) {
        one.difference = difference;
        one.adjusted = p;
    }
    Ok((base.clone(), all))
}

fn pairs(a: &[Member], b: &[Member]) -> Result<Vec<(f64, f64)>, Failure> {
    let mut pairs = Vec::new();
    for one in a {
        let Some(seed) = &one.seed else { continue };
        let same =
            |members: &[Member]| members.iter().filter(|other| other.seed.as_ref() == Some(seed)).count();
        if same(a) > 1 || same(b) > 1 {
            let message = format!(
                "several runs of one arm have the value {} of what they are paired by",
                words::quoted(seed)
            );
            return Err(Failure::new(ExitCode::BadInput, message)
                .help("pair by a setting that differs in every run of an arm, such as --pair seed"));
        }
        pairs.extend(
            b.iter().find(|other| other.seed.as_ref() == Some(seed)).map(|other| (one.value, other.value)),
        );
    }
    Ok(pairs)
}

/// Settings of all runs that have them.
fn varying(members: &[Member]) -> Vec<Setting> {
    let Some(first) = members.first() else { return Vec::new() };
    first
        .run
        .settings
        .keys()
        .filter_map(|name| {
            let values = members.iter().map(|member| member.run.settings.get(name).cloned());
            Some(Setting { name: name.clone(), values: values.collect::<Option<Vec<String>>>()? })
        })
        .collect()
}

struct Told<'a> {
    metric: &'a str,
    total: usize,
    left_out: usize,
    arms: &'a [(String, Vec<Member>)],
    base: &'a str,
    compared: &'a [Compared],
    way: Direction,
    args: &'a GroupArgs,
    important: Option<&'a [Importance]>,
}

fn text(told: &Told<'_>) -> Lines {
    let mut lines = Lines::new("");
    let what = match told.args.at {
        Some(step) => format!("at step {step}"),
        None => told.args.value.name().to_owned(),
    };
    let mut head = format!(
        "{} {what}: {} in {}",
        words::metric(told.metric),
        numbers::count(told.total, "run", "runs"),
        numbers::count(told.arms.len(), "arm", "arms")
    );
    if told.left_out > 0 {
        head.push_str(&format!("; {} without it left out", told.left_out));
    }
    lines.push(0, &head);
    for (name, members) in told.arms {
        let best = best(members, told.way).map(|best| format!(", best {}", best.run.shown));
        let spread = said(spread_of(members).as_ref());
        lines.push(2, &format!("  {}: {spread}{}", words::name(name), best.unwrap_or_default()));
    }
    for one in told.compared {
        // That nothing can be told is no news before the arms.
        let rank = if one.difference.verdict == Verdict::CannotTell { 3 } else { 1 };
        lines.push(rank, &one.line(told));
    }
    if told.compared.len() > 1 {
        let text = format!("  verdicts are adjusted for {} comparisons (Holm)", told.compared.len());
        lines.push(3, &text);
    }
    if told.args.importance {
        match told.important {
            None => lines.push(
                2,
                &format!("  importance: cannot tell: {} runs, {FEWEST_RUNS} are needed", told.total),
            ),
            Some([]) => lines.push(2, "  importance: no setting of all runs varies"),
            Some(found) => {
                found.iter().for_each(|one| lines.push(4, &important::line(one)));
                let few =
                    if told.total < GROUPED { "; few runs: straight trends alone are seen" } else { "" };
                let method = "each setting by itself: rank correlation, share of the ranks' variance between \
                              its values, permutation test (Holm); no proof of a cause";
                lines.push(3, &format!("  importance of {method}{few}"));
            }
        }
    }
    lines
}

/// The best run of an arm of several, where the metric's name says which way is better.
fn best(members: &[Member], way: Direction) -> Option<&Member> {
    let finite = members.iter().filter(|member| member.value.is_finite());
    if members.len() < 2 {
        return None;
    }
    match way {
        Direction::Lower => finite.min_by(|a, b| a.value.total_cmp(&b.value)),
        Direction::Higher => finite.max_by(|a, b| a.value.total_cmp(&b.value)),
        Direction::Unknown => None,
    }
}

fn spread_of(members: &[Member]) -> Option<Spread> {
    spread(&members.iter().map(|member| member.value).collect::<Vec<_>>())
}

fn said(found: Option<&Spread>) -> String {
    let Some(found) = found else { return "no run with a finite value".into() };
    let mut text = format!("n {}, mean {}", found.n, short(found.mean));
    if let Some(sd) = found.sd {
        text.push_str(&format!(", std {}", short(sd)));
    }
    match found.interval {
        Some((low, high)) => text.push_str(&format!(", 95% interval {} to {}", short(low), short(high))),
        None => text.push_str(", no interval below 3 runs"),
    }
    text.push_str(&format!(", min {}, max {}", short(found.min), short(found.max)));
    if found.left_out > 0 {
        text.push_str(&format!("; {} not finite left out", found.left_out));
    }
    text
}

impl Compared {
    fn line(&self, told: &Told<'_>) -> String {
        let found = &self.difference;
        let mut text =
            format!("  {} less {}: {}", words::name(&self.arm), words::name(told.base), found.text);
        if found.verdict == Verdict::Different {
            let better = match told.way {
                Direction::Lower => found.difference < 0.0,
                Direction::Higher => found.difference > 0.0,
                Direction::Unknown => return text,
            };
            text.push_str(&format!(
                "; {} is better",
                words::name(if better { &self.arm } else { told.base })
            ));
        }
        if let Some(effect) = found.effect {
            text.push_str(&format!("; effect {}", short(effect)));
        }
        if self.paired {
            text.push_str("; paired");
        }
        if self.unpaired > 0 {
            text.push_str(&format!("; {} without a partner left out", self.unpaired));
        }
        text
    }

    fn object(&self, base: &str) -> Value {
        json!({
            "arm": self.arm, "base": base, "paired": self.paired, "without_partner": self.unpaired,
            "p_adjusted": self.adjusted, "difference": self.difference,
        })
    }
}

fn arm_object(name: &str, members: &[Member], way: Direction) -> Value {
    let runs: Vec<Value> = members
        .iter()
        .map(|member| json!({ "path": member.run.path, "value": numbers::json(member.value), "pair": member.seed }))
        .collect();
    let best = best(members, way).map(|best| best.run.path.as_str());
    json!({ "name": name, "spread": spread_of(members), "best": best, "runs": runs })
}
