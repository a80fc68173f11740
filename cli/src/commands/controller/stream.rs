//! The state of a data directory as one stream, and back into a directory.
//! For each file a line of JSON, its bytes, and a line with the BLAKE3 of what
//! was read; at the end a line with the number of files, of bytes, and the
//! BLAKE3 of all those lines. Whoever reads believes none of it: names cannot
//! leave the directory, sizes are bounded by what is announced, and a stream
//! that is cut or damaged anywhere is an error.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use controller::carrier::errand::Pipe;
use controller::moved::{Arrival, is_state};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Rises when the stream changes.
const FORM: u32 = 1;
/// The longest line.
const LINE: u64 = 16 << 10;
const PIECE: usize = 256 << 10;
/// The most files.
const MOST: u64 = 50_000_000;

/// One file of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Below the data directory.
    pub(super) path: String,
    pub(super) bytes: u64,
    mode: u32,
}

#[derive(Serialize, Deserialize)]
struct Head {
    form: u32,
    arrival: Arrival,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    File { path: String, bytes: u64, mode: u32 },
    End(Sum),
}

/// What went, or came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sum {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) digest: String,
}

/// Counts what goes by.
#[derive(Default)]
struct Tally {
    files: u64,
    bytes: u64,
    all: blake3::Hasher,
}

impl Tally {
    fn add(&mut self, line: &[u8], bytes: u64, digest: &blake3::Hash) {
        self.files += 1;
        self.bytes += bytes;
        self.all.update(line);
        self.all.update(digest.as_bytes());
    }

    fn sum(&self) -> Sum {
        Sum { files: self.files, bytes: self.bytes, digest: self.all.finalize().to_hex().to_string() }
    }
}

