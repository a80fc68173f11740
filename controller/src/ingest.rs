//! Facts become rows and files, exactly once: bytes are written first, then
//! one transaction moves the stream's position together with whatever the
//! facts change, then they are acknowledged. A fact below the position is
//! ignored, one above it is asked for again.

use std::collections::BTreeMap;

use lifecycle::{AttemptEvent, AttemptState, MachineId};
use proto::convert::{self, WireError};
use proto::v1::{self, event::Kind as EventKind, fact::Body};
use serde_json::json;

use crate::core::{Changes, Core, CoreError};
use crate::model::{Attempt, Exited, ManifestRef, Metrics, Position, Run, Versioned};
use crate::runfiles::Write;

mod hidden;
mod points;

#[cfg(test)]
mod tests;

/// What the agent is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Durable up to these positions.
    Ack(Vec<v1::Position>),
    /// A hole; this is wanted next.
    Nack(v1::Position),
}

/// Why a batch is not taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// It cannot be understood, or speaks for what is not the peer's.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// This side failed.
    #[error(transparent)]
    Core(#[from] CoreError),
}

/// A gap of more than a tebibyte is no gap.
const GAP_MOST: u64 = 1 << 40;
const EVIDENCE: &str = "evidence.jsonl";
/// More than this of evidence no agent sends.
const EVIDENCE_MOST: u64 = 1 << 20;
const GAPS: usize = 1_000;
const NOTES: usize = 50;
const NOTE_CHARS: usize = 500;

/// The streams that are known, with the file each is kept in.
#[must_use]
pub fn stream_name(stream: v1::Stream) -> Option<(&'static str, &'static str)> {
    match stream {
        v1::Stream::Events => Some(("events", "")),
        v1::Stream::Stdout => Some(("stdout", "stdout.log")),
        v1::Stream::Stderr => Some(("stderr", "stderr.log")),
        v1::Stream::Setup => Some(("setup", "setup.log")),
        v1::Stream::Metrics => Some(("metrics", "points.jsonl")),
        v1::Stream::Evidence => Some(("evidence", EVIDENCE)),
        v1::Stream::Unspecified => None,
    }
}

