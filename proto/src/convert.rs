//! Between wire messages and the types that decisions are made with. A value
//! that this version does not know is an explicit error, never a default.

use lifecycle::{AttemptId, Exit, MachineId};

use crate::v1;

/// A message that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {problem}")]
pub struct WireError {
    /// The field at fault.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl WireError {
    /// Names a field and its problem.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Reads an attempt's id.
///
/// # Errors
/// Where it is not an id.
pub fn attempt_id(text: &str) -> Result<AttemptId, WireError> {
    text.parse().map_err(|e: lifecycle::id::IdError| WireError::new("attempt_id", e.to_string()))
}

/// Reads a machine's id.
///
/// # Errors
/// Where it is not an id.
pub fn machine_id(text: &str) -> Result<MachineId, WireError> {
    text.parse().map_err(|e: lifecycle::id::IdError| WireError::new("machine_id", e.to_string()))
}

/// Reads an exit.
///
/// # Errors
/// Where the kind is missing or of a newer version.
pub fn exit(message: Option<v1::ExitStatus>) -> Result<Exit, WireError> {
    use v1::exit_status::Kind;
    match message.and_then(|m| m.kind) {
        Some(Kind::Code(code)) => Ok(Exit::Code { code }),
        Some(Kind::Signal(s)) => Ok(Exit::Signal { signal: s.number, core: s.core }),
        Some(Kind::NotStarted(reason)) => Ok(Exit::NotStarted { reason }),
        Some(Kind::Unknown(reason)) => Ok(Exit::Unknown { reason }),
        None => Err(WireError::new("exit", "its kind is not known to this version")),
    }
}

/// Writes an exit.
#[must_use]
pub fn exit_message(exit: &Exit) -> v1::ExitStatus {
    use v1::exit_status::Kind;
    let kind = match exit {
        Exit::Code { code } => Kind::Code(*code),
        Exit::Signal { signal, core } => Kind::Signal(v1::Signal { number: *signal, core: *core }),
        Exit::NotStarted { reason } => Kind::NotStarted(reason.clone()),
        Exit::Unknown { reason } => Kind::Unknown(reason.clone()),
    };
    v1::ExitStatus { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_survive_the_wire() {
        for case in [
            Exit::Code { code: 3 },
            Exit::Signal { signal: 9, core: false },
            Exit::NotStarted { reason: "no such file".into() },
            Exit::Unknown { reason: "power".into() },
        ] {
            assert_eq!(exit(Some(exit_message(&case))), Ok(case));
        }
    }

    #[test]
    fn i26_an_unknown_kind_is_refused_not_defaulted() {
        assert!(exit(Some(v1::ExitStatus { kind: None })).is_err());
    }
}
