//! Which file the agent and new keepers are started from: the guard's own, or
//! one that an upgrade brought. An upgrade counts only once it is written down
//! here, and it is written down only after the new agent proved itself; a file
//! that is missing or damaged is never used.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::os;

/// Where upgrades are kept, below the state directory: `<digest>/outlast-agent`.
pub(crate) const PROGRAMS: &str = "programs";
/// The file in such a directory.
pub const PROGRAM: &str = "outlast-agent";
/// The largest program that is taken.
pub const MAX_PROGRAM: u64 = 512 << 20;
const KEPT_FILE: &str = "program.json";
/// Ends in a row before an agent was ready, after which its file is given up.
const SPOILED: u32 = 5;

/// How the newest upgrade went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// BLAKE3 of the program that was asked for, hex.
    pub(crate) digest: String,
    /// Empty: it runs. Else why it does not.
    pub(crate) problem: String,
}

/// `program.json`. Digests in hex; `None` is the guard's own file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    current: Option<String>,
    former: Option<String>,
    trial: Option<String>,
    last: Option<Outcome>,
}

/// The files, and which of them is in use.
#[derive(Debug)]
pub(super) struct Programs {
    state: PathBuf,
    own: PathBuf,
    kept: Kept,
    /// Digests that are not used any more by this guard.
    spoiled: Vec<String>,
    early_ends: u32,
}

