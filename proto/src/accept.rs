//! Accepts TLS connections with our own code, because the server library's
//! has no handshake timeout, no cap on pending handshakes and leaves session
//! resumption on. Works over any byte stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lifecycle::HubId;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

use crate::identity::{Peer, peer_of};

/// Handshakes under way at once; more wait in the listener's backlog.
pub const PENDING_HANDSHAKES: usize = 256;
/// A peer that has not finished its handshake by then is dropped.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// An accepted connection. `peer` is absent on the join listener only.
pub struct Accepted<S> {
    stream: TlsStream<S>,
    info: PeerInfo,
}

/// What handlers find among a request's extensions.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// The proven identity; `None` on the join listener.
    pub peer: Option<Peer>,
}

impl<S> Connected for Accepted<S> {
    type ConnectInfo = PeerInfo;
    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Accepted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Accepted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The accepted connections of one listener, as a stream for the server.
/// Dropping it ends the accepting.
pub struct Incoming<S> {
    ready: mpsc::Receiver<Accepted<S>>,
    _acceptor: JoinSet<()>,
}

impl<S> Stream for Incoming<S> {
    type Item = io::Result<Accepted<S>>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|next| next.map(Ok))
    }
}

/// The TCP connections of a listener. Small answers leave at once: without
/// that each would wait 40 ms for an acknowledgement that its peer holds back.
/// The server library sets this only where it accepts by itself.
pub fn tcp(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send + Unpin {
    TcpListenerStream::new(listener).map(|accepted| {
        let stream = accepted?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

/// Turns raw connections into accepted ones. With `hub`, a peer must present a
/// certificate that names exactly one identity of that hub.
pub fn incoming<S, R>(raw: R, config: Arc<ServerConfig>, hub: Option<HubId>) -> Incoming<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Stream<Item = io::Result<S>> + Send + Unpin + 'static,
{
    let (sender, ready) = mpsc::channel(16);
    let mut acceptor = JoinSet::new();
    acceptor.spawn(accept_all(raw, TlsAcceptor::from(config), hub, sender));
    Incoming { ready, _acceptor: acceptor }
}

async fn accept_all<S, R>(mut raw: R, tls: TlsAcceptor, hub: Option<HubId>, sender: mpsc::Sender<Accepted<S>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Stream<Item = io::Result<S>> + Send + Unpin + 'static,
{
    let slots = Arc::new(Semaphore::new(PENDING_HANDSHAKES));
    let mut handshakes = JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = match raw.next().await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                // Out of descriptors, or a peer that went away while waiting:
                // the next one may do better, but not at full speed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => return,
        };
        while handshakes.try_join_next().is_some() {}
        let (tls, sender) = (tls.clone(), sender.clone());
        handshakes.spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(stream, &tls, hub)).await {
                Ok(Ok(accepted)) => {
                    let _ = sender.send(accepted).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "a peer was refused"),
                Err(_) => tracing::debug!("a peer did not finish its handshake in time"),
            }
            drop(slot);
        });
    }
}

async fn handshake<S>(stream: S, tls: &TlsAcceptor, hub: Option<HubId>) -> io::Result<Accepted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = tls.accept(stream).await?;
    let peer = match hub {
        None => None,
        Some(hub) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let der = certificate.ok_or_else(|| io::Error::other("no client certificate"))?;
            Some(peer_of(der, hub).map_err(io::Error::other)?)
        }
    };
    Ok(Accepted { stream, info: PeerInfo { peer } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_answers_leave_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut accepted = tcp(listener);
        let _peer = TcpStream::connect(at).await.unwrap();
        let stream = accepted.next().await.unwrap().unwrap();
        assert!(stream.nodelay().unwrap());
    }
}
