//! Which packs of the store are on their way out. Checkpoints share packs, and
//! a machine may be about to refer to a pack that nobody else needs any more;
//! so a pack is *doomed* first, can be taken back by any commit that names it,
//! and only after the grace period, looked at afresh, *going*: from then on no
//! commit may name it. A pack that is gone is in neither list: whoever looked for
//! it before must look again if anything was deleted since. Pure; one record of the store, changed only together
//! with the commit or the sweep that depends on it.
//!
//! ```text
//! live -> DOOMED -> GOING -> gone
//!   ^        |
//!   +--------+  a commit names it
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The packs that are neither simply live nor gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// Named by nothing that is kept: pack -> since when, unix milliseconds.
    #[serde(default)]
    pub doomed: BTreeMap<String, u64>,
    /// Being deleted.
    #[serde(default)]
    pub going: BTreeSet<String>,
    /// How many are gone for ever.
    #[serde(default)]
    pub deleted: u64,
}

impl Sweep {
    /// A commit names these packs. `Ok(true)`: some were taken back, and this
    /// record must be written together with the commit.
    ///
    /// # Errors
    /// The first pack that is being deleted: the commit must not happen, and
    /// what it published is to be published again.
    pub fn name<'a>(&mut self, packs: impl IntoIterator<Item = &'a str>) -> Result<bool, &'a str> {
        let mut back = false;
        for pack in packs {
            if self.going.contains(pack) {
                return Err(pack);
            }
            back |= self.doomed.remove(pack).is_some();
        }
        Ok(back)
    }

    /// Looks at all packs: those that are named by nothing kept are doomed,
    /// doomed ones that are named again are taken back. `all` are the packs
    /// that may be deleted at all.
    pub fn doom<'a>(&mut self, all: impl IntoIterator<Item = &'a str>, live: &BTreeSet<&str>, now_ms: u64) {
        self.doomed.retain(|pack, _| !live.contains(pack.as_str()));
        for pack in all {
            if !live.contains(pack) && !self.going.contains(pack) {
                self.doomed.entry(pack.to_owned()).or_insert(now_ms);
            }
        }
    }

    /// Condemns what was doomed for the whole grace period and still is not
    /// live, at most `most` at once. They may be deleted once this record is
    /// written.
    pub fn condemn(&mut self, live: &BTreeSet<&str>, now_ms: u64, grace_ms: u64, most: usize) {
        let due = |since: &u64| now_ms.checked_sub(*since).is_some_and(|age| age >= grace_ms);
        let packs: Vec<String> = self
            .doomed
            .iter()
            .filter(|(pack, since)| due(since) && !live.contains(pack.as_str()))
            .take(most.saturating_sub(self.going.len()))
            .map(|(pack, _)| pack.clone())
            .collect();
        for pack in packs {
            self.doomed.remove(&pack);
            self.going.insert(pack);
        }
    }

    /// The pack's object is gone.
    pub fn gone(&mut self, pack: &str) {
        self.deleted += u64::from(self.going.remove(pack));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_doomed_pack_is_taken_back_and_a_going_one_refuses() {
        let mut sweep = Sweep::default();
        sweep.doom(["a", "b", "c"], &BTreeSet::from(["c"]), 10);
        assert_eq!(sweep.doomed, BTreeMap::from([("a".into(), 10), ("b".into(), 10)]));
        assert_eq!(sweep.name(["b", "c"]), Ok(true));
        assert_eq!(sweep.name(["b", "c"]), Ok(false));
        sweep.condemn(&BTreeSet::new(), 109, 100, 9);
        assert!(sweep.going.is_empty(), "the grace period is not over");
        sweep.condemn(&BTreeSet::new(), 110, 100, 9);
        assert_eq!(sweep.name(["c", "a"]), Err("a"));
        sweep.doom(["a"], &BTreeSet::new(), 120);
        assert!(sweep.doomed.is_empty(), "what goes is not doomed again");
        sweep.gone("a");
        sweep.gone("a");
        assert_eq!(sweep, Sweep { deleted: 1, ..Sweep::default() });
    }

    #[test]
    fn a_clock_that_goes_back_hastens_nothing() {
        let mut sweep = Sweep::default();
        sweep.doom(["a"], &BTreeSet::new(), 1_000);
        sweep.condemn(&BTreeSet::new(), 10, 0, 9);
        assert!(sweep.going.is_empty());
    }

    /// One step of somebody. A publisher looks packs up; its commit finds, one
    /// after the other, that they are there, and is written later; a sweeper reads the record, later the rows, and later writes.
    #[derive(Debug, Clone)]
    enum Step {
        /// Publisher `0..3` decides to refer to pack `n`, where it still is
        /// offered for reuse.
        Refer(usize, u8),
        /// It puts a pack of its own.
        Put(usize, u8),
        /// All that it refers to is found.
        Check(usize),
        Commit(usize),
        /// The oldest manifest is let go.
        Unlink,
        Begin,
        Look,
        Write,
        Delete,
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..3_usize, 0..6_u8).prop_map(|(who, pack)| Step::Refer(who, pack)),
            2 => (0..3_usize, 0..6_u8).prop_map(|(who, pack)| Step::Put(who, pack)),
            3 => (0..3_usize).prop_map(Step::Check),
            3 => (0..3_usize).prop_map(Step::Commit),
            2 => Just(Step::Unlink),
            2 => Just(Step::Begin),
            2 => Just(Step::Look),
            3 => Just(Step::Write),
            3 => Just(Step::Delete),
            2 => (1..60_u64).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 1..120)
    }

    /// A half-done look: the record as it was read, and then the rows.
    struct Look {
        version: u64,
        record: Sweep,
        rows: Option<Vec<Vec<String>>>,
    }

    /// The database and the object store, with a publisher's and a sweeper's
    /// half-done work. `careless`: commits do not ask the record. `hasty`: they do
    /// not look again when something was deleted.
    #[derive(Default)]
    struct World {
        careless: bool,
        hasty: bool,
        now: u64,
        version: u64,
        record: Sweep,
        manifests: Vec<Vec<String>>,
        ever: BTreeSet<String>,
        objects: BTreeSet<String>,
        offered: BTreeSet<String>,
        drafts: [Vec<String>; 3],
        /// How many were gone before all of a draft was found.
        found: [Option<u64>; 3],
        sweep: Option<Look>,
    }

    impl World {
        fn all_there(&self, draft: &[String]) -> bool {
            draft.iter().all(|pack| self.objects.contains(pack))
        }

        fn commit(&mut self, who: usize) {
            let Some(deleted) = self.found[who].take() else { return };
            let draft = std::mem::take(&mut self.drafts[who]);
            if !self.hasty && deleted != self.record.deleted && !self.all_there(&draft) {
                return;
            }
            let mut record = self.record.clone();
            match record.name(draft.iter().map(String::as_str)) {
                _ if self.careless => {}
                Err(_) => return,
                Ok(false) => {}
                Ok(true) => {
                    self.record = record;
                    self.version += 1;
                }
            }
            self.offered.extend(draft.iter().cloned());
            self.ever.extend(draft.iter().cloned());
            self.manifests.push(draft);
        }

        fn step(&mut self, step: &Step, number: usize) {
            match step {
                Step::Refer(who, n) => {
                    if let Some(pack) = self.offered.iter().nth(*n as usize).cloned() {
                        self.drafts[*who].push(pack);
                        self.found[*who] = None;
                    }
                }
                Step::Put(who, n) => {
                    let pack = format!("p{number}-{n}");
                    self.objects.insert(pack.clone());
                    self.drafts[*who].push(pack);
                    self.found[*who] = None;
                }
                Step::Check(who) => {
                    let draft = &self.drafts[*who];
                    let there = !draft.is_empty() && self.all_there(draft);
                    self.found[*who] = there.then_some(self.record.deleted);
                }
                Step::Commit(who) => self.commit(*who),
                Step::Unlink => drop((!self.manifests.is_empty()).then(|| self.manifests.remove(0))),
                Step::Begin => {
                    self.sweep =
                        Some(Look { version: self.version, record: self.record.clone(), rows: None });
                }
                Step::Look => {
                    if let Some(look) = &mut self.sweep {
                        look.rows = Some(self.manifests.clone());
                    }
                }
                Step::Write => {
                    let Some(Look { version, mut record, rows: Some(rows) }) = self.sweep.take() else {
                        return;
                    };
                    let live: BTreeSet<&str> = rows.iter().flatten().map(String::as_str).collect();
                    record.doom(self.ever.iter().map(String::as_str), &live, self.now);
                    record.condemn(&live, self.now, 50, 3);
                    if version == self.version {
                        // Together: what goes is offered no more.
                        self.offered.retain(|pack| !record.going.contains(pack));
                        self.record = record;
                        self.version += 1;
                    }
                }
                Step::Delete => {
                    if let Some(pack) = self.record.going.first().cloned() {
                        self.objects.remove(&pack);
                        self.ever.remove(&pack);
                        self.record.gone(&pack);
                        self.version += 1;
                    }
                }
                Step::Wait(ms) => self.now += ms,
            }
        }

        fn is_whole(&self) -> bool {
            self.manifests.iter().flatten().all(|pack| self.objects.contains(pack))
        }
    }

    #[test]
    fn the_record_is_what_keeps_a_late_commit_whole() {
        let ends_whole = |careless, hasty, last: [Step; 2]| {
            let mut world = World { careless, hasty, ..World::default() };
            let sweep = [Step::Begin, Step::Look, Step::Write];
            let mut steps = vec![Step::Put(0, 0), Step::Check(0), Step::Commit(0), Step::Unlink];
            steps.push(Step::Refer(1, 0));
            steps.extend(sweep.iter().cloned());
            steps.extend([Step::Wait(60), Step::Check(1)]);
            steps.extend(sweep);
            steps.extend(last);
            steps.iter().enumerate().for_each(|(number, step)| world.step(step, number));
            world.is_whole()
        };
        let before = [Step::Commit(1), Step::Delete];
        assert!(ends_whole(false, false, before.clone()) && !ends_whole(true, false, before));
        // It was there when it was looked for, which took long.
        let after = [Step::Delete, Step::Commit(1)];
        assert!(ends_whole(false, false, after.clone()) && !ends_whole(false, true, after));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
        #[test]
        fn no_interleaving_deletes_what_a_kept_manifest_names(steps in steps()) {
            let mut world = World::default();
            for (number, step) in steps.iter().enumerate() {
                world.step(step, number);
                prop_assert!(world.is_whole(), "after {number}: {step:?}");
            }
            // Left alone, everything that nothing names goes.
            for number in 0..400 {
                for step in [Step::Begin, Step::Look, Step::Write, Step::Delete, Step::Wait(60)] {
                    world.step(&step, 1_000 + number);
                }
            }
            let named: BTreeSet<&String> = world.manifests.iter().flatten().collect();
            prop_assert!(world.ever.iter().all(|pack| named.contains(pack)), "{:?}", world.record);
            prop_assert!(world.is_whole());
        }
    }
}
