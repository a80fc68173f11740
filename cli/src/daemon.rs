//! Sees to it that exactly one controller of this build serves the data
//! directory, or connects to the one elsewhere that it is logged in to. The lock that a controller holds decides between two that start
//! at once; here is only started, waited and connected. Never replaces a
//! controller whose database is newer than this program.

mod environment;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use proto::v1;

use crate::app::Context;
use crate::client::{self, Client};
use crate::exit_code::{ExitCode, Failure};
use crate::remote::{self, Remote};

pub use environment::{ENVIRONMENT, environment, environment_text};

/// A controller answers this soon after its start, on a computer that has hardly
/// time for it too.
const START: Duration = Duration::from_secs(60);
/// After so long a person is told what is waited for.
const TOLD: Duration = Duration::from_secs(5);
/// One that is killed while it starts, by whom or what ever, is started again
/// this often.
const KILLED: u32 = 3;
/// One that was told to end lets calls finish first.
const END: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// A log that is larger is set aside before the next start.
const LOG_LIMIT: u64 = 16 << 20;
const TAIL: u64 = 8 << 10;
const TAIL_LINES: usize = 15;

/// Leaves the terminal: a session of its own, so that neither Ctrl-C nor a
/// closed window reaches this process.
pub fn detach() {
    // Fails only for the leader of a group, which has left already.
    let _ = nix::unistd::setsid();
}

/// This program's file; after an upgrade in place, the new one.
///
/// # Errors
/// Where the system does not know.
pub fn own_exe() -> std::io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let text = exe.to_string_lossy();
    match text.strip_suffix(" (deleted)") {
        Some(before) if !exe.exists() => Ok(PathBuf::from(before)),
        _ => Ok(exe),
    }
}

