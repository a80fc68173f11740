//! Processes that publish and restore, killed with SIGKILL at any moment: what
//! was said to be stored is, what appears is whole, and whoever comes next
//! goes on. `KILLS` asks for more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use artifacts::index::MemoryIndex;
use artifacts::publish::About;
use artifacts::restore::{load_manifest, read_tree, restore, restore_over};
use artifacts::store::FsStore;
use artifacts::{Digest, KeySpace, Kind, ObjectKey, Published, Store, publish_bytes};

const ROLE: &str = "KILLS_ROLE";

/// The files of one state: half of them as in all others.
fn files(state: u64) -> Vec<(String, Vec<u8>)> {
    let noise = |seed: u64, len: usize| {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    };
    (0..6)
        .map(|n| (format!("d{}/f{n}", n % 2), noise(if n < 3 { n } else { 100 + state * 10 + n }, 150_000)))
        .collect()
}

async fn put(store: &FsStore, index: &MemoryIndex, generation: u64, state: u64) -> Published {
    let mut keys = KeySpace { scope: "run".into(), generation, pack_seq: state * 4, manifest_seq: state };
    let about = About {
        kind: Kind::Checkpoint,
        step: Some(state),
        name: "c".into(),
        single_file: false,
        created_ms: 1,
    };
    let published = publish_bytes(&files(state), &about, &mut keys, store, index).await.unwrap();
    index.add(&published.manifest);
    published
}

/// What the child processes do, told by variables; as a test of its own,
/// nothing.
#[test]
#[allow(clippy::print_stdout, reason = "it is how a child tells what it has done")]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = PathBuf::from(std::env::var("KILLS_DIR").unwrap());
    let number: u64 = std::env::var("KILLS_NUMBER").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = FsStore::open(dir.join("store")).unwrap();
        let index = MemoryIndex::default();
        let states =
            [put(&store, &index, 1 << 40 | number, 0).await, put(&store, &index, 1 << 40 | number, 1).await];
        for round in 0.. {
            match role.as_str() {
                "publish" => {
                    let published = put(&store, &index, number, round).await;
                    println!("done {} {} {round}", published.manifest_key, published.manifest_digest);
                    continue;
                }
                "restore" => {
                    let dest = dir.join(format!("back/{number}-{round}"));
                    restore(&store, &states[round as usize % 2].manifest, &dest).await.unwrap();
                }
                _ => {
                    let dest = dir.join("over");
                    fs::create_dir_all(&dest).unwrap();
                    restore_over(&store, &states[round as usize % 2].manifest, &dest).await.unwrap();
                }
            }
            println!("done");
        }
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a child, kills it some time after it did something, and hands back
/// what it said.
fn kill_one(dir: &Path, role: &str, number: u64, after: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "kills::child", "--nocapture", "--test-threads=1"]).stdout(Stdio::piped());
    child.env(ROLE, role).env("KILLS_DIR", dir).env("KILLS_NUMBER", number.to_string());
    let mut child = Killed(child.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let first =
        lines.by_ref().map(Result::unwrap).find(|line| line.contains("done")).expect("it did something");
    // Anywhere in what it does next: not waiting for anything.
    std::thread::sleep(after);
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    // The last line may be cut: it was not said then.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    // The test harness begins the first line with words of its own.
    [first].iter().chain(&rest).filter_map(|line| Some(line[line.find("done")?..].to_owned())).collect()
}

fn picture(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// All manifests in the store are of trees that are stored.
async fn check_store(store: &FsStore, said: &[String]) {
    let mut there = BTreeSet::new();
    for key in store.list("run/").await.unwrap() {
        if !matches!(key.seq(), Some((artifacts::key::ObjectClass::Manifest, _))) {
            continue;
        }
        let tree = load_manifest(store, &key, None).await.unwrap();
        let back = read_tree(store, &tree, 10_000_000).await.unwrap();
        let mut saved = files(tree.step.unwrap());
        saved.sort();
        assert!(back == saved, "{key} holds something else");
        there.insert(key);
    }
    for line in said {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, key, digest, _] = words[..] else { continue };
        let Ok(digest) = digest.parse::<Digest>() else { continue };
        let key: ObjectKey = key.parse().unwrap();
        assert!(there.contains(&key), "{key} was said to be stored");
        load_manifest(store, &key, Some(digest)).await.unwrap();
    }
}

#[tokio::test]
async fn whatever_is_killed_nothing_stored_is_lost_and_nothing_torn_appears() {
    let kills: u64 = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(15);
    let dir = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(kills);
    let mut said = Vec::new();
    for number in 0..kills {
        let role = ["publish", "restore", "over"][number as usize % 3];
        let after = Duration::from_micros(random.u64(0..60_000));
        let lines = kill_one(dir.path(), role, number, after);
        if role == "publish" {
            said.extend(lines);
        }
        let trees = [0, 1].map(|state| files(state).into_iter().collect::<BTreeMap<_, _>>());
        for entry in fs::read_dir(dir.path().join("back")).into_iter().flatten() {
            let path = entry.unwrap().path();
            if !path.file_name().unwrap().to_str().unwrap().starts_with(".tmp-outlast-") {
                assert!(trees.contains(&picture(&path)), "{} is not whole", path.display());
            }
        }
        if dir.path().join("over").is_dir() {
            for (path, bytes) in picture(&dir.path().join("over")) {
                let whole = trees.iter().any(|tree| tree.get(&path) == Some(&bytes));
                assert!(whole || path.contains(".tmp-outlast-"), "{path} is torn");
            }
        }
    }
    let store = FsStore::open(dir.path().join("store")).unwrap();
    assert!(said.len() as u64 >= kills / 3);
    check_store(&store, &said).await;
    // What the dead left half written goes away with the next who opens it.
    let scratch = fs::read_dir(dir.path().join("store/.tmp")).unwrap().flatten();
    assert_eq!(scratch.filter(|entry| entry.path().is_dir()).count(), 1, "only this process's own");
}
