//! The wire: messages and services, and the mTLS they travel in. This crate
//! is the only one that builds TLS configurations, certificates and gRPC
//! channels; it decides nothing about runs.

pub mod accept;
pub mod channel;
pub mod codec;
pub mod convert;
pub mod gateway;
pub mod identity;
pub mod link;
pub mod pki;
pub mod resolve;
mod secret;
pub mod serve;
pub mod splice;
pub mod tls;

/// Generated from `proto/outlast/v1/*.proto`; do not edit.
#[expect(missing_docs, clippy::all, reason = "generated; the .proto files carry the comments")]
#[allow(clippy::pedantic, reason = "generated")]
pub mod v1 {
    include!("generated/outlast.v1.rs");
}

impl std::fmt::Debug for v1::BookletLeaf {
    /// Its URLs are permissions and are shown to nobody.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BookletLeaf").field("seq", &self.seq).finish_non_exhaustive()
    }
}

/// The standard health service.
pub use tonic_health as health;

/// How many bytes one message may have, in each direction, outside the
/// artifact gateway.
pub const MESSAGE_LIMIT: usize = 1 << 20;

/// This build's version, for display and for the check between peers.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a controller says in `Welcome.wire`: it rises with every kind of fact
/// that an earlier controller would refuse. An agent sends nothing above what
/// its controller said.
pub const WIRE: u32 = 3;

/// Metadata of an `unavailable` answer that is not the controller's own: a
/// provider that it asked did not answer. To ask again at once helps nobody.
pub const FROM_PROVIDER: &str = "outlast-from-provider";

/// Encoding of single messages, for what is kept on disk as it travels.
pub mod wire {
    pub use prost::{DecodeError, Message};
}
