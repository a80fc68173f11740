//! The controller of another computer: where it is, who this device is to it,
//! and the way there. A data directory that has such a file (`remote.json`, one
//! file, replaced whole) speaks with that controller and starts none of its
//! own. The device's key is made here, is only ever read from that file, and
//! never leaves; what authority it has is a certificate that lives for hours and
//! that only a login over SSH renews.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use controller::carrier::errand::{self, Line, Login};
use lifecycle::HubId;
use proto::pki::{Credentials, MachineKey};
use proto::v1::operator_client::OperatorClient;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use crate::client::{ANSWER_LIMIT, Client};
use crate::exit_code::{ExitCode, Failure};

pub mod carry;
mod place;

pub use place::Place;

/// The file's name in the data directory.
pub const FILE: &str = "remote.json";
/// A login, and the start of a controller there.
const LONG: Duration = Duration::from_secs(60);
/// A certificate that runs out within this is renewed first.
const MARGIN_S: i64 = 15 * 60;

/// What `outlast controller admit` prints.
#[derive(Serialize, Deserialize)]
pub struct Admitted {
    /// The installation.
    pub hub: HubId,
    /// The certificate, leaf first, PEM.
    pub chain: String,
    /// The root, PEM.
    pub root: String,
    /// Unix milliseconds at which it runs out.
    pub until_ms: u64,
    /// The version there.
    pub version: String,
    /// The schema of the database there.
    pub schema: u32,
}

/// `remote.json`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Remote {
    to: String,
    remote_home: Option<String>,
    remote_program: Option<String>,
    /// The installation there.
    pub hub: HubId,
    /// This device's name there.
    pub device: String,
    key: String,
    chain: String,
    root: String,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("to", &self.to).field("hub", &self.hub).finish_non_exhaustive()
    }
}

fn damaged(path: &Path, problem: &str) -> Failure {
    Failure::new(ExitCode::BadInput, format!("{} cannot be read: {problem}", path.display()))
        .help("log in again: `outlast logout`, then `outlast login [USER@]HOST`")
}

/// The controller elsewhere that this data directory speaks with, if it does.
///
/// # Errors
/// Where the file is damaged: then nothing is started here either.
pub fn read(home: &Path) -> Result<Option<Remote>, Failure> {
    let path = home.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(damaged(&path, &error.to_string())),
    };
    serde_json::from_str(&text).map(Some).map_err(|_| damaged(&path, "it is no login"))
}

/// Forgets it; `false`: there was none.
///
/// # Errors
/// Where the file cannot be removed.
pub fn forget(home: &Path) -> io::Result<bool> {
    match std::fs::remove_file(home.join(FILE)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Refuses another version than this program's.
///
/// # Errors
/// Where they differ in what they keep and say.
pub fn same_version(to: &Login, version: &str, schema: u32) -> Result<(), Failure> {
    if schema == controller::store::SCHEMA {
        return Ok(());
    }
    let why = format!(
        "versions differ: the outlast on {to} is {} with data of version {schema}, this one is {} with {}",
        crate::printer::safe(version),
        proto::VERSION,
        controller::store::SCHEMA
    );
    Err(Failure::new(ExitCode::Unreachable, why).help("install the same version of outlast on both sides"))
}

/// Has the controller at `place` sign a certificate for a key of this device.
async fn admitted(place: &Place, device: &str, key: &MachineKey) -> Result<Admitted, Failure> {
    let internal = |error: proto::pki::PkiError| Failure::new(ExitCode::Internal, error.to_string());
    let request = key.request_pem().map_err(internal)?;
    let words = format!("controller admit --name={device}");
    let answer: Admitted =
        Box::pin(place.ask(&words, LONG, async move |to| to.write_all(request.as_bytes()).await)).await?;
    same_version(&place.login, &answer.version, answer.schema)?;
    Ok(answer)
}

impl Remote {
    /// Logs this device in at `place`, with a new key.
    ///
    /// # Errors
    /// Why it was not admitted.
    pub async fn login(place: &Place, device: &str) -> Result<Self, Failure> {
        let internal = |error: proto::pki::PkiError| Failure::new(ExitCode::Internal, error.to_string());
        let key = MachineKey::generate().map_err(internal)?;
        let answer = Box::pin(admitted(place, device, &key)).await?;
        Ok(Self {
            to: place.login.to_string(),
            remote_home: place.home.clone(),
            remote_program: place.program.clone(),
            hub: answer.hub,
            device: device.to_owned(),
            key: key.to_pem(),
            chain: answer.chain,
            root: answer.root,
        })
    }

    /// Writes the file whole or not at all, for its owner alone.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write(&self, home: &Path) -> Result<(), Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let failed = |why: String| Failure::new(ExitCode::CannotWrite, why);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home);
        made.map_err(|error| failed(format!("cannot make {}: {error}", home.display())))?;
        let text = serde_json::to_vec(self).map_err(|error| failed(error.to_string()))?;
        controller::home::write_file(&home.join(FILE), &text, 0o600)
            .map_err(|error| failed(error.to_string()))
    }

    /// Where it is.
    ///
    /// # Errors
    /// Where the file was damaged.
    pub fn place(&self) -> Result<Place, Failure> {
        Place::new(&self.to, self.remote_home.as_deref(), self.remote_program.as_deref())
    }

    /// `[user@]host`.
    #[must_use]
    pub fn to(&self) -> &str {
        &self.to
    }

    /// What this device shows.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        Credentials { chain_pem: self.chain.clone(), key_pem: self.key.clone() }
    }

    /// The root of the installation, PEM.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Unix seconds after which the certificate is void; 0 if it is unreadable.
    fn until_s(&self) -> i64 {
        self.credentials().validity().map_or(0, |(_, until)| until)
    }

    /// The same with a fresh certificate for the same key.
    async fn renewed(&self, home: &Path) -> Result<Self, Failure> {
        let place = self.place()?;
        let key =
            MachineKey::from_pem(&self.key).map_err(|_| damaged(&home.join(FILE), "it holds no key"))?;
        let answer = Box::pin(admitted(&place, &self.device, &key)).await?;
        if answer.hub != self.hub || answer.root != self.root {
            let why =
                format!("another installation answers on {}: this device logged in to {}", self.to, self.hub);
            return Err(Failure::new(ExitCode::Denied, why)
                .help(format!("if that is right, log in anew: outlast login {}", self.to)));
        }
        let fresh = Self { chain: answer.chain, ..self.clone() };
        fresh.write(home)?;
        Ok(fresh)
    }

    /// A connection to it, with a certificate that is good for a while.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self, home: &Path) -> Result<Client, Failure> {
        let fresh;
        let current = if self.until_s() > now_s() + MARGIN_S {
            self
        } else {
            fresh = Box::pin(self.renewed(home)).await?;
            &fresh
        };
        Box::pin(current.reach()).await
    }

    /// One connection, carried by the user's SSH client.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn reach(&self) -> Result<Client, Failure> {
        let place = self.place()?;
        let unreachable = |why: String| Failure::new(ExitCode::Unreachable, why);
        let tls = proto::tls::client(&self.root, &self.credentials(), Arc::new(SystemTime::now))
            .map_err(|error| unreachable(format!("{error} (in {FILE})")))?;
        let name = proto::tls::expected_name(self.hub).map_err(|error| unreachable(error.to_string()))?;
        let line = Box::pin(errand::carry(&place.login, &place.command("controller link"), LONG)).await;
        let line = line.map_err(|error| place.failure(&error))?;
        // One connection for one client: who needs another one asks for it, since
        // it takes longer than a channel would wait.
        let one: Arc<Mutex<Option<Line>>> = Arc::new(Mutex::new(Some(line)));
        let dial = move || {
            let line = one.lock().unwrap_or_else(PoisonError::into_inner).take();
            let ended = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
            std::future::ready(line.ok_or_else(ended))
        };
        let channel = proto::channel::over(&self.to, dial, tls, name).await.map_err(|error| {
            unreachable(format!("the controller on {} does not answer: {}", self.to, deepest(&error)))
        })?;
        Ok(Client {
            operator: OperatorClient::new(channel.clone()).max_decoding_message_size(ANSWER_LIMIT),
            store: proto::gateway::RemoteStore::over(channel),
        })
    }
}

fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Where the controller of this data directory is, if it is not here: a login or
/// a mark of a move says so.
///
/// # Errors
/// Where such a file is damaged.
pub fn elsewhere(home: &Path) -> Result<Option<Place>, Failure> {
    if let Some(remote) = read(home)? {
        return remote.place().map(Some);
    }
    let mark = controller::moved::moved(home)
        .map_err(|error| Failure::new(ExitCode::BadInput, error.to_string()))?;
    mark.map(|mark| Place::new(&mark.to, mark.remote_home.as_deref(), Some(&mark.program))).transpose()
}

/// Refuses what is done on the controller's own computer alone, where that is
/// another one.
///
/// # Errors
/// That, and where to do it.
pub fn only_there(home: &Path, words: &str) -> Result<(), Failure> {
    let Some(place) = elsewhere(home)? else { return Ok(()) };
    let why = format!("the controller of this data directory is on {}, and this is done there", place.login);
    Err(Failure::new(ExitCode::Elsewhere, why).help(format!("run it there: {}", place.typed(words))))
}

/// Refuses to start a controller where its state was moved away.
///
/// # Errors
/// That, and how to reach it.
pub fn not_moved(home: &Path) -> Result<(), Failure> {
    let mark = controller::moved::moved(home)
        .map_err(|error| Failure::new(ExitCode::BadInput, error.to_string()))?;
    let Some(mark) = mark else { return Ok(()) };
    let directory =
        mark.remote_home.as_ref().map_or_else(String::new, |home| format!(" --remote-home {home}"));
    let (why, help) = if mark.settled {
        let help = format!("outlast login {}{directory} --remote-program {}", mark.to, mark.program);
        (format!("the state of this data directory was moved to {}", mark.to), help)
    } else {
        let help = format!("go on with it: outlast controller deploy {}{directory}", mark.to);
        (format!("the state of this data directory is on its way to {}", mark.to), help)
    };
    Err(Failure::new(ExitCode::Elsewhere, format!("{why}, and no controller may start here")).help(help))
}

/// The file of the usual place, for messages.
#[must_use]
pub fn path(home: &Path) -> PathBuf {
    home.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_differ_are_told_with_both() {
        let to: Login = "box".parse().unwrap();
        let schema = controller::store::SCHEMA;
        assert!(same_version(&to, proto::VERSION, schema).is_ok());
        let why = same_version(&to, "9.9\x1b", schema + 1).unwrap_err().message;
        assert!(why.contains("9.9") && why.contains(proto::VERSION) && !why.contains('\x1b'), "{why}");
    }

    #[test]
    fn a_damaged_login_is_told_and_shows_no_key() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_none());
        std::fs::write(dir.path().join(FILE), "{\"key\": \"s3cret\"").unwrap();
        let failure = read(dir.path()).unwrap_err();
        assert!(!failure.message.contains("s3cret"), "{failure:?}");
    }
}
