//! How the program ended, as far as it matters to what it saved: whoever was
//! killed may have been in the middle of a file that looks like a whole one.

use lifecycle::Exit;

use super::verdicts::End;
use crate::keeper::{EXIT_FILE, ExitRecord};
use crate::os;
use crate::world::layout::AttemptDir;

/// Code of a shell whose program was ended by SIGKILL. That of SIGTERM is what
/// many programs end with that have saved when they were asked to end.
const OF_A_KILL: i32 = 128 + 9;

/// What its keeper wrote down. Where nobody saw the end, it counts as a death
/// at a time that nobody knows.
pub(super) fn of(dir: &AttemptDir) -> End {
    let bytes = os::read_bounded(&dir.path().join(EXIT_FILE), 1 << 20).unwrap_or_default();
    match serde_json::from_slice::<ExitRecord>(&bytes) {
        Ok(record) => of_record(&record),
        Err(_) => End::Died { how: "its program ended unseen".into(), at: (0, 0) },
    }
}

fn of_record(record: &ExitRecord) -> End {
    let at = i64::try_from(record.ended_ms).unwrap_or(i64::MAX);
    let at = (at / 1_000, at % 1_000 * 1_000_000);
    let died = |how: String| End::Died { how, at };
    match &record.exit {
        Exit::Code { code: 0 } => End::Orderly,
        // Asked to end, it saved and said so with a code of its own.
        Exit::Code { code } if record.stopped_by.is_some() && *code != OF_A_KILL => End::Orderly,
        Exit::Code { code } => died(format!("its program ended with code {code}")),
        Exit::Signal { signal, .. } => died(format!("its program was ended by signal {signal}")),
        Exit::NotStarted { .. } | Exit::Unknown { .. } => died("its program ended unseen".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit: &str, stopped_by: &str) -> End {
        let text = format!(r#"{{"exit":{exit},"ended_ms":5250,"started_ms":1,"stopped_by":{stopped_by}}}"#);
        of_record(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_death_is_told_from_an_end() {
        let code = |code: i32| serde_json::to_string(&Exit::Code { code }).unwrap();
        let killed = serde_json::to_string(&Exit::Signal { signal: 9, core: false }).unwrap();
        assert_eq!(ended(&code(0), "null"), End::Orderly);
        assert_eq!(ended(&code(3), r#""term""#), End::Orderly);
        assert_eq!(ended(&code(143), r#""term""#), End::Orderly);
        for (exit, stopped) in [
            (code(1), "null"),
            (code(137), "null"),
            (code(143), "null"),
            (code(137), r#""term-then-kill""#),
            (killed, r#""term-then-kill""#),
        ] {
            assert!(matches!(ended(&exit, stopped), End::Died { at: (5, 250_000_000), .. }), "{exit}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(of(&AttemptDir::new(dir.path(), "a")), End::Died { at: (0, 0), .. }));
    }
}
