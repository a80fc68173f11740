//! `outlast controller deploy`: moves the controller of this data directory to
//! another computer, over the user's SSH client. The steps are apart and each may
//! be the last one that happened: what comes next is decided anew from the mark
//! here and from what lies there ([`decide`]). The state may be started on one
//! side only; where that is not certain nothing is started at all.

mod decide;
mod plan;
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use controller::home::{Hold, HomeError, hub_of};
use controller::moved::{self, Arrival, Moved};
use lifecycle::HubId;
use proto::v1;
use tokio::io::AsyncWriteExt as _;

use super::arrive::{Begun, Given, Looked, Undone};
use super::install;
use super::stream::{self, Entry, Sum};
use crate::app::Context;
use crate::args::DeployArgs;
use crate::commands::{answer, confirm, login};
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::bytes;
use crate::remote::{self, Place};
use decide::{Next, next};
use program::Program;

/// A look, and what changes little.
const SHORT: Duration = Duration::from_secs(60);
/// A controller's start there, and the lock of a step before it.
const START: Duration = Duration::from_secs(150);
/// The whole state on its way.
const LONG: Duration = Duration::from_hours(24);
/// The lock of a controller that has just ended.
const HOLD: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// One move.
struct Deploy<'a> {
    ctx: &'a Context,
    args: &'a DeployArgs,
    home: PathBuf,
    hub: HubId,
    env: BTreeMap<String, String>,
}

/// Does it.
///
/// # Errors
/// What went wrong, and what is where now.
pub(super) async fn perform(ctx: &Context, args: &DeployArgs) -> anyhow::Result<ExitCode> {
    let home = ctx.home()?;
    let Some(hub) = hub_of(&home) else {
        let why = format!("there is no installation in {}: nothing to move", home.display());
        return Err(Failure::new(ExitCode::NotFound, why)
            .help(format!("if there is one on {0}: outlast login {0}", args.to))
            .into());
    };
    let env = given(ctx, &args.env)?;
    let _alone = alone(&home)?;
    let deploy = Deploy { ctx, args, home, hub, env };
    Box::pin(deploy.run()).await
}

/// The variables that are handed on.
fn given(ctx: &Context, names: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut env = BTreeMap::new();
    for name in names {
        let value = ctx.env.get(name).ok_or_else(|| {
            Failure::new(ExitCode::BadInput, format!("the variable {name} is not set here, or is no text"))
        })?;
        env.insert(name.clone(), value.clone());
    }
    // Whatever is wrong with them is told before anything happens.
    daemon::environment_text(&env)?;
    Ok(env)
}

/// Two moves of one data directory at once would undo each other.
fn alone(home: &Path) -> anyhow::Result<fs::File> {
    let path = home.join("deploy.lock");
    let mut options = fs::OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => {
            Err(Failure::new(ExitCode::Busy, "another deploy of this data directory is at work").into())
        }
    }
}

