//! The right to join of a machine that is reached over SSH: made when it can be
//! handed over, since only its hash is kept, and made anew at each try, so
//! that one that was cut off on its way is worth nothing. Once used it stays as
//! it is: the machine has an identity.

use std::fmt;

use lifecycle::MachineId;
use serde_json::json;

use crate::core::{Changes, Core, CoreError};
use crate::execute::SELF;
use crate::model::{JoinRight, Machine, Versioned};

/// How long one is worth something.
const LIFE_MS: u64 = 600_000;

/// A one-time secret on its way; shown to nobody.
pub(super) struct JoinSecret(String);

impl JoinSecret {
    /// For the machine's ears.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(..)")
    }
}

/// A fresh secret, whose hash is committed; `None`: it has joined already.
///
/// # Errors
/// Where the store fails, or the machine is wanted no more.
pub(super) async fn mint(core: &Core, id: MachineId) -> Result<Option<JoinSecret>, CoreError> {
    for _ in 0..8 {
        let machine: Versioned<Machine> = core.need(&id.to_string()).await?;
        if !super::is_reached(&machine.body.status) {
            return Err(CoreError::Impossible("the machine is not wanted any more".into()));
        }
        let before: Option<Versioned<JoinRight>> = core.load(&id.to_string()).await?;
        if before.as_ref().is_some_and(|right| right.body.used_by.is_some()) {
            return Ok(None);
        }
        let secret = data_encoding::BASE32_NOPAD.encode(&core.entropy.bytes::<32>()?).to_lowercase();
        let right = JoinRight {
            machine: id,
            secret_sha256: proto::pki::sha256_hex(secret.as_bytes()),
            expires_ms: core.clock.wall_ms() + LIFE_MS,
            used_by: None,
            used_ms: 0,
        };
        let right = Versioned { version: before.and_then(|row| row.version), body: right };
        // A machine that is released meanwhile, or joins, changes one of these.
        let changes = Changes::default().put(&right).expect(&machine).note(
            core,
            SELF,
            "join-right",
            id,
            Some(machine.body.run),
            json!({}),
        );
        if core.commit(changes).await? {
            return Ok(Some(JoinSecret(secret)));
        }
    }
    Err(CoreError::Contended)
}

/// Whether a machine has used its right.
///
/// # Errors
/// Where the store fails.
pub(super) async fn joined(core: &Core, id: MachineId) -> Result<bool, CoreError> {
    let right: Option<Versioned<JoinRight>> = core.load(&id.to_string()).await?;
    Ok(right.is_some_and(|right| right.body.used_by.is_some()))
}
