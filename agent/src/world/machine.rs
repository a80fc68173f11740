//! The real machine: attempts are directories, programs belong to keepers,
//! checkpoints are files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lifecycle::spec::HealthSpec;
use lifecycle::{Exit, RunSpec};
use proto::v1;

use super::layout::AttemptDir;
use super::materialise::{self, Launch};
use super::publishing::{Publishing, Relief};
use super::{
    Cancelled, Candidate, Ended, Ending, Failed, Output, Piece, Prepared, Program, Published, Settlement,
    SharedGateway, Warned, Warning, World, Written,
};
use crate::background::Background;
use crate::evidence;
use crate::health::{Monitor, Places};
use crate::keeper::{ExitRecord, KeeperSpec};
use crate::notice::Wanted;
use crate::os;
use crate::outbox::{Disk, Files};
use crate::process::{KeeperClient, KeeperState, ProcessError};
use crate::secrets::Vault;
use crate::spool::{self, SpoolReader};

mod hangs;
mod kept;
mod warning;
mod watches;

use kept::Kept;
use watches::Watches;

/// A machine's files and processes.
pub struct Machine {
    /// Its id.
    pub id: String,
    /// Where environments are cached.
    pub cache: PathBuf,
    /// What programs inherit.
    pub base_env: BTreeMap<String, String>,
    state: PathBuf,
    readers: Mutex<BTreeMap<String, SpoolReader>>,
    publishing: Arc<Publishing>,
    /// What attempts were given to hide.
    pub(super) vault: Vault,
    /// Where publishing goes on; `None`: the system gives no thread, and it goes
    /// on where the rest does.
    background: Option<Background>,
    /// `None`: the system has no watches left.
    changes: OnceLock<Option<Watches>>,
}

impl Machine {
    /// The machine whose state directory this is.
    #[must_use]
    pub fn new(id: String, state: PathBuf, cache: PathBuf, base_env: BTreeMap<String, String>) -> Self {
        Self {
            id,
            cache,
            base_env,
            state,
            readers: Mutex::default(),
            publishing: Arc::default(),
            vault: Vault::default(),
            background: Background::start().inspect_err(|error| tracing::warn!(%error, "no background")).ok(),
            changes: OnceLock::new(),
        }
    }

    fn dir(&self, attempt: &str) -> AttemptDir {
        AttemptDir::new(&self.state, attempt)
    }

    fn keeper(&self, attempt: &str) -> KeeperClient {
        KeeperClient::new(self.dir(attempt).path().to_owned())
    }

    /// Publishes where that takes no time from the program.
    async fn aside(&self, publish: impl Future<Output = Published> + Send + 'static) -> Published {
        match &self.background {
            Some(background) => background.run(publish).await.unwrap_or_else(Published::Later),
            None => publish.await,
        }
    }
}

fn spec_of(work: &v1::Work) -> Option<RunSpec> {
    serde_json::from_str(&work.spec_json).ok()
}

