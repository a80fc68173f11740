//! What a program left when it died, what is being removed, and what could not
//! be looked at.

use super::super::standing::Standing;
use super::super::verdicts::{Facts, Verdicts};
use super::*;

const KILLED: &str = r#"{"kind":"signal","signal":9,"core":false}"#;
const DONE: &str = r#"{"kind":"code","code":0}"#;

fn npy(rows: usize) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows},), }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &vec![7; rows]]
        .concat()
}

#[test]
fn half_of_what_tells_nothing_is_not_taken_when_its_program_was_killed() {
    let place = Place::new();
    place.put("step-1.bin", "half of the wei");
    place.put("step-2.json", "{}");
    place.put("step-3/weights.bin", "half");
    place.end(KILLED);
    assert_eq!(place.ready(true), ["step-2.json"]);
    let (state, why) = place.said("step-1.bin");
    assert!(state == "incomplete" && why.starts_with("its program was ended by signal 9"), "{state} {why}");
    assert_eq!(place.said("step-3").0, "incomplete");
    // It had rested long enough when the program died two hours later.
    let later = os::unix_ms() + 7_200_000;
    let record = format!(r#"{{"exit":{KILLED},"ended_ms":{later},"started_ms":1,"stopped_by":null}}"#);
    std::fs::write(place.dir.path().join(crate::keeper::EXIT_FILE), record).unwrap();
    let mut ready = place.ready(true);
    ready.sort();
    assert_eq!(ready, ["step-1.bin", "step-2.json", "step-3"]);
    place.end(DONE);
    assert_eq!(place.ready(true).len(), 3, "whoever ended well had written all");
}

#[test]
fn what_was_open_for_writing_when_its_program_was_killed_is_not_taken_for_its_size() {
    let place = Place::new();
    // An array in place of the one before: always of the full size.
    let path = place.put("state-1.npy", npy(5_000));
    let holder = Holder::of(&path);
    assert_eq!(place.ready(false), [""; 0]);
    assert_eq!(place.said("state-1.npy").0, "incomplete");
    drop(holder);
    place.end(KILLED);
    assert_eq!(place.ready(true), [""; 0]);
    assert!(place.said("state-1.npy").1.contains("signal 9"));
    place.end(DONE);
    assert_eq!(place.ready(true), ["state-1.npy"]);
}

#[test]
fn what_is_being_removed_before_it_was_taken_is_no_checkpoint() {
    let place = Place::new();
    for file in ["_CHECKPOINT_METADATA", "a/1", "a/2", "a/3"] {
        place.put(&format!("7/{file}"), "{}");
    }
    place.until_ready("7");
    std::fs::remove_file(place.dir.checkpoints().join("7/a/1")).unwrap();
    for last in [false, true] {
        assert_eq!(place.ready(last), [""; 0]);
        assert!(place.said("7").1.contains("being removed"), "{:?}", place.said("7"));
    }
    std::fs::remove_file(place.dir.checkpoints().join("7/a/2")).unwrap();
    assert_eq!(place.ready(false), [""; 0]);
    place.put("7/a/1", "{}");
    place.until_ready("7");
}

#[test]
fn what_is_left_of_a_published_one_is_known_after_a_restart_of_the_agent_too() {
    let place = Place::new();
    for file in ["_CHECKPOINT_METADATA", "a/1"] {
        place.put(&format!("7/{file}"), "{}");
    }
    place.until_ready("7");
    place.publish("7", true);
    std::fs::remove_file(place.dir.checkpoints().join("7/a/1")).unwrap();
    let again = Place { publishing: Publishing { share: 0, ..Publishing::default() }, ..place };
    assert_eq!(again.ready(true), [""; 0]);
    assert_eq!(again.said("7").0, "published");
}

#[test]
fn a_rename_is_no_proof_where_writers_cannot_be_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("step-1.bin");
    std::fs::write(&path, "weights").unwrap();
    let mut verdicts = Verdicts::default();
    let facts = |rested: u64| Facts {
        path: &path,
        token: "t",
        rested: Duration::from_secs(rested),
        quiet: Duration::from_secs(10),
        touched: (0, 0),
        was_moved: true,
        end: &super::super::verdicts::End::Not,
        is_said: false,
    };
    let blind = || os::Writers::Blind("it is far away".into());
    let ready = |by| Standing::Ready { by };
    let settled = |verdicts: &mut Verdicts, by, found, rested| {
        verdicts.settled(&facts(rested), ready(by), found, Duration::ZERO)
    };
    for by in ["its rename into place", "numpy", "safetensors"] {
        assert_eq!(settled(&mut verdicts, by, os::Writers::Nobody, 1), ready(by));
        let rests = settled(&mut verdicts, by, blind(), 1);
        assert!(matches!(&rests, Standing::Rests { why, .. } if why.to_string().contains("far away")));
        assert_eq!(settled(&mut verdicts, by, blind(), 10), ready(by));
    }
    assert_eq!(settled(&mut verdicts, "torch-zip", blind(), 1), ready("torch-zip"), "its checksums hold");
}

#[test]
fn a_marker_that_is_configured_is_waited_for_and_seals() {
    let mut place = Place::new();
    place.spec.checkpoints.marker = "{name}.done".into();
    place.put("step-1.json", "{}");
    place.put("step-2/weights.bin", "x");
    assert_eq!(place.ready(true), [""; 0], "nothing counts without it");
    assert_eq!(place.said("step-1.json").1, "waits for: the marker `{name}.done`");
    place.put("step-1.json.done", "");
    place.put("step-2.done", "");
    let mut ready = place.ready(false);
    ready.sort();
    assert_eq!(ready, ["step-1.json", "step-2"]);
    assert_eq!(place.said("step-2.done").0, "beside");
    // The next save under that name is not meant.
    let later = std::time::SystemTime::now() + Duration::from_secs(60);
    let weights = place.put("step-2/weights.bin", "y");
    std::fs::File::options().write(true).open(weights).unwrap().set_modified(later).unwrap();
    assert_eq!(place.ready(false), ["step-1.json"]);
}

