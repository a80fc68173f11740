//! One small question to a metadata service: HTTP/1.1 in the clear over one
//! connection to one address. No name is looked up, no redirect followed, no
//! proxy used, and an answer is read up to a bound of bytes and time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest answer, head and all.
const LONGEST: usize = 64 << 10;
const HEADERS: usize = 64;
/// Who is not there says nothing: the address is one hop away.
const CONNECT: Duration = Duration::from_secs(1);

/// Where a metadata service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(SocketAddr);

impl Place {
    /// The address that all clouds use.
    pub const CLOUD: Self =
        Self(SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(169, 254, 169, 254), 80)));
    /// Names another address, in the environment of the agent itself: for
    /// doubles of the services, and never from a program's environment.
    const OTHER: &str = "OUTLAST_METADATA_ADDRESS";

    /// Where this machine's service is.
    #[must_use]
    pub fn of_environment() -> Self {
        let other = std::env::var(Self::OTHER).ok();
        other.and_then(|text| text.parse().ok()).map_or(Self::CLOUD, Self)
    }
}

/// A question.
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) header: (&'a str, &'a str),
    pub(super) body: &'a [u8],
    pub(super) patience: Duration,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) etag: Option<String>,
}

/// Asks once.
///
/// # Errors
/// Where nobody answers in time, or not in HTTP.
pub(super) async fn ask(place: Place, ask: &Ask<'_>) -> io::Result<Answer> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(place.0)).await.map_err(late)??;
    tokio::time::timeout(ask.patience, exchange(stream, ask)).await.map_err(late)?
}

async fn exchange(mut stream: TcpStream, ask: &Ask<'_>) -> io::Result<Answer> {
    let Ask { method, host, path, header: (name, value), body, .. } = ask;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: outlast\r\n{name}: {value}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut bytes = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        let n = stream.read(&mut piece).await?;
        bytes.extend_from_slice(&piece[..n]);
        if bytes.len() > LONGEST {
            return Err(senseless("the answer is too long"));
        }
        if let Some(answer) = read(&bytes, n == 0)? {
            return Ok(answer);
        }
        if n == 0 {
            return Err(senseless("the answer ends early"));
        }
    }
}

fn senseless(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The answer, once it is whole. `over`: nothing more comes.
fn read(bytes: &[u8], over: bool) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(senseless("the answer is no HTTP")),
    };
    let field = |name: &str| {
        let found = head.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        found.and_then(|h| std::str::from_utf8(h.value).ok()).map(str::trim)
    };
    let (status, rest) = (head.code.unwrap_or(0), &bytes[length..]);
    let body = if field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        chunks(rest)?
    } else if let Some(length) = field("content-length") {
        let length: usize = length.parse().map_err(|_| senseless("its length is no number"))?;
        (rest.len() >= length).then(|| rest[..length].to_vec())
    } else {
        over.then(|| rest.to_vec())
    };
    let etag = field("etag").map(str::to_owned);
    Ok(body.map(|body| Answer { status, body, etag }))
}

/// A body in chunks, once the last one is there.
fn chunks(mut rest: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let (at, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(senseless("a chunk has no size")),
        };
        let size = usize::try_from(size).ok().filter(|size| *size <= LONGEST);
        let size = size.ok_or_else(|| senseless("a chunk is too long"))?;
        if size == 0 {
            return Ok(Some(body));
        }
        let Some(chunk) = rest.get(at..at + size) else { return Ok(None) };
        body.extend_from_slice(chunk);
        let Some(next) = rest.get(at + size + 2..) else { return Ok(None) };
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_is_whole_by_its_length_its_chunks_or_its_end() {
        let answer = |status, body: &[u8], etag: Option<&str>| {
            Some(Answer { status, body: body.to_vec(), etag: etag.map(str::to_owned) })
        };
        let sized = b"HTTP/1.1 200 OK\r\nETag: ab12\r\ncontent-length: 4\r\n\r\nTRUE";
        assert_eq!(read(sized, false).unwrap(), answer(200, b"TRUE", Some("ab12")));
        assert_eq!(read(&sized[..sized.len() - 1], false).unwrap(), None);
        let open = b"HTTP/1.0 404 Not Found\r\n\r\n<html>";
        assert_eq!(read(open, false).unwrap(), None);
        assert_eq!(read(open, true).unwrap(), answer(404, b"<html>", None));
        let cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nTR\r\n2;x=y\r\nUE\r\n0\r\n\r\n";
        assert_eq!(read(cut, false).unwrap(), answer(200, b"TRUE", None));
        assert_eq!(read(&cut[..60], false).unwrap(), None);
        let huge = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n";
        assert!(read(huge, false).is_err());
        assert!(read(b"SSH-2.0-OpenSSH\r\n", false).is_err());
        assert!(read(b"HTTP/1.1 200 OK\r\ncontent-length: -4\r\n\r\n", false).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), over: bool) {
            let _ = read(&bytes, over);
            let mut after = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            after.extend(bytes);
            let _ = read(&after, over);
        }
    }
}
