//! Takes back rows that a resume made void: a run went back to a checkpoint, and
//! what it logged after that is logged again.
//!
//! Exact where single points are still held: whole buckets, the newest 200
//! points of losses and gradient norms, and every fault that began in the void
//! part. What remains of a bucket that the boundary cuts is its mean, for as
//! many points as it had before; counters that began before the boundary and
//! went on (equal values, falls of a loss scale) keep what they counted.

use super::track::{Following, Track};

impl Track {
    /// Forgets what was logged at `from` or after; the `segment`-th life begins
    /// there.
    pub(super) fn void(&mut self, from: u64, segment: u64) {
        if self.last_step.is_none_or(|last| last < from) {
            return;
        }
        if self.first_step.is_none_or(|first| first >= from) {
            let (name, traits) = (std::mem::take(&mut self.name), self.traits.clone());
            *self = Self::new(name, traits, self.knobs, segment);
            return;
        }
        if let Some(schedule) = &mut self.schedule {
            schedule.void(from, &self.sketch);
        }
        self.sketch.void(from);
        self.nonfinite.void(from);
        self.dead.void(from);
        if let Some(scale) = &mut self.scale {
            scale.void(from);
        }
        let before = self.last_step;
        self.count = (self.sketch.count() + self.nonfinite.all()).max(1);
        self.last_step = self.sketch.buckets().last().map(|b| b.last_step).filter(|s| *s < from);
        self.last = self.sketch.buckets().last().map_or(f64::NAN, |b| b.level(false));
        if let Some(following) = &mut self.following {
            following.void(from, before, &mut self.last);
        }
        let stays = |kept: Option<(f64, Option<u64>)>| kept.filter(|k| k.1.is_none_or(|step| step < from));
        let buckets = self.sketch.buckets();
        let low = buckets.iter().min_by(|a, b| a.min.total_cmp(&b.min)).map(|b| (b.min, Some(b.first_step)));
        let high = buckets.iter().max_by(|a, b| a.max.total_cmp(&b.max)).map(|b| (b.max, Some(b.first_step)));
        self.lowest = stays(self.lowest).or(low);
        self.highest = stays(self.highest).or(high);
        // The restart was taken in here.
        self.begin_segment(segment);
    }
}

impl Following {
    /// `before` is the last step that was logged; `last` becomes the newest
    /// value that stays.
    fn void(&mut self, from: u64, before: Option<u64>, last: &mut f64) {
        // Steps that are done again are compared before they are forgotten.
        self.resume.void(from);
        if self.recent.front().is_some_and(|p| p.0 <= Some(from)) {
            self.resume.boundary(Some(from), before, &self.recent);
        }
        self.recent.retain(|point| point.0.is_none_or(|step| step < from));
        if let Some(newest) = self.recent.back() {
            *last = self.value(newest.1);
        }
        self.spike.void(from);
        self.oscillation.void(from);
        self.follow_anew();
    }
}
