//! The failure capsule of an attempt, built from what is known now.

use proto::v1;
use tonic::Status;

use super::select;
use crate::capsule::{self, Capsule};
use crate::core::Core;
use crate::model::{Attempt, Versioned};

/// Answers one request. Attempt 0 is the newest that ended or, where none did,
/// the one under way.
///
/// # Errors
/// As a status for the peer: no such run, no such attempt, or none yet.
pub async fn why(core: &Core, asked: v1::WhyRequest) -> Result<v1::WhyReply, Status> {
    let run = select::run(core, &asked.run).await?.body;
    let rows: Vec<Versioned<Attempt>> = core.of_run(run.id).await?;
    let attempts: Vec<Attempt> = rows.into_iter().map(|row| row.body).collect();
    let attempt = pick(&attempts, asked.attempt)
        .map_err(|why| Status::not_found(format!("{} {why}", run.name)))?
        .clone();
    let capsule: Capsule = capsule::gather::capsule(core, run, attempt).await?;
    let capsule_json = serde_json::to_string(&capsule).map_err(|e| Status::internal(e.to_string()))?;
    Ok(v1::WhyReply { capsule_json })
}

fn pick(attempts: &[Attempt], number: u32) -> Result<&Attempt, String> {
    let newest =
        |ended: bool| attempts.iter().filter(|a| a.status.is_final() == ended).max_by_key(|a| a.number);
    match number {
        0 => newest(true)
            .or_else(|| newest(false))
            .ok_or_else(|| "has had no attempt yet; `outlast status` says what it waits for".to_owned()),
        number => attempts.iter().find(|a| a.number == number).ok_or_else(|| {
            let last = attempts.iter().map(|a| a.number).max().unwrap_or(0);
            format!("has no attempt {number}: it has had {last}")
        }),
    }
}
