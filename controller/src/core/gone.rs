//! How it stands with machines that are being destroyed: how often their
//! provider was asked in vain, and how many complete lists lack them. Lost with
//! the process, on purpose: another one asks anew. It ends nothing by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifecycle::MachineId;

use super::Core;
use crate::plan::Again;
use crate::provider::{Listing, Provider};

/// A list that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ending {
    /// Tries in a row that were not answered.
    unheard: u32,
    /// Tries in a row that were answered, and it is not gone.
    vain: u32,
    /// Complete lists in a row that lack it.
    lacked: u32,
    /// The next list that counts was asked for later; monotonic milliseconds.
    since_ms: u64,
    /// Its number is somebody else's.
    strangers: bool,
}

/// The newest list of each provider, and when it was asked for: machines that
/// end together need not list all the others once for each.
#[derive(Debug, Default)]
pub(super) struct Lists(Mutex<BTreeMap<String, Arc<Slot>>>);

type Slot = tokio::sync::Mutex<Option<(u64, Arc<Listing>)>>;

impl Core {
    /// Its provider was to destroy a machine and did not answer (`heard`: it
    /// did, and the machine is not confirmed gone). How long it is left in peace.
    pub fn ends_in_vain(&self, machine: MachineId, heard: bool) -> u64 {
        {
            let mut all = self.presence();
            let ending = &mut all.entry(machine).or_default().ending;
            if heard {
                (ending.unheard, ending.vain) = (0, ending.vain.saturating_add(1));
            } else {
                (ending.unheard, ending.vain) = (ending.unheard.saturating_add(1), 0);
            }
        }
        self.ends_again_ms(machine)
    }

    /// Milliseconds after the last question until a machine is destroyed again.
    #[must_use]
    pub fn ends_again_ms(&self, machine: MachineId) -> u64 {
        let ending = self.presence().get(&machine).map(|entry| entry.ending).unwrap_or_default();
        Again::backoff_ms(ending.unheard, ending.vain)
    }

    /// A complete list lacks a machine (or does not: what was seen before counts
    /// no more). How many in a row lack it.
    pub fn lacked(&self, machine: MachineId, lacks: bool) -> u32 {
        let mut all = self.presence();
        let ending = &mut all.entry(machine).or_default().ending;
        ending.lacked = if lacks { ending.lacked.saturating_add(1) } else { 0 };
        ending.lacked
    }

    /// How many complete lists in a row lacked a machine, and whether its number
    /// is somebody else's.
    #[must_use]
    pub fn lacking(&self, machine: MachineId) -> (u32, bool) {
        let ending = self.presence().get(&machine).map(|entry| entry.ending).unwrap_or_default();
        (ending.lacked, ending.strangers)
    }

    /// Its number turned out to be somebody else's, or not.
    pub fn is_strangers(&self, machine: MachineId, strangers: bool) {
        self.presence().entry(machine).or_default().ending.strangers = strangers;
    }

    /// The next list that counts for a machine: asked for after it was first
    /// ordered away, and after the one that counted before. Machines that end
    /// together share theirs: lists are what vendors ration.
    pub async fn next_list(&self, provider: &dyn Provider, machine: MachineId) -> Arc<Listing> {
        let after = {
            let mut all = self.presence();
            let ending = &mut all.entry(machine).or_default().ending;
            if ending.since_ms == 0 {
                ending.since_ms = self.clock.mono_ms().max(1);
            }
            ending.since_ms
        };
        let (begun, listing) = self.list_after(provider, after).await;
        if matches!(*listing, Listing::Complete(_)) {
            self.presence().entry(machine).or_default().ending.since_ms = begun.max(1);
        }
        listing
    }

    /// A list of all of this hub's machines that was asked for later than that,
    /// and when it was.
    async fn list_after(&self, provider: &dyn Provider, asked: u64) -> (u64, Arc<Listing>) {
        let slot = {
            let mut all = self.lists.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(provider.name().to_owned()).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some((begun, listing)) = &*slot
            && *begun > asked
        {
            return (*begun, listing.clone());
        }
        let begun = self.clock.mono_ms();
        let listed = tokio::time::timeout(PATIENCE, provider.list(&crate::label::prefix(self.hub))).await;
        let listing = Arc::new(listed.unwrap_or_else(|_| Listing::Error("no answer in time".into())));
        *slot = Some((begun, listing.clone()));
        (begun, listing)
    }
}
