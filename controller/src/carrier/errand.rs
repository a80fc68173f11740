//! One command on a computer where the user has a login, over the user's own
//! SSH client: asked nothing, its host key known strictly, and no secret in an
//! argument, there or here. Whatever must not be seen goes through standard
//! input. What comes back is bounded and not believed; who is at the other end
//! of a carried connection is decided by TLS alone.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use proto::link::{self, Finder};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, ReadBuf};
use tokio::process::{ChildStdin, ChildStdout};

use super::child::{Pipes, Ssh};
use super::command::{self, Talk};
use super::plan::{Address, End};
use crate::provider::ssh::trouble::{Trouble, judge};
use crate::provider::{HostKeys, SshAddress, SshRoute};

/// No answer is longer.
const ANSWER: u64 = 1 << 20;
/// Lines of what was said there that are told.
const LINES: usize = 12;
/// The longest of them.
const LINE: usize = 400;

/// Standard input of what runs there.
pub type Pipe = ChildStdin;

/// Where the user has a login: `[user@]host`, as in `ssh [user@]host`. A port, a
/// key or a way there stand in the user's own `~/.ssh/config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    user: Option<String>,
    host: String,
}

/// It is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write [USER@]HOST, as for `ssh`; a port goes into ~/.ssh/config")]
pub struct BadLogin;

fn word(text: &str, more: &str) -> bool {
    (1..=255).contains(&text.len())
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

impl FromStr for Login {
    type Err = BadLogin;

    fn from_str(text: &str) -> Result<Self, BadLogin> {
        let (user, host) = text.rsplit_once('@').map_or((None, text), |(user, host)| (Some(user), host));
        let good = user.is_none_or(|user| word(user, "._-@+")) && word(host, "._-:%");
        let login = Self { user: user.map(str::to_owned), host: host.to_owned() };
        if good { Ok(login) } else { Err(BadLogin) }
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.host)
    }
}

/// Why an errand came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErrandError {
    /// Nothing ran there.
    #[error("{problem}")]
    Before {
        /// What is wrong, in one line.
        problem: String,
        /// What a person can do.
        cure: String,
        /// It is a question of trust or rights, not of the network.
        refused: bool,
    },
    /// It ran there and failed.
    #[error("{said}")]
    Remote {
        /// Its exit code.
        code: i32,
        /// The last lines it said, fit to be shown.
        said: String,
    },
    /// It was cut off or took too long: what it did is not known.
    #[error("{0}")]
    Cut(String),
}

fn arguments(login: &Login, talk: Talk, remote: &str) -> Result<Vec<std::ffi::OsString>, ErrandError> {
    let route = SshRoute {
        address: SshAddress { host: login.host.clone(), port: None, user: login.user.clone() },
        fallback: None,
        identity: None,
        host_keys: HostKeys::Known { known_hosts: None },
        options: Vec::new(),
        base: ".".into(),
        env: std::collections::BTreeMap::new(),
    };
    command::arguments(&route, Address::First, talk, remote).map_err(|error| here(error.to_string()))
}

fn here(problem: String) -> ErrandError {
    let cure = "install OpenSSH's client, or name it in OUTLAST_SSH".to_owned();
    ErrandError::Before { problem, cure, refused: false }
}

fn start(login: &Login, talk: Talk, remote: &str) -> Result<(Ssh, Pipes), ErrandError> {
    Ssh::start(&arguments(login, talk, remote)?).map_err(|end| match end {
        End::Here(why) => here(why),
        _ => here("the SSH client cannot be started".into()),
    })
}

/// What a failed end means.
fn failed(login: &Login, code: Option<i32>, said: &str) -> ErrandError {
    match code {
        // A client that could not connect ends so, or one that lost its connection.
        Some(255) => {
            let trouble = judge(code, said);
            let to = login.to_string();
            let cure = match &trouble {
                Trouble::NoSuchHost(_) => "correct the name, or add the host to ~/.ssh/config".to_owned(),
                Trouble::Settings(_) => "correct ~/.ssh/config".to_owned(),
                Trouble::Refused(_) => {
                    format!(
                        "make `ssh -o BatchMode=yes {to} true` work: a key in the agent, and the right user"
                    )
                }
                other => other.cure(&to),
            };
            let refused = matches!(trouble, Trouble::ChangedKey | Trouble::UnknownKey | Trouble::Refused(_));
            ErrandError::Before { problem: format!("{to}: {}", trouble.problem()), cure, refused }
        }
        Some(code) => ErrandError::Remote { code, said: shown(said) },
        None => ErrandError::Cut(format!("the SSH client for {login} was killed")),
    }
}

