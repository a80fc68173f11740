//! The vendor's filters, `{"field": {"op": value}}`, over rows of JSON: one
//! meaning for offers and for instances. Values may come as strings.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// A row of JSON.
pub(super) type Row = Map<String, Value>;

/// One condition that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) field: String,
    op: Test,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
    In,
    NotIn,
}

/// Reads filters; the message says what is wrong with them.
pub(super) fn read(filters: &Row) -> Result<Vec<Condition>, String> {
    let mut conditions = Vec::new();
    for (field, tests) in filters {
        let Value::Object(tests) = tests else {
            return Err(format!("{field}: a filter is an object of operators"));
        };
        for (op, value) in tests {
            let op = match op.as_str() {
                "eq" => Test::Eq,
                "neq" => Test::Neq,
                "lt" => Test::Lt,
                "lte" => Test::Lte,
                "gt" => Test::Gt,
                "gte" => Test::Gte,
                "in" => Test::In,
                "notin" => Test::NotIn,
                other => return Err(format!("{field}: unknown operator {other}")),
            };
            if matches!(op, Test::In | Test::NotIn) && !value.is_array() {
                return Err(format!("{field}: {op:?} needs a list"));
            }
            conditions.push(Condition { field: field.clone(), op, value: value.clone() });
        }
    }
    Ok(conditions)
}

impl Condition {
    /// Whether a row keeps it. What cannot be compared is not equal and not
    /// in order.
    pub(super) fn holds(&self, row: &Row) -> bool {
        let have = row.get(&self.field).unwrap_or(&Value::Null);
        let order = |want: &Value| compare(have, want);
        let among = || self.value.as_array().is_some_and(|list| list.iter().any(|want| same(have, want)));
        match self.op {
            Test::Eq => same(have, &self.value),
            Test::Neq => !same(have, &self.value),
            Test::Lt => order(&self.value) == Some(Ordering::Less),
            Test::Lte => matches!(order(&self.value), Some(Ordering::Less | Ordering::Equal)),
            Test::Gt => order(&self.value) == Some(Ordering::Greater),
            Test::Gte => matches!(order(&self.value), Some(Ordering::Greater | Ordering::Equal)),
            Test::In => among(),
            Test::NotIn => !among(),
        }
    }
}

fn same(have: &Value, want: &Value) -> bool {
    compare(have, want) == Some(Ordering::Equal)
}

/// Compares a stored value with a wanted one in the stored one's kind:
/// numbers and truth values may be spelled as strings, and an underscore is a
/// space.
fn compare(have: &Value, want: &Value) -> Option<Ordering> {
    match have {
        Value::Null => want.is_null().then_some(Ordering::Equal),
        Value::Bool(have) => {
            let want = match want {
                Value::Bool(want) => *want,
                Value::String(text) if text.eq_ignore_ascii_case("true") || text == "1" => true,
                Value::String(text) if text.eq_ignore_ascii_case("false") || text == "0" => false,
                Value::Number(number) => number.as_f64()? != 0.0,
                _ => return None,
            };
            Some(have.cmp(&want))
        }
        Value::Number(have) => {
            let want = match want {
                Value::Number(want) => want.as_f64()?,
                Value::String(text) => text.trim().parse().ok()?,
                _ => return None,
            };
            have.as_f64()?.partial_cmp(&want)
        }
        Value::String(have) => {
            let want = want.as_str()?;
            Some(have.replace('_', " ").cmp(&want.replace('_', " ")))
        }
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// The order of two rows by columns; what is not there comes last.
pub(super) fn order(a: &Row, b: &Row, columns: &[(String, bool)]) -> Ordering {
    for (column, descending) in columns {
        let (a, b) = (a.get(column).unwrap_or(&Value::Null), b.get(column).unwrap_or(&Value::Null));
        let by = rank(a, b);
        let by = if *descending && !a.is_null() && !b.is_null() { by.reverse() } else { by };
        if by != Ordering::Equal {
            return by;
        }
    }
    Ordering::Equal
}

/// A total order of plain values.
fn rank(a: &Value, b: &Value) -> Ordering {
    let kind = |value: &Value| match value {
        Value::Bool(_) => 0,
        Value::Number(_) => 1,
        Value::String(_) => 2,
        Value::Array(_) | Value::Object(_) => 3,
        Value::Null => 4,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default())
        }
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => kind(a).cmp(&kind(b)),
    }
}
