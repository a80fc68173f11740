//! Fetches one file into the machine's store: from where it broke off, again
//! while that may help, and never more bytes than were announced. What does not
//! hash to what it must be is fetched anew a few times, and never used.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use artifacts::store::booklet::client::fetch::Response;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncWriteExt as _, BufWriter};

use super::Tell;
use super::answer::Trouble;
use super::cache::Cache;
use super::hub::{Hub, shown};
use super::sum::Sum;
use crate::os;
use crate::world::Cancelled;

/// Whole files that may hash to something else.
const WRONG: u32 = 3;
/// Between two looks whether another attempt has fetched it.
const LOOK: Duration = Duration::from_millis(500);
const BUFFER: usize = 1 << 20;
/// A file of unknown size may not take the last of a disk.
const SPARE: u64 = 64 << 20;

/// A file that is wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// What it is called to people.
    pub(super) name: String,
    /// Where it is.
    pub(super) url: String,
    /// Its size, where it is known.
    pub(super) size: Option<u64>,
    /// What it must hash to.
    pub(super) sum: Sum,
}

/// What a transfer is done with.
pub(super) struct Transfer {
    pub(super) hub: Arc<Hub>,
    pub(super) cache: Cache,
    pub(super) cancelled: Cancelled,
    /// Bytes that are here, of all files.
    pub(super) came: Arc<AtomicU64>,
    pub(super) tell: Tell,
}

fn of_disk(name: &str, error: &io::Error) -> Trouble {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let words = if full { "no space left on device" } else { "the machine's disk" };
    Trouble::for_good(format!("{name}: {words}: {error}"))
}

impl Transfer {
    /// Fetches it, unless the machine has it.
    pub(super) async fn run(&self, wanted: &Wanted) -> Result<(), Trouble> {
        let name = shown(&wanted.name).to_owned();
        let disk = |error: io::Error| of_disk(&name, &error);
        let _lock = loop {
            if let Some(lock) = self.cache.lock(&wanted.sum).map_err(disk)? {
                break lock;
            }
            self.wanted_still(&name)?;
            tokio::time::sleep(LOOK).await;
        };
        if self.blocking(&wanted.sum, Cache::has).await.map_err(disk)? {
            self.came.fetch_add(wanted.size.unwrap_or(0), Ordering::Relaxed);
            return Ok(());
        }
        self.came.fetch_add(self.has(&wanted.sum), Ordering::Relaxed);
        let (mut tries, mut wrong) = (0, 0);
        loop {
            let before = self.has(&wanted.sum);
            let mut trouble = match self.once(wanted, &name).await {
                Ok(()) if self.blocking(&wanted.sum, Cache::finish).await.map_err(disk)? => return Ok(()),
                Ok(()) => {
                    wrong += 1;
                    let why = format!("{name}: what came is not what it must be: its digest is another");
                    Trouble { passing: wrong < WRONG, ..Trouble::passing(why) }
                }
                Err(trouble) => trouble,
            };
            if !trouble.passing {
                return Err(trouble);
            }
            // As long as bytes come, it goes on.
            tries = if self.has(&wanted.sum) > before { 0 } else { tries + 1 };
            let Some(pause) = trouble.pause(tries) else {
                trouble.why = format!("{} (tried {tries} times)", trouble.why);
                return Err(trouble);
            };
            (self.tell)(&format!("{}; tried again in {} s", trouble.why, pause.as_secs_f32()));
            self.wanted_still(&name)?;
            tokio::time::sleep(pause).await;
        }
    }

