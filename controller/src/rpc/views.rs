//! Rows as people's tools see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use lifecycle::mask::Masker;
use lifecycle::{AttemptState, CheckpointState, MachineId, MachineState, RunId, RunState};
use proto::v1;

use crate::capsule;
use crate::core::{Core, CoreError};
use crate::model::{Attempt, Checkpoint, Exited, Machine, Metrics, Run, Versioned};
use crate::plan;
use crate::provider::{InstanceState, Listing, Presence};

/// A run with what it has cost and how fast it goes.
///
/// # Errors
/// Where the store fails.
pub async fn run(core: &Core, run: &Run) -> Result<v1::RunView, CoreError> {
    let machines: Vec<Versioned<Machine>> = core.of_run(run.id).await?;
    let machines: Vec<&Machine> = machines.iter().map(|row| &row.body).collect();
    with_machines(core, run, &machines).await
}

/// Many of them.
///
/// # Errors
/// Where the store fails.
pub async fn runs(core: &Core, runs: &[Arc<Run>]) -> Result<Vec<v1::RunView>, CoreError> {
    let machines = core.every::<Machine>().await?;
    let mut of: BTreeMap<RunId, Vec<&Machine>> = BTreeMap::new();
    for machine in &machines {
        of.entry(machine.body.run).or_default().push(&machine.body);
    }
    let mut views = Vec::with_capacity(runs.len());
    for run in runs {
        let own = of.get(&run.id).map(Vec::as_slice).unwrap_or_default();
        views.push(with_machines(core, run, own).await?);
    }
    Ok(views)
}

async fn with_machines(core: &Core, run: &Run, machines: &[&Machine]) -> Result<v1::RunView, CoreError> {
    let attempt = match run.bound {
        Some(id) => core.look::<Attempt>(&id.to_string()).await?.map(|row| row.body),
        None => None,
    };
    let metrics = match &attempt {
        Some(a) => core.look::<Metrics>(&a.id.to_string()).await?.map(|row| row.body),
        None => None,
    };
    let mut view = assemble(core, run, machines, attempt.as_deref(), metrics.as_deref());
    view.forked_from = super::lineage::forked_from(core, run).await?;
    view.question = question(core, run).await?;
    Ok(view)
}

fn assemble(
    core: &Core,
    run: &Run,
    machines: &[&Machine],
    attempt: Option<&Attempt>,
    metrics: Option<&Metrics>,
) -> v1::RunView {
    let now = core.clock.wall_ms();
    let reason = match &run.status {
        RunState::Failed { reason } => reason.clone(),
        RunState::Waiting { question, .. } => question.text.clone(),
        _ if !run.stopped_by.is_empty() => run.stopped_by.clone(),
        RunState::Paused => "held until `outlast resume`".to_owned(),
        RunState::Provisioning | RunState::Recovering => machines
            .iter()
            .filter_map(|m| match &m.status {
                MachineState::Rejected { reason } => Some(reason.clone()),
                _ => None,
            })
            .next_back()
            .unwrap_or_default(),
        _ => String::new(),
    };
    let loss = metrics.and_then(|m| {
        let named = ["loss", "train/loss", "train_loss"].iter().find_map(|n| m.metrics.series.get(*n));
        named.or_else(|| m.metrics.series.iter().find(|(n, _)| n.contains("loss")).map(|(_, s)| s))?.last
    });
    let machine = attempt.map(|a| a.machine.to_string()).unwrap_or_default();
    let saves = attempt.and_then(|a| saves(core, run, a, machines));
    v1::RunView {
        saves,
        id: run.id.to_string(),
        name: run.name.clone(),
        project: run.spec.project.clone(),
        state: run.status.name().to_owned(),
        reason,
        created_ms: run.created_ms,
        ended_ms: run.ended_ms,
        generation: run.generation.as_u64(),
        attempts: run.attempts,
        step: attempt.and_then(|a| a.last_step),
        loss,
        rate: attempt.and_then(|a| curves::rate(&a.pace)),
        produced_step: run.produced_step,
        durable_step: run.head.as_ref().and_then(|h| h.step),
        cost_usd: machines.iter().map(|m| m.cost_usd(now)).sum(),
        exit_code: run.exit.as_ref().map(lifecycle::Exit::shell_code),
        machine,
        phase: attempt.map(phase).unwrap_or_default(),
        source_digest: run.source.digest.clone(),
        forked_from: String::new(),
        changes: super::lineage::changes(run),
        reused: false,
        same_as: String::new(),
        question: None,
    }
}

/// What a run waits for.
async fn question(core: &Core, run: &Run) -> Result<Option<v1::QuestionView>, CoreError> {
    let RunState::Waiting { question, .. } = &run.status else { return Ok(None) };
    let head = match &run.head {
        Some(head) => core.load::<Checkpoint>(&head.key).await?,
        None => None,
    };
    let options = question.options.iter().zip(1..);
    Ok(Some(v1::QuestionView {
        kind: question.kind.name().to_owned(),
        text: question.text.clone(),
        evidence: question.evidence.clone(),
        options: options
            .map(|(choice, number)| v1::ChoiceView {
                number,
                verb: choice.verb.name().to_owned(),
                text: choice.text.clone(),
            })
            .collect(),
        default: question.default,
        deadline_ms: question.deadline_ms,
        asked_ms: question.asked_ms,
        checkpoint_ms: head.map_or(0, |row| row.body.committed_ms),
    }))
}

