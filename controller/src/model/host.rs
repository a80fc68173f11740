//! What is remembered of hosts, and what a machine's row keeps for that until the
//! machine is gone. It is about physical machines and kinds of them, never about
//! runs: no name, command or key of a person may be in it.

use lifecycle::reputation::Reputation;
use lifecycle::{LossCause, RunId};
use serde::{Deserialize, Serialize};

use super::Record;
use crate::store::Kind;

/// Longest name taken: providers' numbers and names of GPUs are short.
const NAME: usize = 96;

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    /// One physical machine.
    Host,
    /// All of one kind (`lifecycle::choice::kind`).
    Kind,
}

impl Of {
    /// As it stands in keys and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Kind => "kind",
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Whose numbers these are.
    pub provider: String,
    /// What it is about.
    pub of: Of,
    /// The provider's number of the host, or the kind's name.
    pub name: String,
    /// What is remembered.
    pub record: Reputation,
}

impl Host {
    /// One of which nothing is known.
    #[must_use]
    pub fn new(provider: &str, of: Of, name: &str) -> Self {
        let name = clipped(name);
        Self { provider: provider.to_owned(), of, name, record: Reputation::default() }
    }
}

fn clipped(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME).collect()
}

impl Record for Host {
    const KIND: Kind = Kind::Host;
    fn key(&self) -> String {
        format!("{}/{}/{}", self.provider, self.of.as_str(), self.name)
    }
    fn run(&self) -> Option<RunId> {
        None
    }
}

/// What a machine's row keeps of its host and of how that behaved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conduct {
    /// The physical machine; empty: its provider does not say.
    pub host: String,
    /// Its kind.
    pub kind: String,
    /// The kind of its GPUs, as the provider names it.
    pub gpu: String,
    /// When and why it was lost, where that was nobody's wish here.
    pub lost: Option<(u64, LossCause)>,
    /// It was not what was offered.
    pub lied: bool,
    /// Its hardware failed the program.
    pub faulty: bool,
}

impl Conduct {
    /// On this host, so far without a fault.
    #[must_use]
    pub fn on(host: &str, kind: &str, gpu: &str) -> Self {
        Self { host: clipped(host), kind: clipped(kind), gpu: clipped(gpu), ..Self::default() }
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
