//! Figures of a process and of many values.

use std::collections::BTreeMap;
use std::fs;

/// Resident bytes now and at most, and processor seconds so far.
pub(super) fn usage(pid: u32) -> (u64, u64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    // utime and stime: the 14th and 15th field, the state and two more before.
    let numbers: Vec<&str> = after.split_whitespace().collect();
    let tick = |at: usize| numbers.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "seconds of minutes")]
    let seconds = (tick(11) + tick(12)) as f64 / 100.0;
    (field("VmRSS:"), field("VmHWM:"), seconds)
}

pub(super) fn percentile(values: &mut [f64], percent: f64) -> f64 {
    if values.is_empty() {
        return -1.0;
    }
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let at = ((values.len() - 1) as f64 * percent / 100.0).round() as usize;
    (values[at] * 10.0).round() / 10.0
}

pub(super) fn densest(at: &[f64]) -> usize {
    let mut buckets: BTreeMap<u64, usize> = BTreeMap::new();
    for ms in at {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
        let bucket = (ms / 100.0) as u64;
        *buckets.entry(bucket).or_default() += 1;
    }
    buckets.values().copied().max().unwrap_or(0)
}

pub(super) fn mb(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let mb = bytes as f64 / 1e6;
    (mb * 10.0).round() / 10.0
}
