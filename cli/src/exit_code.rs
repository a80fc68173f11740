//! What the exit code of `outlast` means. The mapping is total and part of the
//! stable interface: scripts decide by it. Codes of the command itself are
//! only passed through by attached runs.

use std::fmt;
use std::io::ErrorKind;

use lifecycle::Exit;

use crate::config::ConfigErrors;

/// How `outlast` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitCode {
    /// It did what it was asked to.
    Ok,
    /// The command line cannot be understood.
    Usage,
    /// A file or value that was handed in is bad.
    BadInput,
    /// There is no such run or machine, or a prefix names several.
    NotFound,
    /// The controller cannot be reached.
    Unreachable,
    /// A fault of `outlast` itself.
    Internal,
    /// The disk is full or cannot be written.
    CannotWrite,
    /// Another controller holds the data directory.
    Busy,
    /// The user may not do this.
    Denied,
    /// The configuration is wrong.
    Configuration,
    /// The run was stopped by its budget.
    Budget,
    /// The run is lost: it cannot be continued.
    Lost,
    /// The run was stopped by a person.
    Cancelled,
    /// A critical alert of a machine is standing.
    Unhealthy,
    /// Fetched files stand beside files that were changed here.
    Conflict,
    /// A provider charged what the ledger does not explain.
    Unexplained,
    /// The controller is on another computer, and this is done there.
    Elsewhere,
    /// An attached run's own code.
    Run(u8),
}

/// Every code with its meaning.
const TABLE: [(u8, &str); 17] = [
    (0, "success"),
    (64, "the command line cannot be understood"),
    (65, "input data are bad"),
    (66, "no such run, machine, attempt or rank, or the prefix is ambiguous"),
    (69, "the controller or a provider cannot be reached"),
    (70, "internal error"),
    (73, "the disk is full or cannot be written"),
    (75, "another controller holds the data directory"),
    (77, "permission denied"),
    (78, "the configuration is wrong"),
    (90, "the run was stopped by its budget"),
    (91, "the run is lost and cannot be continued"),
    (92, "the run was stopped by a person"),
    (93, "`health`: a critical alert is standing"),
    (94, "`pull`: files were changed here too; both were kept"),
    (95, "`cost --bill`: a provider charged what the ledger does not explain"),
    (96, "the controller is on another computer, and this is done there"),
];

/// Every code with its meaning, for `--help` and the documentation. Attached
/// runs may end with any other code: the run's own, or 128 and the signal.
#[must_use]
pub fn table() -> &'static [(u8, &'static str)] {
    &TABLE
}

impl ExitCode {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 64,
            Self::BadInput => 65,
            Self::NotFound => 66,
            Self::Unreachable => 69,
            Self::Internal => 70,
            Self::CannotWrite => 73,
            Self::Busy => 75,
            Self::Denied => 77,
            Self::Configuration => 78,
            Self::Budget => 90,
            Self::Lost => 91,
            Self::Cancelled => 92,
            Self::Unhealthy => 93,
            Self::Conflict => 94,
            Self::Unexplained => 95,
            Self::Elsewhere => 96,
            Self::Run(code) => code,
        }
    }

    /// The code for an error of any kind: the first in its chain that says
    /// one. What nobody foresaw is [`ExitCode::Internal`].
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        // A failure given as context is no link of the chain itself.
        let outer = error.downcast_ref::<Failure>().map(|failure| failure.code);
        outer.or_else(|| error.chain().find_map(Self::of_cause)).unwrap_or(Self::Internal)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.code);
        }
        if cause.is::<ConfigErrors>() {
            return Some(Self::Configuration);
        }
        if let Some(status) = cause.downcast_ref::<tonic::Status>() {
            return Some(Self::from(status.code()));
        }
        cause.downcast_ref::<std::io::Error>().and_then(|error| Self::of_io(error.kind()))
    }

    fn of_io(kind: ErrorKind) -> Option<Self> {
        Some(match kind {
            ErrorKind::PermissionDenied => Self::Denied,
            ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::FileTooLarge => Self::CannotWrite,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NotConnected
            | ErrorKind::TimedOut => Self::Unreachable,
            ErrorKind::NotFound
            | ErrorKind::InvalidData
            | ErrorKind::UnexpectedEof
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory => Self::BadInput,
            _ => return None,
        })
    }
}

