//! What a model may spend without asking: an amount that a person gave at the
//! start, for any 24 hours. What a run may cost at worst is written down before
//! the run is begun, so that neither a crash nor a restart gives the amount
//! anew, and is given back only where surely nothing was begun. Whatever cannot
//! be read counts as spent.

use std::io;

use serde::{Deserialize, Serialize};

use super::shelf::Shelf;
use crate::commands::now_ms;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::money;

const FILE: &str = "spent.json";
/// Milliseconds of the window.
const DAY: u64 = 86_400_000;
/// Reservations that are remembered; more are refused.
const MOST: usize = 10_000;

/// An equal call within so many milliseconds is the same call asked again: clients
/// give up waiting sooner than that.
const SAME: u64 = 10 * 60_000;

/// One run's worst case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reserved {
    id: String,
    at_ms: u64,
    micro_usd: u64,
    /// A hash of what it is for; empty where equal calls are different deeds.
    #[serde(default)]
    what: String,
    /// More than one call stands on it.
    #[serde(default)]
    again: bool,
}

/// What was taken out of the allowance.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// The token of the deed.
    pub(super) id: String,
    /// An equal call took it so many milliseconds ago; nothing more was taken.
    pub(super) since_ms: Option<u64>,
}

/// All that is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ledger {
    reserved: Vec<Reserved>,
}

/// `20/day` as micro-dollars.
pub(crate) fn amount(text: &str) -> Result<u64, String> {
    let told = || format!("`{text}` is not AMOUNT/day, such as 20/day or 7.50/day");
    let usd = text.strip_suffix("/day").ok_or_else(told)?.trim_start_matches('$');
    let plain = usd.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    micro(usd.parse().ok().filter(|_| plain).ok_or_else(told)?).ok_or_else(told)
}

/// Dollars as micro-dollars, rounded up.
pub(super) fn micro(usd: f64) -> Option<u64> {
    let micro = (usd * 1e6).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    let whole = (micro.is_finite() && (1.0..=1e12).contains(&micro)).then_some(micro as u64);
    whole
}

#[expect(clippy::cast_precision_loss, reason = "at most 1e12")]
fn usd(micro: u64) -> String {
    money(micro as f64 / 1e6)
}

fn broken(why: &impl std::fmt::Display) -> Failure {
    Failure::new(ExitCode::CannotWrite, format!("what was spent is not known: {why}"))
        .help("nothing is spent without a person until mcp/spent.json in the data directory can be read")
}

/// What is left of `limit` after what was reserved within a day before `now`.
/// A clock that was set back makes nothing younger than it is: what seems to be
/// of the future counts.
fn left(ledger: &Ledger, limit: u64, now: u64) -> u64 {
    let recent = ledger.reserved.iter().filter(|one| now.saturating_sub(one.at_ms) < DAY);
    let sum = recent.fold(0_u64, |sum, one| sum.saturating_add(one.micro_usd));
    limit.saturating_sub(sum)
}

fn read(shelf: &Shelf) -> Result<Ledger, Failure> {
    match shelf.read(FILE).map_err(|error| broken(&error))? {
        None => Ok(Ledger::default()),
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| broken(&error)),
    }
}

fn write(shelf: &Shelf, ledger: &Ledger) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(ledger).map_err(|error| broken(&error))?;
    shelf.write(FILE, &bytes).map_err(|error: io::Error| broken(&error))
}

/// Takes an amount out of the allowance, once for equal calls; `Err`: it does not
/// reach, and why.
pub(super) fn reserve(
    shelf: &Shelf,
    limit: u64,
    micro_usd: u64,
    (what, id): (&str, &str),
) -> Result<Grant, Failure> {
    reserve_at(shelf, limit, micro_usd, (what, id), now_ms())
}

fn reserve_at(
    shelf: &Shelf,
    limit: u64,
    micro_usd: u64,
    (what, id): (&str, &str),
    now: u64,
) -> Result<Grant, Failure> {
    let _held = shelf.hold().map_err(|error| broken(&error))?;
    let mut ledger = read(shelf)?;
    ledger.reserved.retain(|one| now.saturating_sub(one.at_ms) < 2 * DAY);
    let same =
        |one: &&mut Reserved| !what.is_empty() && one.what == what && now.saturating_sub(one.at_ms) < SAME;
    if let Some(before) = ledger.reserved.iter_mut().find(same) {
        before.again = true;
        let grant = Grant { id: before.id.clone(), since_ms: Some(now.saturating_sub(before.at_ms)) };
        write(shelf, &ledger)?;
        return Ok(grant);
    }
    let left = left(&ledger, limit, now);
    if micro_usd > left || ledger.reserved.len() >= MOST {
        let why =
            format!("it may cost {}, and {} of {} a day are left", usd(micro_usd), usd(left), usd(limit));
        return Err(Failure::new(ExitCode::Budget, why));
    }
    let (id, what) = (id.to_owned(), what.to_owned());
    ledger.reserved.push(Reserved { id: id.clone(), at_ms: now, micro_usd, what, again: false });
    write(shelf, &ledger)?;
    Ok(Grant { id, since_ms: None })
}

