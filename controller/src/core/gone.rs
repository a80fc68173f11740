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

    /// A list of all of this hub's machines that was asked for no earlier than now.
    pub async fn list_now(&self, provider: &dyn Provider) -> Arc<Listing> {
        let asked = self.clock.mono_ms();
        let slot = {
            let mut all = self.lists.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(provider.name().to_owned()).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some((begun, listing)) = &*slot
            && *begun > asked
        {
            return listing.clone();
        }
        let begun = self.clock.mono_ms();
        let listed = tokio::time::timeout(PATIENCE, provider.list(&crate::label::prefix(self.hub))).await;
        let listing = Arc::new(listed.unwrap_or_else(|_| Listing::Error("no answer in time".into())));
        *slot = Some((begun, listing.clone()));
        listing
    }
}
