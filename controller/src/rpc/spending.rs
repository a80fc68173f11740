//! What runs have cost in parts, summed per run, project and day, as people's
//! tools ask for it. Reads the ledger and decides nothing; the sums are those
//! that the caps are held by ([`Books`]).

use std::collections::BTreeMap;

use lifecycle::meter::{DAY_MS, Parts};
use lifecycle::{MachineState, RunId};
use proto::v1;
use tonic::Status;

use super::select;
use crate::core::{Core, CoreError};
use crate::model::{Machine, Run};
use crate::money::{Books, Room};

/// Answers one request.
///
/// # Errors
/// Where there is no such run or the store fails.
pub(super) async fn spending(core: &Core, ask: v1::SpendingRequest) -> Result<v1::SpendingReply, Status> {
    let run = match ask.run.as_str() {
        "" => None,
        text => Some(select::run(core, text).await?.body),
    };
    let world = crate::reconcile::snapshot(core).await?;
    let books = Books::of(&world);
    let runs: Vec<_> = core.every::<Run>().await?.into_iter().map(|row| row.body).collect();
    let machines: Vec<_> = core.every::<Machine>().await?.into_iter().map(|row| row.body).collect();
    let wanted = |one: &Run| {
        run.as_ref().is_none_or(|run| run.id == one.id)
            && (ask.project.is_empty() || one.spec.project == ask.project)
    };
    let mut ledger = Ledger::default();
    let mut chosen: Vec<&Run> = runs.iter().map(|run| &**run).filter(|run| wanted(run)).collect();
    chosen.sort_by_key(|run| std::cmp::Reverse(run.created_ms));
    for run in chosen {
        ledger.begin(run);
    }
    for machine in &machines {
        ledger.add(machine, books.kept_back(machine), world.now_ms);
    }
    let all: Vec<&Run> = runs.iter().map(|run| &**run).collect();
    let mut reply = ledger.reply(&all, world.now_ms);
    let lives = run.filter(|run| !run.status.is_final());
    reply.rooms = lives.map(|run| rooms(&books, &run)).unwrap_or_default();
    Ok(reply)
}

/// The caps that hold for one run, each with what spends from it; none where it
/// has ended or has none.
///
/// # Errors
/// Where the store fails.
pub(super) async fn rooms_of(core: &Core, run: &Run) -> Result<Vec<v1::RoomView>, CoreError> {
    if run.status.is_final() {
        return Ok(Vec::new());
    }
    let world = crate::reconcile::snapshot(core).await?;
    Ok(rooms(&Books::of(&world), run))
}

fn rooms(books: &Books<'_>, run: &Run) -> Vec<v1::RoomView> {
    let view = |room: Room| v1::RoomView {
        scope: room.scope.name().to_owned(),
        cap_usd: room.cap_usd,
        spent_usd: room.spent_usd,
        kept_back_usd: room.reserved_usd,
        may_spend_usd: room.may_spend_usd(),
        left_usd: room.left_usd().max(0.0),
        machines: u32::try_from(room.machines).unwrap_or(u32::MAX),
    };
    books.rooms(run).into_iter().map(view).collect()
}

/// Sums of the machines of some runs.
#[derive(Default)]
struct Ledger {
    runs: Vec<v1::RunSpending>,
    at: BTreeMap<RunId, usize>,
    projects: BTreeMap<String, v1::Sums>,
    days: BTreeMap<u64, v1::Sums>,
    total: v1::Sums,
}

fn grow(sums: &mut v1::Sums, more: &v1::Sums) {
    sums.gpu_usd += more.gpu_usd;
    sums.disk_usd += more.disk_usd;
    sums.up_usd += more.up_usd;
    sums.down_usd += more.down_usd;
    sums.total_usd += more.total_usd;
    sums.open_usd += more.open_usd;
    sums.kept_back_usd += more.kept_back_usd;
}

fn sums(parts: &Parts) -> v1::Sums {
    v1::Sums {
        gpu_usd: parts.compute_usd,
        disk_usd: parts.disk_usd,
        up_usd: parts.up_usd,
        down_usd: parts.down_usd(),
        total_usd: parts.total(),
        ..v1::Sums::default()
    }
}

