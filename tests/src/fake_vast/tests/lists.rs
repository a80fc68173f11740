//! Lists: pages, filters on stored columns, and what is not there.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Request, handle};
use super::{KEY, Lab};

fn list(lab: &mut Lab, arguments: &[(&str, String)]) -> Value {
    let mut request = Request::new("GET", "/api/v1/instances/", KEY, &Value::Null);
    request.query = arguments.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    handle(&mut lab.world, lab.now, &request).value()
}

fn ids(page: &Value) -> Vec<u64> {
    page["instances"].as_array().into_iter().flatten().filter_map(|row| row["id"].as_u64()).collect()
}

/// Instances on machines 1 to `count`, with labels in turn.
fn filled(count: u64, labels: u64) -> Lab {
    let mut lab = Lab::new();
    for machine in 1..=count {
        let gpu = if machine % 3 == 0 { "H100 SXM" } else { "RTX 4090" };
        lab.machine(&json!({"machine_id": machine, "gpu_name": gpu}));
        lab.created(machine, &json!({"label": format!("run-{}", machine % labels)}));
    }
    lab
}

#[test]
fn limits_are_the_vendors() {
    let mut lab = filled(30, 2);
    for (limit, rows) in [("", 25), ("1000", 25), ("0", 5), ("-3", 5), ("7", 7)] {
        let page = list(&mut lab, &[("limit", limit.to_owned())]);
        assert_eq!(ids(&page).len(), rows, "{limit:?}");
        assert_eq!(
            (page["instances_found"].clone(), page["total_instances"].clone()),
            (json!(rows), json!(30))
        );
    }
    assert_eq!(list(&mut lab, &[])["label_counts"], json!({"run-0": 15, "run-1": 15}));
}

#[test]
fn filters_are_on_stored_columns_only() {
    let mut lab = filled(9, 3);
    let by = |filter: Value| [("select_filters", filter.to_string())];
    assert_eq!(ids(&list(&mut lab, &by(json!({"label": {"eq": "run-1"}})))).len(), 3);
    assert_eq!(ids(&list(&mut lab, &by(json!({"label": {"in": ["run-1", "run-2"]}})))).len(), 6);
    assert_eq!(ids(&list(&mut lab, &by(json!({"gpu_name": {"eq": "H100 SXM"}})))).len(), 3);
    assert_eq!(ids(&list(&mut lab, &by(json!({"actual_status": {"eq": null}})))).len(), 9);
    for computed in ["dph_total", "num_gpus", "nonsense"] {
        let page = list(&mut lab, &by(json!({computed: {"eq": 1}})));
        assert_eq!(page["error"], "invalid_request", "{computed}");
    }
    assert_eq!(list(&mut lab, &[("after_token", "!".to_owned())])["error"], "invalid_token");
    let page = list(&mut lab, &[("select_cols", json!(["id", "nonsense"]).to_string())]);
    assert_eq!(page["instances"][0].as_object().map(serde_json::Map::len), Some(2));
    assert!(page["instances"][0]["nonsense"].is_null());
}

#[test]
fn what_is_unknown_is_null_with_success_and_gone_when_destroyed_again() {
    let mut lab = Lab::new();
    let answer = lab.call("GET", "/api/v0/instances/5/?owner=me", &Value::Null);
    assert_eq!((answer.status, answer.value()), (200, json!({"instances": null})));
    let answer = lab.call("DELETE", "/api/v0/instances/5/", &json!({}));
    assert_eq!((answer.status, answer.value()["error"].clone()), (404, json!("no_such_instance")));
}

#[test]
fn what_shows_late_is_in_no_list_before() {
    let mut lab = Lab::new();
    lab.fault("create", &json!({"kind": "fate", "fate": {"kind": "late", "ms": 90_000}}));
    let id = lab.created(1, &json!({}));
    lab.pass(89_000);
    assert!(lab.show(id).is_null());
    assert!(ids(&list(&mut lab, &[])).is_empty());
    lab.pass(1_000);
    assert_eq!(ids(&list(&mut lab, &[])), [id]);
    assert_eq!(lab.status(id), "running");
    super::near(lab.cost(id), (0.36 * 68.0 + 0.01 * 90.0) / 3600.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn pages_show_each_instance_once(
        count in 0_u64..40, limit in 1_u64..30, column in 0_usize..4, descending: bool,
    ) {
        let mut lab = filled(count, 5);
        let column = ["id", "label", "gpu_name", "start_date"][column];
        let direction = if descending { "desc" } else { "asc" };
        let order = json!([{"col": column, "dir": direction}]).to_string();
        let (mut seen, mut token) = (Vec::new(), None::<String>);
        loop {
            let mut arguments = vec![("order_by", order.clone()), ("limit", limit.to_string())];
            arguments.extend(token.take().map(|token| ("after_token", token)));
            let page = list(&mut lab, &arguments);
            seen.extend(ids(&page));
            prop_assert!(seen.len() as u64 <= count, "a row comes twice");
            match page["next_token"].as_str() {
                Some(next) => token = Some(next.to_owned()),
                None => break,
            }
        }
        prop_assert_eq!(seen.len() as u64, count);
        prop_assert_eq!(seen.iter().collect::<BTreeSet<_>>().len() as u64, count);
    }
}
