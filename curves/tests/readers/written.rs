//! What is written is read back to the last bit: random rows in the formats of
//! text, whatever their keys, numbers and order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{collect, csv, jsonl};
use curves::log::Collected;

type Rows = Vec<(u64, BTreeMap<String, f64>)>;

/// As Python's json prints a number, or in one of the other ways that are allowed.
fn printed(value: f64, way: u8) -> String {
    match (value, way % 3) {
        (v, _) if v.is_nan() => "NaN".to_owned(),
        (v, _) if v.is_infinite() => if v > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        (v, 0) => format!("{v:?}"),
        (v, 1) => format!("{v:e}"),
        (v, _) => format!("{v}"),
    }
}

fn rows() -> impl Strategy<Value = Rows> {
    let key = prop::sample::select(vec!["loss", "val/loss", "lr", "Δ", "grad norm", "a.b", "x\\y", "q\"q"]);
    let values = prop::collection::btree_map(key.prop_map(str::to_owned), any::<f64>(), 0..6);
    prop::collection::vec((0_u64..1 << 53, values), 1..20)
}

fn columns(rows: &Rows) -> BTreeMap<&str, Vec<(Option<u64>, u64)>> {
    let mut out: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (step, values) in rows {
        for (key, value) in values {
            out.entry(key).or_default().push((Some(*step), canonical(*value)));
        }
    }
    out
}

/// All NaN are one.
fn canonical(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

fn found(log: &Collected) -> BTreeMap<&str, Vec<(Option<u64>, u64)>> {
    let named = log.named().filter(|(_, column)| !column.values.is_empty());
    named.map(|(name, column)| (name, column.pairs().map(|(s, v)| (s, canonical(v))).collect())).collect()
}

proptest! {
    #[test]
    fn json_lines_are_read_as_written(rows in rows(), ways in prop::collection::vec(any::<u8>(), 32), first: bool) {
        let mut text = String::new();
        for (number, (step, values)) in rows.iter().enumerate() {
            let mut members: Vec<String> = values
                .iter()
                .enumerate()
                .map(|(index, (key, value))| {
                    let key = serde_json::to_string(key).expect("text");
                    format!("{key}: {}", printed(*value, ways[(number + index) % 32]))
                })
                .collect();
            let turn = number % members.len().max(1);
            members.rotate_left(turn);
            members.insert(if first { 0 } else { members.len() }, format!("\"step\":{step}"));
            text += &format!("{{{}}}\n", members.join(if number % 2 == 0 { ", " } else { "," }));
        }
        let log = collect(jsonl(), text.as_bytes());
        prop_assert_eq!(found(&log), columns(&rows));
    }

    #[test]
    fn tables_are_read_as_written(rows in rows(), ways in prop::collection::vec(any::<u8>(), 32), tabs: bool) {
        let names: Vec<String> = columns(&rows).keys().map(|&name| name.to_owned()).collect();
        let separator = if tabs { "\t" } else { "," };
        let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
        let mut text = format!("step{separator}{}\n", names.iter().map(quoted).collect::<Vec<_>>().join(separator));
        for (number, (step, values)) in rows.iter().enumerate() {
            let cells = names.iter().map(|name| {
                values.get(name).map_or_else(String::new, |value| printed(*value, ways[number % 32]))
            });
            text += &format!("{step}{separator}{}\n", cells.collect::<Vec<_>>().join(separator));
        }
        prop_assume!(!names.is_empty());
        let log = collect(csv(), text.as_bytes());
        prop_assert_eq!(found(&log), columns(&rows));
    }
}