impl Ledger {
    fn begin(&mut self, run: &Run) {
        self.at.insert(run.id, self.runs.len());
        self.projects.entry(run.spec.project.clone()).or_default();
        self.runs.push(v1::RunSpending {
            id: run.id.to_string(),
            name: run.name.clone(),
            project: run.spec.project.clone(),
            state: run.status.name().to_owned(),
            created_ms: run.created_ms,
            ended_ms: run.ended_ms,
            sums: Some(v1::Sums::default()),
            cap_usd: run.spec.max_usd,
            machines: Vec::new(),
        });
    }

    fn add(&mut self, machine: &Machine, kept_back_usd: f64, now_ms: u64) {
        let Some(run) = self.at.get(&machine.run).and_then(|at| self.runs.get_mut(*at)) else { return };
        let over = machine.status.is_final() || machine.status == MachineState::Abandoned;
        let own =
            v1::Sums { open_usd: machine.open_usd(now_ms), kept_back_usd, ..sums(&machine.parts(now_ms)) };
        grow(run.sums.get_or_insert_default(), &own);
        grow(self.projects.entry(run.project.clone()).or_default(), &own);
        grow(&mut self.total, &own);
        for (day, usd) in machine.spent_by_day(now_ms) {
            self.days.entry(day).or_default().total_usd += usd;
        }
        if kept_back_usd > 0.0 || own.open_usd > 0.0 {
            let today = self.days.entry(now_ms / DAY_MS).or_default();
            today.kept_back_usd += kept_back_usd;
            today.open_usd += own.open_usd;
        }
        run.machines.push(v1::MachineSpending {
            id: machine.id.to_string(),
            run: run.name.clone(),
            provider: machine.provider.clone(),
            state: machine.status.name().to_owned(),
            created_ms: machine.created_ms,
            ended_ms: machine.ended_ms,
            usd_per_hour: machine.usd_per_hour,
            sums: Some(own),
            settled: over,
        });
    }

    fn reply(self, all: &[&Run], now_ms: u64) -> v1::SpendingReply {
        let project = |(name, sums): (String, v1::Sums)| v1::Purse {
            cap_usd: cap(all, |run| run.spec.max_usd_project.filter(|_| run.spec.project == name)),
            sums: Some(sums),
            name,
            day_ms: 0,
        };
        let today = now_ms / DAY_MS;
        let day = |(day, sums): (u64, v1::Sums)| v1::Purse {
            name: String::new(),
            sums: Some(sums),
            // What held on another day is not written down.
            cap_usd: cap(all, |run| run.spec.max_usd_day).filter(|_| day == today),
            day_ms: day * DAY_MS,
        };
        v1::SpendingReply {
            runs: self.runs,
            projects: self.projects.into_iter().map(project).collect(),
            days: self.days.into_iter().rev().map(day).collect(),
            total: Some(self.total),
            rooms: Vec::new(),
        }
    }
}

/// The strictest wish of those that may spend, else that of the newest run that
/// had one.
fn cap(all: &[&Run], of: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
    let live = all.iter().filter(|run| !run.status.is_final()).filter_map(|run| of(run));
    let strictest = live.min_by(f64::total_cmp);
    let newest = || all.iter().filter(|run| of(run).is_some()).max_by_key(|run| run.created_ms);
    strictest.or_else(|| of(newest()?))
}

#[cfg(test)]
mod tests {
    use lifecycle::MachineId;
    use lifecycle::meter::{Billed, Rates};
    use serde_json::json;

    use super::*;

    const HOUR: u64 = 3_600_000;
    const RATES: Rates = Rates {
        compute_usd_per_hour: 1.0,
        disk_usd_per_hour: 0.1,
        up_usd_per_gb: 0.05,
        down_usd_per_gb: 0.01,
    };

