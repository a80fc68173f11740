//! How one controller bears many agents: real mutual TLS, the real uplink with
//! its back-off, one lease a second each; many agents in one process. It never
//! stands in for an agent's work: no program runs, no checkpoint is stored.
//!
//! `bench-agents drive --agents 1000 --seconds 30` prepares an installation,
//! starts a controller (this program's `serve`), measures its memory, its
//! processor time and the answers to leases and to people; then ends it with
//! SIGKILL, starts it again and measures how everybody comes back. It prints
//! one line of JSON.
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program that measures: a terminal hears how far it is"
)]

mod crowd;
mod figures;
mod people;
mod seats;
mod served;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crowd::{Seen, agent};
use figures::{densest, mb, percentile, usage};
use people::people;
use seats::prepare;
use served::{Served, rendezvous, serve, start};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// A controller with machines that are simply there
    Serve {
        #[arg(long)]
        home: PathBuf,
    },
    /// Prepare, start, load, measure, kill, start again, measure
    Drive {
        #[arg(long, default_value = "1000")]
        agents: usize,
        #[arg(long, default_value = "30")]
        seconds: u64,
        /// Where the installation is made; a temporary directory otherwise
        #[arg(long)]
        home: Option<PathBuf>,
    },
}

fn main() {
    match Args::parse().verb {
        Verb::Serve { home } => serve(home),
        Verb::Drive { agents, seconds, home } => {
            let own = home.is_none();
            let home =
                home.unwrap_or_else(|| std::env::temp_dir().join(format!("ol-bench-{}", std::process::id())));
            let told = runtime(2).block_on(drive(&home, agents, seconds));
            println!("{told}");
            if own {
                let _ = fs::remove_dir_all(&home);
            }
        }
    }
}

fn runtime(threads: usize) -> tokio::runtime::Runtime {
    let made = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    made.expect("a runtime")
}

async fn until(what: &str, most: Duration, mut is: impl FnMut() -> bool) -> f64 {
    let began = Instant::now();
    while !is() {
        if began.elapsed() > most {
            eprintln!("not within {most:?}: {what}");
            return -1.0;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed().as_secs_f64()
}

async fn drive(home: &Path, agents: usize, seconds: u64) -> Value {
    let (_, most) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most).expect("a limit");
    eprintln!("preparing {agents} agents");
    // It makes the installation and its store; rows without a store are refused.
    let mut maker = start(home);
    rendezvous(home, &maker).await;
    let _ = maker.child.kill();
    let _ = maker.child.wait();
    let (seats, hub, pin) = prepare(home, agents).await;
    let mut served = start(home);
    let at = rendezvous(home, &served).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = usage(served.child.id());
    let seen = Arc::new(Seen::default());
    let (connecting, mut running) = (Instant::now(), JoinSet::new());
    for (n, seat) in seats.into_iter().enumerate() {
        running.spawn(agent(seat, hub, pin.clone(), at.clone(), seen.clone(), n));
        // As machines come up: not in one instant.
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let all = || seen.connected.load(Relaxed) == agents;
    until("everybody is welcomed", Duration::from_mins(5), all).await;
    let connect_s = connecting.elapsed().as_secs_f64();
    // What connecting costs is over after a moment.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let steady = measure(home, &served, &seen, agents, seconds).await;

    // The controller dies and comes back.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let _ = served.child.kill();
    let _ = served.child.wait();
    *seen.ended.lock().expect("nobody panics") = Some(Instant::now());
    until("everybody saw the end", Duration::from_mins(1), || seen.connected.load(Relaxed) == 0).await;
    let mut again = start(home);
    let mut asking = JoinSet::new();
    asking.spawn(people(home.to_owned(), stopped));
    until("everybody is back", Duration::from_mins(5), all).await;
    let back_s = again.began.elapsed().as_secs_f64();
    let after = usage(again.child.id());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let _ = stop.send(true);
    let (mut took, failed) = asking.join_next().await.expect("one asks").expect("nobody panics");
    let mut back = seen.back.lock().expect("nobody panics").clone();
    let most_at_once = densest(&back);
    let planned = *again.planned.lock().expect("nobody panics");
    let told = json!({
        "agents": agents,
        "rss_idle_mb": mb(idle.0),
        "connect_s": (connect_s * 100.0).round() / 100.0,
        "steady": steady,
        "restart": {
            "first_plan_s": planned.map(|s| (s * 100.0).round() / 100.0),
            "everybody_back_s": (back_s * 100.0).round() / 100.0,
            "back_p50_ms": percentile(&mut back, 50.0),
            "most_in_100_ms": most_at_once,
            "rss_mb": mb(after.0), "rss_most_mb": mb(after.1), "cpu_s": after.2,
            "people_p50_ms": percentile(&mut took, 50.0), "people_p99_ms": percentile(&mut took, 99.0),
            "people_failed": failed,
        },
    });
    let _ = again.child.kill();
    let _ = again.child.wait();
    told
}

async fn measure(home: &Path, served: &Served, seen: &Arc<Seen>, agents: usize, seconds: u64) -> Value {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let before = usage(served.child.id());
    let granted = seen.granted.load(Relaxed);
    seen.leases.lock().expect("nobody panics").clear();
    seen.measuring.store(1, Relaxed);
    let mut asking = JoinSet::new();
    asking.spawn(people(home.to_owned(), stopped));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let _ = stop.send(true);
    let (mut took, failed) = asking.join_next().await.expect("one asks").expect("nobody panics");
    seen.measuring.store(0, Relaxed);
    let after = usage(served.child.id());
    let mut leases = seen.leases.lock().expect("nobody panics").clone();
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    let rate = (seen.granted.load(Relaxed) - granted) as f64 / seconds as f64;
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    let cores = (after.2 - before.2) / seconds as f64;
    json!({
        "seconds": seconds, "connected": seen.connected.load(Relaxed), "of": agents,
        "leases_per_s": (rate * 10.0).round() / 10.0,
        "lease_p50_ms": percentile(&mut leases, 50.0), "lease_p99_ms": percentile(&mut leases, 99.0),
        "cores": (cores * 1000.0).round() / 1000.0, "rss_mb": mb(after.0), "rss_most_mb": mb(after.1),
        "people_p50_ms": percentile(&mut took, 50.0), "people_p99_ms": percentile(&mut took, 99.0),
        "people_asked": took.len(), "people_failed": failed,
    })
}
