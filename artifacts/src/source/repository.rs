//! A git repository as far as it says what belongs to its tree: where its
//! directory is, what its configuration says of ignored files. Nothing is run
//! and nothing is changed in it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::index::{self, Tracked};
use super::rules::Rules;

const MAX_CONFIG: u64 = 4 << 20;

/// Where the person's own settings for git are; empty, there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Personal {
    /// The home directory.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`, if it is not `.config` in the home directory.
    pub config: Option<PathBuf>,
}

/// One repository.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) tracked: Tracked,
    /// Why what is tracked is not known.
    pub(super) trouble: Option<String>,
    /// Names differ only by more than their case.
    pub(super) fold: bool,
    /// `info/exclude`, then what the person ignores everywhere.
    pub(super) last: [Rules; 2],
}

/// The git directory of a work tree whose top this is.
pub(super) fn git_dir(top: &Path) -> Option<PathBuf> {
    let named = top.join(".git");
    let meta = named.metadata().ok()?;
    let dir = if meta.is_file() {
        let text = read_text(&named)?;
        let path = text.strip_prefix("gitdir:")?.trim();
        top.join(path)
    } else {
        named
    };
    dir.join("HEAD").symlink_metadata().ok().map(|_| dir)
}

impl Repository {
    /// `top` is what paths of this repository begin with.
    pub(super) fn open(git_dir: &Path, top: &str, personal: &Personal) -> Self {
        // A linked work tree shares all but its index.
        let common = read_text(&git_dir.join("commondir"))
            .map_or_else(|| git_dir.to_owned(), |path| git_dir.join(path.trim()));
        let home = personal.home.as_deref();
        let config_home = personal.config.clone().or_else(|| home.map(|home| home.join(".config")));
        let mut settings = Settings::default();
        let files = [
            Some(PathBuf::from("/etc/gitconfig")),
            config_home.as_ref().map(|dir| dir.join("git/config")),
            home.map(|home| home.join(".gitconfig")),
            Some(common.join("config")),
        ];
        for text in files.iter().flatten().filter_map(|file| read_text(file)) {
            settings.read(&text);
        }
        let own = match settings.excludes.as_deref() {
            Some(path) => match (path.strip_prefix("~/"), home) {
                (Some(rest), Some(home)) => Some(home.join(rest)),
                _ => Some(PathBuf::from(path)),
            },
            None => config_home.map(|dir| dir.join("git/ignore")),
        };
        let own = own.map(|path| Rules::read_followed(&path, top, "core.excludesFile")).unwrap_or_default();
        let info = Rules::read_followed(&common.join("info/exclude"), top, ".git/info/exclude");
        let hash = if settings.sha256 { 32 } else { 20 };
        let (tracked, trouble) = match index::read(git_dir, hash) {
            Ok(tracked) => (tracked, None),
            Err(why) => (Tracked::default(), Some(why)),
        };
        Self { tracked, trouble, fold: settings.fold, last: [info, own] }
    }
}

fn read_text(path: &Path) -> Option<String> {
    let file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|meta| meta.is_file()))?;
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG).read_to_end(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

/// What matters of git's configuration.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    excludes: Option<String>,
    fold: bool,
    sha256: bool,
}

impl Settings {
    /// Later files win.
    fn read(&mut self, text: &str) {
        let mut section = String::new();
        for line in text.lines().map(str::trim) {
            let line = match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((name, rest)) => {
                    section = name.trim().to_lowercase();
                    rest.trim()
                }
                None => line,
            };
            let (name, value) =
                line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
            let yes =
                value.is_none_or(|v| matches!(plain(v).to_lowercase().as_str(), "true" | "yes" | "on" | "1"));
            match (section.as_str(), name.trim().to_lowercase().as_str()) {
                ("core", "excludesfile") => self.excludes = value.map(plain),
                ("core", "ignorecase") => self.fold = yes,
                ("extensions", "objectformat") => self.sha256 = value.is_some_and(|v| plain(v) == "sha256"),
                _ => {}
            }
        }
    }
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

    #[test]
    fn settings_are_found_among_others() {
        let mut settings = Settings::default();
        settings.read("[user]\n name = x\n[core]\n\texcludesFile = \"~/my ignore\" # mine\n");
        assert_eq!(settings.excludes.as_deref(), Some("~/my ignore"));
        settings.read(
            "[Core] ignoreCase\n[extensions]\n objectformat = sha256\n[core \"x\"]\nexcludesfile = y\n",
        );
        assert_eq!(settings, Settings { excludes: Some("~/my ignore".into()), fold: true, sha256: true });
        settings.read("[core]\nignorecase = false\nexcludesfile = /e ; no\n");
        assert_eq!((settings.fold, settings.excludes.as_deref()), (false, Some("/e")));
    }
}
