//! What cannot travel and is left on the machine: links that leave their tree,
//! pipes, names that are not UTF-8. Never a reason to lose what lies beside it,
//! and never passed over in silence.

use artifacts::source::Skipped;

use super::Publishing;

/// Named in one note; the others are counted.
const NAMED: usize = 10;
/// Notes on results that are left behind, for one attempt.
const NOTES: u32 = 4;
/// Paths that are remembered as told.
const MOST: usize = 10_000;
/// Characters kept of a name that a program chose.
const LONGEST: usize = 120;

/// Names with their reasons, short enough for a note.
pub(super) fn named(skipped: &Skipped) -> String {
    let short = |path: &str| path.chars().take(LONGEST).collect::<String>();
    let named: Vec<String> =
        skipped.iter().take(NAMED).map(|(path, why)| format!("`{}`, which {why}", short(path))).collect();
    let more = skipped.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", named.join("; "))
}

impl Publishing {
    /// Tells what a checkpoint is stored without, once for each such.
    pub(super) fn left_out(&self, attempt: &str, checkpoint: &str, skipped: &Skipped) {
        if skipped.is_empty() {
            return;
        }
        let name: String = checkpoint.chars().take(LONGEST).collect();
        let without = named(skipped);
        self.tell(attempt, |told| {
            let is_new = told.left_behind.len() < MOST && told.left_behind.insert(without.clone());
            if is_new {
                told.remarks
                    .push(format!("checkpoint `{name}`, and each like it, is stored without {without}"));
            }
        });
    }

    /// Tells of results that are left behind, once each; with a limit for a
    /// program that makes ever more of them.
    pub(super) fn leave_behind(&self, attempt: &str, mut skipped: Skipped) {
        self.tell(attempt, |told| {
            let known = &mut told.left_behind;
            skipped.retain(|(path, _)| known.len() < MOST && known.insert(path.clone()));
            if skipped.is_empty() || told.left_notes >= NOTES {
                return;
            }
            told.left_notes += 1;
            told.remarks.push(format!("results are left on the machine: {}", named(&skipped)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_stay_are_named_once_and_counted_where_they_are_many() {
        let publishing = Publishing::default();
        let odd = |from: usize, to: usize| {
            (from..to).map(|n| (format!("results/{n}"), "is a link to an absolute path")).collect::<Skipped>()
        };
        publishing.leave_behind("a", odd(0, 12));
        publishing.leave_behind("a", odd(0, 12));
        let told = publishing.remarks("a");
        let [told] = &told[..] else { panic!("one note, not {told:?}") };
        assert!(told.contains("`results/9`, which is a link to an absolute path; and 2 more"), "{told}");
        publishing.leave_behind("a", odd(11, 13));
        let told = publishing.remarks("a");
        assert!(told[0].ends_with("machine: `results/12`, which is a link to an absolute path"), "{told:?}");
        (20..40).for_each(|n| publishing.leave_behind("a", odd(n, n + 1)));
        assert_eq!(publishing.remarks("a").len(), 2, "four notes for an attempt");
    }
}