/// Connects; starts a controller if none runs, and replaces one of another
/// build if `replace`.
///
/// # Errors
/// Where none can be started, or the one that runs is newer than this program
/// can speak with.
pub async fn ensure(ctx: &Context, replace: bool) -> anyhow::Result<Client> {
    let home = ctx.home()?;
    if let Some(remote) = remote::read(&home)? {
        return elsewhere(&home, &remote).await;
    }
    // Where its state was moved, nothing may start: told before it is tried.
    remote::not_moved(&home)?;
    let exe = own_exe().context("cannot find the file of this program")?;
    let mut replace = replace;
    let mut started: Option<Started> = None;
    let mut deadline = Instant::now() + START;
    let mut killed = 0;
    let (began, mut told) = (Instant::now(), false);
    loop {
        let failed = match answering(&home).await {
            Ok((client, view)) => {
                check_schema(&view)?;
                if !replace || view.build_id == controller::command::build_id(&exe) {
                    return Ok(client);
                }
                ctx.printer.detail("replacing a controller of another build");
                end(&home, &client).await?;
                // Whoever serves next was started after this, and is taken.
                (replace, started, deadline) = (false, None, Instant::now() + START);
                continue;
            }
            Err(failure) => failure,
        };
        match &mut started {
            None if is_free(&home)? => started = Some(Started::spawn(ctx, &home, &exe)?),
            None => {}
            Some(ours) => {
                if let Some(status) = ours.child.try_wait()? {
                    killed += u32::from(status.code().is_none());
                    if let Some((code, what)) = failed_start(status.code(), killed, status) {
                        let why = format!("the controller could not start ({what})");
                        return Err(ours.explain(code, &why).into());
                    }
                    (started, deadline) = (None, Instant::now() + START);
                }
            }
        }
        if Instant::now() > deadline {
            let why = format!("no controller answers for {}: {}", home.display(), failed.message);
            return Err(match started {
                Some(ours) => ours.explain(ExitCode::Unreachable, &why).into(),
                None => anyhow::Error::new(
                    Failure::new(ExitCode::Unreachable, why)
                        .help(format!("its log is {}", home.join("controller.log").display())),
                ),
            });
        }
        if !told && began.elapsed() > TOLD {
            told = true;
            ctx.printer.note(&format!("waiting for the controller of {}", home.display()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The controller that this data directory is logged in to. Nothing is started
/// here and nothing is replaced there.
async fn elsewhere(home: &Path, remote: &Remote) -> anyhow::Result<Client> {
    let client = Box::pin(remote.connect(home)).await?;
    let view = client.view().await?;
    remote::same_version(&remote.place()?.login, &view.version, view.schema)?;
    Ok(client)
}

/// This computer's name, as it calls itself.
#[must_use]
pub fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Why a controller that was started here and ended is none to wait for: what
/// it says to the shell, and in words. `None`: another one was faster, or it was
/// killed (`killed`: how many were), or somebody had this one end in good order
/// before it answered here, such as a program of another build; whoever serves
/// next is waited for, or started.
fn failed_start(
    code: Option<i32>,
    killed: u32,
    status: impl std::fmt::Display,
) -> Option<(ExitCode, String)> {
    let full = ExitCode::CannotWrite;
    match code {
        Some(0) => None,
        None if killed < KILLED => None,
        Some(code) if code == i32::from(controller::command::EXIT_HELD) => None,
        Some(code) if code == i32::from(controller::command::EXIT_ELSEWHERE) => {
            Some((ExitCode::Elsewhere, "its state belongs to another computer".to_owned()))
        }
        Some(code) if code == i32::from(full.code()) => {
            Some((full, "the disk is full or cannot be written".to_owned()))
        }
        _ => Some((ExitCode::Unreachable, status.to_string())),
    }
}

/// The controller that answers now, if one does.
///
/// # Errors
/// Why none does.
pub async fn answering(home: &Path) -> Result<(Client, v1::ControllerView), Failure> {
    let client = client::connect(home).await?;
    let view = client.view().await?;
    Ok((client, view))
}

/// As [`ensure`], for questions about what is: nothing is started where
/// nothing ever ran.
///
/// # Errors
/// As [`ensure`].
pub async fn existing(ctx: &Context) -> anyhow::Result<Option<Client>> {
    let home = ctx.home()?;
    if home.join("hub.json").exists() || remote::path(&home).exists() {
        ensure(ctx, true).await.map(Some)
    } else {
        Ok(None)
    }
}

/// As [`existing`], for questions about one thing that must be there.
///
/// # Errors
/// As [`ensure`], and where nothing ever ran.
pub async fn needed(ctx: &Context) -> anyhow::Result<Client> {
    let none =
        || Failure::new(ExitCode::NotFound, "nothing has been run here yet").help("outlast run --help");
    Ok(existing(ctx).await?.ok_or_else(none)?)
}

/// Ends a controller and waits until another may start.
///
/// # Errors
/// Where it does not let go of the data directory.
pub async fn end(home: &Path, client: &Client) -> anyhow::Result<()> {
    if let Err(status) = client.operator.clone().drain(v1::DrainRequest {}).await
        && !client::passing(&status)
    {
        return Err(client::failure(&status).into());
    }
    let deadline = Instant::now() + END;
    while !is_free(home)? {
        if Instant::now() > deadline {
            let why = format!("the controller still holds {}", home.display());
            return Err(Failure::new(ExitCode::Busy, why).help("see its log, controller.log").into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn check_schema(view: &v1::ControllerView) -> Result<(), Failure> {
    if view.schema <= controller::store::SCHEMA {
        return Ok(());
    }
    let (theirs, ours) = (view.schema, controller::store::SCHEMA);
    let why = format!(
        "the controller ({}) keeps data of version {theirs}, this program knows {ours}",
        view.version
    );
    Err(Failure::new(ExitCode::Busy, why).help("use the newer outlast, or another OUTLAST_HOME"))
}

/// Whether no controller holds the data directory.
///
/// # Errors
/// Where it cannot be looked at.
pub fn is_free(home: &Path) -> std::io::Result<bool> {
    let file = match File::open(home.join("controller.lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    // Shared, so that two who look do not see each other.
    match file.try_lock_shared() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A controller that was started here.
struct Started {
    child: Child,
    log: PathBuf,
    /// Where its own lines begin.
    from: u64,
}

impl Started {
    fn spawn(ctx: &Context, home: &Path, exe: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let shown = home.display();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(home)
            .with_context(|| format!("cannot make {shown}"))?;
        let log = home.join("controller.log");
        if std::fs::metadata(&log).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
            let _ = std::fs::rename(&log, home.join("controller.log.1"));
        }
        let open = || OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
        let out = open().with_context(|| format!("cannot write {}", log.display()))?;
        let from = out.metadata().map_or(0, |meta| meta.len());
        let err = out.try_clone()?;
        let mut command = Command::new(exe);
        let given = environment(home).with_context(|| format!("cannot read {ENVIRONMENT} in {shown}"))?;
        command.envs(given).arg("controller-serve").arg("--home").arg(home).current_dir("/");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().with_context(|| format!("cannot start {}", exe.display()))?;
        ctx.printer.detail(&format!("started a controller (pid {}) for {shown}", child.id()));
        Ok(Self { child, log, from })
    }

    /// A failure with the last lines of the log.
    fn explain(&self, code: ExitCode, why: &str) -> Failure {
        let lines = last_lines(&self.log, self.from).unwrap_or_default();
        let message = if lines.is_empty() { why.to_owned() } else { format!("{why}; it said:\n{lines}") };
        Failure::new(code, message).help(format!("its log is {}", self.log.display()))
    }
}

fn last_lines(log: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL))))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_seen_and_looking_does_not_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_free(dir.path()).unwrap());
        let lock = File::create(dir.path().join("controller.lock")).unwrap();
        assert!(is_free(dir.path()).unwrap());
        lock.try_lock().unwrap();
        assert!(!is_free(dir.path()).unwrap());
        lock.unlock().unwrap();
        assert!(is_free(dir.path()).unwrap());
    }

    #[test]
    fn a_controller_that_was_told_to_end_did_not_fail_to_start() {
        let why = |code| failed_start(code, KILLED, "its status").map(|(code, what)| (code.code(), what));
        assert_eq!(why(Some(0)), None, "a program of another build replaces it");
        assert_eq!(why(Some(i32::from(controller::command::EXIT_HELD))), None);
        let full = ExitCode::CannotWrite.code();
        assert_eq!(why(Some(i32::from(full))).unwrap().0, full);
        for code in [Some(1), Some(101), None] {
            assert_eq!(why(code), Some((ExitCode::Unreachable.code(), "its status".to_owned())));
        }
        assert!(failed_start(None, KILLED - 1, "").is_none(), "a killed one is started again");
    }

    #[test]
    fn a_newer_database_is_left_alone() {
        let view = |schema| v1::ControllerView { schema, ..Default::default() };
        assert!(check_schema(&view(controller::store::SCHEMA)).is_ok());
        assert!(check_schema(&view(controller::store::SCHEMA + 1)).is_err());
    }

    #[test]
    fn only_lines_of_the_last_start_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("l");
        std::fs::write(&log, "old\nnew 1\nnew 2\n").unwrap();
        assert_eq!(last_lines(&log, 4).unwrap(), "new 1\nnew 2");
    }
}
