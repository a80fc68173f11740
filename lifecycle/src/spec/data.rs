//! What is fetched to a machine before the program is made ready: repositories
//! of the Hugging Face hub, and files by URL with their digest. What is no
//! repository, no digest or a path that leaves its tree never becomes one of
//! these, whoever wrote it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Repositories of one run at most.
const MOST_REPOS: usize = 32;
/// Files by URL of one run at most.
const MOST_URLS: usize = 256;

/// What is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataSpec {
    /// Repositories of the Hugging Face hub.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hf: Vec<HfRepo>,
    /// Single files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<UrlFile>,
}

impl DataSpec {
    /// Whether nothing is fetched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hf.is_empty() && self.urls.is_empty()
    }

    /// Whether all of it can be fetched: asked again by whoever got it from
    /// somebody else.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.hf.len() > MOST_REPOS || self.urls.len() > MOST_URLS {
            return Err(format!("at most {MOST_REPOS} repositories and {MOST_URLS} urls are fetched"));
        }
        let mut wrong: Vec<String> = self.urls.iter().filter_map(|file| file.check().err()).collect();
        let mut places: Vec<&str> = self.urls.iter().map(|file| file.to.as_str()).collect();
        places.sort_unstable();
        let twice = places.windows(2).filter(|two| two[0] == two[1]);
        wrong.extend(twice.map(|two| format!("two urls go to {:?}", two[0])));
        wrong.dedup();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HfKind {
    /// A model.
    Model,
    /// A dataset.
    Dataset,
}

impl HfKind {
    /// Its word in the hub's paths.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// A repository of the hub at a revision, written `org/name`,
/// `dataset:org/name` or either with `@revision`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HfRepo {
    /// What it holds.
    pub kind: HfKind,
    /// `org/name`, or a name alone.
    pub id: String,
    /// A branch, a tag or a commit; `main` where none is named.
    pub revision: String,
}

impl HfRepo {
    /// Whether its revision is a commit, which never moves.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }
}

/// Whether this names a commit: 40 hexadecimal digits.
#[must_use]
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// Why a text names no repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRepo(&'static str);

impl fmt::Display for NoRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NoRepo {}

impl FromStr for HfRepo {
    type Err = NoRepo;

    fn from_str(text: &str) -> Result<Self, NoRepo> {
        let (kind, rest) = match text.split_once(':') {
            None => (HfKind::Model, text),
            Some(("model", rest)) => (HfKind::Model, rest),
            Some(("dataset", rest)) => (HfKind::Dataset, rest),
            Some(_) => return Err(NoRepo("what stands before the colon is neither model nor dataset")),
        };
        let (id, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let is_part = |part: &str| {
            let edge = |c: Option<char>| c.is_none_or(|c| matches!(c, '-' | '.'));
            let framed = edge(part.chars().next()) || edge(part.chars().last());
            !framed && part.bytes().all(plain) && !part.contains("..") && !part.contains("--")
        };
        let parts: Vec<&str> = id.split('/').collect();
        if id.len() > 96 || parts.len() > 2 || !parts.iter().all(|part| is_part(part)) {
            return Err(NoRepo("it is not the name of a repository, such as org/name"));
        }
        let is_revision = |part: &str| !part.starts_with('.') && part.bytes().all(plain) && !part.is_empty();
        if revision.len() > 200 || revision.contains("..") || !revision.split('/').all(is_revision) {
            return Err(NoRepo("what stands after the @ is neither branch nor tag nor commit"));
        }
        Ok(Self { kind, id: id.to_owned(), revision: revision.to_owned() })
    }
}

impl TryFrom<String> for HfRepo {
    type Error = NoRepo;

    fn try_from(text: String) -> Result<Self, NoRepo> {
        text.parse()
    }
}

impl From<HfRepo> for String {
    fn from(repo: HfRepo) -> Self {
        repo.to_string()
    }
}

impl fmt::Display for HfRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == HfKind::Dataset {
            f.write_str("dataset:")?;
        }
        f.write_str(&self.id)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// A file by its URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlFile {
    /// Where it is: `https://`, or `http://` since its digest is known.
    pub url: String,
    /// SHA-256 of its bytes, 64 hexadecimal digits.
    pub sha256: String,
    /// Its place below the source tree.
    pub to: String,
}

