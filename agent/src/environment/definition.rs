//! What defines an environment: which tool, which files, which commands, and the
//! hash of all of it. Reads the source tree and runs nothing but `python3` to
//! ask its version. Files outside the tree are never read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use lifecycle::spec::EnvironmentKind;

use super::{EnvironmentError, EnvironmentRequest};
use crate::os;

const MAX_FILE: usize = 4 << 20;
const MAX_REQUIREMENT_FILES: usize = 64;
const MAX_SOURCES: usize = 50_000;
/// Files that decide what an installed copy of the project is.
const SOURCE_KINDS: [&str; 20] = [
    "py", "pyi", "pyx", "pxd", "c", "cc", "cpp", "cxx", "cu", "cuh", "h", "hpp", "rs", "toml", "cfg", "in",
    "txt", "md", "rst", "lock",
];

/// The program that builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Uv,
    Venv,
    Conda,
    None,
}

impl Tool {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Uv => "uv",
            Self::Venv => "venv",
            Self::Conda => "conda",
            Self::None => "none",
        }
    }
}

#[derive(Debug)]
pub(super) struct Definition {
    pub(super) tool: Tool,
    /// The tool's program.
    pub(super) program: PathBuf,
    pub(super) requirements: bool,
    /// Whether the project itself is installed, for its dependencies.
    pub(super) project: bool,
    /// The conda file.
    pub(super) conda_file: Option<&'static str>,
    pub(super) setup: Vec<String>,
    pub(super) key: String,
}

/// Finds a program on a `PATH`.
pub(super) fn find_program(path: Option<&String>, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path.map_or("/usr/local/bin:/usr/bin:/bin", String::as_str))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|p| fs::metadata(p).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

fn read(source: &Path, name: &str) -> Result<Option<Vec<u8>>, EnvironmentError> {
    let path = source.join(name);
    match os::read_bounded(&path, MAX_FILE) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(EnvironmentError::Input { path, reason: e.to_string() }),
    }
}

/// Whether installing the project would bring packages.
fn has_dependencies(source: &Path, pyproject: &[u8]) -> Result<bool, EnvironmentError> {
    let path = source.join("pyproject.toml");
    let table: toml::Table = std::str::from_utf8(pyproject)
        .map_err(|e| e.to_string())
        .and_then(|text| text.parse().map_err(|e: toml::de::Error| e.message().to_owned()))
        .map_err(|reason| EnvironmentError::Input { path, reason })?;
    let Some(project) = table.get("project") else {
        let poetry = table.get("tool").and_then(|t| t.get("poetry")?.get("dependencies")?.as_table());
        return Ok(poetry.is_some_and(|d| d.keys().any(|name| name != "python")));
    };
    let listed = project.get("dependencies").and_then(toml::Value::as_array).is_some_and(|d| !d.is_empty());
    let dynamic = project.get("dynamic").and_then(toml::Value::as_array);
    Ok(listed || dynamic.is_some_and(|d| d.iter().any(|name| name.as_str() == Some("dependencies"))))
}

