//! The hub's own certificate authority and the keys of machines. Private keys
//! are made where they are used and never travel.

use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use aws_lc_rs::{digest, rand};
use lifecycle::{HubId, MachineId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::Identity;

/// What can go wrong with certificates and keys.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library refused to make or sign something.
    #[error("certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// A stored or received text or structure is not what it should be.
    #[error("{0} cannot be read")]
    Unreadable(&'static str),
    /// A signature does not hold.
    #[error("{0} is not signed by the key it names")]
    Signature(&'static str),
    /// The system gave no randomness.
    #[error("no randomness")]
    Random,
}

const DAY: Duration = Duration::from_hours(24);
/// Clocks of machines may be behind: certificates begin an hour early.
const SKEW: Duration = Duration::from_hours(1);

/// SHA-256 as lower-case hex.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let sum = digest::digest(&digest::SHA256, bytes);
    sum.as_ref().iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// `N` bytes from the system's generator.
///
/// # Errors
/// Where the system has no randomness to give.
pub fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
    Ok(bytes)
}

/// The name that every controller of a hub answers to in TLS, wherever it is.
#[must_use]
pub fn server_name(hub: HubId) -> String {
    format!("{hub}.hub.outlast.internal")
}

/// The name that a machine's agent answers to in TLS, wherever it is.
#[must_use]
pub fn machine_name(machine: MachineId) -> String {
    format!("{machine}.machine.outlast.internal")
}

/// A certificate chain (leaf first) and its key, both PEM.
#[derive(Clone)]
pub struct Credentials {
    /// PEM, leaf first.
    pub chain_pem: String,
    /// PKCS#8 PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// The chain in DER.
    ///
    /// # Errors
    /// Where the PEM holds no certificate.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, PkiError> {
        certificates(&self.chain_pem)
    }

    /// The key in DER.
    ///
    /// # Errors
    /// Where the PEM holds no key.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, PkiError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|_| PkiError::Unreadable("private key"))
    }

    /// Unix seconds between which the leaf is valid.
    ///
    /// # Errors
    /// Where the chain cannot be read.
    pub fn validity(&self) -> Result<(i64, i64), PkiError> {
        let chain = self.chain()?;
        let leaf = chain.first().ok_or(PkiError::Unreadable("certificate chain"))?;
        let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| PkiError::Unreadable("certificate"))?;
        Ok((cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp()))
    }
}

/// Reads every certificate of a PEM text.
///
/// # Errors
/// Where there is none, or one cannot be read.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(PkiError::Unreadable("certificate chain")),
    }
}

/// SHA-256 of a certificate's subject public key info, hex: the pin.
///
/// # Errors
/// Where it is no certificate.
pub fn spki_pin(der: &[u8]) -> Result<String, PkiError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| PkiError::Unreadable("certificate"))?;
    Ok(sha256_hex(cert.public_key().raw))
}

/// The hub's authority: signs leaves, is kept in the data directory.
pub struct Authority {
    hub: HubId,
    root_pem: String,
    issuer: Issuer<'static, KeyPair>,
    key_pem: String,
}

