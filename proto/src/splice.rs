//! Joins a program's standard streams to a socket, for what a login over SSH
//! runs: `outlast-agent link` on machines, `outlast controller link` on the
//! controller's own computer. No runtime: two threads, each copying one way.
//! It looks at no byte; who is at the other end is decided by TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

const PIECE: usize = 64 << 10;

/// A socket of which each way can be ended by itself.
pub trait Socket: Read + Write + Send + Sized + 'static {
    /// Another handle of the same socket.
    ///
    /// # Errors
    /// Where the system has no more.
    fn again(&self) -> io::Result<Self>;
    /// Ends one way, or both.
    ///
    /// # Errors
    /// Where it has ended already.
    fn end(&self, how: Shutdown) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn again(&self) -> io::Result<Self> {
        self.try_clone()
    }
    fn end(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
}

impl Socket for UnixStream {
    fn again(&self) -> io::Result<Self> {
        self.try_clone()
    }
    fn end(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
}

/// Carries bytes until either way has ended, and the other one for `linger`
/// longer.
///
/// # Errors
/// Where the socket cannot be used by two at once.
pub fn splice<S: Socket>(
    socket: &S,
    input: impl Read + Send + 'static,
    mut output: impl Write + Send + 'static,
    linger: Duration,
) -> io::Result<()> {
    let (mut up, down) = (socket.again()?, socket.again()?);
    let (ended, end) = mpsc::sync_channel(2);
    let ended_too = ended.clone();
    // Not joined: one that still reads when the other has ended goes with the
    // process.
    std::thread::spawn(move || {
        copy(input, &mut up);
        // The peer is told that no more comes, and may still answer.
        let _ = up.end(Shutdown::Write);
        let _ = ended_too.send(());
    });
    std::thread::spawn(move || {
        copy(down, &mut output);
        drop(output);
        let _ = ended.send(());
    });
    if end.recv().is_ok() {
        let _ = end.recv_timeout(linger);
    }
    let _ = socket.end(Shutdown::Both);
    Ok(())
}

/// Until either end has ended. Each piece goes on as it comes.
fn copy(mut from: impl Read, to: &mut impl Write) {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return,
            Ok(n) => {
                if to.write_all(&piece[..n]).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
