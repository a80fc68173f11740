//! `outlast controller arrive`: what `outlast controller deploy` runs on the
//! other computer, one step at a time. Each may be cut off anywhere and be run
//! again. Never touches an installation that it did not bring, and releases a
//! copy only when it is told to, which the other side does once it is marked.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use controller::home::{Hold, HomeError, write_file};
use controller::moved::{self, Arrival, Standing};
use lifecycle::HubId;
use serde::{Deserialize, Serialize};

use super::install;
use super::stream::{self, Sum};
use crate::app::Context;
use crate::args::ArriveVerb;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};

/// What is read of standard input at a start.
const LONGEST: u64 = 1 << 20;
/// A service that was told to end has ended.
const END: Duration = Duration::from_secs(20);
/// A controller that systemd started answers.
const SERVED: Duration = Duration::from_secs(15);
/// A step that is cut off has ended.
const ALONE: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(50);

/// What lies there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Looked {
    pub(super) standing: Standing,
    pub(super) version: String,
    pub(super) schema: u32,
}

/// What the controller is given, on standard input: it must be seen by nobody.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Given {
    pub(super) env: BTreeMap<String, String>,
}

/// A controller that answers there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) pid: u64,
    /// Whether the system keeps it running, also after a reboot.
    pub(super) service: bool,
}

/// Whether a copy cannot be started any more.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Undone {
    pub(super) undone: bool,
}

/// Does one step, and prints one line of JSON.
///
/// # Errors
/// Why it did not work.
pub(super) async fn perform(ctx: &Context, verb: &ArriveVerb) -> anyhow::Result<ExitCode> {
    let home = ctx.home()?;
    let print = |text: String| ctx.printer.line(&text);
    match verb {
        ArriveVerb::Look => {
            let standing = moved::standing(&home).map_err(|error| bad(&error))?;
            let (version, schema) = (proto::VERSION.to_owned(), controller::store::SCHEMA);
            print(serde_json::to_string(&Looked { standing, version, schema })?);
        }
        ArriveVerb::Receive => print(serde_json::to_string(&receive(&home)?)?),
        ArriveVerb::Start { hub, token, process } => {
            let arrival = Arrival { hub: parsed(hub)?, token: token.clone() };
            print(serde_json::to_string(&Box::pin(start(ctx, &home, &arrival, *process)).await?)?);
        }
        ArriveVerb::Undo { hub, token } => {
            let arrival = Arrival { hub: parsed(hub)?, token: token.clone() };
            print(serde_json::to_string(&Undone { undone: undo(ctx, &home, &arrival)? })?);
        }
    }
    Ok(ExitCode::Ok)
}

fn bad(error: &HomeError) -> Failure {
    Failure::new(ExitCode::BadInput, error.to_string())
}

fn parsed(hub: &str) -> Result<HubId, Failure> {
    hub.parse().map_err(|_| Failure::new(ExitCode::Usage, "that is no installation's id"))
}

/// Beside the data directory, on its file system.
fn beside(home: &Path, what: &str) -> anyhow::Result<PathBuf> {
    let name = home.file_name().context("the data directory has no name")?.to_string_lossy().into_owned();
    Ok(home.with_file_name(format!(".{name}.{what}")))
}

fn clear(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Steps of one data directory are done one after the other: a step whose other
/// side has gone may still be at work.
fn alone(home: &Path) -> anyhow::Result<fs::File> {
    if let Some(above) = home.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
    }
    let path = beside(home, "deploy.lock")?;
    let mut options = fs::OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path)?;
    let deadline = Instant::now() + ALONE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Err(_) => {
                let why = format!("another deploy is at work on {}", home.display());
                return Err(Failure::new(ExitCode::Busy, why).into());
            }
        }
    }
}

