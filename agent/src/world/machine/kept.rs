//! The assignment as it is kept: what the agent must know without a controller,
//! and nothing that no disk may hold.

use proto::v1;
use serde::{Deserialize, Serialize};

/// An assignment.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    run_id: String,
    run_name: String,
    attempt_id: String,
    generation: u64,
    number: u32,
    spec_json: String,
    source: Option<Ref>,
    resume: Vec<Ref>,
    outputs: Option<Ref>,
    grace_seconds: u64,
    /// Its trees are sealed; the keys are never kept.
    #[serde(default)]
    sealed: bool,
    /// When it came.
    pub(super) at_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ref {
    key: String,
    digest: String,
    step: Option<u64>,
}

fn keep_ref(r: &v1::ManifestRef) -> Ref {
    Ref { key: r.key.clone(), digest: r.digest.clone(), step: r.step }
}

fn wire_ref(r: Ref) -> v1::ManifestRef {
    v1::ManifestRef { key: r.key, digest: r.digest, step: r.step }
}

impl Kept {
    /// What is kept of it.
    pub(super) fn of(work: &v1::Work, at_ms: u64) -> Self {
        Self {
            run_id: work.run_id.clone(),
            run_name: work.run_name.clone(),
            attempt_id: work.attempt_id.clone(),
            generation: work.generation,
            number: work.number,
            spec_json: work.spec_json.clone(),
            source: work.source.as_ref().map(keep_ref),
            resume: work.resume.iter().map(keep_ref).collect(),
            outputs: work.outputs.as_ref().map(keep_ref),
            grace_seconds: work.grace_seconds,
            sealed: work.sealed,
            at_ms,
        }
    }

    /// The assignment, without what comes with the next connection.
    pub(super) fn work(self) -> v1::Work {
        v1::Work {
            run_id: self.run_id,
            run_name: self.run_name,
            attempt_id: self.attempt_id,
            generation: self.generation,
            number: self.number,
            spec_json: self.spec_json,
            source: self.source.map(wire_ref),
            resume: self.resume.into_iter().map(wire_ref).collect(),
            outputs: self.outputs.map(wire_ref),
            wish: v1::Wish::Run.into(),
            grace_seconds: self.grace_seconds,
            forget: false,
            sealed: self.sealed,
            sealing: None,
            secrets: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_and_no_secret_is_kept() {
        let work = v1::Work {
            run_id: "r".into(),
            sealed: true,
            sealing: Some(v1::Sealing { secret: b"canary".to_vec(), recipients: Vec::new() }),
            secrets: vec![v1::Secret { name: "HF_TOKEN".into(), value: "canary".into() }],
            resume: vec![v1::ManifestRef { key: "k".into(), ..v1::ManifestRef::default() }],
            ..v1::Work::default()
        };
        let text = serde_json::to_string(&Kept::of(&work, 7)).unwrap();
        assert!(!text.contains("canary") && !text.contains("99,97,110"), "{text}");
        let back = serde_json::from_str::<Kept>(&text).unwrap().work();
        let wished = v1::Wish::Run.into();
        assert_eq!(back, v1::Work { sealing: None, secrets: Vec::new(), wish: wished, ..work });
    }
}
