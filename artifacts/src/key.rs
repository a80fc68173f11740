//! Where an object lies in a store. Keys are numbered so that they can be
//! signed ahead: `<scope>/g<generation>/p<seq>` for packs of chunks and
//! `.../m<seq>` for manifests. A key never carries anything a file system or
//! an object store could read as a way out of its prefix.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const MAX_SEGMENTS: usize = 8;
const MAX_SEQ: u64 = 99_999_999;

/// A checked key: 1 to 8 segments of `[a-z0-9][a-z0-9._-]{0,63}` without
/// `..`, joined by `/`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectKey(Arc<str>);

/// What kind of object a numbered key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectClass {
    /// Chunks laid end to end.
    Pack,
    /// The description of one tree.
    Manifest,
}

/// Why a text or a number makes no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text breaks the rule for keys.
    #[error(
        "`{0}` is not an object key: 1 to 8 segments of a-z, 0-9, `.`, `_`, `-` joined by `/` are expected"
    )]
    Malformed(String),
    /// The generation has used up its numbers.
    #[error("object number {0} is above {MAX_SEQ}: a new generation is needed")]
    SeqTooLarge(u64),
}

pub(crate) fn segment_ok(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= 64
        && bytes.first().is_some_and(plain)
        && bytes.iter().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
        && !segment.contains("..")
}

impl ObjectKey {
    /// The key of the pack numbered `seq`.
    pub fn pack(scope: &str, generation: u64, seq: u64) -> Result<Self, KeyError> {
        Self::numbered(scope, generation, 'p', seq)
    }

    /// The key of the manifest numbered `seq`.
    pub fn manifest(scope: &str, generation: u64, seq: u64) -> Result<Self, KeyError> {
        Self::numbered(scope, generation, 'm', seq)
    }

    fn numbered(scope: &str, generation: u64, letter: char, seq: u64) -> Result<Self, KeyError> {
        if seq > MAX_SEQ {
            return Err(KeyError::SeqTooLarge(seq));
        }
        if !segment_ok(scope) {
            return Err(KeyError::Malformed(scope.chars().take(80).collect()));
        }
        format!("{}{letter}{seq:08}", Self::prefix(scope, generation)).parse()
    }

    /// What every key of one generation begins with, the last `/` included.
    #[must_use]
    pub fn prefix(scope: &str, generation: u64) -> String {
        format!("{scope}/g{generation:016x}/")
    }

    /// The first segment: a run id, or `source`.
    #[must_use]
    pub fn scope(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The generation, if this is a numbered key.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        let digits = self.0.split('/').nth(1)?.strip_prefix('g')?;
        let hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
        (digits.len() == 16 && digits.bytes().all(hex)).then(|| u64::from_str_radix(digits, 16).ok())?
    }

    /// Class and number, if this is a numbered key.
    #[must_use]
    pub fn seq(&self) -> Option<(ObjectClass, u64)> {
        self.generation()?;
        let mut segments = self.0.split('/').skip(2);
        let last = segments.next()?;
        if segments.next().is_some() {
            return None;
        }
        let (class, digits) = match last.as_bytes().first()? {
            b'p' => (ObjectClass::Pack, &last[1..]),
            b'm' => (ObjectClass::Manifest, &last[1..]),
            _ => return None,
        };
        let whole = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit());
        Some((class, whole.then(|| digits.parse().ok())??))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({})", self.0)
    }
}

impl FromStr for ObjectKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let segments = text.split('/').take(MAX_SEGMENTS + 1);
        if segments.clone().count() <= MAX_SEGMENTS && segments.clone().all(segment_ok) {
            Ok(Self(text.into()))
        } else {
            Err(KeyError::Malformed(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ObjectKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<ObjectKey> for String {
    fn from(key: ObjectKey) -> Self {
        key.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_keys_tell_their_parts() {
        let key = ObjectKey::pack("source", 0x1_0000_0002, 7).unwrap();
        assert_eq!(key.to_string(), "source/g0000000100000002/p00000007");
        assert_eq!(key.scope(), "source");
        assert_eq!(key.generation(), Some(0x1_0000_0002));
        assert_eq!(key.seq(), Some((ObjectClass::Pack, 7)));
        let key = ObjectKey::manifest("source", 1, MAX_SEQ).unwrap();
        assert_eq!(key.seq(), Some((ObjectClass::Manifest, MAX_SEQ)));
        assert!(key.as_str().starts_with(&ObjectKey::prefix("source", 1)));
        assert_eq!(ObjectKey::pack("source", 1, MAX_SEQ + 1), Err(KeyError::SeqTooLarge(MAX_SEQ + 1)));
        assert!(ObjectKey::pack("a/b", 1, 1).is_err());
    }

    #[test]
    fn other_keys_have_no_number() {
        for text in ["a", "a/gx/p00000001", "a/g0000000000000001/p1", "a/g0000000000000001/p00000001/x"] {
            assert_eq!(text.parse::<ObjectKey>().unwrap().seq(), None, "{text}");
        }
    }

    #[test]
    fn ways_out_are_refused() {
        let long = "a".repeat(65);
        for text in ["", "/a", "a/", "a//b", "..", "a/../b", "a..b", ".a", "A", "a b", "a\\b", "ä", &long] {
            assert!(text.parse::<ObjectKey>().is_err(), "{text}");
        }
        assert!("a/b/c/d/e/f/g/h".parse::<ObjectKey>().is_ok());
        assert!("a/b/c/d/e/f/g/h/i".parse::<ObjectKey>().is_err());
    }
}