/// What may take seconds is done where nothing else waits for it.
async fn blocking<E: std::fmt::Display + Send + 'static>(
    ask: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> Result<(), String> {
    match tokio::task::spawn_blocking(ask).await {
        Ok(asked) => asked.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn stream_of(output: Output) -> Option<spool::Stream> {
    match output {
        Output::Stdout => Some(spool::Stream::Stdout),
        Output::Stderr => Some(spool::Stream::Stderr),
        Output::Setup | Output::Evidence => None,
    }
}

fn ended_of(record: ExitRecord) -> Ended {
    Ended {
        exit: record.exit,
        at_ms: record.ended_ms,
        out_of_memory: record.oom.unwrap_or_default(),
        max_rss_bytes: record.max_rss_bytes.unwrap_or(0),
        oom_process: record.oom_process.map(|p| (p.pid, p.command)),
        unapplied_limits: record.unapplied_limits,
    }
}

fn read_file(path: &Path, offset: u64, max: usize) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::open(path)?;
    let mut bytes = vec![0; max];
    let n = file.read_at(&mut bytes, offset)?;
    bytes.truncate(n);
    Ok(bytes)
}

#[async_trait]
impl World for Machine {
    fn ending(&self) -> Option<Ending> {
        Some(Ending::new(&self.state))
    }

    fn held(&self) -> Vec<v1::Work> {
        let mut found = Vec::new();
        let Ok(entries) = std::fs::read_dir(self.state.join("attempts")) else { return Vec::new() };
        for entry in entries.filter_map(Result::ok).take(1_000) {
            let path = entry.path().join("work.json");
            let Ok(bytes) = os::read_bounded(&path, 1 << 20) else { continue };
            let Ok(kept) = serde_json::from_slice::<Kept>(&bytes) else {
                tracing::warn!(path = %path.display(), "an attempt's assignment cannot be read");
                continue;
            };
            found.push((kept.at_ms, kept.work()));
        }
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, work)| work).collect()
    }

    fn keep(&self, work: &v1::Work) -> io::Result<()> {
        let dir = self.dir(&work.attempt_id);
        os::make_private_dir(&self.state.join("attempts"))?;
        os::make_private_dir(dir.path())?;
        let kept = Kept::of(work, os::unix_ms());
        os::write_durable(&dir.work(), &serde_json::to_vec(&kept).unwrap_or_default())
    }

    fn entrust(&self, work: &v1::Work) {
        self.publishing.entrust(work);
        self.vault.entrust(work, &spec_of(work).map(|spec| spec.secrets).unwrap_or_default());
    }

    fn outbox(&self, attempt: &str) -> Option<PathBuf> {
        Some(self.dir(attempt).outbox())
    }

    fn disk(&self) -> Option<Box<dyn Disk>> {
        Some(Box::new(Files::default()))
    }

    async fn prepare(
        &self,
        work: v1::Work,
        gateway: SharedGateway,
        cancelled: Cancelled,
    ) -> Result<Prepared, Failed> {
        let dir = self.dir(&work.attempt_id);
        let prepared = materialise::prepare(&dir, self, &work, gateway, cancelled).await;
        // What a command of the set-up said last may name what it was given.
        let hidden = |failed: Failed| Failed {
            reason: self.vault.of(&work.attempt_id).hide(&failed.reason),
            ..failed
        };
        let prepared = prepared.map_err(hidden)?;
        if let Some(spec) = spec_of(&work) {
            let (publishing, attempt) = (self.publishing.clone(), work.attempt_id.clone());
            let listed =
                tokio::task::spawn_blocking(move || publishing.baseline(&dir, &attempt, &spec)).await;
            listed.map_err(|error| Failed { reason: error.to_string(), transient: true })?;
        }
        Ok(prepared)
    }

    async fn start(&self, work: v1::Work) -> Result<(), Failed> {
        let dir = self.dir(&work.attempt_id);
        let bad = |what: &str, e: &dyn std::fmt::Display| Failed {
            reason: format!("{what}: {e}"),
            transient: true,
        };
        let bytes = os::read_bounded(&dir.launch(), 4 << 20).map_err(|e| bad("how to start it", &e))?;
        let launch: Launch = serde_json::from_slice(&bytes).map_err(|e| bad("how to start it", &e))?;
        let spec = spec_of(&work);
        let names = spec.as_ref().map(|s| s.secrets.clone()).unwrap_or_default();
        let secrets = self.vault.wait(&work.attempt_id, &names, &Cancelled::default()).await?;
        let keeper = KeeperSpec {
            attempt_id: work.attempt_id.clone(),
            machine_id: self.id.clone(),
            argv: launch.argv,
            cwd: launch.cwd,
            env: launch.env,
            spool_bytes: spec.as_ref().map_or(0, |s| s.spool_bytes),
            grace_ms: work.grace_seconds * 1_000,
            limits: spec.as_ref().map(|s| s.limits.clone()).unwrap_or_default(),
            pty: spec.is_some_and(|s| s.pty),
            container: launch.container,
            secrets: None,
        };
        let state = self.state.clone();
        let path = dir.path().to_owned();
        tokio::task::spawn_blocking(move || KeeperClient::start_with(&state, &path, keeper, &secrets))
            .await
            .map_err(|e| bad("the keeper", &e))?
            .map_err(|e| Failed {
                transient: !matches!(e, ProcessError::Refused(_)),
                reason: format!("the keeper: {e}"),
            })
    }

    fn program(&self, attempt: &str) -> Program {
        match self.keeper(attempt).state() {
            KeeperState::NotStarted => Program::NotStarted,
            KeeperState::Starting => Program::Running(0),
            KeeperState::Running { child_pid } => match self.keeper(attempt).exit_seen() {
                Some(record) => Program::Exited(ended_of(record)),
                None => {
                    // Its keeper records its end at once, unless it stands still.
                    if self.keeper(attempt).live_child().is_none() {
                        self.keeper(attempt).wake();
                    }
                    Program::Running(child_pid)
                }
            },
            KeeperState::Exited(record) => Program::Ended(ended_of(record)),
            KeeperState::Vanished => {
                let reason = if self.keeper(attempt).is_of_another_boot() {
                    "the machine restarted while it ran: this is another boot".to_owned()
                } else {
                    "its keeper is gone and left no record (it was killed)".to_owned()
                };
                // What a killed keeper left running must not go on unseen.
                if let Err(error) = self.keeper(attempt).kill() {
                    tracing::debug!(%error, "nothing was left of a vanished attempt");
                }
                Program::Ended(Ended {
                    exit: Exit::Unknown { reason },
                    at_ms: 0,
                    out_of_memory: String::new(),
                    max_rss_bytes: 0,
                    oom_process: None,
                    unapplied_limits: Vec::new(),
                })
            }
        }
    }

    fn unapplied_limits(&self, attempt: &str) -> Vec<String> {
        let launch = os::read_bounded(&self.dir(attempt).launch(), 4 << 20).ok();
        let launch = launch.and_then(|bytes| serde_json::from_slice::<Launch>(&bytes).ok());
        let mut said = self.keeper(attempt).unapplied_limits();
        said.extend(launch.map(|launch| launch.lacking).unwrap_or_default());
        said
    }

    async fn stop(&self, attempt: &str, grace_ms: u64) -> bool {
        let keeper = self.keeper(attempt);
        let asked = blocking(move || keeper.stop(Duration::from_millis(grace_ms))).await;
        if let Err(error) = &asked {
            tracing::warn!(error, attempt, "the program could not be asked to end");
        }
        asked.is_ok()
    }

    async fn kill(&self, attempt: &str) -> bool {
        let keeper = self.keeper(attempt);
        let asked = blocking(move || keeper.kill()).await;
        if let Err(error) = &asked {
            tracing::warn!(error, attempt, "the program could not be ended");
        }
        asked.is_ok()
    }

    fn read(&self, attempt: &str, output: Output, offset: u64, max: usize) -> Piece {
        let dir = self.dir(attempt);
        let Some(stream) = stream_of(output) else {
            let file = if output == Output::Setup { dir.setup_log() } else { dir.evidence() };
            // The program may write there too; nobody takes more than the quota.
            let left =
                if output == Output::Setup { u64::MAX } else { evidence::QUOTA.saturating_sub(offset) };
            let max = usize::try_from(left).unwrap_or(max).min(max);
            return match read_file(&file, offset, max) {
                Ok(bytes) if !bytes.is_empty() => Piece::Bytes(bytes),
                _ => Piece::Nothing,
            };
        };
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = readers.entry(attempt.to_owned()).or_insert_with(|| SpoolReader::open(dir.path()));
        match reader.read(stream, offset, max) {
            Ok(spool::Piece::Bytes { bytes, .. }) => Piece::Bytes(bytes),
            Ok(spool::Piece::Gap { to, .. }) => Piece::Gap(to),
            Ok(spool::Piece::End) => Piece::Nothing,
            Err(error) => {
                tracing::warn!(%error, attempt, "output cannot be read");
                Piece::Nothing
            }
        }
    }

    fn written(&self, attempt: &str, output: Output, offset: u64) -> Written {
        let Some(stream) = stream_of(output) else { return Written::UNKNOWN };
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.get_mut(attempt).map_or(Written::UNKNOWN, |reader| reader.written(stream, offset))
    }

    fn release(&self, attempt: &str, output: Output, acked: u64) {
        let Some(stream) = stream_of(output) else { return };
        let dir = self.dir(attempt);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = readers.entry(attempt.to_owned()).or_insert_with(|| SpoolReader::open(dir.path()));
        if let Err(error) = reader.release(stream, acked) {
            tracing::warn!(%error, attempt, "acknowledged output could not be released");
        }
    }

    fn wants_notices(&self, work: &v1::Work) -> Option<Wanted> {
        warning::wanted(self, work)
    }

    async fn warn(&self, work: v1::Work, warning: Option<Warning>) -> Warned {
        warning::tell(self, work, warning).await
    }

    async fn ask_to_save(&self, work: v1::Work) -> usize {
        warning::ask(self, &work).await
    }

    fn remarks(&self, attempt: &str) -> Vec<String> {
        self.publishing.remarks(attempt)
    }

    fn standings(&self, attempt: &str) -> Vec<v1::CheckpointStanding> {
        self.publishing.standings(attempt)
    }

    async fn candidates(&self, work: v1::Work, last: bool) -> Vec<Candidate> {
        let Some(spec) = spec_of(&work) else { return Vec::new() };
        let dir = self.dir(&work.attempt_id);
        let publishing = self.publishing.clone();
        tokio::task::spawn_blocking(move || publishing.candidates(&dir, &work.attempt_id, &spec, last))
            .await
            .unwrap_or_default()
    }

    async fn publish(&self, work: v1::Work, candidate: Candidate, gateway: SharedGateway) -> Published {
        let Some(spec) = spec_of(&work) else { return Published::Refused("no description".into()) };
        let (dir, publishing) = (self.dir(&work.attempt_id), self.publishing.clone());
        let publish = async move { publishing.checkpoint(&dir, &work, &spec, &candidate, &gateway).await };
        Box::pin(self.aside(publish)).await
    }

    async fn publish_outputs(&self, work: v1::Work, gateway: SharedGateway) -> Published {
        let Some(spec) = spec_of(&work) else { return Published::Gone };
        let (dir, publishing) = (self.dir(&work.attempt_id), self.publishing.clone());
        let publish = async move { publishing.outputs(&dir, &work, &spec, &gateway).await };
        Box::pin(self.aside(publish)).await
    }

    async fn settle(&self, work: v1::Work, gateway: SharedGateway, fresh: bool) -> Settlement {
        self.publishing.settle(&self.dir(&work.attempt_id), &work, &gateway, fresh).await
    }

    async fn close(&self, work: v1::Work, gateway: SharedGateway) {
        self.publishing.close(&self.dir(&work.attempt_id), &work, &gateway).await;
    }

    fn forget(&self, attempt: &str) {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).remove(attempt);
        self.publishing.forget(attempt);
        self.vault.forget(attempt);
        let dir = self.dir(attempt);
        if let Err(error) = std::fs::remove_dir_all(dir.path())
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, attempt, "an attempt's directory could not be removed");
        }
    }

    fn free(&self) -> (u64, u64) {
        let memory = sysinfo::System::new().map_or(0, |mut system| {
            system.refresh_memory();
            system.available_memory()
        });
        (os::free_disk(&self.state), memory)
    }

    fn monitor(&self) -> Option<Monitor> {
        let places = Places { state: self.state.clone(), cache: self.cache.clone(), extra: Vec::new() };
        Some(Monitor::new(places, &HealthSpec::default()))
    }

    fn directory(&self, attempt: &str) -> Option<AttemptDir> {
        Some(self.dir(attempt))
    }

    fn relieve(&self, work: &v1::Work, filling_per_s: f64) -> Relief {
        let Some(spec) = spec_of(work) else { return Relief::default() };
        let dir = self.dir(&work.attempt_id);
        self.publishing.relieve_with(&dir, &work.attempt_id, &spec, filling_per_s, (&self.cache, &self.state))
    }

    fn hangs_again(&self, work: &v1::Work, durable: Option<u64>) -> bool {
        hangs::again(&self.state, work, durable)
    }

    fn tells_changes(&self, attempts: &[&str]) -> bool {
        let Some(watches) = self.changes.get_or_init(Watches::begin) else { return false };
        // The spool comes with the keeper.
        attempts.iter().all(|attempt| {
            let dir = self.dir(attempt);
            watches.any.watch(dir.path())
                && watches.any.watch(&spool::spool_dir(dir.path()))
                && watches.records.watch(dir.path())
        })
    }

    async fn changed(&self) {
        match self.changes.get() {
            Some(Some(watches)) => watches.any.changed().await,
            _ => std::future::pending().await,
        }
    }

    async fn exited(&self) {
        match self.changes.get() {
            Some(Some(watches)) => watches.records.changed().await,
            _ => std::future::pending().await,
        }
    }

    fn guard(&self) -> Option<&Path> {
        Some(&self.state)
    }
}