/// What the bound attempt does now, in a word.
fn phase(a: &Attempt) -> String {
    if publishing(a).is_some() { "publishing".to_owned() } else { a.status.name().to_lowercase() }
}

/// How often the program saves and what that costs, from what its agent
/// measured.
fn saves(core: &Core, run: &Run, attempt: &Attempt, machines: &[&Machine]) -> Option<v1::SavesView> {
    use lifecycle::cadence::{Bounds, SaveCost, price};
    let told = core.health.saves(attempt.machine, &attempt.id.to_string())?;
    let sane = |seconds: f64| Some(seconds).filter(|s| s.is_finite() && *s >= 0.0);
    let (own_s, between) = (sane(told.own_s)?, sane(told.between_losses_s)?);
    let machine = machines.iter().find(|m| m.id == attempt.machine)?;
    let cost = SaveCost::blocking(sane(told.cost_s)?);
    let restart_s = machine.ready_ms.saturating_sub(machine.called_ms) / 1_000;
    #[expect(clippy::cast_precision_loss, reason = "seconds of a boot")]
    let price = price(own_s, &cost, between, restart_s as f64, machine.usd_per_hour, &Bounds::default());
    Some(v1::SavesView {
        own_s,
        best_s: sane(told.best_s)?,
        between_losses_s: between,
        wasted_usd_per_hour: price.own_usd_per_hour,
        spare_usd_per_hour: price.spare_usd_per_hour,
        adaptive: run.spec.checkpoints.cadence == lifecycle::spec::Cadence::Adaptive,
        asked: told.asked,
        deaf: told.deaf,
    })
}

/// A run with everything about it.
///
/// # Errors
/// Where the store fails.
pub async fn detail(core: &Core, run: &Run) -> Result<v1::RunDetail, CoreError> {
    let machines: Vec<Versioned<Machine>> = core.of_run(run.id).await?;
    let mut attempts: Vec<Versioned<Attempt>> = core.of_run(run.id).await?;
    attempts.sort_by_key(|a| a.body.number);
    let newest = attempts.last().map(|a| &a.body);
    let metrics = match newest {
        Some(a) => core.load::<Metrics>(&a.id.to_string()).await?.map(|row| row.body),
        None => None,
    };
    let notes = newest.map(|a| a.notes.clone()).unwrap_or_default();
    let series = metrics.iter().flat_map(|m| m.metrics.series.iter());
    let listed = series
        .take(200)
        .map(|(name, s)| v1::MetricView {
            name: name.clone(),
            last: s.last.unwrap_or(f64::NAN),
            step: s.last_step,
            count: s.count,
            min: s.min.unwrap_or(f64::NAN),
            max: s.max.unwrap_or(f64::NAN),
        })
        .collect();
    let own: Vec<&Machine> = machines.iter().map(|row| &row.body).collect();
    let mut view = assemble(core, run, &own, newest, metrics.as_ref());
    view.forked_from = super::lineage::forked_from(core, run).await?;
    view.question = question(core, run).await?;
    Ok(v1::RunDetail {
        run: Some(view),
        attempts: attempts.iter().map(|a| attempt(core, run, &a.body)).collect(),
        machines: machines.iter().map(|m| machine(core, &m.body)).collect(),
        metrics: listed,
        notes,
        spec_json: shown_spec(run),
        rooms: super::spending::rooms_of(core, run).await?,
    })
}

/// What the run is asked to be, without the values of variables whose names
/// say that they are secrets: a listing is pasted and sent on.
fn shown_spec(run: &Run) -> String {
    let mut spec = run.spec.clone();
    let masker = Masker::new(&run.spec.env);
    for (name, value) in &mut spec.env {
        *value = masker.value(name, value);
    }
    spec.command = masker.command(&spec.command);
    serde_json::to_string(&spec).unwrap_or_default()
}

/// How it ended and, where that was no success, the cause. Of a program that
/// has ended while what it left is being published, that.
fn ending(core: &Core, run: &Run, a: &Attempt) -> String {
    if let Some(exited) = publishing(a) {
        let why = if exited.out_of_memory.is_empty() { "" } else { ", out of memory" };
        return format!("program ended ({}{why}), publishing what it left", exited.exit);
    }
    let ending = capsule::ending(a);
    match core.capsules.cause_of(run, a) {
        Some(cause) => format!("{ending}: {cause}"),
        None => ending,
    }
}

/// The end of a program whose attempt goes on.
fn publishing(a: &Attempt) -> Option<&Exited> {
    a.exited.as_ref().filter(|_| !a.status.is_final())
}