impl Deploy<'_> {
    async fn run(&self) -> anyhow::Result<ExitCode> {
        let mark = moved::moved(&self.home).map_err(|error| bad(&error))?;
        let mut place = self.place(mark.as_ref())?;
        if mark.is_none()
            && let Some(remote) = remote::read(&self.home)?
        {
            let why = format!("this data directory is logged in to {}", remote.to());
            let help = "`outlast logout` first: what is moved is this computer's own controller";
            return Err(Failure::new(ExitCode::Elsewhere, why).help(help).into());
        }
        let program = Box::pin(Program::choose(self.args.program.as_deref(), &place)).await?;
        let state = stream::scan(&self.home).map_err(|error| {
            Failure::new(ExitCode::BadInput, format!("the state cannot be read: {error}"))
        })?;
        let machines = if mark.is_none() { Box::pin(self.machines()).await? } else { Vec::new() };
        none_local(&machines)?;
        if !self.agreed(mark.as_ref(), &program, &state, &machines)? {
            return Ok(ExitCode::Ok);
        }
        Box::pin(program.bring(self.ctx, &place)).await?;
        place.program = Some(program.there());
        let looked: Looked = Box::pin(place.ask("controller arrive look", SHORT, async |_| Ok(()))).await?;
        remote::same_version(&place.login, &looked.version, looked.schema)?;
        let mark = match next(self.hub, mark.as_ref(), &looked.standing) {
            Next::Refuse(why) => {
                let why = format!("nothing was done: {}: {why}", place.login);
                return Err(Failure::new(ExitCode::BadInput, why).into());
            }
            Next::Start => mark.ok_or_else(|| Failure::new(ExitCode::Internal, "a start without a mark"))?,
            Next::Move => Box::pin(self.bring(&place, &state)).await?,
            Next::MoveAnew => {
                // Nothing there can be started: so says the look.
                moved::unmark(&self.home).map_err(|error| bad(&error))?;
                none_local(&Box::pin(self.machines()).await?)?;
                Box::pin(self.bring(&place, &state)).await?
            }
        };
        let mark = Moved { program: program.there(), ..mark };
        moved::mark(&self.home, &mark).map_err(|error| bad(&error))?;
        Box::pin(self.settle(&place, mark)).await
    }

    /// Where it goes. What a move began with, it ends with.
    fn place(&self, mark: Option<&Moved>) -> Result<Place, Failure> {
        let asked = self.args.remote_home.as_deref();
        let place = Place::new(&self.args.to, asked, None)?;
        let Some(mark) = mark else { return Ok(place) };
        let same_home = asked.is_none() || place.home == mark.remote_home;
        if mark.to != place.login.to_string() || !same_home {
            let at = mark.remote_home.as_ref().map_or_else(String::new, |home| format!(", to {home} there"));
            let why = format!("the state of this data directory was moved to {}{at} already", mark.to);
            return Err(Failure::new(ExitCode::Elsewhere, why)
                .help("to move it on, run the deploy there; to reach it: outlast login"));
        }
        Ok(Place { home: mark.remote_home.clone(), ..place })
    }

    /// The machines of this installation that are not known to be gone.
    async fn machines(&self) -> anyhow::Result<Vec<(String, String)>> {
        if !daemon::is_free(&self.home)? {
            let client = Box::pin(daemon::ensure(self.ctx, false)).await?;
            let all = v1::ListMachinesRequest { all: false };
            let list = answer(client.operator.clone().list_machines(all).await)?.machines;
            return Ok(list.into_iter().map(|machine| (machine.id, machine.provider)).collect());
        }
        let _hold = Hold::take(&self.home).map_err(|error| bad(&error))?;
        self.stored().await
    }

    /// The same from the database, which the caller holds.
    async fn stored(&self) -> anyhow::Result<Vec<(String, String)>> {
        let list = Box::pin(moved::machines(&self.home)).await?;
        Ok(list.into_iter().map(|(id, provider)| (id.to_string(), provider)).collect())
    }

    /// Says what will happen and asks.
    fn agreed(
        &self,
        mark: Option<&Moved>,
        program: &Program,
        state: &[Entry],
        machines: &[(String, String)],
    ) -> anyhow::Result<bool> {
        let text = match mark {
            Some(mark) if mark.settled => format!(
                "this installation was moved to {}: this sees to it that its controller runs, and logs in",
                mark.to
            ),
            Some(mark) => format!("this goes on with the move of this installation to {}", mark.to),
            None => {
                let known = plan::Known { home: &self.home, env: &self.ctx.env, given: &self.env, machines };
                let size: u64 = state.iter().map(|entry| entry.bytes).sum();
                plan::told(&known, &self.args.to, &program.told(), state.len(), &bytes(size))
            }
        };
        if self.args.yes {
            self.ctx.printer.note(&text);
            return Ok(true);
        }
        self.ctx.printer.report(&text);
        confirm(self.ctx, "do it?")
    }

    /// Ends the controller here, brings the state there, and marks this side.
    /// What fails before the mark leaves this side as it was.
    async fn bring(&self, place: &Place, state: &[Entry]) -> anyhow::Result<Moved> {
        let ran = !daemon::is_free(&self.home)?;
        match Box::pin(self.brought(place, state, ran)).await {
            Ok(mark) => Ok(mark),
            Err(error) => Err(self.back(ran, error).await),
        }
    }

    async fn brought(&self, place: &Place, _before: &[Entry], ran: bool) -> anyhow::Result<Moved> {
        let note = |text: &str| self.ctx.printer.note(text);
        if ran {
            let (client, _) = Box::pin(daemon::answering(&self.home)).await?;
            Box::pin(daemon::end(&self.home, &client)).await?;
        }
        // From here on nobody starts one: the lock is ours until the mark is.
        let hold = hold(&self.home)?;
        note("the controller here has ended");
        none_local(&self.stored().await?)?;
        let token = token()?;
        let arrival = Arrival { hub: self.hub, token: token.clone() };
        let state = stream::scan(&self.home)?;
        let mut sent: Option<Sum> = None;
        let (home, to, wanted) = (&self.home, &mut sent, &arrival);
        let came: Sum = Box::pin(place.ask("controller arrive receive", LONG, async move |pipe| {
            *to = Some(stream::send(pipe, home, wanted, &state).await?);
            Ok(())
        }))
        .await?;
        if sent.as_ref() != Some(&came) {
            return Err(Failure::new(ExitCode::Unreachable, "what arrived is not what was sent").into());
        }
        note(&format!("{} files arrived whole ({})", came.files, bytes(came.bytes)));
        let mark = Moved {
            to: place.login.to_string(),
            remote_home: place.home.clone(),
            program: place.program.clone().unwrap_or_default(),
            hub: self.hub,
            token,
            settled: false,
        };
        moved::mark(&self.home, &mark).map_err(|error| bad(&error))?;
        drop(hold);
        Ok(mark)
    }

    /// After a failure that left no mark: the controller here goes on.
    async fn back(&self, ran: bool, error: anyhow::Error) -> anyhow::Error {
        if matches!(moved::moved(&self.home), Ok(None)) {
            let text = if !ran {
                "this installation is as it was".to_owned()
            } else if let Err(error) = Box::pin(daemon::ensure(self.ctx, false)).await {
                format!("this installation is as it was, and its controller does not start: {error}")
            } else {
                "this installation is as it was, and its controller runs again".to_owned()
            };
            self.ctx.printer.note(&text);
        }
        error
    }

    /// Has a controller run there, and logs in to it.
    async fn settle(&self, place: &Place, mark: Moved) -> anyhow::Result<ExitCode> {
        let begun = match Box::pin(self.start(place, &mark)).await {
            Ok(begun) => begun,
            Err(failure) => return Err(self.undone(place, &mark, failure).await),
        };
        let device = login::own_name();
        Box::pin(login::enter(self.ctx, place, &device)).await.map_err(|error| {
            let again = format!("it runs on {0}; run this command again, or: outlast login {0}", place.login);
            error.context(Failure::new(ExitCode::Unreachable, format!("not logged in: {again}")))
        })?;
        moved::mark(&self.home, &Moved { settled: true, ..mark }).map_err(|error| bad(&error))?;
        install::let_go(self.ctx, &self.home);
        self.ctx.printer.note(&format!(
            "the controller runs on {} (pid {}), {}; every command of this data directory asks it",
            place.login,
            begun.pid,
            if begun.service {
                "kept running by systemd"
            } else {
                "as a process, until that computer restarts"
            }
        ));
        self.ctx.printer.help(&format!(
            "{} still holds a copy of the keys and of the state; nothing starts it",
            self.home.display()
        ));
        Ok(ExitCode::Ok)
    }

    async fn start(&self, place: &Place, mark: &Moved) -> Result<Begun, Failure> {
        let process = if self.args.no_service { " --process" } else { "" };
        let words = format!("controller arrive start --hub {} --token {}{process}", mark.hub, mark.token);
        let given = serde_json::to_vec(&Given { env: self.env.clone() })
            .map_err(|error| Failure::new(ExitCode::Internal, error.to_string()))?;
        Box::pin(place.ask(&words, START, async move |to| to.write_all(&given).await)).await
    }

    /// No controller answered there: where it is certain that none can, this
    /// side goes on.
    async fn undone(&self, place: &Place, mark: &Moved, failure: Failure) -> anyhow::Error {
        let words = format!("controller arrive undo --hub {} --token {}", mark.hub, mark.token);
        let asked: Result<Undone, Failure> = Box::pin(place.ask(&words, START, async |_| Ok(()))).await;
        let certain = matches!(asked, Ok(Undone { undone: true }));
        if certain && moved::unmark(&self.home).is_ok() {
            let text = match Box::pin(daemon::ensure(self.ctx, false)).await {
                Ok(_) => {
                    "the copy there cannot be started any more, and the controller here runs again".to_owned()
                }
                Err(error) => format!("the copy there cannot be started any more; here: {error}"),
            };
            self.ctx.printer.note(&text);
            return failure.into();
        }
        let at = place.login.to_string();
        let directory =
            mark.remote_home.as_ref().map_or_else(String::new, |home| format!(" --remote-home {home}"));
        let what = if asked.is_ok() {
            format!("a controller was started on {at} and does not answer: the state there is the newer one")
        } else {
            format!("it is not known whether a controller runs on {at}, so none is started here")
        };
        failure
            .help(what)
            .help(format!("when {at} can be reached, go on with: outlast controller deploy {at}{directory}"))
            .help(format!("to see how it is there: {}", place.typed("controller status")))
            .into()
    }
}