    fn run(n: u8, project: &str, state: &str, cap: f64) -> Run {
        serde_json::from_value(json!({
            "id": RunId::from_bytes([n; 16]), "name": format!("r{n}"), "status": {"state": state},
            "spec": {"project": project, "name": "n", "command": ["x"], "provider": "vast", "max_usd": 9.0,
                "max_usd_project": cap, "max_usd_day": cap},
            "created_ms": n, "generation": 0, "bound": null, "attempts": 0,
            "source": {"key": "", "digest": ""}, "head": null, "outputs": null, "produced_step": null, "endings": [],
            "wish": "run", "token": ""
        }))
        .unwrap()
    }

    fn machine(n: u8, of: u8, begun_ms: u64) -> Machine {
        let mut machine: Machine = serde_json::from_value(json!({
            "id": MachineId::from_bytes([n; 16]), "provider": "vast", "label": "", "run": RunId::from_bytes([of; 16]),
            "status": {"state": "ready"}, "instance": "1", "created_ms": begun_ms, "called_ms": begun_ms,
            "usd_per_hour": 1.1
        }))
        .unwrap();
        machine.meter.begin(begun_ms, RATES);
        machine.meter.look(begun_ms, Billed::All, RATES);
        machine
    }

    #[test]
    fn sums_are_kept_in_parts_per_run_project_and_day_with_caps_beside_them() {
        let day = 20_000;
        let now = day * DAY_MS + HOUR;
        let all = [run(1, "p", "running", 50.0), run(2, "p", "running", 20.0), run(3, "q", "running", 70.0)];
        let mut first = machine(1, 1, now - 3 * HOUR);
        first.meter.traffic(2_000_000_000, 3_000_000_000);
        first.meter.look(now - HOUR, Billed::All, RATES);
        let mut gone = machine(2, 1, now - 5 * HOUR);
        gone.meter.end(now - 4 * HOUR);
        gone.status = MachineState::Destroyed;
        let mut ledger = Ledger::default();
        for run in &all {
            ledger.begin(run);
        }
        for (machine, kept) in [(&first, 2.5), (&gone, 0.0), (&machine(3, 2, now - HOUR), 1.0)] {
            ledger.add(machine, kept, now);
        }
        let reply = ledger.reply(&all.iter().collect::<Vec<_>>(), now);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let own = reply.runs[0].sums.unwrap();
        assert!(near(own.gpu_usd, 4.0) && near(own.disk_usd, 0.4), "{own:?}");
        assert!(near(own.up_usd, 0.1) && near(own.down_usd, 0.03), "{own:?}");
        assert!(
            near(own.total_usd, 4.53) && near(own.open_usd, 1.1) && near(own.kept_back_usd, 2.5),
            "{own:?}"
        );
        let closed: Vec<bool> = reply.runs[0].machines.iter().map(|one| one.settled).collect();
        assert_eq!(closed, [false, true]);
        let purse = &reply.projects[0];
        assert_eq!((purse.name.as_str(), purse.cap_usd, reply.projects.len()), ("p", Some(20.0), 2));
        assert!(near(purse.sums.unwrap().total_usd, 5.63) && near(purse.sums.unwrap().kept_back_usd, 3.5));
        // Of the first machine an hour fell on today, and what it moved yesterday.
        let days: Vec<_> = reply.days.iter().map(|one| (one.day_ms / DAY_MS, one.cap_usd)).collect();
        assert_eq!(days, [(day, Some(20.0)), (day - 1, None)]);
        let spent: Vec<f64> = reply.days.iter().map(|one| one.sums.unwrap().total_usd).collect();
        assert!(near(spent[0], 2.2) && near(spent[1], 3.43), "{spent:?}");
        assert!(near(reply.total.unwrap().total_usd, 5.63));
    }

    #[test]
    fn a_cap_is_the_strictest_that_is_alive_and_else_the_last_one() {
        let ended = [run(1, "p", "succeeded", 5.0), run(2, "p", "succeeded", 8.0)];
        let of = |run: &Run| run.spec.max_usd_project;
        assert_eq!(cap(&ended.iter().collect::<Vec<_>>(), of), Some(8.0));
        let mut more = ended.to_vec();
        more.push(run(3, "p", "running", 30.0));
        assert_eq!(cap(&more.iter().collect::<Vec<_>>(), of), Some(30.0));
        assert_eq!(cap(&[], of), None);
    }
}
