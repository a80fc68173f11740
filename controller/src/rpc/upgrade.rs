//! Replaces the agent's program on a machine: hands the wish to its session
//! and waits until the machine says how it went. The machine decides; what
//! runs there goes on in any case.

use std::time::Duration;

use artifacts::{Digest, ObjectKey};
use lifecycle::MachineId;
use proto::v1;
use serde_json::json;
use tonic::Status;

use super::gateway::SOURCE;
use super::select;
use crate::core::{Changes, Core};
use crate::durable::chunk_rows;
use crate::store::ChunkPut;

/// Fetching, trying for ten seconds, and a minute until the new agent must be
/// welcome; then taking it back.
const PATIENCE: Duration = Duration::from_mins(4);
const LOOK: Duration = Duration::from_millis(100);

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
        Ok(problem) => problem,
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

/// What the machine says of this upgrade, in words; empty: it runs.
async fn outcome(core: &Core, machine: MachineId, digest: &str) -> String {
    loop {
        let said = core.health.upgrade_outcome(machine).filter(|outcome| outcome.digest == digest);
        if let Some(outcome) = said {
            return outcome.problem.chars().filter(|c| !c.is_control()).take(400).collect();
        }
        tokio::time::sleep(LOOK).await;
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
}
