//! What capsules promise: their causes, their bounds, no secrets, and their form.

use std::fs;
use std::path::PathBuf;

use lifecycle::cause::{Cause, Confidence};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::cases::{self, CANARY};
use super::*;

/// Kinds of evidence, known and not.
const KINDS: [&str; 11] = [
    "environment",
    "packages",
    "kernel",
    "stacks",
    "sample",
    "alert",
    "exit",
    "rank",
    "gpus",
    "machine",
    "?",
];

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/capsule/golden").join(name)
}

/// Compares with what is kept; `OUTLAST_BLESS=1` keeps it anew.
fn is_golden(name: &str, is: &str) {
    let path = golden(name);
    if std::env::var_os("OUTLAST_BLESS").is_some() {
        fs::write(&path, is).unwrap();
    }
    let was = fs::read_to_string(&path).unwrap_or_default();
    assert!(was == is, "{} differs; OUTLAST_BLESS=1 keeps it anew. It is:\n{is}", path.display());
}

#[test]
fn golden_capsules() {
    for (name, inputs) in cases::all() {
        let capsule = build(&inputs);
        let json = format!("{}\n", serde_json::to_string_pretty(&capsule).unwrap());
        let again: Capsule = serde_json::from_str(&json).unwrap();
        assert_eq!(again, capsule, "{name} is read as it was written");
        is_golden(&format!("{name}.json"), &json);
        is_golden(&format!("{name}.txt"), &told::short(&capsule));
    }
}

#[test]
fn each_kind_of_end_has_its_cause() {
    let wanted = [
        ("traceback", Cause::UserError, Confidence::Certain),
        ("out-of-memory", Cause::OutOfMemory, Confidence::Certain),
        ("gpu-out-of-memory", Cause::GpuOutOfMemory, Confidence::Certain),
        ("disk-full", Cause::DiskFull, Confidence::Certain),
        ("segfault", Cause::UserError, Confidence::Likely),
        ("hang", Cause::Hang, Confidence::Certain),
        ("preempted", Cause::Preempted, Confidence::Certain),
        ("partition", Cause::NetworkPartition, Confidence::Certain),
        ("never-joined", Cause::NeverJoined, Confidence::Certain),
        ("environment", Cause::EnvironmentFailed, Confidence::Certain),
        ("stopped", Cause::Operator, Confidence::Certain),
        ("budget", Cause::Budget, Confidence::Certain),
        ("gpu-fault", Cause::GpuFault, Confidence::Certain),
        ("nccl-timeout", Cause::Hang, Confidence::Likely),
        ("running", Cause::Running, Confidence::Certain),
    ];
    let cases = cases::all();
    assert_eq!(cases.len(), wanted.len());
    for ((name, inputs), (of, cause, confidence)) in cases.iter().zip(wanted) {
        let verdict = build(inputs).verdict;
        assert_eq!((*name, verdict.cause, verdict.confidence), (of, cause, confidence), "{verdict:#?}");
    }
}

#[test]
fn the_short_form_fits_into_four_hundred_tokens() {
    for (name, inputs) in cases::all() {
        let mut inputs = inputs;
        let long = "x".repeat(4_000);
        for text in [String::new(), format!("{long}\n{long}\nOSError: {long}\n{long}")] {
            if !text.is_empty() {
                inputs.stderr = cases::stream(&text);
                inputs.attempt.last_error_line = text;
                inputs.run.name = long.clone();
            }
            let short = told::short(&build(&inputs));
            assert!(short.chars().count() <= told::SHORT, "{name}: {} characters", short.chars().count());
            assert!(short.lines().count() >= 3, "{name}: {short}");
        }
    }
}

