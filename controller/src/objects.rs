//! Which store holds the objects of this installation: a directory below its
//! own, or what `store.toml` names. That file belongs to the installation and
//! not to a project, so that no checkout can send anybody's checkpoints
//! elsewhere.
//!
//! A store is tried out before it is used for the first time, and is given a
//! mark, which is kept with its name: objects are found only where they were
//! put, so another store in its place is refused instead of being taken for
//! one that lost everything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifacts::store::FsStore;
use artifacts::store::own::{self, OwnStore};
use artifacts::store::remote::s3::S3ConfigError;
use artifacts::store::remote::{Patience, RemoteStore, probe};
use artifacts::store::trouble::Trouble;
use artifacts::{ObjectKey, Store, StoreError};

use crate::home::HomeError;

mod identity;
mod settings;
#[cfg(test)]
mod tests;

use identity::{Identity, Past, past};
use settings::{Chosen, choose};

/// The installation's own file.
pub const FILE: &str = "store.toml";

/// The directory of the store that needs no configuration.
const LOCAL: &str = "objects";

/// Where the name of the store in use is kept.
const NAME: &str = "store.name";

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file makes no sense.
    #[error("{path}: {problem}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A setting.
    #[error(transparent)]
    Setting(#[from] S3ConfigError),
    /// The store does not do what it must.
    #[error("the store {named}: {trouble}; {}", trouble.cure())]
    Trouble {
        /// Which store.
        named: String,
        /// What is wrong with it.
        trouble: Trouble,
    },
    /// Another store than the one that holds this installation's objects.
    #[error("the objects of this installation are in {before}, and {now} is to be used: {}", self.cure())]
    Moved {
        /// The store of before.
        before: String,
        /// The one named now.
        now: String,
    },
    /// It is where the store was, and is another.
    #[error("{why}; {}", self.cure())]
    Foreign {
        /// In words.
        why: String,
        /// How its owner says that it is right all the same.
        touch: String,
    },
    /// The local store, or one that failed after it was tried out.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data directory.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl ObjectsError {
    fn cure(&self) -> String {
        match self {
            Self::Moved { before, now } => format!(
                "set {FILE} back to {before}, or copy every object to {now}, those below `{}/` with them",
                own::SCOPE
            ),
            Self::Foreign { touch, .. } => {
                format!("bring the right one back; if all its objects are lost for good, {touch} says so")
            }
            Self::Trouble { trouble, .. } => trouble.cure().to_owned(),
            _ => format!("correct {FILE}"),
        }
    }
}

fn foreign(named: &str, mark: &ObjectKey) -> ObjectsError {
    let touch = format!("an object `{mark}` of any content");
    ObjectsError::Foreign { why: own::foreign(named, mark), touch }
}

fn emptied(named: &str) -> ObjectsError {
    let why = format!("{named} holds no objects, and the database of this installation names some");
    ObjectsError::Foreign { why, touch: "any one object".to_owned() }
}

/// Now, in milliseconds since 1970.
pub type NowMs<'a> = &'a (dyn Fn() -> u64 + Send + Sync);

/// Variables of the environment.
pub type Env<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// The store of this installation, tried out and marked if it is used for the
/// first time. Later starts ask nothing of one across the network: a controller
/// starts without a network, too. `rows`: whether the database names objects.
///
/// # Errors
/// Where it is set up wrongly, is another than before, or fails its trial.
pub async fn open(
    home: &Path,
    env: Env<'_>,
    now_ms: NowMs<'_>,
    rows: bool,
) -> Result<Arc<dyn Store>, ObjectsError> {
    let chosen = choose(home, env)?;
    let now = chosen.named();
    let (known, tried) = match past(home, &now, rows)? {
        Past::None => (None, false),
        Past::Same(mark) => (mark, true),
        // Under another name, and the same all the same.
        Past::Other(Identity { name, mark }) => match mark {
            Some(mark) if holds(&chosen, &mark).await => (Some(mark), true),
            _ => return Err(ObjectsError::Moved { before: name, now }),
        },
    };
    let store: Arc<dyn Store> = match &chosen {
        Chosen::Local(dir, _) => {
            match &known {
                // Before anything is made in a directory that may be the wrong one.
                Some(mark) if !dir.join(mark.as_str()).is_file() => {
                    return Err(foreign(&dir.display().to_string(), mark));
                }
                None if rows && !FsStore::holds_any(dir).unwrap_or(false) => {
                    return Err(emptied(&dir.display().to_string()));
                }
                _ => {}
            }
            Arc::new(directory(dir, known.is_some())?)
        }
        Chosen::Remote(store) => Arc::new(store.clone()),
    };
    let mark = match known {
        Some(mark) => mark,
        None => {
            let patience = Patience::of_a_person();
            let marked = async {
                if let (Chosen::Remote(store), false) = (&chosen, tried) {
                    try_out(&store.with_patience(patience.clone()), now_ms).await?;
                }
                set_up(&*store, &now, rows).await
            };
            // Somebody waits for the controller to start.
            let timed_out = |_| ObjectsError::Trouble { named: now.clone(), trouble: Trouble::TimedOut };
            tokio::time::timeout(patience.total, Box::pin(marked)).await.map_err(timed_out)??
        }
    };
    let id = mark.as_str().rsplit('/').next().unwrap_or_default().to_owned();
    Identity::write(home, &now, &id)?;
    Ok(Arc::new(OwnStore::new(store, mark, &now)))
}

