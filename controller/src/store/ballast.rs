//! A file of no content beside the database, given up when the disk is full so
//! that small commits can go on: on a full disk even deleting a row fails.
//!
//! It must never be the reason for a failure: where it cannot be made, the
//! store works without.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How much room is held back.
pub(super) const SIZE: u64 = 4 << 20;
/// Commits between two attempts to make a released ballast again.
const RETRY_COMMITS: u32 = 64;

/// The ballast of one database.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    held: bool,
    commits: u32,
}

impl Ballast {
    /// Makes the file unless it is there in full.
    pub(super) fn open(path: PathBuf) -> Self {
        let held = fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() >= SIZE);
        let mut ballast = Self { path, held, commits: 0 };
        if !held {
            ballast.recreate();
        }
        ballast
    }

    /// Gives the room back to the disk.
    pub(super) fn release(&mut self) {
        // Removed even if it was not made in full: every block counts now.
        let removed = fs::remove_file(&self.path).is_ok();
        if removed || self.held {
            tracing::error!(path = %self.path.display(), "the disk is full: ballast released");
        }
        self.held = false;
        self.commits = 0;
    }

    /// Told of each commit that went well; makes the ballast again in time.
    pub(super) fn committed(&mut self) {
        if self.held {
            return;
        }
        self.commits += 1;
        if self.commits >= RETRY_COMMITS {
            self.commits = 0;
            self.recreate();
        }
    }

    fn recreate(&mut self) {
        let mut draft = self.path.clone().into_os_string();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        match fill(&draft).and_then(|()| fs::rename(&draft, &self.path)) {
            Ok(()) => self.held = true,
            Err(error) => {
                let _ = fs::remove_file(&draft);
                tracing::debug!(path = %self.path.display(), %error, "no room for a ballast yet");
            }
        }
    }
}

/// Writes twice the size and keeps half: a disk that has only just room for the
/// ballast is better used without one.
fn fill(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    // Noise, for file systems that compress.
    let mut block = vec![0_u8; 1 << 20];
    fastrand::Rng::with_seed(0x6261_6c6c).fill(&mut block);
    for _ in 0..(2 * SIZE) >> 20 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    file.set_len(SIZE)
}
