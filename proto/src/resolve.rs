//! Names to addresses without the C library: a static binary that calls
//! getaddrinfo loads the host's NSS modules and can crash on them.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;

/// Splits `host:port` (IPv6 in brackets).
///
/// # Errors
/// Where it is not of that form.
pub fn split(endpoint: &str) -> io::Result<(String, u16)> {
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, format!("`{endpoint}` is not host:port"));
    let (host, port) = endpoint.rsplit_once(':').ok_or_else(bad)?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(bad());
    }
    Ok((host.to_owned(), port.parse().map_err(|_| bad())?))
}

/// The addresses of `host:port`; literal addresses ask nobody.
///
/// # Errors
/// Where the name has no address.
pub async fn addresses(endpoint: &str) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = split(endpoint)?;
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let resolver =
        TokioResolver::builder_tokio().map_err(io::Error::other)?.build().map_err(io::Error::other)?;
    let found = resolver.lookup_ip(host.as_str()).await.map_err(io::Error::other)?;
    let list: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
    if list.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address")));
    }
    Ok(list)
}
