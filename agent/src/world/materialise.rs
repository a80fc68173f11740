//! Makes the files an attempt needs: source, results of the attempts before,
//! the newest checkpoint that verifies, the environment. Every step can be
//! repeated after a crash; nothing half-made is ever taken for whole.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use artifacts::glob::{Glob, GlobError, GlobSet};
use artifacts::restore::{self, RestoreError};
use artifacts::{Digest, Manifest, ObjectKey};
use lifecycle::RunSpec;
use lifecycle::spec::RestoreMode;
use proto::v1;
use serde::{Deserialize, Serialize};

use super::layout::AttemptDir;
use super::{Cancelled, Failed, Prepared, Restored, SharedGateway};
use crate::environment::{self, ContainerRequest, EnvironmentRequest};
use crate::keeper::ContainerRef;
use crate::os;
use crate::secrets::Values;

/// How the program is to be started; kept until it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Where it runs.
    pub cwd: PathBuf,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// The container that the program starts, if it does.
    #[serde(default)]
    pub container: Option<ContainerRef>,
    /// What of its description this machine cannot do, a sentence each.
    #[serde(default)]
    pub lacking: Vec<String>,
}

fn failed(what: &str, error: impl std::fmt::Display, transient: bool) -> Failed {
    Failed { reason: format!("{what}: {error}"), transient }
}

fn restore_failed(what: &str, error: &RestoreError) -> Failed {
    let transient =
        matches!(error, RestoreError::Remote(_) | RestoreError::Full(_) | RestoreError::Io { .. });
    failed(what, error, transient)
}

async fn manifest(
    gateway: &SharedGateway,
    work: &v1::Work,
    at: &v1::ManifestRef,
) -> Result<Manifest, RestoreError> {
    let key: ObjectKey = at.key.parse().map_err(|_| RestoreError::Remote("no object key".into()))?;
    let digest: Digest = at.digest.parse().map_err(|_| RestoreError::Remote("no digest".into()))?;
    gateway.tree(work, &key, digest).await
}

/// Everything, in order.
///
/// # Errors
/// What failed, and whether another try may help.
pub async fn prepare(
    dir: &AttemptDir,
    machine: &super::machine::Machine,
    work: &v1::Work,
    gateway: SharedGateway,
    cancelled: Cancelled,
) -> Result<Prepared, Failed> {
    let spec: RunSpec =
        serde_json::from_str(&work.spec_json).map_err(|e| failed("the run's description", e, false))?;
    source(dir, work, &gateway).await?;
    let mut prepared =
        Prepared { restored: None, environment_cached: false, condemned: Vec::new(), notes: Vec::new() };
    if let Some(outputs) = &work.outputs {
        let tree =
            manifest(&gateway, work, outputs).await.map_err(|e| restore_failed("earlier results", &e))?;
        restore::restore_over(&*gateway, &tree, &dir.source())
            .await
            .map_err(|e| restore_failed("earlier results", &e))?;
    }
    let resume_path = resume(dir, work, &spec, &gateway, &mut prepared).await?;
    for path in [dir.checkpoints(), dir.outputs(), dir.notice()] {
        std::fs::create_dir_all(&path).map_err(|e| failed("a directory of the contract", e, true))?;
    }
    let secrets = machine.vault.wait(&work.attempt_id, &spec.secrets, &cancelled).await?;
    let data = data(dir, machine, work, &spec, (&gateway, &cancelled), &secrets).await?;
    let with = With { secrets: &secrets, data, resume: resume_path };
    let launch = environment(dir, machine, work, &spec, with, cancelled, &mut prepared).await?;
    let bytes = serde_json::to_vec(&launch).map_err(|e| failed("how to start it", e, false))?;
    os::write_durable(&dir.launch(), &bytes).map_err(|e| failed("how to start it", e, true))?;
    if spec.artifacts.is_empty() && spec.checkpoints.paths.is_empty() {
        prepared.notes.push(
            "protected: $OUTLAST_CHECKPOINT_DIR and $OUTLAST_OUTPUT_DIR; name other files in [checkpoints] paths or [artifacts] globs"
                .into(),
        );
    }
    Ok(prepared)
}

async fn source(dir: &AttemptDir, work: &v1::Work, gateway: &SharedGateway) -> Result<(), Failed> {
    if dir.source().exists() {
        // Restored whole by an agent before this one: the rename was last.
        return Ok(());
    }
    let at = work.source.as_ref().ok_or_else(|| failed("the source tree", "none is named", false))?;
    let tree = manifest(gateway, work, at).await.map_err(|e| restore_failed("the source tree", &e))?;
    restore::restore(&**gateway, &tree, &dir.source())
        .await
        .map_err(|e| restore_failed("the source tree", &e))?;
    Ok(())
}

