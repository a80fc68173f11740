//! What the planner wants in every situation that has a name, as scripts with
//! the expected output beside them (`tests/planner`), and what it never does
//! in any situation, as properties. With `OUTLAST_BLESS=1` the outputs are
//! written instead of compared.

mod random;
mod script;
mod world;

use std::fs;
use std::path::Path;

#[test]
fn scripts_give_their_golden_output() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("planner");
    let bless = std::env::var_os("OUTLAST_BLESS").is_some();
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    names.sort();
    assert!(names.len() >= 10, "the scripts are not where they should be");
    let mut wrong = Vec::new();
    for path in names {
        let made = match script::run(&fs::read_to_string(&path).unwrap()) {
            Ok(made) => made,
            Err(why) => {
                wrong.push(format!("{}: {why}", path.display()));
                continue;
            }
        };
        let golden = path.with_extension("golden");
        if bless {
            fs::write(&golden, &made).unwrap();
        }
        let kept = fs::read_to_string(&golden).unwrap_or_default();
        if made != kept {
            wrong.push(format!("{}\n{}", golden.display(), difference(&kept, &made)));
        }
    }
    assert!(wrong.is_empty(), "OUTLAST_BLESS=1 rewrites what is meant to change:\n{}", wrong.join("\n"));
}

/// The first line that differs, with what follows it.
fn difference(kept: &str, made: &str) -> String {
    let same = kept.lines().zip(made.lines()).take_while(|(a, b)| a == b).count();
    let rest = |text: &str| text.lines().skip(same).take(6).collect::<Vec<_>>().join("\n    ");
    format!("  line {}, kept:\n    {}\n  made:\n    {}", same + 1, rest(kept), rest(made))
}

#[test]
fn a_script_that_cannot_be_understood_names_its_line() {
    let why = script::run("run a\n\njump\n").unwrap_err();
    assert_eq!(why, "line 3: `jump`: no such command");
}
