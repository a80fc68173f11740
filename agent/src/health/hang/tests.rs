//! Programs as they are watched: tables of what happens, and properties.

use proptest::prelude::*;

use super::*;

const EVERY: u64 = 10_000;
const AFTER: u64 = 600_000;

/// A program that is watched: each call is one look, ten seconds later.
struct Play {
    watch: Watch,
    signs: Signs,
    changes: Vec<(u64, Change)>,
}

impl Play {
    fn new(after_ms: u64) -> Self {
        Self::with(Watch::new(after_ms, false, Learned::default()))
    }

    fn with(watch: Watch) -> Self {
        let signs = Signs {
            at_ms: 0,
            step: None,
            output_bytes: 0,
            checkpoints: 0,
            cpu_ms: Some(0),
            io_bytes: Some(0),
            gpu_percent: None,
        };
        let mut play = Self { watch, signs, changes: Vec::new() };
        play.look();
        play
    }

    fn look(&mut self) {
        if let Some(step) = self.signs.step {
            self.watch.step(self.signs.at_ms, step);
        }
        if let Some(change) = self.watch.observe(self.signs, EVERY) {
            self.changes.push((self.signs.at_ms / 1_000, change));
        }
    }

    fn pass(&mut self, cpu_percent: u64) {
        self.signs.at_ms += EVERY;
        self.signs.cpu_ms = self.signs.cpu_ms.map(|ms| ms + EVERY * cpu_percent / 100);
        self.look();
    }

    /// Steps at each look.
    fn train(mut self, seconds: u64) -> Self {
        for _ in 0..seconds / 10 {
            self.signs.step = Some(self.signs.step.unwrap_or(0) + 5);
            self.signs.output_bytes += 100;
            self.pass(100);
        }
        self
    }

    fn busy(mut self, seconds: u64) -> Self {
        (0..seconds / 10).for_each(|_| self.pass(100));
        self
    }

    fn idle(mut self, seconds: u64) -> Self {
        (0..seconds / 10).for_each(|_| self.pass(0));
        self
    }

    fn hangs(&self) -> Vec<(u64, Kind, bool)> {
        self.changes
            .iter()
            .filter_map(|(at, change)| match change {
                Change::Hung(hang) => Some((*at, hang.kind, hang.may_act)),
                Change::Moves => None,
            })
            .collect()
    }
}

#[test]
fn an_idle_hang_is_found_at_the_limit_and_told_once() {
    let play = Play::new(AFTER).train(1_000).idle(5_000);
    assert_eq!(play.hangs(), [(1_600, Kind::Idle, true)]);
    let Change::Hung(hang) = &play.changes[0].1 else { unreachable!() };
    assert!(hang.text.contains("for 10 min 0 s (limit 10 min 0 s) after step 500"), "{}", hang.text);
    assert!(hang.text.contains("CPU 0.0 % of a core, GPU unknown"), "{}", hang.text);
}

#[test]
fn a_busy_program_has_three_times_the_time() {
    let quiet = Play::new(AFTER).train(1_000).busy(1_790);
    assert_eq!(quiet.hangs(), []);
    assert_eq!(quiet.busy(20).hangs(), [(2_800, Kind::Busy, true)]);
}

#[test]
fn a_busy_gpu_is_no_idleness() {
    let mut play = Play::new(AFTER).train(1_000);
    play.signs.gpu_percent = Some(98.0);
    play = play.idle(1_700);
    assert_eq!(play.hangs(), []);
    play.signs.gpu_percent = Some(0.0);
    assert_eq!(play.idle(610).hangs().len(), 1);
}

#[test]
fn a_ten_minute_evaluation_never_alarms_once_it_was_seen() {
    // The first one computes; later ones wait for a slow disk and seem idle.
    let mut play = Play::new(120_000).train(500);
    for round in 0..10 {
        play = if round == 0 { play.busy(300).train(100).busy(600) } else { play.idle(600) };
        play = play.train(500);
    }
    assert_eq!(play.hangs(), [], "{:?}", play.changes);
    // What lasts longer than half as long again is a hang all the same.
    assert_eq!(play.idle(1_000).hangs().len(), 1);
}

