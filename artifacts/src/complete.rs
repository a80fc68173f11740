//! When a checkpoint is finished. Judged from names, from the structure of
//! every file and from the layout of known frameworks; never from unpickling,
//! and never from silence alone where there is a structure to judge. Whether
//! somebody still writes is the caller's to find out.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

mod dcp;
mod deepspeed;
mod directory;
mod hdf5;
mod huggingface;
mod json;
mod megatron;
mod name;
mod npy;
mod orbax;
mod pickle;
mod safetensors;
mod tensorflow;
mod zip;

pub use name::{is_temporary, step_of};

/// What can be said of a file or directory as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completeness {
    /// Its own structure, or its framework's marker, says it is whole.
    Complete {
        /// The format or layout that says so.
        format: &'static str,
    },
    /// Something is missing, torn or still has a temporary name.
    Incomplete {
        /// What, for people.
        why: String,
    },
    /// No structure to judge: only a quiet period can tell.
    Unknown,
}

/// What the structure of one file says.
#[derive(Debug, PartialEq, Eq)]
enum Structure {
    /// It parses to the end and its checksums hold.
    Sound(&'static str),
    /// It does not.
    Torn(String),
    /// It parses, but bytes that look like a hole leave a doubt.
    Doubtful,
    /// It has none that is known here.
    Free,
}

type Judged = io::Result<Structure>;

fn torn(why: impl Into<String>) -> Judged {
    Ok(Structure::Torn(why.into()))
}

fn incomplete(why: impl Into<String>) -> Option<Completeness> {
    Some(Completeness::Incomplete { why: why.into() })
}

/// Judges a checkpoint: a file, or a directory with all it holds. Reads every
/// byte of formats with checksums, so it blocks. A link is followed to what it
/// names.
#[must_use]
pub fn judge(path: &Path) -> Completeness {
    let no = |why: String| Completeness::Incomplete { why };
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return no("its name is not UTF-8".into());
    };
    if is_temporary(name) {
        return no(format!("`{name}` is a temporary name"));
    }
    if path.with_file_name(format!("{name}-unfinished")).symlink_metadata().is_ok() {
        return no(format!("`{name}-unfinished` stands beside it"));
    }
    let judged = path.metadata().and_then(|meta| {
        if meta.is_dir() {
            return directory::judge(path, name);
        }
        if !meta.is_file() {
            return Ok(no("it is neither a file nor a directory".into()));
        }
        Ok(match structure(path, name)? {
            Structure::Sound(format) => Completeness::Complete { format },
            Structure::Torn(why) => no(why),
            Structure::Doubtful | Structure::Free => Completeness::Unknown,
        })
    });
    judged.unwrap_or_else(|error| no(format!("it cannot be read: {error}")))
}

/// Names of files that say all by being there.
fn may_be_empty(name: &str) -> bool {
    const MARKERS: [&str; 6] =
        ["_SUCCESS", "commit_success.txt", "COMMIT_SUCCESS", "DONE", ".complete", "__init__.py"];
    MARKERS.contains(&name)
        || matches!(extension(name), "lock" | "log" | "gitkeep" | "done" | "complete" | "marker")
}

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

fn structure(path: &Path, name: &str) -> Judged {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size == 0 {
        return if may_be_empty(name) { Ok(Structure::Free) } else { torn("it is empty") };
    }
    let mut head = Vec::new();
    file.by_ref().take(4096).read_to_end(&mut head)?;
    let extension = extension(name).to_ascii_lowercase();
    match (extension.as_str(), head.as_slice()) {
        ("safetensors", _) => safetensors::judge(&file, size),
        ("json", _) => json::judge(&file, size),
        (_, [b'P', b'K', 3, 4, ..]) => zip::judge(&file, size, zip_format(&extension)),
        (_, [b'P', b'K', 5, 6, ..]) => torn("it is a zip archive without entries"),
        (_, [0x93, b'N', b'U', b'M', b'P', b'Y', ..]) => npy::judge(&file, size),
        (_, [0x80, 2..=5, ..]) => pickle::judge(&file, size, matches!(&*extension, "pkl" | "pickle")),
        ("npz" | "keras", _) => torn("it does not begin as a zip archive"),
        ("npy", _) => torn("it does not begin as a NumPy array"),
        ("pt" | "pth" | "ckpt" | "bin" | "pkl" | "pickle" | "joblib", head)
            if head.iter().all(|b| *b == 0) =>
        {
            torn("it begins with a hole of zeros")
        }
        (_, head) if hdf5::begins(head) || matches!(&*extension, "h5" | "hdf5") => hdf5::judge(&file, size),
        _ => Ok(Structure::Free),
    }
}

fn zip_format(extension: &str) -> &'static str {
    match extension {
        "npz" => "numpy-zip",
        "keras" => "keras-zip",
        "pt" | "pth" | "ckpt" | "bin" => "torch-zip",
        _ => "zip",
    }
}

#[cfg(test)]
mod tests;
