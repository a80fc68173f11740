//! The machine's own key and certificate. The key is made here and never
//! leaves; a one-time secret binds it, and later the key alone renews the
//! certificate, even an expired one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lifecycle::HubId;
use proto::channel::Channel;
use proto::pki::{Credentials, MachineKey, PkiError};
use proto::v1::join_client::JoinClient;
use proto::v1::{self};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::os;

/// What the first boot wrote: `machine.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineFile {
    /// This machine.
    pub machine_id: String,
    /// The installation it belongs to.
    pub hub_id: HubId,
    /// Who dials whom.
    #[serde(default)]
    pub carrier: CarrierKind,
    /// `host:port` of the agents' listener; none where the controller dials.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// `host:port` of the join listener; none where the controller dials.
    #[serde(default)]
    pub join_endpoints: Vec<String>,
    /// The root's key, SHA-256 hex.
    pub ca_spki_sha256: String,
    /// Where environments are cached.
    pub cache_dir: PathBuf,
    /// `address:port` to answer for this machine's health at; port 0 is any.
    /// Absent: nobody is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_listen: Option<String>,
}

/// Who dials whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CarrierKind {
    /// This machine dials the controller.
    #[default]
    Dial,
    /// The controller dials over SSH, and this machine takes what comes.
    Accepted,
}

/// Why the machine has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing or unusable.
    #[error("{path}: {problem}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Keys.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The controller refused or could not be asked.
    #[error("the controller refused: {0}")]
    Refused(String),
}

fn file_error(path: &Path, problem: impl std::fmt::Display) -> IdentityError {
    IdentityError::File { path: path.to_owned(), problem: format!("{problem}") }
}

/// Reads `machine.json`.
///
/// # Errors
/// Where it is missing or does not parse.
pub fn machine_file(state: &Path) -> Result<MachineFile, IdentityError> {
    let path = state.join("machine.json");
    let bytes = os::read_bounded(&path, 64 << 10).map_err(|e| file_error(&path, e))?;
    serde_json::from_slice(&bytes).map_err(|e| file_error(&path, e))
}

/// Counts the starts of the agent on this machine; durable before it is used.
///
/// # Errors
/// Where the disk refuses.
pub fn next_incarnation(state: &Path) -> Result<u64, IdentityError> {
    let path = state.join("incarnation");
    let before = match os::read_bounded(&path, 64) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().parse().unwrap_or(0),
        Err(_) => 0_u64,
    };
    os::write_durable(&path, (before + 1).to_string().as_bytes()).map_err(|e| file_error(&path, e))?;
    Ok(before + 1)
}

/// Certificate with key, and the root, PEM; `None` before the machine joined.
pub type Held = Option<(Credentials, String)>;

/// The key and, once joined, the certificate.
pub struct Identity {
    state: PathBuf,
    machine: String,
    key: Arc<MachineKey>,
    credentials: Held,
    /// Tells whoever serves with the certificate that there is a newer one.
    told: watch::Sender<Held>,
}

impl Identity {
    /// Takes up what is on disk, or makes a key.
    ///
    /// # Errors
    /// Where the disk refuses or holds something else.
    pub fn open(state: &Path, machine: &str) -> Result<Self, IdentityError> {
        let path = state.join("machine.key");
        let key = match os::read_bounded(&path, 16 << 10) {
            Ok(bytes) => MachineKey::from_pem(&String::from_utf8_lossy(&bytes))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let key = MachineKey::generate()?;
                os::write_durable(&path, key.to_pem().as_bytes()).map_err(|e| file_error(&path, e))?;
                key
            }
            Err(e) => return Err(file_error(&path, e)),
        };
        let text = |name: &str| {
            os::read_bounded(&state.join(name), 64 << 10).ok().and_then(|b| String::from_utf8(b).ok())
        };
        let credentials = match (text("machine.pem"), text("ca.pem")) {
            (Some(chain_pem), Some(ca)) => Some((Credentials { chain_pem, key_pem: key.to_pem() }, ca)),
            _ => None,
        };
        let told = watch::Sender::new(credentials.clone());
        Ok(Self {
            state: state.to_owned(),
            machine: machine.to_owned(),
            key: Arc::new(key),
            credentials,
            told,
        })
    }

    /// What there is now, and each renewal from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Held> {
        self.told.subscribe()
    }

    /// Certificate, key and root, if they are worth using now.
    #[must_use]
    pub fn usable(&self, now: SystemTime) -> Option<(&Credentials, &str, Duration)> {
        let (credentials, ca) = self.credentials.as_ref()?;
        let (from, until) = credentials.validity().ok()?;
        let now = i64::try_from(now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok()?;
        if now < from {
            // Made while this clock was ahead: nobody accepts it now.
            return None;
        }
        let half = from + (until - from) / 2;
        let left = u64::try_from(half - now).ok()?;
        Some((credentials, ca, Duration::from_secs(left)))
    }

    /// Joins with the one-time secret, or renews by the bound key.
    ///
    /// # Errors
    /// Where the controller refuses or the disk does.
    pub async fn obtain(&mut self, channel: Channel) -> Result<(), IdentityError> {
        let mut client = JoinClient::new(channel);
        let refused = |s: tonic::Status| IdentityError::Refused(s.message().to_owned());
        let token = self.state.join("join.token");
        let secret = os::read_bounded(&token, 1 << 10).ok();
        let csr = self.key.request()?;
        let certificate = match (&self.credentials, secret) {
            (None, Some(secret)) => {
                let facts = v1::MachineFacts {
                    boot_id: os::boot_id().to_owned(),
                    hostname: String::new(),
                    version: proto::VERSION.to_owned(),
                    build_id: String::new(),
                };
                let secret = String::from_utf8_lossy(&secret).trim().to_owned();
                let ask =
                    v1::RedeemRequest { machine_id: self.machine.clone(), secret, csr, facts: Some(facts) };
                client.redeem(ask).await.map_err(refused)?.into_inner()
            }
            _ => {
                let ask = v1::ChallengeRequest { machine_id: self.machine.clone() };
                let nonce = client.challenge(ask).await.map_err(refused)?.into_inner().nonce;
                let signature = self.key.sign_rejoin(&nonce)?;
                let ask = v1::RejoinRequest { machine_id: self.machine.clone(), nonce, csr, signature };
                client.rejoin(ask).await.map_err(refused)?.into_inner()
            }
        };
        for (name, text) in [("ca.pem", &certificate.ca_pem), ("machine.pem", &certificate.chain_pem)] {
            let path = self.state.join(name);
            os::write_durable(&path, text.as_bytes()).map_err(|e| file_error(&path, e))?;
        }
        // The secret is spent; what is spent need not lie around.
        let _ = std::fs::remove_file(&token);
        let credentials = Credentials { chain_pem: certificate.chain_pem, key_pem: self.key.to_pem() };
        self.credentials = Some((credentials, certificate.ca_pem));
        self.told.send_replace(self.credentials.clone());
        Ok(())
    }
}
