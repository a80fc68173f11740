//! What only the durable store promises: crashes, old databases, full disks.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::store::PutRow;
use crate::store::contract::{self, entries, put};

const V1_DUMP: &str = include_str!("../../../tests/fixtures/store-v1.sql");
const V2_DUMP: &str = include_str!("../../../tests/fixtures/store-v2.sql");
const CRASH_DB: &str = "OUTLAST_TEST_CRASH_DB";

fn open(dir: &TempDir, mode: Mode) -> SqliteStore {
    SqliteStore::open(dir.path().join("state.db"), mode).unwrap()
}

fn raw(dir: &TempDir) -> Connection {
    Connection::open(dir.path().join("state.db")).unwrap()
}

async fn keeps_contract(mode: Mode) {
    let root = TempDir::new().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    contract::run(&|| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::new(SqliteStore::open(root.path().join(format!("{n}.db")), mode).unwrap())
    })
    .await;
}

#[tokio::test]
async fn keeps_the_contract_on_threads() {
    keeps_contract(Mode::Thread).await;
}

#[tokio::test]
async fn keeps_the_contract_inline() {
    keeps_contract(Mode::Inline).await;
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    for (first, second) in [(Mode::Thread, Mode::Inline), (Mode::Inline, Mode::Thread)] {
        let dir = TempDir::new().unwrap();
        let chunk = ChunkPut {
            digest: [5; 32],
            pack: "p".into(),
            offset: 7,
            len: 8,
            stored: 5,
            codec: 4,
            cipher: None,
        };
        let changes = Changeset {
            put: vec![put(Kind::Run, "a", Some("a"))],
            chunks: vec![chunk.clone()],
            ..entries(2)
        };
        open(&dir, first).commit(changes).await.unwrap();
        let store = open(&dir, second);
        assert_eq!(store.get(Kind::Run, "a").await.unwrap().unwrap().version, 1);
        assert_eq!(store.locate(&[[5; 32]]).await.unwrap(), vec![Some(chunk)]);
        store.commit(entries(1)).await.unwrap();
        assert_eq!(store.verify_journal().await.unwrap().rows, 3, "the chain goes on over a restart");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let store = open(&dir, Mode::Thread);
    store.commit(entries(1)).await.unwrap();
    store.backup(&dir.path().join("copy.db")).await.unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.file_name());
        seen += 1;
    }
    assert!(seen >= 4, "database, WAL, ballast and copy were looked at");
}

#[tokio::test]
async fn many_commits_at_once_all_succeed_in_one_chain() {
    let dir = TempDir::new().unwrap();
    let store = std::sync::Arc::new(open(&dir, Mode::Thread));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let store = store.clone();
        tasks.spawn(async move {
            let row = put(Kind::Stream, &format!("{n:03}"), None);
            store.commit(Changeset { put: vec![row], ..entries(1) }).await.unwrap()
        });
    }
    let mut seqs: Vec<u64> = Vec::new();
    while let Some(commit) = tasks.join_next().await {
        match commit.unwrap() {
            Commit::Committed { journal_seq } => seqs.push(journal_seq),
            Commit::Conflict { .. } => panic!("nothing was expected, nothing can conflict"),
        }
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    assert_eq!(store.list(Kind::Stream).await.unwrap().len(), 200);
    assert_eq!(store.verify_journal().await.unwrap().first_bad, None);
}

#[tokio::test]
async fn the_database_refuses_to_rewrite_history() {
    let dir = TempDir::new().unwrap();
    open(&dir, Mode::Inline).commit(entries(2)).await.unwrap();
    let conn = raw(&dir);
    assert!(conn.execute("UPDATE journal SET actor = 'nobody'", []).is_err());
    assert!(conn.execute("DELETE FROM journal", []).is_err());
}

