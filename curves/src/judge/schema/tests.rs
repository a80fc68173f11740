//! Names of metrics that programs use, and what they are taken for.

use super::*;

#[test]
fn names_say_what_metrics_are() {
    use Direction::{Higher, Lower, Unknown};
    use Split::{Train, Unsaid, Validation};
    for (name, role, split, direction) in [
        ("loss", Role::Loss, Unsaid, Lower),
        ("train/loss", Role::Loss, Train, Lower),
        ("val/loss", Role::Loss, Validation, Lower),
        ("eval_loss", Role::Loss, Validation, Lower),
        ("eval_g0_loss", Role::Loss, Validation, Lower),
        ("trl", Role::Loss, Train, Lower),
        ("tel", Role::Loss, Validation, Lower),
        ("valLoss", Role::Loss, Validation, Lower),
        ("test.accuracy", Role::Score, Validation, Higher),
        ("train_acc", Role::Score, Train, Higher),
        ("dev/wer", Role::Error, Validation, Lower),
        ("learning_rate", Role::LearningRate, Unsaid, Unknown),
        ("lr-AdamW/pg1", Role::LearningRate, Unsaid, Unknown),
        ("grad_norm", Role::GradientNorm, Unsaid, Unknown),
        ("train/gnorm", Role::GradientNorm, Train, Unknown),
        ("train_samples_per_second", Role::Throughput, Train, Higher),
        ("tokens/s", Role::Throughput, Unsaid, Higher),
        ("steps_per_sec", Role::Throughput, Unsaid, Higher),
        ("iter_time", Role::StepTime, Unsaid, Lower),
        ("ms_per_step", Role::StepTime, Unsaid, Lower),
        ("loss_scale", Role::LossScale, Unsaid, Unknown),
        ("grad_scaler/scale", Role::LossScale, Unsaid, Unknown),
        ("global_step", Role::Counter, Unsaid, Unknown),
        ("epoch", Role::Counter, Unsaid, Unknown),
        ("_timestamp", Role::Time, Unsaid, Unknown),
        ("system/gpu.0.memory", Role::Resource, Unsaid, Unknown),
        ("flavour", Role::Other, Unsaid, Unknown),
        ("", Role::Other, Unsaid, Unknown),
    ] {
        let traits = read_name(name);
        assert_eq!((traits.role, traits.split, traits.direction), (role, split, direction), "{name}");
    }
    assert_eq!(read_name("val/loss").reason, "`loss` in the name: lower is better");
    assert_eq!(read_name("flavour").reason, "nothing in the name says which way is better");
}

/// What common programs call their metrics.
const NAMES: &[(Role, &str)] = &[
    // Detection and segmentation.
    (Role::Score, "mAP mAP50 bbox_mAP metrics/mAP50(B) metrics/mAP50-95(B) map50 coco/bbox_mAP_50 AP50"),
    (Role::Score, "bbox/AP bbox/APs segm/AP75 mIoU IoU val_IoU iou miou fwIoU aAcc mAcc mDice jaccard"),
    (Role::Loss, "giou_loss loss_iou dice_loss train/box_loss val/cls_loss totalloss loss_cls loss1"),
    // Classification.
    (Role::Score, "acc1 acc5 val_acc1 test_acc@1 Prec1 prec@1 top1 ValAccuracy testacc val_accuracy F1Score"),
    (Role::Score, "f1_macro eval_f1 roc_auc AUROC auPRC kappa matthews_correlation balanced_accuracy"),
    (Role::Error, "top1_err val_error error_rate hamming eer brier ece"),
    (Role::Loss, "trainloss valloss vloss tloss trainLoss loss_val CrossEntropyLoss cross_entropy mlogloss"),
    (Role::Loss, "binary_crossentropy train_loss_step train_loss_epoch MSELoss val_rmse mae log_loss"),
    (Role::Score, "neg_mean_squared_error neg_root_mean_squared_error neg_log_loss r2_score R2"),
    // Agents.
    (Role::Score, "rollout/ep_rew_mean eval/mean_reward episode_reward_mean charts/episodic_return reward"),
    (Role::Score, "success_rate rollout/success_rate win_rate winrate solve_rate objective/rlhf_reward"),
    (Role::Score, "rewards/margins reward/accuracies avg_reward total_return rewards/format_reward/mean"),
    (Role::Loss, "train/entropy_loss train/approx_kl policy_loss value_loss qf1_loss reward_loss td_error"),
    (Role::Error, "regret"),
    // Language.
    (Role::Score, "sacrebleu CIDEr BLEU-4 rougeL rougeLsum pass@1 pass_at_10 exact_match hits@10 recall@20"),
    (Role::Score, "hellaswag/acc acc_norm mmlu pearson spearmanr eval_spearman log_likelihood NDCG@10 mrr"),
    (Role::Loss, "perplexity val_ppl bpb bits_per_byte bits_per_dim nats_per_token neg_log_likelihood NLL"),
    (Role::Error, "wer cer TER der"),
    // Generation.
    (Role::Score, "IS inception_score clip_score psnr SSIM elbo ELBO cosine_sim"),
    (Role::Error, "FID kid lpips LPIPS chamfer fvd"),
    (Role::Loss, "neg_elbo neg_cosine_sim errG errD g_loss loss_D kl kl_loss vq_loss"),
    // Sections.
    (
        Role::Loss,
        "Loss/train Loss/val losses/qf1_loss losses/alpha_loss losses/entropy loss/cls train_reward/loss",
    ),
    (Role::Score, "loss/accuracy losses/iou Accuracy/test"),
    (Role::Other, "losses/qf1_values losses/explained_variance losses/clipfrac"),
    // What names no measure.
    (Role::Other, "map_size iou_threshold iou_thr score_threshold acc_steps grad_acc accumulated_steps"),
    (Role::Other, "kl_coef loss_weight reward_std reward_scale num_correct num_errors attention_map"),
    (
        Role::Other,
        "feature_map/mean rewards/chosen rewards/rejected logps/chosen is_best this_ap hits misses",
    ),
    (Role::Other, "ep_len_mean clip_fraction explained_variance entropy D(x) hellaswag/acc_stderr pass"),
    (Role::Other, "accept mapping scored lossless_ratio errand mapper kidney derived maple emb"),
    (Role::Counter, "num_updates timesteps time/total_timesteps timesteps_total training_iteration episode"),
    (Role::Counter, "tokens_seen total_tokens tokens episodes_total num_episodes"),
    (Role::StepTime, "dt iter_time"),
    (Role::LearningRate, "lr-Adam/pg1 lr0 lr/pg0 lr_group0 learning_rate"),
    (Role::Time, "eval_loss_time time/time_elapsed eval_runtime"),
];

