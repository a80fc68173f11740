//! Which machine to rent: the question as Vast.ai takes it, the offers in its
//! answer, and their order. Pure. What the vendor filters is filtered again
//! here: a filter that is not known there is passed over in silence.

use lifecycle::choice::{Appraisal, Facts, Outlook};
use lifecycle::meter::Rates;
use lifecycle::spec::{MachineSpec, Market};
use serde_json::{Map, Value, json};

use super::answer::id;
use super::filter;

/// Offers asked for with one question.
const LIMIT: u32 = 64;
/// And where any kind will do.
const LIMIT_ANY: u32 = 256;
/// Offers read of one answer at most.
const READ_MAX: usize = 2_000;
const GB: f64 = 1e9;
/// The vendor counts memory in megabytes.
const MB: f64 = 1e6;
/// A bid this much above the lowest is not outbid at once.
const BID_ABOVE: f64 = 1.1;
/// A card of 24 GB is listed with a little less than it is sold as.
const MEMORY_SLACK: f64 = 0.97;
/// Longest name of a kind of GPU or place that is taken from an answer.
const NAME_MAX: usize = 64;

/// A machine that can be rented now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Offer {
    /// Used once, and only for a short while.
    pub(super) ask: u64,
    /// The physical machine.
    pub(super) machine: u64,
    pub(super) gpu: String,
    pub(super) gpus: u32,
    pub(super) gpu_memory_bytes: f64,
    pub(super) place: String,
    pub(super) reliability: f64,
    /// Dollars an hour while it runs, with the disk that was asked for.
    pub(super) usd_per_hour: f64,
    /// Dollars an hour for the disk alone, while it is stopped.
    pub(super) stopped_usd_per_hour: f64,
    /// The lowest bid that runs; interruptible ones only.
    pub(super) min_bid: f64,
    /// Dollars for each gigabyte in and out.
    pub(super) down_usd_per_gb: f64,
    pub(super) up_usd_per_gb: f64,
    /// Deep-learning performance in the vendor's measure, for each dollar an hour.
    pub(super) speed_per_usd: f64,
    /// The same measure for the whole machine; 0: not told.
    pub(super) speed: f64,
    /// Bytes a second to it, as the vendor measured; 0: not told.
    pub(super) down_bytes_per_s: f64,
    /// What finishing the work there is expected to take.
    pub(super) outlook: Outlook,
}

/// The question for machines that meet `spec`.
pub(super) fn question(spec: &MachineSpec, most_usd_per_hour: Option<f64>) -> Value {
    let mut q = Map::new();
    let mut ask = |field: &str, op: &str, value: Value| {
        q.insert(field.to_owned(), json!({ op: value }));
    };
    ask("verified", "eq", json!(true));
    ask("external", "eq", json!(false));
    ask("rentable", "eq", json!(true));
    ask("rented", "eq", json!(false));
    // Without an open port there is no way in but the proxy.
    ask("direct_port_count", "gte", json!(1));
    ask("num_gpus", "eq", json!(spec.gpu_count));
    ask("reliability", "gte", json!(spec.min_reliability));
    ask("disk_space", "gte", json!(disk_gb(spec)));
    if !spec.gpus.is_empty() {
        let names: Vec<String> = spec.gpus.iter().map(|name| name.replace('_', " ")).collect();
        ask("gpu_name", "in", json!(names));
    }
    if !spec.regions.is_empty() {
        ask("geolocation", "in", json!(spec.regions));
    }
    #[expect(clippy::cast_precision_loss, reason = "sizes of memory fit")]
    let megabytes = |bytes: u64| (bytes as f64 / MB * MEMORY_SLACK).floor();
    if spec.gpu_memory_bytes > 0 {
        ask("gpu_ram", "gte", json!(megabytes(spec.gpu_memory_bytes)));
    }
    if spec.memory_bytes > 0 {
        ask("cpu_ram", "gte", json!(megabytes(spec.memory_bytes)));
    }
    if spec.cpus > 0 {
        ask("cpu_cores_effective", "gte", json!(spec.cpus));
    }
    if let Some(most) = most_usd_per_hour {
        let price = if spec.market == Market::Interruptible { "min_bid" } else { "dph_total" };
        ask(price, "lte", json!(most));
    }
    filter::ask(&mut q, &spec.filter);
    q.insert("order".into(), json!([["dph_total", "asc"]]));
    q.insert("type".into(), json!(if spec.market == Market::Interruptible { "bid" } else { "on-demand" }));
    // The cheapest of all kinds are of few kinds.
    let limit = if spec.gpus.is_empty() { LIMIT_ANY } else { LIMIT };
    q.insert("limit".into(), json!(limit));
    q.insert("allocated_storage".into(), json!(disk_gb(spec)));
    Value::Object(q)
}

