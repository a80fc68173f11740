//! What every manifest says, and which libraries it may not ask for.

use std::fs;
use std::path::Path;

use serde_json::Value as Json;

use super::crates::{packages, text};

/// Libraries by the crates that may not have them among their dependencies:
/// (crate, library, in tests too, why).
const REFUSED: [(&str, &str, bool, &str); 8] = [
    ("lifecycle", "tokio", true, "it is pure"),
    ("curves", "tokio", true, "it is pure"),
    ("lifecycle", "anyhow", false, "libraries have typed errors"),
    ("curves", "anyhow", false, "libraries have typed errors"),
    ("artifacts", "anyhow", false, "libraries have typed errors"),
    ("proto", "anyhow", false, "libraries have typed errors"),
    ("lifecycle", "tokio-util", true, "it is pure"),
    ("curves", "tokio-util", true, "it is pure"),
];

/// Crates that alone may depend on a library.
const ONLY: [(&str, &[&str]); 3] = [
    ("rusqlite", &["controller", "cli"]),
    ("nix", &["agent", "controller", "cli", "tests"]),
    ("rcgen", &["proto"]),
];

/// Checks every member.
pub(super) fn check_all(root: &Path, metadata: &Json) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages(metadata) {
        let path = Path::new(text(package, "manifest_path"));
        let manifest = fs::read_to_string(path).expect("a member's manifest can be read");
        let folder = path.parent().and_then(|folder| folder.strip_prefix(root).ok());
        let folder = folder.map(|folder| folder.display().to_string()).unwrap_or_default();
        findings.extend(check(package, &folder, &manifest));
    }
    findings
}

/// Checks one member.
pub(super) fn check(package: &Json, folder: &str, manifest: &str) -> Vec<String> {
    let name = text(package, "name");
    let mut findings = Vec::new();
    let mut find = |what: String| findings.push(format!("{name}: {what}"));
    if folder != name {
        find(format!("lies in the folder {folder:?}: a folder is named as its package"));
    }
    if text(package, "version") != "0.0.0" {
        find("has a version: internal crates are 0.0.0".to_owned());
    }
    if package["publish"].as_array().is_none_or(|registries| !registries.is_empty()) {
        find("could be published: say publish = false".to_owned());
    }
    let table = manifest.parse::<toml::Table>().unwrap_or_default();
    let lints = table.get("lints").and_then(|lints| lints.get("workspace"));
    if lints.and_then(toml::Value::as_bool) != Some(true) {
        find("does not say [lints] workspace = true".to_owned());
    }
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let used = text(dependency, "name");
        let in_tests = dependency["kind"] == "dev";
        for (_, _, _, why) in REFUSED
            .iter()
            .filter(|(krate, library, tests, _)| *krate == name && *library == used && (*tests || !in_tests))
        {
            find(format!("may not depend on {used}: {why}"));
        }
        if ONLY.iter().any(|(library, crates)| *library == used && !crates.contains(&name)) && !in_tests {
            find(format!("may not depend on {used}: it has one home"));
        }
        let bundled =
            dependency["features"].as_array().into_iter().flatten().any(|feature| feature == "bundled");
        if used == "rusqlite" && !bundled {
            find("uses rusqlite without the feature `bundled`: the system's SQLite may be broken".to_owned());
        }
    }
    findings
}

#[cfg(test)]
fn package(name: &str, dependencies: &Json) -> Json {
    serde_json::json!({ "name": name, "version": "0.0.0", "publish": [], "dependencies": dependencies })
}

#[cfg(test)]
const GOOD: &str = "[lints]\nworkspace = true\n";

#[test]
fn a_good_manifest_passes() {
    let dependencies = serde_json::json!([
        { "name": "rusqlite", "kind": null, "features": ["bundled"] },
        { "name": "anyhow", "kind": null, "features": [] },
    ]);
    assert_eq!(check(&package("controller", &dependencies), "controller", GOOD), [""; 0]);
}

#[test]
fn each_rule_about_manifests_can_fail() {
    let none = serde_json::json!([]);
    assert_eq!(check(&package("cli", &none), "crates/cli", GOOD).len(), 1);
    assert_eq!(check(&package("cli", &none), "cli", "[package]\n").len(), 1);
    let public =
        serde_json::json!({ "name": "cli", "version": "1.0.0", "publish": null, "dependencies": [] });
    assert_eq!(check(&public, "cli", GOOD).len(), 2);
    let with = |krate: &str, library: &str, kind: Option<&str>| {
        let list = serde_json::json!([{ "name": library, "kind": kind, "features": [] }]);
        check(&package(krate, &list), krate, GOOD).len()
    };
    assert_eq!(with("curves", "tokio", Some("dev")), 1);
    assert_eq!(with("artifacts", "anyhow", None), 1);
    assert_eq!(with("artifacts", "anyhow", Some("dev")), 0);
    assert_eq!(with("controller", "rusqlite", None), 1, "not bundled");
    assert_eq!(with("agent", "rusqlite", None), 2);
    assert_eq!(with("artifacts", "nix", None), 1);
}
