//! Brings one machine up over SSH: looks what is there, puts the agent there
//! where it is not, then hands over the machine file and the one-time secret
//! and has the guard started. Each is one connection, may be cut off anywhere,
//! and may be repeated. The secret goes through a pipe; it is in no argument
//! and in no text that is told.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use lifecycle::MachineId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::ChildStdin;

use super::agents::{AgentFile, Agents};
use super::child::{Pipes, Ssh};
use super::command::{self, Talk};
use super::plan::{Address, End};
use super::right;
use crate::bootstrap;
use crate::core::Core;
use crate::provider::SshRoute;
use crate::reconcile::chain;

const SCRIPT: &str = include_str!("../../../cloud-init/bring-up.sh");
/// Reads the script by its length and runs it; the same in any login shell.
const READER: &str =
    r#"exec sh -c 'IFS= read -r n && s=$(dd bs=1 count="$n" 2>/dev/null) && eval "$s"' outlast"#;
/// What the machine says begins with this.
const SAID: &str = "outlast-said ";
/// No answer is longer.
const ANSWER: u64 = 64 << 10;
/// A look and a start take no longer.
const SHORT: Duration = Duration::from_secs(60);
/// Nor does an agent on its way.
const LONG: Duration = Duration::from_secs(900);

/// What a machine said of itself. Hostile: bounded, and checked where used.
#[derive(Debug, Default, PartialEq, Eq)]
struct Look {
    system: String,
    machine: String,
    base: String,
    agents: Vec<String>,
}

fn look_of(answer: &[String]) -> Result<Look, End> {
    let mut look = Look::default();
    for line in answer {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("system", rest) => {
                let (system, machine) = rest.split_once(' ').unwrap_or((rest, ""));
                (look.system, look.machine) = (system.to_owned(), machine.to_owned());
            }
            ("base", base) => base.clone_into(&mut look.base),
            ("agent", digest) if look.agents.len() < 16 => look.agents.push(digest.to_owned()),
            _ => {}
        }
    }
    if look.system.is_empty() || look.base.is_empty() {
        return Err(End::Remote { code: 0, text: "the machine's answer is not whole".into() });
    }
    Ok(look)
}

/// The lines of ours in an answer, without what a login printed.
fn said(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer);
    text.lines().filter_map(|line| line.split_once(SAID)).map(|(_, said)| said.trim().to_owned()).collect()
}

/// One machine to bring up.
pub(super) struct BringUp<'a> {
    pub(super) core: &'a Core,
    pub(super) id: MachineId,
    pub(super) route: &'a SshRoute,
    pub(super) address: Address,
    pub(super) agents: &'a Agents,
}

