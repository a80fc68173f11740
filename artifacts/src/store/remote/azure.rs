//! Azure Blob Storage, as far as the client library speaks it. Its signed URLs
//! cannot carry the condition that creates only, so that there are no booklets:
//! machines go through the controller.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use object_store::azure::MicrosoftAzureBuilder;

use super::credentials::read_secret;
use super::s3::{S3ConfigError, checked_prefix, client};
use super::{Parts, Patience, RemoteStore, Writes};
use crate::store::booklet::Trust;
use crate::store::trouble::foreign;

/// The variable that every tool for Azure knows.
pub const KEY: &str = "AZURE_STORAGE_KEY";

/// An account's key. Shows nothing of itself.
#[derive(Clone)]
pub struct AccountKey(String);

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountKey(..)")
    }
}

impl AccountKey {
    /// From a file that only its owner can read: the key on its first line.
    ///
    /// # Errors
    /// Where it cannot be read, others can read it, or it is empty.
    pub fn from_file(path: &Path) -> Result<Self, S3ConfigError> {
        let text = read_secret(path)?;
        Self::checked(text.lines().next().unwrap_or_default())
    }

    /// From the environment.
    ///
    /// # Errors
    /// Where it is not set.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, S3ConfigError> {
        Self::checked(&get(KEY).unwrap_or_default())
    }

    fn checked(text: &str) -> Result<Self, S3ConfigError> {
        let key = text.trim();
        let is_one = key.len() >= 16 && data_encoding::BASE64.decode(key.as_bytes()).is_ok();
        let problem = format!("must name a file with the account\'s key, or {KEY} must be set to it");
        is_one.then(|| Self(key.to_owned())).ok_or(S3ConfigError::Setting { setting: "key_file", problem })
    }
}

/// Where the container is and how to speak to it.
#[derive(Debug, Clone)]
pub struct AzureConfig {
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// Before every key; may be empty.
    pub prefix: String,
    /// The address of the account; without one, Azure's.
    pub endpoint: Option<String>,
    /// Certificates of authorities in PEM, trusted besides the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Lets requests and objects be seen and changed on their way.
    pub allow_http: bool,
    /// Who asks.
    pub key: AccountKey,
    /// How long to wait.
    pub patience: Patience,
    /// Keys in one page of a listing.
    pub page: usize,
}

/// Sets the client up; asks nobody yet.
///
/// # Errors
/// Where a setting cannot be.
pub fn open(config: AzureConfig) -> Result<RemoteStore, S3ConfigError> {
    let AzureConfig { account, container, prefix, endpoint, ca_pem, allow_http, key, patience, page } =
        config;
    let prefix = checked_prefix(&prefix)?;
    let (direct, once) = client(&patience, ca_pem.as_deref(), allow_http, endpoint.as_deref())?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&account)
        .with_access_key(key.0)
        .with_container_name(&container)
        .with_allow_http(allow_http)
        .with_http_connector(direct)
        .with_retry(once);
    let mut named = format!("az://{account}/{container}/{prefix}");
    if let Some(endpoint) = endpoint {
        named = format!("{named} at {endpoint}");
        builder = builder.with_endpoint(endpoint);
    }
    let built = builder
        .build()
        .map_err(|error| S3ConfigError::Setting { setting: "store", problem: foreign(&error.to_string()) })?;
    let bucket = Arc::new(built);
    let fleeting = Arc::new(|| false);
    let writes = Writes::CreateOnly;
    let trust = Trust::default();
    Ok(RemoteStore::new(Parts {
        bucket,
        prefix,
        writes,
        patience,
        page,
        named,
        fleeting,
        signs: false,
        trust,
    }))
}
