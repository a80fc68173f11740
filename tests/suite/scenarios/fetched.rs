//! What `[data]` names comes to the machine before the program begins, from a
//! hub and a server that misbehave: cut off, busy, wrong, moved on. The hub is
//! a double on loopback, which the official client judges in `tests/rigs/hub`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::losses::lose;
use super::sealed::files;
use super::stage::{Stage, lines, records, repository, touch, wait};

const TOKEN: &str = "hf_quietyellowbird";

/// The hub's double.
struct Hub {
    child: Child,
    dir: PathBuf,
}

impl Hub {
    fn start(stage: &Stage) -> Self {
        let dir = stage.path("hub");
        fs::create_dir_all(dir.join("files")).unwrap();
        let script = repository().join("tests/rigs/hub/hub.py");
        let mut python = Command::new("python3");
        python.arg("-B").arg(script).arg(&dir).stdin(Stdio::piped());
        let child = python.spawn().unwrap();
        let hub = Self { child, dir };
        wait("the hub", || hub.dir.join("address").exists().then_some(()));
        hub
    }

    fn address(&self) -> String {
        fs::read_to_string(self.dir.join("address")).unwrap()
    }

    /// A commit of a repository, which its branch is at from now on.
    fn commit(&self, repository: &str, commit: &str, files: &[(&str, Vec<u8>)]) {
        let at = self.dir.join("repos").join(repository);
        for (path, bytes) in files {
            let path = at.join("commits").join(commit).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::create_dir_all(at.join("refs")).unwrap();
        fs::write(at.join("refs/main"), commit).unwrap();
    }

    fn fails(&self, faults: &Value) {
        fs::write(self.dir.join("faults.json"), faults.to_string()).unwrap();
    }

    /// What was asked for paths that end so.
    fn asked(&self, end: &str) -> Vec<Value> {
        let mut all = records(&self.dir.join("requests.jsonl"));
        all.retain(|asked| asked["path"].as_str().unwrap().ends_with(end) && asked["method"] == "GET");
        all
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(31) >> 3) as u8 ^ seed).collect()
}

fn sha256(path: &Path) -> String {
    let out = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(out.stdout).unwrap()[..64].to_owned()
}

/// Tells what it finds as the hub's client would look for it.
const JOB: &str = r#"
hub=$HF_HUB_CACHE/models--org--tiny
commit=$(cat "$hub/refs/main")
echo "$OUTLAST_GENERATION $commit $(sha256sum < "$hub/snapshots/$commit/deep/model.bin" | cut -c1-64) $(cat "$hub/snapshots/$commit/config.json")" >> "$SEEN"
"#;

fn project(stage: &Stage, hub: &Hub, job: &str, more: &str) -> PathBuf {
    let settings = format!(
        "[run]\ncommand = [\"sh\", \"job.sh\"]\nenv = {{ SEEN = {:?}, HF_ENDPOINT = {:?} }}\n[environment]\nkind = \"none\"\n\
         [retry]\nfailures = 0\n{more}",
        stage.path("seen"),
        hub.address()
    );
    stage.project("p", &[("job.sh", job), ("outlast.toml", &settings)])
}

fn commit(letter: &str) -> String {
    letter.repeat(40)
}

