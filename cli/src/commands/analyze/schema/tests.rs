//! What is said of names, and what comes of it.

use curves::judge::schema::Direction;
use proptest::prelude::*;

use super::*;
use crate::config::Template;

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn what_is_said_of_one_counts_before_patterns_and_templates() {
    let direction =
        MetricSpec { direction: Some(Direction::Higher), sensitivity: Some(3.0), ..MetricSpec::default() };
    let metrics = Metrics {
        template: Some(Template::Transformers),
        primary: Some("eval_los".to_owned()),
        validation: vec!["probe/*".to_owned(), "*_held".to_owned()],
        per_step: Some("loss_at_{n}".to_owned()),
        sensitivity: Some(0.5),
        groups: [("rates".to_owned(), vec!["learning*".to_owned()])].into(),
        keys: [("loss".to_owned(), direction), ("absent".to_owned(), MetricSpec::default())].into(),
        ..Metrics::default()
    };
    let logged = ["loss", "eval_loss", "probe/x", "learning_rate", "loss_at_12", "loss_at_x", "a_held"];
    let (schema, notes) = of(&metrics, &names(&logged));
    let spec = |name: &str| schema.metrics[name].clone();
    assert_eq!((spec("loss").direction, spec("loss").sensitivity), (Some(Direction::Higher), Some(3.0)));
    assert_eq!(spec("loss").role, None, "the template's role would turn the direction");
    assert_eq!(
        (spec("eval_loss").split, spec("eval_loss").pair.as_deref()),
        (Some(Split::Validation), Some("loss"))
    );
    assert_eq!(
        (spec("probe/x").split, spec("a_held").split),
        (Some(Split::Validation), Some(Split::Validation))
    );
    assert_eq!(spec("learning_rate").group.as_deref(), Some("rates"));
    assert_eq!((spec("loss_at_12").group.as_deref(), spec("loss_at_x").group), (Some("loss_at_{n}"), None));
    assert_eq!(spec("probe/x").sensitivity, Some(0.5));
    assert_eq!(schema.primary, None);
    assert_eq!(notes.len(), 2);
    assert!(
        notes[0].contains("metrics.primary names eval_los") && notes[0].contains("did you mean eval_loss?"),
        "{notes:?}"
    );
    assert!(notes[1].contains("absent"), "{notes:?}");
}

#[test]
fn templates_name_a_step_and_what_to_judge_by() {
    for (template, step, logged, primary, pair) in [
        (Template::Lightning, Some("step"), &["train_loss", "val_loss"][..], "val_loss", None),
        (Template::Transformers, Some("step"), &["loss", "eval_loss"], "eval_loss", Some("loss")),
        (Template::Keras, Some("epoch"), &["loss", "val_loss"], "val_loss", Some("loss")),
        (Template::Classification, None, &["val/loss", "val/acc"], "val/acc", None),
        (Template::Regression, None, &["val_loss", "val_rmse"], "val_rmse", None),
    ] {
        let metrics = Metrics { template: Some(template), ..Metrics::default() };
        assert_eq!(keys(Some(&metrics)).step.as_deref(), step);
        let (schema, notes) = of(&metrics, &names(logged));
        assert_eq!(schema.primary.as_deref(), Some(primary), "{template:?}");
        assert_eq!(schema.metrics.get(primary).and_then(|spec| spec.pair.as_deref()), pair, "{template:?}");
        assert!(notes.is_empty());
    }
}

#[test]
fn units_are_never_guessed() {
    let text = written(&names(&["val/acc", "val/loss", "step", "odd \"name\"\u{7f}\n"]), Some("val/loss"));
    assert!(!text.contains("unit"), "{text}");
    for line in [
        "primary = \"val/loss\"",
        "# counts of steps and epochs: \"step\"",
        "\"val/acc\" = { role = \"score\", direction = \"higher\", split = \"validation\" } # `acc` in the name: higher is better",
    ] {
        assert!(text.lines().any(|written| written == line), "{line}: {text}");
    }
}

#[test]
fn what_cannot_be_seen_is_spelt_out_and_read_again() {
    let list = names(&[
        "a\u{202e}b_loss",
        "a\u{200b}b_loss",
        "a\u{2028}b_loss",
        "\u{e0101}_loss",
        "gr\u{f6}\u{df}e_loss",
    ]);
    let text = written(&list, None);
    for shown in ["\"a\\u202eb_loss\"", "a\\u200bb", "a\\u2028b", "\\U000e0101", "gr\u{f6}\u{df}e_loss"] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("schema.toml");
    std::fs::write(&file, &text).unwrap();
    let (metrics, _) = crate::config::metrics(dir.path(), Some(&file), None).unwrap().unwrap();
    assert!(list.iter().all(|name| metrics.keys.contains_key(name)), "{text}");
}

proptest! {
    #[test]
    fn patterns_fit_like_regular_expressions(pattern in "[ab*]{0,8}", name in "[ab]{0,8}") {
        let same = regex::Regex::new(&format!("^{}$", pattern.replace('*', ".*"))).unwrap();
        prop_assert_eq!(fits(&pattern, &name), same.is_match(&name));
    }

    #[test]
    fn what_is_written_is_read_again(list in prop::collection::btree_set("[ -~]{1,20}", 0..6)) {
        let list: Vec<String> = list.into_iter().filter(|name| !name.trim().is_empty()).collect();
        let text = written(&list, list.first().map(String::as_str));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("schema.toml");
        std::fs::write(&file, &text).unwrap();
        let read = crate::config::metrics(dir.path(), Some(&file), None);
        let (metrics, _) = read.map_err(|errors| TestCaseError::fail(format!("{errors}{text}")))?.unwrap();
        prop_assert_eq!(metrics.primary.as_deref(), list.first().map(String::as_str));
        for name in metrics.keys.keys() {
            prop_assert!(list.contains(name));
        }
    }
}
