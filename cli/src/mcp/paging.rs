//! Pages of lists that grow at their front while somebody reads on: a page goes on
//! behind the last entry that was shown, whatever came before it meanwhile, so that
//! nothing is shown twice and nothing old is passed over.

/// Entries of the same time or step that are told apart.
const ALIKE: u64 = 10_000;

/// The entries behind `cursor`, the newest first, and the cursor behind each. `at` is
/// what they are sorted by and never changes; `tie` orders those of the same.
pub(super) fn newest_first<T, K: Ord>(
    mut all: Vec<T>,
    cursor: Option<u64>,
    at: impl Fn(&T) -> u64,
    tie: impl Fn(&T) -> K,
) -> (Vec<T>, Vec<u64>) {
    all.sort_by_cached_key(|one| (at(one), tie(one)));
    let (mut last, mut alike) = (None, 0);
    let number = |one: &T| {
        let at = at(one);
        alike = if last == Some(at) { alike + 1 } else { 0 };
        last = Some(at);
        // Not 0, which is the beginning.
        at.saturating_mul(ALIKE).saturating_add(alike.min(ALIKE - 2) + 1)
    };
    let numbers: Vec<u64> = all.iter().map(number).collect();
    let numbered = all.into_iter().zip(numbers).rev();
    numbered.filter(|(_, number)| cursor.is_none_or(|cursor| *number < cursor)).unzip()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_entry_of_the_beginning_is_shown_once_however_many_come(
            before in proptest::collection::vec(0..5_u64, 0..30),
            come in proptest::collection::vec(0..3_usize, 30),
            most in 1..5_usize,
        ) {
            // Time and a number that orders what came at the same time.
            let mut all: Vec<(u64, usize)> = before.iter().copied().enumerate().map(|(id, at)| (at, id)).collect();
            let mut expected = all.clone();
            expected.sort_unstable_by(|a, b| b.cmp(a));
            let (mut cursor, mut shown) = (None, Vec::new());
            for count in come {
                let (page, numbers) = newest_first(all.clone(), cursor, |one| one.0, |one| one.1);
                prop_assert!(numbers.windows(2).all(|pair| pair[0] > pair[1]));
                prop_assert!(!numbers.contains(&0));
                shown.extend(page.iter().take(most).copied());
                let Some(next) = numbers.iter().take(most).next_back() else { break };
                cursor = Some(*next);
                for _ in 0..count {
                    all.push((5, all.len()));
                }
            }
            prop_assert_eq!(shown, expected);
        }
    }
}
