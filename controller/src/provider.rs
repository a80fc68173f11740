//! Sources of machines. A provider answers what it was asked and remembers
//! nothing of its own: whether a machine is wanted is decided elsewhere.
//!
//! Every call may fail in a way that leaves its effect unknown, and says so
//! ([`CreateOutcome::Unknown`], [`DestroyOutcome::Unknown`]): an adapter must
//! never turn "I could not see it" into "it is not there". Create and destroy
//! may be repeated; the second time changes nothing.

use std::fmt;

use async_trait::async_trait;
use lifecycle::choice::{Appraisal, Outlook};
use lifecycle::meter::{Billed, Rates};
use lifecycle::question::Trouble;
use lifecycle::spec::MachineSpec;

mod capabilities;
mod children;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod local;
mod route;
pub mod settings;
mod simulated;
pub mod ssh;
mod vast;

pub use capabilities::Capabilities;
pub(crate) use children::end_group;
pub use local::{LocalConfig, LocalProvider};
pub use route::{HostKeys, RouteError, SshAddress, SshRoute};
pub use simulated::{Fault, Faults, SimulatedConfig, SimulatedProvider};
pub use vast::{Standing, VastConfig, VastProvider};

/// How the agent on a machine and the controller find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The agent dials the controller's address.
    MachineDials,
    /// The controller dials the machine over SSH, brings the agent there and
    /// carries its connections ([`Provider::route`]).
    ControllerDials,
}

/// A machine to make.
#[derive(Clone)]
pub struct CreateRequest {
    /// The machine's name, 26 characters of a-z and 2-7, used once.
    pub machine_id: String,
    /// The label it is found by later.
    pub label: String,
    /// The first-boot script. It holds the one-time join secret: it must never
    /// be in an argument list or a log. Empty where the controller dials
    /// ([`Reach::ControllerDials`]): it brings everything itself, later.
    pub user_data: String,
    /// What the machine must be; for providers that have many kinds.
    pub machine: MachineSpec,
    /// The most that an hour of it may cost, in US dollars; `None`: anything.
    pub max_usd_per_hour: Option<f64>,
    /// Hosts that failed before, as the provider numbers them
    /// ([`Provider::host`]): no machine is made there.
    pub avoid: Vec<String>,
    /// What is known when offers are compared.
    pub appraisal: Appraisal,
}

/// What a machine costs, as its provider says now.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// What it costs; `None`: not told now.
    pub rates: Option<Rates>,
    /// What of that is billed now.
    pub billed: Billed,
    /// The provider's own words for its state.
    pub said: String,
}

impl fmt::Debug for CreateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateRequest")
            .field("machine_id", &self.machine_id)
            .field("label", &self.label)
            .field("user_data", &format_args!("({} bytes, hidden)", self.user_data.len()))
            .field("machine", &self.machine)
            .field("max_usd_per_hour", &self.max_usd_per_hour)
            .field("avoid", &self.avoid)
            .finish()
    }
}

/// A machine that could be rented now.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The provider's number for it.
    pub id: String,
    /// The kind of its GPUs, and how many.
    pub gpu: String,
    /// How many.
    pub gpus: u32,
    /// Bytes of each.
    pub gpu_memory_bytes: u64,
    /// Where it stands.
    pub place: String,
    /// The physical machine, as the provider numbers it.
    pub machine: String,
    /// 0 to 1, in the provider's own measure.
    pub reliability: f64,
    /// US dollars an hour, disk included.
    pub usd_per_hour: f64,
    /// US dollars for each gigabyte to the machine.
    pub down_usd_per_gb: f64,
    /// US dollars for each gigabyte from the machine.
    pub up_usd_per_gb: f64,
    /// The provider's own measure of speed for each dollar an hour; 0: not told.
    pub speed_per_usd: f64,
    /// The provider's own measure of speed; 0: not told.
    pub speed: f64,
    /// What finishing the work there is expected to take.
    pub outlook: Outlook,
}

/// Why a provider names no offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoOffers {
    /// In words.
    pub why: String,
    /// Whether it passes by itself ([`Trouble::Passing`]) or somebody must do
    /// something first.
    pub trouble: Trouble,
}

