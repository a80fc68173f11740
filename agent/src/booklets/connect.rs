//! Reaches a store over the network: names are resolved by the system, and
//! who answers must be known to the system's authorities or to those that came
//! with the booklet. It follows nobody's proxy.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use artifacts::store::booklet::client::fetch::Fetcher;
use artifacts::store::booklet::client::{Dial, SignedClient, Stream, trusting};
use artifacts::store::booklet::{SignedRequests, Trust};
use async_trait::async_trait;

use super::Connect;
use crate::os;

/// For a connection: whoever is not there must cost seconds.
const CONNECT: Duration = Duration::from_secs(5);

/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];
/// A whole collection is a third of it.
const LONGEST: usize = 1 << 20;

struct Direct;

#[async_trait]
impl Dial for Direct {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        let dialled = tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect((host, port))).await;
        Ok(Box::new(dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??))
    }
}

/// The first collection that is there: a machine may have none, and its store
/// an authority of its own.
fn system() -> Option<Vec<u8>> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    // Where a system keeps its file, it may be a link.
    let read = |path: PathBuf| os::read_bounded(&std::fs::canonicalize(path).ok()?, LONGEST).ok();
    named.into_iter().chain(SYSTEM.map(PathBuf::from)).find_map(read)
}

/// Reads over the network of this machine, from whom its system trusts.
#[must_use]
pub fn fetcher(patience: Duration) -> Fetcher {
    let pems: Vec<Vec<u8>> = system().into_iter().collect();
    Fetcher::new(Arc::new(Direct), &pems, patience)
}

/// Connects over the network of this machine.
#[must_use]
pub fn over_the_network() -> Connect {
    Arc::new(|trust: &Trust| {
        let mut pems: Vec<Vec<u8>> = system().into_iter().collect();
        pems.push(trust.ca_pem.as_bytes().to_vec());
        Arc::new(SignedClient::new(Arc::new(Direct), trusting(&pems))) as Arc<dyn SignedRequests>
    })
}
