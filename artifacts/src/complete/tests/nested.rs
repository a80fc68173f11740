//! Checkpoints with a seal inside that is not the last thing written, in the
//! order of their writers; and what the second save learns of the first.

use super::sequences::Do::{Put, Remove};
use super::sequences::Says::{No, Rest, Yes};
use super::sequences::{half, play_on, tensor_zip, trainer};
use super::*;

fn shard() -> Vec<u8> {
    b"shard".to_vec()
}

fn metadata(shards: &[&str]) -> Vec<u8> {
    let names: Vec<Vec<u8>> =
        shards.iter().map(|s| [b"X\x0c\0\0\0", s.as_bytes(), b"q\x01"].concat()).collect();
    [b"\x80\x02", names.concat().as_slice(), b"."].concat()
}

/// One rank's metadata, and the next.
fn both() -> Vec<u8> {
    metadata(&["__0_0.distcp", "__1_0.distcp"])
}

#[test]
fn the_trainer_with_fsdp() {
    let (dir, mut judge) = (Dir::new(), Judge::default());
    play_on(
        &dir,
        &mut judge,
        "checkpoint-10",
        vec![
            (Put("checkpoint-10/pytorch_model_fsdp_0/__0_0.distcp", shard()), No(".metadata`")),
            (Put("checkpoint-10/pytorch_model_fsdp_0/__1_0.distcp", shard()), No(".metadata")),
            (
                Put("checkpoint-10/pytorch_model_fsdp_0/.metadata", both()),
                Rest("`trainer_state.json` may follow"),
            ),
            (Put("checkpoint-10/optimizer_0/__0_0.distcp", shard()), No(".metadata")),
            // Named by the seal and not there: a rank on its own, or half removed.
            (Put("checkpoint-10/optimizer_0/.metadata", both()), No("`optimizer_0/__1_0.distcp`")),
            (Put("checkpoint-10/optimizer_0/__1_0.distcp", shard()), No("")),
            (Put("checkpoint-10/optimizer_0/.metadata", both()), Rest("may follow")),
            (Put("checkpoint-10/scheduler.pt", tensor_zip()), No("trainer_state.json")),
            (Put("checkpoint-10/trainer_state.json", trainer(10)), Yes("huggingface")),
        ],
    );
    play_on(
        &dir,
        &mut judge,
        "checkpoint-20",
        vec![
            (Put("checkpoint-20/pytorch_model_fsdp_0/__0_0.distcp", shard()), No("")),
            (
                Put("checkpoint-20/pytorch_model_fsdp_0/.metadata", metadata(&["__0_0.distcp"])),
                Rest("follow"),
            ),
            (Put("checkpoint-20/scheduler.pt", tensor_zip()), No("trainer_state.json")),
            (
                Put("checkpoint-20/trainer_state.json", trainer(20)),
                Rest("`optimizer_0/` as in checkpoint-10"),
            ),
            (Put("checkpoint-20/optimizer_0/__0_0.distcp", shard()), No(".metadata")),
            (Put("checkpoint-20/optimizer_0/.metadata", metadata(&["__0_0.distcp"])), Rest("newer than")),
            (Put("checkpoint-20/trainer_state.json", trainer(20)), Yes("huggingface")),
        ],
    );
}

#[test]
fn the_trainer_with_deepspeed() {
    let (dir, mut judge) = (Dir::new(), Judge::default());
    let state = tensor_zip();
    let of = |step: &str, file: &str| -> &'static str {
        Box::leak(format!("checkpoint-{step}/{file}").into_boxed_str())
    };
    for (step, last) in [("10", Rest("1 ranks")), ("20", Yes("huggingface"))] {
        let tag = format!("global_step{step}");
        play_on_one(
            &dir,
            &mut judge,
            of(step, ""),
            vec![
                (Put(of(step, &format!("{tag}/mp_rank_00_model_states.pt")), state.clone()), No("latest")),
                (
                    Put(of(step, &format!("{tag}/zero_pp_rank_0_mp_rank_00_optim_states.pt")), state.clone()),
                    No("latest"),
                ),
                (Put(of(step, "latest"), tag.clone().into_bytes()), Rest("`trainer_state.json` may follow")),
                (Put(of(step, "scheduler.pt"), state.clone()), No("trainer_state.json")),
                (Put(of(step, "trainer_state.json"), trainer(step.parse().unwrap())), last),
            ],
        );
        judge.learn(&dir.0.path().join(format!("checkpoint-{step}")));
    }
}

