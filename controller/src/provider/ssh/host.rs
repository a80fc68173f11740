//! One host of the user's own: its settings, checked, and how the user's SSH
//! client is called for it. Nothing of a run, a machine or a secret is ever in
//! those arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::gpus::Gpus;
use crate::provider::route::{HostKeys, SshAddress};
use crate::provider::settings::{Places, Section};

/// The directory on a host if nothing else is asked for; below the home there.
const ROOT: &str = ".outlast";
/// The most hosts.
const MAX_HOSTS: usize = 64;
/// The most slots of a host.
const MAX_SLOTS: u32 = 64;

/// A host, as `[ssh.hosts.NAME]` says.
#[derive(Debug, Clone, PartialEq)]
pub struct SshHost {
    /// Its name here; part of its machines' names.
    pub name: String,
    /// Where it is.
    pub address: SshAddress,
    /// How many machines it can be at once.
    pub slots: u32,
    /// What the slots share.
    pub gpus: Gpus,
    /// Where Outlast keeps everything there.
    pub root: String,
    /// What an hour of one slot is worth.
    pub usd_per_hour: f64,
    /// The private key's file; `None`: the user's own keys and agent.
    pub identity_file: Option<PathBuf>,
    /// Another file of known hosts than the user's.
    pub known_hosts: Option<PathBuf>,
}

impl SshHost {
    /// What a person would type after `ssh`.
    #[must_use]
    pub fn destination(&self) -> String {
        let user = self.address.user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
        let port = self.address.port.map_or_else(String::new, |port| format!("-p {port} "));
        format!("{port}{user}{}", self.address.host)
    }

    /// Which of its keys are believed: the known ones.
    pub(super) fn host_keys(&self) -> HostKeys {
        HostKeys::Known { known_hosts: self.known_hosts.clone() }
    }

    /// The arguments of the user's SSH client.
    pub(super) fn arguments(&self, connect_seconds: u64) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-T".into(), "-a".into(), "-x".into()];
        let mut option = |text: String| arguments.extend(["-o".into(), text.into()]);
        option("BatchMode=yes".into());
        option("StrictHostKeyChecking=yes".into());
        option("UpdateHostKeys=no".into());
        option(format!("ConnectTimeout={connect_seconds}"));
        option("ServerAliveInterval=10".into());
        option("ServerAliveCountMax=3".into());
        // Nothing of the user's settings that is meant for a terminal, and no
        // connection that another client could end or keep open.
        for text in [
            "LogLevel=ERROR",
            "ControlMaster=no",
            "ControlPath=none",
            "ClearAllForwardings=yes",
            "PermitLocalCommand=no",
            "RemoteCommand=none",
            "RequestTTY=no",
        ] {
            option(text.into());
        }
        if let Some(file) = &self.known_hosts {
            option(format!("UserKnownHostsFile=\"{}\"", literal(file)));
        }
        if let Some(file) = &self.identity_file {
            option("IdentitiesOnly=yes".into());
            option(format!("IdentityFile=\"{}\"", literal(file)));
        }
        if let Some(port) = self.address.port {
            option(format!("Port={port}"));
        }
        if let Some(user) = &self.address.user {
            arguments.extend(["-l".into(), user.into()]);
        }
        arguments.extend(["--".into(), (&self.address.host).into(), "sh -s".into()]);
        arguments
    }
}

/// A path without the client's own signs for values.
fn literal(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%%")
}

/// Reads `[ssh]`.
pub(in crate::provider) fn read_hosts(ssh: &Section<'_>, places: Places<'_>) -> Vec<SshHost> {
    let mut hosts: Vec<SshHost> = Vec::new();
    if let Some(section) = ssh.table("hosts", "[ssh.hosts.NAME]") {
        for (name, section) in section.tables() {
            let host = read_host(&name, &section, places);
            section.finish();
            let Some(host) = host else { continue };
            let same = |other: &&SshHost| other.address == host.address && other.root == host.root;
            if let Some(other) = hosts.iter().find(same) {
                let help = "leave one of the two out, or give it another `root`";
                section.complain(&format!("is the same place as `{}`", other.name), help);
            }
            hosts.push(host);
        }
        if hosts.len() > MAX_HOSTS {
            section.complain(&format!("has more than {MAX_HOSTS} hosts"), "leave some out");
        }
    }
    ssh.finish();
    hosts
}

