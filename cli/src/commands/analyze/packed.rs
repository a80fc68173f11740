//! Files that gzip or zip packed. What comes out is bounded in size and against
//! what went in, so that a bomb costs little; an archive within an archive is
//! not opened.
//!
//! A stream of gzip is unpacked while it is read. A zip archive may be a whole
//! directory of a tool: what a tool may have written is unpacked into a directory
//! that is removed at the end, and never under a name that leads out of it.

mod salvage;

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

use curves::format::HEAD_BYTES;
use flate2::read::MultiGzDecoder;
use tempfile::TempDir;
use zip::ZipArchive;

use super::find;

/// Whatever it was packed into, so much may come out.
const FREE: u64 = 64 << 20;
/// Beyond that, so many times what went in. Logs shrink to a tenth, constant ones
/// to a hundredth; a bomb to less than a thousandth.
const RATIO: u64 = 200;
/// The most that may come out of one file.
const MOST: u64 = 16 << 30;
/// The most that one archive may leave on the disk.
const MOST_ON_DISK: u64 = 4 << 30;
/// The most bytes of an archive's list of entries.
const MAX_LIST: u64 = 32 << 20;

/// How files end that a tool may have written.
const WANTED: [&str; 18] = [
    "wandb",
    "jsonl",
    "ndjson",
    "csv",
    "tsv",
    "log",
    "out",
    "txt",
    "err",
    "json",
    "yaml",
    "yml",
    "db",
    "sqlite",
    "sqlite3",
    "sst",
    "db-wal",
    "db-journal",
];
/// Folders in which MLflow's files have names of any kind.
const FOLDERS: [&str; 3] = ["metrics", "params", "tags"];

/// The most bytes that may come out of so many.
fn allowed(packed: u64, most: u64) -> u64 {
    packed.saturating_mul(RATIO).max(FREE).min(most)
}

/// Hands on so many bytes and then fails, unless there are no more.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return match self.inner.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "more came out than a log packs into so few bytes",
                )),
            };
        }
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut into[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

/// What gzip packed, while it is read.
///
/// # Errors
/// Where the file cannot be opened.
pub(super) fn gunzip(path: &Path) -> io::Result<Box<dyn Read>> {
    let file = find::open(path)?;
    let left = allowed(file.metadata()?.len(), MOST);
    Ok(Box::new(Bounded { inner: MultiGzDecoder::new(BufReader::new(file)), left }))
}

/// The name without the ending of gzip.
pub(super) fn inner_name(name: &str) -> &str {
    let at = name.len().saturating_sub(3);
    match name.get(at..) {
        Some(end) if end.eq_ignore_ascii_case(".gz") && at > 0 => &name[..at],
        _ => name,
    }
}

/// The first bytes of what gzip packed; fewer where it is cut off.
///
/// # Errors
/// Where nothing comes out of it.
pub(super) fn gzip_head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    match gunzip(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head) {
        Err(error) if head.is_empty() => Err(error),
        _ => Ok(head),
    }
}

/// Unpacks a whole file of gzip's into a directory of its own.
///
/// # Errors
/// Where it cannot be unpacked, or is larger than may lie on the disk.
pub(super) fn gunzip_file(path: &Path) -> io::Result<(TempDir, PathBuf)> {
    let dir = tempfile::tempdir()?;
    let file = find::open(path)?;
    let left = allowed(file.metadata()?.len(), MOST_ON_DISK);
    let to = dir.path().join("unpacked.db");
    io::copy(
        &mut Bounded { inner: MultiGzDecoder::new(BufReader::new(file)), left },
        &mut File::create_new(&to)?,
    )?;
    Ok((dir, to))
}

/// Entries of one archive, and how deep they may lie.
const MAX_ENTRIES: usize = 20_000;
const MAX_DEPTH: usize = 16;

/// Whether the bytes are those of a tar archive.
pub(super) fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

/// An archive that was unpacked.
pub(super) struct Unpacked {
    pub(super) dir: TempDir,
    /// Entries that were left in it, and why.
    pub(super) left_out: Vec<(PathBuf, String)>,
}

