//! Replaces the agent's program on a machine.

use proto::v1;
use tonic::Status;

use crate::core::Core;

/// Answers one request.
///
/// # Errors
/// As a status for the peer.
pub async fn upgrade(
    _core: &Core,
    _actor: &str,
    _asked: v1::UpgradeRequest,
) -> Result<v1::UpgradeReply, Status> {
    Err(Status::unimplemented("not served"))
}