fn bad(error: &HomeError) -> Failure {
    let code = if matches!(error, HomeError::Held(_)) { ExitCode::Busy } else { ExitCode::BadInput };
    Failure::new(code, error.to_string())
}

fn token() -> Result<String, Failure> {
    let random: [u8; 16] =
        proto::pki::random().map_err(|error| Failure::new(ExitCode::Internal, error.to_string()))?;
    Ok(data_encoding::HEXLOWER.encode(&random))
}

/// The lock of a controller that has ended.
fn hold(home: &Path) -> Result<Hold, Failure> {
    let deadline = Instant::now() + HOLD;
    loop {
        match Hold::take(home) {
            Ok(hold) => return Ok(hold),
            Err(HomeError::Held(_)) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Err(error) => return Err(bad(&error)),
        }
    }
}

/// Machines of the provider `local` are processes of this computer and cannot
/// go anywhere.
fn none_local(machines: &[(String, String)]) -> Result<(), Failure> {
    let local: Vec<&str> =
        machines.iter().filter(|(_, provider)| provider == "local").map(|(id, _)| id.as_str()).collect();
    if local.is_empty() {
        return Ok(());
    }
    let why = format!("machines of this computer are at work and cannot move: {}", local.join(", "));
    Err(Failure::new(ExitCode::BadInput, why)
        .help("wait for their runs to end, or `outlast stop` them; nothing was changed"))
}
