//! TLS configurations: TLS 1.3 only, HTTP/2 only, no resumption (a resumed
//! session accepts an expired client certificate), one crypto provider. The
//! clock is the caller's, so that expiry can be tested in virtual time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lifecycle::HubId;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::pki::{Credentials, PkiError, certificates, server_name, spki_pin};

/// Where certificates' times are compared with.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Why a configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The library refused.
    #[error("TLS could not be configured")]
    Rustls(#[from] rustls::Error),
    /// Certificates or keys are unusable.
    #[error("certificates are unusable")]
    Pki(#[from] PkiError),
    /// The verifier could not be built.
    #[error("the verifier of client certificates could not be built")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The hub's name is not a DNS name.
    #[error("`{0}` is not a server name")]
    Name(String),
}

struct Clock(WallClock);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = (self.0)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Some(UnixTime::since_unix_epoch(since))
    }
}

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(ca_pem: &str) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for cert in certificates(ca_pem)? {
        store.add(cert)?;
    }
    Ok(store)
}

/// The name to expect in TLS from any controller of this hub.
///
/// # Errors
/// Never for an id made by this program.
pub fn expected_name(hub: HubId) -> Result<ServerName<'static>, TlsError> {
    let name = server_name(hub);
    ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name))
}

/// A server that refuses peers without a certificate of this authority.
///
/// # Errors
/// Where the credentials are unusable.
pub fn server(ca_pem: &str, own: &Credentials, clock: WallClock) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), crypto()).build()?;
    let config = ServerConfig::builder_with_details(crypto(), Arc::new(Clock(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.chain()?, own.key()?)?;
    Ok(Arc::new(harden(config)))
}

/// A server for the join service: peers have no certificate yet.
///
/// # Errors
/// Where the credentials are unusable.
pub fn join_server(own: &Credentials, clock: WallClock) -> Result<Arc<ServerConfig>, TlsError> {
    let config = ServerConfig::builder_with_details(crypto(), Arc::new(Clock(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(own.chain()?, own.key()?)?;
    Ok(Arc::new(harden(config)))
}

fn harden(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A client with a certificate of its own.
///
/// # Errors
/// Where the credentials are unusable.
pub fn client(ca_pem: &str, own: &Credentials, clock: WallClock) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_details(crypto(), Arc::new(Clock(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(ca_pem)?)
        .with_client_auth_cert(own.chain()?, own.key()?)?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A client that joins: it has no certificate and accepts only a chain whose
/// root has the pinned key.
///
/// # Errors
/// Where the library refuses.
pub fn join_client(pin: &str, clock: WallClock) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_details(crypto(), Arc::new(Clock(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin: pin.to_owned(), crypto: crypto() }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Pinned {
    pin: String,
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let root = intermediates
            .iter()
            .find(|cert| spki_pin(cert).is_ok_and(|pin| pin == self.pin))
            .ok_or_else(unknown)?;
        let mut store = RootCertStore::empty();
        store.add(root.clone().into_owned())?;
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(store), self.crypto.clone())
            .build()
            .map_err(|_| unknown())?
            .verify_server_cert(end_entity, intermediates, server, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}
