//! What to dial next for one machine that the controller reaches over SSH,
//! when, and why not. Pure: no process, no clock, no rows; a thin shell tells
//! what happened and does what is said.
//!
//! A machine is first *brought up* (its agent is put there and started), then
//! its lanes are kept: the join lane only while the agent is not heard, since
//! only then can it need a certificate; control and bulk always. Waiting grows
//! only where SSH itself does not connect; a command that ran over there and
//! failed is another matter and is told as such.

use proto::link::{EXIT_NO_AGENT, Lane};

/// Pauses after failures to connect, in seconds.
const PAUSES: [u64; 5] = [2, 4, 8, 16, 32];
/// A lane that ended is dialled again, but not faster than this.
const GAP_MS: u64 = 1_000;
/// A lane that lived for less was no use.
const SHORT_MS: u64 = 10_000;
/// So many short lives in a row are taken as they come; more make it slower.
const SHORT_LIVES: u32 = 20;
/// Joining takes no longer, or the machine is brought up again.
const JOIN_MS: u64 = 60_000;
/// So often in a row nobody listened: the agent is started again.
const NOBODY: u32 = 5;
/// Until a provider knows an address.
const NO_ROUTE_MS: u64 = 2_000;
/// Until something is looked at again that a person must change.
const NEVER_MS: u64 = 60_000;
/// Until this computer is looked at again.
const HERE_MS: u64 = 10_000;

/// Which of a machine's addresses to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// The direct one.
    First,
    /// The provider's proxy, where there is one.
    Second,
}

