//! Git's configuration as far as it says what is ignored, with the files that
//! it includes: a person often keeps what is true of some repositories alone in
//! a file of its own. What is not understood counts as not said; whatever a
//! configuration says, the files read for it are few.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::wildmatch::{Flags, matches};

const MAX_CONFIG: u64 = 4 << 20;
/// Files that include each other; git gives up there.
const DEPTH: u32 = 10;
/// Files that are read for one repository.
const FILES: u32 = 200;

/// What conditions of included files ask about, and where `~` is.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    /// The repository's own directory; of a linked work tree its own.
    pub(super) git_dir: &'a Path,
    pub(super) home: Option<&'a Path>,
}

/// What matters of git's configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) excludes: Option<String>,
    pub(super) fold: bool,
    pub(super) sha256: bool,
}

pub(super) fn read_text(path: &Path) -> Option<String> {
    let file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|meta| meta.is_file()))?;
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG).read_to_end(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

/// A path with `~/` as the person's home.
pub(super) fn expanded(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

impl Settings {
    /// What these files say together: later ones win.
    pub(super) fn of(files: &[PathBuf], about: About<'_>) -> Self {
        let (mut settings, mut left) = (Self::default(), FILES);
        for file in files {
            settings.file(file, about, DEPTH, &mut left);
        }
        settings
    }

    /// An included file counts where it is included.
    fn file(&mut self, path: &Path, about: About<'_>, depth: u32, left: &mut u32) {
        let Some(fewer) = left.checked_sub(1) else { return };
        *left = fewer;
        let Some(text) = read_text(path) else { return };
        let mut section = (String::new(), None);
        for line in text.lines().map(str::trim) {
            let line = match line.strip_prefix('[').and_then(header) {
                Some((named, rest)) => {
                    section = named;
                    rest.trim()
                }
                None => line,
            };
            let (name, value) =
                line.split_once('=').map_or((line, None), |(name, value)| (name, Some(plain(value))));
            let name = name.trim().to_lowercase();
            let is_included = match (section.0.as_str(), &section.1) {
                ("include", None) => true,
                ("includeif", Some(condition)) => holds(condition, path, about),
                _ => false,
            };
            if is_included && name == "path" {
                if let (Some(value), Some(depth)) = (&value, depth.checked_sub(1)) {
                    let beside = path.parent().unwrap_or(Path::new("."));
                    self.file(&beside.join(expanded(value, about.home)), about, depth, left);
                }
            } else if section.1.is_none() {
                self.take(&section.0, &name, value);
            }
        }
    }

    fn take(&mut self, section: &str, name: &str, value: Option<String>) {
        let is_yes = |value: &Option<String>| {
            value.as_ref().is_none_or(|v| matches!(v.to_lowercase().as_str(), "true" | "yes" | "on" | "1"))
        };
        match (section, name) {
            ("core", "excludesfile") => self.excludes = value,
            ("core", "ignorecase") => self.fold = is_yes(&value),
            ("extensions", "objectformat") => self.sha256 = value.is_some_and(|v| v == "sha256"),
            _ => {}
        }
    }
}

/// The name of a section, in small letters, and of what in it; with what
/// follows it on its line.
fn header(rest: &str) -> Option<((String, Option<String>), &str)> {
    let end = rest.find([']', '"'])?;
    let name = rest[..end].trim().to_lowercase();
    if rest[end..].starts_with(']') {
        return Some(((name, None), &rest[end + 1..]));
    }
    let (mut inner, mut chars) = (String::new(), rest[end + 1..].char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => inner.extend(chars.next().map(|(_, c)| c)),
            '"' => {
                let rest = rest[end + 1 + at + 1..].trim_start().strip_prefix(']')?;
                return Some(((name, Some(inner)), rest));
            }
            c => inner.push(c),
        }
    }
    None
}

/// Whether a condition holds; one that is not known does not.
fn holds(condition: &str, file: &Path, about: About<'_>) -> bool {
    let Some((what, pattern)) = condition.split_once(':') else { return false };
    match what {
        "gitdir" => is_git_dir(pattern, false, file, about),
        "gitdir/i" => is_git_dir(pattern, true, file, about),
        "onbranch" => branch(about.git_dir).is_some_and(|branch| {
            let flags = Flags { path: true, ..Flags::default() };
            matches(whole(pattern).as_bytes(), branch.as_bytes(), flags)
        }),
        _ => false,
    }
}

/// A pattern that ends in `/` is for all that is below.
fn whole(pattern: &str) -> String {
    if pattern.ends_with('/') { format!("{pattern}**") } else { pattern.to_owned() }
}

fn is_git_dir(pattern: &str, fold: bool, file: &Path, about: About<'_>) -> bool {
    let flags = Flags { path: true, fold };
    // What `~` and `.` stand for is no pattern.
    let (literal, pattern) = if let (Some(rest), Some(home)) = (pattern.strip_prefix("~/"), about.home) {
        (home.canonicalize().ok(), rest.to_owned())
    } else if let Some(rest) = pattern.strip_prefix("./") {
        let beside = file.canonicalize().ok().and_then(|file| file.parent().map(Path::to_owned));
        let Some(beside) = beside else { return false };
        (Some(beside), rest.to_owned())
    } else if pattern.starts_with('/') {
        (None, pattern.to_owned())
    } else {
        (None, format!("**/{pattern}"))
    };
    let pattern = whole(&pattern);
    let fits = |dir: PathBuf| {
        let below = match &literal {
            None => Some(dir.as_path()),
            Some(literal) if fold => {
                let (dir, literal) = (dir.to_str(), literal.to_str());
                let Some((dir, literal)) = dir.zip(literal) else { return false };
                let rest = dir.get(..literal.len()).filter(|part| part.eq_ignore_ascii_case(literal));
                rest.and_then(|_| dir[literal.len()..].strip_prefix('/')).map(Path::new)
            }
            Some(literal) => dir.strip_prefix(literal).ok(),
        };
        // Git wants more than what is literal.
        let below = below.filter(|text| !text.as_os_str().is_empty());
        below.is_some_and(|text| matches(pattern.as_bytes(), text.as_os_str().as_encoded_bytes(), flags))
    };
    let git_dir = about.git_dir;
    git_dir.canonicalize().is_ok_and(fits) || std::path::absolute(git_dir).is_ok_and(fits)
}

/// The branch that is checked out, if one is.
fn branch(git_dir: &Path) -> Option<String> {
    let head = read_text(&git_dir.join("HEAD"))?;
    Some(head.strip_prefix("ref:")?.trim().strip_prefix("refs/heads/")?.to_owned())
}

/// A value without quotes, escapes and what is said behind it.
fn plain(value: &str) -> String {
    let (mut out, mut quoted) = (String::new(), false);
    let mut chars = value.trim().chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' => out.extend(chars.next()),
            '#' | ';' if !quoted => break,
            _ => out.push(c),
        }
    }
    if quoted { out } else { out.trim_end().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &mut Settings, text: &str) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config"), text).unwrap();
        let about = About { git_dir: dir.path(), home: None };
        settings.file(&dir.path().join("config"), about, DEPTH, &mut 100);
    }

    #[test]
    fn settings_are_found_among_others() {
        let mut settings = Settings::default();
        read(&mut settings, "[user]\n name = x\n[core]\n\texcludesFile = \"~/my ignore\" # mine\n");
        assert_eq!(settings.excludes.as_deref(), Some("~/my ignore"));
        read(
            &mut settings,
            "[Core] ignoreCase\n[extensions]\n objectformat = sha256\n[core \"x\"]\nexcludesfile = y\n",
        );
        assert_eq!(settings, Settings { excludes: Some("~/my ignore".into()), fold: true, sha256: true });
        read(&mut settings, "[core]\nignorecase = false\nexcludesfile = /e ; no\n");
        assert_eq!((settings.fold, settings.excludes.as_deref()), (false, Some("/e")));
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, "[include]\npath = config\npath = config\n[core]\nexcludesFile = /e\n")
            .unwrap();
        let about = About { git_dir: dir.path(), home: None };
        assert_eq!(Settings::of(&[file], about).excludes.as_deref(), Some("/e"));
    }

    #[test]
    fn headers_are_read_as_they_are_quoted() {
        let read = |text| {
            header(text).map(|((name, inner), rest)| (name, inner.unwrap_or("-".into()), rest.to_owned()))
        };
        let told =
            |name: &str, inner: &str, rest: &str| Some((name.to_owned(), inner.to_owned(), rest.to_owned()));
        assert_eq!(read("Core] x = 1"), told("core", "-", " x = 1"));
        assert_eq!(
            read("includeIf \"gitdir:~/[a]\\\"/\"] path=y"),
            told("includeif", "gitdir:~/[a]\"/", " path=y")
        );
        assert_eq!((read("core"), read("a \"b]"), read("a \"b\" c]")), (None, None, None));
    }
}
