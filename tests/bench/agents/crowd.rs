//! Agents as their controller sees them: the real uplink with its back-off and
//! one lease a second each. No program runs behind them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use agent::identity::Identity;
use agent::uplink::{self, Carrier, Event};
use proto::v1::{self, up};
use tokio::task::JoinSet;

use super::seats::Seat;

/// What all agents together see.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) connected: AtomicUsize,
    pub(super) granted: AtomicU64,
    /// Milliseconds from a lease's asking to its grant.
    pub(super) leases: Mutex<Vec<f64>>,
    /// Milliseconds since the controller's end at which each was welcomed again.
    pub(super) back: Mutex<Vec<f64>>,
    pub(super) ended: Mutex<Option<Instant>>,
    pub(super) measuring: AtomicUsize,
}

pub(super) async fn agent(
    seat: Seat,
    hub: lifecycle::HubId,
    pin: String,
    at: (String, String),
    seen: Arc<Seen>,
    n: usize,
) {
    let own = Identity::open(&seat.state, &seat.machine.to_string()).expect("its key");
    let config = uplink::Config {
        hub,
        machine: seat.machine.to_string(),
        pin,
        carrier: Carrier::dial(vec![at.0], vec![at.1]),
        incarnation: 1,
        clock: Arc::new(SystemTime::now),
        // As an agent has it.
        max_backoff: Duration::from_secs(5),
        seed: n as u64 ^ 0x9e37_79b9,
        health_endpoint: String::new(),
    };
    let (link, mut handle) = uplink::build(config, own);
    let mut own = JoinSet::new();
    own.spawn(link);
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut up, mut count, mut asked) = (false, 0_u64, BTreeMap::new());
    loop {
        tokio::select! {
            event = handle.events.recv() => match event {
                Some(Event::Connected) | None => {}
                Some(Event::Disconnected) => {
                    if up { seen.connected.fetch_sub(1, Relaxed); }
                    (up, count) = (false, 0);
                    asked.clear();
                }
                Some(Event::Down(down)) => match down.body {
                    Some(v1::down::Body::Welcome(_)) => {
                        up = true;
                        seen.connected.fetch_add(1, Relaxed);
                        if let Some(at) = *seen.ended.lock().expect("nobody panics") {
                            seen.back.lock().expect("nobody panics").push(at.elapsed().as_secs_f64() * 1e3);
                        }
                    }
                    Some(v1::down::Body::Granted(granted)) => {
                        seen.granted.fetch_add(1, Relaxed);
                        if let Some(at) = asked.remove(&granted.n) && seen.measuring.load(Relaxed) > 0 {
                            let at: Instant = at;
                            seen.leases.lock().expect("nobody panics").push(at.elapsed().as_secs_f64() * 1e3);
                        }
                    }
                    _ => {}
                },
            },
            _ = beat.tick(), if up => {
                count += 1;
                asked.insert(count, Instant::now());
                let renew = v1::Renew { n: count, ..v1::Renew::default() };
                let _ = handle.up.try_send(v1::Up { body: Some(up::Body::Renew(renew)) });
            }
        }
    }
}
