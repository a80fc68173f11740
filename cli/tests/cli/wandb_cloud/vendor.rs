//! A server that answers as W&B's does (`tests/wandb/server.py`), with what it
//! has and what goes wrong, and the program with a key for it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::super::{code, text};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(super) const KEY: &str = "0123456789abcdef0123456789abcdefcanary42";

/// A server of its own, a home of its own, and a key.
pub(super) struct Vendor {
    dir: TempDir,
    child: Child,
    port: u16,
}

impl Drop for Vendor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Vendor {
    pub(super) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("world.json"), json!({"key": KEY, "projects": {}}).to_string()).unwrap();
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wandb/server.py");
        let mut command = Command::new("python3");
        command.arg(server).arg(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("a port");
        fs::create_dir(dir.path().join("user")).unwrap();
        Self { dir, child, port }
    }

    pub(super) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Says what there is in the project `e/p`.
    pub(super) fn has(&self, runs: &[Value]) {
        let world = json!({"key": KEY, "projects": {"e/p": runs}});
        let beside = self.dir.path().join("world.new");
        fs::write(&beside, world.to_string()).unwrap();
        fs::rename(beside, self.dir.path().join("world.json")).unwrap();
    }

    /// Rows of a run's history, one a line, in a file that `has` can name.
    pub(super) fn rows(&self, name: &str, rows: impl IntoIterator<Item = String>) -> String {
        let rows: Vec<String> = rows.into_iter().collect();
        fs::write(self.dir.path().join(name), rows.join("\n")).unwrap();
        name.to_owned()
    }

    pub(super) fn faults(&self, faults: &[Value]) {
        fs::write(self.dir.path().join("faults.json"), json!(faults).to_string()).unwrap();
    }

    /// How many faults were not used up.
    pub(super) fn left(&self) -> u64 {
        let faults: Vec<Value> =
            serde_json::from_slice(&fs::read(self.dir.path().join("faults.json")).unwrap()).unwrap();
        faults.iter().filter_map(|fault| fault["times"].as_u64()).sum()
    }

    /// Requests since the last time.
    pub(super) fn heard(&self) -> Vec<Value> {
        let file = self.dir.path().join("heard.jsonl");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(file);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Ranges of steps that were asked for since the last time.
    pub(super) fn asked(&self) -> Vec<(u64, u64)> {
        let step = |heard: &Value, key: &str| heard["variables"][key].as_u64();
        self.heard().iter().filter_map(|h| Some((step(h, "minStep")?, step(h, "maxStep")?))).collect()
    }

    pub(super) fn home(&self) -> PathBuf {
        self.dir.path().join("user")
    }

    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(args).current_dir(self.home()).env_clear().stdin(Stdio::null());
        command.env("HOME", self.home()).env("WANDB_BASE_URL", self.base()).env("WANDB_API_KEY", KEY);
        command
    }

    pub(super) fn outlast(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(!said.contains("canary42"), "{args:?} said the key: {said}");
        output
    }

    pub(super) fn json(&self, args: &[&str]) -> Value {
        let output = self.outlast(&[args, &["--json"]].concat());
        assert_eq!(code(&output), 0, "{args:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(super) fn refused(&self, args: &[&str], expected: i32) -> String {
        let output = self.outlast(args);
        let said = text(&output.stderr);
        assert_eq!(code(&output), expected, "{args:?}: {said}{}", text(&output.stdout));
        assert!(!said.contains('\u{1b}'), "{said:?}");
        said
    }
}

/// A run as the server has it.
pub(super) fn run(name: &str, state: &str, rows: &str) -> Value {
    json!({
        "name": name, "displayName": format!("run-{name}"), "state": state, "rows": rows,
        "createdAt": format!("2026-01-31T10:00:{:02}", name.len()), "heartbeatAt": "2026-01-31T12:00:00",
        "config": {"lr": 0.1, "seed": name}, "summaryMetrics": {"train/loss": 0.5, "_step": 7},
        "tags": ["base"], "group": "g", "notes": "plain",
    })
}

pub(super) fn row(step: u64) -> String {
    let time = 1_700_000_000 + step;
    format!(
        "{{\"_step\": {step}, \"_timestamp\": {time}, \"_runtime\": {step}, \"train/loss\": {}}}",
        loss(step)
    )
}

pub(super) fn loss(step: u64) -> f64 {
    2.0 / (1.0 + step as f64 / 50.0)
}

/// All points of a metric.
pub(super) fn points(found: &Value) -> Vec<(u64, f64)> {
    let points = found["metrics"][0]["points"].as_array().unwrap_or_else(|| panic!("{found}"));
    points.iter().map(|point| (point[0].as_u64().unwrap(), point[1].as_f64().unwrap())).collect()
}

pub(super) fn history(vendor: &Vendor, run: &str) -> Vec<(u64, f64)> {
    let path = format!("wandb://e/p/{run}");
    points(&vendor.json(&["history", &path, "-m", "train/loss", "--samples", "1000000"]))
}

/// These are the losses of those steps, each once and in order.
#[track_caller]
pub(super) fn are(found: &[(u64, f64)], mut steps: impl Iterator<Item = u64>) {
    for &(step, value) in found {
        assert_eq!(Some(step), steps.next());
        // The test's own reader of JSON rounds.
        assert!((value - loss(step)).abs() <= 1e-12 * loss(step), "{step}: {value} is not {}", loss(step));
    }
    assert_eq!(steps.next(), None, "after {} points", found.len());
}