/// A machine that has stopped and could go on: its disk is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stopped {
    /// What was bid for it, US dollars an hour beside its disk; `None`: it is
    /// rented for a fixed price.
    pub bid_usd: Option<f64>,
    /// What the provider says would win it back.
    pub winning_usd: Option<f64>,
}

/// What a provider charged for one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    /// The provider's name for it.
    pub instance: String,
    /// Its label, if it is told.
    pub label: String,
    /// US dollars.
    pub usd: f64,
}

/// What a provider charged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Charges {
    /// Each machine, perhaps in several parts.
    pub rows: Vec<Charge>,
    /// Nothing is missing.
    pub complete: bool,
}

/// What became of a create call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The machine exists.
    Created {
        /// The provider's name for it.
        instance: String,
    },
    /// No machine was made, and none will be.
    Rejected {
        /// Why.
        reason: String,
        /// What kind of trouble that is.
        trouble: Trouble,
        /// Unix milliseconds before which there is no use in asking; 0: unknown.
        not_before_ms: u64,
    },
    /// A machine may or may not exist: list by label before anything else.
    Unknown {
        /// What went wrong.
        reason: String,
    },
}

impl CreateOutcome {
    /// Nothing was made, for a reason that may pass.
    #[must_use]
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self::Rejected { reason: reason.into(), trouble: Trouble::Passing, not_before_ms: 0 }
    }
}

/// How far along a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// It was made and has not started its guard yet.
    Booting,
    /// Its guard runs.
    Up,
    /// It will never work again, though it is not gone and may still cost.
    Terminal,
}

/// A machine as its provider lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The provider's name for it.
    pub id: String,
    /// Its label.
    pub label: String,
    /// How far along it is.
    pub state: InstanceState,
}

/// An answer to "which machines are there".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// These and no others.
    Complete(Vec<Instance>),
    /// These and perhaps others: what is missing proves nothing.
    Partial(Vec<Instance>),
    /// No answer.
    Error(String),
}

/// An answer to "is this machine there".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It is, in this state.
    Present(InstanceState),
    /// It is not.
    Absent,
    /// No answer.
    Error(String),
}

/// What became of a destroy call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestroyOutcome {
    /// It is being removed or has been.
    Accepted,
    /// There was nothing to remove.
    Absent,
    /// It may still be there: ask again.
    Unknown(String),
}

/// What keeps a repeated create from making a second machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// The provider takes a key with the call.
    NativeKey,
    /// The caller chooses the machine's name.
    ClientChosenName,
    /// Nothing but a label to look for: create only once per machine.
    LabelOnly,
    /// A lock on the host.
    HostLock,
}

/// Whom the machines of a provider belong to: who can read what is on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Whoever runs the controller (T2).
    Me,
    /// A cloud under contract (T3).
    Cloud,
    /// Somebody who rents them out (T4).
    Stranger,
}

