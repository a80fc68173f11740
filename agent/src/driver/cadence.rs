//! Asks programs to save at the best interval, where their run wants that, and
//! measures what saving costs in any case. What is decided is decided in
//! [`crate::saves`]; a provider's notice outranks it.

use lifecycle::RunSpec;
use lifecycle::spec::Cadence;
use proto::v1::{self, event::Kind as Fact};

use super::Driver;
use super::effects::Done;
use crate::supervisor::Phase;

/// Until the controller says how often machines like this one are lost: as
/// seldom as those that are kept.
const UNTOLD_S: f64 = 30.0 * 86_400.0;

impl Driver {
    /// How often machines like this one are lost, in seconds.
    pub(super) fn between_losses_s(&self) -> f64 {
        self.between_losses_s.unwrap_or(UNTOLD_S)
    }

    /// What every turn does for saves.
    pub(super) fn watch_saves(&mut self) {
        let (now, between) = ((self.boottime_ms)(), self.between_losses_s());
        let mut asked = Vec::new();
        for (id, attempt) in &mut self.attempts {
            if attempt.supervisor.phase != Phase::Running || attempt.supervisor.is_superseded() {
                continue;
            }
            attempt.saves.runs(now);
            let adaptive = attempt.is_adaptive();
            if adaptive && attempt.asked.is_none() && attempt.saves.ask(now, between) {
                asked.push((id.clone(), attempt.work.clone()));
            }
        }
        for (id, work) in asked {
            let world = self.world.clone();
            self.jobs.spawn(async move { (id, Done::AskedToSave(world.ask_to_save(work).await)) });
        }
    }

    /// A program was asked to save, or could not be.
    pub(super) fn asked_to_save(&mut self, id: &str, processes: usize) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let deaf = attempt.saves.heard(processes);
        if processes > 0 {
            // What is being saved now is looked for often.
            self.pace.found = tokio::time::Instant::now();
            return;
        }
        if !deaf {
            return;
        }
        let text = "checkpoints.cadence = \"adaptive\" cannot be followed: none of its processes catches the signal \
                    ([notice] signal); it saves when it likes";
        let note = v1::Note { level: "warning".into(), text: text.to_owned() };
        self.record(id, Fact::Note(note));
    }
}

/// Whether the run of a description wants its program asked.
pub(super) fn is_adaptive(spec_json: &str) -> bool {
    serde_json::from_str::<RunSpec>(spec_json).is_ok_and(|spec| spec.checkpoints.cadence == Cadence::Adaptive)
}
