//! Machines that are process trees on this very host: each is a directory
//! `<root>/<machine_id>/` and everything that carries its marker.
//!
//! What a machine's processes wrote into their directory is never trusted:
//! whom to kill is decided by the marker in the environment and by the cgroup,
//! not by a file. Absence is only reported when nothing of a machine is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use lifecycle::meter::Rates;

use super::{
    CreateOutcome, CreateRequest, DestroyOutcome, Idempotency, Instance, InstanceState, Listing, Presence,
    Provider, Reach,
};

mod boot;
mod cgroup;
mod directory;
mod market;
mod processes;

use directory::Directory;

/// The environment variable that every process of a machine carries.
const MARKER: &str = "OUTLAST_MACHINE_ID";
/// The longest first-boot script taken.
const MAX_USER_DATA: usize = 256 << 10;

/// What a [`LocalProvider`] needs to know.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Where the machines' directories are.
    pub root: PathBuf,
    /// What an hour of this host is worth.
    pub usd_per_hour: f64,
}

/// A [`Provider`] of process trees on this host.
#[derive(Debug, Clone)]
pub struct LocalProvider {
    config: Arc<LocalConfig>,
}

impl LocalProvider {
    /// A provider for one root; nothing is made until it is needed.
    #[must_use]
    pub fn new(config: LocalConfig) -> Self {
        Self { config: Arc::new(config) }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Result<T, String> {
        let config = self.config.clone();
        let done = tokio::task::spawn_blocking(move || work(&config.root)).await;
        done.map_err(|error| format!("the work on the local machine did not end: {error}"))
    }
}

/// Machines of this computer have its own time.
fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn marker(id: &str) -> String {
    format!("{MARKER}={id}")
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}

fn create(root: &Path, request: &CreateRequest) -> CreateOutcome {
    let rejected = |reason: String| CreateOutcome::rejected(reason);
    if !cfg!(target_os = "linux") {
        return rejected("local machines need Linux: add another provider".into());
    }
    if !is_machine_id(&request.machine_id) {
        return rejected("the machine id is not 26 characters of a-z and 2-7".into());
    }
    if request.user_data.len() > MAX_USER_DATA || request.user_data.contains('\0') {
        return rejected(format!("the first-boot script is binary or above {MAX_USER_DATA} bytes"));
    }
    let unknown = |reason: String| CreateOutcome::Unknown { reason };
    let directory = Directory::new(root, &request.machine_id);
    let _lock = match directory::lock(root, true) {
        Ok(lock) => lock,
        Err(error) => return rejected(format!("cannot use {}: {error}", root.display())),
    };
    if directory.exists() {
        match directory.label() {
            Ok(label) if label == request.label => {}
            Ok(label) => return rejected(format!("the name is taken by a machine labelled `{label}`")),
            Err(error) => return unknown(format!("a machine of this name exists, but {error}")),
        }
        // Something was started here before: a join secret works once, so a
        // boot is never begun a second time.
        if directory.boot().is_some() || !processes::marked(&marker(&request.machine_id)).is_empty() {
            return CreateOutcome::Created { instance: request.machine_id.clone() };
        }
        if let Err(error) = directory.write_script(&request.user_data) {
            return unknown(format!("cannot write the first-boot script: {error}"));
        }
    } else if let Err(error) = directory.make(&request.label, &request.user_data) {
        return rejected(format!("cannot make the machine's directory: {error}"));
    }
    match boot::start(&directory) {
        Ok(()) => CreateOutcome::Created { instance: request.machine_id.clone() },
        Err(error) => unknown(format!("the machine did not boot: {error}")),
    }
}

fn state(directory: &Directory) -> InstanceState {
    let alive = |of: Option<processes::Stamp>| of.is_some_and(|stamp| processes::alive(&stamp));
    // An agent whose guard was killed goes on, and so does the machine: its
    // link may break for a moment without an end of anything.
    if alive(directory.guard()) || directory.agents().iter().any(processes::alive) {
        InstanceState::Up
    } else if alive(directory.boot()) {
        InstanceState::Booting
    } else {
        InstanceState::Terminal
    }
}

fn get(root: &Path, id: &str) -> Presence {
    if !is_machine_id(id) {
        return Presence::Error("this is no name of a local machine".into());
    }
    // Held so that a machine half made is not seen as one that ended.
    let _lock = match directory::lock(root, false) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Presence::Absent,
        Err(error) => return Presence::Error(format!("cannot use {}: {error}", root.display())),
    };
    let directory = Directory::new(root, id);
    if directory.exists() {
        Presence::Present(state(&directory))
    } else if processes::marked(&marker(id)).is_empty() {
        Presence::Absent
    } else {
        // Its directory was taken away, its processes go on.
        Presence::Present(InstanceState::Terminal)
    }
}

