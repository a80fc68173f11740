//! What the hub says a repository holds. Whatever it says, what comes out is a
//! bounded list of paths that stay inside, with sizes and digests.

use lifecycle::spec::{is_commit, is_inside};
use serde::Deserialize;

use super::sum::Sum;

/// Files of one repository at most.
const MOST: usize = 100_000;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    /// Its path inside.
    pub(super) path: String,
    /// Its size.
    pub(super) size: u64,
    /// What it hashes to.
    pub(super) sum: Sum,
}

/// A repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    /// The commit.
    pub(super) commit: String,
    /// Its files.
    pub(super) files: Vec<File>,
}

impl Tree {
    /// All of it.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// Reads the answer about a revision.
///
/// # Errors
/// What makes no sense in it.
pub(super) fn read(json: &[u8]) -> Result<Tree, String> {
    let info: Info = serde_json::from_slice(json).map_err(|error| format!("its answer is none: {error}"))?;
    if !is_commit(&info.sha) {
        return Err("it names no commit".to_owned());
    }
    if info.siblings.len() > MOST {
        return Err(format!("it has more than {MOST} files"));
    }
    let files: Result<Vec<File>, String> = info.siblings.into_iter().map(file).collect();
    let mut files = files?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if files.windows(2).any(|two| two[0].path == two[1].path) {
        return Err("it names a file twice".to_owned());
    }
    Ok(Tree { commit: info.sha, files })
}

fn file(told: Sibling) -> Result<File, String> {
    let path = told.rfilename;
    let shown: String = path.chars().take(200).collect();
    if !is_inside(&path) {
        return Err(format!("the path {shown:?} leads out of it"));
    }
    let (size, sum) = match told.lfs {
        Some(lfs) => (Some(lfs.size), Sum::parse(&lfs.sha256).filter(|sum| matches!(sum, Sum::Sha256(_)))),
        None => (told.size, told.blob_id.as_deref().and_then(Sum::parse)),
    };
    match (size, sum) {
        (Some(size), Some(sum)) => Ok(File { path, size, sum }),
        _ => Err(format!("it tells no size or no digest of {shown:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(siblings: &Value) -> Vec<u8> {
        json!({"sha": "a".repeat(40), "siblings": siblings, "id": "o/m", "tags": []}).to_string().into_bytes()
    }

    #[test]
    fn large_files_have_their_own_digest_and_small_ones_gits() {
        let (git, sha) = ("b".repeat(40), "c".repeat(64));
        let tree = read(&told(&json!([
            {"rfilename": "w/model.bin", "size": 9, "blobId": git, "lfs": {"sha256": sha, "size": 9, "pointerSize": 3}},
            {"rfilename": "config.json", "size": 2, "blobId": git},
        ])))
        .unwrap();
        assert_eq!(tree.bytes(), 11);
        assert_eq!(tree.files[0], File { path: "config.json".into(), size: 2, sum: Sum::Git(git) });
        assert_eq!(tree.files[1].sum, Sum::Sha256(sha));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let git = "b".repeat(40);
        for bad in [
            json!([{"rfilename": "../x", "size": 1, "blobId": git}]),
            json!([{"rfilename": "/etc/x", "size": 1, "blobId": git}]),
            json!([{"rfilename": "", "size": 1, "blobId": git}]),
            json!([{"rfilename": "x", "size": 1}]),
            json!([{"rfilename": "x", "blobId": git}]),
            json!([{"rfilename": "x", "size": -1, "blobId": git}]),
            json!([{"rfilename": "x", "size": 1, "blobId": "../../x"}]),
            json!([{"rfilename": "x", "size": 1, "lfs": {"sha256": git, "size": 1}}]),
            json!([{"rfilename": "x", "size": 1, "blobId": git}, {"rfilename": "x", "size": 1, "blobId": git}]),
        ] {
            assert!(read(&told(&bad)).is_err(), "{bad}");
        }
        assert!(read(b"<html>").is_err());
        assert!(read(br#"{"sha": "main"}"#).is_err());
    }
}