impl Definition {
    /// What the request asks for, given what the source tree holds.
    pub(super) fn find(
        req: &EnvironmentRequest<'_>,
        source: &Path,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Self, EnvironmentError> {
        let conda_file =
            ["environment.yml", "environment.yaml"].into_iter().find(|n| source.join(n).is_file());
        let pyproject = read(source, "pyproject.toml")?;
        let requirements = source.join("requirements.txt").is_file();
        let path = req.base_env.get("PATH");
        let conda = || ["micromamba", "mamba", "conda"].into_iter().find_map(|n| find_program(path, n));
        let mut found = Self {
            tool: Tool::None,
            program: PathBuf::new(),
            requirements: false,
            project: false,
            conda_file: None,
            setup: req.spec.setup.clone(),
            key: String::new(),
        };
        let wants_conda = match req.spec.kind {
            EnvironmentKind::Conda => true,
            EnvironmentKind::Auto => conda_file.is_some() && conda().is_some(),
            EnvironmentKind::Venv | EnvironmentKind::None => false,
        };
        let wants_venv = match req.spec.kind {
            EnvironmentKind::Venv => true,
            EnvironmentKind::Auto => !wants_conda && (requirements || pyproject.is_some()),
            EnvironmentKind::Conda | EnvironmentKind::None => false,
        };
        if wants_conda {
            found.conda_file = Some(conda_file.ok_or_else(|| EnvironmentError::Missing {
                what: "the source tree has no environment.yml".to_owned(),
                remedy: "add one, or choose another kind of environment".to_owned(),
            })?);
            found.program = conda().ok_or_else(|| EnvironmentError::Missing {
                what: "neither micromamba, mamba nor conda is on PATH".to_owned(),
                remedy: "install one of them on the machine, or choose the kind `venv`".to_owned(),
            })?;
            found.tool = Tool::Conda;
        } else if wants_venv {
            let uv = find_program(path, "uv");
            found.tool = if uv.is_some() { Tool::Uv } else { Tool::Venv };
            found.requirements = requirements;
            found.project = pyproject.as_deref().map_or(Ok(false), |p| has_dependencies(source, p))?;
            found.program =
                uv.or_else(|| find_program(path, "python3")).ok_or_else(|| EnvironmentError::Missing {
                    what: "python3 is not on PATH".to_owned(),
                    remedy: "apt-get install python3 python3-venv".to_owned(),
                })?;
        } else if conda_file.is_some() && req.spec.kind == EnvironmentKind::Auto {
            output(b"environment.yml is not used: no conda, mamba or micromamba is on PATH\n");
        }
        found.key = found.hash(req, source, pyproject.as_deref())?;
        Ok(found)
    }

    /// Whether there is nothing to build and nothing to run.
    pub(super) fn is_empty(&self) -> bool {
        self.tool == Tool::None && self.setup.is_empty()
    }

    fn hash(
        &self,
        req: &EnvironmentRequest<'_>,
        source: &Path,
        pyproject: Option<&[u8]>,
    ) -> Result<String, EnvironmentError> {
        let mut hash = Hash::default();
        hash.add("layout", b"1");
        hash.add("tool", self.tool.as_str().as_bytes());
        if self.tool != Tool::None {
            hash.add("program", self.program.as_os_str().as_encoded_bytes());
            hash.add("python", python_version(req.base_env).as_bytes());
        }
        if let Some(name) = self.conda_file {
            hash.add(name, &read(source, name)?.unwrap_or_default());
        }
        let mut binding = Binding::default();
        if self.requirements {
            for (name, bytes) in requirement_files(source, &mut binding)? {
                hash.add(&name, &bytes);
            }
        }
        if matches!(self.tool, Tool::Uv | Tool::Venv) {
            hash.add("pyproject.toml", pyproject.unwrap_or_default());
        }
        if self.project || binding.copies_source || binding.points_to_source {
            hash_sources(source, &mut hash)?;
        }
        if binding.points_to_source {
            // An editable install is good for this one tree only.
            hash.add("tree", source.as_os_str().as_encoded_bytes());
        }
        for line in &self.setup {
            hash.add("setup", line.as_bytes());
        }
        Ok(hash.inner.finalize().to_hex().to_string())
    }
}

/// A hash of named, length-prefixed fields: no two lists of fields collide.
#[derive(Default)]
struct Hash {
    inner: blake3::Hasher,
}

impl Hash {
    fn add(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), value] {
            self.inner.update(&(part.len() as u64).to_le_bytes());
            self.inner.update(part);
        }
    }
}

/// The interpreter that the environment is made from, in one line.
fn python_version(env: &BTreeMap<String, String>) -> String {
    const ASK: &str = "import sys,platform;print(sys.version,sys.base_prefix,platform.machine())";
    let Some(python) = find_program(env.get("PATH"), "python3") else { return String::new() };
    let asked = Command::new(python).args(["-c", ASK]).env_clear().envs(env).stdin(Stdio::null()).output();
    asked.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

/// How the requirement files refer to the source tree itself.
#[derive(Default)]
struct Binding {
    copies_source: bool,
    points_to_source: bool,
}

/// The file that a line such as `-r more.txt` names.
fn named_file(line: &str) -> Option<&str> {
    for option in ["--requirement", "--constraint", "-r", "-c"] {
        if let Some(rest) = line.strip_prefix(option) {
            let name = rest.trim_start_matches(['=', ' ', '\t']).trim();
            return (!name.is_empty()).then_some(name);
        }
    }
    None
}

fn note_binding(line: &str, binding: &mut Binding) {
    if line.starts_with("-e") || line.starts_with("--editable") {
        binding.points_to_source = true;
    } else if line.starts_with(['.', '/']) || line.contains("file:") {
        binding.copies_source = true;
    }
}

/// Joins a name from a file of the tree; `None` where it leaves the tree.
fn inside(base: &Path, name: &str) -> Option<PathBuf> {
    let mut path = base.to_path_buf();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir if path.pop() => {}
            _ => return None,
        }
    }
    Some(path)
}

