//! Reads `store.toml`. Whatever is wrong with it is told by its place and
//! never quoted: somebody may have typed a secret into it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use artifacts::store::remote::azure::{self, AccountKey, AzureConfig};
use artifacts::store::remote::gcs;
use artifacts::store::remote::s3::{self, Credentials, S3Config};
use artifacts::store::remote::{Patience, RemoteStore, Writes};
use artifacts::store::trouble::foreign;
use serde::Deserialize;

use super::{FILE, LOCAL, ObjectsError};

/// No file of settings is longer.
const LONGEST: u64 = 64 << 10;

/// A computer's whole collection of authorities is half of this.
const LONGEST_CA: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    store: Section,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Section {
    Local(LocalSection),
    S3(S3Section),
    Gcs(GcsSection),
    Azure(AzureSection),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GcsSection {
    bucket: String,
    prefix: String,
    service_account_file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AzureSection {
    account: String,
    container: String,
    prefix: String,
    endpoint: Option<String>,
    ca_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    #[serde(default)]
    allow_http: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LocalSection {
    path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct S3Section {
    bucket: String,
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
pub(super) enum Chosen {
    /// The directory, and what it is called.
    Local(PathBuf, String),
    Remote(RemoteStore),
}

impl Chosen {
    pub(super) fn named(&self) -> String {
        match self {
            Self::Local(_, name) => name.clone(),
            Self::Remote(store) => store.named().to_owned(),
        }
    }
}

fn read(path: &Path, longest: u64) -> Result<Option<Vec<u8>>, ObjectsError> {
    let failed = |source| ObjectsError::Io { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(meta) if !meta.is_file() || meta.len() > longest => {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        Ok(_) => {}
    }
    fs::read(path).map(Some).map_err(failed)
}

/// A small file of text; `None` if there is none.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, ObjectsError> {
    let Some(bytes) = read(path, LONGEST)? else { return Ok(None) };
    let failed = |_| ObjectsError::Io { path: path.to_owned(), source: io::ErrorKind::InvalidData.into() };
    String::from_utf8(bytes).map(Some).map_err(failed)
}

/// What is wrong and on which line, without any value.
fn described(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    let expected = || message.rsplit_once(", expected ").map_or("something else", |(_, what)| what);
    let plain = if message.starts_with("invalid ") {
        format!("a value is not what it must be: {}", expected())
    } else if message.starts_with("unknown variant") {
        format!("`kind` must be {}", expected())
    } else {
        message.to_owned()
    };
    let line = error.span().map(|span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
    foreign(&line.map_or(plain.clone(), |line| format!("line {line}: {plain}")))
}

/// The directory that needs no configuration.
fn usual(home: &Path) -> Chosen {
    Chosen::Local(home.join(LOCAL), LOCAL.to_owned())
}

/// The store that is wanted.
pub(super) fn choose(home: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Chosen, ObjectsError> {
    let path = home.join(FILE);
    let Some(text) = read_text(&path)? else { return Ok(usual(home)) };
    let parsed: Result<File, _> = toml::from_str(&text);
    let malformed = |problem| ObjectsError::Malformed { path: path.clone(), problem };
    let file = parsed.map_err(|error| malformed(described(&text, &error)))?;
    let whole = |prefix: &str| {
        // The whole of a bucket is somebody else's, too, sooner or later.
        let problem = "`prefix` must name a part of the bucket, such as `outlast`".to_owned();
        prefix.trim_matches('/').is_empty().then(|| malformed(problem))
    };
    let store = match file.store {
        Section::Local(LocalSection { path: None }) => return Ok(usual(home)),
        Section::Local(LocalSection { path: Some(wanted) }) => {
            let dir = home.join(wanted);
            if dir == home.join(LOCAL) {
                return Ok(usual(home));
            }
            // Not made here: a name with a mistake in it, or a disk that is not mounted.
            if !dir.is_dir() {
                return Err(malformed("`path` names no directory: make it, or mount its disk".into()));
            }
            let name = dir.display().to_string();
            return Ok(Chosen::Local(dir, name));
        }
        Section::S3(section) => match whole(&section.prefix) {
            Some(problem) => return Err(problem),
            None => s3(home, section, env)?,
        },
        Section::Gcs(section) => match whole(&section.prefix) {
            Some(problem) => return Err(problem),
            None => {
                let account = home.join(&section.service_account_file);
                gcs::open(&section.bucket, &section.prefix, &account, Patience::default())?
            }
        },
        Section::Azure(section) => match whole(&section.prefix) {
            Some(problem) => return Err(problem),
            None => azure(home, section, env)?,
        },
    };
    Ok(Chosen::Remote(store))
}

fn authorities(home: &Path, file: Option<PathBuf>) -> Result<Option<Vec<u8>>, ObjectsError> {
    let Some(path) = file.map(|file| home.join(file)) else { return Ok(None) };
    let missing = || ObjectsError::Io { path: path.clone(), source: io::ErrorKind::NotFound.into() };
    read(&path, LONGEST_CA)?.ok_or_else(missing).map(Some)
}

fn azure(
    home: &Path,
    section: AzureSection,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<RemoteStore, ObjectsError> {
    let key = match &section.key_file {
        Some(file) => AccountKey::from_file(&home.join(file))?,
        None => AccountKey::from_env(env)?,
    };
    Ok(azure::open(AzureConfig {
        account: section.account,
        container: section.container,
        prefix: section.prefix,
        endpoint: section.endpoint,
        ca_pem: authorities(home, section.ca_file)?,
        allow_http: section.allow_http,
        key,
        patience: Patience::default(),
        page: 1000,
    })?)
}

fn s3(
    home: &Path,
    section: S3Section,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<RemoteStore, ObjectsError> {
    let credentials = match &section.credentials_file {
        Some(file) => Credentials::from_file(&home.join(file))?,
        None => Credentials::from_env(env)?,
    };
    let ca_pem = authorities(home, section.ca_file)?;
    let config = S3Config {
        // Names with a dot in them fit no certificate in front of an address.
        path_style: section.path_style.unwrap_or(section.endpoint.is_some() || section.bucket.contains('.')),
        bucket: section.bucket,
        prefix: section.prefix,
        region: section.region,
        endpoint: section.endpoint,
        ca_pem,
        allow_http: section.allow_http,
        writes: if section.accept_overwrites { Writes::Overwriting } else { Writes::CreateOnly },
        credentials,
        patience: Patience::default(),
        page: 1000,
    };
    Ok(s3::open(config)?)
}
