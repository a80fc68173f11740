//! Days of the Gregorian calendar in UTC (Howard Hinnant, "chrono-compatible
//! low-level date algorithms").

/// Days since 1970-01-01.
pub(super) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// `2026-11-21` of seconds since 1970; `?` beyond the years 1970 to 9999.
#[must_use]
pub fn date(seconds: f64) -> String {
    if !(0.0..253_402_300_800.0).contains(&seconds) {
        return "?".into();
    }
    let shifted = (seconds / 86_400.0).floor() as i64 + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let part = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * part + 2) / 5 + 1, if part < 10 { part + 3 } else { part - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_belong_together() {
        assert_eq!((days(1970, 1, 1), days(2000, 3, 1), days(2024, 2, 29)), (0, 11_017, 19_782));
        assert_eq!(date(1_764_492_319.0), "2025-11-30");
        for day in (0..100_000).step_by(17) {
            let text = date(f64::from(day) * 86_400.0);
            let mut parts = text.split('-').map(|part| part.parse::<i64>().expect("a number"));
            let mut part = || parts.next().expect("three parts");
            assert_eq!(days(part(), part(), part()), i64::from(day), "{text}");
        }
        assert_eq!((date(-1.0), date(f64::NAN)), ("?".into(), "?".into()));
    }
}
