//! Brings another program for the agent onto the machine: fetched, compared
//! with its digest, tried with `agent --version`, handed to the guard. Whether
//! it is used is the guard's to decide; nothing here touches what runs.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use artifacts::manifest::Node;
use artifacts::{Digest, Manifest, ObjectKey, restore};
use proto::v1;
use serde::Deserialize;

use crate::command;
pub use crate::guard::program::{MAX_PROGRAM, PROGRAM};
use crate::guard::program::{PROGRAMS, is_digest, verify};
use crate::guard::{GUARD_SOCKET, Outcome, SIGN_EVERY};
use crate::os;
use crate::world::SharedGateway;

/// How long a program may take to say its version.
const PROBE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// Left free on the disk beside a new program.
const SPARE: u64 = 64 << 20;
const ASK: Duration = Duration::from_secs(30);

/// The guard's answer, as far as it is read here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: String,
    already: bool,
    upgraded: Option<Outcome>,
}

/// Fetches, checks and hands over. `true`: the guard tries it, and this agent
/// is about to be ended; `false`: this very program runs already.
///
/// # Errors
/// Why the old program runs on, in words.
pub async fn install(state: PathBuf, gateway: SharedGateway, asked: v1::Upgrade) -> Result<bool, String> {
    let digest = asked.digest;
    if !is_digest(&digest) {
        return Err("the upgrade names no BLAKE3 digest".into());
    }
    let dir = state.join(PROGRAMS).join(&digest);
    let program = dir.join(PROGRAM);
    let (file, expected) = (program.clone(), digest.clone());
    let kept = tokio::task::spawn_blocking(move || verify(&file, &expected).is_ok()).await.unwrap_or(false);
    if !kept {
        let at = asked.program.ok_or("the upgrade names no program")?;
        if let Err(problem) = fetch(&state, &dir, &gateway, &at, &digest).await {
            let _ = std::fs::remove_dir_all(&dir);
            return Err(problem);
        }
    }
    let handed = tokio::task::spawn_blocking(move || {
        probe(&program, PROBE).and_then(|()| hand_over(&state, &program))
    })
    .await
    .unwrap_or_else(|error| Err(format!("the program could not be tried: {error}")));
    if handed.is_err() && !kept {
        let _ = std::fs::remove_dir_all(&dir);
    }
    handed
}

async fn fetch(
    state: &Path,
    dir: &Path,
    gateway: &SharedGateway,
    at: &v1::ManifestRef,
    digest: &str,
) -> Result<(), String> {
    let wrong = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
    let key: ObjectKey = at.key.parse().map_err(|e| wrong("the program's key", &e))?;
    let expected: Digest = at.digest.parse().map_err(|e| wrong("the program's manifest", &e))?;
    let tree = restore::load_manifest(&**gateway, &key, Some(expected)).await;
    let tree = tree.map_err(|e| wrong("the program", &e))?;
    let size = size_of(&tree)?;
    let free = os::free_disk(state);
    if free != 0 && free < size + SPARE {
        return Err(format!("the program needs {size} bytes, and {free} are free"));
    }
    os::make_private_dir(&state.join(PROGRAMS)).map_err(|e| wrong("cannot keep programs", &e))?;
    // What an earlier try left, and what is damaged.
    if dir.symlink_metadata().is_ok() {
        std::fs::remove_dir_all(dir).map_err(|e| wrong("a damaged program is in the way", &e))?;
    }
    restore::restore(&**gateway, &tree, dir).await.map_err(|e| wrong("the program", &e))?;
    let (program, digest) = (dir.join(PROGRAM), digest.to_owned());
    let made = tokio::task::spawn_blocking(move || make_executable(&program, &digest)).await;
    made.map_err(|e| wrong("the program", &e))?
}

