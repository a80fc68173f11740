//! A store in memory, for simulations and tests: no thread, no clock, no
//! waiting, and faults on request. Clones share their objects.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Put, Store, StoreError, check_prefix};
use crate::key::ObjectKey;

/// Objects in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectKey, Arc<[u8]>>,
    put_faults: VecDeque<Option<Fault>>,
    get_faults: VecDeque<Option<Fault>>,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// As if the network failed before the request was heard.
    Remote,
    /// As if the request was carried out and its answer lost.
    AnswerLost,
    /// As if no room were left.
    Full,
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After `healthy` more puts, the next `times` puts fail.
    pub fn fail_puts(&self, healthy: usize, times: usize, fault: Fault) {
        let state = &mut *self.state();
        queue(&mut state.put_faults, healthy, times, fault);
    }

    /// After `healthy` more reads, the next `times` reads fail.
    pub fn fail_gets(&self, healthy: usize, times: usize, fault: Fault) {
        let state = &mut *self.state();
        queue(&mut state.get_faults, healthy, times, fault);
    }

    /// Flips one bit of an object; `false` if there is no such byte.
    pub fn flip(&self, key: &ObjectKey, offset: usize) -> bool {
        let mut state = self.state();
        let Some(object) = state.objects.get_mut(key).filter(|object| offset < object.len()) else {
            return false;
        };
        let mut bytes = object.to_vec();
        bytes[offset] ^= 1;
        *object = bytes.into();
        true
    }

    /// Cuts an object short; `false` if there is none.
    pub fn truncate(&self, key: &ObjectKey, len: usize) -> bool {
        let mut state = self.state();
        let Some(object) = state.objects.get_mut(key) else { return false };
        *object = object[..len.min(object.len())].into();
        true
    }

    /// Bytes of all objects together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.state().objects.values().map(|object| object.len() as u64).sum()
    }
}

fn queue(faults: &mut VecDeque<Option<Fault>>, healthy: usize, times: usize, fault: Fault) {
    faults.extend(std::iter::repeat_n(None, healthy));
    faults.extend(std::iter::repeat_n(Some(fault), times));
}

fn fail(fault: Fault) -> StoreError {
    match fault {
        Fault::Remote => StoreError::Remote("connection refused".into()),
        Fault::AnswerLost => StoreError::Remote("connection lost before the answer".into()),
        Fault::Full => StoreError::Full("quota reached".into()),
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put_if_absent(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Put, StoreError> {
        let mut state = self.state();
        let fault = state.put_faults.pop_front().flatten();
        if let Some(fault @ (Fault::Remote | Fault::Full)) = fault {
            return Err(fail(fault));
        }
        let put = match state.objects.get(key) {
            Some(held) if held.as_ref() == bytes => Put::Same,
            Some(_) => Put::Different,
            None => {
                state.objects.insert(key.clone(), bytes.into());
                Put::Created
            }
        };
        fault.map_or(Ok(put), |fault| Err(fail(fault)))
    }

    async fn get(&self, key: &ObjectKey, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let mut state = self.state();
        if let Some(fault) = state.get_faults.pop_front().flatten() {
            return Err(fail(fault));
        }
        let object = state.objects.get(key).ok_or_else(|| StoreError::Missing(key.clone()))?;
        let size = object.len() as u64;
        let end = offset.saturating_add(len);
        if end > size {
            return Err(StoreError::OutOfRange { key: key.clone(), end, size });
        }
        Ok(object[offset as usize..end as usize].to_vec())
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        Ok(self.state().objects.get(key).map(|object| object.len() as u64))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectKey>, StoreError> {
        check_prefix(prefix)?;
        Ok(self.state().objects.keys().filter(|key| key.as_str().starts_with(prefix)).cloned().collect())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        Ok(self.state().objects.remove(key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_contract() {
        super::super::contract::contract(&MemoryStore::default()).await;
    }

    #[tokio::test]
    async fn faults_come_when_asked_for() {
        let store = MemoryStore::default();
        let key: ObjectKey = "a".parse().unwrap();
        store.fail_puts(0, 1, Fault::Full);
        store.fail_puts(0, 1, Fault::AnswerLost);
        assert!(matches!(store.put_if_absent(&key, b"x").await, Err(StoreError::Full(_))));
        assert_eq!(store.size(&key).await.unwrap(), None);
        assert!(matches!(store.put_if_absent(&key, b"x").await, Err(StoreError::Remote(_))));
        assert_eq!(store.put_if_absent(&key, b"x").await.unwrap(), Put::Same);
        store.fail_gets(1, 1, Fault::Remote);
        assert_eq!(store.get(&key, 0, 1).await.unwrap(), b"x");
        assert!(matches!(store.get(&key, 0, 1).await, Err(StoreError::Remote(_))));
    }
}
