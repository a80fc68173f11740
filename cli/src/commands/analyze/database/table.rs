//! A table of a stranger's database, row by row in the order in which the rows
//! were put in.
//!
//! It is read in short statements, each from the row where the last one ended:
//! between them the file is free for who writes it. Where a page is damaged the
//! rows behind it are looked for. A table that is a view, computes columns or has
//! no row numbers is none of a tracking tool's and is not read at all.

use std::io;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::open::told;

/// Rows that one statement fetches.
const PAGE: u32 = 5_000;
/// Rows of one table that are looked at.
const MAX_ROWS: u64 = 100_000_000;
/// How often rows behind damage are looked for.
const MAX_GAPS: u32 = 64;
/// Bytes of a value that are taken; a longer one counts as none.
pub(super) const MAX_VALUE: usize = 16 << 20;

/// What became of the rows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    /// Rows that were handed out.
    pub(super) taken: u64,
    /// Places where the database is damaged.
    pub(super) damaged: u64,
    /// Not all of them were looked at.
    pub(super) more: bool,
}

/// Whether a table has these columns, all of them stored.
///
/// # Errors
/// Where the database cannot be asked.
pub(super) fn has(connection: &Connection, table: &str, columns: &[&str]) -> io::Result<bool> {
    let ask = || {
        // A view and a virtual table have no page of their own.
        let stored: i64 = connection.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1 AND rootpage > 0",
            [table],
            |row| row.get(0),
        )?;
        let mut ask = connection.prepare("SELECT name, hidden FROM pragma_table_xinfo(?1)")?;
        let known = ask
            .query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let all = columns.iter().all(|column| known.iter().any(|(name, _)| name == column));
        Ok(stored == 1 && all && known.iter().all(|(_, hidden)| *hidden == 0))
    };
    ask().map_err(|error| told(&error))
}

/// Hands out columns of every row from one row number to another, until `take`
/// has enough.
///
/// # Errors
/// Where the database cannot be read at all.
pub(super) fn each(
    connection: &Connection,
    (table, columns): (&str, &[&str]),
    (first, last): (i64, i64),
    mut take: impl FnMut(i64, &Row<'_>) -> bool,
) -> io::Result<Rows> {
    let columns: Vec<String> = columns
        .iter()
        .map(|name| format!("iif(octet_length(\"{name}\") <= {MAX_VALUE}, \"{name}\", NULL)"))
        .collect();
    let ask = format!(
        "SELECT rowid, {} FROM \"{table}\" NOT INDEXED WHERE rowid >= ?1 AND rowid <= ?2 ORDER BY rowid LIMIT {PAGE}",
        columns.join(", ")
    );
    let mut statement = connection.prepare(&ask).map_err(|error| told(&error))?;
    let mut rows = Rows::default();
    let (mut next, mut gap) = (first, 1_i64);
    loop {
        let mut fetched = 0;
        let page = page(&mut statement, (next, last), &mut |id, row| {
            // A damaged tree could lead in circles.
            if id < next {
                return Err(rusqlite::Error::InvalidQuery);
            }
            (fetched, gap) = (fetched + 1, 1);
            rows.taken += 1;
            let more = take(id, row) && rows.taken < MAX_ROWS;
            next = if more { id.saturating_add(1) } else { i64::MAX };
            Ok(more)
        });
        match page {
            Ok(()) if fetched < PAGE || next > last || next == i64::MAX => break,
            Ok(()) => {}
            Err(error) if !damage(&error) => return Err(told(&error)),
            Err(_) => {
                rows.damaged += 1;
                match next.checked_add(gap).filter(|next| *next <= last && rows.damaged < u64::from(MAX_GAPS))
                {
                    Some(behind) => (next, gap) = (behind, gap.saturating_mul(2)),
                    None => break,
                }
            }
        }
    }
    rows.more = rows.taken >= MAX_ROWS;
    Ok(rows)
}

fn damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseCorrupt))
        || matches!(error, rusqlite::Error::InvalidQuery)
}

