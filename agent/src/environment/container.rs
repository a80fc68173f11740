//! A container image as environment: the image is fetched once, and the command
//! is run in it by podman, or else docker, of the machine. Values of variables
//! never stand in an argument list. Never builds an image, and changes no
//! configuration of the tool.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifecycle::spec::LimitSpec;

use super::command::Runner;
use super::definition::find_program;
use super::{EnvironmentError, EnvironmentRequest, Prepared};
use crate::keeper::ContainerRef;
use crate::os;

/// Variables of the agent that the tools need to find their own files, their
/// daemon and their registries.
const OF_THE_TOOLS: [&str; 12] = [
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINER_HOST",
    "REGISTRY_AUTH_FILE",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "https_proxy",
];
/// A program that is the first process of its container hears no signal that it
/// does not handle: neither a stop nor what it sends itself.
const NO_INIT: &str = "this machine has no init process for podman's containers, so that the program is its container's \
    first process: SIGTERM reaches it only where it handles it, and a stop then takes the whole grace; \
    apt-get install -y catatonit on the machine";
/// Where distributions put podman's init.
const INITS: [&str; 4] = [
    "/usr/libexec/podman/catatonit",
    "/usr/lib/podman/catatonit",
    "/usr/bin/catatonit",
    "/usr/local/bin/catatonit",
];

/// A bound, not a reservation.
const SHARED_MEMORY: &str = "--shm-size=64g";

/// What is to run in a container.
#[derive(Debug, Clone, Copy)]
pub struct ContainerRequest<'a> {
    /// The image, as the tool names it.
    pub image: &'a str,
    /// Lines run by the image's `/bin/sh` before the command, each time.
    pub setup: &'a [String],
    /// The command inside.
    pub command: &'a [String],
    /// The directory inside in which it runs.
    pub workdir: &'a Path,
    /// Directories that are the same inside as outside; missing ones are left out.
    pub mounts: &'a [PathBuf],
    /// Variables of the command; the image's own stay otherwise.
    pub env: &'a BTreeMap<String, String>,
    /// Names of more variables, which the tool finds in its own environment.
    pub secrets: &'a [String],
    /// Variables of the tool itself; `PATH` decides which is found.
    pub base_env: &'a BTreeMap<String, String>,
    /// Where the tool's files of this attempt go.
    pub attempt_dir: &'a Path,
    /// The attempt, for the container's name.
    pub attempt_id: &'a str,
    /// Whether the command gets a terminal.
    pub pty: bool,
    /// For a tool whose containers are not below our own cgroups.
    pub limits: &'a LimitSpec,
}

/// How a container is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLaunch {
    /// The tool and its arguments.
    pub argv: Vec<String>,
    /// The environment of the tool.
    pub env: BTreeMap<String, String>,
    /// What ends it.
    pub container: ContainerRef,
    /// What this machine lacks for it, a sentence each.
    pub lacking: Vec<String>,
}

struct Tool {
    program: PathBuf,
    is_docker: bool,
}

fn tool(path: Option<&String>) -> Result<Tool, EnvironmentError> {
    let named = |name, is_docker| find_program(path, name).map(|program| Tool { program, is_docker });
    named("podman", false).or_else(|| named("docker", true)).ok_or_else(|| EnvironmentError::Missing {
        what: "neither podman nor docker is on PATH, and [environment] image needs one".to_owned(),
        remedy: "install it on the machine: apt-get install -y podman".to_owned(),
    })
}

fn env_of_tool(base: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut env = base.clone();
    for name in OF_THE_TOOLS {
        if let Ok(value) = std::env::var(name) {
            env.entry(name.to_owned()).or_insert(value);
        }
    }
    env
}

/// Sees to it that the image is on the machine.
pub(super) fn fetch(
    req: &EnvironmentRequest<'_>,
    output: &mut dyn FnMut(&[u8]),
    cancelled: &dyn Fn() -> bool,
) -> Result<Prepared, EnvironmentError> {
    let image = req.spec.image.as_str();
    if image.starts_with('-') || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(EnvironmentError::Missing {
            what: format!("{image:?} cannot be the name of an image"),
            remedy: "name one such as docker.io/library/python:3.12".to_owned(),
        });
    }
    let tool = tool(req.base_env.get("PATH"))?;
    let env = env_of_tool(req.base_env);
    let known = Command::new(&tool.program)
        .args(["image", "inspect", image])
        .env_clear()
        .envs(&env)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let is_known = known.is_ok_and(|status| status.success());
    if !is_known {
        let marker = format!("image@{}", &blake3::hash(image.as_bytes()).to_hex()[..16]);
        let (dir, machine_id) = (req.source_dir, req.machine_id);
        let mut runner = Runner { dir, env: &env, marker: &marker, machine_id, output, cancelled };
        runner.run(&tool.program, &[OsString::from("pull"), image.into()])?;
    }
    let name = if tool.is_docker { "docker" } else { "podman" };
    Ok(Prepared { env: req.base_env.clone(), key: image.to_owned(), cached: is_known, tool: name.to_owned() })
}

