//! Who asks a store. Credentials come from a file that only its owner can
//! read, or from the environment; they are in no argument, log or message. A
//! file is read again when it changes, so that a session's are renewed without
//! a restart.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

use super::s3::S3ConfigError;

pub(super) const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
pub(super) const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// No file of credentials is longer.
const LONGEST_FILE: u64 = 64 << 10;

/// An access key. Shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    key_id: String,
    secret: String,
    token: Option<String>,
    /// Where it came from.
    file: Option<PathBuf>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// An access key.
    #[must_use]
    pub fn new(key_id: &str, secret: &str, token: Option<&str>) -> Self {
        Self { key_id: key_id.into(), secret: secret.into(), token: token.map(Into::into), file: None }
    }

    /// From the variables that every tool for S3 knows.
    ///
    /// # Errors
    /// Where they are not set.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, S3ConfigError> {
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        match (set(KEY_ID), set(SECRET)) {
            (Some(key_id), Some(secret)) => Ok(Self { key_id, secret, token: set(TOKEN), file: None }),
            _ => Err(S3ConfigError::NoCredentials),
        }
    }

    /// From the `[default]` part of a file as `aws configure` writes it.
    ///
    /// # Errors
    /// Where it cannot be read, others can read it, or it is incomplete.
    pub fn from_file(path: &Path) -> Result<Self, S3ConfigError> {
        let text = read_secret(path)?;
        let read = Self::parse(&text).ok_or_else(|| S3ConfigError::Incomplete(path.to_owned()))?;
        Ok(Self { file: Some(path.to_owned()), ..read })
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
        Some(Self { key_id: key_id?, secret: secret?, token, file: None })
    }

    fn for_client(&self) -> Arc<AwsCredential> {
        Arc::new(AwsCredential {
            key_id: self.key_id.clone(),
            secret_key: self.secret.clone(),
            token: self.token.clone(),
        })
    }

    fn changed_at(&self) -> Option<SystemTime> {
        std::fs::metadata(self.file.as_ref()?).and_then(|meta| meta.modified()).ok()
    }
}

/// A file with a secret in it, if its owner alone can read it.
pub(super) fn read_secret(path: &Path) -> Result<String, S3ConfigError> {
    use std::os::unix::fs::MetadataExt as _;
    let failed = |source| S3ConfigError::File { path: path.to_owned(), source };
    let meta = std::fs::metadata(path).map_err(failed)?;
    if meta.mode() & 0o077 != 0 {
        return Err(S3ConfigError::Open(path.to_owned()));
    }
    if !meta.is_file() || meta.len() > LONGEST_FILE {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// The credentials of now.
pub(super) struct Renewed(Mutex<State>);

struct State {
    read: Credentials,
    as_of: Option<SystemTime>,
    given: Arc<AwsCredential>,
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewed(..)")
    }
}

impl Renewed {
    pub(super) fn new(read: Credentials) -> Self {
        let (as_of, given) = (read.changed_at(), read.for_client());
        Self(Mutex::new(State { read, as_of, given }))
    }

    /// The newest that can be read: a file that is just being written, or is
    /// not right any more, takes nothing away.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = state.read.changed_at();
        if now != state.as_of
            && let Some(path) = &state.read.file
        {
            match Credentials::from_file(path) {
                Ok(read) => {
                    *state = State { given: read.for_client(), read, as_of: now };
                    tracing::info!("the store's credentials were read again");
                }
                Err(error) => tracing::warn!(%error, "the store's credentials of before are used"),
            }
        }
        state
    }

    /// Whether they run out by themselves.
    pub(super) fn are_a_sessions(&self) -> bool {
        self.state().read.token.is_some()
    }
}

#[async_trait]
impl CredentialProvider for Renewed {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Ok(self.state().given.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let read = write(text, 0o600).unwrap();
        assert_eq!(read, Credentials { file: Some(path.clone()), ..good });
        assert!(matches!(write(text, 0o644), Err(S3ConfigError::Open(_))));
        assert!(matches!(write("[other]\n", 0o600), Err(S3ConfigError::Incomplete(_))));
        let missing = Credentials::from_file(&dir.path().join("none"));
        assert!(matches!(missing, Err(S3ConfigError::File { .. })));

        // Renewed while it is in use; what is half written changes nothing.
        write(text, 0o600).unwrap();
        let renewed = Renewed::new(read);
        let mut later = SystemTime::now();
        let mut replace = |text: &str| {
            later += std::time::Duration::from_secs(5);
            std::fs::write(&path, text).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
            let sessions = renewed.are_a_sessions();
            (renewed.state().given.key_id.clone(), sessions)
        };
        assert_eq!(replace("aws_access_key_id = half"), ("id".to_owned(), false));
        let session = "aws_access_key_id = next\naws_secret_access_key = s\naws_session_token = t\n";
        assert_eq!(replace(session), ("next".to_owned(), true));
    }
}
