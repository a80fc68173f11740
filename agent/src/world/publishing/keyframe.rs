//! Whether a checkpoint is kept on the machine for later ones to be stored as
//! differences to it. It is a service to the link and to nothing else: it is
//! taken only where there is room for it and for what the program saves next,
//! goes first when the disk fills, and goes when it saves too little.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use artifacts::Selection;
use artifacts::publish::{Against, Keyframe};

use crate::health::prune::{self, Room};
use crate::os;
use crate::world::layout::AttemptDir;

/// Saves for which one serves: so many refer to the same bytes at most, and the
/// further a training has come from it, the less it saves.
const SERVES: u32 = 16;
/// Saves until another is tried where one did not pay, doubled each time.
const PAUSE: (u32, u32) = (8, 256);
/// A keyframe pays if what chunks took alone is so many percent of what they
/// take as differences.
const PAYS: u64 = 110;
/// Where it lies in the directory of its attempt.
const NAME: &str = "keyframe";
/// Attempts looked at for what was left.
const ATTEMPTS: usize = 10_000;

/// What is known of the keyframe of one attempt.
#[derive(Default)]
struct Kept {
    base: Option<Arc<Keyframe>>,
    /// Whether one that an earlier process left was looked for.
    looked: bool,
    turn: Turn,
}

/// What becomes of the keyframe after a save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Stay,
    Drop,
    /// This save may become one.
    Take,
}

#[derive(Debug, Default, Clone, Copy)]
struct Turn {
    /// Saves since it was taken.
    age: u32,
    /// Saves to pass before another is taken, and how many the last time.
    pause: u32,
    paused: u32,
}

impl Turn {
    /// `against`: what a durable save took, if there was a keyframe; `pays`:
    /// whether the store is slower than coding.
    fn next(&mut self, has: bool, against: Against, pays: bool) -> Next {
        if !has {
            self.pause = self.pause.saturating_sub(u32::from(pays));
            return if pays && self.pause == 0 { Next::Take } else { Next::Stay };
        }
        self.age += 1;
        let is_of_use = against.alone.saturating_mul(100) >= against.stored.saturating_mul(PAYS);
        if !pays || !is_of_use && self.age == 1 {
            self.give_up();
            return Next::Drop;
        }
        if against.stored > 0 {
            self.paused = 0;
        }
        if is_of_use && self.age < SERVES { Next::Stay } else { Next::Drop }
    }

    /// One is of no use here, or there is no room: not again for some time.
    fn give_up(&mut self) {
        self.paused = (self.paused * 2).clamp(PAUSE.0, PAUSE.1);
        self.pause = self.paused;
    }
}

/// Size and free bytes of the disk below a path.
type DiskRoom = fn(&Path) -> Option<(u64, u64)>;

/// The keyframes of every attempt on the machine.
pub(super) struct Keyframes {
    all: Mutex<BTreeMap<String, Arc<Mutex<Kept>>>>,
    room: DiskRoom,
}

impl Default for Keyframes {
    fn default() -> Self {
        Self { all: Mutex::default(), room: os::disk_room }
    }
}

/// Locked while files are copied or removed.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.inspect_err(|error| tracing::debug!(%error, "a keyframe was not looked after")).ok()
}

