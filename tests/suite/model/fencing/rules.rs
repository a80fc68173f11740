//! The world of provisioning and fencing, and what each step does to it.
//!
//! An action of the plan is performed as the executor does: rows are read
//! afresh, what the action rests on is looked at again, and the write is a
//! compare-and-set on what was read; so reading and writing are one step here.
//! Between the plan and the performing anything may happen.

/// Rows and instances there can be; the last ones are for settling only.
pub(super) const ROWS: usize = 5;
pub(super) const LIVES: usize = 2;

/// Which of the rules are in force.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// A bind is a compare-and-set on the run's bound attempt and generation.
    pub(super) bind_by_compare_and_set: bool,
    /// A commit requires the bound attempt and the current generation.
    pub(super) commit_fence: bool,
    /// A create without a trace is given up with its label.
    pub(super) burn: bool,
    /// A row is durable before the create, and what has none is swept.
    pub(super) intent_and_sweep: bool,
    /// What an action rests on is looked at again when it is performed; but
    /// not for this kind.
    pub(super) blind: Option<Blind>,
    /// A release expects the run's row: it is refused where the machine was
    /// bound meanwhile.
    pub(super) release_expects_run: bool,
}

impl Rules {
    pub(super) const ALL: Self = Self {
        bind_by_compare_and_set: true,
        commit_fence: true,
        burn: true,
        intent_and_sweep: true,
        blind: None,
        release_expects_run: true,
    };
}

/// Kinds of actions that take something away from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blind {
    Bind,
    LoseAttempt,
    LoseMachine,
    GiveUp,
}

/// A machine's row. CREATED and BOOTING are one here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Row {
    #[default]
    None,
    Intent,
    Calling,
    Unknown,
    Rejected,
    Booting,
    Ready,
    Suspect,
    Lost,
    Abandoned,
    Destroying,
    Destroyed,
}

impl Row {
    pub(super) fn is_up(self) -> bool {
        matches!(self, Self::Ready | Self::Suspect)
    }

    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::None | Self::Rejected | Self::Abandoned | Self::Destroyed)
    }
}

/// What is true at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Real {
    #[default]
    None,
    /// It will be there; no list shows it yet.
    Late,
    Up,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Machine {
    pub(super) row: Row,
    pub(super) given_up: bool,
    /// A create call is under way.
    pub(super) calling: bool,
    pub(super) real: Real,
    /// Its agent's stream is open.
    pub(super) heard: bool,
    /// The generation that its program works under; 0 is none.
    pub(super) works: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Phase {
    /// QUEUED, PROVISIONING or RECOVERING.
    #[default]
    Wanting,
    Running,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Life {
    Live,
    Ended { well: bool },
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) generation: u8,
    pub(super) machine: u8,
    pub(super) life: Life,
}

/// An action of the plan, by the number of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Act {
    Intend,
    Create(u8),
    Resolve(u8),
    Suspect(u8),
    LoseMachine(u8),
    GiveUp(u8),
    Bind(u8),
    LoseAttempt,
    Settle,
    Release(u8),
    Destroy(u8),
    /// A bind without compare-and-set: what it read is written over whatever
    /// is there by then.
    Overwrite {
        machine: u8,
        read: u8,
    },
}

/// What became of a create call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Made,
    Rejected,
    /// No answer came; or the controller ended while it waited, and nobody
    /// even wrote that down.
    Silence {
        made: bool,
        written: bool,
    },
}

/// What went wrong, once and for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Wrong {
    /// The machine of the bound attempt was released or swept.
    pub(super) destroyed: bool,
    /// A commit of an attempt that is not bound, or of an old generation, or
    /// after the end, was taken.
    pub(super) stale_commit: bool,
    /// The head went back to an older generation.
    pub(super) head_fell: bool,
    /// A healthy attempt was taken for lost.
    pub(super) healthy_lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct World {
    pub(super) phase: Phase,
    pub(super) generation: u8,
    /// Generation and machine of the bound attempt.
    pub(super) bound: Option<(u8, u8)>,
    /// The bound attempt, and live ones that are not bound.
    pub(super) attempts: [Option<Attempt>; LIVES],
    pub(super) machines: [Machine; ROWS],
    pub(super) used: u8,
    /// What controllers decided on older facts and have not done yet.
    pub(super) stale: [Option<Act>; 2],
    /// The generation of the newest durable checkpoint.
    pub(super) head: u8,
    pub(super) wrong: Wrong,
}

impl World {
    pub(super) fn bound_attempt(&self) -> Option<&Attempt> {
        let bound = self.bound?;
        self.attempts.iter().flatten().find(|a| (a.generation, a.machine) == bound)
    }

    pub(super) fn live_bound(&self) -> Option<Attempt> {
        self.bound_attempt().copied().filter(|a| a.life == Life::Live)
    }

    pub(super) fn machine(&mut self, m: u8) -> &mut Machine {
        &mut self.machines[usize::from(m)]
    }

