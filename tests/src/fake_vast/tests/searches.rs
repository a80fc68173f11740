//! Searches against a naive reading of the same filters.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::Lab;

fn offers(lab: &mut Lab, query: &Value) -> Vec<Value> {
    let answer = lab.call("POST", "/api/v0/bundles/", query).value();
    answer["offers"].as_array().unwrap_or_else(|| panic!("{query}: {answer}")).clone()
}

fn market() -> Lab {
    let mut lab = Lab::new();
    lab.control("offers", &json!({"seed": 3, "count": 200}));
    lab
}

#[test]
fn values_may_be_strings_and_types_have_two_spellings() {
    let mut lab = market();
    let plain = offers(&mut lab, &json!({"num_gpus": {"eq": 2}, "rentable": {"eq": true}}));
    assert!(!plain.is_empty());
    for same in [
        json!({"num_gpus": {"eq": "2"}, "rentable": {"eq": "true"}}),
        json!({"num_gpus": {"eq": "2.0"}, "type": "ondemand"}),
        json!({"num_gpus": {"in": ["2"]}, "type": "on-demand", "limit": "1000"}),
    ] {
        assert_eq!(offers(&mut lab, &same), plain, "{same}");
    }
    let spaced = offers(&mut lab, &json!({"gpu_name": {"eq": "RTX 4090"}}));
    assert!(!spaced.is_empty());
    assert_eq!(offers(&mut lab, &json!({"gpu_name": {"eq": "RTX_4090"}})), spaced);
    let wrapped = lab.call(
        "PUT",
        "/api/v0/search/asks/",
        &json!({"select_cols": ["*"], "q": {"num_gpus": {"eq": "2"}}}),
    );
    assert_eq!(wrapped.value()["offers"].as_array(), Some(&plain));
}

#[test]
fn a_place_is_asked_for_by_its_country() {
    let mut lab = market();
    let here = offers(&mut lab, &json!({"geolocation": {"in": ["US", "IS"]}}));
    let all = offers(&mut lab, &json!({}));
    let ends = |row: &Value| {
        let place = row["geolocation"].as_str().expect("a place");
        place.ends_with(", US") || place.ends_with(", IS")
    };
    assert_eq!(here.len(), all.iter().filter(|row| ends(row)).count());
    assert!(!here.is_empty() && here.iter().all(ends));
}

#[test]
fn nonsense_is_refused() {
    let mut lab = market();
    for bad in [
        json!({"nonsense": {"eq": 1}}),
        json!({"num_gpus": 1}),
        json!({"num_gpus": {"like": 1}}),
        json!({"num_gpus": {"in": 1}}),
        json!({"type": "free"}),
        json!({"order": [["dph_total", "sideways"]]}),
        json!({"limit": "many"}),
    ] {
        let answer = lab.call("POST", "/api/v0/bundles/", &bad);
        assert_eq!((answer.status, answer.value()["error"].clone()), (400, json!("invalid_args")), "{bad}");
    }
}

#[test]
fn disk_changes_the_total_and_bids_the_price() {
    let mut lab = Lab::new();
    let total = |lab: &mut Lab, query: &Value| offers(lab, query)[0]["dph_total"].as_f64().expect("a number");
    super::near(total(&mut lab, &json!({"allocated_storage": 10.0})), 0.37);
    super::near(total(&mut lab, &json!({"allocated_storage": 100})), 0.46);
    super::near(total(&mut lab, &json!({"allocated_storage": 10, "type": "bid"})), 0.11);
    let offer = &offers(&mut lab, &json!({"allocated_storage": 10}))[0];
    super::near(offer["search"]["diskHour"].as_f64().expect("a number"), 0.01);
    super::near(offer["instance"]["diskHour"].as_f64().expect("a number"), 0.02);
}