/// The last lines of a foreign text, fit for a terminal.
fn shown(said: &str) -> String {
    let lines: Vec<String> = said
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).take(LINE).collect::<String>().trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let text = lines[lines.len().saturating_sub(LINES)..].join("\n");
    if text.is_empty() { "it said nothing".into() } else { text }
}

/// Runs `remote` there with what `send` writes as its input, and gives what it
/// printed.
///
/// # Errors
/// Where it did not run to a good end within `most`, or `send` failed here.
pub async fn ask(
    login: &Login,
    remote: &str,
    most: Duration,
    send: impl AsyncFnOnce(&mut Pipe) -> io::Result<()>,
) -> Result<Vec<u8>, ErrandError> {
    let (mut ssh, Pipes { mut to, from }) = start(login, Talk::Heavy, remote)?;
    let whole = async {
        let sending = async move {
            let sent = send(&mut to).await;
            let _ = to.shutdown().await;
            sent
        };
        let (sent, answer) = tokio::join!(sending, read(from));
        match ssh.last_words().await {
            (Some(0), _) => {}
            (code, said) => return Err(failed(login, code, &said)),
        }
        // Whoever goes away while it is told something says why in its end.
        match sent {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(ErrandError::Cut(error.to_string()))
            }
            _ => Ok(answer),
        }
    };
    match tokio::time::timeout(most, whole).await {
        Ok(done) => done,
        Err(_) => Err(ErrandError::Cut(format!("{login}: it took longer than {} s", most.as_secs()))),
    }
}

async fn read(from: ChildStdout) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = from.take(ANSWER).read_to_end(&mut answer).await;
    answer
}

/// A connection through a login. Dropping it ends the client.
pub struct Line {
    from: BufReader<ChildStdout>,
    to: ChildStdin,
    _ssh: Ssh,
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.from).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.to).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_shutdown(cx)
    }
}

/// Runs `remote` there, which says [`link::operators_line`] and from then on
/// carries a connection.
///
/// # Errors
/// Where the line does not come within `most`.
pub async fn carry(login: &Login, remote: &str, most: Duration) -> Result<Line, ErrandError> {
    let (mut ssh, Pipes { to, from }) = start(login, Talk::Brisk, remote)?;
    let mut from = BufReader::new(from);
    let wanted = link::operators_line();
    let words = async {
        let mut finder = Finder::default();
        loop {
            let Ok(byte) = from.read_u8().await else {
                let (code, said) = ssh.last_words().await;
                return Err(match code {
                    Some(0) => ErrandError::Remote { code: 0, said: shown(&said) },
                    code => failed(login, code, &said),
                });
            };
            match finder.push(byte, &wanted) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(why) => return Err(ErrandError::Cut(format!("{login}: {why}"))),
            }
        }
    };
    match tokio::time::timeout(most, words).await {
        Ok(Ok(())) => Ok(Line { from, to, _ssh: ssh }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ErrandError::Cut(format!("{login}: no answer within {} s", most.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_one_word_for_ssh_and_never_an_option() {
        for good in ["box", "me@box", "me@10.0.0.7", "a.b@c@gate", "fe80::1%eth0"] {
            assert_eq!(good.parse::<Login>().unwrap().to_string(), good);
        }
        for bad in ["", "@box", "me@", "-oProxyCommand=x", "me@-x", "a b", "me@h;x", "$(x)", "me@h\nx"] {
            assert_eq!(bad.parse::<Login>(), Err(BadLogin), "{bad}");
        }
    }

    #[test]
    fn the_client_is_asked_nothing_and_believes_only_keys_it_knows() {
        let login: Login = "me@box".parse().unwrap();
        let line = arguments(&login, Talk::Brisk, "true").unwrap();
        let line: Vec<String> = line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let text = line.join(" ");
        for wanted in ["BatchMode=yes", "StrictHostKeyChecking=yes", "ForwardAgent=no", "-l me -- box true"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(!text.contains("KnownHostsFile"), "the user's own: {text}");
    }

    #[test]
    fn a_failure_says_whether_anything_ran_there() {
        let login: Login = "box".parse().unwrap();
        let changed = "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n";
        let ErrandError::Before { problem, cure, refused } = failed(&login, Some(255), changed) else {
            panic!("it did not connect")
        };
        assert!(problem.contains("CHANGED") && cure.contains("ssh-keygen -R") && refused, "{problem} {cure}");
        let ran = failed(&login, Some(66), "motd\x1b[2J\nerror: nothing there\n");
        assert_eq!(ran, ErrandError::Remote { code: 66, said: "motd[2J\nerror: nothing there".into() });
        assert!(matches!(failed(&login, None, ""), ErrandError::Cut(_)));
        assert_eq!(shown(&"x\n".repeat(100)).lines().count(), LINES);
    }
}