    pub(super) fn at(&self, m: u8) -> Machine {
        self.machines[usize::from(m)]
    }

    fn serves(&self, m: u8) -> bool {
        self.phase != Phase::Over && self.live_bound().is_some_and(|a| a.machine == m)
    }

    fn set_life(&mut self, of: (u8, u8), life: Life) {
        for attempt in self.attempts.iter_mut().flatten() {
            if (attempt.generation, attempt.machine) == of {
                attempt.life = life;
            }
        }
    }

    /// The same world always looks the same: what can matter no more is
    /// forgotten, and controllers have no order.
    pub(super) fn tidy(mut self) -> Self {
        for machine in &mut self.machines {
            if machine.real != Real::Up {
                machine.heard = false;
                machine.works = 0;
            }
            if machine.row.is_over() || machine.row == Row::Destroying || machine.row == Row::Lost {
                machine.given_up = false;
                machine.heard = false;
            }
        }
        let bound = self.bound;
        for slot in &mut self.attempts {
            if slot.is_some_and(|a| a.life != Life::Live && Some((a.generation, a.machine)) != bound) {
                *slot = None;
            }
        }
        self.attempts.sort_by_key(|a| a.map_or((true, 0, 0), |a| (false, a.generation, a.machine)));
        self.stale.sort();
        self
    }
}

/// What the executor does; `None` where it changes nothing.
impl World {
    pub(super) fn perform(mut self, act: Act, rules: Rules) -> Option<Self> {
        match act {
            Act::Intend => {
                let m = self.used;
                self.used += 1;
                if rules.intent_and_sweep {
                    self.machine(m).row = Row::Intent;
                } else {
                    self.machine(m).calling = true;
                }
            }
            Act::Create(m) if self.at(m).row == Row::Intent => {
                self.machine(m).row = Row::Calling;
                self.machine(m).calling = true;
            }
            Act::Resolve(m) if matches!(self.at(m).row, Row::Calling | Row::Unknown) => {
                self.machine(m).row = match self.at(m).real {
                    Real::Up => Row::Booting,
                    _ if rules.burn => Row::Abandoned,
                    _ => Row::Unknown,
                };
            }
            Act::Suspect(m) if self.at(m).row == Row::Ready => self.machine(m).row = Row::Suspect,
            Act::LoseMachine(m) => self.lose_machine(m, rules)?,
            Act::GiveUp(m) if rules.blind == Some(Blind::GiveUp) || self.at(m).row == Row::Suspect => {
                self.machine(m).given_up = true;
            }
            Act::Bind(m) if rules.bind_by_compare_and_set => self.bind(m, rules)?,
            Act::Bind(m) => {
                if self.at(m).row != Row::Ready || self.phase == Phase::Over {
                    return None;
                }
                let slot = self.stale.iter_mut().find(|s| s.is_none())?;
                *slot = Some(Act::Overwrite { machine: m, read: self.generation });
            }
            Act::Overwrite { machine, read } => self.overwrite(machine, read),
            Act::LoseAttempt => self.lose_attempt(rules)?,
            Act::Settle => match self.bound_attempt()?.life {
                Life::Ended { well } if self.phase == Phase::Running => {
                    self.phase = if well { Phase::Over } else { Phase::Wanting };
                }
                _ => return None,
            },
            Act::Release(m) => self.release(m, rules)?,
            Act::Destroy(m) if self.at(m).row == Row::Destroying => {
                self.machine(m).real = Real::Gone;
                self.machine(m).row = Row::Destroyed;
            }
            _ => return None,
        }
        Some(self.tidy())
    }

    fn lose_machine(&mut self, m: u8, rules: Rules) -> Option<()> {
        let machine = self.at(m);
        let still = machine.real == Real::Gone || machine.row == Row::Booting;
        let may = matches!(machine.row, Row::Booting | Row::Ready | Row::Suspect);
        if !may || !still && rules.blind != Some(Blind::LoseMachine) {
            return None;
        }
        self.wrong.healthy_lost |= self.serves(m) && machine.heard;
        self.machine(m).row = Row::Lost;
        Some(())
    }

    fn bind(&mut self, m: u8, rules: Rules) -> Option<()> {
        if self.at(m).row != Row::Ready || self.phase == Phase::Over {
            return None;
        }
        if let Some(old) = self.live_bound() {
            let held = self.at(old.machine);
            let replaced = old.machine != m && held.given_up;
            if !replaced && rules.blind != Some(Blind::Bind) {
                return None;
            }
            self.lose((old.generation, old.machine));
            if held.row.is_up() || held.row == Row::Booting {
                self.machine(old.machine).row = Row::Lost;
            }
        }
        self.issue(m, self.generation + 1);
        Some(())
    }

    /// A bound attempt is declared lost.
    fn lose(&mut self, of: (u8, u8)) {
        self.wrong.healthy_lost |= self.at(of.1).row == Row::Ready;
        self.set_life(of, Life::Lost);
    }

