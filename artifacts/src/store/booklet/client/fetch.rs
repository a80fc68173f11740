//! Reads what is behind an address: one request per connection, a bounded head,
//! and a body that is handed out piece by piece, never kept. No redirect is
//! followed here: whoever asks decides what goes where. A token is sent to the
//! address that it was given for, and is never shown.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Dial, LONGEST_HEAD, SignedClient, Target, trusting};
use crate::store::trouble::Trouble;

/// What is asked.
pub struct Ask<'a> {
    /// Only the head of the answer is wanted.
    pub head_only: bool,
    /// `http://` or `https://`.
    pub url: &'a str,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<&'a str>,
    /// The first byte that is wanted; 0 asks for all.
    pub from: u64,
}

/// Asks for what is behind addresses.
pub struct Fetcher {
    client: SignedClient,
    /// For each piece of an answer.
    patience: Duration,
}

impl Fetcher {
    /// One that trusts the authorities in these texts of PEM.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, pems: &[Vec<u8>], patience: Duration) -> Self {
        Self { client: SignedClient::new(dial, trusting(pems)), patience }
    }

    /// Sends a request and reads the head of its answer.
    ///
    /// # Errors
    /// Where nobody answers, or not in HTTP.
    pub async fn ask(&self, ask: &Ask<'_>) -> Result<Response, Trouble> {
        let to = Target::parse(ask.url)?;
        let head = request(ask, &to)?;
        let asking = async {
            let mut stream = self.client.connect(&to).await?;
            stream.write_all(head.as_bytes()).await.map_err(|_| Trouble::Torn)?;
            stream.flush().await.map_err(|_| Trouble::Torn)?;
            let mut response = read_head(stream).await?;
            response.patience = self.patience;
            if ask.head_only {
                response.left = Left::Bytes(0);
            }
            Ok(response)
        };
        timeout(self.patience, asking).await.map_err(|_| Trouble::TimedOut)?
    }
}

fn request(ask: &Ask<'_>, to: &Target<'_>) -> Result<String, Trouble> {
    let method = if ask.head_only { "HEAD" } else { "GET" };
    let (path, authority) = (to.path, to.authority);
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: outlast\r\nAccept-Encoding: identity\r\n"
    );
    if let Some(token) = ask.token {
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Trouble::Senseless("the token is none that can be sent".into()));
        }
        head.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    if ask.from > 0 {
        head.push_str(&format!("Range: bytes={}-\r\n", ask.from));
    }
    head.push_str("Connection: close\r\n\r\n");
    Ok(head)
}

/// How much of a body is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Bytes(u64),
    /// Within a piece of a chunked body.
    Chunk(u64),
    /// Before the length of the next piece.
    Between,
    UntilClosed,
}

/// An answer.
pub struct Response {
    /// Its status.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// Read and not handed out.
    ahead: Vec<u8>,
    left: Left,
    stream: Box<dyn AsyncRead + Send + Unpin>,
    patience: Duration,
}

impl Response {
    /// A header by its name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A header that is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.trim().parse().ok()
    }

    /// The next bytes of the body; empty at its end.
    ///
    /// # Errors
    /// Where the connection ends before the body, or stands still.
    pub async fn next(&mut self) -> Result<Vec<u8>, Trouble> {
        loop {
            match self.left {
                Left::Bytes(0) => return Ok(Vec::new()),
                Left::Between => {
                    let Some(len) = self.chunk_length().await? else {
                        self.left = Left::Bytes(0);
                        return Ok(Vec::new());
                    };
                    self.left = Left::Chunk(len);
                }
                Left::Chunk(0) => {
                    // The end of the line that follows a piece.
                    if self.line().await? != b"" {
                        return Err(Trouble::Senseless("no chunked body".into()));
                    }
                    self.left = Left::Between;
                }
                Left::Bytes(left) => {
                    let bytes = self.bytes(left).await?;
                    self.left = Left::Bytes(left - bytes.len() as u64);
                    return if bytes.is_empty() { Err(Trouble::Torn) } else { Ok(bytes) };
                }
                Left::Chunk(left) => {
                    let bytes = self.bytes(left).await?;
                    self.left = Left::Chunk(left - bytes.len() as u64);
                    return if bytes.is_empty() { Err(Trouble::Torn) } else { Ok(bytes) };
                }
                Left::UntilClosed => return self.bytes(u64::MAX).await,
            }
        }
    }

    /// The whole body, of at most `most` bytes.
    ///
    /// # Errors
    /// As [`Response::next`], and where it is longer.
    pub async fn whole(mut self, most: usize) -> Result<Vec<u8>, Trouble> {
        let mut body = Vec::new();
        loop {
            let bytes = self.next().await?;
            if bytes.is_empty() {
                return Ok(body);
            }
            if body.len() + bytes.len() > most {
                return Err(Trouble::Senseless(format!("an answer of more than {most} bytes")));
            }
            body.extend(bytes);
        }
    }

    async fn bytes(&mut self, most: u64) -> Result<Vec<u8>, Trouble> {
        if self.ahead.is_empty() {
            self.read().await?;
        }
        let take = self.ahead.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let rest = self.ahead.split_off(take);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    /// Reads more ahead; `false` at the end.
    async fn read(&mut self) -> Result<bool, Trouble> {
        let mut piece = vec![0; super::PIECE];
        let read = timeout(self.patience, self.stream.read(&mut piece)).await;
        let read = read.map_err(|_| Trouble::TimedOut)?.map_err(|_| Trouble::Torn)?;
        self.ahead.extend_from_slice(&piece[..read]);
        Ok(read > 0)
    }

    /// A line without its end.
    async fn line(&mut self) -> Result<Vec<u8>, Trouble> {
        loop {
            if let Some(end) = self.ahead.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.ahead.drain(..=end).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            if self.ahead.len() > LONGEST_HEAD {
                return Err(Trouble::Senseless("no chunked body".into()));
            }
            if !self.read().await? {
                return Err(Trouble::Torn);
            }
        }
    }

    /// The length of the next piece; `None`: there is none more.
    async fn chunk_length(&mut self) -> Result<Option<u64>, Trouble> {
        let line = self.line().await?;
        let text = String::from_utf8_lossy(&line);
        let digits = text.split(';').next().unwrap_or_default().trim();
        let sense = |_| Trouble::Senseless("no chunked body".into());
        let len = u64::from_str_radix(digits, 16).map_err(sense)?;
        Ok((len > 0).then_some(len))
    }
}

