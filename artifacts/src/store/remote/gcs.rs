//! Google Cloud Storage, as far as the client library speaks it. It creates
//! only by a precondition on the object's generation, which the library knows.
//! Its signed URLs cannot carry that condition, so that there are no booklets:
//! machines go through the controller. The contract has not been run against
//! it: see `docs/stores.md`.

use std::path::Path;
use std::sync::Arc;

use object_store::gcp::GoogleCloudStorageBuilder;

use super::credentials::read_secret;
use super::s3::{S3ConfigError, checked_prefix, client};
use super::{Parts, Patience, RemoteStore, Writes};
use crate::store::booklet::Trust;
use crate::store::trouble::foreign;

/// Sets the client up with a service account's key file; asks nobody yet.
///
/// # Errors
/// Where a setting cannot be.
pub fn open(
    bucket: &str,
    prefix: &str,
    service_account: &Path,
    patience: Patience,
) -> Result<RemoteStore, S3ConfigError> {
    let prefix = checked_prefix(prefix)?;
    read_secret(service_account)?;
    let (direct, once) = client(&patience, None, false, None)?;
    let built = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_service_account_path(service_account.display().to_string())
        .with_http_connector(direct)
        .with_retry(once)
        .build();
    let built = built
        .map_err(|error| S3ConfigError::Setting { setting: "store", problem: foreign(&error.to_string()) })?;
    let named = format!("gs://{bucket}/{prefix}");
    let bucket = Arc::new(built);
    let fleeting = Arc::new(|| false);
    let writes = Writes::CreateOnly;
    let trust = Trust::default();
    Ok(RemoteStore::new(Parts {
        bucket,
        prefix,
        writes,
        patience,
        page: 1000,
        named,
        fleeting,
        signs: false,
        trust,
    }))
}
