//! Whether a file that is here is the one in a tree. It is only read, in
//! pieces, and a link is never followed.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::digest::Digest;
use crate::manifest::Node;

/// Whether what is at `path` has the content of `node`; modes and times do not
/// count. `false` where it is of another kind or not there.
pub fn same_content(path: &Path, node: &Node) -> io::Result<bool> {
    let meta = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match node {
        Node::Dir { .. } => Ok(meta.is_dir()),
        Node::Symlink { target } => {
            Ok(meta.is_symlink() && std::fs::read_link(path)?.to_str() == Some(target))
        }
        Node::File { size, chunks, .. } => {
            if !meta.is_file() || meta.len() != *size {
                return Ok(false);
            }
            let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
            let flags = i32::try_from(flags.bits()).unwrap_or_default();
            let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
            let mut bytes = Vec::new();
            for chunk in chunks {
                bytes.clear();
                file.by_ref().take(u64::from(chunk.len)).read_to_end(&mut bytes)?;
                if Digest::of(&bytes) != chunk.digest {
                    return Ok(false);
                }
            }
            Ok(file.read(&mut [0])? == 0)
        }
    }
}
