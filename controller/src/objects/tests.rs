//! Setting a store up, telling it from another, and saying what is wrong.

use super::*;

fn none(_: &str) -> Option<String> {
    None
}

fn keys(name: &str) -> Option<String> {
    name.starts_with("AWS_").then(|| "a-secret".to_owned())
}

const NEVER: NowMs<'_> = &|| 0;

fn write(home: &Path, text: &str) {
    fs::write(home.join(FILE), text).unwrap();
}

const S3: &str = "[store]\nkind = \"s3\"\nbucket = \"mine\"\nprefix = \"a\"\n";
const AWAY: &str = "endpoint = \"http://127.0.0.1:1\"\nallow_http = true\n";

async fn begin(home: &Path, rows: bool) -> Result<Arc<dyn Store>, ObjectsError> {
    open(home, &none, NEVER, rows).await
}

async fn refused(home: &Path, env: fn(&str) -> Option<String>) -> String {
    let error = open(home, &env, NEVER, false).await.err().expect("refused");
    let told = diagnose(home, &env, NEVER).await;
    assert!(told.problem.is_some(), "{error}");
    let all = format!("{error} {error:?} {told:?}");
    assert!(!all.contains("a-secret"), "{all}");
    error.to_string()
}

fn object() -> ObjectKey {
    ObjectKey::pack("run", 1, 1).unwrap()
}

#[tokio::test]
async fn without_a_file_it_is_a_directory() {
    let home = tempfile::tempdir().unwrap();
    let store = begin(home.path(), false).await.unwrap();
    let marks = store.list("").await.unwrap();
    assert!(matches!(&marks[..], [mark] if mark.scope() == own::SCOPE), "{marks:?}");
    let told = diagnose(home.path(), &none, NEVER).await;
    assert_eq!(told.problem, None);
    assert_eq!(store.list("").await.unwrap(), marks, "a diagnosis leaves nothing behind");
    let again = begin(home.path(), true).await.unwrap();
    assert_eq!(again.list("").await.unwrap(), marks, "one mark for good");
}

#[tokio::test]
async fn a_diagnosis_of_a_fresh_home_leaves_nothing_that_counts_as_a_store() {
    let above = tempfile::tempdir().unwrap();
    let home = above.path().join("home");
    assert_eq!(diagnose(&home, &none, NEVER).await.problem, None);
    assert!(!home.exists(), "what it made is gone");
    fs::create_dir(&home).unwrap();
    assert_eq!(diagnose(&home, &none, NEVER).await.problem, None);
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
    // Nor does an empty directory, or one that was begun with and never used.
    begin(&home, false).await.unwrap();
    write(&home, &format!("{S3}{AWAY}"));
    let told = refused(&home, keys).await;
    assert!(told.contains("cannot be reached"), "{told}");
    // Where the database names objects, its disk may be missing.
    let moved = open(&home, &keys, NEVER, true).await.err().expect("refused");
    assert!(matches!(moved, ObjectsError::Moved { .. }), "{moved}");
}

#[tokio::test]
async fn another_store_in_its_place_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let store = begin(home.path(), false).await.unwrap();
    store.put_if_absent(&object(), b"saved").await.unwrap();
    write(home.path(), S3);
    let told = refused(home.path(), keys).await;
    assert!(told.contains("in objects") && told.contains("s3://mine/a"), "{told}");
    let (what, cure) = diagnose(home.path(), &keys, NEVER).await.problem.unwrap();
    assert!(
        what.contains("in objects") && cure.contains("copy every object to s3://mine/a"),
        "{what}: {cure}"
    );
    write(home.path(), "[store]\nkind = \"local\"\n");
    assert!(begin(home.path(), true).await.is_ok());
    // The same bucket's name on another server is another bucket.
    fs::write(home.path().join(NAME), "s3://mine/a at https://one.example\nid\n").unwrap();
    write(home.path(), &format!("{S3}endpoint = \"https://two.example\"\n"));
    let told = refused(home.path(), keys).await;
    assert!(told.contains("one.example") && told.contains("two.example"), "{told}");
}

