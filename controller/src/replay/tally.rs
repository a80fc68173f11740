//! What came of a replay: counted by somebody who sees everything, not from
//! the rows.

use serde::Serialize;

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doing {
    /// It has no machine.
    Waiting,
    /// Its machine has been taken back, starts, or is not known to be lost.
    Starting,
    /// Its program runs on a spot machine of this zone.
    Spot(usize),
    /// Its program runs on an on-demand machine.
    OnDemand,
}

/// From one moment to another it did the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Milliseconds of the recording.
    pub from_ms: u64,
    /// Milliseconds of the recording.
    pub to_ms: u64,
    /// What.
    pub doing: Doing,
}

/// The figures of one replay. Times are milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Tally {
    /// From the beginning to the end of the work, or of the recording.
    pub took_ms: u64,
    /// All work was done.
    pub finished: bool,
    /// There was a deadline, and it passed without that.
    pub missed: bool,
    /// Work done that was not lost.
    pub useful_ms: u64,
    /// Work done that had to be done again.
    pub repeated_ms: u64,
    /// The program stood still for saves.
    pub saving_ms: u64,
    /// Saves that became durable.
    pub saves: u32,
    /// Any zone had a machine, or the run had an on-demand one.
    pub possible_ms: u64,
    /// Machines that were taken back with the run's program on them.
    pub losses: u32,
    /// Those of them that had been announced, and were left in time.
    pub left_in_time: u32,
    /// Machines that were made.
    pub machines: u32,
    /// Machines that were taken back before the program went on there.
    pub lost_starting: u32,
    /// Time in which spot machines were paid for.
    pub spot_ms: u64,
    /// Time in which on-demand machines were paid for.
    pub on_demand_ms: u64,
    /// What all machines cost, in dollars.
    pub usd: f64,
    /// How often the limit of machines made per hour held it up.
    pub storms: u32,
    /// How often the retry rules gave it up; a person was there and resumed it.
    pub given_up: u32,
    /// What it did when.
    #[serde(skip)]
    pub spans: Vec<Span>,
}

impl Tally {
    /// Useful time by the time in which a machine could be had.
    #[must_use]
    pub fn goodput(&self) -> f64 {
        if self.possible_ms == 0 { 0.0 } else { self.useful_ms as f64 / self.possible_ms as f64 }
    }

    pub(super) fn doing(&mut self, from_ms: u64, to_ms: u64, doing: Doing) {
        if from_ms >= to_ms {
            return;
        }
        match self.spans.last_mut() {
            Some(last) if last.doing == doing && last.to_ms == from_ms => last.to_ms = to_ms,
            _ => self.spans.push(Span { from_ms, to_ms, doing }),
        }
    }
}
