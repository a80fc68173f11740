//! What is done when a provider says that it takes the machine: who is asked
//! for such a notice, and how the program hears of it.

use serde::{Deserialize, Serialize};

/// Where notices come from, and how they reach the program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NoticeSpec {
    /// The signal that asks the program to save. It is sent only to processes
    /// that catch it: what does not would be ended by it.
    #[serde(default)]
    pub signal: NoticeSignal,
    /// The metadata service that is asked.
    #[serde(default)]
    pub source: NoticeSource,
    /// A command that ends with 0 where there is a notice; empty: none.
    #[serde(default)]
    pub hook: Vec<String>,
    /// A file that is there where there is a notice; empty: none.
    #[serde(default)]
    pub file: String,
}

/// The signal that asks a program to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeSignal {
    /// SIGUSR1.
    #[default]
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGHUP.
    Hup,
    /// No signal: the program looks for the file.
    None,
}

/// The metadata service that is asked for notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeSource {
    /// The one of the cloud that the machine says it is in; none elsewhere.
    #[default]
    Auto,
    /// EC2's, whatever the machine says.
    Ec2,
    /// Google's.
    Gce,
    /// Azure's.
    Azure,
    /// No one.
    None,
}
