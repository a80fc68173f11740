//! NVIDIA GPUs through `nvidia-smi`: a static program cannot load NVML. Reads
//! what several driver generations print, follows the tool from sample to sample
//! without ever waiting for it, and decides when a GPU is lost.

mod output;
mod tool;

use proto::v1;

pub(super) use self::output::HARDWARE_REASONS;
use self::output::{Query, Reading};
use self::tool::{Step, Tool};
use super::xid::{self, Remedy, Xid};

/// The tool is not asked more often: each question costs it tens of milliseconds
/// of processor time, however often the rest is sampled.
const EVERY_MS: u64 = 5_000;
/// Questions without an answer before the GPUs count as lost.
const MISSES: u32 = 2;
/// Errors remembered per machine.
const XIDS_MAX: usize = 256;
/// GPUs remembered; a tool that makes new ones up must not fill the memory.
const SEEN_MAX: usize = 256;

/// A GPU that was there once.
#[derive(Debug)]
struct Seen {
    index: u32,
    uuid: String,
    pci: String,
    /// Answers in a row that it was missing from.
    missing: u32,
}

/// What the GPU tool told, and what follows from it.
#[derive(Debug)]
pub(super) struct Nvidia {
    tool: Tool,
    query: Query,
    asked_ms: Option<u64>,
    every_ms: u64,
    readings: Vec<Reading>,
    seen: Vec<Seen>,
    misses: u32,
    xids: Vec<Xid>,
    problem: String,
    lost: Option<String>,
    is_fresh: bool,
}

impl Nvidia {
    pub(super) fn new() -> Self {
        Self::with_tool(Tool::found(), EVERY_MS)
    }

    fn with_tool(tool: Tool, every_ms: u64) -> Self {
        Self {
            tool,
            query: Query::new(),
            asked_ms: None,
            every_ms,
            readings: Vec::new(),
            seen: Vec::new(),
            misses: 0,
            xids: Vec::new(),
            problem: String::new(),
            lost: None,
            is_fresh: false,
        }
    }

    /// Takes what the tool has said since the last sample and asks it again.
    pub(super) fn sample(&mut self, now_ms: u64) {
        self.is_fresh = false;
        match self.tool.poll(now_ms) {
            Step::Nothing => {}
            Step::Missed(why) => self.missed(why),
            Step::Finished { code, output } => {
                if self.query.refuse(&output) {
                    self.asked_ms = None;
                } else {
                    self.finished(code, &output);
                }
            }
        }
        // Half a second of tolerance: samples are not taken to the millisecond.
        let is_due =
            self.asked_ms.is_none_or(|at| now_ms.saturating_sub(at).saturating_add(500) >= self.every_ms);
        if is_due && self.tool.is_idle() {
            match self.tool.start(now_ms, &self.query.arguments()) {
                Ok(started) => self.asked_ms = started.then_some(now_ms),
                Err(e) => self.problem = format!("nvidia-smi cannot be started: {e}"),
            }
        }
    }

    fn missed(&mut self, why: &str) {
        self.misses = self.misses.saturating_add(1);
        if self.misses >= MISSES {
            self.readings.clear();
            "nvidia-smi hangs".clone_into(&mut self.problem);
            self.lost = Some(format!("GPU lost: nvidia-smi {why}, {} times in a row", self.misses));
        }
    }

    fn finished(&mut self, code: Option<i32>, output: &str) {
        let readings = if code == Some(0) { self.query.read(output) } else { Vec::new() };
        self.misses = 0;
        self.is_fresh = true;
        self.note_seen(&readings);
        self.problem = if readings.is_empty() { output::failure(code, output) } else { String::new() };
        self.lost = output::lost(output)
            .or_else(|| {
                let gone = self.seen.iter().find(|s| s.missing >= MISSES)?;
                Some(format!("gpu{} ({}) is no longer there", gone.index, gone.uuid))
            })
            .or_else(|| readings.iter().find_map(|r| Some(format!("gpu{}: {}", r.gpu.index, r.fault?))))
            .map(|why| format!("GPU lost: {why}"));
        self.readings = readings;
    }

    fn note_seen(&mut self, readings: &[Reading]) {
        for seen in &mut self.seen {
            let is_there = readings.iter().any(|r| r.gpu.uuid == seen.uuid);
            seen.missing = if is_there { 0 } else { seen.missing.saturating_add(1) };
        }
        for r in readings {
            let is_known = self.seen.iter().any(|s| s.uuid == r.gpu.uuid);
            if !is_known && self.seen.len() < SEEN_MAX {
                let (index, uuid, pci) = (r.gpu.index, r.gpu.uuid.clone(), r.pci.clone());
                self.seen.push(Seen { index, uuid, pci, missing: 0 });
            }
        }
    }

    /// Takes errors from the kernel's log; gives back those that are new for
    /// their GPU, with the GPU's name.
    pub(super) fn take_xids(&mut self, xids: Vec<Xid>) -> Vec<(String, Xid)> {
        let mut new = Vec::new();
        for xid in xids {
            let is_known =
                self.xids.iter().any(|x| x.number == xid.number && xid::is_same_device(&x.pci, &xid.pci));
            if !is_known && self.xids.len() < XIDS_MAX {
                new.push((self.subject(&xid.pci), xid.clone()));
                self.xids.push(xid);
            }
        }
        new
    }

    fn subject(&self, pci: &str) -> String {
        let seen = self.seen.iter().find(|s| xid::is_same_device(&s.pci, pci));
        seen.map_or_else(|| format!("PCI {pci}"), |s| format!("gpu{}", s.index))
    }

    /// The GPUs as they were last seen.
    pub(super) fn gpus(&self) -> Vec<v1::Gpu> {
        let with_xids = |r: &Reading| {
            let mut gpu = r.gpu.clone();
            gpu.xids =
                self.xids.iter().filter(|x| xid::is_same_device(&x.pci, &r.pci)).map(|x| x.number).collect();
            gpu
        };
        self.readings.iter().map(with_xids).collect()
    }

    /// Whether the figures are new in this sample.
    pub(super) fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// Whether there is, or was, an NVIDIA GPU or its tool.
    pub(super) fn is_present(&self) -> bool {
        self.tool.is_there()
    }

    /// Why there are no figures; empty where there are, or where no GPU is.
    pub(super) fn problem(&self) -> &str {
        &self.problem
    }

    /// Why a GPU of this machine cannot be used any more.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The error of the GPU that asks to leave the machine.
    pub(super) fn leave(&self) -> Option<String> {
        if let Some(lost) = &self.lost {
            return Some(lost.clone());
        }
        let xid = self.xids.iter().find(|x| x.remedy == Remedy::LeaveMachine)?;
        Some(format!("Xid {} on {}: {}", xid.number, self.subject(&xid.pci), xid.text))
    }

    /// Processes of the tool that could not be ended.
    pub(super) fn abandoned(&self) -> u32 {
        self.tool.abandoned()
    }
}

#[cfg(test)]
mod tests;
