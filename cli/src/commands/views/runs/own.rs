//! Which runs `outlast runs` is about: those below a path, or those of the
//! controller. What is there as a file or directory is always that.

use std::path::Path;

use curves::view::filter::parse;
use curves::view::understand;

use crate::app::Context;
use crate::args::RunsArgs;
use crate::commands::analyze::{live, words};
use crate::commands::views::load::like;
use crate::exit_code::{ExitCode, Failure};

/// Takes the controller's runs where no path is meant.
///
/// # Errors
/// There is no controller, it cannot be asked, or it has no such run.
pub(crate) async fn resolve(ctx: &Context, args: &mut RunsArgs) -> anyhow::Result<()> {
    let Some(pattern) = pattern(args) else { return Ok(()) };
    let own = all(ctx, &pattern).await?;
    (args.places, args.left_out) = (own.places, own.left_out);
    Ok(())
}

/// The controller's runs whose names are as a pattern says, at least one.
///
/// # Errors
/// As [`resolve`].
pub(crate) async fn all(ctx: &Context, pattern: &str) -> anyhow::Result<live::Own> {
    let Some(own) = Box::pin(live::own(ctx, &|name| like(pattern, name))).await? else {
        return Err(Failure::new(ExitCode::NotFound, "nothing was run by this installation yet")
            .help("name a directory with runs: outlast runs DIR")
            .into());
    };
    if own.places.is_empty() {
        let message = match pattern {
            "*" => "the controller has no runs yet".to_owned(),
            _ => format!("the controller has no run with a name like {}", words::quoted(pattern)),
        };
        return Err(Failure::new(ExitCode::NotFound, message)
            .help("`outlast status --all` lists every run; name a directory for runs that lie in files")
            .into());
    }
    Ok(own)
}

/// The names, with `*`, of the runs of the controller that are meant; `None`: a path
/// or the name of one run is. Words that are no path go to the filter.
fn pattern(args: &mut RunsArgs) -> Option<String> {
    let all = || Some("*".to_owned());
    let Some(path) = args.path.take() else { return all() };
    let text = path.to_string_lossy().into_owned();
    if args.all {
        args.filter.insert(0, text);
        return all();
    }
    if std::fs::symlink_metadata(&path).is_ok() {
        args.path = Some(path);
        return None;
    }
    if text.contains('*') && live::may_be_run(&text.replace('*', "x")) {
        return Some(text);
    }
    let mut sentence = vec![text.clone()];
    sentence.extend(args.filter.iter().cloned());
    let sentence = sentence.join(" ");
    let compares = text.contains(['<', '>', '=', '~', ':', ' ']) && parse(&sentence).is_ok();
    let asks = sentence.contains(' ') && understand(&sentence).is_ok();
    if compares || asks {
        args.filter.insert(0, text);
        return all();
    }
    args.path = Some(path);
    None
}

/// Refuses a second path, which would be taken as a word to be found.
///
/// # Errors
/// There is one.
pub(crate) fn one_path(args: &RunsArgs) -> Result<(), Failure> {
    let Some(second) = args.filter.first().filter(|_| args.path.is_some()) else { return Ok(()) };
    if !Path::new(second).exists() || understand(&args.filter.join(" ")).is_ok() {
        return Ok(());
    }
    let message =
        format!("{} is a path: the runs below one path are listed at a time", words::quoted(second));
    Err(Failure::new(ExitCode::Usage, message)
        .help("name a directory above both; `outlast compare` and `outlast group` take several paths")
        .help("a word that is to be found in names and tags stands in quotes of its own: '\"WORD\"'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_path_is_a_pattern_a_question_or_a_run() {
        let of = |words: &[&str], all: bool| {
            let mut args = RunsArgs {
                path: words.first().map(|word| (*word).into()),
                filter: words.iter().skip(1).map(|word| (*word).to_owned()).collect(),
                all,
                ..RunsArgs::default()
            };
            (pattern(&mut args), args.path.is_some(), args.filter.join("|"))
        };
        let own = |pattern: &str, filter: &str| (Some(pattern.to_owned()), false, filter.to_owned());
        for (words, all, expected) in [
            (&[][..], false, own("*", "")),
            (&["resnet-*", "finished"], false, own("resnet-*", "finished")),
            (&["val_acc > 0.8"], false, own("*", "val_acc > 0.8")),
            (&["best", "run", "of", "last", "week"], false, own("*", "best|run|of|last|week")),
            (&["finished"], true, own("*", "finished")),
            (&["src", "best"], false, (None, true, "best".to_owned())),
            (&["resnet-o1"], false, (None, true, String::new())),
            (&["no-such-dir", "best", "run"], false, (None, true, "best|run".to_owned())),
            (&["mlflow://host:5000/0"], false, (None, true, String::new())),
        ] {
            assert_eq!(of(words, all), expected, "{words:?}");
        }
    }
}
