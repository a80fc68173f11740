//! Which figures of a sample are held against which limit, and what is said of
//! them. Pure. Forecasts of disks and memory are kept here from sample to sample.

use std::collections::BTreeMap;

use lifecycle::spec::HealthSpec;
use proto::v1;

use super::alerts::{self, Board, Figure};
use super::forecast::Series;
use super::mounts::Space;
use super::nvidia::HARDWARE_REASONS;
use super::proc::to_f64;
use super::swing::Swing;
use super::threshold::Rule;

/// Corrected memory errors since the agent started that are worth telling.
const CORRECTED_MANY: u64 = 1000;

/// What forecasts remember.
#[derive(Debug, Default)]
pub(super) struct Forecaster {
    disks: BTreeMap<String, Series>,
    memory: Series,
    swing: Swing,
}

fn percent_used(free: u64, total: u64) -> Option<f64> {
    (total > 0).then(|| (1.0 - to_f64(free.min(total)) / to_f64(total)) * 100.0)
}

impl Forecaster {
    /// Disks and memory: alerts, and what will be used up when.
    pub(super) fn judge(
        &mut self,
        board: &mut Board,
        spec: &HealthSpec,
        sample: &v1::MachineSample,
        spaces: &[Space],
    ) -> Vec<v1::Forecast> {
        let mut forecasts = Vec::new();
        self.disks.retain(|path, _| spaces.iter().any(|s| s.mount.path == *path));
        for space in spaces.iter().filter(|s| !s.read_only && s.mount.total_bytes > 0) {
            let series = self.disks.entry(space.mount.path.clone()).or_default();
            series.push(sample.boottime_ms, to_f64(space.mount.free_bytes));
            let until = series.until_zero();
            disk(board, spec, &space.mount, until);
            forecasts.extend(until.map(|(in_seconds, slope_per_s)| v1::Forecast {
                what: format!("disk-full {}", space.mount.path),
                in_seconds,
                slope_per_s,
            }));
        }
        if let Some(memory) = Memory::of(sample) {
            self.memory.push(sample.boottime_ms, to_f64(memory.free));
            self.swing.push(sample.boottime_ms, to_f64(memory.free), to_f64(memory.total));
            let until = self.memory.until_zero().filter(|_| self.swing.is_news());
            memory.judge(board, spec, "", until);
            forecasts.extend(until.map(|(in_seconds, slope_per_s)| v1::Forecast {
                what: "out-of-memory".to_owned(),
                in_seconds,
                slope_per_s,
            }));
        }
        forecasts
    }
}

/// Places where work is kept: a file system that Linux makes read-only because
/// its disk fails takes no checkpoint any more, and fills nothing.
pub(super) fn refusals(board: &mut Board, kept: &[(String, bool)]) {
    for (path, refuses) in kept {
        let value = Some(f64::from(u8::from(*refuses)));
        let figure = Figure { name: "read-only", subject: path, value, rule: Rule::never() };
        board.judge(&figure, |_| {
            if *refuses {
                format!(
                    "{path} is read-only (1 refusal, limit 0): nothing is saved there; a disk that fails is made so: \
                     outlast destroy MACHINE has the run go on elsewhere"
                )
            } else {
                format!("{path} can be written again")
            }
        });
    }
}

fn disk(board: &mut Board, spec: &HealthSpec, mount: &v1::Mount, until: Option<(f64, f64)>) {
    let path = mount.path.as_str();
    let total = to_f64(mount.total_bytes);
    let full_in = until.map(|(s, _)| format!(", full in {}", alerts::duration(s))).unwrap_or_default();
    let used = percent_used(mount.free_bytes, mount.total_bytes);
    let is_shm = mount.holds.iter().any(|h| h == "shm");
    let name = if is_shm { "shm-full" } else { "disk-full" };
    let shown = used.unwrap_or_default();
    board.judge(
        &Figure { name, subject: path, value: used, rule: Rule::percent(spec.disk_percent) },
        |trend| {
            let what = if is_shm { "shared memory" } else { "disk" };
            let trend = alerts::byte_trend(trend / 100.0 * total);
            format!("{what} {path} {shown:.0} % used (limit {:.0} %), {trend}{full_in}", spec.disk_percent)
        },
    );
    if let Some(used) = percent_used(mount.inodes_free, mount.inodes) {
        let rule = Rule::percent(spec.inodes_percent);
        board.judge(&Figure { name: "inodes", subject: path, value: Some(used), rule }, |trend| {
            let per_s = alerts::trend(trend / 100.0 * to_f64(mount.inodes), "files");
            format!(
                "disk {path} {used:.0} % of its inodes used (limit {:.0} %), {per_s}",
                spec.inodes_percent
            )
        });
    }
    let limit = to_f64(spec.forecast_seconds);
    let value = until.map(|(seconds, _)| seconds);
    board.judge(
        &Figure { name: "disk-full-soon", subject: path, value, rule: Rule::seconds_left(limit) },
        |_| {
            let free = alerts::bytes(to_f64(mount.free_bytes));
            soon(&format!("disk {path} full"), until, spec.forecast_seconds, &free, shown)
        },
    );
}

fn soon(what: &str, until: Option<(f64, f64)>, limit: u64, free: &str, used: f64) -> String {
    let limit = alerts::duration(to_f64(limit));
    match until {
        Some((seconds, slope)) => {
            let (when, trend) = (alerts::duration(seconds), alerts::byte_trend(-slope));
            format!("{what} in {when} (limit {limit}), {trend}, {free} free, {used:.0} % used")
        }
        None => format!("{what}: not any more (limit {limit}), steady, {free} free, {used:.0} % used"),
    }
}

