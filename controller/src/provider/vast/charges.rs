//! What Vast.ai says that it charged: one row for each contract, in pages. What
//! cannot be read is never passed over in silence: the answer says that
//! something is missing.

use serde_json::{Value, json};

use super::answer::{Failure, id};
use super::http::{Call, escaped};
use super::pace::Op;
use super::{VastProvider, unclear};
use crate::provider::{Charge, Charges};

/// The vendor gives no more in one page.
const PAGE: usize = 100;
/// Pages read at most.
const PAGES: usize = 200;
const DAY_S: u64 = 86_400;
/// Longest label taken.
const LABEL_MAX: usize = 256;
/// A row of more is no charge.
const USD_MAX: f64 = 1e7;

/// One page.
#[derive(Debug, PartialEq)]
struct Page {
    rows: Vec<Charge>,
    next: Option<String>,
    /// Some row could not be read.
    torn: bool,
}

impl VastProvider {
    /// Everything charged for machines between two moments, in seconds.
    pub(super) async fn charged(&self, since_s: u64, now_s: u64) -> Result<Charges, Failure> {
        let key = self.key()?;
        // Whole days: what one day was charged may be told as of its beginning.
        let from = since_s / DAY_S * DAY_S;
        let filters =
            json!({"day": {"gte": from, "lte": now_s + DAY_S}, "type": {"in": ["instance"]}}).to_string();
        let mut charges = Charges { rows: Vec::new(), complete: true };
        let mut after = String::new();
        for _ in 0..PAGES {
            let mut path = format!(
                "/api/v0/charges/?select_filters={}&latest_first=false&limit={PAGE}&format=table",
                escaped(&filters)
            );
            if !after.is_empty() {
                path.push_str("&after_token=");
                path.push_str(&escaped(&after));
            }
            let answer = self.http.read(&key, &Call::get(Op::Charges, path)).await?;
            let page = page(&answer).ok_or_else(|| unclear("the question for charges"))?;
            let empty = page.rows.is_empty();
            charges.complete &= !page.torn;
            charges.rows.extend(page.rows);
            match page.next {
                // A token that leads nowhere must not be followed for ever.
                Some(next) if next != after && !empty => after = next,
                Some(_) => return Ok(Charges { complete: false, ..charges }),
                None => return Ok(charges),
            }
        }
        Ok(Charges { complete: false, ..charges })
    }
}

fn page(answer: &Value) -> Option<Page> {
    let list = answer.get("results")?.as_array()?;
    // Charges for other things, such as volumes, are no machine's.
    let machines: Vec<&Value> = list.iter().filter(|row| !is_other(row)).take(PAGE * 10).collect();
    let rows: Vec<Charge> = machines.iter().filter_map(|row| charge(row)).collect();
    let next = answer.get("next_token").and_then(Value::as_str).filter(|token| !token.is_empty());
    let torn = rows.len() != machines.len() || list.len() > PAGE * 10;
    Some(Page { rows, next: next.map(str::to_owned), torn })
}

fn is_other(row: &Value) -> bool {
    row.get("type").and_then(Value::as_str).is_some_and(|kind| kind != "instance")
}

fn charge(row: &Value) -> Option<Charge> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    // `instance-123`; else as the description says: `Instance 123 Charges - 2 days`.
    let number = text("source").strip_prefix("instance-").or_else(|| {
        let rest = text("description").strip_prefix("Instance ")?;
        rest.split(' ').next()
    })?;
    let instance = id(&Value::from(number.parse::<u64>().ok()?))?;
    let usd = match row.get("amount")? {
        Value::String(text) => text.trim().trim_start_matches('$').parse().ok()?,
        number => number.as_f64()?,
    };
    let label = row.get("metadata").and_then(|data| data.get("label")).and_then(Value::as_str);
    let label = label.unwrap_or_default().chars().take(LABEL_MAX).collect();
    (usd.abs() <= USD_MAX).then(|| Charge { instance: instance.to_string(), label, usd })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_read_by_its_source_or_its_words_and_nothing_is_passed_over() {
        let row = |source: Value, words: &str, amount: Value| {
            json!({"type": "instance", "source": source, "description": words, "amount": amount,
                   "metadata": {"label": "outlast:x"}})
        };
        let good = json!({"results": [
            row(json!("instance-7"), "", json!(0.25)),
            row(Value::Null, "Instance 8 Charges - 2 days", json!("$1.5")),
            {"type": "volume", "source": "volume-3", "amount": 9},
        ], "next_token": "t"});
        let page_of = page(&good).unwrap();
        let charge = |id: &str, usd| Charge { instance: id.into(), label: "outlast:x".into(), usd };
        assert_eq!(
            page_of,
            Page { rows: vec![charge("7", 0.25), charge("8", 1.5)], next: Some("t".into()), torn: false }
        );
        for bad in [
            row(json!("instance-x"), "", json!(1)),
            row(json!("instance-0"), "", json!(1)),
            row(json!(7), "Charges", json!(1)),
            row(json!("instance-7"), "", json!("free")),
            row(json!("instance-7"), "", json!(1.7e308)),
            row(json!("instance-7"), "", Value::Null),
            json!(7),
        ] {
            let page = page(&json!({"results": [bad.clone()], "next_token": null})).unwrap();
            assert!(page.torn && page.rows.is_empty() && page.next.is_none(), "{bad}");
        }
        for none in [json!({}), json!([]), json!({"results": {}}), json!({"success": true})] {
            assert_eq!(page(&none), None, "{none}");
        }
    }
}
