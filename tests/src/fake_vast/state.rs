//! What the fake Vast holds: account, machines, instances, keys, and the
//! journal of calls. Data and what follows from it at once; nothing here
//! knows paths, clocks or sockets.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::faults::{Fate, Faults};
use super::limits::Limits;
use super::money::{Amount, Meter, Rate, Rates};

/// Calls kept with all they said; counts go on for ever.
const JOURNAL: usize = 8192;

/// What the vendor calls `actual_status`, where it is not null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The container is there and does not run.
    Created,
    /// The image is pulled.
    Loading,
    /// The container runs.
    Running,
    /// Stopped by its user, by a higher bid, or for lack of credit.
    Stopped,
    /// The container is started again.
    Rebooting,
    /// Frozen by the host, and billed all the same.
    Frozen,
    /// The container ended and stays ended.
    Exited,
    /// Nothing is heard of it.
    Unknown,
    /// Its host is gone.
    Offline,
}

impl Status {
    /// As it stands in answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Loading => "loading",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Rebooting => "rebooting",
            Self::Frozen => "frozen",
            Self::Exited => "exited",
            Self::Unknown => "unknown",
            Self::Offline => "offline",
        }
    }
}

/// What its user wants of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wanted {
    Running,
    Stopped,
}

/// By what right an instance has its GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Claim {
    /// At the listed price, before every bid.
    OnDemand,
    /// For as long as nobody bids more.
    Bid,
}

/// Something that will happen to an instance by time alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// null becomes loading.
    Load,
    /// It runs.
    Run,
    /// Whatever a fate says.
    Become { status: Status, message: Option<String> },
    /// A bid of the fault's own is higher.
    Outbid { for_ms: Option<u64> },
    /// That bid is gone.
    Regain,
    /// The contract ends.
    Expire,
    /// What expired long ago is removed.
    Remove,
}

/// Where its sshd answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ssh {
    /// An address.
    pub ssh_host: String,
    /// A port.
    pub ssh_port: u16,
}

/// One public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct SshKey {
    pub(super) id: u64,
    pub(super) public_key: String,
}

/// One instance, also when it is gone.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Instance {
    pub(super) id: u64,
    pub(super) ask: u64,
    pub(super) machine: u64,
    pub(super) label: Option<String>,
    pub(super) image: String,
    pub(super) runtype: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) onstart: Option<String>,
    pub(super) disk_gb: f64,
    pub(super) claim: Claim,
    pub(super) rates: Rates,
    /// What the search said the GPUs cost.
    pub(super) offered: Rate,
    pub(super) created_ms: u64,
    /// When the contract ends.
    pub(super) ends_ms: u64,
    /// Before this it is in no list.
    pub(super) visible_ms: u64,
    pub(super) status: Option<Status>,
    pub(super) message: Option<String>,
    pub(super) wanted: Wanted,
    /// Whether the GPUs are its own now.
    pub(super) holds: bool,
    /// Whether it lost them to a higher bid.
    pub(super) outbid: bool,
    /// Whether a fault keeps it from them.
    pub(super) kept_down: bool,
    pub(super) expired: bool,
    pub(super) running_since_ms: Option<u64>,
    /// How often its container began to run.
    pub(super) starts: u32,
    pub(super) scheduled: Vec<(u64, Change)>,
    pub(super) fate: Fate,
    pub(super) meter: Meter,
    #[serde(skip)]
    pub(super) key: String,
    pub(super) ssh: Option<Ssh>,
    pub(super) keys: Vec<SshKey>,
    pub(super) log: String,
    pub(super) prepaid: Amount,
    pub(super) destroyed_ms: Option<u64>,
}

impl Instance {
    /// What a millisecond costs in its state: GPUs and disk.
    pub(super) fn burns(&self) -> (Rate, Rate) {
        match self.status {
            Some(Status::Offline) => (Rate::ZERO, Rate::ZERO),
            Some(Status::Running | Status::Frozen | Status::Rebooting) => (self.rates.gpu, self.rates.disk),
            Some(Status::Stopped | Status::Exited | Status::Unknown) => (Rate::ZERO, self.rates.disk_stopped),
            None | Some(Status::Created | Status::Loading) => (Rate::ZERO, self.rates.disk),
        }
    }

    /// What it has cost.
    pub(super) fn cost(&self) -> Amount {
        self.meter.total(&self.rates)
    }

    /// Drops what would start it.
    pub(super) fn cancel_boot(&mut self) {
        self.scheduled
            .retain(|(_, change)| matches!(change, Change::Regain | Change::Expire | Change::Remove));
    }
}

/// One rented slice of a host. What only describes it is kept as JSON, in the
/// vendor's words.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    pub(super) id: u64,
    /// The id to create with; another after each use.
    pub(super) ask: u64,
    pub(super) price: Rate,
    pub(super) min_bid: Rate,
    /// Dollars for a gigabyte and month; of a stopped instance.
    pub(super) disk: f64,
    pub(super) disk_stopped: f64,
    pub(super) up_gigabyte: Rate,
    pub(super) down_gigabyte: Rate,
    pub(super) ends_ms: u64,
    pub(super) rentable: bool,
    /// What somebody else bids.
    pub(super) rival: Option<Rate>,
    pub(super) fields: Map<String, Value>,
}

/// Who pays.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Account {
    pub(super) deposited: Amount,
    /// What instances that are gone have cost.
    pub(super) spent: Amount,
    /// Whether everything was stopped for lack of credit.
    pub(super) broke: bool,
}

