//! A person's own wishes at Vast.ai's search, and the machines and hosts that he
//! does not want: asked of the vendor, and looked at again in its answer. Pure.

use lifecycle::spec::{Filter, MachineSpec, filter::Compare};
use serde_json::{Map, Value, json};

use super::answer::id;

/// What is asked unless a person says something of it himself.
const WISHES: [&str; 2] = ["verified", "external"];

/// Adds wishes to a question. Several for one field all hold.
pub(super) fn ask(q: &mut Map<String, Value>, filters: &[Filter]) {
    for field in WISHES {
        if filters.iter().any(|filter| filter.field == field) {
            q.remove(field);
        }
    }
    for filter in filters {
        let value = match filter.compare {
            Compare::In | Compare::NotIn => filter.values.iter().map(|value| plain(value)).collect(),
            _ => filter.values.first().map_or(Value::Null, |value| plain(value)),
        };
        let slot = q.entry(filter.field.clone()).or_insert_with(|| json!({}));
        if let Some(ops) = slot.as_object_mut() {
            ops.insert(filter.compare.op().to_owned(), value);
        }
    }
}

/// A value as JSON has it: a truth, a number, or words.
fn plain(text: &str) -> Value {
    match text {
        "true" => json!(true),
        "false" => json!(false),
        text => text.parse::<f64>().ok().filter(|n| n.is_finite()).map_or_else(|| json!(text), |n| json!(n)),
    }
}

/// Whether an offer meets what a person asked for. A field that the answer does
/// not have was the vendor's to look at.
pub(super) fn fits(row: &Value, spec: &MachineSpec) -> bool {
    let number = |field: &str| row.get(field).and_then(id);
    let (machine, host) = (number("machine_id"), number("host_id"));
    let avoided = spec.avoid.iter().any(|name| match name.strip_prefix("host:") {
        Some(name) => host.is_some_and(|host| host.to_string() == name),
        None => machine.is_some_and(|machine| machine.to_string() == *name),
    });
    !avoided
        && spec.filter.iter().all(|filter| told(row, &filter.field).is_none_or(|told| filter.holds(&told)))
}

fn told(row: &Value, field: &str) -> Option<String> {
    match row.get(field)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::vast::offer::question;

    fn spec(filters: &[&str], avoid: &[&str]) -> MachineSpec {
        MachineSpec {
            filter: filters.iter().map(|text| text.parse().unwrap()).collect(),
            avoid: avoid.iter().map(|text| (*text).to_owned()).collect(),
            ..MachineSpec::default()
        }
    }

    #[test]
    fn wishes_are_part_of_the_question_and_take_the_place_of_what_is_asked_otherwise() {
        let q = question(
            &spec(&["cuda_max_good >= 12.4", "reliability < 0.999", "gpu_arch in [nvidia, amd]"], &[]),
            None,
        );
        assert_eq!(q["cuda_max_good"], json!({"gte": 12.4}));
        assert_eq!(q["reliability"], json!({"gte": 0.98, "lt": 0.999}), "both hold");
        assert_eq!(
            (&q["gpu_arch"], &q["verified"]),
            (&json!({"in": ["nvidia", "amd"]}), &json!({"eq": true}))
        );
        let open = question(&spec(&["verified in [true, false]"], &[]), None);
        assert_eq!(open["verified"], json!({"in": [true, false]}));
    }

    #[test]
    fn what_was_asked_for_is_looked_at_again_and_machines_and_hosts_are_avoided() {
        let row = json!({"machine_id": 10_034, "host_id": "5", "cuda_max_good": 12.2, "inet_down": "800", "static_ip": true});
        for (filters, avoid, fit) in [
            (&[][..], &[][..], true),
            (&["cuda_max_good >= 12.4"], &[], false),
            (&["cuda_max_good >= 12", "inet_down > 500", "static_ip == true"], &[], true),
            (&["pcie_bw >= 12"], &[], true),
            (&[], &["10034"], false),
            (&[], &["host:5"], false),
            (&[], &["5", "host:10034"], true),
        ] {
            assert_eq!(fits(&row, &spec(filters, avoid)), fit, "{filters:?} {avoid:?}");
        }
    }
}
