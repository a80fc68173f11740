//! Who can still write to a file: a descriptor that was opened for writing, or
//! a shared mapping that may be written to, which outlives its descriptor. A
//! read lease (`F_SETLEASE`) would say the same without naming anybody; no
//! library offers it without unsafe code, and the kernel's tables of processes
//! tell it for every process that this one may look at. That some cannot be
//! looked at, or that other computers may write, is never told as "nobody": a
//! marker or a rest must decide there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use nix::sys::statfs::statfs;

/// Processes asked in one sweep.
const PROCESSES: usize = 100_000;

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

/// Who can write to some files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writers {
    /// Every process that could was looked at, and none can.
    Nobody,
    /// One can.
    Writer(Writer),
    /// Nobody was found, and not everybody was looked at: why.
    Blind(String),
}

/// What is asked of, by what the kernel calls it.
struct Wanted {
    dev: u64,
    group: usize,
    file: PathBuf,
}

/// By the inode's number, which is what the tables tell first.
type Inodes = HashMap<u64, Vec<Wanted>>;

/// Who can write to these files. Files that are not there have no writers.
#[must_use]
pub fn writers(files: Vec<PathBuf>) -> Writers {
    writers_of(vec![files]).pop().unwrap_or(Writers::Nobody)
}

/// Who can write to the files of each group: the tables are read once.
#[must_use]
pub fn writers_of(groups: Vec<Vec<PathBuf>>) -> Vec<Writers> {
    let mut answers = vec![Writers::Nobody; groups.len()];
    let mut inodes = Inodes::new();
    // Owner -> groups with a file of theirs; device -> whether others write there.
    let mut owners: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
    let mut remote: BTreeMap<u64, bool> = BTreeMap::new();
    for (group, files) in groups.into_iter().enumerate() {
        for file in files {
            let Ok(meta) = fs::metadata(&file) else { continue };
            owners.entry(meta.uid()).or_default().insert(group);
            if *remote.entry(meta.dev()).or_insert_with(|| is_remote(&file)) {
                let why = "it lies on a file system that other computers may write to";
                answers[group] = Writers::Blind(why.into());
            }
            inodes.entry(meta.ino()).or_default().push(Wanted { dev: meta.dev(), group, file });
        }
    }
    if !inodes.is_empty() {
        sweep(&inodes, &owners, &mut answers);
    }
    answers
}

fn sweep(inodes: &Inodes, owners: &BTreeMap<u32, BTreeSet<usize>>, answers: &mut [Writers]) {
    let blind = |answers: &mut [Writers], groups: &BTreeSet<usize>, why: &str| {
        for group in groups {
            if answers[*group] == Writers::Nobody {
                answers[*group] = Writers::Blind(why.to_owned());
            }
        }
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        let all = owners.values().flatten().copied().collect();
        return blind(answers, &all, "the processes of this machine cannot be listed");
    };
    let own = std::process::id().cast_signed();
    let pids = entries.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse::<i32>().ok()?;
        (pid != own).then(|| (pid, entry.path()))
    });
    for (pid, process) in pids.take(PROCESSES) {
        let mut found = |wanted: &Wanted| {
            if !matches!(answers[wanted.group], Writers::Writer(_)) {
                let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
                let (command, file) = (command.trim_end().to_owned(), wanted.file.clone());
                answers[wanted.group] = Writers::Writer(Writer { pid, command, file });
            }
        };
        let seen = descriptors(&process, inodes, &mut found).and(mappings(&process, inodes, &mut found));
        if seen.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            && let Some(uid) = owner(&process)
            && let Some(groups) = owners.get(&uid)
            && (uid != nix::unistd::geteuid().as_raw() || descends_from_own(&process))
        {
            // Others may not write to what is not theirs; and of the own ones,
            // only the run's have to do with its files.
            let why = format!("process {pid} belongs to whom the files belong to and cannot be looked at");
            blind(answers, groups, &why);
        }
    }
}

/// Whether processes of other computers may write there.
fn is_remote(file: &Path) -> bool {
    // NFS, SMB (three), FUSE, AFS, Ceph, Lustre, GPFS, 9P, GFS2, OCFS2, BeeGFS.
    const REMOTE: [u64; 13] = [
        0x6969,
        0xff53_4d42,
        0xfe53_4d42,
        0x517b,
        0x6573_5546,
        0x5346_414f,
        0x00c3_6400,
        0x0bd0_0bd0,
        0x4750_4653,
        0x0102_1997,
        0x0116_1970,
        0x7461_636f,
        0x1983_0326,
    ];
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the type differs between targets")]
    statfs(file).is_ok_and(|fs| REMOTE.contains(&(fs.filesystem_type().0 as u64 & 0xffff_ffff)))
}

/// Whether a process was started by one of this very program: by the keeper of
/// a run.
fn descends_from_own(process: &Path) -> bool {
    const LONGEST: usize = 64;
    let Ok(own) = fs::read_link("/proc/self/exe") else { return true };
    let mut at = process.to_owned();
    for _ in 0..LONGEST {
        let status = fs::read_to_string(at.join("status")).unwrap_or_default();
        let Some(parent) =
            field(&status, "PPid").and_then(|pid| pid.parse::<i32>().ok()).filter(|pid| *pid > 1)
        else {
            return false;
        };
        at = Path::new("/proc").join(parent.to_string());
        if fs::read_link(at.join("exe")).is_ok_and(|exe| exe == own) {
            return true;
        }
    }
    false
}

