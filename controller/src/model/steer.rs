//! What refusals, hosts and failures taught about a run's next machine. It is
//! part of the run's row: after a restart the same is known.

use lifecycle::MachineId;
use lifecycle::question::{Refusals, Trouble};
use lifecycle::retry::{self, Remedy};
use lifecycle::spec::MachineSpec;
use serde::{Deserialize, Serialize};

/// Hosts of machines that are remembered, and hosts that are avoided.
const HOSTS: usize = 16;
const AVOIDED: usize = 32;
/// A host is given another chance after this.
const AVOID_MS: u64 = 24 * 3_600_000;
const WORDS: usize = 200;

/// A host on which the run is not tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Avoid {
    /// As the provider numbers it.
    pub host: String,
    /// Why.
    pub why: String,
    /// Unix milliseconds until when.
    pub until_ms: u64,
}

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Steer {
    /// The provider's refusals in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusals: Option<Refusals>,
    /// On which hosts its newest machines lie.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<(MachineId, String)>,
    /// Where none is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<Avoid>,
    /// What is asked for instead of what its description says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub larger: Option<MachineSpec>,
    /// How often a larger one was asked for.
    #[serde(default)]
    pub enlarged: u32,
}

impl Steer {
    /// Whether nothing was learned yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The provider refused.
    pub fn refused(&mut self, trouble: Trouble, reason: &str, not_before_ms: u64, now_ms: u64) {
        self.refusals = Some(Refusals::and(self.refusals.take(), trouble, reason, not_before_ms, now_ms));
    }

    /// A machine lies on this host.
    pub fn note_host(&mut self, machine: MachineId, host: &str) {
        self.hosts.retain(|(id, _)| *id != machine);
        self.hosts.push((machine, host.chars().take(WORDS).collect()));
        let surplus = self.hosts.len().saturating_sub(HOSTS);
        self.hosts.drain(..surplus);
    }

    /// No further machine on the host of this one. `None`: its host is not known.
    pub fn avoid(&mut self, machine: MachineId, why: &str, now_ms: u64) -> Option<String> {
        let host = self.hosts.iter().find(|(id, _)| *id == machine).map(|(_, host)| host.clone())?;
        self.avoid.retain(|avoided| avoided.host != host && avoided.until_ms > now_ms);
        let why = why.chars().take(WORDS).collect();
        self.avoid.push(Avoid { host: host.clone(), why, until_ms: now_ms + AVOID_MS });
        let surplus = self.avoid.len().saturating_sub(AVOIDED);
        self.avoid.drain(..surplus);
        Some(host)
    }

    /// The hosts that are avoided now.
    #[must_use]
    pub fn avoided(&self, now_ms: u64) -> Vec<String> {
        self.avoid.iter().filter(|a| a.until_ms > now_ms).map(|a| a.host.clone()).collect()
    }

    /// The next machine is to be larger; says how, where that is possible.
    pub fn enlarge(&mut self, spec: &MachineSpec, remedy: Remedy) -> Option<String> {
        if self.enlarged >= retry::ENLARGED_MOST {
            return None;
        }
        let (next, said) = retry::enlarged(self.machine(spec), remedy)?;
        self.larger = Some(next);
        self.enlarged += 1;
        Some(said)
    }

    /// What is asked of the next machine.
    #[must_use]
    pub fn machine<'s>(&'s self, spec: &'s MachineSpec) -> &'s MachineSpec {
        self.larger.as_ref().unwrap_or(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(n: u8) -> MachineId {
        MachineId::from_bytes([n; 16])
    }

    #[test]
    fn a_host_that_failed_is_avoided_for_a_day_and_no_list_grows_for_ever() {
        let mut steer = Steer::default();
        assert_eq!(steer.avoid(machine(1), "never joined", 5), None, "its host is not known");
        for n in 0..100 {
            steer.note_host(machine(n), &format!("h{}", n % 50));
            steer.avoid(machine(n), "never joined", u64::from(n));
        }
        assert_eq!((steer.hosts.len(), steer.avoid.len()), (HOSTS, AVOIDED));
        let now = steer.avoided(100);
        assert!(now.contains(&"h49".to_owned()) && now.len() == AVOIDED, "{now:?}");
        assert!(steer.avoided(100 + AVOID_MS).is_empty());
        let read: Steer = serde_json::from_str(&serde_json::to_string(&steer).unwrap()).unwrap();
        assert_eq!(read, steer);
    }

    #[test]
    fn each_time_that_it_does_not_fit_twice_as_much_is_asked_for_until_that_is_enough() {
        let (mut steer, spec) = (Steer::default(), MachineSpec::default());
        assert_eq!(steer.enlarge(&spec, Remedy::Disk).as_deref(), Some("80 GB of disk or more"));
        assert_eq!(steer.enlarge(&spec, Remedy::Memory).as_deref(), Some("32 GB of memory or more"));
        assert_eq!(steer.enlarge(&spec, Remedy::Disk), None);
        let next = steer.machine(&spec);
        assert_eq!((next.disk_bytes, next.memory_bytes), (80_000_000_000, 32_000_000_000));
    }
}
