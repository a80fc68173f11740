//! Times as logs write them, as seconds since 1970.

/// Milli-, micro- and nanoseconds since 1970 are told from seconds by their
/// size: seconds beyond 10^11 would lie 3,000 years ahead.
pub(super) fn seconds(value: f64) -> f64 {
    match value {
        v if v > 1e17 => v / 1e9,
        v if v > 1e14 => v / 1e6,
        v if v > 1e11 => v / 1e3,
        v => v,
    }
}

/// `2026-01-31T10:00:00.5+02:00` and its kin; without a zone it is UTC.
pub(super) fn iso(text: &str) -> Option<f64> {
    let bytes = text.trim().as_bytes();
    let number = |from: usize, len: usize| -> Option<i64> {
        let digits = bytes.get(from..from + len)?;
        digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    let is = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|b| allowed.contains(b));
    let separated = is(4, b"-/") && is(7, b"-/") && is(10, b"T _") && is(13, b":") && is(16, b":");
    if !separated {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut fraction = 0.0;
    if is(at, b".,") {
        let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        let text = std::str::from_utf8(&bytes[at + 1..at + 1 + digits]).ok()?;
        fraction = format!("0.{text}").parse().ok()?;
        at += 1 + digits;
    }
    let zone = match bytes.get(at) {
        None | Some(b'Z' | b'z') => 0,
        Some(sign @ (b'+' | b'-')) => {
            let minutes = if is(at + 3, b":") { number(at + 4, 2)? } else { number(at + 3, 2).unwrap_or(0) };
            let offset = number(at + 1, 2)? * 3600 + minutes * 60;
            if *sign == b'-' { -offset } else { offset }
        }
        Some(_) => return None,
    };
    let days = days(year, month, day);
    Some((days * 86_400 + hour * 3600 + minute * 60 + second - zone) as f64 + fraction)
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar, by counting years
/// from March, whose leap day is then the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("2023-11-14T22:13:20+00:00", 1_700_000_000.0),
            ("2023-11-15 00:13:20.25+02:00", 1_700_000_000.25),
            ("2023/11/14 22:13:20", 1_700_000_000.0),
            ("2024-02-29T12:00:00", 1_709_208_000.0),
            ("1969-12-31T23:59:59Z", -1.0),
        ] {
            assert_eq!(iso(text), Some(expected), "{text}");
        }
        for text in ["", "2023-11-14", "2023-13-14T22:13:20", "2023-11-14T22:13:20 x", "not a date at all"] {
            assert_eq!(iso(text), None, "{text}");
        }
    }

    #[test]
    fn units_are_told_by_size() {
        assert_eq!(seconds(1.7e9), 1.7e9);
        assert_eq!(seconds(1.7e12), 1.7e9);
        assert_eq!(seconds(1.7e15), 1.7e9);
        assert_eq!(seconds(1.7e18), 1.7e9);
    }
}
