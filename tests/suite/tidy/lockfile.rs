//! Packages that must not come in, by whatever way.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Refused packages with the reason.
const REFUSED: [(&str, &str); 8] = [
    ("openssl-sys", "one TLS library: rustls"),
    ("native-tls", "one TLS library: rustls"),
    ("tokio-tar", "abandoned with a known path escape"),
    ("serde_yml", "unsound and abandoned"),
    ("rustls-pemfile", "abandoned: rustls-pki-types reads PEM"),
    ("rsa", "leaks keys by timing"),
    ("bincode", "abandoned"),
    ("ring", "one crypto library: aws-lc-rs"),
];

/// What is wrong with the packages that are locked and built.
pub(super) fn check(root: &Path) -> Vec<String> {
    let lock = fs::read_to_string(root.join("Cargo.lock")).expect("Cargo.lock can be read");
    let mut findings = check_lock(&lock);
    findings.extend(check_tree(&built(root)));
    findings
}

/// Everything that a build for this computer uses. Cargo.lock alone would say
/// too much: it lists packages behind features that nobody switched on.
fn built(root: &Path) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["tree", "--workspace", "--offline", "--locked", "--edges", "normal,build,dev"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn check_lock(lock: &str) -> Vec<String> {
    let Ok(table) = lock.parse::<toml::Table>() else { return vec!["Cargo.lock is not TOML".to_owned()] };
    let packages = table.get("package").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
    let name = |package: &toml::Value| package.get("name").and_then(toml::Value::as_str).map(str::to_owned);
    let names: Vec<String> = packages.iter().filter_map(name).collect();
    let mut findings: Vec<String> = REFUSED
        .iter()
        // Locked behind features that are off; the tree decides.
        .filter(|(refused, _)| *refused != "ring" && names.iter().any(|name| name == refused))
        .map(|(refused, why)| format!("{refused} is locked: {why}"))
        .collect();
    if names.is_empty() {
        findings.push("Cargo.lock names no package".to_owned());
    }
    findings
}

fn check_tree(tree: &str) -> Vec<String> {
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut findings: Vec<String> = REFUSED
        .iter()
        .filter(|(refused, _)| names.contains(refused))
        .map(|(refused, why)| format!("{refused} is built: {why}"))
        .collect();
    // Its build script compiles SQLite only where `bundled` is on, and `cc`
    // is how it does so.
    if !names.contains(&"libsqlite3-sys") || !names.contains(&"cc") {
        findings.push("SQLite is not bundled: libsqlite3-sys is not compiled from source".to_owned());
    }
    findings
}

#[test]
fn refused_packages_are_found() {
    let lock =
        |name: &str| check_lock(&format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n")).len();
    assert_eq!(lock("serde"), 0);
    assert_eq!(lock("ring"), 0, "the tree decides");
    for name in ["openssl-sys", "native-tls", "tokio-tar", "serde_yml", "rustls-pemfile", "rsa", "bincode"] {
        assert_eq!(lock(name), 1, "{name}");
    }
    assert_eq!(check_lock("").len(), 1);
    assert_eq!(check_tree("libsqlite3-sys v0.39.1\ncc v1.0.0\nrings v1.0.0\n"), [""; 0]);
    assert_eq!(check_tree("libsqlite3-sys v0.39.1\ncc v1.0.0\nring v0.17.14\n").len(), 1);
    assert_eq!(check_tree("serde v1.0.0\n").len(), 1);
}
