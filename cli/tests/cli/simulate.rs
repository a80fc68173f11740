//! `outlast simulate` from outside: what it prints, what it refuses, and that
//! it says the same twice.

use std::fs;
use std::path::Path;

use super::{code, outlast, text};

/// Two zones by hand: up and down by turns, ticks of five minutes.
fn traces(dir: &Path) {
    let zone = |name: &str, up: &[u32], prices: &str| {
        let mut data = Vec::new();
        for (turn, hours) in up.iter().enumerate() {
            data.extend(vec![if turn % 2 == 0 { "1" } else { "0" }; *hours as usize * 12]);
        }
        let text = format!(r#"{{"metadata": {{"gap_seconds": 300}}, "data": [{}]{prices}}}"#, data.join(","));
        fs::write(dir.join(name), text).unwrap();
    };
    fs::create_dir_all(dir.join("zones")).unwrap();
    zone("zones/a.json", &[3, 1, 2, 2, 5, 1, 10], "");
    zone("zones/b.json", &[1, 1, 6, 1, 2, 3, 10], "");
}

fn simulate(dir: &Path, args: &[&str]) -> std::process::Output {
    outlast(dir, &[&["simulate"], args].concat())
}

#[test]
fn every_policy_is_compared_and_the_same_comes_out_twice() {
    let dir = tempfile::tempdir().unwrap();
    traces(dir.path());
    let args = ["--trace", "zones", "--work", "8", "--deadline", "12h"];
    let once = simulate(dir.path(), &args);
    assert_eq!(code(&once), 0, "{}", text(&once.stderr));
    insta::assert_snapshot!("simulate", text(&once.stdout));
    assert!(text(&once.stderr).starts_with("1d 00h recorded; up: a 83 %, b 79 %"), "{}", text(&once.stderr));
    assert_eq!(once.stdout, simulate(dir.path(), &args).stdout);
    assert!(!dir.path().join("home").exists(), "nothing is kept, and no controller is asked");

    let windows = ["--generate", "3", "--days", "9", "--work", "5", "--deadline", "7", "--windows", "8"];
    let json = |seed: &str| {
        let output = simulate(dir.path(), &[&windows[..], &["--json", "--seed", seed]].concat());
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(json("5"), json("5"));
    assert_ne!(json("5"), json("6"));
    let value: serde_json::Value = serde_json::from_str(&json("5")).unwrap();
    for policy in value["policies"].as_array().unwrap() {
        let sums = &policy["outcome"]["windows"];
        assert_eq!(sums["windows"], 8, "{policy}");
        if policy["cadence"] == "adaptive" {
            assert_eq!(sums["missed"], 0, "{policy}");
        }
    }
}

#[test]
fn the_plot_is_one_whole_file_of_xml_with_a_band_for_each_row() {
    let dir = tempfile::tempdir().unwrap();
    traces(dir.path());
    fs::copy(dir.path().join("zones/a.json"), dir.path().join("x<&\">.json")).unwrap();
    let args = ["--trace", "zones", "x<&\">.json", "--policy", "ours,hourly", "--svg", "plot.svg"];
    let drawn = simulate(dir.path(), &args);
    assert_eq!(code(&drawn), 0, "{}", text(&drawn.stderr));
    let svg = fs::read_to_string(dir.path().join("plot.svg")).unwrap();
    well_formed(&svg);
    for row in [">a</text>", ">b</text>", ">x&lt;&amp;&quot;&gt;</text>", ">ours</text>", ">hourly</text>"] {
        assert!(svg.contains(row), "{row}");
    }
    assert!(!svg.contains("href") && !svg.contains("<script"), "it needs nothing from elsewhere");
    let nowhere = simulate(dir.path(), &["--trace", "zones", "--svg", "no/such/plot.svg"]);
    assert_eq!((code(&nowhere), nowhere.stdout.len()), (73, 0));
    // Drawn again it is the same file, and nothing is left beside it.
    simulate(dir.path(), &args);
    assert_eq!(fs::read_to_string(dir.path().join("plot.svg")).unwrap(), svg);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

/// Every element is closed by its own name, every `&` begins an entity.
fn well_formed(xml: &str) {
    let mut open: Vec<&str> = Vec::new();
    for part in xml.split('<').skip(1) {
        let (tag, after) = part.split_once('>').expect("a tag ends");
        assert!(!after.contains('>'), "{after}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
    for entity in xml.split('&').skip(1) {
        let known = ["lt;", "gt;", "amp;", "quot;", "#39;"];
        assert!(known.iter().any(|name| entity.starts_with(name)), "{entity:.9}");
    }
}

#[test]
fn a_bad_recording_is_told_with_its_file_and_place() {
    let dir = tempfile::tempdir().unwrap();
    traces(dir.path());
    fs::create_dir(dir.path().join("empty")).unwrap();
    let long = format!(r#"{{"metadata": {{"gap_seconds": 60}}, "data": [0{}]}}"#, ",1".repeat(200));
    for (name, bytes) in [
        ("garbage.json", &b"<html>no</html>"[..]),
        ("binary.csv", &[0xff, 0xfe, 0x00]),
        ("negative.json", br#"{"metadata": {"gap_seconds": 60}, "data": [1, -3]}"#),
        ("ticks.json", br#"{"metadata": {"gap_seconds": 0.001}, "data": [1]}"#),
        ("doubtful.json", long.as_bytes()),
    ] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    for (file, said) in [
        ("garbage.json", "garbage.json: line 1: neither JSON nor"),
        ("binary.csv", "binary.csv: it is no text"),
        ("negative.json", "negative.json: data[1]: -3 is no number of machines"),
        ("ticks.json", "ticks.json: metadata.gap_seconds: 0.001"),
        ("missing.json", "missing.json: No such file"),
        ("empty", "empty: no recording is in it"),
    ] {
        let output = simulate(dir.path(), &["--trace", "zones/a.json", file]);
        assert_eq!((code(&output), output.stdout.len()), (65, 0), "{file}");
        assert!(text(&output.stderr).contains(said), "{file}: {}", text(&output.stderr));
    }
    // All of them at once, and with what would be read.
    let all = simulate(dir.path(), &["--trace", "garbage.json", "zones/a.json", "negative.json"]);
    let said = text(&all.stderr);
    assert_eq!((code(&all), all.stdout.len()), (65, 0), "{said}");
    assert!(
        ["garbage.json: line 1:", "negative.json: data[1]:", "--generate"].iter().all(|w| said.contains(w)),
        "{said}"
    );
    let doubted = simulate(dir.path(), &["--trace", "doubtful.json", "--policy", "ours"]);
    assert_eq!(code(&doubted), 0);
    assert!(
        text(&doubted.stderr).contains("warning: doubtful.json: it is down once at its beginning"),
        "{}",
        text(&doubted.stderr)
    );
    for usage in
        [&[][..], &["--trace", "zones", "--policy", "best"], &["--trace", "zones", "--deadline", "3"]]
    {
        let output = simulate(dir.path(), usage);
        assert_eq!((code(&output), output.stdout.len()), (64, 0), "{usage:?}: {}", text(&output.stderr));
    }
}