/// A source of machines.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name in configuration and journal.
    fn name(&self) -> &'static str;
    /// How its machines are reached.
    fn reach(&self) -> Reach;
    /// How SSH comes to one machine now. Asked before every connection, since
    /// an address may change; it should be answered from what is known.
    async fn route(&self, instance: &str) -> Result<SshRoute, RouteError> {
        let _ = instance;
        Err(RouteError::Never(format!("machines of `{}` are not reached over SSH", self.name())))
    }
    /// Whose machines they are.
    fn owner(&self) -> Owner {
        Owner::Me
    }
    /// What its machines can do.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
    /// What makes a repeated create safe.
    fn idempotency(&self) -> Idempotency;
    /// Whether its machines cost money that somebody bills: then nothing is
    /// made without a cap.
    fn is_paid(&self) -> bool {
        false
    }
    /// The price of one machine, where all cost the same; 0 where none has a
    /// price, or each its own ([`Provider::terms`]).
    fn usd_per_hour(&self) -> f64;
    /// Whether it can be asked for machines at all.
    ///
    /// # Errors
    /// What is missing, where it was looked for and how to get it.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
    /// Machines that could be rented now for `machine` under a price, the best
    /// first.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn offers(
        &self,
        machine: &MachineSpec,
        max_usd_per_hour: Option<f64>,
        appraisal: &Appraisal,
    ) -> Result<Vec<Offer>, NoOffers> {
        let _ = (machine, max_usd_per_hour, appraisal);
        let why =
            format!("`{}` has no market: its machines are there or not, and none is on offer", self.name());
        Err(NoOffers { why, trouble: Trouble::Invalid })
    }
    /// What one machine costs, read back from the provider; `None`: it does not
    /// say.
    async fn terms(&self, instance: &str) -> Option<Terms> {
        let _ = instance;
        None
    }
    /// What is known of why a machine ended before an agent came from it: some
    /// hundred characters, a stranger's; `None`: nothing.
    async fn last_words(&self, instance: &str) -> Option<String> {
        self.terms(instance).await.map(|terms| terms.said).filter(|said| !said.trim().is_empty())
    }
    /// Whether a machine that does not run is only stopped, so that it could go
    /// on with its disk as it is; `None`: it cannot, or it runs. Answered from
    /// what was said of it last.
    async fn stopped(&self, instance: &str) -> Option<Stopped> {
        let _ = instance;
        None
    }
    /// Has a stopped machine go on, where it was outbid with a higher bid, in US
    /// dollars an hour beside its disk. Whether it does is seen later.
    ///
    /// # Errors
    /// Why it will not, or may not.
    async fn go_on(&self, instance: &str, bid_usd: Option<f64>) -> Result<(), String> {
        let _ = (instance, bid_usd);
        Err(format!("machines of `{}` do not go on after they have stopped", self.name()))
    }
    /// What it charged since a moment, unix milliseconds; `None`: it sends no
    /// bill that could be asked for.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    async fn charges(&self, since_ms: u64, now_ms: u64) -> Result<Option<Charges>, String> {
        let _ = (since_ms, now_ms);
        Ok(None)
    }
    /// Whether it has machines of many sizes and finds one that meets a
    /// [`MachineSpec`]; others give what they have.
    fn chooses(&self) -> bool {
        false
    }
    /// The physical host that a machine is on, as the provider numbers it;
    /// `None`: it does not say. Answered from what is known, where it can be.
    async fn host(&self, instance: &str) -> Option<String> {
        let _ = instance;
        None
    }
    /// The kind of its GPUs, as the provider names it; `None`: it does not say.
    async fn gpu(&self, instance: &str) -> Option<String> {
        let _ = instance;
        None
    }
    /// How much longer than others its machines may take from their creation
    /// until their agent is there, in milliseconds: they fetch an image first.
    fn boots_longer_ms(&self) -> u64 {
        0
    }
    /// How long after a create a list may still lack the machine.
    fn settle_window_ms(&self) -> u64;
    /// Everything about a create that takes time and makes nothing, such as
    /// looking for offers: done before the machine's row says that it is being
    /// made, so that a controller that ends meanwhile has left nothing open.
    ///
    /// What the machine will cost at most, as it is offered; `None`: not told.
    ///
    /// # Errors
    /// The rejection, where no machine is to be had.
    async fn prepare(&self, request: &CreateRequest) -> Result<Option<Rates>, CreateOutcome> {
        let _ = request;
        Ok(None)
    }
    /// Makes a machine.
    async fn create(&self, request: &CreateRequest) -> CreateOutcome;
    /// The machines whose label begins so.
    async fn list(&self, label_prefix: &str) -> Listing;
    /// One machine's state.
    async fn get(&self, instance: &str) -> Presence;
    /// The label that was last seen on a machine that the provider named, where
    /// that may be anybody's; `None`: it was not seen, or names are chosen here.
    async fn label(&self, instance: &str) -> Option<String> {
        let _ = instance;
        None
    }
    /// Removes a machine and everything that runs on it.
    async fn destroy(&self, instance: &str) -> DestroyOutcome;
    /// For fault drills: ends everything on the machine at once and erases it,
    /// telling nobody, as a power cut would.
    async fn sabotage(&self, instance: &str) -> Result<(), String> {
        match self.destroy(instance).await {
            DestroyOutcome::Accepted => Ok(()),
            DestroyOutcome::Absent => Err("there is no such machine".into()),
            DestroyOutcome::Unknown(reason) => Err(reason),
        }
    }
}