#[test]
fn a_download_that_breaks_off_is_gone_on_from_and_a_branch_that_moves_does_not_move_the_run() {
    let stage = Stage::new().with([("MY_TOKEN".to_owned(), TOKEN.to_owned())]);
    let hub = Hub::start(&stage);
    let model = bytes(1, 400_000);
    hub.commit(
        "models/org/tiny",
        &commit("a"),
        &[("config.json", b"{}".to_vec()), ("deep/model.bin", model.clone())],
    );
    fs::write(hub.dir.join("repos/models/org/tiny/token"), TOKEN).unwrap();
    let stored = format!("commits/{}/deep/model.bin", commit("a"));
    hub.fails(&json!([
        {"match": "/revision/main", "do": "status", "code": 503},
        {"match": stored, "do": "cut", "at": 100_000},
        {"match": stored, "do": "hold", "at": 50_000},
    ]));
    let more = "[secrets]\nHF_TOKEN = { env = \"MY_TOKEN\" }\n[data]\nhf = [\"org/tiny\"]\n";
    let root = project(&stage, &hub, JOB, more);
    let run = stage.submit(&root, &[]);
    wait("half of the download", || hub.dir.join("held").exists().then_some(()));
    // The branch moves, and the machine goes.
    hub.commit(
        "models/org/tiny",
        &commit("b"),
        &[("config.json", b"{\"b\":1}".to_vec()), ("deep/model.bin", bytes(2, 5))],
    );
    lose(&stage, &run);
    touch(&hub.dir.join("go"));
    stage.ends_as(&run, "SUCCEEDED");
    let expected = stage.path("expected");
    fs::write(&expected, &model).unwrap();
    assert_eq!(lines(&stage.path("seen")), [format!("2 {} {} {{}}", commit("a"), sha256(&expected))]);
    let asked = hub.asked("deep/model.bin");
    let ranges: Vec<&str> = asked.iter().filter_map(|asked| asked["range"].as_str()).collect();
    assert!(ranges.len() >= 2 && ranges.iter().all(|range| !range.starts_with("bytes=0")), "{asked:#?}");
    let elsewhere = asked.iter().filter(|asked| asked["cdn"] == true);
    assert!(elsewhere.clone().count() >= 3, "{asked:#?}");
    for asked in elsewhere {
        assert_eq!(asked["token"], false, "the token went to another server");
    }
    assert!(asked.iter().all(|asked| asked["cdn"] == true || asked["token"] == true), "{asked:#?}");
    let pinned: Vec<Value> =
        stage.events(&run).into_iter().filter(|event| event["verb"] == "data-pinned").collect();
    assert_eq!(pinned.len(), 1, "{pinned:#?}");
    let setup = stage.ok(&["logs", &run, "--setup"]).text();
    assert!(setup.contains("data: org/tiny at commit aaaaaaaaaaaa: 2 files"), "{setup}");
    for path in files(&stage.home) {
        let holds = |text: &[u8]| text.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!holds(&fs::read(&path).unwrap_or_default()), "{} holds the token", path.display());
    }

    // Another run on this computer has it already.
    let before = hub.asked("deep/model.bin").len();
    let again = format!(
        "[secrets]\nHF_TOKEN = {{ env = \"MY_TOKEN\" }}\n[data]\nhf = [\"org/tiny@{}\"]\n",
        commit("a")
    );
    let job = "ls $HF_HUB_CACHE/models--org--tiny/snapshots/*/deep/model.bin && test -r $HF_HOME/hub/models--org--tiny/snapshots/*/config.json";
    let root = project(&stage, &hub, job, &again);
    let run = stage.submit(&root, &[]);
    stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(hub.asked("deep/model.bin").len(), before, "nothing was fetched twice");
}

#[test]
fn files_by_their_url_are_checked_and_land_below_the_source_tree() {
    let stage = Stage::new();
    let hub = Hub::start(&stage);
    let file = hub.dir.join("files/x.bin");
    fs::write(&file, bytes(3, 200_000)).unwrap();
    hub.fails(&json!([
        {"match": "x.bin", "do": "corrupt"},
        {"match": "x.bin", "do": "cut", "at": 1_000},
        {"match": "x.bin", "do": "long"},
        {"match": "x.bin", "do": "size", "by": 7},
        {"match": "x.bin", "do": "status", "code": 429, "after": 1},
    ]));
    let data = |sum: &str, to: &str| {
        format!(
            "[data]\nurls = [{{ url = \"{}/files/x.bin\", sha256 = \"{sum}\", to = {to:?} }}]\n",
            hub.address()
        )
    };
    let job = "sha256sum < data/deep/x.bin | cut -c1-64 >> $SEEN";
    let root = project(&stage, &hub, job, &data(&sha256(&file), "data/deep/x.bin"));
    let run = stage.submit(&root, &[]);
    stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(lines(&stage.path("seen")), [sha256(&file)]);

    // Another digest ends the run, and says so.
    let root = project(&stage, &hub, job, &data(&"0".repeat(64), "data/deep/x.bin"));
    let run = stage.submit(&root, &[]);
    let ended = stage.ends_as(&run, "FAILED");
    assert!(ended.to_string().contains("its digest is another"), "{ended:#}");
    let whole = hub.asked("x.bin").iter().filter(|asked| asked["range"].is_null()).count();
    assert!((4..=6).contains(&whole), "tried again, and not for ever: {whole}");
}

#[test]
fn without_access_the_run_says_which_token_is_wanted() {
    let stage = Stage::new();
    let hub = Hub::start(&stage);
    hub.commit("datasets/org/rows", &commit("c"), &[("rows.csv", b"1\n".to_vec())]);
    fs::write(hub.dir.join("repos/datasets/org/rows/token"), TOKEN).unwrap();
    let root = project(&stage, &hub, "true", "[data]\nhf = [\"dataset:org/rows\"]\n");
    let run = stage.submit(&root, &[]);
    let ended = stage.ends_as(&run, "FAILED").to_string();
    assert!(ended.contains("dataset:org/rows") && ended.contains("there is no HF_TOKEN"), "{ended}");
    let root = project(&stage, &hub, "true", "[data]\nhf = [\"org/absent\"]\n");
    let run = stage.submit(&root, &[]);
    let ended = stage.ends_as(&run, "FAILED").to_string();
    assert!(ended.contains("org/absent"), "{ended}");
}
