//! `outlast login` and `outlast logout`: which controller this data directory
//! speaks with. And `outlast controller admit` and `link`, which a login runs on
//! the other side. Nothing is written before the other side has answered.

use std::io::Read as _;

use controller::home::hub_of;
use proto::identity::Identity;
use proto::v1;

use super::{answer, moment};
use crate::app::Context;
use crate::args::LoginArgs;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::remote::{self, Admitted, Place, Remote};

/// No request for a certificate is longer as text.
const LONGEST: u64 = 64 << 10;

/// Logs in.
///
/// # Errors
/// Why it was not admitted.
pub async fn login(ctx: &Context, args: &LoginArgs) -> anyhow::Result<ExitCode> {
    let place = Place::new(&args.to, args.remote_home.as_deref(), args.remote_program.as_deref())?;
    let device = match &args.name {
        Some(name) => name.clone(),
        None => own_name(),
    };
    Identity::device(&device).map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))?;
    let remote = Box::pin(enter(ctx, &place, &device)).await?;
    let until = remote.credentials().validity().map_or(0, |(_, until)| until);
    ctx.printer.note(&format!(
        "logged in to {} as {device}; every command of this data directory asks the controller there (certificate until {}, \
         renewed by itself)",
        place.login,
        moment(u64::try_from(until).unwrap_or(0) * 1_000)
    ));
    Ok(ExitCode::Ok)
}

/// Is admitted, tries the connection, and only then writes it down.
///
/// # Errors
/// Why not.
pub async fn enter(ctx: &Context, place: &Place, device: &str) -> anyhow::Result<Remote> {
    let home = ctx.home()?;
    let remote = Box::pin(Remote::login(place, device)).await?;
    let view = Box::pin(remote.reach()).await?.view().await?;
    remote::same_version(&place.login, &view.version, view.schema)?;
    remote.write(&home)?;
    // What this computer had of its own is not lost, only not asked any more.
    let own = hub_of(&home).is_some_and(|hub| hub != remote.hub);
    if own && !daemon::is_free(&home).unwrap_or(true) {
        ctx.printer.warn(
            "a controller of this computer goes on with runs of its own; `outlast logout` goes back to it",
        );
    }
    Ok(remote)
}

/// This computer's name, as far as a certificate can carry it.
#[must_use]
pub fn own_name() -> String {
    let name: String = daemon::host_name()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .take(48)
        .collect();
    if Identity::device(&name).is_ok() { name } else { "device".to_owned() }
}

/// Goes back to this computer's own controller.
///
/// # Errors
/// Where the file cannot be removed.
pub fn logout(ctx: &Context) -> anyhow::Result<ExitCode> {
    let home = ctx.home()?;
    let to = remote::read(&home).ok().flatten().map(|remote| remote.to().to_owned());
    if !remote::forget(&home)? {
        ctx.printer.note("this data directory is logged in nowhere");
        return Ok(ExitCode::Ok);
    }
    let to = to.unwrap_or_else(|| "the other computer".to_owned());
    ctx.printer.note(&format!("logged out of {to}; its controller and its runs go on"));
    if let Ok(Some(mark)) = controller::moved::moved(&home) {
        ctx.printer.warn(&format!(
            "the state of this data directory was moved to {0}: nothing can be started here; `outlast login {0}` asks there",
            mark.to
        ));
    }
    Ok(ExitCode::Ok)
}

/// Refuses where nothing was ever started: a mistyped directory must not become
/// an installation.
fn installed(ctx: &Context) -> Result<(), Failure> {
    let home = ctx.home()?;
    if home.join("hub.json").exists() {
        return Ok(());
    }
    let why = format!("there is no installation in {}", home.display());
    Err(Failure::new(ExitCode::NotFound, why)
        .help("`outlast controller start` there begins one; --remote-home names another directory"))
}

/// Signs a device's request, which comes on standard input.
///
/// # Errors
/// Where it is none, or the controller refuses.
pub async fn admit(ctx: &Context, name: &str) -> anyhow::Result<ExitCode> {
    Identity::device(name).map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))?;
    installed(ctx)?;
    let mut text = String::new();
    std::io::stdin().take(LONGEST).read_to_string(&mut text)?;
    let csr = proto::pki::csr_from_pem(&text)
        .map_err(|error| Failure::new(ExitCode::BadInput, format!("standard input: {error}")))?;
    remote::only_there(&ctx.home()?, "controller admit")?;
    let client = Box::pin(daemon::ensure(ctx, false)).await?;
    let view = client.view().await?;
    let ask = v1::AdmitRequest { name: name.to_owned(), csr };
    let reply = answer(client.operator.clone().admit(ask).await)?;
    let hub = reply.hub_id.parse().map_err(|_| Failure::new(ExitCode::Internal, "no such installation"))?;
    let admitted = Admitted {
        hub,
        chain: reply.chain_pem,
        root: reply.root_pem,
        until_ms: reply.until_ms,
        version: view.version,
        schema: view.schema,
    };
    ctx.printer.line(&serde_json::to_string(&admitted)?);
    Ok(ExitCode::Ok)
}

/// Joins the standard streams to the controller, starting one if none runs.
///
/// # Errors
/// Where none can be reached.
pub async fn link(ctx: &Context) -> anyhow::Result<ExitCode> {
    installed(ctx)?;
    let home = ctx.home()?;
    remote::only_there(&home, "controller link")?;
    drop(Box::pin(daemon::ensure(ctx, false)).await?);
    let at = controller::home::rendezvous(&home);
    let at = at.ok_or_else(|| Failure::new(ExitCode::Unreachable, "the controller is not announced"))?;
    // Nothing else is to be done here: these threads are all there is.
    remote::carry::run(&at.operators)?;
    Ok(ExitCode::Ok)
}
