//! A git repository as far as it says what belongs to its tree: where its
//! directory is, what its configuration says of ignored files. Nothing is run
//! and nothing is changed in it.

use std::path::{Path, PathBuf};

use super::config::{About, Settings, expanded, read_text};
use super::index::{self, Tracked};
use super::rules::Rules;

/// Where the person's own settings for git are; empty, there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Personal {
    /// The home directory.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`, if it is not `.config` in the home directory.
    pub config: Option<PathBuf>,
    /// `GIT_CONFIG_GLOBAL`: this file instead of those in the home directory.
    pub global: Option<PathBuf>,
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
        let mut files = vec![PathBuf::from("/etc/gitconfig")];
        match &personal.global {
            Some(global) => files.push(global.clone()),
            None => {
                files.extend(config_home.as_ref().map(|dir| dir.join("git/config")));
                files.extend(home.map(|home| home.join(".gitconfig")));
            }
        }
        files.push(common.join("config"));
        let settings = Settings::of(&files, About { git_dir, home });
        let own = match settings.excludes.as_deref() {
            Some(path) => Some(expanded(path, home)),
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
