//! Which kind of machine would finish a run best, from a rate that was measured.
//! What was not measured on a kind is an estimate by its provider's measure of
//! speed, and is told as one. Nothing is rented here.

use lifecycle::choice::{self, Appraisal};
use lifecycle::spec::{MachineSpec, Market};
use proto::v1;
use tonic::Status;

use super::offers::{amount, asked, machine, shown};
use super::select;
use crate::core::Core;
use crate::model::{Attempt, Machine};
use crate::provider::{Offer, Provider};
use crate::reputation;

/// Kinds told at most.
const KINDS_MAX: usize = 64;
/// A rate above this is none that anybody measured.
const RATE_MAX: f64 = 1e9;

/// A rate, and on what it was measured.
struct Measured {
    rate: f64,
    /// The kind of GPU; empty: not known.
    gpu: String,
    done: u64,
    head_bytes: u64,
}

/// Answers one request.
///
/// # Errors
/// Where nothing was measured, the request is none, or the provider does not
/// answer.
pub(super) async fn recommend(core: &Core, ask: v1::RecommendRequest) -> Result<v1::RecommendReply, Status> {
    let spec = machine(&ask.machine_json)?;
    let provider = core.provider(&ask.provider)?;
    provider.ready().map_err(Status::failed_precondition)?;
    let seen = measured(core, &ask).await?;
    let left = ask.steps.saturating_sub(seen.done);
    if left == 0 {
        let what =
            if ask.steps == 0 { "how many steps there are is not told" } else { "no step is left to do" };
        return Err(Status::invalid_argument(what));
    }
    #[expect(clippy::cast_precision_loss, reason = "steps and bytes of a run fit")]
    let (steps, start_bytes) = (left as f64, seen.head_bytes as f64);
    let mut known = reputation::known(core, provider.name()).await?;
    known.work.hours = Some(steps / seen.rate / 3_600.0);
    known.work.start_bytes = start_bytes;
    known.reference_gpu.clone_from(&seen.gpu);
    known.work.reference_speed = reference(&*provider, &spec, &seen.gpu, &known).await?;
    let most = amount(ask.max_usd_per_hour);
    let found = asked(&*provider, &spec, most, &known).await?;
    let kinds = grouped(found, &seen, &known, spec.market, amount(ask.deadline_hours));
    Ok(v1::RecommendReply { kinds, steps_per_second: seen.rate, measured_on: seen.gpu, done: seen.done })
}

async fn measured(core: &Core, ask: &v1::RecommendRequest) -> Result<Measured, Status> {
    let gpu: String = ask.gpu.chars().filter(|c| !c.is_control()).take(64).collect();
    let given = amount(ask.steps_per_second).filter(|rate| *rate <= RATE_MAX);
    if ask.run.is_empty() {
        let rate = given.ok_or_else(|| Status::invalid_argument("the steps per second are no rate"))?;
        return Ok(Measured { rate, gpu, done: 0, head_bytes: 0 });
    }
    let run = select::run(core, &ask.run).await?.body;
    let attempts = core.of_run::<Attempt>(run.id).await?.into_iter().map(|row| row.body);
    let paced = attempts.filter_map(|a| Some((a.number, curves::rate(&a.pace)?, a.machine)));
    let newest = paced.filter(|(_, rate, _)| amount(*rate).is_some()).max_by_key(|(number, ..)| *number);
    let rate = given.or(newest.map(|(_, rate, _)| rate)).ok_or_else(|| {
        let why = format!("{} has not reported steps, or too few: its rate is not measured", run.name);
        Status::failed_precondition(why)
    })?;
    let on = match newest {
        Some((.., machine)) => core.load::<Machine>(&machine.to_string()).await?,
        None => None,
    };
    let named = on.map(|row| row.body.conduct.gpu).unwrap_or_default();
    let durable = run.head.as_ref().and_then(|head| head.step).unwrap_or(0);
    let done = if ask.trial { 0 } else { durable };
    let gpu = if gpu.is_empty() { named } else { gpu };
    Ok(Measured { rate, gpu, done, head_bytes: run.head_bytes })
}

