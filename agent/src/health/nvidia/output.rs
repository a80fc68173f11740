//! What `nvidia-smi --query-gpu` prints, from driver 450 to 610. Pure. Every
//! value may be a word instead of a number, every field may be unknown to this
//! driver, and any line may be a message: a GPU is a line with all its fields.

use proto::v1;

/// GPUs read from one answer.
const GPUS_MAX: usize = 128;
const NAME_MAX: usize = 96;
/// Longest message that is passed on.
const MESSAGE_MAX: usize = 160;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Index,
    Uuid,
    Driver,
    Pci,
    Utilization,
    MemoryTotal,
    MemoryUsed,
    Power,
    PowerLimit,
    Temperature,
    EccCorrected,
    EccUncorrected,
    Throttle,
    Name,
}

/// The columns in the order they are asked for, each with its names from the
/// oldest driver to the newest. The name of a GPU may hold a comma, so it is last.
const COLUMNS: [(Column, &[&str]); 14] = [
    (Column::Index, &["index"]),
    (Column::Uuid, &["uuid", "gpu_uuid"]),
    (Column::Driver, &["driver_version"]),
    (Column::Pci, &["pci.bus_id", "gpu_bus_id"]),
    (Column::Utilization, &["utilization.gpu"]),
    (Column::MemoryTotal, &["memory.total"]),
    (Column::MemoryUsed, &["memory.used"]),
    (Column::Power, &["power.draw", "power.draw.instant"]),
    (Column::PowerLimit, &["power.limit", "enforced.power.limit"]),
    (Column::Temperature, &["temperature.gpu"]),
    (Column::EccCorrected, &["ecc.errors.corrected.volatile.total"]),
    (Column::EccUncorrected, &["ecc.errors.uncorrected.volatile.total"]),
    // Drivers from 535 call them events; the old name is an alias there, so far.
    (Column::Throttle, &["clocks_throttle_reasons.active", "clocks_event_reasons.active"]),
    (Column::Name, &["name", "gpu_name"]),
];

/// Bits of the clock event reasons (nvml.h, `nvmlClocksEventReason...`). An idle
/// GPU is not slowed down by anything.
const REASONS: [(u64, &str); 8] = [
    (0x2, "application-clocks"),
    (0x4, "sw-power-cap"),
    (0x8, "hw-slowdown"),
    (0x10, "sync-boost"),
    (0x20, "sw-thermal"),
    (0x40, "hw-thermal"),
    (0x80, "hw-power-brake"),
    (0x100, "display-clocks"),
];

/// The reasons that heat or the power supply gives, not the program or its settings.
pub(in crate::health) const HARDWARE_REASONS: [&str; 4] =
    ["hw-slowdown", "sw-thermal", "hw-thermal", "hw-power-brake"];

/// One GPU in one answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub(super) gpu: v1::Gpu,
    /// PCI address as in `00000000:65:00.0`; empty where it is not told.
    pub(super) pci: String,
    /// Why nothing can be computed on it.
    pub(super) fault: Option<&'static str>,
}

/// Which fields are asked for: those that this driver knows.
#[derive(Debug, Clone)]
pub(super) struct Query {
    columns: Vec<(Column, &'static str, std::slice::Iter<'static, &'static str>)>,
}

impl Query {
    pub(super) fn new() -> Self {
        let columns = COLUMNS.iter().filter_map(|(column, names)| {
            let mut names = names.iter();
            Some((*column, *names.next()?, names))
        });
        Self { columns: columns.collect() }
    }

    pub(super) fn arguments(&self) -> [String; 2] {
        let fields: Vec<&str> = self.columns.iter().map(|(_, name, _)| *name).collect();
        [format!("--query-gpu={}", fields.join(",")), "--format=csv,noheader,nounits".to_owned()]
    }

    /// Where the driver does not know fields, asks for them by another name, or
    /// no longer. Tells whether to ask again.
    pub(super) fn refuse(&mut self, output: &str) -> bool {
        let unknown: Vec<&str> = output
            .lines()
            .take(64)
            .filter_map(|l| l.split_once("Field \"")?.1.split_once("\" is not a valid field"))
            .map(|(name, _)| name)
            .collect();
        let before = self.columns.len();
        let mut renamed = false;
        self.columns.retain_mut(|(_, name, others)| {
            if !unknown.contains(name) {
                return true;
            }
            let other = others.next();
            if let Some(other) = other {
                *name = other;
                renamed = true;
            }
            other.is_some()
        });
        (renamed || self.columns.len() < before) && !self.columns.is_empty()
    }