#[test]
fn names_of_common_programs_say_which_way_is_better() {
    use Direction::{Higher, Lower, Unknown};
    for &(role, names) in NAMES {
        for name in names.split(' ') {
            let traits = read_name(name);
            let direction = match role {
                Role::Score => Higher,
                Role::Loss | Role::Error | Role::StepTime => Lower,
                _ => Unknown,
            };
            // `accumulated_steps` counts steps.
            let counts = role == Role::Other && traits.role == Role::Counter;
            assert!(traits.role == role && traits.direction == direction || counts, "{name}: {traits:?}");
        }
    }
    assert_eq!(read_name("valloss").split, Split::Validation);
    assert_eq!((read_name("testacc").split, read_name("trainloss").split), (Split::Validation, Split::Train));
    assert_eq!((read_name("vloss").split, read_name("trainer").split), (Split::Validation, Split::Unsaid));
    assert_eq!(read_name("neg_elbo").reason, "`neg elbo` in the name: lower is better");
    assert!(["mAP50", "success_rate", "pass@1", "val_acc1", "mIoU"].iter().all(|n| is_share(&read_name(n))));
    assert!(["reward", "psnr", "pearson"].iter().all(|n| !is_share(&read_name(n))));
}

#[test]
fn parts_of_an_objective_are_known_from_the_whole() {
    let parts = "kl train/approx_kl train/entropy_loss policy_loss value_loss critic_loss qf1_loss alpha_loss \
                 g_loss loss_D errG d_loss_real commitment_loss aux_loss z_loss val/kl_loss vf_loss ent_coef_loss";
    for name in parts.split_whitespace() {
        assert!(is_part(&read_name(name)), "{name}");
    }
    let wholes = "loss val_loss eval_g0_loss cross_entropy crossentropy nll loss_value d2_loss 3d_loss box_loss \
                  recon_loss mse reward_loss train/loss td_error reward perplexity loss_2d";
    for name in wholes.split_whitespace() {
        assert!(!is_part(&read_name(name)), "{name}");
    }
    for (name, wanted) in [
        ("reward", true),
        ("rollout/ep_rew_mean", true),
        ("eval/mean_reward", true),
        ("rewards/margins", false),
        ("rewards/accuracies", false),
        ("reward_loss", false),
        ("success_rate", false),
    ] {
        assert_eq!(is_return(&read_name(name)), wanted, "{name}");
    }
}

#[test]
fn a_run_is_judged_by_what_it_is_for() {
    let of = |names: &str| {
        let names: Vec<&str> = names.split(' ').collect();
        primary(names.iter().map(|n| (*n, read_name(n)))).map(str::to_owned)
    };
    for (names, wanted) in [
        ("train/loss val/loss val/acc lr", "val/loss"),
        ("loss kl recon_loss", "loss"),
        ("kl elbo_loss", "elbo_loss"),
        ("train/total_loss train/cls_loss", "train/total_loss"),
        ("rpn_loss loss_cls total_loss", "total_loss"),
        ("train/loss rollout/ep_rew_mean train/approx_kl train/entropy_loss", "rollout/ep_rew_mean"),
        ("episode reward loss epsilon", "reward"),
        ("g_loss d_loss fid", "fid"),
        ("g_loss d_loss", "d_loss"),
        ("loss rewards/margins rewards/accuracies", "loss"),
        ("val_rmse val_loss mse", "val_loss"),
    ] {
        assert_eq!(of(names).as_deref(), Some(wanted), "{names}");
    }
    assert_eq!(of("lr flavour"), None);
}

