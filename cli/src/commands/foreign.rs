//! Machines that other installations of Outlast made in this person's accounts:
//! after a lost data directory they bill until somebody ends them. Shown by
//! `outlast machines --foreign`; ended by `outlast destroy --foreign`, which
//! asks twice, since they may well be somebody's work.

use proto::v1;

use super::{answer, can_ask, confirm};
use crate::app::Context;
use crate::args::DestroyArgs;
use crate::client::Client;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::money;

async fn ask(client: &Client, provider: &str) -> anyhow::Result<v1::ForeignList> {
    let request = v1::ForeignRequest { provider: provider.to_owned() };
    Ok(answer(client.operator.clone().foreign(request).await)?)
}

/// Lists them.
///
/// # Errors
/// Where the controller cannot be asked, or not one provider answers.
pub async fn list(ctx: &Context, json: bool) -> anyhow::Result<ExitCode> {
    // Nothing need have been run here: that is what it is for.
    let client = Box::pin(daemon::ensure(ctx, true)).await?;
    let found = ask(&client, "").await?;
    if json {
        ctx.printer.json(&found);
    } else {
        for problem in &found.problems {
            ctx.printer.warn(problem);
        }
        let rows: Vec<Vec<String>> = found.machines.iter().map(row).collect();
        if rows.is_empty() && found.problems.is_empty() {
            ctx.printer.note("no machine of another installation is in your accounts");
        } else if !rows.is_empty() {
            ctx.printer
                .table(&["MACHINE", "INSTALLATION", "STATE", "SAYS", "PRICE", "BILLED", "LABEL"], &rows);
            ctx.printer.help("to end one: outlast destroy --foreign MACHINE");
        }
    }
    // What could not be looked at is not known to be empty.
    Ok(if found.problems.is_empty() { ExitCode::Ok } else { ExitCode::Unreachable })
}

fn row(machine: &v1::ForeignMachine) -> Vec<String> {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let price = match machine.usd_per_hour {
        usd if usd > 0.0 => format!("{}/h", money(usd)),
        _ => "-".to_owned(),
    };
    vec![
        format!("{}/{}", machine.provider, machine.instance),
        or_dash(&machine.installation),
        machine.state.clone(),
        or_dash(&machine.says),
        price,
        or_dash(&machine.billed),
        machine.label.clone(),
    ]
}

/// Ends one.
///
/// # Errors
/// Where there is no such machine, or nobody agreed twice.
pub async fn destroy(ctx: &Context, args: &DestroyArgs) -> anyhow::Result<ExitCode> {
    let Some((provider, instance)) = args.target.split_once('/') else {
        let why = format!("`{}` is not PROVIDER/INSTANCE", args.target);
        let help = "`outlast machines --foreign` lists them as they are named here";
        return Err(Failure::new(ExitCode::Usage, why).help(help).into());
    };
    let asks = can_ask(ctx);
    if !asks && (!args.yes || args.installation.is_none()) {
        let why = "a machine of another installation is destroyed only if you say so twice, and there is no terminal to ask on";
        let help = "say so beforehand with --yes and --installation ID, the one that it belongs to";
        return Err(Failure::new(ExitCode::Usage, why).help(help).into());
    }
    let client = Box::pin(daemon::ensure(ctx, true)).await?;
    let found = ask(&client, provider).await?;
    let Some(machine) = found.machines.iter().find(|m| m.instance == instance) else {
        for problem in &found.problems {
            ctx.printer.warn(problem);
        }
        let why = format!("no machine of another installation is called {}", args.target);
        return Err(Failure::new(ExitCode::NotFound, why).help("see `outlast machines --foreign`").into());
    };
    if let Some(named) = args.installation.as_deref().filter(|named| *named != machine.installation) {
        let why =
            format!("{} belongs to installation `{}`, not to `{named}`", args.target, machine.installation);
        return Err(Failure::new(ExitCode::BadInput, why).into());
    }
    if !agreed(ctx, args, machine)? {
        ctx.printer.note("nothing was destroyed");
        return Ok(ExitCode::Cancelled);
    }
    let request = v1::DestroyForeignRequest {
        provider: machine.provider.clone(),
        instance: machine.instance.clone(),
        label: machine.label.clone(),
    };
    let done = answer(client.operator.clone().destroy_foreign(request).await)?;
    if args.json {
        ctx.printer.json(&done);
    }
    if done.gone {
        ctx.printer.note(&format!("{} is gone", args.target));
        return Ok(ExitCode::Ok);
    }
    let why = format!("{} is not confirmed gone: {}", args.target, crate::printer::safe(&done.says));
    Err(Failure::new(ExitCode::Unreachable, why).help("try again; it bills until it is gone").into())
}

/// Twice: whether, and which one.
fn agreed(ctx: &Context, args: &DestroyArgs, machine: &v1::ForeignMachine) -> anyhow::Result<bool> {
    let (label, says) = (crate::printer::safe(&machine.label), crate::printer::safe(&machine.says));
    let what = format!("{} ({label}; {}; {says})", args.target, machine.state.to_lowercase());
    if !args.yes
        && !confirm(
            ctx,
            &format!("destroy {what}, which this installation did not make, and all that is on it?"),
        )?
    {
        return Ok(false);
    }
    if args.installation.is_some() {
        return Ok(true);
    }
    ctx.printer.report(&format!("write its number, {}, to destroy it:", machine.instance));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim() == machine.instance)
}
