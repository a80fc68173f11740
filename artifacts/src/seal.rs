//! Trees that only their owner can read, wherever they are stored and whoever
//! stored them. Chunks are sealed under keys that come of their content and of
//! the project's secret; what a tree is, and those keys, are sealed in its
//! manifest to the project's recipients. What stands in the clear is enough to
//! find, count and check the stored bytes, and tells nothing of a name.
//!
//! The primitives are those of aws-lc (AES-256-GCM, X25519, HKDF) and BLAKE3;
//! no key ever stands in a log, an error or an argument.

use std::collections::HashMap;
use std::fmt;

use crate::digest::Digest;
use crate::key::{ObjectClass, ObjectKey};
use crate::manifest::Manifest;

pub(crate) mod chunk;
pub mod key;
mod manifest;
mod recipient;

pub use chunk::{OVERHEAD, Seal};
pub use key::{ChunkKey, KeyId, ManifestKey, PrivateKey, ProjectSecret, PublicKey};
pub use manifest::{Sealed, SealedChunk};
pub use recipient::WRAPPED_BYTES;

pub(crate) use manifest::{LEAST_PER_CHUNK, is_sealed};

/// The first version of the format that is sealed.
pub const VERSION: u32 = 3;
/// Recipients of one manifest, at most.
pub const MOST_RECIPIENTS: usize = 16;

/// Whether an object has the shape of a sealed one: a guard against a writer
/// that does not seal, never against one that lies.
#[must_use]
pub fn has_sealed_shape(key: &ObjectKey, bytes: &[u8]) -> bool {
    match key.seq() {
        Some((ObjectClass::Pack, _)) => bytes.ends_with(crate::pack::SEALED_MAGIC),
        Some((ObjectClass::Manifest, _)) => is_sealed(bytes),
        None => false,
    }
}

/// Why something was not sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// None of the keys at hand opens it. It may be as whole as any.
    #[error("none of the keys here opens it: it is sealed to {0}")]
    NoKey(String),
    /// Changed since it was sealed, or sealed by nobody who had the key.
    #[error("{0}: it is damaged or was made by somebody else")]
    Damaged(&'static str),
    /// What was given is no key.
    #[error("{0}")]
    Key(&'static str),
    /// Nobody could ever read it.
    #[error("no recipient is known: nobody could open what is sealed")]
    NoRecipient,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The tree in it is none.
    #[error(transparent)]
    Manifest(#[from] crate::manifest::ManifestError),
}

/// What a writer needs to seal trees of one project. It can name what the
/// project has stored, and opens no manifest.
#[derive(Clone)]
pub struct Sealing {
    namer: chunk::Namer,
    recipients: Vec<PublicKey>,
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealing(to {:?})", self.recipients)
    }
}

impl Sealing {
    /// Seals to these recipients.
    ///
    /// # Errors
    /// Where there are none or too many.
    pub fn new(secret: &ProjectSecret, recipients: &[PublicKey]) -> Result<Self, SealError> {
        let mut recipients = recipients.to_vec();
        recipients.sort_unstable();
        recipients.dedup();
        match recipients.len() {
            0 => Err(SealError::NoRecipient),
            1..=MOST_RECIPIENTS => Ok(Self { namer: chunk::Namer::of(secret), recipients }),
            _ => Err(SealError::Key("there are more than 16 recipients")),
        }
    }

    /// What the chunk with this hash is called in the store.
    #[must_use]
    pub fn name(&self, plain: &Digest) -> Digest {
        self.namer.name(plain)
    }

    pub(crate) fn key(&self, plain: &Digest) -> ChunkKey {
        self.namer.key(plain)
    }

    /// A sealed manifest of this tree, whose chunks are sealed already.
    pub(crate) fn manifest(&self, tree: &Manifest) -> Result<Vec<u8>, SealError> {
        manifest::encode(tree, &self.recipients)
    }
}

/// What a reader has: private keys, which open every manifest sealed to them,
/// and keys of single manifests. Empty, it opens nothing.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    private: Vec<(KeyId, PrivateKey)>,
    manifests: HashMap<ObjectKey, ManifestKey>,
}

impl Keyring {
    /// Adds a private key.
    ///
    /// # Errors
    /// Where it is none.
    pub fn add_private(&mut self, key: PrivateKey) -> Result<(), SealError> {
        self.private.push((key.public()?.id(), key));
        Ok(())
    }

    /// Adds the key of one manifest.
    pub fn add_manifest(&mut self, at: ObjectKey, key: ManifestKey) {
        self.manifests.insert(at, key);
    }

    /// Whether it opens nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.private.is_empty() && self.manifests.is_empty()
    }

    /// The key of a manifest that lies at `at`.
    ///
    /// # Errors
    /// Where none of the keys here opens it, or what was sealed to one of them
    /// is damaged.
    pub fn key_of(&self, at: &ObjectKey, sealed: &Sealed) -> Result<ManifestKey, SealError> {
        if let Some(key) = self.manifests.get(at).filter(|key| sealed.is_opened_by(key)) {
            return Ok(key.clone());
        }
        let mut wrong = None;
        for (id, key) in &self.private {
            match sealed.unwrap(*id, key) {
                Some(Ok(key)) => return Ok(key),
                Some(Err(error)) => wrong = Some(error),
                None => {}
            }
        }
        Err(wrong.unwrap_or_else(|| SealError::NoKey(sealed.recipients_text())))
    }

    /// The tree of a manifest that lies at `at`.
    ///
    /// # Errors
    /// As [`Keyring::key_of`], and where it is damaged.
    pub fn open(&self, at: &ObjectKey, sealed: &Sealed) -> Result<Manifest, SealError> {
        sealed.open(&self.key_of(at, sealed)?)
    }
}
