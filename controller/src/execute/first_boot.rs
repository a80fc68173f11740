//! What a machine that dials is made with: its right to join, and the script
//! that holds that right's secret. The secret is kept nowhere else.

use crate::bootstrap::{self, FirstBoot};
use crate::core::{Core, CoreError};
use crate::model::{JoinRight, Machine, Versioned};

/// The provider whose machines are directories of this computer.
const LOCAL: &str = "local";
/// A join secret lives this much longer than the boot deadline.
const JOIN_MARGIN_MS: u64 = 600_000;

/// The right to join, once, and the script that holds its secret.
pub(super) fn first_boot(
    core: &Core,
    machine: &Machine,
    now: u64,
) -> Result<(Versioned<JoinRight>, String), CoreError> {
    let secret = data_encoding::BASE32_NOPAD.encode(&core.entropy.bytes::<32>()?).to_lowercase();
    let right = Versioned::new(JoinRight {
        machine: machine.id,
        secret_sha256: proto::pki::sha256_hex(secret.as_bytes()),
        expires_ms: now + core.clocks.boot_deadline_ms + JOIN_MARGIN_MS,
        used_by: None,
        used_ms: 0,
    });
    let script = bootstrap::render(&FirstBoot {
        machine_id: &machine.id.to_string(),
        hub_id: &core.hub.to_string(),
        endpoints: &core.boot.endpoints,
        join_endpoints: &core.boot.join_endpoints,
        join_secret: &secret,
        ca_spki_sha256: &core.authority.pin()?,
        agent_exe: &core.boot.agent_exe,
        cache_dir: &core.boot.cache_dir,
        state_dir: None,
        // A machine of this computer is asked on loopback; others through the
        // controller.
        health_listen: (machine.provider == LOCAL).then_some("127.0.0.1:0"),
    })
    .map_err(|e| CoreError::Impossible(format!("first-boot data cannot be rendered: {e}")))?;
    Ok((right, script))
}
