//! The two forms in which clouds write a moment. Pure; what has another form
//! is no moment.

const DAY_S: i64 = 86_400;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `2017-09-18T08:22:00Z` (with or without a fraction) in unix milliseconds.
pub(super) fn rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    if date.next().is_some() {
        return None;
    }
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    unix_ms(year, month, day, time)
}

/// `Mon, 19 Sep 2016 18:29:47 GMT` in unix milliseconds.
pub(super) fn rfc1123(text: &str) -> Option<u64> {
    let words: Vec<&str> = text.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    unix_ms(number(year, 4)?, i64::try_from(month).ok()?, number(day, 2)?, time)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn unix_ms(year: i64, month: i64, day: i64, time: &str) -> Option<u64> {
    let mut time = time.split(':');
    let (hour, minute, second) =
        (number(time.next()?, 2)?, number(time.next()?, 2)?, number(time.next()?, 2)?);
    let whole = time.next().is_none() && hour < 24 && minute < 60 && second <= 60;
    if !whole || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970-01-01, with years that begin in March.
    let shifted = if month > 2 { year } else { year - 1 };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * DAY_S + hour * 3_600 + minute * 60 + second;
    u64::try_from(seconds).ok()?.checked_mul(1_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_of_the_clouds_are_read_and_others_are_not() {
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339("2017-09-18T08:22:00Z"), Some(1_505_722_920_000));
        assert_eq!(rfc3339("2020-02-29T23:59:59.123Z"), Some(1_583_020_799_000));
        assert_eq!(rfc1123("Mon, 19 Sep 2016 18:29:47 GMT"), Some(1_474_309_787_000));
        for bad in [
            "",
            "2017-09-18",
            "2017-09-18T08:22:00",
            "2017-9-18T08:22:00Z",
            "2017-13-01T00:00:00Z",
            "2017-09-18T24:00:00Z",
            "2017-09-18T08:22:00.Z",
            "1969-12-31T23:59:59Z",
            "+017-09-18T08:22:00Z",
        ] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
        for bad in
            ["", "19 Sep 2016 18:29:47 GMT", "Mon, 19 Sep 2016 18:29:47 CET", "Mon, 19 Okt 2016 18:29:47 GMT"]
        {
            assert_eq!(rfc1123(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[0-9TZ:. ,A-Za-z+-]{0,32}|\\PC{0,24}") {
            let _ = (rfc3339(&text), rfc1123(&text));
        }
    }
}
