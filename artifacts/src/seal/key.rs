//! Key material. A key never shows itself: it has no text form but the one a
//! person asks for, prints as its kind alone, and is wiped when it is dropped.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use zeroize::{Zeroize, Zeroizing};

use super::SealError;
use crate::digest::Digest;

/// Bytes of every key.
pub const KEY_BYTES: usize = 32;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name([u8; KEY_BYTES]);

        impl $name {
            /// Takes over key bytes that were made or sent before.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
                Self(bytes)
            }

            /// The bytes, for whoever sends or stores them. Never to be shown.
            #[must_use]
            pub const fn expose(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = SealError;
            fn try_from(bytes: &[u8]) -> Result<Self, SealError> {
                bytes.try_into().map(Self).map_err(|_| SealError::Key("a key has 32 bytes"))
            }
        }
    };
}

secret! {
    /// What every machine of a project shares: names and keys of chunks come
    /// of it and of their content, so that the same bytes are stored once.
    ProjectSecret
}
secret! {
    /// Opens one chunk.
    ChunkKey
}
secret! {
    /// Opens one manifest, and with it the keys of its chunks.
    ManifestKey
}
secret! {
    /// The private half of a recipient (X25519): opens every manifest that was
    /// sealed to it.
    PrivateKey
}

/// Fresh random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SealError::Random)?;
    Ok(bytes)
}

impl ProjectSecret {
    /// The secret of one project of an installation, which keeps one master
    /// secret for all: none of them tells anything of another.
    #[must_use]
    pub fn of_project(master: &[u8; KEY_BYTES], project: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("outlast secret of a project, version 1");
        hasher.update(master).update(project.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl ManifestKey {
    /// A new one, for one manifest.
    pub(super) fn fresh() -> Result<Self, SealError> {
        random().map(Self)
    }

    /// Names the key without telling it: a manifest says which one opens it, so
    /// that no two keys do.
    pub(super) fn commitment(&self) -> Digest {
        Digest::from_bytes(blake3::derive_key("outlast commitment to a manifest key, version 3", &self.0))
    }
}

/// The public half of a recipient.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

/// How a public key is called in manifests and for people.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl PublicKey {
    const TEXT: &str = "outlast-public-1 ";

    /// Takes over bytes that were made before.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// How it is called.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let hash = blake3::derive_key("outlast id of a public key, version 1", &self.0);
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        KeyId(id)
    }
}

impl PrivateKey {
    const TEXT: &str = "outlast-private-1 ";

    /// The text that goes into a file.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(128));
        text.push_str(Self::TEXT);
        BASE64.encode_append(&self.0, &mut text);
        text.push('\n');
        text
    }

    /// Reads what [`PrivateKey::to_text`] wrote; lines with `#` are passed over.
    ///
    /// # Errors
    /// Where it is something else. The error never shows the text.
    pub fn from_text(text: &str) -> Result<Self, SealError> {
        let bad = SealError::Key("the file holds no private key of this program");
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else { return Err(bad) };
        let coded = line.strip_prefix(Self::TEXT).filter(|coded| coded.len() <= 64);
        let bytes = coded.and_then(|coded| BASE64.decode(coded.trim().as_bytes()).ok()).map(Zeroizing::new);
        bytes.and_then(|bytes| Self::try_from(bytes.as_slice()).ok()).ok_or(bad)
    }
}

impl FromStr for PublicKey {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let coded = text.trim().strip_prefix(Self::TEXT).filter(|coded| coded.len() <= 64);
        let bytes = coded.and_then(|coded| BASE64.decode(coded.trim().as_bytes()).ok());
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok()).map(Self);
        bytes.ok_or(SealError::Key("that is no public key: one line `outlast-public-1 ...` is expected"))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::TEXT, BASE64.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(SealError::Key("the id of a key has 16 lower-case hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_show_themselves() {
        let bytes = [0xa5; 32];
        let shown = format!(
            "{:?} {:?} {:?} {:?}",
            ProjectSecret::from_bytes(bytes),
            ChunkKey::from_bytes(bytes),
            ManifestKey::from_bytes(bytes),
            PrivateKey::from_bytes(bytes)
        );
        assert_eq!(shown, "ProjectSecret(..) ChunkKey(..) ManifestKey(..) PrivateKey(..)");
    }

    #[test]
    fn texts_of_keys_come_back_and_others_are_refused_without_being_shown() {
        let private = PrivateKey::from_bytes([7; 32]);
        let text = format!("# a remark\n\n{}", *private.to_text());
        assert!(PrivateKey::from_text(&text).unwrap() == private);
        for bad in ["", "x", &text.repeat(2), &text.replace("private", "public"), &text.replace('=', "")] {
            let error = PrivateKey::from_text(bad).unwrap_err().to_string();
            assert!(!error.contains("BwcH"), "{error}");
        }
        let public = PublicKey::from_bytes([9; 32]);
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        assert!("outlast-public-1 AAAA".parse::<PublicKey>().is_err());
        assert_eq!(public.id().to_string().parse::<KeyId>().unwrap(), public.id());
    }

    #[test]
    fn projects_have_secrets_of_their_own() {
        let master = [1; 32];
        let of = |project: &str| ProjectSecret::of_project(&master, project);
        assert!(of("a") == of("a") && of("a") != of("b"));
        assert!(of("a") != ProjectSecret::of_project(&[2; 32], "a"));
    }
}