/// The speed of the kind on which it was measured, in the provider's measure; 0:
/// none is on offer, and nobody knows.
async fn reference(
    provider: &dyn Provider,
    spec: &MachineSpec,
    gpu: &str,
    known: &Appraisal,
) -> Result<f64, Status> {
    if gpu.is_empty() {
        return Ok(0.0);
    }
    let alone = MachineSpec {
        gpus: vec![gpu.to_owned()],
        gpu_count: spec.gpu_count,
        min_reliability: 0.0,
        ..MachineSpec::default()
    };
    let found = asked(provider, &alone, None, known).await?;
    let own = known.measured_by(found.iter().map(|offer| (offer.gpu.as_str(), offer.speed)));
    Ok(own.work.reference_speed)
}

/// The best offer of each kind, the cheapest kind first.
fn grouped(
    found: Vec<Offer>,
    seen: &Measured,
    known: &Appraisal,
    market: Market,
    deadline: Option<f64>,
) -> Vec<v1::Recommendation> {
    let same = |a: &str, b: &str| choice::kind(a, market) == choice::kind(b, market);
    // Where none of its kind is on offer, nobody knows how fast that is.
    let on_offer = found.iter().any(|offer| same(&offer.gpu, &seen.gpu) && offer.speed > 0.0);
    let compared = on_offer || known.work.reference_speed > 0.0;
    let mut kinds: Vec<(Offer, u32)> = Vec::new();
    for offer in found {
        let room = kinds.len() < KINDS_MAX;
        let own = kinds.iter_mut().find(|(best, _)| same(&best.gpu, &offer.gpu) && best.gpus == offer.gpus);
        match own {
            None if room => kinds.push((offer, 1)),
            None => {}
            Some((best, count)) => {
                *count = count.saturating_add(1);
                if offer.outlook.usd < best.outlook.usd {
                    *best = offer;
                }
            }
        }
    }
    kinds.sort_by(|a, b| a.0.outlook.usd.total_cmp(&b.0.outlook.usd).then_with(|| a.0.gpu.cmp(&b.0.gpu)));
    let told = |(offer, offers): (Offer, u32)| v1::Recommendation {
        offers,
        steps_per_second: seen.rate * offer.outlook.speed,
        estimated: !same(&offer.gpu, &seen.gpu),
        guessed: !same(&offer.gpu, &seen.gpu) && (!compared || offer.speed <= 0.0),
        in_time: deadline.is_none_or(|hours| offer.outlook.hours <= hours),
        offer: Some(shown(offer, known, market)),
    };
    kinds.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use lifecycle::choice::{Facts, Work};

    use super::*;

    fn offer(gpu: &str, usd: f64, speed: f64, known: &Appraisal) -> Offer {
        let facts = Facts { usd_per_hour: usd, speed, reliability: 0.99, ..Facts::default() };
        Offer {
            id: format!("{usd}"),
            gpu: gpu.into(),
            gpus: 1,
            gpu_memory_bytes: 1,
            place: String::new(),
            machine: String::new(),
            reliability: 0.99,
            usd_per_hour: usd,
            down_usd_per_gb: 0.0,
            up_usd_per_gb: 0.0,
            speed_per_usd: 0.0,
            speed,
            outlook: known.of("", gpu, &facts),
        }
    }

    #[test]
    fn one_of_each_kind_the_cheapest_first_and_what_was_not_measured_is_an_estimate() {
        let work = Work { hours: Some(10.0), reference_speed: 100.0, ..Work::default() };
        let known = Appraisal { work, ..Appraisal::default() };
        let found = vec![
            offer("RTX 3090", 0.3, 50.0, &known),
            offer("RTX 4090", 0.5, 100.0, &known),
            offer("RTX 4090", 0.4, 100.0, &known),
            offer("H100", 1.6, 400.0, &known),
            offer("odd", 0.9, 0.0, &known),
        ];
        let seen = Measured { rate: 2.0, gpu: "rtx_4090".into(), done: 0, head_bytes: 0 };
        let kinds = grouped(found, &seen, &known, Market::OnDemand, Some(5.0));
        let brief: Vec<_> = kinds
            .iter()
            .map(|k| {
                let offer = k.offer.as_ref().unwrap();
                (offer.gpu.as_str(), k.offers, k.steps_per_second, k.estimated, k.guessed, k.in_time)
            })
            .collect();
        assert_eq!(
            brief,
            [
                ("RTX 4090", 2, 2.0, false, false, false),
                ("H100", 1, 8.0, true, false, true),
                ("RTX 3090", 1, 1.0, true, false, false),
                ("odd", 1, 2.0, true, true, false),
            ]
        );
        assert_eq!(kinds[0].offer.as_ref().unwrap().usd_per_hour, 0.4);
    }
}
