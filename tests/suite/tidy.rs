//! The rules of the repository that the compiler does not know: which crate
//! may use which, where a third-party library may be named, how files are
//! called and how long they are. Every rule is a pure function from what was
//! read to what is wrong with it, and is tested with something that breaks
//! it; the tests here apply them to the repository as it stands. Nothing is
//! ever mended: a finding names the place and the rule.

mod committed;
mod crates;
mod lexer;
mod lockfile;
mod manifests;
mod shape;
mod tree;
mod walls;

use std::path::PathBuf;

/// The root of the repository: of the checkout that runs the tests, even
/// where it was moved after they were built.
fn root() -> PathBuf {
    let manifest =
        std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    PathBuf::from(manifest).parent().expect("the tests are a folder of the repository").to_owned()
}

/// Fails with everything that was found.
#[track_caller]
fn none(findings: &[String]) {
    assert!(findings.is_empty(), "{} finding(s):\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn crates_use_only_the_crates_they_may() {
    none(&crates::check(&crates::metadata(&root())));
}

#[test]
fn manifests_keep_the_rules() {
    none(&manifests::check_all(&root(), &crates::metadata(&root())));
}

#[test]
fn refused_packages_are_not_used() {
    none(&lockfile::check(&root()));
}

#[test]
fn files_have_the_right_shape() {
    none(&shape::check(&tree::read(&root())));
}

#[test]
fn libraries_stay_behind_their_walls() {
    none(&walls::check(&tree::read(&root())));
}

#[test]
fn no_committed_text_names_a_build_machine() {
    none(&committed::check(&root()));
}
