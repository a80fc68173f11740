//! `outlast recommend`: from a measured rate, what finishing the steps would take
//! on each kind of machine on offer. It rents nothing, and says what is measured
//! and what is an estimate.

use std::path::Path;

use anyhow::Context as _;
use lifecycle::RunSpec;
use lifecycle::spec::MachineSpec;
use proto::v1;
use serde_json::json;

use super::{answer, load};
use crate::app::Context;
use crate::args::RecommendArgs;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{money, safe};

/// Does it.
///
/// # Errors
/// Where nothing was measured, the configuration is wrong, or the provider does
/// not answer.
pub async fn perform(ctx: &Context, args: RecommendArgs) -> anyhow::Result<ExitCode> {
    if let Some(rate) = args.steps_per_second
        && !(rate.is_finite() && rate > 0.0)
    {
        return Err(Failure::new(ExitCode::Usage, "--steps-per-second must be more than 0").into());
    }
    let client = Box::pin(daemon::ensure(ctx, true)).await?;
    let mut wish = match &args.run {
        Some(run) if !is_configured(&args) => Wish::of(&client.run(run).await?.spec_json)?,
        _ => {
            let loaded = load(ctx, &args.path, &args.config, &[("run.provider", args.provider.as_deref())])?;
            let config = loaded.config;
            Wish {
                provider: config.run.provider.to_owned(),
                machine: config.machine.spec,
                most: config.budget.max_usd_per_hour,
            }
        }
    };
    if let Some(provider) = &args.provider {
        wish.provider.clone_from(provider);
    }
    // Every kind is looked at, unless some are named here.
    wish.machine.gpus.clone_from(&args.gpus);
    let ask = v1::RecommendRequest {
        run: args.run.clone().unwrap_or_default(),
        steps_per_second: args.steps_per_second.unwrap_or(0.0),
        gpu: args.gpu.clone().unwrap_or_default(),
        steps: args.steps,
        deadline_hours: args.deadline.map_or(0.0, |time| time.as_secs_f64() / 3_600.0),
        provider: wish.provider,
        machine_json: serde_json::to_string(&wish.machine)?,
        max_usd_per_hour: wish.most.unwrap_or(0.0),
        trial: args.trial,
    };
    let reply = answer(client.operator.clone().recommend(ask).await)?;
    if reply.kinds.is_empty() {
        let help = "ask for less in [machine], or raise [budget] max_usd_per_hour: outlast config show";
        let failure = Failure::new(ExitCode::NotFound, "no machine meets the configuration now");
        return Err(failure.help(help).into());
    }
    let (cheapest, fastest) = best(&reply.kinds);
    if args.json {
        let mut told = serde_json::to_value(&reply)?;
        told["cheapest"] = json!(cheapest.map(name));
        told["fastest"] = json!(fastest.map(name));
        told["estimate"] = json!(reply.kinds.iter().any(|kind| kind.estimated));
        ctx.printer.json(&told);
        return Ok(ExitCode::Ok);
    }
    let head = ["MACHINE", "OFFERS", "STEPS/S", "HOURS", "COST", "PRICE", "LOSSES", "IN TIME", "HOST"];
    let shown = reply.kinds.iter().take(args.limit.unwrap_or(20) as usize);
    ctx.printer.table(&head, &shown.map(row).collect::<Vec<_>>());
    ctx.printer.note(&told(&reply, cheapest, fastest, args.deadline.is_some()));
    Ok(ExitCode::Ok)
}

/// What is asked of machines, and of whom.
#[derive(Debug, PartialEq)]
struct Wish {
    provider: String,
    machine: MachineSpec,
    most: Option<f64>,
}

impl Wish {
    /// A run's own.
    fn of(spec_json: &str) -> anyhow::Result<Self> {
        let spec: RunSpec = serde_json::from_str(spec_json).context("read the run's description")?;
        Ok(Self { provider: spec.provider, machine: spec.machine, most: spec.max_usd_per_hour })
    }
}

/// Whether somebody names a configuration; else a run's own counts, wherever the
/// person stands.
fn is_configured(args: &RecommendArgs) -> bool {
    args.path != Path::new(".") || args.config.config.is_some() || !args.config.set.is_empty()
}

fn name(kind: &v1::Recommendation) -> String {
    kind.offer.as_ref().map_or_else(String::new, |offer| format!("{} x {}", offer.gpus, offer.gpu))
}

fn hours(kind: &v1::Recommendation) -> f64 {
    kind.offer.as_ref().and_then(|offer| offer.outlook).map_or(f64::INFINITY, |outlook| outlook.hours)
}

/// The cheapest of those that are in time, and the fastest of all.
fn best(kinds: &[v1::Recommendation]) -> (Option<&v1::Recommendation>, Option<&v1::Recommendation>) {
    let cheapest = kinds.iter().find(|kind| kind.in_time);
    let fastest = kinds.iter().min_by(|a, b| hours(a).total_cmp(&hours(b)));
    (cheapest, fastest)
}