/// The size of the one file that the tree may hold.
fn size_of(tree: &Manifest) -> Result<u64, String> {
    match tree.entries.as_slice() {
        [entry] if entry.path == PROGRAM => match entry.node {
            Node::File { size, .. } if size <= MAX_PROGRAM => Ok(size),
            Node::File { size, .. } => {
                Err(format!("the program has {size} bytes, at most {MAX_PROGRAM} are taken"))
            }
            Node::Dir { .. } | Node::Symlink { .. } => Err(format!("`{PROGRAM}` is no file")),
        },
        _ => Err(format!("an upgrade is one file named `{PROGRAM}`")),
    }
}

fn make_executable(program: &Path, digest: &str) -> Result<(), String> {
    let made = os::open_nofollow(program).and_then(|file| {
        file.set_permissions(std::fs::Permissions::from_mode(0o755))?;
        file.sync_all()
    });
    made.map_err(|e| format!("the program cannot be made executable: {e}"))?;
    verify(program, digest)
}

/// Has the program say what it is.
fn probe(program: &Path, patience: Duration) -> Result<(), String> {
    let mut child = spawn(program)?;
    let Some(out) = child.stdout.take() else { return Err("the program's output is missing".into()) };
    let until = Instant::now() + patience;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(LOOK),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the program did not say its version within {} s", patience.as_secs()));
            }
            Err(e) => return Err(format!("the program cannot be watched: {e}")),
        }
    };
    // What it may have started must not hold this up.
    os::set_nonblocking(&out).map_err(|e| format!("the program cannot be read: {e}"))?;
    let mut said = Vec::new();
    let _ = out.take(256).read_to_end(&mut said);
    let said = String::from_utf8_lossy(&said);
    if !status.success() {
        return Err(format!("the program cannot say its version: {status}"));
    }
    speaks(said.trim())
}

fn spawn(program: &Path) -> Result<Child, String> {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        let spawned = Command::new(program)
            .args(["agent", "--version"])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            // A child that was started meanwhile may hold the file for a moment.
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy && Instant::now() < until => {
                std::thread::sleep(LOOK);
            }
            spawned => return spawned.map_err(|e| format!("the program cannot be run here: {e}")),
        }
    }
}

/// Whether a version line is that of an agent that speaks as this one does.
fn speaks(line: &str) -> Result<(), String> {
    let shown: String = line.chars().filter(|c| !c.is_control()).take(80).collect();
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["outlast-agent", _, "protocol", protocol] if protocol.parse() == Ok(command::PROTOCOL) => Ok(()),
        ["outlast-agent", _, "protocol", _] => {
            Err(format!("the program says `{shown}`, here protocol {} is spoken", command::PROTOCOL))
        }
        _ => Err(format!("the program is no agent of outlast: it says `{shown}`")),
    }
}

fn ask(state: &Path, request: &serde_json::Value) -> Result<Answer, String> {
    let said = os::ask(&state.join(GUARD_SOCKET), &request.to_string(), ASK)
        .map_err(|e| format!("the guard does not answer: {e}"))?;
    let answer: Answer = serde_json::from_str(&said).map_err(|e| format!("the guard's answer: {e}"))?;
    if answer.error.is_empty() { Ok(answer) } else { Err(answer.error) }
}

fn hand_over(state: &Path, program: &Path) -> Result<bool, String> {
    // The guard knows its directory by its real name.
    let own = program.canonicalize().map_err(|e| format!("the program: {e}"))?;
    ask(state, &serde_json::json!({ "upgrade": { "program": own } })).map(|answer| !answer.already)
}

/// Tells the guard that the controller welcomed this agent. Gives how the
/// newest upgrade went, if there was one.
///
/// # Errors
/// Where no guard of this version answers.
pub fn ready(state: &Path) -> Result<Option<v1::UpgradeOutcome>, String> {
    let answer = ask(state, &serde_json::json!({ "ready": { "pid": std::process::id() } }))?;
    Ok(answer.upgraded.map(|outcome| v1::UpgradeOutcome { digest: outcome.digest, problem: outcome.problem }))
}

/// The pipe over which the guard hears that the agent's main loop turns: its
/// standard input, where the guard made it one.
#[derive(Debug)]
pub struct Signs {
    pipe: std::fs::File,
    every: Duration,
    due: Instant,
}

