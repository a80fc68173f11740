//! Work that must not take time from the training beside it: reading, coding
//! and sending what the training saved. It runs on threads that give way to
//! everything else, and the system's grouping of processes by session, which
//! would undo that, is told so, too. Heartbeats, output and whatever starts a
//! program must never run here: programs inherit how a thread stands.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::os;

/// About a tenth of a processor that a training wants all of. What publishing
/// takes in all is the same however long it goes on; at 19 a checkpoint of a
/// gigabyte is for minutes in no other place than on a machine that may vanish.
const NICE: i32 = 10;

/// The system takes no two changes within a tenth of a second from those who
/// are not its administrator.
const AGAIN: Duration = Duration::from_millis(150);

/// Threads for work in the background; they end with it.
pub struct Background {
    handle: Handle,
    busy: watch::Sender<u32>,
    ended: Arc<Notify>,
}

/// One piece of work that is going on.
struct Turn<'a>(&'a watch::Sender<u32>);

impl<'a> Turn<'a> {
    fn begin(busy: &'a watch::Sender<u32>) -> Self {
        busy.send_modify(|busy| *busy += 1);
        Self(busy)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|busy| *busy = busy.saturating_sub(1));
    }
}

impl Background {
    /// Starts its threads.
    ///
    /// # Errors
    /// Where the system gives none.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .thread_keep_alive(Duration::from_secs(2))
            .on_thread_start(give_way)
            .build()?;
        let (busy, mut told) = watch::channel(0);
        let ended = Arc::new(Notify::new());
        let (handle, end) = (runtime.handle().clone(), ended.clone());
        std::thread::Builder::new().name("background".into()).spawn(move || {
            give_way();
            runtime.block_on(async {
                tokio::select! {
                    () = end.notified() => {}
                    () = session_gives_way(&mut told, os::set_session_nice) => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, busy, ended })
    }

    /// Does `work` there; it ends when nobody waits for it any more.
    ///
    /// # Errors
    /// Where it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        let _turn = Turn::begin(&self.busy);
        AbortOnDropHandle::new(self.handle.spawn(work)).await.map_err(|error| error.to_string())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.ended.notify_one();
    }
}

fn give_way() {
    if let Err(error) = os::set_thread_nice(NICE) {
        tracing::debug!(%error, "work in the background competes with the training");
    }
}

/// Processes of one session share what the system grants to it, however nice
/// one of its threads is; so the session gives way, too, while there is work.
/// Begins by taking back what an agent before this one may have left.
async fn session_gives_way(busy: &mut watch::Receiver<u32>, set: impl Fn(i32) -> io::Result<()>) {
    let mut stands = None;
    loop {
        let wanted = if *busy.borrow_and_update() > 0 { NICE } else { 0 };
        if stands != Some(wanted) {
            match set(wanted) {
                Ok(()) => stands = Some(wanted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                Err(error) => {
                    // Its processes are not grouped, or nobody may change it.
                    tracing::debug!(%error, "the session's own claim stays as it is");
                    return std::future::pending().await;
                }
            }
        }
        if busy.changed().await.is_err() {
            // Whoever comes after this agent stands as it did.
            let _ = set(0);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn nice_here() -> i32 {
        let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after = text.rsplit_once(") ").unwrap().1;
        // Field 19; the first after the name is the third.
        after.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn work_gives_way_and_the_rest_does_not() {
        let before = nice_here();
        let background = Background::start().unwrap();
        let work = async {
            let blocking = tokio::task::spawn_blocking(nice_here).await.unwrap();
            (nice_here(), blocking)
        };
        assert_eq!(background.run(work).await, Ok((NICE, NICE)));
        let beside = tokio::task::spawn_blocking(nice_here).await.unwrap();
        assert_eq!((nice_here(), beside), (before, before));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends() {
        let background = Background::start().unwrap();
        let (alive, mut dead) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        };
        let waited = tokio::time::timeout(Duration::from_millis(50), background.run(work)).await;
        assert!(waited.is_err());
        assert!((&mut dead).await.is_err(), "it holds on to what it had");
        let panics = background.run(async { panic!("for the test") }).await;
        assert!(panics.is_err_and(|why| why.contains("panic")));
        assert_eq!(background.run(async { 7 }).await, Ok(7), "one panic ended all");
    }

    /// The session follows whether there is work, and a refusal for now is
    /// tried again.
    #[tokio::test(start_paused = true)]
    async fn the_session_gives_way_while_there_is_work() {
        let (busy, mut told) = watch::channel(0);
        let (set, answers) = (Mutex::new(Vec::new()), Mutex::new(vec![false, true, true, false, true]));
        let record = |nice| {
            let granted = answers.lock().unwrap().remove(0);
            set.lock().unwrap().push((nice, granted));
            if granted { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        };
        let changes = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let first = Turn::begin(&busy);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let second = Turn::begin(&busy);
            drop(first);
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(second);
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! {
            () = session_gives_way(&mut told, record) => panic!("it ended"),
            () = changes => {}
        }
        let expected = [(0, false), (0, true), (NICE, true), (0, false), (0, true)];
        assert_eq!(*set.lock().unwrap(), expected);
    }
}
