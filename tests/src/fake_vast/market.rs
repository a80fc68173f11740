//! Machines for rent: drawn from a seed or described by a test, and the rows
//! that a search shows of them.

use serde_json::{Value, json};

use super::filters::Row;
use super::money::Rate;
use super::state::{Claim, Machine, World};

/// Name, memory in MB, architecture × 100, DLPerf, TFLOPS, dollars an hour.
const GPUS: [(&str, u64, u64, f64, f64, f64); 10] = [
    ("RTX 3060", 12_288, 860, 12.1, 12.7, 0.07),
    ("RTX 3090", 24_576, 860, 32.4, 35.3, 0.19),
    ("RTX 4070", 12_282, 890, 24.8, 29.1, 0.12),
    ("RTX 4090", 24_564, 890, 92.2, 81.6, 0.36),
    ("RTX 5090", 32_607, 1200, 141.3, 105.3, 0.58),
    ("RTX A6000", 49_140, 860, 44.9, 38.6, 0.44),
    ("L40S", 46_068, 890, 77.5, 91.5, 0.78),
    ("A100 SXM4", 81_920, 800, 86.8, 19.5, 0.92),
    ("H100 SXM", 81_559, 900, 218.7, 66.8, 2.13),
    ("H200", 143_771, 900, 240.5, 66.9, 2.94),
];
const PLACES: [&str; 8] = [
    "Quebec, CA",
    "Texas, US",
    "California, US",
    "Iceland, IS",
    "Germany, DE",
    "Norway, NO",
    "Poland, PL",
    "Taiwan, TW",
];
/// Machines at most.
pub(super) const MOST: usize = 20_000;

/// The least by which one bid outranks another, in dollars an hour.
const BID_STEP: f64 = 0.001;

/// Draws a market in place of the one there is, but for machines in use.
pub(super) fn generate(world: &mut World, seed: u64, count: usize) {
    let used: Vec<u64> = world.live.values().map(|instance| instance.machine).collect();
    world.machines.retain(|id, _| used.contains(id));
    let mut random = fastrand::Rng::with_seed(seed);
    for index in 0..count.min(MOST) {
        let id = 10_000 + index as u64;
        if !world.machines.contains_key(&id) {
            add(world, &mut random, id, &Row::new());
        }
    }
}

/// Adds a machine or changes what is given of one; everything else is drawn.
pub(super) fn add(world: &mut World, random: &mut fastrand::Rng, id: u64, given: &Row) {
    let ask = world.new_ask();
    let drawn = draw(random, id, ask, world.now);
    let number = |key: &str| given.get(key).and_then(Value::as_f64);
    let mut machine = match world.machines.remove(&id) {
        Some(machine) => machine,
        None => drawn,
    };
    for (key, value) in given {
        machine.fields.insert(key.clone(), value.clone());
    }
    describe(&mut machine.fields, given);
    let dollars = |key: &str, was: Rate| number(key).map_or(was, Rate::dollars);
    machine.price = dollars("price", machine.price);
    machine.min_bid = dollars("min_bid", machine.min_bid);
    machine.up_gigabyte = dollars("inet_up_cost", machine.up_gigabyte);
    machine.down_gigabyte = dollars("inet_down_cost", machine.down_gigabyte);
    machine.disk = number("storage_cost").unwrap_or(machine.disk);
    machine.disk_stopped = number("storage_cost_stopped").unwrap_or(machine.disk_stopped);
    if let Some(rival) = given.get("rival") {
        machine.rival = rival.as_f64().map(Rate::dollars);
    }
    if let Some(rentable) = given.get("rentable").and_then(Value::as_bool) {
        machine.rentable = rentable;
    }
    if let Some(seconds) = given.get("duration").and_then(Value::as_u64) {
        machine.ends_ms = world.now + seconds * 1000;
    }
    for told in ["price", "min_bid", "storage_cost_stopped", "rival", "duration", "rentable"] {
        machine.fields.remove(told);
    }
    world.machines.insert(id, machine);
}