/// `requirements.txt` and every file of the tree that it names, with contents.
fn requirement_files(
    source: &Path,
    binding: &mut Binding,
) -> Result<BTreeMap<String, Vec<u8>>, EnvironmentError> {
    let mut files = BTreeMap::new();
    let mut seen = BTreeSet::from([PathBuf::from("requirements.txt")]);
    let mut queue = vec![PathBuf::from("requirements.txt")];
    while let Some(relative) = queue.pop() {
        let name = relative.display().to_string();
        // A directory on the way may be a link to outside; such a file is left
        // to the tool, which will read it or fail.
        let is_inside = source.join(&relative).canonicalize().is_ok_and(|p| p.starts_with(source));
        let Some(bytes) = (if is_inside { read(source, &name)? } else { None }) else {
            files.insert(name, b"absent".to_vec());
            continue;
        };
        for line in String::from_utf8_lossy(&bytes).lines().map(str::trim) {
            note_binding(line, binding);
            let base = relative.parent().unwrap_or_else(|| Path::new(""));
            if let Some(next) = named_file(line).and_then(|n| inside(base, n))
                && seen.insert(next.clone())
            {
                queue.push(next);
            }
        }
        files.insert(name, bytes);
        if seen.len() > MAX_REQUIREMENT_FILES {
            let reason = format!("it names more than {MAX_REQUIREMENT_FILES} further files");
            return Err(EnvironmentError::Input { path: source.join("requirements.txt"), reason });
        }
    }
    Ok(files)
}

/// Adds the files that decide what an installed copy of the project contains.
fn hash_sources(source: &Path, hash: &mut Hash) -> Result<(), EnvironmentError> {
    const SKIPPED: [&str; 5] = ["__pycache__", "node_modules", "build", "dist", "venv"];
    let mut found = BTreeSet::new();
    let mut queue = vec![source.to_path_buf()];
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(&dir).map_err(EnvironmentError::io("list", &dir))? {
            let entry = entry.map_err(EnvironmentError::io("list", &dir))?;
            let kind = entry.file_type().map_err(EnvironmentError::io("look at", &dir))?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let is_skipped =
                name.starts_with('.') || SKIPPED.contains(&&*name) || name.ends_with(".egg-info");
            let is_source =
                path.extension().and_then(|e| e.to_str()).is_some_and(|e| SOURCE_KINDS.contains(&e));
            if kind.is_dir() && !is_skipped {
                queue.push(path);
            } else if kind.is_file() && is_source {
                found.insert(path);
            }
        }
        if found.len() + queue.len() > MAX_SOURCES {
            let reason = format!("more than {MAX_SOURCES} source files to install");
            return Err(EnvironmentError::Input { path: source.to_path_buf(), reason });
        }
    }
    for path in found {
        let name = path.strip_prefix(source).unwrap_or(&path).display().to_string();
        // A very large file counts by its size: it is data, not code.
        let content = os::read_bounded(&path, MAX_FILE)
            .unwrap_or_else(|_| fs::metadata(&path).map_or(0, |m| m.len()).to_le_bytes().to_vec());
        hash.add(&name, &content);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_files_are_found_and_never_outside() {
        assert_eq!(named_file("-r more.txt"), Some("more.txt"));
        assert_eq!(named_file("--constraint=c.txt"), Some("c.txt"));
        assert_eq!(named_file("-rmore.txt"), Some("more.txt"));
        assert_eq!(named_file("requests==2"), None);
        assert_eq!(inside(Path::new("a"), "../b.txt"), Some(PathBuf::from("b.txt")));
        assert_eq!(inside(Path::new("a"), "../../etc/passwd"), None);
        assert_eq!(inside(Path::new(""), "/etc/passwd"), None);
    }

    #[test]
    fn only_a_project_with_dependencies_is_installed() {
        let check = |text: &str| has_dependencies(Path::new("/s"), text.as_bytes()).unwrap();
        assert!(check("[project]\nname='a'\ndependencies=['torch']\n"));
        assert!(check("[project]\nname='a'\ndynamic=['version','dependencies']\n"));
        assert!(check("[tool.poetry.dependencies]\npython='^3'\ntorch='2'\n"));
        assert!(!check("[project]\nname='a'\ndependencies=[]\n"));
        assert!(!check("[tool.ruff]\nline-length=1\n"));
        assert!(has_dependencies(Path::new("/s"), b"[project").is_err());
    }
}
