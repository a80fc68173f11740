//! Real machines behind the fake: a command is told on its standard input
//! when an instance starts, stops, is destroyed or gets a key, and answers a
//! start with where its sshd listens:
//!
//! ```text
//! {"event": "start", "instance": 7000004, "details": {"ssh_keys": [...], "env": {...}, ...}}
//! {"ssh_host": "127.0.0.1", "ssh_port": 41022}
//! ```
//!
//! One at a time and in order. A command that fails makes an instance without
//! an address, as a host with broken ports is; never an error of the fake.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::mpsc;

use super::http::Shared;
use super::state::{Boot, Ssh};

/// What a command may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Carries out what machines are told, until there is nobody to tell.
pub(super) async fn run(
    shared: Arc<Shared>,
    program: PathBuf,
    folder: PathBuf,
    mut told: mpsc::Receiver<Boot>,
) {
    while let Some(boot) = told.recv().await {
        let answer = match tokio::time::timeout(PATIENCE, call(&program, &folder, &boot)).await {
            Ok(answer) => answer,
            Err(_) => Err("the machine's command did not end".to_owned()),
        };
        let (mut world, _) = shared.now();
        world.booted(boot.instance, answer);
    }
}

async fn call(program: &PathBuf, folder: &PathBuf, boot: &Boot) -> Result<Option<Ssh>, String> {
    let text = serde_json::to_vec(boot).map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("the machine's command cannot be started: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        // A command that does not read is one that does not care.
        let _ = input.write_all(&text).await;
    }
    let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("the machine's command ended with {}", output.status));
    }
    let line = String::from_utf8_lossy(&output.stdout);
    let line = line.trim();
    if line.is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(line).map_err(|_| "the machine's command answered no JSON")?;
    serde_json::from_value(value).map_err(|_| "the machine's command gave no address".to_owned())
}
