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

/// One run's worst case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reserved {
    id: String,
    at_ms: u64,
    micro_usd: u64,
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

/// Takes an amount out of the allowance; `Err`: it does not reach, and why.
pub(super) fn reserve(shelf: &Shelf, limit: u64, micro_usd: u64, id: &str) -> Result<(), Failure> {
    reserve_at(shelf, limit, micro_usd, id, now_ms())
}

fn reserve_at(shelf: &Shelf, limit: u64, micro_usd: u64, id: &str, now: u64) -> Result<(), Failure> {
    let _held = shelf.hold().map_err(|error| broken(&error))?;
    let mut ledger = read(shelf)?;
    ledger.reserved.retain(|one| now.saturating_sub(one.at_ms) < 2 * DAY);
    let left = left(&ledger, limit, now);
    if micro_usd > left || ledger.reserved.len() >= MOST {
        let why =
            format!("it may cost {}, and {} of {} a day are left", usd(micro_usd), usd(left), usd(limit));
        return Err(Failure::new(ExitCode::Budget, why));
    }
    ledger.reserved.push(Reserved { id: id.to_owned(), at_ms: now, micro_usd });
    write(shelf, &ledger)
}

/// Gives back what was reserved for something that surely was not begun.
pub(super) fn give_back(shelf: &Shelf, id: &str) -> Result<(), Failure> {
    let _held = shelf.hold().map_err(|error| broken(&error))?;
    let mut ledger = read(shelf)?;
    ledger.reserved.retain(|one| one.id != id);
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
        reserve_at(&shelf(), 10_000_000, 6_000_000, "a", now).unwrap();
        let refused = reserve_at(&shelf(), 10_000_000, 5_000_000, "b", now + 1).unwrap_err();
        assert!(refused.message.contains("$4.00 of $10.00 a day are left"), "{refused}");
        assert!(reserve_at(&shelf(), 10_000_000, 5_000_000, "b", now - DAY / 2).is_err(), "a clock set back");
        give_back(&shelf(), "a").unwrap();
        reserve_at(&shelf(), 10_000_000, 10_000_000, "c", now + 2).unwrap();
        assert!(reserve_at(&shelf(), 10_000_000, 1, "d", now + DAY).is_err());
        reserve_at(&shelf(), 10_000_000, 1, "d", now + DAY + 2).unwrap();
    }

    #[test]
    fn what_cannot_be_read_counts_as_spent() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        shelf.write(FILE, b"{\"reserved\": [").unwrap();
        assert!(reserve_at(&shelf, 10_000_000, 1, "a", 0).is_err());
        std::fs::remove_file(shelf.path(FILE)).unwrap();
        std::os::unix::fs::symlink("/dev/null", shelf.path(FILE)).unwrap();
        assert!(reserve_at(&shelf, 10_000_000, 1, "a", 0).is_err());
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
                if reserve_at(&shelf, 5_000_000, micro, &index.to_string(), at).is_ok() {
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
