//! Rows kept as they were read, so that a thousand machines that each say once a
//! second that they live do not have their rows parsed a thousand times a
//! second. The store says what changed, and that alone is read again; a row is
//! kept only if nothing changed it while it was read. Nothing is ever written
//! here, and nothing here is news to the store.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::CoreError;
use crate::model::{Record, Versioned};
use crate::store::{Kind, Row, Store};

/// Rows of one kind that are kept at most, where not all of them are wanted.
const MOST: usize = 20_000;
/// Above so many changed rows of a kind all of them are read again at once.
const ONE_BY_ONE: usize = 32;

/// A row that others hold too.
#[derive(Debug)]
pub struct Shared<T> {
    /// The version it was read at.
    pub version: u64,
    /// Its content.
    pub body: Arc<T>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { version: self.version, body: self.body.clone() }
    }
}

impl<T: Clone> Shared<T> {
    /// A copy to be changed and written back.
    #[must_use]
    pub fn own(&self) -> Versioned<T> {
        Versioned { version: Some(self.version), body: (*self.body).clone() }
    }
}

type Body = Arc<dyn Any + Send + Sync>;

#[derive(Default)]
struct Table {
    rows: BTreeMap<String, (u64, Body)>,
    /// All rows of this kind are here, but for `stale`.
    whole: bool,
    /// Changed since they were read.
    stale: BTreeSet<String>,
}

#[derive(Default)]
struct State {
    mark: u64,
    tables: BTreeMap<Kind, Table>,
}

/// What is kept.
#[derive(Default)]
pub struct Kept(Mutex<State>);

/// What is known of a row without a question.
enum Known<T> {
    Is(Shared<T>),
    /// There is none.
    Not,
    /// It has to be read.
    Unknown,
}

impl State {
    /// Lets go of what has changed.
    fn catch_up(&mut self, store: &dyn Store) {
        let changed = store.changed_since(self.mark);
        self.mark = changed.mark;
        let Some(rows) = changed.rows else {
            self.tables.clear();
            return;
        };
        for (kind, id) in rows {
            if let Some(table) = self.tables.get_mut(&kind) {
                table.rows.remove(&id);
                if table.whole {
                    table.stale.insert(id);
                }
            }
        }
    }

    /// Keeps what was read since `mark`, but for what has changed meanwhile.
    fn keep<T: Record>(
        &mut self,
        store: &dyn Store,
        mark: u64,
        read: &[(String, Option<Shared<T>>)],
        whole: bool,
    ) {
        self.catch_up(store);
        let Some(changed) = store.changed_since(mark).rows else { return };
        let changed: BTreeSet<&str> =
            changed.iter().filter(|(kind, _)| *kind == T::KIND).map(|(_, id)| id.as_str()).collect();
        let table = self.tables.entry(T::KIND).or_default();
        if whole {
            table.rows.clear();
            table.stale = changed.iter().map(|id| (*id).to_owned()).collect();
            table.whole = true;
        } else if !table.whole && table.rows.len() >= MOST {
            table.rows.clear();
        }
        for (id, row) in read.iter().filter(|(id, _)| !changed.contains(id.as_str())) {
            table.stale.remove(id);
            if let Some(row) = row {
                table.rows.insert(id.clone(), (row.version, row.body.clone()));
            }
        }
    }

    /// All rows of a kind, with what was just read of them; `None`: one of them
    /// changed meanwhile. What was read one by one is only told as one moment of
    /// the store if it was one.
    fn gather<T: Record>(
        &mut self,
        store: &dyn Store,
        mark: u64,
        read: &[(String, Option<Shared<T>>)],
    ) -> Option<Vec<Shared<T>>> {
        if store.changed_since(mark).rows?.iter().any(|(kind, _)| *kind == T::KIND) {
            return None;
        }
        self.keep(store, mark, read, false);
        let table = self.tables.get(&T::KIND).filter(|table| table.whole && table.stale.is_empty())?;
        Some(table.rows.values().filter_map(shared).collect())
    }

    fn known<T: Record>(&self, id: &str) -> Known<T> {
        let Some(table) = self.tables.get(&T::KIND) else { return Known::Unknown };
        match table.rows.get(id) {
            Some(row) => shared(row).map_or(Known::Unknown, Known::Is),
            None if table.whole && !table.stale.contains(id) => Known::Not,
            None => Known::Unknown,
        }
    }
}

fn shared<T: Record>((version, body): &(u64, Body)) -> Option<Shared<T>> {
    Some(Shared { version: *version, body: body.clone().downcast().ok()? })
}

fn parse<T: Record>(row: &Row) -> Result<Shared<T>, CoreError> {
    let read: Versioned<T> = Versioned::read(row)?;
    Ok(Shared { version: row.version, body: Arc::new(read.body) })
}

impl Kept {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One row.
    ///
    /// # Errors
    /// Where the store fails or the row does not parse.
    pub async fn one<T: Record>(&self, store: &dyn Store, id: &str) -> Result<Option<Shared<T>>, CoreError> {
        if !T::KIND.is_kept() {
            return store.get(T::KIND, id).await?.as_ref().map(parse).transpose();
        }
        let mark = {
            let mut state = self.state();
            state.catch_up(store);
            match state.known(id) {
                Known::Is(row) => return Ok(Some(row)),
                Known::Not => return Ok(None),
                Known::Unknown => state.mark,
            }
        };
        let row = store.get(T::KIND, id).await?.as_ref().map(parse).transpose()?;
        self.state().keep(store, mark, &[(id.to_owned(), row.clone())], false);
        Ok(row)
    }

    /// All rows of a kind, by id.
    ///
    /// # Errors
    /// As [`Kept::one`].
    pub async fn every<T: Record>(&self, store: &dyn Store) -> Result<Vec<Shared<T>>, CoreError> {
        if !T::KIND.is_kept() {
            return store.list(T::KIND).await?.iter().map(parse).collect();
        }
        let (mark, stale) = {
            let mut state = self.state();
            state.catch_up(store);
            let table = state.tables.get(&T::KIND);
            let whole = table.filter(|table| table.whole && table.stale.len() <= ONE_BY_ONE);
            (state.mark, whole.map(|table| table.stale.iter().cloned().collect::<Vec<_>>()))
        };
        let Some(stale) = stale else {
            let rows: Vec<Shared<T>> =
                store.list(T::KIND).await?.iter().map(parse).collect::<Result<_, _>>()?;
            let read: Vec<_> = rows.iter().map(|row| (row.body.key(), Some(row.clone()))).collect();
            self.state().keep(store, mark, &read, true);
            return Ok(rows);
        };
        let mut read = Vec::with_capacity(stale.len());
        for id in stale {
            let row = store.get(T::KIND, &id).await?.as_ref().map(parse).transpose()?;
            read.push((id, row));
        }
        let gathered = self.state().gather(store, mark, &read);
        match gathered {
            Some(rows) => Ok(rows),
            // Others changed rows meanwhile that were not read here.
            None => store.list(T::KIND).await?.iter().map(parse).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
