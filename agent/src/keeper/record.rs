//! How an attempt's end is written down, so that neither a full disk nor a power
//! cut loses it. Never says more than was seen.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::Exit;
use serde::{Deserialize, Serialize};

use super::{EXIT_FILE, OomProcess};
use crate::os;

const BALLAST_BYTES: usize = 64 * 1024;
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// What was done to a program that we were asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopKind {
    /// It ended after SIGTERM, within the grace.
    Term,
    /// It outlived the grace and got SIGKILL.
    TermThenKill,
    /// It got SIGKILL at once.
    Kill,
}

/// The end of an attempt as its keeper saw it: `exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// How the program ended.
    pub exit: Exit,
    /// When, by the machine's wall clock, in milliseconds since 1970.
    pub ended_ms: u64,
    /// When it was started, by the same clock; 0 if it never was.
    pub started_ms: u64,
    /// Whether it ended because we were asked to end it.
    pub stopped_by: Option<StopKind>,
    /// Processes of the tree that were still there afterwards and were ended.
    #[serde(default)]
    pub survivors_killed: u32,
    /// Of these, those that SIGKILL could not end within ten seconds.
    #[serde(default)]
    pub unkillable: u32,
    /// What speaks for the kernel's out-of-memory killer, in words.
    #[serde(default)]
    pub oom: Option<String>,
    /// Which process of the tree it took, where the kernel's log names it.
    #[serde(default)]
    pub oom_process: Option<OomProcess>,
    /// Limits that could not be applied, a sentence each.
    #[serde(default)]
    pub unapplied_limits: Vec<String>,
    /// The largest resident size of any one process of the tree.
    #[serde(default)]
    pub max_rss_bytes: Option<u64>,
    /// Bytes produced on stdout, dropped ones included; whole once `is_final`.
    #[serde(default)]
    pub stdout_len: u64,
    /// Bytes produced on stderr, dropped ones included; whole once `is_final`.
    #[serde(default)]
    pub stderr_len: u64,
    /// Whether the tree is gone, the output is whole and nothing will change.
    #[serde(default, rename = "final")]
    pub is_final: bool,
}

impl ExitRecord {
    pub(super) fn new(exit: Exit, started_ms: u64) -> Self {
        Self {
            exit,
            ended_ms: os::unix_ms(),
            started_ms,
            stopped_by: None,
            survivors_killed: 0,
            unkillable: 0,
            oom: None,
            oom_process: None,
            unapplied_limits: Vec::new(),
            max_rss_bytes: None,
            stdout_len: 0,
            stderr_len: 0,
            is_final: false,
        }
    }

    pub(super) fn not_started(reason: String) -> Self {
        Self { is_final: true, ..Self::new(Exit::NotStarted { reason }, 0) }
    }
}

fn ballast(dir: &Path) -> PathBuf {
    dir.join("exit.reserve")
}

/// Sets aside the disk space that the exit record needs when the disk is full.
pub(super) fn reserve(dir: &Path) {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(ballast(dir));
    if let Ok(mut file) = file {
        // Random, so that no file system can store it as nothing.
        let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(BALLAST_BYTES).collect();
        let _ = file.write_all(&bytes).and_then(|()| file.sync_all());
    }
}

/// Writes the record durably, however long the disk refuses it. Gives up only
/// when the attempt's directory is gone.
pub(super) fn persist(dir: &Path, record: &ExitRecord) {
    let Ok(bytes) = serde_json::to_vec_pretty(record) else { return };
    loop {
        match os::write_durable(&dir.join(EXIT_FILE), &bytes) {
            Ok(()) => break,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(_) if fs::remove_file(ballast(dir)).is_ok() => {}
            Err(_) => std::thread::sleep(RETRY_EVERY),
        }
    }
    if record.is_final {
        let _ = fs::remove_file(ballast(dir));
    }
}
