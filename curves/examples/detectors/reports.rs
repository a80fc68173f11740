//! All that is said of files and of generated trainings, to the last digit: two
//! builds that judge alike print the same.

use std::path::Path;

use curves::format::{HEAD_BYTES, Schema, detect};
use curves::judge::{Judge, Settings};

use crate::corpus::{Plan, play};
use crate::judged::Judged;

/// Prints what is said of a file after each third of it.
#[expect(clippy::print_stdout, reason = "a program for its output")]
pub(crate) fn of_file(path: &str) {
    let Ok(bytes) = std::fs::read(path) else { return };
    let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
    for guess in detect(&name, &bytes[..bytes.len().min(HEAD_BYTES)]) {
        let Some(mut reader) = guess.format.reader(path, Schema::default()) else { continue };
        let mut judged = Judged::default();
        for (third, piece) in bytes.chunks((bytes.len() / 3).max(1)).enumerate() {
            reader.feed(piece, &mut judged);
            if third == 2 {
                reader.finish(&mut judged);
            }
            println!("{path} {:?} {third}: {:?}", guess.format, judged.judge.report());
        }
        println!("{path} {:?} {:?} late", guess.format, judged.judge.report_at(4e9).findings);
    }
}

/// Prints what is said of a generated training.
#[expect(clippy::print_stdout, reason = "a program for its output")]
pub(crate) fn of_plan(plan: &Plan) {
    let mut judge = Judge::new(Settings { planned_steps: Some(plan.steps), ..Settings::default() });
    play(plan, &mut judge);
    println!("{plan:?}: {:?}", judge.report());
    // Half of it is taken back, as a resume from an old checkpoint does.
    judge.segment_from(Some(plan.steps / 2));
    println!("{plan:?} void: {:?}", judge.report());
}
