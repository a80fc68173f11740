//! Meters against a bill of every second, and each way in which they are told.

use super::*;
use proptest::prelude::*;

const HOUR: u64 = 3_600_000;
const RATES: Rates =
    Rates { compute_usd_per_hour: 1.0, disk_usd_per_hour: 0.1, up_usd_per_gb: 0.02, down_usd_per_gb: 0.01 };

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn the_disk_costs_from_the_creation_and_the_rest_while_it_runs() {
    let mut meter = Meter::default();
    assert!(close(meter.at(HOUR).total(), 0.0));
    meter.begin(HOUR, RATES);
    // Not looked at: it may run.
    assert!(close(meter.at(2 * HOUR).total(), 1.1));
    meter.look(2 * HOUR, Billed::Disk, RATES);
    assert!(close(meter.at(2 * HOUR).total(), 0.1));
    // Running at the next look: since the last one, for all that is known.
    meter.look(3 * HOUR, Billed::All, RATES);
    assert!(close(meter.at(3 * HOUR).compute_usd, 1.0), "{meter:?}");
    // Outbid in between.
    meter.look(4 * HOUR, Billed::Disk, RATES);
    meter.look(5 * HOUR, Billed::Disk, RATES);
    meter.end(6 * HOUR);
    let parts = meter.at(100 * HOUR);
    assert!(close(parts.compute_usd, 3.0) && close(parts.disk_usd, 0.5), "{parts:?}");
}

#[test]
fn a_price_that_changed_counts_as_the_dearer_one_until_the_look() {
    let mut meter = Meter::default();
    meter.begin(HOUR, Rates::flat(1.0));
    meter.look(HOUR, Billed::All, Rates::flat(1.0));
    meter.look(2 * HOUR, Billed::All, Rates::flat(3.0));
    assert!(close(meter.at(2 * HOUR).total(), 3.0));
    meter.look(3 * HOUR, Billed::All, Rates::flat(1.0));
    assert!(close(meter.at(4 * HOUR).total(), 7.0));
}

#[test]
fn who_was_alive_after_its_end_cost_all_of_the_time_between() {
    let mut meter = Meter::default();
    meter.begin(HOUR, Rates::flat(1.0));
    meter.end(2 * HOUR);
    meter.resume(HOUR);
    assert!(close(meter.at(5 * HOUR).total(), 4.0), "{meter:?}");
    meter.end(6 * HOUR);
    assert!(close(meter.at(9 * HOUR).total(), 5.0), "{meter:?}");
    // One that was taken for never made.
    meter.void();
    meter.resume(HOUR);
    assert!(close(meter.at(3 * HOUR).total(), 2.0), "{meter:?}");
}

#[test]
fn a_part_of_its_life_has_what_fell_on_it() {
    let mut meter = Meter::default();
    let begin = 10 * DAY_MS + 12 * HOUR;
    meter.begin(begin, Rates::flat(1.0));
    // Looked at each hour for three days, then nobody was there for two.
    for hour in 1..=72 {
        meter.look(begin + hour * HOUR, Billed::All, Rates::flat(1.0));
    }
    let now = begin + 120 * HOUR;
    for (from, usd) in [(0, 120.0), (10, 120.0), (11, 108.0), (13, 60.0), (14, 36.0), (15, 12.0), (16, 0.0)] {
        assert!(close(meter.since_day(from, now), usd), "{from}: {}", meter.since_day(from, now));
    }
    let mut looked = meter.clone();
    looked.end(now);
    for from in 0..17 {
        assert!(close(looked.since_day(from, now + 9 * DAY_MS), meter.since_day(from, now)), "{from}");
    }
    for day in 20..600 {
        meter.look(day * DAY_MS, Billed::All, Rates::flat(1.0));
    }
    assert!(meter.days.len() == DAYS && close(meter.since_day(590, 599 * DAY_MS), 9.0 * 24.0));
}

#[test]
fn the_last_word_of_its_provider_makes_it_cheaper_and_not_less_than_is_certain() {
    let mut meter = Meter::default();
    meter.begin(HOUR, Rates::flat(1.0));
    for minute in 1..=60 {
        meter.look(HOUR + minute * 60_000, Billed::All, Rates::flat(1.0));
    }
    let running = meter.clone();
    assert!(!meter.charged(0.1) && meter == running, "it has not ended");
    meter.end(5 * HOUR);
    let mut told = meter.clone();
    assert!(close(told.at(9 * HOUR).total(), 4.0));
    assert!(told.charged(2.5) && close(told.at(9 * HOUR).total(), 2.5) && !told.charged(2.5));
    assert!(!told.charged(3.0) && !told.charged(f64::NAN));
    assert!(told.charged(0.0) && (told.at(9 * HOUR).total() - 1.0).abs() < 0.02, "{told:?}");
    assert!(meter.charged(9.0) && close(meter.at(9 * HOUR).total(), 4.0), "a finding, and no price");
}

#[test]
fn a_gigabyte_is_so_much_time_of_a_machine() {
    let rates = Rates { compute_usd_per_hour: 0.4, up_usd_per_gb: 0.02, ..Rates::default() };
    assert_eq!(rates.gigabytes_as_ms(), (180_000, 0));
    assert_eq!(Rates { up_usd_per_gb: 1.0, ..Rates::default() }.gigabytes_as_ms(), (0, 0));
    assert_eq!(Rates { up_usd_per_gb: 1e300, ..Rates::flat(1e-9) }.gigabytes_as_ms().0, 32_000_000_000);
}

