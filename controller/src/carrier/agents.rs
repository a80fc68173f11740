//! The static agents that this controller can put on machines, by
//! architecture: files below its data directory, known by their digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// No agent is larger; what is, is something else.
const LARGEST: u64 = 1 << 30;

/// Architectures that agents are built for, as `uname -m` names them.
const TARGETS: [(&[&str], &str); 2] = [
    (&["x86_64", "amd64"], "x86_64-unknown-linux-gnu"),
    (&["aarch64", "arm64"], "aarch64-unknown-linux-gnu"),
];

/// An agent's program on this computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AgentFile {
    pub(super) path: PathBuf,
    /// SHA-256, hex.
    pub(super) digest: String,
    pub(super) bytes: u64,
}

/// Size, seconds and nanoseconds of the change: while these stay, the file does.
type Stamp = (u64, i64, i64);

/// The agents of one data directory. Digests are counted once.
#[derive(Clone)]
pub(super) struct Agents {
    dir: PathBuf,
    known: Arc<Mutex<BTreeMap<PathBuf, (Stamp, String)>>>,
}

/// The target for what a machine says of itself.
fn target_of(system: &str, machine: &str) -> Option<&'static str> {
    let known = TARGETS.iter().find(|(names, _)| names.contains(&machine));
    known.map(|(_, target)| *target).filter(|_| system == "Linux")
}

impl Agents {
    /// Those of this version below `home/agents`.
    pub(super) fn new(home: &Path) -> Self {
        Self { dir: home.join("agents").join(proto::VERSION), known: Arc::default() }
    }

    fn path(&self, target: &str) -> PathBuf {
        self.dir.join(target).join("outlast-agent")
    }

    /// The agent for a machine. Reads the file: not for the loop.
    ///
    /// # Errors
    /// What is missing and how to get it, in words for people.
    pub(super) fn for_machine(&self, system: &str, machine: &str) -> Result<AgentFile, String> {
        let shown = |text: &str| text.chars().filter(|c| !c.is_control()).take(40).collect::<String>();
        let Some(target) = target_of(system, machine) else {
            let names: Vec<&str> = TARGETS.iter().map(|(names, _)| names[0]).collect();
            return Err(format!(
                "the machine is {} on {}: there are agents for Linux on {}",
                shown(system),
                shown(machine),
                names.join(" and ")
            ));
        };
        let path = self.path(target);
        self.read(&path).map_err(|error| {
            let there = path.display();
            format!(
                "there is no agent for {machine} machines ({error}): build it with `cargo agent` for {target}, \
                 and put target/{target}/dist/outlast-agent to {there}"
            )
        })
    }

    /// All that are there. Reads files: not for the loop.
    pub(super) fn all(&self) -> Vec<AgentFile> {
        TARGETS.iter().filter_map(|(_, target)| self.read(&self.path(target)).ok()).collect()
    }

    fn read(&self, path: &Path) -> std::io::Result<AgentFile> {
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() || meta.len() == 0 || meta.len() > LARGEST {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is no program"));
        }
        let stamp = (meta.len(), meta.mtime(), meta.mtime_nsec());
        let known = |digest: &str| AgentFile { path: path.into(), digest: digest.into(), bytes: meta.len() };
        let all = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, digest)) = all().get(path).filter(|(of, _)| *of == stamp) {
            return Ok(known(digest));
        }
        let digest = sha256(&mut file)?;
        let found = known(&digest);
        all().insert(path.to_owned(), (stamp, digest));
        Ok(found)
    }
}

/// SHA-256 of what is left of a file, hex: as `sha256sum` says it.
///
/// # Errors
/// Where it cannot be read.
pub fn sha256(file: &mut File) -> std::io::Result<String> {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(data_encoding::HEXLOWER.encode(hash.finish().as_ref())),
            n => hash.update(&piece[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_found_by_what_the_machine_says_and_a_missing_one_says_how_to_get_it() {
        let home = tempfile::tempdir().unwrap();
        let agents = Agents::new(home.path());
        let missing = agents.for_machine("Linux", "aarch64").unwrap_err();
        assert!(
            missing.contains("cargo agent") && missing.contains("aarch64-unknown-linux-gnu"),
            "{missing}"
        );
        let dir = home.path().join("agents").join(proto::VERSION).join("x86_64-unknown-linux-gnu");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("outlast-agent"), "abc").unwrap();
        let found = agents.for_machine("Linux", "x86_64").unwrap();
        assert_eq!(found.digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(found.bytes, 3);
        assert_eq!(agents.all(), [found]);
        std::fs::write(dir.join("outlast-agent"), "abcd").unwrap();
        assert_eq!(agents.for_machine("Linux", "amd64").unwrap().bytes, 4, "an exchanged file is seen");
        for (system, machine) in [("Darwin", "arm64"), ("Linux", "riscv64"), ("", ""), ("Linux", "x\n\x1b")] {
            let error = agents.for_machine(system, machine).unwrap_err();
            assert!(error.contains("Linux on x86_64 and aarch64"), "{error}");
        }
    }
}
