//! `outlast simulate`: what a policy would have done over recorded (or made-up)
//! availability, before anything is paid. It reads files and prints; it asks
//! no controller and nobody on the network.

mod files;
mod svg;

use std::time::Duration;

use controller::replay::{self, Policy, Settings, Tally, Windows, Zone};
use serde::Serialize;

use crate::app::Context;
use crate::args::SimulateArgs;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{duration, money};

/// Does it.
///
/// # Errors
/// Where a recording cannot be read or replayed, or the plot not be written.
pub fn perform(ctx: &Context, args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let policies = policies(&args.policy)?;
    let zones = match args.generate {
        Some(zones) => replay::generate::generate(zones, args.days, args.seed),
        None => files::zones(ctx, &args.trace, args.nodes)?,
    };
    let settings = settings(args);
    let mut drawn = Vec::new();
    let mut rows = Vec::new();
    for policy in policies {
        ctx.printer.progress(&format!("replaying {}", policy.name));
        let outcome = match args.windows {
            Some(count) => Outcome::Windows(replay::windows(&zones, count, args.seed, &settings, policy)?),
            None => {
                let tally = replay::replay(&zones, 0, &settings, policy)?;
                drawn.push((policy.name, tally.clone()));
                Outcome::Whole { goodput: tally.goodput(), tally }
            }
        };
        rows.push(Row { policy, outcome });
    }
    ctx.printer.clear_progress();
    if let Some(file) = &args.svg {
        super::why::export(file, &svg::draw(&zones, &drawn), true)?;
    }
    if args.json {
        let zones = zones.iter().map(About::new).collect();
        ctx.printer.json(&Report { seed: args.seed, settings, zones, policies: rows });
        return Ok(ExitCode::Ok);
    }
    ctx.printer.note(&summary(&zones));
    show(ctx, &rows);
    Ok(ExitCode::Ok)
}

/// The policies asked for, in their own order.
fn policies(names: &[String]) -> Result<Vec<&'static Policy>, Failure> {
    let all = &replay::POLICIES;
    for name in names {
        if name != "all" && !all.iter().any(|policy| policy.name == name) {
            let known: Vec<&str> = all.iter().map(|policy| policy.name).collect();
            return Err(Failure::new(ExitCode::Usage, format!("`{name}` is no policy"))
                .help(format!("there are {} and all", known.join(", "))));
        }
    }
    let wanted = |policy: &&Policy| names.iter().any(|name| name == "all" || name == policy.name);
    Ok(all.iter().filter(wanted).collect())
}

fn settings(args: &SimulateArgs) -> Settings {
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX).min(LONGEST_MS);
    Settings {
        detect_ms: ms(args.detect),
        relaunch_ms: ms(args.relaunch),
        save_ms: ms(args.save),
        notice_ms: ms(args.notice),
        spot_usd: args.spot_price,
        on_demand_usd: args.on_demand_price,
        work_ms: args.work.map(ms),
        deadline_ms: args.deadline.map(ms),
    }
}

/// Longest time that a setting may be, in milliseconds: ten years.
const LONGEST_MS: u64 = 3_660 * 86_400_000;

#[derive(Serialize)]
struct Report<'a> {
    seed: u64,
    settings: Settings,
    zones: Vec<About<'a>>,
    policies: Vec<Row>,
}

#[derive(Serialize)]
struct About<'a> {
    name: &'a str,
    recorded_ms: u64,
    up_share: f64,
    taken_back: usize,
}

impl<'a> About<'a> {
    fn new(zone: &'a Zone) -> Self {
        Self {
            name: zone.name(),
            recorded_ms: zone.end_ms(),
            up_share: zone.up_share(),
            taken_back: zone.losses(),
        }
    }
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    policy: &'static Policy,
    outcome: Outcome,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Whole { goodput: f64, tally: Tally },
    Windows(Windows),
}

fn summary(zones: &[Zone]) -> String {
    let end = zones.iter().map(Zone::end_ms).min().unwrap_or(0);
    let about = |zone: &Zone| format!("{} {:.0} %", zone.name(), zone.up_share() * 100.0);
    let mut told: Vec<String> = zones.iter().take(9).map(about).collect();
    if zones.len() > told.len() {
        told.push("...".into());
    }
    format!("{} recorded; up: {}", duration(end / 1_000), told.join(", "))
}

/// Hours to one digit.
fn hours(ms: u64) -> String {
    format!("{:.1}h", ms as f64 / 3_600_000.0)
}

fn show(ctx: &Context, rows: &[Row]) {
    let (mut whole, mut windows) = (Vec::new(), Vec::new());
    for row in rows {
        match &row.outcome {
            Outcome::Whole { goodput, tally } => whole.push(whole_row(row.policy.name, *goodput, tally)),
            Outcome::Windows(sums) => windows.push(windows_row(row.policy.name, sums)),
        }
        held_up(ctx, row);
    }
    if !whole.is_empty() {
        let head =
            ["POLICY", "GOODPUT", "COST", "$/USEFUL H", "ENDED", "LOSSES", "REPEATED", "SAVING", "ON-DEMAND"];
        ctx.printer.table(&head, &whole);
    }
    if !windows.is_empty() {
        let head = [
            "POLICY",
            "WINDOWS",
            "MISSED",
            "GOODPUT",
            "COST",
            "WORST",
            "ENDED",
            "WORST",
            "LOSSES",
            "REPEATED",
            "ON-DEMAND",
        ];
        ctx.printer.table(&head, &windows);
    }
}

/// What held a run up that no recording did.
fn held_up(ctx: &Context, row: &Row) {
    let (storms, given_up) = match &row.outcome {
        Outcome::Whole { tally, .. } => (tally.storms, tally.given_up),
        Outcome::Windows(sums) => (sums.storms, 0),
    };
    let name = row.policy.name;
    if storms > 0 {
        ctx.printer.warn(&format!("{name}: held up {storms} times by the limit of machines made per hour"));
    }
    if given_up > 0 {
        let why = "machines in a row were lost without one durable step; a person resumed it";
        ctx.printer.warn(&format!("{name}: given up {given_up} times: {why}"));
    }
}

fn whole_row(name: &str, goodput: f64, tally: &Tally) -> Vec<String> {
    let useful = tally.useful_ms as f64 / 3_600_000.0;
    let ended = match (tally.finished, tally.missed) {
        (true, true) => format!("{} LATE", hours(tally.took_ms)),
        (true, false) => hours(tally.took_ms),
        (false, true) => "not, LATE".to_owned(),
        (false, false) => "-".to_owned(),
    };
    vec![
        name.to_owned(),
        format!("{goodput:.4}"),
        money(tally.usd),
        if useful > 0.0 { format!("${:.3}", tally.usd / useful) } else { "-".to_owned() },
        ended,
        tally.losses.to_string(),
        hours(tally.repeated_ms),
        hours(tally.saving_ms),
        hours(tally.on_demand_ms),
    ]
}

fn windows_row(name: &str, sums: &Windows) -> Vec<String> {
    vec![
        name.to_owned(),
        sums.windows.to_string(),
        sums.missed.to_string(),
        format!("{:.4}", sums.goodput),
        money(sums.mean_usd),
        money(sums.worst_usd),
        hours(sums.mean_took_ms),
        hours(sums.worst_took_ms),
        format!("{:.1}", sums.mean_losses),
        hours(sums.mean_repeated_ms),
        hours(sums.mean_on_demand_ms),
    ]
}
