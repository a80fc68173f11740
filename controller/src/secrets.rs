//! Secrets of runs: values of variables that a person handed in with a run. They
//! are sealed before they reach the database, under a key that comes of the
//! installation's secret, each row bound to its run; they are opened for the
//! machine that the run is bound to, and to hide them in what people are shown.
//! No value ever stands in a log, an error, the journal or a row.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use data_encoding::BASE64;
use lifecycle::mask::Masker;
use lifecycle::spec::secret::{MOST, check_name, check_value};
use lifecycle::{RunId, RunSpec};
use proto::v1;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::core::{Core, CoreError};
use crate::model::{Record, Run, Versioned};
use crate::store::Kind;

const NONCE: usize = 12;

/// A run's secrets as the database holds them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealedSecrets {
    /// The run.
    pub run: RunId,
    /// Nonce and what is sealed, base64.
    pub sealed: String,
}

impl Record for SealedSecrets {
    const KIND: Kind = Kind::Secret;

    fn key(&self) -> String {
        self.run.to_string()
    }

    fn run(&self) -> Option<RunId> {
        Some(self.run)
    }
}

/// Whether these are the secrets that a run names, and may be.
///
/// # Errors
/// What is wrong, in words, and no value.
pub fn check(spec: &RunSpec, given: &[v1::Secret]) -> Result<(), String> {
    if spec.secrets.len() > MOST {
        return Err(format!("a run has at most {MOST} secrets"));
    }
    let wanted: BTreeSet<&str> = spec.secrets.iter().map(String::as_str).collect();
    let names: BTreeSet<&str> = given.iter().map(|secret| secret.name.as_str()).collect();
    if wanted.len() != spec.secrets.len() || names.len() != given.len() {
        return Err("a secret is named twice".to_owned());
    }
    for name in &wanted {
        check_name(name).map_err(|why| format!("the secret {name:.128}: {why}"))?;
        if spec.env.contains_key(*name) {
            return Err(format!("{name} is both a secret and a variable of [run] env"));
        }
        if !names.contains(name) {
            return Err(format!(
                "the value of the secret {name} is not here: begin the run with `outlast run`"
            ));
        }
    }
    if names.len() != wanted.len() {
        return Err("a secret came that the run does not name".to_owned());
    }
    for secret in given {
        check_value(&secret.value).map_err(|why| format!("the secret {}: {why}", secret.name))?;
    }
    Ok(())
}

fn aead(core: &Core) -> Result<LessSafeKey, CoreError> {
    let key = core.keys.for_secrets().ok_or_else(|| impossible("this controller has no keys"))?;
    let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| impossible("the key is none"))?;
    Ok(LessSafeKey::new(key))
}

fn impossible(why: &str) -> CoreError {
    CoreError::Impossible(format!("secrets cannot be sealed or opened: {why}"))
}

/// What is authenticated beside the values: they open for their own run alone.
fn bound(run: RunId) -> String {
    format!("outlast secrets of run {run}, version 1")
}

/// The row that keeps these secrets; `None`: there are none to keep.
///
/// # Errors
/// Where there is no key or no randomness.
pub fn seal(
    core: &Core,
    run: RunId,
    secrets: &[v1::Secret],
) -> Result<Option<Versioned<SealedSecrets>>, CoreError> {
    if secrets.is_empty() {
        return Ok(None);
    }
    let values: BTreeMap<&str, &str> = secrets.iter().map(|s| (s.name.as_str(), s.value.as_str())).collect();
    let json = serde_json::to_vec(&values).map_err(|_| impossible("they have no JSON form"))?;
    let mut bytes = Zeroizing::new(json);
    let nonce = core.entropy.bytes::<NONCE>()?;
    let tag = aead(core)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound(run)), &mut bytes)
        .map_err(|_| impossible("sealing failed"))?;
    let sealed = BASE64.encode(&[&nonce[..], &bytes, tag.as_ref()].concat());
    Ok(Some(Versioned::new(SealedSecrets { run, sealed })))
}

fn open(core: &Core, row: &SealedSecrets) -> Result<Vec<v1::Secret>, CoreError> {
    let damaged = || impossible("the row is damaged, or the installation's keys are others");
    let stored = BASE64.decode(row.sealed.as_bytes()).map_err(|_| damaged())?;
    let (nonce, sealed) = stored.split_at_checked(NONCE).ok_or_else(damaged)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let opened = aead(core)?.open_in_place(nonce, Aad::from(bound(row.run)), &mut bytes);
    let opened = opened.map_err(|_| damaged())?;
    let values: BTreeMap<String, String> = serde_json::from_slice(opened).map_err(|_| damaged())?;
    Ok(values.into_iter().map(|(name, value)| v1::Secret { name, value }).collect())
}

