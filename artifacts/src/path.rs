//! Which paths and links may stand in a tree. A tree from a stranger must not
//! be able to name anything outside itself, whatever its links point at.

use crate::restore::SCRATCH;

const MAX_BYTES: usize = 4095;
const MAX_DEPTH: usize = 64;

/// Why a path or a link may not stand in a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path `{path}` {why}")]
pub struct PathError {
    /// The path, shortened.
    pub path: String,
    /// What is wrong with it.
    pub why: &'static str,
}

fn refuse(path: &str, why: &'static str) -> PathError {
    PathError { path: harmless(path), why }
}

/// The beginning of a name that somebody may have chosen for what it does to
/// whoever reads it.
pub(crate) fn harmless(path: &str) -> String {
    let mut shown = String::new();
    for c in path.chars().take(200) {
        if c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
        {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Accepts a relative, `/`-separated path that names something below a root:
/// no empty, `.` or `..` component, at most 64 components.
pub fn check_path(path: &str) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(refuse(path, "is empty"));
    }
    if path.len() > MAX_BYTES {
        return Err(refuse(path, "is longer than 4095 bytes"));
    }
    if path.contains('\0') {
        return Err(refuse(path, "holds a NUL byte"));
    }
    if path.starts_with('/') {
        return Err(refuse(path, "is absolute"));
    }
    for (depth, part) in path.split('/').enumerate() {
        match part {
            "" | "." => return Err(refuse(path, "has an empty or `.` component")),
            ".." => return Err(refuse(path, "has a `..` component")),
            _ if part.len() > 255 => return Err(refuse(path, "has a component longer than 255 bytes")),
            _ if part.starts_with(SCRATCH) => {
                return Err(refuse(path, "has a name that is kept for unfinished restores"));
            }
            _ if depth >= MAX_DEPTH => return Err(refuse(path, "is deeper than 64 components")),
            _ => {}
        }
    }
    Ok(())
}

/// Accepts the target of the link at `path` if it stays inside the tree.
///
/// `..` may stand only at the beginning, and no more often than the link has
/// parent directories: with every parent a real directory, no chain of such
/// links can leave the tree, while `link/..` could.
pub fn check_link(path: &str, target: &str) -> Result<(), PathError> {
    check_path(path)?;
    if target.is_empty() || target.len() > MAX_BYTES || target.contains('\0') {
        return Err(refuse(path, "is a link with an impossible target"));
    }
    if target.starts_with('/') {
        return Err(refuse(path, "is a link to an absolute path"));
    }
    let mut climbs = path.split('/').count() - 1;
    let mut named = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if named => return Err(refuse(path, "is a link with `..` after a name")),
            ".." if climbs == 0 => return Err(refuse(path, "is a link that leaves the tree")),
            ".." => climbs -= 1,
            _ => named = true,
        }
    }
    Ok(())
}

/// The directory part of a checked path; empty at the top.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The last component of a path.
pub(crate) fn leaf(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, leaf)| leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_out_of_the_tree_are_refused() {
        let deep = vec!["a"; 65].join("/");
        for bad in
            ["", "/", "/a", "..", "a/..", "a/../b", "./a", "a//b", "a/", "a\0b", &deep, &"x".repeat(256)]
        {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        for good in ["a", "a/b", "..a", "a..b/c", ".hidden", "ä b/c"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn links_stay_inside_also_through_other_links() {
        for (path, target) in
            [("l", "/etc"), ("l", ".."), ("d/l", "../.."), ("d/l", "../../x"), ("l", "a/../b"), ("l", "")]
        {
            assert!(check_link(path, target).is_err(), "{path} -> {target}");
        }
        for (path, target) in [("l", "a"), ("l", "./a/b"), ("d/l", "../a"), ("d/e/l", "../.."), ("l", "gone")]
        {
            assert!(check_link(path, target).is_ok(), "{path} -> {target}");
        }
    }
}
