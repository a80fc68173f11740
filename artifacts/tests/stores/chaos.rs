//! Writers that race through a proxy which breaks a third of all requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use artifacts::store::remote::{RemoteStore, s3};
use artifacts::{ObjectKey, Put, Store};
use tokio::task::JoinSet;

use super::proxy::{Fault, Proxy};
use super::{key, server};

const WRITERS: u8 = 3;
const KEYS: u32 = 60;

/// Everything that is broken, but for what waits for a limit of time.
const FAULTS: [Fault; 8] = [
    Fault::Refuse(500, "InternalError"),
    Fault::Refuse(503, "SlowDown"),
    Fault::Refuse(409, "ConditionalRequestConflict"),
    Fault::CutBefore,
    Fault::CutAfter,
    Fault::FailAfter,
    Fault::Torn,
    Fault::Refuse(412, "PreconditionFailed"),
];

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_nothing_overwritten() {
    let Some(server) = server::moto("nothing_acknowledged_is_lost_...") else { return };
    let seed = std::env::var("STORES_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("STORES_SEED={seed}");
    let proxy = Proxy::start(server.address, None);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut late = 0;
    proxy.decide(move |method, _| {
        if random.u8(..) > 85 {
            return Fault::None;
        }
        // Late requests cost the client its whole patience: a few will do.
        if method == "PUT" && late < 4 && random.u8(..) < 32 {
            late += 1;
            return Fault::Late;
        }
        FAULTS[random.usize(..FAULTS.len())]
    });
    let mut config = server::config(proxy.address, "");
    config.patience.answer = Duration::from_secs(3);
    let store = Arc::new(s3::open(config).expect("a good configuration"));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write_all(store.clone(), writer));
    }
    let told: Vec<_> = writers.join_all().await;
    proxy.flush();
    let made = proxy.counts();
    for fault in FAULTS.iter().chain([&Fault::Late]) {
        assert!(made.contains_key(fault), "{fault:?} was never made: {made:?}");
    }
    let acknowledged = judge(&server::store(server.address, ""), &told, seed).await;
    println!("{acknowledged} acknowledged puts are there; faults made: {made:?}");
    assert!(acknowledged > KEYS as usize, "most of {} puts are acknowledged", KEYS * u32::from(WRITERS));
}

fn numbered(number: u32) -> ObjectKey {
    key(&format!("run/g0000000000000001/p{number:08}"))
}

fn content(writer: u8, number: u32) -> Vec<u8> {
    // One key in five is put by all with the same bytes, as a resumed writer does.
    let writer = if number.is_multiple_of(5) { 0 } else { writer };
    format!("{number} by {writer} ").repeat(1 + number as usize * 7).into_bytes()
}

async fn write_all(store: Arc<RemoteStore>, writer: u8) -> (u8, BTreeMap<u32, Put>) {
    let mut told = BTreeMap::new();
    for number in 0..KEYS {
        if let Ok(put) = store.put_if_absent(&numbered(number), &content(writer, number)).await {
            told.insert(number, put);
        }
    }
    (writer, told)
}

/// Compares what every writer was told with what is there.
async fn judge(direct: &RemoteStore, told: &[(u8, BTreeMap<u32, Put>)], seed: u64) -> usize {
    let mut acknowledged = 0;
    for number in 0..KEYS {
        let key = numbered(number);
        let size = direct.size(&key).await.expect("size");
        let held = match size {
            Some(size) => direct.get(&key, 0, size).await.expect("get"),
            None => Vec::new(),
        };
        let mut created = 0;
        for (writer, told) in told {
            let own = held == content(*writer, number) && size.is_some();
            let Some(put) = told.get(&number) else { continue };
            acknowledged += 1;
            created += usize::from(*put == Put::Created);
            let right = match put {
                Put::Created | Put::Same => own,
                Put::Different => size.is_some() && !own,
            };
            assert!(
                right,
                "seed {seed}: writer {writer} was told {put:?} of {key}, which holds {size:?} bytes"
            );
        }
        assert!(created <= 1, "seed {seed}: {key} was created {created} times");
    }
    acknowledged
}
