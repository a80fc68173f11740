//! Room on the disk, and disk work that must not hold the driver up.

use std::time::Duration;

use proto::v1::{self, event::Kind};
use tokio::time::Instant;

use super::chores::Chore;
use crate::driver::{Attempt, Done, Driver};
use crate::health::alerts;
use crate::supervisor::Phase;
use crate::world::{Published, Relief};

/// Between two looks at the room on the disk while a program runs.
const ROOM: Duration = Duration::from_millis(400);

impl Driver {
    pub(super) fn make_room(&mut self, now: Instant) {
        let Some(care) = &mut self.care else { return };
        if now < care.room_due || care.making_room {
            return;
        }
        care.room_due = now + ROOM;
        // The room on its disk is looked at with the eyes of whoever still
        // writes there; what older attempts left is found beside it.
        let present = self.attempts.values().filter(|a| {
            matches!(a.supervisor.phase, Phase::Running | Phase::Finishing(_)) && a.care.dir.is_some()
        });
        let running =
            present.max_by_key(|a| (a.supervisor.phase == Phase::Running, a.work.generation, a.work.number));
        let Some(attempt) = running else { return };
        let filling = attempt.care.dir.as_ref().map_or(0.0, |dir| care.filling_per_s(dir));
        care.making_room = care.hands.ask(Chore::Relieve(Box::new(attempt.work.clone()), filling));
    }

    /// What was deleted is told; where nothing is left to delete, what the
    /// program has is brought to safety while it can be.
    pub(super) fn relieved(&mut self, id: &str, relief: Relief) {
        for text in relief.deleted {
            self.record(id, Kind::Note(v1::Note { level: "info".into(), text }));
        }
        let wall = (self.wall_ms)();
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let stuck = relief.lacking > 0;
        if stuck == attempt.care.stuck || attempt.supervisor.phase != Phase::Running {
            return;
        }
        attempt.care.stuck = stuck;
        let salvages = stuck && !attempt.publishing;
        let work = attempt.work.clone();
        attempt.publishing |= salvages;
        #[expect(clippy::cast_precision_loss, reason = "bytes of a disk, for display")]
        let value = relief.lacking as f64;
        let text = if stuck {
            format!(
                "the disk of the checkpoints will lack {}, for the next save and at the pace at which it fills, and \
                 nothing is left to delete: results are published now",
                alerts::bytes(value)
            )
        } else {
            "the disk of the checkpoints has room again".to_owned()
        };
        let subject =
            attempt.care.dir.as_ref().map_or_else(String::new, |d| d.checkpoints().display().to_string());
        let (name, level) = ("disk-full".to_owned(), if stuck { "critical" } else { "info" }.to_owned());
        let alert = v1::Alert {
            name,
            subject,
            level,
            raised: stuck,
            value,
            text,
            at_ms: wall,
            ..v1::Alert::default()
        };
        self.alert(id, alert);
        if salvages {
            let (world, gateway, key) = (self.world.clone(), self.gateway.clone(), id.to_owned());
            self.jobs.spawn(async move { (key, Done::Salvaged(world.publish_outputs(work, gateway).await)) });
        }
    }

    /// The results were published because the disk is full, or could not be.
    pub(in crate::driver) fn salvaged(&mut self, id: &str, outcome: &Published) {
        if let Some(attempt) = self.attempts.get_mut(id)
            && attempt.supervisor.phase == Phase::Running
        {
            attempt.publishing = false;
        }
        tracing::info!(?outcome, attempt = id, "results were published for want of room");
    }

    /// Removes the files of attempts that are delivered, off this thread where
    /// the machine is a real one.
    pub(in crate::driver) fn forget(&mut self, id: &str) {
        if self.care.is_none() {
            self.world.forget(id);
            return;
        }
        let (world, id) = (self.world.clone(), id.to_owned());
        self.jobs.spawn_blocking(move || {
            world.forget(&id);
            (id, Done::Nothing)
        });
    }

    /// Has metric batches made durable.
    pub(in crate::driver) fn sync_metrics(&mut self) {
        self.attempts.values_mut().for_each(Attempt::sync);
    }
}
