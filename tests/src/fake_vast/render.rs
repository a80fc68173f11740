//! An instance as the vendor shows it.

use serde_json::{Value, json};

use super::filters::Row;
use super::market::cost;
use super::state::{Claim, Instance, Status, Wanted, World};

/// Everything about an instance, in the vendor's words.
pub(super) fn row(world: &World, instance: &Instance) -> Row {
    let mut row =
        world.machines.get(&instance.machine).map(|machine| machine.fields.clone()).unwrap_or_default();
    let words = |wanted: Wanted| if wanted == Wanted::Running { "running" } else { "stopped" };
    // Whoever is outbid reads that it was meant to stop.
    let intended = if instance.outbid { "stopped" } else { words(instance.wanted) };
    let current = if instance.holds { "running" } else { "stopped" };
    let running = instance.status == Some(Status::Running);
    let rates = &instance.rates;
    let total = rates.gpu + rates.disk;
    let seconds = |ms: u64| json!(f64::from(u32::try_from(ms / 1000).unwrap_or(u32::MAX)));
    let uptime = instance.running_since_ms.map(|since| (world.now - since) / 60_000);
    let per_total = |row: &Row, key: &str| {
        row.get(key).and_then(Value::as_f64).unwrap_or_default() / total.in_dollars().max(1e-9)
    };
    let computed = [
        ("id", json!(instance.id)),
        ("machine_id", json!(instance.machine)),
        ("actual_status", json!(instance.status.map(Status::word))),
        ("intended_status", json!(intended)),
        ("cur_state", json!(current)),
        ("next_state", json!(intended)),
        ("status_msg", json!(instance.message)),
        ("label", json!(instance.label)),
        ("template_id", Value::Null),
        ("template_hash_id", Value::Null),
        ("template_name", Value::Null),
        ("image_uuid", json!(instance.image)),
        ("image_args", json!(instance.args)),
        ("image_runtype", json!(instance.runtype)),
        ("extra_env", json!(instance.env)),
        ("onstart", json!(instance.onstart)),
        ("jupyter_token", json!("")),
        ("local_ipaddrs", json!("192.168.1.2 172.17.0.1 \n")),
        ("start_date", seconds(instance.created_ms)),
        ("end_date", seconds(instance.ends_ms)),
        ("duration", seconds(instance.ends_ms.saturating_sub(world.now))),
        ("uptime_mins", json!(uptime)),
        ("client_run_time", json!(instance.meter.gpu_ms / 1000)),
        ("host_run_time", json!(instance.meter.disk_ms / 1000)),
        ("cpu_util", json!(0.0)),
        ("mem_limit", if running { json!(64.0) } else { Value::Null }),
        ("mem_usage", if running { json!(1.5) } else { Value::Null }),
        ("vmem_usage", if running { json!(0.0) } else { Value::Null }),
        ("gpu_util", if running { json!(0.0) } else { Value::Null }),
        ("gpu_temp", if running { json!(40.0) } else { Value::Null }),
        ("disk_space", json!(instance.disk_gb)),
        ("disk_usage", json!(if running { 1.0 } else { -1.0 })),
        ("disk_util", json!(if running { 0.1 } else { -1.0 })),
        ("is_bid", json!(instance.claim == Claim::Bid)),
        ("min_bid", json!(rates.gpu)),
        ("dph_base", json!(rates.gpu)),
        ("dph_total", json!(total)),
        ("storage_cost", json!(rates.disk.in_dollars() * super::money::MONTH_HOURS / instance.disk_gb)),
        ("storage_total_cost", json!(rates.disk)),
        ("inet_up_cost", json!(rates.up_gigabyte)),
        ("inet_down_cost", json!(rates.down_gigabyte)),
        ("vram_costperhour", json!(0.0)),
        ("score", json!(per_total(&row, "dlperf"))),
        ("dlperf_per_dphtotal", json!(per_total(&row, "dlperf"))),
        ("flops_per_dphtotal", json!(per_total(&row, "total_flops"))),
        ("credit_balance", Value::Null),
        ("credit_discount", Value::Null),
        ("reliability2", row.get("reliability").cloned().unwrap_or_default()),
        ("rentable", json!(false)),
        ("country_code", Value::Null),
        ("volume_info", json!([])),
        ("search", cost(rates.gpu, rates.disk)),
        ("instance", cost(rates.gpu, if running { rates.disk } else { rates.disk_stopped })),
    ];
    row.extend(computed.map(|(key, value)| (key.to_owned(), value)));
    address(world, instance, running, &mut row);
    row
}

/// Where it answers. Ports are there only while it runs.
fn address(world: &World, instance: &Instance, running: bool, row: &mut Row) {
    let direct = instance.runtype.contains("direc");
    let open = row.get("direct_port_count").and_then(Value::as_u64).unwrap_or_default() > 0;
    let ssh = instance.ssh.as_ref();
    if world.options.machines
        && let Some(ssh) = ssh
    {
        row.insert("public_ipaddr".to_owned(), json!(ssh.ssh_host));
    }
    let port = ssh.map_or(0, |ssh| ssh.ssh_port);
    // A client adds one where there is a notebook.
    let shown = if instance.runtype.contains("jupyter") { port.saturating_sub(1) } else { port };
    let known = [
        ("ssh_host", json!(ssh.map(|ssh| ssh.ssh_host.as_str()))),
        ("ssh_port", json!(ssh.map(|_| shown))),
        ("ssh_idx", json!((instance.id % 9).to_string())),
        ("machine_dir_ssh_port", json!(port)),
        ("direct_port_start", json!(-1)),
        ("direct_port_end", json!(-1)),
    ];
    row.extend(known.map(|(key, value)| (key.to_owned(), value)));
    let mapped = world.options.machines || direct && open;
    if running && mapped && ssh.is_some() {
        // The fake's own addresses answer nothing; a machine's command says where it listens.
        let port = if world.options.machines { port } else { port.saturating_add(20_000) };
        let ports = json!({"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": port.to_string()}]});
        row.insert("ports".to_owned(), ports);
    }
}
