//! One JSON line in, one out, over a unix socket: how the guard and the keepers
//! are spoken to. The server never blocks and never holds more than a bounded
//! number of bounded requests. Paths longer than a socket address may hold
//! (107 bytes) are reached through a descriptor of their directory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MAX_REQUEST: usize = 16 * 1024;
const MAX_ANSWER: u64 = 64 * 1024;
const MAX_CONNECTIONS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(2);
const DIRECT: usize = 100;

/// A path that fits a socket address, and the directory that must stay open
/// while it is used.
fn fitting(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= DIRECT {
        return Ok((path.to_path_buf(), None));
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no socket"));
    };
    let dir = File::open(dir)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name), Some(dir)))
}

/// Connects to a socket, however long its path is.
///
/// # Errors
/// As `connect(2)`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (short, _open) = fitting(path)?;
    UnixStream::connect(short)
}

/// Listens at `path` (mode 0600, however long), taking the place of a dead
/// socket. Never blocks.
///
/// # Errors
/// As `bind(2)`; a file that is no socket is left alone and refused.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let (short, _open) = fitting(path)?;
    let listener = UnixListener::bind(&short)?;
    std::fs::set_permissions(&short, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Sends one line and gives the line that comes back.
///
/// # Errors
/// When nobody listens, or no whole answer came within the time.
pub fn ask(path: &Path, request: &str, timeout: Duration) -> io::Result<String> {
    let mut stream = connect(path)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    answer
        .strip_suffix('\n')
        .map(str::to_owned)
        .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the answer broke off"))
}

/// A request that waits for its answer; dropping it closes the connection.
#[derive(Debug)]
pub struct LineRequest {
    /// What was asked, without its newline.
    pub line: String,
    stream: UnixStream,
}

impl LineRequest {
    /// Sends the answer; an asker who has gone away is nobody's failure.
    pub fn answer(mut self, line: &str) {
        let _ = self.stream.write_all(format!("{line}\n").as_bytes());
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    until: Instant,
}

enum Progress {
    Waiting,
    Broken,
    Line(String),
}

impl Connection {
    fn read(&mut self) -> Progress {
        let mut chunk = [0_u8; 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Progress::Broken,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let late = Instant::now() >= self.until;
                    return if late { Progress::Broken } else { Progress::Waiting };
                }
                Err(_) => return Progress::Broken,
            }
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                return Progress::Line(String::from_utf8_lossy(&self.buffer[..end]).into_owned());
            }
            if self.buffer.len() > MAX_REQUEST {
                return Progress::Broken;
            }
        }
    }
}

/// A listening socket whose connections are served from the owner's own loop.
#[derive(Debug)]
pub struct LineServer {
    path: PathBuf,
    listener: UnixListener,
    connections: Vec<Connection>,
}

impl LineServer {
    /// Listens at `path` (mode 0600), taking the place of a dead socket.
    ///
    /// # Errors
    /// As `bind(2)`; a file that is no socket is left alone and refused.
    pub fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), listener: listen(path)?, connections: Vec::new() })
    }

    /// The descriptors to wait on.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        // While every place is taken, newcomers wait in the kernel's queue.
        let listener = (self.connections.len() < MAX_CONNECTIONS).then(|| self.listener.as_fd());
        listener.into_iter().chain(self.connections.iter().map(|c| c.stream.as_fd())).collect()
    }

    /// Whether somebody is in the middle of asking, so that the owner should
    /// look again soon.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.connections.is_empty()
    }

    /// The requests that are whole by now. Never blocks.
    pub fn requests(&mut self) -> Vec<LineRequest> {
        while self.connections.len() < MAX_CONNECTIONS {
            let Ok((stream, _)) = self.listener.accept() else { break };
            if stream.set_nonblocking(true).is_ok() {
                let until = Instant::now() + PATIENCE;
                self.connections.push(Connection { stream, buffer: Vec::new(), until });
            }
        }
        let mut whole = Vec::new();
        for mut connection in std::mem::take(&mut self.connections) {
            match connection.read() {
                Progress::Waiting => self.connections.push(connection),
                Progress::Broken => {}
                Progress::Line(line) => whole.push(LineRequest { line, stream: connection.stream }),
            }
        }
        whole
    }
}

impl Drop for LineServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_below_a_very_long_directory_is_served() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d".repeat(150));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("keeper.sock");
        let mut server = LineServer::bind(&path).unwrap();
        let asker = {
            let path = path.clone();
            std::thread::spawn(move || ask(&path, "hello", Duration::from_mins(3)))
        };
        loop {
            super::super::wait_readable(&server.fds(), Duration::from_secs(5)).unwrap();
            if let Some(request) = server.requests().pop() {
                assert_eq!(request.line, "hello");
                request.answer("there");
                break;
            }
        }
        assert_eq!(asker.join().unwrap().unwrap(), "there");
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn an_endless_request_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        let mut server = LineServer::bind(&path).unwrap();
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&vec![b'x'; MAX_REQUEST + 4096]).unwrap();
        assert!(server.requests().is_empty());
        assert!(!server.is_busy(), "the connection is closed");
    }
}
