//! The program from outside, without a controller: what it says of itself,
//! what it refuses, and with which exit code.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "cli/analyze.rs"]
mod analyze;
#[path = "cli/endings.rs"]
mod endings;
#[path = "cli/inputs.rs"]
mod inputs;
#[path = "cli/mcp.rs"]
mod mcp;
#[path = "cli/pages.rs"]
mod pages;
#[path = "cli/projects.rs"]
mod projects;
#[path = "cli/searches.rs"]
mod searches;
#[path = "cli/simulate.rs"]
mod simulate;
#[path = "cli/tracking_server.rs"]
mod tracking_server;
#[path = "cli/views.rs"]
mod views;
#[path = "cli/wandb_cloud.rs"]
mod wandb_cloud;

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the program with a home of its own and nobody at a terminal.
fn outlast(dir: &Path, args: &[&str]) -> Output {
    let home = dir.join("home");
    Command::new(env!("CARGO_BIN_EXE_outlast"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .env("OUTLAST_HOME", &home)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn the_help_is_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let help = outlast(dir.path(), &["--help"]);
    assert_eq!(code(&help), 0);
    insta::assert_snapshot!("help", text(&help.stdout));
    for hidden in ["controller-serve", "keeper", "guard"] {
        assert!(!text(&help.stdout).contains(hidden), "{hidden}");
    }
}

#[test]
fn the_help_of_run_is_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    insta::assert_snapshot!("help-run", text(&outlast(dir.path(), &["run", "--help"]).stdout));
}

#[test]
fn the_help_about_another_computer_is_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let help = |args: &[&str]| text(&outlast(dir.path(), args).stdout);
    insta::assert_snapshot!("help-login", help(&["login", "--help"]));
    insta::assert_snapshot!("help-deploy", help(&["controller", "deploy", "--help"]));
    let verbs = help(&["controller", "--help"]);
    for hidden in ["arrive", "link"] {
        assert!(!verbs.contains(&format!("  {hidden} ")), "{verbs}");
    }
}

#[test]
fn what_cannot_be_understood_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [&[&str]; 8] = [
        &[],
        &["fly"],
        &["run", "--flags"],
        &["run", ".", "python", "train.py"],
        &["run", "--chaos", "disk=1", "--", "true"],
        &["run", "--chaos", "machine=1", "-d", "--", "true"],
        &["run", "--set", "budget=3", "--", "true"],
        &["stop", "x", "--grace", "soon"],
    ];
    for args in cases {
        let output = outlast(dir.path(), args);
        assert_eq!(code(&output), 64, "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_wrong_configuration_is_explained_and_nothing_is_started() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("outlast.toml"), "[budget]\nmax_usdd = 3\n").unwrap();
    for args in [&["config", "check"][..], &["config", "show"], &["run", "--", "true"]] {
        let output = outlast(dir.path(), args);
        assert_eq!(code(&output), 78, "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains("outlast.toml:2:1") && said.contains("max_usd"), "{said}");
    }
    let no_command = outlast(
        &{
            let empty = dir.path().join("empty");
            std::fs::create_dir_all(empty.join(".git")).unwrap();
            empty
        },
        &["run"],
    );
    assert_eq!(code(&no_command), 78, "{}", text(&no_command.stderr));
    assert!(!dir.path().join("home").exists(), "a controller was started");
}

#[test]
fn a_directory_that_is_not_there_is_bad_input() {
    let dir = tempfile::tempdir().unwrap();
    let output = outlast(dir.path(), &["run", "nowhere", "--", "true"]);
    assert_eq!(code(&output), 65, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("nowhere is no directory"));
}

#[test]
fn settings_from_flags_are_in_force_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("outlast.toml"), "[budget]\nmax_usd = 3\n").unwrap();
    let shown = outlast(dir.path(), &["config", "show", "--origin", "--set", "budget.max_usd=4.5"]);
    let line = text(&shown.stdout).lines().find(|line| line.starts_with("max_usd")).unwrap().to_owned();
    assert!(line.contains("4.5") && line.contains("flag budget.max_usd"), "{line}");
    let json = outlast(dir.path(), &["config", "show", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["config"]["budget"]["max_usd"], 3.0);
    let checked = outlast(dir.path(), &["config", "check"]);
    assert_eq!((code(&checked), checked.stdout.len()), (0, 0));
}

#[test]
fn completions_and_version_are_data() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = outlast(dir.path(), &["completions", shell]);
        let script = text(&output.stdout);
        assert!(script.contains("outlast") && script.contains("checkpoints"), "{shell}");
        assert!(!script.contains("controller-serve"), "{shell}");
    }
    let version = outlast(dir.path(), &["version", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&version.stdout).unwrap();
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(value["build_id"].as_str().unwrap().len(), 16);
    assert!(text(&outlast(dir.path(), &["--version"]).stdout).starts_with("outlast "));
}