impl UrlFile {
    /// Whether it can be fetched.
    ///
    /// # Errors
    /// All that is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        let host = self.url.strip_prefix("https://").or_else(|| self.url.strip_prefix("http://"));
        let host = host.and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
        let plain = self.url.bytes().all(|b| b.is_ascii_graphic()) && self.url.len() <= 4_096;
        if host.is_empty() || !plain {
            wrong.push("url must be https://HOST/PATH, without blanks".to_owned());
        }
        if host.contains('@') {
            wrong.push("url must not hold a user or a password: they would be shown".to_owned());
        }
        if self.sha256.len() != 64
            || !self.sha256.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
        {
            wrong.push("sha256 must be 64 hexadecimal digits in small letters".to_owned());
        }
        if !is_inside(&self.to) {
            wrong.push(format!("{:?} does not stay below the source tree", self.to));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

/// Whether a relative path of `/` stays below where it begins, and names a file
/// that every file system takes.
#[must_use]
pub fn is_inside(path: &str) -> bool {
    let good = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    let odd = |c: char| c.is_control() || c == '\\';
    path.len() <= 1_024 && !path.contains(odd) && path.split('/').all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_read_and_written_again() {
        for (text, kind, id, revision) in [
            ("gpt2", HfKind::Model, "gpt2", "main"),
            ("org/na.me_1", HfKind::Model, "org/na.me_1", "main"),
            ("dataset:org/name@refs/pr/1", HfKind::Dataset, "org/name", "refs/pr/1"),
            ("a/b@v1.0", HfKind::Model, "a/b", "v1.0"),
        ] {
            let repo: HfRepo = text.parse().unwrap();
            assert_eq!((repo.kind, repo.id.as_str(), repo.revision.as_str()), (kind, id, revision));
            assert_eq!(repo.to_string(), text);
            let json = serde_json::to_string(&repo).unwrap();
            assert_eq!(serde_json::from_str::<HfRepo>(&json).unwrap(), repo);
        }
        assert_eq!("model:a/b@main".parse::<HfRepo>().unwrap().to_string(), "a/b");
        assert!(format!("a/b@{}", "0".repeat(40)).parse::<HfRepo>().unwrap().is_pinned());
        for bad in [
            "",
            "/",
            "a/",
            "a/b/c",
            "../b",
            "a/..",
            "a b",
            "a/b@",
            "a/b@../x",
            "a/b@x y",
            "space:a/b",
            "a--b/c",
            "a/b?x",
            "-a/b",
            "a/b@/x",
            "a/b@x//y",
            "a/b#c",
            ".a/b",
        ] {
            assert!(bad.parse::<HfRepo>().is_err(), "{bad}");
        }
    }

    #[test]
    fn files_by_url_have_a_digest_and_stay_in_the_tree() {
        let file = |url: &str, sha256: &str, to: &str| UrlFile {
            url: url.into(),
            sha256: sha256.into(),
            to: to.into(),
        };
        let sum = "a".repeat(64);
        assert_eq!(file("https://h/x?y=1", &sum, "data/x").check(), Ok(()));
        for (url, sum, to) in [
            ("ftp://h/x", sum.as_str(), "x"),
            ("https:///x", &sum, "x"),
            ("https://u:p@h/x", &sum, "x"),
            ("https://h/x y", &sum, "x"),
            ("https://h/x", "abc", "x"),
            ("https://h/x", &"A".repeat(64), "x"),
            ("https://h/x", &sum, "../x"),
            ("https://h/x", &sum, "/x"),
            ("https://h/x", &sum, "a/../../x"),
            ("https://h/x", &sum, ""),
            ("https://h/x", &sum, "a//b"),
        ] {
            assert!(file(url, sum, to).check().is_err(), "{url} {sum} {to}");
        }
        let all = file("ftp://h/x", "abc", "../x").check().unwrap_err();
        assert_eq!(all.split("; ").count(), 3, "{all}");
        let twice = DataSpec { hf: Vec::new(), urls: vec![file("https://h/x", &sum, "x"); 2] };
        assert!(twice.check().unwrap_err().contains("two urls"));
    }
}
