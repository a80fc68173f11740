//! What goes, and what never does.

use std::time::{Duration, SystemTime};

use super::*;
use crate::core::Changes;
use crate::model::Versioned;
use crate::retain::tests::Bench;

/// A bench whose clock is far ahead of what is written to the disk now.
async fn bench() -> (Bench, PathBuf, PathBuf) {
    let bench = Bench::new(0).await;
    let (runs, cache) = (bench.dir.path().join("runs"), bench.core.boot.cache_dir.clone());
    (bench, runs, cache)
}

fn environment(cache: &Path, name: &str, complete: bool) -> PathBuf {
    let dir = cache.join(name);
    fs::create_dir_all(dir.join("lib")).unwrap();
    fs::write(dir.join("lib/big"), vec![1; 70_000]).unwrap();
    if complete {
        fs::write(dir.join(".complete"), "key").unwrap();
    }
    age(&dir);
    dir
}

/// Makes everything below a directory look old.
fn age(dir: &Path) {
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            age(&entry.path());
        } else {
            let file = File::open(entry.path()).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(old).set_accessed(old)).unwrap();
        }
    }
    File::open(dir).unwrap().set_modified(old).unwrap();
}

fn shown(found: &[Leftover]) -> Vec<String> {
    found.iter().map(|one| name_of(&one.path)).collect()
}

#[tokio::test(start_paused = true)]
async fn only_unknown_runs_go_and_only_old_ones() {
    let (bench, runs, _) = bench().await;
    for name in ["r", "unknown", "young", "notes"] {
        fs::create_dir_all(runs.join(name).join(if name == "notes" { "mine" } else { "1" })).unwrap();
        fs::write(runs.join(name).join("x.log"), vec![1; 70_000]).unwrap();
        age(&runs.join(name));
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(bench.core.clock.wall_ms());
    File::open(runs.join("young")).unwrap().set_modified(now).unwrap();
    let found = find(&bench.core, IDLE_MS).await.unwrap();
    assert_eq!(shown(&found), ["unknown"], "what is no run's, is known or is young stays");
    assert!(found[0].bytes >= 70_000);
    assert!(remove(&bench.core, found).await.unwrap() >= 70_000);
    let mut left: Vec<String> = directories(&runs).iter().map(|dir| name_of(dir)).collect();
    left.sort();
    assert_eq!(left, ["notes", "r", "young"]);
}

#[tokio::test(start_paused = true)]
async fn no_environment_goes_while_a_run_is_at_work() {
    let (bench, _, cache) = bench().await;
    let whole = environment(&cache, "env-0123456789abcdef", true);
    let broken = environment(&cache, "env-fedcba9876543210", false);
    fs::create_dir_all(cache.join("other")).unwrap();
    age(&cache.join("other"));
    assert_eq!(shown(&find(&bench.core, IDLE_MS).await.unwrap()), [""; 0], "a run is at work");
    bench.change(|run| run.status = RunState::Succeeded).await;
    let found = find(&bench.core, IDLE_MS).await.unwrap();
    assert_eq!(shown(&found), ["env-0123456789abcdef", "env-fedcba9876543210"]);

    // A run begins between the look and the removal.
    bench.change(|run| run.status = RunState::Queued).await;
    assert_eq!(remove(&bench.core, found.clone()).await.unwrap(), 0);
    bench.change(|run| run.status = RunState::Paused).await;
    // Somebody builds it just now.
    let held = take(&cache.join("env-0123456789abcdef.lock")).unwrap();
    assert!(remove(&bench.core, found.clone()).await.unwrap() > 0);
    assert!(whole.exists() && !broken.exists());
    drop(held);
    assert!(remove(&bench.core, vec![found[0].clone()]).await.unwrap() > 0);
    assert!(!whole.exists() && cache.join("other").exists());
}

#[tokio::test(start_paused = true)]
async fn an_environment_that_was_used_lately_stays() {
    let (bench, _, cache) = bench().await;
    let dir = environment(&cache, "env-0123456789abcdef", true);
    bench.change(|run| run.status = RunState::Succeeded).await;
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(bench.core.clock.wall_ms());
    let mark = File::open(dir.join(".complete")).unwrap();
    mark.set_times(fs::FileTimes::new().set_accessed(now)).unwrap();
    assert_eq!(find(&bench.core, IDLE_MS).await.unwrap(), []);
    let machine: Machine = serde_json::from_value(serde_json::json!({
        "id": lifecycle::MachineId::from_bytes([9; 16]), "provider": "local", "label": "", "run": bench.run,
        "status": lifecycle::MachineState::Ready, "instance": null, "created_ms": 1, "usd_per_hour": 0.0
    }))
    .unwrap();
    assert!(bench.core.commit(Changes::default().put(&Versioned::new(machine))).await.unwrap());
    assert_eq!(find(&bench.core, 0).await.unwrap(), [], "a machine that is there may have a program still");
}
