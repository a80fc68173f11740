//! Why a host cannot be talked to, from what the user's `ssh` says: what to do
//! about it, and whether another try can help. Wrong here costs a try or a
//! good hint, never more: whether a script ran is not decided by these texts.

use artifacts::store::trouble::foreign;

/// Why there is no conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The client itself cannot be run.
    Client(String),
    /// The host shows another key than the one that is known.
    ChangedKey,
    /// No key of the host is known.
    UnknownKey,
    /// The host takes none of the user's keys.
    Refused(String),
    /// There is no host of this name.
    NoSuchHost(String),
    /// The client does not take its own settings.
    Settings(String),
    /// A connection, and no shell at its end.
    NoShell(String),
    /// No connection. Only this is tried again.
    Unreachable(String),
}

impl Trouble {
    /// Whether it may be gone a little later.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// What is wrong, in one line.
    pub(crate) fn problem(&self) -> String {
        match self {
            Self::Client(why) => format!("the SSH client does not run: {why}"),
            Self::ChangedKey => {
                "its host key has CHANGED: this may be another machine, or somebody in between".into()
            }
            Self::UnknownKey => "its host key is not known, and unknown keys are not trusted".into(),
            Self::Refused(why) => format!("it refuses the login: {why}"),
            Self::NoSuchHost(why) => format!("there is no such host: {why}"),
            Self::Settings(why) => format!("the SSH client refuses its settings: {why}"),
            Self::NoShell(why) => format!("the login works and gives no shell: {why}"),
            Self::Unreachable(why) => format!("it cannot be reached: {why}"),
        }
    }

    /// What a person can do. The destination is one word for a shell.
    pub(crate) fn cure(&self, destination: &str) -> String {
        match self {
            Self::Client(_) => "install OpenSSH's client, or name it in OUTLAST_SSH".into(),
            Self::ChangedKey => format!(
                "if the host was installed anew, remove the old key (`ssh-keygen -R HOST`; \
                 `ssh {destination}` shows how), then connect once by hand and compare the fingerprint; else do not \
                 connect"
            ),
            Self::UnknownKey => {
                format!("connect once by hand (`ssh {destination}`), compare the fingerprint and accept it")
            }
            Self::Refused(_) => format!(
                "make `ssh -o BatchMode=yes {destination} true` work: a key in the agent or `identity_file`, and the \
                 right user"
            ),
            Self::NoSuchHost(_) => {
                "correct `destination` in providers.toml, or the host's name in ~/.ssh/config".into()
            }
            Self::Settings(_) => {
                "correct ~/.ssh/config, or `identity_file` and `known_hosts` in providers.toml".into()
            }
            Self::NoShell(_) => {
                format!("`ssh {destination} sh -c true` must work: the account needs a POSIX shell")
            }
            Self::Unreachable(_) => format!("see that it is on and that `ssh {destination}` works from here"),
        }
    }
}

/// What a text of the client means, given its last line.
type Meaning = fn(String) -> Trouble;

/// Texts of OpenSSH, the first that is found counts.
const KNOWN: [(&str, Meaning); 18] = [
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", |_| Trouble::ChangedKey),
    ("differs from the key for the IP address", |_| Trouble::ChangedKey),
    ("you have requested strict checking", |_| Trouble::UnknownKey),
    ("Host key verification failed", |_| Trouble::UnknownKey),
    ("Permission denied (", Trouble::Refused),
    ("Too many authentication failures", Trouble::Refused),
    ("No supported authentication methods", Trouble::Refused),
    ("Temporary failure in name resolution", Trouble::Unreachable),
    ("Could not resolve hostname", Trouble::NoSuchHost),
    ("Name or service not known", Trouble::NoSuchHost),
    ("Bad configuration option", Trouble::Settings),
    ("Bad owner or permissions", Trouble::Settings),
    ("terminating, ", Trouble::Settings),
    ("Bad port", Trouble::Settings),
    ("no argument after keyword", Trouble::Settings),
    ("missing argument", Trouble::Settings),
    ("unknown key type", Trouble::Settings),
    ("Unable to negotiate", Trouble::Settings),
];

/// What an end before the first line means. A client that could not connect
/// ends with 255; whatever ends otherwise was there.
pub(crate) fn judge(code: Option<i32>, said: &str) -> Trouble {
    let last = last_line(said);
    match code {
        Some(255) => {
            let known = KNOWN.iter().find(|(text, _)| said.contains(text));
            let why = if last.is_empty() { "the connection failed without a word".into() } else { last };
            known.map_or_else(|| Trouble::Unreachable(why.clone()), |(_, trouble)| trouble(why.clone()))
        }
        Some(code) if last.is_empty() => Trouble::NoShell(format!("it ended with {code}")),
        Some(code) => Trouble::NoShell(format!("it ended with {code}: {last}")),
        None => Trouble::Unreachable("the SSH client was killed".into()),
    }
}

/// The last line with something in it, fit to be shown.
pub(super) fn last_line(said: &str) -> String {
    foreign(said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_openssh_says_is_understood() {
        let changed = "@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@\nHost key for h has \
                       changed and you have requested strict checking.\r\nHost key verification failed.\r\n";
        assert_eq!(judge(Some(255), changed), Trouble::ChangedKey);
        let unknown = "No ED25519 host key is known for h and you have requested strict checking.\r\nHost key \
                       verification failed.\r\n";
        assert_eq!(judge(Some(255), unknown), Trouble::UnknownKey);
        let passes = |said: &str| judge(Some(255), said).passes();
        for said in [
            "ssh: connect to host h port 22: Connection refused\r\n",
            "ssh: connect to host h port 22: No route to host",
            "ssh: connect to host h port 22: Connection timed out",
            "Connection closed by 10.0.0.7 port 22",
            "kex_exchange_identification: read: Connection reset by peer",
            "ssh: Could not resolve hostname h: Temporary failure in name resolution",
            "",
        ] {
            assert!(passes(said), "{said}");
        }
        for said in [
            changed,
            unknown,
            "u@h: Permission denied (publickey).\r\n",
            "ssh: Could not resolve hostname h: Name or service not known",
            "command-line: line 0: Bad configuration option: x",
            "/home/u/.ssh/config: terminating, 1 bad configuration options",
        ] {
            assert!(!passes(said), "{said}");
        }
        assert!(judge(None, "").passes());
    }

    #[test]
    fn a_remote_failure_is_none_of_the_link() {
        for (code, said) in [(0, ""), (1, "This account is currently not available."), (127, "sh: not found")]
        {
            let trouble = judge(Some(code), said);
            assert!(matches!(trouble, Trouble::NoShell(_)) && !trouble.passes(), "{code}");
        }
    }

    #[test]
    fn what_a_host_says_reaches_nobodys_terminal() {
        let trouble = judge(Some(255), &format!("x\x1b[2J{}", "y".repeat(9000)));
        assert!(trouble.problem().len() < 300 && !trouble.problem().contains('\x1b'));
    }
}