/// Everything that a batch may touch, read at its start.
struct Scene {
    run: Versioned<Run>,
    attempt: Versioned<Attempt>,
    metrics: Option<Versioned<Metrics>>,
    positions: BTreeMap<&'static str, Versioned<Position>>,
    writes: Vec<Write>,
    run_changed: bool,
    attempt_changed: bool,
    metrics_changed: bool,
    journal: Vec<(&'static str, serde_json::Value)>,
}

/// Applies a batch from `machine`.
///
/// # Errors
/// Where it is malformed, speaks for another machine's attempt, or this side
/// cannot write. Then nothing of it was applied.
pub async fn apply(core: &Core, machine: MachineId, batch: &v1::FactBatch) -> Result<Answer, IngestError> {
    let id = convert::attempt_id(&batch.attempt_id)?;
    for _ in 0..8 {
        let attempt: Versioned<Attempt> = core.need(&id.to_string()).await?;
        if attempt.body.machine != machine {
            return Err(WireError::new("attempt_id", "is not this machine's").into());
        }
        let mut scene = Scene {
            run: core.need(&attempt.body.run.to_string()).await?,
            attempt,
            metrics: None,
            positions: BTreeMap::new(),
            writes: Vec::new(),
            run_changed: false,
            attempt_changed: false,
            metrics_changed: false,
            journal: Vec::new(),
        };
        for fact in &batch.facts {
            if let Some(mut expected) = take(core, &mut scene, fact).await? {
                // What this batch brought before the hole is dropped with it.
                expected.next = durable(core, &scene, expected.stream).await?;
                return Ok(Answer::Nack(expected));
            }
        }
        if let Some(answer) = commit(core, scene).await? {
            return Ok(answer);
        }
    }
    Err(CoreError::Contended.into())
}

/// Where a stream stands in the store.
async fn durable(core: &Core, scene: &Scene, stream: i32) -> Result<u64, CoreError> {
    let stream = v1::Stream::try_from(stream).unwrap_or_default();
    let name = stream_name(stream).map_or("", |(name, _)| name);
    let row: Option<Versioned<Position>> = core.load(&format!("{}/{name}", scene.attempt.body.id)).await?;
    Ok(row.map_or(0, |row| row.body.next))
}

/// Takes one fact into the scene. `Some`: a hole was found.
async fn take(core: &Core, scene: &mut Scene, fact: &v1::Fact) -> Result<Option<v1::Position>, IngestError> {
    let stream = v1::Stream::try_from(fact.stream).unwrap_or_default();
    let (name, file) =
        stream_name(stream).ok_or_else(|| WireError::new("stream", "is not known to this version"))?;
    if !scene.positions.contains_key(name) {
        let fresh = Position {
            attempt: scene.attempt.body.id,
            run: scene.run.body.id,
            stream: name.to_owned(),
            next: 0,
            file_len: 0,
            gaps: Vec::new(),
        };
        let key = format!("{}/{name}", fresh.attempt);
        let row = core.load(&key).await?.unwrap_or(Versioned::new(fresh));
        scene.positions.insert(name, row);
    }
    let Some(position) = scene.positions.get(name).map(|p| p.body.clone()) else {
        return Err(CoreError::Contended.into());
    };
    if fact.seq > position.next {
        return Ok(Some(v1::Position {
            attempt_id: position.attempt.to_string(),
            stream: stream.into(),
            next: position.next,
        }));
    }
    let (next, file_len) = match (&fact.body, file) {
        (Some(Body::Bytes(bytes)), EVIDENCE) if fact.seq + bytes.data.len() as u64 > EVIDENCE_MOST => {
            return Err(WireError::new("evidence", "is larger than any agent sends").into());
        }
        (Some(Body::Bytes(bytes)), file) if file.ends_with(".log") || file == EVIDENCE => {
            take_bytes(scene, file, fact, &position, &bytes.data)
        }
        (Some(Body::Gap(gap)), _) if gap.to > position.next.saturating_add(GAP_MOST) => {
            return Err(WireError::new("gap.to", "is further off than any output reaches").into());
        }
        (Some(Body::Gap(gap)), _) => take_gap(scene, name, &position, gap),
        (Some(Body::Points(points)), "points.jsonl") if fact.seq == position.next => {
            let len = points::take(core, scene, &position, fact.at_ms, points).await?;
            (position.next + 1, len)
        }
        // Left by a later agent and passed on by one that cannot read it, whose
        // program the guard took back: refused, it would come for ever.
        (Some(Body::Event(v1::Event { kind: None })), "") if fact.seq == position.next => {
            let reason = "not known to this version of the agent".to_owned();
            take_gap(scene, name, &position, &v1::Gap { to: position.next + 1, reason })
        }
        (Some(Body::Event(event)), "") if fact.seq == position.next => {
            let event = hidden::secrets(core, event, &scene.run.body, &scene.attempt.body).await;
            take_event(core, scene, &event)?;
            (position.next + 1, 0)
        }
        (Some(Body::Points(_) | Body::Event(_)), _) if fact.seq < position.next => {
            (position.next, position.file_len)
        }
        _ => return Err(WireError::new("body", "does not belong to its stream or is not known").into()),
    };
    if let Some(row) = scene.positions.get_mut(name) {
        row.body.next = next;
        row.body.file_len = file_len;
    }
    Ok(None)
}

fn take_bytes(
    scene: &mut Scene,
    file: &'static str,
    fact: &v1::Fact,
    at: &Position,
    data: &[u8],
) -> (u64, u64) {
    let known = usize::try_from(at.next - fact.seq).unwrap_or(usize::MAX).min(data.len());
    let fresh = &data[known..];
    if fresh.is_empty() {
        return (at.next, at.file_len);
    }
    scene.writes.push(Write {
        run: scene.run.body.name.clone(),
        attempt: scene.attempt.body.number,
        file,
        offset: at.next,
        bytes: fresh.to_vec(),
        at_ms: if file.ends_with(".log") { fact.at_ms } else { 0 },
    });
    let next = at.next + fresh.len() as u64;
    (next, next)
}

fn take_gap(scene: &mut Scene, stream: &'static str, at: &Position, gap: &v1::Gap) -> (u64, u64) {
    if gap.to <= at.next {
        return (at.next, at.file_len);
    }
    if let Some(row) = scene.positions.get_mut(stream) {
        let gaps = &mut row.body.gaps;
        let full = gaps.len() >= GAPS;
        match gaps.last_mut() {
            Some(last) if full || last.1 == at.next => last.1 = gap.to,
            _ => gaps.push((at.next, gap.to)),
        }
    }
    let reason: String = gap.reason.chars().take(200).collect();
    scene.journal.push(("gap", json!({"stream": stream, "from": at.next, "to": gap.to, "reason": reason})));
    (gap.to, if stream == "metrics" { at.file_len } else { gap.to })
}

fn take_event(core: &Core, scene: &mut Scene, event: &v1::Event) -> Result<(), IngestError> {
    let now = core.clock.wall_ms();
    let attempt = &mut scene.attempt.body;
    let kind = event
        .kind
        .as_ref()
        .ok_or_else(|| WireError::new("event", "its kind is not known to this version"))?;
    scene.attempt_changed = true;
    match kind {
        EventKind::Preparing(_) => {
            // A refusal means that the attempt is over for the controller: the
            // fact is history and moves nothing.
            if let Ok(next) = attempt.status.apply(AttemptEvent::Prepare) {
                attempt.status = next;
            }
            scene.journal.push(("preparing", json!({})));
        }
        // Said again by an agent that was replaced: no news.
        EventKind::Started(_) if attempt.program_started => {}
        EventKind::Started(started) => {
            if let Ok(next) = attempt.status.apply(AttemptEvent::Start) {
                attempt.status = next;
            }
            attempt.started_ms = now;
            attempt.program_started = true;
            attempt.prepare_ms = started.prepare_ms;
            attempt.environment_cached = started.environment_cached;
            scene.journal.push((
                "started",
                json!({"pid": started.pid, "prepare_ms": started.prepare_ms, "cached": started.environment_cached}),
            ));
        }
        EventKind::Stopping(stopping) => {
            if let Ok(next) = attempt.status.apply(AttemptEvent::Stop) {
                attempt.status = next;
            }
            scene.journal.push(("stopping", json!({"why": clip(&stopping.why)})));
        }
        EventKind::Exited(exited) => exit_seen(scene, exited, now)?,
        EventKind::Ended(ended) => end(scene, ended, now)?,
        EventKind::CheckpointSeen(seen) => {
            let run = &mut scene.run.body;
            if run.bound == Some(attempt.id) && seen.step > run.produced_step {
                run.produced_step = seen.step;
                scene.run_changed = true;
            }
            scene.journal.push(("produced", json!({"name": clip(&seen.name), "step": seen.step})));
        }
        EventKind::CheckpointStored(stored) => {
            scene.journal.push(("stored", json!({"key": clip(&stored.manifest_key), "step": stored.step})));
        }
        EventKind::Restored(restored) => {
            attempt.restore_ms = restored.took_ms;
            let key = &restored.manifest_key;
            attempt.restored =
                attempt.resume.iter().find(|r| r.key == *key).cloned().or_else(|| {
                    Some(ManifestRef { key: clip(key), digest: String::new(), step: restored.step })
                });
            let detail = json!({"key": clip(key), "step": restored.step, "bytes": restored.bytes, "ms": restored.took_ms});
            scene.journal.push(("restored", detail));
        }
        EventKind::Alert(alert) => {
            let text = clip(&alert.text);
            if alert.raised && attempt.notes.len() < NOTES && !attempt.notes.contains(&text) {
                attempt.notes.push(text.clone());
            }
            let detail = json!({
                "name": clip(&alert.name), "subject": clip(&alert.subject), "level": clip(&alert.level),
                "raised": alert.raised, "value": number(alert.value), "limit": number(alert.limit),
                "trend_per_s": number(alert.trend_per_s), "text": text,
            });
            scene.journal.push(("alert", detail));
        }
        EventKind::Note(note) => {
            let text = clip(&note.text);
            if attempt.notes.len() < NOTES && !attempt.notes.contains(&text) {
                attempt.notes.push(text.clone());
            }
            scene.journal.push(("note", json!({"level": clip(&note.level), "text": text})));
        }
    }
    Ok(())
}

/// The news of a program's end. The attempt goes on until `Ended`: no state
/// moves here, so that nothing is released before what it left is published.
fn exit_seen(scene: &mut Scene, exited: &v1::Exited, now: u64) -> Result<(), IngestError> {
    let exit = convert::exit(exited.exit.clone())?;
    let out_of_memory = clip(&exited.out_of_memory);
    let attempt = &mut scene.attempt.body;
    let heard_ms = match &attempt.exited {
        None => now,
        Some(before)
            if before.exit == exit && before.out_of_memory.is_empty() && !out_of_memory.is_empty() =>
        {
            before.heard_ms
        }
        // Said again by an agent that was replaced: no news. What ends a
        // program changes once at most, when memory turns out to be the reason.
        Some(_) => return Ok(()),
    };
    let detail = json!({"exit": exit, "at_ms": exited.at_ms, "out_of_memory": out_of_memory});
    attempt.exited = Some(Exited { exit, heard_ms, out_of_memory });
    scene.journal.push(("exited", detail));
    Ok(())
}

fn end(scene: &mut Scene, ended: &v1::Ended, now: u64) -> Result<(), IngestError> {
    let exit = convert::exit(ended.exit.clone())?;
    let attempt = &mut scene.attempt.body;
    attempt.last_error_line = clip(&ended.last_error_line);
    attempt.out_of_memory = clip(&ended.out_of_memory);
    attempt.program_started = ended.started;
    attempt.transient = ended.transient;
    attempt.unpublished = clip(&ended.unpublished);
    attempt.hang = clip(&ended.hang);
    attempt.alone = ended.alone;
    attempt.leave_machine = clip(&ended.leave_machine);
    if ended.oom_pid > 0 || !ended.oom_command.is_empty() {
        attempt.oom_process = Some((ended.oom_pid, clip(&ended.oom_command)));
    }
    for limit in ended.unapplied_limits.iter().take(8).map(|text| clip(text)) {
        if attempt.notes.len() < NOTES && !attempt.notes.contains(&limit) {
            attempt.notes.push(limit);
        }
    }
    if !ended.unpublished.is_empty() && attempt.notes.len() < NOTES {
        attempt.notes.push(clip(&ended.unpublished));
    }
    let detail =
        json!({"exit": exit, "last": attempt.last_error_line, "out_of_memory": attempt.out_of_memory});
    if let Ok(next) = attempt.status.apply(AttemptEvent::End(exit)) {
        attempt.status = next;
        attempt.ended_ms = now;
        scene.journal.push(("ended", detail));
    } else {
        scene.journal.push(("ended-late", detail));
    }
    Ok(())
}

/// A number as JSON can hold it.
fn number(value: f64) -> serde_json::Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}