    /// The GPUs in an answer, by their index.
    pub(super) fn read(&self, output: &str) -> Vec<Reading> {
        let mut found: Vec<Reading> = Vec::new();
        for line in output.lines() {
            if found.len() >= GPUS_MAX {
                break;
            }
            if let Some(reading) = self.line(line)
                && !found.iter().any(|r| r.gpu.index == reading.gpu.index)
            {
                found.push(reading);
            }
        }
        found.sort_by_key(|r| r.gpu.index);
        found
    }

    fn line(&self, line: &str) -> Option<Reading> {
        let fields: Vec<&str> = line.splitn(self.columns.len(), ',').map(str::trim).collect();
        if fields.len() != self.columns.len() {
            return None;
        }
        let of = |wanted| {
            self.columns.iter().position(|(c, ..)| *c == wanted).and_then(|at| fields.get(at).copied())
        };
        let index: u32 = of(Column::Index)?.parse().ok().filter(|i| *i < 4096)?;
        let word = |column| of(column).filter(|w| !is_placeholder(w)).map(short).unwrap_or_default();
        let mib = |column| of(column).and_then(whole).and_then(|m| m.checked_mul(1 << 20));
        Some(Reading {
            fault: fields.iter().find_map(|f| fault(f)),
            pci: word(Column::Pci),
            gpu: v1::Gpu {
                index,
                uuid: word(Column::Uuid),
                name: word(Column::Name),
                driver: word(Column::Driver),
                utilization_percent: of(Column::Utilization).and_then(number).filter(|u| *u <= 100.0),
                memory_total_bytes: mib(Column::MemoryTotal),
                memory_used_bytes: mib(Column::MemoryUsed),
                power_watts: of(Column::Power).and_then(number),
                power_limit_watts: of(Column::PowerLimit).and_then(number),
                temperature_celsius: of(Column::Temperature).and_then(number).filter(|t| *t < 300.0),
                throttle: of(Column::Throttle).map(reasons).unwrap_or_default(),
                ecc_corrected: of(Column::EccCorrected).and_then(whole),
                ecc_uncorrected: of(Column::EccUncorrected).and_then(whole),
                xids: Vec::new(),
            },
        })
    }
}

/// `[N/A]`, `[Not Supported]`, `[Unknown Error]`, `ERR!`, ...
fn is_placeholder(value: &str) -> bool {
    value.is_empty() || value.starts_with('[') || value.contains("N/A") || value.contains("ERR!")
}

fn fault(value: &str) -> Option<&'static str> {
    let value = value.strip_prefix('[')?.to_ascii_lowercase();
    if value.contains("requires reset") {
        Some("it requires a reset")
    } else if value.contains("is lost") {
        Some("it has fallen off the bus")
    } else {
        None
    }
}

/// A value without its unit, in case `nounits` is not honoured.
fn bare(value: &str) -> Option<&str> {
    value.split_ascii_whitespace().next()
}

fn number(value: &str) -> Option<f64> {
    bare(value)?.parse().ok().filter(|n: &f64| (0.0..1e6).contains(n))
}

fn whole(value: &str) -> Option<u64> {
    bare(value)?.parse().ok()
}

fn short(value: &str) -> String {
    value.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
}

fn reasons(value: &str) -> Vec<String> {
    let bits = value.strip_prefix("0x").and_then(|v| u64::from_str_radix(v, 16).ok()).unwrap_or(0);
    REASONS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
}

/// Whether the tool itself says that a GPU is gone.
pub(super) fn lost(output: &str) -> Option<String> {
    let is_gone = |l: &&str| l.contains("GPU is lost") || l.contains("Unable to determine the device handle");
    output.lines().take(256).find(is_gone).map(message)
}

/// Why an answer holds no GPU; empty where there simply is none.
pub(super) fn failure(code: Option<i32>, output: &str) -> String {
    let first = output.lines().map(str::trim).find(|l| !l.is_empty()).map(message).unwrap_or_default();
    match code {
        // Return values as in nvidia-smi(1); messages go to standard output.
        _ if first.contains("No devices were found") => String::new(),
        Some(0) => {
            format!("nvidia-smi printed no GPU: {}", if first.is_empty() { "nothing" } else { &first })
        }
        Some(code) => format!("nvidia-smi ended with {code}: {first}"),
        None => format!("nvidia-smi was killed: {first}"),
    }
}

fn message(line: &str) -> String {
    line.trim().chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect()
}

#[cfg(test)]
mod tests;