/// The command line that runs the command in its image, and the files that it
/// needs (the variables in one that only we can read).
///
/// # Errors
/// Where no tool is found or the file cannot be written.
pub fn contain(req: &ContainerRequest<'_>) -> Result<ContainerLaunch, EnvironmentError> {
    let tool = tool(req.base_env.get("PATH"))?;
    let mut env = env_of_tool(req.base_env);
    let env_file = req.attempt_dir.join("container.env");
    let odd = write_env(&env_file, req.env)?;
    let crun = find_program(req.base_env.get("PATH"), "crun").is_some();
    let has_init = tool.is_docker || INITS.iter().any(|path| Path::new(path).exists());
    let mark = req.attempt_dir.join(if tool.is_docker { "container.id" } else { "container.pid" });
    let name = format!("outlast-{}", req.attempt_id);
    let mut argv = vec![tool.program.display().to_string()];
    let facts = Facts {
        is_docker: tool.is_docker,
        below_us: crun && !tool.is_docker,
        has_init,
        has_gpu: Path::new("/dev/nvidiactl").exists(),
        has_queues: Path::new("/dev/mqueue").is_dir(),
        ceilings: os::own_ceilings(),
        user: (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
    };
    argv.extend(arguments(req, &facts, &name, &mark, &env_file));
    for (key, value) in odd {
        argv.extend(["--env".to_owned(), key.clone()]);
        env.insert(key, value);
    }
    for name in req.secrets {
        argv.extend(["--env".to_owned(), name.clone()]);
    }
    argv.push(req.image.to_owned());
    if !req.setup.is_empty() {
        let script = format!("{}\nexec \"$@\"", req.setup.join("\n"));
        argv.extend(["/bin/sh".to_owned(), "-ec".to_owned(), script, "sh".to_owned()]);
    }
    argv.extend(req.command.iter().cloned());
    let lacking = if has_init { Vec::new() } else { vec![NO_INIT.to_owned()] };
    Ok(ContainerLaunch { argv, env, container: ContainerRef { tool: tool.program, name, mark }, lacking })
}

/// What the machine is like.
struct Facts {
    is_docker: bool,
    /// Whether the container stays in our own cgroups and below our process.
    below_us: bool,
    has_init: bool,
    has_gpu: bool,
    /// Whether podman can hand in the machine's own shared memory.
    has_queues: bool,
    ceilings: (u64, u64),
    user: (u32, u32),
}

/// The options between `run` and the image. Never `--rm`: the container would
/// race with the tool that wants to read its exit code, and the keeper removes
/// it in any case.
fn arguments(
    req: &ContainerRequest<'_>,
    facts: &Facts,
    name: &str,
    mark: &Path,
    env_file: &Path,
) -> Vec<String> {
    let mut args: Vec<String> =
        ["run", "--pull=never", "--network=host", "--log-driver=none"].map(str::to_owned).into();
    let mut add = |option: &str, value: &dyn std::fmt::Display| {
        args.extend([option.to_owned(), value.to_string()]);
    };
    add("--name", &name);
    add(if facts.is_docker { "--cidfile" } else { "--pidfile" }, &mark.display());
    add("--env-file", &env_file.display());
    add("--workdir", &req.workdir.display());
    for path in req.mounts.iter().filter(|path| path.is_dir()) {
        let path = path.display();
        if path.to_string().contains(':') {
            add("--mount", &format!("type=bind,source={path},destination={path}"));
        } else {
            add("--volume", &format!("{path}:{path}"));
        }
    }
    add("--security-opt", &"label=disable");
    let (files, processes) = facts.ceilings;
    let files = req.limits.open_files.unwrap_or(files);
    add("--ulimit", &format!("nofile={files}:{files}"));
    if facts.is_docker {
        if facts.user.0 != 0 {
            add("--user", &format!("{}:{}", facts.user.0, facts.user.1));
        }
    } else {
        add("--ulimit", &format!("nproc={processes}:{processes}"));
    }
    if !facts.below_us {
        let limits = req.limits;
        limits.memory_bytes.iter().for_each(|bytes| add("--memory", &format!("{bytes}b")));
        limits.cpus.iter().for_each(|cpus| add("--cpus", cpus));
        limits.pids.iter().for_each(|pids| add("--pids-limit", pids));
    }
    match (facts.has_gpu, facts.is_docker) {
        (true, true) => add("--gpus", &"all"),
        (true, false) => add("--device", &"nvidia.com/gpu=all"),
        (false, _) => {}
    }
    let flags = [(facts.below_us, "--cgroups=disabled"), (facts.has_init, "--init"), (req.pty, "--tty")];
    // Loaders of data exchange far more than the usual 64 MiB through it.
    args.push(if facts.has_queues { "--ipc=host" } else { SHARED_MEMORY }.to_owned());
    args.extend(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag.to_owned()));
    args
}

/// Whether all readers of such files agree what this value is.
fn is_plain(value: &str) -> bool {
    let odd = |c: char| c.is_control() || matches!(c, '"' | '\'' | '\\' | '#' | '$' | '`');
    !value.chars().any(odd) && value.trim() == value
}

