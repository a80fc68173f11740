//! The driver's side of the thread that writes outboxes: takes its answers, and
//! tells of a disk that does not answer. While it is silent nothing that is not
//! durable is sent, and everything else goes on: heartbeats, signs of life,
//! leases, stops.

use std::time::Duration;

use proto::v1::{self, event::Kind};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Attempt, Driver};
use crate::outbox::{Files, Pen, Settled};
use crate::supervisor::Phase;
use crate::world::World;

/// A disk that lets facts wait for so long is told of.
const SILENT: Duration = Duration::from_secs(10);
/// How long an agent that ends waits for its last facts.
pub(super) const LAST: Duration = Duration::from_secs(1);

/// The outboxes' disk as the driver sees it.
pub(super) struct OutboxDisk {
    pub(super) pen: Pen,
    /// `None`: answers come at once, where a fact is added.
    answers: Option<mpsc::Receiver<Settled>>,
    /// Since when something waits without any answer.
    silent_since: Option<Instant>,
    told: bool,
    refused: u64,
}

impl OutboxDisk {
    pub(super) fn new(world: &dyn World) -> Self {
        let inline = || (Pen::inline(Box::new(Files::default())), None);
        let (pen, answers) = match world.disk().map(Pen::thread) {
            None => inline(),
            Some(Ok((pen, answers))) => (pen, Some(answers)),
            Some(Err(error)) => {
                tracing::error!(%error, "no thread for the outbox: a slow disk will hold up heartbeats");
                inline()
            }
        };
        Self { pen, answers, silent_since: None, told: false, refused: 0 }
    }

    /// The next answer; never, where none comes this way.
    pub(super) async fn next(&mut self) -> Settled {
        if let Some(answers) = &mut self.answers
            && let Some(settled) = answers.recv().await
        {
            return settled;
        }
        std::future::pending().await
    }

    /// Seconds that the disk was silent: with `true` it is, with `false` it
    /// answers again. `None`: no news.
    fn news(&mut self, now: Instant) -> Option<(bool, Duration)> {
        if self.pen.waiting() == 0 {
            let since = self.silent_since.take();
            return std::mem::take(&mut self.told).then(|| (false, since.map_or(SILENT, |at| now - at)));
        }
        let since = *self.silent_since.get_or_insert(now);
        let silent = now.saturating_duration_since(since);
        (silent >= SILENT && !std::mem::replace(&mut self.told, true)).then_some((true, silent))
    }
}

impl Driver {
    /// Takes an answer and those that came with it.
    pub(super) fn settled(&mut self, settled: &Settled) {
        self.settle(settled);
        while let Some(more) = self.disk.answers.as_mut().and_then(|answers| answers.try_recv().ok()) {
            self.settle(&more);
        }
    }

    fn settle(&mut self, settled: &Settled) {
        // Not silent: it is slow at most.
        if !self.disk.told {
            self.disk.silent_since = None;
        }
        if let Some(attempt) = self.attempts.get_mut(&*settled.attempt) {
            attempt.outbox.settled(settled);
        }
    }

    /// Tells, durably and for every attempt that lives, when the disk falls
    /// silent and when it answers again. The first is sent after the second at
    /// the latest: it waits for the same disk.
    pub(super) fn watch_disk(&mut self, now: Instant) {
        let Some((raised, silent)) = self.disk.news(now) else { return };
        let (waiting, refused) = (self.disk.pen.waiting(), self.disk.pen.refused());
        let left_out = refused - std::mem::replace(&mut self.disk.refused, refused);
        let seconds = silent.as_secs_f64();
        let text = if raised {
            format!("its disk has not answered for {seconds:.0} s: what happens is told once it does")
        } else {
            format!(
                "its disk answers again after {seconds:.0} s; {left_out} writes did not fit and were made up for"
            )
        };
        tracing::error!(waiting, refused, "{text}");
        let alert = v1::Alert {
            name: "disk-silent".into(),
            subject: "outbox".into(),
            level: "critical".into(),
            raised,
            value: seconds,
            limit: SILENT.as_secs_f64(),
            trend_per_s: 0.0,
            text,
            at_ms: (self.wall_ms)(),
        };
        let living = |a: &&Attempt| a.supervisor.phase != Phase::Ended;
        let ids: Vec<String> =
            self.attempts.values().filter(living).map(|a| a.work.attempt_id.clone()).collect();
        for id in ids {
            self.record(&id, Kind::Alert(alert.clone()));
        }
    }

    /// Before this agent ends: what it knows becomes durable, if the disk does
    /// that within so long.
    pub(super) async fn flush(&mut self, within: Duration) {
        self.attempts.values_mut().for_each(Attempt::sync);
        let until = Instant::now() + within;
        while self.is_writing() && Instant::now() < until {
            tokio::select! {
                settled = self.disk.next() => {
                    self.settled(&settled);
                    // There is room for what did not fit. A disk that refuses
                    // is not asked again.
                    if settled.refused.is_none() {
                        self.attempts.values_mut().for_each(|attempt| attempt.outbox.catch_up());
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
    }

    fn is_writing(&self) -> bool {
        self.disk.pen.waiting() > 0 || self.attempts.values().any(|attempt| attempt.outbox.is_waiting())
    }
}

#[cfg(test)]
mod tests;
