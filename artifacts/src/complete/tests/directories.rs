//! Layouts of directories: what each needs, and what it refuses.

use super::*;

fn huggingface(dir: &Dir) {
    dir.put("checkpoint-220/config.json", "{}");
    dir.put("checkpoint-220/model-00001-of-00002.safetensors", tensors(&noise(5000)));
    dir.put("checkpoint-220/model-00002-of-00002.safetensors", tensors(&noise(5000)));
    dir.put(
        "checkpoint-220/model.safetensors.index.json",
        r#"{"metadata":{"total_size":10000},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#,
    );
    dir.put("checkpoint-220/optimizer.pt", zip(&[("a", b"x")], false));
    dir.put("checkpoint-220/rng_state.pth", zip(&[("a", b"x")], false));
    dir.put("checkpoint-220/trainer_state.json", r#"{"global_step": 220, "loss": NaN}"#);
}

#[test]
fn hugging_face() {
    let dir = Dir::new();
    huggingface(&dir);
    let name = "checkpoint-220";
    assert_eq!(dir.judge(name), complete("huggingface"));
    dir.put("checkpoint-220/trainer_state.json", r#"{"global_step": 210}"#);
    dir.incomplete(name, "step 210");
    dir.put("checkpoint-220/trainer_state.json", r#"{"global_step": 2"#);
    dir.incomplete(name, "trainer_state");
    dir.remove("checkpoint-220/trainer_state.json");
    dir.incomplete(name, "trainer_state");
    huggingface(&dir);
    dir.remove("checkpoint-220/model-00002-of-00002.safetensors");
    dir.incomplete(name, "model-00002");
    huggingface(&dir);
    dir.put("checkpoint-220/optimizer.pt", &zip(&[("a", &noise(999))], false)[..500]);
    dir.incomplete(name, "optimizer.pt");
    huggingface(&dir);
    dir.remove("checkpoint-220/rng_state.pth");
    for rank in [0, 1, 3] {
        dir.put(&format!("checkpoint-220/rng_state_{rank}.pth"), zip(&[("a", b"x")], false));
    }
    dir.incomplete(name, "rng_state_2");
    dir.put("checkpoint-220/rng_state_2.pth", zip(&[("a", b"x")], false));
    assert_eq!(dir.judge(name), Completeness::Unknown { why: Reason::Ranks { ranks: 4 } });
    dir.put("checkpoint-220/adapter_model.safetensors", tensors(&noise(10)));
    dir.incomplete(name, "adapter_config");
}

#[test]
fn weights_in_parts_are_not_whole_before_all_parts_are_there() {
    let dir = Dir::new();
    for (ending, bytes) in [("safetensors", tensors(&noise(500))), ("bin", noise(500))] {
        let name = |at: u64| format!("model-0000{at}-of-00003.{ending}");
        let place = format!("step-{}", ending.len());
        let put = |at: u64| dir.put(&format!("{place}/deeper/{}", name(at)), &bytes);
        put(1);
        dir.incomplete(&place, &format!("`deeper/{}`", name(2)));
        put(3);
        dir.incomplete(&place, &name(2));
        put(2);
        assert!(is_open(&dir.judge(&place)), "what is saved beside them, nobody knows");
        // By itself a part is none, and no less so where it is the first.
        let whole = dir.file(&name(1), &bytes);
        assert!(
            matches!(&whole, Completeness::Incomplete { why } if why.to_string().contains("one part of 3"))
        );
        dir.put(&name(2), &bytes);
        dir.put(&name(3), &bytes);
        assert!(!torn_file(&dir.judge(&name(1))));
    }
    // Numbers from 0 on, and an index that names more.
    dir.put("s/w-00000-of-00001.bin", "x");
    assert!(is_open(&dir.judge("s")));
    dir.put("s/w.bin.index.json", r#"{"weight_map": {"a": "w-00000-of-00001.bin", "b": "other.bin"}}"#);
    dir.incomplete("s", "`other.bin`, which `w.bin.index.json` names");
    dir.put("s/w.bin.index.json", r#"{"of": "another kind"}"#);
    assert!(is_open(&dir.judge("s")));
}

#[test]
fn text_that_is_odd_beside_weights_is_a_doubt_and_no_refusal() {
    let dir = Dir::new();
    for (name, text) in [("vocab.json", ""), ("config.json", "{\"a\": 1,}"), ("x.json", "{\"a\": ")] {
        dir.put("step-1/model.safetensors", tensors(&noise(500)));
        dir.put(&format!("step-1/{name}"), text);
        let judged = dir.judge("step-1");
        let Completeness::Unknown { why } = &judged else { panic!("{name}: {judged:?}") };
        assert!(why.to_string().contains(name) && why.is_grave() && why.ends_with_its_program(), "{why}");
        dir.remove(&format!("step-1/{name}"));
    }
    // Where there is nothing else, it is the checkpoint.
    dir.put("step-2/state.json", "{\"a\": ");
    dir.incomplete("step-2", "state.json");
}

#[test]
fn distributed_checkpoints() {
    let dir = Dir::new();
    for rank in 0..2 {
        dir.put(&format!("step-5/__{rank}_0.distcp"), "data");
        dir.age(&format!("step-5/__{rank}_0.distcp"), 50);
    }
    dir.incomplete("step-5", ".metadata");
    dir.put("step-5/__0.metadata", "x");
    dir.incomplete("step-5", "__1.metadata");
    dir.put("step-5/__1.metadata", "x");
    assert_eq!(dir.judge("step-5"), complete("dcp"));
    dir.put("step-5/.metadata", "x");
    assert_eq!(dir.judge("step-5"), complete("dcp"));
    dir.age("step-5/.metadata", 60);
    dir.incomplete("step-5", "overwritten");
    dir.age("step-5/.metadata", 40);
    assert_eq!(dir.judge("step-5"), complete("dcp"));
    dir.put("step-5/.metadata.tmp", "x");
    dir.incomplete("step-5", ".metadata.tmp");
}

#[test]
fn deepspeed_tags() {
    let dir = Dir::new();
    let state = zip(&[("a", b"x")], false);
    for step in [100, 200] {
        dir.put(&format!("c/global_step{step}/mp_rank_00_model_states.pt"), &state);
        for rank in 0..2 {
            dir.put(&format!("c/global_step{step}/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"), &state);
        }
    }
    dir.incomplete("c/global_step100", "latest");
    dir.put("c/latest", "global_step100\n");
    // Nothing before it tells how many ranks there are.
    assert_eq!(dir.judge("c/global_step100"), Completeness::Unknown { why: Reason::Ranks { ranks: 2 } });
    dir.incomplete("c/global_step200", "says `global_step100`");
    dir.put("c/latest", "global_step200");
    assert_eq!(dir.judge("c"), complete("deepspeed"));
    assert_eq!(dir.judge("c/global_step100"), complete("deepspeed"));
    dir.remove("c/global_step100/zero_pp_rank_1_mp_rank_00_optim_states.pt");
    dir.incomplete("c/global_step100", "says `global_step200`");
    dir.put("c/latest", "../global_step200");
    dir.incomplete("c", "latest");
}

#[test]
fn megatron_orbax_and_tensorflow() {
    let dir = Dir::new();
    dir.put("m/iter_0000100/mp_rank_00/model_optim_rng.pt", zip(&[("a", b"x")], false));
    dir.incomplete("m/iter_0000100", "latest_checkpointed_iteration");
    dir.put("m/latest_checkpointed_iteration.txt", "90");
    dir.incomplete("m/iter_0000100", "`90`");
    dir.put("m/latest_checkpointed_iteration.txt", "100\n");
    assert_eq!(dir.judge("m/iter_0000100"), complete("megatron"));
    dir.put("o/7/d/array", "x");
    assert!(is_open(&dir.judge("o/7")));
    dir.put("o/7/_CHECKPOINT_METADATA", "{}");
    assert_eq!(dir.judge("o/7"), complete("orbax"));
    fs::rename(dir.0.path().join("o/7"), dir.0.path().join("o/7.orbax-checkpoint-tmp-1")).unwrap();
    dir.incomplete("o/7.orbax-checkpoint-tmp-1", "temporary");
    dir.put("t/ckpt-5.data-00000-of-00002", "x");
    dir.put("t/ckpt-5.index", "x");
    dir.incomplete("t", "data part");
    dir.put("t/ckpt-5.data-00001-of-00002", "x");
    dir.incomplete("t", "`checkpoint`");
    dir.put("t/checkpoint", "model_checkpoint_path: \"ckpt-6\"\n");
    dir.incomplete("t", "ckpt-6");
    dir.put("t/checkpoint", "model_checkpoint_path: \"ckpt-5\"\n");
    assert_eq!(dir.judge("t"), complete("tensorflow"));
}

/// Orbax deletes an old step under its name. Whatever a directory lists first,
/// and wherever its program dies at that: once a mark is gone, it is no checkpoint.
#[test]
fn what_is_left_of_a_step_that_orbax_deletes_is_none() {
    let dir = Dir::new();
    let marks = ["_CHECKPOINT_METADATA", "commit_success.txt", "default/_METADATA", "default/manifest.ocdbt"];
    let data = ["default/d/0a", "default/ocdbt.process_0/d/0b", "default/ocdbt.process_0/manifest.ocdbt"];
    let told = r#"{"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": 2, "item_handlers": {"default": "x", "no": "x"}}"#;
    let save = |step: &str| {
        for file in marks.iter().chain(&data) {
            dir.put(&format!("{step}/{file}"), told);
        }
    };
    let all = ["7", "8", "9"];
    all.into_iter().for_each(save);
    assert!(all.iter().all(|step| dir.judge(step) == complete("orbax")));
    for file in [&marks[..], &data[2..]].concat() {
        dir.remove(&format!("7/{file}"));
        dir.incomplete("7", &format!("`{file}`, which `9` beside it has"));
        save("7");
    }
    for place in ["default/d", "default/ocdbt.process_0/d", "default"] {
        fs::remove_dir_all(dir.0.path().join("7").join(place)).unwrap();
        dir.incomplete("7", &format!("`{place}`, which `9` beside it has"));
        save("7");
    }
    // In the order of one listing, to the last file.
    for file in marks.iter().chain(&data) {
        dir.remove(&format!("7/{file}"));
        assert!(torn_file(&dir.judge("7")), "without {file}");
    }
    // The newest is measured by none: it may be the first with other settings. What
    // saves other items is none the less whole.
    dir.put("10/_CHECKPOINT_METADATA", r#"{"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": 2}"#);
    dir.put("10/other/state", "x");
    assert_eq!(dir.judge("10"), complete("orbax"));
    assert_eq!(dir.judge("9"), complete("orbax"));
    dir.put("11/_CHECKPOINT_METADATA", told);
    dir.put("11/commit_success.txt", "");
    dir.incomplete("10", "`commit_success.txt`, which `11` beside it has");
    assert_eq!(dir.judge("11"), complete("orbax"));
    // Another series, and a name without a step, have nothing to do with it.
    for other in ["run-1/state", "best/state"] {
        dir.put(other, "x");
        assert!(matches!(dir.judge(other.split('/').next().unwrap()), Completeness::Unknown { .. }));
    }
}
