//! Whether a chosen tree is the one that was sent before, from the identities
//! of its files alone: no byte of them is read. It must never say "the same"
//! of a tree that is not; where it cannot know, it says nothing.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::digest::Digest;

/// Kernels stamp files with a clock this coarse at most: a file that was
/// written just now may be written again without bearing another stamp.
const TICK: Duration = Duration::from_millis(20);
/// The same where the file system keeps whole seconds, or even ones.
const SECONDS: Duration = Duration::from_secs(2);

/// Fewer paths are looked at in less time than a thread takes to begin.
const MANY: usize = 2_000;
/// Threads that look at paths: more wait for each other in the kernel.
const THREADS: usize = 4;

/// Names the state of `paths` below `root`; `None` where one cannot be looked
/// at, or was changed so recently that another change would not show.
#[must_use]
pub fn fingerprint(root: &Path, paths: &[String], now: SystemTime) -> Option<Digest> {
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let share = paths.len().div_ceil(threads).max(MANY);
    // In the order of paths: the state must not depend on how many looked.
    let states: Option<Vec<Vec<u8>>> = std::thread::scope(|scope| {
        let mut shares = paths.chunks(share);
        let own = shares.next().unwrap_or_default();
        let begin = |paths| std::thread::Builder::new().spawn_scoped(scope, move || look(root, paths, now));
        // Where no thread is to be had, nothing is known.
        let others: Vec<_> = shares.map(begin).collect::<Result<_, _>>().ok()?;
        let first = look(root, own, now);
        let others = others.into_iter().map(|thread| thread.join().ok().flatten());
        std::iter::once(first).chain(others).collect()
    });
    let mut hasher = blake3::Hasher::new_derive_key("outlast state of a source tree, version 1");
    for state in states? {
        hasher.update(&state);
    }
    Some(Digest::from_bytes(*hasher.finalize().as_bytes()))
}

/// What the kernel says of each path, end to end.
fn look(root: &Path, paths: &[String], now: Duration) -> Option<Vec<u8>> {
    let mut state = Vec::with_capacity(paths.len() * 128);
    for path in paths {
        let place = root.join(path);
        let meta = place.symlink_metadata().ok()?;
        let target =
            if meta.is_symlink() { std::fs::read_link(&place).ok()?.into_os_string() } else { "".into() };
        for text in [path.as_bytes(), target.as_encoded_bytes()] {
            state.extend_from_slice(&(text.len() as u64).to_le_bytes());
            state.extend_from_slice(text);
        }
        if !settled(&meta, now) {
            return None;
        }
        for number in [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()] {
            state.extend_from_slice(&number.to_le_bytes());
        }
        for number in [meta.dev(), meta.ino(), meta.size(), u64::from(meta.mode())] {
            state.extend_from_slice(&number.to_le_bytes());
        }
    }
    Some(state)
}

/// Whether a change from now on would leave another stamp.
fn settled(meta: &Metadata, now: Duration) -> bool {
    // Only the kernel sets this one.
    let (seconds, nanos) = (meta.ctime(), meta.ctime_nsec());
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos)) else { return false };
    let tick = if nanos == 0 { SECONDS } else { TICK };
    Duration::new(seconds, nanos).checked_add(tick).is_some_and(|end| end < now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_paths_give_one_state_whoever_looked() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..2 * MANY + 1).map(|n| format!("f{n:05}")).collect();
        names.iter().for_each(|name| std::fs::write(dir.path().join(name), name).unwrap());
        let now = SystemTime::now() + Duration::from_secs(5);
        let all = fingerprint(dir.path(), &names, now);
        let one = look(dir.path(), &names, now.duration_since(UNIX_EPOCH).unwrap()).unwrap();
        let mut hasher = blake3::Hasher::new_derive_key("outlast state of a source tree, version 1");
        assert_eq!(all, Some(Digest::from_bytes(*hasher.update(&one).finalize().as_bytes())));
        std::fs::write(dir.path().join(&names[2 * MANY]), "another").unwrap();
        assert_ne!(fingerprint(dir.path(), &names, now), all, "the last of all");
        std::fs::remove_file(dir.path().join(&names[MANY + 7])).unwrap();
        assert_eq!(fingerprint(dir.path(), &names, now), None);
    }

    #[test]
    fn every_change_shows_and_a_fresh_one_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "1").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("l")).unwrap();
        let paths = ["a".to_owned(), "l".to_owned()];
        let later = || SystemTime::now() + Duration::from_secs(5);
        let of = || fingerprint(dir.path(), &paths, later());
        assert_eq!(fingerprint(dir.path(), &paths, SystemTime::now() - TICK), None);
        let first = of();
        assert!(first.is_some() && of() == first);
        assert_ne!(fingerprint(dir.path(), &paths[..1], later()), first);
        std::fs::remove_file(dir.path().join("l")).unwrap();
        assert_eq!(of(), None);
        std::os::unix::fs::symlink("b", dir.path().join("l")).unwrap();
        let linked = of();
        assert_ne!(linked, first);
        // Another content, of the same length and with the same time.
        let time = dir.path().join("a").metadata().unwrap().modified().unwrap();
        let mut file = std::fs::File::create(dir.path().join("a")).unwrap();
        std::io::Write::write_all(&mut file, b"2").unwrap();
        file.set_modified(time).unwrap();
        assert_ne!(of(), linked);
    }
}