fn row(kind: &v1::Recommendation) -> Vec<String> {
    let offer = kind.offer.clone().unwrap_or_default();
    let outlook = offer.outlook.unwrap_or_default();
    let mark = match (kind.guessed, kind.estimated) {
        (true, _) => "?",
        (false, true) => "~",
        (false, false) => "",
    };
    vec![
        name(kind),
        kind.offers.to_string(),
        format!("{mark}{:.2}", kind.steps_per_second),
        format!("{:.1}", outlook.hours),
        money(outlook.usd),
        format!("{}/h", money(offer.usd_per_hour)),
        format!("{:.1}", outlook.losses),
        if kind.in_time { "yes" } else { "no" }.to_owned(),
        offer.machine,
    ]
}

fn told(
    reply: &v1::RecommendReply,
    cheapest: Option<&v1::Recommendation>,
    fastest: Option<&v1::Recommendation>,
    deadline: bool,
) -> String {
    let on = if reply.measured_on.is_empty() {
        "the middle one of these kinds, since it is not known on which it was measured".to_owned()
    } else {
        safe(&reply.measured_on).into_owned()
    };
    let mut text = format!("\nmeasured: {:.2} steps/s, taken for {on}", reply.steps_per_second);
    if reply.kinds.iter().any(|kind| kind.estimated) {
        text.push_str("\n~ an estimate: scaled by the provider's measure of speed (DLPerf), not measured");
    }
    if reply.kinds.iter().any(|kind| kind.guessed) {
        text.push_str("\n? a guess: no speed is told that it could be scaled by");
    }
    let within = if deadline { " within the deadline" } else { "" };
    let line = |what: &str, kind: &v1::Recommendation| {
        let outlook = kind.offer.as_ref().and_then(|offer| offer.outlook).unwrap_or_default();
        let named = name(kind);
        format!("\n{what}: {} in {:.1} h for {}", safe(&named), outlook.hours, money(outlook.usd))
    };
    match cheapest {
        Some(kind) => text.push_str(&line(&format!("cheapest{within}"), kind)),
        None => text.push_str("\nnone of them is expected to be in time"),
    }
    if let Some(kind) = fastest {
        text.push_str(&line("fastest", kind));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(gpu: &str, hours: f64, usd: f64, in_time: bool, estimated: bool) -> v1::Recommendation {
        let outlook = v1::Outlook { hours, usd, ..v1::Outlook::default() };
        let offer = v1::Offer { gpu: gpu.into(), gpus: 1, outlook: Some(outlook), ..v1::Offer::default() };
        v1::Recommendation { offer: Some(offer), in_time, estimated, ..v1::Recommendation::default() }
    }

    #[test]
    fn a_run_is_asked_about_at_its_own_provider_wherever_the_person_stands() {
        use clap::Parser as _;
        let args = |more: &[&str]| {
            let words = ["outlast", "recommend", "one", "--steps", "9"].iter().chain(more).copied();
            let crate::args::Verb::Recommend(args) = crate::args::Args::try_parse_from(words).unwrap().verb
            else {
                panic!("not a recommendation")
            };
            is_configured(&args)
        };
        assert!(!args(&[]) && !args(&["--provider", "vast"]));
        assert!(args(&["--path", "x"]) && args(&["--set", "machine.cpus=4"]));
        let wish = Wish::of(
            r#"{"project":"p","name":"n","command":["x"],"provider":"vast","max_usd_per_hour":0.5,"machine":{"cpus":3}}"#,
        );
        let wish = wish.unwrap();
        assert_eq!((wish.provider.as_str(), wish.most, wish.machine.cpus), ("vast", Some(0.5), 3));
    }

    #[test]
    fn the_cheapest_in_time_and_the_fastest_are_named_and_estimates_are_called_so() {
        let kinds = vec![
            kind("slow", 20.0, 4.0, false, true),
            kind("mid\u{1b}[31m", 9.0, 5.0, true, false),
            kind("fast", 3.0, 7.0, true, true),
        ];
        let reply = v1::RecommendReply { kinds, steps_per_second: 2.0, measured_on: "mid".into(), done: 0 };
        let (cheapest, fastest) = best(&reply.kinds);
        let text = told(&reply, cheapest, fastest, true);
        assert!(
            text.contains("cheapest within the deadline: 1 x mid") && text.contains("in 9.0 h for $5.00")
        );
        assert!(
            text.contains("fastest: 1 x fast in 3.0 h for $7.00") && text.contains("an estimate"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
        let none = vec![kind("slow", 20.0, 4.0, false, true)];
        let (cheapest, fastest) = best(&none);
        let reply = v1::RecommendReply { kinds: none.clone(), ..v1::RecommendReply::default() };
        assert!(told(&reply, cheapest, fastest, true).contains("none of them is expected to be in time"));
        assert_eq!(row(&none[0])[2], "~0.00");
    }
}
