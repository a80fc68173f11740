//! What views say, as numbers and names: a few rows for a program or a model that
//! reads the structured form, cheap in tokens. The sentences are in the text.

use serde_json::{Map, Value, json};

use super::reply::spelt;
use crate::commands::analyze::tokens;
use crate::commands::views::stats::importance;

/// Characters of a name.
const NAME: usize = 80;
/// Findings of a run.
const FINDINGS: usize = 4;
/// Tokens of what stands around rows.
const WRAPPED: usize = 16;

/// The rows of a view's JSON.
pub(super) fn rows(tool: &str, said: &Value) -> Vec<Value> {
    let each = |list: &Value, row: fn(&Value) -> Value| -> Vec<Value> {
        list.as_array().into_iter().flatten().map(row).collect()
    };
    match tool {
        "history" => each(&said["metrics"], history),
        "stats" => each(&ranked(&said["metrics"]), stats),
        "metrics" => each(&ranked(&said["keys"]), |key| {
            object([
                ("name", name(&key["name"])),
                ("n", key["count"].clone()),
                ("step", key["last_step"].clone()),
            ])
        }),
        "settings" => {
            let all = said["settings"].as_object().into_iter().flatten();
            all.map(|(key, value)| json!({ spelt(key, NAME): brief(value) })).collect()
        }
        "config_diff" => each(&said["settings"], |one| {
            object([("name", name(&one["name"])), ("values", brief(&one["values"]))])
        }),
        "compare" => each(&ranked(&said["metrics"]), compared),
        "find" => each(&said["runs"], found),
        "group" => {
            let told = |row: &Value| row["verdict"] != "cannot_tell";
            let (mut rows, unknown): (Vec<_>, Vec<_>) =
                each(&said["comparisons"], comparison).into_iter().partition(told);
            rows.extend(each(&said["arms"], arm));
            rows.extend(unknown);
            rows
        }
        "notes" => each(&said["entries"], |one| {
            object([("id", name(&one["id"])), ("kind", name(&one["kind"])), ("run", name(&one["run"]))])
        }),
        _ => Vec::new(),
    }
}

/// What matters most of a run that was judged, as much as fits into so many tokens.
pub(super) fn judged(run: &Value, most: usize) -> Value {
    let fits = |row: &Value| tokens::bound(&row.to_string()) + WRAPPED <= most;
    let wishes = [(FINDINGS, true), (2, true), (1, true), (1, false)];
    let fitting = wishes.into_iter().map(|(found, metric)| judged_row(run, found, metric)).find(fits);
    fitting.unwrap_or_else(|| judged_row(run, 0, false))
}

fn judged_row(run: &Value, found: usize, with_metric: bool) -> Value {
    let report = &run["report"];
    let primary = report["primary"].as_str();
    let metrics = report["metrics"].as_array().into_iter().flatten();
    let metric = metrics
        .into_iter()
        .find(|metric| with_metric && metric["name"].as_str() == primary && primary.is_some());
    object([
        ("path", name(&run["path"])),
        ("health", report["health"]["score"].clone()),
        ("labels", report["health"]["labels"].clone()),
        ("ended", run["ending"]["outcome"].clone()),
        ("last_step", run["last_step"].clone()),
        ("findings", findings(run, found)),
        (
            "metric",
            metric.map_or(Value::Null, |metric| json!([name(&metric["name"]), brief(&metric["last"])])),
        ),
        ("best", metric.map_or(Value::Null, |metric| pair(&metric["best_step"], &metric["best"]))),
    ])
}

/// The findings of a run that are warnings or worse: kind, metric, first and last step.
pub(super) fn findings(run: &Value, most: usize) -> Value {
    let all = run["report"]["findings"].as_array().into_iter().flatten();
    let grave = all.filter(|one| one["severity"] != "note").take(most);
    grave.map(|one| json!([one["kind"], name(&one["metric"]), one["first_step"], one["last_step"]])).collect()
}

/// What a training is judged by comes first.
fn ranked(list: &Value) -> Value {
    let mut all: Vec<Value> = list.as_array().cloned().unwrap_or_default();
    all.sort_by_key(|one| one["name"].as_str().map_or(u8::MAX, importance));
    Value::Array(all)
}

/// Without what is not known.
fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let empty = |value: &Value| value.is_null() || *value == json!([]) || *value == json!("unknown");
    let known = members.into_iter().filter(|(_, value)| !empty(value));
    Value::Object(known.map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
}

fn name(value: &Value) -> Value {
    value.as_str().map_or(Value::Null, |text| spelt(text, NAME).into())
}

/// A number with five digits, a text cut, a list of them.
fn brief(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().and_then(|number| format!("{number:.4e}").parse::<f64>().ok());
            rounded.map_or(Value::Null, Value::from)
        }
        Value::String(text) => spelt(text, NAME).into(),
        Value::Array(list) => list.iter().take(20).map(brief).collect(),
        Value::Object(_) => spelt(&value.to_string(), NAME).into(),
        other => other.clone(),
    }
}

