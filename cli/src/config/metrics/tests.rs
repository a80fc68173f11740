//! `[metrics]` as a person writes it, right and wrong.

use std::fs;

use super::super::{ConfigErrors, metrics};
use super::*;

fn read(text: &str) -> Result<Metrics, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".git")).unwrap();
    fs::write(dir.path().join("outlast.toml"), text).unwrap();
    fs::create_dir(dir.path().join("runs")).unwrap();
    Ok(metrics(&dir.path().join("runs"), None, None)?.expect("the file above").0)
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = r#"
[metrics]
template = "lightening"
step = 5
primary = ""
validation = ["val/*", ""]
per_step = "loss_step"
sensitivity = -1
stages = [{ name = "b", from = 10 }, { name = "a", from = 5 }, { from = -1, to = 3 }, 7]
groups = { optimizer = "lr" }
colour = "red"
[metrics.keys."val/loss"]
direction = "down"
plateau_window = 2
target = "soon"
sensitivty = 1
[metrics.keys]
acc = 5
[budget]
max_usd = -5
"#;
    let report = read(text).unwrap_err().to_string();
    for wanted in [
        "`metrics.template` cannot be \"lightening\"",
        "did you mean \"lightning\"?",
        "`metrics.step` must be a string",
        "`metrics.primary` is empty",
        "`metrics.validation[1]` is no pattern",
        "`metrics.per_step` must hold {n} once",
        "`metrics.sensitivity` must be from 0 to 100",
        "`metrics.stages[1]` begins before",
        "`metrics.stages[2].from` must be a step",
        "`metrics.stages[2]` has no `name`",
        "unknown key `to`",
        "`metrics.stages[3]` must be a table",
        "`metrics.groups.optimizer` must be an array of strings",
        "unknown key `colour` in [metrics]",
        "`metrics.keys.val/loss.direction` cannot be \"down\"",
        "`metrics.keys.val/loss.plateau_window` must be from 0.01 to 1",
        "`metrics.keys.val/loss.target` must be a number",
        "did you mean `sensitivity`?",
        "`metrics.keys.acc` must be a table",
    ] {
        assert!(report.contains(wanted), "{wanted}: {report}");
    }
    // How a project runs is not what its logs mean.
    assert!(!report.contains("max_usd"), "{report}");
}

#[test]
fn a_file_without_the_section_says_nothing() {
    assert_eq!(read("[run]\nname = \"a\"\n").unwrap(), Metrics::default());
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".git")).unwrap();
    assert!(metrics(dir.path(), None, None).unwrap().is_none());
    let missing = dir.path().join("missing.toml");
    assert!(metrics(dir.path(), Some(&missing), None).is_err());
}

#[test]
fn a_target_is_one_metrics_own() {
    let metrics = read("[metrics.keys]\n\"val/acc\" = { target = 0.9 }\nloss = { target = 1 }\n").unwrap();
    let targets: Vec<_> = metrics.keys.values().map(|spec| spec.target).collect();
    assert_eq!(targets, [Some(1.0), Some(0.9)]);
    assert!(read("[metrics.keys]\nloss = { target = inf }\n").is_err());
}