fn paired<'a>(of: &str, among: &[&'a str], schema: &Schema) -> Option<&'a str> {
    let traits: Vec<_> = among.iter().map(|n| (*n, schema.traits(n))).collect();
    pair((of, &schema.traits(of)), schema, traits.iter().map(|(n, t)| (*n, t)))
}

#[test]
fn validation_metrics_find_their_training_metric() {
    let plain = Schema::default();
    let both = ["train/loss", "train/acc", "val/loss", "val/acc", "lr"];
    assert_eq!(paired("val/loss", &both, &plain), Some("train/loss"));
    assert_eq!(paired("val/acc", &both, &plain), Some("train/acc"));
    assert_eq!(paired("train/loss", &both, &plain), None);
    assert_eq!(paired("eval_loss", &["loss", "eval_loss", "grad_norm"], &plain), Some("loss"));
    assert_eq!(paired("eval_g0_loss", &["loss", "eval_g0_loss"], &plain), Some("loss"));
    assert_eq!(paired("tel", &["trl", "tel", "norm"], &plain), Some("trl"));
    let many = ["train/loss", "train/aux_loss", "val/aux_loss", "val/odd_loss"];
    assert_eq!(paired("val/aux_loss", &many, &plain), Some("train/aux_loss"));
    assert_eq!(paired("val/odd_loss", &many, &plain), None, "two might be meant");
    let mut said = Schema::default();
    said.metrics.insert(
        "val/odd_loss".into(),
        MetricSpec { pair: Some("train/loss".into()), ..MetricSpec::default() },
    );
    assert_eq!(paired("val/odd_loss", &many, &said), Some("train/loss"));
}

#[test]
fn the_callers_word_goes_before_the_name() {
    let mut schema = Schema { step: Some("tick".into()), ..Schema::default() };
    schema
        .metrics
        .insert("loss".into(), MetricSpec { direction: Some(Direction::Higher), ..MetricSpec::default() });
    schema.metrics.insert("q".into(), MetricSpec { role: Some(Role::Score), ..MetricSpec::default() });
    assert_eq!(schema.traits("loss").direction, Direction::Higher);
    assert_eq!(schema.traits("loss").reason, "the schema says so");
    let spec = |direction| MetricSpec { direction: Some(direction), ..MetricSpec::default() };
    schema.metrics.insert("merit".into(), spec(Direction::Higher));
    schema.metrics.insert("woe".into(), spec(Direction::Lower));
    schema.metrics.insert("neutral".into(), spec(Direction::Unknown));
    assert_eq!(
        ["merit", "woe", "neutral"].map(|n| schema.traits(n).role),
        [Role::Score, Role::Error, Role::Other]
    );
    assert_eq!((schema.traits("q").role, schema.traits("q").direction), (Role::Score, Direction::Higher));
    assert_eq!(schema.traits("tick").role, Role::Counter);
}

#[test]
fn every_mistake_of_a_schema_is_told() {
    let mut schema = Schema { primary: Some("val/los".into()), ..Schema::default() };
    schema.metrics.insert("loss".into(), MetricSpec { sensitivity: Some(-1.0), ..MetricSpec::default() });
    schema.stages = vec![Stage { name: "a".into(), from_step: 5 }, Stage { name: "b".into(), from_step: 5 }];
    let told: Vec<String> =
        schema.check_against(["val/loss", "loss"]).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "metrics.loss.sensitivity is -1; it must be from 0 to 100",
            "stage b begins at step 5, not after the stage before it",
            "primary names val/los, which the run did not log; did you mean val/loss?"
        ]
    );
    assert!(serde_json::from_str::<Schema>("{\"primry\": \"x\"}").is_err(), "unknown keys are refused");
}

#[test]
fn a_schema_made_from_a_run_fits_it() {
    let names = ["global_step", "train/loss", "val/loss", "val/acc", "lr"];
    let schema = Schema::from_names(names);
    assert_eq!((schema.step.as_deref(), schema.primary.as_deref()), (Some("global_step"), Some("val/loss")));
    assert_eq!(schema.check_against(names), []);
    assert_eq!(schema.metrics["val/acc"].group.as_deref(), Some("val"));
    let text = serde_json::to_string(&schema).expect("serialises");
    assert_eq!(serde_json::from_str::<Schema>(&text).expect("reads"), schema);
}
