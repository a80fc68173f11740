//! Renders what a machine runs at its first boot from the templates in
//! `cloud-init/`.
//!
//! Every value is checked and quoted for the place it goes to: no name, path or
//! address can become a command. What is rendered holds a secret and must never
//! be logged.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;

use serde::Serialize;

const SCRIPT: &str = include_str!("../../cloud-init/first-boot.sh.tmpl");
const CLOUD_CONFIG: &str = include_str!("../../cloud-init/user-data.yaml.tmpl");
/// Where a machine keeps its state if nothing else is asked for.
const DEFAULT_STATE: &str = "/var/lib/outlast";
/// The longest path taken.
const MAX_PATH: usize = 4096;
/// The most addresses taken of each kind.
const MAX_ENDPOINTS: usize = 16;

/// Why a first boot cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// A value is not what it should be. The value itself is not shown.
    #[error("the first boot's {field} is not usable: {expected} expected")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What it should have been.
        expected: &'static str,
    },
    /// The template asks for a value that there is not.
    #[error("the first-boot template names `{0}`, which has no value")]
    Template(String),
}

/// What a machine must know to find its controller and to be let in, once.
#[derive(Clone, Copy)]
pub struct FirstBoot<'a> {
    /// The machine's name.
    pub machine_id: &'a str,
    /// The installation it belongs to.
    pub hub_id: &'a str,
    /// Where the controller serves agents, as `host:port`.
    pub endpoints: &'a [String],
    /// Where the controller lets machines in, as `host:port`.
    pub join_endpoints: &'a [String],
    /// The one-time secret.
    pub join_secret: &'a str,
    /// The hash of the only root key to trust.
    pub ca_spki_sha256: &'a str,
    /// The agent's executable on the machine.
    pub agent_exe: &'a Path,
    /// Where the machine may keep what other machines can use too.
    pub cache_dir: &'a Path,
    /// The machine's state directory; `None`: where the script starts, or
    /// `/var/lib/outlast` on a VM.
    pub state_dir: Option<&'a Path>,
    /// `address:port` at which the machine answers for its health; port 0 is
    /// any. `None`: it does not.
    pub health_listen: Option<&'a str>,
}

impl fmt::Debug for FirstBoot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstBoot")
            .field("machine_id", &self.machine_id)
            .field("endpoints", &self.endpoints)
            .field("agent_exe", &self.agent_exe)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

/// The file that the agent reads at its start.
#[derive(Serialize)]
struct MachineFile<'a> {
    machine_id: &'a str,
    hub_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<&'a str>,
    endpoints: &'a [String],
    join_endpoints: &'a [String],
    ca_spki_sha256: &'a str,
    cache_dir: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_listen: Option<&'a str>,
}

/// The values after their check.
struct Checked<'a> {
    machine_json: String,
    join_secret: &'a str,
    agent_exe: &'a str,
    state_dir: Option<&'a str>,
}

/// The POSIX shell script for a machine that runs it as a file.
pub fn render(boot: &FirstBoot<'_>) -> Result<String, BootstrapError> {
    let checked = check(boot)?;
    let state = checked.state_dir.map_or_else(|| "$PWD".to_owned(), quote);
    fill(SCRIPT, &|name| {
        Some(match name {
            "STATE" => state.clone(),
            "MACHINE_JSON" => checked.machine_json.clone(),
            "JOIN_SECRET" => checked.join_secret.to_owned(),
            "AGENT" => quote(checked.agent_exe),
            _ => return None,
        })
    })
}

/// The cloud-config for a VM whose image runs cloud-init and systemd.
pub fn render_cloud_config(boot: &FirstBoot<'_>) -> Result<String, BootstrapError> {
    let checked = check(boot)?;
    let state = checked.state_dir.unwrap_or(DEFAULT_STATE);
    let agent = quote(checked.agent_exe);
    let start =
        format!("#!/bin/sh\ncd -- {state} && exec {agent} guard --state {state}\n", state = quote(state));
    fill(CLOUD_CONFIG, &|name| {
        let text = match name {
            "MACHINE_JSON_PATH" => format!("{state}/machine.json"),
            "JOIN_TOKEN_PATH" => format!("{state}/join.token"),
            "MACHINE_JSON" => format!("{}\n", checked.machine_json),
            "JOIN_SECRET" => format!("{}\n", checked.join_secret),
            "START_GUARD" => start.clone(),
            "STATE" => state.to_owned(),
            _ => return None,
        };
        Some(serde_json::Value::String(text).to_string())
    })
}

