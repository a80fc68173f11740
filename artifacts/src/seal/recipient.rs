//! A manifest's key, sealed to a recipient: an X25519 key made for this one
//! purpose, HKDF-SHA256 over what both sides agree on, AES-256-GCM over the
//! key. The same shape as a stanza of age; nothing in it is made here.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use super::SealError;
use super::key::{KEY_BYTES, ManifestKey, PrivateKey, PublicKey};

/// The public half of the key made for it, the sealed key and its tag.
pub const WRAPPED_BYTES: usize = 32 + KEY_BYTES + 16;
/// Binds what is agreed on to this use.
const INFO: &[u8] = b"outlast manifest key, version 3";

const BROKEN: SealError = SealError::Damaged("a sealed key does not open");

/// The length that HKDF is asked for.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

fn private(bytes: &[u8; KEY_BYTES]) -> Result<agreement::PrivateKey, SealError> {
    agreement::PrivateKey::from_private_key(&X25519, bytes).map_err(|_| SealError::Key("it is no X25519 key"))
}

fn public(key: &agreement::PrivateKey) -> Result<PublicKey, SealError> {
    let public = key.compute_public_key().map_err(|_| SealError::Key("it has no public half"))?;
    let bytes = public.as_ref().try_into().map_err(|_| SealError::Key("it has no public half"))?;
    Ok(PublicKey::from_bytes(bytes))
}

impl PrivateKey {
    /// A new one.
    ///
    /// # Errors
    /// Where the system gives no randomness.
    pub fn generate() -> Result<Self, SealError> {
        super::key::random().map(Self::from_bytes)
    }

    /// Its public half.
    ///
    /// # Errors
    /// Never for a key of 32 bytes.
    pub fn public(&self) -> Result<PublicKey, SealError> {
        public(&private(self.expose())?)
    }
}

impl PublicKey {
    /// Whether something can be sealed to it: with a key of low order nobody
    /// agrees on any secret.
    ///
    /// # Errors
    /// Where nothing can.
    pub fn check(&self) -> Result<(), SealError> {
        // Whose key it is makes no difference to that.
        let any = private(&[1; KEY_BYTES])?;
        let agreed = agree(&any, self, (self, self)).map(drop);
        agreed.map_err(|_| SealError::Key("that public key is of low order: nothing can be sealed to it"))
    }
}

/// The key that both sides come to; used for one message, so that its nonce may
/// be nothing.
fn agree(
    ours: &agreement::PrivateKey,
    theirs: &PublicKey,
    (made, to): (&PublicKey, &PublicKey),
) -> Result<LessSafeKey, SealError> {
    let peer = UnparsedPublicKey::new(&X25519, theirs.as_bytes());
    let salt = [made.as_bytes().as_slice(), to.as_bytes()].concat();
    let derived = agreement::agree(ours, peer, BROKEN, |shared| {
        let extracted = Salt::new(HKDF_SHA256, &salt).extract(shared);
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let expanded = extracted.expand(&[INFO], Length).map_err(|_| BROKEN)?;
        expanded.fill(key.as_mut_slice()).map_err(|_| BROKEN)?;
        Ok(key)
    })?;
    let key = UnboundKey::new(&AES_256_GCM, derived.as_slice()).map_err(|_| BROKEN)?;
    Ok(LessSafeKey::new(key))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Seals a manifest's key to one recipient.
pub(super) fn wrap(key: &ManifestKey, to: &PublicKey) -> Result<[u8; WRAPPED_BYTES], SealError> {
    let made = private(&Zeroizing::new(super::key::random::<KEY_BYTES>()?))?;
    let made_public = public(&made)?;
    let sealing = agree(&made, to, (&made_public, to))?;
    let mut wrapped = [0; WRAPPED_BYTES];
    wrapped[..32].copy_from_slice(made_public.as_bytes());
    wrapped[32..64].copy_from_slice(key.expose());
    let tag = sealing.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut wrapped[32..64]);
    wrapped[64..].copy_from_slice(tag.map_err(|_| BROKEN)?.as_ref());
    Ok(wrapped)
}

/// Opens what [`wrap`] made.
pub(super) fn unwrap(wrapped: &[u8; WRAPPED_BYTES], with: &PrivateKey) -> Result<ManifestKey, SealError> {
    let ours = private(with.expose())?;
    let own = public(&ours)?;
    let made: [u8; 32] = wrapped[..32].try_into().map_err(|_| BROKEN)?;
    let made = PublicKey::from_bytes(made);
    let opening = agree(&ours, &made, (&made, &own))?;
    let mut sealed = Zeroizing::new(wrapped[32..].to_vec());
    let opened = opening.open_in_place(nonce(), Aad::empty(), &mut sealed).map_err(|_| BROKEN)?;
    ManifestKey::try_from(&*opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_for_its_recipient_alone() {
        let (me, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let key = ManifestKey::fresh().unwrap();
        let wrapped = wrap(&key, &me.public().unwrap()).unwrap();
        assert!(unwrap(&wrapped, &me).unwrap() == key);
        assert!(unwrap(&wrapped, &other).is_err());
        assert_ne!(wrapped, wrap(&key, &me.public().unwrap()).unwrap(), "each time another");
        for at in 0..wrapped.len() {
            let mut bad = wrapped;
            bad[at] ^= 1;
            assert!(unwrap(&bad, &me).is_err(), "{at}");
        }
    }

    #[test]
    fn a_public_key_without_order_is_refused() {
        let key = ManifestKey::fresh().unwrap();
        let mut one = [0; 32];
        one[0] = 1;
        for low in [[0; 32], one] {
            assert!(wrap(&key, &PublicKey::from_bytes(low)).is_err());
            assert!(PublicKey::from_bytes(low).check().is_err());
        }
        assert!(PrivateKey::generate().unwrap().public().unwrap().check().is_ok());
    }

    /// As python3-cryptography has it.
    #[test]
    fn the_public_half_is_that_of_another_implementation() {
        let hex = |text: &str| -> [u8; 32] {
            data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
        };
        let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f92ebc0992ac177fba51db92c2a");
        let public = hex("f8a9535a2d2ff605e8e144d54f4ef5c62313a2055dbb21fddd3fd9c299eb015d");
        assert_eq!(PrivateKey::from_bytes(alice).public().unwrap().as_bytes(), &public);
    }
}
