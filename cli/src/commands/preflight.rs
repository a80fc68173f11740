//! What is said before a run rents machines: what, for how much, and the worst
//! that it can cost. A person is asked; a script says yes beforehand. It never
//! supplies a cap that nobody gave.

use lifecycle::RunSpec;
use lifecycle::mask::Masker;
use proto::v1;

use super::{answer, can_ask, confirm};
use crate::app::Context;
use crate::client::Client;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{bytes, duration, money, safe};

/// Longest command shown.
const COMMAND: usize = 200;

/// Whether the run may begin; its caps are filled in where a person gave them.
/// Nothing is asked where nothing costs money and checkpoints are as safe as the
/// machines.
///
/// # Errors
/// Where nobody could be asked, or the controller cannot be.
pub async fn agreed(
    ctx: &Context,
    client: &Client,
    spec: &mut RunSpec,
    (yes, accepts_local_store): (bool, bool),
) -> anyhow::Result<bool> {
    let spec_json = serde_json::to_string(spec)?;
    let ask = v1::PreflightRequest { spec_json };
    let mut reply = answer(client.operator.clone().preflight(ask).await)?;
    reply.local_store &= !accepts_local_store;
    if !reply.paid {
        return stored(ctx, spec, word(reply.local_store, yes, can_ask(ctx)));
    }
    if !yes && !can_ask(ctx) {
        let why = format!(
            "machines of `{}` are rented only if you say so, and there is no terminal to ask on",
            spec.provider
        );
        return Err(Failure::new(ExitCode::Usage, why).help("say yes beforehand with --yes").into());
    }
    let said = told(spec, &reply);
    if yes {
        // A cap that is missing is refused where the run is handed in.
        ctx.printer.note(&said);
        return Ok(true);
    }
    ctx.printer.report(&said);
    if spec.max_usd.is_none() {
        let least = format!("cap in dollars for the whole run (more than {}):", money(reply.least_cap_usd));
        spec.max_usd = Some(dollars(ctx, &least)?);
    }
    if spec.max_usd_per_hour.is_none() {
        spec.max_usd_per_hour = Some(dollars(ctx, "the most dollars an hour of its machine:")?);
    }
    let cap = spec.max_usd.unwrap_or(0.0);
    confirm(ctx, &format!("rent it, for {} at most?", money(cap)))
}

/// What is said of a store on this computer alone, for machines elsewhere.
pub(crate) const STORE: &str = "checkpoints are kept on this computer alone: they are safe only while it is awake; store.toml \
    names a store elsewhere";

/// What becomes of a store on this computer alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Nothing,
    Told,
    Asked,
}

/// Where nobody is there it is said and no more, since it costs nothing.
fn word(local: bool, yes: bool, can_ask: bool) -> Word {
    match (local, yes || !can_ask) {
        (false, _) => Word::Nothing,
        (true, true) => Word::Told,
        (true, false) => Word::Asked,
    }
}

/// The same before a run on machines that nobody bills.
fn stored(ctx: &Context, spec: &RunSpec, word: Word) -> anyhow::Result<bool> {
    if word == Word::Nothing {
        return Ok(true);
    }
    ctx.printer.warn(&format!("machines of `{}` are not this computer, and {STORE}", spec.provider));
    ctx.printer.help("for hosts of your own, write local_store = \"accept\" to [run] in outlast.toml");
    if word == Word::Told { Ok(true) } else { confirm(ctx, "begin it so?") }
}

/// An amount that a person types.
fn dollars(ctx: &Context, question: &str) -> anyhow::Result<f64> {
    ctx.printer.report(question);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    amount(&line).ok_or_else(|| {
        let why = "no cap was given, and nothing was rented";
        let help = "type an amount such as 10 or 7.50, or write max_usd to [budget] in outlast.toml";
        Failure::new(ExitCode::Usage, why).help(help).into()
    })
}

fn amount(text: &str) -> Option<f64> {
    let usd: f64 = text.trim().trim_start_matches('$').parse().ok()?;
    (usd.is_finite() && usd > 0.0).then_some(usd)
}

/// How long so much lasts at a price of an hour.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded on both sides")]
fn lasts(usd: f64, per_hour: f64) -> String {
    if per_hour <= 0.0 {
        return "ever".to_owned();
    }
    duration((usd / per_hour * 3_600.0).clamp(0.0, 1e10) as u64)
}