#[test]
fn nothing_is_destroyed_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let output = outlast(dir.path(), &["destroy", "digits"]);
    assert_eq!(code(&output), 64);
    assert!(text(&output.stderr).contains("--yes"), "{}", text(&output.stderr));
}

#[test]
fn asking_where_nothing_ever_ran_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for args in
        [&["status", "--json"][..], &["machines", "--json"], &["events", "--json"], &["health", "--json"]]
    {
        let output = outlast(dir.path(), args);
        assert_eq!((code(&output), text(&output.stdout).as_str()), (0, "[]\n"), "{args:?}");
    }
    let named: [&[&str]; 6] = [
        &["status", "x"],
        &["logs", "x"],
        &["stop", "x"],
        &["pull", "x"],
        &["health", "x"],
        &["destroy", "x", "-y"],
    ];
    for args in named {
        assert_eq!(code(&outlast(dir.path(), args)), 66, "{args:?}");
    }
    assert_eq!(code(&outlast(dir.path(), &["controller", "status"])), 69);
    assert_eq!(code(&outlast(dir.path(), &["controller", "stop"])), 0);
    assert!(!dir.path().join("home").exists(), "a controller was started");
}

#[test]
fn a_unit_is_printed_without_touching_the_system() {
    let dir = tempfile::tempdir().unwrap();
    let output = outlast(dir.path(), &["controller", "install", "--print"]);
    let unit = text(&output.stdout);
    assert!(
        unit.contains("controller") && unit.contains(dir.path().join("home").to_str().unwrap()),
        "{unit}"
    );
    assert!(!dir.path().join(".config").exists());
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_outlast"))
        .args(["completions", "zsh"])
        .env_clear()
        .env("OUTLAST_HOME", dir.path())
        .stdin(Stdio::null())
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""));
}

#[test]
fn the_doctor_names_what_is_wrong_with_the_store_and_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    let good = outlast(dir.path(), &["doctor"]);
    assert_eq!(code(&good), 0, "{}", text(&good.stderr));
    assert!(text(&good.stdout).trim_end().ends_with(": good"));
    // It made none: what it tried out it took away.
    std::fs::create_dir_all(dir.path().join("home")).unwrap();
    let file = dir.path().join("home/store.toml");
    let keys = dir.path().join("home/keys");
    std::fs::write(&keys, "[default]\naws_access_key_id = id\naws_secret_access_key = s3cr3t\n").unwrap();
    let store = "[store]\nkind = \"s3\"\nbucket = \"mine\"\nprefix = \"runs\"\ncredentials_file = \"keys\"\n";
    std::fs::write(&file, format!("{store}endpoint = \"http://127.0.0.1:1\"\nallow_http = true\n")).unwrap();
    let mode =
        |mode| std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    let open = outlast(dir.path(), &["doctor"]);
    assert_eq!(code(&open), 78);
    assert!(text(&open.stderr).contains("chmod 600"), "{}", text(&open.stderr));
    mode(0o600);
    let away = outlast(dir.path(), &["doctor", "--json"]);
    assert_eq!(code(&away), 78);
    let told: serde_json::Value = serde_json::from_slice(&away.stdout).unwrap();
    assert_eq!(
        (told["store"]["name"].as_str(), told["store"]["ok"].as_bool()),
        (Some("s3://mine/runs at http://127.0.0.1:1"), Some(false))
    );
    let (said, data) = (text(&away.stderr), text(&away.stdout));
    assert!(said.contains("cannot be reached") && said.contains("help: check `endpoint`"), "{said}");
    assert!(!said.contains("s3cr3t") && !data.contains("s3cr3t"));
}

#[test]
fn the_doctor_names_what_is_wrong_with_each_host_and_the_cure() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("home")).unwrap();
    let file = dir.path().join("home/providers.toml");
    std::fs::write(&file, "[ssh.hosts.lab]\nslots = 0\n").unwrap();
    let bad = outlast(dir.path(), &["doctor"]);
    assert_eq!(code(&bad), 78);
    let said = text(&bad.stderr);
    assert!(
        said.contains("line 2: `ssh.hosts.lab.slots`") && said.contains("has no `destination`"),
        "{said}"
    );
    std::fs::write(&file, "[ssh.hosts.lab]\ndestination = \"127.0.0.1\"\nport = 1\n").unwrap();
    let away = outlast(dir.path(), &["doctor", "--json"]);
    assert_eq!(code(&away), 78);
    let told: serde_json::Value = serde_json::from_slice(&away.stdout).unwrap();
    let host = &told["ssh"]["hosts"][0];
    assert_eq!(
        (host["name"].as_str(), host["ok"].as_bool(), host["free"].as_u64()),
        (Some("lab"), Some(false), None)
    );
    assert!(text(&away.stderr).contains("host lab: "), "{}", text(&away.stderr));
}
