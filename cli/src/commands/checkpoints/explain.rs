//! `outlast checkpoints --explain`: why what was saved is or is not complete.
//! Of a run, as its machine last said; of a path, as it lies on this computer.
//! Looks only; what it says of a path is what a machine would say of it.

use std::path::{Path, PathBuf};

use agent::os;
use artifacts::complete::{Completeness, Judge, step_of};
use proto::v1;
use serde::Serialize;

use crate::app::Context;
use crate::client::Client;
use crate::commands::answer;
use crate::exit_code::{ExitCode, Failure};

/// Entries of a directory that are judged.
const MOST: usize = 1_000;

/// One line: what, how it stands, why.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    name: String,
    state: String,
    why: String,
}

/// A path on this computer, if the text plainly names one. A bare name is a
/// run's first: a project's directory is often called as its runs are.
///
/// # Errors
/// Where it can be nothing but a path, and there is nothing.
pub(super) fn path(text: &str) -> Result<Option<PathBuf>, Failure> {
    let found = bare(text).filter(|_| text.contains('/') || text.starts_with('.'));
    if found.is_none() && text.contains('/') {
        return Err(Failure::new(ExitCode::BadInput, format!("there is no file or directory `{text}`")));
    }
    Ok(found)
}

/// What is called so on this computer.
pub(super) fn bare(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.symlink_metadata().is_ok())
}

/// What the machine of a run last said of it.
///
/// # Errors
/// Where there is no such run, it has no machine, or that has not reported.
pub(super) async fn of_run(client: &Client, run: &str) -> anyhow::Result<Vec<Line>> {
    let asked = v1::HealthOf { text: run.to_owned(), history: 0, endpoint_only: false };
    let reply = answer(client.operator.clone().health(asked).await)?;
    let attempts = reply.report.map(|report| report.attempts).unwrap_or_default();
    let told = attempts.into_iter().flat_map(|attempt| attempt.checkpoints);
    Ok(told.map(|c| Line { name: c.name, state: c.state, why: c.why }).collect())
}

/// What lies at a path: itself and, where it is a directory that is no complete
/// checkpoint or that holds several, what is directly in it.
///
/// # Errors
/// Where it cannot be listed.
pub(super) fn of_path(path: &Path) -> anyhow::Result<Vec<Line>> {
    let path = std::path::absolute(path)?;
    let mut judge = Judge::default();
    let whole = line(&mut judge, &path);
    let is_whole = whole.state == "complete";
    let mut lines = vec![whole];
    if path.is_dir() {
        let entries = std::fs::read_dir(&path)
            .map_err(|e| Failure::new(ExitCode::BadInput, format!("{}: {e}", path.display())))?;
        let mut below: Vec<PathBuf> = entries.flatten().take(MOST).map(|entry| entry.path()).collect();
        below.sort();
        let tells_a_step = |path: &PathBuf| {
            path.file_name().and_then(|name| step_of(name.to_str()?)).is_some() && path.is_dir()
        };
        if !is_whole || below.iter().any(tells_a_step) {
            lines.extend(below.iter().map(|path| line(&mut judge, path)));
        }
    }
    Ok(lines)
}

fn line(judge: &mut Judge, path: &Path) -> Line {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    if path.is_symlink() {
        let to = path.read_link().unwrap_or_default();
        let why = format!("leads to `{}`, which is judged by itself", to.display());
        return Line { name, state: "link".into(), why };
    }
    let (state, why) = match judge.judge(path) {
        Completeness::Complete { format } => ("complete", format!("by {format}")),
        Completeness::Incomplete { why } => ("incomplete", why.to_string()),
        Completeness::Unknown { why } => {
            ("rests", format!("{why}; complete when it was renamed into place or has rested"))
        }
    };
    let files = Judge::files(path).into_iter().map(|file| match file.as_os_str().is_empty() {
        true => path.to_owned(),
        false => path.join(file),
    });
    let asked = if state == "incomplete" { os::Writers::Nobody } else { os::writers(files.collect()) };
    match asked {
        os::Writers::Writer(writer) => {
            let by = format!("process {} ({})", writer.pid, writer.command);
            let file = writer.file.strip_prefix(path).unwrap_or(&writer.file).display().to_string();
            let file = if file.is_empty() { name.clone() } else { file };
            Line { name, state: "incomplete".into(), why: format!("`{file}` is open for writing by {by}") }
        }
        os::Writers::Nobody => Line { name, state: state.into(), why },
        os::Writers::Blind(what) => Line {
            name,
            state: state.into(),
            why: format!("{why}; whether somebody writes to it cannot be seen: {what}"),
        },
    }
}

/// Shows it.
pub(super) fn show(ctx: &Context, lines: &[Line], json: bool) {
    if json {
        ctx.printer.json(&lines);
    } else if lines.is_empty() {
        ctx.printer.note("its machine has told of no checkpoint yet");
    } else {
        let rows: Vec<Vec<String>> =
            lines.iter().map(|line| vec![line.name.clone(), line.state.clone(), line.why.clone()]).collect();
        ctx.printer.table(&["NAME", "STATE", "WHY"], &rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_a_run_first() {
        // Tests run in the directory of their crate.
        let path = |text| path(text).map_err(|failure| failure.to_string());
        assert_eq!(path("src"), Ok(None));
        assert_eq!((bare("src"), path("./src")), (Some("src".into()), Ok(Some("./src".into()))));
        assert_eq!((bare("nowhere"), path("nowhere"), path(".nowhere")), (None, Ok(None), Ok(None)));
        assert_eq!(path("./nowhere"), Err("there is no file or directory `./nowhere`".to_owned()));
    }

    #[test]
    fn a_directory_is_explained_with_what_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        // The root's own name is a temporary one.
        let dir = root.path().join("saves");
        let put = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("checkpoint-5/config.json", "{}");
        put("state.json", "{}");
        put("step-3.pt", "PK\x03\x04");
        std::os::unix::fs::symlink("state.json", dir.join("last")).unwrap();
        let lines = of_path(&dir).unwrap();
        let told: Vec<_> = lines.iter().skip(1).map(|l| (l.name.as_str(), l.state.as_str())).collect();
        assert_eq!(
            told,
            [
                ("checkpoint-5", "incomplete"),
                ("last", "link"),
                ("state.json", "complete"),
                ("step-3.pt", "incomplete")
            ]
        );
        assert!(lines[0].why.contains("step-3.pt") && lines[0].state == "incomplete", "{:?}", lines[0]);
        assert!(lines[1].why.contains("waits for: `trainer_state.json`"), "{:?}", lines[1]);
        put("run/step-1/__0_0.distcp", "x");
        put("run/step-1/.metadata", "x");
        let run = of_path(&dir.join("run")).unwrap();
        let told: Vec<_> = run.iter().map(|line| (&*line.name, &*line.state)).collect();
        // A seal further down is not one of all that lies above it.
        assert_eq!((told[0].1, told[1]), ("rests", ("step-1", "complete")));
        assert_eq!(run[1].why, "by dcp");
        let whole = of_path(&dir.join("state.json")).unwrap();
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].why, "by json");
    }
}
