//! A training on machines rented from the fake Vast: real SSH servers in
//! namespaces without a network, rented, reached, outbid, replaced, paid and
//! destroyed by the real program.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::carried::give_agent;
use super::double::Double;
use super::processes::{kill_all, processes};
use super::stage::{Stage, exchange, repository, wait};

/// Counts steps and saves every tenth, as far as its gate lets it.
const PROGRAM: &str = r#"#!/bin/sh
i=0
from=${OUTLAST_RESUME_FROM:-}
[ -d "$from" ] && from=$(ls -d "$from"/* | tail -n 1)
[ -n "$from" ] && i=$(cat "$from")
echo "begins at $i" >>"$STARTS"
while [ "$i" -lt 60 ]; do
  while [ "$i" -ge "$(cat "$GATE")" ]; do sleep 0.1; done
  i=$((i + 1))
  echo "step=$i loss=0.$i"
  if [ $((i % 10)) = 0 ]; then
    echo "$i" >"$OUTLAST_CHECKPOINT_DIR/.part"
    mv "$OUTLAST_CHECKPOINT_DIR/.part" "$OUTLAST_CHECKPOINT_DIR/step-$i.txt"
  fi
  sleep 0.05
done
mkdir -p "$OUTLAST_OUTPUT_DIR"
echo "done at $i" >"$OUTLAST_OUTPUT_DIR/summary.txt"
"#;
const SETTINGS: &str = "[run]\ncommand = [\"sh\", \"program.sh\"]\nprovider = \"vast\"\n[environment]\nkind = \"none\"\n\
                        [checkpoints]\nquiet = \"1s\"\n[machine]\nreliability = 0.5\ndisk = \"20GB\"\n";
pub(super) const CAPS: &str = "[budget]\nmax_usd = 20\nmax_usd_per_hour = 5\n";

/// The fake vendor, with real machines behind it.
pub(super) struct Vendor {
    double: Double,
    machines: PathBuf,
}

impl Vendor {
    /// `None`, and a word on why, where machines cannot be made here.
    pub(super) fn start(stage: &Stage, test: &str) -> Option<Self> {
        Self::with(stage, test, &["--offers", "40", "--speed", "20"])
    }

    pub(super) fn with(stage: &Stage, test: &str, market: &[&str]) -> Option<Self> {
        let found = |tool: &str| {
            Path::new("/usr/sbin").join(tool).exists() || Path::new("/usr/bin").join(tool).exists()
        };
        let missing: Vec<&str> = ["sshd", "ssh-keygen", "unshare", "nsenter", "ip", "python3"]
            .into_iter()
            .filter(|t| !found(t))
            .collect();
        if !nix::unistd::geteuid().is_root() || !missing.is_empty() {
            println!("{test}: skipped: machines need root and {missing:?}");
            return None;
        }
        let machines = stage.path("vast");
        fs::create_dir_all(&machines).unwrap();
        let boot = repository().join("tests/rigs/vast/machine.py");
        let mut arguments: Vec<&OsStr> = market.iter().map(OsStr::new).collect();
        arguments.extend([
            OsStr::new("--machines"),
            machines.as_os_str(),
            OsStr::new("--boot"),
            boot.as_os_str(),
        ]);
        Some(Self { double: Double::start("fake-vast", arguments), machines })
    }

    pub(super) fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        self.double.control(method, path, body)
    }

    /// Asks as another client of the same account.
    pub(super) fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.double.ask(method, path, "Authorization: Bearer test-key\r\n", body)
    }

    pub(super) fn state(&self) -> Value {
        self.control("GET", "state", &json!({}))
    }

    /// What is rented now.
    pub(super) fn rented(&self) -> Vec<Value> {
        self.state()["instances"].as_array().unwrap().clone()
    }

    pub(super) fn environment(&self) -> [(String, String); 2] {
        [
            ("VAST_URL".into(), format!("http://127.0.0.1:{}", self.double.port)),
            ("VAST_API_KEY".into(), "test-key".into()),
        ]
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.double.end();
        // What the vendor did not end itself: with its first process a machine ends.
        let place = self.machines.display().to_string();
        kill_all(|| {
            processes(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&place)
            })
        });
    }
}

pub(super) struct Project {
    pub(super) root: PathBuf,
    pub(super) gate: PathBuf,
    starts: PathBuf,
}

impl Project {
    pub(super) fn new(stage: &Stage, caps: &str) -> Self {
        let (gate, starts) = (stage.path("gate"), stage.path("starts"));
        fs::write(&gate, "20").unwrap();
        let env = format!("env = {{ GATE = {gate:?}, STARTS = {starts:?} }}\n");
        let settings = SETTINGS.replace("[environment]", &format!("{env}[environment]"));
        let root =
            stage.project("p", &[("program.sh", PROGRAM), ("outlast.toml", &format!("{settings}{caps}"))]);
        Self { root, gate, starts }
    }
}

#[test]
fn a_run_outlives_a_rented_machine_that_is_outbid_and_nothing_stays_rented() {
    let stage = Stage::new();
    let test = "a_run_outlives_a_rented_machine_that_is_outbid_and_nothing_stays_rented";
    let Some(vendor) = Vendor::start(&stage, test) else { return };
    let stage = stage.with(vendor.environment());
    give_agent(&stage.home);
    let project = Project::new(&stage, CAPS);

    let offers = stage.ok(&["offers", project.root.to_str().unwrap(), "--json"]).json();
    assert!(
        offers.as_array().unwrap().iter().all(|o| o["usd_per_hour"].as_f64().unwrap() <= 5.0),
        "{offers}"
    );

    let run = stage.submit(&project.root, &[]);
    stage.when_durable(&run, 20);
    let rented = vendor.rented();
    assert_eq!(rented.len(), 1, "{rented:#?}");
    let label = rented[0]["label"].as_str().unwrap();
    assert!(label.starts_with("outlast:") && label.len() == 57, "{label}");
    // Its machine has no network: nothing but the link over SSH led here.
    let machines = stage.ok(&["machines", "--json"]).json();
    assert_eq!(machines[0]["provider"], "vast", "{machines:#}");
    let first = rented[0]["id"].as_u64().unwrap();

    // For half an hour of this computer's: it must not come back before its loss is seen.
    vendor.control("POST", &format!("instances/{first}"), &json!({"outbid": true, "for_ms": 36_000_000}));
    // Its processes have ended with it: only the next machine passes the gate.
    wait("its loss", || (vendor.rented().iter().all(|one| one["id"] != first)).then_some(()));
    // It may be reading: an empty gate would hold nobody.
    exchange(&project.gate, "60");
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 2, "{detail:#}");
    assert_eq!(detail["attempts"][1]["resumed_step"], 20, "{detail:#}");
    assert_eq!(fs::read_to_string(&project.starts).unwrap(), "begins at 0\nbegins at 20\n");

    // Every one of them is gone at the vendor, not only in the books here.
    let state = wait("nothing rented", || Some(vendor.state()).filter(|s| s["instances"] == json!([])));
    let ended = state["ended"].as_array().unwrap();
    assert_eq!(ended.len(), 2, "{state:#}");
    let billed: f64 = ended.iter().map(|one| one["cost"]["total"].as_f64().unwrap()).sum();
    assert!(billed > 0.0);
    stage.verify();
    // The vendor ends machines after it has answered.
    wait("the end of the machines", || (fs::read_dir(&vendor.machines).unwrap().count() == 0).then_some(()));
}

/// A market of one kind of machine for bids from ten cents, with other machines
/// at this price.
fn bidding(vendor: &Vendor, others: f64) {
    let machine = |id: u64, min_bid: f64| {
        json!({
            "machine_id": id, "price": 2.0, "min_bid": min_bid, "storage_cost": 0.0, "storage_cost_stopped": 0.0,
            "inet_up_cost": 0.0, "inet_down_cost": 0.0, "reliability": 0.99, "direct_port_count": 50,
            "disk_space": 200.0, "num_gpus": 1
        })
    };
    vendor.control("POST", "offers", &json!({"machines": [machine(1, 0.1), machine(2, others)]}));
}

#[test]
fn an_outbid_machine_is_won_back_where_another_would_be_dearer_and_left_where_the_ceiling_is_below() {
    let stage = Stage::new();
    let test =
        "an_outbid_machine_is_won_back_where_another_would_be_dearer_and_left_where_the_ceiling_is_below";
    let Some(vendor) = Vendor::with(&stage, test, &["--offers", "0", "--speed", "20"]) else { return };
    bidding(&vendor, 0.13);
    let stage = stage.with(vendor.environment());
    give_agent(&stage.home);
    let project = Project::new(&stage, "[budget]\nmax_usd = 20\nmax_usd_per_hour = 0.16\n");
    let wishes = ["machine.market=interruptible", "machine.when_stopped=return"];
    let run = stage.submit(&project.root, &wishes);
    stage.when_durable(&run, 20);
    let first = vendor.rented()[0]["id"].as_u64().unwrap();
    // Somebody pays more than it bid, and less than it may cost.
    let raise = |usd: f64| {
        vendor.control("POST", "offers", &json!({"machines": [{"machine_id": 1, "rival": usd}]}));
    };
    raise(0.12);
    let detail = stage.when(&run, "won back", |detail| detail["attempts"].as_array().unwrap().len() == 2);
    assert_eq!(detail["attempts"][1]["machine_id"], detail["attempts"][0]["machine_id"], "{detail:#}");
    stage.when(&run, "at work again", |detail| detail["attempts"][1]["resumed_step"] == 20);
    let rented = vendor.rented();
    assert_eq!((rented.len(), rented[0]["id"].as_u64()), (1, Some(first)), "{rented:#?}");
    // What is known of an attempt is known before its program has said anything.
    let begun = || fs::read_to_string(&project.starts).unwrap();
    wait("the program on the machine won back", || (begun() == "begins at 0\nbegins at 20\n").then_some(()));
    let asked: Vec<Value> = stage.events(&run).into_iter().filter(|e| e["verb"] == "return-asked").collect();
    // How often depends on how soon it is back; the product asks six times at most.
    assert!(!asked.is_empty() && asked.len() <= 6, "{asked:#?}");
    // Now nobody may pay what would win it back: the run goes on elsewhere.
    raise(5.0);
    wait("its loss", || (vendor.rented().iter().all(|one| one["id"] != first)).then_some(()));
    // It may be reading: an empty gate would hold nobody.
    exchange(&project.gate, "60");
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 3, "{detail:#}");
    let left: Vec<Value> = stage.events(&run).into_iter().filter(|e| e["verb"] == "left-stopped").collect();
    assert!(left.len() == 1 && left[0].to_string().contains("above the ceiling"), "{left:#?}");
    let bids: Vec<f64> = vendor_bids(&stage, &run);
    assert!(
        !bids.is_empty() && bids.iter().all(|usd| *usd <= 0.16) && bids.windows(2).all(|two| two[0] < two[1]),
        "{bids:?}"
    );
    wait("nothing rented", || vendor.rented().is_empty().then_some(()));
    stage.verify();
}

/// What was bid to have machines back.
fn vendor_bids(stage: &Stage, run: &str) -> Vec<f64> {
    let events = stage.events(run);
    let asked = events.iter().filter(|e| e["verb"] == "return-asked");
    let detail = |e: &Value| serde_json::from_str::<Value>(e["detail_json"].as_str().unwrap()).unwrap();
    asked.filter_map(|e| detail(e)["bid_usd"].as_f64()).collect()
}

#[test]
fn nothing_is_rented_without_caps_or_without_a_key() {
    let stage = Stage::new();
    let Some(vendor) = Vendor::start(&stage, "nothing_is_rented_without_caps_or_without_a_key") else {
        return;
    };
    let [url, key] = vendor.environment();
    let project = Project::new(&stage, "");
    let stage = stage.with([url]);
    let path = project.root.to_str().unwrap();
    let refused = stage.call(&["run", path, "-d", "--yes", "--set", "budget.max_usd=1"]);
    assert!(refused.code != 0 && refused.stderr.contains("max_usd_per_hour"), "{refused:?}");
    let keyless =
        stage.call(&["run", path, "-dy", "--set", "budget.max_usd=1", "--set", "budget.max_usd_per_hour=1"]);
    assert!(keyless.code != 0 && keyless.stderr.contains("VAST_API_KEY"), "{keyless:?}");
    assert!(!keyless.stderr.contains(&key.1));
    assert_eq!(vendor.state()["journal"]["counts"].get("create"), None);
    assert!(stage.ok(&["status", "--all", "--json"]).json().as_array().unwrap().is_empty());
}

#[test]
fn a_controller_that_is_killed_while_it_rents_has_one_machine_and_finds_it_again() {
    let stage = Stage::new();
    let test = "a_controller_that_is_killed_while_it_rents_has_one_machine_and_finds_it_again";
    let Some(vendor) = Vendor::start(&stage, test) else { return };
    let stage = stage.with(vendor.environment());
    give_agent(&stage.home);
    let project = Project::new(&stage, CAPS);
    fs::write(&project.gate, "60").unwrap();
    let run = stage.submit(&project.root, &[]);
    // The order was carried out: the answer may be lost. One that is broken off on its
    // way may still come about, and is waited for five minutes.
    wait("an order", || (!vendor.rented().is_empty()).then_some(()));
    stage.kill_controller();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    let state = wait("nothing rented", || Some(vendor.state()).filter(|s| s["instances"] == json!([])));
    assert_eq!(state["ended"].as_array().unwrap().len(), 1, "{state:#}");
    wait("the end of the machines", || (fs::read_dir(&vendor.machines).unwrap().count() == 0).then_some(()));
}
