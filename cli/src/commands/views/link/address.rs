//! Addresses of commits and pull requests at hosts of repositories. What an address
//! holds of names and passwords is never kept.

use std::fmt;

use reqwest::Url;

use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// A host whose addresses are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forge {
    GitHub,
    GitLab,
    Bitbucket,
    /// Gitea, Forgejo, Codeberg.
    Gitea,
}

/// Where a repository comes from: host and path, nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands::views) struct Remote {
    host: String,
    /// Without slashes at its ends and `.git`.
    path: String,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}/{}", self.host, self.path)
    }
}

impl Remote {
    /// Out of what git has: an address, or `user@host:path`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (host, path) = match Url::parse(text) {
            Ok(url) if ["https", "http", "ssh", "git"].contains(&url.scheme()) => {
                (url.host_str()?.to_owned(), url.path().to_owned())
            }
            _ if text.contains("://") => return None,
            _ => {
                let bare = |(before, path): &(&str, &str)| !before.contains('/') && !path.starts_with("//");
                let (before, path) = text.split_once(':').filter(bare)?;
                (before.rsplit('@').next()?.to_owned(), path.to_owned())
            }
        };
        let path = path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let plain = |text: &str, more: &str| {
            !text.is_empty()
                && text.len() <= 200
                && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let fits = plain(&host, "-.") && plain(path, "-._/") && path.contains('/') && !path.contains("..");
        fits.then(|| Self { host: host.to_ascii_lowercase(), path: path.to_owned() })
    }

    fn forge(&self) -> Option<Forge> {
        let names = [
            ("github", Forge::GitHub),
            ("gitlab", Forge::GitLab),
            ("bitbucket", Forge::Bitbucket),
            ("gitea", Forge::Gitea),
            ("forgejo", Forge::Gitea),
            ("codeberg", Forge::Gitea),
        ];
        // A name of its own is part of the host's: gitlab.example.org.
        names.iter().find(|(name, _)| self.host.split('.').any(|part| part == *name)).map(|(_, forge)| *forge)
    }

    /// The page of a commit.
    pub(super) fn commit(&self, sha: &str) -> Option<String> {
        let plain = !sha.is_empty() && sha.len() <= 64 && sha.bytes().all(|byte| byte.is_ascii_hexdigit());
        let between = match self.forge().filter(|_| plain)? {
            Forge::GitHub | Forge::Gitea => "commit",
            Forge::GitLab => "-/commit",
            Forge::Bitbucket => "commits",
        };
        Some(format!("{self}/{between}/{sha}"))
    }

    fn request(&self, number: u64) -> Option<String> {
        let between = match self.forge()? {
            Forge::GitHub => "pull",
            Forge::GitLab => "-/merge_requests",
            Forge::Bitbucket => "pull-requests",
            Forge::Gitea => "pulls",
        };
        Some(format!("{self}/{between}/{number}"))
    }
}

/// The address of a pull request, given by its number or as it stands in a browser.
///
/// # Errors
/// It is neither, or nobody knows which repository a number is of.
pub(super) fn request(text: &str, remote: Option<&Remote>) -> Result<String, Failure> {
    if let Ok(number) = text.trim_start_matches(['#', '!']).parse::<u64>() {
        return remote.and_then(|remote| remote.request(number)).ok_or_else(|| {
            let message = format!("nothing says whose pull request {number} is");
            Failure::new(ExitCode::BadInput, message).help("give its whole address: --pr https://...")
        });
    }
    let plain = |url: &Url| {
        let open = url.username().is_empty() && url.password().is_none();
        open && url.scheme() == "https" && url.host_str().is_some() && url.path().len() > 1
    };
    match Url::parse(text).ok().filter(|_| text.len() <= 500).filter(plain) {
        Some(mut url) => {
            // What follows may be a token of somebody's.
            url.set_query(None);
            url.set_fragment(None);
            Ok(url.to_string())
        }
        None => Err(Failure::new(ExitCode::BadInput, format!("{} is no pull request", words::quoted(text)))
            .help("give its number, or its address, which begins with https:// and holds no password")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_read_without_their_secrets() {
        for (text, shown) in [
            ("https://github.com/o/r.git", Some("https://github.com/o/r")),
            ("https://user:ghp_secret@github.com/o/r", Some("https://github.com/o/r")),
            ("git@github.com:o/r.git", Some("https://github.com/o/r")),
            (
                "ssh://git@gitlab.example.org:2222/group/sub/r.git",
                Some("https://gitlab.example.org/group/sub/r"),
            ),
            ("/srv/git/r.git", None),
            ("../r", None),
            ("file:///srv/git/r", None),
            ("https://github.com/o/../../x", None),
            ("javascript:alert(1)/x", None),
            ("host:a/\u{1b}[2J", None),
        ] {
            assert_eq!(Remote::read(text).map(|remote| remote.to_string()).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn pages_are_those_of_each_host() {
        let commit = |remote: &str| Remote::read(remote).and_then(|remote| remote.commit("abc123"));
        assert_eq!(commit("git@github.com:o/r").as_deref(), Some("https://github.com/o/r/commit/abc123"));
        assert_eq!(
            commit("https://gitlab.example.org/g/s/r").as_deref(),
            Some("https://gitlab.example.org/g/s/r/-/commit/abc123")
        );
        assert_eq!(
            commit("https://bitbucket.org/o/r.git").as_deref(),
            Some("https://bitbucket.org/o/r/commits/abc123")
        );
        assert_eq!(
            commit("https://codeberg.org/o/r").as_deref(),
            Some("https://codeberg.org/o/r/commit/abc123")
        );
        // A host that only looks like one, and something that is no hash.
        assert_eq!(commit("https://notgithub.com/o/r"), None);
        assert_eq!(Remote::read("git@github.com:o/r").and_then(|remote| remote.commit("x?y")), None);
    }

    #[test]
    fn requests_are_numbers_or_addresses() {
        let github = Remote::read("git@github.com:o/r");
        let of = |text: &str| request(text, github.as_ref()).ok();
        assert_eq!(of("17").as_deref(), Some("https://github.com/o/r/pull/17"));
        assert_eq!(of("#17").as_deref(), Some("https://github.com/o/r/pull/17"));
        assert_eq!(
            of("https://github.com/a/b/pull/3?token=secret#x").as_deref(),
            Some("https://github.com/a/b/pull/3")
        );
        for text in [
            "",
            "x",
            "http://github.com/a/b/pull/3",
            "https://u:p@github.com/a/b/pull/3",
            "javascript:alert(1)",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        assert!(request("17", None).is_err());
    }
}