/// Whom a process belongs to; its directory may be the administrator's all
/// the same.
fn owner(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    field(&status, "Uid")?.split_ascii_whitespace().next()?.parse().ok()
}

fn among<'a>(inodes: &'a Inodes, meta: &Metadata) -> impl Iterator<Item = &'a Wanted> {
    let (dev, same) = (meta.dev(), inodes.get(&meta.ino()));
    same.into_iter().flatten().filter(move |wanted| wanted.dev == dev)
}

/// Descriptors of the process that may write to one of the files.
fn descriptors(process: &Path, inodes: &Inodes, found: &mut dyn FnMut(&Wanted)) -> io::Result<()> {
    for entry in fs::read_dir(process.join("fdinfo"))?.flatten() {
        let Ok(info) = fs::read_to_string(entry.path()) else { continue };
        // Asking the file itself may wait for a server that is gone; its
        // inode's number (Linux 5.14) mostly spares that.
        if writes(&info)
            && inode(&info).is_none_or(|inode| inodes.contains_key(&inode))
            && let Ok(meta) = fs::metadata(process.join("fd").join(entry.file_name()))
        {
            among(inodes, &meta).for_each(&mut *found);
        }
    }
    Ok(())
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

/// Shared mappings of the process that may write to one of the files.
fn mappings(process: &Path, inodes: &Inodes, found: &mut dyn FnMut(&Wanted)) -> io::Result<()> {
    let maps = fs::read(process.join("maps"))?;
    for line in String::from_utf8_lossy(&maps).lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(_), Some(rights), Some(_), Some(device), Some(inode)) =
            (words.next(), words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let may_write = rights.as_bytes().get(1) == Some(&b'w') && rights.as_bytes().get(3) == Some(&b's');
        let Some(same) = inode.parse().ok().filter(|_| may_write).and_then(|inode: u64| inodes.get(&inode))
        else {
            continue;
        };
        if let Some(wanted) = same.iter().find(|wanted| device == device_of(wanted.dev)) {
            found(wanted);
            continue;
        }
        // Some file systems tell another device here than for the file: then
        // its name decides, as the process sees it.
        let path = Path::new("root").join(words.collect::<Vec<_>>().join(" ").trim_start_matches('/'));
        if let Ok(meta) = fs::metadata(process.join(path)) {
            among(inodes, &meta).for_each(&mut *found);
        }
    }
    Ok(())
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

    fn writer(path: &Path) -> Option<Writer> {
        match writers(vec![path.to_owned()]) {
            Writers::Writer(writer) => Some(writer),
            Writers::Nobody => None,
            blind @ Writers::Blind(_) => panic!("{blind:?}"),
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
        assert_eq!(writers(vec![path.clone(), dir.path().join("gone")]), Writers::Nobody);
        for mode in ["'r+b'", "'ab'", "'wb'"] {
            let program = Program::start(&format!("f = open(sys.argv[1], {mode})"), &path);
            let found = writer(&path).expect(mode);
            assert_eq!((found.pid, &found.file), (program.0.id().cast_signed(), &path), "{mode}");
            assert!(found.command.starts_with("python"), "{found:?}");
        }
        let _reader = Program::start("f = open(sys.argv[1], 'rb')", &path);
        assert_eq!(writer(&path), None, "who reads writes nothing");
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
        assert!(writer(&other).is_some());
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
        assert_eq!(writer(&path).map(|w| w.pid), Some(program.0.id().cast_signed()));
        drop(program);
        let private = format!(
            "{open}m = mmap.mmap(f, 0, mmap.MAP_PRIVATE)\nos.close(f)\nfor n in os.listdir('/proc/self/fd'):\n    n = int(n)\n    if n > 2:\n        try: os.close(n)\n        except OSError: pass"
        );
        let _private = Program::start(&private, &path);
        assert_eq!(writer(&path), None, "a private mapping never reaches the file");
    }

    #[test]
    fn each_group_has_its_own_answer_from_one_sweep() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir);
        let second = dir.path().join("second");
        fs::copy(&path, &second).unwrap();
        let _program = Program::start("f = open(sys.argv[1], 'r+b')", &path);
        let found = writers_of(vec![vec![second.clone()], vec![second.clone(), path], vec![], vec![second]]);
        assert!(matches!(&found[1], Writers::Writer(writer) if writer.file.ends_with("a file.bin")));
        assert_eq!((&found[0], &found[2], &found[3]), (&Writers::Nobody, &Writers::Nobody, &Writers::Nobody));
    }

    #[test]
    fn a_process_that_hides_its_descriptors_is_no_proof_that_nobody_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir);
        // Nobody but the administrator may look at what is not dumpable; and
        // the administrator sees all.
        let hide = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\nf = open(sys.argv[1], 'r+b')";
        let _program = Program::start(hide, &path);
        let found = writers(vec![path]);
        assert!(matches!(found, Writers::Writer(_) | Writers::Blind(_)), "{found:?}");
    }
}