#[test]
fn bytes_count_both_ways_and_a_new_boot_begins_at_nothing() {
    let mut meter = Meter::default();
    meter.begin(1, RATES);
    meter.traffic(2_000_000_000, 1_000_000_000);
    meter.traffic(3_000_000_000, 1_000_000_000);
    meter.traffic(1_000_000_000, 0);
    assert!(close(meter.at(1).traffic_usd, 4.0 * 0.02 + 0.01), "{meter:?}");
}

#[test]
fn a_day_has_what_fell_on_it() {
    let mut meter = Meter::default();
    let begin = DAY_MS - 2 * HOUR;
    meter.begin(begin, Rates::flat(1.0));
    meter.look(begin, Billed::All, Rates::flat(1.0));
    assert!(close(meter.on_day_of(DAY_MS - HOUR), 1.0));
    // Without a look after midnight, and with one.
    assert!(close(meter.on_day_of(DAY_MS + HOUR), 1.0));
    meter.look(DAY_MS + HOUR, Billed::All, Rates::flat(1.0));
    assert!(close(meter.on_day_of(DAY_MS + 3 * HOUR), 3.0));
    meter.end(DAY_MS + 4 * HOUR);
    assert!(close(meter.on_day_of(DAY_MS + 5 * HOUR), 4.0));
    assert!(close(meter.on_day_of(3 * DAY_MS), 0.0));
}

proptest! {
    /// However seldom it is looked at, the meter never shows less than a
    /// provider bills that charges each second for what it does then.
    #[test]
    fn i16_the_meter_is_never_below_the_bill(
        plan in proptest::collection::vec((0u8..3, 1u64..600, 1u32..40, any::<bool>()), 1..40)
    ) {
        let mut meter = Meter::default();
        let mut now = 1_000_000;
        let mut bill = 0.0;
        let rates = |cents: u32| Rates { compute_usd_per_hour: f64::from(cents) / 10.0, disk_usd_per_hour: 0.05, ..RATES };
        meter.begin(now, rates(plan[0].2));
        let mut last = (Billed::Disk, rates(plan[0].2));
        for (state, seconds, cents, looked) in plan {
            let billed = [Billed::Disk, Billed::All, Billed::Disk][usize::from(state)];
            // What is not looked at stays as it was: only looks see changes.
            let (billed, rate) = if looked { (billed, rates(cents)) } else { last };
            // The change happens somewhere between two looks.
            let half = seconds * 500;
            let mut parts = Parts::default();
            add(&mut parts, half, last.0, &last.1);
            add(&mut parts, seconds * 1_000 - half, billed, &rate);
            bill += parts.total();
            now += seconds * 1_000;
            prop_assert!(meter.at(now).total() + 1e-9 >= bill || looked, "{meter:?} {bill}");
            if looked { meter.look(now, billed, rate); }
            last = (billed, rate);
            if looked { prop_assert!(meter.at(now).total() + 1e-9 >= bill, "{meter:?} {bill}"); }
        }
        // It starts once more, and nobody looks before it is gone.
        let mut parts = Parts::default();
        add(&mut parts, 60_000, Billed::All, &last.1);
        bill += parts.total();
        meter.end(now + 60_000);
        prop_assert!(meter.at(now).total() + 1e-9 >= bill);
    }
}

#[test]
fn every_day_keeps_what_fell_on_it_however_seldom_it_is_looked_at() {
    let day_0 = 20_000;
    let begin = day_0 * DAY_MS + 22 * HOUR;
    let mut meter = Meter::default();
    meter.begin(begin, Rates::flat(1.0));
    meter.look(begin, Billed::All, Rates::flat(1.0));
    let days = |meter: &Meter, now: u64| meter.by_day(begin, now).into_iter().collect::<Vec<_>>();
    // Nobody looked since: two hours, a whole day, and one hour.
    let later = (day_0 + 2) * DAY_MS + HOUR;
    let wanted = [(day_0, 2.0), (day_0 + 1, 24.0), (day_0 + 2, 1.0)];
    assert_eq!(days(&meter, later), wanted);
    // One look over both midnights says the same, and so does what comes later.
    meter.look(later, Billed::Disk, Rates::flat(1.0));
    assert_eq!(days(&meter, later), wanted);
    meter.look((day_0 + 3) * DAY_MS + HOUR, Billed::All, Rates::flat(1.0));
    meter.end((day_0 + 3) * DAY_MS + 2 * HOUR);
    // Kept in a row and read again.
    let row = serde_json::to_string(&meter).unwrap();
    let meter: Meter = serde_json::from_str(&row).unwrap();
    let all = days(&meter, (day_0 + 90) * DAY_MS);
    assert_eq!((&all[..2], all.len()), (&wanted[..2], 4), "{all:?}");
    assert!(close(all.iter().map(|(_, usd)| usd).sum(), meter.at(u64::MAX).total()), "{all:?}");
}

#[test]
fn what_is_sent_and_received_is_told_apart_and_what_nobody_saw_is_open() {
    let mut meter = Meter::default();
    meter.begin(1, RATES);
    meter.look(1, Billed::All, RATES);
    meter.traffic(2_000_000_000, 1_000_000_000);
    let parts = meter.at(1 + HOUR);
    assert!(close(parts.up_usd, 0.04) && close(parts.down_usd(), 0.01), "{parts:?}");
    assert!(close(parts.total() - meter.settled().total(), 1.1), "{parts:?}");
}
