//! Who a peer is, read from the URI SAN of its certificate and from nothing
//! else. A name in a message is never an identity.

use std::fmt;

use lifecycle::{HubId, MachineId};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A role and the id within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The controller.
    Controller,
    /// An agent: may speak for this machine only.
    Machine(MachineId),
    /// A person's tool, by the name of the device it is on; [`Identity::LOCAL`]
    /// is the controller's own computer.
    Operator(String),
}

/// No device can be called so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a device's name is 1 to 64 letters, digits and `-_.`, and not `{}`", Identity::LOCAL)]
pub struct BadDevice;

impl Identity {
    /// The operator on the controller's own computer.
    pub const LOCAL: &'static str = "local";

    /// The operator of a device elsewhere.
    ///
    /// # Errors
    /// Where the name cannot stand in a certificate, or is that of the
    /// controller's own computer.
    pub fn device(name: &str) -> Result<Self, BadDevice> {
        if is_name(name) && name != Self::LOCAL {
            Ok(Self::Operator(name.to_owned()))
        } else {
            Err(BadDevice)
        }
    }

    /// The URI SAN that carries this identity.
    #[must_use]
    pub fn uri(&self, hub: HubId) -> String {
        match self {
            Self::Controller => format!("spiffe://{hub}/controller"),
            Self::Machine(id) => format!("spiffe://{hub}/machine/{id}"),
            Self::Operator(name) => format!("spiffe://{hub}/operator/{name}"),
        }
    }

    fn from_uri(uri: &str, hub: HubId) -> Option<Self> {
        let rest = uri.strip_prefix(&format!("spiffe://{hub}/"))?;
        match rest.split_once('/') {
            None if rest == "controller" => Some(Self::Controller),
            Some(("machine", id)) => id.parse().ok().map(Self::Machine),
            Some(("operator", name)) if is_name(name) => Some(Self::Operator(name.to_owned())),
            _ => None,
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller => f.write_str("controller"),
            Self::Machine(id) => write!(f, "machine {}", id.short()),
            Self::Operator(name) => write!(f, "operator {name}"),
        }
    }
}

/// What a certificate says of its holder, once the handshake proved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    /// Unix seconds after which the certificate is void.
    pub not_after: i64,
    /// SHA-256 of the subject public key info, hex.
    pub thumbprint: String,
}

/// Why a certificate names nobody here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate.
    #[error("the peer's certificate cannot be read")]
    Unreadable,
    /// No SAN of this hub, or more than one.
    #[error("the peer's certificate does not name exactly one identity of hub {0}")]
    NoName(HubId),
}

/// Reads the holder of a DER certificate.
///
/// # Errors
/// Where it is no certificate or does not name exactly one identity of `hub`.
pub fn peer_of(der: &[u8], hub: HubId) -> Result<Peer, IdentityError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
    let names = cert
        .subject_alternative_name()
        .map_err(|_| IdentityError::Unreadable)?
        .map(|san| san.value.general_names.clone())
        .unwrap_or_default();
    let mut found = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Identity::from_uri(uri, hub),
        _ => None,
    });
    match (found.next(), found.next()) {
        (Some(identity), None) => Ok(Peer {
            identity,
            not_after: cert.validity().not_after.timestamp(),
            thumbprint: crate::pki::sha256_hex(cert.public_key().raw),
        }),
        _ => Err(IdentityError::NoName(hub)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_an_operator_with_a_name_and_never_the_controllers_own_computer() {
        assert_eq!(Identity::device("ada-laptop.2"), Ok(Identity::Operator("ada-laptop.2".into())));
        for bad in ["", "local", "a b", "a/b", "\u{fc}", &"x".repeat(65)] {
            assert_eq!(Identity::device(bad), Err(BadDevice), "{bad}");
        }
    }
}