/// The store in a directory. One that was in use and cannot be written to now
/// is read all the same: what it holds is wanted most while its disk dies.
fn directory(dir: &Path, in_use: bool) -> Result<FsStore, StoreError> {
    match FsStore::open(dir) {
        Err(error) if in_use => {
            let (what, cure) = local_problem(&error, dir);
            tracing::error!(what, cure, "the store of objects cannot be written to: it is only read");
            Ok(FsStore::to_read(dir))
        }
        other => other,
    }
}

/// Whether objects lie in a directory of this computer alone. What cannot be
/// read is told where the store is opened.
#[must_use]
pub fn is_local(home: &Path, env: Env<'_>) -> bool {
    matches!(choose(home, env), Ok(Chosen::Local(..)))
}

/// Whether the store has this mark; one that cannot be asked has not.
async fn holds(chosen: &Chosen, mark: &ObjectKey) -> bool {
    match chosen {
        Chosen::Local(dir, _) => dir.join(mark.as_str()).is_file(),
        Chosen::Remote(store) => {
            let store = store.with_patience(Patience::of_a_person());
            matches!(store.size(mark).await, Ok(Some(_)))
        }
    }
}

/// Marks a store that has no mark of this installation yet.
async fn set_up(store: &dyn Store, named: &str, rows: bool) -> Result<ObjectKey, ObjectsError> {
    if rows && !store.list("").await?.iter().any(|key| key.scope() != own::SCOPE) {
        return Err(emptied(named));
    }
    let id = own::new_id();
    let mark = own::mark(&id).map_err(|_| StoreError::BadPrefix(id.clone()))?;
    store.put_if_absent(&mark, id.as_bytes()).await?;
    Ok(mark)
}

async fn try_out(store: &RemoteStore, now_ms: NowMs<'_>) -> Result<(), ObjectsError> {
    let clock = || i64::try_from(now_ms()).unwrap_or(i64::MAX);
    let tried = Box::pin(probe::probe(store, &clock)).await;
    let trouble = |trouble| ObjectsError::Trouble { named: store.named().to_owned(), trouble };
    tried.map(|_| ()).map_err(trouble)
}

/// What is wrong with the store, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Which store.
    pub store: String,
    /// What is wrong and what to do about it; nothing if it is well.
    pub problem: Option<(String, String)>,
    /// What will soon be wrong.
    pub warning: Option<(String, String)>,
}

/// Tries the store out as if for the first time, and looks whether it is the
/// one of before. Needs no controller, disturbs none, and leaves nothing behind.
pub async fn diagnose(home: &Path, env: Env<'_>, now_ms: NowMs<'_>) -> Diagnosis {
    let chosen = match choose(home, env) {
        Ok(chosen) => chosen,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let what = format!("{error}{}", cause.unwrap_or_default());
            let store = home.join(FILE).display().to_string();
            // It is told beside the file's name.
            let what = what.strip_prefix(&store).map_or(&*what, |rest| rest.trim_start_matches([':', ' ']));
            let problem = Some((what.to_owned(), format!("correct {store}")));
            return Diagnosis { store, problem, warning: None };
        }
    };
    let named = match &chosen {
        Chosen::Local(dir, _) => dir.display().to_string(),
        Chosen::Remote(store) => store.named().to_owned(),
    };
    let problem = match is_ours(home, &chosen).await {
        Err(error) => Some(told(&error)),
        Ok(()) => match &chosen {
            Chosen::Remote(store) => {
                let store = store.with_patience(Patience::of_a_person());
                try_out(&store, now_ms).await.err().map(|error| told(&error))
            }
            Chosen::Local(dir, _) => {
                try_directory(home, dir).await.err().map(|error| local_problem(&error, dir))
            }
        },
    };
    let (mut problem, mut warning) = (problem, None);
    if let (Chosen::Local(dir, _), None) = (&chosen, &problem) {
        match scarce(FsStore::room(dir), dir) {
            Some((Scarce::Soon, told)) => warning = Some(told),
            Some((Scarce::Now, told)) => problem = Some(told),
            None => {}
        }
    }
    Diagnosis { store: named, problem, warning }
}

