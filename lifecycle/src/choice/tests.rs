//! What is expected of offers: tables of hosts, and hostile figures.

use proptest::prelude::*;

use super::*;
use crate::reputation::Evidence;

fn at(usd: f64) -> Facts {
    Facts { usd_per_hour: usd, reliability: 0.98, ..Facts::default() }
}

fn usd(facts: &Facts, host: &Reputation) -> f64 {
    outlook(facts, &Work::default(), host, &Reputation::default()).usd_per_useful_hour
}

fn seen(list: &[(usize, Evidence)]) -> Reputation {
    let mut host = Reputation::default();
    for (times, evidence) in list {
        for _ in 0..*times {
            host.learn(0, evidence);
        }
    }
    host
}

#[test]
fn the_cheap_one_that_fails_is_dearer_than_the_good_one() {
    let up = Evidence::CameUp { after_s: 200.0 };
    let good = seen(&[(5, up), (5, Evidence::Lived { for_s: 36_000.0, lost: false })]);
    let hourly = seen(&[(20, up), (20, Evidence::Lived { for_s: 3_600.0, lost: true })]);
    let never_up = seen(&[(3, Evidence::Failed { after_s: 600.0 })]);
    let liar = seen(&[(3, Evidence::Lied)]);
    let faulty = seen(&[(4, Evidence::Fault), (4, Evidence::Lived { for_s: 1_800.0, lost: false })]);
    // (what is known of the cheap one, its price by the good one's, whether it is chosen)
    for (name, cheap, price, chosen) in [
        ("unknown", &Reputation::default(), 0.95, true),
        ("unknown at the same price", &Reputation::default(), 1.0, false),
        ("dies each hour", &hourly, 0.95, false),
        ("dies each hour, nearly free", &hourly, 0.3, true),
        ("never comes up", &never_up, 0.9, false),
        ("lied", &liar, 0.9, false),
        ("its hardware fails", &faulty, 0.98, false),
    ] {
        let wins = usd(&at(0.4 * price), cheap) < usd(&at(0.4), &good);
        assert_eq!(wins, chosen, "{name}: {} {}", usd(&at(0.4 * price), cheap), usd(&at(0.4), &good));
    }
}

#[test]
fn speed_traffic_and_the_market_have_their_price() {
    let work = Work { hours: Some(10.0), reference_speed: 50.0, ..Work::default() };
    let none = Reputation::default();
    let of = |facts: &Facts| outlook(facts, &work, &none, &none);
    let (slow, fast) = (of(&Facts { speed: 50.0, ..at(0.4) }), of(&Facts { speed: 100.0, ..at(0.8) }));
    // Twice as fast at twice the price: about the same money in half the time.
    assert!((slow.usd - fast.usd).abs() < 0.1 && fast.hours < 0.55 * slow.hours, "{slow:?} {fast:?}");
    assert!((4.0..4.4).contains(&slow.usd) && (10.0..10.7).contains(&slow.hours), "{slow:?}");
    let unsure = of(&Facts { market: Market::Interruptible, speed: 50.0, ..at(0.4) });
    assert!(unsure.losses > 5.0 && unsure.hours > slow.hours + 0.5, "{unsure:?}");
    let heavy = Work { start_bytes: 100e9, up_gb_per_hour: 10.0, ..work };
    let traffic = Facts { down_usd_per_gb: 0.01, up_usd_per_gb: 0.02, speed: 50.0, ..at(0.4) };
    let loaded = outlook(&traffic, &heavy, &none, &none);
    assert!(loaded.usd > slow.usd + 3.0 && loaded.hours > slow.hours + 2.0, "{loaded:?}");
    // The kind speaks where nothing is known of the host.
    let bad = seen(&[(30, Evidence::Lived { for_s: 1_800.0, lost: true })]);
    let mut known = Appraisal { work, ..Appraisal::default() };
    known.kinds.insert(kind("RTX_4090", Market::OnDemand), bad);
    assert!(known.of("1", "RTX 4090", &at(0.4)).usd > 1.05 * known.of("1", "RTX 3090", &at(0.4)).usd);
}