/// Unpacks what a tool may have written. Of a damaged archive what is whole is
/// unpacked, of a broken entry what stands before the break.
///
/// # Errors
/// Where the archive is none, or its bounds are passed.
pub(super) fn unzip(path: &Path) -> io::Result<Unpacked> {
    let mut file = find::open(path)?;
    let size = file.metadata()?.len();
    let list = list_size(&mut file, size)?;
    // One that is longer than the file is damaged, not long.
    let list = list.filter(|list| *list <= size);
    if list.is_some_and(|list| list > MAX_LIST) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a zip archive with too many entries"));
    }
    let mut out = Unpacked { dir: tempfile::tempdir()?, left_out: Vec::new() };
    // For all entries together: several may share the same packed bytes.
    let mut left = allowed(size, MOST_ON_DISK);
    let archive = match list {
        Some(_) => ZipArchive::new(BufReader::new(file.try_clone()?)).ok(),
        None => None,
    };
    match archive {
        Some(archive) if archive.len() > MAX_ENTRIES => {
            let why = format!("a zip archive with more than {MAX_ENTRIES} entries");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Some(archive) => {
            if listed(archive, &mut left, &mut out)? {
                return Ok(out);
            }
        }
        None => {
            let why = "its list of entries is cut off or damaged: entries were looked for one by one";
            out.left_out.push((PathBuf::new(), why.to_owned()));
        }
    }
    for entry in salvage::entries(&mut file, MAX_ENTRIES)? {
        let name = PathBuf::from(String::from_utf8_lossy(&entry.name).into_owned());
        if name.to_string_lossy().ends_with('/') || out.dir.path().join(&name).exists() {
            continue;
        }
        let plain = is_plain(&name).then(|| name.clone());
        put((name, plain), &mut entry.open(&mut file)?, &mut left, &mut out)?;
    }
    better(out.dir.path(), 0)?;
    if fs::read_dir(out.dir.path())?.next().is_none() {
        let why = "no zip archive, or one of which no entry can be unpacked";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(out)
}

/// Of what was unpacked both by the list and without it the longer one stays.
fn better(dir: &Path, depth: usize) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let broken = entry?.path();
        if broken.is_dir() && depth <= MAX_DEPTH {
            better(&broken, depth + 1)?;
        } else if broken.extension().is_some_and(|end| end == "broken") {
            let other = broken.with_extension("");
            let length = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
            if length(&broken) > length(&other) {
                fs::rename(&broken, &other)?;
            } else {
                fs::remove_file(&broken)?;
            }
        }
    }
    Ok(())
}

/// Unpacks by the archive's own list; whether every entry in it could be had whole.
fn listed(mut archive: ZipArchive<BufReader<File>>, left: &mut u64, out: &mut Unpacked) -> io::Result<bool> {
    let mut whole = true;
    for index in 0..archive.len() {
        let mut entry = match archive.by_index(index) {
            Ok(entry) => entry,
            Err(error) => {
                whole = false;
                out.left_out.push((PathBuf::from(format!("entry {index}")), error.to_string()));
                continue;
            }
        };
        if entry.is_dir() {
            continue;
        }
        let shown = PathBuf::from(String::from_utf8_lossy(entry.name_raw()).into_owned());
        let name = entry.enclosed_name().filter(|name| is_plain(name) && !entry.is_symlink());
        if let Some(broken) = put((shown, name), &mut entry, left, out)? {
            // Its size or place may be wrong in the list alone.
            whole = false;
            fs::rename(&broken, broken.with_added_extension("broken"))?;
        }
    }
    Ok(whole)
}

/// Writes one entry, if a tool may have written it. `named`: as it is shown, and
/// where it may lie. Gives the file where it is broken.
fn put(
    named: (PathBuf, Option<PathBuf>),
    entry: &mut dyn Read,
    left: &mut u64,
    out: &mut Unpacked,
) -> io::Result<Option<PathBuf>> {
    let (shown, name) = named;
    let mut leave = |why: String| out.left_out.push((shown.clone(), why));
    let Some(name) = name else {
        leave("its name leads out of the archive, or it is a link".to_owned());
        return Ok(None);
    };
    if name.components().count() > MAX_DEPTH {
        leave(format!("more than {MAX_DEPTH} directories deep"));
        return Ok(None);
    }
    match worth(&name) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(why) => {
            leave(why.to_owned());
            return Ok(None);
        }
    }
    let to = out.dir.path().join(&name);
    let written = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create_new(&to));
    let mut written = match written {
        Ok(file) => file,
        Err(error) => {
            leave(format!("cannot be unpacked: {error}"));
            return Ok(None);
        }
    };
    let mut bounded = Bounded { inner: entry, left: *left };
    let copied = io::copy(&mut bounded, &mut written);
    *left = bounded.left;
    match copied {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(error),
        // What came out before it broke is as good as the log of a killed run.
        Err(error) => {
            leave(format!("broken: {error}"));
            return Ok(Some(to));
        }
        Ok(_) => {}
    }
    Ok(None)
}

fn is_plain(name: &Path) -> bool {
    name.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Whether a tool may have written a file of this name.
fn worth(name: &Path) -> Result<bool, &'static str> {
    let file = name.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let end = Path::new(&file).extension().unwrap_or_default().to_string_lossy().into_owned();
    if end == "zip" || end == "gz" || end == "tgz" || end == "tar" {
        return Err("an archive within an archive: unpack it first");
    }
    let below = name.parent().into_iter().flat_map(Path::components);
    let placed = below.into_iter().any(|part| FOLDERS.iter().any(|folder| part.as_os_str() == *folder));
    Ok(placed || file.contains("tfevents") || WANTED.contains(&end.as_str()))
}