fn clip(text: &str) -> String {
    text.chars().take(NOTE_CHARS).collect()
}

/// Bytes first, then the transaction. `None`: somebody else changed a row.
async fn commit(core: &Core, scene: Scene) -> Result<Option<Answer>, CoreError> {
    let final_now = matches!(scene.attempt.body.status, AttemptState::Ended { .. });
    core.files.write(scene.writes).await?;
    let mut changes = Changes::default();
    for row in scene.positions.values() {
        changes = changes.put(row);
    }
    if scene.run_changed {
        changes = changes.put(&scene.run);
    }
    if scene.attempt_changed {
        changes = changes.put(&scene.attempt);
    }
    if scene.metrics_changed
        && let Some(row) = &scene.metrics
    {
        changes = changes.put(row);
    }
    let attempt = &scene.attempt.body;
    let actor = format!("machine:{}", attempt.machine);
    let moves = !scene.journal.is_empty();
    for (verb, detail) in scene.journal {
        changes = changes.note(core, &actor, verb, attempt.id, Some(attempt.run), detail);
    }
    let committed = if moves { core.commit(changes).await? } else { core.commit_quietly(changes).await? };
    if !committed {
        return Ok(None);
    }
    if final_now {
        core.poke(attempt.machine);
    }
    if attempt.status.is_final() && (moves || scene.positions.contains_key("evidence")) {
        core.capsules.add(attempt.id);
    }
    let acks = scene.positions.values().filter_map(|row| {
        let stream = (1..=6)
            .filter_map(|n| v1::Stream::try_from(n).ok())
            .find(|s| stream_name(*s).is_some_and(|(name, _)| name == row.body.stream))?;
        Some(v1::Position {
            attempt_id: row.body.attempt.to_string(),
            stream: stream.into(),
            next: row.body.next,
        })
    });
    Ok(Some(Answer::Ack(acks.collect())))
}

