//! The SQL behind the store, over one open connection. Nothing here begins or
//! ends a transaction, and every number is checked on its way in and out.

use rusqlite::{Connection, OptionalExtension, params};

use super::chain::{GENESIS, Sealed, Walk};
use super::{Changeset, ChunkPut, Commit, JournalCheck, JournalRow, Kind, Row, StoreError};

fn stored(n: u64) -> Result<i64, StoreError> {
    i64::try_from(n).map_err(|_| StoreError::Invalid(format!("{n} is above 2^63 - 1")))
}

fn unsigned(n: i64) -> u64 {
    // The schema's checks keep negative numbers out; a damaged one must not panic.
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn get(conn: &Connection, kind: Kind, id: &str) -> Result<Option<Row>, StoreError> {
    let row = conn
        .query_row(
            "SELECT id, version, run, body FROM rows WHERE kind = ?1 AND id = ?2",
            params![kind.as_str(), id],
            |row| read_row(kind, row),
        )
        .optional()?;
    Ok(row)
}

pub(super) fn list(conn: &Connection, kind: Kind, run: Option<&str>) -> Result<Vec<Row>, StoreError> {
    let sql = match run {
        None => "SELECT id, version, run, body FROM rows WHERE kind = ?1 AND ?2 IS NULL ORDER BY id",
        Some(_) => "SELECT id, version, run, body FROM rows WHERE kind = ?1 AND run = ?2 ORDER BY id",
    };
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map(params![kind.as_str(), run], |row| read_row(kind, row))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read_row(kind: Kind, row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row { kind, id: row.get(0)?, version: unsigned(row.get(1)?), run: row.get(2)?, body: row.get(3)? })
}

/// Applies a changeset within the caller's transaction. A conflict is found
/// before anything is written, so that it leaves nothing to undo.
pub(super) fn apply(conn: &Connection, changes: &Changeset) -> Result<Commit, StoreError> {
    if !changes.expect.is_empty() {
        let mut version = conn.prepare("SELECT version FROM rows WHERE kind = ?1 AND id = ?2")?;
        for expect in &changes.expect {
            let found = version
                .query_row(params![expect.kind.as_str(), expect.id], |row| row.get(0))
                .optional()?
                .map(unsigned);
            if found != expect.version {
                return Ok(Commit::Conflict { kind: expect.kind, id: expect.id.clone(), found });
            }
        }
    }
    if !changes.put.is_empty() {
        let mut put = conn.prepare(
            "INSERT INTO rows (kind, id, version, run, body) VALUES (?1, ?2, 1, ?3, ?4)
             ON CONFLICT (kind, id) DO UPDATE
             SET version = version + 1, run = excluded.run, body = excluded.body",
        )?;
        for row in &changes.put {
            put.execute(params![row.kind.as_str(), row.id, row.run, row.body])?;
        }
    }
    for (kind, id) in &changes.delete {
        conn.execute("DELETE FROM rows WHERE kind = ?1 AND id = ?2", params![kind.as_str(), id])?;
    }
    if !changes.forget_packs.is_empty() {
        let packs = serde_json::to_string(&changes.forget_packs).unwrap_or_default();
        conn.execute("DELETE FROM chunks WHERE pack IN (SELECT value FROM json_each(?1))", params![packs])?;
    }
    if !changes.chunks.is_empty() {
        let mut put = conn.prepare(
            "INSERT INTO chunks (digest, pack, start, len, stored, codec, cipher)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (digest) DO NOTHING",
        )?;
        for chunk in &changes.chunks {
            put.execute(params![
                &chunk.digest[..],
                chunk.pack,
                stored(chunk.offset)?,
                chunk.len,
                chunk.stored,
                chunk.codec,
                chunk.cipher.as_ref().map(|cipher| &cipher[..])
            ])?;
        }
    }
    Ok(Commit::Committed { journal_seq: append(conn, changes)? })
}

fn append(conn: &Connection, changes: &Changeset) -> Result<u64, StoreError> {
    let (mut seq, mut prev) = conn
        .query_row("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1", [], |row| {
            Ok((unsigned(row.get(0)?), row.get(1)?))
        })
        .optional()?
        .unwrap_or_else(|| (0, GENESIS.to_owned()));
    if changes.journal.is_empty() {
        return Ok(seq);
    }
    let mut insert = conn.prepare(
        "INSERT INTO journal (seq, prev_hash, hash, form, at_ms, actor, verb, object, run, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for entry in &changes.journal {
        seq += 1;
        let s = Sealed::seal(seq, &prev, entry.clone());
        let (number, at_ms) = (stored(seq)?, stored(s.at_ms)?);
        insert.execute(params![
            number, s.prev, s.hash, s.form, at_ms, s.actor, s.verb, s.object, s.run, s.detail
        ])?;
        prev = s.hash;
    }
    Ok(seq)
}

pub(super) fn locate(conn: &Connection, digests: &[[u8; 32]]) -> Result<Vec<Option<ChunkPut>>, StoreError> {
    let mut statement = conn.prepare(
        "SELECT pack, start, len, iif(stored = 0, len, stored), codec, cipher FROM chunks WHERE digest = ?1",
    )?;
    digests
        .iter()
        .map(|digest| {
            let found = statement.query_row([&digest[..]], |row| {
                Ok(ChunkPut {
                    digest: *digest,
                    pack: row.get(0)?,
                    offset: unsigned(row.get(1)?),
                    len: row.get(2)?,
                    stored: row.get(3)?,
                    codec: row.get(4)?,
                    cipher: row.get(5)?,
                })
            });
            Ok(found.optional()?)
        })
        .collect()
}

pub(super) fn journal(
    conn: &Connection,
    after: u64,
    limit: usize,
    run: Option<&str>,
) -> Result<Vec<JournalRow>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let filter = match run {
        None => "?3 IS NULL",
        Some(_) => "run = ?3",
    };
    let mut statement =
        conn.prepare(&format!("{SELECT} WHERE seq > ?1 AND {filter} ORDER BY seq LIMIT ?2"))?;
    let rows = statement.query_map(params![after, limit, run], read_sealed)?;
    rows.map(|row| row.map_err(StoreError::from).and_then(Sealed::into_row)).collect()
}

pub(super) fn verify(conn: &Connection) -> Result<JournalCheck, StoreError> {
    // One transaction, so that commits during the walk are not half seen.
    let transaction = conn.unchecked_transaction()?;
    let last = transaction
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'journal'", [], |row| row.get(0))
        .optional()?
        .map_or(0, unsigned);
    let mut walk = Walk::new();
    let mut statement = transaction.prepare(&format!("{SELECT} ORDER BY seq"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if !walk.step(&read_sealed(row)?) {
            break;
        }
    }
    Ok(walk.end(last))
}

const SELECT: &str =
    "SELECT seq, prev_hash, hash, form, at_ms, actor, verb, object, run, detail FROM journal";

fn read_sealed(row: &rusqlite::Row<'_>) -> rusqlite::Result<Sealed> {
    Ok(Sealed {
        seq: unsigned(row.get(0)?),
        prev: row.get(1)?,
        hash: row.get(2)?,
        form: row.get(3)?,
        at_ms: unsigned(row.get(4)?),
        actor: row.get(5)?,
        verb: row.get(6)?,
        object: row.get(7)?,
        run: row.get(8)?,
        detail: row.get(9)?,
    })
}
