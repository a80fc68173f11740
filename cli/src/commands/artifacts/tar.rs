//! A tree as a tar file of POSIX (pax). Written beside its place and renamed
//! when it is whole and durable; read with bounded memory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use artifacts::inspect::Stored;
use artifacts::manifest::{Entry, Node};
use artifacts::{Manifest, Store};

use crate::exit_code::{ExitCode, Failure};
use crate::pull::refusal;

const STEP: u64 = 4 << 20;
const BLOCK: usize = 512;
/// Larger files have their size in a header of their own.
const LARGEST: u64 = 0o77_777_777_777;

/// Removes what is unfinished.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Renamed already: then there is nothing here.
        drop(fs::remove_file(&self.0));
    }
}

/// Writes the archive.
///
/// # Errors
/// Where the place is taken or cannot be written, or the tree cannot be read.
pub(super) async fn write(store: &dyn Store, tree: &Manifest, place: &Path) -> anyhow::Result<()> {
    let failed = |error: io::Error| failed(&error, place);
    let taken = || {
        let why = format!("{} is there already", place.display());
        Failure::new(ExitCode::BadInput, why).help("name a file that is not there yet")
    };
    if place.symlink_metadata().is_ok() {
        return Err(taken().into());
    }
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let scratch = Scratch(place.with_file_name(format!(".{name}.{:08x}.tmp", fastrand::u32(..))));
    let mut file = File::create_new(&scratch.0).map_err(failed)?;
    write_to(store, tree, &mut file, place).await?;
    file.sync_all().map_err(failed)?;
    // Two names of one file: unlike a rename it never replaces anything.
    match fs::hard_link(&scratch.0, place) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(taken().into()),
        // File systems without links.
        Err(_) if place.symlink_metadata().is_err() => fs::rename(&scratch.0, place).map_err(failed)?,
        Err(error) => return Err(failed(error).into()),
    }
    let above = place.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(above).and_then(|dir| dir.sync_all()).map_err(failed)?)
}

fn failed(error: &io::Error, place: &Path) -> Failure {
    let code = ExitCode::of(&anyhow::Error::from(io::Error::from(error.kind())));
    let code = if code == ExitCode::Internal { ExitCode::CannotWrite } else { code };
    Failure::new(code, format!("{}: {error}", place.display()))
}

/// Writes the archive to something that cannot be named, such as a pipe: what
/// breaks off in the middle has no end. `place` is what it is called.
///
/// # Errors
/// Where it cannot be written, or the tree cannot be read.
pub(super) async fn write_to(
    store: &dyn Store,
    tree: &Manifest,
    out: &mut impl io::Write,
    place: &Path,
) -> anyhow::Result<()> {
    let failed = |error: io::Error| failed(&error, place);
    for entry in &tree.entries {
        out.write_all(&header(entry)).map_err(failed)?;
        if let Some(stored) = Stored::open(store, tree, &entry.path) {
            let mut at = 0;
            while at < stored.size() {
                let block = stored.read(at..at + STEP).await.map_err(|error| refusal(&error))?;
                if block.is_empty() {
                    break;
                }
                out.write_all(&block).map_err(failed)?;
                at += block.len() as u64;
            }
            let rest = usize::try_from(at % BLOCK as u64).unwrap_or(0);
            out.write_all(&vec![0; (BLOCK - rest) % BLOCK]).map_err(failed)?;
        }
    }
    Ok(out.write_all(&[0; 2 * BLOCK]).and_then(|()| out.flush()).map_err(failed)?)
}