/// How something that was dialled ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// SSH did not connect, in its own words.
    Unconnected(String),
    /// It connected, and what was run there failed.
    Remote {
        /// Its exit code.
        code: i32,
        /// Its last words.
        text: String,
    },
    /// It was up, and ended.
    Closed,
    /// The provider knows no way now.
    NotYet(String),
    /// The provider knows no way, and will not.
    Never(String),
    /// Something on this computer.
    Here(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Time passed.
    Tick,
    /// What the rows and the sessions say.
    Seen {
        /// It has used its right to join.
        joined: bool,
        /// Its stream is open.
        attached: bool,
    },
    /// A bring-up ended.
    Brought(Result<(), End>),
    /// A lane is up: the agent's words came.
    Open(Lane),
    /// A lane ended.
    Ended(Lane, End),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Put the agent there and start it.
    BringUp(Address),
    /// Dial a lane.
    Dial(Lane, Address),
    /// A lane is not needed now.
    Hang(Lane),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brought {
    /// Not, or not any more; not before this.
    No {
        at_ms: u64,
    },
    Under,
    /// Since then.
    Yes {
        at_ms: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Down { at_ms: u64 },
    Dialling,
    Up { at_ms: u64 },
    Hanging,
}

/// Where one machine stands.
#[derive(Debug, Clone)]
pub struct Tie {
    seen: bool,
    joined: bool,
    attached: bool,
    brought: Brought,
    lines: [Line; 3],
    short: [u32; 3],
    /// Bring-ups in a row that failed over there.
    fruitless: u32,
    /// Times in a row that nobody listened.
    nobody: u32,
    /// Failures to connect in a row, and when to try again.
    failures: u32,
    again_ms: u64,
    address: Address,
    trouble: String,
}

impl Default for Tie {
    fn default() -> Self {
        Self {
            seen: false,
            joined: false,
            attached: false,
            brought: Brought::No { at_ms: 0 },
            lines: [Line::Down { at_ms: 0 }; 3],
            short: [0; 3],
            fruitless: 0,
            nobody: 0,
            failures: 0,
            again_ms: 0,
            address: Address::First,
            trouble: String::new(),
        }
    }
}

fn index(lane: Lane) -> usize {
    match lane {
        Lane::Join => 0,
        Lane::Control => 1,
        Lane::Bulk => 2,
    }
}

fn pause_ms(failures: u32) -> u64 {
    let last = PAUSES.len() - 1;
    let at = usize::try_from(failures.saturating_sub(1)).map_or(last, |at| at.min(last));
    PAUSES[at] * 1_000
}

impl Tie {
    /// Why the machine is not reached; empty: it is, or nothing was tried yet.
    #[must_use]
    pub fn trouble(&self) -> &str {
        &self.trouble
    }

    /// Takes in what happened and says what to do now.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Act> {
        match input {
            Input::Tick => {}
            Input::Seen { joined, attached } => {
                if !self.seen && joined {
                    // Another controller brought it up; it may well be there.
                    self.brought = Brought::Yes { at_ms: now_ms };
                }
                if attached {
                    self.trouble.clear();
                }
                (self.seen, self.joined, self.attached) = (true, joined, attached);
            }
            Input::Brought(Ok(())) => {
                self.connected();
                (self.fruitless, self.nobody) = (0, 0);
                self.brought = Brought::Yes { at_ms: now_ms };
            }
            Input::Brought(Err(end)) => {
                let at_ms = match &end {
                    End::Remote { .. } => {
                        self.fruitless += 1;
                        now_ms + pause_ms(self.fruitless)
                    }
                    _ => now_ms,
                };
                self.brought = Brought::No { at_ms };
                self.failed(now_ms, end);
            }
            Input::Open(lane) => {
                self.connected();
                self.nobody = 0;
                if let line @ Line::Dialling = &mut self.lines[index(lane)] {
                    *line = Line::Up { at_ms: now_ms };
                }
            }
            Input::Ended(lane, end) => self.ended(now_ms, lane, end),
        }
        self.acts(now_ms)
    }

    fn connected(&mut self) {
        (self.failures, self.again_ms) = (0, 0);
        self.trouble.clear();
    }

    fn ended(&mut self, now_ms: u64, lane: Lane, end: End) {
        let at = index(lane);
        let short = match self.lines[at] {
            Line::Up { at_ms } => now_ms.saturating_sub(at_ms) < SHORT_MS,
            Line::Hanging => {
                self.lines[at] = Line::Down { at_ms: now_ms + GAP_MS };
                return;
            }
            Line::Dialling | Line::Down { .. } => true,
        };
        self.short[at] = if short { self.short[at].saturating_add(1) } else { 0 };
        let gap = match self.short[at].checked_sub(SHORT_LIVES) {
            None | Some(0) => GAP_MS,
            Some(more) => pause_ms(more),
        };
        self.lines[at] = Line::Down { at_ms: now_ms + gap };
        if let End::Remote { code, .. } = &end {
            // Nobody listens for a moment while an agent is exchanged; anything
            // else means that what was put there is not there.
            self.nobody += 1;
            if *code != i32::from(EXIT_NO_AGENT) || self.nobody >= NOBODY {
                self.nobody = 0;
                if let Brought::Yes { .. } = self.brought {
                    self.brought = Brought::No { at_ms: now_ms + gap };
                }
            }
        }
        self.failed(now_ms, end);
    }

    /// What a failure means for all that is dialled there.
    fn failed(&mut self, now_ms: u64, end: End) {
        match end {
            End::Closed => {}
            End::Unconnected(text) => {
                // Lanes that were dialled together fail together: once.
                if now_ms >= self.again_ms {
                    self.failures = self.failures.saturating_add(1);
                    self.again_ms = now_ms + pause_ms(self.failures);
                    self.address = match self.address {
                        Address::First => Address::Second,
                        Address::Second => Address::First,
                    };
                }
                self.trouble = format!("SSH does not connect: {text}");
            }
            End::Remote { code, text } => {
                self.trouble = format!("a command on the machine failed (exit code {code}): {text}");
            }
            End::NotYet(why) => {
                self.again_ms = now_ms + NO_ROUTE_MS;
                self.trouble = why;
            }
            End::Never(why) => {
                self.again_ms = now_ms + NEVER_MS;
                self.trouble = why;
            }
            End::Here(why) => {
                self.again_ms = now_ms + HERE_MS;
                self.trouble = why;
            }
        }
    }

    fn wanted(&self, lane: Lane) -> bool {
        match lane {
            Lane::Join => !self.attached,
            Lane::Control | Lane::Bulk => self.joined,
        }
    }

    fn acts(&mut self, now_ms: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        if !self.seen {
            return acts;
        }
        for lane in Lane::ALL {
            let line = &mut self.lines[index(lane)];
            if lane == Lane::Join && self.attached && matches!(line, Line::Up { .. } | Line::Dialling) {
                *line = Line::Hanging;
                acts.push(Act::Hang(lane));
            }
        }
        if let Brought::Yes { at_ms } = self.brought
            && !self.joined
            && now_ms >= at_ms + JOIN_MS
        {
            self.brought = Brought::No { at_ms: now_ms };
            self.trouble = "its agent was started and did not join within a minute".into();
        }
        if now_ms < self.again_ms {
            return acts;
        }
        match self.brought {
            Brought::No { at_ms } if at_ms <= now_ms => {
                self.brought = Brought::Under;
                acts.push(Act::BringUp(self.address));
            }
            Brought::Yes { .. } => {
                for lane in Lane::ALL {
                    let due = matches!(self.lines[index(lane)], Line::Down { at_ms } if at_ms <= now_ms);
                    if due && self.wanted(lane) {
                        self.lines[index(lane)] = Line::Dialling;
                        acts.push(Act::Dial(lane, self.address));
                    }
                }
            }
            Brought::No { .. } | Brought::Under => {}
        }
        acts
    }

    /// When to look again though nothing happens; `None`: only then.
    #[must_use]
    pub fn wake_ms(&self) -> Option<u64> {
        let mut soonest: Option<u64> = None;
        let mut consider = |at: u64| soonest = Some(soonest.map_or(at, |before| before.min(at)));
        match self.brought {
            Brought::No { at_ms } => consider(at_ms.max(self.again_ms)),
            Brought::Under => {}
            Brought::Yes { at_ms } => {
                if !self.joined {
                    consider(at_ms + JOIN_MS);
                }
                for lane in Lane::ALL.into_iter().filter(|lane| self.wanted(*lane)) {
                    if let Line::Down { at_ms } = self.lines[index(lane)] {
                        consider(at_ms.max(self.again_ms));
                    }
                }
            }
        }
        soonest
    }
}

#[cfg(test)]
mod tests;
