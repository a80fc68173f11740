//! The verb that the controller runs here over SSH: joins its own input and
//! output to the agent's socket, so that a connection comes to a machine that
//! nobody can dial. It says one line, then only carries bytes and looks at
//! none. It holds no secret and ends as soon as either side has.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use proto::link::{self, Lane};
use proto::splice::splice;

use crate::os;

/// How long the other way may go on when one has ended.
const LINGER: Duration = Duration::from_secs(5);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No agent, or not yet.
    #[error("no agent listens at {0}")]
    NoAgent(String, #[source] io::Error),
    /// The standard streams.
    #[error("the standard streams cannot be used")]
    Streams(#[source] io::Error),
}

impl LinkError {
    /// What the controller tells it by.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoAgent(..) => ExitCode::from(link::EXIT_NO_AGENT),
            Self::Streams(_) => ExitCode::FAILURE,
        }
    }
}

/// Carries one connection.
///
/// # Errors
/// Where nobody listens, or there is nothing to carry it on.
pub fn run(state: &Path, lane: Lane) -> Result<(), LinkError> {
    let input = own(io::stdin().as_fd()).map_err(LinkError::Streams)?;
    let output = own(io::stdout().as_fd()).map_err(LinkError::Streams)?;
    carry(state, lane, input, output)
}

/// The stream itself: the library's own would wait for whole lines.
fn own(stream: std::os::fd::BorrowedFd<'_>) -> io::Result<File> {
    Ok(File::from(stream.try_clone_to_owned()?))
}

fn carry(
    state: &Path,
    lane: Lane,
    input: impl Read + Send + 'static,
    mut output: impl Write + Send + 'static,
) -> Result<(), LinkError> {
    let path = state.join(link::SOCKET);
    let none = |error| LinkError::NoAgent(path.display().to_string(), error);
    let mut agent = os::connect(&path).map_err(none)?;
    let none = |error| LinkError::NoAgent(path.display().to_string(), error);
    agent.write_all(lane.line().as_bytes()).map_err(none)?;
    output.write_all(lane.line().as_bytes()).and_then(|()| output.flush()).map_err(LinkError::Streams)?;
    splice(&agent, input, output, LINGER).map_err(LinkError::Streams)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::thread;

    #[test]
    fn bytes_go_both_ways_and_one_way_may_end_before_the_other() {
        let state = tempfile::tempdir().unwrap();
        let listener = os::listen(&state.path().join(link::SOCKET)).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (mut here, there) = UnixStream::pair().unwrap();
        let dir = state.path().to_owned();
        let output = there.try_clone().unwrap();
        let carried = thread::spawn(move || carry(&dir, Lane::Bulk, there, output));
        let (mut agent, _) = listener.accept().unwrap();
        let line = Lane::Bulk.line();
        let exactly = |stream: &mut UnixStream, most: usize| {
            let mut bytes = vec![0; most];
            stream.read_exact(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(exactly(&mut agent, line.len()), line);
        assert_eq!(exactly(&mut here, line.len()), line);
        let large = "up ".repeat(100_000);
        let sent = large.clone();
        let mut writer = here.try_clone().unwrap();
        let sending = thread::spawn(move || {
            writer.write_all(sent.as_bytes()).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = String::new();
        agent.read_to_string(&mut got).unwrap();
        sending.join().unwrap();
        assert!(got == large, "{} bytes came", got.len());
        // The way up has ended; the way down still carries.
        agent.write_all(b"down").unwrap();
        drop(agent);
        assert_eq!(exactly(&mut here, 4), "down");
        carried.join().unwrap().unwrap();
    }

    #[test]
    fn where_no_agent_listens_that_is_said_and_nothing_is_printed() {
        let state = tempfile::tempdir().unwrap();
        let (mut here, there) = UnixStream::pair().unwrap();
        let output = there.try_clone().unwrap();
        let error = carry(state.path(), Lane::Join, there, output).unwrap_err();
        assert!(error.to_string().contains("no agent listens"), "{error}");
        assert_eq!(error.exit_code(), ExitCode::from(link::EXIT_NO_AGENT));
        let mut got = Vec::new();
        here.read_to_end(&mut got).unwrap();
        assert!(got.is_empty());
    }
}
