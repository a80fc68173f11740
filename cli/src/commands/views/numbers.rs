//! Numbers as views write them, and as JSON holds them.

use serde_json::Value;

/// With its noun.
pub(crate) fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// Every digit of it, in the shortest form that reads back the same; `NaN`,
/// `inf` and `-inf` as most readers of tables know them.
pub(super) fn full(value: f64) -> String {
    crate::printer::digits(value)
}

/// As JSON: what JSON has no number for stands as the word of it.
pub(super) fn json(value: f64) -> Value {
    if value.is_nan() {
        return "NaN".into();
    }
    serde_json::Number::from_f64(value)
        .map_or_else(|| if value > 0.0 { "Infinity" } else { "-Infinity" }.into(), Value::Number)
}

/// A cell of a table with commas, RFC 4180.
pub(super) fn cell(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_and_cells_stay_cells() {
        for value in [0.1, 1.0, -2.5e300, 5e-324, f64::INFINITY] {
            assert_eq!(full(value).parse::<f64>().unwrap(), value);
        }
        assert_eq!((full(3.0).as_str(), full(f64::NAN).as_str()), ("3", "NaN"));
        assert_eq!(
            (json(f64::NAN), json(f64::NEG_INFINITY), json(1.5)),
            ("NaN".into(), "-Infinity".into(), 1.5.into())
        );
        assert_eq!(
            (cell("a,b"), cell("a\"b"), cell("a")),
            ("\"a,b\"".into(), "\"a\"\"b\"".into(), "a".into())
        );
    }
}
