//! What is taken, what is not, and what is said of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use std::time::Duration;

use artifacts::ObjectKey;

use super::*;
use crate::world::layout::AttemptDir;

mod copies;
mod deaths;
mod offline;

/// One attempt and its publishing, without a store.
struct Place {
    _root: tempfile::TempDir,
    dir: AttemptDir,
    publishing: Publishing,
    spec: RunSpec,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(root.path(), "a");
        std::fs::create_dir_all(dir.checkpoints()).unwrap();
        std::fs::create_dir_all(dir.outputs()).unwrap();
        // An hour: no rest of a test is as long.
        let text = r#"{"project":"p","name":"n","command":["x"],"provider":"local","checkpoints":{"quiet_seconds":3600}}"#;
        let spec = serde_json::from_str(text).unwrap();
        // However slow the machine of a test is, each look is a full one.
        let publishing = Publishing { share: 0, ..Publishing::default() };
        Self { _root: root, dir, publishing, spec }
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.checkpoints().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// As if the store had taken it, or refused it.
    fn publish(&self, name: &str, durable: bool) {
        let look = look(&self.dir.checkpoints().join(name)).unwrap();
        let chosen = prepare::Chosen { relative: format!("@/{name}"), token: look.token.clone(), look };
        done::done(
            &self.publishing.of("a"),
            &self.dir,
            &chosen,
            &self.spec,
            if durable { Became::Durable } else { Became::Refused },
        );
    }

