//! Any store that speaks S3. Credentials come from a file that only its owner
//! can read, or from the environment; they are in no argument, log or message.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};

use super::{Parts, Patience, RemoteStore, Writes};
use crate::key::segment_ok;
use crate::store::trouble::foreign;

/// Where the bucket is and how to speak to it.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// Before every key; may be empty.
    pub prefix: String,
    /// The region; any word where the store has none.
    pub region: String,
    /// The address; without one, Amazon's for the region.
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// Certificates of authorities in PEM, trusted besides the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Lets requests and objects be seen and changed on their way.
    pub allow_http: bool,
    /// Whether the store refuses to overwrite.
    pub writes: Writes,
    /// Who asks.
    pub credentials: Credentials,
    /// How long to wait.
    pub patience: Patience,
    /// Keys in one page of a listing, at most 1,000.
    pub page: usize,
}

/// An access key. Shows its id at most.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    key_id: String,
    secret: String,
    token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Why a store is not set up.
#[derive(Debug, thiserror::Error)]
pub enum S3ConfigError {
    /// No credentials were given.
    #[error("no credentials: set {KEY_ID} and {SECRET}, or name a `credentials_file`")]
    NoCredentials,
    /// The file of credentials.
    #[error("the credentials in {path} cannot be read")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Others may read the file.
    #[error("{0} can be read by others: chmod 600 it")]
    Open(PathBuf),
    /// The file lacks what is needed.
    #[error("{0} needs `aws_access_key_id = ...` and `aws_secret_access_key = ...` under [default]")]
    Incomplete(PathBuf),
    /// A setting that cannot be.
    #[error("`{setting}` {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong.
        problem: String,
    },
}

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// No file of credentials is longer.
const LONGEST_FILE: u64 = 64 << 10;

impl Credentials {
    /// An access key.
    #[must_use]
    pub fn new(key_id: &str, secret: &str, token: Option<&str>) -> Self {
        Self { key_id: key_id.into(), secret: secret.into(), token: token.map(Into::into) }
    }

    /// From the variables that every tool for S3 knows.
    ///
    /// # Errors
    /// Where they are not set.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, S3ConfigError> {
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        match (set(KEY_ID), set(SECRET)) {
            (Some(key_id), Some(secret)) => Ok(Self { key_id, secret, token: set(TOKEN) }),
            _ => Err(S3ConfigError::NoCredentials),
        }
    }

    /// From the `[default]` part of a file as `aws configure` writes it.
    ///
    /// # Errors
    /// Where it cannot be read, others can read it, or it is incomplete.
    pub fn from_file(path: &Path) -> Result<Self, S3ConfigError> {
        use std::os::unix::fs::MetadataExt as _;
        let failed = |source| S3ConfigError::File { path: path.to_owned(), source };
        let meta = std::fs::metadata(path).map_err(failed)?;
        if meta.mode() & 0o077 != 0 {
            return Err(S3ConfigError::Open(path.to_owned()));
        }
        if !meta.is_file() || meta.len() > LONGEST_FILE {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).ok_or_else(|| S3ConfigError::Incomplete(path.to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let (mut key_id, mut secret, mut token) = (None, None, None);
        let mut inside = true;
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                inside = name.trim() == "default";
            } else if let Some((name, value)) = line.split_once('=').filter(|_| inside) {
                let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
                match name.trim() {
                    "aws_access_key_id" => key_id = value,
                    "aws_secret_access_key" => secret = value,
                    "aws_session_token" => token = value,
                    _ => {}
                }
            }
        }
        Some(Self { key_id: key_id?, secret: secret?, token })
    }
}

fn wrong(setting: &'static str, problem: impl Into<String>) -> S3ConfigError {
    S3ConfigError::Setting { setting, problem: problem.into() }
}

/// The options of every client: one connection is waited for, requests have
/// their times elsewhere, and nothing is repeated behind anybody's back.
pub(super) fn client(
    patience: &Patience,
    ca_pem: Option<&[u8]>,
    allow_http: bool,
) -> Result<(ClientOptions, RetryConfig), S3ConfigError> {
    let mut options = ClientOptions::new()
        .with_connect_timeout(patience.connect)
        .with_timeout_disabled()
        .with_allow_http(allow_http);
    if let Some(pem) = ca_pem {
        let parsed = Certificate::from_pem_bundle(pem).ok().filter(|found| !found.is_empty());
        let found = parsed.ok_or_else(|| wrong("ca_file", "holds no certificate in PEM"))?;
        options = found.into_iter().fold(options, ClientOptions::with_root_certificate);
    }
    let once = RetryConfig { max_retries: 0, backoff: BackoffConfig::default(), ..RetryConfig::default() };
    Ok((options, once))
}

/// A prefix that every key can follow.
pub(super) fn checked_prefix(prefix: &str) -> Result<String, S3ConfigError> {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() || prefix.len() <= 512 && prefix.split('/').all(segment_ok) {
        Ok(prefix.to_owned())
    } else {
        Err(wrong("prefix", "must be of a-z, 0-9, `.`, `_` and `-`, in parts joined by `/`"))
    }
}

