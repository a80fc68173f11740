//! What machines last said of their health, in memory: the newest report and a
//! bounded history of samples each. Lost with the process on purpose: the
//! machines say it again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lifecycle::MachineId;
use proto::v1;

/// Samples kept of each machine; an hour and more at the usual interval.
pub const HISTORY: usize = 600;
/// Mounts, GPUs, attempts and alerts kept of one report: more is no machine.
const MOST: usize = 64;

#[derive(Debug, Default)]
struct Told {
    report: Option<(u64, v1::HealthReport)>,
    history: VecDeque<v1::MachineSample>,
    endpoint: String,
    upgraded: Option<v1::UpgradeOutcome>,
    /// Asked for, and not handed to the machine yet.
    upgrade: Option<v1::Upgrade>,
    version: String,
}

/// What was said by all machines.
#[derive(Debug, Default)]
pub struct Reports(Mutex<BTreeMap<MachineId, Told>>);

impl Reports {
    fn all(&self) -> MutexGuard<'_, BTreeMap<MachineId, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine said how it is, at this moment of the controller's clock.
    pub fn said(&self, machine: MachineId, now_ms: u64, mut report: v1::HealthReport) {
        report.attempts.truncate(MOST);
        report.alerts.truncate(MOST);
        report.forecasts.truncate(MOST);
        if let Some(sample) = &mut report.sample {
            sample.mounts.truncate(MOST);
            sample.gpus.truncate(MOST);
            sample.unreadable.truncate(MOST);
        }
        let mut all = self.all();
        let told = all.entry(machine).or_default();
        if let Some(sample) = &report.sample
            && told.history.back().is_none_or(|last| last.boottime_ms != sample.boottime_ms)
        {
            if told.history.len() >= HISTORY {
                told.history.pop_front();
            }
            told.history.push_back(sample.clone());
        }
        told.report = Some((now_ms, report));
    }

    /// How often the program of an attempt saves, as its machine says.
    #[must_use]
    pub fn saves(&self, machine: MachineId, attempt: &str) -> Option<v1::SaveHealth> {
        let all = self.all();
        let report = &all.get(&machine)?.report.as_ref()?.1;
        report.attempts.iter().find(|told| told.attempt_id == attempt)?.saves
    }

    /// Bytes that a machine has sent and received since its boot, as it says.
    #[must_use]
    pub fn traffic(&self, machine: MachineId) -> Option<(u64, u64)> {
        let all = self.all();
        let sample = all.get(&machine)?.report.as_ref()?.1.sample.as_ref()?;
        sample.net_sent_bytes.zip(sample.net_received_bytes)
    }

    /// How many GPUs a machine has and the least memory of one, as it says;
    /// `None`: it says nothing of any.
    #[must_use]
    pub fn gpus(&self, machine: MachineId) -> Option<(usize, u64)> {
        let all = self.all();
        let sample = all.get(&machine)?.report.as_ref()?.1.sample.as_ref()?;
        let least = sample.gpus.iter().filter_map(|gpu| gpu.memory_total_bytes).min();
        Some((sample.gpus.len(), least.unwrap_or(u64::MAX))).filter(|(count, _)| *count > 0)
    }

    /// Where the machine says that it can be asked itself. What is no address
    /// with a port is not kept: people's tools will connect to it.
    pub fn answers_at(&self, machine: MachineId, endpoint: &str) {
        let address = endpoint.parse::<std::net::SocketAddr>().ok();
        let endpoint = address.filter(|at| at.port() > 0 && !at.ip().is_unspecified());
        let mut all = self.all();
        all.entry(machine).or_default().endpoint = endpoint.map_or_else(String::new, |at| at.to_string());
    }

    /// As `answers_at` was told last; empty: nowhere.
    #[must_use]
    pub fn endpoint(&self, machine: MachineId) -> String {
        self.all().get(&machine).map_or_else(String::new, |told| told.endpoint.clone())
    }

