//! The command line of the user's SSH client for one machine. Pure. Every value
//! of a provider is checked: none may become another option or another
//! command, there or here. No secret ever stands in it: whoever lists processes
//! sees it.

use std::ffi::OsString;
use std::path::Path;

use super::plan::Address;
use crate::provider::{HostKeys, SshAddress, SshRoute};

/// Longest value taken from a provider.
const LONGEST: usize = 1_024;

/// Why a route cannot be used. Told to people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the way to the machine is not usable: {what} must be {expected}")]
pub(super) struct BadRoute {
    what: &'static str,
    expected: &'static str,
}

/// What kind of conversation it is: how soon silence ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Talk {
    /// Heartbeats: dead within 12 s.
    Brisk,
    /// Bytes in bulk, behind which a sign of life may have to wait.
    Heavy,
}

impl Talk {
    fn alive_every(self) -> u32 {
        match self {
            Self::Brisk => 4,
            Self::Heavy => 10,
        }
    }
}

/// A word that needs no quotes in any shell and is no option.
fn word(text: &str, more: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

fn need(ok: bool, what: &'static str, expected: &'static str) -> Result<(), BadRoute> {
    if ok { Ok(()) } else { Err(BadRoute { what, expected }) }
}

/// A directory of the other side, safe in any shell as it is.
///
/// # Errors
/// Where it is none.
pub(super) fn base(route: &SshRoute) -> Result<&str, BadRoute> {
    let base = route.base.trim_end_matches('/');
    let plain = word(base, "/._-+@") && !base.split('/').any(|part| part == "..");
    need(plain, "the directory", "a path of letters, digits and `/._-+@`, without `..`")?;
    Ok(base)
}

/// A file of this computer as a value of an option: `%` begins a token there,
/// and blanks separate.
fn file(path: &Path, what: &'static str) -> Result<String, BadRoute> {
    let text = path.to_str().unwrap_or_default();
    let plain = path.is_absolute()
        && text.len() <= LONGEST * 4
        && !text.chars().any(|c| c.is_control() || matches!(c, '"' | '$' | '\\'));
    need(plain, what, "an absolute path without quotes, `$` and `\\`")?;
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

fn address_of(route: &SshRoute, address: Address) -> &SshAddress {
    match (address, &route.fallback) {
        (Address::Second, Some(second)) => second,
        _ => &route.address,
    }
}

/// Whether this address of a route is the provider's proxy.
pub(super) fn is_proxy(route: &SshRoute, address: Address) -> bool {
    route.fallback.as_ref() == Some(address_of(route, address))
}

fn host_keys(keys: &HostKeys, options: &mut Vec<String>) -> Result<(), BadRoute> {
    match keys {
        HostKeys::PinFirst { known_hosts, name } => {
            need(word(name, "._-"), "the name of its host key", "letters, digits and `._-`")?;
            options.push("StrictHostKeyChecking=accept-new".into());
            options.push(format!("UserKnownHostsFile={}", file(known_hosts, "the file of host keys")?));
            options.push("GlobalKnownHostsFile=/dev/null".into());
            options.push(format!("HostKeyAlias={name}"));
            // Only what was pinned counts: no address is looked at besides.
            options.push("CheckHostIP=no".into());
            options.push("UpdateHostKeys=no".into());
            options.push("HashKnownHosts=no".into());
        }
        HostKeys::Known { known_hosts } => {
            options.push("StrictHostKeyChecking=yes".into());
            if let Some(path) = known_hosts {
                options.push(format!("UserKnownHostsFile={}", file(path, "the file of host keys")?));
            }
        }
    }
    Ok(())
}

/// The arguments that have SSH run `remote` there.
///
/// # Errors
/// Where a value of the route cannot be used.
pub(super) fn arguments(
    route: &SshRoute,
    address: Address,
    talk: Talk,
    remote: &str,
) -> Result<Vec<OsString>, BadRoute> {
    let at = address_of(route, address);
    // What stands first counts: neither the user's configuration nor a provider
    // changes these.
    let mut options: Vec<String> = [
        "BatchMode=yes",
        "ConnectTimeout=10",
        "ServerAliveCountMax=3",
        // A connection of its own for each lane: heartbeats never wait for bulk.
        "ControlMaster=no",
        "ControlPath=none",
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "ForwardX11=no",
        "PermitLocalCommand=no",
        "RemoteCommand=none",
        "RequestTTY=no",
        "EscapeChar=none",
        "LogLevel=ERROR",
    ]
    .map(str::to_owned)
    .into();
    options.push(format!("ServerAliveInterval={}", talk.alive_every()));
    host_keys(&route.host_keys, &mut options)?;
    let identity = route.identity.as_deref().map(|key| file(key, "the key's file")).transpose()?;
    if let Some(identity) = identity {
        options.push(format!("IdentityFile={identity}"));
        options.push("IdentitiesOnly=yes".into());
    }
    for option in &route.options {
        let plain = option.len() <= LONGEST
            && !option.chars().any(char::is_control)
            && option.split_once('=').is_some_and(|(name, _)| word(name, ""));
        need(plain, "an option", "Name=value in one line")?;
        options.push(option.clone());
    }
    let mut arguments: Vec<OsString> = vec!["-T".into()];
    for option in options {
        arguments.extend(["-o".into(), option.into()]);
    }
    if let Some(port) = at.port {
        arguments.extend(["-p".into(), port.to_string().into()]);
    }
    if let Some(user) = &at.user {
        need(word(user, "._-@+"), "the user", "letters, digits and `._-@+`")?;
        arguments.extend(["-l".into(), user.into()]);
    }
    need(word(&at.host, "._-:%"), "the host", "a name or an IP address")?;
    arguments.extend(["--".into(), at.host.clone().into(), remote.into()]);
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn route() -> SshRoute {
        let at = |host: &str| SshAddress { host: host.into(), port: Some(41_022), user: Some("root".into()) };
        SshRoute {
            address: at("203.0.113.7"),
            fallback: Some(at("ssh5.vast.ai")),
            identity: Some("/home/me/my keys/100%".into()),
            host_keys: HostKeys::PinFirst { known_hosts: "/h/known_hosts".into(), name: "m1".into() },
            options: vec!["ProxyJump=gate".into()],
            base: ".outlast/".into(),
            env: BTreeMap::new(),
        }
    }

    fn line(route: &SshRoute, address: Address) -> String {
        let arguments = arguments(route, address, Talk::Brisk, "uname -m").unwrap();
        arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_client_asks_nothing_forwards_nothing_and_believes_only_the_pin() {
        let text = line(&route(), Address::First);
        for wanted in [
            "-T",
            "BatchMode=yes",
            "ConnectTimeout=10",
            "ServerAliveInterval=4",
            "ControlPath=none",
            "ForwardAgent=no",
            "ClearAllForwardings=yes",
            "StrictHostKeyChecking=accept-new",
            "UserKnownHostsFile=\"/h/known_hosts\"",
            "HostKeyAlias=m1",
            "IdentityFile=\"/home/me/my keys/100%%\"",
            "IdentitiesOnly=yes",
            "ProxyJump=gate",
            "-p 41022",
            "-l root",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(text.ends_with("-- 203.0.113.7 uname -m"), "{text}");
        assert!(line(&route(), Address::Second).ends_with("-- ssh5.vast.ai uname -m"));
        let alone = SshRoute { fallback: None, ..route() };
        assert_eq!([Address::First, Address::Second].map(|at| is_proxy(&route(), at)), [false, true]);
        assert_eq!([Address::First, Address::Second].map(|at| is_proxy(&alone, at)), [false, false]);
        // A machine of which only the proxy is known.
        let only = SshRoute { address: route().fallback.unwrap(), ..route() };
        assert_eq!([Address::First, Address::Second].map(|at| is_proxy(&only, at)), [true, true]);
        assert!(line(&alone, Address::Second).ends_with("-- 203.0.113.7 uname -m"));
        let known = SshRoute { host_keys: HostKeys::Known { known_hosts: None }, ..route() };
        let text = line(&known, Address::First);
        assert!(text.contains("StrictHostKeyChecking=yes") && !text.contains("KnownHostsFile"), "{text}");
    }

    #[test]
    fn nothing_of_a_provider_becomes_an_option_or_a_command() {
        let refused = |change: &dyn Fn(&mut SshRoute)| {
            let mut bad = route();
            change(&mut bad);
            arguments(&bad, Address::First, Talk::Heavy, "x").unwrap_err().to_string()
        };
        for host in ["", "-oProxyCommand=x", "a b", "a;b", "a\nb", "$(x)", &"h".repeat(2_000)] {
            assert!(refused(&|r| r.address.host = host.into()).contains("the host"), "{host}");
        }
        for user in ["-x", "a b", ""] {
            assert!(refused(&|r| r.address.user = Some(user.into())).contains("the user"), "{user}");
        }
        for option in ["x", "a b=c", "a=b\nc", "=x"] {
            assert!(refused(&|r| r.options = vec![option.into()]).contains("an option"), "{option}");
        }
        for path in ["relative", "/a\"b", "/a$b", "/a\nb"] {
            assert!(refused(&|r| r.identity = Some(path.into())).contains("the key's file"), "{path}");
        }
        for dir in ["", "../x", "a/../b", "a b", "$HOME/x", "~/x", "-x", "a'b"] {
            let bad = SshRoute { base: dir.into(), ..route() };
            assert!(base(&bad).is_err(), "{dir}");
        }
        assert_eq!(base(&route()).unwrap(), ".outlast");
        assert_eq!(base(&SshRoute { base: "/srv/outlast".into(), ..route() }).unwrap(), "/srv/outlast");
    }
}
