//! How a process ended, as its parent saw it. Never a guess: what nobody saw
//! is `Unknown` with the reason.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The end of the training process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Exit {
    /// It called exit with this code, 0 to 255.
    Code {
        /// The code.
        code: i32,
    },
    /// A signal ended it.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        core: bool,
    },
    /// It could not be started at all.
    NotStarted {
        /// What failed, in words.
        reason: String,
    },
    /// Nobody saw the end.
    Unknown {
        /// Why nobody saw it.
        reason: String,
    },
}

impl Exit {
    /// Whether the program said that it succeeded.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Code { code: 0 })
    }

    /// The code a shell would report: the code itself, 128 + signal, 127 for
    /// what could not be started, 125 where the end is unknown.
    #[must_use]
    pub fn shell_code(&self) -> i32 {
        match self {
            Self::Code { code } => *code,
            Self::Signal { signal, .. } => 128 + signal,
            Self::NotStarted { .. } => 127,
            Self::Unknown { .. } => 125,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code { code } => write!(f, "exit code {code}"),
            Self::Signal { signal, core } => {
                write!(f, "signal {signal} ({})", signal_name(*signal))?;
                if *core { f.write_str(", core dumped") } else { Ok(()) }
            }
            Self::NotStarted { reason } => write!(f, "not started: {reason}"),
            Self::Unknown { reason } => write!(f, "end unknown: {reason}"),
        }
    }
}

/// The name of a signal on Linux, as `kill -l` prints it.
#[must_use]
pub fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => "signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_codes_are_those_of_a_shell() {
        assert_eq!(Exit::Code { code: 3 }.shell_code(), 3);
        assert_eq!(Exit::Signal { signal: 11, core: true }.shell_code(), 139);
        assert_eq!(Exit::Signal { signal: 11, core: true }.to_string(), "signal 11 (SIGSEGV), core dumped");
    }
}
