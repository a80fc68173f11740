//! Replaces the agent's program on a machine: hands the wish to its session
//! and waits until the machine says how it went, or cannot say so any more.
//! The machine decides; what runs there goes on in any case.

use std::time::{Duration, Instant};

use artifacts::{Digest, ObjectKey};
use lifecycle::MachineId;
use proto::v1;
use serde_json::json;
use tonic::Status;

use super::gateway::SOURCE;
use super::select;
use crate::core::{Changes, Core};
use crate::durable::chunk_rows;
use crate::model::{BoundKey, Machine};
use crate::store::ChunkPut;

/// Fetching, trying for ten seconds, and a minute until the new agent must be
/// welcome; then taking it back.
const PATIENCE: Duration = Duration::from_mins(4);
const LOOK: Duration = Duration::from_millis(100);
/// An agent that was started again knows how the upgrade went as soon as its
/// guard answers; one that has not said so for this long does not know it.
const SLACK: Duration = Duration::from_secs(15);

/// Answers one request.
///
/// # Errors
/// As a status for the peer: no such machine, it is not connected, or the
/// program is named wrongly.
pub async fn upgrade(
    core: &Core,
    actor: &str,
    asked: v1::UpgradeRequest,
) -> Result<v1::UpgradeReply, Status> {
    let row = select::machine(core, &asked.machine).await?.body;
    let machine = row.id;
    if let Some(why) = gone(Some(&row)) {
        return Err(Status::failed_precondition(format!("{why}; `outlast machines` lists those that exist")));
    }
    let wish = wish(&asked)?;
    let chunks = known_chunks(core, &asked).await?;
    if !core.observe(machine).attached {
        let why = format!("machine {machine} is {} and not connected", row.status.name());
        return Err(Status::failed_precondition(format!("{why}; `outlast machines` shows when it is")));
    }
    let mut begun = Changes::default();
    begun.0.chunks = chunks;
    let detail = json!({"digest": asked.file_digest});
    core.commit(begun.note(core, actor, "upgrade", machine, Some(row.run), detail)).await?;
    core.health.ask_upgrade(machine, wish);
    let _withdrawn = Withdrawn(core, machine);
    core.poke(machine);
    let problem = match tokio::time::timeout(PATIENCE, outcome(core, machine, &asked.file_digest)).await {
        Ok(problem) => problem?,
        Err(_) => format!("machine {machine} did not say within {} s how it went", PATIENCE.as_secs()),
    };
    let verb = if problem.is_empty() { "upgraded" } else { "upgrade-failed" };
    let detail = json!({"digest": asked.file_digest, "problem": problem});
    core.commit(Changes::default().note(core, actor, verb, machine, Some(row.run), detail)).await?;
    Ok(v1::UpgradeReply { problem, version: core.health.version(machine) })
}

/// Nobody waits any more: an upgrade that was not handed over is not wanted.
struct Withdrawn<'a>(&'a Core, MachineId);

impl Drop for Withdrawn<'_> {
    fn drop(&mut self) {
        self.0.health.take_upgrade(self.1);
    }
}

fn wish(asked: &v1::UpgradeRequest) -> Result<v1::Upgrade, Status> {
    let wrong = |what: &str, why: &dyn std::fmt::Display| Status::invalid_argument(format!("{what}: {why}"));
    let key: ObjectKey = asked.program_key.parse().map_err(|e| wrong("the program's key", &e))?;
    if key.scope() != SOURCE {
        return Err(wrong("the program's key", &"machines may not read it"));
    }
    let _: Digest = asked.program_digest.parse().map_err(|e| wrong("the manifest's digest", &e))?;
    let _: Digest = asked.file_digest.parse().map_err(|e| wrong("the program's digest", &e))?;
    Ok(v1::Upgrade {
        program: Some(v1::ManifestRef {
            key: asked.program_key.clone(),
            digest: asked.program_digest.clone(),
            step: None,
        }),
        digest: asked.file_digest.clone(),
    })
}

/// The program's chunks, so that the same program is not sent again for the
/// next machine.
async fn known_chunks(core: &Core, asked: &v1::UpgradeRequest) -> Result<Vec<ChunkPut>, Status> {
    let wrong = |why: &dyn std::fmt::Display| Status::invalid_argument(format!("the program: {why}"));
    let key: ObjectKey = asked.program_key.parse().map_err(|e| wrong(&e))?;
    let digest: Digest = asked.program_digest.parse().map_err(|e| wrong(&e))?;
    let tree = artifacts::restore::load_manifest(&*core.objects, &key, Some(digest)).await;
    Ok(chunk_rows(&tree.map_err(|e| wrong(&e))?))
}