/// The globs under which a program saves inside its source tree.
///
/// # Errors
/// Where one is no glob.
pub fn save_globs(spec: &RunSpec) -> Result<GlobSet, GlobError> {
    spec.checkpoints.paths.iter().map(|glob| Glob::new(glob)).collect()
}

/// Where in the source tree a checkpoint of this tree belongs, if it was
/// saved there: the first path prefix that the globs name.
fn place_in_source(tree: &Manifest, globs: &GlobSet) -> Option<String> {
    let path = &tree.entries.first()?.path;
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end]).find(|prefix| globs.is_match(prefix)).map(str::to_owned)
}

async fn resume(
    dir: &AttemptDir,
    work: &v1::Work,
    spec: &RunSpec,
    gateway: &SharedGateway,
    prepared: &mut Prepared,
) -> Result<Option<PathBuf>, Failed> {
    let globs = save_globs(spec).map_err(|e| failed("[checkpoints] paths", e, false))?;
    for offer in &work.resume {
        let begun = Instant::now();
        let restored = match manifest(gateway, work, offer).await {
            Ok(tree) => restore_one(dir, spec, &tree, &globs, gateway).await.map(|path| (path, tree)),
            Err(error) => Err(error),
        };
        match restored {
            Ok((path, tree)) => {
                prepared.restored = Some(Restored {
                    key: offer.key.clone(),
                    step: tree.step,
                    bytes: tree.total_bytes(),
                    took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                });
                return Ok(Some(path));
            }
            Err(
                error @ (RestoreError::Corrupt { .. }
                | RestoreError::Missing { .. }
                | RestoreError::Manifest(_)),
            ) => {
                let detail = error.to_string();
                gateway.condemn(work, &offer.key, &detail).await;
                prepared
                    .notes
                    .push(format!("checkpoint {} does not verify and is passed over: {detail}", offer.key));
                prepared.condemned.push((offer.key.clone(), detail));
            }
            // A checkpoint of a later version is whole: to pass it over would
            // be to train from an older step, or from none.
            Err(error) => return Err(restore_failed("the newest checkpoint", &error)),
        }
    }
    Ok(None)
}

async fn restore_one(
    dir: &AttemptDir,
    spec: &RunSpec,
    tree: &Manifest,
    globs: &GlobSet,
    gateway: &SharedGateway,
) -> Result<PathBuf, RestoreError> {
    let place = place_in_source(tree, globs);
    let in_place = match spec.checkpoints.restore {
        RestoreMode::InPlace | RestoreMode::Auto => true,
        RestoreMode::Variable => false,
    };
    let io = |source: std::io::Error| RestoreError::Io { what: "the resume directory".into(), source };
    if let (true, Some(place)) = (in_place, &place) {
        restore::restore_over(&**gateway, tree, &dir.source()).await?;
        return Ok(dir.source().join(place));
    }
    // What a try that was cut short has fetched is gone on from; nothing else
    // that lies here is believed.
    let target = dir.resume();
    std::fs::create_dir_all(&target).map_err(io)?;
    clear(&target, restore::is_unfinished).map_err(io)?;
    let name = if tree.name.is_empty() { "checkpoint" } else { tree.name.as_str() };
    let path = target.join(name);
    restore::restore(&**gateway, tree, &path).await?;
    clear(&target, |found| found == name).map_err(io)?;
    Ok(place.map_or(path.clone(), |place| path.join(place)))
}

/// Removes all of a directory but these names.
fn clear(dir: &Path, keep: impl Fn(&str) -> bool) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&keep) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What the environment has beside its description.
struct With<'a> {
    secrets: &'a Values,
    /// Where fetched repositories are.
    data: BTreeMap<String, String>,
    resume: Option<PathBuf>,
}

/// What `[data]` names; the variables that say where it is.
async fn data(
    dir: &AttemptDir,
    machine: &super::machine::Machine,
    work: &v1::Work,
    spec: &RunSpec,
    (gateway, cancelled): (&SharedGateway, &Cancelled),
    secrets: &Values,
) -> Result<BTreeMap<String, String>, Failed> {
    if spec.data.is_empty() {
        return Ok(BTreeMap::new());
    }
    let log = Mutex::new(setup_log(dir)?);
    let tell = move |text: &str| {
        // The log is for people; a full disk is told by what fills it.
        let _ = writeln!(log.lock().unwrap_or_else(PoisonError::into_inner), "data: {text}");
    };
    let mut env = machine.base_env.clone();
    env.extend(spec.env.clone());
    let job = crate::data::Job {
        work,
        spec: &spec.data,
        cache: &machine.cache,
        hf_home: &dir.hf_home(),
        source: &dir.source(),
        env: &env,
        secrets,
        gateway: gateway.clone(),
        cancelled: cancelled.clone(),
        tell: Arc::new(tell),
    };
    Box::pin(crate::data::fetch(&job)).await
}

