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