/// What follows from the GPUs that are given, where it is not given too.
fn describe(fields: &mut Row, given: &Row) {
    let name = given.get("gpu_name").and_then(Value::as_str);
    let known = GPUS.iter().find(|(known, ..)| Some(*known) == name);
    if known.is_none() && !given.contains_key("num_gpus") && !given.contains_key("gpu_ram") {
        return;
    }
    let count = fields.get("num_gpus").and_then(Value::as_u64).unwrap_or(1);
    let mut set = |key: &str, value: Value| {
        if !given.contains_key(key) {
            fields.insert(key.to_owned(), value);
        }
    };
    if let Some((_, ram, cap, dlperf, tflops, _)) = known {
        let count = f64::from(u32::try_from(count).unwrap_or(1));
        set("gpu_ram", json!(ram));
        set("compute_cap", json!(cap));
        set("dlperf", json!(dlperf * count));
        set("total_flops", json!(tflops * count));
    }
    let ram = fields.get("gpu_ram").and_then(Value::as_u64).unwrap_or_default();
    for key in ["gpu_totalram", "gpu_total_ram"] {
        if !given.contains_key(key) {
            fields.insert(key.to_owned(), json!(ram * count));
        }
    }
}

fn draw(random: &mut fastrand::Rng, id: u64, ask: u64, now: u64) -> Machine {
    let (gpu_name, gpu_ram, cap, dlperf, tflops, price) = GPUS[random.usize(0..GPUS.len())];
    let gpus = [1_u32, 1, 1, 2, 4, 8][random.usize(0..6)];
    let count = f64::from(gpus);
    let cent = |value: f64| (value * 10_000.0).round() / 10_000.0;
    let price = cent(price * count * (0.7 + 0.8 * random.f64()));
    let disk = cent(0.1 + 0.2 * random.f64());
    let verified = random.u8(0..10) > 0;
    let up = cent(random.f64() * 0.02);
    let down = cent(random.f64() * 0.02);
    let speed = f64::from(random.u32(200..8000));
    let cuda = [12.2, 12.4, 12.8][random.usize(0..3)];
    let place = PLACES[random.usize(0..PLACES.len())];
    let gpu = json!({
        "num_gpus": gpus, "gpu_name": gpu_name, "gpu_ram": gpu_ram, "gpu_totalram": gpu_ram * u64::from(gpus),
        "gpu_total_ram": gpu_ram * u64::from(gpus), "gpu_frac": 1.0, "gpu_arch": "nvidia", "gpu_ids": [],
        "gpu_lanes": 16, "gpu_mem_bw": cent(400.0 + 1600.0 * random.f64()), "gpu_max_power": 350.0,
        "gpu_max_temp": 90.0, "gpu_display_active": random.u8(0..20) == 0, "bw_nvlink": 0.0, "compute_cap": cap,
        "cuda_max_good": cuda, "driver_version": "550.127.05", "driver_vers": 550_127_005_u64,
        "dlperf": cent(dlperf * count), "total_flops": tflops * count,
    });
    let computer = json!({
        "cpu_name": "AMD EPYC 7443P", "cpu_arch": "amd64", "cpu_cores": 48, "cpu_cores_effective": 12.0 * count,
        "cpu_ghz": 2.85, "cpu_ram": 64_000 * u64::from(gpus), "has_avx": 1, "mobo_name": "ROMED8-2T",
        "os_version": "22.04", "ubuntu_version": "22.04", "pci_gen": 4.0, "pcie_bw": 24.1,
        "disk_space": f64::from(random.u32(100..2000)), "disk_bw": f64::from(random.u32(800..6000)),
        "disk_name": "nvme", "inet_up": speed, "inet_down": speed * 1.1, "inet_up_cost": up, "inet_down_cost": down,
    });
    let host = json!({
        "machine_id": id, "host_id": 60_000 + id % 97, "bundle_id": 500_000_000 + id,
        "reliability": cent(0.9 + 0.0999 * random.f64()), "verification": if verified { "verified" } else { "unverified" },
        "static_ip": random.bool(), "public_ipaddr": format!("203.0.113.{}", id % 250 + 1),
        "direct_port_count": random.u32(0..250), "geolocation": place, "datacenter": random.bool(),
        "hosting_type": 0, "external": false, "vms_enabled": false, "cluster_id": null, "resource_type": "gpu",
        "credit_discount_max": 0.4, "logo": "/static/logos/vastai_small2.png", "webpage": null,
        "time_remaining": "", "time_remaining_isbid": "",
        "geolocode": 42, "hostname": null, "vericode": u8::from(verified), "is_vm_deverified": false,
        "reliability_mult": 0.95, "expected_reliability": 0.95, "avail_vol_ask_id": null, "avail_vol_dph": null,
        "avail_vol_size": null, "nw_disk_min_bw": null, "nw_disk_max_bw": null, "nw_disk_avg_bw": null,
    });
    let mut fields = Row::new();
    for part in [gpu, computer, host] {
        if let Value::Object(part) = part {
            fields.extend(part);
        }
    }
    Machine {
        id,
        ask,
        price: Rate::dollars(price),
        min_bid: Rate::dollars(cent(price * 0.4)),
        disk,
        disk_stopped: disk * 2.0,
        up_gigabyte: Rate::dollars(up),
        down_gigabyte: Rate::dollars(down),
        ends_ms: now + 86_400_000 * random.u64(20..120),
        rentable: true,
        rival: None,
        fields,
    }
}