/// Gives back what was reserved for something that surely was not begun. What
/// another call stands on is kept: that one may have begun it.
pub(super) fn give_back(shelf: &Shelf, id: &str) -> Result<(), Failure> {
    let _held = shelf.hold().map_err(|error| broken(&error))?;
    let mut ledger = read(shelf)?;
    ledger.reserved.retain(|one| one.id != id || one.again);
    write(shelf, &ledger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_dollars_a_day() {
        assert_eq!(amount("20/day"), Ok(20_000_000));
        assert_eq!(amount("$7.50/day"), Ok(7_500_000));
        for bad in
            ["20", "20/week", "-1/day", "nan/day", "inf/day", "0/day", "/day", "1e9/day", "2000000/day"]
        {
            assert!(amount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_restart_does_not_renew_it_and_a_day_does() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = || Shelf::open(dir.path()).unwrap();
        let now = 10 * DAY;
        reserve_at(&shelf(), 10_000_000, 6_000_000, ("", "a"), now).unwrap();
        let refused = reserve_at(&shelf(), 10_000_000, 5_000_000, ("", "b"), now + 1).unwrap_err();
        assert!(refused.message.contains("$4.00 of $10.00 a day are left"), "{refused}");
        assert!(
            reserve_at(&shelf(), 10_000_000, 5_000_000, ("", "b"), now - DAY / 2).is_err(),
            "a clock set back"
        );
        give_back(&shelf(), "a").unwrap();
        reserve_at(&shelf(), 10_000_000, 10_000_000, ("", "c"), now + 2).unwrap();
        assert!(reserve_at(&shelf(), 10_000_000, 1, ("", "d"), now + DAY).is_err());
        reserve_at(&shelf(), 10_000_000, 1, ("", "d"), now + DAY + 2).unwrap();
    }

    #[test]
    fn what_cannot_be_read_counts_as_spent() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        shelf.write(FILE, b"{\"reserved\": [").unwrap();
        assert!(reserve_at(&shelf, 10_000_000, 1, ("", "a"), 0).is_err());
        std::fs::remove_file(shelf.path(FILE)).unwrap();
        std::os::unix::fs::symlink("/dev/null", shelf.path(FILE)).unwrap();
        assert!(reserve_at(&shelf, 10_000_000, 1, ("", "a"), 0).is_err());
    }

    #[test]
    fn an_equal_call_soon_after_takes_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let take = |what: &str, id: &str, at| reserve_at(&shelf, 10_000_000, 6_000_000, (what, id), at);
        let told = |id: &str, since_ms| Grant { id: id.to_owned(), since_ms };
        assert_eq!(take("x", "a", 100).unwrap(), told("a", None));
        assert_eq!(take("x", "b", 100 + SAME - 1).unwrap(), told("a", Some(SAME - 1)));
        assert!(take("y", "b", 200).is_err() && take("", "b", 200).is_err(), "something else");
        assert!(take("x", "b", 100 + SAME).is_err(), "long after it is another deed");
        // One of the two may have begun it, whatever the other was told.
        give_back(&shelf, "a").unwrap();
        assert!(take("y", "b", 200).is_err());
        let other = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(other.path()).unwrap();
        reserve_at(&shelf, 10_000_000, 6_000_000, ("x", "a"), 100).unwrap();
        give_back(&shelf, "a").unwrap();
        let anew = reserve_at(&shelf, 10_000_000, 6_000_000, ("x", "b"), 200).unwrap();
        assert_eq!(anew, told("b", None));
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_is_given_out_in_a_day(
            wishes in proptest::collection::vec((0..3 * DAY, 1..4_000_000_u64), 1..40),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let shelf = Shelf::open(dir.path()).unwrap();
            let mut wishes = wishes;
            wishes.sort_unstable();
            let mut given: Vec<(u64, u64)> = Vec::new();
            for (index, (at, micro)) in wishes.into_iter().enumerate() {
                if reserve_at(&shelf, 5_000_000, micro, ("", &index.to_string()), at).is_ok() {
                    given.push((at, micro));
                }
            }
            for (at, _) in &given {
                let within = given.iter().filter(|(other, _)| *other <= *at && at - other < DAY);
                prop_assert!(within.map(|(_, micro)| micro).sum::<u64>() <= 5_000_000);
            }
        }
    }
}