#[tokio::test]
async fn a_disk_that_is_not_mounted_is_not_a_store_that_lost_everything() {
    let home = tempfile::tempdir().unwrap();
    let store = begin(home.path(), false).await.unwrap();
    store.put_if_absent(&object(), b"saved").await.unwrap();
    let (dir, away) = (home.path().join(LOCAL), home.path().join("away"));
    // The empty directory of the mount point shows.
    fs::rename(&dir, &away).unwrap();
    fs::create_dir(&dir).unwrap();
    let later = begin(home.path(), true).await.err().expect("refused");
    assert!(matches!(later, ObjectsError::Foreign { .. }), "{later}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing is made there");
    let (what, cure) = diagnose(home.path(), &none, NEVER).await.problem.unwrap();
    assert!(what.contains("not mounted") && cure.contains("outlast-store/"), "{what}: {cure}");
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    let back = begin(home.path(), true).await.unwrap();
    assert_eq!(back.size(&object()).await.unwrap(), Some(5));
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_to_is_read() {
    let home = tempfile::tempdir().unwrap();
    let store = begin(home.path(), false).await.unwrap();
    store.put_if_absent(&object(), b"saved").await.unwrap();
    drop(store);
    let temporary = home.path().join(LOCAL).join(".tmp");
    fs::remove_dir_all(&temporary).unwrap();
    fs::write(&temporary, b"").unwrap();
    let store = begin(home.path(), true).await.unwrap();
    assert_eq!(store.get(&object(), 0, 5).await.unwrap(), b"saved");
    let other = ObjectKey::pack("run", 1, 2).unwrap();
    let refused = store.put_if_absent(&other, b"x").await.unwrap_err();
    assert!(matches!(refused, StoreError::Io { .. }), "{refused}");
    assert!(diagnose(home.path(), &none, NEVER).await.problem.is_some());
    fs::remove_file(&temporary).unwrap();
    assert_eq!(store.put_if_absent(&other, b"x").await.unwrap(), artifacts::Put::Created);
    // One that was never used is not begun so.
    let fresh = tempfile::tempdir().unwrap();
    fs::create_dir(fresh.path().join(LOCAL)).unwrap();
    fs::write(fresh.path().join(LOCAL).join(".tmp"), b"").unwrap();
    assert!(begin(fresh.path(), false).await.is_err());
}

#[tokio::test]
async fn an_installation_from_before_is_marked_unless_its_store_is_empty() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join(LOCAL);
    fs::create_dir(&dir).unwrap();
    let told = begin(home.path(), true).await.err().expect("refused").to_string();
    assert!(told.contains("holds no objects"), "{told}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing is made there");
    FsStore::open(&dir).unwrap().put_if_absent(&object(), b"saved").await.unwrap();
    // By name and without a mark, as it was for a while.
    fs::write(home.path().join(NAME), LOCAL).unwrap();
    let store = begin(home.path(), true).await.unwrap();
    assert_eq!(store.list(own::SCOPE).await.unwrap().len(), 1);
    assert!(fs::read_to_string(home.path().join(NAME)).unwrap().starts_with("objects\n"));
}

#[tokio::test]
async fn bad_settings_are_told_and_a_store_that_is_away_is_no_first_store() {
    let home = tempfile::tempdir().unwrap();
    let told = async |text: &str, env| {
        write(home.path(), text);
        refused(home.path(), env).await
    };
    assert!(told(&format!("{S3}secret = \"x\"\n"), keys).await.contains("unknown field `secret`"));
    assert!(told(S3, none).await.contains("AWS_ACCESS_KEY_ID"));
    assert!(told(&format!("{S3}endpoint = \"http://127.0.0.1:1\"\n"), keys).await.contains("allow_http"));
    assert!(told(&format!("{S3}ca_file = \"none.pem\"\n"), keys).await.contains("none.pem"));
    fs::write(home.path().join("huge.pem"), vec![b'x'; 2 << 20]).unwrap();
    assert!(told(&format!("{S3}ca_file = \"huge.pem\"\n"), keys).await.contains("huge.pem"));
    assert!(told("[store]\nkind = \"s3\"\nbucket = \"mine\"\n", keys).await.contains("prefix"));
    assert!(
        told("[store]\nkind = \"s3\"\nbucket = \"mine\"\nprefix = \"/\"\n", keys).await.contains("prefix")
    );
    assert!(told(&format!("{S3}{AWAY}"), keys).await.contains("cannot be reached"));
    assert!(!home.path().join(NAME).exists());
    // One that was good once may be away when the controller starts.
    fs::write(home.path().join(NAME), "s3://mine/a at http://127.0.0.1:1\nid\n").unwrap();
    assert!(open(home.path(), &keys, NEVER, true).await.is_ok());
}

