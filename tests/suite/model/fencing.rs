//! Provisioning and fencing: one run, controllers that act on old knowledge,
//! machines that appear late, fall silent, die and come back, and programs
//! that go on committing when nobody wants them any more. What is wanted is
//! decided by the controller's own planner.

mod planner;
mod rules;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use stateright::{Model, Property};

use planner::{Look, Planner};
use rules::{Act, Blind, Life, Phase, Real, Reply, Row, Rules, World};

/// Passes after which a world without faults must be at rest.
const PASSES: usize = 40;

struct Fencing {
    rules: Rules,
    /// Machines and generations that are made while faults go on.
    machines: u8,
    generations: u8,
    /// Decisions that may wait, on facts that grow old.
    stale: usize,
    /// Only the decisions that take something away may wait.
    takers_only: bool,
    /// Controllers end while a create call is under way, and programs fail.
    others_fail: bool,
    planner: Planner,
    /// Worlds without pending decisions that were settled, and whether that
    /// ended as it must.
    settled: Mutex<HashMap<World, bool>>,
}

impl Fencing {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            machines: 2,
            generations: 3,
            stale: 1,
            takers_only: false,
            others_fail: true,
            planner: Planner::new(false),
            settled: Mutex::default(),
        }
    }

    /// Whether waiting makes a difference: the others look at nothing but the
    /// one row that they change, and do late what would be decided late too.
    fn can_grow_old(&self, act: Act) -> bool {
        match act {
            Act::Resolve(_) | Act::Suspect(_) | Act::Destroy(_) | Act::Settle => false,
            Act::Intend | Act::Create(_) | Act::GiveUp(_) => !self.takers_only,
            _ => true,
        }
    }

    /// Whether the world is still small enough for an action to be done.
    fn fits(&self, world: &World, act: Act) -> bool {
        match act {
            Act::Intend => world.used < self.machines,
            Act::Bind(_) | Act::Overwrite { .. } => world.generation < self.generations,
            _ => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// A controller decides and acts at once.
    Do(Act),
    /// A controller decides, and acts later.
    Decide(Act),
    /// It acts on what it decided then.
    DoOld(usize),
    /// It ends, and what it decided is forgotten.
    Crash(usize),
    Reply(u8, Reply),
    Appear(u8),
    Die(u8),
    Attach(u8),
    FallSilent(u8),
    Commit(u8),
    End(u8, bool),
    Sweep(u8),
}

impl Model for Fencing {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for look in [Look::Asked, Look::Uneasy, Look::Impatient] {
            for act in self.planner.plan(world, look).into_iter().filter(|act| self.fits(world, *act)) {
                if steps.contains(&Step::Do(act)) {
                    continue;
                }
                steps.push(Step::Do(act));
                if self.can_grow_old(act) && world.stale.iter().flatten().count() < self.stale {
                    steps.push(Step::Decide(act));
                }
            }
        }
        for (n, act) in world.stale.iter().enumerate() {
            if let Some(act) = act {
                if self.fits(world, *act) {
                    steps.push(Step::DoOld(n));
                }
                steps.push(Step::Crash(n));
            }
        }
        for (m, machine) in (0..world.used).zip(&world.machines) {
            if machine.calling {
                steps.extend([Reply::Made, Reply::Rejected].map(|reply| Step::Reply(m, reply)));
                for (made, written) in [(true, true), (true, false), (false, true), (false, false)] {
                    if written || self.others_fail {
                        steps.push(Step::Reply(m, Reply::Silence { made, written }));
                    }
                }
            }
            match machine.real {
                Real::Late => steps.push(Step::Appear(m)),
                Real::Up => {
                    let more = [Step::Die(m), Step::Attach(m), Step::Commit(m), Step::Sweep(m)];
                    steps.extend(more);
                    steps.push(Step::End(m, true));
                    if self.others_fail {
                        steps.push(Step::End(m, false));
                    }
                    if machine.heard {
                        steps.push(Step::FallSilent(m));
                    }
                }
                Real::None | Real::Gone => {}
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let rules = self.rules;
        let mut next = *world;
        match step {
            Step::Do(act) => next.perform(act, rules),
            Step::Decide(act) => {
                *next.stale.iter_mut().find(|s| s.is_none())? = Some(act);
                Some(next.tidy())
            }
            Step::DoOld(n) => {
                let act = next.stale[n].take()?;
                Some(next.perform(act, rules).unwrap_or_else(|| next.tidy()))
            }
            Step::Crash(n) => {
                next.stale[n] = None;
                Some(next.tidy())
            }
            Step::Reply(m, reply) => Some(next.reply(m, reply)),
            Step::Appear(m) => {
                next.machine(m).real = Real::Up;
                Some(next)
            }
            Step::Die(m) => Some(next.die(m)),
            Step::Attach(m) => next.attach(m),
            Step::FallSilent(m) => Some(next.fall_silent(m)),
            Step::Commit(m) => next.commit(m, rules),
            Step::End(m, well) => next.end(m, well),
            Step::Sweep(m) => next.sweep(m, rules),
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I2 at most one attempt is bound", |_, world: &World| {
                let live = || world.attempts.iter().flatten().filter(|a| a.life == Life::Live);
                live().count() <= 1
                    && live().all(|a| {
                        Some((a.generation, a.machine)) == world.bound && a.generation == world.generation
                    })
            }),
            Property::always("I4 every instance has a row", |_, world: &World| {
                world.machines.iter().all(|m| m.row != Row::None || matches!(m.real, Real::None | Real::Gone))
            }),
            Property::always("I5 the bound machine is not destroyed", |_, world: &World| {
                !world.wrong.destroyed
            }),
            Property::always("I7 only the bound attempt commits", |_, world: &World| {
                !world.wrong.stale_commit
            }),
            Property::always("I8 the head's generation never falls", |_, world: &World| {
                !world.wrong.head_fell
            }),
            Property::always("a healthy attempt is never taken for lost", |_, world: &World| {
                !world.wrong.healthy_lost
            }),
            Property::always("I24 without faults all comes right", |model: &Self, world: &World| {
                model.comes_right(world)
            }),
            Property::sometimes("a machine is ready beside one that may come back", |_, world: &World| {
                let held = world.live_bound().map(|a| world.at(a.machine));
                held.is_some_and(|held| held.row == Row::Suspect && !held.given_up && held.real == Real::Up)
                    && (0..world.used).any(|m| {
                        world.at(m).row == Row::Ready && world.live_bound().is_some_and(|a| a.machine != m)
                    })
            }),
            Property::sometimes("a commit in the last generation", |model: &Self, world: &World| {
                world.head == model.generations
            }),
            Property::sometimes("an instance appears under a burnt label", |_, world: &World| {
                world.machines.iter().any(|m| m.row == Row::Abandoned && m.real == Real::Up)
            }),
            Property::sometimes("an old program still works after another was bound", |_, world: &World| {
                world.machines.iter().any(|m| m.real == Real::Up && m.works > 0 && m.works < world.generation)
            }),
        ]
    }
}

