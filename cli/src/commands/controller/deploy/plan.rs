//! What a move tells before it begins: what it will do, what the other computer
//! will need, and what it cannot take along. Only reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::printer::safe;

/// What is known here.
pub(super) struct Known<'a> {
    pub(super) home: &'a Path,
    pub(super) env: &'a BTreeMap<String, String>,
    /// Variables that are handed on.
    pub(super) given: &'a BTreeMap<String, String>,
    /// Machines and their providers.
    pub(super) machines: &'a [(String, String)],
}

/// The whole text.
pub(super) fn told(known: &Known<'_>, to: &str, program: &str, files: usize, size: &str) -> String {
    let mut text = format!("this moves the controller of {} to {to}:\n", known.home.display());
    let _ = writeln!(text, "  {program}");
    let _ = writeln!(
        text,
        "  its controller here is ended, and {files} files ({size}) go there: database, keys, objects, logs"
    );
    let _ = writeln!(text, "  a controller is started there, and this data directory is logged in to it");
    let mut by_provider: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, provider) in known.machines {
        *by_provider.entry(provider).or_default() += 1;
    }
    for (provider, count) in by_provider {
        let _ = writeln!(text, "  {count} machines of `{provider}` go on and are found from there");
    }
    if !known.given.is_empty() {
        let names: Vec<&str> = known.given.keys().map(String::as_str).collect();
        let _ = writeln!(text, "  the controller there is given {}", names.join(", "));
    }
    for need in needs(known) {
        let _ = writeln!(text, "  needed there: {need}");
    }
    text.trim_end().to_owned()
}

/// What the other computer will need that the state does not bring.
fn needs(known: &Known<'_>) -> Vec<String> {
    let mut needs = Vec::new();
    let has = |name: &str| known.env.get(name).is_some_and(|value| !value.is_empty());
    let mut variable = |name: &str, why: &str| {
        if !known.given.contains_key(name) {
            needs.push(format!("{name}, for {why}: hand it on with --env {name}"));
        }
    };
    let rented = known.machines.iter().any(|(_, provider)| provider == "vast");
    if rented || has("VAST_API_KEY") {
        variable("VAST_API_KEY", "machines of Vast.ai");
    }
    let table = |name: &str| -> Option<toml::Table> {
        std::fs::read_to_string(known.home.join(name)).ok()?.parse().ok()
    };
    let store = table("store.toml").and_then(|file| file.get("store")?.as_table().cloned());
    if let Some(store) = store
        && store.get("kind").and_then(toml::Value::as_str) == Some("s3")
        && !store.contains_key("credentials_file")
    {
        variable("AWS_ACCESS_KEY_ID", "the store of objects");
        variable("AWS_SECRET_ACCESS_KEY", "the store of objects");
    }
    let hosts = table("providers.toml").and_then(|file| file.get("ssh")?.get("hosts")?.as_table().cloned());
    for (name, host) in hosts.unwrap_or_default() {
        let word = |key: &str| host.get(key).and_then(toml::Value::as_str);
        let name = safe(&name);
        if word("identity_file").is_none() {
            needs.push(format!("a login of that computer's user on the host `{name}`: its own SSH key, and the host's key known"));
        }
        for key in ["identity_file", "known_hosts"] {
            // What lies in the data directory goes with it.
            if let Some(path) = word(key).filter(|path| path.starts_with(['/', '~'])) {
                needs.push(format!("{} ({key} of the host `{name}`)", safe(path)));
            }
        }
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_other_computer_will_need_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = "[ssh.hosts.lab]\ndestination = \"lab\"\nidentity_file = \"keys/lab\"\nknown_hosts = \"~/k\"\n\
                     [ssh.hosts.own]\ndestination = \"own\"\n";
        std::fs::write(dir.path().join("providers.toml"), hosts).unwrap();
        std::fs::write(dir.path().join("store.toml"), "[store]\nkind = \"s3\"\nbucket = \"b\"\n").unwrap();
        let (env, machines) = (BTreeMap::new(), [("m1".to_owned(), "vast".to_owned())]);
        let given = BTreeMap::from([("AWS_ACCESS_KEY_ID".to_owned(), "s3cret".to_owned())]);
        let known = Known { home: dir.path(), env: &env, given: &given, machines: &machines };
        let text = told(&known, "me@box", "the program", 3, "7 B");
        for wanted in [
            "1 machines of `vast` go on",
            "given AWS_ACCESS_KEY_ID",
            "--env VAST_API_KEY",
            "--env AWS_SECRET_ACCESS_KEY",
            "~/k (known_hosts of the host `lab`)",
            "on the host `own`",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(!text.contains("s3cret") && !text.contains("--env AWS_ACCESS_KEY_ID"), "{text}");
        assert!(!text.contains("keys/lab"), "it goes along: {text}");
    }
}
