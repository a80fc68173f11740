//! Azure Blob Storage, as far as the client library speaks it. The contract
//! has not been run against it: see `docs/stores.md`.

use std::sync::Arc;

use object_store::azure::MicrosoftAzureBuilder;

use super::s3::{S3ConfigError, checked_prefix, client};
use super::{Parts, Patience, RemoteStore, Writes};
use crate::store::booklet::Trust;
use crate::store::trouble::foreign;

/// Sets the client up with an account's key; asks nobody yet.
///
/// # Errors
/// Where a setting cannot be.
pub fn open(
    account: &str,
    access_key: &str,
    container: &str,
    prefix: &str,
    patience: Patience,
) -> Result<RemoteStore, S3ConfigError> {
    let prefix = checked_prefix(prefix)?;
    let (direct, once) = client(&patience, None, false, None)?;
    let built = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_access_key(access_key)
        .with_container_name(container)
        .with_http_connector(direct)
        .with_retry(once)
        .build();
    let built = built
        .map_err(|error| S3ConfigError::Setting { setting: "store", problem: foreign(&error.to_string()) })?;
    let named = format!("az://{account}/{container}/{prefix}");
    let bucket = Arc::new(built);
    let fleeting = Arc::new(|| false);
    let writes = Writes::CreateOnly;
    let trust = Trust::default();
    Ok(RemoteStore::new(Parts { bucket, prefix, writes, patience, page: 1000, named, fleeting, trust }))
}
