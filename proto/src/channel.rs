//! Client channels: over a direct dial, or over any byte stream that was
//! handed in (a link through SSH, a simulated network). TLS, timeouts and
//! keepalives are the same on all of them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
/// A client connection.
pub use tonic::transport::Channel;
use tonic::transport::{Endpoint, Uri};

/// A connection must be up, TLS included, by then.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(10);
/// Unacknowledged bytes end a connection after this long.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes that may wait in the kernel unsent: what is written later and more
/// urgent, a ping or a heartbeat, waits behind no more than these.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 64 << 10;

/// A dead peer is noticed by bytes that nobody acknowledges. A lane that
/// carries little sends again at a steady pace, not ever more rarely: after a
/// cut it is heard within a second and not after as long as the cut took.
#[cfg(target_os = "linux")]
fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    // Not on every kernel, and only faster with them.
    let _ = socket.set_tcp_thin_linear_timeouts(true);
    let _ = socket.set_tcp_notsent_lowat(UNSENT);
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

#[cfg(not(target_os = "linux"))]
fn tune(_stream: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// Why no channel came up. The text says which stage failed.
#[derive(Debug, thiserror::Error)]
#[error("no connection to {to}")]
pub struct ConnectError {
    /// What was dialled.
    pub to: String,
    /// The cause.
    #[source]
    pub source: tonic::transport::Error,
}

fn endpoint() -> Endpoint {
    // The URI only fills the :authority header; the connector decides where
    // bytes go and TLS decides who answers.
    Endpoint::from(Uri::from_static("http://hub.outlast.internal"))
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
}

/// Opens a channel over whatever `dial` returns. `dial` is called again when
/// the channel must reconnect.
///
/// # Errors
/// Where the first connection does not come up.
pub async fn over<D, F, S>(
    to: &str,
    dial: D,
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Channel, ConnectError>
where
    D: Fn() -> F + Send + Sync + Clone + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    endpoint()
        .connect_with_connector(connector(dial, tls, name))
        .await
        .map_err(|source| ConnectError { to: to.to_owned(), source })
}

/// As [`over`], connected when it is first asked, and not before: for a way
/// that may come up later than others.
pub fn later<D, F, S>(dial: D, tls: Arc<ClientConfig>, name: ServerName<'static>) -> Channel
where
    D: Fn() -> F + Send + Sync + Clone + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    endpoint().connect_with_connector_lazy(connector(dial, tls, name))
}

type Secured<S> = TokioIo<tokio_rustls::client::TlsStream<S>>;
type Connecting<S> = Pin<Box<dyn Future<Output = io::Result<Secured<S>>> + Send>>;

/// Dials, and speaks TLS there, within the time that a connection may take.
fn connector<D, F, S>(
    dial: D,
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> impl tower::Service<Uri, Response = Secured<S>, Error = io::Error, Future = Connecting<S>> + Send
where
    D: Fn() -> F + Send + Sync + Clone + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tower::service_fn(move |_: Uri| {
        let (dial, tls, name) = (dial.clone(), TlsConnector::from(tls.clone()), name.clone());
        let connecting: Connecting<S> = Box::pin(async move {
            let secured = async { tls.connect(name, dial().await?).await };
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, secured)
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time"))??;
            Ok(TokioIo::new(stream))
        });
        connecting
    })
}

/// Dials the first of `endpoints` (`host:port`) that answers.
///
/// # Errors
/// The last endpoint's failure where none answers.
pub async fn dial(
    endpoints: &[String],
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Channel, ConnectError> {
    let list: Arc<[String]> = endpoints.into();
    let to = endpoints.join(", ");
    over(&to, move || connect_first(list.clone()), tls, name).await
}

/// Opens a TCP connection to the first of `endpoints` that answers.
///
/// # Errors
/// The last failure where none answers.
pub async fn connect_first(endpoints: Arc<[String]>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no endpoint is known");
    for endpoint in endpoints.iter() {
        let addresses = match crate::resolve::addresses(endpoint).await {
            Ok(list) => list,
            Err(error) => {
                last = error;
                continue;
            }
        };
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    tune(&stream)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}
