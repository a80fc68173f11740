//! Notices: a provider says that it will take this machine. Who says it is
//! asked (the cloud's metadata service, a command or a file of the user), what
//! was answered is judged purely, and what follows from it (asking the program
//! to save, telling the controller) is the driver's.
//!
//! Nothing here decides about a run, follows a redirect, uses a proxy or a name
//! server, or reads the environment of a program. An answer is bounded and
//! hostile: what is not understood is no notice, and is told once. On a machine
//! that is in no known cloud nobody is asked; where nobody answers, it is asked
//! ever more seldom.

mod azure;
mod broker;
mod cloud;
mod ec2;
mod gce;
mod http;
mod own;
mod poll;
mod time;

use std::fmt;

pub use broker::{Broker, Handle, Wanted, broker};
pub use cloud::Cloud;
pub use http::Place;

/// Longest text of a source that is passed on.
pub const TEXT: usize = 200;

/// The file in the machine's state that its host writes its notice to.
pub const HOST_FILE: &str = "host-notice";

/// Who gave notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// EC2's metadata service.
    Ec2,
    /// Google's.
    Gce,
    /// Azure's.
    Azure,
    /// The guard was asked to end by what it runs under.
    Sigterm,
    /// The user's command.
    Hook,
    /// The user's file.
    File,
    /// The machine's host, in a file of the machine's own state.
    Host,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ec2 => "ec2",
            Self::Gce => "gce",
            Self::Azure => "azure",
            Self::Sigterm => "sigterm",
            Self::Hook => "hook",
            Self::File => "file",
            Self::Host => "host",
        })
    }
}

/// What was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The machine may end: worth a save.
    MayEnd,
    /// It ends.
    Ends,
}

/// A notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What was said.
    pub kind: Kind,
    /// In the source's own words, at most [`TEXT`] characters.
    pub text: String,
    /// When the machine is taken, unix milliseconds; `None`: it is not told.
    pub until_unix_ms: Option<u64>,
    /// How the source names it, where it wants an acknowledgement.
    pub event: Option<String>,
}

impl Notice {
    pub(crate) fn new(kind: Kind, text: &str, until_unix_ms: Option<u64>) -> Self {
        // It is shown to people: no control character comes through.
        let text = text.chars().filter(|c| !c.is_control()).take(TEXT).collect();
        Self { kind, text, until_unix_ms, event: None }
    }
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// There is no notice.
    Quiet,
    /// There is one.
    Notice(Notice),
    /// It is not understood, and why: no notice.
    Odd(String),
}

/// What a source said that is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Who.
    pub source: Source,
    /// What; `Quiet` takes a notice back.
    pub word: Word,
}
