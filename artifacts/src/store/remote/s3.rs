//! Any store that speaks S3. It is spoken to at the address that was
//! configured, and each request is made once.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::{BackoffConfig, RetryConfig};
use reqwest::Certificate;

use super::connect::{Direct, is_here};
pub use super::credentials::Credentials;
use super::credentials::{KEY_ID, Renewed, SECRET};
use super::{Parts, Patience, RemoteStore, Writes};
use crate::key::segment_ok;
use crate::store::booklet::Trust;
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

fn wrong(setting: &'static str, problem: impl Into<String>) -> S3ConfigError {
    S3ConfigError::Setting { setting, problem: problem.into() }
}

/// What every client connects with, and that nothing is repeated behind
/// anybody's back. Requests have their times elsewhere.
pub(super) fn client(
    patience: &Patience,
    ca_pem: Option<&[u8]>,
    allow_http: bool,
    endpoint: Option<&str>,
) -> Result<(Direct, RetryConfig), S3ConfigError> {
    let mut trusted = Vec::new();
    if let Some(pem) = ca_pem {
        let parsed = Certificate::from_pem_bundle(pem).ok().filter(|found| !found.is_empty());
        trusted = parsed.ok_or_else(|| wrong("ca_file", "holds no certificate in PEM"))?;
    }
    let once = RetryConfig { max_retries: 0, backoff: BackoffConfig::default(), ..RetryConfig::default() };
    let here = endpoint.is_some_and(is_here);
    Ok((Direct { connect: patience.connect, trusted, allow_http, here }, once))
}

/// An address as it is told from others: two ways to write one are one.
fn plain(endpoint: &str) -> String {
    let lower = endpoint.trim_end_matches('/').to_ascii_lowercase();
    let usual = [("https://", ":443"), ("http://", ":80")];
    let shorter = usual.iter().find_map(|(scheme, port)| {
        lower.starts_with(scheme).then(|| lower.strip_suffix(port).map(str::to_owned)).flatten()
    });
    shorter.unwrap_or(lower)
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
    if let Some(endpoint) = &config.endpoint {
        checked_endpoint(endpoint, config.allow_http)?;
    }
    let endpoint = config.endpoint.as_deref();
    let (direct, once) = client(&config.patience, config.ca_pem.as_deref(), config.allow_http, endpoint)?;
    let credentials = Arc::new(Renewed::new(config.credentials));
    let fleeting = credentials.clone();
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_credentials(credentials)
        .with_virtual_hosted_style_request(!config.path_style)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // Not every store knows the deletion of many; each is deleted alone.
        .with_disable_bulk_delete(true)
        .with_allow_http(config.allow_http)
        .with_http_connector(direct)
        .with_retry(once);
    if let Some(endpoint) = &config.endpoint {
        let endpoint = endpoint.trim_end_matches('/');
        // The library wants the bucket in the address itself then.
        let endpoint = match endpoint.split_once("://") {
            Some((scheme, host)) if !config.path_style => format!("{scheme}://{}.{host}", config.bucket),
            _ => endpoint.to_owned(),
        };
        builder = builder.with_endpoint(endpoint);
    }
    let bucket = builder.build().map_err(|error| wrong("store", foreign(&error.to_string())))?;
    // Two servers may each have a bucket of that name.
    let at = config.endpoint.as_deref().map(|endpoint| format!(" at {}", plain(endpoint)));
    let named = format!("s3://{}/{prefix}{}", config.bucket, at.unwrap_or_default());
    let ca_pem = config.ca_pem.and_then(|pem| String::from_utf8(pem).ok()).unwrap_or_default();
    Ok(RemoteStore::new(Parts {
        bucket: Arc::new(bucket),
        prefix,
        writes: config.writes,
        patience: config.patience,
        page: config.page,
        named,
        fleeting: Arc::new(move || fleeting.are_a_sessions()),
        signs: true,
        trust: Trust { ca_pem, allow_http: config.allow_http },
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
    fn stores_are_told_apart_by_their_address() {
        let named = |endpoint: Option<&str>| {
            let config = S3Config { endpoint: endpoint.map(Into::into), prefix: "a".into(), ..config() };
            open(config).unwrap().named().to_owned()
        };
        assert_eq!(named(None), "s3://bucket/a");
        assert_eq!(named(Some("https://S3.example:443/")), "s3://bucket/a at https://s3.example");
        assert_ne!(named(Some("https://s3.example:9000")), named(Some("https://s3.example:9001")));
        assert_ne!(named(Some("https://s3.example")), named(Some("https://s4.example")));
    }
}
