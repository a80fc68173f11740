//! Sends one request per connection under a signed URL: no pool, no redirect,
//! no cookie, no copy of the body. Whoever answers is checked by TLS alone, and
//! what it says is bounded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::SignedUrl;
use super::writer::{Look, SignedRequests};
use crate::store::trouble::{Trouble, foreign};

pub mod fetch;

/// The longest head of an answer that is read.
const LONGEST_HEAD: usize = 16 << 10;

/// Written and read at once.
const PIECE: usize = 64 << 10;

/// A byte stream to a host.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens connections. How names are resolved is the machine's affair.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A connection to a host and port.
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>>;
}

/// Trusts every authority in these texts of PEM; `None` where there is none.
/// One that cannot be read is passed over: a system's collection has such.
#[must_use]
pub fn trusting(pems: &[Vec<u8>]) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in pems.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem)).flatten() {
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return None;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    Some(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()))
}

/// Puts and looks under signed URLs.
pub struct SignedClient {
    dial: Arc<dyn Dial>,
    tls: Option<Arc<ClientConfig>>,
    /// For an answer, besides the time that the bytes take.
    answer: Duration,
    /// A body may be this slow, in bytes per second.
    slowest: u64,
}

impl SignedClient {
    /// A client that trusts what `tls` trusts. Without it only URLs of plain
    /// HTTP are used, which whoever signed them chose.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { dial, tls, answer: Duration::from_secs(60), slowest: 64 << 10 }
    }

    /// The same with another limit for answers.
    #[must_use]
    pub fn with_answer(mut self, answer: Duration) -> Self {
        self.answer = answer;
        self
    }

    async fn connect(&self, to: &Target<'_>) -> Result<Box<dyn Stream>, Trouble> {
        let unreachable = |error: io::Error| Trouble::Unreachable(foreign(&error.to_string()));
        let stream = self.dial.dial(to.host, to.port).await.map_err(unreachable)?;
        if !to.tls {
            return Ok(stream);
        }
        let Some(tls) = &self.tls else {
            return Err(Trouble::Certificate("nothing is trusted on this machine".into()));
        };
        let name = ServerName::try_from(to.host.to_owned())
            .map_err(|_| Trouble::Senseless("the URL names no host".into()))?;
        match TlsConnector::from(tls.clone()).connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Trouble::Certificate(foreign(&error.to_string())))
            }
            Err(error) => Err(unreachable(error)),
        }
    }

    /// Sends a request and reads the head of its answer, perhaps before all of
    /// the request is written: a store refuses a put early.
    async fn exchange(&self, url: &SignedUrl, request: &Request<'_>) -> Result<Answer, Trouble> {
        let to = Target::parse(url.reveal())?;
        let stream = self.connect(&to).await?;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let head = request.head(&to);
        let writing = async {
            writer.write_all(head.as_bytes()).await?;
            for piece in request.body.chunks(PIECE) {
                writer.write_all(piece).await?;
            }
            writer.flush().await
        };
        let (status, length, rest) = {
            let reading = read_head(&mut reader);
            tokio::pin!(writing, reading);
            let early = tokio::select! {
                head = &mut reading => Some(head),
                // Whether it went well or not, the answer says what counts.
                _ = &mut writing => None,
            };
            match early {
                Some(head) => head?,
                None => reading.await?,
            }
        };
        Ok(Answer { status, length, rest, reader: Box::new(reader) })
    }

    fn limit(&self, bytes: usize) -> Duration {
        self.answer + Duration::from_secs(bytes as u64 / self.slowest)
    }
}

struct Request<'a> {
    method: &'a str,
    body: &'a [u8],
}

impl Request<'_> {
    fn head(&self, to: &Target<'_>) -> String {
        let Self { method, body } = self;
        let (path, authority) = (to.path, to.authority);
        let more = match *method {
            "PUT" => format!("If-None-Match: *\r\nContent-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: outlast\r\nAccept-Encoding: identity\r\n\
             {more}Connection: close\r\n\r\n"
        )
    }
}

/// Where a URL leads.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    tls: bool,
    authority: &'a str,
    host: &'a str,
    port: u16,
    path: &'a str,
}

impl<'a> Target<'a> {
    fn parse(url: &'a str) -> Result<Self, Trouble> {
        // It goes into a request as it is: nothing may end a line in it.
        let plain = url.bytes().all(|b| b.is_ascii_graphic());
        let parsed = plain.then(|| Self::split(url)).flatten();
        parsed.ok_or_else(|| Trouble::Senseless("a signed URL is malformed".into()))
    }

