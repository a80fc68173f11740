//! The structure of one file: which format its first bytes and its name
//! promise, and whether the rest keeps that promise.

use std::fs::File;
use std::io::{self, Read};

use super::pickle::Promise;
use super::{hdf5, hole, json, npy, packed, pickle, safetensors, zip};

/// What the structure of one file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Structure {
    /// It parses to the end and its checksums hold.
    Sound(&'static str),
    /// It does not.
    Torn(String),
    /// It does not, and other programs may well read it all the same: text.
    Odd(String),
    /// It was another file at the end than at the beginning.
    Changed,
    /// It has the right shape, and this leaves a doubt.
    Doubtful(&'static str),
    /// It has none that is known here.
    Free,
}

pub(super) type Judged = io::Result<Structure>;

pub(super) fn torn(why: impl Into<String>) -> Judged {
    Ok(Structure::Torn(why.into()))
}

/// Doubts: what they are about, as it goes on after the file's name.
pub(super) const HOLE: &str = "has a part that was never written";
pub(super) const NO_CHECKSUM: &str = "carries no checksums";
pub(super) const TOO_LARGE: &str = "describes more than is followed here";

/// Formats that a name promises. A file without one may well be empty: a lock,
/// a marker, a log.
const PROMISED: [&str; 14] = [
    "safetensors",
    "npz",
    "npy",
    "keras",
    "pt",
    "pth",
    "ckpt",
    "bin",
    "pkl",
    "pickle",
    "joblib",
    "h5",
    "hdf5",
    "distcp",
];

/// What is sound, unless a part of the file was never written: killed programs
/// leave full-size files, and formats without checksums cannot tell.
pub(super) fn unless_hole(file: &File, size: u64, format: &'static str) -> Judged {
    Ok(match hole::first(file, size)? {
        Some(_) => Structure::Doubtful(HOLE),
        None => Structure::Sound(format),
    })
}

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// Judges an open file by its content, its name giving the promise.
pub(super) fn judge(file: &File, name: &str) -> Judged {
    let size = file.metadata()?.len();
    let extension = extension(name).to_ascii_lowercase();
    if size == 0 {
        let is_promised = PROMISED.contains(&extension.as_str());
        return match extension.as_str() {
            "json" => Ok(Structure::Odd("it is empty".into())),
            _ if is_promised => torn("it is empty"),
            _ => Ok(Structure::Free),
        };
    }
    let mut head = Vec::new();
    file.take(4096).read_to_end(&mut head)?;
    let pickles = promise(&extension) == Promise::Pickles;
    match (extension.as_str(), head.as_slice()) {
        ("safetensors", _) => safetensors::judge(file, size),
        ("json", _) => json::judge(file, size),
        (_, [b'P', b'K', 3, 4, ..]) => zip::judge(file, size, zip_format(&extension)),
        (_, [b'P', b'K', 5, 6, ..]) => torn("it is a zip archive without entries"),
        (_, [0x93, b'N', b'U', b'M', b'P', b'Y', ..]) => npy::judge(file, size),
        (_, [0x80, 2..=5, ..]) => pickle::judge(file, size, promise(&extension)),
        (extension, head) if packed::begins(head, extension, pickles) => packed::judge(file, size, head),
        ("npz" | "keras", _) => torn("it does not begin as a zip archive"),
        ("npy", _) => torn("it does not begin as a NumPy array"),
        // Raw weights may begin with zeros.
        ("bin", head) if head.iter().all(|b| *b == 0) => Ok(Structure::Doubtful(HOLE)),
        ("pt" | "pth" | "ckpt" | "pkl" | "pickle" | "joblib", head) if head.iter().all(|b| *b == 0) => {
            torn("it begins with a hole of zeros")
        }
        (_, head) if hdf5::begins(head) || matches!(&*extension, "h5" | "hdf5") => hdf5::judge(file, size),
        _ => Ok(Structure::Free),
    }
}

fn promise(extension: &str) -> Promise {
    match extension {
        "pkl" | "pickle" | "joblib" => Promise::Pickles,
        "pt" | "pth" | "ckpt" => Promise::Torch,
        _ => Promise::Nothing,
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