/// Whether somebody has a machine on demand, for whom no bid counts.
pub(super) fn taken(world: &World, machine: u64) -> bool {
    world
        .live
        .values()
        .any(|instance| instance.machine == machine && instance.holds && instance.claim == Claim::OnDemand)
}

/// The least bid that wins a machine now, `own` apart.
pub(super) fn winning_bid(world: &World, machine: &Machine, own: Option<u64>) -> Rate {
    let held = world
        .live
        .values()
        .filter(|instance| instance.machine == machine.id && instance.holds && Some(instance.id) != own)
        .filter(|instance| instance.claim == Claim::Bid)
        .map(|instance| instance.rates.gpu);
    let higher = held.chain(machine.rival).map(|rate| rate + Rate::dollars(BID_STEP)).max();
    higher.map_or(machine.min_bid, |rate| rate.max(machine.min_bid))
}

/// The row of one offer. With a bid the GPUs cost what wins now.
pub(super) fn offer(world: &World, machine: &Machine, bid: bool, disk_gb: f64) -> Row {
    let mut row = machine.fields.clone();
    let taken = taken(world, machine.id);
    let winning = winning_bid(world, machine, None);
    let gpu = if bid { winning } else { machine.price };
    let disk = Rate::disk(disk_gb, machine.disk);
    let disk_stopped = Rate::disk(disk_gb, machine.disk_stopped);
    let total = (gpu + disk).in_dollars();
    let per_total = |key: &str, row: &Row| {
        let value = row.get(key).and_then(Value::as_f64).unwrap_or_default();
        if total > 0.0 { value / total } else { 0.0 }
    };
    let duration = machine.ends_ms.saturating_sub(world.now) / 1000;
    let computed = [
        ("id", json!(machine.ask)),
        ("ask_contract_id", json!(machine.ask)),
        ("machine_id", json!(machine.id)),
        ("dph_base", json!(gpu)),
        ("dph_total", json!(total)),
        ("min_bid", json!(winning)),
        ("is_bid", json!(bid)),
        ("storage_cost", json!(machine.disk)),
        ("storage_total_cost", json!(disk)),
        ("inet_up_cost", json!(machine.up_gigabyte)),
        ("inet_down_cost", json!(machine.down_gigabyte)),
        ("internet_up_cost_per_tb", json!(machine.up_gigabyte.in_dollars() * 1024.0)),
        ("internet_down_cost_per_tb", json!(machine.down_gigabyte.in_dollars() * 1024.0)),
        ("duration", json!(duration)),
        ("start_date", json!(world.now / 1000)),
        ("end_date", json!(machine.ends_ms / 1000)),
        ("rentable", json!(machine.rentable && !taken && duration > 0)),
        ("rented", json!(taken)),
        ("dlperf_per_dphtotal", json!(per_total("dlperf", &row))),
        ("flops_per_dphtotal", json!(per_total("total_flops", &row))),
        ("score", json!(per_total("dlperf", &row) * 2.0)),
        ("country_code", json!(country(&row))),
        ("bundled_results", Value::Null),
        ("rn", json!(1)),
        ("vram_costperhour", json!(0.0)),
        ("dph_total_adj", json!(total)),
        ("discount_rate", json!(0.0)),
        ("discounted_hourly", json!(0.0)),
        ("discounted_dph_total", json!(total)),
        ("reliability2", row.get("reliability").cloned().unwrap_or_default()),
        ("verified", json!(row.get("verification").and_then(Value::as_str) == Some("verified"))),
        ("search", cost(gpu, disk)),
        ("instance", cost(Rate::ZERO, disk_stopped)),
    ];
    row.extend(computed.map(|(key, value)| (key.to_owned(), value)));
    row
}

/// The code at the end of `Texas, US`.
fn country(row: &Row) -> Option<String> {
    row.get("geolocation").and_then(Value::as_str)?.rsplit(", ").next().map(str::to_owned)
}

/// The vendor's breakdown of a price for an hour.
pub(super) fn cost(gpu: Rate, disk: Rate) -> Value {
    json!({
        "gpuCostPerHour": gpu, "diskHour": disk, "totalHour": gpu + disk, "discountTotalHour": 0.0,
        "discountedTotalPerHour": gpu + disk,
    })
}
