//! What a controller knows of agents at work, written straight into a new
//! installation, and what each agent has on its disk. Nothing here runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use controller::home::Home;
use controller::model::{Attempt, BoundKey, Machine, ManifestRef, Run, Versioned};
use controller::store::{Changeset, Mode, SqliteStore, Store as _};
use lifecycle::{AttemptId, MachineId, RunId};
use serde_json::{Value, json};

/// Rows written in one transaction.
const BATCH: usize = 250;
const DAY: Duration = Duration::from_hours(24);

/// What one agent is.
pub(super) struct Seat {
    pub(super) machine: MachineId,
    pub(super) state: PathBuf,
}

/// Rows of agents at work, and what each agent has on its disk.
pub(super) async fn prepare(home: &Path, agents: usize) -> (Vec<Seat>, lifecycle::HubId, String) {
    let opened = Home::open(home, SystemTime::now()).expect("a new installation");
    let store = SqliteStore::open(opened.path("outlast.db"), Mode::Thread).expect("a database");
    let mut seats = Vec::new();
    let mut changes = Changeset::default();
    for n in 0..agents {
        let machine = MachineId::from_bytes(id(1, n));
        let state = home.join("agents").join(machine.to_string());
        fs::create_dir_all(&state).expect("a directory");
        let identity =
            opened.authority.issue(&proto::identity::Identity::Machine(machine), SystemTime::now(), DAY);
        let identity = identity.expect("a certificate");
        fs::write(state.join("machine.key"), &identity.key_pem).expect("a file");
        fs::write(state.join("machine.pem"), &identity.chain_pem).expect("a file");
        fs::write(state.join("ca.pem"), opened.authority.root_pem()).expect("a file");
        let spki = proto::pki::MachineKey::from_pem(&identity.key_pem)
            .and_then(|key| proto::pki::csr_public_key(&key.request()?))
            .expect("its public key");
        rows(&mut changes, &opened, n, machine, &spki);
        seats.push(Seat { machine, state });
        if changes.put.len() >= BATCH * 4 {
            store.commit(std::mem::take(&mut changes)).await.expect("a transaction");
        }
    }
    store.commit(changes).await.expect("a transaction");
    let (hub, pin) = (opened.hub, opened.authority.pin().expect("a pin"));
    (seats, hub, pin)
}

fn id(kind: u8, n: usize) -> [u8; 16] {
    let mut bytes = [kind; 16];
    bytes[8..].copy_from_slice(&(n as u64).to_be_bytes());
    bytes
}

fn rows(changes: &mut Changeset, home: &Home, n: usize, machine: MachineId, spki: &[u8]) {
    let now = u64::try_from(
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis(),
    )
    .unwrap_or(0);
    let (run, attempt) = (RunId::from_bytes(id(2, n)), AttemptId::from_bytes(id(3, n)));
    let spec = json!({"project": "bench", "name": format!("r{n}"), "command": ["true"], "provider": "bench"});
    let source = ManifestRef { key: "none".into(), digest: "0".repeat(64), step: None };
    let of = |value: Value, what: &str| -> Value {
        assert!(value.is_object(), "{what}");
        value
    };
    let run_row: Run = serde_json::from_value(of(
        json!({
            "id": run, "name": format!("r{n}"), "spec": spec, "status": {"state": "running"}, "created_ms": now,
            "generation": 1, "bound": attempt, "attempts": 1, "source": source, "head": null, "outputs": null,
            "produced_step": null, "endings": [], "wish": "run", "token": format!("t{n}")
        }),
        "a run",
    ))
    .expect("a run");
    let attempt_row: Attempt = serde_json::from_value(of(
        json!({
            "id": attempt, "run": run, "number": 1, "generation": 1, "machine": machine,
            "status": {"state": "running"}, "bound_ms": now, "resume": [], "started_ms": now, "program_started": true
        }),
        "an attempt",
    ))
    .expect("an attempt");
    let machine_row: Machine = serde_json::from_value(of(
        json!({
            "id": machine, "provider": "bench", "label": controller::label::write(home.hub, machine, &home.label_key),
            "run": run, "status": {"state": "ready"}, "instance": machine.to_string(), "created_ms": now,
            "usd_per_hour": 0.0
        }),
        "a machine",
    ))
    .expect("a machine");
    let key = BoundKey {
        machine,
        thumbprint: proto::pki::sha256_hex(spki),
        spki: data_encoding::HEXLOWER.encode(spki),
        incarnation: 0,
        boot_id: String::new(),
    };
    changes.put.push(Versioned::new(run_row).write().1);
    changes.put.push(Versioned::new(attempt_row).write().1);
    changes.put.push(Versioned::new(machine_row).write().1);
    changes.put.push(Versioned::new(key).write().1);
}
