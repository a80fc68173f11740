//! Reads every Rust file of the repository once, masked, and tells product
//! code from tests.

use std::fs;
use std::path::Path;

use super::lexer::{Masked, blank, mask};

/// A Rust file.
pub(super) struct SourceFile {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    /// As it is.
    pub(super) source: String,
    /// Without comments and strings.
    pub(super) code: String,
    /// The same without tests.
    pub(super) product: String,
    /// Without comments and tests, with strings.
    pub(super) product_text: String,
    /// Lines that are not tests.
    pub(super) product_lines: usize,
    /// Whether a program wrote it.
    pub(super) generated: bool,
}

/// Folders that hold no source of the repository.
const SKIPPED: [&str; 6] = ["target", "outputs", "out", "node_modules", "snapshots", "__pycache__"];

/// Every Rust file below `root`.
pub(super) fn read(root: &Path) -> Vec<SourceFile> {
    let mut raw = Vec::new();
    collect(root, "", &mut raw);
    assert!(raw.len() > 10, "found hardly any Rust file below {}", root.display());
    sources(raw)
}

fn collect(directory: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
            collect(&entry.path(), &format!("{prefix}{name}/"), files);
        } else if kind.is_file() && name.ends_with(".rs") {
            // A file that goes away meanwhile is somebody's scratch.
            if let Ok(source) = fs::read_to_string(entry.path()) {
                files.push((format!("{prefix}{name}"), source));
            }
        }
    }
}

/// Masks files and finds out which of them are tests.
pub(super) fn sources(raw: Vec<(String, String)>) -> Vec<SourceFile> {
    let masked: Vec<(String, String, Masked)> = raw
        .into_iter()
        .map(|(path, source)| {
            let masked = mask(&source);
            (path, source, masked)
        })
        .collect();
    let modules: Vec<String> =
        masked.iter().flat_map(|(path, _, masked)| test_modules(path, masked)).collect();
    masked.into_iter().map(|(path, source, masked)| file(path, source, masked, &modules)).collect()
}

fn file(path: String, source: String, masked: Masked, modules: &[String]) -> SourceFile {
    let generated = path.contains("/src/generated/");
    let inside = |stem: &String| path == format!("{stem}.rs") || path.starts_with(&format!("{stem}/"));
    let is_test = path.starts_with("tests/") || path.contains("/tests/") || modules.iter().any(inside);
    let items = if is_test { std::iter::once(0..source.len()).collect() } else { masked.tests };
    let tests: usize = items.iter().map(|item| source[item.clone()].lines().count()).sum();
    let without = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        items.iter().for_each(|item| blank(&mut bytes, item.clone()));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    SourceFile {
        product: without(&masked.code),
        product_text: without(&masked.text),
        product_lines: source.lines().count().saturating_sub(tests),
        code: masked.code,
        generated,
        path,
        source,
    }
}

/// Modules in files of their own that a file declares for tests only, as
/// paths without `.rs`.
fn test_modules(path: &str, masked: &Masked) -> Vec<String> {
    let stem = path.trim_end_matches(".rs");
    let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    let folder = if matches!(name, "lib" | "main") { folder } else { stem };
    let declared = |item: &str| {
        let name = item.strip_suffix(';')?.rsplit_once("mod ")?.1.trim();
        Some(format!("{folder}/{name}"))
    };
    masked.tests.iter().filter_map(|item| declared(&masked.code[item.clone()])).collect()
}

#[test]
fn test_code_is_told_from_product_code() {
    let raw = [
        (
            "a/src/lib.rs",
            "//! a.\nfn product() {}\n#[cfg(test)]\nmod sim;\n#[cfg(test)]\nmod tests {\n fn t() {}\n}\n",
        ),
        ("a/src/sim.rs", "fn sim() {}\n"),
        ("a/src/sim/deep.rs", "fn deep() {}\n"),
        ("a/src/other.rs", "fn other() {}\n"),
        ("a/tests/whole.rs", "fn whole() {}\n"),
    ];
    let raw = raw.iter().map(|(path, source)| ((*path).to_owned(), (*source).to_owned())).collect();
    let files = sources(raw);
    let product: Vec<usize> = files.iter().map(|file| file.product_lines).collect();
    assert_eq!(product, [2, 0, 0, 1, 0]);
    assert!(files[0].product.contains("fn product") && !files[0].product.contains("fn t"));
    assert!(files[0].code.contains("fn t"));
}
