//! The controller is killed, and a machine without credentials goes on storing
//! checkpoints in a real S3 server under the URLs that it was handed. Nothing
//! that is in the store is lost, whoever dies next.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use artifacts::key::ObjectClass;
use artifacts::store::remote::s3::{Credentials, S3Config};
use artifacts::store::remote::{Patience, RemoteStore, Writes, s3};
use artifacts::{Manifest, ObjectKey, Store as _};

use super::processes::{kill_one, only};
use super::programs::Training;
use super::stage::{Stage, machine_of, wait};

const BUCKET: &str = "bucket";
/// The rig's code where moto cannot be had.
const CANNOT: i32 = 77;

/// moto, for one test.
struct Bucket {
    child: Child,
    /// It ends when this is closed.
    input: Option<ChildStdin>,
    store: RemoteStore,
    endpoint: String,
    runtime: tokio::runtime::Runtime,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

impl Bucket {
    /// `None`, said by name, where moto cannot be installed.
    fn start(test: &str) -> Option<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut rig = Command::new("python3");
        rig.arg("-B").arg(root.join("rigs/s3/serve.py")).args(["--bucket", BUCKET]);
        rig.arg("--venv").arg(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("moto"));
        let rig = rig.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = rig.spawn().expect("python3");
        let input = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("an answer");
        if line.is_empty() {
            assert_eq!(child.wait().expect("the rig ends").code(), Some(CANNOT), "the rig failed");
            assert!(std::env::var_os("OUTLAST_S3_REQUIRED").is_none(), "moto is required");
            eprintln!("skipped: {test}: moto cannot be installed here");
            return None;
        }
        let told: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        let endpoint = format!("http://127.0.0.1:{}", told["port"]);
        let config = S3Config {
            bucket: BUCKET.into(),
            prefix: "outlast".into(),
            region: "us-east-1".into(),
            endpoint: Some(endpoint.clone()),
            path_style: true,
            ca_pem: None,
            allow_http: true,
            writes: Writes::CreateOnly,
            credentials: Credentials::new("AKIDEXAMPLE", "a-secret", None),
            patience: Patience::default(),
            page: 1000,
        };
        let store = s3::open(config).expect("a good configuration");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(Self { child, input, store, endpoint, runtime })
    }

    /// Makes it the store of an installation.
    fn serves(&self, stage: &Stage) {
        std::fs::create_dir_all(&stage.home).unwrap();
        let private = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        private(&stage.home, 0o700);
        let secrets = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = a-secret\n";
        std::fs::write(stage.home.join("credentials"), secrets).unwrap();
        private(&stage.home.join("credentials"), 0o600);
        let text = format!(
            "[store]\nkind = \"s3\"\nbucket = \"{BUCKET}\"\nprefix = \"outlast\"\nendpoint = \"{}\"\n\
             allow_http = true\ncredentials_file = \"credentials\"\n",
            self.endpoint
        );
        std::fs::write(stage.home.join("store.toml"), text).unwrap();
    }

    /// The steps of all checkpoints that are in it, by key, and how often a
    /// key is there.
    fn steps(&self) -> Vec<(u64, u64)> {
        let read = async {
            let mut found = Vec::new();
            for key in self.store.list("").await.unwrap() {
                let is_manifest = matches!(key.seq(), Some((ObjectClass::Manifest, _)));
                if is_manifest && key.generation() > Some(0) && key.scope() != "source" {
                    found.extend(self.step(&key).await);
                }
            }
            found
        };
        self.runtime.block_on(read)
    }

    async fn step(&self, key: &ObjectKey) -> Option<(u64, u64)> {
        let size = self.store.size(key).await.unwrap()?;
        let manifest = Manifest::parse(&self.store.get(key, 0, size).await.unwrap()).ok()?;
        Some((key.generation()?, manifest.step?))
    }

    /// Waits until a step of the first generation is in it.
    fn when_stored(&self, step: u64) {
        wait(&format!("step {step} in the store"), || self.steps().contains(&(1, step)).then_some(()));
    }
}

/// Waits until a machine has its URLs, and says where it keeps them.
fn booklet_of(stage: &Stage, machine: &str) -> PathBuf {
    let attempts = stage.home.join("machines").join(machine).join("attempts");
    wait("a booklet", || {
        let attempt = std::fs::read_dir(&attempts).ok()?.next()?.ok()?;
        Some(attempt.path().join("booklet.json")).filter(|path| path.exists())
    })
}

