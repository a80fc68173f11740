//! What happens by time alone: instances that come up, contracts that end,
//! bids that win and lose, money that is used up. Every change happens at its
//! own millisecond, so that a jump of an hour comes to the same as an hour of
//! small steps.

use serde_json::json;

use super::faults::Fate;
use super::money::{Amount, Rate};
use super::state::{Boot, Change, Claim, Instance, Status, Wanted, World};

/// How long an instance whose contract ended is kept.
const KEPT_AFTER_END_MS: u64 = 48 * 3_600_000;

/// Moves the world to a moment. The past is not changed.
pub fn advance(world: &mut World, now_ms: u64) {
    let to = now_ms.saturating_add(world.skew);
    loop {
        due(world);
        if world.now >= to {
            return;
        }
        let next = next_change(world).unwrap_or(to).clamp(world.now, to);
        let step = next - world.now;
        for instance in world.live.values_mut() {
            let (gpu, disk) = instance.burns();
            instance.meter.run(step, gpu, disk);
        }
        world.now = next;
    }
}

/// The next moment at which something changes.
fn next_change(world: &World) -> Option<u64> {
    let scheduled =
        world.live.values().flat_map(|instance| instance.scheduled.iter().map(|(at, _)| *at)).min();
    let broke = if world.account.broke {
        None
    } else {
        let burns = world.live.values().fold(Rate::ZERO, |sum, instance| {
            let (gpu, disk) = instance.burns();
            sum + gpu + disk
        });
        world.credit().lasts(burns).map(|ms| world.now.saturating_add(ms))
    };
    [scheduled, broke].into_iter().flatten().min()
}

/// Applies everything whose moment has come.
fn due(world: &mut World) {
    loop {
        if !world.account.broke && world.credit() <= Amount::ZERO && !world.live.is_empty() {
            go_broke(world);
        }
        let now = world.now;
        let next = world.live.values().find_map(|instance| {
            let at = instance.scheduled.iter().position(|(at, _)| *at <= now)?;
            Some((instance.id, at))
        });
        let Some((id, at)) = next else { break };
        let Some(instance) = world.live.get_mut(&id) else { break };
        let (_, change) = instance.scheduled.remove(at);
        apply(world, id, change);
    }
}

/// One change of one instance.
pub(super) fn apply(world: &mut World, id: u64, change: Change) {
    let (now, options) = (world.now, world.options.clone());
    let Some(instance) = world.live.get_mut(&id) else { return };
    match change {
        Change::Load => {
            instance.status = Some(Status::Loading);
            instance.message = Some("Pulling from library".to_owned());
            match instance.fate.clone() {
                Fate::StuckLoading => {}
                Fate::StartupFailure { message } => {
                    let status = Status::Created;
                    let message = Some(message);
                    instance.scheduled.push((now + options.loading_ms, Change::Become { status, message }));
                }
                _ => instance.scheduled.push((now + options.loading_ms, Change::Run)),
            }
        }
        Change::Run => run(world, id),
        Change::Become { status, message } => become_status(world, id, status, message),
        Change::Outbid { for_ms } => {
            instance.kept_down = true;
            if let Some(ms) = for_ms {
                instance.scheduled.push((now + ms, Change::Regain));
            }
            let machine = instance.machine;
            settle(world, machine);
        }
        Change::Regain => {
            instance.kept_down = false;
            let machine = instance.machine;
            settle(world, machine);
        }
        Change::Expire => {
            instance.expired = true;
            instance.wanted = Wanted::Stopped;
            instance.scheduled.push((now + KEPT_AFTER_END_MS, Change::Remove));
            let machine = instance.machine;
            stop(world, id, "contract ended");
            settle(world, machine);
        }
        Change::Remove => remove(world, id),
    }
}

/// The container begins to run.
fn run(world: &mut World, id: u64) {
    let (now, machines) = (world.now, world.options.machines);
    let Some(instance) = world.live.get_mut(&id) else { return };
    instance.status = Some(Status::Running);
    instance.message = Some("success, running image".to_owned());
    instance.running_since_ms = Some(now);
    instance.starts += 1;
    if let Some((after, change)) = instance.fate.once_running() {
        instance.scheduled.push((now + after, change));
        // It happens once.
        instance.fate = Fate::Good;
    }
    if !machines {
        let address = format!("ssh{}.vast.test", id % 9);
        let port = u16::try_from(20_000 + id % 20_000).unwrap_or(22_022);
        instance.ssh.get_or_insert(super::state::Ssh { ssh_host: address, ssh_port: port });
    }
    tell(world, id, "start");
}

/// A status by force of a fault.
pub(super) fn become_status(world: &mut World, id: u64, status: Status, message: Option<String>) {
    let Some(instance) = world.live.get_mut(&id) else { return };
    // What became this does not go on by itself.
    instance.cancel_boot();
    if status == Status::Running {
        return run(world, id);
    }
    if instance.status == Some(Status::Running) && matches!(status, Status::Stopped | Status::Exited) {
        tell(world, id, "stop");
    }
    let Some(instance) = world.live.get_mut(&id) else { return };
    instance.status = Some(status);
    instance.message = message.or_else(|| instance.message.take());
}

/// Ends what runs in it; the disk stays.
fn stop(world: &mut World, id: u64, message: &str) {
    let Some(instance) = world.live.get_mut(&id) else { return };
    instance.cancel_boot();
    instance.holds = false;
    if instance.status == Some(Status::Offline) {
        return;
    }
    let ran = instance.starts > 0 && instance.status != Some(Status::Stopped);
    instance.status = Some(Status::Stopped);
    instance.message = Some(message.to_owned());
    instance.running_since_ms = None;
    if world.options.machines {
        instance.ssh = None;
    }
    if ran {
        tell(world, id, "stop");
    }
}

