//! The HTTP client below a store's. A redirect is an answer and is never
//! followed: signed requests go to the address that was configured, and
//! nowhere else. Nor do they go through a proxy to this computer itself.

use std::time::Duration;

use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientOptions, Error};
use reqwest::redirect::Policy;

/// Connects as told here; the library's own options say nothing of redirects.
#[derive(Debug, Clone)]
pub(super) struct Direct {
    /// For a connection.
    pub(super) connect: Duration,
    /// Authorities that are trusted besides the system's.
    pub(super) trusted: Vec<reqwest::Certificate>,
    pub(super) allow_http: bool,
    /// The store is on this very computer.
    pub(super) here: bool,
}

impl HttpConnector for Direct {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut builder = reqwest::Client::builder()
            .user_agent("outlast")
            .connect_timeout(self.connect)
            .redirect(Policy::none())
            .https_only(!self.allow_http)
            .http1_only()
            .tls_certs_merge(self.trusted.clone());
        if self.here {
            builder = builder.no_proxy();
        }
        let built = builder.build();
        let client = built.map_err(|error| Error::Generic { store: "HTTP", source: Box::new(error) })?;
        Ok(HttpClient::new(client))
    }
}

/// Whether an address is this computer's own.
pub(super) fn is_here(endpoint: &str) -> bool {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_computer_is_known_by_its_names() {
        for here in ["http://127.0.0.1:9000", "https://localhost/x", "http://[::1]:9000", "http://127.9.9.9"]
        {
            assert!(is_here(here), "{here}");
        }
        for there in ["https://s3.example", "http://localhost.example:80", "http://10.0.0.7:9000"] {
            assert!(!is_here(there), "{there}");
        }
    }
}