/// The whole of it, in words.
pub(crate) fn told(spec: &RunSpec, reply: &v1::PreflightReply) -> String {
    let machine = &spec.machine;
    let gpus = if machine.gpus.is_empty() { "any GPU".to_owned() } else { machine.gpus.join(" or ") };
    let offers = match (reply.problem.as_str(), reply.offers) {
        ("", 0) => "no offer matches now: the run waits for one".to_owned(),
        ("", count) => {
            let (least, most) = (money(reply.least_usd_per_hour), money(reply.most_usd_per_hour));
            let first = reply.first.as_ref();
            let first = first.map_or_else(String::new, |offer| {
                format!(
                    "; the first would be {} x {} of {} in {} at {}/h",
                    offer.gpus,
                    safe(&offer.gpu),
                    bytes(offer.gpu_memory_bytes),
                    safe(&offer.place),
                    money(offer.usd_per_hour)
                )
            });
            format!("{count} offers match, {least} to {most} an hour{first}")
        }
        (problem, _) => format!("offers are not known now: {}", safe(problem)),
    };
    let command = Masker::new(&spec.env).command(&spec.command).join(" ");
    let command: String = command.chars().take(COMMAND).collect();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hours, checked")]
    let time = match reply.hours_before {
        hours if hours.is_finite() && hours > 0.0 => {
            format!("the same command last took {}", duration((hours.min(1e6) * 3_600.0) as u64))
        }
        _ => "not known".to_owned(),
    };
    let worst = match (spec.max_usd, spec.max_usd_per_hour) {
        (Some(cap), Some(hour)) => {
            let kept = reply.least_cap_usd.clamp(0.0, cap);
            format!(
                "{}: this run's cap, with {}/h for its machine at most; {} of it are kept back for the end of the \
                 machine (its last save, ten minutes of asking for its end, two days of its disk), and the other {} \
                 last for about {} at that price",
                money(cap),
                money(hour),
                money(kept),
                money(cap - kept),
                lasts(cap - kept, hour),
            )
        }
        (Some(cap), None) => {
            format!("{}: this run's cap; an hour of its machine has no ceiling yet", money(cap))
        }
        (None, _) => "it has no cap yet".to_owned(),
    };
    let mut text = format!(
        "outlast: this rents machines of `{}`, which cost money\n  machine   {} x {gpus}: {offers}\n  \
         command   {}\n  duration  {time}\n  at worst  {worst}",
        spec.provider,
        machine.gpu_count,
        safe(&command),
    );
    if reply.local_store {
        text.push_str("\n  store     ");
        text.push_str(STORE);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> RunSpec {
        let text = r#"{"project":"p","name":"n","command":["python","train.py"],"provider":"vast"}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn it_says_what_is_rented_and_the_worst_case() {
        let first = v1::Offer {
            gpu: "RTX 4090\u{1b}[2J".into(),
            gpus: 1,
            gpu_memory_bytes: 24 << 30,
            place: "Norway, NO".into(),
            usd_per_hour: 0.31,
            ..v1::Offer::default()
        };
        let reply = v1::PreflightReply {
            paid: true,
            offers: 7,
            least_usd_per_hour: 0.31,
            most_usd_per_hour: 0.52,
            first: Some(first),
            local_store: true,
            hours_before: 2.5,
            least_cap_usd: 5.0,
            ..v1::PreflightReply::default()
        };
        let spec = RunSpec { max_usd: Some(20.0), max_usd_per_hour: Some(0.6), ..spec() };
        let text = told(&spec, &reply);
        for part in [
            "1 x any GPU: 7 offers match, $0.31 to $0.52 an hour",
            "of 24.0 GiB in Norway, NO at $0.31/h",
            "command   python train.py",
            "last took 2h 30m",
            "$20.00: this run's cap, with $0.60/h",
            "$5.00 of it are kept back",
            "the other $15.00 last for about 1d 01h",
            "safe only while it is awake",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        let none = told(&spec, &v1::PreflightReply { paid: true, ..v1::PreflightReply::default() });
        assert!(none.contains("no offer matches now") && none.contains("duration  not known"), "{none}");
        assert!(!none.contains("awake"));
    }

    #[test]
    fn the_store_is_asked_about_for_machines_elsewhere_and_may_be_accepted() {
        assert_eq!(word(true, false, true), Word::Asked);
        assert_eq!([word(true, true, true), word(true, false, false)], [Word::Told; 2]);
        // On this computer, or accepted.
        assert_eq!([word(false, false, true), word(false, true, false)], [Word::Nothing; 2]);
    }

    #[test]
    fn only_an_amount_is_a_cap() {
        assert_eq!(["10", " $7.50\n", "1e1"].map(amount), [Some(10.0), Some(7.5), Some(10.0)]);
        assert_eq!(["", "y", "0", "-1", "inf", "nan"].map(amount), [None; 6]);
    }
}
