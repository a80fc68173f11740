//! Secrets of attempts. They come with the assignment, are in this process's
//! memory alone, and come again after it was started again: without them an
//! attempt that needs them waits. To the keeper they go through a file in memory
//! that it takes away. Never in a file of the attempt, a fact or a log.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifecycle::mask::Masker;
use lifecycle::spec::secret::{LONGEST, MOST, check_name, check_value};
use proto::v1;

use crate::os;
use crate::world::{Cancelled, Failed};

/// Between two looks whether they came.
const LOOK: Duration = Duration::from_millis(100);
/// The longest file in memory: JSON may write a byte as six.
const FILE: usize = 6 * MOST * LONGEST;

/// Values by the names of variables. Debug tells the names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<String, String>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Values {
    /// The variables, for a process that is about to be started.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A text without any of them.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        if self.0.is_empty() {
            return text.to_owned();
        }
        Masker::default().hiding(self.0.values().map(String::as_str)).text(text)
    }

    /// Puts them where the keeper of an attempt takes them from.
    ///
    /// # Errors
    /// Where there is no file system in memory.
    pub fn hand_over(&self, attempt: &str) -> Result<Option<PathBuf>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        os::clear_memory(attempt);
        let json = serde_json::to_vec(&self.0).map_err(|_| "secrets have no JSON form")?;
        let path = os::write_in_memory(attempt, &json);
        path.map(Some)
            .map_err(|error| format!("secrets are written to no disk, and memory has no place: {error}"))
    }

    /// Takes what was handed over.
    ///
    /// # Errors
    /// Where it is not there any more, or makes no sense.
    pub fn take(path: &Path) -> Result<Self, String> {
        let bytes =
            os::take_from_memory(path, FILE).map_err(|error| format!("its secrets are gone: {error}"))?;
        serde_json::from_slice(&bytes).map(Self).map_err(|_| "its secrets cannot be read".to_owned())
    }
}

/// The secrets of this machine's attempts.
#[derive(Debug, Default)]
pub struct Vault(Mutex<BTreeMap<String, Given>>);

#[derive(Debug, Clone)]
enum Given {
    Values(Arc<Values>),
    /// The controller was heard, and has none or others.
    Missing(String),
}

impl Vault {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Given>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what an assignment brings for these names.
    pub fn entrust(&self, work: &v1::Work, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let given = match read(names, &work.secrets) {
            Ok(values) => Given::Values(Arc::new(values)),
            Err(why) => {
                tracing::error!(why, attempt = work.attempt_id, "an assignment without its secrets");
                Given::Missing(why)
            }
        };
        let mut all = self.all();
        let known = matches!(all.get(&work.attempt_id), Some(Given::Values(_)));
        if !known || matches!(given, Given::Values(_)) {
            all.insert(work.attempt_id.clone(), given);
        }
    }

    /// The values for these names, as soon as they are here.
    ///
    /// # Errors
    /// Where the controller has none, or nobody wants them any more.
    pub async fn wait(
        &self,
        attempt: &str,
        names: &[String],
        cancelled: &Cancelled,
    ) -> Result<Arc<Values>, Failed> {
        if names.is_empty() {
            return Ok(Arc::default());
        }
        loop {
            match self.all().get(attempt).cloned() {
                Some(Given::Values(values)) => return Ok(values),
                Some(Given::Missing(reason)) => return Err(Failed { reason, transient: false }),
                None => {}
            }
            if cancelled.load(Ordering::Relaxed) {
                let reason = "it was stopped while it waited for its secrets".to_owned();
                return Err(Failed { reason, transient: true });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What an attempt has, if anything.
    #[must_use]
    pub fn of(&self, attempt: &str) -> Arc<Values> {
        match self.all().get(attempt) {
            Some(Given::Values(values)) => values.clone(),
            _ => Arc::default(),
        }
    }

    /// Forgets an attempt's.
    pub fn forget(&self, attempt: &str) {
        self.all().remove(attempt);
        os::clear_memory(attempt);
    }
}

/// Exactly the values that are named, or why not.
fn read(names: &[String], given: &[v1::Secret]) -> Result<Values, String> {
    if names.len() > MOST || given.len() > MOST {
        return Err(format!("a run has at most {MOST} secrets"));
    }
    let mut values = BTreeMap::new();
    for name in names {
        check_name(name).map_err(|why| format!("the secret {name:.128}: {why}"))?;
        let found = given.iter().find(|secret| secret.name == *name);
        let found = found.ok_or_else(|| format!("the controller has no value for the secret {name}"))?;
        check_value(&found.value).map_err(|why| format!("the secret {name}: {why}"))?;
        values.insert(name.clone(), found.value.clone());
    }
    Ok(Values(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(secrets: &[(&str, &str)]) -> v1::Work {
        let secret =
            |(name, value): &(&str, &str)| v1::Secret { name: (*name).into(), value: (*value).into() };
        let secrets = secrets.iter().map(secret).collect();
        v1::Work { attempt_id: "a".into(), secrets, ..v1::Work::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_waits_for_its_secrets_and_no_longer() {
        let (vault, names, go) = (Vault::default(), ["T".to_owned()], Cancelled::default());
        assert_eq!(*vault.wait("a", &[], &go).await.unwrap(), Values::default());
        let late = async {
            tokio::time::sleep(LOOK * 5).await;
            vault.entrust(&work(&[("T", "canary"), ("U", "unasked")]), &names);
        };
        let (values, ()) = tokio::join!(vault.wait("a", &names, &go), late);
        let values = values.unwrap();
        assert_eq!(values.variables().collect::<Vec<_>>(), [("T", "canary")]);
        assert!(!format!("{vault:?} {values:?}").contains("canary"));
        assert_eq!(values.hide("x canary y"), "x [masked] y");
        // An assignment that lost them takes nothing away.
        vault.entrust(&work(&[]), &names);
        assert_eq!(vault.of("a").get("T"), Some("canary"));
        vault.forget("a");
        go.store(true, Ordering::Relaxed);
        assert!(vault.wait("a", &names, &go).await.unwrap_err().transient);
        for bad in [&[][..], &[("T", "")], &[("U", "canary")], &[("T", "canary\0")]] {
            vault.entrust(&work(bad), &names);
            let failed = vault.wait("a", &names, &go).await.unwrap_err();
            assert!(failed.reason.contains('T') && !failed.reason.contains("canary"), "{failed:?}");
        }
    }

    #[test]
    fn the_keeper_takes_them_away() {
        let attempt = format!("keeper-{}", std::process::id());
        let values = Values(BTreeMap::from([("T".to_owned(), "canary \"\n".to_owned())]));
        let path = values.hand_over(&attempt).unwrap().unwrap();
        let again = values.hand_over(&attempt).unwrap().unwrap();
        assert!(!path.exists(), "one at a time");
        assert_eq!(Values::take(&again).unwrap(), values);
        assert!(Values::take(&again).unwrap_err().contains("gone"));
        assert_eq!(Values::default().hand_over(&attempt), Ok(None));
    }
}
