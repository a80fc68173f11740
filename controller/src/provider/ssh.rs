//! Machines on hosts that the user already has: each is a slot of a host,
//! claimed by one installation for one machine, and everything there that
//! carries the machine's marker.
//!
//! Here a slot is claimed, looked at and given back; how an agent gets there is
//! not decided here. A host that did not answer whole is never taken for one
//! that has nothing, and a claim of another installation is never touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::route::{RouteError, SshRoute};
use super::settings::{self, Places, SettingsErrors};
use super::{CreateOutcome, CreateRequest, DestroyOutcome, Idempotency, Listing, Presence, Provider, Reach};

mod answer;
mod choose;
mod doctor;
mod gpus;
mod host;
mod link;
mod retry;
mod script;
pub(crate) mod trouble;

use answer::{Claimed, Look, Refusal};
use link::{Limits, LinkError};
use script::Verb;

pub use doctor::{HostReport, diagnose};
pub use gpus::Gpus;
pub use host::SshHost;
pub(in crate::provider) use host::read_hosts;

/// Every process of a machine carries it.
const MARKER: &str = "OUTLAST_MACHINE_ID";
/// Names the lock that a slot's guard holds.
const SLOT_LOCK: &str = "OUTLAST_SLOT_LOCK";
/// The environment variable with another SSH client than `ssh`.
pub const CLIENT: &str = "OUTLAST_SSH";
/// So many machines' places are remembered.
const MAX_KNOWN: usize = 4096;

/// How long calls go on trying. Other than usual in tests alone.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until the first line of a host, in seconds at least.
    pub connect: Duration,
    /// From there to the end of its answer.
    pub answer: Duration,
    /// A call that only looks goes on trying to connect for so long.
    pub look: Duration,
    /// One that changes something does for so long.
    pub change: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(25),
            answer: Duration::from_mins(1),
            look: Duration::from_secs(5),
            change: Duration::from_secs(100),
        }
    }
}

/// What an [`SshProvider`] needs to know.
#[derive(Debug, Clone)]
pub struct SshConfig {
    /// This installation.
    pub hub: String,
    /// The user's SSH client.
    pub client: PathBuf,
    /// The hosts, each name once.
    pub hosts: Vec<SshHost>,
    /// How long calls go on trying.
    pub patience: Patience,
}

/// What a data directory's settings and the environment say.
///
/// # Errors
/// All that is wrong with the settings.
pub fn configured(
    home: &Path,
    hub: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<SshConfig, SettingsErrors> {
    let user = env("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let hosts = settings::read(Places { home, user: user.as_deref() })?.ssh;
    let client = env(CLIENT).filter(|name| !name.trim().is_empty());
    let client = client.map_or_else(|| "ssh".into(), PathBuf::from);
    Ok(SshConfig { hub: hub.to_owned(), client, hosts, patience: Patience::default() })
}

/// A [`Provider`] of slots on the user's own hosts.
#[derive(Debug, Clone)]
pub struct SshProvider {
    config: Arc<SshConfig>,
    /// On which host a machine's creation was begun, so that a repeated one
    /// goes nowhere else.
    begun: Arc<Mutex<BTreeMap<String, String>>>,
    routes: Arc<Mutex<BTreeMap<String, SshRoute>>>,
}

/// Why a host gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    Link(LinkError),
    Refused(Refusal),
}

impl Failure {
    /// What is wrong, with the way out where there is one.
    fn told(&self, host: &SshHost) -> String {
        let name = &host.name;
        match self {
            Self::Link(LinkError::Before(trouble)) => {
                format!("host `{name}`: {}; {}", trouble.problem(), trouble.cure(&host.destination()))
            }
            Self::Link(LinkError::Cut(why)) => format!("host `{name}`: {why}"),
            Self::Refused(refusal) => format!("host `{name}`: {refusal}"),
        }
    }

    fn is_cut(&self) -> bool {
        matches!(self, Self::Link(LinkError::Cut(_)) | Self::Refused(Refusal::Nonsense(_)))
    }

    fn passes(&self) -> bool {
        matches!(self, Self::Link(LinkError::Before(trouble)) if trouble.passes())
    }
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}

/// A label can be one word of a claim's line and of a shell.
fn is_label(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'/' | b'_' | b'.' | b'-'))
}