#[test]
fn the_canary_is_nowhere() {
    for (name, mut inputs) in cases::all() {
        let leak = format!("token is {CANARY} and {}\n", data_encoding::BASE64.encode(CANARY.as_bytes()));
        for end in [&mut inputs.stdout, &mut inputs.stderr, &mut inputs.setup] {
            end.bytes.extend_from_slice(leak.as_bytes());
        }
        inputs.attempt.last_error_line = leak.clone();
        inputs.attempt.notes = vec![leak.clone()];
        if !inputs.attempt.hang.is_empty() {
            inputs.attempt.hang.push_str(CANARY);
        }
        inputs.journal.push(cases::note(
            1,
            "note",
            &inputs.attempt.id.to_string(),
            json!({"text": leak, "a": [leak]}),
        ));
        for kind in [
            "environment",
            "packages",
            "kernel",
            "stacks",
            "sample",
            "machine",
            "alert",
            "exit",
            "rank",
            "new",
        ] {
            let line = json!({"kind": kind, "text": leak, "line": leak, "packages": [leak], "variables": {"OTHER": leak}, "gpus": [leak]});
            inputs.evidence.extend(format!("{line}\n").into_bytes());
        }
        inputs.run.spec.command.push(leak.clone());
        let capsule = build(&inputs);
        for text in [serde_json::to_string(&capsule).unwrap(), told::short(&capsule), told::whole(&capsule)] {
            assert!(!text.contains(CANARY), "{name}: {text}");
            assert!(!text.contains(&data_encoding::BASE64.encode(CANARY.as_bytes())), "{name}");
        }
    }
}

/// As much of everything as is ever read, and of some more.
fn flood(text: &str) -> Inputs {
    let mut inputs = cases::all().remove(0).1;
    let many = |bytes: usize| text.repeat(bytes / text.len());
    for end in [&mut inputs.stdout, &mut inputs.stderr, &mut inputs.setup] {
        (end.bytes, end.total) = (many(256 << 10).into_bytes(), 9_000_000);
    }
    inputs.evidence.clear();
    let piece: String = text.chars().cycle().take(300).collect();
    for n in 0.. {
        let kind = KINDS[n % KINDS.len()];
        let line = json!({
            "kind": kind, "line": piece, "packages": [piece, {"name": piece, "version": n}],
            "variables": {format!("V{n}"): piece}, "gpus": [piece, piece],
        });
        inputs.evidence.extend(format!("{line}\n").into_bytes());
        if inputs.evidence.len() > 1 << 20 {
            break;
        }
    }
    let (name, value) = ("n".repeat(150), "9".repeat(50));
    let point = |n: usize| format!("{{\"name\":\"m{}{name}\",\"step\":{n},\"value\":\"{value}\"}}\n", n % 90);
    inputs.points = (0..8_000).flat_map(|n| point(n).into_bytes()).collect();
    let machine = inputs.attempt.machine.to_string();
    let detail = json!({"text": many(3_000)});
    inputs.journal = (0..1_000).map(|n| cases::note(n, "note", &machine, detail.clone())).collect();
    inputs.attempt.notes = vec![many(500); 60];
    let a = &mut inputs.attempt;
    for field in [&mut a.last_error_line, &mut a.out_of_memory, &mut a.hang, &mut a.unpublished] {
        *field = many(5_000);
    }
    inputs.run.spec.command = vec![many(2_000); 100];
    inputs.run.status = serde_json::from_value(json!({"state": "failed", "reason": many(5_000)})).unwrap();
    let checkpoint = inputs.checkpoints[0].clone();
    inputs.checkpoints = vec![checkpoint; 5_000];
    inputs
}

#[test]
fn a_flood_of_everything_stays_below_a_mebibyte() {
    for text in ["plain words of a log\n", "\"\\\"\\\n", "\u{1}\u{7f}é\u{202e}\n", "long"] {
        let capsule = build(&flood(text));
        let size = serde_json::to_string(&capsule).unwrap().len();
        assert!(size < LIMIT, "{size} bytes of {text:?}");
        assert!(
            capsule.timeline.len() <= TIMELINE && capsule.metrics.len() <= 30 && capsule.kernel.len() <= 50
        );
        assert!(!capsule.cut.is_empty() && !capsule.history.is_empty() && !capsule.stacks.is_empty());
        assert!(told::short(&capsule).chars().count() <= told::SHORT);
    }
}

