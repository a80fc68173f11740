//! Takes connections that the controller brought here over SSH, on a unix
//! socket that only this user may open. One waits for each lane, no more: a
//! newer one takes the place of an older one that nobody has taken up, since
//! whoever dialled again has given the older one up. It trusts nobody: what
//! comes is bytes, and TLS decides who speaks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::link::{self, Lane};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::os;

/// Whoever connects says its lane within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Those that have not said their lane yet; more wait in the kernel's queue.
const ASKING: usize = 8;

#[derive(Default)]
struct Slot {
    waiting: Mutex<Option<UnixStream>>,
    filled: Notify,
}

impl Slot {
    fn waiting(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, stream: UnixStream) {
        // The older one, if any, is closed here.
        *self.waiting() = Some(stream);
        self.filled.notify_waiters();
    }
}

/// What waits to be taken, one for each lane.
#[derive(Clone, Default)]
pub struct Slots(Arc<[Slot; 3]>);

impl Slots {
    fn of(&self, lane: Lane) -> &Slot {
        &self.0[match lane {
            Lane::Join => 0,
            Lane::Control => 1,
            Lane::Bulk => 2,
        }]
    }

    /// Ends when something waits in this lane.
    pub(super) async fn come(&self, lane: Lane) {
        let slot = self.of(lane);
        loop {
            let filled = slot.filled.notified();
            tokio::pin!(filled);
            // From here on nothing is missed.
            filled.as_mut().enable();
            if slot.waiting().is_some() {
                return;
            }
            filled.await;
        }
    }

    /// The newest stream of a lane, as soon as there is one whose other end
    /// can still be told that it is taken.
    pub(super) async fn take(&self, lane: Lane) -> UnixStream {
        loop {
            self.come(lane).await;
            let Some(mut stream) = self.of(lane).waiting().take() else { continue };
            let told = tokio::time::timeout(PATIENCE, stream.write_all(link::TAKEN.as_bytes())).await;
            if matches!(told, Ok(Ok(()))) {
                return stream;
            }
        }
    }
}

/// The listening socket; dropping it removes it.
struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens below the state directory: the slots, and what fills them for ever.
///
/// # Errors
/// Where the socket cannot be made.
pub fn listen(state: &Path) -> io::Result<(Slots, impl Future<Output = ()> + Send + use<>)> {
    let path = state.join(link::SOCKET);
    let listener = UnixListener::from_std(os::listen(&path)?)?;
    let slots = Slots::default();
    Ok((slots.clone(), serve(Door { listener, path }, slots)))
}

async fn serve(door: Door, slots: Slots) {
    let mut asking = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = asking.join_next() => {}
            come = door.listener.accept(), if asking.len() < ASKING => match come {
                Ok((stream, _)) => {
                    let slots = slots.clone();
                    asking.spawn(async move {
                        if let Ok(Ok((lane, stream))) = tokio::time::timeout(PATIENCE, lane_of(stream)).await {
                            slots.of(lane).fill(stream);
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a carried connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            },
        }
    }
}

/// Reads the first line and not a byte more: TLS comes behind it.
async fn lane_of(mut stream: UnixStream) -> io::Result<(Lane, UnixStream)> {
    let mut line = Vec::new();
    while line.len() < 64 {
        match stream.read_u8().await? {
            b'\n' => {
                let lane = link::asked(&String::from_utf8_lossy(&line));
                let lane = lane.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no lane"))?;
                return Ok((lane, stream));
            }
            byte => line.push(byte),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "no lane"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    async fn connected(state: &Path, words: &str) -> UnixStream {
        let stream = os::connect(&state.join(link::SOCKET)).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = UnixStream::from_std(stream).unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        stream
    }

    /// What comes until the stream is closed or so many bytes are there.
    async fn heard(stream: &mut UnixStream, most: u64) -> String {
        let mut bytes = Vec::new();
        // Closed with something unread is a reset.
        let _ = stream.take(most).read_to_end(&mut bytes).await;
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn the_newest_of_a_lane_is_taken_and_older_and_dead_ones_are_dropped() {
        let root = tempfile::tempdir().unwrap();
        // As deep as no socket's address may be.
        let state = root.path().join("d".repeat(150));
        std::fs::create_dir(&state).unwrap();
        let (slots, serve) = listen(&state).unwrap();
        let mode = std::fs::metadata(state.join(link::SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve);

        let mut older = connected(&state, &Lane::Control.line()).await;
        slots.come(Lane::Control).await;
        let mut newer = connected(&state, &format!("{}rest", Lane::Control.line())).await;
        // The older one is told nothing and is closed.
        assert_eq!(heard(&mut older, 100).await, "");
        let mut taken = slots.take(Lane::Control).await;
        assert_eq!(heard(&mut newer, link::TAKEN.len() as u64).await, link::TAKEN);
        let mut rest = [0; 4];
        taken.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"rest");

        // One that has gone away is passed over; the next is waited for.
        drop(connected(&state, &Lane::Bulk.line()).await);
        slots.come(Lane::Bulk).await;
        let waiting = slots.clone();
        let next = tasks.spawn(async move {
            let mut stream = waiting.take(Lane::Bulk).await;
            stream.write_all(b"!").await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut alive = connected(&state, &Lane::Bulk.line()).await;
        assert_eq!(heard(&mut alive, link::TAKEN.len() as u64 + 1).await, format!("{}!", link::TAKEN));
        next.abort();

        // Who asks for something else is closed.
        for bad in ["outlast-link 1 other\n", "GET / HTTP/1.1\n", &"x".repeat(100)] {
            assert_eq!(heard(&mut connected(&state, bad).await, 100).await, "", "{bad}");
        }
        tasks.shutdown().await;
        assert!(!state.join(link::SOCKET).exists());
    }
}