/// Everything is stopped, nothing destroyed.
fn go_broke(world: &mut World) {
    world.account.broke = true;
    let ids: Vec<u64> = world.live.keys().copied().collect();
    for id in ids {
        if let Some(instance) = world.live.get_mut(&id) {
            instance.wanted = Wanted::Stopped;
            instance.outbid = false;
        }
        stop(world, id, "stopped: no credit");
    }
}

/// Who has the GPUs of a machine: on demand before bids, the higher bid
/// before the lower, who has them before who wants them, the older before the
/// younger. A bid of somebody else's outranks what is not higher.
fn winner(world: &World, machine: u64) -> Option<u64> {
    let rival = world.machines.get(&machine).and_then(|machine| machine.rival);
    world
        .live
        .values()
        .filter(|instance| instance.machine == machine && instance.wanted == Wanted::Running)
        .filter(|instance| !instance.kept_down && !instance.expired)
        .filter(|instance| {
            instance.claim == Claim::OnDemand || rival.is_none_or(|rival| instance.rates.gpu > rival)
        })
        .max_by_key(|instance| {
            let demand = instance.claim == Claim::OnDemand;
            let price = if demand { Rate::ZERO } else { instance.rates.gpu };
            (demand, price, instance.holds, std::cmp::Reverse(instance.id))
        })
        .map(|instance| instance.id)
}

/// Gives the GPUs of a machine to whom they belong now.
pub(super) fn settle(world: &mut World, machine: u64) {
    let winner = winner(world, machine);
    let losers: Vec<u64> = world
        .live
        .values()
        .filter(|instance| instance.machine == machine && instance.holds && Some(instance.id) != winner)
        .map(|instance| instance.id)
        .collect();
    for id in losers {
        if let Some(instance) = world.live.get_mut(&id) {
            instance.outbid = instance.wanted == Wanted::Running;
        }
        stop(world, id, "stopped: outbid");
    }
    let (now, null_ms) = (world.now, world.options.null_ms);
    let Some(instance) = winner.and_then(|id| world.live.get_mut(&id)) else { return };
    if instance.holds {
        return;
    }
    instance.holds = true;
    instance.outbid = false;
    match (&instance.fate, instance.status) {
        // From here on it never goes on by itself.
        (_, Some(Status::Exited | Status::Unknown | Status::Offline)) | (Fate::StaysNull, None) => {}
        (_, None) => instance.scheduled.push((now + null_ms, Change::Load)),
        _ => instance.scheduled.push((now, Change::Load)),
    }
}

/// The user says start.
pub(super) fn want_running(world: &mut World, id: u64) {
    let Some(instance) = world.live.get_mut(&id) else { return };
    if instance.expired {
        return;
    }
    instance.wanted = Wanted::Running;
    instance.outbid = false;
    let machine = instance.machine;
    settle(world, machine);
}

/// The user says stop.
pub(super) fn want_stopped(world: &mut World, id: u64) {
    let Some(instance) = world.live.get_mut(&id) else { return };
    instance.wanted = Wanted::Stopped;
    instance.outbid = false;
    let machine = instance.machine;
    stop(world, id, "stopped by user");
    settle(world, machine);
}

/// The container is started again and keeps its GPUs.
pub(super) fn reboot(world: &mut World, id: u64) {
    let (now, ms) = (world.now, world.options.reboot_ms);
    let Some(instance) = world.live.get_mut(&id) else { return };
    if instance.status == Some(Status::Running) {
        tell(world, id, "stop");
        if let Some(instance) = world.live.get_mut(&id) {
            instance.status = Some(Status::Rebooting);
            instance.scheduled.push((now + ms, Change::Run));
        }
    }
}

/// Destroys it: from here on it costs nothing.
pub(super) fn remove(world: &mut World, id: u64) {
    tell(world, id, "destroy");
    let Some(mut instance) = world.live.remove(&id) else { return };
    instance.destroyed_ms = Some(world.now);
    instance.holds = false;
    instance.scheduled.clear();
    world.account.spent += instance.cost();
    world.api_keys.remove(&instance.key);
    let machine = instance.machine;
    world.ended.push(instance);
    // Offers churn: what was rented comes back under another id.
    let ask = world.new_ask();
    if let Some(machine) = world.machines.get_mut(&machine) {
        machine.ask = ask;
    }
    settle(world, machine);
}

/// Tells the machine's command.
pub(super) fn tell(world: &mut World, id: u64, event: &'static str) {
    if !world.options.machines {
        return;
    }
    let Some(instance) = world.live.get(&id) else { return };
    let details = details(instance, &world.options.url);
    world.boots.push_back(Boot { event, instance: id, details });
}

/// What the container of an instance is made from.
fn details(instance: &Instance, url: &str) -> serde_json::Value {
    let mut env = instance.env.clone();
    env.push(("CONTAINER_ID".to_owned(), instance.id.to_string()));
    env.push(("CONTAINER_API_KEY".to_owned(), instance.key.clone()));
    env.push(("VAST_URL".to_owned(), url.to_owned()));
    let env: serde_json::Map<_, _> = env.into_iter().map(|(key, value)| (key, value.into())).collect();
    json!({
        "label": instance.label, "image": instance.image, "onstart": instance.onstart, "env": env,
        "args": instance.args, "runtype": instance.runtype, "disk_gb": instance.disk_gb, "starts": instance.starts,
        "ssh_keys": instance.keys.iter().map(|key| key.public_key.as_str()).collect::<Vec<_>>(),
    })
}
