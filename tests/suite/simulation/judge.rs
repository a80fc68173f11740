//! What somebody who sees everything says of a world that came to rest: the
//! program's true starts and output against rows, journal and files.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use controller::model::{Machine, Run};
use controller::store::{Kind, Store};
use lifecycle::{RunId, RunState};

use super::machine::{EVERY, STEPS};
use super::world::{EPOCH, PRICE, World, futures_block_on, load};

/// The end of a machine is known so late at most where a controller is there,
/// while a provider loses answers and controllers begin anew.
const KNOWN_LATE_MS: u64 = 180_000;

/// What somebody who sees everything says.
pub(super) fn judge(world: &World, run: RunId) -> Result<(), String> {
    let run = futures_block_on(load(world, run));
    money(world, &run)?;
    if run.status == RunState::BudgetStopped && run.spec.max_usd.is_some() {
        return Ok(());
    }
    if run.status != RunState::Succeeded {
        return Err(format!("the run is {:?}", run.status));
    }
    let oracle = world.oracle.lock().unwrap();
    if let Some(problem) = oracle.problems.first() {
        return Err(problem.clone());
    }
    let mut generations: Vec<u64> = oracle.starts.iter().map(|s| s.generation).collect();
    let all = generations.len();
    generations.sort_unstable();
    generations.dedup();
    if generations.len() != all {
        return Err(format!("a generation was started twice: {:?}", oracle.starts));
    }
    let rows = futures_block_on(world.store.journal(0, 100_000, None)).unwrap();
    let check = futures_block_on(world.store.verify_journal()).unwrap();
    if check.first_bad.is_some() {
        return Err("the journal's chain is broken".into());
    }
    // I10: each start is from the newest durable step at its bind; I7, I8: a
    // durable checkpoint is of the generation bound at that moment.
    let (mut newest, mut bound) = (0, 0);
    let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
    for row in &rows {
        match row.verb.as_str() {
            "durable" => {
                if row.detail["generation"].as_u64() != Some(bound) {
                    return Err(format!("a commit passed the fence: {row:?}"));
                }
                newest = newest.max(row.detail["step"].as_u64().unwrap_or(0));
            }
            "bound" => {
                let generation = row.detail["generation"].as_u64().unwrap_or(0);
                if generation <= bound {
                    return Err(format!("generations did not rise: {row:?}"));
                }
                bound = generation;
                expected.insert(generation, newest);
            }
            _ => {}
        }
    }
    for start in &oracle.starts {
        let wanted = expected.get(&start.generation).copied().unwrap_or(0);
        if start.from != wanted {
            return Err(format!("{start:?} should have begun at the durable step {wanted}"));
        }
    }
    if newest != STEPS / EVERY * EVERY {
        return Err(format!("the newest durable step is {newest}"));
    }
    drop(oracle);
    check_output(world, &run)
}

/// I16: what the vendor bills is below the cap; and the ledger bears every
/// second of it, of each machine, and not much more.
fn money(world: &World, run: &Run) -> Result<(), String> {
    let usd = |ms: u64| ms as f64 / 3_600_000.0 * PRICE;
    let billed = world.provider.billed_ms();
    let all = usd(billed.values().sum());
    if let Some(cap) = run.spec.max_usd
        && all > cap
    {
        return Err(format!("${all:.4} were billed, and the cap is ${cap:.4}"));
    }
    let now = EPOCH.as_millis() as u64 + world.outside.load(Ordering::Relaxed);
    let rows = futures_block_on(world.store.list(Kind::Machine)).unwrap();
    let rows: Vec<Machine> = rows.iter().map(|row| serde_json::from_str(&row.body).unwrap()).collect();
    for (id, ms) in &billed {
        let row = rows.iter().find(|row| row.id.to_string() == *id);
        let row = row.ok_or_else(|| format!("machine {id} was billed, and no row knows it"))?;
        let ledger = row.cost_usd(now);
        // Two decimals of a cent: the clock of the one ticks within that of the other.
        if ledger < usd(*ms) - 1e-4 {
            return Err(format!(
                "machine {id} was billed with ${:.4}, and the ledger bears ${ledger:.4}",
                usd(*ms)
            ));
        }
    }
    let ledger: f64 = rows.iter().map(|row| row.cost_usd(now)).sum();
    let late = usd(KNOWN_LATE_MS + world.away.as_millis() as u64) * rows.len() as f64;
    if ledger > all + late {
        return Err(format!("the ledger bears ${ledger:.4}, and ${all:.4} were billed"));
    }
    Ok(())
}

/// I12: the log of the last attempt is exactly what its program wrote.
fn check_output(world: &World, run: &Run) -> Result<(), String> {
    let dir = world.dir.join("runs").join(&run.name).join(run.attempts.to_string());
    let got = std::fs::read(dir.join("stdout.log")).map_err(|e| format!("stdout.log: {e}"))?;
    let from = world.oracle.lock().unwrap().starts.last().map_or(0, |s| s.from);
    let want: String =
        (from + 1..=STEPS).map(|s| format!("{{\"step\": {s}, \"loss\": {}}}\n", 1.0 / s as f64)).collect();
    if got == want.as_bytes() {
        Ok(())
    } else {
        Err(format!("{} of {} bytes of output", got.len(), want.len()))
    }
}