#[test]
fn before_the_first_step_there_is_three_times_the_time_and_only_a_report() {
    let compile = Play::new(AFTER).busy(3_000).train(100);
    assert_eq!(compile.hangs(), []);
    // How long it took to begin does not make it patient later.
    assert_eq!(compile.idle(700).hangs().len(), 1);
    let server = Play::new(AFTER).idle(4_000);
    assert_eq!(server.hangs(), [(1_800, Kind::Idle, false)], "what never steps may be idle by design");
    assert_eq!(Play::new(AFTER).busy(50_000).hangs(), [], "a program that prints nothing and computes");
    let resumed = Play::with(Watch::new(AFTER, true, Learned::default()));
    assert_eq!(resumed.idle(1_810).hangs(), [(1_800, Kind::Idle, true)], "its run is known to step");
}

#[test]
fn slow_steps_make_it_patient() {
    let mut play = Play::new(60_000);
    for _ in 0..20 {
        play = play.train(10).busy(160);
    }
    // A step in 170 s, of five each: the pause between reports is the measure.
    assert_eq!(play.hangs(), []);
    assert_eq!(play.watch.limit_ms(), 255_000);
    assert_eq!(play.idle(300).hangs().len(), 1);
}

#[test]
fn a_restart_of_the_agent_counts_from_then_and_forgets_nothing() {
    let before = Play::new(60_000).train(500).busy(100).train(10).busy(110).train(10);
    let learned = before.watch.learned();
    assert!(learned.stepped && learned.longest_pause_ms == 120_000, "{learned:?}");
    let after = Play::with(Watch::new(60_000, false, learned)).idle(170);
    assert_eq!(after.hangs(), []);
    assert_eq!(after.idle(20).hangs(), [(180, Kind::Idle, true)]);
}

#[test]
fn what_nobody_watched_is_no_pause() {
    let mut play = Play::new(AFTER).train(100).idle(500);
    play.signs.at_ms += 8 * 3_600_000;
    play.look();
    assert_eq!(play.hangs(), [], "the machine slept");
    assert_eq!(play.idle(200).hangs().len(), 1);
}

#[test]
fn it_is_told_when_it_moves_again() {
    let play = Play::new(AFTER).train(100).idle(700).train(20);
    assert!(matches!(play.changes[..], [(_, Change::Hung(_)), (_, Change::Moves)]));
    // It ended by itself: such a pause is known from now on.
    assert_eq!(play.idle(1_000).hangs().len(), 1);
}

#[test]
fn unreadable_figures_are_no_evidence_of_idleness() {
    let mut play = Play::new(AFTER).train(100);
    play.signs.cpu_ms = None;
    play = play.idle(1_700);
    assert_eq!(play.hangs(), []);
    // A silence that is three times too long is one all the same, whatever it uses.
    play = play.idle(200);
    assert_eq!(play.hangs(), [(1_900, Kind::Busy, true)]);
    let Change::Hung(hang) = &play.changes[0].1 else { unreachable!() };
    assert!(
        hang.text.ends_with("whether it computes is not known; CPU unknown, GPU unknown"),
        "{}",
        hang.text
    );
    // Nor is a GPU that is idle: it says nothing of what cannot be seen.
    let mut play = Play::new(AFTER).train(100);
    (play.signs.cpu_ms, play.signs.io_bytes, play.signs.gpu_percent) = (None, None, Some(0.0));
    assert_eq!(play.idle(1_700).hangs(), []);
    // What never steps may compute for ever.
    let mut play = Play::new(AFTER);
    play.signs.cpu_ms = None;
    assert_eq!(play.idle(100_000).hangs(), []);
}

