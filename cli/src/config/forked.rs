//! The configuration of a run that there is already, with flags on top: what a
//! fork changes. Only what the flags change is told, since the values of some
//! variables are never shown.

use std::time::Duration;

use lifecycle::RunSpec;
use lifecycle::spec::RestoreMode;
use lifecycle::spec::difference::{Change, difference};

use super::layers::Layers;
use super::problem::{ConfigErrors, Problem};
use super::{Config, Loaded, environment, run};

/// What `flags` and a command change in a run.
///
/// # Errors
/// All that is wrong with the flags.
pub fn changes(
    spec: &RunSpec,
    flags: &[(String, String)],
    command: &[String],
) -> Result<Vec<Change>, ConfigErrors> {
    let mut layers = Layers { config: of(spec), ..Layers::default() };
    for (name, _) in flags {
        let why = match name.split('.').next() {
            Some("project") => "a fork stays in the project of its run",
            Some("source") => "what is taken along is chosen with --source DIR and the configuration there",
            Some("metrics") => "how curves are read is no part of a run",
            _ if name == "run.local_store" => "nothing is asked for a fork",
            _ if name == "run.cache" => "a fork begins where another run was: no other did the same work",
            _ => continue,
        };
        layers.problems.push(Problem::nowhere(format!("`{name}` cannot be set for a fork")).help(why));
    }
    layers.flags(flags);
    let Layers { config, mut problems, places, .. } = layers;
    if config.checkpoints.restore == RestoreMode::InPlace && config.checkpoints.paths.is_empty() {
        problems.push(Problem::nowhere("restore = \"in-place\" needs checkpoints.paths"));
    }
    problems.extend(environment::contradiction(&config.environment, &places));
    problems.extend(config.secrets.contradictions(&config.run.env));
    problems.extend(config.data.contradictions(&config.run.env));
    problems.extend(config.machine.contradiction());
    ConfigErrors::check(problems)?;
    let before = whole(of(spec)).run_spec(&[])?;
    Ok(difference(&before, &whole(config).run_spec(command)?))
}

fn whole(config: Config) -> Loaded {
    Loaded { config, root: std::path::PathBuf::new(), file: None, origins: std::collections::BTreeMap::new() }
}

/// The configuration that describes this run.
fn of(spec: &RunSpec) -> Config {
    let mut config = Config::default();
    config.project.name.clone_from(&spec.project);
    config.run = run::Run {
        command: spec.command.clone(),
        name: spec.name.clone(),
        workdir: spec.workdir.clone(),
        env: spec.env.clone(),
        provider: run::provider(&spec.provider),
        grace: Duration::from_secs(spec.grace_seconds),
        pty: spec.pty,
        cache: false,
        accepts_local_store: false,
    };
    config.secrets = super::Secrets::of(&spec.secrets);
    config.data.spec = spec.data.clone();
    config.environment.kind = spec.environment.kind;
    config.environment.setup.clone_from(&spec.environment.setup);
    config.environment.image.clone_from(&spec.environment.image);
    config.limits = super::Limits::of(&spec.limits);
    config.checkpoints = super::Checkpoints::of(&spec.checkpoints);
    config.artifacts.globs.clone_from(&spec.artifacts);
    config.retry.failures = spec.retry.failures;
    config.retry.losses = spec.retry.losses;
    config.budget.max_usd = spec.max_usd;
    config.budget.max_usd_per_hour = spec.max_usd_per_hour;
    config.budget.max_usd_project = spec.max_usd_project;
    config.budget.max_usd_day = spec.max_usd_day;
    config.machine.spec = spec.machine.clone();
    config.local.usd_per_hour = spec.usd_per_hour.unwrap_or(0.0);
    config.logs.spool = Some(spec.spool_bytes).filter(|bytes| *bytes > 0);
    config.health = super::Health::of(&spec.health);
    config.hang.action = spec.health.hang.action;
    config.hang.after = Duration::from_secs(spec.health.hang.after_seconds);
    config.notice.spec = spec.notice.clone();
    config.early_stop.spec = spec.early_stop.clone();
    config
}

#[cfg(test)]
mod tests {
    use lifecycle::spec::difference::apply;

    use super::*;