#[tokio::test]
async fn tampering_is_found_at_its_first_row() {
    let cases = [
        ("UPDATE journal SET actor = 'nobody' WHERE seq = 3", 3),
        ("UPDATE journal SET detail = '{}' WHERE seq = 2", 2),
        ("UPDATE journal SET run = NULL WHERE seq = 4", 4),
        ("UPDATE journal SET at_ms = at_ms + 1 WHERE seq = 1", 1),
        ("UPDATE journal SET form = 1 WHERE seq = 5", 5),
        ("UPDATE journal SET hash = prev_hash WHERE seq = 5", 5),
        ("DELETE FROM journal WHERE seq = 3", 3),
        ("DELETE FROM journal WHERE seq >= 4", 4),
        ("DELETE FROM journal", 1),
    ];
    for (sql, bad) in cases {
        let dir = TempDir::new().unwrap();
        open(&dir, Mode::Inline).commit(entries(6)).await.unwrap();
        let conn = raw(&dir);
        conn.execute_batch("DROP TRIGGER journal_is_never_changed; DROP TRIGGER journal_is_never_cut")
            .unwrap();
        conn.execute(sql, []).unwrap();
        drop(conn);
        let check = open(&dir, Mode::Thread).verify_journal().await.unwrap();
        assert_eq!((check.first_bad, check.rows), (Some(bad), bad - 1), "{sql}");
    }
}

#[tokio::test]
async fn a_backup_is_a_whole_store() {
    for mode in [Mode::Thread, Mode::Inline] {
        let dir = TempDir::new().unwrap();
        let store = open(&dir, mode);
        store.commit(Changeset { put: vec![put(Kind::Run, "a", None)], ..entries(3) }).await.unwrap();
        let copy = dir.path().join("copy's.db");
        store.backup(&copy).await.unwrap();
        assert!(matches!(store.backup(&copy).await, Err(StoreError::Io { .. })), "none is overwritten");
        store.commit(entries(1)).await.unwrap();
        let copy = SqliteStore::open(&copy, Mode::Inline).unwrap();
        assert!(copy.get(Kind::Run, "a").await.unwrap().is_some());
        let check = copy.verify_journal().await.unwrap();
        assert_eq!((check.rows, check.first_bad), (3, None));
    }
}

fn old_database(dir: &TempDir) {
    raw(dir).execute_batch(V1_DUMP).unwrap();
}