/// What the machine says of this upgrade, in words; empty: it runs. Ends too
/// when nobody is left who could say it.
async fn outcome(core: &Core, machine: MachineId, digest: &str) -> Result<String, Status> {
    let mut taker = Taker::default();
    loop {
        let said = core.health.upgrade_outcome(machine).filter(|outcome| outcome.digest == digest);
        if let Some(outcome) = said {
            return Ok(outcome.problem.chars().filter(|c| !c.is_control()).take(400).collect());
        }
        let row = core.load::<Machine>(&machine.to_string()).await?;
        if let Some(why) = gone(row.as_ref().map(|row| &row.body)) {
            return Ok(why);
        }
        let heard = core.load::<BoundKey>(&machine.to_string()).await?.map_or(0, |key| key.body.incarnation);
        let (waits, attached) = (core.health.upgrade_waits(machine), core.observe(machine).attached);
        if taker.is_lost(waits, attached, heard, Instant::now()) {
            return Ok(
                "the agent was started again meanwhile and does not know how the upgrade went; ask again"
                    .to_owned(),
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Why no answer of a machine will come, if it cannot any more.
fn gone(machine: Option<&Machine>) -> Option<String> {
    let Some(machine) = machine else { return Some("the machine is gone".to_owned()) };
    let up = machine.status.is_up();
    let state = if up && machine.condemned {
        "to be destroyed"
    } else if up && machine.given_up {
        "given up"
    } else if machine.status.is_hopeful() {
        return None;
    } else {
        machine.status.name()
    };
    let reason = if machine.reason.is_empty() { String::new() } else { format!(", {}", machine.reason) };
    Some(format!("the machine is gone ({state}{reason})"))
}

/// Whether the agent that was handed the wish is still there. Each start of an
/// agent has a higher incarnation; the program on trial is one too, and says
/// how it went right after its welcome.
#[derive(Debug, Default)]
struct Taker {
    incarnation: u64,
    /// Since when another one speaks.
    another: Option<Instant>,
}

impl Taker {
    /// `waits`: nobody took the wish yet; `heard`: the newest incarnation.
    fn is_lost(&mut self, waits: bool, attached: bool, heard: u64, now: Instant) -> bool {
        if waits || self.incarnation == 0 {
            (self.incarnation, self.another) = (heard, None);
        } else if heard != self.incarnation || !attached {
            let other = heard != self.incarnation || self.another.is_some();
            (self.incarnation, self.another) = (heard, other.then_some(now));
        }
        self.another.is_some_and(|since| now.saturating_duration_since(since) >= SLACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_machines_may_read_is_offered_to_them() {
        let hex = "a".repeat(64);
        let asked = |key: &str, digest: &str, file: &str| v1::UpgradeRequest {
            machine: "m".into(),
            program_key: key.into(),
            program_digest: digest.into(),
            file_digest: file.into(),
        };
        let good = "source/g0000000000000001/m00000001";
        assert_eq!(wish(&asked(good, &hex, &hex)).unwrap().digest, hex);
        assert!(wish(&asked("run/g0000000000000001/m00000001", &hex, &hex)).is_err());
        assert!(wish(&asked("../../etc", &hex, &hex)).is_err());
        assert!(wish(&asked(good, "short", &hex)).is_err());
        assert!(wish(&asked(good, &hex, "")).is_err());
    }

    #[test]
    fn only_an_agent_that_was_started_again_after_it_took_the_wish_is_waited_for_in_vain() {
        let (mut taker, begun) = (Taker::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        // (nobody took it yet, attached, newest incarnation, second) and whether it is lost
        for ((waits, attached, heard, second), lost) in [
            ((true, true, 4, 0), false),
            ((true, false, 4, 1), false),
            // It took it at its next start, and fetches for long.
            ((true, true, 5, 2), false),
            ((false, true, 5, 3), false),
            ((false, true, 5, 100), false),
            // A link that breaks is no other agent.
            ((false, false, 5, 120), false),
            ((false, true, 5, 150), false),
            // The program on trial, which ends before it says anything.
            ((false, true, 6, 160), false),
            ((false, false, 6, 170), false),
            ((false, false, 6, 190), false),
            ((false, true, 7, 191), false),
            ((false, true, 7, 205), false),
            ((false, true, 7, 206), true),
        ] {
            assert_eq!(taker.is_lost(waits, attached, heard, at(second)), lost, "at second {second}");
        }
    }
}
