//! What a machine says of an attempt in words goes into rows and the journal,
//! and from there to everybody: without the secrets that it may quote from the
//! program's output. Done here, once, before anything is kept; a machine may
//! have masked already, which is never relied upon.

use lifecycle::mask::Masker;
use proto::v1::{self, event::Kind, exit_status};

use crate::core::Core;
use crate::model::{Attempt, Run};

/// The event without secrets.
pub(super) async fn secrets(core: &Core, event: &v1::Event, run: &Run, attempt: &Attempt) -> v1::Event {
    let ids = [run.id.to_string(), attempt.id.to_string(), attempt.machine.to_string()];
    let mask = crate::secrets::masker(core, run).await.knowing(ids);
    let mut event = event.clone();
    match &mut event.kind {
        Some(Kind::Ended(ended)) => {
            exit(ended.exit.as_mut(), &mask);
            let texts = [
                &mut ended.last_error_line,
                &mut ended.out_of_memory,
                &mut ended.unpublished,
                &mut ended.hang,
                &mut ended.leave_machine,
                &mut ended.oom_command,
            ];
            for text in texts.into_iter().chain(&mut ended.unapplied_limits) {
                *text = mask.text(text);
            }
        }
        Some(Kind::Exited(exited)) => {
            exit(exited.exit.as_mut(), &mask);
            exited.out_of_memory = mask.text(&exited.out_of_memory);
        }
        Some(Kind::Stopping(stopping)) => stopping.why = mask.text(&stopping.why),
        Some(Kind::Note(note)) => note.text = mask.text(&note.text),
        Some(Kind::Alert(alert)) => alert.text = mask.text(&alert.text),
        _ => {}
    }
    event
}

fn exit(status: Option<&mut v1::ExitStatus>, mask: &Masker) {
    use exit_status::Kind::{NotStarted, Unknown};
    if let Some(NotStarted(reason) | Unknown(reason)) = status.and_then(|status| status.kind.as_mut()) {
        *reason = mask.text(reason);
    }
}
