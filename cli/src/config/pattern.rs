//! Paths and globs inside the source tree. They name files on machines, so an
//! absolute one, or one that climbs out with `..`, is refused here already;
//! the machine checks again.

use artifacts::glob::Glob;

use super::field::Field;

/// Patterns longer than this are refused: the matcher's size grows with them.
const LONGEST: usize = 1024;

/// Why a path may not be used, if so.
pub(super) fn unsafe_path(text: &str) -> Option<&'static str> {
    let drive = text.as_bytes().get(1) == Some(&b':') && text.as_bytes()[0].is_ascii_alphabetic();
    if text.starts_with('/') || text.starts_with('\\') || drive {
        Some("is absolute, and the source tree stands elsewhere on every machine")
    } else if text.starts_with('~') {
        Some("begins with `~`, and the home directory is not part of the source tree")
    } else if text.split(['/', '\\']).any(|part| part == "..") {
        Some("has a `..` and could leave the source tree")
    } else {
        None
    }
}

const RELATIVE: &str = "write it relative to the directory of outlast.toml";

impl Field<'_> {
    /// A list of globs relative to the source tree.
    pub(super) fn globs(&mut self, example: &str) -> Option<Vec<String>> {
        let before = self.problems.len();
        let list = self.strings(example)?;
        for (index, (text, node)) in list.iter().enumerate() {
            let path = format!("{}[{index}]", self.path);
            let mut field = Field { path, node, problems: &mut *self.problems };
            field.glob(text, example);
        }
        (self.problems.len() == before).then(|| list.into_iter().map(|(text, _)| text).collect())
    }

    fn glob(&mut self, text: &str, example: &str) -> Option<()> {
        if text.trim().is_empty() {
            return self.refuse("is empty", format!("for example: {example}"));
        }
        if text.len() > LONGEST {
            return self.refuse("is too long", format!("a pattern has at most {LONGEST} bytes"));
        }
        if let Some(reason) = unsafe_path(text) {
            return self.refuse(reason, RELATIVE);
        }
        if text.starts_with('!') {
            return self
                .refuse("begins with `!`", "patterns are not negated here: use [source] include or exclude");
        }
        match Glob::new(text) {
            Ok(_) => Some(()),
            Err(error) => self.refuse(&format!("is not a glob: {error}"), format!("for example: {example}")),
        }
    }

    /// A directory relative to the source tree; empty is the tree itself.
    pub(super) fn directory(&mut self, example: &str) -> Option<String> {
        let text = self.string(example)?;
        if let Some(reason) = unsafe_path(&text) {
            return self.refuse(reason, RELATIVE);
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        Some(parts.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_inside_the_tree_are_allowed() {
        for good in ["a/b", "./a", "a..b", "*.pt", "runs/**/last.ckpt", "..."] {
            assert_eq!(unsafe_path(good), None, "{good}");
        }
        for bad in ["/etc", "../x", "a/../../x", "~/x", "C:/x", "\\x", "a\\..\\b", ".."] {
            assert!(unsafe_path(bad).is_some(), "{bad}");
        }
    }
}
