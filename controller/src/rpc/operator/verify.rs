//! Verifications as people ask for them and about them.

use proto::v1;
use tonic::Status;

use super::OperatorService;
use crate::model::{Checkpoint, Run};
use crate::rpc::select;
use crate::verify::{Ask, Found, Stage, Verdict, is_condemned};

impl OperatorService {
    pub(super) async fn verification(
        &self,
        actor: &str,
        ask: v1::VerifyRequest,
    ) -> Result<v1::VerifyReply, Status> {
        let job = if ask.job == 0 { self.begin(actor, &ask).await? } else { ask.job };
        let progress = self.core.verify.progress(job).ok_or_else(|| {
            Status::not_found(format!(
                "verification {job} is not known any more; its verdicts are in `outlast checkpoints`"
            ))
        })?;
        let mut rows = Vec::new();
        if matches!(progress.stage, Stage::Done | Stage::Failed) {
            for found in &progress.found {
                rows.push(self.row(found).await?);
            }
        }
        Ok(v1::VerifyReply {
            job,
            state: match progress.stage {
                Stage::Waiting => "waiting",
                Stage::Running => "running",
                Stage::Done => "done",
                Stage::Failed => "failed",
            }
            .to_owned(),
            checkpoints: progress.checkpoints,
            checkpoints_done: progress.found.len() as u64,
            bytes: progress.bytes,
            bytes_done: progress.bytes_done,
            rows,
            problem: progress.problem,
        })
    }

    async fn begin(&self, actor: &str, ask: &v1::VerifyRequest) -> Result<u64, Status> {
        let core = &self.core;
        if ask.sample > 100 {
            return Err(Status::invalid_argument("a sample is 1 to 100 percent"));
        }
        let mut rows: Vec<Checkpoint> = match (ask.all, ask.of.as_str()) {
            (true, "") => core.all::<Checkpoint>().await?.into_iter().map(|row| row.body).collect(),
            (true, of) => {
                if of.contains('@') {
                    let why = format!(
                        "`{of}` names one checkpoint, and all of its run are asked for: leave one of them out"
                    );
                    return Err(Status::invalid_argument(why));
                }
                let run = select::run(core, of).await?.body;
                core.of_run::<Checkpoint>(run.id).await?.into_iter().map(|row| row.body).collect()
            }
            (false, of) => vec![select::durable_or_condemned(core, of).await?.1],
        };
        // A condemned one is read again where it is asked for by its step.
        let condemned = !ask.all && rows.iter().any(is_condemned);
        rows.retain(|c| c.status.is_durable() || condemned);
        rows.sort_by_key(|c| std::cmp::Reverse(c.committed_ms));
        if rows.is_empty() {
            return Err(Status::not_found("no checkpoint is durable yet"));
        }
        let what = rows.into_iter().map(|c| c.manifest.key).collect();
        // A part of it cannot tell that all of it is right again.
        let percent = if ask.sample == 0 || condemned { 100 } else { ask.sample };
        let wish = Ask { what, percent, condemned, slowly: false, actor: actor.to_owned() };
        core.verify
            .ask(wish)
            .ok_or_else(|| Status::failed_precondition("enough verifications wait already; ask again later"))
    }

    async fn row(&self, found: &Found) -> Result<v1::VerifyRow, Status> {
        let run = self.core.load::<Run>(&found.run.to_string()).await?;
        let (trouble, unknown) = match &found.verdict {
            Verdict::Good => (String::new(), false),
            Verdict::Bad(why) => (why.clone(), false),
            Verdict::Unknown(why) => (why.clone(), true),
        };
        Ok(v1::VerifyRow {
            run: run.map(|run| run.body.name).unwrap_or_default(),
            step: found.step,
            key: found.key.clone(),
            bytes: found.bytes,
            trouble,
            unknown,
        })
    }
}