fn pair(step: &Value, value: &Value) -> Value {
    if value.is_null() { Value::Null } else { json!([step, brief(value)]) }
}

fn history(metric: &Value) -> Value {
    let points = || metric["points"].as_array().into_iter().flatten();
    let ends = |point: Option<&Value>| point.map_or(Value::Null, |point| pair(&point[0], &point[1]));
    let finite = || points().filter_map(|point| Some((point[1].as_f64()?, point)));
    let low = finite().min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, point)| point);
    let high = finite().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, point)| point);
    object([
        ("metric", name(&metric["name"])),
        ("n", metric["values"].clone()),
        ("first", ends(points().next())),
        ("last", ends(points().last())),
        ("min", ends(low)),
        ("max", ends(high)),
    ])
}

fn stats(metric: &Value) -> Value {
    object([
        ("metric", name(&metric["name"])),
        ("last", brief(&metric["last"])),
        ("min", pair(&metric["min_place"], &metric["min"])),
        ("max", pair(&metric["max_place"], &metric["max"])),
        ("mean", brief(&metric["mean"])),
        ("sd", brief(&metric["sd"])),
        ("n", metric["count"].clone()),
        ("trend", metric["trend"].clone()),
    ])
}

fn compared(metric: &Value) -> Value {
    let cells = || metric["runs"].as_array().into_iter().flatten();
    let changes: Vec<Value> = cells().skip(1).map(|cell| brief(&cell["change_percent"])).collect();
    // One step only where all values are of it.
    let steps: Vec<Value> = cells().map(|cell| cell["step"].clone()).collect();
    let mut known = steps.iter().filter(|step| !step.is_null());
    let one = known.next().filter(|first| known.all(|step| step == *first)).cloned();
    let is_one = one.is_some() || steps.iter().all(Value::is_null);
    object([
        ("metric", name(&metric["name"])),
        ("step", one.unwrap_or_default()),
        ("steps", if is_one { Value::Null } else { Value::Array(steps) }),
        ("values", cells().map(|cell| brief(&cell["value"])).collect()),
        ("percent", Value::Array(changes)),
    ])
}

fn found(run: &Value) -> Value {
    let figures = &run["primary"]["figures"];
    object([
        ("path", name(&run["path"])),
        ("state", name(&run["state"])),
        ("health", run["health"].clone()),
        ("labels", run["labels"].clone()),
        ("metric", name(&run["primary"]["name"])),
        ("last", brief(&figures["last"])),
        ("min", pair(&figures["min"]["step"], &figures["min"]["value"])),
        ("max", pair(&figures["max"]["step"], &figures["max"]["value"])),
    ])
}

fn arm(arm: &Value) -> Value {
    let spread = &arm["spread"];
    object([
        ("arm", name(&arm["name"])),
        ("n", spread["n"].clone()),
        ("mean", brief(&spread["mean"])),
        ("sd", brief(&spread["sd"])),
        ("interval", brief(&spread["interval"])),
    ])
}

fn comparison(one: &Value) -> Value {
    object([
        ("arm", name(&one["arm"])),
        ("less", name(&one["base"])),
        ("verdict", one["difference"]["verdict"].clone()),
        ("difference", brief(&one["difference"]["difference"])),
        ("p", brief(&one["p_adjusted"])),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_different_steps_are_not_said_to_be_of_one() {
        let said = |a: Value, b: Value| {
            let cells = json!([{ "step": a, "value": 0.6, "change_percent": null },
                               { "step": b, "value": 0.1, "change_percent": -83.3 }]);
            rows("compare", &json!({ "metrics": [{ "name": "loss", "runs": cells }] })).remove(0)
        };
        let apart = said(json!(40), json!(60));
        assert_eq!((&apart["steps"], apart.get("step")), (&json!([40, 60]), None), "{apart}");
        let matched = said(json!(40), json!(40));
        assert_eq!((&matched["step"], matched.get("steps")), (&json!(40), None), "{matched}");
        let alone = said(json!(40), Value::Null);
        assert_eq!((&alone["step"], alone.get("steps")), (&json!(40), None), "{alone}");
    }

    #[test]
    fn rows_have_numbers_of_five_digits_and_nothing_unknown() {
        let said = json!({ "metrics": [{ "name": "a\u{1b}b", "last": 0.123_456_789, "min": 1e-9, "min_place": 4,
            "max": null, "mean": "NaN", "count": 3 }] });
        let expected =
            json!({ "metric": "a\\u{1b}b", "last": 0.12346, "min": [4, 1e-9], "mean": "NaN", "n": 3 });
        assert_eq!(rows("stats", &said), [expected]);
        assert_eq!(rows("plot", &said), Vec::<Value>::new());
        let said =
            json!({ "metrics": [{ "name": "a", "values": 9, "points": [[0, 2.0], [5, "NaN"], [8, 0.5]] }] });
        let expected = json!({ "metric": "a", "n": 9, "first": [0, 2.0], "last": [8, 0.5], "min": [8, 0.5], "max": [0, 2.0] });
        assert_eq!(rows("history", &said), [expected]);
    }
}
