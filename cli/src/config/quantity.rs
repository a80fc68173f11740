//! Durations and sizes as people write them: a number and a unit. Pure; what
//! cannot be told for certain is refused, never rounded in silence.

use std::time::Duration;

/// Units of time with their milliseconds, largest first.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of size with their bytes, largest first.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
];

/// Reads `"500ms"`, `"30s"`, `"5m"`, `"2h"` or `"1h30m"`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut millis = 0_u64;
    let mut last_unit = u64::MAX;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let factor = TIMES.iter().find(|(name, _)| *name == unit)?.1;
        if factor >= last_unit {
            return None;
        }
        last_unit = factor;
        millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = tail;
    }
    Some(Duration::from_millis(millis))
}

/// Why a text names no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSize {
    /// It is not a number with a unit, or no whole number of bytes.
    Shape,
    /// More bytes than can be counted.
    TooLarge,
}

/// Reads `"64MiB"`, `"2GB"`, `"1.5 GiB"` or `"512B"`.
pub(super) fn size(text: &str) -> Result<u64, NoSize> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(NoSize::Shape)?;
    let (number, unit) = text.split_at(split);
    let unit = unit.trim();
    let factor = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(NoSize::Shape)?.1;
    if !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()) {
        let whole = number.parse::<u64>().ok();
        return whole.and_then(|whole| whole.checked_mul(factor)).ok_or(NoSize::TooLarge);
    }
    let bytes = number.parse::<f64>().map_err(|_| NoSize::Shape)? * factor as f64;
    // Beyond 2^53 a fraction of a byte can no longer be told; nobody means it.
    match bytes {
        bytes if bytes >= 9e15 => Err(NoSize::TooLarge),
        bytes if bytes.fract() == 0.0 => Ok(bytes as u64),
        _ => Err(NoSize::Shape),
    }
}

/// Writes a duration so that [`duration`] reads the same one back.
pub(super) fn write_duration(value: Duration) -> String {
    let mut millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, factor) in TIMES {
        if millis >= factor {
            out.push_str(&format!("{}{unit}", millis / factor));
            millis %= factor;
        }
    }
    out
}

/// Writes a size so that [`size`] reads the same one back.
pub(super) fn write_size(bytes: u64) -> String {
    let fits = |&&(_, factor): &&(&str, u64)| bytes >= factor && bytes.is_multiple_of(factor);
    SIZES
        .iter()
        .find(fits)
        .map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration(" 30s "), Some(Duration::from_secs(30)));
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        for bad in ["", "30", "s", "1.5s", "30 s", "-3s", "5m5m", "5s1m", "99999999999999999999s", "5x", "5é"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("2GB"), Ok(2_000_000_000));
        assert_eq!(size("1.5 gib"), Ok(3 << 29));
        for bad in ["", "5", "GiB", "1.2.3GB", "-1GB", "1.0001B", "5XB", "é"] {
            assert_eq!(size(bad), Err(NoSize::Shape), "{bad}");
        }
        for huge in ["99999999999TiB", "99999999999999999999999B", "10000000.5TiB"] {
            assert_eq!(size(huge), Err(NoSize::TooLarge), "{huge}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0_u64..10_u64.pow(15), bytes in 0_u64..=u64::MAX) {
            let time = Duration::from_millis(millis);
            proptest::prop_assert_eq!(duration(&write_duration(time)), Some(time));
            proptest::prop_assert_eq!(size(&write_size(bytes)), Ok(bytes));
        }

        #[test]
        fn random_text_never_panics(text in "\\PC*") {
            let _ = duration(&text);
            let _ = size(&text);
        }
    }
}