/// What comes when nothing fails any more.
impl Fencing {
    fn comes_right(&self, world: &World) -> bool {
        let mut now = *world;
        // What was decided is still done, late or never.
        let mut later = *world;
        later.stale = [None; 2];
        while let Some(n) = now.stale.iter().position(Option::is_some) {
            now = self.next_state(&now, Step::DoOld(n)).unwrap_or(World { stale: [None; 2], ..now });
        }
        // Calls end well; or they made something that no list shows before
        // everybody stopped looking.
        [now, later].into_iter().all(|world| {
            [Reply::Made, Reply::Silence { made: true, written: false }].into_iter().all(|reply| {
                let mut world = world;
                for m in 0..world.used {
                    if world.at(m).calling {
                        world = world.reply(m, reply);
                    }
                }
                self.settles(world)
            })
        })
    }

    fn settles(&self, world: World) -> bool {
        let known = self.settled.lock().unwrap_or_else(PoisonError::into_inner).get(&world).copied();
        known.unwrap_or_else(|| {
            let late = self.rest(world).map(appear).and_then(|w| self.rest(w)).is_some_and(is_right);
            let right = late && self.rest(appear(world)).is_some_and(is_right);
            self.settled.lock().unwrap_or_else(PoisonError::into_inner).insert(world, right);
            right
        })
    }

