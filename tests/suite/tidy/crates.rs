//! Which crate of the repository may use which. The list is the architecture;
//! a new edge is a change of the architecture and is made there first.

use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

/// Every crate with the crates that it may use, in tests too.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("lifecycle", &[]),
    ("curves", &[]),
    ("artifacts", &["lifecycle"]),
    ("proto", &["lifecycle", "curves", "artifacts"]),
    ("agent", &["proto", "lifecycle", "curves", "artifacts"]),
    ("controller", &["proto", "lifecycle", "curves", "artifacts"]),
    ("cli", &["proto", "lifecycle", "curves", "artifacts", "agent", "controller"]),
    ("tests", &["proto", "lifecycle", "curves", "artifacts", "agent", "controller", "cli"]),
];

/// What cargo says about the members of the workspace.
pub(super) fn metadata(root: &Path) -> Json {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--offline", "--no-deps"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

/// The packages of the metadata.
pub(super) fn packages(metadata: &Json) -> &[Json] {
    metadata["packages"].as_array().map_or(&[], Vec::as_slice)
}

/// A string field; empty if there is none.
pub(super) fn text<'a>(value: &'a Json, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// What is wrong with the edges.
pub(super) fn check(metadata: &Json) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages(metadata) {
        let name = text(package, "name");
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            findings.push(format!("{name}: a crate that the architecture does not know"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = text(dependency, "name");
            let kind = dependency["kind"].as_str().unwrap_or("normal");
            let internal = dependency["path"].is_string() || ALLOWED.iter().any(|(known, _)| *known == used);
            if internal && !allowed.contains(&used) {
                findings.push(format!("{name} -> {used} ({kind}): not an edge of the architecture"));
            }
        }
    }
    for (name, _) in ALLOWED {
        if !packages(metadata).iter().any(|package| text(package, "name") == name) {
            findings.push(format!("{name}: the crate is missing"));
        }
    }
    findings
}

#[cfg(test)]
fn with_edge(from: &str, to: &str, kind: Option<&str>) -> Vec<String> {
    let edge = serde_json::json!([{ "name": to, "kind": kind, "path": format!("/x/{to}") }]);
    let package = |name: &str| {
        let edges = if name == from { edge.clone() } else { serde_json::json!([]) };
        serde_json::json!({ "name": name, "dependencies": edges })
    };
    let packages: Vec<Json> = ALLOWED.iter().map(|(name, _)| package(name)).collect();
    check(&serde_json::json!({ "packages": packages }))
}

#[test]
fn edges_of_the_architecture_are_allowed_and_others_refused() {
    assert_eq!(with_edge("proto", "artifacts", None), [""; 0]);
    assert_eq!(with_edge("proto", "agent", None).len(), 1);
    assert_eq!(with_edge("curves", "lifecycle", Some("dev")).len(), 1, "tests are no exception");
    assert_eq!(with_edge("agent", "controller", Some("build")).len(), 1);
    assert_eq!(with_edge("agent", "surprise", None).len(), 1, "a path outside the list");
}

#[test]
fn unknown_and_missing_crates_are_found() {
    let metadata = serde_json::json!({ "packages": [{ "name": "extras", "dependencies": [] }] });
    assert_eq!(check(&metadata).len(), 1 + ALLOWED.len());
}