#[tokio::test]
async fn a_directory_elsewhere_is_named_and_nothing_else_can_be_set() {
    let home = tempfile::tempdir().unwrap();
    let told = async |text: &str| {
        write(home.path(), text);
        refused(home.path(), none).await
    };
    assert!(told("[store]\nkind = \"local\"\nbogus = 3\n").await.contains("unknown field `bogus`"));
    let away = home.path().join("big");
    let text = format!("[store]\nkind = \"local\"\npath = \"{}\"\n", away.display());
    assert!(told(&text).await.contains("names no directory"));
    let (what, _) = diagnose(home.path(), &none, NEVER).await.problem.unwrap();
    assert!(!what.contains(FILE), "the file is named beside it: {what}");
    fs::create_dir(&away).unwrap();
    let store = begin(home.path(), false).await.unwrap();
    store.put_if_absent(&object(), b"saved").await.unwrap();
    assert!(away.join(object().as_str()).is_file() && !home.path().join(LOCAL).exists());
    assert!(is_local(home.path(), &none));
    assert_eq!(diagnose(home.path(), &none, NEVER).await.store, away.display().to_string());
    drop(store);
    // Left for the usual one only with all that is in it.
    write(home.path(), "[store]\nkind = \"local\"\n");
    let moved = open(home.path(), &none, NEVER, true).await.err().expect("refused");
    assert!(matches!(moved, ObjectsError::Moved { .. }), "{moved}");
    fs::rename(&away, home.path().join(LOCAL)).unwrap();
    assert_eq!(begin(home.path(), true).await.unwrap().size(&object()).await.unwrap(), Some(5));
    write(home.path(), "[store]\nkind = \"local\"\npath = \"objects\"\n");
    assert!(begin(home.path(), true).await.is_ok(), "the usual one by its name");
}

#[tokio::test]
async fn a_secret_in_the_file_of_settings_is_not_quoted() {
    let home = tempfile::tempdir().unwrap();
    for wrong in [
        "[store]\nkind = \"a-secret\"\n",
        "[store]\nkind = \"s3\"\nbucket = \"mine\"\nprefix = \"a\"\nallow_http = \"a-secret\"\n",
        "[store]\nkind = \"s3\"\nbucket = \"mine\"\nprefix = \"a\"\nsecret = \"a-secret\"\n",
        "[store]\nkind = \"s3\"\nbucket = \"mine\"\nprefix = \"a\"\nsecret = a-secret\n",
        "[store]\nkind = \"s3\"\nbucket = \"mine\"\nprefix = \"a\"\npath_style = [\"a-secret\"]\n",
        "[store]\nkind = \"s3\"\nbucket = {a-secret = 1}\nprefix = \"a\"\n",
        "[store]\na-secret\n",
        "store = \"a-secret\"\n",
        "[store]\nkind = \"s3\"\nbucket = \"a-secret\n",
        "[store]\nkind = \"s3\"\nkey = \"a-secret\" = \"b\"\n",
    ] {
        write(home.path(), wrong);
        let told = refused(home.path(), keys).await;
        assert!(told.contains("store.toml"), "{told}");
    }
    write(home.path(), "[store]\nkind = \"s3\"\nbucket = \n");
    assert!(refused(home.path(), keys).await.contains("line 3"));
}

#[test]
fn a_disk_that_is_nearly_full_is_told_before_nothing_fits() {
    let dir = Path::new("/o");
    let how = |room| scarce(Some(room), dir).map(|(how, _)| how);
    assert_eq!((how(256 << 20), how((256 << 20) - 1)), (None, Some(Scarce::Soon)));
    assert_eq!(
        (how(16 << 20), how((16 << 20) - 1), how(0)),
        (Some(Scarce::Soon), Some(Scarce::Now), Some(Scarce::Now))
    );
    let (_, (what, cure)) = scarce(Some(100 << 10), dir).unwrap();
    assert!(what.contains("nearly full: 0 MiB") && cure.contains("free space") && cure.contains("/o"));
    assert_eq!(scarce(None, dir), None);
    let home = tempfile::tempdir().unwrap();
    assert!(FsStore::room(&home.path().join("not/there")).is_some(), "the disk it will lie on");
}

#[tokio::test]
async fn what_is_wrong_with_a_directory_has_a_cure() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(LOCAL), b"a file in its place").unwrap();
    let (what, cure) = diagnose(home.path(), &none, NEVER).await.problem.unwrap();
    assert!(what.contains("open the store") && cure.contains("disk"), "{what}: {cure}");
    let full = local_problem(&StoreError::Full("write object `a`".into()), home.path());
    assert!(full.1.starts_with("free space"), "{full:?}");
    let io = |kind: io::ErrorKind| StoreError::Io { what: "write".into(), source: kind.into() };
    assert!(local_problem(&io(io::ErrorKind::ReadOnlyFilesystem), home.path()).1.contains("read-only"));
    assert!(local_problem(&io(io::ErrorKind::PermissionDenied), home.path()).1.contains("user"));
}
