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

/// Names the state of `paths` below `root`; `None` where one cannot be looked
/// at, or was changed so recently that another change would not show.
#[must_use]
pub fn fingerprint(root: &Path, paths: &[String], now: SystemTime) -> Option<Digest> {
    let mut hasher = blake3::Hasher::new_derive_key("outlast state of a source tree, version 1");
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    for path in paths {
        let place = root.join(path);
        let meta = place.symlink_metadata().ok()?;
        let target =
            if meta.is_symlink() { std::fs::read_link(&place).ok()?.into_os_string() } else { "".into() };
        for text in [path.as_bytes(), target.as_encoded_bytes()] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text);
        }
        if !settled(&meta, now) {
            return None;
        }
        for number in [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [meta.dev(), meta.ino(), meta.size(), u64::from(meta.mode())] {
            hasher.update(&number.to_le_bytes());
        }
    }
    Some(Digest::from_bytes(*hasher.finalize().as_bytes()))
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