fn list(root: &Path, prefix: &str) -> Listing {
    let _lock = match directory::lock(root, false) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Listing::Complete(Vec::new()),
        Err(error) => return Listing::Error(format!("cannot use {}: {error}", root.display())),
    };
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) => return Listing::Error(format!("cannot list {}: {error}", root.display())),
    };
    let (mut found, mut whole) = (Vec::new(), true);
    for entry in entries {
        let Ok(entry) = entry else {
            whole = false;
            continue;
        };
        let Some(id) = entry.file_name().to_str().filter(|name| is_machine_id(name)).map(str::to_owned)
        else {
            continue;
        };
        let directory = Directory::new(root, &id);
        match directory.label() {
            Ok(label) if label.starts_with(prefix) => {
                let state = state(&directory);
                found.push(Instance { id, label, state });
            }
            Ok(_) => {}
            Err(_) => whole = false,
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    if whole { Listing::Complete(found) } else { Listing::Partial(found) }
}

fn destroy(root: &Path, id: &str) -> DestroyOutcome {
    if !is_machine_id(id) {
        return DestroyOutcome::Unknown("this is no name of a local machine".into());
    }
    let directory = Directory::new(root, id);
    let existed = directory.exists();
    let killed = match processes::end(&marker(id), &cgroup::of(id, directory.cgroup())) {
        Ok(killed) => killed,
        Err(left) => return DestroyOutcome::Unknown(format!("processes do not end: {left}")),
    };
    cgroup::remove(&cgroup::of(id, directory.cgroup()));
    if let Err(error) = directory.erase() {
        return DestroyOutcome::Unknown(format!("cannot remove the machine's directory: {error}"));
    }
    if existed || killed > 0 { DestroyOutcome::Accepted } else { DestroyOutcome::Absent }
}

#[async_trait]
impl Provider for LocalProvider {
    fn name(&self) -> &'static str {
        "local"
    }

    fn reach(&self) -> Reach {
        Reach::MachineDials
    }

    fn capabilities(&self) -> super::Capabilities {
        // Nobody takes it, bills it or copies it.
        super::Capabilities::default()
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::ClientChosenName
    }

    fn usd_per_hour(&self) -> f64 {
        self.config.usd_per_hour
    }

    fn settle_window_ms(&self) -> u64 {
        1_000
    }

    async fn prepare(&self, request: &CreateRequest) -> Result<Option<Rates>, CreateOutcome> {
        let Some(market) = &request.machine.played else { return Ok(None) };
        market::admits(market, request.max_usd_per_hour, wall_ms()).map(|usd| Some(Rates::flat(usd)))
    }

    async fn create(&self, request: &CreateRequest) -> CreateOutcome {
        let mut request = request.clone();
        if let Some(market) = &request.machine.played {
            let now = wall_ms();
            if let Err(rejected) = market::admits(market, request.max_usd_per_hour, now) {
                return rejected;
            }
            request.user_data = market::boot(market, &request.machine_id, &request.user_data, now);
        }
        let done = self.blocking(move |root| create(root, &request)).await;
        done.unwrap_or_else(|reason| CreateOutcome::Unknown { reason })
    }

    async fn last_words(&self, instance: &str) -> Option<String> {
        let id = instance.to_owned();
        let read =
            move |root: &Path| is_machine_id(&id).then(|| Directory::new(root, &id).last_words()).flatten();
        self.blocking(read).await.ok().flatten()
    }

    async fn list(&self, label_prefix: &str) -> Listing {
        let prefix = label_prefix.to_owned();
        self.blocking(move |root| list(root, &prefix)).await.unwrap_or_else(Listing::Error)
    }

    async fn get(&self, instance: &str) -> Presence {
        let id = instance.to_owned();
        self.blocking(move |root| get(root, &id)).await.unwrap_or_else(Presence::Error)
    }

    async fn destroy(&self, instance: &str) -> DestroyOutcome {
        let id = instance.to_owned();
        self.blocking(move |root| destroy(root, &id)).await.unwrap_or_else(DestroyOutcome::Unknown)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
