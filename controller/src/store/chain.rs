//! The journal's hash chain: each row's hash covers the hash before it and the
//! row's canonical text, so that no row can be altered, removed from the middle
//! or put in later without every following hash being wrong.
//!
//! A form, once written, must never change: old rows keep the form under which
//! they were sealed. Form 1 had no `run`; the column was filled later from the
//! detail, and is checked against it.

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{JournalCheck, JournalEntry, JournalRow, StoreError};

/// The form under which new rows are sealed.
pub(super) const FORM: i64 = 2;

/// The hash before the first row.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A journal row as it is stored: the detail is the exact text that was hashed.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) seq: u64,
    pub(super) prev: String,
    pub(super) hash: String,
    pub(super) form: i64,
    pub(super) at_ms: u64,
    pub(super) actor: String,
    pub(super) verb: String,
    pub(super) object: String,
    pub(super) run: Option<String>,
    pub(super) detail: String,
}

impl Sealed {
    /// Puts an entry behind the row that has number `seq - 1` and hash `prev`.
    pub(super) fn seal(seq: u64, prev: &str, entry: JournalEntry) -> Self {
        let mut row = Self {
            seq,
            prev: prev.to_owned(),
            hash: String::new(),
            form: FORM,
            at_ms: entry.at_ms,
            actor: entry.actor,
            verb: entry.verb,
            object: entry.object,
            run: entry.run,
            detail: entry.detail.to_string(),
        };
        row.hash = row.digest();
        row
    }

    fn canonical(&self) -> String {
        let Self { form, seq, at_ms, actor, verb, object, run, detail, .. } = self;
        if *form == 1 {
            json!([form, seq, at_ms, actor, verb, object, detail]).to_string()
        } else {
            json!([form, seq, at_ms, actor, verb, object, run, detail]).to_string()
        }
    }

    fn digest(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.prev.as_bytes());
        context.update(self.canonical().as_bytes());
        HEXLOWER.encode(context.finish().as_ref())
    }

    fn is_intact(&self) -> bool {
        let run_agrees = self.form != 1 || self.run == run_of(&self.detail);
        (1..=FORM).contains(&self.form) && run_agrees && self.hash == self.digest()
    }

    /// The row as callers see it.
    pub(super) fn into_row(self) -> Result<JournalRow, StoreError> {
        let detail = serde_json::from_str(&self.detail)
            .map_err(|e| StoreError::Corrupt(format!("journal row {}: detail: {e}", self.seq)))?;
        Ok(JournalRow {
            seq: self.seq,
            prev_hash: self.prev,
            hash: self.hash,
            at_ms: self.at_ms,
            actor: self.actor,
            verb: self.verb,
            object: self.object,
            run: self.run,
            detail,
        })
    }
}

fn run_of(detail: &str) -> Option<String> {
    match serde_json::from_str::<Value>(detail).ok()?.get("run")? {
        Value::String(run) => Some(run.clone()),
        _ => None,
    }
}

/// A walk along the chain, one row at a time.
pub(super) struct Walk {
    check: JournalCheck,
}

impl Walk {
    pub(super) fn new() -> Self {
        Self { check: JournalCheck { rows: 0, first_bad: None, head: GENESIS.to_owned() } }
    }

    /// Takes the next row by number; false: the chain is broken, stop here.
    pub(super) fn step(&mut self, row: &Sealed) -> bool {
        let expected = self.check.rows + 1;
        if row.seq != expected || row.prev != self.check.head || !row.is_intact() {
            self.check.first_bad = Some(expected);
            return false;
        }
        self.check.rows = row.seq;
        row.hash.clone_into(&mut self.check.head);
        true
    }

    /// Ends the walk; `last` is the highest number ever given out, so that rows
    /// cut off at the end are missed too.
    pub(super) fn end(mut self, last: u64) -> JournalCheck {
        if self.check.first_bad.is_none() && self.check.rows != last {
            self.check.first_bad = Some(self.check.rows.min(last) + 1);
        }
        self.check
    }
}
