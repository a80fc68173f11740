//! Many replays of one policy, each from a moment drawn from a seed: what
//! a recording says in the mean and at worst, not only from its beginning.

use serde::Serialize;

use super::{Policy, ReplayError, Settings, Tally, Zone, replay};

/// What came of many replays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Windows {
    /// How many.
    pub windows: u32,
    /// Those in which the deadline passed.
    pub missed: u32,
    /// Those in which the work was done.
    pub finished: u32,
    /// Dollars, in the mean.
    pub mean_usd: f64,
    /// Dollars, at worst.
    pub worst_usd: f64,
    /// Milliseconds to the end, in the mean of those that came to one.
    pub mean_took_ms: u64,
    /// Milliseconds to the end, at worst.
    pub worst_took_ms: u64,
    /// Machines lost, in the mean.
    pub mean_losses: f64,
    /// Milliseconds of work done again, in the mean.
    pub mean_repeated_ms: u64,
    /// Milliseconds on on-demand machines, in the mean.
    pub mean_on_demand_ms: u64,
    /// Useful time by the time in which a machine could be had, over all.
    pub goodput: f64,
    /// How often the limit of machines made per hour held one up.
    pub storms: u32,
}

/// Replays `count` windows. With a deadline they begin so early that it lies
/// within the recording, as far as that is long enough.
///
/// # Errors
/// As [`replay`].
pub fn windows(
    zones: &[Zone],
    count: u32,
    seed: u64,
    settings: &Settings,
    policy: &Policy,
) -> Result<Windows, ReplayError> {
    let end_ms = zones.iter().map(Zone::end_ms).min().unwrap_or(0);
    let needs = settings.deadline_ms.or(settings.work_ms.map(|work| 2 * work)).unwrap_or(end_ms / 2);
    let latest = end_ms.saturating_sub(needs.saturating_add(3_600_000));
    // Every policy draws the same windows.
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut all = Vec::new();
    for _ in 0..count {
        // A tick is not known here; a minute is fine enough.
        let from_ms = chance.u64(0..=latest / 60_000) * 60_000;
        all.push(replay(zones, from_ms, settings, policy)?);
    }
    Ok(sum(&all))
}

fn sum(all: &[Tally]) -> Windows {
    let count = all.len().max(1) as u64;
    let mean = |of: fn(&Tally) -> u64| all.iter().map(of).sum::<u64>() / count;
    let ended = || all.iter().filter(|it| it.finished);
    let number = |many: usize| u32::try_from(many).unwrap_or(u32::MAX);
    let possible: u64 = all.iter().map(|it| it.possible_ms).sum();
    let useful: u64 = all.iter().map(|it| it.useful_ms).sum();
    Windows {
        windows: number(all.len()),
        missed: number(all.iter().filter(|it| it.missed).count()),
        finished: number(ended().count()),
        mean_usd: all.iter().map(|it| it.usd).sum::<f64>() / count as f64,
        worst_usd: all.iter().map(|it| it.usd).fold(0.0, f64::max),
        mean_took_ms: ended().map(|it| it.took_ms).sum::<u64>() / (ended().count() as u64).max(1),
        worst_took_ms: ended().map(|it| it.took_ms).max().unwrap_or(0),
        mean_losses: all.iter().map(|it| f64::from(it.losses)).sum::<f64>() / count as f64,
        mean_repeated_ms: mean(|it| it.repeated_ms),
        mean_on_demand_ms: mean(|it| it.on_demand_ms),
        goodput: if possible == 0 { 0.0 } else { useful as f64 / possible as f64 },
        storms: all.iter().map(|it| it.storms).sum(),
    }
}
