//! Signs URLs that let a machine without credentials put its next objects.
//! The signature covers `If-None-Match: *`: whoever holds the URL can create
//! that one object, once, and can overwrite nothing, on a store that honours
//! the condition.

use std::time::Duration;

use object_store::HeaderValue;
use object_store::signer::{HeaderName, Method, SignedUrlOptions};

use super::{Answer, RemoteStore, Writes};
use crate::key::{KeyError, ObjectKey};
use crate::store::booklet::{Booklet, Leaf, Plan, SignedUrl};
use crate::store::trouble::{Trouble, foreign};

/// Why no booklet was made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The plan names no keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store's client cannot sign.
    #[error("URLs cannot be signed: {0}")]
    Refused(String),
    /// The condition cannot be part of the signature, or means nothing.
    #[error("this store overwrites: whoever held a signed URL could change what was stored before")]
    Overwrites,
    /// Other stores than S3 leave the condition out of what is signed.
    #[error("signed URLs of this kind of store could overwrite: machines go through the controller")]
    Unconditional,
    /// What is signed now ends with the session, whatever it says.
    #[error(
        "the credentials are a session's: give the controller an access key of its own to sign URLs ahead"
    )]
    Session,
    /// The configuration makes no key.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl RemoteStore {
    /// Signs the URLs that `plan` asks for. Asks nobody: signing is arithmetic.
    ///
    /// # Errors
    /// Where the plan goes beyond the numbers of a generation, or nothing can be
    /// signed that keeps its promise.
    pub async fn booklet(
        &self,
        scope: &str,
        generation: u64,
        plan: &Plan,
        now_ms: u64,
    ) -> Result<Booklet, SignError> {
        if !self.signs {
            return Err(SignError::Unconditional);
        }
        if self.writes == Writes::Overwriting {
            return Err(SignError::Overwrites);
        }
        if (self.fleeting)() {
            return Err(SignError::Session);
        }
        let mut booklet = Booklet {
            scope: scope.to_owned(),
            generation,
            expires_ms: now_ms.saturating_add(plan.valid.as_millis() as u64),
            trust: self.trust.clone(),
            packs: Vec::new(),
            manifests: Vec::new(),
        };
        for seq in plan.packs.clone() {
            let key = ObjectKey::pack(scope, generation, seq)?;
            booklet.packs.push(self.leaf(seq, &key, plan.valid).await?);
        }
        for seq in plan.manifests.clone() {
            let key = ObjectKey::manifest(scope, generation, seq)?;
            booklet.manifests.push(self.leaf(seq, &key, plan.valid).await?);
        }
        Ok(booklet)
    }

    async fn leaf(&self, seq: u64, key: &ObjectKey, valid: Duration) -> Result<Leaf, SignError> {
        let path = self.path(key).map_err(Answer::into_trouble)?;
        let refused = |error: object_store::Error| SignError::Refused(foreign(&error.to_string()));
        let create = SignedUrlOptions::new()
            .with_signed_header(HeaderName::from_static("if-none-match"), HeaderValue::from_static("*"));
        let put = self.bucket.signed_url_opts(Method::PUT, &path, valid, &create).await.map_err(refused)?;
        let look = self.bucket.signed_url(Method::GET, &path, valid).await.map_err(refused)?;
        Ok(Leaf { seq, put: SignedUrl::new(put.to_string()), look: SignedUrl::new(look.to_string()) })
    }
}
