//! Names the work that a run does: equal names mean that the same program was
//! given the same things, as far as can be seen from here. What only bounds or
//! watches the work (limits, budget, retries, alerts) is not part of it. What a
//! program reads from elsewhere (data outside the source tree, the network, a
//! tag of an image that moves) cannot be seen.

use artifacts::Digest;
use lifecycle::{RunSpec, RunState};
use serde_json::json;

use crate::model::Run;

/// The name of the work. Values of variables are part of it, hashed with
/// everything else: it tells nothing of them.
#[must_use]
pub fn name(spec: &RunSpec, source: &Digest) -> String {
    let checkpoints = &spec.checkpoints;
    let whole = json!([
        spec.project,
        source.to_string(),
        spec.command,
        spec.workdir,
        spec.env,
        spec.environment,
        [json!(checkpoints.paths), json!(checkpoints.restore), json!(checkpoints.resume_args)],
        spec.artifacts,
        spec.provider,
        spec.pty,
    ]);
    let mut hasher = blake3::Hasher::new_derive_key("outlast work of a run, version 1");
    hasher.update(whole.to_string().as_bytes());
    if !spec.data.is_empty() {
        hasher.update(json!(spec.data).to_string().as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The newest finished run that did this work, if there is one. A run that
/// failed or was stopped did not do it.
#[must_use]
pub fn done<'a>(runs: impl Iterator<Item = &'a Run>, work: &str) -> Option<&'a Run> {
    runs.filter(|run| !work.is_empty() && run.work == work && run.status == RunState::Succeeded)
        .max_by_key(|run| (run.ended_ms, run.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(more: &serde_json::Value) -> RunSpec {
        let mut whole = json!({"project": "p", "name": "r", "command": ["x"], "provider": "local"});
        for (key, value) in more.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn whatever_may_change_the_result_changes_the_name() {
        let source = Digest::of(b"tree");
        let usual = name(&spec(&json!({})), &source);
        assert_eq!(usual, name(&spec(&json!({})), &source));
        for other in [
            json!({"project": "q"}),
            json!({"command": ["x", "-v"]}),
            json!({"workdir": "src"}),
            json!({"env": {"SECRET_TOKEN": "a"}}),
            json!({"environment": {"kind": "none"}}),
            json!({"environment": {"image": "python:3.12"}}),
            json!({"environment": {"setup": ["pip install x"]}}),
            json!({"checkpoints": {"resume_args": ["{path}"]}}),
            json!({"artifacts": ["out/**"]}),
            json!({"pty": true}),
        ] {
            assert_ne!(usual, name(&spec(&other), &source), "{other}");
        }
        let secret = |value: &str| name(&spec(&json!({"env": {"SECRET_TOKEN": value}})), &source);
        assert_ne!(secret("a"), secret("b"), "a value that is never shown counts too");
        assert_ne!(usual, name(&spec(&json!({})), &Digest::of(b"another tree")));
    }

    #[test]
    fn what_only_bounds_or_watches_does_not() {
        let source = Digest::of(b"tree");
        let usual = name(&spec(&json!({})), &source);
        for same in [
            json!({"name": "another"}),
            json!({"limits": {"memory_bytes": 1 << 30}}),
            json!({"max_usd": 3.0, "usd_per_hour": 1.0}),
            json!({"retry": {"failures": 9}, "grace_seconds": 1, "spool_bytes": 9_999_999}),
            json!({"health": {"disk_percent": 50.0}}),
            json!({"checkpoints": {"keep_local": 9, "quiet_seconds": 1}}),
        ] {
            assert_eq!(usual, name(&spec(&same), &source), "{same}");
        }
    }

    #[test]
    fn only_a_run_that_succeeded_did_the_work() {
        let run = |work: &str, status: RunState, ended_ms: u64| -> Run {
            serde_json::from_value(json!({
                "id": lifecycle::RunId::from_bytes([1; 16]), "name": format!("r{ended_ms}"),
                "spec": spec(&json!({})), "status": status, "created_ms": 1, "ended_ms": ended_ms,
                "generation": lifecycle::Generation::NONE, "bound": null, "attempts": 0,
                "source": {"key": "source/g0000000000000001/m00000001", "digest": ""}, "head": null,
                "outputs": null, "produced_step": null, "endings": [], "wish": crate::model::Wish::Run,
                "token": "t", "work": work
            }))
            .unwrap()
        };
        let failed = RunState::Failed { reason: "x".into() };
        let runs = [
            run("w", RunState::Succeeded, 5),
            run("w", RunState::Succeeded, 7),
            run("w", failed, 9),
            run("w", RunState::Cancelled, 9),
            run("w", RunState::Running, 0),
            run("v", RunState::Succeeded, 9),
            run("", RunState::Succeeded, 9),
        ];
        assert_eq!(done(runs.iter(), "w").map(|run| run.name.as_str()), Some("r7"));
        assert!(done(runs.iter(), "u").is_none());
        assert!(done(runs.iter(), "").is_none(), "rows without a name of their work did none that is known");
    }
}