    fn spec() -> RunSpec {
        serde_json::from_value(serde_json::json!({
            "project": "p", "name": "r", "command": ["python", "t.py", "****"], "provider": "local",
            "workdir": "src", "env": {"LR": "0.1", "TOKEN": "****"}, "pty": true, "max_usd": 3.0,
            "secrets": ["HF_TOKEN"], "data": {"hf": ["dataset:o/d@v1"],
                "urls": [{"url": "https://h/x", "sha256": "a".repeat(64), "to": "data/x"}]},
            "max_usd_per_hour": 0.75, "max_usd_project": 30.0, "max_usd_day": 9.0, "machine": {"gpus": ["RTX 4090"], "gpu_count": 2, "gpu_memory_bytes": 24_000_000_000_u64,
                "memory_bytes": 64_000_000_000_u64, "cpus": 8, "disk_bytes": 50_000_000_000_u64, "regions": ["NO"],
                "min_reliability": 0.9, "image": "a/b:c", "market": "interruptible",
                "when_stopped": "leave", "filter": ["inet_down >= 500"], "avoid": ["7"],
                "speculate": true, "speculate_after_seconds": 9, "lost_after_seconds": 90},
            "usd_per_hour": 0.5, "grace_seconds": 7, "spool_bytes": 2_000_000, "artifacts": ["r/**"],
            "environment": {"kind": "none", "setup": ["true"], "image": ""},
            "checkpoints": {
                "paths": ["c/*"], "restore": "in-place", "resume_args": ["{path}"], "quiet_seconds": 3,
                "keep_local": 5, "uplink_percent": 60, "best": {"metric": "acc", "more": true},
                "keep": {"latest": 9, "best": 2, "all_days": 1, "daily_days": 2, "weekly_days": 8}
            },
            "retry": {"failures": 5, "losses": 4},
            "limits": {"memory_bytes": 5_000_000, "cpus": 1.5, "pids": 9, "open_files": 99},
            "health": {"interval_seconds": 3, "disk_percent": 1.0, "inodes_percent": 2.0, "memory_percent": 3.0,
                "pressure_percent": 4.0, "gpu_celsius": 5.0, "forecast_seconds": 6,
                "hang": {"action": "move", "after_seconds": 8}},
            "notice": {"signal": "hup", "source": "gce", "hook": ["./taken"], "file": "/run/taken"},
            "early_stop": {"rules": ["nan", "val/loss plateau"]}
        }))
        .unwrap()
    }

    fn set(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_run_without_flags_is_the_same_run() {
        assert_eq!(changes(&spec(), &[], &[]).unwrap(), []);
        assert_eq!(whole(of(&spec())).run_spec(&[]).unwrap(), spec(), "nothing of it is lost on the way");
    }

    #[test]
    fn flags_change_what_they_name_and_nothing_else() {
        let flags = set(&[("run.env.LR", "0.01"), ("run.pty", "false"), ("checkpoints.keep_best", "7")]);
        let found = changes(&spec(), &flags, &[]).unwrap();
        let places: Vec<String> = found.iter().map(|change| change.path.join(".")).collect();
        assert_eq!(places, ["checkpoints.keep.best", "env.LR", "pty"]);
        // The masked ones are not part of it: the run's own values stay.
        let mut own = spec();
        own.env.insert("TOKEN".into(), "secret".into());
        let forked = apply(&own, &found).unwrap();
        assert_eq!((forked.env["TOKEN"].as_str(), forked.env["LR"].as_str()), ("secret", "0.01"));
        let command = changes(&spec(), &[], &["sh".to_owned()]).unwrap();
        assert_eq!(command.iter().map(|c| c.path.join(".")).collect::<Vec<_>>(), ["command"]);
    }

    #[test]
    fn what_cannot_be_set_is_refused_with_the_reason() {
        for (key, value) in [
            ("project.name", "q"),
            ("source.include", "x"),
            ("run.cache", "true"),
            ("run.local_store", "accept"),
            ("run.nonsense", "1"),
            ("limits.cpus", "no"),
            ("environment.kind", "cargo"),
        ] {
            assert!(changes(&spec(), &set(&[(key, value)]), &[]).is_err(), "{key}");
        }
    }
}