/// What an instance's name says.
enum Named<'a> {
    /// A slot of a host.
    Slot { host: &'a SshHost, machine: &'a str },
    /// Only the machine: it may be anywhere.
    Anywhere(&'a str),
}

impl SshProvider {
    /// A provider of these hosts; nothing is asked until it is needed.
    #[must_use]
    pub fn new(config: SshConfig) -> Self {
        Self { config: Arc::new(config), begun: Arc::default(), routes: Arc::default() }
    }

    /// One conversation, tried again while there is no connection.
    async fn ask(
        &self,
        host: &SshHost,
        verb: Verb<'_>,
        total: Duration,
    ) -> Result<Vec<Vec<String>>, Failure> {
        let patience = self.config.patience;
        let limits = Limits { connect: patience.connect, answer: patience.answer };
        let arguments = host.arguments(patience.connect.as_secs().clamp(1, 10));
        let (client, arguments) = (&self.config.client, &arguments);
        let attempt = || {
            let tag = format!("outlast{:016x}", fastrand::u64(..));
            let script = script::render(&tag, &self.config.hub, &host.root, verb);
            async move { link::converse(client, arguments, &script, limits).await }
        };
        retry::connected(total, attempt).await.map_err(Failure::Link)
    }

    async fn look(
        &self,
        host: &SshHost,
        machine: &str,
        count: bool,
        total: Duration,
    ) -> Result<Look, Failure> {
        let verb = Verb::Look { machine, count_gpus: count && host.gpus.to_count(host.slots) };
        answer::look(&self.ask(host, verb, total).await?).map_err(Failure::Refused)
    }

    /// Looks at all hosts side by side; the answers are in their order.
    async fn look_at_all(
        &self,
        machine: &str,
        count: bool,
        total: Duration,
    ) -> Vec<(SshHost, Result<Look, Failure>)> {
        let mut asked = JoinSet::new();
        for (at, host) in self.config.hosts.iter().cloned().enumerate() {
            let (provider, machine) = (self.clone(), machine.to_owned());
            asked.spawn(async move {
                let look = Box::pin(provider.look(&host, &machine, count, total)).await;
                (at, look)
            });
        }
        let mut answers: Vec<Option<_>> = self.config.hosts.iter().map(|_| None).collect();
        while let Some(done) = asked.join_next().await {
            if let Ok((at, look)) = done {
                answers[at] = Some(look);
            }
        }
        let silent = || Err(Failure::Refused(Refusal::Nonsense("the look at it did not end".into())));
        let looks = answers.into_iter().map(|look| look.unwrap_or_else(silent));
        self.config.hosts.iter().cloned().zip(looks).collect()
    }

    fn named<'a>(&'a self, instance: &'a str) -> Result<Named<'a>, String> {
        if is_machine_id(instance) {
            return Ok(Named::Anywhere(instance));
        }
        let parts: Vec<&str> = instance.split('/').collect();
        let [name, slot, machine] = parts.as_slice() else {
            return Err("this is no name of a machine on a host".into());
        };
        if !is_machine_id(machine) || slot.is_empty() || !slot.bytes().all(|b| b.is_ascii_digit()) {
            return Err("this is no name of a machine on a host".into());
        }
        let host = self.config.hosts.iter().find(|host| host.name == *name).ok_or_else(|| {
            let name = artifacts::store::trouble::foreign(name);
            format!("host `{name}` is not in providers.toml any more: put it back to reach its machines")
        })?;
        Ok(Named::Slot { host, machine })
    }

