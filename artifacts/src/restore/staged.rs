//! What an interrupted restore left, or what lies where one is to go: bytes
//! that have their chunk's hash need not be fetched again, and no others count.

use std::collections::HashSet;
use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::write::Style;
use super::{RestoreError, run};
use crate::beneath::{Beneath, Opened};
use crate::digest::Digest;
use crate::manifest::{Manifest, Node};

/// How many chunks at the beginning of each entry are there already. In a
/// directory that is in use only whole files count, since a file there is
/// replaced in one step; in one of our own what is there is made writable.
pub(super) async fn kept(manifest: &Manifest, dir: &Path, style: Style) -> Result<Vec<usize>, RestoreError> {
    let place = dir.to_owned();
    let open = move || Beneath::open(&place).map_err(|error| RestoreError::io(&place, error));
    let mut dirs = run(dir, open).await?;
    let mut kept = Vec::with_capacity(manifest.entries.len());
    for entry in &manifest.entries {
        let path = entry.path.clone();
        let found;
        (dirs, found) = match &entry.node {
            Node::File { size, chunks, .. } => {
                let wanted: Vec<(Digest, u32)> = chunks.iter().map(|c| (c.digest, c.len)).collect();
                let size = *size;
                run(dir, move || {
                    let found = file(&mut dirs, &path, (size, &wanted), style);
                    Ok((dirs, found))
                })
                .await?
            }
            Node::Dir { .. } if style == Style::Fresh => {
                let work = move || {
                    // It may have had its last mode, which may forbid writing.
                    if let Some(dir) =
                        dirs.walk(&path, false).ok().and_then(|dir| dir.try_clone_to_owned().ok())
                    {
                        drop(std::fs::File::from(dir).set_permissions(Permissions::from_mode(0o700)));
                    }
                    Ok((dirs, 0))
                };
                run(dir, work).await?
            }
            Node::Dir { .. } | Node::Symlink { .. } => (dirs, 0),
        };
        kept.push(found);
    }
    Ok(kept)
}

fn file(dirs: &mut Beneath, path: &str, (size, wanted): (u64, &[(Digest, u32)]), style: Style) -> usize {
    let Ok(Opened::Node(mut file)) = dirs.node(path) else { return 0 };
    let Ok(meta) = file.metadata() else { return 0 };
    let fit = match style {
        // Another name for it would be another file that we write to.
        Style::Fresh => meta.nlink() == 1,
        Style::Over => meta.len() == size,
    };
    if !meta.is_file() || !fit {
        return 0;
    }
    let mut buffer = Vec::new();
    let mut found = 0;
    for (digest, len) in wanted {
        buffer.resize(*len as usize, 0);
        if file.read_exact(&mut buffer).is_err() || Digest::of(&buffer) != *digest {
            break;
        }
        found += 1;
    }
    match style {
        Style::Over if found < wanted.len() => 0,
        Style::Fresh if file.set_permissions(Permissions::from_mode(0o600)).is_err() => 0,
        _ => found,
    }
}

/// Whether there is anything in `dir` that the tree does not have.
pub(super) fn has_strangers(dir: &Path, names: &HashSet<String>) -> std::io::Result<bool> {
    let mut open = vec![String::new()];
    while let Some(above) = open.pop() {
        for entry in std::fs::read_dir(dir.join(&above))? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = if above.is_empty() { name.into_owned() } else { format!("{above}/{name}") };
            if !names.contains(&path) {
                return Ok(true);
            }
            if entry.file_type()?.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(false)
}

/// Every name a tree has, and every directory above one.
pub(super) fn names(manifest: &Manifest) -> HashSet<String> {
    let mut names = HashSet::new();
    for entry in &manifest.entries {
        for (at, _) in entry.path.match_indices('/') {
            if !names.contains(&entry.path[..at]) {
                names.insert(entry.path[..at].to_owned());
            }
        }
        names.insert(entry.path.clone());
    }
    names
}
