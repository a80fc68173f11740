//! How files are called, how they begin and how long they are.

use super::tree::SourceFile;

/// The most lines of a `main.rs`.
const MAIN: usize = 30;

/// The most lines of product code in a file.
const LONGEST: usize = 500;

/// Names that say nothing: whatever goes there belongs somewhere else.
const CATCH_ALL: [&str; 10] =
    ["util", "utils", "common", "misc", "type", "types", "manager", "managers", "helper", "helpers"];

/// What is wrong with the files.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &SourceFile) -> Vec<String> {
    let path = &file.path;
    let mut findings = Vec::new();
    if file.generated {
        return findings;
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let lines = file.source.lines().count();
    let main = name == "main.rs" && folder.ends_with("/src") || folder.ends_with("/src/bin");
    if main && lines > MAIN {
        findings
            .push(format!("{path}: {lines} lines; a main has at most {MAIN}: parse, build, run, exit code"));
    }
    if name == "mod.rs" {
        findings.push(format!("{path}: modules are foo.rs + foo/, never mod.rs"));
    }
    for part in path.split('/').map(|part| part.trim_end_matches(".rs")) {
        if CATCH_ALL.contains(&part) {
            findings.push(format!("{path}: {part:?} is a name for anything: name the idea"));
        }
    }
    if !file.source.trim_start().starts_with("//!") {
        findings.push(format!("{path}: a file begins with //! and says why it exists"));
    }
    if file.product_lines > LONGEST {
        findings.push(format!("{path}: {} lines without tests; at most {LONGEST}", file.product_lines));
    }
    findings
}

#[cfg(test)]
fn found(path: &str, source: &str) -> Vec<String> {
    check(&super::tree::sources(vec![(path.to_owned(), source.to_owned())]))
}

#[test]
fn good_files_pass() {
    assert_eq!(found("agent/src/os/tree.rs", "//! Why.\n\nfn a() {}\n"), [""; 0]);
    assert_eq!(found("proto/src/generated/x.rs", &"fn a() {}\n".repeat(1000)), [""; 0]);
    let tested = format!("//! Why.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn a() {}\n".repeat(600));
    assert_eq!(found("agent/src/a.rs", &tested), [""; 0], "tests may be long");
}

#[test]
fn each_rule_about_files_can_fail() {
    assert_eq!(found("agent/src/a.rs", "fn a() {}\n").len(), 1);
    assert_eq!(found("agent/src/a/mod.rs", "//! Why.\n").len(), 1);
    for name in ["util", "utils", "common", "misc", "types", "manager", "helpers"] {
        assert_eq!(found(&format!("agent/src/{name}.rs"), "//! Why.\n").len(), 1, "{name}");
        assert_eq!(found(&format!("agent/src/{name}/a.rs"), "//! Why.\n").len(), 1, "{name}/");
    }
    let long = |lines: usize| format!("//! Why.\n{}", "fn a() {}\n".repeat(lines));
    assert_eq!(found("cli/src/main.rs", &long(29)).len(), 0);
    assert_eq!(found("cli/src/main.rs", &long(30)).len(), 1);
    assert_eq!(found("cli/src/bin/x.rs", &long(30)).len(), 1);
    assert_eq!(found("agent/src/a.rs", &long(499)).len(), 0);
    assert_eq!(found("agent/src/a.rs", &long(500)).len(), 1);
}