fn page(
    statement: &mut rusqlite::Statement<'_>,
    (from, to): (i64, i64),
    take: &mut dyn FnMut(i64, &Row<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let mut rows = statement.query([from, to])?;
    while let Some(row) = rows.next()? {
        if !take(row.get(0)?, row)? {
            break;
        }
    }
    Ok(())
}

/// The bytes of a text or a blob.
pub(super) fn bytes<'a>(row: &'a Row<'_>, column: usize) -> Option<&'a [u8]> {
    match row.get_ref(column) {
        Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => Some(bytes),
        _ => None,
    }
}

/// The text, with what is no UTF-8 replaced.
pub(super) fn text(row: &Row<'_>, column: usize) -> Option<String> {
    bytes(row, column).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The number, whatever type the row gave it.
pub(super) fn number(row: &Row<'_>, column: usize) -> Option<f64> {
    match row.get_ref(column) {
        Ok(ValueRef::Integer(number)) => Some(number as f64),
        Ok(ValueRef::Real(number)) => Some(number),
        Ok(ValueRef::Text(bytes)) => std::str::from_utf8(bytes).ok()?.trim().parse().ok(),
        _ => None,
    }
}

/// The whole number.
pub(super) fn whole(row: &Row<'_>, column: usize) -> Option<i64> {
    match row.get_ref(column) {
        Ok(ValueRef::Integer(number)) => Some(number),
        Ok(ValueRef::Real(number)) if number.abs() < 9.0e15 => Some(number as i64),
        Ok(ValueRef::Text(bytes)) => std::str::from_utf8(bytes).ok()?.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(sql: &str) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    }

    #[test]
    fn rows_come_in_their_order_over_many_statements() {
        let many = PAGE * 3 + 7;
        let connection = table(&format!(
            "CREATE TABLE t(v); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})
             INSERT INTO t(rowid, v) SELECT i * 2, i FROM n;"
        ));
        let mut seen = Vec::new();
        let rows = each(&connection, ("t", &["v"]), (i64::MIN, i64::MAX), |id, row| {
            seen.push((id, whole(row, 1).unwrap()));
            true
        });
        assert_eq!(rows.unwrap(), Rows { taken: u64::from(many), damaged: 0, more: false });
        assert!(seen.iter().enumerate().all(|(n, seen)| *seen == (2 * (n as i64 + 1), n as i64 + 1)));
        let mut count = 0;
        let some = each(&connection, ("t", &["v"]), (4, 10), |_, _| {
            count += 1;
            count < 3
        });
        assert_eq!(some.unwrap().taken, 3);
    }

    #[test]
    fn only_stored_tables_are_tables() {
        let connection = table(
            "CREATE TABLE plain(a, b); CREATE TABLE made(a, b AS (zeroblob(1000000000)));
             CREATE VIEW seen AS WITH RECURSIVE n(a) AS (SELECT 1 UNION ALL SELECT a FROM n) SELECT a, a AS b FROM n;",
        );
        for (name, there) in [("plain", true), ("made", false), ("seen", false), ("absent", false)] {
            assert_eq!(has(&connection, name, &["a", "b"]).unwrap(), there, "{name}");
        }
        assert!(!has(&connection, "plain", &["a", "c"]).unwrap());
    }

    #[test]
    fn a_value_beyond_the_bound_counts_as_none() {
        let connection =
            table(&format!("CREATE TABLE t(v); INSERT INTO t VALUES (zeroblob({})), ('x');", MAX_VALUE + 1));
        let mut seen = Vec::new();
        each(&connection, ("t", &["v"]), (i64::MIN, i64::MAX), |_, row| {
            seen.push(text(row, 1));
            true
        })
        .unwrap();
        assert_eq!(seen, [None, Some("x".to_owned())]);
    }

    #[test]
    fn a_table_without_row_numbers_is_refused_in_words() {
        let connection = table("CREATE TABLE t(v PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES (1);");
        let error = each(&connection, ("t", &["v"]), (i64::MIN, i64::MAX), |_, _| true).unwrap_err();
        assert!(error.to_string().contains("rowid"), "{error}");
    }
}
