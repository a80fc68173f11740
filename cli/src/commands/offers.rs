//! `outlast offers`: machines that could be rented now for this project, as the
//! configuration asks for them. It rents nothing.

use proto::v1;

use super::{answer, load};
use crate::app::Context;
use crate::args::OffersArgs;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{bytes, money, safe};

/// Does it.
///
/// # Errors
/// Where the configuration is wrong, the provider rents nothing out, or it
/// does not answer.
pub async fn perform(ctx: &Context, args: OffersArgs) -> anyhow::Result<ExitCode> {
    let loaded = load(ctx, &args.path, &args.config, &[("run.provider", args.provider.as_deref())])?;
    let config = &loaded.config;
    let machine_json = serde_json::to_string(&config.machine.spec)?;
    let ask = v1::OffersRequest {
        provider: config.run.provider.to_owned(),
        machine_json,
        max_usd_per_hour: config.budget.max_usd_per_hour.unwrap_or(0.0),
        work_hours: args.work.map_or(0.0, |time| time.as_secs_f64() / 3_600.0),
        reference_gpu: args.reference.clone().unwrap_or_default(),
    };
    let client = Box::pin(daemon::ensure(ctx, true)).await?;
    let mut offers = answer(client.operator.clone().offers(ask).await)?.offers;
    sort(&mut offers, args.sort);
    offers.truncate(args.limit.unwrap_or(20) as usize);
    if args.json {
        ctx.printer.json(&offers);
        return Ok(ExitCode::Ok);
    }
    if offers.is_empty() {
        let help = "ask for less in [machine], or raise [budget] max_usd_per_hour: outlast config show";
        return Err(Failure::new(ExitCode::NotFound, "no machine meets the configuration now")
            .help(help)
            .into());
    }
    let finish = if args.work.is_some() { "TO FINISH" } else { "USEFUL HOUR" };
    let rows: Vec<Vec<String>> = offers.iter().map(|offer| row(offer, args.work.is_some())).collect();
    let head = [
        "OFFER", "GPU", "MEMORY", "PRICE", finish, "SPEED/$", "RELIABLE", "KNOWN", "PLACE", "DOWN/GB",
        "UP/GB", "HOST",
    ];
    ctx.printer.table(&head, &rows);
    if let Some(told) = reference(&offers) {
        ctx.printer.note(&told);
    }
    Ok(ExitCode::Ok)
}

/// What an hour of work is an hour of.
fn reference(offers: &[v1::Offer]) -> Option<String> {
    let gpu = offers.iter().map(|offer| offer.reference_gpu.as_str()).find(|gpu| !gpu.is_empty())?;
    Some(format!(
        "an hour of work is an hour on {}, by the provider's measure of speed: a faster machine needs less time for it, \
         and starts and losses are reckoned in",
        safe(gpu)
    ))
}

/// What comes first in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OfferOrder {
    /// As a run would choose: the configured order of GPUs and regions, then the price
    Choice,
    /// The least that finishing is expected to cost, losses included
    Cost,
    /// The cheapest
    Price,
    /// The most speed for a dollar, in the provider's measure
    Speed,
    /// The most reliable
    Reliability,
}

fn sort(offers: &mut [v1::Offer], order: OfferOrder) {
    match order {
        OfferOrder::Choice => {}
        OfferOrder::Cost => offers.sort_by(|a, b| expected(a).total_cmp(&expected(b))),
        OfferOrder::Price => offers.sort_by(|a, b| a.usd_per_hour.total_cmp(&b.usd_per_hour)),
        OfferOrder::Speed => offers.sort_by(|a, b| b.speed_per_usd.total_cmp(&a.speed_per_usd)),
        OfferOrder::Reliability => offers.sort_by(|a, b| b.reliability.total_cmp(&a.reliability)),
    }
}

fn expected(offer: &v1::Offer) -> f64 {
    offer.outlook.map_or(f64::INFINITY, |outlook| outlook.usd_per_useful_hour)
}

fn row(offer: &v1::Offer, work: bool) -> Vec<String> {
    let outlook = offer.outlook.unwrap_or_default();
    let finish = if work {
        format!("{} in {:.1} h", money(outlook.usd), outlook.hours)
    } else {
        money(outlook.usd_per_useful_hour)
    };
    let known = if offer.known { format!("{:.0}", offer.reputation) } else { "-".to_owned() };
    let told = |number: f64, text: String| if number > 0.0 { text } else { "-".to_owned() };
    vec![
        offer.id.clone(),
        format!("{} x {}", offer.gpus, offer.gpu),
        bytes(offer.gpu_memory_bytes),
        format!("{}/h", money(offer.usd_per_hour)),
        finish,
        told(offer.speed_per_usd, format!("{:.0}", offer.speed_per_usd)),
        format!("{:.3}", offer.reliability),
        known,
        offer.place.clone(),
        format!("${:.4}", offer.down_usd_per_gb),
        format!("${:.4}", offer.up_usd_per_gb),
        offer.machine.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gpu_that_an_hour_of_work_is_reckoned_on_is_named() {
        let offer = v1::Offer { reference_gpu: "RTX 3090\u{1b}[2J".into(), ..Default::default() };
        let told = reference(&[v1::Offer::default(), offer]).unwrap();
        assert!(told.contains("an hour on RTX 3090") && !told.contains('\u{1b}'), "{told}");
        assert_eq!(reference(&[v1::Offer::default()]), None);
    }

    #[test]
    fn each_order_puts_its_best_first_and_keeps_the_rest_of_the_choice() {
        let offer = |id: &str, usd: f64, speed: f64, reliability: f64| v1::Offer {
            id: id.into(),
            usd_per_hour: usd,
            speed_per_usd: speed,
            reliability,
            outlook: Some(v1::Outlook { usd_per_useful_hour: usd / speed, ..v1::Outlook::default() }),
            ..v1::Offer::default()
        };
        for (order, ids) in [
            (OfferOrder::Choice, ["a", "b", "c"]),
            (OfferOrder::Cost, ["c", "b", "a"]),
            (OfferOrder::Price, ["b", "c", "a"]),
            (OfferOrder::Speed, ["c", "a", "b"]),
            (OfferOrder::Reliability, ["a", "c", "b"]),
        ] {
            let mut lines = vec![
                offer("a", 0.5, 200.0, 0.999),
                offer("b", 0.2, 100.0, 0.98),
                offer("c", 0.3, 300.0, 0.99),
            ];
            sort(&mut lines, order);
            assert_eq!(lines.iter().map(|l| l.id.as_str()).collect::<Vec<_>>(), ids, "{order:?}");
        }
    }
}
