//! How a machine gets its identity: a one-time secret binds its key, later
//! only the key counts. A used secret with another key is refused and raises
//! an alarm.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifecycle::{MachineId, MachineState};
use proto::convert;
use proto::pki;
use proto::v1::{self, join_server::Join};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::core::{Changes, Core};
use crate::model::{BoundKey, JoinRight, Machine, Versioned};
use crate::provider::Owner;

/// Certificates of machines on own computers and in clouds.
const LEAF_LIFE: Duration = Duration::from_hours(24);
/// And on those of strangers, whose root can copy every key.
const STRANGERS_LEAF_LIFE: Duration = Duration::from_hours(4);
const NONCE_MS: u64 = 60_000;
const CSR_LIMIT: usize = 4_096;
const NONCES: usize = 1_024;

/// The service.
pub struct JoinService {
    core: Arc<Core>,
    nonces: Mutex<BTreeMap<Vec<u8>, (MachineId, u64)>>,
}

impl JoinService {
    /// Serves for `core`.
    #[must_use]
    pub fn new(core: Arc<Core>) -> Self {
        Self { core, nonces: Mutex::default() }
    }

    async fn certificate(&self, machine: MachineId, csr: &[u8]) -> Result<Response<v1::Certificate>, Status> {
        let core = &self.core;
        let row: Option<Versioned<Machine>> = core.load(&machine.to_string()).await?;
        let provider = row.and_then(|row| core.providers.get(&row.body.provider));
        let life = match provider.map(|provider| provider.owner()) {
            Some(Owner::Stranger) => STRANGERS_LEAF_LIFE,
            _ => LEAF_LIFE,
        };
        let chain = core
            .authority
            .sign_machine(machine, csr, core.clock.wall(), life)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(Response::new(v1::Certificate { chain_pem: chain, ca_pem: core.authority.root_pem().to_owned() }))
    }

    /// Whether a machine may have an identity at all.
    async fn wanted(&self, machine: MachineId) -> Result<(), Status> {
        let row: Option<Versioned<Machine>> = self.core.load(&machine.to_string()).await?;
        let wanted = row.is_some_and(|r| {
            matches!(
                r.body.status,
                MachineState::Calling
                    | MachineState::Unknown
                    | MachineState::Created
                    | MachineState::Booting
                    | MachineState::Ready
                    | MachineState::Suspect
            )
        });
        if wanted { Ok(()) } else { Err(Status::permission_denied("this machine is not wanted any more")) }
    }
}

fn refused() -> Status {
    // One text for all: a guesser learns nothing.
    Status::permission_denied("the join secret is unknown, used or expired")
}

#[tonic::async_trait]
impl Join for JoinService {
    async fn redeem(&self, request: Request<v1::RedeemRequest>) -> Result<Response<v1::Certificate>, Status> {
        let core = &self.core;
        let ask = request.into_inner();
        let machine = convert::machine_id(&ask.machine_id)?;
        if ask.secret.len() > 64 || ask.csr.len() > CSR_LIMIT {
            return Err(Status::invalid_argument("secret or request is too long"));
        }
        self.wanted(machine).await.map_err(|_| refused())?;
        let spki = pki::csr_public_key(&ask.csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let thumbprint = pki::sha256_hex(&spki);
        let boot_id: String = ask.facts.unwrap_or_default().boot_id.chars().take(64).collect();
        for _ in 0..8 {
            let mut right: Versioned<JoinRight> =
                core.load(&machine.to_string()).await?.ok_or_else(refused)?;
            let now = core.clock.wall_ms();
            if right.body.secret_sha256 != pki::sha256_hex(ask.secret.as_bytes()) {
                return Err(refused());
            }
            match &right.body.used_by {
                // A lost reply, or a certificate that could not be written: the
                // same key is the same machine.
                Some(by) if *by == thumbprint => {
                    return self.certificate(machine, &ask.csr).await;
                }
                Some(_) => {
                    core.alert(
                        &format!("join {machine}"),
                        Some(format!("a second key tried the join secret of machine {}", machine.short())),
                    );
                    let changes =
                        Changes::default().note(core, "join", "second-key", machine, None, json!({}));
                    core.commit(changes).await?;
                    return Err(refused());
                }
                None if now > right.body.expires_ms => return Err(refused()),
                None => {}
            }
            // Signed before it is bound: an unusable request uses nothing up.
            let certificate = self.certificate(machine, &ask.csr).await?;
            right.body.used_by = Some(thumbprint.clone());
            right.body.used_ms = now;
            let key = Versioned::new(BoundKey {
                machine,
                thumbprint: thumbprint.clone(),
                spki: data_encoding::HEXLOWER.encode(&spki),
                incarnation: 0,
                boot_id: boot_id.clone(),
            });
            let changes = Changes::default().put(&right).put(&key).note(
                core,
                "join",
                "joined",
                machine,
                None,
                json!({}),
            );
            if core.commit(changes).await? {
                return Ok(certificate);
            }
        }
        Err(Status::aborted("the rows kept changing; try again"))
    }

    async fn challenge(
        &self,
        request: Request<v1::ChallengeRequest>,
    ) -> Result<Response<v1::ChallengeReply>, Status> {
        let machine = convert::machine_id(&request.into_inner().machine_id)?;
        self.wanted(machine).await?;
        let nonce = self.core.entropy.bytes::<32>().map_err(|e| Status::internal(e.to_string()))?.to_vec();
        let now = self.core.clock.mono_ms();
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        nonces.retain(|_, (_, at)| *at + NONCE_MS > now);
        if nonces.len() >= NONCES {
            return Err(Status::resource_exhausted("too many challenges are open; try again in a minute"));
        }
        nonces.insert(nonce.clone(), (machine, now));
        Ok(Response::new(v1::ChallengeReply { nonce }))
    }

    async fn rejoin(&self, request: Request<v1::RejoinRequest>) -> Result<Response<v1::Certificate>, Status> {
        let core = &self.core;
        let ask = request.into_inner();
        let machine = convert::machine_id(&ask.machine_id)?;
        if ask.csr.len() > CSR_LIMIT || ask.signature.len() > 256 || ask.nonce.len() > 64 {
            return Err(Status::invalid_argument("a field is too long"));
        }
        let open = {
            let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
            nonces.remove(&ask.nonce)
        };
        let fresh = open.is_some_and(|(id, at)| id == machine && at + NONCE_MS > core.clock.mono_ms());
        if !fresh {
            return Err(Status::permission_denied("the challenge is unknown or too old"));
        }
        self.wanted(machine).await?;
        let bound: Versioned<BoundKey> = core.load(&machine.to_string()).await?.ok_or_else(refused)?;
        let spki = pki::csr_public_key(&ask.csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if pki::sha256_hex(&spki) != bound.body.thumbprint {
            return Err(Status::permission_denied("another key is bound to this machine"));
        }
        pki::verify_rejoin(&spki, &ask.nonce, &ask.signature)
            .map_err(|e| Status::permission_denied(e.to_string()))?;
        self.certificate(machine, &ask.csr).await
    }
}