    /// What its keeper says of the program's end.
    fn end(&self, exit: &str) {
        let now = os::unix_ms();
        let record = format!(r#"{{"exit":{exit},"ended_ms":{now},"started_ms":1,"stopped_by":null}}"#);
        std::fs::write(self.dir.path().join(crate::keeper::EXIT_FILE), record).unwrap();
    }

    /// Names that would be published, after one more look so that none is new.
    fn ready(&self, last: bool) -> Vec<String> {
        self.publishing.candidates(&self.dir, "a", &self.spec, last);
        let found = self.publishing.candidates(&self.dir, "a", &self.spec, last);
        found.into_iter().map(|candidate| candidate.name).collect()
    }

    /// Looks until it is ready: what a verdict depends on is asked again, but
    /// not at each look.
    fn until_ready(&self, name: &str) {
        while !self.ready(false).iter().any(|found| found == name) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn said(&self, name: &str) -> (String, String) {
        let all = self.publishing.standings("a");
        let found = all.into_iter().find(|standing| standing.name == name).expect(name);
        (found.state, found.why)
    }
}

/// Keeps a file open for writing until it is dropped.
struct Holder(Child);

impl Holder {
    fn of(path: &Path) -> Self {
        let code = "import sys\nf = open(sys.argv[1], 'r+b')\nprint('open', flush=True)\nsys.stdin.read()";
        let mut python = Command::new("python3");
        python.args(["-c", code]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert_eq!(line, "open\n");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_somebody_can_still_write_to_is_not_taken() {
    let place = Place::new();
    let path = place.put("step-1.json", "{}");
    let holder = Holder::of(&path);
    assert_eq!(place.ready(false), [""; 0]);
    let (state, why) = place.said("step-1.json");
    assert!(state == "incomplete" && why.contains("`step-1.json` is open for writing by process"), "{why}");
    assert_eq!(place.ready(true), [""; 0], "also when the program has ended: another one writes");
    drop(holder);
    place.until_ready("step-1.json");
    assert_eq!(place.said("step-1.json"), ("complete".into(), "by json".into()));
}

#[test]
fn a_checkpoint_is_not_committed_if_it_changed_or_is_written_to_after_it_was_chosen() {
    let place = Place::new();
    let path = place.put("step-1.json", "{}");
    place.until_ready("step-1.json");
    let still = || Still {
        verdicts: seen::lock(&place.publishing.of("a")).verdicts.clone(),
        path: path.clone(),
        token: look(&path).unwrap().token,
        is_said: false,
    };
    assert!(still().holds());
    let holder = Holder::of(&path);
    assert!(!still().holds());
    drop(holder);
    let before = still();
    place.put("step-1.json", "{}  ");
    assert!(!before.holds() && still().holds());
    place.put("step-1.json", "{");
    assert!(!still().holds(), "torn now");
    std::fs::remove_file(&path).unwrap();
    assert!(!before.holds());
}

/// A store that also commits; while it stores a pack, something may happen.
struct Books {
    store: artifacts::store::MemoryStore,
    meanwhile: Mutex<Box<dyn FnMut() + Send>>,
    committed: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl artifacts::Store for Books {
    async fn put_if_absent(
        &self,
        key: &ObjectKey,
        bytes: &[u8],
    ) -> Result<artifacts::Put, artifacts::StoreError> {
        (self.meanwhile.lock().unwrap())();
        self.store.put_if_absent(key, bytes).await
    }
    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, artifacts::StoreError> {
        self.store.get(key, offset, len).await
    }
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, artifacts::StoreError> {
        self.store.size(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, artifacts::StoreError> {
        self.store.list(prefix).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<bool, artifacts::StoreError> {
        self.store.delete(key).await
    }
}

#[async_trait::async_trait]
impl artifacts::ChunkIndex for Books {
    async fn locate(
        &self,
        digests: &[artifacts::Digest],
    ) -> Result<Vec<Option<artifacts::Location>>, artifacts::StoreError> {
        Ok(vec![None; digests.len()])
    }
}

#[async_trait::async_trait]
impl super::super::Gateway for Books {
    async fn commit(&self, _: &v1::Work, key: &str, _: &str) -> Commit {
        self.committed.lock().unwrap().push(key.to_owned());
        Commit::Durable
    }
    async fn tree(
        &self,
        _: &v1::Work,
        key: &ObjectKey,
        digest: artifacts::Digest,
    ) -> Result<artifacts::Manifest, artifacts::restore::RestoreError> {
        artifacts::restore::load_manifest(self, key, Some(digest)).await
    }
    async fn condemn(&self, _: &v1::Work, _: &str, _: &str) {}
}

#[tokio::test]
async fn what_is_not_believed_any_more_leaves_nothing_that_could_be_adopted() {
    let place = Place::new();
    let path = place.put("step-1.json", "{}");
    place.until_ready("step-1.json");
    let candidate = place.publishing.candidates(&place.dir, "a", &place.spec, false).remove(0);
    let work =
        v1::Work { run_id: "run".into(), attempt_id: "a".into(), generation: 1, ..v1::Work::default() };
    let holder = std::sync::Arc::new(Mutex::new(None));
    let opened = (holder.clone(), path);
    // Bytes and names stay as they are: only who may write to them changes.
    let mut is_first = true;
    let opens = move || {
        if std::mem::take(&mut is_first) {
            *opened.0.lock().unwrap() = Some(Holder::of(&opened.1));
        }
    };
    let books = std::sync::Arc::new(Books {
        store: artifacts::store::MemoryStore::default(),
        meanwhile: Mutex::new(Box::new(opens)),
        committed: Mutex::default(),
    });
    let gateway: SharedGateway = books.clone();
    let publish = || place.publishing.checkpoint(&place.dir, &work, &place.spec, &candidate, &gateway);
    assert_eq!(publish().await, Published::Gone);
    let manifests = || async {
        let keys = artifacts::Store::list(&books.store, "").await.unwrap();
        let is_manifest =
            |key: &&ObjectKey| matches!(key.seq(), Some((artifacts::key::ObjectClass::Manifest, _)));
        keys.iter().filter(is_manifest).map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(manifests().await, [""; 0], "whoever finds a manifest commits it");
    drop(holder.lock().unwrap().take());
    assert!(matches!(publish().await, Published::Durable { .. }));
    assert_eq!(manifests().await, *books.committed.lock().unwrap());
}

#[test]
fn what_seals_a_checkpoint_may_come_beside_it_and_later() {
    let place = Place::new();
    let state = b"\x80\x02K\x07.";
    place.put("global_step5/mp_rank_00_model_states.pt", state);
    assert_eq!(place.ready(false), [""; 0]);
    assert_eq!(place.said("global_step5").1, "waits for: `latest` beside it");
    // Its own bytes stay as they are.
    place.put("latest", "global_step5");
    place.until_ready("global_step5");
}

#[test]
fn the_word_of_the_program_counts_for_the_bytes_that_were_there() {
    let place = Place::new();
    let path = place.put("step-7/weights.bin", "1234");
    assert_eq!(place.ready(false), [""; 0]);
    assert_eq!(place.said("step-7").0, "rests");
    let variable = |name: &str| (name == "OUTLAST_CHECKPOINT_DIR").then(|| place.dir.checkpoints());
    say(path.parent().unwrap(), Some(70), variable).unwrap();
    place.publishing.candidates(&place.dir, "a", &place.spec, false);
    let found = place.publishing.candidates(&place.dir, "a", &place.spec, false);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].name.as_str(), found[0].step), ("step-7", Some(70)));
    // What is broken is not whole because somebody says so, and what is
    // written after the word is not meant by it.
    place.put("step-8.pt", "PK\x03\x04");
    say(&place.dir.checkpoints().join("step-8.pt"), None, variable).unwrap();
    assert_eq!(place.ready(false), ["step-7"]);
    let word = std::fs::read_dir(place.dir.checkpoints().join(word::DIRECTORY)).unwrap().flatten().next();
    let word = word.unwrap().path().metadata().unwrap().modified().unwrap();
    let weights = std::fs::File::options().write(true).open(&path).unwrap();
    weights.set_modified(word + Duration::from_secs(1)).unwrap();
    drop(weights);
    assert_eq!(place.ready(false), [""; 0]);
}

#[test]
fn what_goes_away_before_it_is_taken_is_counted_and_told() {
    let place = Place::new();
    let path = place.put("step-1.json", "{}");
    place.until_ready("step-1.json");
    // Another name for the same file is no loss, a torn one never counted.
    std::fs::rename(&path, place.dir.checkpoints().join("step-2.json")).unwrap();
    place.put("step-3.json", "{");
    place.until_ready("step-2.json");
    std::fs::remove_file(place.dir.checkpoints().join("step-3.json")).unwrap();
    place.ready(false);
    assert_eq!(place.publishing.remarks("a"), [""; 0]);
    std::fs::remove_file(place.dir.checkpoints().join("step-2.json")).unwrap();
    place.ready(false);
    assert_eq!(place.publishing.remarks("a"), ["checkpoint `step-2.json` went away before it was durable"]);
    for step in 10..13 {
        let path = place.put(&format!("step-{step}.json"), "{}");
        place.until_ready(&format!("step-{step}.json"));
        std::fs::remove_file(path).unwrap();
        place.ready(false);
    }
    let told = place.publishing.remarks("a");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].starts_with("4 checkpoints went away"), "{told:?}");
    // At the end nothing unfinished is passed over in silence.
    place.put("step-20.json", "{");
    place.ready(true);
    let told = place.publishing.remarks("a");
    assert!(told.iter().any(|text| text.starts_with("checkpoint `step-20.json` was not taken")), "{told:?}");
}

#[test]
fn what_is_left_of_a_published_directory_while_it_is_removed_is_no_checkpoint() {
    let place = Place::new();
    place.put("7/_CHECKPOINT_METADATA", "{}");
    place.put("7/d/array", "x");
    place.until_ready("7");
    place.publish("7", true);
    assert_eq!(place.ready(true), [""; 0]);
    std::fs::remove_file(place.dir.checkpoints().join("7/d/array")).unwrap();
    assert_eq!(place.ready(true), [""; 0]);
    assert_eq!(place.said("7").0, "published");
    // A new save under the same name is one.
    place.put("7/d/array", "y");
    place.until_ready("7");
}

#[test]
fn links_and_temporary_names_are_explained() {
    let place = Place::new();
    place.put("epoch=1-step=9.json", "{}");
    place.put("step-10.tmp", "");
    std::os::unix::fs::symlink("epoch=1-step=9.json", place.dir.checkpoints().join("last.ckpt")).unwrap();
    place.until_ready("epoch=1-step=9.json");
    assert_eq!(place.said("last.ckpt").1, "leads to `epoch=1-step=9.json`, which is judged by itself");
    assert_eq!(place.said("step-10.tmp").1, "`step-10.tmp` is a temporary name");
    assert_eq!(place.publishing.remarks("a"), [""; 0]);
}

#[test]
fn a_rename_into_place_is_told_from_writing_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let (temporary, path) = (dir.path().join("tmp"), dir.path().join("state.bin"));
    std::fs::write(&temporary, b"weights").unwrap();
    // As a writer that syncs before it renames: some milliseconds pass.
    std::fs::File::open(&temporary).unwrap().sync_all().unwrap();
    let before = look(&temporary).unwrap();
    while !look(&path).is_some_and(|l| l.moved) {
        let _ = std::fs::rename(&temporary, &path);
        let _ = std::fs::rename(&path, &temporary);
        let _ = std::fs::rename(&temporary, &path);
    }
    assert!(!before.moved);
    std::fs::write(&path, b"other weights").unwrap();
    assert!(!look(&path).unwrap().moved, "what is written after the rename is not finished");
}

#[test]
fn a_rename_counts_where_the_times_tell_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = AttemptDir::new(root.path(), "a");
    std::fs::create_dir_all(dir.checkpoints()).unwrap();
    let spec: RunSpec = serde_json::from_value(serde_json::json!({
        "project": "p", "name": "n", "command": ["x"], "provider": "local",
        "checkpoints": {"quiet_seconds": 3_600}
    }))
    .unwrap();
    let publishing = Publishing { share: 0, ..Publishing::default() };
    publishing.baseline(&dir, "a", &spec);
    let put = |name: &str, renamed: bool| {
        let path = dir.checkpoints().join(name);
        let first = if renamed { dir.checkpoints().join(".tmp-x") } else { path.clone() };
        std::fs::write(&first, b"weights").unwrap();
        // As if it had been written in the very tick of the rename.
        let later = std::time::SystemTime::now() + Duration::from_secs(600);
        std::fs::File::options().write(true).open(&first).unwrap().set_modified(later).unwrap();
        if renamed {
            std::fs::rename(&first, &path).unwrap();
        }
    };
    put("step-1.bin", true);
    put("step-2.bin", false);
    let names = || -> Vec<String> {
        publishing.candidates(&dir, "a", &spec, false).into_iter().map(|c| c.name).collect()
    };
    assert!(names().is_empty(), "two looks are needed");
    assert_eq!(names(), ["step-1.bin"]);
}
