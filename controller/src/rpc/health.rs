//! What a machine last said of its health, for people and assistants.

use proto::v1;
use tonic::Status;

use crate::core::Core;

/// Answers one request.
///
/// # Errors
/// As a status for the peer.
pub async fn health(_core: &Core, _asked: v1::HealthOf) -> Result<v1::HealthReply, Status> {
    Err(Status::unimplemented("not served"))
}