/// Writes the variables into a file of mode 0600; gives those back that such a
/// file cannot hold.
fn write_env(
    path: &Path,
    env: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let (plain, odd): (BTreeMap<_, _>, BTreeMap<_, _>) =
        env.iter().map(|(k, v)| (k.clone(), v.clone())).partition(|(_, value)| is_plain(value));
    let text = plain.iter().fold(String::new(), |all, (name, value)| format!("{all}{name}={value}\n"));
    // An earlier one may be open to others: the mode holds for new files only.
    let _ = std::fs::remove_file(path);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(EnvironmentError::io("write", path))?;
    Ok(odd)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    /// A machine whose `PATH` holds only these programs.
    fn machine(tools: &[&str]) -> (tempfile::TempDir, BTreeMap<String, String>) {
        let dir = tempfile::tempdir().unwrap();
        for tool in tools {
            let path = dir.path().join(tool);
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let env = BTreeMap::from([("PATH".to_owned(), dir.path().display().to_string())]);
        (dir, env)
    }

    #[test]
    fn values_stand_in_a_private_file_or_in_the_environment_never_in_an_argument() {
        let (dir, base_env) = machine(&["podman", "crun"]);
        let env = BTreeMap::from([
            ("KEY".to_owned(), "s3cret".to_owned()),
            ("PEM".to_owned(), "-----BEGIN\nsecret2\n".to_owned()),
        ]);
        let mounts = [dir.path().to_path_buf(), "/nonexistent".into()];
        let launch = contain(&ContainerRequest {
            image: "img:1",
            setup: &strings(&["pip install x", "true"]),
            command: &strings(&["python", "a b.py"]),
            workdir: dir.path(),
            mounts: &mounts,
            env: &env,
            secrets: &strings(&["HF_TOKEN"]),
            base_env: &base_env,
            attempt_dir: dir.path(),
            attempt_id: "a-1",
            pty: false,
            limits: &LimitSpec { memory_bytes: Some(1 << 20), open_files: Some(99), ..LimitSpec::default() },
        })
        .unwrap();
        let line = launch.argv.join(" ");
        assert!(!line.contains("s3cret") && !line.contains("secret2"), "{line}");
        let file = dir.path().join("container.env");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "KEY=s3cret\n");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(launch.env["PEM"], "-----BEGIN\nsecret2\n");
        assert!(
            line.contains(
                "--env PEM --env HF_TOKEN img:1 /bin/sh -ec pip install x\ntrue\nexec \"$@\" sh python a b.py"
            ),
            "{line}"
        );
        let place = dir.path().display();
        assert!(line.contains(&format!("--volume {place}:{place}")) && !line.contains("/nonexistent"));
        assert!(line.contains("--ulimit nofile=99:99") && line.contains("--cgroups=disabled"), "{line}");
        assert!(!line.contains("--memory"), "our own cgroup bounds it");
        assert_eq!(launch.container.name, "outlast-a-1");
        assert_eq!(launch.container.mark, dir.path().join("container.pid"));
    }

    #[test]
    fn docker_is_told_the_limits_and_the_user() {
        let req_env = BTreeMap::new();
        let limits = LimitSpec { memory_bytes: Some(5), cpus: Some(1.5), pids: Some(9), open_files: None };
        let req = ContainerRequest {
            image: "i",
            setup: &[],
            command: &[],
            workdir: Path::new("/w"),
            mounts: &[],
            env: &req_env,
            secrets: &[],
            base_env: &req_env,
            attempt_dir: Path::new("/a"),
            attempt_id: "a",
            pty: true,
            limits: &limits,
        };
        let facts = Facts {
            is_docker: true,
            below_us: false,
            has_init: true,
            has_gpu: true,
            has_queues: true,
            ceilings: (10, 20),
            user: (1000, 100),
        };
        let line = arguments(&req, &facts, "n", Path::new("/a/id"), Path::new("/a/env")).join(" ");
        for part in [
            "--memory 5b",
            "--cpus 1.5",
            "--pids-limit 9",
            "--user 1000:100",
            "--gpus all",
            "--init",
            "--tty",
            "--cidfile /a/id",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        let podman = Facts { is_docker: false, below_us: true, ..facts };
        let line = arguments(&req, &podman, "n", Path::new("/a/pid"), Path::new("/a/env")).join(" ");
        assert!(line.contains("--device nvidia.com/gpu=all") && !line.contains("--user"), "{line}");
    }

    #[test]
    fn a_machine_without_a_tool_says_what_to_install() {
        let (_dir, env) = machine(&[]);
        let error = tool(env.get("PATH")).err().unwrap().to_string();
        assert!(
            error.contains("neither podman nor docker") && error.contains("apt-get install -y podman"),
            "{error}"
        );
        let (_dir, env) = machine(&["docker"]);
        assert!(tool(env.get("PATH")).unwrap().is_docker);
        let (_dir, env) = machine(&["docker", "podman"]);
        assert!(!tool(env.get("PATH")).unwrap().is_docker, "podman is below our own process");
    }
}
