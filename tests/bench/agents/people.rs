//! What people ask while the machines are at work, and how long that takes them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proto::v1;

/// What people ask, over and over, until it is told to stop; milliseconds each.
pub(super) async fn people(home: PathBuf, stop: tokio::sync::watch::Receiver<bool>) -> (Vec<f64>, usize) {
    let (mut took, mut failed) = (Vec::new(), 0);
    let mut turn = 0_u32;
    while !*stop.borrow() {
        let began = Instant::now();
        let asked = tokio::time::timeout(Duration::from_secs(20), question(&home, turn)).await;
        match asked {
            Ok(Ok(ms)) => took.push(ms),
            _ => failed += 1,
        }
        turn += 1;
        tokio::time::sleep(Duration::from_millis(100).saturating_sub(began.elapsed())).await;
    }
    (took, failed)
}

async fn question(home: &Path, turn: u32) -> Result<f64, String> {
    let client = cli::client::connect(home).await.map_err(|failure| failure.message)?;
    let mut ask = client.operator.clone();
    let began = Instant::now();
    let selector = |text: &str| v1::Selector { text: text.to_owned() };
    let said = match turn % 4 {
        0 => ask.status(v1::StatusRequest {}).await.map(drop),
        1 => ask.list_runs(v1::ListRunsRequest { all: false }).await.map(drop),
        2 => ask.list_machines(v1::ListMachinesRequest { all: false }).await.map(drop),
        _ => ask.get_run(selector("r7")).await.map(drop),
    };
    said.map_err(|status| status.to_string())?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