    /// The host on which a machine's creation was begun.
    fn begun_on(&self, machine: &str) -> Option<String> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).get(machine).cloned()
    }

    /// Says that a machine's creation begins on a host; `false`: it began on
    /// another one.
    fn begin_on(&self, machine: &str, host: &SshHost) -> bool {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.len() >= MAX_KNOWN && !begun.contains_key(machine) {
            begun.pop_first();
        }
        *begun.entry(machine.to_owned()).or_insert_with(|| host.name.clone()) == host.name
    }

    fn forget(&self, machine: &str) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(machine);
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).remove(machine);
    }

    /// Claims a slot of one host.
    async fn claim(&self, host: &SshHost, request: &CreateRequest, look: &Look) -> Tried {
        let shares = match host.gpus.shares(host.slots, look.gpus) {
            Ok(shares) => shares,
            Err(why) => return Tried::Not(format!("host `{}`: {why}", host.name)),
        };
        let before = self.begun_on(&request.machine_id).is_some();
        if !self.begin_on(&request.machine_id, host) {
            return Tried::Not(format!("host `{}`: the machine was begun on another one", host.name));
        }
        let verb = Verb::Claim { machine: &request.machine_id, label: &request.label, shares: &shares };
        let answer = self.ask(host, verb, self.config.patience.change).await;
        let answer = answer.and_then(|lines| answer::claimed(&lines).map_err(Failure::Refused));
        match answer {
            Ok(Claimed::Slot(slot)) => Tried::Slot(slot),
            Err(failure) if failure.is_cut() => Tried::Unknown(failure.told(host)),
            Ok(Claimed::Full(look)) => {
                self.forget(&request.machine_id);
                Tried::Not(choose::taken(host, &look, &self.config.hub))
            }
            // An earlier try may have come further than this one.
            Err(failure) if before => Tried::Unknown(failure.told(host)),
            Err(failure) => {
                self.forget(&request.machine_id);
                Tried::Not(failure.told(host))
            }
        }
    }

    /// Tries the hosts that answered at once, the emptiest first, then those
    /// that did not.
    async fn place(&self, request: &CreateRequest) -> CreateOutcome {
        let machine = &request.machine_id;
        let mut looks = self.look_at_all(machine, true, Duration::ZERO).await;
        if let Some(on) = self.begun_on(machine) {
            looks.retain(|(host, _)| host.name == on);
        }
        for (host, look) in &looks {
            let Ok(look) = look else { continue };
            match choose::own(look, machine, &self.config.hub) {
                Some(Ok(slot)) => return created(host, slot, machine),
                Some(Err(reason)) => return CreateOutcome::Unknown { reason },
                None => {}
            }
        }
        let mut reasons = Vec::new();
        for (host, look) in choose::in_turn(looks) {
            let look = match look {
                Err(failure) if failure.passes() => {
                    Box::pin(self.look(&host, machine, true, self.config.patience.change)).await
                }
                known => known,
            };
            let tried = match look {
                Ok(look) => Box::pin(self.claim(&host, request, &look)).await,
                Err(failure) if self.begun_on(machine).is_some() => Tried::Unknown(failure.told(&host)),
                Err(failure) => Tried::Not(failure.told(&host)),
            };
            match tried {
                Tried::Slot(slot) => return created(&host, slot, machine),
                Tried::Unknown(reason) => return CreateOutcome::Unknown { reason },
                Tried::Not(reason) => reasons.push(reason),
            }
        }
        CreateOutcome::rejected(choose::joined(&reasons))
    }

    async fn end_on(&self, host: &SshHost, machine: &str) -> DestroyOutcome {
        let answer = self.ask(host, Verb::End { machine }, self.config.patience.change).await;
        match answer.and_then(|lines| answer::ended(&lines).map_err(Failure::Refused)) {
            Ok(existed) => {
                self.forget(machine);
                if existed { DestroyOutcome::Accepted } else { DestroyOutcome::Absent }
            }
            Err(failure) => DestroyOutcome::Unknown(failure.told(host)),
        }
    }

    async fn find_route(&self, instance: &str) -> Result<SshRoute, RouteError> {
        let (host, machine) = match self.named(instance).map_err(RouteError::Never)? {
            Named::Slot { host, machine } => (host, machine),
            Named::Anywhere(_) => return Err(RouteError::Never("no host is named".into())),
        };
        if let Some(route) = self.routes.lock().unwrap_or_else(PoisonError::into_inner).get(machine) {
            return Ok(route.clone());
        }
        let look = Box::pin(self.look(host, machine, false, Duration::ZERO)).await.map_err(|failure| {
            let told = failure.told(host);
            match failure {
                Failure::Link(LinkError::Before(trouble)) if !trouble.passes() => RouteError::Never(told),
                _ => RouteError::NotYet(told),
            }
        })?;
        let route = choose::route(host, &look, machine, &self.config.hub).map_err(RouteError::Never)?;
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.len() >= MAX_KNOWN {
            routes.pop_first();
        }
        routes.insert(machine.to_owned(), route.clone());
        Ok(route)
    }
}