impl Programs {
    /// As they were left. What was on trial when the last guard ended is not
    /// used; what does not have its digest is not either.
    pub(super) fn open(state: &Path, own: &Path) -> Self {
        let file = state.join(KEPT_FILE);
        let kept = match os::read_bounded(&file, 64 << 10) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "{KEPT_FILE} cannot be read: the guard's own program is used");
                Kept::default()
            }),
            Err(_) => Kept::default(),
        };
        let mut found =
            Self { state: state.into(), own: own.into(), kept, spoiled: Vec::new(), early_ends: 0 };
        if let Some(digest) = found.kept.trial.clone() {
            found.fail(&format!("the guard ended while {} was tried", short(&digest)));
        }
        for digest in [found.kept.current.clone(), found.kept.former.clone()].into_iter().flatten() {
            if let Err(problem) = verify(&found.path(&digest), &digest) {
                tracing::warn!(problem, digest, "a program of an upgrade is not usable any more");
                found.spoiled.push(digest);
            }
        }
        found
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.state.join(PROGRAMS).join(digest).join(PROGRAM)
    }

    /// The digest of the program in use; `None`: the guard's own file.
    fn digest(&self) -> Option<&String> {
        let usable = |digest: &&String| !self.spoiled.contains(digest);
        let kept = &self.kept;
        kept.trial.as_ref().or_else(|| kept.current.iter().chain(&kept.former).find(usable))
    }

    /// What to start.
    pub(super) fn program(&self) -> PathBuf {
        self.digest().map_or_else(|| self.own.clone(), |digest| self.path(digest))
    }

    /// Whether it is the guard's own file, whose ways are known.
    pub(super) fn is_own(&self) -> bool {
        self.digest().is_none()
    }

    /// Whether a program is being tried.
    pub(super) fn is_trial(&self) -> bool {
        self.kept.trial.is_some()
    }

    /// How the newest upgrade went.
    pub(super) fn last(&self) -> Option<&Outcome> {
        self.kept.last.as_ref()
    }

    /// Begins to try a program; `false`: it is in use already.
    ///
    /// # Errors
    /// Why it is not tried.
    pub(super) fn begin(&mut self, asked: &Path) -> Result<bool, String> {
        let digest = self.digest_of(asked)?;
        if let Some(trial) = &self.kept.trial {
            return Err(format!("another program is being tried: {}", short(trial)));
        }
        if self.digest() == Some(&digest) {
            return Ok(false);
        }
        verify(&self.path(&digest), &digest)?;
        let mut next = self.kept.clone();
        next.trial = Some(digest.clone());
        next.last = None;
        self.save(next)?;
        self.spoiled.retain(|spoiled| *spoiled != digest);
        self.early_ends = 0;
        Ok(true)
    }

    fn digest_of(&self, asked: &Path) -> Result<String, String> {
        let dir = asked.parent().filter(|_| asked.file_name().is_some_and(|name| name == PROGRAM));
        let digest = dir.and_then(Path::file_name).and_then(|name| name.to_str());
        digest
            .filter(|digest| is_digest(digest) && self.path(digest) == asked)
            .map(str::to_owned)
            .ok_or_else(|| format!("{} is no program of this machine", asked.display()))
    }

    /// The program on trial is good.
    ///
    /// # Errors
    /// Where that cannot be written down; it is then still on trial.
    pub(super) fn commit(&mut self) -> Result<(), String> {
        let Some(digest) = self.kept.trial.clone() else { return Ok(()) };
        let last = Some(Outcome { digest: digest.clone(), problem: String::new() });
        let former = self.kept.current.clone().filter(|former| *former != digest);
        self.save(Kept { current: Some(digest), former, trial: None, last })?;
        self.sweep();
        Ok(())
    }

    /// The program on trial is not good; what ran before is used again.
    pub(super) fn fail(&mut self, problem: &str) {
        let Some(digest) = self.kept.trial.clone() else { return };
        tracing::warn!(problem, digest, "an upgrade is taken back");
        let problem = problem.to_owned();
        let next = Kept { trial: None, last: Some(Outcome { digest, problem }), ..self.kept.clone() };
        // Also where it cannot be written: a later guard finds the trial and
        // takes it back itself.
        if let Err(error) = self.save(next.clone()) {
            tracing::warn!(error, "that cannot be written down");
            self.kept = next;
        }
        self.sweep();
    }

    fn save(&mut self, next: Kept) -> Result<(), String> {
        let text = serde_json::to_vec(&next).map_err(|e| e.to_string())?;
        os::write_durable(&self.state.join(KEPT_FILE), &text)
            .map_err(|e| format!("cannot write {KEPT_FILE}: {e}"))?;
        self.kept = next;
        Ok(())
    }

    /// The agent ended before it was ever ready: a file that does so again and
    /// again is given up, and the one before it is used.
    pub(super) fn ended_early(&mut self) {
        self.early_ends += 1;
        if self.early_ends >= SPOILED {
            self.spoil();
        }
    }

    /// The file in use cannot even be started.
    pub(super) fn spoil(&mut self) {
        self.early_ends = 0;
        if let Some(digest) = self.digest().cloned() {
            tracing::warn!(digest, "the program of an upgrade is given up");
            self.spoiled.push(digest);
        }
    }

    /// The agent was ready.
    pub(super) fn proven(&mut self) {
        self.early_ends = 0;
    }

    /// Removes every program that nothing refers to.
    fn sweep(&self) {
        let kept = [&self.kept.current, &self.kept.former, &self.kept.trial];
        let Ok(entries) = fs::read_dir(self.state.join(PROGRAMS)) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !kept.iter().any(|digest| digest.as_ref().is_some_and(|digest| name == digest.as_str())) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The beginning of a digest, enough for people.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Whether this is a BLAKE3 digest in lower-case hex.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a file is a program with this digest.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn verify(path: &Path, digest: &str) -> Result<(), String> {
    let wrong = |e: std::io::Error| format!("the program cannot be read: {e}");
    let mut file = os::open_nofollow(path).map_err(wrong)?;
    let about = file.metadata().map_err(wrong)?;
    if about.len() > MAX_PROGRAM {
        return Err(format!("the program has {} bytes, at most {MAX_PROGRAM} are taken", about.len()));
    }
    if about.permissions().mode() & 0o100 == 0 {
        return Err("the program is not executable".into());
    }
    let (mut hasher, mut chunk) = (blake3::Hasher::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => hasher.update(&chunk[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(wrong(e)),
        };
    }
    let found = hasher.finalize().to_hex();
    if found.as_str() == digest {
        Ok(())
    } else {
        Err(format!("the program's digest is {}, not {}", short(&found), short(digest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        dir: tempfile::TempDir,
        own: PathBuf,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self { own: dir.path().join("own"), dir }
        }

        fn open(&self) -> Programs {
            Programs::open(self.dir.path(), &self.own)
        }

        fn place(&self, text: &str) -> (PathBuf, String) {
            let digest = blake3::hash(text.as_bytes()).to_hex().to_string();
            let path = self.dir.path().join(PROGRAMS).join(&digest).join(PROGRAM);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            (path, digest)
        }

        fn upgrade(&self, text: &str) -> PathBuf {
            let (path, _) = self.place(text);
            let mut programs = self.open();
            assert_eq!(programs.begin(&path), Ok(true));
            programs.commit().unwrap();
            path
        }
    }

    #[test]
    fn only_a_committed_program_outlives_its_guard() {
        let rig = Rig::new();
        assert_eq!(rig.open().program(), rig.own);
        let (path, digest) = rig.place("one");
        let mut programs = rig.open();
        assert_eq!(programs.begin(&path), Ok(true));
        assert_eq!(programs.program(), path);
        let after = rig.open();
        assert_eq!(after.program(), rig.own, "the guard was killed during the trial");
        let last = after.last().unwrap();
        assert!(last.digest == digest && last.problem.contains("the guard ended"), "{last:?}");
        let one = rig.upgrade("one");
        assert_eq!(rig.open().program(), one);
        assert_eq!(rig.open().last().unwrap().problem, "");
        assert_eq!(rig.open().begin(&one), Ok(false), "it is in use already");
    }

    #[test]
    fn two_programs_are_kept_and_a_failed_one_is_not() {
        let rig = Rig::new();
        let (one, two, three) = (rig.upgrade("one"), rig.upgrade("two"), rig.upgrade("three"));
        assert!(!one.exists() && two.exists() && three.exists());
        let (bad, _) = rig.place("bad");
        let mut programs = rig.open();
        programs.begin(&bad).unwrap();
        programs.fail("it ended");
        assert_eq!(programs.program(), three);
        assert!(!bad.exists() && two.exists());
    }

    #[test]
    fn what_is_broken_is_not_used() {
        let rig = Rig::new();
        let (one, two) = (rig.upgrade("one"), rig.upgrade("two"));
        fs::write(&two, "tw").unwrap();
        assert_eq!(rig.open().program(), one);
        fs::set_permissions(&one, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(rig.open().program(), rig.own);
        fs::remove_file(&one).unwrap();
        assert_eq!(rig.open().program(), rig.own);
        fs::write(rig.dir.path().join(KEPT_FILE), "{").unwrap();
        assert_eq!(rig.open().program(), rig.own);
    }

    #[test]
    fn a_program_that_ends_again_and_again_is_given_up() {
        let rig = Rig::new();
        let (one, two) = (rig.upgrade("one"), rig.upgrade("two"));
        let mut programs = rig.open();
        for expected in [&two, &one, &rig.own] {
            assert_eq!(programs.program(), *expected);
            (0..SPOILED).for_each(|_| programs.ended_early());
        }
        assert_eq!(programs.program(), rig.own);
        let mut programs = rig.open();
        for _ in 0..3 * SPOILED {
            programs.ended_early();
            programs.proven();
        }
        assert_eq!(programs.program(), two, "it was ready in between");
    }

    #[test]
    fn nothing_outside_is_tried() {
        let rig = Rig::new();
        let (good, digest) = rig.place("good");
        let mut programs = rig.open();
        let outside = rig.dir.path().join(&digest).join(PROGRAM);
        fs::create_dir_all(outside.parent().unwrap()).unwrap();
        fs::copy(&good, &outside).unwrap();
        for asked in [
            outside,
            good.with_file_name("other"),
            rig.dir.path().join(PROGRAMS).join("..").join(PROGRAMS).join(&digest).join(PROGRAM),
            PathBuf::from("/"),
        ] {
            assert!(programs.begin(&asked).is_err(), "{}", asked.display());
        }
        fs::write(&good, "changed").unwrap();
        assert!(programs.begin(&good).unwrap_err().contains("digest"));
        fs::remove_file(&good).unwrap();
        std::os::unix::fs::symlink("/bin/sh", &good).unwrap();
        assert!(programs.begin(&good).is_err(), "a link is not followed");
        assert_eq!(programs.program(), rig.own);
    }
}