fn user_version(path: &Path) -> u32 {
    Connection::open(path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_database_of_schema_1_is_carried_over() {
    let dir = TempDir::new().unwrap();
    old_database(&dir);
    let store = open(&dir, Mode::Thread);
    assert_eq!(user_version(&dir.path().join("state.db")), schema::KNOWN);
    let row = store.get(Kind::Run, "tiny-gpt").await.unwrap().unwrap();
    assert_eq!((row.version, row.run.as_deref()), (3, Some("tiny-gpt")));
    let chunk = store.locate(&[[0x11; 32]]).await.unwrap()[0].clone().unwrap();
    assert_eq!((chunk.stored, chunk.codec), (chunk.len, 0), "what was stored plain is read plain");
    let of_run = store.journal(0, 10, Some("tiny-gpt")).await.unwrap();
    assert_eq!(of_run.iter().map(|row| row.seq).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(store.journal(0, 10, None).await.unwrap().len(), 4);
    store.commit(entries(2)).await.unwrap();
    let check = store.verify_journal().await.unwrap();
    assert_eq!((check.rows, check.first_bad), (6, None), "old seals hold, new rows follow them");
    let backup = dir.path().join("state.db.v1.bak");
    assert_eq!(user_version(&backup), 1);
    let rows: i64 = Connection::open(&backup)
        .unwrap()
        .query_row("SELECT count(*) FROM journal", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 4);
}

/// Chunks that were stored plain, before there was any other way.
#[tokio::test]
async fn a_database_of_schema_2_is_carried_over_with_its_chunks() {
    for mode in [Mode::Thread, Mode::Inline] {
        let dir = TempDir::new().unwrap();
        raw(&dir).execute_batch(V2_DUMP).unwrap();
        let store = open(&dir, mode);
        assert_eq!(user_version(&dir.path().join("state.db")), schema::KNOWN);
        let found = store.locate(&[[0x11; 32], [0x22; 32], [0x33; 32], [0x44; 32]]).await.unwrap();
        let chunk = |n: u8, pack: &str, offset, len| {
            Some(ChunkPut {
                digest: [n; 32],
                pack: pack.into(),
                offset,
                len,
                stored: len,
                codec: 0,
                cipher: None,
            })
        };
        let pack = "tiny-gpt/g0000000000000001/p00000001";
        let source = "source/g0000000000000001/p00000000";
        let expected = [chunk(0x11, pack, 0, 512), chunk(0x22, pack, 512, 1 << 20)];
        assert_eq!(found[..2], expected);
        assert_eq!(found[2..], [chunk(0x33, source, 67_108_863, 1), None]);
        let again = ChunkPut { digest: [0x44; 32], stored: 3, codec: 4, ..found[0].clone().unwrap() };
        let changes = Changeset { chunks: vec![again.clone()], ..entries(1) };
        store.commit(changes).await.unwrap();
        assert_eq!(store.locate(&[[0x44; 32]]).await.unwrap(), [Some(again)]);
        let check = store.verify_journal().await.unwrap();
        assert_eq!((check.rows, check.first_bad), (7, None), "seals of both forms hold");
        assert_eq!(user_version(&dir.path().join("state.db.v2.bak")), 2);
    }
}

/// A new sort of rows needs no step of the schema: an older database takes them
/// as it is, and what it had stays.
#[tokio::test]
async fn older_databases_take_what_is_remembered_of_hosts() {
    for (dump, run) in [(V1_DUMP, "tiny-gpt"), (V2_DUMP, "tiny-gpt")] {
        let dir = TempDir::new().unwrap();
        raw(&dir).execute_batch(dump).unwrap();
        let store = open(&dir, Mode::Inline);
        assert!(store.list(Kind::Host).await.unwrap().is_empty());
        let changes = Changeset { put: vec![put(Kind::Host, "vast/host/7", None)], ..Changeset::default() };
        store.commit(changes).await.unwrap();
        drop(store);
        let store = open(&dir, Mode::Inline);
        let hosts = store.list(Kind::Host).await.unwrap();
        assert_eq!((hosts.len(), hosts[0].id.as_str()), (1, "vast/host/7"));
        assert!(store.get(Kind::Run, run).await.unwrap().is_some());
        let forget = Changeset { delete: vec![(Kind::Host, "vast/host/7".into())], ..Changeset::default() };
        store.commit(forget).await.unwrap();
        assert!(store.list(Kind::Host).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_run_forged_onto_an_old_row_is_found() {
    let dir = TempDir::new().unwrap();
    old_database(&dir);
    drop(open(&dir, Mode::Inline));
    let conn = raw(&dir);
    conn.execute_batch("DROP TRIGGER journal_is_never_changed").unwrap();
    conn.execute("UPDATE journal SET run = 'other' WHERE seq = 2", []).unwrap();
    drop(conn);
    assert_eq!(open(&dir, Mode::Inline).verify_journal().await.unwrap().first_bad, Some(2));
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let dir = TempDir::new().unwrap();
    old_database(&dir);
    // The step adds a table's worth of things; one of them is in its way.
    raw(&dir).execute_batch("CREATE INDEX journal_by_run ON journal (actor)").unwrap();
    let failed = SqliteStore::open(dir.path().join("state.db"), Mode::Inline);
    assert!(matches!(failed, Err(StoreError::Sqlite(_))));
    assert_eq!(user_version(&dir.path().join("state.db")), 1);
    let columns: i64 = raw(&dir)
        .query_row("SELECT count(*) FROM pragma_table_info('journal') WHERE name = 'run'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(columns, 0);
    raw(&dir).execute_batch("DROP INDEX journal_by_run").unwrap();
    drop(open(&dir, Mode::Inline));
    assert_eq!(user_version(&dir.path().join("state.db")), schema::KNOWN);
}

#[test]
fn a_later_schema_and_foreign_files_are_refused() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir, Mode::Inline));
    raw(&dir).execute_batch("PRAGMA user_version = 77").unwrap();
    let newer = SqliteStore::open(dir.path().join("state.db"), Mode::Thread);
    assert!(matches!(newer, Err(StoreError::Newer { found: 77, known: schema::KNOWN })));
    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE cookies (a)").unwrap();
    assert!(matches!(SqliteStore::open(&foreign, Mode::Inline), Err(StoreError::Corrupt(_))));
    let text = dir.path().join("text.db");
    std::fs::write(&text, "no database at all, ".repeat(100)).unwrap();
    assert!(matches!(SqliteStore::open(&text, Mode::Inline), Err(StoreError::Corrupt(_))));
}

fn big_row(id: &str) -> Changeset {
    let body = json!("x".repeat(1 << 20)).to_string();
    Changeset {
        put: vec![PutRow { kind: Kind::Meta, id: id.into(), run: None, body }],
        ..Changeset::default()
    }
}

#[tokio::test]
async fn a_full_database_refuses_cleanly_and_gives_up_its_ballast() {
    let dir = TempDir::new().unwrap();
    let ballast = dir.path().join("state.db.ballast");
    let store = open(&dir, Mode::Inline);
    assert_eq!(std::fs::metadata(&ballast).unwrap().len(), crate::store::ballast::SIZE);
    let limit = |pages: u32| {
        let Engine::Inline(writer) = &store.engine else { panic!("opened inline") };
        let writer = writer.lock().unwrap();
        writer.conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    };
    limit(100);
    let refused = store.commit(Changeset { journal: entries(1).journal, ..big_row("big") }).await;
    assert!(matches!(refused, Err(StoreError::Full)));
    assert!(!ballast.exists());
    assert!(store.get(Kind::Meta, "big").await.unwrap().is_none());
    for n in 0..64 {
        store
            .commit(Changeset { put: vec![put(Kind::Meta, "small", None)], ..Changeset::default() })
            .await
            .unwrap();
        assert_eq!(ballast.exists(), n == 63, "made again after a while, not at once ({n})");
    }
    limit(100_000);
    store.commit(big_row("big")).await.unwrap();
    assert_eq!(store.verify_journal().await.unwrap().rows, 0);
}

/// A small file system of its own, where the system lets one be mounted.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "outlast-test"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn small_commits_go_on_when_a_real_disk_is_full() {
    // Without the right to mount, the test above has to do.
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().join("state.db");
    let store = SqliteStore::open(&path, Mode::Thread).unwrap();
    let mut written = 0;
    let full = loop {
        match store.commit(big_row(&format!("{written:03}"))).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 24, "24 MiB cannot hold this");
    };
    assert!(matches!(full, StoreError::Full), "{full}");
    assert!(!disk.0.path().join("state.db.ballast").exists());
    for _ in 0..20 {
        store.commit(Changeset { put: vec![put(Kind::Run, "r", None)], ..entries(1) }).await.unwrap();
    }
    assert_eq!(store.list(Kind::Meta).await.unwrap().len(), written);
    drop(store);
    let store = SqliteStore::open(&path, Mode::Inline).unwrap();
    assert_eq!(store.get(Kind::Run, "r").await.unwrap().unwrap().version, 20);
    assert_eq!(store.verify_journal().await.unwrap().rows, 20);
    drop(store);
}

/// Not a test by itself: the process that the next test kills.
#[tokio::test]
async fn crash_child() {
    let Some(path) = std::env::var_os(CRASH_DB) else { return };
    let store = SqliteStore::open(path, Mode::Thread).unwrap();
    let start = store.list(Kind::Upload).await.unwrap().len();
    for n in start.. {
        let row = put(Kind::Upload, &format!("{n:08}"), None);
        store.commit(Changeset { put: vec![row], ..entries(1) }).await.unwrap();
        println!("acknowledged {n}");
    }
}

#[tokio::test]
async fn no_acknowledged_commit_is_lost_when_the_process_is_killed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state.db");
    let mut last = 0;
    for round in 1..=6_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::sqlite::tests::crash_child", "--nocapture"])
            .env(CRASH_DB, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            let Some(n) = line.rsplit_once("acknowledged ").map(|(_, n)| n.parse::<usize>().unwrap()) else {
                continue;
            };
            last = n;
            seen += 1;
            if seen == 17 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= 17 * round, "the child worked until it was killed");
        let store = SqliteStore::open(&path, Mode::Inline).unwrap();
        let rows = store.list(Kind::Upload).await.unwrap();
        assert!(rows.len() > last, "row {last} was acknowledged, {} are there", rows.len());
        let check = store.verify_journal().await.unwrap();
        assert_eq!((check.first_bad, check.rows), (None, rows.len() as u64), "row and journal go together");
    }
}