/// The disk in the vendor's unit, which takes whole gigabytes; ten at least.
#[expect(clippy::cast_precision_loss, reason = "sizes of disks fit")]
pub(super) fn disk_gb(spec: &MachineSpec) -> f64 {
    (spec.disk_bytes as f64 / GB).ceil().max(10.0)
}

/// The offers of an answer that meet `spec`, the best first by what `known`
/// makes expect of them; `None` where it is no answer to the question.
pub(super) fn read(
    answer: &Value,
    spec: &MachineSpec,
    most: Option<f64>,
    known: &Appraisal,
) -> Option<Vec<Offer>> {
    let rows = answer.get("offers")?.as_array()?;
    let fits = |row: &&Value| filter::fits(row, spec);
    let mut offers: Vec<Offer> = rows.iter().take(READ_MAX).filter(fits).filter_map(offer).collect();
    offers.retain(|offer| meets(offer, spec, most));
    let known = known.measured_by(offers.iter().map(|offer| (offer.gpu.as_str(), offer.speed)));
    for offer in &mut offers {
        offer.outlook = known.of(&offer.machine.to_string(), &offer.gpu, &facts(offer, spec.market));
    }
    sort(&mut offers, spec);
    offers.dedup_by_key(|offer| offer.ask);
    Some(offers)
}

fn offer(row: &Value) -> Option<Offer> {
    let number = |name: &str| row.get(name).and_then(finite);
    let inner = |group: &str, name: &str| row.get(group).and_then(|g| g.get(name)).and_then(finite);
    let name = |field: &str| {
        let text = row.get(field).and_then(Value::as_str).unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect::<String>()
    };
    let whole = |field: &str| row.get(field).and_then(id);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be small")]
    let gpus = number("num_gpus").filter(|n| (1.0..1e4).contains(n))? as u32;
    let rented = row.get("rented").and_then(Value::as_bool).unwrap_or(false);
    let rentable = row.get("rentable").and_then(Value::as_bool).unwrap_or(true);
    if rented || !rentable {
        return None;
    }
    let usd_per_hour = number("dph_total").filter(|usd| *usd > 0.0)?;
    Some(Offer {
        ask: whole("id").or_else(|| whole("ask_contract_id"))?,
        machine: whole("machine_id")?,
        gpu: name("gpu_name"),
        gpus,
        gpu_memory_bytes: number("gpu_ram").unwrap_or(0.0) * MB,
        place: name("geolocation"),
        reliability: number("reliability").or_else(|| number("reliability2")).unwrap_or(0.0),
        usd_per_hour,
        stopped_usd_per_hour: inner("instance", "diskHour")
            .or_else(|| inner("search", "diskHour"))
            .unwrap_or(0.0),
        min_bid: number("min_bid").unwrap_or(0.0),
        down_usd_per_gb: number("inet_down_cost").unwrap_or(0.0),
        up_usd_per_gb: number("inet_up_cost").unwrap_or(0.0),
        speed_per_usd: number("dlperf_per_dphtotal").unwrap_or(0.0),
        speed: number("dlperf").unwrap_or(0.0),
        // Megabits.
        down_bytes_per_s: number("inet_down").unwrap_or(0.0) * MB / 8.0,
        outlook: Outlook::default(),
    })
}