/// Takes the state from standard input and puts it in its place, where nothing
/// can start it yet.
fn receive(home: &Path) -> anyhow::Result<Sum> {
    let _alone = alone(home)?;
    let mut from = io::BufReader::with_capacity(1 << 18, io::stdin().lock());
    let arrival = stream::head(&mut from).context("standard input")?;
    let before = moved::standing(home).map_err(|error| bad(&error))?;
    match &before {
        Standing::Nothing => {}
        Standing::Arriving(found) if found.hub == arrival.hub => {}
        other => {
            let why = format!("{} is in use: {other:?}", home.display());
            return Err(Failure::new(ExitCode::BadInput, why).into());
        }
    }
    // One at a time; what another one left is rubbish.
    let (fresh, old) = (beside(home, "arriving")?, beside(home, "replaced")?);
    if let Some(above) = home.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
    }
    clear(&fresh)?;
    fs::DirBuilder::new().mode(0o700).create(&fresh)?;
    let sum = stream::receive(&mut from, &fresh).context("the state")?;
    moved::arriving(&fresh, &arrival).map_err(|error| bad(&error))?;
    // Where there is a copy it cannot run; where there is nothing, nothing can.
    clear(&old)?;
    match before {
        Standing::Nothing => {
            let _ = fs::remove_dir(home);
        }
        _ => fs::rename(home, &old)?,
    }
    fs::rename(&fresh, home).with_context(|| format!("put the state to {}", home.display()))?;
    if let Some(above) = home.parent() {
        fs::File::open(above)?.sync_all()?;
    }
    clear(&old)?;
    Ok(sum)
}

/// Releases the copy and has a controller run for it.
async fn start(ctx: &Context, home: &Path, arrival: &Arrival, process: bool) -> anyhow::Result<Begun> {
    let _alone = alone(home)?;
    let mut text = String::new();
    io::stdin().lock().take(LONGEST).read_to_string(&mut text)?;
    let given: Given = serde_json::from_str(&text)
        .map_err(|_| Failure::new(ExitCode::BadInput, "standard input is not understood"))?;
    let standing = moved::standing(home).map_err(|error| bad(&error))?;
    let known = match &standing {
        Standing::Arriving(found) | Standing::Arrived(found) => found == arrival,
        Standing::Installation(hub) => *hub == arrival.hub,
        Standing::Nothing | Standing::Foreign => false,
    };
    if !known {
        let why = format!("{} does not hold what is to be started: {standing:?}", home.display());
        return Err(Failure::new(ExitCode::BadInput, why).into());
    }
    if !given.env.is_empty() {
        let file = home.join(daemon::ENVIRONMENT);
        // What was given before stays: without a provider's key nothing of it can be ended.
        let mut all = daemon::environment(home).with_context(|| format!("read {}", file.display()))?;
        all.extend(given.env.clone());
        write_file(&file, daemon::environment_text(&all)?.as_bytes(), 0o600).map_err(|e| bad(&e))?;
    }
    if matches!(standing, Standing::Arriving(_)) {
        moved::release(home).map_err(|error| bad(&error))?;
    }
    let runs = match Box::pin(daemon::answering(home)).await {
        // What it was given last it must be started with.
        Ok((client, _)) if !given.env.is_empty() => {
            Box::pin(daemon::end(home, &client)).await?;
            false
        }
        found => found.is_ok(),
    };
    let service =
        if runs { install::is_kept(ctx, home) } else { !process && install::kept_by_systemd(ctx, home)? };
    if service {
        served(home).await;
    }
    let view = Box::pin(daemon::ensure(ctx, false)).await?.view().await?;
    Ok(Begun { pid: view.pid, service })
}

/// Gives the one that the system has just started the time to answer: another
/// one beside it would take its place.
async fn served(home: &Path) {
    let deadline = Instant::now() + SERVED;
    while Instant::now() < deadline && Box::pin(daemon::answering(home)).await.is_err() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Makes sure that the copy cannot be started, if nobody has started it yet.
fn undo(ctx: &Context, home: &Path, arrival: &Arrival) -> anyhow::Result<bool> {
    let _alone = alone(home)?;
    // A start that was asked for earlier and comes later finds another token.
    let void = || {
        let other = Arrival { token: format!("{}-undone", arrival.token), ..arrival.clone() };
        moved::arriving(home, &other).map_err(|error| bad(&error))
    };
    let look = || moved::standing(home).map_err(|error| bad(&error));
    match look()? {
        Standing::Arriving(found) if found.hub == arrival.hub => {
            void()?;
            return Ok(true);
        }
        Standing::Arrived(found) if found == *arrival => {}
        _ => return Ok(false),
    }
    install::let_go(ctx, home);
    let deadline = Instant::now() + END;
    let _hold = loop {
        match Hold::take(home) {
            Ok(hold) => break hold,
            Err(HomeError::Held(_)) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Err(HomeError::Held(_)) => return Ok(false),
            Err(error) => return Err(bad(&error).into()),
        }
    };
    // Held: nobody opens it between the look and the change.
    if look()? != Standing::Arrived(arrival.clone()) {
        return Ok(false);
    }
    moved::retract(home).map_err(|error| bad(&error))?;
    void()?;
    Ok(true)
}
