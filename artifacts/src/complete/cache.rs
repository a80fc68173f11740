//! Verdicts on files, kept by the file's identity: a directory is looked at
//! again and again while it grows, and a file of many gigabytes is read once.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::structure::{self, Structure};
use crate::identity::Identity;

/// More files than a run keeps; then all is forgotten and read anew.
const MOST: usize = 200_000;
/// Two writes within a tick of the kernel's clock bear the same stamp: what
/// was written so short ago is not kept, or the second write would never be
/// seen.
const YOUNG: Duration = Duration::from_millis(200);

/// Whether the newest stamp of a file is older than a tick, by the clock that
/// stamped it. A clock that was set back makes everything young: then nothing
/// is kept, which costs time and no truth.
fn is_settled(file: &Identity, now: SystemTime) -> bool {
    let (seconds, nanos) = file.mtime.max(file.ctime);
    let stamp = Duration::new(seconds.max(0).cast_unsigned(), u32::try_from(nanos).unwrap_or_default());
    let age = now.duration_since(UNIX_EPOCH).unwrap_or_default().checked_sub(stamp);
    age.is_some_and(|age| age > YOUNG)
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    // The name decides which promise is checked, so it belongs to the key.
    verdicts: HashMap<(Identity, String), Structure>,
    /// Files that were read, for tests.
    #[cfg(test)]
    pub(super) reads: usize,
}

impl Cache {
    /// The verdict on a file; it is read only if these bytes were not.
    pub(super) fn structure(&mut self, path: &Path, name: &str) -> io::Result<Structure> {
        // A pipe with such a name must not hold the agent up.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).custom_flags(nonblock).open(path)?;
        let now = SystemTime::now();
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(Structure::Torn("it is no plain file".into()));
        }
        let before = Identity::of(&meta);
        let key = (before, name.to_owned());
        if let Some(known) = self.verdicts.get(&key) {
            return Ok(known.clone());
        }
        #[cfg(test)]
        {
            self.reads += 1;
        }
        let judged = structure::judge(&file, name);
        // What was read is believed only if it is still that file.
        if Identity::of(&file.metadata()?) != key.0 {
            return Ok(Structure::Changed);
        }
        let verdict = judged?;
        if is_settled(&key.0, now) {
            if self.verdicts.len() >= MOST {
                self.verdicts.clear();
            }
            self.verdicts.insert(key, verdict.clone());
        }
        Ok(verdict)
    }
}
