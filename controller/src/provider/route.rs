//! The way to a machine that the controller dials over SSH, as its provider
//! knows it. Only words: nothing here connects, and nothing here is a secret
//! (a key is named by its file, never by its content).

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Why there is no way to a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Not now: it has no address yet, or the provider gave no answer. Asked
    /// again.
    #[error("not reachable yet: {0}")]
    NotYet(String),
    /// Not in this life: a person must change something.
    #[error("not reachable: {0}")]
    Never(String),
}

/// Where an SSH server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// Host name, IP address or an alias of the user's own SSH configuration.
    pub host: String,
    /// Its port; `None`: what the user's configuration says, else 22.
    pub port: Option<u16>,
    /// The user there; `None`: what the user's configuration says.
    pub user: Option<String>,
}

/// Which host keys are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKeys {
    /// The key of the first contact, kept in this file under this name; a
    /// changed one is an error. For machines that nobody has seen before.
    PinFirst {
        /// Of this installation, one line for each machine.
        known_hosts: PathBuf,
        /// What the machine is called in it: one name for both addresses.
        name: String,
    },
    /// What the user's own `known_hosts` says, strictly: an unknown key is an
    /// error, as a changed one is.
    Known {
        /// Another file than the user's; `None`: as their configuration says.
        known_hosts: Option<PathBuf>,
    },
}

/// How the user's SSH client comes to one machine, and where its files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshRoute {
    /// Dialled first.
    pub address: SshAddress,
    /// Dialled where the first does not connect: a provider's proxy.
    pub fallback: Option<SshAddress>,
    /// The private key's file; `None`: the user's own keys and agent.
    pub identity: Option<PathBuf>,
    /// Which host keys are believed.
    pub host_keys: HostKeys,
    /// More `-o` options, as `Name=value` each.
    pub options: Vec<String>,
    /// The directory there for all that Outlast keeps, absolute or below the
    /// user's home: agents in `agents/<digest>/`, the state of a machine in
    /// `machines/<machine id>/`.
    pub base: String,
    /// What the guard there, and so every program, has in its environment: the
    /// GPUs of a slot. No secrets: it is said in the open.
    pub env: BTreeMap<String, String>,
}

impl SshRoute {
    /// The machine's state directory there, as `base` names it.
    #[must_use]
    pub fn state_dir(&self, machine_id: &str) -> String {
        format!("{}/machines/{machine_id}", self.base.trim_end_matches('/'))
    }
}
