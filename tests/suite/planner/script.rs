//! A line language: facts are told, passes are made, and everything that the
//! planner wants is written down. One command a line; `#` begins a comment.

use std::fmt::Write as _;

use controller::model::notice::Said;
use controller::model::{StopReason, Wish};
use controller::plan::{self, Action};
use lifecycle::spec::MachineSpec;
use lifecycle::{AttemptState, Exit, MachineId, MachineState, RunId, RunState};

use super::world::{Reply, World};

/// Passes after which a world that still wants something is an error.
const PASSES: usize = 40;

struct Script {
    world: World,
    out: String,
}

/// Runs a script and returns what was wanted at each line.
///
/// # Errors
/// The line that cannot be understood or performed.
pub(super) fn run(text: &str) -> Result<String, String> {
    let mut script = Script { world: World::new(), out: String::new() };
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let _ = writeln!(script.out, "{}{line}", if line.starts_with('#') { "" } else { "> " });
        if !line.starts_with('#') {
            let words: Vec<&str> = line.split_whitespace().collect();
            script.command(&words).map_err(|why| format!("line {}: `{line}`: {why}", number + 1))?;
        }
    }
    Ok(script.out)
}

impl Script {
    fn command(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["run", name, rest @ ..] => self.submit(name, rest)?,
            ["price", usd] => self.world.usd_per_hour = number(usd)?,
            ["paid"] => self.world.paid = true,
            ["ids", "fall"] => self.world.ids_fall = true,
            ["create", reply] => self.world.replies.push_back(match *reply {
                "made" => Reply::Made,
                "lost" => Reply::Lost,
                "vanished" => Reply::Vanished,
                "rejected" => Reply::Rejected,
                _ => return Err("made, lost, vanished or rejected".into()),
            }),
            ["wait", time] => {
                let ms = millis(time)?;
                self.world.wait(ms);
            }
            ["restart"] => self.world.restart(),
            ["attach", names @ ..] => self.each(names, World::attach)?,
            ["detach", names @ ..] => self.each(names, World::detach)?,
            ["vanish", names @ ..] => self.each(names, World::vanish)?,
            ["end", names @ ..] => self.each(names, World::end_instance)?,
            ["condemn", names @ ..] => self.each(names, |world, id| world.machine(id).condemned = true)?,
            ["notice", name, what @ ..] => {
                let id = self.machine_id(name)?;
                self.notice(id, what)?;
            }
            ["stuck", names @ ..] => self.each(names, |world, id| {
                world.stuck.insert(id);
            })?,
            ["exit", run, code] => {
                let (run, code) = (self.run_id(run)?, number(code)?);
                self.world.exit(run, Exit::Code { code });
            }
            ["hang", run, how @ ..] => {
                let run = self.run_id(run)?;
                self.world.hang(run, matches!(how, ["leave"]));
            }
            ["save", run, step] => {
                let (run, step) = (self.run_id(run)?, number(step)?);
                self.world.save(run, step);
            }
            [wish @ ("stop" | "kill"), run] => {
                let id = self.run_id(run)?;
                let run = self.world.run(id);
                run.wish = if *wish == "stop" { Wish::Stop } else { Wish::Kill };
                run.stop_reason = Some(StopReason::Person);
            }
            // What another controller, unseen by this one, has done.
            ["intend", run] => {
                let run = self.run_id(run)?;
                self.world.intend(run);
            }
            ["look"] => {
                let actions = self.world.plan();
                self.print(&actions);
            }
            ["pass"] => self.pass().map(|_| ())?,
            ["settle"] => self.settle()?,
            ["show"] => self.show(),
            _ => return Err("no such command".into()),
        }
        Ok(())
    }

    fn submit(&mut self, name: &str, rest: &[&str]) -> Result<(), String> {
        let (mut max_usd, mut losses, mut hourly, mut machine) = (None, None, None, MachineSpec::default());
        for pair in rest.chunks(2) {
            match pair {
                ["max-usd", value] => max_usd = Some(number(value)?),
                ["losses", value] => losses = Some(number(value)?),
                ["max-usd-per-hour", value] => hourly = Some(number(value)?),
                ["lost-after", time] => machine.lost_after_seconds = millis(time)? / 1_000,
                ["speculate", time] => {
                    machine.speculate = true;
                    machine.speculate_after_seconds = millis(time)? / 1_000;
                }
                _ => return Err("max-usd, max-usd-per-hour, losses, lost-after or speculate".into()),
            }
        }
        let id = self.world.submit(name, max_usd, losses);
        let spec = &mut self.world.run(id).spec;
        (spec.max_usd_per_hour, spec.machine) = (hourly, machine);
        Ok(())
    }

    fn each(&mut self, names: &[&str], mut act: impl FnMut(&mut World, MachineId)) -> Result<(), String> {
        for name in names {
            let id = self.machine_id(name)?;
            act(&mut self.world, id);
        }
        Ok(())
    }

    /// `60s`: its provider takes it then. `may`: it may. `saved`, `back`.
    fn notice(&mut self, id: MachineId, what: &[&str]) -> Result<(), String> {
        let mut said = Said {
            source: "ec2".into(),
            ends: true,
            text: "terminate".into(),
            in_ms: None,
            withdrawn: false,
            saved: false,
        };
        match what {
            ["may"] => said.ends = false,
            ["saved"] => said.saved = true,
            ["back"] => said.withdrawn = true,
            [time] => said.in_ms = Some(millis(time)?),
            _ => return Err("a time, may, saved or back".into()),
        }
        self.world.notice(id, &said);
        Ok(())
    }

    fn run_id(&self, name: &str) -> Result<RunId, String> {
        let run = self.world.runs.iter().find(|r| r.name == name);
        run.map(|r| r.id).ok_or_else(|| format!("no run {name}"))
    }

    fn machine_id(&self, name: &str) -> Result<MachineId, String> {
        let index = name.strip_prefix('m').and_then(|n| n.parse::<usize>().ok());
        let machine = index.and_then(|n| self.world.machines.get(n.checked_sub(1)?));
        machine.map(|m| m.id).ok_or_else(|| format!("no machine {name}"))
    }

    fn pass(&mut self) -> Result<Vec<Action>, String> {
        let actions = self.world.plan();
        self.print(&actions);
        for action in &actions {
            self.world.perform(action).map_err(|e| format!("{}: {e}", self.name(action)))?;
        }
        Ok(actions)
    }

    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..PASSES {
            let actions = self.pass()?;
            let next = self.world.plan();
            if next.is_empty() || next == actions && actions.iter().all(polls) {
                return Ok(());
            }
            self.out.push_str("  --\n");
        }
        Err(format!("{PASSES} passes without rest"))
    }

    fn print(&mut self, actions: &[Action]) {
        let lines: Vec<String> = actions.iter().map(|a| self.name(a)).collect();
        for line in &lines {
            let _ = writeln!(self.out, "  {line}");
        }
        if lines.is_empty() {
            self.out.push_str("  nothing\n");
        }
    }

    fn named(&self, id: MachineId) -> String {
        let index = self.world.machines.iter().position(|m| m.id == id);
        index.map_or_else(|| "m?".into(), |n| format!("m{}", n + 1))
    }

    fn name(&self, action: &Action) -> String {
        let run = |id: &RunId| {
            let found = self.world.runs.iter().find(|r| r.id == *id);
            found.map_or_else(|| "?".to_owned(), |r| r.name.clone())
        };
        let m = |id: &MachineId| self.named(*id);
        match action {
            Action::Place(id) => format!("place {}", run(id)),
            Action::Intend(id) => format!("intend a machine for {}", run(id)),
            Action::Create(id) => format!("create {}", m(id)),
            Action::Resolve(id) => format!("resolve {}", m(id)),
            Action::Boot(id) => format!("boot {}", m(id)),
            Action::Probe(id) => format!("probe {}", m(id)),
            Action::Suspect(id) => format!("suspect {}", m(id)),
            Action::LoseMachine(id, cause) => format!("lose {}: {cause}", m(id)),
            Action::GiveUp(id) => format!("give up {}", m(id)),
            Action::Condemn(id, machine) => format!("condemn {} for {}", m(machine), run(id)),
            Action::Bind(id, machine) => format!("bind {} on {}", run(id), m(machine)),
            Action::LoseAttempt(id, cause) => format!("lose the attempt of {}: {cause}", run(id)),
            Action::Settle(id) => format!("settle {}", run(id)),
            Action::StopForBudget(id) => format!("stop {} for its budget", run(id)),
            Action::Tell(id, percent) => format!("tell that {} reached {percent} % of a cap", run(id)),
            Action::Close(id) => format!("close {}", run(id)),
            Action::Storm(id) => format!("storm: ask about {}", run(id)),
            Action::Ask(id) => format!("ask about {}", run(id)),
            Action::Answer(id) => format!("take the default answer for {}", run(id)),
            Action::Release(id, why) => format!("release {}: {why}", m(id)),
            Action::Destroy(id) => format!("destroy {}", m(id)),
            Action::Alarm(count) => format!("alarm: {count} silent"),
        }
    }

    fn show(&mut self) {
        let mut out = String::new();
        for run in &self.world.runs {
            let _ = write!(out, "  run {} {}", run.name, run.status.name());
            if let RunState::Failed { reason } = &run.status {
                let _ = write!(out, " ({reason})");
            }
            if let Some(attempt) = self.world.bound(run) {
                let on = self.named(attempt.machine);
                let _ = write!(out, ", generation {} on {on} {}", attempt.generation, attempt.status.name());
                if let AttemptState::Lost { cause } = &attempt.status {
                    let _ = write!(out, " ({cause})");
                }
            }
            out.push('\n');
        }
        for machine in &self.world.machines {
            let _ = write!(out, "  {} {}", self.named(machine.id), machine.status.name());
            let burnt = machine.status == MachineState::Abandoned;
            let leaves = machine.status.is_up() && plan::is_leaving(machine, self.world.wall_ms);
            let marks = [
                (machine.given_up, "given up"),
                (machine.condemned, "condemned"),
                (burnt, "label burnt"),
                (leaves, "about to be taken"),
            ];
            for (_, mark) in marks.iter().filter(|(is, _)| *is) {
                let _ = write!(out, ", {mark}");
            }
            out.push('\n');
        }
        self.out.push_str(&out);
    }
}

/// What is only asked again while an answer is awaited.
pub(super) fn polls(action: &Action) -> bool {
    matches!(action, Action::Resolve(_) | Action::Probe(_) | Action::Destroy(_) | Action::Alarm(_))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn millis(text: &str) -> Result<u64, String> {
    for (unit, ms) in [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)] {
        if let Some(n) = text.strip_suffix(unit).and_then(|n| n.parse::<u64>().ok()) {
            return Ok(n * ms);
        }
    }
    Err(format!("`{text}` is not a time"))
}
