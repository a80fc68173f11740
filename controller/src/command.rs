//! The command line of a controller: one flag, `--home DIR`; also what the
//! `outlast` file does under its hidden verb.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::app::{self, AppError, Config};
use crate::home::HomeError;
use crate::liveness::Clocks;
use crate::reconcile::chain;

/// Another controller holds the data directory.
pub const EXIT_HELD: u8 = 75;
/// The state of the data directory is on another computer, or was brought here
/// and is not released.
pub const EXIT_ELSEWHERE: u8 = 96;
const EXIT_USAGE: u8 = 64;
const EXIT_FAILED: u8 = 70;

/// A build's identity: the size and the time of its file.
#[must_use]
pub fn build_id(exe: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(exe).map_or_else(
        |_| "unknown".to_owned(),
        |m| {
            let text = format!("{}/{}/{}", m.len(), m.mtime(), m.mtime_nsec());
            blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
        },
    )
}

/// Runs a controller for `home`, with `exe` as the agent of local machines.
///
/// # Errors
/// Where it cannot start or a server fails.
pub fn serve(home: PathBuf, exe: PathBuf) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(AppError::Listen)?;
    let config = Config { build_id: build_id(&exe), home, agent_exe: exe, clocks: Clocks::default() };
    runtime.block_on(app::run(config))
}

/// The exit code that tells an error apart.
#[must_use]
pub fn exit_code(error: &AppError) -> u8 {
    match error {
        AppError::Home(HomeError::Held(_)) => EXIT_HELD,
        AppError::Home(HomeError::Moved { .. } | HomeError::Arriving(_)) => EXIT_ELSEWHERE,
        _ => EXIT_FAILED,
    }
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [flag, home] = args.as_slice() else {
        tracing::error!("usage: outlast-controller --home DIR");
        return ExitCode::from(EXIT_USAGE);
    };
    let agent = std::env::current_exe().map(|exe| exe.with_file_name("outlast-agent"));
    match (flag.as_str(), agent) {
        ("--home", Ok(agent)) => match serve(home.into(), agent) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{}", chain(&error));
                ExitCode::from(exit_code(&error))
            }
        },
        _ => {
            tracing::error!("usage: outlast-controller --home DIR");
            ExitCode::from(EXIT_USAGE)
        }
    }
}
