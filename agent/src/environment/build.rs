//! Builds one environment in its place in the cache, under its lock. The mark
//! `.complete` comes last and durably; whatever lacks it is removed, with the
//! processes of the build that was broken off, and built anew.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::{Runner, end_build};
use super::definition::{Definition, Tool};
use super::{EnvironmentError, EnvironmentRequest, Prepared};
use crate::os::{self, FileLock};

const COMPLETE: &str = ".complete";
const LOCK_LOOK: Duration = Duration::from_millis(200);

pub(super) struct Build<'a> {
    definition: &'a Definition,
    source: &'a Path,
    machine_id: &'a str,
    cache: PathBuf,
    dir: PathBuf,
    env: BTreeMap<String, String>,
    base_env: &'a BTreeMap<String, String>,
    marker: String,
    setup_mark: String,
}

impl<'a> Build<'a> {
    pub(super) fn new(
        req: &EnvironmentRequest<'a>,
        source: &'a Path,
        definition: &'a Definition,
    ) -> Result<Self, EnvironmentError> {
        os::make_private_dir(req.cache_dir).map_err(EnvironmentError::io("make", req.cache_dir))?;
        let cache = req.cache_dir.canonicalize().map_err(EnvironmentError::io("open", req.cache_dir))?;
        let key16 = &definition.key[..16];
        let dir = cache.join(format!("env-{key16}"));
        let tree = fs::metadata(source).map_err(EnvironmentError::io("look at", source))?;
        // Setup commands may write into the tree, so each tree needs them once.
        let identity = format!("{}\0{}\0{}", source.display(), tree.dev(), tree.ino());
        let place = blake3::hash(cache.as_os_str().as_encoded_bytes()).to_hex();
        Ok(Self {
            env: activated(definition.tool, &dir, req.base_env),
            // The place is part of it: several machines on one host may build
            // the same environment, each in a cache of its own.
            marker: format!("{key16}@{}", &place[..8]),
            setup_mark: format!(".setup-{}", &blake3::hash(identity.as_bytes()).to_hex()[..16]),
            base_env: req.base_env,
            machine_id: req.machine_id,
            definition,
            source,
            cache,
            dir,
        })
    }

    fn prepared(self, cached: bool) -> Prepared {
        let tool = self.definition.tool.as_str().to_owned();
        Prepared { env: self.env, key: self.definition.key.clone(), cached, tool }
    }

    pub(super) fn run(
        self,
        output: &mut dyn FnMut(&[u8]),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Prepared, EnvironmentError> {
        let _lock = self.lock(output, cancelled)?;
        let complete = self.dir.join(COMPLETE);
        let is_complete = complete.is_file();
        if !is_complete {
            end_build(&self.marker, None);
            remove(&self.dir)?;
            self.install(output, cancelled)?;
        }
        let needs_setup = !self.definition.setup.is_empty() && !self.dir.join(&self.setup_mark).is_file();
        if needs_setup {
            self.setup(output, cancelled)?;
        }
        if !is_complete {
            os::sync_filesystem(&self.dir)
                .and_then(|()| os::write_durable(&complete, self.definition.key.as_bytes()))
                .and_then(|()| os::sync_dir(&self.cache))
                .map_err(EnvironmentError::io("complete", &self.dir))?;
        }
        Ok(self.prepared(is_complete && !needs_setup))
    }

    fn lock(
        &self,
        output: &mut dyn FnMut(&[u8]),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<FileLock, EnvironmentError> {
        let mut path = self.dir.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let mut told = false;
        loop {
            if let Some(lock) = FileLock::try_take(&path).map_err(EnvironmentError::io("lock", &path))? {
                return Ok(lock);
            }
            if !std::mem::replace(&mut told, true) {
                output(b"waiting for another build of the same environment\n");
            }
            if cancelled() {
                return Err(EnvironmentError::Cancelled);
            }
            std::thread::sleep(LOCK_LOOK);
        }
    }

    fn runner<'r>(
        &'r self,
        env: &'r BTreeMap<String, String>,
        output: &'r mut dyn FnMut(&[u8]),
        cancelled: &'r dyn Fn() -> bool,
    ) -> Runner<'r> {
        Runner { dir: self.source, env, marker: &self.marker, machine_id: self.machine_id, output, cancelled }
    }