    fn issue(&mut self, m: u8, generation: u8) {
        self.generation = generation;
        self.bound = Some((generation, m));
        self.phase = Phase::Running;
        *self = self.tidy();
        if let Some(slot) = self.attempts.iter_mut().find(|a| a.is_none()) {
            *slot = Some(Attempt { generation, machine: m, life: Life::Live });
        }
        if self.at(m).heard {
            self.machine(m).works = generation;
        }
    }

    fn overwrite(&mut self, m: u8, read: u8) {
        let seen =
            self.attempts.iter().flatten().find(|a| a.generation == read && a.life == Life::Live).copied();
        if let Some(old) = seen {
            self.set_life((old.generation, old.machine), Life::Lost);
            if old.machine != m {
                self.machine(old.machine).row = Row::Lost;
            }
        }
        self.issue(m, read + 1);
    }

    fn lose_attempt(&mut self, rules: Rules) -> Option<()> {
        let old = self.live_bound()?;
        let blind = rules.blind == Some(Blind::LoseAttempt);
        if self.phase != Phase::Running || self.at(old.machine).row.is_up() && !blind {
            return None;
        }
        self.lose((old.generation, old.machine));
        self.phase = Phase::Wanting;
        Some(())
    }

    fn release(&mut self, m: u8, rules: Rules) -> Option<()> {
        let serves = self.serves(m) && self.at(m).row != Row::Lost;
        match self.at(m).row {
            Row::Intent => self.machine(m).row = Row::Rejected,
            Row::Booting | Row::Ready | Row::Suspect | Row::Lost | Row::Abandoned => {
                if rules.release_expects_run && serves {
                    return None;
                }
                self.wrong.destroyed |= serves;
                self.machine(m).row = Row::Destroying;
            }
            _ => return None,
        }
        Some(())
    }
}

/// What happens in the world.
impl World {
    /// A create call ends.
    pub(super) fn reply(mut self, m: u8, reply: Reply) -> Self {
        let machine = self.machine(m);
        machine.calling = false;
        let waits = matches!(machine.row, Row::Calling | Row::Unknown | Row::None);
        match reply {
            Reply::Made => {
                machine.real = Real::Up;
                machine.row = if waits { Row::Booting } else { machine.row };
            }
            Reply::Rejected if machine.row == Row::Calling => machine.row = Row::Rejected,
            Reply::Rejected => {}
            Reply::Silence { made, written } => {
                if made {
                    machine.real = Real::Late;
                }
                if written && machine.row == Row::Calling {
                    machine.row = Row::Unknown;
                }
            }
        }
        self.tidy()
    }

    /// An agent's stream opens. `None`: nothing is new.
    pub(super) fn attach(mut self, m: u8) -> Option<Self> {
        let was = self.at(m);
        let takes = matches!(was.row, Row::Calling | Row::Unknown | Row::Booting | Row::Ready | Row::Suspect);
        if was.real != Real::Up || !takes {
            return None;
        }
        let works = self.live_bound().filter(|a| a.machine == m).map_or(was.works, |a| a.generation);
        *self.machine(m) = Machine { row: Row::Ready, given_up: false, heard: true, works, ..was };
        (self.at(m) != was).then(|| self.tidy())
    }

    pub(super) fn die(mut self, m: u8) -> Self {
        self.machine(m).real = Real::Gone;
        self.tidy()
    }

    pub(super) fn fall_silent(mut self, m: u8) -> Self {
        self.machine(m).heard = false;
        self.tidy()
    }

    /// A program's checkpoint is stored and its commit arrives.
    pub(super) fn commit(mut self, m: u8, rules: Rules) -> Option<Self> {
        let works = self.at(m).works;
        let current = self.phase != Phase::Over
            && self.generation == works
            && self.bound_attempt().is_some_and(|a| (a.generation, a.machine) == (works, m));
        if works == 0 || rules.commit_fence && !current || self.head == works && current {
            return None;
        }
        self.wrong.stale_commit |= !current;
        self.wrong.head_fell |= works < self.head;
        self.head = works;
        Some(self.tidy())
    }

    /// The program ends and this is told.
    pub(super) fn end(mut self, m: u8, well: bool) -> Option<Self> {
        let works = self.at(m).works;
        let bound = self.live_bound().filter(|a| (a.generation, a.machine) == (works, m))?;
        self.set_life((bound.generation, bound.machine), Life::Ended { well });
        Some(self.tidy())
    }

    /// A complete list of the provider is compared with the rows.
    pub(super) fn sweep(mut self, m: u8, rules: Rules) -> Option<Self> {
        let machine = self.at(m);
        if !rules.intent_and_sweep || machine.real != Real::Up || !machine.row.is_over() || machine.calling {
            return None;
        }
        self.wrong.destroyed |= self.serves(m);
        self.machine(m).real = Real::Gone;
        Some(self.tidy())
    }
}