    /// Which version of the agent connected.
    pub fn connected(&self, machine: MachineId, version: &str) {
        self.all().entry(machine).or_default().version = version.chars().take(64).collect();
    }

    /// As `connected` was told last; empty: not heard since the controller
    /// started.
    #[must_use]
    pub fn version(&self, machine: MachineId) -> String {
        self.all().get(&machine).map_or_else(String::new, |told| told.version.clone())
    }

    /// An upgrade is wanted; what was said of earlier ones is void.
    pub fn ask_upgrade(&self, machine: MachineId, upgrade: v1::Upgrade) {
        let mut all = self.all();
        let told = all.entry(machine).or_default();
        told.upgraded = None;
        told.upgrade = Some(upgrade);
    }

    /// The upgrade that is to be handed to the machine, once.
    pub fn take_upgrade(&self, machine: MachineId) -> Option<v1::Upgrade> {
        self.all().get_mut(&machine)?.upgrade.take()
    }

    /// Whether an upgrade was asked for that the machine was not handed yet.
    #[must_use]
    pub fn upgrade_waits(&self, machine: MachineId) -> bool {
        self.all().get(&machine).is_some_and(|told| told.upgrade.is_some())
    }

    /// How an upgrade went.
    pub fn upgraded(&self, machine: MachineId, outcome: v1::UpgradeOutcome) {
        self.all().entry(machine).or_default().upgraded = Some(outcome);
    }

    /// How the newest upgrade of a machine went, once it said so.
    #[must_use]
    pub fn upgrade_outcome(&self, machine: MachineId) -> Option<v1::UpgradeOutcome> {
        self.all().get(&machine)?.upgraded.clone()
    }

    /// The newest report with its time, and the last `history` samples, oldest
    /// first.
    #[must_use]
    pub fn of(
        &self,
        machine: MachineId,
        history: usize,
    ) -> Option<(u64, v1::HealthReport, Vec<v1::MachineSample>)> {
        let all = self.all();
        let told = all.get(&machine)?;
        let (at, report) = told.report.clone()?;
        let skip = told.history.len().saturating_sub(history);
        Some((at, report, told.history.iter().skip(skip).cloned().collect()))
    }

    /// The machine is gone for good.
    pub fn forget(&self, machine: MachineId) {
        self.all().remove(&machine);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_bounded_and_holds_each_sample_once() {
        let reports = Reports::default();
        let machine = MachineId::from_bytes([7; 16]);
        for n in 0..(HISTORY as u64 + 5) {
            let sample = v1::MachineSample { boottime_ms: n, ..Default::default() };
            for _ in 0..2 {
                let report = v1::HealthReport { sample: Some(sample.clone()), ..Default::default() };
                reports.said(machine, n, report);
            }
        }
        let (at, _, history) = reports.of(machine, 1_000).unwrap();
        assert_eq!((at, history.len()), (HISTORY as u64 + 4, HISTORY));
        assert_eq!(history.first().unwrap().boottime_ms, 5);
        assert_eq!(reports.of(machine, 2).unwrap().2.len(), 2);
        reports.forget(machine);
        assert!(reports.of(machine, 1).is_none());
    }

    #[test]
    fn only_an_address_is_kept_as_an_endpoint() {
        let reports = Reports::default();
        let machine = MachineId::from_bytes([7; 16]);
        for (told, kept) in [
            ("127.0.0.1:4000", "127.0.0.1:4000"),
            ("[::1]:4000", "[::1]:4000"),
            ("0.0.0.0:4000", ""),
            ("127.0.0.1:0", ""),
            ("evil.example:22", ""),
            ("127.0.0.1:4000\u{1b}[2J", ""),
            ("", ""),
        ] {
            reports.answers_at(machine, told);
            assert_eq!(reports.endpoint(machine), kept, "{told:?}");
        }
    }
}
