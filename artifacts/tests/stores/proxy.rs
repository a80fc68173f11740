//! Stands between a client and an S3 server and breaks what passes, at the
//! places where networks and stores break: before a request is carried out,
//! after it, and within the answer.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It passes.
    None,
    /// An error instead of the request.
    Refuse(u16, &'static str),
    /// Nothing, until the client gives up.
    Hang,
    /// The connection ends before the request is passed on.
    CutBefore,
    /// It is carried out, and the connection ends instead of an answer.
    CutAfter,
    /// It is carried out, and the answer says 500.
    FailAfter,
    /// Half of the answer.
    Torn,
    /// The client gives up, and the request is carried out later: before the
    /// next put, or when [`Proxy::flush`] is called.
    Late,
    /// It passes without its condition, as some stores take it.
    Unconditional,
    /// Told to ask at this port of loopback instead.
    Redirect(u16, u16),
    /// A listing that says that there is more, and not where.
    Unfinished,
}

type Decide = Box<dyn FnMut(&str, &str) -> Fault + Send>;

struct State {
    upstream: SocketAddr,
    decide: Decide,
    late: VecDeque<Vec<u8>>,
    counts: BTreeMap<Fault, usize>,
    seen: Vec<String>,
}

/// A proxy that lives as long as the test's process.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens on a free port, with TLS if there is a configuration for it.
    pub(crate) fn start(upstream: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = State {
            upstream,
            decide: Box::new(|_, _| Fault::None),
            late: VecDeque::new(),
            counts: BTreeMap::new(),
            seen: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, tls) = (shared.clone(), tls.clone());
                thread::spawn(move || {
                    let _ = match tls {
                        None => serve(stream, &state),
                        Some(tls) => rustls::ServerConnection::new(tls)
                            .map_err(io::Error::other)
                            .and_then(|tls| serve(rustls::StreamOwned::new(tls, stream), &state)),
                    };
                });
            }
        });
        Self { address, state }
    }

    /// Decides by method and target from now on.
    pub(crate) fn decide(&self, decide: impl FnMut(&str, &str) -> Fault + Send + 'static) {
        lock(&self.state).decide = Box::new(decide);
    }

    /// Lets the next requests of a method go wrong, one after the other.
    pub(crate) fn next(&self, method: &'static str, faults: &[Fault]) {
        let mut faults: VecDeque<Fault> = faults.to_vec().into();
        self.decide(
            move |asked, _| {
                if asked == method { faults.pop_front().unwrap_or(Fault::None) } else { Fault::None }
            },
        );
    }

    /// Carries out what came late.
    pub(crate) fn flush(&self) {
        let (late, upstream) = {
            let mut state = lock(&self.state);
            (std::mem::take(&mut state.late), state.upstream)
        };
        for request in late {
            let _ = forward(upstream, &request);
        }
    }

    /// How often each fault was made.
    pub(crate) fn counts(&self) -> BTreeMap<Fault, usize> {
        lock(&self.state).counts.clone()
    }

    /// Method and target of every request so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        lock(&self.state).seen.clone()
    }
}

fn serve(mut client: impl Read + Write, state: &Mutex<State>) -> io::Result<()> {
    // Every answer says that the connection closes: one request each.
    if let Some((head, body)) = request(&mut client)? {
        let line = head.lines().next().unwrap_or_default().to_owned();
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (fault, upstream, late) = {
            let mut state = lock(state);
            let fault = (state.decide)(method, target);
            *state.counts.entry(fault).or_default() += 1;
            state.seen.push(format!("{method} {target}"));
            let late = if method == "PUT" { std::mem::take(&mut state.late) } else { VecDeque::new() };
            (fault, state.upstream, late)
        };
        for request in late {
            let _ = forward(upstream, &request);
        }
        let whole = assemble(&head, &body, fault == Fault::Unconditional);
        match fault {
            Fault::None | Fault::Unconditional => client.write_all(&forward(upstream, &whole)?)?,
            Fault::Redirect(status, port) => redirect(&mut client, status, port, target)?,
            Fault::Unfinished => client.write_all(&unfinished(forward(upstream, &whole)?))?,
            Fault::Refuse(status, code) => refuse(&mut client, method, status, code)?,
            Fault::CutBefore => {}
            Fault::Hang => wait_for_end(&mut client),
            Fault::CutAfter => drop(forward(upstream, &whole)?),
            Fault::FailAfter => {
                forward(upstream, &whole)?;
                refuse(&mut client, method, 500, "InternalError")?;
            }
            Fault::Torn => {
                let answer = forward(upstream, &whole)?;
                let head = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
                let body = answer.len() - head;
                let end = if body > 1 { head + body / 2 } else { head / 2 };
                client.write_all(&answer[..end])?;
            }
            Fault::Late => {
                wait_for_end(&mut client);
                lock(state).late.push_back(whole);
            }
        }
        client.flush()?;
    }
    Ok(())
}

fn wait_for_end(client: &mut impl Read) {
    let mut buffer = [0; 1024];
    while client.read(&mut buffer).is_ok_and(|read| read > 0) {}
}

/// The head as text and the body of a request; `None` at the end.
fn request(client: &mut impl Read) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match client.read(&mut buffer)? {
            0 => return Ok(None),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8(bytes).map_err(io::Error::other)?;
    let length = header(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    while body.len() < length {
        match client.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => body.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(Some((head, body)))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(found, value)| found.trim().eq_ignore_ascii_case(name).then(|| value.trim()))
}

fn assemble(head: &str, body: &[u8], unconditional: bool) -> Vec<u8> {
    let mut whole = String::new();
    for line in head.trim_end().lines() {
        let lower = line.to_ascii_lowercase();
        let condition = unconditional && lower.starts_with("if-none-match:");
        if !condition && !lower.starts_with("connection:") {
            whole.push_str(line);
            whole.push_str("\r\n");
        }
    }
    whole.push_str("Connection: close\r\n\r\n");
    let mut whole = whole.into_bytes();
    whole.extend_from_slice(body);
    whole
}

/// Carries a request out and gives the whole answer.
fn forward(upstream: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(request)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

fn redirect(client: &mut impl Write, status: u16, port: u16, target: &str) -> io::Result<()> {
    write!(
        client,
        "HTTP/1.1 {status} Elsewhere\r\nLocation: http://127.0.0.1:{port}{target}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    )
}

/// The answer of the same length, without the place where it goes on.
fn unfinished(mut answer: Vec<u8>) -> Vec<u8> {
    let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|w| w == what);
    let (begin, end) = (b"<NextContinuationToken>", b"</NextContinuationToken>");
    if let (Some(from), Some(to)) = (find(&answer, begin), find(&answer, end)) {
        answer[from..to + end.len()].fill(b' ');
    }
    answer
}

fn refuse(client: &mut impl Write, method: &str, status: u16, code: &str) -> io::Result<()> {
    let body = if method == "HEAD" {
        String::new()
    } else {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>")
    };
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status} No\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n\
         {body}"
    )
}