#[test]
fn a_hang_stands_until_the_program_moves_or_ends_whoever_watches() {
    let hung = Play::new(AFTER).train(100).idle(700);
    assert_eq!(hung.hangs().len(), 1);
    // The next process of the agent tells that it moves, and does not tell the hang twice.
    let kept = serde_json::to_string(&hung.watch.learned()).unwrap();
    let learned: Learned = serde_json::from_str(&kept).unwrap();
    let next = Play::with(Watch::new(AFTER, false, learned)).idle(3_000);
    assert_eq!(next.changes, []);
    let mut next = next.train(20);
    assert!(matches!(next.changes[..], [(_, Change::Moves)]), "{:?}", next.changes);
    assert!(!next.watch.learned().hung && !next.watch.ended());
    // An end is told once.
    let mut ended = Play::with(Watch::new(AFTER, false, learned));
    assert!(ended.watch.ended() && !ended.watch.ended());
    // What an older agent kept is read.
    let old: Learned =
        serde_json::from_str(r#"{"longest_pause_ms":5,"stepped":true,"step_ms":2.0}"#).unwrap();
    assert!(!old.hung && old.stepped);
}

fn cadence(watch: &mut Watch, clock: &mut u64, step: &mut u64, each_ms: u64, count: u64) -> Vec<bool> {
    let mut told = Vec::new();
    for _ in 0..count {
        *clock += each_ms;
        *step += 1;
        watch.step(*clock, *step);
        told.extend(watch.pace().map(|slow| slow.raised));
    }
    told
}

#[test]
fn a_slow_node_is_told_and_one_long_pause_is_not() {
    const NONE: [bool; 0] = [];
    let (mut watch, mut clock, mut step) = (Watch::new(AFTER, false, Learned::default()), 0, 0);
    let mut go = |each, count| cadence(&mut watch, &mut clock, &mut step, each, count);
    assert_eq!(go(100, 50), NONE);
    assert_eq!(go(60_000, 1), NONE, "an evaluation");
    assert_eq!(go(100, 20), NONE);
    assert_eq!(go(250, 40), NONE, "slower, not slow");
    assert_eq!(go(100, 40), NONE);
    assert_eq!(go(1_000, 30), [true]);
    assert_eq!(go(250, 30), NONE, "not back yet");
    assert_eq!(go(120, 30), [false]);
}

proptest! {
    /// Whatever it does in between: a sign of progress within the limit keeps
    /// it from ever being called hung; and without any it always is, once.
    #[test]
    fn progress_in_time_never_alarms_and_silence_always_does(
        gaps in proptest::collection::vec((1u64..59, any::<bool>(), 0u8..3), 1..60), busy: bool,
    ) {
        let mut play = Play::new(AFTER).train(100);
        for (looks, computes, sign) in gaps {
            for _ in 0..looks { play.pass(if computes { 100 } else { 0 }); }
            match sign {
                0 => play.signs.step = play.signs.step.map(|s| s + 1),
                1 => play.signs.output_bytes += 1,
                _ => play.signs.checkpoints += 1,
            }
            play.pass(0);
        }
        prop_assert!(play.changes.is_empty(), "{:?}", play.changes);
        let limit = play.watch.limit_ms() / 1_000;
        let play = if busy { play.busy(3 * limit + 20) } else { play.idle(limit + 20) };
        prop_assert_eq!(play.changes.len(), 1);
    }

    /// Clocks that jump and counts that fall harm nothing.
    #[test]
    fn random_signs_never_panic(
        looks in proptest::collection::vec(
            (any::<u64>(), proptest::option::of(any::<u64>()), any::<u64>(), proptest::option::of(any::<u64>()), any::<f64>()),
            0..40),
    ) {
        let mut watch = Watch::new(0, true, Learned::default());
        for (at_ms, step, output_bytes, cpu_ms, gpu) in looks {
            if let Some(step) = step { watch.step(at_ms, step); }
            watch.observe(
                Signs { at_ms, step, output_bytes, checkpoints: 0, cpu_ms, io_bytes: cpu_ms, gpu_percent: Some(gpu) },
                EVERY,
            );
            watch.pace();
        }
    }
}