impl From<tonic::Code> for ExitCode {
    fn from(code: tonic::Code) -> Self {
        use tonic::Code;
        match code {
            Code::Ok => Self::Ok,
            Code::Cancelled | Code::Unavailable | Code::DeadlineExceeded => Self::Unreachable,
            Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition | Code::AlreadyExists => {
                Self::BadInput
            }
            Code::NotFound => Self::NotFound,
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied,
            Code::ResourceExhausted => Self::CannotWrite,
            Code::Aborted => Self::Busy,
            Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => Self::Internal,
        }
    }
}

impl From<&Exit> for ExitCode {
    /// What an attached run ends with.
    fn from(exit: &Exit) -> Self {
        match u8::try_from(exit.shell_code()) {
            Ok(0) => Self::Ok,
            Ok(code) => Self::Run(code),
            // No process can end so; the record of it is damaged.
            Err(_) => Self::Internal,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

/// An error that knows its exit code and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What `outlast` ends with.
    pub code: ExitCode,
    /// What is wrong, as a lower-case fragment.
    pub message: String,
    /// What to do about it.
    pub help: Vec<String>,
}

impl Failure {
    /// A failure without help.
    #[must_use]
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: Vec::new() }
    }

    /// The same with one more thing to try.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context as _, anyhow};

    const ALL: [ExitCode; 17] = [
        ExitCode::Ok,
        ExitCode::Usage,
        ExitCode::BadInput,
        ExitCode::NotFound,
        ExitCode::Unreachable,
        ExitCode::Internal,
        ExitCode::CannotWrite,
        ExitCode::Busy,
        ExitCode::Denied,
        ExitCode::Configuration,
        ExitCode::Budget,
        ExitCode::Lost,
        ExitCode::Cancelled,
        ExitCode::Unhealthy,
        ExitCode::Conflict,
        ExitCode::Unexplained,
        ExitCode::Elsewhere,
    ];

    #[test]
    fn the_table_holds_exactly_the_codes() {
        let codes: Vec<u8> = ALL.iter().map(|code| code.code()).collect();
        assert_eq!(table().iter().map(|(code, _)| *code).collect::<Vec<_>>(), codes);
        assert_eq!(codes, [0, 64, 65, 66, 69, 70, 73, 75, 77, 78, 90, 91, 92, 93, 94, 95, 96]);
    }

    #[test]
    fn attached_runs_pass_their_own_code_through() {
        let code = |exit: Exit| ExitCode::from(&exit).code();
        assert_eq!(code(Exit::Code { code: 0 }), 0);
        assert_eq!(code(Exit::Code { code: 3 }), 3);
        assert_eq!(code(Exit::Signal { signal: 9, core: false }), 137);
        assert_eq!(code(Exit::NotStarted { reason: String::new() }), 127);
        assert_eq!(code(Exit::Code { code: 4096 }), 70);
    }

    #[test]
    fn the_nearest_error_that_knows_a_code_decides() {
        let of = |error: anyhow::Error| ExitCode::of(&error);
        assert_eq!(of(anyhow!("who knows")), ExitCode::Internal);
        assert_eq!(of(anyhow!(Failure::new(ExitCode::Busy, "held")).context("starting")), ExitCode::Busy);
        assert_eq!(of(anyhow!("x").context(Failure::new(ExitCode::Busy, "held"))), ExitCode::Busy);
        assert_eq!(of(anyhow!(tonic::Status::not_found("x"))), ExitCode::NotFound);
        assert_eq!(of(anyhow!(tonic::Status::unavailable("x"))), ExitCode::Unreachable);
        let io = |kind| Err::<(), _>(std::io::Error::from(kind)).context("writing").unwrap_err();
        assert_eq!(of(io(ErrorKind::StorageFull)), ExitCode::CannotWrite);
        assert_eq!(of(io(ErrorKind::PermissionDenied)), ExitCode::Denied);
        assert_eq!(of(io(ErrorKind::Other)), ExitCode::Internal);
    }

    #[test]
    fn a_wrong_configuration_has_its_code() {
        let flags = [("budget.max_usd".to_owned(), "0".to_owned())];
        let env = std::collections::BTreeMap::new();
        let dir = tempfile::tempdir().unwrap();
        let sources = crate::config::Sources {
            start_dir: dir.path(),
            user_file: None,
            env: &env,
            flags: &flags,
            file: None,
        };
        let error = crate::config::load(&sources).unwrap_err();
        assert_eq!(ExitCode::of(&error.into()), ExitCode::Configuration);
    }
}
