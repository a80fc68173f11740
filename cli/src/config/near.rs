//! "Did you mean": the known word nearest to one that is not known. It offers
//! a word only when that is close enough to be a slip of the finger.

/// Longer words are not compared: the cost grows with their product.
const LONGEST: usize = 64;

/// The candidate most like `word`, if any is close.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let length = word.chars().count();
    if length > LONGEST {
        return None;
    }
    let limit = if length <= 2 { 0 } else { (length / 3).max(1) };
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.replace('-', "_")), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words; swapping two neighbours is one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let change = rows[i][j] + usize::from(x != y);
            let mut best = change.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let keys = ["command", "name", "workdir", "env", "max_usd", "in-place"];
        assert_eq!(nearest("comand", keys), Some("command"));
        assert_eq!(nearest("nmae", keys), Some("name"));
        assert_eq!(nearest("max-usd", keys), Some("max_usd"));
        assert_eq!(nearest("Env", keys), Some("env"));
        assert_eq!(nearest("inplace", keys), Some("in-place"));
        assert_eq!(nearest("zebra", keys), None);
        assert_eq!(nearest("", keys), None);
        assert_eq!(nearest(&"x".repeat(10_000), keys), None);
    }
}
