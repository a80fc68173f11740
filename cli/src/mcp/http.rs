//! The protocol over HTTP, on this computer alone. Whoever asks must know the
//! token, which lies in a file that only its owner can read and stands in no
//! argument list; pages in a browser are refused by their `Origin`, and names
//! that were made to lead here by their `Host`.

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use http::header::{AUTHORIZATION, CONNECTION, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::server::Server;
use super::shelf::Shelf;
use super::stdio::LINE;
use crate::app::Context;
use crate::exit_code::{ExitCode, Failure};

/// Where it answers.
const PATH: &str = "/mcp";
/// Connections at once; further ones wait in the system's queue.
const CONNECTIONS: usize = 64;
/// Headers come within this: whoever is silent, with the token or without, holds a
/// place of others no longer.
const HEADERS: Duration = Duration::from_secs(2);
/// The token's file in the shelf, where none is named.
const FILE: &str = "http-token";
/// The shortest token.
const SHORTEST: usize = 32;

type Answer = Response<BoxBody<Bytes, Infallible>>;
type Service = StreamableHttpService<Server, LocalSessionManager>;

/// The token; never shown.
#[derive(Clone)]
pub(super) struct Token(Arc<blake3::Hash>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// From its file, which is made where there is none.
    pub(super) fn of(home: &Path, file: Option<&Path>) -> Result<(Self, PathBuf), Failure> {
        let (shelf, name) = match file {
            None => (Shelf::open(home)?, FILE.to_owned()),
            Some(file) => Shelf::around(file)?,
        };
        let path = shelf.path(&name);
        let failed = |why: String| Failure::new(ExitCode::CannotWrite, format!("{}: {why}", path.display()));
        let _held = shelf.hold().map_err(|error| failed(error.to_string()))?;
        let read = shelf.read(&name).map_err(|error| {
            failed(error.to_string()).help(format!("it must be yours alone: chmod 600 {}", path.display()))
        })?;
        let text = match read {
            Some(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            None => {
                let drawn = proto::pki::random::<32>().map_err(|error| failed(error.to_string()))?;
                let text = HEXLOWER.encode(&drawn);
                shelf.write(&name, text.as_bytes()).map_err(|error| failed(error.to_string()))?;
                text
            }
        };
        if text.len() < SHORTEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(failed(format!("a token has at least {SHORTEST} printed characters"))
                .help("delete the file: a new one is made"));
        }
        Ok((Self(Arc::new(blake3::hash(text.as_bytes()))), path))
    }

    /// Whether these headers hold it. Hashes are compared, in constant time.
    fn allows<B>(&self, request: &Request<B>) -> bool {
        let mut given = request.headers().get_all(AUTHORIZATION).iter();
        let (Some(one), None) = (given.next(), given.next()) else { return false };
        let bearer = one.to_str().ok().and_then(|text| text.split_once(' '));
        bearer.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && blake3::hash(token.trim().as_bytes()) == *self.0
        })
    }
}

fn refusal(status: StatusCode, why: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(why.to_owned())).boxed());
    *answer.status_mut() = status;
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        // Who does not know it keeps no place.
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

async fn respond(service: Service, token: Token, request: Request<Incoming>) -> Result<Answer, Infallible> {
    if !token.allows(&request) {
        return Ok(refusal(StatusCode::UNAUTHORIZED, "the token is missing or wrong\n"));
    }
    if request.uri().path() != PATH {
        return Ok(refusal(StatusCode::NOT_FOUND, "MCP is served at /mcp\n"));
    }
    Ok(service.handle(request).await)
}

/// Serves until it is told to end.
///
/// # Errors
/// Where the port is taken, or the token's file is no good.
pub(super) async fn serve(
    ctx: &Context,
    server: Server,
    port: u16,
    (token, file): (Token, PathBuf),
) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let at: SocketAddr = listener.local_addr()?;
    let ending = CancellationToken::new();
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts([at.to_string(), format!("localhost:{}", at.port())])
        .enforce_origin_validation()
        .with_max_request_body_bytes(LINE)
        .with_cancellation_token(ending.child_token());
    let service = StreamableHttpService::new(move || Ok(server.clone()), Arc::default(), config);
    ctx.printer.report(&format!("outlast: MCP at http://{at}{PATH}; the token is in {}", file.display()));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await?;
            anyhow::Ok((place, listener.accept().await))
        };
        let (place, stream) = tokio::select! {
            next = next => next?,
            Some(_) = connections.join_next() => continue,
            _ = tokio::signal::ctrl_c() => break,
            _ = end.recv() => break,
        };
        let Ok((stream, _)) = stream else { continue };
        let (service, token) = (service.clone(), token.clone());
        connections.spawn(async move {
            let answer = service_fn(move |request| respond(service.clone(), token.clone(), request));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            if let Err(error) = served {
                tracing::debug!("a connection: {error}");
            }
            drop(place);
        });
    }
    ending.cancel();
    connections.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn asks(value: &str) -> Request<()> {
        Request::builder().header(AUTHORIZATION, value).body(()).unwrap()
    }

    #[test]
    fn the_token_is_made_once_private_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (token, file) = Token::of(dir.path(), None).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!((text.len(), std::fs::metadata(&file).unwrap().permissions().mode() & 0o777), (64, 0o600));
        assert!(token.allows(&asks(&format!("Bearer {text}"))));
        assert!(Token::of(dir.path(), None).unwrap().0.allows(&asks(&format!("bearer {text}"))));
        for bad in ["", "Bearer", "Bearer x", &format!("Basic {text}"), &text, &format!("Bearer {text}x")] {
            assert!(!token.allows(&asks(bad)), "{bad}");
        }
        assert!(!token.allows(&Request::new(())));
        assert!(!format!("{token:?}").contains(&text));
    }

    #[test]
    fn who_does_not_know_the_token_keeps_no_connection() {
        let refused = refusal(StatusCode::UNAUTHORIZED, "no");
        assert_eq!(refused.headers().get(CONNECTION).unwrap(), "close");
        assert!(refusal(StatusCode::NOT_FOUND, "no").headers().get(CONNECTION).is_none());
    }

    #[test]
    fn a_file_that_others_can_read_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "a".repeat(64)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Token::of(dir.path(), Some(&file)).unwrap_err().help[0].contains("chmod 600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Token::of(dir.path(), Some(&file)).is_ok());
        std::fs::write(&file, "short").unwrap();
        assert!(Token::of(dir.path(), Some(&file)).is_err());
    }
}
