//! The join secret: a machine and a thief who copied the secret ask two
//! controllers, replies are lost and asked for again, time runs out (I23).

use stateright::{Model, Property};

/// Requests under way at once, one at each controller.
const CONTROLLERS: usize = 2;

#[derive(Debug, Clone, Copy)]
struct Rules {
    /// The right is marked as used by compare-and-set on its row.
    compare_and_set: bool,
    /// Who used it is looked at.
    check_user: bool,
    /// The certificate goes out only after the transaction.
    commit_first: bool,
}

const ALL: Rules = Rules { compare_and_set: true, check_user: true, commit_first: true };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Who {
    Machine,
    Thief,
}

/// How long ago, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
enum Age {
    #[default]
    Fresh,
    /// The secret has expired, or the reply may not be repeated any more.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct World {
    /// The right's row.
    used_by: Option<Who>,
    version: u8,
    secret: Age,
    used: Age,
    /// What each controller has read: who asks, and the version it saw.
    reading: [Option<(Who, u8)>; CONTROLLERS],
    /// Who holds a certificate: the machine, the thief.
    holds: [bool; 2],
    alarm: bool,
    /// A second key asked with the right secret and was not noticed.
    unnoticed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Ask { controller: usize, who: Who },
    Answer { controller: usize, arrives: bool },
    Crash(usize),
    SecretExpires,
    RepeatEnds,
}

struct Join {
    rules: Rules,
}

impl World {
    fn give(&mut self, who: Who, arrives: bool) {
        self.holds[who as usize] |= arrives;
    }

    fn answer(&mut self, controller: usize, arrives: bool, rules: Rules) -> Option<()> {
        let (who, seen) = self.reading[controller].take()?;
        // Only a compare-and-set makes it look at the row again.
        let user = if seen == 0 && !rules.compare_and_set { None } else { self.used_by };
        match user {
            Some(by) if by == who && self.used == Age::Fresh => self.give(who, arrives),
            Some(by) if rules.check_user => self.alarm |= by != who,
            _ if self.secret == Age::Over => {}
            _ => {
                self.used_by = Some(who);
                self.used = Age::Fresh;
                self.version = self.version.saturating_add(1).min(3);
                self.give(who, arrives);
            }
        }
        Some(())
    }
}

impl Model for Join {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, _: &World, steps: &mut Vec<Step>) {
        for controller in 0..CONTROLLERS {
            steps.extend([Who::Machine, Who::Thief].map(|who| Step::Ask { controller, who }));
            steps.extend([true, false].map(|arrives| Step::Answer { controller, arrives }));
            steps.push(Step::Crash(controller));
        }
        steps.extend([Step::SecretExpires, Step::RepeatEnds]);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = *world;
        match step {
            Step::Ask { controller, who } if world.reading[controller].is_none() => {
                next.reading[controller] = Some((who, world.version));
                let early = !self.rules.commit_first && world.used_by.is_none() && world.secret == Age::Fresh;
                next.holds[who as usize] |= early;
            }
            Step::Answer { controller, arrives } => {
                let (who, _) = world.reading[controller]?;
                next.answer(controller, arrives, self.rules)?;
                let second = world.used_by.is_some_and(|by| by != who);
                next.unnoticed |= second && !next.alarm;
            }
            Step::Crash(controller) => {
                next.reading[controller].take()?;
            }
            Step::SecretExpires => next.secret = Age::Over,
            Step::RepeatEnds if world.used_by.is_some() => next.used = Age::Over,
            Step::Ask { .. } | Step::RepeatEnds => return None,
        }
        next.reading.sort();
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I23 one secret leads to one key", |_, world: &World| {
                world.holds != [true, true]
            }),
            Property::always("I23 a second key raises an alarm", |_, world: &World| !world.unnoticed),
            Property::always("who holds a certificate is who is written down", |_, world: &World| {
                [Who::Machine, Who::Thief]
                    .iter()
                    .all(|w| !world.holds[*w as usize] || world.used_by == Some(*w))
            }),
            Property::sometimes("the machine joins though its first reply was lost", |_, world: &World| {
                world.holds[0] && world.version == 1
            }),
            Property::sometimes("a thief is noticed", |_, world: &World| world.alarm && world.holds[0]),
        ]
    }
}

const ONE_KEY: &str = "I23 one secret leads to one key";

#[test]
fn the_rules_hold() {
    super::holds("join", Join { rules: ALL });
}

#[test]
fn without_compare_and_set_two_keys_join() {
    super::fails("no compare-and-set", Join { rules: Rules { compare_and_set: false, ..ALL } }, ONE_KEY);
}

#[test]
fn without_looking_at_the_user_two_keys_join() {
    super::fails("user not checked", Join { rules: Rules { check_user: false, ..ALL } }, ONE_KEY);
}

#[test]
fn a_certificate_before_the_transaction_serves_two_keys() {
    super::fails("certificate first", Join { rules: Rules { commit_first: false, ..ALL } }, ONE_KEY);
}
