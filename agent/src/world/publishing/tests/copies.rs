//! Checkpoints that are saved over while they are published, seals that go
//! with what they seal, places within places, and who must never wait.

use super::*;

/// One save: `{"save": N, "data": [N, N, ...]}`, each of another length, so that
/// no two look alike however fast they come.
fn save(path: &Path, n: usize) {
    let data: Vec<String> = std::iter::repeat_with(|| n.to_string()).take(50_000 + n).collect();
    std::fs::write(path, format!(r#"{{"save": {n}, "data": [{}]}}"#, data.join(","))).unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => open.push(path),
                path => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn work() -> v1::Work {
    v1::Work { run_id: "run".into(), attempt_id: "a".into(), generation: 1, ..v1::Work::default() }
}

fn books(meanwhile: impl FnMut() + Send + 'static) -> Arc<Books> {
    Arc::new(Books {
        store: artifacts::store::MemoryStore::default(),
        meanwhile: Mutex::new(Box::new(meanwhile)),
        committed: Mutex::default(),
    })
}

async fn restored(books: &Books, key: &str) -> (tempfile::TempDir, artifacts::Manifest) {
    let dest = tempfile::tempdir().unwrap();
    let key = key.parse().unwrap();
    let manifest = artifacts::restore::load_manifest(&books.store, &key, None).await.unwrap();
    artifacts::restore::restore(&books.store, &manifest, &dest.path().join("to")).await.unwrap();
    (dest, manifest)
}

#[tokio::test]
async fn a_file_that_is_saved_over_faster_than_the_store_is_durable_and_never_a_mix() {
    let place = Place::new();
    let path = place.dir.checkpoints().join("last.json");
    let mut saves = 1;
    save(&path, saves);
    // The store is slower than the saves: during each object there is another.
    let books = books(move || {
        saves += 1;
        save(&path, saves);
    });
    let gateway: SharedGateway = books.clone();
    let mut tries = 0;
    while books.committed.lock().unwrap().len() < 3 {
        let found = place.publishing.candidates(&place.dir, "a", &place.spec, false);
        let Some(candidate) = found.into_iter().next() else { continue };
        tries += 1;
        assert!(tries < 10, "nothing becomes durable");
        place.publishing.checkpoint(&place.dir, &work(), &place.spec, &candidate, &gateway).await;
    }
    let keys = books.committed.lock().unwrap().clone();
    for key in keys {
        let (dest, _) = restored(&books, &key).await;
        let [file] = files(dest.path()).try_into().unwrap();
        let save: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let data = save["data"].as_array().unwrap();
        assert!(
            data.len() == 50_000 + save["save"].as_u64().unwrap() as usize
                && data.iter().all(|n| *n == save["save"]),
            "a mix"
        );
    }
    let copies = place.dir.path().join("copies");
    assert_eq!(std::fs::read_dir(copies).unwrap().count(), 0, "no copy is left");
}

#[tokio::test]
async fn a_seal_is_no_checkpoint_and_comes_back_with_what_it_seals() {
    let place = Place::new();
    let state = b"\x80\x02K\x07.";
    for step in [5, 6] {
        place.put(&format!("global_step{step}/mp_rank_00_model_states.pt"), state);
    }
    place.put("latest", "global_step6");
    place.put("config.json", "{}");
    place.until_ready("global_step6");
    assert_eq!((place.said("latest").0, place.said("config.json").0), ("beside".into(), "beside".into()));
    let books = books(|| ());
    let gateway: SharedGateway = books.clone();
    let found = place.publishing.candidates(&place.dir, "a", &place.spec, false);
    let newest = &found[0];
    assert_eq!((newest.name.as_str(), newest.step), ("global_step6", Some(6)));
    let outcome = place.publishing.checkpoint(&place.dir, &work(), &place.spec, newest, &gateway).await;
    let Published::Durable { key, .. } = outcome else { panic!("{outcome:?}") };
    let (dest, manifest) = restored(&books, &key).await;
    assert_eq!((manifest.name.as_str(), manifest.single_file), ("global_step6", false));
    let to = dest.path().join("to");
    assert_eq!(files(&to), [to.join("global_step6/mp_rank_00_model_states.pt"), to.join("latest")]);
}

#[test]
fn checkpoints_within_an_output_directory_are_found_each_by_itself() {
    let place = Place::new();
    place.put("out/checkpoint-10/trainer_state.json", r#"{"global_step": 10}"#);
    place.put("out/checkpoint-20/config.json", "{}");
    place.put("out/training_args.bin", "x");
    place.until_ready("checkpoint-10");
    assert!(place.said("out/checkpoint-20").1.contains("trainer_state.json"));
    place.put("out/checkpoint-20/trainer_state.json", r#"{"global_step": 20}"#);
    place.until_ready("checkpoint-20");
}

#[test]
fn whoever_asks_how_it_stands_waits_for_no_disk() {
    let place = Place::new();
    place.put("step-1.json", "{}");
    place.until_ready("step-1.json");
    let seen = place.publishing.of("a");
    // As a scan, or the removal of an old copy, that waits for its disk.
    let _busy = seen::lock(&seen);
    let verdicts = _busy.verdicts.clone();
    let _reading = verdicts::lock(&verdicts);
    assert_eq!(place.said("step-1.json").0, "complete");
    assert_eq!(place.publishing.remarks("a"), [""; 0]);
    place.publishing.forget("a");
    assert_eq!(place.publishing.standings("a"), []);
}

#[test]
fn a_full_look_that_takes_long_is_not_done_again_at_once() {
    let place = Place::new();
    let publishing = Publishing::default();
    let look = |name: &str| {
        place.put(name, "{}");
        publishing.candidates(&place.dir, "a", &place.spec, false);
        publishing.standings("a").iter().any(|standing| standing.name == name)
    };
    assert!(look("step-1.json"));
    seen::lock(&publishing.of("a")).looked = Some((std::time::Instant::now(), Duration::from_secs(60)));
    assert!(!look("step-2.json"), "a look of a minute is worth a pause");
    seen::lock(&publishing.of("a")).looked = Some((std::time::Instant::now(), Duration::ZERO));
    assert!(look("step-3.json"), "what came in the pause is not forgotten");
}

#[test]
fn a_rest_without_end_is_no_panic() {
    let mut place = Place::new();
    place.spec.checkpoints.quiet_seconds = u64::MAX;
    place.put("a/x.bin", "x");
    place.put("b.bin", "x");
    assert_eq!(place.ready(false), [""; 0]);
    place.end(r#"{"kind":"signal","signal":9,"core":false}"#);
    assert_eq!(place.ready(true), [""; 0]);
}

#[tokio::test]
async fn what_cannot_travel_is_left_out_of_a_checkpoint_and_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let place = Place::new();
    place.put("step-3/DONE.json", "{}");
    place.put("step-3/weights", "weights");
    let dir = place.dir.checkpoints().join("step-3");
    std::os::unix::fs::symlink("/data/base", dir.join("base")).unwrap();
    std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    std::fs::write(dir.join(std::ffi::OsString::from_vec(b"\xff.txt".to_vec())), "x").unwrap();

    word::say(&dir, Some(3), |name| (name == "OUTLAST_CHECKPOINT_DIR").then(|| place.dir.checkpoints()))
        .unwrap();
    place.until_ready("step-3");
    let books = books(|| ());
    let gateway: SharedGateway = books.clone();
    let found = place.publishing.candidates(&place.dir, "a", &place.spec, false);
    let outcome = place.publishing.checkpoint(&place.dir, &work(), &place.spec, &found[0], &gateway).await;
    let Published::Durable { key, .. } = outcome else { panic!("{outcome:?}") };
    let (dest, _) = restored(&books, &key).await;
    let to = dest.path().join("to");
    assert_eq!(files(&to), [to.join("DONE.json"), to.join("weights")]);
    let told = place.publishing.remarks("a");
    let [told] = &told[..] else { panic!("{told:?}") };
    assert!(told.starts_with("checkpoint `step-3`, and each like it, is stored without `"), "{told}");
    for part in ["`base`, which is a link to an absolute path", "`socket`", "not UTF-8"] {
        assert!(told.contains(part), "{told}");
    }
}
