//! Who can still write to a file: a descriptor that was opened for writing, or
//! a shared mapping that may be written to, which outlives its descriptor. A
//! read lease (`F_SETLEASE`) would say the same without naming anybody; no
//! library offers it without unsafe code, and the kernel's tables of processes
//! tell it for every process that this one may look at. Processes of others
//! that hide their descriptors are not seen, nor are writers on other
//! computers: there a marker or a rest must decide.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// A process that can write to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// Its number.
    pub pid: i32,
    /// What it calls itself, at most 15 bytes.
    pub command: String,
    /// The file, as it was asked for.
    pub file: PathBuf,
}

/// A file by what the kernel calls it.
struct Wanted {
    dev: u64,
    ino: u64,
    file: PathBuf,
}

/// The first process found that can write to one of these files. Files that
/// are not there have no writers.
#[must_use]
pub fn writer(files: impl IntoIterator<Item = PathBuf>) -> Option<Writer> {
    let wanted: Vec<Wanted> = files.into_iter().filter_map(wanted).collect();
    if wanted.is_empty() {
        return None;
    }
    let inodes: HashSet<u64> = wanted.iter().map(|file| file.ino).collect();
    let own = std::process::id().cast_signed();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if pid == own {
            continue;
        }
        let process = entry.path();
        let found = descriptor(&process, &wanted, &inodes).or_else(|| mapping(&process, &wanted, &inodes));
        if let Some(found) = found {
            let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
            return Some(Writer { pid, command: command.trim_end().to_owned(), file: found.file.clone() });
        }
    }
    None
}

fn wanted(file: PathBuf) -> Option<Wanted> {
    let meta = fs::metadata(&file).ok()?;
    Some(Wanted { dev: meta.dev(), ino: meta.ino(), file })
}

fn among<'a>(wanted: &'a [Wanted], meta: &Metadata) -> Option<&'a Wanted> {
    wanted.iter().find(|file| (file.dev, file.ino) == (meta.dev(), meta.ino()))
}

/// A descriptor of the process that may write to one of the files.
fn descriptor<'a>(process: &Path, wanted: &'a [Wanted], inodes: &HashSet<u64>) -> Option<&'a Wanted> {
    for entry in fs::read_dir(process.join("fdinfo")).ok()?.flatten() {
        let Ok(info) = fs::read_to_string(entry.path()) else { continue };
        // Asking the file itself may wait for a server that is gone; its
        // inode's number (Linux 5.14) mostly spares that.
        if writes(&info) && inode(&info).is_none_or(|inode| inodes.contains(&inode)) {
            let meta = fs::metadata(process.join("fd").join(entry.file_name()));
            if let Some(found) = meta.ok().and_then(|meta| among(wanted, &meta)) {
                return Some(found);
            }
        }
    }
    None
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn writes(info: &str) -> bool {
    // O_ACCMODE; O_WRONLY is 1 and O_RDWR 2.
    let flags = field(info, "flags").and_then(|flags| u32::from_str_radix(flags, 8).ok());
    flags.is_some_and(|flags| matches!(flags & 3, 1 | 2))
}

fn inode(info: &str) -> Option<u64> {
    field(info, "ino")?.parse().ok()
}

/// A shared mapping of the process that may write to one of the files.
fn mapping<'a>(process: &Path, wanted: &'a [Wanted], inodes: &HashSet<u64>) -> Option<&'a Wanted> {
    let maps = fs::read(process.join("maps")).ok()?;
    for line in String::from_utf8_lossy(&maps).lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(_), Some(rights), Some(_), Some(device), Some(inode)) =
            (words.next(), words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let may_write = rights.as_bytes().get(1) == Some(&b'w') && rights.as_bytes().get(3) == Some(&b's');
        let Some(inode) = inode.parse().ok().filter(|inode| may_write && inodes.contains(inode)) else {
            continue;
        };
        // Some file systems tell another device here than for the file: then
        // its name decides, as the process sees it.
        let named = || {
            let path = Path::new("root").join(words.collect::<Vec<_>>().join(" ").trim_start_matches('/'));
            fs::metadata(process.join(path)).ok()
        };
        let same = wanted.iter().find(|file| file.ino == inode && device == device_of(file.dev));
        if let Some(found) = same.or_else(|| among(wanted, &named()?)) {
            return Some(found);
        }
    }
    None
}

/// As the table of mappings writes it.
fn device_of(dev: u64) -> String {
    format!("{:02x}:{:02x}", major(dev), minor(dev))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Child, Command, Stdio};

    /// A Python program that says a line when it is ready, and ends when its
    /// input does.
    struct Program(Child);

    impl Program {
        fn start(code: &str, file: &Path) -> Self {
            let code =
                format!("import mmap, os, sys\n{code}\nprint('ready', flush=True)\nsys.stdin.read()\n");
            let mut python = Command::new("python3");
            python.args(["-c", &code]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = python.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n");
            Self(child)
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn file(dir: &tempfile::TempDir) -> PathBuf {
        let path = dir.path().join("a file.bin");
        fs::File::create(&path).unwrap().write_all(&[7; 8192]).unwrap();
        path
    }

    #[test]
    fn a_descriptor_for_writing_is_a_writer_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir);
        assert_eq!(writer([path.clone(), dir.path().join("gone")]), None);
        for mode in ["'r+b'", "'ab'", "'wb'"] {
            let program = Program::start(&format!("f = open(sys.argv[1], {mode})"), &path);
            let found = writer([path.clone()]).expect(mode);
            assert_eq!((found.pid, &found.file), (program.0.id().cast_signed(), &path), "{mode}");
            assert!(found.command.starts_with("python"), "{found:?}");
        }
        let _reader = Program::start("f = open(sys.argv[1], 'rb')", &path);
        assert_eq!(writer([path]), None, "who reads writes nothing");
    }

    #[test]
    fn a_rename_and_a_second_name_hide_no_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir);
        let other = dir.path().join("other");
        let code =
            "f = open(sys.argv[1], 'r+b')\nos.link(sys.argv[1], sys.argv[1] + '.x')\nos.unlink(sys.argv[1])";
        let _program = Program::start(code, &path);
        fs::rename(dir.path().join("a file.bin.x"), &other).unwrap();
        assert!(writer([other]).is_some());
    }

    #[test]
    fn a_shared_mapping_is_a_writer_after_its_descriptor_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir);
        let open = "f = os.open(sys.argv[1], os.O_RDWR)\n";
        let shared = format!("{open}m = mmap.mmap(f, 0, mmap.MAP_SHARED)\nos.close(f)");
        let program = Program::start(&shared, &path);
        // mmap keeps a descriptor of its own: close every one of them.
        let close = format!(
            "{shared}\nfor n in os.listdir('/proc/self/fd'):\n    n = int(n)\n    if n > 2:\n        try: os.close(n)\n        except OSError: pass"
        );
        drop(program);
        let program = Program::start(&close, &path);
        assert_eq!(writer([path.clone()]).map(|w| w.pid), Some(program.0.id().cast_signed()));
        drop(program);
        let private = format!(
            "{open}m = mmap.mmap(f, 0, mmap.MAP_PRIVATE)\nos.close(f)\nfor n in os.listdir('/proc/self/fd'):\n    n = int(n)\n    if n > 2:\n        try: os.close(n)\n        except OSError: pass"
        );
        let _private = Program::start(&private, &path);
        assert_eq!(writer([path]), None, "a private mapping never reaches the file");
    }
}
