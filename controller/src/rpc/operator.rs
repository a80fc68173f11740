//! What people's tools ask. Every change is a compare-and-set with a journal
//! entry that names the operator; every answer comes from rows.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{MachineState, RunEvent, RunState};
use proto::v1::{self, operator_server::Operator};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::{logs, metrics, operator_of, select, views};
use crate::core::{Changes, Core, CoreError};
use crate::model::{Machine, Run, StopReason, Wish};

const EVENTS: u32 = 10_000;
/// Watchers get at most so many updates a second.
const THROTTLE: Duration = Duration::from_millis(100);
/// Who reads nothing for so long is not told that the controller ends.
const FAREWELL: Duration = Duration::from_secs(1);

mod admit;
mod answers;
mod branches;
mod changes;
mod endings;
mod tidy;
mod verify;

#[cfg(test)]
mod tests;

use changes::Submission;

type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub struct OperatorService {
    core: Arc<Core>,
    tasks: TaskTracker,
    drain: CancellationToken,
    build: Build,
    /// One submission at a time is looked for and written.
    submitting: tokio::sync::Mutex<()>,
}

/// What the controller says of itself.
#[derive(Debug, Clone)]
pub struct Build {
    /// Tells two builds apart.
    pub id: String,
    /// Schema of the database.
    pub schema: u32,
    /// Unix milliseconds of the start.
    pub started_ms: u64,
}

impl OperatorService {
    /// Serves for `core`; `drain` ends the controller.
    #[must_use]
    pub fn new(core: Arc<Core>, tasks: TaskTracker, drain: CancellationToken, build: Build) -> Self {
        Self { core, tasks, drain, build, submitting: tokio::sync::Mutex::default() }
    }

