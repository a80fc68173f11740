//! What a failed build command's output says: the network, or something that no
//! retry mends. Pure.

/// Marks of a connection that failed, as pip, uv, conda, git and curl print it,
/// and then as podman and docker do, which speak with the words of Go.
const NETWORK: [&str; 40] = [
    "temporary failure in name resolution",
    "name or service not known",
    "could not resolve host",
    "nodename nor servname",
    "dns error",
    "failed to lookup address",
    "connection refused",
    "connection reset",
    "connection aborted",
    "connection timed out",
    "connection broken",
    "connecttimeout",
    "readtimeout",
    "read timed out",
    "operation timed out",
    "network is unreachable",
    "no route to host",
    "max retries exceeded",
    "newconnectionerror",
    "incompleteread",
    "remotedisconnected",
    "error sending request",
    "failed to fetch",
    "tls handshake",
    "condahttperror",
    "502 bad gateway",
    "503 service unavailable",
    "too many requests",
    "no such host",
    "server misbehaving",
    "i/o timeout",
    "context deadline exceeded",
    "client.timeout exceeded",
    "request canceled while waiting",
    "unexpected eof",
    "toomanyrequests",
    "unexpected http status: 5",
    "unexpected status code 5",
    "received unexpected http status: 429",
    "connection lost",
];

/// Marks that outweigh any trouble on the way: the answer arrived and is no.
const FINAL: [&str; 8] = [
    "manifest unknown",
    "requested access to the resource is denied",
    "resolutionimpossible",
    "conflicting dependencies",
    "no solution found when resolving",
    "no space left on device",
    "requires a different python",
    "hashes are required",
];

/// Whether trying again may help.
pub(super) fn is_retryable(lines: &[String]) -> bool {
    let text = lines.join("\n").to_lowercase();
    NETWORK.iter().any(|mark| text.contains(mark)) && !FINAL.iter().any(|mark| text.contains(mark))
}

/// What to do, where the output makes that plain.
pub(super) fn hint(lines: &[String]) -> Option<String> {
    let text = lines.join("\n").to_lowercase();
    let says = |mark: &str| text.contains(mark);
    if says("ensurepip") || says("no module named venv") {
        Some("apt-get install python3-venv".to_owned())
    } else if says("no module named pip") {
        Some("apt-get install python3-pip python3-venv".to_owned())
    } else if says("no space left on device") {
        Some("the disk is full: choose a larger one".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_network_is_told_from_an_answer_that_is_no() {
        let network = lines(
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n\
             ERROR: No matching distribution found for torch",
        );
        assert!(is_retryable(&network));
        let absent = lines(
            "ERROR: Could not find a version that satisfies the requirement nosuch (from versions: none)",
        );
        assert!(!is_retryable(&absent));
        let conflict = lines("Connection reset by peer, retrying\nERROR: ResolutionImpossible");
        assert!(!is_retryable(&conflict));
    }

    /// What podman 4.3 and docker 27 print of a registry that does not answer,
    /// answers too much or has not what is asked for.
    #[test]
    fn a_registry_out_of_reach_is_not_an_image_that_is_not_there() {
        for passing in [
            r#"Error: initializing source docker://debian:12: pinging container registry registry-1.docker.io: Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host"#,
            "dial tcp: lookup registry-1.docker.io on 10.0.0.2:53: server misbehaving",
            "dial tcp 10.1.2.3:443: i/o timeout",
            "toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating",
            "Error: writing blob: storing blob to file: happened during read: unexpected EOF",
            "error pulling image: received unexpected HTTP status: 503 Service Unavailable",
            "net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)",
            "Error: context deadline exceeded",
        ] {
            assert!(is_retryable(&lines(passing)), "{passing}");
        }
        for answered in [
            "Error: reading manifest nosuch in docker.io/library/debian: manifest unknown: manifest unknown",
            "Error: requested access to the resource is denied",
            r#"Error: short-name "nosuch" did not resolve to an alias"#,
        ] {
            assert!(!is_retryable(&lines(answered)), "{answered}");
        }
    }

    #[test]
    fn a_missing_venv_package_is_named() {
        let debian = lines(
            "The virtual environment was not created successfully because ensurepip is not\navailable.",
        );
        assert_eq!(hint(&debian).as_deref(), Some("apt-get install python3-venv"));
        assert_eq!(hint(&lines("SyntaxError")), None);
    }
}
