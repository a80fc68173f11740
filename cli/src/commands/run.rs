//! `outlast run`: reads the configuration, sends the source tree, hands the
//! run in, and stays with it unless told otherwise.

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use proto::v1;

use super::{can_ask, confirm, load, now_ms, preflight, span};
use crate::app::Context;
use crate::args::RunArgs;
use crate::attach::{Attached, attach};
use crate::client::Client;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::link::Link;
use crate::printer::bytes;
use crate::source;

/// Does it.
///
/// # Errors
/// Where the configuration is wrong, or the run is not accepted or followed.
pub async fn perform(ctx: &Context, args: RunArgs) -> anyhow::Result<ExitCode> {
    let flags = [("run.name", args.name.as_deref()), ("budget.max_usd", args.max_usd.as_deref())];
    let loaded = load(ctx, &args.path, &args.config, &flags)?;
    let mut spec = loaded.run_spec(&args.command)?;
    if let Some(file) = &args.simulate_market {
        if spec.provider != "local" {
            let why =
                format!("a market is played for the provider `local`; this run asks `{}`", spec.provider);
            let help = "set it for this run: --set run.provider=local";
            return Err(Failure::new(ExitCode::BadInput, why).help(help).into());
        }
        spec.machine.played = Some(Box::new(crate::market::read(file, now_ms())?));
    }
    let secrets = crate::secrets::read(&ctx.env, &loaded.config.secrets)?;
    let (chosen, total) = source::choose(ctx, &loaded.root, &loaded.config.source)?;
    source::warn_of_skipped(ctx, &chosen);
    if source::is_large(total) && !args.yes {
        let question =
            format!("the source tree has {} in {} files; send it?", bytes(total), chosen.paths.len());
        if !can_ask(ctx) {
            ctx.printer.warn(&format!("the source tree has {}", bytes(total)));
        } else if !confirm(ctx, &question)? {
            ctx.printer.note("nothing was sent; leave data out with .outlastignore");
            return Ok(ExitCode::Cancelled);
        }
    }
    let client = Box::pin(daemon::ensure(ctx, true)).await?;
    let accepts_local_store = loaded.config.run.accepts_local_store;
    if !preflight::agreed(ctx, &client, &mut spec, (args.yes, accepts_local_store)).await? {
        ctx.printer.note("nothing was rented");
        return Ok(ExitCode::Cancelled);
    }
    let store = client.store.clone();
    let packed = source::pack(ctx, &store, &loaded.root, chosen).await?;
    let spec_json = serde_json::to_string(&spec).context("write the run's description")?;
    let reuse = loaded.config.run.cache && !args.again && args.chaos.is_none();
    let request = v1::SubmitRequest {
        spec_json,
        source_key: packed.key,
        source_digest: packed.digest,
        token: HEXLOWER.encode(&proto::pki::random::<16>()?),
        reuse,
        secrets,
    };
    let submitted = submit(ctx, client.clone(), request).await;
    let run = submitted.inspect_err(|_| source::forget(ctx, &loaded.root))?;
    tell(ctx, &run);
    if args.detach {
        if args.json {
            ctx.printer.json(&run);
        } else {
            ctx.printer.line(&run.name);
        }
        if !run.reused {
            ctx.printer.note(&format!("  follow: outlast logs {0} -f\n  end it: outlast stop {0}", run.name));
        }
        return Ok(ExitCode::Ok);
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let chaos = args.chaos.map(|plan| (plan, seed));
    let how = Attached { root: loaded.root, json: args.json, chaos };
    Box::pin(attach(ctx, client, &run, &how)).await
}

/// Says what became of the submission.
fn tell(ctx: &Context, run: &v1::RunView) {
    let name = &run.name;
    if run.reused {
        ctx.printer.note(&format!(
            "outlast: nothing was run: {name} did the same work, it succeeded {} ago\n  run it all the same: outlast run --again",
            span(run.ended_ms, 0)
        ));
        return;
    }
    ctx.printer.note(&format!("outlast: {name} was accepted"));
    if !run.same_as.is_empty() {
        ctx.printer.detail(&format!(
            "{} did the same work; with `run.cache = true` in outlast.toml it would have been returned",
            run.same_as
        ));
    }
}

/// The token makes it safe to ask again after a broken connection.
async fn submit(ctx: &Context, client: Client, request: v1::SubmitRequest) -> anyhow::Result<v1::RunView> {
    let ask = async |client: Client| client.operator.clone().submit(request.clone()).await;
    Ok(Link::new(ctx, client).ask(ask).await?.into_inner())
}
