//! `outlast controller`: starts, ends and installs the controller of this
//! computer. Ending it ends no work: machines go on by themselves.

mod arrive;
mod deploy;
mod install;
mod stream;

use std::path::Path;

use proto::v1;
use serde_json::json;

use super::{describe, login, moment, now_ms, short, span};
use crate::app::Context;
use crate::args::ControllerVerb;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{duration, money, safe};
use crate::remote::{self, only_there};

/// Does it.
///
/// # Errors
/// Where the controller cannot be started, ended or installed.
pub async fn perform(ctx: &Context, verb: ControllerVerb) -> anyhow::Result<ExitCode> {
    match verb {
        ControllerVerb::Start { json } => {
            only_there(&ctx.home()?, "controller start")?;
            let view = daemon::ensure(ctx, true).await?.view().await?;
            if json {
                ctx.printer.json(&view);
            }
            ctx.printer.note(&format!("the controller runs (pid {})", view.pid));
            Ok(ExitCode::Ok)
        }
        ControllerVerb::Stop => stop(ctx).await,
        ControllerVerb::Status { json } => status(ctx, json).await,
        ControllerVerb::Install { print } => {
            only_there(&ctx.home()?, "controller install")?;
            install::perform(ctx, print).await
        }
        ControllerVerb::Admit { name } => Box::pin(login::admit(ctx, &name)).await,
        ControllerVerb::Deploy(args) => Box::pin(deploy::perform(ctx, &args)).await,
        ControllerVerb::Arrive { step } => Box::pin(arrive::perform(ctx, &step)).await,
        ControllerVerb::Link => Box::pin(login::link(ctx)).await,
        // Done before there is a runtime: a controller brings its own.
        ControllerVerb::Serve { .. } => Ok(ExitCode::Usage),
    }
}

async fn stop(ctx: &Context) -> anyhow::Result<ExitCode> {
    let home = ctx.home()?;
    only_there(&home, "controller stop")?;
    match daemon::answering(&home).await {
        Ok((client, view)) => {
            let asked = client.operator.clone().list_machines(v1::ListMachinesRequest { all: false }).await;
            // Who cannot tell of his machines is ended all the same.
            let left = asked.map(|reply| reply.into_inner().machines).unwrap_or_default();
            daemon::end(&home, &client).await?;
            ctx.printer.note("the controller has ended");
            for line in left.iter().filter_map(|machine| bills_on(machine, now_ms())) {
                ctx.printer.warn(&line);
            }
            if view.machines > 0 {
                ctx.printer.warn(&format!(
                    "{} machines go on, and nobody replaces one that is lost until a controller runs",
                    view.machines
                ));
            }
        }
        Err(_) => ctx.printer.note("no controller runs"),
    }
    Ok(ExitCode::Ok)
}

/// What is said of a machine that somebody bills while no controller runs.
fn bills_on(machine: &v1::MachineView, now_ms: u64) -> Option<String> {
    if !machine.paid {
        return None;
    }
    let price = match machine.usd_per_hour {
        usd if usd > 0.0 => format!("bills {} an hour", money(usd)),
        _ => "bills".to_owned(),
    };
    let until = match (machine.state.as_str(), machine.ends_alone_ms) {
        ("DESTROYING", _) => {
            "its end was asked for and is not confirmed: nobody asks again until a controller runs".into()
        }
        (_, 0) => "nothing ends it until a controller runs, or its provider does".into(),
        (_, at) => format!(
            "by itself it ends at {} at the latest (in {}): it begins to save then, and its disk may be paid for longer",
            moment(at),
            duration(at.saturating_sub(now_ms) / 1_000)
        ),
    };
    let (id, provider, state) = (short(&machine.id), safe(&machine.provider), &machine.state);
    Some(format!("machine {id} of `{provider}` ({state}) {price} from now on; {until}"))
}

/// What the controller says of itself, here or where this data directory is
/// logged in; none is started here.
async fn looked(ctx: &Context, home: &Path) -> Result<v1::ControllerView, Failure> {
    if let Some(remote) = remote::read(home)? {
        ctx.printer.detail(&format!("asking {}", remote.to()));
        return Box::pin(remote.connect(home)).await?.view().await;
    }
    only_there(home, "controller status")?;
    Ok(daemon::answering(home).await?.1)
}

async fn status(ctx: &Context, json: bool) -> anyhow::Result<ExitCode> {
    let home = ctx.home()?;
    let at = remote::read(&home)?.map(|remote| remote.to().to_owned());
    match Box::pin(looked(ctx, &home)).await {
        Ok(view) => {
            if json {
                ctx.printer.json(&json!({ "running": true, "home": home, "at": at, "controller": view }));
                return Ok(ExitCode::Ok);
            }
            describe(ctx, "at", at.as_deref().unwrap_or_default());
            describe(ctx, "home", &home.display().to_string());
            describe(ctx, "pid", &view.pid.to_string());
            describe(ctx, "version", &format!("{} (build {})", view.version, view.build_id));
            describe(ctx, "began", &format!("{} ({})", moment(view.started_ms), span(view.started_ms, 0)));
            describe(ctx, "runs", &format!("{} not ended", view.active_runs));
            describe(ctx, "machines", &view.machines.to_string());
            for alert in &view.alerts {
                ctx.printer.warn(alert);
            }
            Ok(ExitCode::Ok)
        }
        Err(failure) => {
            if json {
                ctx.printer
                    .json(&json!({ "running": false, "home": home, "at": at, "why": failure.message }));
            }
            ctx.printer.note(&format!("no controller runs: {}", failure.message));
            for help in &failure.help {
                ctx.printer.help(help);
            }
            Ok(failure.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_billing_is_told_with_its_price_and_the_moment_of_its_end() {
        let machine = |state: &str, ends_alone_ms: u64, paid: bool| v1::MachineView {
            id: "abcdefghijkl".into(),
            provider: "vast".into(),
            state: state.into(),
            usd_per_hour: 0.42,
            ends_alone_ms,
            paid,
            ..Default::default()
        };
        let said = bills_on(&machine("READY", 951_786_000_000, true), 951_782_400_000).unwrap();
        for part in ["abcdefgh", "bills $0.42 an hour", "2000-02-29T01:00:00.000Z", "in 1h 00m"] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
        let ending = bills_on(&machine("DESTROYING", 0, true), 1).unwrap();
        assert!(ending.contains("not confirmed"), "{ending}");
        assert!(bills_on(&machine("READY", 0, true), 1).unwrap().contains("nothing ends it"));
        assert_eq!(bills_on(&machine("READY", 0, false), 1), None);
    }
}
