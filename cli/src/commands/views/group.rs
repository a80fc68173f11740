//! `outlast group`: runs as arms with their spread over random seeds, and
//! whether the arms differ. A run counts as one number, never as its points;
//! with fewer than three runs an arm the answer is "cannot tell".

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use curves::judge::schema::{Direction, read_name};
use curves::judge::short;
use curves::log::Fact;
use curves::statistics::{Difference, Spread, Verdict, adjust, compare, compare_pairs, spread};
use curves::view::{FEWEST_RUNS, Importance, Setting, date, importance};
use serde_json::{Value, json};

use super::budget::Lines;
use super::described::Described;
use super::runs::filter_of;
use super::{Answer, load, numbers};
use crate::args::{GroupArgs, Number};
use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// Arms that are compared.
const MAX_ARMS: usize = 50;

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
    load::each(&args.paths, args.shown.format, |run| {
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
        "arms": arms.iter().map(|(name, members)| arm_object(name, members)).collect::<Vec<_>>(),
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

/// The stem of the name without the number at its end, and that number.
fn stem(run: &Described) -> (String, Option<String>) {
    let name = run.name().map(str::to_owned).unwrap_or_else(|| {
        let path = std::path::Path::new(&run.path);
        path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    });
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (head, number) = name.split_at(name.len() - digits);
    let head = head.trim_end_matches(['_', '-', '.', '=']);
    let head = head.strip_suffix("seed").unwrap_or(head).trim_end_matches(['_', '-', '.', '=']);
    (head.to_owned(), (digits > 0).then(|| number.to_owned()))
}

fn seed(run: &Described, args: &GroupArgs) -> Option<String> {
    match args.pair.as_deref()? {
        "name" => stem(run).1,
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
                None | Some("name") => Some(stem(run).0),
                Some("group") => {
                    run.facts.iter().find(|(fact, _)| *fact == Fact::Group).map(|(_, text)| text.clone())
                }
                Some("directory") => {
                    std::path::Path::new(&run.path).parent().map(|dir| dir.to_string_lossy().into_owned())
                }
                Some("day") => run.began.map(date),
                Some(setting) => run.setting(setting).map(|value| format!("{setting}={value}")),
            };
            arms.entry(arm.unwrap_or_else(|| "none".into())).or_default().push(member);
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
        for (text, _) in filters {
            arms.entry(text).or_default();
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
        lines.push(1, &format!("  {}: {}", words::name(name), said(spread_of(members).as_ref())));
    }
    for one in told.compared {
        lines.push(1, &one.line(told));
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
                found.iter().for_each(|one| lines.push(4, &important(one)));
                lines.push(3, "  importance is a correlation over these runs, no proof of a cause");
            }
        }
    }
    lines
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

fn important(one: &Importance) -> String {
    let sure =
        if one.p_adjusted < curves::statistics::ALPHA { "goes with it" } else { "not shown to matter" };
    let mut text = format!(
        "  {}: {sure}, correlation {} ({} to {}), p {} adjusted, {}",
        words::metric(&one.name),
        short(one.correlation),
        short(one.interval.0),
        short(one.interval.1),
        short(one.p_adjusted),
        numbers::count(one.values, "value", "values")
    );
    if !one.together.is_empty() {
        let names: Vec<String> = one.together.iter().take(5).map(|name| words::metric(name)).collect();
        text.push_str(&format!("; cannot be told from {}", names.join(", ")));
    }
    text
}

fn arm_object(name: &str, members: &[Member]) -> Value {
    let runs: Vec<Value> = members
        .iter()
        .map(|member| json!({ "path": member.run.path, "value": numbers::json(member.value), "pair": member.seed }))
        .collect();
    json!({ "name": name, "spread": spread_of(members), "runs": runs })
}
