//! A run's metric points as they lie in its files, from where the caller has
//! them on, up to what is durable. Never sends what a crash may still take back.

use std::collections::BTreeMap;

use proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use crate::core::{Core, CoreError};
use crate::model::{Attempt, Position, Run, Versioned};

const FILE: &str = "points.jsonl";
const STREAM: &str = "metrics";
const CHUNK: usize = 256 << 10;

type Out = mpsc::Sender<Result<v1::MetricsChunk, Status>>;

/// Sends until the caller has all, or goes away. Who claims to have more of an
/// attempt than there is gets it from its beginning.
///
/// # Errors
/// Where the store or a file fails.
pub async fn send(core: &Core, run: &Run, held: &[v1::MetricsHeld], out: Out) -> Result<(), CoreError> {
    let held: BTreeMap<u32, u64> = held.iter().map(|row| (row.attempt, row.bytes)).collect();
    let mut attempts: Vec<Versioned<Attempt>> = core.of_run(run.id).await?;
    attempts.sort_by_key(|row| row.body.number);
    let positions: Vec<Versioned<Position>> = core.of_run(run.id).await?;
    for attempt in attempts.iter().map(|row| &row.body) {
        let mine = |p: &&Versioned<Position>| p.body.attempt == attempt.id && p.body.stream == STREAM;
        let end = positions.iter().find(mine).map_or(0, |p| p.body.file_len);
        let mut at = held.get(&attempt.number).copied().filter(|bytes| *bytes <= end).unwrap_or(0);
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let data = core.files.read(&run.name, attempt.number, FILE, at, most)?;
            if data.is_empty() {
                // A person took the file away.
                break;
            }
            let chunk = v1::MetricsChunk { attempt: attempt.number, offset: at, data };
            at += chunk.data.len() as u64;
            if out.send(Ok(chunk)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