#[test]
fn an_ask_is_used_once() {
    let mut lab = Lab::new();
    let ask = lab.ask(1);
    let id = lab.created(1, &json!({}));
    let again = lab.call("PUT", &format!("/api/v0/asks/{ask}/"), &json!({"image": "i", "disk": 10}));
    assert_eq!((again.status, again.value()["error"].clone()), (404, json!("no_such_ask")));
    assert_eq!(offers(&mut lab, &json!({"machine_id": {"eq": 1}}))[0]["rentable"], false);
    assert_eq!(lab.create(1, &json!({})).status, 410);
    lab.destroy(id);
    assert_eq!(lab.create(1, &json!({})).status, 200);
}

const FIELDS: [&str; 6] = ["num_gpus", "dph_total", "reliability", "gpu_ram", "gpu_name", "verification"];

fn condition() -> impl Strategy<Value = (usize, usize, usize, bool)> {
    (0..FIELDS.len(), 0_usize..8, 0_usize..200, any::<bool>())
}

/// The same without a word of the code under test.
fn naive(row: &Value, field: &str, op: &str, want: &Value) -> bool {
    let have = &row[field];
    let equal = |want: &Value| match (have, want) {
        (Value::Number(have), Value::String(want)) => have.as_f64() == want.parse().ok(),
        _ => have == want,
    };
    let less = |want: &Value| match have {
        Value::Number(have) => {
            let want = want.as_f64().or_else(|| want.as_str()?.parse().ok()).expect("a number");
            have.as_f64().expect("a number") < want
        }
        _ => have.as_str() < want.as_str(),
    };
    match op {
        "eq" => equal(want),
        "neq" => !equal(want),
        "lt" => less(want),
        "lte" => less(want) || equal(want),
        "gt" => !less(want) && !equal(want),
        "gte" => !less(want),
        "in" => want.as_array().expect("a list").iter().any(equal),
        _ => !want.as_array().expect("a list").iter().any(equal),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn searches_find_what_a_naive_reading_finds(
        conditions in prop::collection::vec(condition(), 0..4),
        order in prop::collection::vec((0..FIELDS.len(), any::<bool>()), 0..3),
        limit in 0_usize..60,
    ) {
        let mut lab = market();
        let all = offers(&mut lab, &json!({"order": [["id", "asc"]]}));
        let mut query = Map::new();
        let mut wanted = all.clone();
        for (field, op, from, as_text) in conditions {
            let field = FIELDS[field];
            let op = ["eq", "neq", "lt", "lte", "gt", "gte", "in", "notin"][op];
            let spell = |value: &Value| match value {
                Value::Number(number) if as_text => Value::String(number.to_string()),
                other => other.clone(),
            };
            let mut value = spell(&all[from % all.len()][field]);
            if op == "in" || op == "notin" {
                value = json!([value, spell(&all[(from + 1) % all.len()][field])]);
            }
            wanted.retain(|row| naive(row, field, op, &value));
            // A second condition on the same field and operator replaces the first.
            let tests = query.entry(field).or_insert_with(|| json!({}));
            prop_assume!(tests.get(op).is_none());
            tests[op] = value;
        }
        let order: Vec<(&str, bool)> = order.into_iter().map(|(at, down)| (FIELDS[at], down)).collect();
        wanted.sort_by(|a, b| {
            for (field, down) in &order {
                let by = match (&a[field], &b[field]) {
                    (Value::Number(a), Value::Number(b)) => {
                        a.as_f64().partial_cmp(&b.as_f64()).expect("numbers compare")
                    }
                    (a, b) => a.as_str().cmp(&b.as_str()),
                };
                if by.is_ne() {
                    return if *down { by.reverse() } else { by };
                }
            }
            a["id"].as_u64().cmp(&b["id"].as_u64())
        });
        wanted.truncate(limit);
        let spelled: Vec<Value> =
            order.iter().map(|(field, down)| json!([field, if *down { "desc" } else { "asc" }])).collect();
        query.insert("order".to_owned(), json!(spelled));
        query.insert("limit".to_owned(), json!(limit));
        prop_assert_eq!(offers(&mut lab, &Value::Object(query)), wanted);
    }
}
