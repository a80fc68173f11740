//! The memory limits of the programs themselves: a run with `[limits] memory`
//! ends at its own limit, long before the machine's memory is short. Only what
//! its cgroup counts is believed: resident sizes count shared pages many times.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle::spec::HealthSpec;
use proto::v1;

use super::alerts::Board;
use super::forecast::Series;
use super::judge::Memory;
use super::proc::{LimitedMemory, MemoryLimit, Source, to_f64};
use super::swing::Swing;

/// Programs looked at; a machine has a few.
const MOST: usize = 16;

/// One program.
#[derive(Debug)]
struct Program {
    pid: i32,
    limit: Option<MemoryLimit>,
    left: Series,
    swing: Swing,
}

/// The programs that run now, by the names of their runs.
#[derive(Debug)]
pub(super) struct Programs {
    proc: PathBuf,
    cgroups: PathBuf,
    known: BTreeMap<String, Program>,
}

impl Programs {
    /// `root` is `/`.
    pub(super) fn below(root: &Path) -> Self {
        Self { proc: root.join("proc"), cgroups: root.join("sys/fs/cgroup"), known: BTreeMap::new() }
    }

    /// Which run now, each with its process. One that was known keeps what is
    /// known of it.
    pub(super) fn set(&mut self, programs: Vec<(String, i32)>) {
        let mut before = std::mem::take(&mut self.known);
        for (run, pid) in programs.into_iter().take(MOST) {
            let kept = before.remove(&run).filter(|program| program.pid == pid);
            let program = kept.unwrap_or_else(|| Program {
                pid,
                limit: self.limit_of(pid),
                left: Series::default(),
                swing: Swing::default(),
            });
            self.known.insert(run, program);
        }
    }

    fn limit_of(&self, pid: i32) -> Option<MemoryLimit> {
        let mut buffer = Vec::new();
        let own =
            Source::new(self.proc.join(pid.to_string()).join("cgroup")).read(&mut buffer).ok()?.into_owned();
        MemoryLimit::find(&self.cgroups, &own)
    }

    /// Alerts, and when a limit will be reached. A limit that is the machine's
    /// own is told for the machine.
    pub(super) fn judge(
        &mut self,
        board: &mut Board,
        spec: &HealthSpec,
        sample: &v1::MachineSample,
        buffer: &mut Vec<u8>,
    ) -> Vec<v1::Forecast> {
        let mut forecasts = Vec::new();
        for (run, program) in &mut self.known {
            let Some(LimitedMemory { limit, used }) = program.limit.as_mut().and_then(|l| l.read(buffer))
            else {
                continue;
            };
            let of_machine = limit == sample.memory_limit_bytes;
            if of_machine || (sample.memory_total_bytes > 0 && limit >= sample.memory_total_bytes) {
                continue;
            }
            let Some(memory) = Memory::of_run(limit.saturating_sub(used), limit) else { continue };
            program.left.push(sample.boottime_ms, to_f64(memory.free));
            program.swing.push(sample.boottime_ms, to_f64(memory.free), to_f64(limit));
            let until = program.left.until_zero().filter(|_| program.swing.is_news());
            memory.judge(board, spec, run, until);
            forecasts.extend(until.map(|(in_seconds, slope_per_s)| v1::Forecast {
                what: format!("out-of-memory {run}"),
                in_seconds,
                slope_per_s,
            }));
        }
        forecasts
    }
}
