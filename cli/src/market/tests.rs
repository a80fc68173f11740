//! Markets as people write them and as others recorded them.

use super::*;

fn read_text(text: &str) -> Result<PlayedMarket, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("market.toml");
    fs::write(&file, text).unwrap();
    fs::write(
        dir.path().join("zone.json"),
        r#"{"metadata": {"gap_seconds": 60}, "data": [1, 1, 0, 1, 1, 0]}"#,
    )
    .unwrap();
    read(&file, 7).map_err(|failure| failure.message)
}

#[test]
fn a_market_is_what_its_file_says() {
    let market = read_text(
        "boot = \"1500ms\"\nusd_per_hour = 0.4\nnotice = \"20s\"\n[[change]]\nat = \"60s\"\ncapacity = false\n\
         [[change]]\nat = 120\ncapacity = true\nusd_per_hour = 0.55\n[[change]]\nat = \"3m\"\nends = true\nnotice = 0\n\
         [[change]]\nat = \"4m\"\ncapacity = false\nends = false\n",
    )
    .unwrap();
    assert_eq!((market.begins_ms, market.boot_ms), (7, 1_500));
    let told: Vec<_> =
        market.steps.iter().map(|s| (s.at_ms, s.capacity, s.usd_per_hour, s.ends, s.notice_ms)).collect();
    assert_eq!(
        told,
        [
            (0, true, 0.4, false, 20_000),
            (60_000, false, 0.4, true, 20_000),
            (120_000, true, 0.55, false, 20_000),
            (180_000, true, 0.55, true, 0),
            (240_000, false, 0.55, false, 20_000),
        ]
    );
    assert_eq!(read_text("").unwrap().steps.len(), 1, "machines for nothing, for ever");
}

#[test]
fn a_recording_is_played_as_fast_as_it_is_asked() {
    let market = read_text("trace = \"zone.json\"\nspeed = 60\nusd_per_hour = 0.3\n").unwrap();
    let told: Vec<_> = market.steps.iter().map(|s| (s.at_ms, s.capacity, s.ends)).collect();
    let wanted = [
        (0, true, false),
        (0, true, false),
        (2_000, false, true),
        (3_000, true, false),
        (5_000, false, true),
    ];
    assert_eq!(told, wanted);
    assert_eq!(market.hour_ms, 60_000, "an hour of the recording");
    assert_eq!(read_text("speed = 60\n").unwrap().hour_ms, 0, "no recording is played");
    assert_eq!(market.steps[1].usd_per_hour.to_bits(), 0.3_f64.to_bits());
    let plain = read_text(r#"{"metadata": {"gap_seconds": 60}, "data": [0, 1, 1]}"#).unwrap();
    assert_eq!(
        plain.steps.iter().map(|s| (s.at_ms, s.capacity)).collect::<Vec<_>>(),
        [(0, false), (60_000, true)]
    );
}

#[test]
fn a_recording_is_a_file_too_in_every_form_and_is_checked() {
    let lines = read_text("0,1\n60,1\n120,0\n180,1\n").unwrap();
    assert!(lines.steps.iter().any(|step| step.ends && step.at_ms == 120_000), "{lines:?}");
    let bamboo = read_text("0,add,n1\n90000,remove,n1\n120000,add,n2\n").unwrap();
    assert!(bamboo.steps.iter().any(|step| step.ends && step.at_ms == 90_000), "{bamboo:?}");
    let ticks: Vec<String> = (0..24_000).map(|n| (n % 2).to_string()).collect();
    let long = format!("{{\"metadata\": {{\"gap_seconds\": 60}}, \"data\": [{}]}}", ticks.join(","));
    assert!(read_text(&long).unwrap_err().contains("at most 10000 changes"));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let told = read_text(
        "boots = 1\nnotice = \"soon\"\nspeed = 0\ntrace = 5\n[[change]]\ncapacity = 1\nusd_per_hour = -1\nx = 2\n",
    )
    .unwrap_err();
    for part in [
        "no key \"boots\"",
        "`notice` must be a time",
        "`speed` must be more than 0",
        "`trace` must be the name",
        "[[change]] 1: `at` is missing",
        "[[change]] 1: `capacity` must be true or false",
        "[[change]] 1: `usd_per_hour` must be a number",
        "[[change]] 1: there is no key \"x\"",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(read_text("trace = \"none.json\"\n").unwrap_err().contains("none.json"));
    assert!(read_text("change = 1\n").unwrap_err().contains("[[change]]"));
    assert!(read_text("{\"data\": ").unwrap_err().contains("line 1"));
}
