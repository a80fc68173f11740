//! Machines that could be rented now, as people's tools ask for them.
//! Translates and decides nothing.

use lifecycle::spec::MachineSpec;
use proto::v1;
use tonic::Status;

use crate::core::Core;

/// Longest description taken.
const SPEC_MAX: usize = 64 << 10;
/// Offers told at most.
const TOLD_MAX: usize = 500;

/// Asks a provider.
///
/// # Errors
/// Where the description is none, there is no such provider, or it does not
/// answer.
pub(super) async fn list(core: &Core, ask: v1::OffersRequest) -> Result<v1::OfferList, Status> {
    let provider = core.provider(&ask.provider)?;
    if ask.machine_json.len() > SPEC_MAX {
        return Err(Status::invalid_argument("the machine's description is too long"));
    }
    let machine: MachineSpec = serde_json::from_str(&ask.machine_json)
        .map_err(|e| Status::invalid_argument(format!("the machine's description: {e}")))?;
    let most = Some(ask.max_usd_per_hour).filter(|usd| usd.is_finite() && *usd > 0.0);
    provider.ready().map_err(Status::failed_precondition)?;
    let found = provider.offers(&machine, most).await.map_err(Status::unavailable)?;
    let offers = found.into_iter().take(TOLD_MAX).map(|offer| v1::Offer {
        id: offer.id,
        gpu: offer.gpu,
        gpus: offer.gpus,
        gpu_memory_bytes: offer.gpu_memory_bytes,
        place: offer.place,
        machine: offer.machine,
        reliability: offer.reliability,
        usd_per_hour: offer.usd_per_hour,
        down_usd_per_gb: offer.down_usd_per_gb,
        up_usd_per_gb: offer.up_usd_per_gb,
        speed_per_usd: offer.speed_per_usd,
    });
    Ok(v1::OfferList { offers: offers.collect() })
}