    /// An answer in parts, made while it is read; ends where the reader goes
    /// away or the controller ends.
    fn streamed<T, F>(&self, make: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F) -> Response<Parts<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<(), CoreError>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(8);
        let (told, stop) = (sender.clone(), self.drain.clone());
        let made = make(sender);
        self.tasks.spawn(async move {
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // An end without a word would pass for all there is.
                    let cut = Status::unavailable("the controller is ending");
                    let _ = tokio::time::timeout(FAREWELL, told.send(Err(cut))).await;
                    return;
                }
                done = made => done,
            };
            if let Err(error) = done {
                let _ = told.send(Err(error.into())).await;
            }
        });
        Response::new(Box::pin(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl Operator for OperatorService {
    type WatchStream = Parts<v1::RunDetail>;
    type LogsStream = Parts<v1::LogChunk>;
    type MetricsStream = Parts<v1::MetricsChunk>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::RunView>, Status> {
        let actor = operator_of(&self.core, &request)?;
        Ok(Response::new(self.submitted(&actor, request.into_inner()).await?))
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::RunList>, Status> {
        operator_of(&self.core, &request)?;
        let all = request.into_inner().all;
        let mut rows: Vec<Arc<Run>> = self.core.every::<Run>().await?.into_iter().map(|r| r.body).collect();
        rows.sort_by_key(|r| std::cmp::Reverse(r.created_ms));
        let mut index = 0;
        rows.retain(|run| {
            index += 1;
            all || !run.status.is_final() || index <= 20
        });
        let runs = views::runs(&self.core, &rows).await?;
        Ok(Response::new(v1::RunList { runs }))
    }

    async fn get_run(&self, request: Request<v1::Selector>) -> Result<Response<v1::RunDetail>, Status> {
        operator_of(&self.core, &request)?;
        let run = select::run(&self.core, &request.into_inner().text).await?;
        Ok(Response::new(views::detail(&self.core, &run.body).await?))
    }

    async fn watch(&self, request: Request<v1::Selector>) -> Result<Response<Self::WatchStream>, Status> {
        operator_of(&self.core, &request)?;
        let run = select::run(&self.core, &request.into_inner().text).await?.body.id;
        let (sender, receiver) = mpsc::channel(4);
        let core = self.core.clone();
        let stop = self.drain.clone();
        self.tasks.spawn(async move {
            let mut changed = core.changed.subscribe();
            let mut last = None;
            loop {
                changed.mark_unchanged();
                let detail = match core.need::<Run>(&run.to_string()).await {
                    Ok(row) => views::detail(&core, &row.body).await,
                    Err(error) => Err(error),
                };
                let news = match detail {
                    Ok(detail) if last.as_ref() == Some(&detail) => None,
                    Ok(detail) => {
                        last = Some(detail.clone());
                        Some(Ok(detail))
                    }
                    Err(error) => Some(Err(error.into())),
                };
                if let Some(news) = news
                    && sender.send(news).await.is_err()
                {
                    return;
                }
                tokio::time::sleep(THROTTLE).await;
                tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    () = stop.cancelled() => return,
                    _ = changed.changed() => {}
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        operator_of(&self.core, &request)?;
        let wanted = logs::wanted(&self.core, &request.into_inner()).await?;
        let core = self.core.clone();
        Ok(self.streamed(|out| async move { logs::send(core, wanted, out).await }))
    }

    async fn metrics(
        &self,
        request: Request<v1::MetricsRequest>,
    ) -> Result<Response<Self::MetricsStream>, Status> {
        operator_of(&self.core, &request)?;
        let ask = request.into_inner();
        let (core, run) = (self.core.clone(), select::run(&self.core, &ask.run).await?.body);
        Ok(self.streamed(|out| async move { metrics::send(&core, &run, &ask.held, out).await }))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::RunView>, Status> {
        let actor = operator_of(&self.core, &request)?;
        let ask = request.into_inner();
        let run = self
            .change_run(&ask.run, &actor, "stop-asked", |run| {
                if run.status.is_final() {
                    return Err(Status::failed_precondition(format!("{} has ended already", run.name)));
                }
                run.stop_grace = match (run.wish, run.stop_grace, ask.grace_seconds) {
                    // A second request may only shorten the grace.
                    (Wish::Stop, before, now) if before > 0 && now > 0 => before.min(now),
                    (Wish::Stop, before, 0) => before,
                    (_, _, now) => now,
                };
                run.wish = Wish::Stop;
                run.stop_reason = Some(StopReason::Person);
                Ok(())
            })
            .await?;
        self.view(&run).await
    }

    async fn resume(&self, request: Request<v1::Selector>) -> Result<Response<v1::RunView>, Status> {
        let actor = operator_of(&self.core, &request)?;
        let text = request.into_inner().text;
        let old = select::run(&self.core, &text).await?.body;
        let run = match &old.status {
            RunState::Waiting { .. } => self.went_on(&actor, &text).await?,
            RunState::Paused => {
                self.change_run(&text, &actor, "resumed", |run| {
                    run.status = run.status.apply(RunEvent::Resume).map_err(CoreError::from)?;
                    // A person takes the responsibility for more machines.
                    run.creates_ms.clear();
                    Ok(())
                })
                .await?
            }
            status if status.is_final() => {
                // Final states are never left: the work goes on as a new run
                // that may resume from the old one's checkpoints.
                let token = data_encoding::HEXLOWER
                    .encode(&self.core.entropy.bytes::<16>().map_err(CoreError::from)?);
                let wish = Submission::new(old.spec.clone(), old.source.clone(), token);
                self.submit_run(&actor, Submission { parent: Some(old.id), ..wish }).await?
            }
            status => {
                return Err(Status::failed_precondition(format!(
                    "{} is {} already",
                    old.name,
                    status.name()
                )));
            }
        };
        self.view(&run).await
    }

    async fn answer(&self, request: Request<v1::AnswerRequest>) -> Result<Response<v1::RunView>, Status> {
        let actor = operator_of(&self.core, &request)?;
        let run = self.answered(&actor, request.into_inner()).await?;
        self.view(&run).await
    }

    async fn notify(&self, request: Request<v1::NotifyRequest>) -> Result<Response<v1::NotifyReply>, Status> {
        operator_of(&self.core, &request)?;
        Ok(Response::new(crate::notify::ask(&self.core, request.into_inner()).await?))
    }

    async fn destroy_run(&self, request: Request<v1::Selector>) -> Result<Response<v1::RunView>, Status> {
        let actor = operator_of(&self.core, &request)?;
        let run = self.destroyed_run(&actor, &request.into_inner().text).await?;
        self.view(&run).await
    }

    async fn destroy_machine(
        &self,
        request: Request<v1::Selector>,
    ) -> Result<Response<v1::MachineView>, Status> {
        let actor = operator_of(&self.core, &request)?;
        let machine = self.destroyed_machine(&actor, &request.into_inner().text).await?;
        Ok(Response::new(views::machine(&self.core, &machine)))
    }

    async fn sabotage(&self, request: Request<v1::Selector>) -> Result<Response<v1::MachineView>, Status> {
        let actor = operator_of(&self.core, &request)?;
        let machine = self.sabotaged(&actor, &request.into_inner().text).await?;
        Ok(Response::new(views::machine(&self.core, &machine)))
    }

    async fn list_machines(
        &self,
        request: Request<v1::ListMachinesRequest>,
    ) -> Result<Response<v1::MachineList>, Status> {
        operator_of(&self.core, &request)?;
        let all = request.into_inner().all;
        let every = self.core.every::<Machine>().await?;
        let mut rows: Vec<Arc<Machine>> = every.into_iter().map(|m| m.body).collect();
        rows.retain(|m| all || (!m.status.is_final() && m.status != MachineState::Abandoned));
        rows.sort_by_key(|m| m.created_ms);
        let mut said = views::words(&self.core, &rows).await?;
        let mut view = |row: &Machine| {
            let mut view = views::machine(&self.core, row);
            view.provider_says = said.remove(&row.id).unwrap_or_default();
            view
        };
        let machines = rows.iter().map(|row| view(row)).collect();
        Ok(Response::new(v1::MachineList { machines }))
    }

    async fn offers(&self, request: Request<v1::OffersRequest>) -> Result<Response<v1::OfferList>, Status> {
        operator_of(&self.core, &request)?;
        Ok(Response::new(super::offers::list(&self.core, request.into_inner()).await?))
    }

    async fn foreign(
        &self,
        request: Request<v1::ForeignRequest>,
    ) -> Result<Response<v1::ForeignList>, Status> {
        operator_of(&self.core, &request)?;
        Ok(Response::new(super::foreign::list(&self.core, &request.into_inner().provider).await?))
    }

    async fn destroy_foreign(
        &self,
        request: Request<v1::DestroyForeignRequest>,
    ) -> Result<Response<v1::DestroyForeignReply>, Status> {
        let actor = operator_of(&self.core, &request)?;
        Ok(Response::new(super::foreign::destroy(&self.core, &actor, request.into_inner()).await?))
    }

    async fn bill(&self, request: Request<v1::BillRequest>) -> Result<Response<v1::BillReply>, Status> {
        operator_of(&self.core, &request)?;
        Ok(Response::new(super::bill::bill(&self.core, request.into_inner().days).await?))
    }

    async fn spending(
        &self,
        request: Request<v1::SpendingRequest>,
    ) -> Result<Response<v1::SpendingReply>, Status> {
        operator_of(&self.core, &request)?;
        Ok(Response::new(super::spending::spending(&self.core, request.into_inner()).await?))
    }

    async fn hosts(&self, request: Request<v1::HostsRequest>) -> Result<Response<v1::HostList>, Status> {
        operator_of(&self.core, &request)?;
        Ok(Response::new(super::offers::hosts(&self.core, request.into_inner()).await?))
    }

    async fn preflight(
        &self,
        request: Request<v1::PreflightRequest>,
    ) -> Result<Response<v1::PreflightReply>, Status> {
        operator_of(&self.core, &request)?;
        Ok(Response::new(super::offers::preflight(&self.core, request.into_inner()).await?))
    }

    async fn recommend(
        &self,
        request: Request<v1::RecommendRequest>,
    ) -> Result<Response<v1::RecommendReply>, Status> {
        operator_of(&self.core, &request)?;
        Ok(Response::new(super::recommend::recommend(&self.core, request.into_inner()).await?))
    }

    async fn list_checkpoints(
        &self,
        request: Request<v1::Selector>,
    ) -> Result<Response<v1::CheckpointList>, Status> {
        operator_of(&self.core, &request)?;
        let run = select::run(&self.core, &request.into_inner().text).await?.body;
        let checkpoints = super::lineage::checkpoints(&self.core, &run).await?;
        Ok(Response::new(v1::CheckpointList { checkpoints }))
    }

    async fn pin(&self, request: Request<v1::PinRequest>) -> Result<Response<v1::CheckpointView>, Status> {
        let actor = operator_of(&self.core, &request)?;
        Ok(Response::new(self.pinned(&actor, request.into_inner()).await?))
    }

    async fn tidy(&self, request: Request<v1::TidyRequest>) -> Result<Response<v1::TidyReply>, Status> {
        let actor = operator_of(&self.core, &request)?;
        Ok(Response::new(self.tidied(&actor, request.into_inner()).await?))
    }

    async fn find_checkpoint(
        &self,
        request: Request<v1::Selector>,
    ) -> Result<Response<v1::CheckpointView>, Status> {
        operator_of(&self.core, &request)?;
        let (run, found) = select::checkpoint(&self.core, &request.into_inner().text).await?;
        Ok(Response::new(super::lineage::checkpoint(&self.core, &run, &found).await?))
    }

    async fn lineage(&self, request: Request<v1::Selector>) -> Result<Response<v1::LineageReply>, Status> {
        operator_of(&self.core, &request)?;
        let run = select::run(&self.core, &request.into_inner().text).await?.body;
        Ok(Response::new(super::lineage::family(&self.core, &run).await?))
    }

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Result<Response<v1::VerifyReply>, Status> {
        let actor = operator_of(&self.core, &request)?;
        Ok(Response::new(self.verification(&actor, request.into_inner()).await?))
    }

    async fn fork(&self, request: Request<v1::ForkRequest>) -> Result<Response<v1::RunView>, Status> {
        let actor = operator_of(&self.core, &request)?;
        let run = self.forked(&actor, request.into_inner()).await?;
        self.view(&run).await
    }

    async fn import(&self, request: Request<v1::ImportRequest>) -> Result<Response<v1::RunView>, Status> {
        let actor = operator_of(&self.core, &request)?;
        let run = self.imported(&actor, request.into_inner()).await?;
        self.view(&run).await
    }

    async fn outputs(&self, request: Request<v1::Selector>) -> Result<Response<v1::OutputsReply>, Status> {
        operator_of(&self.core, &request)?;
        let run = select::run(&self.core, &request.into_inner().text).await?.body;
        let reply = run.outputs.map_or_else(v1::OutputsReply::default, |o| v1::OutputsReply {
            manifest_key: o.key,
            manifest_digest: o.digest,
        });
        Ok(Response::new(reply))
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<v1::EventList>, Status> {
        operator_of(&self.core, &request)?;
        let ask = request.into_inner();
        let run = match ask.run.as_str() {
            "" => None,
            text => Some(select::run(&self.core, text).await?.body.id.to_string()),
        };
        let limit = if ask.limit == 0 { EVENTS } else { ask.limit.min(EVENTS) } as usize;
        let rows =
            self.core.store.journal(ask.after, limit, run.as_deref()).await.map_err(CoreError::from)?;
        let verdict = if ask.verify {
            let check = self.core.store.verify_journal().await.map_err(CoreError::from)?;
            check.first_bad.map_or_else(String::new, |seq| format!("the chain is broken at entry {seq}"))
        } else {
            String::new()
        };
        let events = rows
            .into_iter()
            .map(|row| v1::EventView {
                seq: row.seq,
                at_ms: row.at_ms,
                actor: row.actor,
                verb: row.verb,
                object: row.object,
                detail_json: row.detail.to_string(),
            })
            .collect();
        Ok(Response::new(v1::EventList { events, verdict }))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::ControllerView>, Status> {
        operator_of(&self.core, &request)?;
        let core = &self.core;
        core.alert("keys", core.keys.trouble());
        let runs = core.every::<Run>().await?;
        let machines = core.every::<Machine>().await?;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Response::new(v1::ControllerView {
            hub_id: core.hub.to_string(),
            version: proto::VERSION.to_owned(),
            build_id: self.build.id.clone(),
            pid: u64::from(std::process::id()),
            started_ms: self.build.started_ms,
            schema: self.build.schema,
            active_runs: count(runs.iter().filter(|r| !r.body.status.is_final()).count()),
            machines: count(machines.iter().filter(|m| m.body.status.may_bill()).count()),
            alerts: core.alerts(),
        }))
    }

    async fn health(&self, request: Request<v1::HealthOf>) -> Result<Response<v1::HealthReply>, Status> {
        operator_of(&self.core, &request)?;
        super::health::health(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn why(&self, request: Request<v1::WhyRequest>) -> Result<Response<v1::WhyReply>, Status> {
        operator_of(&self.core, &request)?;
        super::why::why(&self.core, request.into_inner()).await.map(Response::new)
    }

    async fn upgrade_machine(
        &self,
        request: Request<v1::UpgradeRequest>,
    ) -> Result<Response<v1::UpgradeReply>, Status> {
        let actor = operator_of(&self.core, &request)?;
        super::upgrade::upgrade(&self.core, &actor, request.into_inner()).await.map(Response::new)
    }

    async fn admit(&self, request: Request<v1::AdmitRequest>) -> Result<Response<v1::AdmitReply>, Status> {
        let actor = operator_of(&self.core, &request)?;
        Ok(Response::new(self.admitted(&actor, request.into_inner()).await?))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainReply>, Status> {
        let actor = operator_of(&self.core, &request)?;
        let changes = Changes::default().note(&self.core, &actor, "drain", "controller", None, json!({}));
        self.core.commit(changes).await?;
        self.drain.cancel();
        Ok(Response::new(v1::DrainReply {}))
    }
}