/// What an API key may do; everything, without a list.
#[derive(Debug, Clone, Default)]
pub(super) struct Key {
    pub(super) rights: Option<Vec<String>>,
    /// The one instance that it is for.
    pub(super) instance: Option<u64>,
}

/// One call.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Call {
    pub(super) seq: u64,
    pub(super) at_ms: u64,
    pub(super) op: &'static str,
    pub(super) method: String,
    pub(super) path: String,
    /// But for a key.
    pub(super) query: Map<String, Value>,
    pub(super) body: Value,
    /// 0: the connection was closed without an answer.
    pub(super) status: u16,
    pub(super) fault: Option<&'static str>,
    pub(super) instance: Option<u64>,
    pub(super) agent: String,
}

/// The calls so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    pub(super) calls: VecDeque<Call>,
    pub(super) counts: BTreeMap<&'static str, BTreeMap<u16, u64>>,
    pub(super) next: u64,
}

impl Journal {
    /// Writes one down; the oldest goes when there are too many.
    pub(super) fn push(&mut self, mut call: Call) {
        call.seq = self.next;
        self.next += 1;
        *self.counts.entry(call.op).or_default().entry(call.status).or_default() += 1;
        if self.calls.len() == JOURNAL {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }
}

/// How the fake behaves where the vendor's clock decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// For how long the status is null.
    pub null_ms: u64,
    /// For how long the image is pulled.
    pub loading_ms: u64,
    /// For how long a reboot takes.
    pub reboot_ms: u64,
    /// For how long the result of a command is not there yet.
    pub result_ms: u64,
    /// Whether rate limits are kept.
    pub limits: bool,
    /// Searches on a day.
    pub search_quota: Option<u32>,
    /// Whether the key of an instance may destroy it.
    pub instance_key_may_destroy: bool,
    /// Whether addresses come from a command and not from the fake.
    pub machines: bool,
    /// Where the fake answers, for the addresses of results.
    pub url: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            null_ms: 2_000,
            loading_ms: 20_000,
            reboot_ms: 5_000,
            result_ms: 400,
            limits: true,
            search_quota: None,
            instance_key_may_destroy: true,
            machines: false,
            url: String::new(),
        }
    }
}

/// What a machine's command is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Boot {
    /// `start`, `stop`, `destroy` or `keys`.
    pub event: &'static str,
    /// Whose.
    pub instance: u64,
    /// Everything the container would get.
    pub details: Value,
}

/// All of it.
#[derive(Debug)]
pub struct World {
    pub(super) now: u64,
    /// How far the control plane moved the clock.
    pub(super) skew: u64,
    pub(super) options: Options,
    pub(super) account: Account,
    pub(super) machines: BTreeMap<u64, Machine>,
    pub(super) live: BTreeMap<u64, Instance>,
    pub(super) ended: Vec<Instance>,
    pub(super) api_keys: BTreeMap<String, Key>,
    pub(super) ssh_keys: Vec<SshKey>,
    pub(super) limits: Limits,
    pub(super) faults: Faults,
    pub(super) journal: Journal,
    /// What can be fetched without a key: name, when it is ready, text.
    pub(super) results: VecDeque<(String, u64, String)>,
    pub(super) next_id: u64,
    pub(super) next_ask: u64,
    pub(super) random: fastrand::Rng,
    pub(super) boots: VecDeque<Boot>,
}

impl World {
    /// A world with one account, no machine, and this key.
    #[must_use]
    pub fn new(now_ms: u64, api_key: &str, seed: u64) -> Self {
        Self {
            now: now_ms,
            skew: 0,
            options: Options::default(),
            account: Account { deposited: Amount::dollars(100.0), spent: Amount::ZERO, broke: false },
            machines: BTreeMap::new(),
            live: BTreeMap::new(),
            ended: Vec::new(),
            api_keys: BTreeMap::from([(api_key.to_owned(), Key::default())]),
            ssh_keys: Vec::new(),
            limits: Limits::default(),
            faults: Faults::default(),
            journal: Journal::default(),
            results: VecDeque::new(),
            next_id: 7_000_001,
            next_ask: 384_001,
            random: fastrand::Rng::with_seed(seed),
            boots: VecDeque::new(),
        }
    }

    /// How it behaves.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// What machines' commands are to be told, oldest first.
    pub fn take_boots(&mut self) -> Vec<Boot> {
        self.boots.drain(..).collect()
    }

    /// What a machine's command answered. Of an instance that is gone or does
    /// not run any more it is dropped.
    pub fn booted(&mut self, id: u64, answer: Result<Option<Ssh>, String>) {
        let Some(instance) = self.live.get_mut(&id) else { return };
        match answer {
            Ok(ssh) if instance.status == Some(Status::Running) => instance.ssh = ssh.or(instance.ssh.take()),
            Ok(_) => {}
            Err(why) => instance.message = Some(format!("Error: {why}")),
        }
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1 + self.random.u64(0..7);
        self.next_id
    }

    pub(super) fn new_ask(&mut self) -> u64 {
        self.next_ask += 1 + self.random.u64(0..5);
        self.next_ask
    }

    /// What is left of what was paid in; below nothing where storage went on.
    pub(super) fn credit(&self) -> Amount {
        let live = self.live.values().fold(Amount::ZERO, |sum, instance| sum + instance.cost());
        self.account.deposited - self.account.spent - live
    }

    /// The instance of a call, where it can be seen.
    pub(super) fn visible(&self, id: u64) -> Option<&Instance> {
        self.live.get(&id).filter(|instance| instance.visible_ms <= self.now)
    }
}
