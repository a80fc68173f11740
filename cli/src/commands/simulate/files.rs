//! Recordings on the disk: which files, and their text, bounded.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use controller::replay::{Zone, read};

use crate::app::Context;
use crate::exit_code::{ExitCode, Failure};

/// What is read.
const FORMS: &str = "a recording is {\"metadata\": {\"gap_seconds\": 30}, \"data\": [1, 0, ...]} with 1 for available, \
                     lines `ms,add,nodeK` and `ms,remove,nodeK`, or lines `seconds,count`; to try without one: --generate 3";
/// Zones at most.
const MOST: usize = 64;
/// What recordings in a directory are called.
const ENDINGS: [&str; 3] = ["json", "csv", "txt"];

/// Reads every file, and those in every directory, and says what looks wrong.
pub(super) fn zones(ctx: &Context, places: &[PathBuf], nodes: u32) -> Result<Vec<Zone>, Failure> {
    let mut files = Vec::new();
    for place in places {
        if place.is_dir() {
            files.extend(within(place)?);
        } else {
            files.push(place.clone());
        }
    }
    if files.len() > MOST {
        let why = format!("{} recordings are too many; {MOST} are replayed at most", files.len());
        return Err(Failure::new(ExitCode::BadInput, why));
    }
    let (mut zones, mut problems) = (Vec::new(), Vec::new());
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let made = text(file)
            .and_then(|text| read::read(&name, &text, nodes).map_err(|error| bad(file, &error.to_string())));
        match made {
            Ok(made) => {
                for doubt in &made.doubts {
                    ctx.printer.warn(&format!("{}: {doubt}", file.display()));
                }
                zones.push(made.zone);
            }
            Err(failure) => problems.push(failure.message),
        }
    }
    if problems.is_empty() {
        return Ok(zones);
    }
    Err(Failure::new(ExitCode::BadInput, problems.join("\n  ")).help(FORMS))
}

fn bad(file: &Path, why: &str) -> Failure {
    Failure::new(ExitCode::BadInput, format!("{}: {why}", file.display()))
}

/// The recordings in a directory, by name.
fn within(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(dir).map_err(|error| bad(dir, &error.to_string()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|end| ENDINGS.iter().any(|known| end == *known)))
        .take(MOST + 1)
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(bad(dir, "no recording is in it: files are called *.json, *.csv or *.txt"));
    }
    Ok(files)
}

fn text(file: &Path) -> Result<String, Failure> {
    // What is no file, such as a pipe, would be waited for.
    if fs::metadata(file).is_ok_and(|about| !about.is_file()) {
        return Err(bad(file, "it is no regular file"));
    }
    let open = File::open(file).map_err(|error| bad(file, &error.to_string()))?;
    let mut bytes = Vec::new();
    open.take(read::MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| bad(file, &error.to_string()))?;
    if bytes.len() as u64 > read::MOST_BYTES {
        return Err(bad(file, &format!("it is larger than {} MiB", read::MOST_BYTES >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| bad(file, "it is no text"))
}