#[test]
fn a_command_that_is_configured_is_asked() {
    let mut place = Place::new();
    let line = "test -e \"$1/ok\" || { echo not yet >&2; exit 3; }";
    place.spec.checkpoints.check = ["/bin/sh", "-c", line, "check"].map(str::to_owned).to_vec();
    place.put("step-1/weights.bin", "x");
    place.put("step-2.pt", "PK\x03\x04");
    assert_eq!(place.ready(false), [""; 0]);
    assert_eq!(place.said("step-1").1, "`[checkpoints] check` says no: code 3: not yet");
    place.put("step-1/ok", "x");
    place.until_ready("step-1");
    // It has the word, but not over what is broken.
    place.spec.checkpoints.check = vec!["/bin/true".into()];
    place.put("step-2.pt", "PK\x03\x04 ");
    assert_eq!(place.ready(false), ["step-1"]);
}

#[test]
fn at_the_end_what_was_saved_last_comes_first_and_steps_that_go_back_are_told() {
    let place = Place::new();
    let begin = std::time::SystemTime::now();
    let put = |name: &str, age: u64| {
        let path = place.put(name, "{}");
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(begin + Duration::from_secs(age)).unwrap();
    };
    put("step-50.json", 1);
    place.publish("step-50.json", true);
    for (name, age) in [("step-49.json", 0), ("phase2-step-2.json", 3), ("phase2-step-3.json", 2)] {
        put(name, age);
    }
    place.end(DONE);
    assert_eq!(place.ready(true), ["step-49.json", "phase2-step-2.json", "phase2-step-3.json"]);
    let told = place.publishing.remarks("a");
    let back = told.iter().filter(|text| text.starts_with("the steps went back")).collect::<Vec<_>>();
    let [back] = back[..] else { panic!("one remark, not {told:?}") };
    assert!(back.contains("phase2-step-") && back.contains("step 50 stays the newest"), "{back}");
}

#[test]
fn what_is_not_taken_is_told_while_the_program_runs_and_once() {
    let mut place = Place::new();
    place.spec.checkpoints.quiet_seconds = 0;
    place.put("step-1/model-00001-of-00002.bin", "half of the weights");
    place.put("step-2.npz", "no archive");
    for _ in 0..3 {
        place.ready(false);
    }
    let told = place.publishing.remarks("a");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("checkpoint `step-1` is not taken, though it has not changed"), "{told:?}");
    assert!(told[0].contains("`model-00002-of-00002.bin`") && told[1].contains("`step-2.npz`"), "{told:?}");
}

#[test]
fn what_is_saved_over_too_often_to_be_taken_is_told_once_and_what_grows_is_not() {
    let place = Place::new();
    for save in 0..9_usize {
        // Never the same size, so that no two saves look alike.
        place.put("last.bin", vec![7; 5_000 - save]);
        place.put("growing.bin", vec![7; 5_000 + save]);
        assert_eq!(place.ready(false), [""; 0]);
    }
    let told = place.publishing.remarks("a");
    let [told] = &told[..] else { panic!("one remark, not {told:?}") };
    assert!(told.starts_with("checkpoint `last.bin` was saved over 4 times before"), "{told}");
    assert!(told.contains("`checkpoints.quiet`"), "{told}");
}

#[test]
fn what_looks_like_a_checkpoint_and_cannot_be_stored_is_told_at_once() {
    use std::os::unix::ffi::OsStringExt as _;
    let place = Place::new();
    let far = tempfile::tempdir().unwrap();
    std::fs::write(far.path().join("x.npz"), "weights").unwrap();
    let link = |to: &Path, name: &str| {
        std::os::unix::fs::symlink(to, place.dir.checkpoints().join(name)).unwrap();
    };
    link(&far.path().join("x.npz"), "step-1.npz");
    link(far.path(), "step-2");
    link(Path::new("/nowhere/at/all"), "latest");
    let odd = std::ffi::OsString::from_vec(b"step-4\xff.npz".to_vec());
    std::fs::write(place.dir.checkpoints().join(odd), "weights").unwrap();
    place.ready(false);
    place.ready(false);
    let mut told = place.publishing.remarks("a");
    told.sort();
    let [first, second, odd] = &told[..] else { panic!("{told:?}") };
    assert!(
        first.starts_with("`step-1.npz` is a link that leads to `/") && second.contains("`step-2`"),
        "{told:?}"
    );
    assert_eq!(odd, "`step-4\u{fffd}.npz` has a name that is not UTF-8: it is not stored");
    assert!(place.said("step-2").1.ends_with("it is not stored"));
}

#[test]
fn parts_of_one_checkpoint_that_lie_each_by_itself_are_told() {
    let place = Place::new();
    place.put("step-1/config.json", "{}");
    place.put("step-1/model.safetensors", "w");
    place.put("config.json", "{}");
    place.ready(false);
    assert_eq!(place.publishing.remarks("a"), [""; 0]);
    place.put("model.safetensors", "w");
    place.ready(false);
    place.ready(false);
    let told = place.publishing.remarks("a");
    let [told] = &told[..] else { panic!("one remark, not {told:?}") };
    assert!(told.starts_with("`config.json` and `model.safetensors` look like parts of one"), "{told}");
}