impl Authority {
    /// Makes a new root, valid ten years.
    ///
    /// # Errors
    /// Where keys cannot be made.
    pub fn create(hub: HubId, now: SystemTime) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("outlast hub {}", hub.short()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - SKEW).into();
        params.not_after = (now + DAY * 3650).into();
        let root_pem = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        Ok(Self { hub, root_pem, issuer: Issuer::new(params, key), key_pem })
    }

    /// Takes up a stored root.
    ///
    /// # Errors
    /// Where certificate or key cannot be read.
    pub fn load(hub: HubId, root_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem)?;
        let issuer = Issuer::from_ca_cert_pem(root_pem, key)?;
        Ok(Self { hub, root_pem: root_pem.to_owned(), issuer, key_pem: key_pem.to_owned() })
    }

    /// The root certificate, PEM; public.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The root's key, PEM; written to an owner-only file and nowhere else.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The pin that join strings carry.
    ///
    /// # Errors
    /// Where the root cannot be read.
    pub fn pin(&self) -> Result<String, PkiError> {
        let roots = certificates(&self.root_pem)?;
        spki_pin(roots.first().ok_or(PkiError::Unreadable("root certificate"))?)
    }

    fn leaf(
        &self,
        identity: &Identity,
        now: SystemTime,
        life: Duration,
    ) -> Result<CertificateParams, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&identity.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
        // A machine is asked for its health under a name that no controller has.
        let (usages, dns) = match identity {
            Identity::Controller => (vec![server], Some(server_name(self.hub))),
            Identity::Machine(id) => (vec![client, server], Some(machine_name(*id))),
            Identity::Operator(_) => (vec![client], None),
        };
        params.extended_key_usages = usages;
        let uri = identity.uri(self.hub).try_into()?;
        params.subject_alt_names.push(SanType::URI(uri));
        if let Some(dns) = dns {
            params.subject_alt_names.push(SanType::DnsName(dns.try_into()?));
        }
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - SKEW).into();
        params.not_after = (now + life).into();
        Ok(params)
    }

    /// A fresh key with its certificate, for the controller (90 days) or an
    /// operator.
    ///
    /// # Errors
    /// Where keys cannot be made.
    pub fn issue(
        &self,
        identity: &Identity,
        now: SystemTime,
        life: Duration,
    ) -> Result<Credentials, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf = self.leaf(identity, now, life)?.signed_by(&key, &self.issuer)?;
        Ok(Credentials { chain_pem: leaf.pem() + &self.root_pem, key_pem: key.serialize_pem() })
    }

    /// A certificate whose name and role disagree, which the product never
    /// makes: what clients do with it is to be tested.
    #[cfg(test)]
    pub(crate) fn forge(&self, identity: &Identity, dns: &str) -> Credentials {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = self.leaf(identity, SystemTime::now(), DAY).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names.retain(|name| matches!(name, SanType::URI(_)));
        params.subject_alt_names.push(SanType::DnsName(dns.try_into().unwrap()));
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Credentials { chain_pem: leaf.pem() + &self.root_pem, key_pem: key.serialize_pem() }
    }

    /// Signs a machine's request. Nothing of the request but its public key is
    /// taken over. Returns the chain and the key's thumbprint.
    ///
    /// # Errors
    /// Where the request is not signed by its own key.
    pub fn sign_machine(
        &self,
        machine: MachineId,
        csr_der: &[u8],
        now: SystemTime,
        life: Duration,
    ) -> Result<String, PkiError> {
        self.sign(&Identity::Machine(machine), csr_der, now, life)
    }

    /// Signs the request of a person's device, which is an operator from then
    /// on. As [`Self::sign_machine`], nothing but the public key is taken over.
    ///
    /// # Errors
    /// Where no device can be called so, or the request is not signed by its own
    /// key.
    pub fn sign_device(
        &self,
        name: &str,
        csr_der: &[u8],
        now: SystemTime,
        life: Duration,
    ) -> Result<String, PkiError> {
        let identity = Identity::device(name).map_err(|_| PkiError::Unreadable("the device's name"))?;
        self.sign(&identity, csr_der, now, life)
    }

    fn sign(
        &self,
        identity: &Identity,
        csr_der: &[u8],
        now: SystemTime,
        life: Duration,
    ) -> Result<String, PkiError> {
        let der = CertificateSigningRequestDer::from(csr_der.to_vec());
        let mut csr = CertificateSigningRequestParams::from_der(&der)
            .map_err(|_| PkiError::Signature("certificate request"))?;
        csr.params = self.leaf(identity, now, life)?;
        Ok(csr.signed_by(&self.issuer)?.pem() + &self.root_pem)
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, common);
    dn
}

/// A certificate request from its PEM.
///
/// # Errors
/// Where there is none.
pub fn csr_from_pem(pem: &str) -> Result<Vec<u8>, PkiError> {
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes());
    der.map(|der| der.to_vec()).map_err(|_| PkiError::Unreadable("certificate request"))
}

/// The public key info of a request, DER.
///
/// # Errors
/// Where the request cannot be read.
pub fn csr_public_key(csr_der: &[u8]) -> Result<Vec<u8>, PkiError> {
    let (_, csr) = X509CertificationRequest::from_der(csr_der)
        .map_err(|_| PkiError::Unreadable("certificate request"))?;
    Ok(csr.certification_request_info.subject_pki.raw.to_vec())
}

const REJOIN: &[u8] = b"outlast-rejoin";

/// A machine's own key, or a device's.
pub struct MachineKey {
    key: KeyPair,
}