#[test]
fn what_is_missing_says_why() {
    let lost = cases::all().into_iter().find(|(name, _)| *name == "preempted").unwrap().1;
    let capsule = build(&lost);
    for part in ["exit", "environment", "packages", "history"] {
        assert_eq!(capsule.missing[part], "the machine was lost before it could tell", "{part}");
    }
    let started = build(&cases::all().remove(0).1);
    assert!(!started.missing.contains_key("environment") && started.missing.contains_key("stacks"));
}

#[test]
fn where_it_stood_is_counted() {
    let mut inputs = cases::all().remove(0).1;
    inputs.reached_before = Some(250);
    inputs.attempt.restored = Some(inputs.checkpoints[0].manifest.clone());
    let a = build(&inputs).attempt;
    assert_eq!((a.durable_step, a.unsaved_steps, a.repeated_steps), (Some(400), Some(31), Some(50)));
}

#[test]
fn a_secret_at_the_edge_of_what_was_read_is_not_shown_half() {
    let mut inputs = cases::all().remove(0).1;
    inputs.stdout =
        StreamEnd { bytes: b"lmX2 rest of a line\nnext\n".to_vec(), from: 77, total: 102, missing: 0 };
    let out = build(&inputs).output.stdout;
    assert_eq!((out.text.as_str(), out.is_cut), ("next\n", true));
}

#[test]
fn nothing_that_a_terminal_obeys_is_told() {
    let mut inputs = cases::all().remove(0).1;
    inputs.run.name = "a\u{1b}[31mb\u{202e}c".into();
    inputs.stderr = cases::stream(
        "\u{1b}]0;title\u{7}Value\u{202e}Error: x\u{9b}31m\nValueError: \u{1b}[2J\u{200b}boom\n",
    );
    inputs.journal.push(cases::note(
        1,
        "no\nte",
        &inputs.attempt.id.to_string(),
        json!({"text": "a\u{1b}[1mb"}),
    ));
    let capsule = build(&inputs);
    for text in [told::short(&capsule), told::whole(&capsule)] {
        let obeyed = |c: char| {
            c.is_control() && c != '\n' || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        };
        assert!(!text.contains(obeyed), "{text:?}");
    }
}

#[test]
fn newer_and_older_capsules_can_be_read() {
    let mut value = serde_json::to_value(build(&cases::all().remove(0).1)).unwrap();
    let fields = value.as_object_mut().unwrap();
    fields.insert("later".into(), json!({"a": 1}));
    for part in ["kernel", "stacks", "cost", "output", "missing", "machine"] {
        fields.remove(part);
    }
    let read: Capsule = serde_json::from_value(value).unwrap();
    assert!(told::short(&read).contains("IndexError") && told::whole(&read).contains("== attempt"));
}

fn some_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(
                "kind|gpus|mounts|free_bytes|line|lines|packages|name|variables|[a-z]{1,6}",
                inner,
                0..5
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_machine_sends_makes_a_bounded_capsule(
        lines in proptest::collection::vec((0usize..11, some_json()), 0..20),
        torn in proptest::collection::vec(any::<u8>(), 0..200),
        output in proptest::collection::vec(any::<u8>(), 0..2_000),
        which in 0usize..15,
        details in proptest::collection::vec(some_json(), 0..4),
    ) {
        let mut inputs = cases::all().remove(which).1;
        for (kind, mut value) in lines {
            if let Some(fields) = value.as_object_mut() {
                fields.insert("kind".into(), json!(KINDS[kind]));
            }
            inputs.evidence.extend(format!("{value}\n").into_bytes());
        }
        inputs.evidence.extend(&torn);
        inputs.points.extend(torn);
        inputs.stderr.bytes = output;
        let (machine, attempt) = (inputs.attempt.machine.to_string(), inputs.attempt.id.to_string());
        for detail in details {
            for verb in ["suspect", "farewell", "spoke-again", "note"] {
                inputs.journal.push(cases::note(5, verb, &machine, detail.clone()));
            }
            inputs.journal.push(cases::note(5, "note", &attempt, detail));
        }
        let capsule = build(&inputs);
        prop_assert!(bounds::size(&capsule) < LIMIT);
        prop_assert!(told::short(&capsule).chars().count() <= told::SHORT);
        prop_assert!(!told::whole(&capsule).contains(|c: char| c.is_control() && c != '\n'));
    }
}