fn checked_endpoint(endpoint: &str, allow_http: bool) -> Result<(), S3ConfigError> {
    let (plain, rest) = match endpoint.strip_prefix("https://") {
        Some(rest) => (false, rest),
        None => (
            true,
            endpoint.strip_prefix("http://").ok_or_else(|| wrong("endpoint", "must begin with https://"))?,
        ),
    };
    if plain && !allow_http {
        return Err(wrong("endpoint", "is plain HTTP: use https://, or allow it with `allow_http = true`"));
    }
    if rest.is_empty() || rest.contains(['@', '?', '#']) || !rest.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong("endpoint", "must be an address alone, without a user and without a query"));
    }
    Ok(())
}

/// Sets the client up; asks nobody yet.
///
/// # Errors
/// Where a setting cannot be.
pub fn open(config: S3Config) -> Result<RemoteStore, S3ConfigError> {
    let name_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if !(3..=63).contains(&config.bucket.len()) || !config.bucket.bytes().all(name_ok) {
        return Err(wrong("bucket", "must have 3 to 63 letters, digits, `.` and `-`"));
    }
    if config.region.is_empty() || config.region.len() > 64 || !config.region.bytes().all(name_ok) {
        return Err(wrong("region", "must be a word such as us-east-1"));
    }
    let prefix = checked_prefix(&config.prefix)?;
    let (options, once) = client(&config.patience, config.ca_pem.as_deref(), config.allow_http)?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_access_key_id(&config.credentials.key_id)
        .with_secret_access_key(&config.credentials.secret)
        .with_virtual_hosted_style_request(!config.path_style)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // Not every store knows the deletion of many; each is deleted alone.
        .with_disable_bulk_delete(true)
        .with_client_options(options)
        .with_retry(once);
    if let Some(token) = &config.credentials.token {
        builder = builder.with_token(token);
    }
    if let Some(endpoint) = &config.endpoint {
        checked_endpoint(endpoint, config.allow_http)?;
        let endpoint = endpoint.trim_end_matches('/');
        // The library wants the bucket in the address itself then.
        let endpoint = match endpoint.split_once("://") {
            Some((scheme, host)) if !config.path_style => format!("{scheme}://{}.{host}", config.bucket),
            _ => endpoint.to_owned(),
        };
        builder = builder.with_endpoint(endpoint);
    }
    let bucket = builder.build().map_err(|error| wrong("store", foreign(&error.to_string())))?;
    let named = format!("s3://{}/{prefix}", config.bucket);
    Ok(RemoteStore::new(Parts {
        bucket: Arc::new(bucket),
        prefix,
        writes: config.writes,
        patience: config.patience,
        page: config.page,
        named,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> S3Config {
        S3Config {
            bucket: "bucket".into(),
            prefix: String::new(),
            region: "us-east-1".into(),
            endpoint: Some("https://s3.example".into()),
            path_style: true,
            ca_pem: None,
            allow_http: false,
            writes: Writes::CreateOnly,
            credentials: Credentials::new("AKIDEXAMPLE", "s3cr3t", Some("t0ken")),
            patience: Patience::default(),
            page: 1000,
        }
    }

    #[test]
    fn secrets_are_shown_nowhere() {
        let config = config();
        let store = open(config.clone()).unwrap();
        let shown = format!("{config:?} {store:?} {}", store.named());
        assert!(!shown.contains("s3cr3t") && !shown.contains("t0ken"), "{shown}");
    }

    #[test]
    fn impossible_settings_are_named() {
        let with = |change: fn(&mut S3Config)| {
            let mut config = config();
            change(&mut config);
            open(config).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(with(|_| {}), Ok(()));
        let plain = with(|c| c.endpoint = Some("http://s3.example".into())).unwrap_err();
        assert!(plain.contains("allow_http"), "{plain}");
        assert!(with(|c| c.endpoint = Some("s3.example".into())).unwrap_err().contains("https://"));
        assert!(with(|c| c.endpoint = Some("https://u:p@s3.example".into())).unwrap_err().contains("user"));
        assert!(with(|c| c.bucket = "a/b".into()).unwrap_err().contains("bucket"));
        assert!(with(|c| c.prefix = "../x".into()).unwrap_err().contains("prefix"));
        assert!(with(|c| c.region = String::new()).unwrap_err().contains("region"));
        assert!(with(|c| c.ca_pem = Some(b"none".to_vec())).unwrap_err().contains("ca_file"));
        assert_eq!(with(|c| c.prefix = "/team/outlast/".into()), Ok(()));
    }

    #[test]
    fn credentials_come_from_the_environment_or_an_owners_file() {
        let good = Credentials::new("id", "secret", None);
        let env = |name: &str| match name {
            KEY_ID => Some("id".to_owned()),
            SECRET => Some("secret".to_owned()),
            _ => None,
        };
        assert_eq!(Credentials::from_env(env).unwrap(), good);
        assert!(matches!(Credentials::from_env(|_| None), Err(S3ConfigError::NoCredentials)));

        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Credentials::from_file(&path)
        };
        let text = "# mine\n[other]\naws_access_key_id = no\n[default]\naws_access_key_id=id\n\
                    aws_secret_access_key = secret\n[more]\naws_secret_access_key = no\n";
        assert_eq!(write(text, 0o600).unwrap(), good);
        assert!(matches!(write(text, 0o644), Err(S3ConfigError::Open(_))));
        assert!(matches!(write("[other]\n", 0o600), Err(S3ConfigError::Incomplete(_))));
        let missing = Credentials::from_file(&dir.path().join("none"));
        assert!(matches!(missing, Err(S3ConfigError::File { .. })));
    }
}
