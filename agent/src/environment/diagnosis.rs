//! What a failed build command's output says: the network, or something that no
//! retry mends. Pure.

/// Marks of a connection that failed, as pip, uv, conda, git and curl print it.
const NETWORK: [&str; 28] = [
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
];

/// Marks that outweigh any trouble on the way: the answer arrived and is no.
const FINAL: [&str; 6] = [
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

    #[test]
    fn a_missing_venv_package_is_named() {
        let debian = lines(
            "The virtual environment was not created successfully because ensurepip is not\navailable.",
        );
        assert_eq!(hint(&debian).as_deref(), Some("apt-get install python3-venv"));
        assert_eq!(hint(&lines("SyntaxError")), None);
    }
}