/// The smaller of what the machine and what the own limit leaves, or what a
/// run's own limit leaves.
pub(super) struct Memory {
    pub(super) free: u64,
    total: u64,
    percent: f64,
    what: &'static str,
}

impl Memory {
    fn of(sample: &v1::MachineSample) -> Option<Self> {
        let of = |free, total, what| Some(Self { free, total, percent: percent_used(free, total)?, what });
        let machine = of(sample.memory_available_bytes, sample.memory_total_bytes, "memory");
        let left = sample.memory_limit_bytes.saturating_sub(sample.memory_used_in_limit_bytes);
        let limited = of(left, sample.memory_limit_bytes, "memory of the cgroup");
        match (machine, limited) {
            (Some(m), Some(l)) => Some(if l.free < m.free { l } else { m }),
            (m, l) => m.or(l),
        }
    }

    /// Of a run with a limit of its own.
    pub(super) fn of_run(free: u64, limit: u64) -> Option<Self> {
        let percent = percent_used(free, limit)?;
        Some(Self { free, total: limit, percent, what: "[limits] memory of the run" })
    }

    /// `subject` is the run whose limit it is; empty: the machine.
    pub(super) fn judge(
        &self,
        board: &mut Board,
        spec: &HealthSpec,
        subject: &str,
        until: Option<(f64, f64)>,
    ) {
        let what = self.what;
        let free = alerts::bytes(to_f64(self.free));
        let out_in = until.map(|(s, _)| format!(", used up in {}", alerts::duration(s))).unwrap_or_default();
        let rule = Rule::percent(spec.memory_percent);
        board.judge(&Figure { name: "memory", subject, value: Some(self.percent), rule }, |trend| {
            let trend = alerts::byte_trend(trend / 100.0 * to_f64(self.total));
            let (used, limit) = (self.percent, spec.memory_percent);
            format!("{what} {used:.0} % used (limit {limit:.0} %), {trend}, {free} free{out_in}")
        });
        let limit = to_f64(spec.forecast_seconds);
        let value = until.map(|(seconds, _)| seconds);
        let figure = Figure { name: "out-of-memory-soon", subject, value, rule: Rule::seconds_left(limit) };
        board.judge(&figure, |_| {
            soon(&format!("{what} used up"), until, spec.forecast_seconds, &free, self.percent)
        });
    }
}

/// Stalls of memory and IO.
pub(super) fn pressure(board: &mut Board, spec: &HealthSpec, pressure: Option<&v1::Pressure>) {
    let Some(pressure) = pressure else { return };
    let limit = spec.pressure_percent;
    for (name, what, value) in
        [("pressure-memory", "memory", pressure.memory_some), ("pressure-io", "IO", pressure.io_some)]
    {
        board.judge(&Figure { name, subject: "", value: Some(value), rule: Rule::percent(limit) }, |trend| {
            let trend = alerts::trend(trend, "points");
            format!("programs wait for {what} {value:.0} % of the time (limit {limit:.0} %), {trend}")
        });
    }
}

/// Heat, throttling and memory errors of the GPUs. `corrected_before` are the
/// counts of corrected errors when each GPU was first seen.
pub(super) fn gpus(
    board: &mut Board,
    spec: &HealthSpec,
    gpus: &[v1::Gpu],
    before: &mut BTreeMap<String, u64>,
) {
    for gpu in gpus {
        let subject = format!("gpu{}", gpu.index);
        if let Some(value) = gpu.temperature_celsius {
            let limit = spec.gpu_celsius;
            let rule = Rule::degrees(limit);
            let figure = Figure { name: "gpu-temperature", subject: &subject, value: Some(value), rule };
            board.judge(&figure, |trend| {
                format!("{subject} at {value:.0} °C (limit {limit:.0} °C), {}", alerts::trend(trend, "°C"))
            });
        }
        throttle(board, gpu, &subject);
        ecc(board, gpu, &subject, before);
    }
}

fn throttle(board: &mut Board, gpu: &v1::Gpu, subject: &str) {
    let reasons: Vec<&str> =
        gpu.throttle.iter().map(String::as_str).filter(|r| HARDWARE_REASONS.contains(r)).collect();
    let value = Some(to_f64(u64::try_from(reasons.len()).unwrap_or(0)));
    board.judge(&Figure { name: "gpu-throttle", subject, value, rule: Rule::count() }, |trend| {
        let degrees = gpu.temperature_celsius.map(|t| format!(" at {t:.0} °C")).unwrap_or_default();
        let (count, names, trend) = (reasons.len(), reasons.join(", "), alerts::trend(trend, "reasons"));
        format!("{subject} slowed down{degrees}, reasons {count} (limit 1), {trend}: {names}")
    });
}

fn ecc(board: &mut Board, gpu: &v1::Gpu, subject: &str, before: &mut BTreeMap<String, u64>) {
    let Some(uncorrected) = gpu.ecc_uncorrected else { return };
    let corrected = gpu.ecc_corrected.map_or(0, |now| {
        let first = *before.entry(gpu.uuid.clone()).or_insert(now);
        now.saturating_sub(first)
    });
    let (value, what) = if uncorrected == 0 && corrected >= CORRECTED_MANY {
        (corrected, "corrected memory errors since the agent started")
    } else {
        (uncorrected, "uncorrected memory errors")
    };
    board.judge(
        &Figure { name: "gpu-ecc", subject, value: Some(to_f64(value)), rule: Rule::count() },
        |trend| format!("{subject}: {value} {what} (limit 1), {}", alerts::trend(trend, "errors")),
    );
}