#[test]
fn the_reference_is_the_middle_of_what_is_offered_unless_it_is_given() {
    let known = Appraisal::default();
    let offered = [("A", f64::NAN), ("RTX 4090", 90.0), ("B", 30.0), ("B", 40.0)];
    let speed = |known: &Appraisal| known.measured_by(offered.into_iter()).work.reference_speed;
    assert_eq!(speed(&known), 40.0);
    assert_eq!(known.measured_by(std::iter::empty()).work.reference_speed, 0.0);
    assert_eq!(speed(&Appraisal { reference_gpu: "rtx_4090".into(), ..Appraisal::default() }), 90.0);
    assert_eq!(speed(&Appraisal { reference_gpu: "none".into(), ..Appraisal::default() }), 40.0);
    let given = Appraisal { work: Work { reference_speed: 7.0, ..Work::default() }, ..Appraisal::default() };
    assert_eq!(speed(&given), 7.0);
}

fn odd() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e-300, 1e300]),
        0.0f64..1e4
    ]
}

fn facts() -> impl Strategy<Value = Facts> {
    (odd(), odd(), odd(), odd(), odd(), odd(), any::<bool>()).prop_map(
        |(usd, down, up, speed, link, rel, bid)| Facts {
            usd_per_hour: usd,
            down_usd_per_gb: down,
            up_usd_per_gb: up,
            speed,
            down_bytes_per_s: link,
            reliability: rel,
            market: if bid { Market::Interruptible } else { Market::OnDemand },
        },
    )
}

#[test]
fn the_reference_is_named_as_the_one_whose_speed_is_taken() {
    let offered = || [("RTX 3090", 50.0), ("H100 SXM", 400.0), ("RTX 4090", 100.0), ("odd", 0.0)].into_iter();
    let known = Appraisal::default();
    assert_eq!(known.reference(offered()), "RTX 4090");
    assert_eq!(known.measured_by(offered()).work.reference_speed, 100.0);
    let known = Appraisal { reference_gpu: "h100_sxm".into(), ..known };
    assert_eq!(known.reference(offered()), "H100 SXM");
    assert_eq!(known.reference([("odd", 0.0)].into_iter()), "");
}

proptest! {
    /// Whatever stands in an offer and in the books, the answer is a number.
    #[test]
    fn no_offer_makes_it_negative_or_none(
        facts in facts(), hours in prop::option::of(odd()), reference in odd(), bytes in odd(), up in odd(),
        known in (odd(), odd(), odd(), odd(), odd(), odd(), odd()),
    ) {
        let (up_count, failed, boot_s, fail_s, lived_s, losses, lies) = known;
        let host = Reputation { up: up_count, failed, boot_s, fail_s, lived_s, losses, lies, ..Reputation::default() };
        let work = Work { hours, reference_speed: reference, start_bytes: bytes, up_gb_per_hour: up, ..Work::default() };
        let seen = outlook(&facts, &work, &host, &host);
        for figure in [seen.hours, seen.usd, seen.usd_per_useful_hour, seen.useful, seen.losses, seen.boot_s] {
            prop_assert!(figure.is_finite() && figure >= 0.0, "{seen:?}");
        }
        prop_assert!(seen.hours > 0.0);
    }

    /// Dearer is never cheaper, and a host that was lost once more, failed once
    /// more or lied once more never costs less.
    #[test]
    fn it_rises_with_the_price_and_with_the_losses(
        usd_per_hour in 0.01f64..20.0, more in 0.0f64..5.0, rel in 0.5f64..1.0, hours in 0.1f64..500.0,
        lived in 0.0f64..1e6, losses in 0.0f64..50.0, up in 0.0f64..50.0, failed in 0.0f64..50.0,
    ) {
        let work = Work { hours: Some(hours), ..Work::default() };
        let host = Reputation { lived_s: lived, losses, up, failed, boot_s: up * 100.0, fail_s: failed * 600.0,
            ..Reputation::default() };
        let facts = Facts { usd_per_hour, reliability: rel, ..Facts::default() };
        let of = |facts: &Facts, host: &Reputation| outlook(facts, &work, host, &Reputation::default());
        let base = of(&facts, &host);
        let dearer = of(&Facts { usd_per_hour: usd_per_hour + more, ..facts }, &host);
        prop_assert!(dearer.usd >= base.usd);
        let mean_fail = host.mean_fail_s();
        for worse in [
            Evidence::Lived { for_s: 0.0, lost: true },
            Evidence::Fault,
            Evidence::Failed { after_s: mean_fail },
            Evidence::Lied,
        ] {
            let mut known = host;
            known.learn(0, &worse);
            let seen = of(&facts, &known);
            // The interval is the best to a few parts in a hundred thousand.
            prop_assert!(seen.usd >= base.usd * 0.9999 && seen.hours >= base.hours * 0.9999, "{worse:?} {base:?} {seen:?}");
        }
    }
}
