//! Time and randomness, injected: the same controller runs on the real clock
//! and under a simulation whose clock and bits are chosen. Nothing else in
//! this crate may ask the system what time it is.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Two times: one that never jumps, for leases, and one for people.
#[derive(Debug, Clone)]
pub struct Clock {
    started: Instant,
    wall: Wall,
}

#[derive(Debug, Clone)]
enum Wall {
    System,
    /// Derived from the runtime's clock, which a simulation moves.
    Virtual(SystemTime),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self { started: Instant::now(), wall: Wall::System }
    }

    /// A wall clock that starts at `origin` and follows the runtime's clock.
    #[must_use]
    pub fn following_runtime(origin: SystemTime) -> Self {
        Self { started: Instant::now(), wall: Wall::Virtual(origin) }
    }

    /// Milliseconds since the start, never going back. Decides leases.
    #[must_use]
    pub fn mono_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    /// The wall clock.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        match &self.wall {
            Wall::System => SystemTime::now(),
            Wall::Virtual(origin) => *origin + self.started.elapsed(),
        }
    }

    /// Unix milliseconds; for people, prices and certificates only.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        millis(self.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Where ids and secrets come from.
#[derive(Debug)]
pub enum Entropy {
    /// The system's generator.
    System,
    /// A seeded one; for simulation only.
    Seeded(Mutex<fastrand::Rng>),
}

impl Entropy {
    /// A source that repeats itself for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    /// `N` random bytes.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], proto::pki::PkiError> {
        match self {
            Self::System => proto::pki::random(),
            Self::Seeded(rng) => {
                let mut bytes = [0; N];
                rng.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fill(&mut bytes);
                Ok(bytes)
            }
        }
    }
}