    fn install(
        &self,
        output: &mut dyn FnMut(&[u8]),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), EnvironmentError> {
        let program = &self.definition.program;
        let dir = self.dir.as_os_str().to_os_string();
        let mut base = self.base_env.clone();
        quieten(&mut base);
        let mut create = self.runner(&base, output, cancelled);
        match self.definition.tool {
            Tool::None => {
                return os::make_private_dir(&self.dir).map_err(EnvironmentError::io("make", &self.dir));
            }
            Tool::Conda => {
                let file = self.definition.conda_file.unwrap_or("environment.yml");
                let is_micro = program.file_name().is_some_and(|n| n == "micromamba");
                let verb: &[&str] = if is_micro { &["create", "-y"] } else { &["env", "create"] };
                let mut args = words(verb);
                args.extend(words(&["-f", file, "-p"]));
                args.push(dir);
                return create.run(program, &args);
            }
            Tool::Venv => create.run(program, &[words(&["-m", "venv"]), vec![dir]].concat())?,
            Tool::Uv => {
                let mut args = words(&["venv", "--no-project"]);
                // Only setup commands can want pip inside; seeding it needs the network.
                if self.definition.setup.iter().any(|line| line.contains("pip")) {
                    args.push("--seed".into());
                }
                create.run(program, &[args, vec![dir]].concat())?;
            }
        }
        self.install_packages(output, cancelled)
    }

    fn install_packages(
        &self,
        output: &mut dyn FnMut(&[u8]),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), EnvironmentError> {
        let mut wanted = Vec::new();
        if self.definition.requirements {
            wanted.extend(words(&["-r", "requirements.txt"]));
        }
        if self.definition.project {
            wanted.push(".".into());
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let python = self.dir.join("bin/python");
        let mut env = self.env.clone();
        quieten(&mut env);
        let mut runner = self.runner(&env, output, cancelled);
        if self.definition.tool == Tool::Uv {
            let mut args = words(&["pip", "install", "--python"]);
            args.push(python.into_os_string());
            args.extend(wanted);
            return runner.run(&self.definition.program, &args);
        }
        let mut args = words(&["-m", "pip", "install", "--disable-pip-version-check", "--no-input"]);
        args.extend(wanted);
        runner.run(&python, &args)
    }

    fn setup(
        &self,
        output: &mut dyn FnMut(&[u8]),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), EnvironmentError> {
        let mut env = self.env.clone();
        quieten(&mut env);
        for line in &self.definition.setup {
            let mut runner = self.runner(&env, output, cancelled);
            runner.run(Path::new("/bin/sh"), &words(&["-c", line]))?;
        }
        let mark = self.dir.join(&self.setup_mark);
        os::write_durable(&mark, b"").map_err(EnvironmentError::io("mark", &mark))
    }
}

fn words(list: &[&str]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

/// No questions, no progress bars, no advice about newer versions.
fn quieten(env: &mut BTreeMap<String, String>) {
    let quiet = [
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("PIP_NO_INPUT", "1"),
        ("PIP_PROGRESS_BAR", "off"),
        ("UV_NO_PROGRESS", "1"),
        ("CONDA_ALWAYS_YES", "true"),
        ("DEBIAN_FRONTEND", "noninteractive"),
    ];
    for (name, value) in quiet {
        env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
}

/// The base variables with the environment switched on.
fn activated(tool: Tool, dir: &Path, base: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut env = base.clone();
    let name = match tool {
        Tool::None => return env,
        Tool::Uv | Tool::Venv => "VIRTUAL_ENV",
        Tool::Conda => "CONDA_PREFIX",
    };
    env.insert(name.to_owned(), dir.display().to_string());
    env.remove("PYTHONHOME");
    let rest = base.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
    env.insert("PATH".to_owned(), format!("{}/bin:{rest}", dir.display()));
    env
}

fn remove(dir: &Path) -> Result<(), EnvironmentError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(EnvironmentError::io("remove", dir)(e)),
        _ => Ok(()),
    }
}
