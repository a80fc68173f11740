//! Tells a program of a notice: a file appears, and a signal asks whoever
//! catches it to save. Done once for each notice, also by an agent that was
//! started again: the file says what was told.

use std::path::Path;

use lifecycle::spec::NoticeSignal;
use proto::v1;
use serde::Deserialize;

use super::super::layout::AttemptDir;
use super::super::{Warned, Warning};
use super::{Machine, spec_of};
use crate::notice::Wanted;
use crate::os::{self, Asking};
use crate::process::KeeperState;

const MOST: usize = 4_096;

/// Whom the run of this assignment wants asked.
pub(super) fn wanted(machine: &Machine, work: &v1::Work) -> Option<Wanted> {
    let (run, cwd) = (spec_of(work)?, machine.dir(&work.attempt_id).source());
    let played = run.machine.played.is_some();
    Some(Wanted { spec: run.notice, cwd, env: machine.base_env.clone(), saved: false, played })
}

/// Tells the running program, where nothing else waits for it.
pub(super) async fn tell(machine: &Machine, work: v1::Work, warning: Option<Warning>) -> Warned {
    let (dir, whom) = (machine.dir(&work.attempt_id), whom(machine, &work));
    let told = tokio::task::spawn_blocking(move || {
        let (signal, pid) = whom();
        warn(&dir, warning.as_ref(), signal, pid)
    });
    told.await.unwrap_or_else(|error| Warned::Failed(0, error.to_string()))
}

/// Asks the running program to save, by the signal alone.
pub(super) async fn ask(machine: &Machine, work: &v1::Work) -> usize {
    let whom = whom(machine, work);
    let asked = tokio::task::spawn_blocking(move || {
        let (signal, pid) = whom();
        signalled(signal, pid)
    });
    asked.await.unwrap_or(0)
}

/// By which signal a program is asked, and its first process, where a signal
/// can reach it. What is handed back looks at the disk.
fn whom(machine: &Machine, work: &v1::Work) -> impl FnOnce() -> (NoticeSignal, Option<i32>) + Send + use<> {
    let (keeper, spec) = (machine.keeper(&work.attempt_id), spec_of(work));
    move || {
        let signal = spec.as_ref().map(|spec| spec.notice.signal).unwrap_or_default();
        // Between a container and its tool, who would take the signal is not
        // known.
        let is_contained = spec.is_none_or(|spec| !spec.environment.image.is_empty());
        let pid = match keeper.state() {
            KeeperState::Running { child_pid } if !is_contained => Some(child_pid),
            _ => None,
        };
        (signal, pid)
    }
}

fn signalled(signal: NoticeSignal, pid: Option<i32>) -> usize {
    let asking = match signal {
        NoticeSignal::Usr1 => Some(Asking::Usr1),
        NoticeSignal::Usr2 => Some(Asking::Usr2),
        NoticeSignal::Hup => Some(Asking::Hup),
        NoticeSignal::None => None,
    };
    match (asking, pid) {
        (Some(asking), Some(pid)) => os::ask_to_save(pid, asking),
        _ => 0,
    }
}

#[derive(Deserialize, PartialEq, Eq)]
struct Told {
    source: String,
    kind: String,
}

/// Tells it, or takes it back. `pid`: the program's first process; `None`: no
/// signal can reach it.
fn warn(dir: &AttemptDir, warning: Option<&Warning>, signal: NoticeSignal, pid: Option<i32>) -> Warned {
    let file = dir.notice_file();
    let Some(warning) = warning else {
        let _ = std::fs::remove_file(&file);
        return Warned::Withdrawn;
    };
    if told(&file).is_some_and(|told| told.source == warning.source && told.kind == warning.kind) {
        return Warned::Before;
    }
    let text = serde_json::to_vec(warning).unwrap_or_default();
    let written = os::make_private_dir(&dir.notice()).and_then(|()| os::write_durable(&file, &text));
    let asked = signalled(signal, pid);
    match written {
        Ok(()) => Warned::Told(asked),
        Err(error) => Warned::Failed(asked, error.to_string()),
    }
}

fn told(file: &Path) -> Option<Told> {
    serde_json::from_slice(&os::read_bounded(file, MOST).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_told_once_and_can_be_taken_back() {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(state.path().join("attempts/a")).unwrap();
        let dir = AttemptDir::new(state.path(), "a");
        let warning = |kind: &str| Warning {
            source: "ec2".into(),
            kind: kind.into(),
            text: "terminate".into(),
            until_unix_ms: Some(5),
            at_unix_ms: 1,
        };
        let tell = |warning: Option<&Warning>| warn(&dir, warning, NoticeSignal::Usr1, None);
        assert_eq!(tell(Some(&warning("may-end"))), Warned::Told(0));
        assert_eq!(tell(Some(&warning("may-end"))), Warned::Before);
        assert_eq!(tell(Some(&warning("ends"))), Warned::Told(0), "it became louder");
        let said: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.notice_file()).unwrap()).unwrap();
        assert_eq!((said["kind"].as_str(), said["until_unix_ms"].as_u64()), (Some("ends"), Some(5)));
        assert_eq!(tell(None), Warned::Withdrawn);
        assert!(!dir.notice_file().exists());
        assert_eq!(tell(Some(&warning("ends"))), Warned::Told(0));
    }
}