fn read_host(name: &str, section: &Section<'_>, places: Places<'_>) -> Option<SshHost> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    if !(1..=40).contains(&name.len()) || !name.bytes().all(plain) || name.starts_with(['-', '.']) {
        section
            .complain("is no name for a host", "a name has a-z, 0-9, `-`, `_` and `.`, at most 40 of them");
    }
    let address = address(section);
    let slots = section.count("slots", 1..=MAX_SLOTS, "2").unwrap_or(1);
    let gpus = gpus(section, slots);
    let root = root(section);
    let usd_per_hour = section.amount("usd_per_hour", "0.35").unwrap_or(0.0);
    let identity_file = file(section, "identity_file", places);
    let known_hosts = file(section, "known_hosts", places);
    Some(SshHost {
        name: name.to_owned(),
        address: address?,
        slots,
        gpus,
        root,
        usd_per_hour,
        identity_file,
        known_hosts,
    })
}

fn address(section: &Section<'_>) -> Option<SshAddress> {
    const EXAMPLE: &str = "\"user@box\"";
    let port = section.count("port", 1..=65_535, "22").and_then(|port| u16::try_from(port).ok());
    let text = section.needed("destination", EXAMPLE)?;
    let (user, host) = match text.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host.to_owned()),
        None => (None, text.clone()),
    };
    let may = |text: &str, more: &[u8]| {
        (1..=255).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    if !may(&host, b".-_:") || user.as_ref().is_some_and(|user| !may(user, b".-_+@")) {
        let help = "write \"user@host\" or a name of ~/.ssh/config; a port has a key of its own: port = 2222";
        return section.refuse("destination", "is no destination for ssh", help);
    }
    Some(SshAddress { host, port, user })
}

fn gpus(section: &Section<'_>, slots: u32) -> Gpus {
    const EXAMPLE: &str = "[0, 1]";
    let Some((words, single)) = section.word_or_list("gpus", EXAMPLE) else { return Gpus::Auto };
    let refuse = |message: &str, help: &str| {
        section.refuse::<()>("gpus", message, help);
        Gpus::Auto
    };
    if single {
        if words == ["auto"] {
            return Gpus::Auto;
        }
        return refuse("must be a list or \"auto\"", "for example: gpus = [0, 1]");
    }
    let may = |word: &String| {
        (1..=64).contains(&word.len())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !word.starts_with('-')
    };
    let mut sorted = words.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if words.is_empty() || words.len() > 1024 || !words.iter().all(may) || sorted.len() != words.len() {
        return refuse(
            "must name each GPU once",
            "indexes as `nvidia-smi -L` counts them, or names like GPU-…",
        );
    }
    if words.len() < slots as usize {
        let help = "set fewer `slots`: two machines never share a GPU";
        return refuse(&format!("names {} GPUs for {slots} slots", words.len()), help);
    }
    Gpus::These(words)
}

fn root(section: &Section<'_>) -> String {
    let Some(root) = section.string("root", "\"/data/outlast\"") else { return ROOT.to_owned() };
    let root = root.trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@".contains(&byte);
    let usable = (1..=512).contains(&root.len()) && root.bytes().all(plain) && !root.starts_with('-');
    if !usable || root.split('/').any(|part| part == "..") {
        let help = "an absolute path, or one below the home directory there, of letters, digits and `/._-+@`";
        section.refuse::<()>("root", "is no directory for a host", help);
        return ROOT.to_owned();
    }
    root.to_owned()
}