    /// Passes until nothing changes; `None` where there is no end.
    fn rest(&self, mut world: World) -> Option<World> {
        for _ in 0..PASSES {
            let before = world;
            for m in 0..world.used {
                world = world.attach(m).unwrap_or(world);
            }
            for act in self.planner.plan(&world, Look::Asked) {
                world = world.perform(act, self.rules).unwrap_or(world);
            }
            for m in 0..world.used {
                if world.at(m).calling {
                    world = world.reply(m, Reply::Made);
                }
                world = world.sweep(m, self.rules).unwrap_or(world);
            }
            if world == before {
                return Some(world);
            }
        }
        None
    }
}

/// What was made without a word shows itself.
fn appear(mut world: World) -> World {
    for machine in &mut world.machines {
        if machine.real == Real::Late {
            machine.real = Real::Up;
        }
    }
    world
}

/// A run that goes on has exactly one machine, on which its attempt works; one
/// that is over has none.
fn is_right(world: World) -> bool {
    let serving = world.live_bound().filter(|_| world.phase == Phase::Running);
    let over = world.phase == Phase::Over;
    if over == serving.is_some() {
        return false;
    }
    (0u8..).zip(&world.machines).all(|(m, machine)| match serving {
        Some(attempt) if attempt.machine == m => {
            machine.real == Real::Up && machine.row == Row::Ready && machine.works == attempt.generation
        }
        _ => machine.real != Real::Up && machine.row.is_over(),
    })
}

#[test]
fn the_rules_hold() {
    super::holds("provision and fence", Fencing::new(Rules::ALL));
}

#[test]
fn the_rules_hold_with_falling_ids() {
    let model = Fencing { planner: Planner::new(true), generations: 2, ..Fencing::new(Rules::ALL) };
    super::holds("provision and fence, ids fall", model);
}

#[test]
fn the_rules_hold_between_two_stale_controllers() {
    let model = Fencing {
        stale: 2,
        takers_only: true,
        others_fail: false,
        generations: 2,
        ..Fencing::new(Rules::ALL)
    };
    super::holds("provision and fence, two stale controllers", model);
}

#[test]
fn the_rules_hold_with_three_machines() {
    let model =
        Fencing { stale: 0, others_fail: false, machines: 3, generations: 2, ..Fencing::new(Rules::ALL) };
    super::holds("provision and fence, three machines", model);
}

#[test]
fn without_compare_and_set_two_attempts_are_bound() {
    let rules = Rules { bind_by_compare_and_set: false, ..Rules::ALL };
    super::fails("no compare-and-set", Fencing::new(rules), "I2 at most one attempt is bound");
}

#[test]
fn without_the_fence_an_old_attempt_commits_over_a_newer_one() {
    let rules = Rules { commit_fence: false, ..Rules::ALL };
    super::fails("no commit fence", Fencing::new(rules), "I8 the head's generation never falls");
    super::fails("no commit fence", Fencing::new(rules), "I7 only the bound attempt commits");
}

#[test]
fn without_burnt_labels_a_run_is_stuck() {
    let rules = Rules { burn: false, ..Rules::ALL };
    super::fails("no burning", Fencing::new(rules), "I24 without faults all comes right");
}

#[test]
fn without_intent_and_sweep_a_paid_machine_is_forgotten() {
    let rules = Rules { intent_and_sweep: false, ..Rules::ALL };
    super::fails("no intent, no sweep", Fencing::new(rules), "I4 every instance has a row");
    super::fails("no intent, no sweep", Fencing::new(rules), "I24 without faults all comes right");
}

#[test]
fn without_a_second_look_a_healthy_attempt_is_taken_for_lost() {
    for blind in [Blind::Bind, Blind::LoseAttempt, Blind::LoseMachine, Blind::GiveUp] {
        let rules = Rules { blind: Some(blind), ..Rules::ALL };
        let name = format!("{blind:?} without a second look");
        super::fails(&name, Fencing::new(rules), "a healthy attempt is never taken for lost");
    }
}

#[test]
fn without_the_runs_row_a_release_destroys_the_bound_machine() {
    let rules = Rules { release_expects_run: false, ..Rules::ALL };
    super::fails("release without the run", Fencing::new(rules), "I5 the bound machine is not destroyed");
}