fn setup_log(dir: &AttemptDir) -> Result<File, Failed> {
    let opened = OpenOptions::new().create(true).append(true).open(dir.setup_log());
    opened.map_err(|e| failed("the set-up log", e, true))
}

async fn environment(
    dir: &AttemptDir,
    machine: &super::machine::Machine,
    work: &v1::Work,
    spec: &RunSpec,
    With { secrets, data, resume }: With<'_>,
    cancelled: Cancelled,
    prepared: &mut Prepared,
) -> Result<Launch, Failed> {
    let mut base = machine.base_env.clone();
    base.insert("PYTHONUNBUFFERED".into(), "1".into());
    base.extend(data);
    let mut log = setup_log(dir)?;
    let (source, cache) = (dir.source(), machine.cache.clone());
    let (environment, id, mut env) = (spec.environment.clone(), machine.id.clone(), base.clone());
    // For what is run here and now; how the program is started is kept on a disk.
    env.extend(secrets.variables().map(|(name, value)| (name.to_owned(), value.to_owned())));
    let built = tokio::task::spawn_blocking(move || {
        let request = EnvironmentRequest {
            source_dir: &source,
            cache_dir: &cache,
            spec: &environment,
            base_env: &env,
            machine_id: &id,
        };
        let mut output = |bytes: &[u8]| {
            // The log is for people; a full disk ends the build by itself.
            let _ = log.write_all(bytes);
        };
        environment::prepare(&request, &mut output, &|| cancelled.load(Ordering::Relaxed))
    })
    .await
    .map_err(|e| failed("the environment", e, true))?
    .map_err(|e| failed("the environment", &e, e.is_retryable()))?;
    prepared.environment_cached = built.cached;
    let is_contained = !spec.environment.image.is_empty();
    // What is good for this machine's own programs says nothing in an image.
    let mut env = if is_contained { BTreeMap::new() } else { base.clone() };
    if is_contained {
        let known = ["PYTHONUNBUFFERED", "HF_HOME", "HF_HUB_CACHE"];
        env.extend(known.iter().filter_map(|name| Some(((*name).to_owned(), base.get(*name)?.clone()))));
    } else {
        env.extend(built.env);
    }
    env.retain(|name, _| secrets.get(name).is_none());
    env.extend(spec.env.clone());
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let resume_text = resume.as_deref().map(text).unwrap_or_default();
    let contract = [
        ("OUTLAST_RUN_ID", work.run_id.clone()),
        (crate::keeper::ATTEMPT_MARKER, work.attempt_id.clone()),
        ("OUTLAST_GENERATION", work.generation.to_string()),
        ("OUTLAST_CHECKPOINT_DIR", text(&dir.checkpoints())),
        ("OUTLAST_RESUME_FROM", resume_text.clone()),
        ("OUTLAST_OUTPUT_DIR", text(&dir.outputs())),
        ("OUTLAST_NOTICE_FILE", text(&dir.notice_file())),
        (crate::keeper::MACHINE_MARKER, machine.id.clone()),
    ];
    env.extend(contract.map(|(name, value)| (name.to_owned(), value)));
    let mut argv = spec.command.clone();
    if resume.is_some() {
        argv.extend(spec.checkpoints.resume_args.iter().map(|arg| arg.replace("{path}", &resume_text)));
    }
    let cwd = dir.source().join(&spec.workdir);
    if is_contained {
        return contained(dir, spec, &work.attempt_id, &base, (argv, cwd, env));
    }
    Ok(Launch { argv, cwd, env, container: None, lacking: Vec::new() })
}

/// The same program in a container of its image, with the directories of the
/// contract where they are outside.
fn contained(
    dir: &AttemptDir,
    spec: &RunSpec,
    attempt_id: &str,
    base_env: &BTreeMap<String, String>,
    (command, workdir, env): (Vec<String>, PathBuf, BTreeMap<String, String>),
) -> Result<Launch, Failed> {
    let mounts = [dir.source(), dir.checkpoints(), dir.resume(), dir.notice(), dir.hf_home()];
    let launch = environment::contain(&ContainerRequest {
        image: &spec.environment.image,
        setup: &spec.environment.setup,
        command: &command,
        workdir: &workdir,
        mounts: &mounts,
        env: &env,
        secrets: &spec.secrets,
        base_env,
        attempt_dir: dir.path(),
        attempt_id,
        pty: spec.pty,
        limits: &spec.limits,
    })
    .map_err(|e| failed("the container", &e, e.is_retryable()))?;
    let (argv, env, lacking) = (launch.argv, launch.env, launch.lacking);
    Ok(Launch { argv, cwd: workdir, env, container: Some(launch.container), lacking })
}

#[cfg(test)]
mod tests;