fn finite(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|n: &f64| n.is_finite() && *n >= 0.0)
}

/// Where a name stands in a list of wishes; the last place is for any.
fn rank(wishes: &[String], is: impl Fn(&str) -> bool) -> Option<usize> {
    if wishes.is_empty() { Some(0) } else { wishes.iter().position(|wish| is(wish)) }
}

fn same(a: &str, b: &str) -> bool {
    let plain = |text: &str| text.replace('_', " ").trim().to_lowercase();
    plain(a) == plain(b)
}

/// Places are written `Norway, NO`.
fn lies_in(place: &str, region: &str) -> bool {
    place.rsplit(',').next().is_some_and(|code| code.trim().eq_ignore_ascii_case(region.trim()))
        || place.eq_ignore_ascii_case(region)
}

fn ranks(offer: &Offer, spec: &MachineSpec) -> Option<(usize, usize)> {
    let gpu = rank(&spec.gpus, |wish| same(wish, &offer.gpu))?;
    let region = rank(&spec.regions, |wish| lies_in(&offer.place, wish))?;
    Some((gpu, region))
}

/// What an hour of it costs as `spec` would rent it.
pub(super) fn price(offer: &Offer, market: Market) -> f64 {
    match market {
        Market::OnDemand => offer.usd_per_hour,
        // A bid is for the machine; its disk is paid besides.
        Market::Interruptible => offer.min_bid.max(0.001) + offer.stopped_usd_per_hour,
    }
}

fn facts(offer: &Offer, market: Market) -> Facts {
    Facts {
        usd_per_hour: price(offer, market),
        down_usd_per_gb: offer.down_usd_per_gb,
        up_usd_per_gb: offer.up_usd_per_gb,
        speed: offer.speed,
        down_bytes_per_s: offer.down_bytes_per_s,
        reliability: offer.reliability,
        market,
    }
}

fn meets(offer: &Offer, spec: &MachineSpec, most: Option<f64>) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "sizes of memory fit")]
    let memory = spec.gpu_memory_bytes as f64 * MEMORY_SLACK;
    ranks(offer, spec).is_some()
        && offer.gpus == spec.gpu_count
        && offer.gpu_memory_bytes >= memory
        && offer.reliability >= spec.min_reliability
        && most.is_none_or(|most| price(offer, spec.market) <= most)
}

/// The wished-for type first, then the wished-for region, then what an hour of
/// useful work is expected to cost.
fn sort(offers: &mut [Offer], spec: &MachineSpec) {
    offers.sort_by(|a, b| {
        let wish = |o: &Offer| ranks(o, spec).unwrap_or((usize::MAX, usize::MAX));
        let cost = |o: &Offer| o.outlook.usd_per_useful_hour;
        wish(a).cmp(&wish(b)).then(cost(a).total_cmp(&cost(b))).then(a.ask.cmp(&b.ask))
    });
}

/// The bid for an offer: a little above the lowest, never above the ceiling
/// with the disk.
pub(super) fn bid(offer: &Offer, most: Option<f64>) -> f64 {
    let wished = offer.min_bid.max(0.001) * BID_ABOVE;
    let bid = most.map_or(wished, |most| wished.min(most - offer.stopped_usd_per_hour));
    (bid * 10_000.0).floor().max(10.0) / 10_000.0
}

/// What a machine of this offer will cost; the disk as if it were stopped, which
/// may be the dearer.
pub(super) fn rates(offer: &Offer, market: Market, most: Option<f64>) -> Rates {
    let disk = offer.stopped_usd_per_hour;
    let compute = match market {
        Market::OnDemand => (offer.usd_per_hour - disk).max(0.0),
        Market::Interruptible => bid(offer, most),
    };
    Rates {
        compute_usd_per_hour: compute,
        disk_usd_per_hour: disk,
        up_usd_per_gb: offer.up_usd_per_gb,
        down_usd_per_gb: offer.down_usd_per_gb,
    }
}

