//! Booklets: signed URLs for the next numbered keys of one generation. A
//! machine that is not trusted with a bucket's credentials goes on storing
//! checkpoints while its controller sleeps.
//!
//! What a booklet can do is bounded by its keys. They carry the generation,
//! and nobody lists or commits an older one once a newer is bound: what a
//! superseded machine still writes is never read. No URL lists or deletes,
//! and none overwrites where the store honours the condition that is signed
//! into it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::key::ObjectKey;

#[cfg(feature = "booklet-client")]
pub mod client;
pub mod plan;
pub mod simulated;
mod writer;

pub use plan::{Measured, Plan};
pub use writer::{BookletStore, Look, SignedRequests};

/// The most URLs of one class that are accepted.
pub const MOST_LEAVES: usize = 4096;

/// No honest URL comes near.
const LONGEST_URL: usize = 4096;

/// A URL that is itself a permission: shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUrl(String);

impl SignedUrl {
    /// Takes a URL as it was signed.
    #[must_use]
    pub fn new(url: String) -> Self {
        Self(url)
    }

    /// The URL with its signature, for the one who sends the request.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether it names this object and no other.
    fn names(&self, key: &ObjectKey) -> bool {
        let path = self.0.split(['?', '#']).next().unwrap_or_default();
        let short = self.0.len() <= LONGEST_URL;
        let web = path.starts_with("https://") || path.starts_with("http://");
        short && web && path.strip_suffix(key.as_str()).is_some_and(|before| before.ends_with('/'))
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedUrl(..)")
    }
}

/// The URLs of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// The number of the object.
    pub seq: u64,
    /// Puts it.
    pub put: SignedUrl,
    /// Reads it back, where it is open who put it.
    pub look: SignedUrl,
}

/// What whoever uses the URLs trusts, as the installation was set up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Authorities besides the system's, in PEM; empty: none.
    pub ca_pem: String,
    /// URLs of plain HTTP count.
    pub allow_http: bool,
}

/// Why a store gives no booklet.
#[derive(Debug, thiserror::Error)]
pub enum NoBooklet {
    /// It gives none as it is set up now.
    #[error("{0}")]
    Never(String),
    /// It could not be asked whether it is the right one.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Signed URLs for the next objects of one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Booklet {
    /// The run.
    pub scope: String,
    /// The generation in every key.
    pub generation: u64,
    /// When the URLs end, by the signer's clock, in milliseconds since 1970.
    pub expires_ms: u64,
    /// For whoever connects.
    pub trust: Trust,
    /// For packs.
    pub packs: Vec<Leaf>,
    /// For manifests.
    pub manifests: Vec<Leaf>,
}

/// Why a booklet is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookletError {
    /// It is for another run or generation.
    #[error("the booklet is for generation {found} of `{scope}`, not for {expected}")]
    Other {
        /// Its generation.
        found: u64,
        /// Its scope.
        scope: String,
        /// What was expected.
        expected: u64,
    },
    /// More URLs than a booklet has.
    #[error("the booklet has more than {MOST_LEAVES} URLs of one kind")]
    TooLarge,
    /// A URL does not name the object that it is given for.
    #[error("a URL of the booklet does not name object `{0}`")]
    WrongUrl(String),
}

impl Booklet {
    /// Every key with its URLs, once all of it has been checked.
    ///
    /// # Errors
    /// Where the booklet is another's or a URL names another object.
    pub fn leaves(&self, scope: &str, generation: u64) -> Result<Vec<(ObjectKey, Leaf)>, BookletError> {
        if self.scope != scope || self.generation != generation {
            let scope = self.scope.chars().take(64).collect();
            return Err(BookletError::Other { found: self.generation, scope, expected: generation });
        }
        if self.packs.len() > MOST_LEAVES || self.manifests.len() > MOST_LEAVES {
            return Err(BookletError::TooLarge);
        }
        let packs = self.packs.iter().map(|leaf| (ObjectKey::pack(scope, generation, leaf.seq), leaf));
        let manifests =
            self.manifests.iter().map(|leaf| (ObjectKey::manifest(scope, generation, leaf.seq), leaf));
        packs
            .chain(manifests)
            .map(|(key, leaf)| {
                let key = key.map_err(|error| BookletError::WrongUrl(error.to_string()))?;
                let may = |url: &SignedUrl| self.trust.allow_http || url.0.starts_with("https://");
                if [&leaf.put, &leaf.look].into_iter().all(|url| url.names(&key) && may(url)) {
                    Ok((key, leaf.clone()))
                } else {
                    Err(BookletError::WrongUrl(key.to_string()))
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(seq: u64, path: &str) -> Leaf {
        let url = SignedUrl::new(format!("https://s3.example/bucket/{path}?X-Amz-Signature=5ec4e7"));
        Leaf { seq, put: url.clone(), look: url }
    }

    fn booklet() -> Booklet {
        Booklet {
            scope: "run".into(),
            generation: 3,
            expires_ms: 1,
            trust: Trust::default(),
            packs: vec![leaf(7, "run/g0000000000000003/p00000007")],
            manifests: vec![leaf(2, "run/g0000000000000003/m00000002")],
        }
    }

    #[test]
    fn urls_are_taken_for_their_own_objects_only() {
        let keys = booklet().leaves("run", 3).unwrap();
        let keys: Vec<&str> = keys.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["run/g0000000000000003/p00000007", "run/g0000000000000003/m00000002"]);
        assert!(matches!(booklet().leaves("run", 4), Err(BookletError::Other { found: 3, expected: 4, .. })));
        assert!(matches!(booklet().leaves("other", 3), Err(BookletError::Other { .. })));
        for wrong in [
            "run/g0000000000000003/p00000008",
            "run/g0000000000000002/p00000007",
            "run/g0000000000000003/p00000007/x",
            "xrun/g0000000000000003/p00000007",
            "a?run/g0000000000000003/p00000007",
        ] {
            let mut bad = booklet();
            bad.packs[0] = leaf(7, wrong);
            assert!(matches!(bad.leaves("run", 3), Err(BookletError::WrongUrl(_))), "{wrong}");
        }
        let mut plain = booklet();
        let url = SignedUrl::new("http://s3.example/b/run/g0000000000000003/p00000007?X".into());
        plain.packs[0] = Leaf { seq: 7, put: url.clone(), look: url };
        assert!(matches!(plain.leaves("run", 3), Err(BookletError::WrongUrl(_))), "plain HTTP unasked");
        plain.trust.allow_http = true;
        assert_eq!(plain.leaves("run", 3).unwrap().len(), 2);
        let mut many = booklet();
        many.packs = vec![many.packs[0].clone(); MOST_LEAVES + 1];
        assert_eq!(many.leaves("run", 3), Err(BookletError::TooLarge));
    }

    #[test]
    fn signatures_are_shown_nowhere() {
        let shown = format!("{:?}", booklet());
        assert!(!shown.contains("5ec4e7") && !shown.contains("https"), "{shown}");
        let text = serde_json::to_string(&booklet()).unwrap();
        assert_eq!(serde_json::from_str::<Booklet>(&text).unwrap(), booklet());
    }
}
