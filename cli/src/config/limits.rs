//! `[limits]`: what the program may use at most.

use lifecycle::spec::LimitSpec;
use serde_json::{Value as Json, json};

use super::field::{Field, assign};
use super::quantity::write_size;
use super::section::Section;

/// A program in less memory than this does not even start.
const LEAST_MEMORY: u64 = 4 << 20;
/// Fewer processes than an interpreter with a helper needs.
const LEAST_PIDS: u32 = 2;
/// Fewer files than a dynamic loader and an interpreter need.
const LEAST_FILES: u32 = 64;

/// The bounds; `None` is no bound of ours.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// Bytes of memory of the whole tree of processes.
    pub memory: Option<u64>,
    /// Processors, fractions allowed.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Open files of each process.
    pub open_files: Option<u32>,
}

impl Limits {
    /// As a run is asked to obey them.
    pub(super) fn spec(&self) -> LimitSpec {
        LimitSpec {
            memory_bytes: self.memory,
            cpus: self.cpus,
            pids: self.pids.map(u64::from),
            open_files: self.open_files.map(u64::from),
        }
    }

    /// The inverse of [`Limits::spec`].
    pub(super) fn of(spec: &LimitSpec) -> Self {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            memory: spec.memory_bytes,
            cpus: spec.cpus,
            pids: spec.pids.map(small),
            open_files: spec.open_files.map(small),
        }
    }

    fn cpus(field: &mut Field<'_>) -> Option<f64> {
        let cpus = field.number("4")?;
        if (0.01..=65_536.0).contains(&cpus) {
            return Some(cpus);
        }
        field
            .refuse("must be from 0.01 to 65536", "for example: cpus = 4, or cpus = 0.5 for half a processor")
    }
}

impl Section for Limits {
    fn keys(&self) -> &'static [&'static str] {
        &["memory", "cpus", "pids", "open_files"]
    }

    fn set(&mut self, key: &str, field: &mut Field<'_>) {
        match key {
            "memory" => assign(&mut self.memory, field.size(LEAST_MEMORY, "\"32GiB\"").map(Some)),
            "cpus" => assign(&mut self.cpus, Self::cpus(field).map(Some)),
            "pids" => assign(&mut self.pids, field.count(LEAST_PIDS, "4096").map(Some)),
            "open_files" => assign(&mut self.open_files, field.count(LEAST_FILES, "65536").map(Some)),
            _ => {}
        }
    }

    fn get(&self, key: &str) -> Json {
        match key {
            "memory" => self.memory.map_or(Json::Null, |bytes| json!(write_size(bytes))),
            "cpus" => json!(self.cpus),
            "pids" => json!(self.pids),
            _ => json!(self.open_files),
        }
    }
}