/// What is there; `None`: it is gone.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Every file of the state, in the order of their names.
///
/// # Errors
/// Where one cannot be read, or is neither a file nor a directory.
pub(super) fn scan(home: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut open = vec![(home.to_owned(), String::new())];
    while let Some((dir, below)) = open.pop() {
        // While a controller runs, files go. What it moves is scanned later.
        let Some(entries) = there(fs::read_dir(&dir))? else { continue };
        for entry in entries {
            let entry = entry?;
            let odd = |what: &str| io::Error::other(format!("{}: {what}", entry.path().display()));
            let name = entry.file_name().into_string().map_err(|_| odd("its name is no text"))?;
            if below.is_empty() && !is_state(&name) {
                continue;
            }
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            let Some(meta) = there(fs::symlink_metadata(entry.path()))? else { continue };
            if meta.is_dir() {
                open.push((entry.path(), path));
            } else if meta.is_file() {
                found.push(Entry { path, bytes: meta.len(), mode: meta.permissions().mode() & 0o700 });
            } else if meta.is_symlink() {
                return Err(odd(
                    "it is a link, which would lead elsewhere there; put what it leads to in its place",
                ));
            }
            // Sockets and pipes belong to processes.
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// Sends the state.
pub(super) async fn send(
    to: &mut Pipe,
    home: &Path,
    arrival: &Arrival,
    entries: &[Entry],
) -> io::Result<Sum> {
    to.write_all(&line(&Head { form: FORM, arrival: arrival.clone() })).await?;
    let mut tally = Tally::default();
    let mut piece = vec![0; PIECE];
    for Entry { path, bytes, mode } in entries {
        let head = line(&Line::File { path: path.clone(), bytes: *bytes, mode: *mode });
        to.write_all(&head).await?;
        let mut file = tokio::fs::File::open(home.join(path)).await?.take(*bytes);
        let (mut hash, mut left) = (blake3::Hasher::new(), *bytes);
        loop {
            let n = file.read(&mut piece).await?;
            if n == 0 {
                break;
            }
            hash.update(&piece[..n]);
            left -= n as u64;
            to.write_all(&piece[..n]).await?;
        }
        if left > 0 {
            return Err(io::Error::other(format!("{path} became shorter while it was read")));
        }
        let digest = hash.finalize();
        to.write_all(format!("{}\n", digest.to_hex()).as_bytes()).await?;
        tally.add(&head, *bytes, &digest);
    }
    let sum = tally.sum();
    to.write_all(&line(&Line::End(sum.clone()))).await?;
    Ok(sum)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn read_line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.by_ref().take(LINE).read_until(b'\n', &mut text)?;
    if text.last() == Some(&b'\n') { Ok(text) } else { Err(bad("the stream was cut")) }
}

fn parsed<T: serde::de::DeserializeOwned>(text: &[u8]) -> io::Result<T> {
    serde_json::from_slice(text).map_err(|_| bad("the stream is not understood"))
}

/// Which copy a stream brings.
pub(super) fn head(from: &mut impl BufRead) -> io::Result<Arrival> {
    let head: Head = parsed(&read_line(from)?)?;
    if head.form == FORM { Ok(head.arrival) } else { Err(bad("the stream is of another version")) }
}

/// A name that stays below the directory.
fn below(path: &str) -> io::Result<PathBuf> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let first = path.split('/').next().unwrap_or_default();
    if path.is_empty() || path.ends_with('/') || path.contains("//") || !plain || !is_state(first) {
        return Err(bad("the stream names a file that cannot be part of the state"));
    }
    Ok(PathBuf::from(path))
}

/// Writes the state below `root`, an empty directory, and makes it outlast a
/// power cut.
///
/// # Errors
/// Where the stream is damaged or the disk refuses.
pub(super) fn receive(from: &mut impl BufRead, root: &Path) -> io::Result<Sum> {
    let mut tally = Tally::default();
    let mut dirs = BTreeSet::from([root.to_owned()]);
    let mut piece = vec![0; PIECE];
    loop {
        let text = read_line(from)?;
        let (path, bytes, mode) = match parsed(&text)? {
            Line::End(sum) if sum == tally.sum() => break,
            Line::End(_) => return Err(bad("what came is not what was sent")),
            Line::File { path, bytes, mode } => (below(&path)?, bytes, mode & 0o700),
        };
        if tally.files >= MOST {
            return Err(bad("the stream has too many files"));
        }
        let whole = root.join(&path);
        let mut dir = whole.parent();
        while let Some(above) = dir.filter(|above| above.starts_with(root)) {
            dirs.insert(above.to_owned());
            dir = above.parent();
        }
        if let Some(above) = whole.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&whole)?;
        let (mut hash, mut left) = (blake3::Hasher::new(), bytes);
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            from.read_exact(&mut piece[..want]).map_err(|_| bad("the stream was cut"))?;
            hash.update(&piece[..want]);
            file.write_all(&piece[..want])?;
            left -= want as u64;
        }
        file.sync_all()?;
        let digest = hash.finalize();
        if read_line(from)? != format!("{}\n", digest.to_hex()).into_bytes() {
            return Err(bad("a file came damaged"));
        }
        tally.add(&text, bytes, &digest);
    }
    for dir in dirs {
        File::open(dir)?.sync_all()?;
    }
    Ok(tally.sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::HubId;
    use std::process::Stdio;

    fn arrival() -> Arrival {
        Arrival { hub: HubId::from_bytes([1; 16]), token: "t".into() }
    }

    fn home() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("hub.json", "{}"),
            ("keys/root.key", "secret"),
            ("runs/a/1/stdout.log", "hello\n"),
            ("cache/env/x", "no"),
            ("controller.lock", ""),
            ("runs/a/empty", ""),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::set_permissions(dir.path().join("keys/root.key"), fs::Permissions::from_mode(0o600)).unwrap();
        dir
    }

    /// What is sent, as bytes: through a real pipe.
    fn sent(home: &Path) -> (Vec<u8>, Sum) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let out = tempfile::NamedTempFile::new().unwrap();
            let mut child = tokio::process::Command::new("cat");
            child.stdin(Stdio::piped()).stdout(out.reopen().unwrap());
            let mut child = child.spawn().unwrap();
            let mut to = child.stdin.take().unwrap();
            let sum = send(&mut to, home, &arrival(), &scan(home).unwrap()).await.unwrap();
            drop(to);
            child.wait().await.unwrap();
            (fs::read(out.path()).unwrap(), sum)
        })
    }

    #[test]
    fn the_state_arrives_whole_and_nothing_else_does() {
        let from = home();
        let (bytes, sum) = sent(from.path());
        let to = tempfile::tempdir().unwrap();
        let mut stream = bytes.as_slice();
        assert_eq!(head(&mut stream).unwrap(), arrival());
        assert_eq!(receive(&mut stream, to.path()).unwrap(), sum);
        assert_eq!((sum.files, sum.bytes), (4, 14));
        assert_eq!(fs::read_to_string(to.path().join("runs/a/1/stdout.log")).unwrap(), "hello\n");
        assert!(!to.path().join("cache").exists() && !to.path().join("controller.lock").exists());
        let mode = fs::metadata(to.path().join("keys/root.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_stream_that_is_cut_or_changed_anywhere_is_an_error() {
        let from = home();
        let (bytes, _) = sent(from.path());
        let whole = |bytes: &[u8]| {
            let to = tempfile::tempdir().unwrap();
            let mut stream = bytes;
            head(&mut stream).and_then(|_| receive(&mut stream, to.path()))
        };
        whole(&bytes).unwrap();
        for cut in 0..bytes.len() {
            assert!(whole(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let head = bytes.iter().position(|b| *b == b'\n').unwrap();
        for at in head + 1..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(whole(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn no_name_leaves_the_directory() {
        for bad in
            ["", "/etc/x", "../x", "a/../x", "a//b", "a/", "./a", "cache/x", "controller.lock", "moved.json"]
        {
            assert!(below(bad).is_err(), "{bad}");
        }
        assert!(below("runs/a/1/stdout.log").is_ok());
    }

    #[test]
    fn a_link_is_told_before_anything_goes() {
        let from = home();
        std::os::unix::fs::symlink("/elsewhere", from.path().join("objects")).unwrap();
        let why = scan(from.path()).unwrap_err().to_string();
        assert!(why.contains("objects") && why.contains("link"), "{why}");
    }
}
