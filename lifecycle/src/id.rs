//! Names that are never reused: 128 random bits, shown in lower-case base32.
//!
//! Randomness is the caller's: this crate makes no ids, it only holds them,
//! so that a simulation decides every bit.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: 26 characters of a-z and 2-7 are expected")]
pub struct IdError(String);

fn encode(bytes: &[u8; 16]) -> String {
    BASE32_NOPAD.encode(bytes).to_lowercase()
}

fn decode(text: &str) -> Result<[u8; 16], IdError> {
    let shown = || IdError(text.chars().take(40).collect());
    if text.len() != 26 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(shown());
    }
    BASE32_NOPAD
        .decode(text.to_uppercase().as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(shown)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps 16 bytes, which the caller drew at random.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self { Self(bytes) }
            /// The 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] { &self.0 }
            /// The first six characters, for display only.
            #[must_use]
            pub fn short(&self) -> String { encode(&self.0)[..6].to_owned() }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&encode(&self.0)) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), encode(&self.0))
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> { decode(text).map(Self) }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.collect_str(self) }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// One installation: one database, one certificate authority.
    HubId,
    /// Work to be carried to its end.
    RunId,
    /// One try of a run on one machine, under one generation.
    AttemptId,
    /// One rented thing; used once.
    MachineId,
}

/// The fencing number of a run: `restore_count << 32 | counter`. Only the
/// controller issues it, and each one issued is above all earlier ones of its
/// run, also after a restore from backup.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// Below every issued generation.
    pub const NONE: Self = Self(0);

    /// Rebuilds a generation that was issued before.
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// The number as it stands in object keys and messages.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The part that counts attempts, for people.
    #[must_use]
    pub const fn counter(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// The next generation to issue. `restore_count` is how often this
    /// installation was restored from a backup; a restore starts a new high
    /// half, so that numbers issued after the backup was taken stay below.
    /// `None` once four thousand million attempts were made.
    #[must_use]
    pub fn next(self, restore_count: u32) -> Option<Self> {
        let floor = u64::from(restore_count) << 32;
        let base = self.0.max(floor);
        let next = base.checked_add(1)?;
        (next >> 32 == base >> 32).then_some(Self(next))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.counter())?;
        match self.0 >> 32 {
            0 => Ok(()),
            restores => write!(f, "+{restores}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_survives_its_text(bytes: [u8; 16]) {
            let id = RunId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
            prop_assert_eq!(serde_json::from_str::<RunId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<MachineId>();
        }

        #[test]
        fn i1_generations_only_rise(restores in proptest::collection::vec(0u32..3, 1..40)) {
            let mut last = Generation::NONE;
            let mut count = 0;
            for add in restores {
                count += add;
                let next = last.next(count).unwrap();
                prop_assert!(next > last);
                prop_assert_eq!(next.as_u64() >> 32, u64::from(count));
                last = next;
            }
        }
    }
}
