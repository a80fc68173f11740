//! The connection to the controller: who it is and how it is reached is read
//! from the data directory, and TLS proves that it is the one. What went
//! wrong is told with the exit code that it means.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proto::channel::Channel;
use proto::gateway::RemoteStore;
pub use proto::gateway::passing;
use proto::v1::operator_client::OperatorClient;
use proto::v1::{self, Selector};
use tonic::{Code, Status};

use crate::exit_code::{ExitCode, Failure};

/// Lists of runs and journals may be long.
pub const ANSWER_LIMIT: usize = 64 << 20;
/// A controller that takes a connection answers within this.
const ANSWER: Duration = Duration::from_secs(5);

/// What people's tools ask.
pub type Operator = OperatorClient<Channel>;

/// A connection; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    /// Questions and wishes.
    pub operator: Operator,
    /// Objects.
    pub store: RemoteStore,
}

/// Connects to the controller that announced itself in `home`.
///
/// # Errors
/// Where none did, or it does not answer.
pub async fn connect(home: &Path) -> Result<Client, Failure> {
    let unreachable = |why: String| Failure::new(ExitCode::Unreachable, why);
    let at = controller::home::rendezvous(home)
        .ok_or_else(|| unreachable(format!("no controller has served {}", home.display())))?;
    let (own, root) =
        controller::home::operator_credentials(home).map_err(|error| unreachable(error.to_string()))?;
    let tls = proto::tls::client(&root, &own, Arc::new(SystemTime::now))
        .map_err(|error| unreachable(format!("{error} (keys in {})", home.display())))?;
    let name = proto::tls::expected_name(at.hub).map_err(|error| unreachable(error.to_string()))?;
    let channel = proto::channel::dial(std::slice::from_ref(&at.operators), tls, name)
        .await
        .map_err(|error| unreachable(format!("the controller does not answer: {error}")))?;
    Ok(Client {
        operator: OperatorClient::new(channel.clone()).max_decoding_message_size(ANSWER_LIMIT),
        store: RemoteStore::over(channel),
    })
}

/// Connects to a machine's own port, as the operator of `home`. Whoever answers
/// there must prove to be that machine.
///
/// # Errors
/// Why not, in words.
pub async fn machine(home: &Path, machine: &str, endpoint: &str) -> Result<Channel, String> {
    let (hub, own, root) = match crate::remote::read(home).map_err(|failure| failure.message)? {
        Some(remote) => (remote.hub, remote.credentials(), remote.root().to_owned()),
        None => {
            let hub = controller::home::rendezvous(home).ok_or("no controller has served here")?.hub;
            let own = controller::home::operator_credentials(home);
            let (own, root) = own.map_err(|error| error.to_string())?;
            (hub, own, root)
        }
    };
    let machine = machine.parse().map_err(|_| format!("`{machine}` is no machine's id"))?;
    let tls = proto::tls::machine_client(&root, &own, hub, machine, Arc::new(SystemTime::now));
    let name = proto::tls::expected_machine(machine).map_err(|error| error.to_string())?;
    let tls = tls.map_err(|error| error.to_string())?;
    proto::channel::dial(&[endpoint.to_owned()], tls, name).await.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        cause.to_string()
    })
}

impl Client {
    /// What the controller says of itself, soon.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn view(&self) -> Result<v1::ControllerView, Failure> {
        let mut operator = self.operator.clone();
        match tokio::time::timeout(ANSWER, operator.status(v1::StatusRequest {})).await {
            Ok(reply) => Ok(reply.map_err(|status| failure(&status))?.into_inner()),
            Err(_) => Err(Failure::new(ExitCode::Unreachable, "the controller does not answer")),
        }
    }

    /// One run with everything about it.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn run(&self, text: &str) -> Result<v1::RunDetail, Failure> {
        let reply = self.operator.clone().get_run(selector(text)).await;
        Ok(reply.map_err(|status| failure(&status))?.into_inner())
    }
}

/// A selector of a run or a machine.
#[must_use]
pub fn selector(text: &str) -> Selector {
    Selector { text: text.to_owned() }
}

/// A refusal, with its exit code.
#[must_use]
pub fn failure(status: &Status) -> Failure {
    let ambiguous = status.code() == Code::FailedPrecondition && status.message().contains("ambiguous");
    let code = match status.code() {
        _ if ambiguous => ExitCode::NotFound,
        _ if passing(status) && status.code() != Code::Aborted => ExitCode::Unreachable,
        code => ExitCode::from(code),
    };
    let message = match status.message() {
        "" => status.code().description().to_lowercase(),
        message => message.to_owned(),
    };
    match code {
        // The controller is well: whom it asked is not.
        ExitCode::Unreachable if status.metadata().contains_key(proto::FROM_PROVIDER) => {
            Failure::new(code, message).help("try again later; `outlast doctor` tries every provider")
        }
        ExitCode::Unreachable => Failure::new(code, format!("the controller cannot be reached: {message}"))
            .help("see `outlast controller status` and controller.log in the data directory"),
        ExitCode::NotFound if ambiguous => Failure::new(code, message).help("write more of the name"),
        // What else is missing says itself where to look.
        ExitCode::NotFound if message.starts_with("there is no ") => {
            Failure::new(code, message).help("`outlast status --all` lists every run")
        }
        code => Failure::new(code, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_documented_codes() {
        let code = |status: Status| failure(&status).code.code();
        assert_eq!(code(Status::unavailable("x")), 69);
        assert_eq!(code(Status::not_found("there is no run `x`")), 66);
        assert_eq!(code(Status::failed_precondition("`d` is ambiguous, 2 runs match")), 66);
        assert_eq!(code(Status::permission_denied("x")), 77);
        assert_eq!(code(Status::resource_exhausted("disk")), 73);
        assert_eq!(code(Status::invalid_argument("x")), 65);
        assert_eq!(code(Status::internal("a row is damaged")), 70);
        assert_eq!(code(Status::unknown("h2 protocol error: error reading a body")), 69);
    }

    #[test]
    fn a_silent_provider_is_not_a_controller_that_cannot_be_reached() {
        let mut status = Status::unavailable("`vast` does not answer: 503");
        status.metadata_mut().insert(proto::FROM_PROVIDER, "1".parse().unwrap());
        let told = failure(&status);
        assert_eq!((told.code.code(), told.message.as_str()), (69, "`vast` does not answer: 503"));
        assert!(failure(&Status::unavailable("x")).message.starts_with("the controller cannot be reached"));
    }

    #[tokio::test]
    async fn without_a_controller_it_is_unreachable() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(connect(dir.path()).await.unwrap_err().code, ExitCode::Unreachable);
    }
}
