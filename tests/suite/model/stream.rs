//! The stream of facts from a machine: batches and acknowledgements are lost,
//! repeated and overtake each other, and both ends end in the middle of
//! everything (I11, I12).

use stateright::{Model, Property};

/// Facts that are produced.
const FACTS: u8 = 3;
/// Messages under way at once.
const UNDER_WAY: usize = 2;

/// Which rules are in force.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// A fact is taken only if it is the next one, or a gap that covers the
    /// hole.
    next_only: bool,
    /// What is below the position is ignored.
    ignore_old: bool,
    /// An acknowledgement follows the transaction.
    ack_after_commit: bool,
    /// Bytes go to the offset that the last transaction recorded.
    write_at_position: bool,
    /// The spool keeps a fact until it is acknowledged.
    keep_until_ack: bool,
}

const ALL: Rules = Rules {
    next_only: true,
    ignore_old: true,
    ack_after_commit: true,
    write_at_position: true,
    keep_until_ack: true,
};

/// What a file holds at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Entry {
    Fact(u8),
    /// An explicit gap up to here, exclusive.
    Gap(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Fact(u8),
    Gap { from: u8, to: u8 },
    Ack(u8),
    Nack(u8),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct World {
    /// On the machine's disk: facts below were produced; below `kept` they
    /// are no longer there; below `dropped` that is for want of room.
    produced: u8,
    kept: u8,
    dropped: u8,
    /// In the agent's memory: what to send next, and what it was told.
    cursor: u8,
    told: u8,
    under_way: Vec<Message>,
    /// The controller's file, what of it the transaction recorded, and the
    /// position.
    file: Vec<Entry>,
    recorded: u8,
    position: u8,
    /// Written and not recorded yet: the position that would be, if any.
    writing: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Produce,
    /// The spool is full: its oldest fact goes.
    Drop,
    Send,
    Lose(usize),
    Repeat(usize),
    /// The controller takes a message: bytes first.
    Take(usize),
    /// And the transaction.
    Record,
    /// The agent takes a message.
    Hear(usize),
    AgentCrash,
    ControllerCrash,
}

struct Stream {
    rules: Rules,
}

impl World {
    /// Adds a message; order means nothing on the way.
    fn post(&mut self, message: Message) {
        if self.under_way.len() < UNDER_WAY && !self.under_way.contains(&message) {
            self.under_way.push(message);
            self.under_way.sort_unstable();
        }
    }

    fn next_message(&self) -> Option<Message> {
        if self.cursor < self.dropped {
            return Some(Message::Gap { from: self.cursor, to: self.dropped });
        }
        (self.kept <= self.cursor && self.cursor < self.produced).then_some(Message::Fact(self.cursor))
    }

    /// Takes a fact or gap: writes, without the transaction.
    fn take(&mut self, message: Message, rules: Rules) {
        let (from, to, entry) = match message {
            Message::Fact(n) => (n, n + 1, Entry::Fact(n)),
            Message::Gap { from, to } => (from, to, Entry::Gap(to)),
            Message::Ack(_) | Message::Nack(_) => return,
        };
        if from > self.position && rules.next_only {
            self.post(Message::Nack(self.position));
            return;
        }
        if to <= self.position && rules.ignore_old {
            self.post(Message::Ack(self.position));
            return;
        }
        if rules.write_at_position {
            self.file.truncate(usize::from(self.recorded));
        }
        self.file.push(entry);
        self.writing = Some(to.max(self.position));
        if !rules.ack_after_commit {
            self.post(Message::Ack(to));
        }
    }

    fn record(&mut self, rules: Rules) -> Option<()> {
        self.position = self.writing.take()?;
        self.recorded = u8::try_from(self.file.len()).ok()?;
        if rules.ack_after_commit {
            self.post(Message::Ack(self.position));
        }
        Some(())
    }

    fn hear(&mut self, message: Message, rules: Rules) {
        match message {
            Message::Ack(n) => {
                self.told = self.told.max(n);
                self.cursor = self.cursor.max(n);
                if rules.keep_until_ack {
                    self.kept = self.kept.max(n);
                }
            }
            Message::Nack(n) => self.cursor = n.max(self.told),
            Message::Fact(_) | Message::Gap { .. } => {}
        }
    }

    /// What is recorded is what was sent, in order, once, with every hole
    /// written down.
    fn is_a_prefix(&self) -> bool {
        let mut next = 0;
        for entry in self.file.iter().take(usize::from(self.recorded)) {
            match entry {
                Entry::Fact(n) if *n == next => next += 1,
                Entry::Gap(to) if *to > next && *to <= self.dropped => next = *to,
                _ => return false,
            }
        }
        next == self.position
    }

    /// Without faults everything that still is on the machine arrives.
    fn arrives(&self, rules: Rules) -> bool {
        let mut world = Self { under_way: Vec::new(), writing: None, produced: FACTS, ..self.clone() };
        world.cursor = world.position;
        while let Some(message) = world.next_message() {
            let before = world.position;
            world.take(message, rules);
            if world.record(rules).is_none() || world.position <= before {
                return false;
            }
            world.under_way.clear();
            world.cursor = world.position;
        }
        world.position == FACTS && world.is_a_prefix()
    }
}

impl Model for Stream {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend([Step::Produce, Step::Drop, Step::Send, Step::Record]);
        steps.extend([Step::AgentCrash, Step::ControllerCrash]);
        for (n, message) in world.under_way.iter().enumerate() {
            steps.extend([Step::Lose(n), Step::Repeat(n)]);
            steps.push(match message {
                Message::Fact(_) | Message::Gap { .. } => Step::Take(n),
                Message::Ack(_) | Message::Nack(_) => Step::Hear(n),
            });
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        match step {
            Step::Produce if world.produced < FACTS => next.produced += 1,
            Step::Drop if world.kept < world.produced => {
                next.kept += 1;
                next.dropped = next.kept;
            }
            Step::Send => {
                next.post(world.next_message()?);
                next.cursor = match world.next_message()? {
                    Message::Gap { to, .. } => to,
                    _ => world.cursor + 1,
                };
                if !self.rules.keep_until_ack {
                    next.kept = next.kept.max(next.cursor);
                }
            }
            Step::Lose(n) => {
                next.under_way.remove(n);
            }
            // It is taken, and stays on the way as well.
            Step::Repeat(n) => match world.under_way[n] {
                message @ (Message::Fact(_) | Message::Gap { .. }) if world.writing.is_none() => {
                    next.take(message, self.rules);
                }
                message => next.hear(message, self.rules),
            },
            Step::Take(n) if world.writing.is_none() => {
                let message = next.under_way.remove(n);
                next.take(message, self.rules);
            }
            Step::Record => next.record(self.rules)?,
            Step::Hear(n) => {
                let message = next.under_way.remove(n);
                next.hear(message, self.rules);
            }
            Step::AgentCrash => {
                // The next Hello is answered with the position.
                next.under_way.clear();
                next.told = next.position;
                next.cursor = next.position;
            }
            Step::ControllerCrash => {
                next.writing = None;
                next.under_way.clear();
                if self.rules.write_at_position {
                    next.file.truncate(usize::from(next.recorded));
                }
                next.cursor = next.position.max(next.told);
            }
            _ => return None,
        }
        (next != *world).then_some(next)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.file.len() <= usize::from(FACTS) + 2
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I11 what is acknowledged is durable", |_, world: &World| {
                world.told <= world.position
                    && world.under_way.iter().all(|m| !matches!(m, Message::Ack(n) if *n > world.position))
            }),
            Property::always("I12 the file is a prefix of what was sent", |_, world: &World| {
                world.is_a_prefix()
            }),
            Property::always("without faults everything arrives", |model: &Self, world: &World| {
                model.rules_checked(world)
            }),
            Property::sometimes("everything arrived without a gap", |_, world: &World| {
                world.position == FACTS && world.dropped == 0
            }),
            Property::sometimes("everything arrived with a gap", |_, world: &World| {
                world.position == FACTS && world.file.iter().any(|e| matches!(e, Entry::Gap(_)))
            }),
            Property::sometimes("a write was left without its transaction", |_, world: &World| {
                world.writing.is_some() && world.recorded > 0
            }),
        ]
    }
}

