//! From what a person types to one checkpoint: RUN is the newest durable one,
//! RUN@STEP that of a step, RUN@best the best by the run's own metric.

use tonic::Status;

use crate::core::Core;
use crate::model::{Checkpoint, Run};
use crate::verify::is_condemned;

/// The checkpoint that `text` means, and its run. One that is no longer usable
/// is never found.
///
/// # Errors
/// Where none is meant, with those that there are; or the store fails.
pub async fn checkpoint(core: &Core, text: &str) -> Result<(Run, Checkpoint), Status> {
    find(core, text, false).await
}

/// The same, and of a step that has no durable one the condemned one: to look
/// at it again, and for nothing else.
///
/// # Errors
/// As [`checkpoint`].
pub async fn durable_or_condemned(core: &Core, text: &str) -> Result<(Run, Checkpoint), Status> {
    find(core, text, true).await
}

async fn find(core: &Core, text: &str, condemned: bool) -> Result<(Run, Checkpoint), Status> {
    let (name, which) = text.rsplit_once('@').map_or((text, None), |(name, which)| (name, Some(which)));
    let run = super::run(core, name).await?.body;
    let rows: Vec<Checkpoint> =
        core.of_run::<Checkpoint>(run.id).await?.into_iter().map(|row| row.body).collect();
    let picked = match which {
        None | Some("newest") => Ok(newest(&rows)),
        Some("best") => best(core, &run, &rows).await,
        Some(step) => match step.parse::<u64>() {
            Ok(step) => Ok(at(&rows, step).or_else(|| damaged(&rows, step).filter(|_| condemned))),
            Err(_) => Err(Status::invalid_argument(format!(
                "`{step}` is no step: a checkpoint is named RUN, RUN@STEP or RUN@best"
            ))),
        },
    }?;
    let found = picked.cloned().ok_or_else(|| Status::not_found(none(&run, &rows, which)))?;
    Ok((run, found))
}

fn newest(rows: &[Checkpoint]) -> Option<&Checkpoint> {
    let usable = rows.iter().filter(|c| c.status.is_durable() && !c.stray);
    usable.max_by_key(|c| (c.manifest.step, c.generation, c.committed_ms))
}

/// Of several at one step the newest of those that count.
fn at(rows: &[Checkpoint], step: u64) -> Option<&Checkpoint> {
    let there = rows.iter().filter(|c| c.status.is_durable() && c.manifest.step == Some(step));
    there.max_by_key(|c| (!c.stray, c.generation, c.committed_ms))
}

/// The newest of those at one step that were found damaged.
fn damaged(rows: &[Checkpoint], step: u64) -> Option<&Checkpoint> {
    let there = rows.iter().filter(|c| is_condemned(c) && c.manifest.step == Some(step));
    there.max_by_key(|c| (!c.stray, c.generation, c.committed_ms))
}

async fn best<'a>(core: &Core, run: &Run, rows: &'a [Checkpoint]) -> Result<Option<&'a Checkpoint>, Status> {
    let Some(by) = &run.spec.checkpoints.best else {
        return Err(Status::failed_precondition(format!(
            "{} names no metric that says what is best: set [checkpoints] best, for example \"val_loss:min\"",
            run.name
        )));
    };
    let values = crate::best::of(core, run, rows).await?;
    if values.is_empty() {
        return Err(Status::not_found(format!(
            "no durable checkpoint of {} has a value of `{}`: is that what the program prints?",
            run.name, by.metric
        )));
    }
    let scored = rows.iter().filter(|c| c.status.is_durable() && !c.stray);
    let scored = scored.filter_map(|c| Some((c, by.turned(*values.get(&c.manifest.key)?))));
    Ok(scored
        .min_by(|(a, x), (b, y)| x.total_cmp(y).then(b.manifest.step.cmp(&a.manifest.step)))
        .map(|(c, _)| c))
}

fn none(run: &Run, rows: &[Checkpoint], which: Option<&str>) -> String {
    let step = which.and_then(|which| which.parse().ok());
    if let Some((step, bad)) = step.and_then(|step| Some((step, damaged(rows, step)?))) {
        let name = &run.name;
        return format!(
            "the checkpoint of {name} at step {step} is damaged: {}; `outlast artifacts verify {name}@{step}` takes it \
             back if all of it is right again",
            bad.trouble
        );
    }
    let usable = rows.iter().filter(|c| c.status.is_durable());
    let mut steps: Vec<u64> = usable.filter_map(|c| c.manifest.step).collect();
    steps.sort_unstable();
    steps.dedup();
    let wanted = which.map(|step| format!(" at step {step}")).unwrap_or_default();
    let there = match steps.as_slice() {
        [] => "none is durable".to_owned(),
        [only] => format!("there is step {only}"),
        [first, .., last] => format!("there are {} from step {first} to {last}", steps.len()),
    };
    format!("{} has no durable checkpoint{wanted}: {there} (outlast checkpoints {})", run.name, run.name)
}