impl Keyframes {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Mutex<Kept>>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, attempt: &str) -> Arc<Mutex<Kept>> {
        self.all().entry(attempt.to_owned()).or_default().clone()
    }

    /// What a checkpoint may be stored as the difference to.
    pub(super) async fn base(&self, dir: &AttemptDir, attempt: &str) -> Option<Arc<Keyframe>> {
        let (kept, place) = (self.of(attempt), place(dir));
        aside(move || lock(&kept).load(&place)).await.flatten()
    }

    /// Takes note of a checkpoint that is durable now, and keeps it if it is
    /// time for another one.
    pub(super) async fn saved(
        &self,
        dir: &AttemptDir,
        attempt: &str,
        selection: &Selection,
        published: artifacts::Published,
    ) {
        let (kept, place, root, room) = (self.of(attempt), place(dir), selection.root.clone(), self.room);
        aside(move || lock(&kept).saved(&place, &root, &published, room)).await;
    }

    /// Nobody knows what became of a checkpoint that was stored.
    pub(super) fn unsure(&self, attempt: &str) {
        if let Some(base) = &lock(&self.of(attempt)).base {
            base.forget();
        }
    }

    /// Lets the keyframe of an attempt go because the disk fills; tells how
    /// many bytes it took. Blocks.
    pub(super) fn relieve(&self, attempt: &str) -> Option<u64> {
        let kept = self.all().get(attempt).cloned()?;
        let mut kept = match kept.try_lock() {
            Ok(kept) => kept,
            Err(TryLockError::Poisoned(kept)) => kept.into_inner(),
            // It is being made or removed: the next look at the disk tells.
            Err(TryLockError::WouldBlock) => return None,
        };
        let bytes = kept.let_go()?;
        kept.turn.give_up();
        Some(bytes)
    }

    /// The attempt is over. Blocks.
    pub(super) fn forget(&self, attempt: &str) {
        let kept = self.all().remove(attempt);
        if let Some(kept) = kept {
            lock(&kept).let_go();
        }
    }

    /// Removes what attempts left whose agent died with them. One that is
    /// found wrongly is only made again. Blocks.
    pub(super) fn sweep(&self, dir: &AttemptDir) {
        let Some(entries) = dir.path().parent().and_then(|attempts| std::fs::read_dir(attempts).ok()) else {
            return;
        };
        for entry in entries.flatten().take(ATTEMPTS) {
            let known = entry.file_name().to_str().is_none_or(|attempt| self.all().contains_key(attempt));
            if !known {
                clear(&entry.path().join(NAME));
            }
        }
    }
}

impl Kept {
    /// The keyframe, also one that an earlier process of the agent kept.
    /// Blocks.
    fn load(&mut self, place: &Path) -> Option<Arc<Keyframe>> {
        if !std::mem::replace(&mut self.looked, true) {
            match Keyframe::open(place) {
                Ok(found) => self.base = Some(Arc::new(found)),
                Err(_) => clear(place),
            }
        }
        self.base.clone()
    }

    fn let_go(&mut self) -> Option<u64> {
        let base = self.base.take()?;
        let bytes = base.bytes();
        base.discard();
        self.turn.age = 0;
        Some(bytes)
    }

    fn saved(&mut self, place: &Path, root: &Path, published: &artifacts::Published, room: DiskRoom) {
        let artifacts::Published { manifest, against, pays, .. } = published;
        match self.turn.next(self.base.is_some(), *against, *pays) {
            Next::Stay => {
                if let Some(base) = &self.base {
                    base.remember(manifest);
                }
            }
            Next::Drop => drop(self.let_go()),
            Next::Take => {
                let copy = Keyframe::room_for(manifest);
                if copy == 0 || !has_room(place.parent().and_then(room), copy, manifest.total_bytes()) {
                    self.turn.give_up();
                    return;
                }
                clear(place);
                match Keyframe::take(root, manifest, place) {
                    Ok(Some(base)) => {
                        tracing::debug!(step = base.step(), bytes = base.bytes(), "kept for differences");
                        self.base = Some(Arc::new(base));
                        self.turn.age = 0;
                    }
                    // Nothing in it is cut at records.
                    Ok(None) => self.turn.give_up(),
                    Err(error) => tracing::debug!(%error, "a checkpoint could not be kept for differences"),
                }
            }
        }
    }
}

fn place(dir: &AttemptDir) -> PathBuf {
    dir.path().join(NAME)
}

fn clear(place: &Path) {
    match std::fs::remove_dir_all(place) {
        Err(error)
            if !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            tracing::debug!(place = %place.display(), %error, "a keyframe could not be removed");
        }
        _ => {}
    }
}

