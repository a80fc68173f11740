//! An attached run: followed to its end, its machines seen gone, its results
//! fetched, the report told. Leaving it never ends it.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use artifacts::source::Filter;
use proto::v1;

use crate::app::Context;
use crate::chaos::{self, Plan};
use crate::client::{Client, selector};
use crate::exit_code::{ExitCode, Failure};
use crate::follow::{Ending, Follower};
use crate::link::Link;
use crate::pull;
use crate::report::{Report, Results, is_released};

/// Providers confirm within this, or the report says that they did not.
const RELEASE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(300);

/// How to attach.
#[derive(Debug, Clone)]
pub struct Attached {
    /// The root of the project, for results.
    pub root: PathBuf,
    /// Print one JSON object at the end instead of output.
    pub json: bool,
    /// What to do to it, and the seed.
    pub chaos: Option<(Plan, u64)>,
}

/// Stays with a run to its end. Ctrl-C leaves it.
///
/// # Errors
/// Where the controller cannot be reached for long, or refuses.
pub async fn attach(
    ctx: &Context,
    client: Client,
    run: &v1::RunView,
    how: &Attached,
) -> anyhow::Result<ExitCode> {
    let name = &run.name;
    let left = async {
        if tokio::signal::ctrl_c().await.is_err() {
            pending::<()>().await;
        }
    };
    let done = tokio::select! {
        done = Box::pin(carry(ctx, client, run, how)) => done?,
        () = left => None,
    };
    Ok(done.unwrap_or_else(|| {
        ctx.printer.clear_progress();
        ctx.printer.note(&format!("detached; {name} goes on"));
        ctx.printer.note(&format!("  return: outlast logs {name} -f\n  end it: outlast stop {name}"));
        ExitCode::Ok
    }))
}

/// To the end; `None` where nobody reads any more.
async fn carry(
    ctx: &Context,
    client: Client,
    run: &v1::RunView,
    how: &Attached,
) -> anyhow::Result<Option<ExitCode>> {
    let mut link = Link::new(ctx, client.clone());
    let follower = Follower::new(ctx, &run.id, !how.json);
    let news = follower.news();
    let torment = async {
        match &how.chaos {
            Some((plan, seed)) => {
                chaos::torment(ctx, Link::new(ctx, client), &run.id, plan, *seed, news).await.map(Some)
            }
            None => Ok(None),
        }
    };
    // When the follower is done, its news end, and with them the chaos.
    let (followed, tormented) = tokio::join!(follower.follow(&mut link), torment);
    let (ending, output) = followed?;
    let Ending::Over(detail) = ending else { return Ok(None) };
    let detail = released(ctx, &mut link, &run.id, *detail).await?;
    if let Some(mut output) = output {
        output.catch_up(&mut link, &run.id).await?;
        output.finish();
    }
    let mut report = Report::new(&detail, tormented?);
    let mut code = crate::report::exit_code(&detail.run.clone().unwrap_or_default());
    match Box::pin(results(ctx, &mut link, run, &default_place(&how.root, &run.name)?)).await {
        Ok(results) => report.results = results,
        Err(error) => {
            report.results_error = Some(format!("{error:#}"));
            if code == ExitCode::Ok {
                code = ExitCode::of(&error);
            }
        }
    }
    if report.chaos.as_ref().is_some_and(chaos::Outcome::fell_short) {
        code = ExitCode::Internal;
    }
    report.exit_code = code.code();
    report.tell(&ctx.printer);
    if how.json {
        ctx.printer.json(&report);
    }
    Ok(Some(code))
}

/// Waits until the providers confirmed that all machines of a run are gone.
async fn released(
    ctx: &Context,
    link: &mut Link<'_>,
    run: &str,
    mut detail: v1::RunDetail,
) -> anyhow::Result<v1::RunDetail> {
    let deadline = Instant::now() + RELEASE;
    let mut said = String::new();
    loop {
        let left: Vec<String> = detail
            .machines
            .iter()
            .filter(|machine| !is_released(machine))
            .map(|machine| format!("{} ({})", machine.id, machine.state.to_lowercase()))
            .collect();
        if left.is_empty() || Instant::now() > deadline {
            ctx.printer.clear_progress();
            return Ok(detail);
        }
        let text = format!("outlast: waiting until gone: {}", left.join(", "));
        ctx.printer.progress(&text);
        if said.is_empty() && !ctx.printer.settings().stderr.terminal {
            ctx.printer.note(&text);
            said = text;
        }
        tokio::time::sleep(LOOK).await;
        let ask = async |client: Client| client.operator.clone().get_run(selector(run)).await;
        detail = link.ask(ask).await?.into_inner();
    }
}

/// Where results of a run go by default.
///
/// # Errors
/// Where the run's name cannot be the name of a directory.
pub fn default_place(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > 128 || !name.bytes().all(plain) {
        let why = format!("`{}` is no name of a run", crate::printer::safe(name));
        return Err(Failure::new(ExitCode::Internal, why).into());
    }
    Ok(root.join("outputs").join(name))
}

/// Fetches the newest results of a run; `None` if it published none. Files
/// that were changed here stay, which is told and fails nothing.
async fn results(
    ctx: &Context,
    link: &mut Link<'_>,
    run: &v1::RunView,
    place: &Path,
) -> anyhow::Result<Option<Results>> {
    let all = Filter::new(&[], &[])?;
    let found = Box::pin(pull::results(ctx, link, run, place, &all, &mut String::new())).await?;
    Ok(found.map(|found| {
        for conflict in &found.conflicts {
            ctx.printer.warn(&conflict.to_string());
        }
        Results { path: place.to_owned(), files: found.files, bytes: found.bytes }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_the_wire_cannot_lead_elsewhere() {
        let root = Path::new("/p");
        assert_eq!(default_place(root, "digits-abc123").unwrap(), Path::new("/p/outputs/digits-abc123"));
        for bad in ["", "..", "a/b", "/etc", "a\0b"] {
            assert!(default_place(root, bad).is_err(), "{bad}");
        }
    }
}