/// The steps that became durable, in this order.
fn durable_steps(stage: &Stage, run: &str) -> Vec<u64> {
    let events = stage.events(run);
    let durable = events.iter().filter(|event| event["verb"] == "durable");
    let details = durable.filter_map(|event| event["detail_json"].as_str());
    let details = details.map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
    details.filter_map(|detail| detail["step"].as_u64()).collect()
}

fn training(stage: &Stage) -> Training {
    Training::new(stage, &[("STEPS", "60"), ("STEP_MS", "10")]).gated(20)
}

#[test]
fn a_machine_that_dies_while_nobody_listens_loses_nothing_that_was_stored() {
    let Some(bucket) = Bucket::start("a_machine_that_dies_while_nobody_listens_...") else { return };
    let stage = Stage::new();
    bucket.serves(&stage);
    let training = training(&stage);
    let run = training.submit(&stage);
    stage.when_durable(&run, 20);
    let machine = machine_of(&stage.status(&run));
    let booklet = booklet_of(&stage, &machine);
    let mode = std::fs::metadata(&booklet).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "it is a permission, and its owner's alone");
    stage.kill_controller();
    for step in [30, 40] {
        training.may_go_to(step);
        bucket.when_stored(step);
    }
    stage.kill_machine(&machine);
    assert!(stage.controllers().is_empty(), "nobody was there");
    training.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["attempts"][1]["resumed_step"], 40, "{detail:#}");
    let again: Vec<u64> = training.steps().iter().filter(|(g, _)| *g == 2).map(|(_, step)| *step).collect();
    assert_eq!(again, (41..=60).collect::<Vec<u64>>());
    let resumed = training.starts()[1]["resume_sha256"].clone();
    assert_eq!(resumed, training.saved(40), "the very bytes that were saved");
    stage.verify();
}

#[test]
fn what_was_stored_while_nobody_listened_becomes_durable_once_and_in_order() {
    let Some(bucket) = Bucket::start("what_was_stored_while_nobody_listened_...") else { return };
    let stage = Stage::new();
    bucket.serves(&stage);
    let training = training(&stage);
    let run = training.submit(&stage);
    stage.when_durable(&run, 20);
    // The newer one may have gone first: the older one belongs to the day, too.
    wait("both that were saved by day", || (durable_steps(&stage, &run).len() == 2).then_some(()));
    let machine = machine_of(&stage.status(&run));
    let booklet = booklet_of(&stage, &machine);
    stage.kill_controller();
    training.may_go_to(30);
    bucket.when_stored(30);
    // An agent that ends before it has noted that stores it once more.
    wait("the agent's note of it", || {
        let noted = std::fs::read_to_string(booklet.with_file_name("stored.json")).ok()?;
        noted.contains("m00000003").then_some(())
    });
    // The next agent goes on with what the one before was handed.
    kill_one(only(&machine, "agent"));
    for step in [40, 50] {
        training.may_go_to(step);
        bucket.when_stored(step);
    }
    stage.when_durable(&run, 50);
    training.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["run"]["generation"], 1, "{detail:#}");
    let mut steps = durable_steps(&stage, &run);
    let mut stored = bucket.steps();
    // Between the note and the agent's journal lies a moment: killed then, its
    // successor stores the one again that it was about to write down.
    if steps.len() == 7 {
        let first = steps.iter().position(|step| *step == 30).unwrap();
        let again = steps.iter().rposition(|step| *step == 30).filter(|again| *again > first);
        steps.remove(again.unwrap());
        stored.remove(stored.iter().position(|(_, step)| *step == 30).unwrap());
    }
    // Of the two that came before the night the newer may have gone first.
    assert_eq!(steps[2..], [30, 40, 50, 60], "{}", stage.story(&run));
    assert_eq!(steps[..2].iter().sum::<u64>(), 30, "{steps:?}");
    stored.sort_unstable();
    assert_eq!(stored, [10, 20, 30, 40, 50, 60].map(|step| (1, step)), "none was sent twice");
    assert!(!booklet.exists(), "it goes with the attempt");
    stage.verify();
}
