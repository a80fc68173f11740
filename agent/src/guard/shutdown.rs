//! Whether this machine is ending, or only its guard: on the first the agent
//! says farewell and saves what it can, on the second trainings go on and
//! nobody is told. It never asks longer than two seconds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::os::{self, ProcessRef};

/// What the agent finds, below the state directory, when it is ended because
/// the machine ends.
const FAREWELL_FILE: &str = "farewell.json";
/// For tests and for providers that announce an end: while the file that it
/// names exists, the machine is ending; where it says `preempted`, so.
pub(super) const SIGN: &str = "OUTLAST_SHUTDOWN_SIGN";
/// How long the agent may take, in milliseconds.
pub(super) const GRACE: &str = "OUTLAST_SHUTDOWN_GRACE_MS";
/// Every process of a local machine carries it: such a machine is no container.
const LOCAL: &str = "OUTLAST_MACHINE_ID";
/// Below the `TimeoutStopSec=` of the unit in packaging/.
const SYSTEM_GRACE: Duration = Duration::from_secs(25);
/// Below the ten seconds that container engines grant.
const CONTAINER_GRACE: Duration = Duration::from_secs(8);
/// Below the thirty seconds that clusters grant.
const CLUSTER_GRACE: Duration = Duration::from_secs(25);
const ASK: Duration = Duration::from_secs(2);
/// How the reason of a farewell begins where somebody else takes the machine.
pub const PREEMPTED: &str = "preempted";
/// Of whom SIGTERM is a notice: a variable that everything there has, and what
/// is told.
const CLUSTERS: [(&str, &str); 2] = [
    ("KUBERNETES_SERVICE_HOST", "preempted (SIGTERM from Kubernetes)"),
    ("SLURM_JOB_ID", "preempted (SIGTERM from Slurm)"),
];

/// What the agent is told of the machine's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// "shutdown", "reboot", "container-stop", or what begins with "preempted".
    pub reason: String,
    /// Until when the agent is let live, in milliseconds.
    pub grace_ms: u64,
    /// Who says so; of a guard that is gone the word is void.
    guard: ProcessRef,
}

impl Farewell {
    /// What the guard of this state directory says, if it says it now.
    #[must_use]
    pub fn read(state: &Path) -> Option<Self> {
        let bytes = os::read_bounded(&state.join(FAREWELL_FILE), 4096).ok()?;
        serde_json::from_slice::<Self>(&bytes).ok().filter(|said| said.guard.is_alive())
    }
}

/// What is known of the machine when its guard is told to end.
#[derive(Debug, Default)]
struct Seen {
    /// The injected sign; `None`: there is none.
    injected: Option<bool>,
    /// What `systemctl is-system-running` said.
    system: Option<String>,
    /// The service manager is on its way to a new boot.
    reboots: bool,
    /// A shutdown is scheduled and logins are refused.
    scheduled: bool,
    /// The guard is the first process of its container, or its child.
    container: bool,
    /// It runs in a cluster that ends it by SIGTERM, in words.
    cluster: Option<&'static str>,
}

fn reason(seen: &Seen) -> Option<(&'static str, Duration)> {
    match seen {
        Seen { injected: Some(false), .. } => None,
        Seen { injected: Some(true), cluster, .. } => Some((cluster.unwrap_or("shutdown"), SYSTEM_GRACE)),
        Seen { system: Some(system), reboots, .. } if system == "stopping" => {
            Some((if *reboots { "reboot" } else { "shutdown" }, SYSTEM_GRACE))
        }
        Seen { scheduled: true, .. } => Some(("shutdown", SYSTEM_GRACE)),
        Seen { cluster: Some(by), .. } => Some((by, CLUSTER_GRACE)),
        Seen { container: true, .. } => Some(("container-stop", CONTAINER_GRACE)),
        Seen { .. } => None,
    }
}

/// What must be remembered from the guard's start: later, an orphan looks like
/// the child of a container's first process.
#[derive(Debug)]
pub(super) struct Place {
    state: PathBuf,
    container: bool,
    cluster: Option<&'static str>,
}

impl Place {
    pub(super) fn look(state: &Path) -> Self {
        let own = std::process::id();
        let parent = os::process(own.cast_signed()).map_or(0, |p| p.parent);
        let contained = ["/.dockerenv", "/run/.containerenv"].iter().any(|p| Path::new(p).exists())
            || std::env::var_os("container").is_some();
        let local = std::env::var_os(LOCAL).is_some();
        // Word of an earlier guard.
        let _ = std::fs::remove_file(state.join(FAREWELL_FILE));
        let container = !local && (own == 1 || (parent == 1 && contained));
        // A machine that is a directory ends by its provider's hand.
        let of = CLUSTERS.iter().find(|(variable, _)| !local && std::env::var_os(variable).is_some());
        Self { state: state.to_owned(), container, cluster: of.map(|(_, told)| *told) }
    }

