//! Runs a person's own program for one message: no shell, the message on its
//! input and in no argument, little of the controller's environment (the keys
//! of accounts are in it), and an end with a date.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::outbox::Outcome;
use crate::provider::end_group;

const PATIENCE: Duration = Duration::from_secs(30);
/// What a program says on its error output is kept this far.
const SAID: usize = 300;
/// What such programs need to find their way.
const PASSED: [&str; 10] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
];

/// Runs it with `body` on its input.
pub(super) async fn send(argv: &[String], body: &str) -> Outcome {
    let Some((program, arguments)) = argv.split_first() else {
        return Outcome::Refused("it names no program".into());
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.envs(PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    // Whatever it starts ends with it.
    command.process_group(0).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::Away(format!("it cannot be started: {error}")),
    };
    let leader = child.id();
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let talk = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input is none the worse.
                let _ = stdin.write_all(body.as_bytes()).await;
            }
        };
        let read = async {
            let Some(mut stderr) = stderr else { return Vec::new() };
            let (mut said, mut piece) = (Vec::new(), [0_u8; 4_096]);
            while let Ok(count @ 1..) = stderr.read(&mut piece).await {
                let room = SAID.saturating_sub(said.len());
                said.extend_from_slice(&piece[..count.min(room)]);
            }
            said
        };
        let ((), said, status) = tokio::join!(write, read, child.wait());
        (said, status)
    };
    let ended = tokio::time::timeout(PATIENCE, talk).await;
    match ended {
        Ok((_, Ok(status))) if status.success() => Outcome::Taken,
        Ok((said, Ok(status))) => {
            let text = String::from_utf8_lossy(&said);
            let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            Outcome::Refused(format!("it ended with {status}: {}", clean.trim()))
        }
        Ok((_, Err(error))) => Outcome::Away(format!("its end was not seen: {error}")),
        Err(_) => {
            if let Some(leader) = leader {
                end_group(leader);
            }
            Outcome::Away(format!("it did not end within {PATIENCE:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(line: &str) -> Vec<String> {
        ["sh", "-c", line].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn a_program_gets_the_message_and_its_end_says_whether_it_was_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("heard");
        let body = "x".repeat(200_000);
        assert_eq!(send(&sh(&format!("cat >{}", file.display())), &body).await, Outcome::Taken);
        assert_eq!(std::fs::read_to_string(&file).unwrap().len(), body.len());
        assert_eq!(send(&sh("exit 0"), &body).await, Outcome::Taken, "it need not read");
        let Outcome::Refused(why) = send(&sh("printf 'no\\033[31m' >&2; exit 3"), "{}").await else {
            panic!()
        };
        assert!(why.contains("exit status: 3") && why.contains("no") && !why.contains('\u{1b}'), "{why}");
        let loud = send(&sh("yes | head -c 1000000 >&2; exit 4"), "{}").await;
        assert!(matches!(&loud, Outcome::Refused(why) if why.len() < 400), "{loud:?}");
        assert!(matches!(send(&["/no/such".into()], "{}").await, Outcome::Away(_)));
    }
}
