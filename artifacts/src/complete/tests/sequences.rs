//! What writers really do, step by step in their own order, and what is said
//! after each step: never "complete" before the last, never less after it.

use super::*;

/// What a step does to the directory of the test.
pub(super) enum Do {
    /// Writes a file anew, as `open(path, "w")`.
    Put(&'static str, Vec<u8>),
    /// Renames.
    Move(&'static str, &'static str),
    /// Removes a file.
    Remove(&'static str),
}

use Do::{Move, Put, Remove};

/// What is said then of the checkpoint.
pub(super) enum Says {
    /// Not complete, for a reason with these words.
    No(&'static str),
    /// Only a rest can tell, for a reason with these words.
    Rest(&'static str),
    /// Complete by this format.
    Yes(&'static str),
}

use Says::{No, Rest, Yes};

/// Does the steps with one judge, which must not be misled by what it
/// remembers, and asks a fresh one too, which must say the same.
#[track_caller]
fn play(checkpoint: &str, steps: Vec<(Do, Says)>) {
    let dir = Dir::new();
    let mut judge = Judge::default();
    play_on(&dir, &mut judge, checkpoint, steps);
}

#[track_caller]
pub(super) fn play_on(dir: &Dir, judge: &mut Judge, checkpoint: &str, steps: Vec<(Do, Says)>) {
    play_with(dir, judge, checkpoint, steps, true);
}

/// `fresh`: a judge that remembers nothing must say the same.
#[track_caller]
pub(super) fn play_with(dir: &Dir, judge: &mut Judge, checkpoint: &str, steps: Vec<(Do, Says)>, fresh: bool) {
    let at = |path: &str| dir.0.path().join(path);
    for (number, (step, says)) in steps.into_iter().enumerate() {
        match step {
            Put(path, bytes) => drop(dir.put(path, bytes)),
            Move(from, to) => fs::rename(at(from), at(to)).unwrap(),
            Remove(path) => fs::remove_file(at(path)).unwrap(),
        }
        let fresh = fresh.then(|| ("a fresh one", super::super::judge(&at(checkpoint))));
        let same =
            [("the same judge", judge.judge(&at(checkpoint))), ("it again", judge.judge(&at(checkpoint)))];
        for (who, judged) in same.into_iter().chain(fresh) {
            let right = match (&says, &judged) {
                (No(words), Completeness::Incomplete { why })
                | (Rest(words), Completeness::Unknown { why }) => why.to_string().contains(words),
                (Yes(expected), Completeness::Complete { format }) => expected == format,
                _ => false,
            };
            assert!(right, "step {number}, {who}: {judged:?}");
        }
    }
}

pub(super) fn tensor_zip() -> Vec<u8> {
    zip(&[("archive/data.pkl", b"\x80\x02."), ("archive/data/0", &noise(3000))], false)
}

pub(super) fn half(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len() / 2].to_vec()
}

#[test]
fn torch_save_in_place_and_over_an_older_one() {
    let (old, new) = (tensor_zip(), zip(&[("archive/data/0", &noise(5000))], false));
    play(
        "model.pt",
        vec![
            (Put("model.pt", vec![]), No("empty")),
            (Put("model.pt", half(&old)), No("end of the zip directory")),
            (Put("model.pt", old.clone()), Yes("torch-zip")),
            // The next save truncates it and begins again.
            (Put("model.pt", vec![]), No("empty")),
            (Put("model.pt", half(&new)), No("end of the zip directory")),
            (Put("model.pt", new), Yes("torch-zip")),
        ],
    );
}

#[test]
fn safetensors_by_a_temporary_name() {
    let bytes = tensors(&noise(9000));
    play(
        "model.safetensors",
        vec![
            (Put(".tmpAb12", half(&bytes)), No("cannot be read")),
            (Put(".tmpAb12", bytes), No("cannot be read")),
            (Move(".tmpAb12", "model.safetensors"), Yes("safetensors")),
        ],
    );
}

pub(super) fn trainer(step: u64) -> Vec<u8> {
    format!(r#"{{"global_step": {step}, "loss": NaN}}"#).into_bytes()
}

#[test]
fn hugging_face_on_one_rank_and_its_rotation() {
    let weights = tensors(&noise(5000));
    let dir = Dir::new();
    let mut judge = Judge::default();
    play_on(
        &dir,
        &mut judge,
        "checkpoint-10",
        vec![
            (Put("checkpoint-10/config.json", b"{}".to_vec()), No("trainer_state.json")),
            (Put("checkpoint-10/model.safetensors", half(&weights)), No("trainer_state.json")),
            (Put("checkpoint-10/model.safetensors", weights.clone()), No("trainer_state.json")),
            (Put("checkpoint-10/optimizer.pt", tensor_zip()), No("trainer_state.json")),
            (Put("checkpoint-10/scheduler.pt", tensor_zip()), No("trainer_state.json")),
            (Put("checkpoint-10/rng_state.pth", tensor_zip()), No("trainer_state.json")),
            (Put("checkpoint-10/trainer_state.json", vec![]), No("trainer_state.json")),
            (Put("checkpoint-10/trainer_state.json", half(&trainer(10))), No("trainer_state.json")),
            (Put("checkpoint-10/trainer_state.json", trainer(10)), Yes("huggingface")),
        ],
    );
    // A program that saves no optimizer any more looks like one that is late.
    play_on(
        &dir,
        &mut judge,
        "checkpoint-20",
        vec![
            (Put("checkpoint-20/config.json", b"{}".to_vec()), No("trainer_state.json")),
            (Put("checkpoint-20/model.safetensors", weights.clone()), No("trainer_state.json")),
            (Put("checkpoint-20/scheduler.pt", tensor_zip()), No("trainer_state.json")),
            (Put("checkpoint-20/rng_state.pth", tensor_zip()), No("trainer_state.json")),
            (
                Put("checkpoint-20/trainer_state.json", trainer(20)),
                Rest("`optimizer.pt` as in checkpoint-10"),
            ),
            (Put("checkpoint-20/optimizer.pt", half(&tensor_zip())), No("optimizer.pt")),
            (Put("checkpoint-20/optimizer.pt", tensor_zip()), Rest("newer than `trainer_state.json`")),
            (Put("checkpoint-20/trainer_state.json", trainer(20)), Yes("huggingface")),
            // Rotation takes the state away first or last: either way it is none.
            (Remove("checkpoint-20/trainer_state.json"), No("trainer_state.json")),
        ],
    );
}

#[test]
fn hugging_face_where_a_rank_is_late() {
    let dir = Dir::new();
    let mut judge = Judge::default();
    let rng = tensor_zip();
    play_on(
        &dir,
        &mut judge,
        "checkpoint-5",
        vec![
            (Put("checkpoint-5/model.safetensors", tensors(&noise(50))), Rest("")),
            (Put("checkpoint-5/rng_state_0.pth", rng.clone()), No("trainer_state.json")),
            (Put("checkpoint-5/trainer_state.json", trainer(5)), Rest("1 ranks")),
            (Put("checkpoint-5/rng_state_2.pth", rng.clone()), No("rng_state_1.pth")),
            (Put("checkpoint-5/rng_state_1.pth", rng.clone()), Rest("3 ranks")),
        ],
    );
    // It has rested; the next one is compared with it.
    judge.learn(&dir.0.path().join("checkpoint-5"));
    play_on(
        &dir,
        &mut judge,
        "checkpoint-6",
        vec![
            (Put("checkpoint-6/model.safetensors", tensors(&noise(50))), Rest("")),
            (Put("checkpoint-6/rng_state_0.pth", rng.clone()), No("trainer_state.json")),
            (Put("checkpoint-6/rng_state_1.pth", rng.clone()), No("trainer_state.json")),
            (
                Put("checkpoint-6/trainer_state.json", trainer(6)),
                Rest("`rng_state_2.pth` as in checkpoint-5"),
            ),
            (Put("checkpoint-6/rng_state_2.pth", rng.clone()), Yes("huggingface")),
        ],
    );
    // The machine was exchanged for one with fewer ranks: a long rest settles it.
    play_on(
        &dir,
        &mut judge,
        "checkpoint-7",
        vec![
            (Put("checkpoint-7/model.safetensors", tensors(&noise(50))), Rest("")),
            (Put("checkpoint-7/rng_state_0.pth", rng.clone()), No("trainer_state.json")),
            (
                Put("checkpoint-7/trainer_state.json", trainer(7)),
                Rest("`rng_state_1.pth` as in checkpoint-6"),
            ),
        ],
    );
    let judged = judge.judge(&dir.0.path().join("checkpoint-7"));
    assert!(matches!(judged, Completeness::Unknown { why } if why.is_grave()));
    judge.learn(&dir.0.path().join("checkpoint-7"));
    play_on(
        &dir,
        &mut judge,
        "checkpoint-8",
        vec![
            (Put("checkpoint-8/model.safetensors", tensors(&noise(50))), Rest("")),
            (Put("checkpoint-8/rng_state_0.pth", rng.clone()), No("trainer_state.json")),
        ],
    );
    dir.put("checkpoint-8/trainer_state.json", trainer(8));
    assert_eq!(judge.judge(&dir.0.path().join("checkpoint-8")), complete("huggingface"));
}

#[test]
fn deepspeed_tag_by_tag() {
    let state = tensor_zip();
    play(
        "global_step10",
        vec![
            (Put("global_step10/mp_rank_00_model_states.pt", half(&state)), No("waits for: `latest`")),
            (Put("global_step10/mp_rank_00_model_states.pt", state.clone()), No("waits for: `latest`")),
            (
                Put("global_step10/zero_pp_rank_1_mp_rank_00_optim_states.pt", state.clone()),
                No("`*optim_states.pt` of some rank"),
            ),
            (
                Put("global_step10/zero_pp_rank_0_mp_rank_00_optim_states.pt", state.clone()),
                No("waits for: `latest`"),
            ),
            // The same bytes, but `latest` beside them has come: nothing may be remembered against it.
            (Put("latest", b"global_step10".to_vec()), Rest("2 ranks")),
        ],
    );
    play(
        "global_step20",
        vec![
            (Put("global_step10/mp_rank_00_model_states.pt", state.clone()), No("")),
            (Put("global_step10/zero_pp_rank_0_mp_rank_00_optim_states.pt", state.clone()), No("")),
            (Put("global_step10/zero_pp_rank_1_mp_rank_00_optim_states.pt", state.clone()), No("")),
            (Put("latest", b"global_step10".to_vec()), No("")),
            (Put("global_step20/mp_rank_00_model_states.pt", state.clone()), No("says `global_step10`")),
            (
                Put("global_step20/zero_pp_rank_0_mp_rank_00_optim_states.pt", state.clone()),
                No("says `global_step10`"),
            ),
            // Forks write it before the barrier.
            (Put("latest", b"global_step20".to_vec()), Rest("as in global_step10")),
            (Put("global_step20/zero_pp_rank_1_mp_rank_00_optim_states.pt", state), Rest("2 ranks")),
            // Newer than `latest`, it may be of another save to come; the next `latest` says that it is not.
            (Put("latest", b"global_step20".to_vec()), Yes("deepspeed")),
        ],
    );
}

#[test]
fn megatron_and_its_tracker() {
    let state = tensor_zip();
    let tracker = "latest_checkpointed_iteration.txt";
    play(
        "iter_0000100",
        vec![
            (Put(tracker, b"50".to_vec()), No("cannot be read")),
            (Put("iter_0000100/mp_rank_00/model_optim_rng.pt", half(&state)), No("says `50`")),
            (Put("iter_0000100/mp_rank_00/model_optim_rng.pt", state), No("says `50`")),
            (Put(tracker, vec![]), No("says ``")),
            (Put(tracker, b"100".to_vec()), Yes("megatron")),
            (Put(tracker, b"150".to_vec()), Yes("megatron")),
        ],
    );
    play(
        "release",
        vec![
            (Put(tracker, b"50".to_vec()), No("cannot be read")),
            (Put("release/mp_rank_00/model_optim_rng.pt", tensor_zip()), No("says `50`")),
            (Put(tracker, b"release".to_vec()), Yes("megatron")),
        ],
    );
}

#[test]
fn distributed_checkpoints_and_one_saved_over_another() {
    let dir = Dir::new();
    let mut judge = Judge::default();
    let data = |text: &str| text.as_bytes().to_vec();
    play_on(
        &dir,
        &mut judge,
        "last",
        vec![
            (Put("last/__0_0.distcp", data("a")), No("`.metadata` or `__0.metadata`")),
            (Put("last/__1_0.distcp", data("b")), No("`.metadata`")),
            (Put("last/.metadata.tmp", data("m")), No("temporary")),
            (Move("last/.metadata.tmp", "last/.metadata"), Yes("dcp")),
        ],
    );
    dir.age("last/.metadata", 10);
    dir.age("last/__0_0.distcp", 11);
    dir.age("last/__1_0.distcp", 11);
    play_on(
        &dir,
        &mut judge,
        "last",
        vec![
            // `.metadata` of the save before stands there until the end.
            (Put("last/__0_0.distcp", data("c")), No("overwritten")),
            (Put("last/__1_0.distcp", data("d")), No("overwritten")),
            (Put("last/.metadata.tmp", data("n")), No("temporary")),
            (Move("last/.metadata.tmp", "last/.metadata"), Yes("dcp")),
        ],
    );
}

#[test]
fn orbax_and_its_commit() {
    let begun = br#"{"init_timestamp_nsecs": 5, "commit_timestamp_nsecs": null}"#.to_vec();
    let done = br#"{"init_timestamp_nsecs": 5, "commit_timestamp_nsecs": 6}"#.to_vec();
    play(
        "3",
        vec![
            (Put("3.orbax-checkpoint-tmp-1/_CHECKPOINT_METADATA", begun.clone()), No("cannot be read")),
            (Put("3.orbax-checkpoint-tmp-1/default/d/1", b"x".to_vec()), No("cannot be read")),
            (Put("3.orbax-checkpoint-tmp-1/_CHECKPOINT_METADATA", done.clone()), No("cannot be read")),
            (Move("3.orbax-checkpoint-tmp-1", "3"), Yes("orbax")),
        ],
    );
    // Where a rename is not atomic, it is written under its own name.
    play(
        "4",
        vec![
            (Put("4/_CHECKPOINT_METADATA", begun), No("no time of a commit")),
            (Put("4/default/d/1", b"x".to_vec()), No("no time of a commit")),
            (Put("4/commit_success.txt", b"done".to_vec()), Yes("orbax")),
        ],
    );
}

#[test]
fn nemo_and_lightning_name_what_is_not_finished() {
    play(
        "m--step=5",
        vec![
            (Put("m--step=5-unfinished", vec![]), No("unfinished")),
            (Put("m--step=5/common.pt", tensor_zip()), No("unfinished")),
            (Remove("m--step=5-unfinished"), Rest("does not tell")),
        ],
    );
    play(
        "step_5",
        vec![
            (Put("step_5/.incomplete", vec![]), No(".incomplete")),
            (Put("step_5/model.safetensors", tensors(&noise(50))), No(".incomplete")),
            (Remove("step_5/.incomplete"), Rest("does not tell")),
        ],
    );
    let saved = tensor_zip();
    play(
        "epoch=1-step=200.ckpt",
        vec![
            (Put("epoch=1-step=200.ckpt.part", half(&saved)), No("cannot be read")),
            (Move("epoch=1-step=200.ckpt.part", "epoch=1-step=200.ckpt"), No("zip")),
            (Put("epoch=1-step=200.ckpt", saved), Yes("torch-zip")),
        ],
    );
}

#[test]
fn tensorflow_and_keras() {
    play(
        "tf",
        vec![
            (Put("tf/ckpt-5.data-00000-of-00001", b"x".to_vec()), No("ckpt-5.index")),
            (Put("tf/ckpt-5.index", b"x".to_vec()), No("`checkpoint`")),
            (Put("tf/checkpoint", b"model_checkpoint_path: \"ckpt-4\"\n".to_vec()), No("ckpt-4.index")),
            (Put("tf/checkpoint", b"model_checkpoint_path: \"ckpt-5\"\n".to_vec()), Yes("tensorflow")),
            (Put("tf/ckpt-6.data-00000-of-00001", b"x".to_vec()), No("ckpt-6.index")),
        ],
    );
    let keras = zip(&[("config.json", b"{}"), ("model.weights.h5", &noise(500))], false);
    play(
        "m.keras",
        vec![(Put("m.keras", half(&keras)), No("zip")), (Put("m.keras", keras), Yes("keras-zip"))],
    );
}

#[test]
fn a_file_is_read_once_and_again_when_it_changes() {
    let dir = Dir::new();
    let mut judge = Judge::default();
    let path = dir.put("run/a.pt", tensor_zip());
    let run = dir.0.path().join("run");
    // Young files are read each time: two writes may bear one stamp.
    dir.age("run/a.pt", 5);
    loop {
        let before = judge.cache.reads;
        let _ = judge.judge(&run);
        if judge.cache.reads == before {
            break;
        }
    }
    let before = judge.cache.reads;
    fs::write(&path, "PK\x03\x04").unwrap();
    assert!(matches!(judge.judge(&run), Completeness::Incomplete { .. }));
    assert_eq!(judge.cache.reads, before + 1);
}
