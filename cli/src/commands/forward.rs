//! `outlast forward`: a run's points to another tool, once or as they come:
//! TensorBoard's event files, W&B's directory of an offline run, or an MLflow
//! tracking server. It reads the run as [`analyze::live`] lays it, and never
//! changes the run itself.

mod files;
mod rows;
mod server;

use std::time::Duration;

use proto::v1;

use super::analyze::live;
use crate::app::Context;
use crate::args::ForwardArgs;
use crate::exit_code::{ExitCode, Failure};
use files::Files;
use rows::Following;
use server::Mlflow;

/// Between two looks at a run that goes on.
const LOOK: Duration = Duration::from_secs(1);

/// The longest pause before a server is tried again.
const LONGEST: Duration = Duration::from_secs(60);

/// Where a run goes to.
enum Target {
    Files(Files),
    Mlflow(Box<Mlflow>),
}

/// Does it.
///
/// # Errors
/// Where there is no such run, or the other tool's files or server cannot be
/// written to.
pub async fn perform(ctx: &Context, args: &ForwardArgs) -> anyhow::Result<ExitCode> {
    let Some((dir, detail)) = live::fetched(ctx, &args.run).await? else {
        return Err(Failure::new(ExitCode::NotFound, "nothing has been run here yet")
            .help("outlast run --help")
            .into());
    };
    let run = detail.run.clone().unwrap_or_default();
    let mut following = Following::default();
    let mut target = match (&args.tensorboard, &args.wandb, &args.mlflow) {
        (Some(place), ..) => Target::Files(Files::tensorboard(place, &run)?),
        (_, Some(place), _) => Target::Files(Files::wandb(place, &detail)?),
        (_, _, Some(url)) => {
            let mlflow = Mlflow::open(ctx, url, &detail, &mut following).await?;
            Target::Mlflow(Box::new(mlflow))
        }
        _ => return Err(Failure::new(ExitCode::Usage, "name one of --tensorboard, --wandb, --mlflow").into()),
    };
    let (mut written, mut detail) = (0_u64, detail);
    loop {
        loop {
            let more = following.read(&dir)?;
            if more.came.is_empty() {
                break;
            }
            written += more.values();
            match &mut target {
                Target::Files(files) => files.write(&more)?,
                Target::Mlflow(mlflow) => {
                    let mut pause = LOOK;
                    while let Err(error) = mlflow.write(&more, &following).await {
                        wait(ctx, args, error, &mut pause).await?;
                    }
                }
            }
            ctx.printer.progress(&format!("{written} values of {} forwarded", run.name));
        }
        let run = detail.run.clone().unwrap_or_default();
        if !args.follow || run.ended_ms > 0 {
            if run.ended_ms > 0 {
                match &mut target {
                    Target::Files(files) => files.finish(&run)?,
                    Target::Mlflow(mlflow) => {
                        let mut pause = LOOK;
                        while let Err(error) = mlflow.finish(&run).await {
                            wait(ctx, args, error, &mut pause).await?;
                        }
                    }
                }
            }
            break;
        }
        tokio::time::sleep(LOOK).await;
        match live::fetched(ctx, &run.id).await {
            Ok(Some((_, newest))) => detail = newest,
            Ok(None) => {}
            // A controller that is replaced comes back.
            Err(error) if ExitCode::of(&error) == ExitCode::Unreachable => {}
            Err(error) => return Err(error),
        }
    }
    ctx.printer.clear_progress();
    let place = match &target {
        Target::Files(files) => files.place(),
        Target::Mlflow(mlflow) => mlflow.place(),
    };
    ctx.printer.line(&place);
    ctx.printer.note(&format!("{written} values of {}", run.name));
    Ok(ExitCode::Ok)
}

/// Waits until a server may be tried again, longer each time.
///
/// # Errors
/// The error itself, where nobody follows the run or waiting cures nothing.
async fn wait(
    ctx: &Context,
    args: &ForwardArgs,
    error: anyhow::Error,
    pause: &mut Duration,
) -> anyhow::Result<()> {
    if !args.follow || !passes(&error) {
        return Err(error);
    }
    ctx.printer.warn(&format!("{error}; tried again in {} s", pause.as_secs()));
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(LONGEST);
    Ok(())
}

/// Whether an error of a server is over by itself: it is not there, or is too busy.
fn passes(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{NotConnected, Other, TimedOut};
    let text = error.to_string();
    let busy = ["it answered 5", "it answered 429"].iter().any(|begin| text.starts_with(begin));
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    busy || matches!(kind, Some(NotConnected | Other | TimedOut))
}

/// Settings of a run, as its command has them.
fn settings(detail: &v1::RunDetail) -> Vec<(String, curves::log::Value)> {
    let spec: serde_json::Value = serde_json::from_str(&detail.spec_json).unwrap_or_default();
    let words = spec["command"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
    curves::settings::of_command(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn only_what_is_over_by_itself_is_tried_again() {
        for (kind, text, expected) in [
            (io::ErrorKind::NotConnected, "h:1 cannot be reached: the exchange broke off", true),
            (io::ErrorKind::Other, "the exchange broke off", true),
            (io::ErrorKind::InvalidData, "it answered 503", true),
            (io::ErrorKind::InvalidData, "it answered 429, \"slow\"", true),
            (io::ErrorKind::InvalidData, "it answered 400, \"no such key\"", false),
            (io::ErrorKind::PermissionDenied, "it answered 401", false),
            (io::ErrorKind::NotFound, "it answered 404", false),
        ] {
            assert_eq!(passes(&io::Error::new(kind, text).into()), expected, "{text}");
        }
    }
}
