//! Which durable checkpoints of a run are kept, and why. Pure: it is told the
//! time and every checkpoint, and names a reason for each that stays. Whatever
//! has no reason may be unlinked; it never decides that bytes are deleted.
//!
//! Time is cut in UTC: a day is 86,400 s since 1970, a week begins on Monday.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub mod score;

const DAY_MS: u64 = 86_400_000;
/// 1970-01-01 was a Thursday: three days after a Monday.
const MONDAY_OFFSET: u64 = 3;

/// What is kept of a run beside what is pinned or needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retention {
    /// The newest so many, by step.
    pub latest: u32,
    /// The best so many, where a score is known.
    pub best: u32,
    /// Everything younger than so many days.
    pub all_days: u32,
    /// The last of each day for so many days.
    pub daily_days: u32,
    /// The last of each week for so many days.
    pub weekly_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { latest: 3, best: 1, all_days: 7, daily_days: 30, weekly_days: 182 }
    }
}

/// A durable checkpoint as retention sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Save<'a> {
    /// Names it.
    pub key: &'a str,
    /// The step it was made at; one without counts as older than any other.
    pub step: Option<u64>,
    /// When it became durable, unix milliseconds.
    pub committed_ms: u64,
    /// Kept whatever the rule says.
    pub pinned: bool,
    /// Its value of the metric that decides, turned so that less is better.
    pub score: Option<f64>,
    /// Who cannot do without it.
    pub needed: Option<Need>,
}

/// Why something else depends on a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A run that has not ended would resume from it.
    Live,
    /// Another run began from it.
    Fork,
    /// Another checkpoint is stored as a difference to it.
    Base,
}

/// Why a checkpoint is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A person said so.
    Pinned,
    /// Something else depends on it.
    Needed(Need),
    /// Among the newest; 1 is the newest.
    Latest(u32),
    /// Among the best; 1 is the best.
    Best(u32),
    /// Young.
    Recent,
    /// The last of a day, counted since 1970.
    Daily(u64),
    /// The last of a week, counted since the Monday before 1970.
    Weekly(u64),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pinned => f.write_str("pinned"),
            Self::Needed(Need::Live) => f.write_str("its run goes on from it"),
            Self::Needed(Need::Fork) => f.write_str("another run began from it"),
            Self::Needed(Need::Base) => f.write_str("another checkpoint is a difference to it"),
            Self::Latest(1) => f.write_str("the newest"),
            Self::Latest(rank) => write!(f, "among the newest ({rank})"),
            Self::Best(1) => f.write_str("the best"),
            Self::Best(rank) => write!(f, "among the best ({rank})"),
            Self::Recent => f.write_str("recent"),
            Self::Daily(_) => f.write_str("the last of its day"),
            Self::Weekly(_) => f.write_str("the last of its week"),
        }
    }
}

/// What is kept, with its reasons in the order of [`Reason`]; what is let go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan<'a> {
    /// Every checkpoint that stays.
    pub keep: BTreeMap<&'a str, BTreeSet<Reason>>,
    /// Every other one, oldest first.
    pub unlink: Vec<&'a str>,
}

/// Judges the durable checkpoints of one run at `now_ms`. Where `latest` is 0
/// the newest is kept all the same: a run without any checkpoint could never go
/// on. A time in the future counts as now.
#[must_use]
pub fn plan<'a>(rule: &Retention, saves: &[Save<'a>], now_ms: u64) -> Plan<'a> {
    let mut keep: BTreeMap<&str, BTreeSet<Reason>> = BTreeMap::new();
    let mut add = |save: &Save<'a>, reason| {
        keep.entry(save.key).or_default().insert(reason);
    };
    let newest =
        |a: &&Save<'_>, b: &&Save<'_>| (b.step, b.committed_ms, b.key).cmp(&(a.step, a.committed_ms, a.key));
    let mut by_age: Vec<&Save<'a>> = saves.iter().collect();
    by_age.sort_by(newest);
    for (rank, save) in (1_u32..).zip(&by_age).take(rule.latest.max(1) as usize) {
        add(save, Reason::Latest(rank));
    }
    let mut scored: Vec<(f64, &Save<'a>)> = by_age
        .iter()
        .filter_map(|save| save.score.filter(|score| score.is_finite()).map(|score| (score, *save)))
        .collect();
    // Stable: of equal ones the newest is first.
    scored.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    for (rank, (_, save)) in (1_u32..).zip(&scored).take(rule.best as usize) {
        add(save, Reason::Best(rank));
    }
    let mut days: BTreeMap<u64, &Save<'a>> = BTreeMap::new();
    let mut weeks: BTreeMap<u64, &Save<'a>> = BTreeMap::new();
    let within = |age_ms: u64, days: u32| age_ms < u64::from(days) * DAY_MS;
    let mut by_time: Vec<&Save<'a>> = saves.iter().collect();
    by_time.sort_by_key(|save| (save.committed_ms, save.step, save.key));
    for save in &by_time {
        let at = save.committed_ms.min(now_ms);
        let age = now_ms - at;
        if save.pinned {
            add(save, Reason::Pinned);
        }
        if let Some(need) = save.needed {
            add(save, Reason::Needed(need));
        }
        if within(age, rule.all_days) {
            add(save, Reason::Recent);
        }
        // The last one wins.
        if within(age, rule.daily_days) {
            days.insert(at / DAY_MS, save);
        }
        if within(age, rule.weekly_days) {
            weeks.insert((at / DAY_MS + MONDAY_OFFSET) / 7, save);
        }
    }
    days.into_iter().for_each(|(day, save)| add(save, Reason::Daily(day)));
    weeks.into_iter().for_each(|(week, save)| add(save, Reason::Weekly(week)));
    let unlink = by_time.iter().map(|save| save.key).filter(|key| !keep.contains_key(key)).collect();
    Plan { keep, unlink }
}

#[cfg(test)]
mod tests;