/// How many bytes the list of entries has, by the record at an archive's end.
/// APPNOTE.TXT 4.3.16: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>.
fn list_size(file: &mut File, size: u64) -> io::Result<Option<u64>> {
    let tail = size.min(22 + 65_535);
    file.seek(SeekFrom::Start(size - tail))?;
    let mut end = Vec::new();
    file.by_ref().take(tail).read_to_end(&mut end)?;
    file.seek(SeekFrom::Start(0))?;
    let found = end.windows(22).rev().find(|record| record.starts_with(b"PK\x05\x06"));
    // Where the number of entries stands elsewhere, so does the size of their list.
    let found = found.filter(|record| record[8..12] != [0xff; 4] && record[12..16] != [0xff; 4]);
    Ok(found
        .and_then(|record| record[12..16].try_into().ok())
        .map(|size| u64::from(u32::from_le_bytes(size))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_log_may_shrink_and_a_bomb_may_not() {
        assert_eq!(allowed(0, MOST), FREE);
        assert_eq!(allowed(1 << 20, MOST), 200 << 20);
        assert_eq!(allowed(1 << 40, MOST), MOST);
        let mut out = Vec::new();
        let exact = Bounded { inner: &b"abcd"[..], left: 4 }.read_to_end(&mut out);
        assert_eq!((exact.unwrap(), out.as_slice()), (4, &b"abcd"[..]));
        let mut out = Vec::new();
        let error = Bounded { inner: &b"abcde"[..], left: 4 }.read_to_end(&mut out).unwrap_err();
        assert_eq!((error.kind(), out.as_slice()), (io::ErrorKind::FileTooLarge, &b"abcd"[..]));
    }

    #[test]
    fn names_without_their_packing() {
        for (name, inner) in
            [("a.jsonl.gz", "a.jsonl"), ("a.GZ", "a"), ("a", "a"), (".gz", ".gz"), ("é", "é")]
        {
            assert_eq!(inner_name(name), inner);
        }
    }

    #[test]
    fn only_what_a_tool_may_have_written_is_unpacked() {
        for (name, worth_it) in [
            ("run/run-a.wandb", Ok(true)),
            ("mlruns/0/a/metrics/train/loss", Ok(true)),
            ("tb/events.out.tfevents.1.vm", Ok(true)),
            ("model.safetensors", Ok(false)),
            ("more.zip", Err("an archive within an archive: unpack it first")),
            ("a/metrics/x.gz", Err("an archive within an archive: unpack it first")),
        ] {
            assert_eq!(worth(Path::new(name)), worth_it, "{name}");
        }
    }

    /// An archive of entries with their names and contents.
    fn archive(entries: &[(&str, &[u8])]) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.zip");
        let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
        for (name, content) in entries {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap();
        (dir, path)
    }

    #[test]
    fn nothing_is_written_outside_and_bombs_stop() {
        let (dir, path) =
            archive(&[("../out.csv", b"a"), ("in/a.csv", b"b"), ("in/b.zip", b"c"), ("/abs.csv", b"d")]);
        let unpacked = unzip(&path).unwrap();
        assert_eq!(fs::read(unpacked.dir.path().join("in/a.csv")).unwrap(), b"b");
        assert!(
            unpacked.left_out.iter().any(|(name, _)| name == Path::new("../out.csv")),
            "{:?}",
            unpacked.left_out
        );
        assert!(!dir.path().join("out.csv").exists() && !Path::new("/abs.csv").exists());
        let zeros = vec![0; 40 << 20];
        let (_dir, path) = archive(&[("a.csv", &zeros), ("b.csv", &zeros)]);
        let error = unzip(&path).err().expect("a bomb");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn of_an_archive_cut_anywhere_or_with_a_flipped_byte_is_had_what_is_whole() {
        let rows = b"step,loss\n1,2\n2,1\n";
        let (dir, path) = archive(&[("a.csv", rows), ("b/c.csv", b"step,loss\n")]);
        let whole = fs::read(&path).unwrap();
        let second = memchr::memmem::rfind(&whole, b"PK\x03\x04").unwrap();
        let listed = memchr::memmem::rfind(&whole, b"a.csv").unwrap();
        let name = listed..listed + "a.csv".len();
        for cut in 0..whole.len() {
            let torn = dir.path().join("torn.zip");
            fs::write(&torn, &whole[..cut]).unwrap();
            match unzip(&torn) {
                Ok(found) => {
                    assert!(!found.left_out.is_empty(), "cut at {cut}");
                    let first = fs::read(found.dir.path().join("a.csv")).unwrap();
                    assert!(rows.starts_with(&first[..]), "cut at {cut}");
                    assert!(cut < second || first == rows, "cut at {cut}");
                }
                Err(_) => assert!(cut < 40, "cut at {cut}"),
            }
            let mut bad = whole.clone();
            bad[cut] ^= 0x55;
            fs::write(&torn, bad).unwrap();
            let had = unzip(&torn).map(|found| fs::read(found.dir.path().join("a.csv")));
            // One byte behind the first entry cannot take it away, unless it is of its name.
            assert!(cut < second || name.contains(&cut) || had.unwrap().unwrap() == rows, "flipped at {cut}");
        }
    }
}