async fn read_head(mut stream: Box<dyn super::Stream>) -> Result<Response, Trouble> {
    let mut bytes = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 96];
        let mut head = httparse::Response::new(&mut headers);
        match head.parse(&bytes) {
            Ok(httparse::Status::Complete(end)) => {
                let status = head.code.unwrap_or_default();
                let text = |h: &httparse::Header<'_>| {
                    (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).trim().to_owned())
                };
                let headers: Vec<(String, String)> = head.headers.iter().map(text).collect();
                if (100..200).contains(&status) {
                    bytes.drain(..end);
                    continue;
                }
                let ahead = bytes.split_off(end);
                let patience = Duration::ZERO;
                let mut response = Response {
                    status,
                    headers,
                    ahead,
                    left: Left::UntilClosed,
                    stream: Box::new(stream),
                    patience,
                };
                let chunked = response.header("transfer-encoding").map(str::to_ascii_lowercase);
                response.left = match (chunked.as_deref(), response.number("content-length")) {
                    _ if matches!(status, 204 | 304) => Left::Bytes(0),
                    (Some("chunked"), _) => Left::Between,
                    (Some(_), _) => return Err(Trouble::Senseless("a body in a form not asked for".into())),
                    (None, Some(len)) => Left::Bytes(len),
                    (None, None) => Left::UntilClosed,
                };
                return Ok(response);
            }
            Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => {}
            _ => return Err(Trouble::Senseless("no answer of HTTP".into())),
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return Err(Trouble::Torn),
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

/// Where a redirect leads: a whole address, or a path at the same host.
#[must_use]
pub fn redirected(from: &str, location: &str) -> Option<String> {
    if location.len() > 8_192 || !location.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    if location.starts_with("https://") || location.starts_with("http://") {
        return Target::split(location).map(|_| location.to_owned());
    }
    if !location.starts_with('/') || location.starts_with("//") {
        return None;
    }
    origin(from).map(|origin| format!("{origin}{location}"))
}

/// The scheme, host and port of an address: a token is for these.
#[must_use]
pub fn origin(url: &str) -> Option<&str> {
    let host = url.find("://")? + 3;
    Target::split(url)?;
    Some(&url[..host + url[host..].find('/')?])
}

/// Whether a token may be sent there: nobody on the way reads it.
#[must_use]
pub fn is_private(url: &str) -> bool {
    let own =
        |host: &str| host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    Target::split(url).is_some_and(|to| to.tls || own(to.host))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(text: &'static str) -> Result<String, Trouble> {
        let (mut far, near) = tokio::io::duplex(64);
        let answer = async move {
            for piece in text.as_bytes().chunks(7) {
                if far.write_all(piece).await.is_err() {
                    break;
                }
            }
        };
        let reading = async {
            let mut response = read_head(Box::new(near)).await?;
            response.patience = Duration::from_secs(9);
            response.whole(20).await
        };
        let (_, read) = tokio::join!(answer, reading);
        read.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[tokio::test]
    async fn bodies_come_whole_or_not_at_all() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.unwrap(), "hello");
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap(), "hello");
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        assert_eq!(body(chunked).await.unwrap(), "hello");
        for torn in [
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
            "HTTP/1.1 200",
        ] {
            assert_eq!(body(torn).await, Err(Trouble::Torn), "{torn}");
        }
        for bad in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n012345678901234567890123456789",
        ] {
            assert!(matches!(body(bad).await, Err(Trouble::Senseless(_))), "{bad}");
        }
    }

    #[test]
    fn a_token_goes_where_it_belongs() {
        let from = "https://hub/a/b?x";
        assert_eq!(redirected(from, "/c").unwrap(), "https://hub/c");
        assert_eq!(redirected(from, "https://cdn/x?sig").unwrap(), "https://cdn/x?sig");
        for bad in ["//cdn/x", "ftp://x/", "c", "https://u@cdn/x", "/a b", "https://cdn"] {
            assert!(redirected(from, bad).is_none(), "{bad}");
        }
        assert_eq!(origin(from), Some("https://hub"));
        assert_ne!(origin("https://hub:8443/a"), origin(from));
        assert!(is_private(from) && is_private("http://127.0.0.1:9/x") && is_private("http://localhost/x"));
        assert!(!is_private("http://hub/x"));
        let ask = Ask { head_only: true, url: "http://h/p", token: Some("t\r\nX: y"), from: 3 };
        assert!(request(&ask, &Target::parse(ask.url).unwrap()).is_err());
        let ask = Ask { token: Some("t"), ..ask };
        let text = request(&ask, &Target::parse(ask.url).unwrap()).unwrap();
        assert!(text.starts_with("HEAD /p HTTP/1.1\r\nHost: h\r\n") && text.contains("Range: bytes=3-\r\n"));
    }
}