impl MachineKey {
    /// Makes a new one.
    ///
    /// # Errors
    /// Where keys cannot be made.
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self { key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)? })
    }

    /// Reads a stored one.
    ///
    /// # Errors
    /// Where the PEM holds no key.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Ok(Self { key: KeyPair::from_pem(pem)? })
    }

    /// For an owner-only file.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A certificate request, DER.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn request(&self) -> Result<Vec<u8>, PkiError> {
        Ok(CertificateParams::default().serialize_request(&self.key)?.der().to_vec())
    }

    /// The same as PEM, for a text stream.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn request_pem(&self) -> Result<String, PkiError> {
        Ok(CertificateParams::default().serialize_request(&self.key)?.pem()?)
    }

    /// The key and what was signed for it.
    #[must_use]
    pub fn with(&self, chain_pem: String) -> Credentials {
        Credentials { chain_pem, key_pem: self.to_pem() }
    }

    /// Proves possession of the key for a rejoin.
    ///
    /// # Errors
    /// Where signing fails.
    pub fn sign_rejoin(&self, nonce: &[u8]) -> Result<Vec<u8>, PkiError> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, self.key.serialized_der())
                .map_err(|_| PkiError::Unreadable("machine key"))?;
        debug_assert!(!pair.public_key().as_ref().is_empty());
        let signed = pair
            .sign(&aws_lc_rs::rand::SystemRandom::new(), &[REJOIN, nonce].concat())
            .map_err(|_| PkiError::Random)?;
        Ok(signed.as_ref().to_vec())
    }
}

/// Checks the answer to a challenge against the bound key (SPKI, DER).
///
/// # Errors
/// Where the signature is not that key's.
pub fn verify_rejoin(spki_der: &[u8], nonce: &[u8], signed: &[u8]) -> Result<(), PkiError> {
    let (_, spki) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki_der)
        .map_err(|_| PkiError::Unreadable("bound key"))?;
    let key =
        UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, spki.subject_public_key.data.as_ref());
    key.verify(&[REJOIN, nonce].concat(), signed).map_err(|_| PkiError::Signature("rejoin"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::peer_of;

    fn hub() -> HubId {
        HubId::from_bytes([7; 16])
    }

    #[test]
    fn a_request_cannot_choose_its_own_name() {
        let ca = Authority::create(hub(), SystemTime::now()).unwrap();
        let key = MachineKey::generate().unwrap();
        let me = MachineId::from_bytes([1; 16]);
        let mut params = CertificateParams::default();
        params
            .subject_alt_names
            .push(SanType::URI(Identity::Operator("root".into()).uri(hub()).try_into().unwrap()));
        let csr = params.serialize_request(&key.key).unwrap().der().to_vec();
        let chain = ca.sign_machine(me, &csr, SystemTime::now(), DAY).unwrap();
        let der = certificates(&chain).unwrap();
        assert_eq!(peer_of(&der[0], hub()).unwrap().identity, Identity::Machine(me));
    }

    #[test]
    fn a_certificate_of_another_hub_names_nobody() {
        let ca = Authority::create(hub(), SystemTime::now()).unwrap();
        let creds = ca.issue(&Identity::Operator("me".into()), SystemTime::now(), DAY).unwrap();
        let der = creds.chain().unwrap();
        assert!(peer_of(&der[0], HubId::from_bytes([8; 16])).is_err());
    }

    #[test]
    fn a_reloaded_authority_signs_what_the_first_accepts() {
        let ca = Authority::create(hub(), SystemTime::now()).unwrap();
        let again = Authority::load(hub(), ca.root_pem(), ca.key_pem()).unwrap();
        assert_eq!(ca.pin().unwrap(), again.pin().unwrap());
        assert!(again.issue(&Identity::Controller, SystemTime::now(), DAY).is_ok());
    }

    #[test]
    fn only_the_bound_key_can_rejoin() {
        let key = MachineKey::from_pem(&MachineKey::generate().unwrap().to_pem()).unwrap();
        let spki = csr_public_key(&key.request().unwrap()).unwrap();
        let signed = key.sign_rejoin(b"nonce").unwrap();
        assert!(verify_rejoin(&spki, b"nonce", &signed).is_ok());
        assert!(verify_rejoin(&spki, b"other", &signed).is_err());
        let other = MachineKey::generate().unwrap().sign_rejoin(b"nonce").unwrap();
        assert!(verify_rejoin(&spki, b"nonce", &other).is_err());
    }
}