/// The header of an entry; what does not fit into it stands in one before.
fn header(entry: &Entry) -> Vec<u8> {
    let (kind, mode, size, mtime, target) = match &entry.node {
        Node::File { mode, size, mtime_ms, .. } => (b'0', *mode, *size, (*mtime_ms).max(0) / 1_000, ""),
        Node::Dir { mode } => (b'5', *mode, 0, 0, ""),
        Node::Symlink { target } => (b'2', 0o777, 0, 0, target.as_str()),
    };
    let path = if kind == b'5' { format!("{}/", entry.path) } else { entry.path.clone() };
    let mut more = Vec::new();
    let fits = |text: &str| text.len() <= 100 && text.is_ascii();
    if !fits(&path) {
        record("path", &path, &mut more);
    }
    if !fits(target) {
        record("linkpath", target, &mut more);
    }
    if size > LARGEST {
        record("size", &size.to_string(), &mut more);
    }
    let mut out = Vec::new();
    if !more.is_empty() {
        out.extend(block(b'x', "pax", "", 0o644, more.len() as u64, 0));
        more.resize(more.len().next_multiple_of(BLOCK), 0);
        out.extend(more);
    }
    let mtime = u64::try_from(mtime).unwrap_or(0).min(LARGEST);
    out.extend(block(kind, &path, target, mode, size.min(LARGEST), mtime));
    out
}

/// `length key=value\n`, where the length counts itself.
fn record(key: &str, value: &str, into: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    into.extend(format!("{length} {key}={value}\n").into_bytes());
}

fn block(kind: u8, path: &str, target: &str, mode: u32, size: u64, mtime: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &str, most: usize| {
        let bytes = &text.as_bytes()[..text.len().min(most)];
        block[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, path, 100);
    put(100, &format!("{mode:07o}"), 8);
    put(108, "0000000", 8);
    put(116, "0000000", 8);
    put(124, &format!("{size:011o}"), 12);
    put(136, &format!("{mtime:011o}"), 12);
    put(148, "        ", 8);
    put(157, target, 100);
    put(257, "ustar", 5);
    put(263, "00", 2);
    block[156] = kind;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use artifacts::index::MemoryIndex;
    use artifacts::publish::{About, publish_bytes};
    use artifacts::store::MemoryStore;
    use artifacts::{KeySpace, Kind};

    use super::*;

    async fn tree(store: &MemoryStore, files: &[(String, Vec<u8>)]) -> Manifest {
        let about = About {
            kind: Kind::Checkpoint,
            step: None,
            name: "c".into(),
            single_file: false,
            created_ms: 7_000,
        };
        let mut keys = KeySpace { scope: "r".into(), generation: 1, pack_seq: 0, manifest_seq: 0 };
        publish_bytes(files, &about, &mut keys, store, &MemoryIndex::default()).await.unwrap().manifest
    }

    #[tokio::test]
    async fn another_program_reads_what_was_written() {
        let (store, dir) = (MemoryStore::default(), tempfile::tempdir().unwrap());
        let long = format!("{}/ä-{}", "d".repeat(120), "x".repeat(90));
        let files = vec![
            ("a.bin".to_owned(), vec![7; 5_000_001]),
            ("empty".to_owned(), Vec::new()),
            (long.clone(), b"far".to_vec()),
        ];
        let tree = tree(&store, &files).await;
        let place = dir.path().join("c.tar");
        write(&store, &tree, &place).await.unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let tar =
            std::process::Command::new("tar").arg("xf").arg(&place).arg("-C").arg(&out).status().unwrap();
        assert!(tar.success());
        for (path, bytes) in &files {
            assert!(fs::read(out.join(path)).unwrap() == *bytes, "{path}");
        }
        let mut piped = Vec::new();
        write_to(&store, &tree, &mut piped, Path::new("stdout")).await.unwrap();
        assert!(piped == fs::read(&place).unwrap(), "the same through a pipe");
        let again = write(&store, &tree, &place).await.unwrap_err();
        assert_eq!(ExitCode::of(&again), ExitCode::BadInput, "nothing is replaced");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no unfinished file is left");
    }

    #[tokio::test]
    async fn what_cannot_be_read_leaves_no_file() {
        let (store, dir) = (MemoryStore::default(), tempfile::tempdir().unwrap());
        let tree = tree(&store, &[("a".to_owned(), vec![7; 100_000])]).await;
        store.delete(&tree.packs()[0]).await.unwrap();
        assert!(write(&store, &tree, &dir.path().join("c.tar")).await.is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [1, 80, 89, 90, 91, 92, 93, 980, 990, 995] {
            let mut out = Vec::new();
            record("path", &"x".repeat(length), &mut out);
            let told: usize = std::str::from_utf8(&out).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(told, out.len(), "{length}");
        }
    }
}
