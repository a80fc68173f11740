//! Servers: one for agents, one for operators, one for joining. Settings that
//! the library leaves open are set here, once: keepalives, stream and message
//! limits.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Server;
use tonic::transport::server::Router;

use crate::MESSAGE_LIMIT;
use crate::accept::Incoming;
use crate::v1::agent_link_server::{AgentLink, AgentLinkServer};
use crate::v1::artifact_gateway_server::{ArtifactGateway, ArtifactGatewayServer};
use crate::v1::join_server::{Join, JoinServer};
use crate::v1::machine_health_server::{MachineHealth, MachineHealthServer};
use crate::v1::operator_server::{Operator, OperatorServer};

/// A server that could not go on.
pub use tonic::transport::Error as ServeError;

const PING: Duration = Duration::from_secs(10);

fn builder(streams: u32) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING))
        .max_concurrent_streams(Some(streams))
        .initial_stream_window_size(Some(1 << 20))
        .initial_connection_window_size(Some(4 << 20))
}

async fn run<S, F>(router: Router, incoming: Incoming<S>, stop: F) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()>,
{
    router.serve_with_incoming_shutdown(incoming, stop).await
}

/// Serves agents until `stop`.
///
/// # Errors
/// Where the server fails as a whole.
pub async fn agents<S, L, G, F>(incoming: Incoming<S>, link: L, gateway: G, stop: F) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    L: AgentLink,
    G: ArtifactGateway,
    F: Future<Output = ()>,
{
    let (health, service) = tonic_health::server::health_reporter();
    health.set_serving::<AgentLinkServer<L>>().await;
    let router = builder(16)
        .add_service(service)
        .add_service(AgentLinkServer::new(link).max_decoding_message_size(MESSAGE_LIMIT))
        .add_service(ArtifactGatewayServer::new(gateway).max_decoding_message_size(MESSAGE_LIMIT));
    run(router, incoming, stop).await
}

/// Serves operators until `stop`.
///
/// # Errors
/// Where the server fails as a whole.
pub async fn operators<S, O, G, F>(
    incoming: Incoming<S>,
    operator: O,
    gateway: G,
    stop: F,
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    O: Operator,
    G: ArtifactGateway,
    F: Future<Output = ()>,
{
    let (health, service) = tonic_health::server::health_reporter();
    health.set_serving::<OperatorServer<O>>().await;
    let router = builder(64)
        .add_service(service)
        .add_service(OperatorServer::new(operator).max_decoding_message_size(MESSAGE_LIMIT))
        .add_service(ArtifactGatewayServer::new(gateway).max_decoding_message_size(MESSAGE_LIMIT));
    run(router, incoming, stop).await
}

/// Serves what a machine says of itself until `stop`: the detailed service and
/// the standard one, both answered by `health`.
///
/// # Errors
/// Where the server fails as a whole.
pub async fn machine_health<S, H, F>(incoming: Incoming<S>, health: H, stop: F) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: MachineHealth + tonic_health::pb::health_server::Health + Clone,
    F: Future<Output = ()>,
{
    let standard = tonic_health::pb::health_server::HealthServer::new(health.clone());
    let router = builder(16)
        .add_service(standard.max_decoding_message_size(4 << 10))
        .add_service(MachineHealthServer::new(health).max_decoding_message_size(4 << 10));
    run(router, incoming, stop).await
}

/// Serves machines that join until `stop`.
///
/// # Errors
/// Where the server fails as a whole.
pub async fn join<S, J, F>(incoming: Incoming<S>, join: J, stop: F) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    J: Join,
    F: Future<Output = ()>,
{
    let router = builder(4).add_service(JoinServer::new(join).max_decoding_message_size(64 << 10));
    run(router, incoming, stop).await
}
