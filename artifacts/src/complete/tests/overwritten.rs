//! Saves into a directory that holds an older save: its seal stands there from
//! the beginning.

use super::*;

fn saved(dir: &Dir, age: u64, paths: &[&str]) {
    for path in paths {
        let name = path.rsplit('/').next().unwrap();
        let bytes = match name {
            "trainer_state.json" => br#"{"global_step": 20}"#.to_vec(),
            "latest" => b"fixed".to_vec(),
            _ if name.ends_with(".txt") => b"300".to_vec(),
            _ if name.ends_with(".safetensors") => tensors(&noise(500)),
            _ if name.ends_with(".json") => b"{}".to_vec(),
            _ => zip(&[("a", b"x")], false),
        };
        dir.put(path, bytes);
        dir.age(path, age);
    }
}

#[track_caller]
fn is_grave(judged: &Completeness, about: &str) {
    match judged {
        Completeness::Unknown { why } => {
            assert!(why.is_grave() && why.to_string().contains(about), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn hugging_face_over_an_older_save() {
    let dir = Dir::new();
    let name = "checkpoint-20";
    let of = |file: &str| format!("checkpoint-20/{file}");
    let files = ["config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"];
    saved(&dir, 100, &files.map(of).each_ref().map(String::as_str));
    assert_eq!(dir.judge(name), complete("huggingface"));
    for file in ["model.safetensors", "optimizer.pt", "scheduler.pt"] {
        saved(&dir, 50, &[&of(file)]);
        is_grave(&dir.judge(name), "is newer than `trainer_state.json`");
    }
    // A rank that is late with its random state is newer, and no new save.
    saved(&dir, 40, &[&of("trainer_state.json")]);
    saved(&dir, 30, &[&of("rng_state.pth"), &of("README.md")]);
    assert_eq!(dir.judge(name), complete("huggingface"));
}

#[test]
fn deepspeed_under_one_tag() {
    let dir = Dir::new();
    let first = ["fixed/mp_rank_00_model_states.pt", "fixed/zero_pp_rank_0_mp_rank_00_optim_states.pt"];
    let second = "fixed/zero_pp_rank_1_mp_rank_00_optim_states.pt";
    saved(&dir, 100, &first);
    saved(&dir, 95, &[second]);
    saved(&dir, 90, &["latest"]);
    let ranks = Completeness::Unknown { why: Reason::Ranks { ranks: 2 } };
    assert_eq!(dir.judge("fixed"), ranks);
    let mut judge = Judge::default();
    judge.learn(&dir.0.path().join("fixed"));
    // Rank 1 begins the next save; nothing of its own tells it from one late.
    saved(&dir, 50, &[second]);
    assert_eq!(judge.judge(&dir.0.path().join("fixed")), ranks);
    saved(&dir, 50, &first[..1]);
    is_grave(&judge.judge(&dir.0.path().join("fixed")), "is newer than `latest`");
    saved(&dir, 50, &first);
    saved(&dir, 40, &["latest"]);
    assert_eq!(dir.judge("fixed"), ranks);
}

#[test]
fn deepspeed_tags_of_ones_own() {
    let dir = Dir::new();
    let of = |tag: &str| {
        [
            format!("{tag}/mp_rank_00_model_states.pt"),
            format!("{tag}/zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        ]
    };
    saved(&dir, 100, &of("epoch9").each_ref().map(String::as_str));
    is_grave(&dir.judge("epoch9"), "`latest` may follow");
    dir.put("latest", "epoch9");
    assert!(is_open(&dir.judge("epoch9")));
    saved(&dir, 50, &of("epoch10").each_ref().map(String::as_str));
    dir.incomplete("epoch10", "says `epoch9`");
    dir.put("latest", "epoch10");
    assert_eq!(dir.judge("epoch10"), complete("deepspeed"));
    assert_eq!(dir.judge("epoch9"), complete("deepspeed"));
    saved(&dir, 20, &of("best").each_ref().map(String::as_str));
    dir.incomplete("best", "says `epoch10`");
    dir.put("latest", "best");
    assert_eq!(dir.judge("epoch10"), complete("deepspeed"));
    // Resumed from before `epoch9`, it is saved again.
    dir.age("latest", 15);
    dir.put("latest", "epoch10");
    dir.age("latest", 15);
    saved(&dir, 10, &of("epoch9").each_ref().map(String::as_str)[..1]);
    is_grave(&dir.judge("epoch9"), "is newer than `latest`");
}

#[test]
fn megatron_from_an_earlier_iteration() {
    let dir = Dir::new();
    let file = "iter_0000200/mp_rank_00/model_optim_rng.pt";
    saved(&dir, 100, &[file]);
    saved(&dir, 90, &["latest_checkpointed_iteration.txt"]);
    assert_eq!(dir.judge("iter_0000200"), complete("megatron"));
    saved(&dir, 50, &[file]);
    is_grave(&dir.judge("iter_0000200"), "is newer than");
    dir.put("latest_checkpointed_iteration.txt", "200");
    assert_eq!(dir.judge("iter_0000200"), complete("megatron"));
}

#[test]
fn a_temporary_file_left_by_a_killed_save_does_not_block_for_ever() {
    let dir = Dir::new();
    let of = |file: &str| format!("checkpoint-20/{file}");
    let files = ["config.json", "model.safetensors", "trainer_state.json"].map(of);
    saved(&dir, 50, &files.each_ref().map(String::as_str));
    dir.put("checkpoint-20/.tmpAb12", "x");
    dir.incomplete("checkpoint-20", "temporary");
    dir.age("checkpoint-20/.tmpAb12", 100);
    is_grave(&dir.judge("checkpoint-20"), "temporary");
    // A marker means what it says, however old it is.
    dir.put("checkpoint-20/.incomplete", "");
    dir.age("checkpoint-20/.incomplete", 100);
    dir.remove("checkpoint-20/.tmpAb12");
    dir.incomplete("checkpoint-20", ".incomplete");
}