fn attempt(core: &Core, run: &Run, a: &Attempt) -> v1::AttemptView {
    let exit_code = match &a.status {
        AttemptState::Ended { exit } => Some(exit.shell_code()),
        _ => None,
    };
    let ending = ending(core, run, a);
    v1::AttemptView {
        id: a.id.to_string(),
        number: a.number,
        generation: a.generation.as_u64(),
        machine_id: a.machine.to_string(),
        state: a.status.name().to_owned(),
        ending,
        started_ms: a.started_ms,
        ended_ms: a.ended_ms,
        resumed_step: a.restored.as_ref().and_then(|r| r.step),
        first_step: a.first_step,
        last_step: a.last_step,
        exit_code,
        prepare_ms: a.prepare_ms,
        restore_ms: a.restore_ms,
        environment_cached: a.environment_cached,
        first_step_ms: a.first_step_ms,
        last_error_line: a.last_error_line.clone(),
        exited_ms: a.exited.as_ref().map_or(0, |exited| exited.heard_ms),
    }
}

/// What the providers say now of machines that are not over: as they see them,
/// not as we remember them. Several of one provider are listed together, since
/// calls are counted there; who is missing in a list is asked for by itself.
///
/// # Errors
/// Where a provider is not known.
pub async fn words(core: &Core, rows: &[Arc<Machine>]) -> Result<BTreeMap<MachineId, String>, CoreError> {
    let word = |presence: &Presence| format!("{presence:?}").to_lowercase();
    let mut said = BTreeMap::new();
    let mut live: BTreeMap<&str, Vec<(&Machine, &str)>> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.status.is_final()) {
        if let Some(instance) = &row.instance {
            live.entry(&row.provider).or_default().push((row, instance));
        }
    }
    for (name, machines) in live {
        let provider = core.provider(name)?;
        let listed = match machines.len() {
            1 => Vec::new(),
            _ => match provider.list(&crate::label::prefix(core.hub)).await {
                Listing::Complete(all) | Listing::Partial(all) => all,
                Listing::Error(_) => Vec::new(),
            },
        };
        let by_id: BTreeMap<&str, InstanceState> =
            listed.iter().map(|one| (one.id.as_str(), one.state)).collect();
        for (row, instance) in machines {
            let found = by_id.get(instance).map(|state| Presence::Present(*state));
            let presence = match found {
                Some(presence) => presence,
                None => provider.get(instance).await,
            };
            said.insert(row.id, word(&presence));
        }
    }
    Ok(said)
}

/// A machine.
#[must_use]
pub fn machine(core: &Core, m: &Machine) -> v1::MachineView {
    let now = core.clock.wall_ms();
    let noticed = m.notice.as_ref().filter(|_| m.status.is_up() && plan::is_leaving(m, now));
    let said = match noticed {
        Some(notice) if m.reason.is_empty() => notice.to_string(),
        Some(notice) => format!("{}; {notice}", m.reason),
        None => m.reason.clone(),
    };
    let besides = [core.carried.of(m.id), core.carried.detour(m.id).map(str::to_owned)];
    let words = std::iter::once(said).filter(|said| !said.is_empty()).chain(besides.into_iter().flatten());
    let reason = words.collect::<Vec<_>>().join("; ");
    v1::MachineView {
        id: m.id.to_string(),
        provider: m.provider.clone(),
        instance: m.instance.clone().unwrap_or_default(),
        state: m.status.name().to_owned(),
        run_id: m.run.to_string(),
        created_ms: m.created_ms,
        ended_ms: m.ended_ms,
        usd_per_hour: m.usd_per_hour,
        cost_usd: m.cost_usd(core.clock.wall_ms()),
        provider_says: String::new(),
        reason,
        paid: core.providers.get(&m.provider).is_some_and(|provider| provider.is_paid()),
        ends_alone_ms: ends_alone_ms(core, m, now),
    }
}

/// When its agent ends it where no controller speaks to it from now on: its
/// share of the caps is spent then.
fn ends_alone_ms(core: &Core, m: &Machine, now_ms: u64) -> u64 {
    let allowance = core.allowance(m.id).flatten().filter(|_| m.status.is_up());
    // To the second: it is looked at again and again.
    allowance.map_or(0, |ms| now_ms.saturating_add(ms) / 1_000 * 1_000)
}

/// A checkpoint.
#[must_use]
pub fn checkpoint(c: &Checkpoint, head: Option<&str>) -> v1::CheckpointView {
    let state = match (c.stray, c.status) {
        (true, CheckpointState::Committed) => "STRAY",
        (_, status) => status.name(),
    };
    v1::CheckpointView {
        key: c.manifest.key.clone(),
        step: c.manifest.step,
        state: state.to_owned(),
        generation: c.generation.as_u64(),
        bytes: c.bytes,
        new_bytes: c.new_bytes,
        committed_ms: c.committed_ms,
        name: c.name.clone(),
        head: head == Some(c.manifest.key.as_str()),
        digest: c.manifest.digest.clone(),
        r#type: c.kind.clone(),
        verified_ms: c.verified_ms,
        verified_percent: c.verified_percent,
        trouble: c.trouble.clone(),
        ..v1::CheckpointView::default()
    }
}
