//! What counts as renamed into place.

use super::*;

#[test]
fn a_rename_into_place_is_told_from_writing_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let (temporary, path) = (dir.path().join("tmp"), dir.path().join("state.bin"));
    std::fs::write(&temporary, b"weights").unwrap();
    // As a writer that syncs before it renames: some milliseconds pass.
    std::fs::File::open(&temporary).unwrap().sync_all().unwrap();
    let before = look(&temporary).unwrap();
    while !look(&path).is_some_and(|l| l.moved) {
        let _ = std::fs::rename(&temporary, &path);
        let _ = std::fs::rename(&path, &temporary);
        let _ = std::fs::rename(&temporary, &path);
    }
    assert!(!before.moved);
    std::fs::write(&path, b"other weights").unwrap();
    assert!(!look(&path).unwrap().moved, "what is written after the rename is not finished");
}

#[test]
fn a_rename_counts_where_the_times_tell_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = AttemptDir::new(root.path(), "a");
    std::fs::create_dir_all(dir.checkpoints()).unwrap();
    let spec: RunSpec = serde_json::from_value(serde_json::json!({
        "project": "p", "name": "n", "command": ["x"], "provider": "local",
        "checkpoints": {"quiet_seconds": 3_600}
    }))
    .unwrap();
    let publishing = Publishing::default();
    publishing.baseline(&dir, "a", &spec);
    let put = |name: &str, renamed: bool| {
        let path = dir.checkpoints().join(name);
        let first = if renamed { dir.checkpoints().join(".tmp-x") } else { path.clone() };
        std::fs::write(&first, b"weights").unwrap();
        // As if it had been written in the very tick of the rename.
        let later = std::time::SystemTime::now() + Duration::from_secs(600);
        std::fs::File::options().write(true).open(&first).unwrap().set_modified(later).unwrap();
        if renamed {
            std::fs::rename(&first, &path).unwrap();
        }
    };
    put("step-1.bin", true);
    put("step-2.bin", false);
    let names = || -> Vec<String> {
        publishing.candidates(&dir, "a", &spec, false).into_iter().map(|c| c.name).collect()
    };
    assert!(names().is_empty(), "two looks are needed");
    assert_eq!(names(), ["step-1.bin"]);
}