#[test]
fn accelerate_with_deepspeed_and_with_ranks_that_are_late() {
    let (dir, mut judge) = (Dir::new(), Judge::default());
    let state = tensor_zip();
    play_on(
        &dir,
        &mut judge,
        "step_10",
        vec![
            (Put("step_10/pytorch_model/mp_rank_00_model_states.pt", state.clone()), No("latest")),
            (Put("step_10/latest", b"pytorch_model".to_vec()), Rest("`random_states_0.pkl` may follow")),
            (Put("step_10/scheduler.bin", state.clone()), Rest("may follow")),
            (Put("step_10/random_states_1.pkl", b"N.".to_vec()), No("random_states_0.pkl")),
            (Put("step_10/random_states_0.pkl", b"N.".to_vec()), Rest("2 ranks")),
        ],
    );
    judge.learn(&dir.0.path().join("step_10"));
    play_on_one(
        &dir,
        &mut judge,
        "step_20",
        vec![
            (Put("step_20/pytorch_model/mp_rank_00_model_states.pt", state.clone()), No("latest")),
            (Put("step_20/latest", b"pytorch_model".to_vec()), Rest("may follow")),
            (Put("step_20/scheduler.bin", state), Rest("may follow")),
            (Put("step_20/random_states_0.pkl", b"N.".to_vec()), Rest("`random_states_1.pkl` as in step_10")),
            (Put("step_20/random_states_1.pkl", b"N.".to_vec()), Yes("accelerate")),
        ],
    );
}

#[test]
fn lightning_with_shards() {
    let (dir, mut judge) = (Dir::new(), Judge::default());
    play_on(
        &dir,
        &mut judge,
        "epoch=0-step=5.ckpt",
        vec![
            (Put("epoch=0-step=5.ckpt/__0_0.distcp", shard()), No(".metadata")),
            (Put("epoch=0-step=5.ckpt/.metadata", metadata(&["__0_0.distcp"])), Rest("`meta.pt` may follow")),
            (Put("epoch=0-step=5.ckpt/meta.pt", half(&tensor_zip())), No("meta.pt")),
            (Put("epoch=0-step=5.ckpt/meta.pt", tensor_zip()), Yes("lightning")),
        ],
    );
}

#[test]
fn a_second_save_waits_for_what_the_first_had_whatever_the_layout() {
    let (dir, mut judge) = (Dir::new(), Judge::default());
    let seal = || metadata(&["__0_0.distcp"]);
    play_on(
        &dir,
        &mut judge,
        "step-10",
        vec![
            (Put("step-10/__0_0.distcp", shard()), No("")),
            (Put("step-10/.metadata", seal()), Yes("dcp")),
            (Put("step-10/state-10.pt", tensor_zip()), Yes("dcp")),
        ],
    );
    play_on_one(
        &dir,
        &mut judge,
        "step-20",
        vec![
            (Put("step-20/__0_0.distcp", shard()), No("")),
            (Put("step-20/.metadata", seal()), Rest("`state-#.pt` as in step-10")),
        ],
    );
    // It never came, and a newer one is there: it is not saved any more.
    play_on_one(
        &dir,
        &mut judge,
        "step-30",
        vec![
            (Put("step-30/__0_0.distcp", shard()), No("")),
            (Put("step-30/.metadata", seal()), Yes("dcp")),
            (Remove("step-30/.metadata"), No(".metadata")),
        ],
    );
    // What no layout knows is compared, too.
    dir.put("it-1/a.bin", "x");
    dir.put("it-1/b.bin", "x");
    judge.learn(&dir.0.path().join("it-1"));
    dir.put("it-2/a.bin", "x");
    let judged = judge.judge(&dir.0.path().join("it-2"));
    assert!(matches!(&judged, Completeness::Unknown { why } if why.is_grave()), "{judged:?}");
    dir.put("it-2/b.bin", "x");
    assert_eq!(judge.judge(&dir.0.path().join("it-2")), Completeness::Unknown { why: Reason::NoStructure });
}

/// As `play_on`, without a judge that remembers nothing.
#[track_caller]
fn play_on_one(
    dir: &Dir,
    judge: &mut Judge,
    checkpoint: &str,
    steps: Vec<(super::sequences::Do, super::sequences::Says)>,
) {
    super::sequences::play_with(dir, judge, checkpoint, steps, false);
}
