//! No committed text names a directory of the machine that it was written on.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What absolute paths of build machines begin with; put together here, so
/// that this file does not name them itself.
const PLACES: [&str; 2] = [concat!("/ro", "ot/"), concat!("/wo", "rk/")];

/// Larger files are data, not text that somebody wrote.
const LARGEST: u64 = 4 << 20;

/// What is found in files that are committed or about to be; nothing where
/// there is no checkout.
pub(super) fn check(root: &Path) -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let Ok(output) = output else { return Vec::new() };
    if !output.status.success() {
        return Vec::new();
    }
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut findings = Vec::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let path = root.join(name);
        let readable = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST);
        // What is not UTF-8 is no text.
        if let (true, Ok(text)) = (readable, fs::read_to_string(&path)) {
            findings.extend(check_text(name, &text));
        }
    }
    findings
}

fn check_text(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for place in PLACES {
            // Within a longer path the words mean something else.
            let absolute = |at: usize| {
                !line[..at].ends_with(|c: char| {
                    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | ')' | '*')
                })
            };
            if line.match_indices(place).any(|(at, _)| absolute(at)) {
                findings.push(format!("{name}:{}: names {place}, a path of a build machine", index + 1));
            }
        }
    }
    findings
}

#[test]
fn paths_of_build_machines_are_found() {
    for place in PLACES {
        assert_eq!(
            check_text("a", &format!("ok\nsee {place}main/x.rs")),
            [format!("a:2: names {place}, a path of a build machine")]
        );
        assert_eq!(check_text("a", &format!("\"{place}x\"")).len(), 1);
        assert_eq!(check_text("a", &format!("src{place}x $HOME{place} {{dir}}{place}")), [""; 0]);
    }
}

#[test]
fn files_are_read_as_git_lists_them() {
    let dir = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let status = Command::new("git").args(arguments).current_dir(dir.path()).status().unwrap();
        assert!(status.success());
    };
    let bad = format!("at {}x\n", PLACES[0]);
    fs::write(dir.path().join("bad.md"), &bad).unwrap();
    fs::write(dir.path().join("ignored.md"), &bad).unwrap();
    fs::write(dir.path().join(".gitignore"), "ignored.md\n").unwrap();
    fs::write(dir.path().join("binary"), [0xff, 0xfe]).unwrap();
    git(&["init", "--quiet"]);
    assert_eq!(check(dir.path()).len(), 1);
    git(&["add", "bad.md"]);
    assert_eq!(check(dir.path()).len(), 1);
}
