//! The failure capsule of an attempt.

use proto::v1;
use tonic::Status;

use crate::core::Core;

/// Answers one request.
///
/// # Errors
/// As a status for the peer.
pub async fn why(_core: &Core, _asked: v1::WhyRequest) -> Result<v1::WhyReply, Status> {
    Err(Status::unimplemented("not served"))
}