/// As every provider tells of what it has.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size of memory, checked")]
pub(super) fn shown(offer: &Offer, market: Market) -> crate::provider::Offer {
    crate::provider::Offer {
        id: offer.ask.to_string(),
        gpu: offer.gpu.clone(),
        gpus: offer.gpus,
        gpu_memory_bytes: offer.gpu_memory_bytes as u64,
        place: offer.place.clone(),
        machine: offer.machine.to_string(),
        reliability: offer.reliability,
        usd_per_hour: price(offer, market),
        down_usd_per_gb: offer.down_usd_per_gb,
        up_usd_per_gb: offer.up_usd_per_gb,
        speed_per_usd: offer.speed_per_usd,
        speed: offer.speed,
        outlook: offer.outlook,
    }
}

/// What was asked for, in words.
pub(super) fn wish(spec: &MachineSpec, most: Option<f64>) -> String {
    let gpus = if spec.gpus.is_empty() { "any GPU".to_owned() } else { spec.gpus.join(" or ") };
    let place =
        if spec.regions.is_empty() { String::new() } else { format!(" in {}", spec.regions.join(" or ")) };
    let price = most.map_or_else(String::new, |most| format!(" under ${most}/h"));
    let mut text =
        format!("{} x {gpus}{place}{price}, reliability {} or more", spec.gpu_count, spec.min_reliability);
    for filter in &spec.filter {
        text.push_str(&format!(", {filter}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(ask: u64, gpu: &str, place: &str, usd: f64) -> Value {
        json!({
            "id": ask, "machine_id": ask + 1000, "host_id": 5, "gpu_name": gpu, "num_gpus": 1, "gpu_ram": 24_564,
            "geolocation": place, "reliability": 0.99, "dph_total": usd, "min_bid": usd / 2.0,
            "rentable": true, "rented": false, "inet_down_cost": 0.002, "inet_up_cost": 0.003,
            "search": {"diskHour": 0.01}, "instance": {"diskHour": 0.02}, "dlperf_per_dphtotal": 200.5
        })
    }

    fn spec(gpus: &[&str], regions: &[&str]) -> MachineSpec {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        MachineSpec { gpus: own(gpus), regions: own(regions), ..MachineSpec::default() }
    }

    fn asks(rows: &[Value], spec: &MachineSpec, most: Option<f64>) -> Vec<u64> {
        read(&json!({ "offers": rows }), spec, most, &Appraisal::default())
            .unwrap()
            .iter()
            .map(|offer| offer.ask)
            .collect()
    }

    #[test]
    fn types_and_regions_go_in_the_order_of_preference_then_the_price() {
        let rows = || {
            vec![
                row(1, "RTX 3090", "Norway, NO", 0.10),
                row(2, "RTX 4090", "Texas, US", 0.40),
                row(3, "RTX 4090", "Norway, NO", 0.50),
                row(4, "RTX 4090", "Norway, NO", 0.45),
                row(5, "H100 SXM", "Norway, NO", 2.00),
                row(6, "RTX 4090", "Japan, JP", 0.20),
            ]
        };
        assert_eq!(asks(&rows(), &spec(&["RTX_4090", "rtx 3090"], &["no", "US"]), None), [4, 3, 2, 1]);
        assert_eq!(asks(&rows(), &spec(&[], &[]), Some(0.45)), [1, 6, 2, 4]);
        let wish = MachineSpec { market: Market::Interruptible, ..spec(&["RTX 4090"], &[]) };
        // Half the price as a bid, and two cents an hour for the disk.
        assert_eq!(asks(&rows(), &wish, Some(0.23)), [6, 2]);
    }

    #[test]
    fn within_a_type_the_expected_cost_decides_and_the_wished_for_type_all_the_same() {
        let rows = [
            row(1, "RTX 4090", "Norway, NO", 0.40),
            row(2, "RTX 4090", "Norway, NO", 0.42),
            row(3, "RTX 3090", "Norway, NO", 0.10),
        ];
        let mut known = Appraisal::default();
        let mut bad = lifecycle::reputation::Reputation::default();
        for _ in 0..3 {
            bad.learn(0, &lifecycle::reputation::Evidence::Failed { after_s: 600.0 });
        }
        known.hosts.insert("1001".into(), bad);
        let asks = |known: &Appraisal| {
            let spec = spec(&["RTX 4090", "RTX 3090"], &[]);
            let read = read(&json!({ "offers": rows }), &spec, None, known).unwrap();
            read.iter().map(|offer| offer.ask).collect::<Vec<_>>()
        };
        assert_eq!(asks(&Appraisal::default()), [1, 2, 3]);
        assert_eq!(asks(&known), [2, 1, 3], "a host that failed is dearer than it looks");
    }

    #[test]
    fn what_the_vendor_did_not_filter_is_filtered_here() {
        let mut rows: Vec<Value> = (1..=7).map(|ask| row(ask, "RTX 4090", "Norway, NO", 0.4)).collect();
        rows[0]["rented"] = json!(true);
        rows[1]["num_gpus"] = json!(2);
        rows[2]["reliability"] = json!(0.5);
        rows[3]["gpu_ram"] = json!(11_000);
        rows[4]["dph_total"] = json!("free");
        rows[5]["id"] = json!(-3);
        let spec = MachineSpec { gpu_memory_bytes: 24_000_000_000, ..spec(&[], &[]) };
        assert_eq!(asks(&rows, &spec, None), [7]);
        assert!(read(&json!({"success": true}), &spec, None, &Appraisal::default()).is_none());
        assert!(read(&json!({"offers": {}}), &spec, None, &Appraisal::default()).is_none());
    }

    #[test]
    fn the_question_has_the_vendors_units_and_words() {
        let wish = MachineSpec {
            gpu_memory_bytes: 24_000_000_000,
            memory_bytes: 64_000_000_000,
            cpus: 8,
            disk_bytes: 20_500_000_000,
            market: Market::Interruptible,
            ..spec(&["RTX_4090"], &["NO"])
        };
        let q = question(&wish, Some(0.5));
        assert_eq!(q["gpu_name"], json!({"in": ["RTX 4090"]}));
        assert_eq!((&q["gpu_ram"]["gte"], &q["cpu_ram"]["gte"]), (&json!(23_280.0), &json!(62_080.0)));
        assert_eq!((&q["type"], &q["min_bid"]), (&json!("bid"), &json!({"lte": 0.5})));
        assert_eq!((&q["allocated_storage"], &q["disk_space"]["gte"]), (&json!(21.0), &json!(21.0)));
        assert_eq!(q["geolocation"], json!({"in": ["NO"]}));
        assert_eq!(question(&MachineSpec::default(), Some(0.5))["dph_total"], json!({"lte": 0.5}));
    }

    proptest! {
        #[test]
        fn whatever_stands_in_an_offer_it_is_read_or_passed_over(
            field in prop::sample::select(vec!["id", "num_gpus", "dph_total", "gpu_name", "geolocation", "machine_id",
                "reliability", "gpu_ram", "search", "instance", "rented"]),
            value in prop::sample::select(vec![json!(null), json!(""), json!([]), json!({}), json!(-1), json!(1e300),
                json!("1e999"), json!(true), json!("\u{1b}[31m"), json!(0)]),
        ) {
            let mut one = row(1, "RTX 4090", "Norway, NO", 0.4);
            one[field] = value;
            for offer in read(&json!({"offers": [one]}), &MachineSpec::default(), None, &Appraisal::default()).unwrap() {
                prop_assert!(offer.usd_per_hour.is_finite() && offer.ask > 0 && offer.gpus == 1);
                prop_assert!(!offer.gpu.chars().any(char::is_control));
            }
        }
    }
}
