//! A connection of a machine, however it came: accepted on a port, or carried
//! by a child process that the controller dialled with. The servers know no
//! difference. Dropping a carried one ends its child.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};

/// Carried connections that no server has taken yet.
const WAITING: usize = 16;

/// One connection.
pub enum Wire {
    /// The machine dialled.
    Dialled(TcpStream),
    /// The controller dialled.
    Carried(Carried),
}

/// The two pipes of a child that carries a connection.
pub struct Carried {
    /// From the machine; what was read ahead with the first words is in it.
    pub(super) from: BufReader<ChildStdout>,
    /// To the machine.
    pub(super) to: ChildStdin,
    /// Tells whoever owns the child that nobody needs it any more.
    pub(super) _held: oneshot::Sender<()>,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Dialled(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Carried(carried) => Pin::new(&mut carried.from).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Dialled(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Carried(carried) => Pin::new(&mut carried.to).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Dialled(stream) => Pin::new(stream).poll_flush(cx),
            Self::Carried(carried) => Pin::new(&mut carried.to).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Dialled(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Carried(carried) => Pin::new(&mut carried.to).poll_shutdown(cx),
        }
    }
}

/// Where carried connections are handed to the servers.
#[derive(Clone)]
pub struct Doors {
    /// Control and bulk.
    pub agents: mpsc::Sender<Wire>,
    /// Joining.
    pub join: mpsc::Sender<Wire>,
}

/// What the doors let in, for [`incoming`].
pub struct Let {
    /// Behind [`Doors::agents`].
    pub agents: mpsc::Receiver<Wire>,
    /// Behind [`Doors::join`].
    pub join: mpsc::Receiver<Wire>,
}

/// A pair of doors.
#[must_use]
pub fn doors() -> (Doors, Let) {
    let (agents, agents_in) = mpsc::channel(WAITING);
    let (join, join_in) = mpsc::channel(WAITING);
    (Doors { agents, join }, Let { agents: agents_in, join: join_in })
}

/// The connections of a listener and those that are carried, as one stream.
pub fn incoming(
    listener: TcpListener,
    carried: mpsc::Receiver<Wire>,
) -> impl Stream<Item = io::Result<Wire>> + Send + Unpin {
    let dialled = proto::accept::tcp(listener).map(|stream| stream.map(Wire::Dialled));
    dialled.merge(ReceiverStream::new(carried).map(Ok))
}
