//! What a person may do about old checkpoints: look at what stays and why, pin
//! one, have the others let go.

use lifecycle::{CheckpointEvent, CheckpointState, RunId};
use proto::v1;
use serde_json::json;
use tonic::Status;

use super::OperatorService;
use crate::core::Changes;
use crate::model::{Checkpoint, Run, Versioned};
use crate::retain::{self, Grace, Keeper};
use crate::rpc::{select, views};
use crate::scrub;

/// Something left over, named below the data directory.
fn shown(one: &scrub::Leftover) -> v1::ScrubRow {
    let name = one.path.file_name().unwrap_or_default();
    let above = one.path.parent().and_then(|above| above.file_name()).unwrap_or_default();
    v1::ScrubRow {
        path: std::path::Path::new(above).join(name).display().to_string(),
        bytes: one.bytes,
        used_ms: one.used_ms,
        why: one.why.to_owned(),
    }
}

impl OperatorService {
    pub(super) async fn tidied(&self, actor: &str, ask: v1::TidyRequest) -> Result<v1::TidyReply, Status> {
        let core = &self.core;
        let only: Option<RunId> = match ask.run.as_str() {
            "" => None,
            text => Some(select::run(core, text).await?.body.id),
        };
        let runs: Vec<Versioned<Run>> = core.all().await?;
        let family = retain::family(&runs);
        let mut rows = Vec::new();
        for run in runs.iter().filter(|run| only.is_none_or(|id| id == run.body.id)) {
            let head = run.body.head.as_ref().map(|head| head.key.as_str());
            let mut judged = retain::judge(core, &run.body, &family).await?;
            judged.sort_by_key(|j| (j.row.body.committed_ms, j.row.body.manifest.key.clone()));
            rows.extend(judged.iter().map(|j| v1::TidyRow {
                run: run.body.name.clone(),
                checkpoint: Some(v1::CheckpointView {
                    run: run.body.name.clone(),
                    ..views::checkpoint(&j.row.body, head)
                }),
                reasons: j.reasons.iter().map(ToString::to_string).collect(),
            }));
        }
        let idle = ask.grace_seconds.map_or(scrub::IDLE_MS, |seconds| seconds.saturating_mul(1_000));
        // What is nobody's is asked for with everybody's.
        let left = if only.is_none() { scrub::find(core, idle).await? } else { Vec::new() };
        let shown = left.iter().map(shown).collect();
        if !ask.apply {
            return Ok(v1::TidyReply { rows, scrub: shown, ..v1::TidyReply::default() });
        }
        let usual = Grace::default();
        let grace = ask.grace_seconds.map_or(usual, |seconds| {
            let ms = seconds.saturating_mul(1_000);
            Grace { unlinked_ms: ms, leaked_ms: ms }
        });
        let noted = Changes::default().note(
            core,
            actor,
            "tidy",
            "artifacts",
            None,
            json!({"grace_seconds": ask.grace_seconds}),
        );
        core.commit_quietly(noted).await?;
        let report = Keeper::default().turn(core, grace).await?;
        Ok(v1::TidyReply {
            rows,
            unlinked: report.unlinked,
            waiting: report.waiting,
            deleted: report.deleted,
            scrub: shown,
            scrubbed_bytes: scrub::remove(core, left).await?,
        })
    }

    pub(super) async fn pinned(
        &self,
        actor: &str,
        ask: v1::PinRequest,
    ) -> Result<v1::CheckpointView, Status> {
        let core = &self.core;
        for _ in 0..8 {
            let run = select::run(core, &ask.run).await?.body;
            let mut rows: Vec<Versioned<Checkpoint>> = core.of_run(run.id).await?;
            rows.retain(|row| row.body.manifest.step == Some(ask.step) && row.body.status.is_durable());
            rows.sort_by_key(|row| (row.body.stray, std::cmp::Reverse(row.body.committed_ms)));
            let Some(mut row) = rows.into_iter().next() else {
                let why = format!("{} has no durable checkpoint at step {}", run.name, ask.step);
                return Err(Status::not_found(why));
            };
            let head = run.head.as_ref().map(|head| head.key.as_str());
            let (event, verb, is_so) = if ask.unpin {
                (CheckpointEvent::Unpin, "unpinned", row.body.status == CheckpointState::Committed)
            } else {
                (CheckpointEvent::Pin, "pinned", row.body.status == CheckpointState::Pinned)
            };
            if is_so {
                return Ok(views::checkpoint(&row.body, head));
            }
            row.body.status = row.body.status.apply(event).map_err(crate::core::CoreError::from)?;
            let view = views::checkpoint(&row.body, head);
            let detail = json!({"step": ask.step});
            let changes = Changes::default().put(&row).note(
                core,
                actor,
                verb,
                &row.body.manifest.key,
                Some(run.id),
                detail,
            );
            if core.commit(changes).await? {
                return Ok(view);
            }
        }
        Err(crate::core::CoreError::Contended.into())
    }
}
