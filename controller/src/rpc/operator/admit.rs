//! Admits a person's device: signs its certificate and journals whom. The only
//! way to ask is a tool on the controller's own computer, so that whoever is
//! admitted, and is admitted again, has a login there. A device is never
//! admitted by a device.

use std::time::Duration;

use proto::identity::Identity;
use proto::pki::{PkiError, csr_public_key, sha256_hex};
use proto::v1;
use serde_json::json;
use tonic::Status;

use super::OperatorService;
use crate::core::{Changes, CoreError};

/// A device's certificate lives so long.
const LIFE: Duration = Duration::from_hours(12);
/// No request for a certificate is larger.
const LARGEST: usize = 16 << 10;

impl OperatorService {
    /// Signs what a device asked for.
    pub(super) async fn admitted(
        &self,
        actor: &str,
        ask: v1::AdmitRequest,
    ) -> Result<v1::AdmitReply, Status> {
        if actor != format!("operator:{}", Identity::LOCAL) {
            let why = "a device is admitted by a tool on the controller's own computer: `outlast login` asks \
                       one there over SSH";
            return Err(Status::permission_denied(why));
        }
        if ask.csr.len() > LARGEST {
            return Err(Status::invalid_argument("the certificate request is too large"));
        }
        let identity =
            Identity::device(&ask.name).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let refused = |error: PkiError| Status::invalid_argument(error.to_string());
        let key = sha256_hex(&csr_public_key(&ask.csr).map_err(refused)?);
        let core = &self.core;
        let now = core.clock.wall();
        let chain_pem = core.authority.sign_device(&ask.name, &ask.csr, now, LIFE).map_err(refused)?;
        let life_ms = u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX);
        let until_ms = core.clock.wall_ms().saturating_add(life_ms);
        let detail = json!({ "key": key, "until_ms": until_ms });
        let changes = Changes::default().note(core, actor, "admitted", identity, None, detail);
        // Nobody has a certificate that the journal does not know.
        if !core.commit(changes).await? {
            return Err(Status::from(CoreError::Contended));
        }
        let root_pem = core.authority.root_pem().to_owned();
        Ok(v1::AdmitReply { hub_id: core.hub.to_string(), chain_pem, root_pem, until_ms })
    }
}
