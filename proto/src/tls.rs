//! TLS configurations: TLS 1.3 only, HTTP/2 only, no resumption (a resumed
//! session accepts an expired client certificate), one crypto provider. The
//! clock is the caller's, so that expiry can be tested in virtual time.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use lifecycle::{HubId, MachineId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::{Identity, peer_of};
use crate::pki::{Credentials, PkiError, certificates, machine_name, server_name, spki_pin};

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

/// The name to expect in TLS from the agent of a machine.
///
/// # Errors
/// Never for an id made by this program.
pub fn expected_machine(machine: MachineId) -> Result<ServerName<'static>, TlsError> {
    let name = machine_name(machine);
    ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name))
}

/// A server's certificate that is exchanged while it serves: handshakes that
/// begin later present the new one.
#[derive(Debug)]
pub struct Renewable(RwLock<Arc<CertifiedKey>>);

impl Renewable {
    /// Presents these from now on.
    ///
    /// # Errors
    /// Where they are unusable; then the former ones stay.
    pub fn renew(&self, own: &Credentials) -> Result<(), TlsError> {
        let key = certified(own)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }
}

impl ResolvesServerCert for Renewable {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn certified(own: &Credentials) -> Result<Arc<CertifiedKey>, TlsError> {
    Ok(Arc::new(CertifiedKey::from_der(own.chain()?, own.key()?, &crypto())?))
}

/// A server that refuses peers without a certificate of this authority.
///
/// # Errors
/// Where the credentials are unusable.
pub fn server(ca_pem: &str, own: &Credentials, clock: WallClock) -> Result<Arc<ServerConfig>, TlsError> {
    renewable_server(ca_pem, own, clock).map(|(config, _)| config)
}

/// As [`server`], and what renews its certificate while it serves.
///
/// # Errors
/// Where the credentials are unusable.
pub fn renewable_server(
    ca_pem: &str,
    own: &Credentials,
    clock: WallClock,
) -> Result<(Arc<ServerConfig>, Arc<Renewable>), TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), crypto()).build()?;
    let renewable = Arc::new(Renewable(RwLock::new(certified(own)?)));
    let config = ServerConfig::builder_with_details(crypto(), Arc::new(Clock(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(renewable.clone());
    Ok((Arc::new(harden(config)), renewable))
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

/// A client of the controller with a certificate of its own. Whoever answers
/// must have both the name and the role of the controller.
///
/// # Errors
/// Where the credentials are unusable.
pub fn client(ca_pem: &str, own: &Credentials, clock: WallClock) -> Result<Arc<ClientConfig>, TlsError> {
    client_of(ca_pem, own, clock, None)
}

/// A client of one machine's agent: nobody else is spoken with.
///
/// # Errors
/// Where the credentials are unusable.
pub fn machine_client(
    ca_pem: &str,
    own: &Credentials,
    hub: HubId,
    machine: MachineId,
    clock: WallClock,
) -> Result<Arc<ClientConfig>, TlsError> {
    client_of(ca_pem, own, clock, Some((hub, machine)))
}

fn client_of(
    ca_pem: &str,
    own: &Credentials,
    clock: WallClock,
    machine: Option<(HubId, MachineId)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), crypto()).build()?;
    let mut config = ClientConfig::builder_with_details(crypto(), Arc::new(Clock(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(trusting(Trust::Chain(chain, machine)))
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
        .with_custom_certificate_verifier(trusting(Trust::Pin(pin.to_owned())))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn trusting(trust: Trust) -> Arc<Verifier> {
    Arc::new(Verifier { trust, crypto: crypto() })
}

/// Whether a proven certificate has the role of a controller of the hub whose
/// name was dialled.
fn controls(cert: &CertificateDer<'_>, dialled: &ServerName<'_>) -> bool {
    let ServerName::DnsName(name) = dialled else { return false };
    let hub = name.as_ref().split('.').next().and_then(|hub| hub.parse::<HubId>().ok());
    hub.is_some_and(|hub| {
        name.as_ref() == server_name(hub)
            && peer_of(cert, hub).is_ok_and(|peer| peer.identity == Identity::Controller)
    })
}

/// Whose certificates are believed, and who must answer.
#[derive(Debug)]
enum Trust {
    /// Those of this chain. Chain, time, usage and name are checked as usual,
    /// and then the role: with the name alone, one wrongly signed certificate
    /// of a machine would be a controller. `None` expects a controller.
    Chain(Arc<WebPkiServerVerifier>, Option<(HubId, MachineId)>),
    /// Those of a root with this pinned key; a controller must answer.
    Pin(String),
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    crypto: Arc<CryptoProvider>,
}

impl Verifier {
    /// A chain from the peer's own certificates, if its root is the pinned one.
    fn pinned(
        &self,
        pin: &str,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let root = intermediates
            .iter()
            .find(|cert| spki_pin(cert).is_ok_and(|found| found == pin))
            .ok_or_else(unknown)?;
        let mut store = RootCertStore::empty();
        store.add(root.clone().into_owned())?;
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(store), self.crypto.clone()).build();
        built.map_err(|_| unknown())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (chain, machine) = match &self.trust {
            Trust::Chain(chain, machine) => (chain.clone(), *machine),
            Trust::Pin(pin) => (self.pinned(pin, intermediates)?, None),
        };
        let good = chain.verify_server_cert(end_entity, intermediates, server, ocsp, now)?;
        let as_expected = match machine {
            None => controls(end_entity, server),
            Some((hub, machine)) => {
                peer_of(end_entity, hub).is_ok_and(|peer| peer.identity == Identity::Machine(machine))
            }
        };
        let refused = CertificateError::ApplicationVerificationFailure;
        if as_expected { Ok(good) } else { Err(rustls::Error::InvalidCertificate(refused)) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Authority;
    use rustls::{ClientConnection, ServerConnection};

    fn hub() -> HubId {
        HubId::from_bytes([7; 16])
    }

    fn clock() -> WallClock {
        Arc::new(SystemTime::now)
    }

    /// Both ends in memory, until done or refused by the client.
    fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>, name: &str) -> Result<(), rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut near = ClientConnection::new(client, name).unwrap();
        let mut far = ServerConnection::new(server).unwrap();
        let mut wire = Vec::new();
        while near.is_handshaking() || far.is_handshaking() {
            near.write_tls(&mut wire).unwrap();
            far.read_tls(&mut wire.as_slice()).unwrap();
            far.process_new_packets()?;
            wire.clear();
            far.write_tls(&mut wire).unwrap();
            near.read_tls(&mut wire.as_slice()).unwrap();
            near.process_new_packets()?;
            wire.clear();
        }
        Ok(())
    }

    #[test]
    fn a_machine_is_never_taken_for_a_controller_nor_for_another_machine() {
        let ca = Authority::create(hub(), SystemTime::now()).unwrap();
        let day = Duration::from_hours(24);
        let id = |n: u8| MachineId::from_bytes([n; 16]);
        let me = ca.issue(&Identity::Operator("me".into()), SystemTime::now(), day).unwrap();
        let to_hub = client(ca.root_pem(), &me, clock()).unwrap();
        let to_machine = machine_client(ca.root_pem(), &me, hub(), id(1), clock()).unwrap();
        let serve = |own: &Credentials| server(ca.root_pem(), own, clock()).unwrap();
        let real = |identity| serve(&ca.issue(&identity, SystemTime::now(), day).unwrap());
        let forged = |identity, dns: &str| serve(&ca.forge(&identity, dns));
        let (hub_name, own_name) = (server_name(hub()), machine_name(id(1)));

        shake(to_hub.clone(), real(Identity::Controller), &hub_name).unwrap();
        shake(to_machine.clone(), real(Identity::Machine(id(1))), &own_name).unwrap();
        // As they are made: the name is not theirs.
        shake(to_hub.clone(), real(Identity::Machine(id(1))), &hub_name).unwrap_err();
        shake(to_machine.clone(), real(Identity::Machine(id(2))), &own_name).unwrap_err();
        // The name alone is not enough, and neither is the machine's own name
        // at a client that looks for a controller.
        let role = rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let refused = |client: &Arc<ClientConfig>, server, name: &str| {
            assert_eq!(shake(client.clone(), server, name).unwrap_err(), role, "{name}");
        };
        refused(&to_hub, forged(Identity::Machine(id(1)), &hub_name), &hub_name);
        refused(&to_hub, forged(Identity::Operator("me".into()), &hub_name), &hub_name);
        refused(&to_hub, real(Identity::Machine(id(1))), &own_name);
        refused(&to_machine, forged(Identity::Controller, &own_name), &own_name);
        refused(&to_machine, forged(Identity::Machine(id(2)), &own_name), &own_name);
        let mut joins = (*join_client(&ca.pin().unwrap(), clock()).unwrap()).clone();
        joins.resumption = Resumption::disabled();
        let join_service = join_server(&ca.forge(&Identity::Machine(id(1)), &hub_name), clock()).unwrap();
        refused(&Arc::new(joins), join_service, &hub_name);
    }

    #[test]
    fn a_renewed_certificate_is_presented_without_a_new_server() {
        let ca = Authority::create(hub(), SystemTime::now()).unwrap();
        let machine = Identity::Machine(MachineId::from_bytes([1; 16]));
        let (past, now) = (SystemTime::now() - Duration::from_hours(4), SystemTime::now());
        let old = ca.issue(&machine, past, Duration::from_hours(1)).unwrap();
        let (serves, own) = renewable_server(ca.root_pem(), &old, clock()).unwrap();
        let me = ca.issue(&Identity::Operator("me".into()), now, Duration::from_hours(1)).unwrap();
        let asks =
            machine_client(ca.root_pem(), &me, hub(), MachineId::from_bytes([1; 16]), clock()).unwrap();
        let name = machine_name(MachineId::from_bytes([1; 16]));
        shake(asks.clone(), serves.clone(), &name).expect_err("it has expired");
        let nonsense = Credentials { chain_pem: old.chain_pem.clone(), key_pem: String::new() };
        own.renew(&nonsense).expect_err("no key");
        own.renew(&ca.issue(&machine, now, Duration::from_hours(1)).unwrap()).unwrap();
        shake(asks, serves, &name).expect("the same server presents the new one");
    }
}