/// Where every stream of an attempt stands, for the answer to Hello.
///
/// # Errors
/// Where the store fails.
pub async fn positions(core: &Core, attempt: &Attempt) -> Result<Vec<v1::Position>, CoreError> {
    let rows: Vec<Versioned<Position>> = core.of_run(attempt.run).await?;
    let known = rows.iter().filter(|r| r.body.attempt == attempt.id);
    Ok(known
        .filter_map(|row| {
            let stream = (1..=6).filter_map(|n| v1::Stream::try_from(n).ok());
            let mut found = stream.filter(|s| stream_name(*s).is_some_and(|(n, _)| n == row.body.stream));
            Some(v1::Position {
                attempt_id: attempt.id.to_string(),
                stream: found.next()?.into(),
                next: row.body.next,
            })
        })
        .collect())
}

/// After a start: cuts every file back to its durable length.
///
/// # Errors
/// Where the store or the disk fails.
pub async fn cut_to_durable(core: &Core) -> Result<(), CoreError> {
    for run in core.all::<Run>().await? {
        if run.body.status.is_final() {
            continue;
        }
        let attempts: Vec<Versioned<Attempt>> = core.of_run(run.body.id).await?;
        for row in core.of_run::<Position>(run.body.id).await? {
            let file = (1..=6)
                .filter_map(|n| v1::Stream::try_from(n).ok().and_then(stream_name))
                .find(|(name, _)| *name == row.body.stream)
                .map_or("", |(_, file)| file);
            if file.is_empty() {
                continue;
            }
            if let Some(attempt) = attempts.iter().find(|a| a.body.id == row.body.attempt) {
                core.files.truncate(&run.body.name, attempt.body.number, file, row.body.file_len)?;
            }
        }
    }
    Ok(())
}