    fn split(url: &'a str) -> Option<Self> {
        let (tls, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://")?),
        };
        let (authority, path) = rest.split_at(rest.find('/')?);
        if authority.contains('@') {
            return None;
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, if tls { 443 } else { 80 }),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then_some(Self { tls, authority, host, port, path })
    }
}

struct Answer {
    status: u16,
    length: Option<u64>,
    /// The beginning of the body, read with the head.
    rest: Vec<u8>,
    reader: Box<dyn AsyncRead + Send + Unpin>,
}

impl Answer {
    /// Whether the body is exactly `bytes`.
    async fn is(mut self, bytes: &[u8]) -> Result<bool, Trouble> {
        match self.length {
            None => return Err(Trouble::Senseless("an answer without a length".into())),
            Some(length) if length != bytes.len() as u64 => return Ok(false),
            Some(_) => {}
        }
        if self.rest.len() > bytes.len() || self.rest != bytes[..self.rest.len()] {
            return Ok(false);
        }
        let mut buffer = vec![0; PIECE];
        for expected in bytes[self.rest.len()..].chunks(PIECE) {
            let piece = &mut buffer[..expected.len()];
            self.reader.read_exact(piece).await.map_err(|_| Trouble::Torn)?;
            if piece != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Status, length of the body, and what came of the body with the head.
async fn read_head(reader: &mut (impl AsyncRead + Unpin)) -> Result<(u16, Option<u64>, Vec<u8>), Trouble> {
    let mut bytes = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        match head.parse(&bytes) {
            Ok(httparse::Status::Complete(end)) => {
                let status = head.code.unwrap_or_default();
                // 100: a real answer follows.
                if (100..200).contains(&status) && status != 101 {
                    bytes.drain(..end);
                    continue;
                }
                let length = head.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
                let length = length.and_then(|h| std::str::from_utf8(h.value).ok()?.trim().parse().ok());
                return Ok((status, length, bytes.split_off(end)));
            }
            Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => {}
            _ => return Err(Trouble::Senseless("no answer of HTTP".into())),
        }
        let mut piece = [0; 2048];
        match reader.read(&mut piece).await {
            Ok(0) | Err(_) => return Err(Trouble::Torn),
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

#[async_trait]
impl SignedRequests for SignedClient {
    async fn put(&self, url: &SignedUrl, bytes: &[u8]) -> Result<u16, Trouble> {
        let request = Request { method: "PUT", body: bytes };
        let exchange = self.exchange(url, &request);
        let answer = tokio::time::timeout(self.limit(bytes.len()), exchange)
            .await
            .map_err(|_| Trouble::TimedOut)??;
        Ok(answer.status)
    }

    async fn look(&self, url: &SignedUrl, bytes: &[u8]) -> Result<Look, Trouble> {
        let looking = async {
            let answer = self.exchange(url, &Request { method: "GET", body: &[] }).await?;
            match answer.status {
                200 => Ok(if answer.is(bytes).await? { Look::Same } else { Look::Different }),
                404 => Ok(Look::Absent),
                status @ (408 | 429 | 500..=599) => Err(Trouble::Failing(status)),
                status => Ok(Look::Refused(status)),
            }
        };
        tokio::time::timeout(self.limit(bytes.len()), looking).await.map_err(|_| Trouble::TimedOut)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("https://s3.example/b/k?X=1%2F").unwrap();
        assert_eq!(
            (target.tls, target.host, target.port, target.path),
            (true, "s3.example", 443, "/b/k?X=1%2F")
        );
        let target = Target::parse("http://127.0.0.1:9000/b/k").unwrap();
        assert_eq!(
            (target.tls, target.host, target.port, target.authority),
            (false, "127.0.0.1", 9000, "127.0.0.1:9000")
        );
        assert_eq!(Target::parse("https://[::1]:9000/k").unwrap().host, "::1");
        assert_eq!(Target::parse("https://[::1]/k").unwrap().port, 443);
        for bad in
            ["ftp://a/b", "https://a", "https:///k", "https://u@a/k", "http://a/k\r\nX: y", "http://a:x/k"]
        {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn heads_are_bounded_and_interim_answers_skipped() {
        let head = |text: &'static str| async move { read_head(&mut text.as_bytes()).await };
        let good = head("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 412 X\r\ncontent-Length: 3\r\n\r\nabc").await;
        assert_eq!(good, Ok((412, Some(3), b"abc".to_vec())));
        assert_eq!(head("HTTP/1.1 200 OK\r\nConte").await, Err(Trouble::Torn));
        assert!(matches!(head("SSH-2.0-x\r\n").await, Err(Trouble::Senseless(_))));
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(LONGEST_HEAD));
        assert!(matches!(read_head(&mut endless.as_bytes()).await, Err(Trouble::Senseless(_))));
    }
}