/// Whether there is room for a copy of so many bytes, and then still for what
/// the program saves next.
fn has_room(disk: Option<(u64, u64)>, copy: u64, newest: u64) -> bool {
    let Some((total, free)) = disk else { return false };
    let Some(left) = free.checked_sub(copy) else { return false };
    let room = Room { total, free: left, ..Room::default() };
    left > total / 8 && prune::wanted(&room, newest).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(alone: u64, stored: u64) -> Against {
        Against { alone, stored }
    }

    #[test]
    fn it_serves_for_some_saves_and_gives_way_to_the_next() {
        let mut turn = Turn::default();
        assert_eq!(turn.next(false, took(0, 0), true), Next::Take);
        for _ in 1..SERVES {
            assert_eq!(turn.next(true, took(250, 100), true), Next::Stay);
        }
        assert_eq!(turn.next(true, took(250, 100), true), Next::Drop);
        turn.age = 0;
        assert_eq!(turn.next(false, took(0, 0), true), Next::Take, "at once: it did pay");
    }

    #[test]
    fn what_does_not_pay_is_tried_ever_more_rarely() {
        let mut turn = Turn::default();
        let mut saves = 0;
        for pause in [8, 16, 32, 64, 128, 256, 256] {
            while turn.next(false, took(0, 0), true) == Next::Stay {
                saves += 1;
            }
            turn.age = 0;
            assert_eq!(turn.next(true, took(105, 100), true), Next::Drop);
            assert_eq!(turn.pause, pause);
        }
        assert!(saves > 400, "{saves}");
        // One that did pay and grew old is followed by another.
        let mut turn = Turn::default();
        assert_eq!(turn.next(true, took(200, 100), true), Next::Stay);
        assert_eq!(turn.next(true, took(105, 100), true), Next::Drop);
        assert_eq!(turn.next(false, took(0, 0), true), Next::Take);
    }

    #[test]
    fn a_fast_store_has_none() {
        let mut turn = Turn::default();
        for _ in 0..20 {
            assert_eq!(turn.next(false, took(0, 0), false), Next::Stay);
        }
        assert_eq!(turn.next(true, took(900, 100), false), Next::Drop);
    }

    #[test]
    fn it_is_kept_beside_the_attempt_and_goes_with_it() {
        use artifacts::index::MemoryIndex;
        use artifacts::store::MemoryStore;
        let place = tempfile::tempdir().unwrap();
        let dirs = ["a", "b"].map(|attempt| AttemptDir::new(place.path(), attempt));
        dirs.iter().for_each(|dir| std::fs::create_dir_all(dir.checkpoints()).unwrap());
        let path = dirs[0].checkpoints().join("step-1.bin");
        std::fs::write(&path, vec![7; 200_000]).unwrap();
        let selection = Selection::checkpoint(&path, Some(1), 5).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let publish = || {
            let mut keys =
                artifacts::KeySpace { scope: "run".into(), generation: 1, pack_seq: 0, manifest_seq: 0 };
            let (store, index) = (MemoryStore::default(), MemoryIndex::default());
            let done = runtime.block_on(artifacts::publish(&selection, &mut keys, &store, &index));
            artifacts::Published { pays: true, ..done.unwrap() }
        };
        let roomy = || Keyframes { room: |_| Some((1 << 40, 1 << 39)), ..Keyframes::default() };
        let own = |dir: &AttemptDir| super::place(dir).exists();
        let saved = |kept: &Keyframes| {
            runtime.block_on(kept.saved(&dirs[0], "a", &selection, publish()));
        };
        let base = |kept: &Keyframes| runtime.block_on(kept.base(&dirs[0], "a"));
        let kept = roomy();
        assert!(base(&kept).is_none());
        saved(&kept);
        assert!(own(&dirs[0]) && base(&kept).is_some());
        // The next process of the agent finds it.
        let kept = roomy();
        assert_eq!(base(&kept).and_then(|base| base.step()), Some(1));
        // The disk fills: it goes, and is not made again at once.
        assert_eq!(kept.relieve("a"), Some(200_000));
        saved(&kept);
        assert!(!own(&dirs[0]) && base(&kept).is_none() && kept.relieve("a").is_none());
        // Where an eighth of the disk would not stay free there is none.
        saved(&Keyframes { room: |_| Some((1 << 30, 1 << 27)), ..Keyframes::default() });
        assert!(!own(&dirs[0]));
        // The attempt is over, or its agent did not live to see that.
        let kept = roomy();
        saved(&kept);
        assert!(own(&dirs[0]));
        kept.sweep(&dirs[1]);
        assert!(own(&dirs[0]), "it is in use");
        kept.forget("a");
        assert!(!own(&dirs[0]));
        saved(&roomy());
        roomy().sweep(&dirs[1]);
        assert!(!own(&dirs[0]));
    }
}
