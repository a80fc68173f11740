//! Translates between the wire and the core; decides nothing. One file per
//! service. Who a peer is comes from its certificate alone.

mod bill;
mod booklet;
mod foreign;
pub mod gateway;
pub mod health;
pub mod join;
pub mod lineage;
pub mod logs;
pub mod metrics;
mod notice;
mod offers;
pub mod operator;
mod pin;
mod recommend;
pub mod select;
pub mod session;
mod spending;
mod unseal;
pub mod upgrade;
pub mod views;
pub mod why;

use lifecycle::MachineId;
use proto::accept::PeerInfo;
use proto::identity::{Identity, Peer};
use tonic::Status;

use crate::core::{Core, CoreError};
use crate::reconcile::chain;

/// A certificate that ran out stops counting this long after, at the latest.
fn current(core: &Core, peer: &Peer) -> Result<(), Status> {
    let now = i64::try_from(core.clock.wall_ms() / 1_000).unwrap_or(i64::MAX);
    if peer.not_after < now {
        return Err(Status::unauthenticated("the certificate has expired; rejoin with the bound key"));
    }
    Ok(())
}

fn peer_of<T>(request: &tonic::Request<T>) -> Result<Peer, Status> {
    request
        .extensions()
        .get::<PeerInfo>()
        .and_then(|info| info.peer.clone())
        .ok_or_else(|| Status::unauthenticated("no client certificate"))
}

/// The operator that asks.
fn operator_of<T>(core: &Core, request: &tonic::Request<T>) -> Result<String, Status> {
    let peer = peer_of(request)?;
    current(core, &peer)?;
    match peer.identity {
        Identity::Operator(name) => Ok(format!("operator:{name}")),
        other => Err(Status::permission_denied(format!("a {other} may not do what operators do"))),
    }
}

/// The machine that asks.
fn machine_of<T>(core: &Core, request: &tonic::Request<T>) -> Result<(MachineId, Peer), Status> {
    let peer = peer_of(request)?;
    current(core, &peer)?;
    match peer.identity {
        Identity::Machine(id) => Ok((id, peer)),
        ref other => Err(Status::permission_denied(format!("a {other} may not do what machines do"))),
    }
}

impl From<CoreError> for Status {
    fn from(error: CoreError) -> Self {
        let text = chain(&error);
        match error {
            CoreError::Impossible(_) => Self::failed_precondition(text),
            CoreError::Refused(_) => Self::failed_precondition(text),
            CoreError::Contended => Self::aborted(text),
            CoreError::Store(crate::store::StoreError::Full) => Self::resource_exhausted(text),
            CoreError::Files(ref e) if e.is_full() => Self::resource_exhausted(text),
            CoreError::Objects(artifacts::StoreError::Full(_)) => Self::resource_exhausted(text),
            // The same question may be answered later, however it is put.
            CoreError::Objects(artifacts::StoreError::Remote(_)) => Self::unavailable(text),
            _ => Self::internal(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_cannot_be_asked_now_is_asked_again_whatever_it_says() {
        for words in ["it did not answer in time", "the bucket does not exist", "x"] {
            let status = Status::from(CoreError::from(artifacts::StoreError::Remote(words.into())));
            assert_eq!(status.code(), tonic::Code::Unavailable);
            assert!(status.message().contains(words) && proto::gateway::passing(&status), "{status:?}");
        }
        let full = Status::from(CoreError::from(artifacts::StoreError::Full("quota".into())));
        assert_eq!(full.code(), tonic::Code::ResourceExhausted);
    }
}