/// A path on this computer.
fn file(section: &Section<'_>, key: &'static str, places: Places<'_>) -> Option<PathBuf> {
    let text = section.string(key, "\"~/.ssh/id_ed25519\"")?;
    if text.contains(['"', '$', '\\']) {
        return section.refuse(
            key,
            "has a `\"`, `$` or `\\` in it",
            "the SSH client would take it for something else",
        );
    }
    match (text.strip_prefix("~/"), places.user) {
        (Some(below), Some(user)) => Some(user.join(below)),
        (Some(_), None) => {
            section.refuse(key, "begins with `~`, and HOME is not set", "write the whole path")
        }
        (None, _) => Some(places.home.join(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<SshHost>, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("providers.toml"), text).unwrap();
        let places = Places { home: dir.path(), user: Some(Path::new("/home/u")) };
        let read = crate::provider::settings::read(places);
        read.map(|providers| providers.ssh).map_err(|error| error.to_string())
    }

    #[test]
    fn a_host_with_everything_is_read() {
        let hosts = read(
            "[ssh.hosts.box]\ndestination = \"me@10.0.0.7\"\nport = 2222\nslots = 2\ngpus = [0, \"GPU-1f\"]\n\
             root = \"/data/outlast/\"\nusd_per_hour = 0.5\nidentity_file = \"~/.ssh/k\"\nknown_hosts = \"/etc/k\"\n\
             [ssh.hosts.alias]\ndestination = \"gpu-box\"\n",
        )
        .unwrap();
        let [alias, full] = hosts.as_slice() else { panic!("{hosts:?}") };
        assert_eq!(
            full.address,
            SshAddress { host: "10.0.0.7".into(), port: Some(2222), user: Some("me".into()) }
        );
        assert_eq!((full.slots, full.root.as_str(), full.usd_per_hour), (2, "/data/outlast", 0.5));
        assert_eq!(full.gpus, Gpus::These(vec!["0".into(), "GPU-1f".into()]));
        assert_eq!(full.identity_file.as_deref(), Some(Path::new("/home/u/.ssh/k")));
        assert_eq!((alias.slots, alias.root.as_str(), &alias.gpus), (1, ROOT, &Gpus::Auto));
        assert_eq!(full.destination(), "-p 2222 me@10.0.0.7");
    }

    #[test]
    fn what_the_client_or_a_shell_could_misread_is_refused() {
        let host = |more: &str| read(&format!("[ssh.hosts.a]\n{more}\n"));
        for destination in
            ["-oProxyCommand=x", "a b", "a;b", "$(x)@h", "u@-h", "ssh://h", "h%p", "@h", "u@", "`x`"]
        {
            assert!(host(&format!("destination = '{destination}'")).is_err(), "{destination}");
        }
        for more in [
            "root = '../x'",
            "root = '~/x'",
            "root = \"a\\nb\"",
            "root = '/'",
            "identity_file = 'a\"b'",
            "known_hosts = '$HOME/x'",
            "slots = 65",
            "slots = 2\ngpus = [0]",
            "gpus = [0, 0]",
            "gpus = \"all\"",
            "gpus = [1.5]",
            "gpus = [\"0 1\"]",
            "usd_per_hour = -1",
            "usd_per_hour = nan",
            "port = 0",
        ] {
            assert!(host(&format!("destination = 'h'\n{more}")).is_err(), "{more}");
        }
        assert!(host("destination = 'h'").is_ok());
        let twice = read("[ssh.hosts.a]\ndestination = 'h'\n[ssh.hosts.b]\ndestination = 'h'\n").unwrap_err();
        assert!(twice.contains("the same place as `a`"), "{twice}");
    }

    #[test]
    fn the_client_is_strict_and_told_nothing_of_a_run() {
        let hosts =
            read("[ssh.hosts.a]\ndestination = 'u@h'\nknown_hosts = '/k%h'\nidentity_file = '/i d'").unwrap();
        let arguments: Vec<String> =
            hosts[0].arguments(7).into_iter().map(|word| word.into_string().unwrap()).collect();
        for wanted in [
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "ConnectTimeout=7",
            "UserKnownHostsFile=\"/k%%h\"",
            "IdentityFile=\"/i d\"",
        ] {
            assert!(arguments.iter().any(|word| word == wanted), "{wanted}");
        }
        assert_eq!(arguments[arguments.len() - 5..], ["-l", "u", "--", "h", "sh -s"]);
    }
}