    /// Leaves word for the agent if the machine is ending, and says how long
    /// the agent may take.
    pub(super) fn farewell(&self) -> Option<Duration> {
        let (why, usual) = reason(&self.seen())?;
        let set = std::env::var(GRACE).ok().and_then(|text| text.parse().ok()).map(Duration::from_millis);
        let grace = set.unwrap_or(usual);
        let said = Farewell {
            reason: why.to_owned(),
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            guard: ProcessRef::own()?,
        };
        let text = serde_json::to_vec(&said).ok()?;
        tracing::info!(reason = why, "the machine is ending");
        match os::write_durable(&self.state.join(FAREWELL_FILE), &text) {
            Ok(()) => Some(grace),
            Err(error) => {
                tracing::warn!(%error, "the agent cannot be told that the machine ends");
                None
            }
        }
    }

    fn seen(&self) -> Seen {
        if let Some(sign) = std::env::var_os(SIGN) {
            let said = os::read_bounded(Path::new(&sign), 64).ok();
            let preempted = said.as_ref().is_some_and(|said| said.trim_ascii() == PREEMPTED.as_bytes());
            let cluster = preempted.then_some(PREEMPTED);
            return Seen { injected: Some(said.is_some()), cluster, ..Seen::default() };
        }
        let systemd = Path::new("/run/systemd/system").exists();
        let system = systemd.then(|| ask_systemctl(&["is-system-running"])).flatten();
        let stopping = system.as_deref() == Some("stopping");
        let jobs = stopping.then(|| ask_systemctl(&["list-jobs", "--no-legend", "--plain"])).flatten();
        let both = ["/run/nologin", "/run/systemd/shutdown/scheduled"].iter().all(|p| Path::new(p).exists());
        Seen {
            injected: None,
            system,
            reboots: jobs.is_some_and(|jobs| jobs.contains("reboot.target")),
            scheduled: systemd && both,
            container: self.container,
            cluster: self.cluster,
        }
    }
}

/// What the service manager answers; at most a few kilobytes of it.
fn ask_systemctl(words: &[&str]) -> Option<String> {
    let mut asked = Command::new("systemctl")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let until = Instant::now() + ASK;
    while matches!(asked.try_wait(), Ok(None)) {
        if Instant::now() >= until {
            let _ = asked.kill();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut word = String::new();
    let out = asked.stdout.take()?;
    std::io::Read::read_to_string(&mut std::io::Read::take(out, 16 << 10), &mut word).ok()?;
    Some(word.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_evidence_makes_an_end_of_the_machine() {
        let system = |word: &str| Seen { system: Some(word.into()), ..Seen::default() };
        let table = [
            (Seen::default(), None),
            (system("running"), None),
            (system("degraded"), None),
            (system("stopping"), Some("shutdown")),
            (Seen { reboots: true, ..system("stopping") }, Some("reboot")),
            (Seen { reboots: true, ..system("running") }, None),
            (Seen { scheduled: true, ..system("running") }, Some("shutdown")),
            (Seen { container: true, ..Seen::default() }, Some("container-stop")),
            (Seen { cluster: Some("preempted"), container: true, ..Seen::default() }, Some("preempted")),
            (Seen { cluster: Some("preempted"), ..system("stopping") }, Some("shutdown")),
            (Seen { injected: Some(true), ..Seen::default() }, Some("shutdown")),
            (Seen { injected: Some(false), container: true, ..system("stopping") }, None),
        ];
        for (seen, expected) in table {
            assert_eq!(reason(&seen).map(|(why, _)| why), expected, "{seen:?}");
        }
    }

    #[test]
    fn the_word_of_a_guard_that_is_gone_is_void() {
        let dir = tempfile::tempdir().unwrap();
        let mut said = Farewell { reason: "shutdown".into(), grace_ms: 5, guard: ProcessRef::own().unwrap() };
        let write = |said: &Farewell| {
            std::fs::write(dir.path().join(FAREWELL_FILE), serde_json::to_vec(said).unwrap()).unwrap();
        };
        write(&said);
        assert_eq!(Farewell::read(dir.path()).as_ref(), Some(&said));
        said.guard.start_time += 1;
        write(&said);
        assert_eq!(Farewell::read(dir.path()), None);
        Place::look(dir.path());
        assert!(!dir.path().join(FAREWELL_FILE).exists(), "a new guard takes back what an earlier one said");
    }
}