impl Stream {
    fn rules_checked(&self, world: &World) -> bool {
        world.arrives(self.rules)
    }
}

const PREFIX: &str = "I12 the file is a prefix of what was sent";

#[test]
fn the_rules_hold() {
    super::holds("stream", Stream { rules: ALL });
}

#[test]
fn an_early_acknowledgement_loses_facts() {
    let rules = Rules { ack_after_commit: false, ..ALL };
    super::fails("early acknowledgement", Stream { rules }, "I11 what is acknowledged is durable");
}

#[test]
fn taking_what_is_not_next_makes_holes() {
    super::fails("any order", Stream { rules: Rules { next_only: false, ..ALL } }, PREFIX);
}

#[test]
fn taking_what_is_old_makes_duplicates() {
    super::fails("repeats", Stream { rules: Rules { ignore_old: false, ..ALL } }, PREFIX);
}

#[test]
fn writing_at_the_end_of_the_file_keeps_what_was_never_recorded() {
    super::fails("appending", Stream { rules: Rules { write_at_position: false, ..ALL } }, PREFIX);
}

#[test]
fn forgetting_what_was_only_sent_loses_facts() {
    let rules = Rules { keep_until_ack: false, ..ALL };
    super::fails("forgetting early", Stream { rules }, "without faults everything arrives");
}
