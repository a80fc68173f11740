//! `outlast controller link`: what a device's SSH client runs here. Joins its
//! standard streams to the operators' port of the controller, says one line and
//! then looks at no byte: who is at the other end is decided by TLS. It ends as
//! soon as either side has.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::time::Duration;

use proto::splice::splice;

/// How long the other way may go on when one has ended.
const LINGER: Duration = Duration::from_secs(2);

/// Carries one connection to `port` (`host:port`).
///
/// # Errors
/// Where nobody listens, or there is nothing to carry it on.
pub fn run(port: &str) -> io::Result<()> {
    let stream = TcpStream::connect(port)?;
    stream.set_nodelay(true)?;
    // The streams themselves: the library's own would wait for whole lines.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    carry(&stream, input, output)
}

fn carry(
    stream: &TcpStream,
    input: impl Read + Send + 'static,
    mut output: impl Write + Send + 'static,
) -> io::Result<()> {
    output.write_all(proto::link::operators_line().as_bytes())?;
    output.flush()?;
    splice(stream, input, output, LINGER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener};
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_go_both_ways_behind_one_line() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let (mut here, there) = UnixStream::pair().unwrap();
        let output = there.try_clone().unwrap();
        let carried = std::thread::spawn(move || carry(&stream, there, output));
        let line = proto::link::operators_line();
        let mut got = vec![0; line.len()];
        here.read_exact(&mut got).unwrap();
        assert_eq!(got, line.as_bytes());
        here.write_all(b"up").unwrap();
        here.shutdown(Shutdown::Write).unwrap();
        let mut up = String::new();
        peer.read_to_string(&mut up).unwrap();
        assert_eq!(up, "up");
        peer.write_all(b"down").unwrap();
        drop(peer);
        let mut down = String::new();
        here.read_to_string(&mut down).unwrap();
        assert_eq!(down, "down");
        carried.join().unwrap().unwrap();
    }
}