    fn wanted_still(&self, name: &str) -> Result<(), Trouble> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Trouble { passing: false, ..Trouble::for_good(format!("{name}: it was stopped")) });
        }
        Ok(())
    }

    fn has(&self, sum: &Sum) -> u64 {
        std::fs::metadata(self.cache.part(sum)).map_or(0, |meta| meta.len())
    }

    async fn blocking(&self, sum: &Sum, ask: fn(&Cache, &Sum) -> io::Result<bool>) -> io::Result<bool> {
        let (cache, sum) = (self.cache.clone(), sum.clone());
        tokio::task::spawn_blocking(move || ask(&cache, &sum)).await.map_err(io::Error::other)?
    }

    /// One try. Afterwards all of it is here, whatever it hashes to.
    async fn once(&self, wanted: &Wanted, name: &str) -> Result<(), Trouble> {
        let disk = |error: io::Error| of_disk(name, &error);
        let part = self.cache.part(&wanted.sum);
        let file = OpenOptions::new().append(true).create(true).open(&part).await.map_err(disk)?;
        let mut have = file.metadata().await.map_err(disk)?.len();
        if wanted.size.is_some_and(|size| have > size) {
            file.set_len(0).await.map_err(disk)?;
            have = 0;
        }
        if wanted.size == Some(have) {
            return Ok(());
        }
        let answer = self.hub.open(name, None, &wanted.url, have).await?;
        let Some(total) = expected(&answer, have, wanted.size, name)? else {
            // It begins anew: the server does not know where we were.
            file.set_len(0).await.map_err(disk)?;
            if answer.status != 200 {
                return Err(Trouble::passing(format!("{name}: the server does not go on at byte {have}")));
            }
            let total = expected(&answer, 0, wanted.size, name)?.flatten();
            return self.take(answer, file, (0, total), name).await;
        };
        self.take(answer, file, (have, total), name).await
    }

    /// Writes what comes behind what is here.
    async fn take(
        &self,
        mut answer: Response,
        file: File,
        (have, total): (u64, Option<u64>),
        name: &str,
    ) -> Result<(), Trouble> {
        let disk = |error: io::Error| of_disk(name, &error);
        let most = total
            .unwrap_or_else(|| have.saturating_add(os::free_disk(self.cache.dir()).saturating_sub(SPARE)));
        let (mut at, mut file) = (have, BufWriter::with_capacity(BUFFER, file));
        let ended = loop {
            if self.cancelled.load(Ordering::Relaxed) {
                break Err(Trouble::for_good(format!("{name}: it was stopped")));
            }
            let bytes = match answer.next().await {
                Ok(bytes) if bytes.is_empty() => break Ok(()),
                Ok(bytes) => bytes,
                Err(trouble) => break Err(Trouble::of_wire(name, &trouble)),
            };
            if at + bytes.len() as u64 > most {
                break Err(match total {
                    Some(total) => {
                        Trouble::passing(format!("{name}: more than the {total} bytes that it has came"))
                    }
                    None => Trouble::for_good(format!("{name}: no space left on device: it does not end")),
                });
            }
            at += bytes.len() as u64;
            self.came.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            file.write_all(&bytes).await.map_err(disk)?;
        };
        // What came is gone on from, however it ended.
        file.flush().await.map_err(disk)?;
        ended?;
        match total {
            Some(total) if at < total => {
                Err(Trouble::passing(format!("{name}: it ended after {at} of {total} bytes")))
            }
            _ => Ok(()),
        }
    }
}

/// The whole size by this answer, which goes on at `have`; `None`: it does not
/// go on there.
///
/// # Errors
/// Where it announces another size than the one that is known.
fn expected(
    answer: &Response,
    have: u64,
    size: Option<u64>,
    name: &str,
) -> Result<Option<Option<u64>>, Trouble> {
    let told = match answer.status {
        206 => {
            let Some((from, total)) = answer.header("content-range").and_then(range) else { return Ok(None) };
            if from != have {
                return Ok(None);
            }
            total
        }
        200 if have == 0 => answer.number("content-length"),
        _ => return Ok(None),
    };
    match (told, size) {
        (Some(told), Some(size)) if told != size => Err(Trouble::passing(format!(
            "{name}: the server announces {told} bytes, and it must have {size}"
        ))),
        (told, size) => Ok(Some(size.or(told))),
    }
}

/// `bytes 5-9/10`: where it begins, and the whole.
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let from = range.split_once('-')?.0.trim().parse().ok()?;
    let total = if total == "*" { None } else { Some(total.trim().parse().ok()?) };
    Some((from, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */10", "5-9/10", "bytes 5-9", "bytes x-9/10", "bytes 5-9/x"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }
}