/// The machine file, one line of JSON, of a machine that the controller dials:
/// it knows no address.
pub fn carried_machine_file(
    machine_id: &str,
    hub_id: &str,
    ca_spki_sha256: &str,
    cache_dir: &Path,
) -> Result<String, BootstrapError> {
    let id = "26 characters of a-z and 2-7";
    require(is_id(machine_id), "machine id", id)?;
    require(is_id(hub_id), "hub id", id)?;
    require(is_token(ca_spki_sha256, 32, b"+/=-_:"), "root key hash", "SHA-256 in hex or base64")?;
    let cache_dir = path(cache_dir, "cache path")?;
    in_json(&MachineFile {
        machine_id,
        hub_id,
        carrier: Some("accepted"),
        endpoints: &[],
        join_endpoints: &[],
        ca_spki_sha256,
        cache_dir,
        health_listen: None,
    })
}

fn in_json(file: &MachineFile<'_>) -> Result<String, BootstrapError> {
    serde_json::to_string(file)
        .map_err(|_| BootstrapError::Invalid { field: "machine file", expected: "text" })
}

fn require(ok: bool, field: &'static str, expected: &'static str) -> Result<(), BootstrapError> {
    if ok { Ok(()) } else { Err(BootstrapError::Invalid { field, expected }) }
}

fn is_token(text: &str, least: usize, more: &[u8]) -> bool {
    (least..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
}

/// Replaces each `@{NAME}` in one pass, so that a value is never searched.
fn fill(template: &str, value: &dyn Fn(&str) -> Option<String>) -> Result<String, BootstrapError> {
    let mut parts = template.split("@{");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let known = part.split_once('}').and_then(|(name, rest)| Some((value(name)?, rest)));
        let Some((filled, rest)) = known else {
            return Err(BootstrapError::Template(part.chars().take(40).collect()));
        };
        text.push_str(&filled);
        text.push_str(rest);
    }
    Ok(text)
}

/// One word for a POSIX shell, whatever it holds.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn check<'a>(boot: &FirstBoot<'a>) -> Result<Checked<'a>, BootstrapError> {
    let id = "26 characters of a-z and 2-7";
    require(is_id(boot.machine_id), "machine id", id)?;
    require(is_id(boot.hub_id), "hub id", id)?;
    let addresses = "one to 16 addresses host:port";
    let usable = |list: &[String]| {
        (1..=MAX_ENDPOINTS).contains(&list.len()) && list.iter().all(|endpoint| is_endpoint(endpoint))
    };
    require(usable(boot.endpoints), "endpoints", addresses)?;
    require(usable(boot.join_endpoints), "join endpoints", addresses)?;
    require(is_token(boot.join_secret, 16, b"-_"), "join secret", "16 to 256 letters, digits, `-` and `_`")?;
    require(is_token(boot.ca_spki_sha256, 32, b"+/=-_:"), "root key hash", "SHA-256 in hex or base64")?;
    let agent_exe = path(boot.agent_exe, "agent path")?;
    let cache_dir = path(boot.cache_dir, "cache path")?;
    let state_dir = boot.state_dir.map(|dir| path(dir, "state path")).transpose()?;
    let address = |text: &str| text.parse::<SocketAddr>().is_ok();
    require(boot.health_listen.is_none_or(address), "health address", "an IP address with a port")?;
    let file = MachineFile {
        machine_id: boot.machine_id,
        hub_id: boot.hub_id,
        carrier: None,
        endpoints: boot.endpoints,
        join_endpoints: boot.join_endpoints,
        ca_spki_sha256: boot.ca_spki_sha256,
        cache_dir,
        health_listen: boot.health_listen,
    };
    let machine_json = in_json(&file)?;
    Ok(Checked { machine_json, join_secret: boot.join_secret, agent_exe, state_dir })
}

fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}

fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port = !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0);
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
                && !host.starts_with('-')
        }
    };
    host && port
}

fn path<'a>(path: &'a Path, field: &'static str) -> Result<&'a str, BootstrapError> {
    let expected = "an absolute UTF-8 path without `..` and control characters";
    // What YAML takes for a line break or refuses as text is refused here too.
    let plain = |c: char| {
        !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    let parent = path.components().any(|part| part == std::path::Component::ParentDir);
    match path.to_str() {
        Some(text) if path.is_absolute() && !parent && text.len() <= MAX_PATH && text.chars().all(plain) => {
            Ok(text)
        }
        _ => Err(BootstrapError::Invalid { field, expected }),
    }
}

#[cfg(test)]
mod tests;
