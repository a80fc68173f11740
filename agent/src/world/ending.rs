//! How this machine ends itself: the script that whoever made the machine left
//! for that, and the deadline as it was last known, both in the state
//! directory. A machine without the script cannot end itself, and says so.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::deadman::{DeadMan, How, Kept};
use crate::os;

const SCRIPT: &str = "end-machine";
const KEPT: &str = "deadline.json";
const LOG: &str = "end-machine.log";
const LONGEST: usize = 4096;

/// The end of one machine.
#[derive(Debug, Clone)]
pub struct Ending {
    state: PathBuf,
}

impl Ending {
    /// Of the machine with this state directory.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self { state: state.into() }
    }

    /// Whether there is a way to end it.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.state.join(SCRIPT).is_file()
    }

    /// With the deadline that an agent before this one wrote down.
    #[must_use]
    pub fn restored(&self, now_ms: u64, wall_ms: u64) -> DeadMan {
        let bytes = os::read_bounded(&self.state.join(KEPT), LONGEST).ok();
        let kept = bytes.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let Some(kept) = kept else { return DeadMan::restored(None, now_ms) };
        let deadline = kept.now(os::boot_id(), now_ms, wall_ms);
        let counted = kept.counted.filter(|_| kept.boot_id == os::boot_id());
        DeadMan::restored(deadline, now_ms).with_bytes(kept.tariff, counted)
    }

    /// Bytes sent and received by this machine since its boot.
    #[must_use]
    pub fn traffic(&self) -> Option<(u64, u64)> {
        crate::health::bytes_moved()
    }

    /// Writes the deadline down.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn keep(
        &self,
        man: &DeadMan,
        deadline_ms: Option<u64>,
        at_ms: u64,
        wall_ms: u64,
    ) -> std::io::Result<()> {
        let (tariff, counted) = man.bytes();
        let boot_id = os::boot_id().to_owned();
        let kept = Kept { boot_id, deadline_ms, at_ms, wall_ms, tariff, counted };
        os::write_durable(&self.state.join(KEPT), &serde_json::to_vec(&kept)?)
    }

    /// Begins the end; it goes on beside this process, which it ends too.
    ///
    /// # Errors
    /// Where there is no script, or it cannot be started.
    pub fn begin(&self, how: How) -> std::io::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.state.join(LOG))?;
        let mut child = Command::new("sh")
            .arg(self.state.join(SCRIPT))
            .arg(how.word())
            .current_dir(&self.state)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        // Reaped when it is over; whether it did its work shows by itself.
        std::thread::spawn(move || child.wait());
        Ok(())
    }
}
