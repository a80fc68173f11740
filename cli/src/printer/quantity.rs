//! Durations, sizes and money in the words of people. Pure.

/// A duration as people say it: `45s`, `3m 05s`, `2h 07m`, `3d 04h`.
#[must_use]
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A number of bytes as people say it: `512 B`, `1.5 GiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be rounded to 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// US dollars as people say them: `$0.42`, `$1234.50`; less than a cent but
/// more than nothing keeps its first digits.
#[must_use]
pub fn money(usd: f64) -> String {
    let sign = if usd < 0.0 { "-" } else { "" };
    let amount = usd.abs();
    if amount > 0.0 && amount < 0.005 {
        return format!("{sign}${amount:.4}");
    }
    format!("{sign}${amount:.2}")
}

/// A measured value in a column of values: four decimals, or an exponent where
/// these would say nothing (`0.0000`) or fill the screen (1e308 has 309 digits).
#[must_use]
pub fn value(value: f64) -> String {
    if value == 0.0 || !value.is_finite() || (1e-3..1e6).contains(&value.abs()) {
        format!("{value:.4}")
    } else {
        format!("{value:.3e}")
    }
}

/// Every digit of a measured value, in the shortest form that reads back the
/// same.
#[must_use]
pub fn digits(value: f64) -> String {
    let text = format!("{value:?}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        assert_eq!(
            [59, 60, 3599, 7620, 273_600].map(duration),
            ["59s", "1m 00s", "59m 59s", "2h 07m", "3d 04h"]
        );
        assert_eq!([0, 1023, 1536, 3 << 29].map(bytes), ["0 B", "1023 B", "1.5 KiB", "1.5 GiB"]);
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(
            [0.0, 0.42, -3.0, 0.0012, 1234.5].map(money),
            ["$0.00", "$0.42", "-$3.00", "$0.0012", "$1234.50"]
        );
        assert_eq!(
            [0.0, 0.5, -2.25, 123_456.0, 1e308, -1e308, 5e-324, f64::NAN, f64::INFINITY].map(value),
            [
                "0.0000",
                "0.5000",
                "-2.2500",
                "123456.0000",
                "1.000e308",
                "-1.000e308",
                "4.941e-324",
                "NaN",
                "inf"
            ]
        );
        assert_eq!([2.0, 0.1, 1e308, f64::NAN].map(digits), ["2", "0.1", "1e308", "NaN"]);
    }
}