impl Signs {
    /// `None`: no guard waits for signs.
    #[must_use]
    pub fn of_guard() -> Option<Self> {
        use std::os::fd::AsFd as _;
        use std::os::unix::fs::FileTypeExt as _;
        let every = std::env::var(SIGN_EVERY).ok()?.parse().ok().map(Duration::from_millis)?;
        let pipe = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
        if !pipe.metadata().ok()?.file_type().is_fifo() {
            return None;
        }
        // A guard that stands still must not stop the agent.
        os::set_nonblocking(&pipe).ok()?;
        Some(Self { pipe, every, due: Instant::now() })
    }

    /// Gives a sign if one is due. Only the main loop may call this.
    pub fn turn(&mut self) {
        let now = Instant::now();
        if now >= self.due {
            self.due = now + self.every;
            let _ = std::io::Write::write(&mut self.pipe, b".");
        }
    }

    /// How long until the next sign is due.
    #[must_use]
    pub fn next_turn(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_agent_of_this_protocol_is_taken() {
        assert_eq!(speaks(&command::version_line()), Ok(()));
        for (line, why) in [
            ("outlast-agent 9.9.9 protocol 2", "protocol 1 is spoken"),
            ("outlast-agent 0.0.0", "no agent"),
            ("", "no agent"),
            ("GNU bash \u{1b}[31m5.2", "says `GNU bash [31m5.2`"),
        ] {
            let problem = speaks(line).unwrap_err();
            assert!(problem.contains(why), "{line}: {problem}");
        }
    }

    /// Nothing here takes as long.
    const LONG: Duration = Duration::from_mins(3);

    fn program(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("program");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_program_must_say_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let good =
            format!("#!/bin/sh\n[ \"$*\" = 'agent --version' ] && echo '{}'\n", command::version_line());
        assert_eq!(probe(&program(dir.path(), &good), LONG), Ok(()));
        // It may leave something that holds its output open: that ends when the
        // test says so, and is not waited for.
        let open = dir.path().join("open");
        std::fs::write(&open, "").unwrap();
        let script = "(while [ -e \"$OPEN\" ]; do sleep 0.05; done) &";
        let held =
            format!("#!/bin/sh\nOPEN='{}'\n{script}\necho '{}'\n", open.display(), command::version_line());
        assert_eq!(probe(&program(dir.path(), &held), LONG), Ok(()));
        std::fs::remove_file(open).unwrap();
        for (script, why) in [
            ("#!/bin/sh\nexit 1\n", "exit status: 1"),
            ("#!/bin/sh\necho hello\n", "no agent"),
            ("#!/no/such/interpreter\n", "cannot be run"),
            ("#!/bin/sh\nkill -9 $$\n", "signal: 9"),
        ] {
            let problem = probe(&program(dir.path(), script), LONG).unwrap_err();
            assert!(problem.contains(why), "{script}: {problem}");
        }
    }

    #[test]
    fn an_upgrade_is_one_file_of_a_fit_size() {
        let tree = |path: &str, node: Node| Manifest {
            version: 1,
            kind: artifacts::Kind::Source,
            step: None,
            name: String::new(),
            single_file: false,
            created_ms: 1,
            bases: Vec::new(),
            entries: vec![artifacts::manifest::Entry { path: path.into(), node }],
        };
        let file = |size| Node::File { mode: 0o644, size, mtime_ms: 0, chunks: Vec::new() };
        assert_eq!(size_of(&tree(PROGRAM, file(7))), Ok(7));
        assert!(size_of(&tree(PROGRAM, file(MAX_PROGRAM + 1))).is_err());
        assert!(size_of(&tree("other", file(7))).is_err());
        assert!(size_of(&tree(PROGRAM, Node::Dir { mode: 0o755 })).is_err());
        let mut two = tree(PROGRAM, file(7));
        two.entries.push(two.entries[0].clone());
        assert!(size_of(&two).is_err());
    }
}
