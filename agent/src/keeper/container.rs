//! A program that runs in a container: how its end is told from an end of the
//! container tool, and how no container is left. What builds the command line
//! is `environment`; nothing here pulls, builds or configures anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lifecycle::Exit;
use serde::{Deserialize, Serialize};

/// Bytes of the tool's last words that are looked at.
const WORDS: usize = 2_048;
const REMOVE_TRIES: u32 = 3;
const LOOK: Duration = Duration::from_millis(10);

/// The container of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRef {
    /// `podman` or `docker`, with its whole path.
    pub tool: PathBuf,
    /// The container's name.
    pub name: String,
    /// A file that the tool writes: podman once the program runs, docker once
    /// the container exists.
    pub mark: PathBuf,
}

impl ContainerRef {
    fn is_docker(&self) -> bool {
        self.tool.file_name().is_some_and(|name| name == "docker")
    }

    /// Asks the program to end, once it runs; whether it was asked. Never the
    /// tool in its place: until it has attached it takes the signal for itself.
    pub(super) fn terminate(&self, env: &BTreeMap<String, String>, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        self.mark.exists() && run(&self.tool, &["kill", "--signal", "TERM", &self.name], env, until, true)
    }

    /// Ends the container and removes it, whatever became of the tool that
    /// started it; done within `patience` or not at all. To be called before
    /// the processes themselves are killed: podman cannot clear away a
    /// container whose monitor was killed in one try, and without root it then
    /// refuses everything else too.
    pub(crate) fn remove(&self, env: &BTreeMap<String, String>, patience: Duration) {
        let until = Instant::now() + patience;
        run(&self.tool, &["kill", &self.name], env, until, false);
        let remove: &[&str] = if self.is_docker() { &["rm", "-f"] } else { &["rm", "-f", "--ignore"] };
        for _ in 0..REMOVE_TRIES {
            if run(&self.tool, &[remove, &[&self.name]].concat(), env, until, false) {
                break;
            }
        }
    }

    /// The exit of the tool as the exit of the program: 125, 126 and 127 are
    /// the tool's own where the program never ran, and an init inside the
    /// container may not find the program.
    pub(super) fn exit(&self, exit: Exit, last_words: &[u8]) -> Exit {
        let Exit::Code { code } = exit else { return exit };
        let words = String::from_utf8_lossy(last_words);
        match refusal(self.is_docker(), self.mark.exists(), code, &words) {
            Some(why) => {
                let tool = if self.is_docker() { "docker" } else { "podman" };
                Exit::NotStarted { reason: format!("{tool} did not start the command ({code}): {why}") }
            }
            None => Exit::Code { code },
        }
    }
}

/// Why the program was not run, or `None` where it ran.
fn refusal(is_docker: bool, has_mark: bool, code: i32, words: &str) -> Option<String> {
    let last = words.lines().rev().map(str::trim).find(|line| !line.is_empty());
    // catatonit and tini become the program, or say why not and end.
    let init = last.filter(|line| {
        (line.starts_with("ERROR (catatonit:") && line.contains("failed to exec"))
            || (line.starts_with("[FATAL tini (") && line.contains("] exec "))
    });
    if let (Some(line), 1 | 126 | 127) = (init, code) {
        return Some(format!("it is not in the image, or cannot be run there: {line}"));
    }
    if !(125..=127).contains(&code) {
        return None;
    }
    // Docker marks a container before it runs the program, and says who spoke.
    let speaks = |line: &&str| line.starts_with("docker: ") || line.starts_with("Error: ");
    let said = words.lines().rev().map(str::trim).find(speaks);
    if has_mark && !(is_docker && said.is_some_and(|line| line.starts_with("docker: "))) {
        return None;
    }
    Some(said.or(last).unwrap_or("it said nothing").chars().take(400).collect())
}

/// Keeps the end of what was written.
pub(super) fn remember(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(&bytes[bytes.len().saturating_sub(WORDS)..]);
    let over = tail.len().saturating_sub(WORDS);
    tail.drain(..over);
}

/// Runs the tool; whether it succeeded in time.
/// Runs the tool to its end. `late`: what counts where it does not come to its
/// end in time.
fn run(tool: &Path, args: &[&str], env: &BTreeMap<String, String>, until: Instant, late: bool) -> bool {
    let mut command = Command::new(tool);
    command.args(args).env_clear().envs(env).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < until => std::thread::sleep(LOOK),
            // Asked it was: a second signal would be taken for impatience.
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return late;
            }
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_of_the_tool_is_told_from_one_of_the_program() {
        let podman = "Error: short-name \"nosuch\" did not resolve to an alias\n";
        assert!(refusal(false, false, 125, podman).unwrap().contains("short-name"));
        assert_eq!(refusal(false, true, 125, podman), None, "the program ran and exited with 125 itself");
        let docker = "docker: Error response from daemon: exec: \"x\": not found.\n\nRun 'docker run --help' for more information\n";
        assert!(refusal(true, true, 127, docker).unwrap().starts_with("docker: Error response"));
        assert_eq!(refusal(true, true, 126, "Error: my own\n"), None);
        assert_eq!(refusal(false, false, 125, "").unwrap(), "it said nothing");
        let catatonit = "ERROR (catatonit:2): failed to exec pid1: No such file or directory\n";
        assert!(refusal(false, true, 1, catatonit).unwrap().contains("not in the image"));
        let tini = "[FATAL tini (7)] exec /no/such failed: No such file or directory\n";
        assert!(refusal(true, true, 127, tini).unwrap().contains("/no/such"));
        assert_eq!(refusal(false, true, 1, "my own words\n"), None);
        assert_eq!(refusal(false, false, 3, podman), None);
    }

    #[test]
    fn other_codes_are_the_programs_and_only_the_end_is_kept() {
        let container =
            ContainerRef { tool: "/usr/bin/podman".into(), name: "a".into(), mark: "/nonexistent".into() };
        assert_eq!(container.exit(Exit::Code { code: 3 }, b"Error: x"), Exit::Code { code: 3 });
        let exit = container.exit(Exit::Code { code: 127 }, b"Error: crun: executable file `x` not found");
        assert!(
            matches!(&exit, Exit::NotStarted { reason } if reason.contains("(127)") && reason.contains("crun"))
        );
        let mut tail = vec![b'a'; 10];
        remember(&mut tail, &vec![b'b'; WORDS - 3]);
        remember(&mut tail, b"cd");
        assert_eq!((tail.len(), &tail[WORDS - 3..]), (WORDS, &b"bcd"[..]));
    }
}
