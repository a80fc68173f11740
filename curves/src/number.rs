//! Numbers as training programs print them, and as this crate stores them.
//!
//! JSON has no NaN, Python prints one all the same. Stored forms must give
//! back exactly the value that went in.

use std::borrow::Cow;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

/// Units that may follow a value without changing it.
const UNITS: [&str; 24] = [
    "%",
    "ms",
    "us",
    "ns",
    "s",
    "it/s",
    "s/it",
    "ms/it",
    "tok/s",
    "tokens/s",
    "samples/s",
    "img/s",
    "/s",
    "B",
    "KB",
    "MB",
    "GB",
    "KiB",
    "MiB",
    "GiB",
    "min",
    "h",
    "x",
    ".",
];

/// Words for the values that are not finite, longest first.
const WORDS: [(&str, f64); 8] = [
    ("Infinity", f64::INFINITY),
    ("infinity", f64::INFINITY),
    ("inf", f64::INFINITY),
    ("Inf", f64::INFINITY),
    ("INF", f64::INFINITY),
    ("nan", f64::NAN),
    ("NaN", f64::NAN),
    ("NAN", f64::NAN),
];

/// The number at the start of `text` and how many bytes it took. `1e400` is
/// infinity, as IEEE rounding has it.
pub(crate) fn prefix(text: &str) -> Option<(f64, usize)> {
    let bytes = text.as_bytes();
    let sign = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = digits(sign);
    let mut end = sign + whole;
    let mut fraction = 0;
    if bytes.get(end) == Some(&b'.') {
        fraction = digits(end + 1);
        if whole + fraction > 0 && (fraction > 0 || !bytes.get(end + 1).is_some_and(u8::is_ascii_alphabetic))
        {
            end += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        let (word, value) = WORDS.iter().find(|(word, _)| text[sign..].starts_with(word))?;
        let signed = if bytes[0] == b'-' { -*value } else { *value };
        return Some((signed, sign + word.len()));
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let mark = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        if mark <= bytes.len() && digits(mark) > 0 {
            end = mark + digits(mark);
        }
    }
    text[..end].parse().ok().map(|value| (value, end))
}

/// `1,234,567.5` without the commas between its thousands; `None` where commas
/// stand in any other way: what is meant by `0,5` is not known.
pub(crate) fn ungrouped(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(',') {
        return Some(text.into());
    }
    let (sign, number) = text.split_at(usize::from(text.starts_with(['-', '+'])));
    let end = number.find(|c: char| c != ',' && !c.is_ascii_digit()).unwrap_or(number.len());
    let (whole, rest) = number.split_at(end);
    let mut groups = whole.split(',');
    let first = groups.next().filter(|first| (1..=3).contains(&first.len()) && !first.starts_with('0'));
    let grouped = first.is_some() && groups.all(|group| group.len() == 3) && !rest.contains(',');
    grouped.then(|| format!("{sign}{}{rest}", whole.replace(',', "")).into())
}

/// The whole of `text` as a number, with at most a unit behind it. `k`, `M`
/// and `G` multiply; other units are dropped, so `33.3%` is 33.3.
pub(crate) fn whole(text: &str) -> Option<f64> {
    let text = &*ungrouped(text)?;
    let (value, used) = prefix(text)?;
    let rest = &text[used..];
    if rest.is_empty() {
        return Some(value);
    }
    if !value.is_finite() {
        return matches!(rest, "ms" | "%" | "." | "it/s" | "tok/s").then_some(value);
    }
    match rest {
        "k" | "K" => Some(value * 1e3),
        "M" => Some(value * 1e6),
        "G" => Some(value * 1e9),
        _ => UNITS.contains(&rest).then_some(value),
    }
}

/// A step number `N`, `N/M` or `N.0`, and the total `M`. Steps end at 2^53, where
/// floating-point step counters lose their units.
pub(crate) fn step(text: &str) -> Option<(u64, Option<u64>)> {
    let (number, total) = match text.split_once('/') {
        Some((number, "")) => (number, None),
        Some((number, total)) => (number, Some(plain(total)?)),
        None => (text, None),
    };
    let number = number.strip_suffix(".0").unwrap_or(number);
    Some((plain(number)?, total))
}

fn plain(text: &str) -> Option<u64> {
    let text = &*ungrouped(text)?;
    let digits = !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|n| *n <= 1 << 53)
}

/// A float that counts steps: whole, not negative, at most 2^53.
pub(crate) fn as_step(value: f64) -> Option<u64> {
    (value >= 0.0 && value <= (1_u64 << 53) as f64 && value.fract() == 0.0).then_some(value as u64)
}

/// For `#[serde(with = "curves::number")]`: finite values as numbers, others
/// as the strings `NaN`, `Infinity` and `-Infinity`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f64(*value)
    } else if value.is_nan() {
        serializer.serialize_str("NaN")
    } else {
        serializer.serialize_str(if *value > 0.0 { "Infinity" } else { "-Infinity" })
    }
}

/// The other direction of [`serialize`].
///
/// # Errors
/// When the input is neither a number nor one of the three strings.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(AnyNumber)
}

struct AnyNumber;

impl Visitor<'_> for AnyNumber {
    type Value = f64;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number, or one of `NaN`, `Infinity`, `-Infinity`")
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }
}

/// The same for an `Option<f64>`, where absent is null.
pub mod option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Wrapped(#[serde(with = "super")] f64);

    /// Null, or what [`super::serialize`] makes.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Wrapped).serialize(serializer)
    }

    /// The other direction of [`serialize`].
    ///
    /// # Errors
    /// As [`super::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_programs_print_them() {
        for (text, value) in
            [("3", 3.0), ("-0.5", -0.5), ("+3", 3.0), ("1.", 1.0), (".5", 0.5), ("2.19E+00", 2.19)]
        {
            assert_eq!(whole(text), Some(value), "{text}");
        }
        for (text, value) in
            [("33.3%", 33.3), ("229ms", 229.0), ("1.5k", 1500.0), ("0.5.", 0.5), ("1e400", f64::INFINITY)]
        {
            assert_eq!(whole(text), Some(value), "{text}");
        }
        for (text, value) in
            [("1,234.5", 1234.5), ("-12,345", -12345.0), ("1,234,567tok/s", 1_234_567.0), ("1,000", 1000.0)]
        {
            assert_eq!(whole(text), Some(value), "{text}");
        }
        assert!(whole("nan").is_some_and(f64::is_nan) && whole("-nanms").is_some_and(f64::is_nan));
        assert_eq!(whole("-Infinity"), Some(f64::NEG_INFINITY));
        for text in [
            "",
            "-",
            ".",
            "1.2.3",
            "info",
            "nano",
            "10.0.0.1",
            "2024-01-01",
            "1/2",
            "e5",
            "0x10",
            "5e",
            "1_000",
            "0,532",
            "1,5",
            "12,3456",
            "1234,567",
            "1,234.5,6",
            ",123",
            "1,",
        ] {
            assert_eq!(whole(text), None, "{text}");
        }
    }

    #[test]
    fn steps_and_totals() {
        assert_eq!(step("120"), Some((120, None)));
        assert_eq!(step("5/100"), Some((5, Some(100))));
        assert_eq!(step("1/"), Some((1, None)));
        assert_eq!(step("7.0"), Some((7, None)));
        assert_eq!(step("1,003/12,000"), Some((1003, Some(12_000))));
        for text in ["", "-1", "1.5", "a", "1/b", "99999999999999999999", "18446744073709551615"] {
            assert_eq!(step(text), None, "{text}");
        }
    }
}