/// The secrets of a run that names some.
///
/// # Errors
/// Where they are not kept, or do not open.
pub async fn of(core: &Core, run: RunId, spec: &RunSpec) -> Result<Vec<v1::Secret>, CoreError> {
    if spec.secrets.is_empty() {
        return Ok(Vec::new());
    }
    match core.load::<SealedSecrets>(&run.to_string()).await? {
        Some(row) => open(core, &row.body),
        None => Err(impossible("none are kept for this run")),
    }
}

/// Knows what to hide in texts about a run.
pub async fn masker(core: &Core, run: &Run) -> Masker {
    let mask = Masker::new(&run.spec.env);
    match of(core, run.id, &run.spec).await {
        Ok(secrets) => mask.hiding(secrets.iter().map(|secret| secret.value.as_str())),
        Err(error) => {
            tracing::error!(%error, run = run.name, "its secrets are hidden by their looks alone");
            mask
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn spec(names: &[&str]) -> RunSpec {
        serde_json::from_value(serde_json::json!({
            "project": "p", "name": "r", "command": ["x"], "provider": "local", "env": {"SEED": "1"}, "secrets": names
        }))
        .unwrap()
    }

    fn secret(name: &str, value: &str) -> v1::Secret {
        v1::Secret { name: name.into(), value: value.into() }
    }

    #[tokio::test]
    async fn what_is_sealed_opens_for_its_own_run_alone_and_is_nowhere_in_the_row() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        std::fs::create_dir_all(&keys).unwrap();
        let mut parts = crate::bench::parts(dir.path(), Arc::new(artifacts::store::MemoryStore::default()));
        let none = Core::new(crate::bench::parts(dir.path(), parts.objects.clone()));
        parts.keys = Arc::new(crate::keys::Keys::open(&keys).unwrap());
        let (core, run) = (Core::new(parts), RunId::from_bytes([1; 16]));
        let given = [secret("A", "canary \"1\""), secret("B", "canary 2")];
        let row = seal(&core, run, &given).unwrap().unwrap().body;
        assert!(!row.sealed.contains("canary") && !row.sealed.contains(&BASE64.encode(b"canary")));
        assert_ne!(seal(&core, run, &given).unwrap().unwrap().body.sealed, row.sealed, "another nonce");
        assert_eq!(open(&core, &row).unwrap(), given);
        let stolen = SealedSecrets { run: RunId::from_bytes([2; 16]), ..row.clone() };
        let cut = SealedSecrets { sealed: BASE64.encode(b"short"), ..row.clone() };
        for bad in [stolen, cut, SealedSecrets { sealed: "!".into(), ..row.clone() }] {
            assert!(open(&core, &bad).unwrap_err().to_string().contains("damaged"));
        }
        assert!(seal(&none, run, &given).unwrap_err().to_string().contains("no keys"));
        assert!(seal(&none, run, &[]).unwrap().is_none());
    }

    #[test]
    fn a_run_gets_exactly_the_secrets_that_it_names() {
        let token = || secret("HF_TOKEN", "canary");
        assert_eq!(check(&spec(&[]), &[]), Ok(()));
        assert_eq!(check(&spec(&["HF_TOKEN"]), &[token()]), Ok(()));
        for (names, given) in [
            (&["HF_TOKEN"][..], vec![]),
            (&[], vec![token()]),
            (&["HF_TOKEN"], vec![token(), token()]),
            (&["HF_TOKEN", "HF_TOKEN"], vec![token()]),
            (&["HF_TOKEN"], vec![token(), secret("OTHER", "canary")]),
            (&["SEED"], vec![secret("SEED", "canary")]),
            (&["A=B"], vec![secret("A=B", "canary")]),
            (&["HF_TOKEN"], vec![secret("HF_TOKEN", "")]),
            (&["HF_TOKEN"], vec![secret("HF_TOKEN", "canary\0")]),
        ] {
            let why = check(&spec(names), &given).unwrap_err();
            assert!(!why.contains("canary"), "{why}");
        }
    }
}