impl BringUp<'_> {
    /// Does all of it.
    pub(super) async fn run(&self) -> Result<(), End> {
        let agents = self.agents.clone();
        let ours = blocking(move || agents.all()).await?;
        let mut ask = String::from("look\n");
        self.line(&mut ask, self.base()?);
        for agent in &ours {
            self.line(&mut ask, &agent.digest);
        }
        ask.push('\n');
        let look = look_of(&self.talk(&ask, None, &[], SHORT).await?)?;
        let agents = self.agents.clone();
        let (system, machine) = (look.system.clone(), look.machine.clone());
        let agent = blocking(move || agents.for_machine(&system, &machine)).await?.map_err(End::Here)?;
        if !look.agents.contains(&agent.digest) {
            tracing::info!(machine = %self.id.short(), bytes = agent.bytes, "putting the agent there");
            let ask = format!("push\n{}\n{}\n{}\n", self.base()?, agent.digest, agent.bytes);
            self.talk(&ask, Some(&agent), &[], LONG).await?;
        }
        self.start(&look, &agent).await
    }

    async fn start(&self, look: &Look, agent: &AgentFile) -> Result<(), End> {
        let failed = |error: &dyn std::error::Error| End::Here(chain(error));
        let pin = self.core.authority.pin().map_err(|e| failed(&e))?;
        let cache = format!("{}/cache", look.base);
        let file = bootstrap::carried_machine_file(
            &self.id.to_string(),
            &self.core.hub.to_string(),
            &pin,
            Path::new(&cache),
        )
        .map_err(|e| failed(&e))?;
        let secret = right::mint(self.core, self.id).await.map_err(|e| failed(&e))?;
        let secret = secret.as_ref().map_or("", |secret| secret.reveal());
        let mut ask = format!("start\n{}\n{}\n{}\n{file}\n{secret}\n", self.base()?, self.id, agent.digest);
        for (name, value) in &self.route.env {
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
                && value.len() <= 1_024
                && !value.chars().any(char::is_control);
            if !plain {
                return Err(End::Here(format!("the variable {name:?} cannot be given to the machine")));
            }
            let _ = writeln!(ask, "{name}={value}");
        }
        ask.push('\n');
        self.talk(&ask, None, &[secret], SHORT).await?;
        Ok(())
    }

    fn base(&self) -> Result<&str, End> {
        command::base(self.route).map_err(|error| End::Here(error.to_string()))
    }

    fn line(&self, ask: &mut String, word: &str) {
        let _ = writeln!(ask, "{word}");
    }

    /// One connection: says all, reads what comes, waits for the end.
    async fn talk(
        &self,
        ask: &str,
        agent: Option<&AgentFile>,
        hidden: &[&str],
        most: Duration,
    ) -> Result<Vec<String>, End> {
        let talk = if agent.is_some() { Talk::Heavy } else { Talk::Brisk };
        let arguments: Vec<OsString> = command::arguments(self.route, self.address, talk, READER)
            .map_err(|error| End::Here(error.to_string()))?;
        let (mut ssh, Pipes { to, from }) = Ssh::start(&arguments)?;
        let opening = format!("{}\n{SCRIPT}{ask}", SCRIPT.len());
        let whole = async {
            let (sent, answer) = tokio::join!(send(to, &opening, agent), read(from));
            ssh.outcome(hidden).await?;
            sent.map_err(|error| End::Here(format!("the agent's file cannot be sent: {error}")))?;
            let answer = said(&answer);
            if answer.last().is_none_or(|last| last != "done") {
                return Err(End::Remote { code: 0, text: "the machine's answer is not whole".into() });
            }
            Ok(answer)
        };
        match tokio::time::timeout(most, whole).await {
            Ok(done) => done,
            Err(_) => Err(End::Unconnected(format!("it took longer than {} s", most.as_secs()))),
        }
    }
}

/// A peer that goes away while it is told something says why in its end.
async fn send(mut to: ChildStdin, opening: &str, agent: Option<&AgentFile>) -> std::io::Result<()> {
    if to.write_all(opening.as_bytes()).await.is_err() {
        return Ok(());
    }
    if let Some(agent) = agent {
        let mut file = tokio::fs::File::open(&agent.path).await?;
        let mut piece = vec![0; 256 << 10];
        loop {
            match file.read(&mut piece).await? {
                0 => break,
                n => {
                    if to.write_all(&piece[..n]).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
    let _ = to.shutdown().await;
    Ok(())
}

async fn read(from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut from = from.take(ANSWER);
    let _ = from.read_to_end(&mut answer).await;
    answer
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, End> {
    tokio::task::spawn_blocking(work).await.map_err(|error| End::Here(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_prints_things_is_understood_and_half_an_answer_is_none() {
        let answer =
            b"Welcome!\n\x1b[0moutlast-said system Linux x86_64\r\nmotd\noutlast-said base /srv/outlast\n\
            outlast-said agent abc\noutlast-said done\nbye\n";
        let look = look_of(&said(answer)).unwrap();
        assert_eq!((look.system.as_str(), look.machine.as_str()), ("Linux", "x86_64"));
        assert_eq!((look.base.as_str(), look.agents), ("/srv/outlast", vec!["abc".to_owned()]));
        for bad in ["", "outlast-said base /x\n", "outlast-said system Linux x86_64\n", "outlast-said \n"] {
            assert!(look_of(&said(bad.as_bytes())).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_reader_holds_for_any_shell_and_the_script_is_small() {
        // One pair of single quotes, and nothing that a C shell or fish takes
        // for something else inside.
        assert_eq!(READER.matches('\'').count(), 2);
        assert!(!READER.contains('!'));
        assert!(SCRIPT.len() < 5_000, "{} bytes", SCRIPT.len());
        assert!(SCRIPT.is_ascii(), "its length is counted in bytes");
    }
}