/// Room below which a few checkpoints more do not fit, and below which hardly
/// one pack does.
const LITTLE: u64 = 256 << 20;
const HARDLY_ANY: u64 = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scarce {
    Soon,
    Now,
}

/// Whether a directory's disk is nearly full, and what to do about it.
fn scarce(room: Option<u64>, dir: &Path) -> Option<(Scarce, (String, String))> {
    let room = room.filter(|room| *room < LITTLE)?;
    let how = if room < HARDLY_ANY { Scarce::Now } else { Scarce::Soon };
    let what = format!("its disk is nearly full: {} MiB are free", room >> 20);
    let dir = dir.display();
    let cure = format!(
        "free space on the disk that holds {dir}; `outlast tidy --dry-run` shows what checkpoints take, and what \
         machines save waits until there is room"
    );
    Some((how, (what, cure)))
}

fn told(error: &ObjectsError) -> (String, String) {
    let what = match error {
        ObjectsError::Trouble { trouble, .. } => trouble.to_string(),
        ObjectsError::Foreign { why, .. } => why.clone(),
        ObjectsError::Moved { before, now } => {
            format!("the objects of this installation are in {before}, and {now} is to be used")
        }
        other => other.to_string(),
    };
    (what, error.cure())
}

/// Whether it is the store of before, as far as it can be asked.
async fn is_ours(home: &Path, chosen: &Chosen) -> Result<(), ObjectsError> {
    let now = chosen.named();
    match past(home, &now, false)? {
        Past::None | Past::Same(None) => Ok(()),
        Past::Same(Some(mark)) => match chosen {
            Chosen::Local(dir, _) if !dir.join(mark.as_str()).is_file() => {
                Err(foreign(&dir.display().to_string(), &mark))
            }
            Chosen::Local(..) => Ok(()),
            Chosen::Remote(store) => {
                let store = store.with_patience(Patience::of_a_person());
                // What cannot be asked is told by the trial.
                match store.size(&mark).await {
                    Ok(None) => Err(foreign(&now, &mark)),
                    _ => Ok(()),
                }
            }
        },
        Past::Other(Identity { mark: Some(mark), .. }) if holds(chosen, &mark).await => Ok(()),
        Past::Other(Identity { name, .. }) => Err(ObjectsError::Moved { before: name, now }),
    }
}

async fn try_directory(home: &Path, dir: &Path) -> Result<(), StoreError> {
    let (had_home, had_dir) = (home.is_dir(), dir.is_dir());
    let tried = try_objects(dir).await;
    // Only what is empty goes: somebody may just begin to use it.
    let _ = fs::remove_dir(dir.join("probe"));
    if !had_dir && FsStore::holds_any(dir).is_ok_and(|any| !any) {
        let temporary = dir.join(".tmp");
        if fs::read_dir(&temporary).is_ok_and(|found| found.count() == 1) {
            let _ = fs::remove_file(temporary.join("lock"));
        }
        let _ = fs::remove_dir(temporary).and_then(|()| fs::remove_dir(dir));
        if !had_home {
            let _ = fs::remove_dir(home);
        }
    }
    tried
}

async fn try_objects(dir: &Path) -> Result<(), StoreError> {
    let store = FsStore::open(dir)?;
    let name: [u8; 8] = proto::pki::random().unwrap_or_default();
    let key = format!("probe/{:016x}", u64::from_be_bytes(name));
    let key = key.parse().map_err(|_| StoreError::BadPrefix(key.clone()))?;
    // Large enough to need blocks of its own.
    let bytes = vec![0x5a; 64 << 10];
    let put = store.put_if_absent(&key, &bytes).await.map(|_| ());
    let got = if put.is_ok() { store.get(&key, 0, bytes.len() as u64).await.map(|_| ()) } else { Ok(()) };
    let removed = store.delete(&key).await.map(|_| ());
    put.and(got).and(removed)
}

fn local_problem(error: &StoreError, dir: &Path) -> (String, String) {
    let dir = dir.display();
    let cure = match error {
        StoreError::Full(_) => format!("free space on the disk that holds {dir}"),
        StoreError::Io { source, .. } => match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => {
                format!(
                    "{dir} is read-only: look for errors of its disk in the kernel's log, then mount it writable"
                )
            }
            io::ErrorKind::PermissionDenied => format!("give {dir} to the user that the controller runs as"),
            _ => format!("check the disk that holds {dir}"),
        },
        _ => format!("check {dir}"),
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    (
        format!("{error}{}", cause.filter(|c| !error.to_string().ends_with(c.as_str())).unwrap_or_default()),
        cure,
    )
}