/// What came of one host.
enum Tried {
    Slot(u32),
    Unknown(String),
    Not(String),
}

fn created(host: &SshHost, slot: u32, machine: &str) -> CreateOutcome {
    CreateOutcome::Created { instance: format!("{}/{slot}/{machine}", host.name) }
}

#[async_trait]
impl Provider for SshProvider {
    fn name(&self) -> &'static str {
        "ssh"
    }

    fn reach(&self) -> Reach {
        Reach::ControllerDials
    }

    async fn route(&self, instance: &str) -> Result<SshRoute, RouteError> {
        self.find_route(instance).await
    }

    fn capabilities(&self) -> super::Capabilities {
        // Nobody takes it, bills it or copies it.
        super::Capabilities::default()
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::HostLock
    }

    /// Of the dearest host: which one it will be is not known before.
    fn usd_per_hour(&self) -> f64 {
        self.config.hosts.iter().map(|host| host.usd_per_hour).fold(0.0, f64::max)
    }

    fn settle_window_ms(&self) -> u64 {
        // A script whose link was cut ends soon, and then its claim is there.
        30_000
    }

    async fn create(&self, request: &CreateRequest) -> CreateOutcome {
        if !is_machine_id(&request.machine_id) {
            return CreateOutcome::rejected("the machine id is not 26 characters of a-z and 2-7");
        }
        if !is_label(&request.label) {
            return CreateOutcome::rejected("the label cannot be written to a host");
        }
        if self.config.hosts.is_empty() {
            return CreateOutcome::rejected(choose::NO_HOSTS);
        }
        Box::pin(self.place(request)).await
    }

    async fn list(&self, label_prefix: &str) -> Listing {
        let looks = Box::pin(self.look_at_all("", false, self.config.patience.look)).await;
        let (listing, troubles) = choose::merged(&looks, label_prefix);
        for trouble in troubles {
            tracing::warn!(trouble, "a host could not be listed whole");
        }
        listing
    }

    async fn get(&self, instance: &str) -> Presence {
        let hub = &self.config.hub;
        match self.named(instance) {
            Err(error) => Presence::Error(error),
            Ok(Named::Slot { host, machine }) => {
                let look = Box::pin(self.look(host, machine, false, self.config.patience.look)).await;
                match look {
                    Ok(look) => choose::presence(&look, machine, hub),
                    Err(failure) => Presence::Error(failure.told(host)),
                }
            }
            Ok(Named::Anywhere(machine)) => {
                let looks = Box::pin(self.look_at_all(machine, false, self.config.patience.look)).await;
                let each = looks.iter().map(|(host, look)| match look {
                    Ok(look) => choose::presence(look, machine, hub),
                    Err(failure) => Presence::Error(failure.told(host)),
                });
                choose::anywhere(each)
            }
        }
    }

    async fn destroy(&self, instance: &str) -> DestroyOutcome {
        match self.named(instance) {
            Err(error) => DestroyOutcome::Unknown(error),
            Ok(Named::Slot { host, machine }) => Box::pin(self.end_on(host, machine)).await,
            Ok(Named::Anywhere(machine)) => {
                let mut outcome = DestroyOutcome::Absent;
                for host in &self.config.hosts {
                    match Box::pin(self.end_on(host, machine)).await {
                        DestroyOutcome::Absent => {}
                        DestroyOutcome::Accepted if outcome == DestroyOutcome::Absent => {
                            outcome = DestroyOutcome::Accepted;
                        }
                        DestroyOutcome::Accepted => {}
                        unknown => outcome = unknown,
                    }
                }
                outcome
            }
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
