//! A run whose checkpoints are sealed: it loses its machine and comes to the
//! very same end, its agent forgets the keys and gets them again, its store and
//! its machines' disks tell nothing, and what is stored can be read with the
//! recovery key when the controller's own is lost.

use std::fs;
use std::path::{Path, PathBuf};

use artifacts::seal::ProjectSecret;

use super::losses::{came_from_the_store, check, lose, results, undisturbed};
use super::processes::{kill_one, only};
use super::programs::Training;
use super::stage::{Stage, machine_of};

/// Every file below a directory that can be read now.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Fails if one of these texts stands in one of the files.
#[track_caller]
fn tells_nothing(files: &[PathBuf], texts: &[&[u8]]) {
    for path in files {
        let Ok(bytes) = fs::read(path) else { continue };
        for text in texts {
            let found = bytes.windows(text.len()).any(|window| window == *text);
            assert!(!found, "{} holds {:?}", path.display(), String::from_utf8_lossy(text));
        }
    }
}

#[test]
fn a_sealed_run_that_loses_its_machine_comes_to_the_same_end_and_its_store_tells_nothing() {
    let stage = Stage::new();
    let training = Training::hf_style(&stage, 50, 80, 10).set("checkpoints.encrypt=true").gated(19);
    let run = training.submit(&stage);
    assert_eq!(stage.when_durable(&run, 10), 10);
    // The secret that the machine got is on none of its disks.
    let project = stage.status(&run)["run"]["project"].as_str().unwrap().to_owned();
    let master: [u8; 32] = fs::read(stage.home.join("keys/seal.secret")).unwrap().try_into().unwrap();
    let secret = ProjectSecret::of_project(&master, &project);
    let hex: String = secret.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    let machines = files(&stage.home.join("machines"));
    assert!(machines.len() > 10);
    tells_nothing(&machines, &[secret.expose(), hex.as_bytes(), b"outlast-private"]);
    // An agent that is started again gets it again: more checkpoints follow.
    let machine = machine_of(&stage.status(&run));
    stage.when_welcomed(&machine);
    kill_one(only(&machine, "agent"));
    training.may_go_to(29);
    assert!(stage.when_durable(&run, 20) >= 20);
    let loss = lose(&stage, &run);
    training.may_end();
    let resumed = check(&stage, &run, &training, &loss, 50).expect("a checkpoint");
    let (sum, weights) = undisturbed(&stage, 50, 10, resumed);
    assert_eq!(came_from_the_store(&stage, &run, &training, resumed), sum);
    assert_eq!(results(&stage, &run, "weights.json"), weights, "weights as those of an unbroken run");

    let of_run = format!("/objects/{}", stage.status(&run)["run"]["id"].as_str().unwrap());
    let all = files(&stage.home.join("objects"));
    let stored: Vec<PathBuf> =
        all.into_iter().filter(|path| path.to_string_lossy().contains(&of_run)).collect();
    assert!(stored.len() > 6, "{stored:?}");
    let listed = stage.ok(&["artifacts", "ls", &run, "--json"]).json();
    let names: Vec<String> =
        listed.as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap().to_owned()).collect();
    assert!(names.len() > 1, "{names:?}");
    let mut texts: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    texts.extend(names.iter().filter_map(|name| Some(name.rsplit_once('/')?.1.as_bytes())));
    texts.extend([b"checkpoint-".as_slice(), b"weights", b"\"mode\"", b"entries", secret.expose()]);
    tells_nothing(&stored, &texts);
    stage.ok(&["artifacts", "verify", &run, "--all"]);
    opened_by_whom(&stage, &run, &names[0]);
}

/// Reads one file with the controller's key, and with the recovery key when
/// that is lost.
#[track_caller]
fn opened_by_whom(stage: &Stage, run: &str, name: &str) {
    let whole = stage.ok(&["artifacts", "cat", run, name]).stdout;
    assert!(!whole.is_empty());
    let doctor = stage.ok(&["doctor"]);
    assert!(doctor.stderr.contains("outlast keys recovery"), "{}", doctor.stderr);
    let key = stage.path("recovery.txt");
    let key = key.to_str().unwrap();
    stage.ok(&["keys", "recovery", "--out", key]);
    assert!(!stage.home.join("keys/recovery.key").exists());
    assert!(!stage.ok(&["doctor"]).stderr.contains("keys:"));
    assert_eq!(stage.ok(&["artifacts", "cat", run, name, "--key", key]).stdout, whole);
    // The controller's own key is lost.
    stage.kill_controller();
    fs::remove_file(stage.home.join("keys/seal.key")).unwrap();
    let said = stage.call(&["artifacts", "cat", run, name]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("sealed"), "{}", said.stderr);
    // What can be checked without any key still is.
    stage.ok(&["artifacts", "verify", run, "--all"]);
    assert_eq!(stage.ok(&["artifacts", "cat", run, name, "--key", key]).stdout, whole);
    let other = stage.path("other.txt");
    fs::copy(stage.home.join("keys/seal.key"), &other).unwrap();
    let said = stage.call(&["artifacts", "cat", run, name, "--key", other.to_str().unwrap()]);
    assert!(said.code != 0 && said.stderr.contains("sealed"), "{}", said.stderr);
    // Put back, the recovery key serves the controller, too.
    stage.kill_controller();
    fs::copy(key, stage.home.join("keys/recovery.key")).unwrap();
    assert_eq!(stage.ok(&["artifacts", "cat", run, name]).stdout, whole);
}
