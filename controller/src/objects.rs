//! Which store holds the objects of this installation: a directory below its
//! own, or what `store.toml` names. That file belongs to the installation and
//! not to a project, so that no checkout can send anybody's checkpoints
//! elsewhere.
//!
//! A store is tried out before it is used for the first time, and its name is
//! kept: objects are found only where they were put, so another store in its
//! place is refused instead of being taken for one that lost everything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifacts::store::FsStore;
use artifacts::store::remote::s3::{self, Credentials, S3Config, S3ConfigError};
use artifacts::store::remote::{Patience, RemoteStore, Writes, probe};
use artifacts::store::trouble::Trouble;
use artifacts::{Store, StoreError};
use serde::Deserialize;

use crate::home::{HomeError, write_file};

/// The installation's own file.
pub const FILE: &str = "store.toml";

/// The directory of the store that needs no configuration.
const LOCAL: &str = "objects";

/// Where the name of the store in use is kept.
const NAME: &str = "store.name";

/// No file of settings is longer.
const LONGEST: u64 = 64 << 10;

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
    #[error(
        "the objects of this installation are in {before}, and {FILE} names {now}: set it back, or copy every object \
         and remove {NAME}"
    )]
    Moved {
        /// The store of before.
        before: String,
        /// The one named now.
        now: String,
    },
    /// The local store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data directory.
    #[error(transparent)]
    Home(#[from] HomeError),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    store: Section,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Section {
    Local,
    S3(S3Section),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct S3Section {
    bucket: String,
    #[serde(default)]
    prefix: String,
    #[serde(default = "usual_region")]
    region: String,
    endpoint: Option<String>,
    path_style: Option<bool>,
    ca_file: Option<PathBuf>,
    credentials_file: Option<PathBuf>,
    #[serde(default)]
    allow_http: bool,
    #[serde(default)]
    accept_overwrites: bool,
}

fn usual_region() -> String {
    "us-east-1".into()
}

/// A store that is set up and perhaps not there.
enum Chosen {
    Local(PathBuf),
    Remote(RemoteStore),
}

impl Chosen {
    fn named(&self) -> String {
        match self {
            Self::Local(_) => LOCAL.to_owned(),
            Self::Remote(store) => store.named().to_owned(),
        }
    }
}

fn read_text(path: &Path) -> Result<Option<String>, ObjectsError> {
    let failed = |source| ObjectsError::Io { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(meta) if !meta.is_file() || meta.len() > LONGEST => {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(failed)
}

fn choose(home: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Chosen, ObjectsError> {
    let path = home.join(FILE);
    let Some(text) = read_text(&path)? else { return Ok(Chosen::Local(home.join(LOCAL))) };
    let parsed: Result<File, _> = toml::from_str(&text);
    // The message of the parser quotes the line, which names files and no
    // secrets: there is no setting for one.
    let file = parsed.map_err(|error| ObjectsError::Malformed { path, problem: error.to_string() })?;
    let Section::S3(section) = file.store else { return Ok(Chosen::Local(home.join(LOCAL))) };
    let credentials = match &section.credentials_file {
        Some(file) => Credentials::from_file(&home.join(file))?,
        None => Credentials::from_env(env)?,
    };
    let ca_pem = match section.ca_file.map(|file| home.join(file)) {
        Some(path) => Some(fs::read(&path).map_err(|source| ObjectsError::Io { path, source })?),
        None => None,
    };
    let config = S3Config {
        bucket: section.bucket,
        prefix: section.prefix,
        region: section.region,
        // Names with a dot in them fit no certificate in front of an address.
        path_style: section.path_style.unwrap_or(section.endpoint.is_some()),
        endpoint: section.endpoint,
        ca_pem,
        allow_http: section.allow_http,
        writes: if section.accept_overwrites { Writes::Overwriting } else { Writes::CreateOnly },
        credentials,
        patience: Patience::default(),
        page: 1000,
    };
    Ok(Chosen::Remote(s3::open(config)?))
}

/// The store of this installation, tried out if it is used for the first time.
/// Later starts ask nothing of it: a controller starts without a network, too.
///
/// # Errors
/// Where it is set up wrongly, is another than before, or fails its trial.
pub async fn open(
    home: &Path,
    env: &(dyn Fn(&str) -> Option<String> + Sync),
    now_ms: u64,
) -> Result<Arc<dyn Store>, ObjectsError> {
    let chosen = choose(home, env)?;
    let (now, path) = (chosen.named(), home.join(NAME));
    let before = read_text(&path)?.map(|text| text.trim().to_owned());
    // An installation from before the name was kept has a directory.
    let before = before.or_else(|| home.join(LOCAL).is_dir().then(|| LOCAL.to_owned()));
    if let Some(before) = before.as_ref().filter(|before| **before != now) {
        return Err(ObjectsError::Moved { before: before.clone(), now });
    }
    let store: Arc<dyn Store> = match chosen {
        Chosen::Local(dir) => Arc::new(FsStore::open(dir)?),
        Chosen::Remote(store) => {
            if before.is_none() {
                let tried = Box::pin(probe::probe(&store, clock(now_ms))).await;
                tried.map_err(|trouble| ObjectsError::Trouble { named: now.clone(), trouble })?;
            }
            Arc::new(store)
        }
    };
    if before.is_none() {
        write_file(&path, now.as_bytes(), 0o600)?;
    }
    Ok(store)
}

fn clock(now_ms: u64) -> i64 {
    i64::try_from(now_ms).unwrap_or(i64::MAX)
}

/// What is wrong with the store, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Which store.
    pub store: String,
    /// What is wrong and what to do about it; nothing if it is well.
    pub problem: Option<(String, String)>,
}

/// Tries the store out as if for the first time. Needs no controller, and
/// disturbs none.
pub async fn diagnose(home: &Path, env: &(dyn Fn(&str) -> Option<String> + Sync), now_ms: u64) -> Diagnosis {
    let chosen = match choose(home, env) {
        Ok(chosen) => chosen,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let what = format!("{error}{}", cause.unwrap_or_default());
            let cure = format!("correct {}", home.join(FILE).display());
            return Diagnosis { store: home.join(FILE).display().to_string(), problem: Some((what, cure)) };
        }
    };
    match chosen {
        Chosen::Remote(store) => {
            let tried = Box::pin(probe::probe(&store, clock(now_ms))).await;
            let problem = tried.err().map(|trouble| (trouble.to_string(), trouble.cure().to_owned()));
            Diagnosis { store: store.named().to_owned(), problem }
        }
        Chosen::Local(dir) => {
            let problem = try_directory(&dir).await.err().map(|error| local_problem(&error, &dir));
            Diagnosis { store: dir.display().to_string(), problem }
        }
    }
}

async fn try_directory(dir: &Path) -> Result<(), StoreError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn keys(name: &str) -> Option<String> {
        name.starts_with("AWS_").then(|| "a-secret".to_owned())
    }

    async fn refused(home: &Path, env: fn(&str) -> Option<String>) -> String {
        let error = open(home, &env, 0).await.err().expect("refused");
        let told = diagnose(home, &env, 0).await;
        if !matches!(error, ObjectsError::Moved { .. }) {
            assert!(told.problem.is_some(), "{error}");
        }
        assert!(!format!("{error} {error:?} {told:?}").contains("a-secret"));
        error.to_string()
    }

    #[tokio::test]
    async fn without_a_file_it_is_a_directory() {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path(), &none, 0).await.unwrap();
        assert!(store.list("").await.unwrap().is_empty());
        assert!(home.path().join("objects").is_dir());
        let told = diagnose(home.path(), &none, 0).await;
        assert_eq!(told.problem, None);
        assert!(store.list("").await.unwrap().is_empty(), "a diagnosis leaves nothing behind");
    }

    #[tokio::test]
    async fn another_store_in_its_place_is_refused() {
        let home = tempfile::tempdir().unwrap();
        open(home.path(), &none, 0).await.unwrap();
        fs::write(home.path().join(FILE), "[store]\nkind = \"s3\"\nbucket = \"mine\"\n").unwrap();
        let told = refused(home.path(), keys).await;
        assert!(told.contains("in objects") && told.contains("s3://mine/"), "{told}");
        fs::write(home.path().join(FILE), "[store]\nkind = \"local\"\n").unwrap();
        assert!(open(home.path(), &none, 0).await.is_ok());
    }

    #[tokio::test]
    async fn bad_settings_are_told_and_a_store_that_is_away_is_no_first_store() {
        let home = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(home.path().join(FILE), text).unwrap();
        write("[store]\nkind = \"s3\"\nbucket = \"mine\"\nsecret = \"x\"\n");
        assert!(refused(home.path(), keys).await.contains("secret"));
        write("[store]\nkind = \"s3\"\nbucket = \"mine\"\n");
        assert!(refused(home.path(), none).await.contains("AWS_ACCESS_KEY_ID"));
        write("[store]\nkind = \"s3\"\nbucket = \"mine\"\nendpoint = \"http://127.0.0.1:1\"\n");
        assert!(refused(home.path(), keys).await.contains("allow_http"));
        write("[store]\nkind = \"s3\"\nbucket = \"mine\"\nca_file = \"none.pem\"\n");
        assert!(refused(home.path(), keys).await.contains("none.pem"));
        write(
            "[store]\nkind = \"s3\"\nbucket = \"mine\"\nendpoint = \"http://127.0.0.1:1\"\nallow_http = true\n",
        );
        assert!(refused(home.path(), keys).await.contains("cannot be reached"));
        assert!(!home.path().join(NAME).exists());
        // One that was good once may be away when the controller starts.
        fs::write(home.path().join(NAME), "s3://mine/\n").unwrap();
        assert!(open(home.path(), &keys, 0).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_directory_has_a_cure() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(LOCAL), b"a file in its place").unwrap();
        let (what, cure) = diagnose(home.path(), &none, 0).await.problem.unwrap();
        assert!(what.contains("open the store") && cure.contains("disk"), "{what}: {cure}");
        let full = local_problem(&StoreError::Full("write object `a`".into()), home.path());
        assert!(full.1.starts_with("free space"), "{full:?}");
        let io = |kind: io::ErrorKind| StoreError::Io { what: "write".into(), source: kind.into() };
        assert!(local_problem(&io(io::ErrorKind::ReadOnlyFilesystem), home.path()).1.contains("read-only"));
        assert!(local_problem(&io(io::ErrorKind::PermissionDenied), home.path()).1.contains("user"));
    }
}
