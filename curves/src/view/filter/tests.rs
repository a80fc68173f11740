//! The language by examples, by its own printed form, and by noise.

use super::*;
use proptest::prelude::*;

struct Run;

impl Subject for Run {
    fn number(&self, field: &Field) -> Option<f64> {
        match (field, normal(field.name()).as_str()) {
            (Field::Plain(_), "val_acc") => Some(0.85),
            (Field::Max(_), "val_acc") => Some(0.9),
            (Field::Plain(_), "lr") => Some(3e-4),
            (Field::Plain(_), "loss") => Some(f64::NAN),
            _ => None,
        }
    }
    fn texts(&self, key: &str) -> Vec<String> {
        match key {
            "tag" => vec!["baseline".into(), "Big Model".into()],
            "state" => vec!["finished".into()],
            "name" => vec!["digits-4f2c".into()],
            "notes" => vec!["hello notes".into()],
            _ => Vec::new(),
        }
    }
    fn began(&self) -> Option<f64> {
        Some(1_000_000.0)
    }
}

fn takes(text: &str) -> bool {
    parse(text).expect(text).takes(&Run, 1_000_000.0 + 3.0 * 86_400.0)
}

#[test]
fn what_is_asked_is_what_is_found() {
    for (text, is) in [
        ("", true),
        ("val_acc > 0.8 and state == finished and tag:baseline since 7d", true),
        ("val/acc > 80%", true),
        ("val_acc >= 0.85 and val_acc <= 0.85 and val_acc = 0.85", true),
        ("val_acc > 0.85", false),
        ("max(val_acc) > 0.85", true),
        ("min(val_acc) > 0", false),
        ("loss == nan", true),
        ("loss > 0", false),
        ("not loss > 0", true),
        ("unknown != 3", false),
        ("state != failed", true),
        ("state = FINISHED", true),
        ("tag:\"big model\"", true),
        ("tag:base*", true),
        ("tag:base", false),
        ("name ~ digits", true),
        ("4f2c", true),
        ("notes:hello", true),
        ("notes:hell*", true),
        ("notes:bye", false),
        ("since 2d", false),
        ("before 2d", true),
        ("since 1970-01-12 before 1970-01-13", true),
        ("since 1970-01-13", false),
        ("state:failed or (lr < 1e-3 not tag:x)", true),
        ("state:failed or lr < 1e-3 and tag:x", false),
        ("lr == 0.0003", true),
    ] {
        assert_eq!(takes(text), is, "{text}");
    }
}

#[test]
fn a_refusal_names_the_place() {
    for (text, at, words) in [
        ("val_acc >> 0.8", 10, "a number, a word"),
        ("val_acc >", 10, "a number, a word"),
        ("(a", 3, "a `)` is missing"),
        ("a)", 2, "closes nothing"),
        ("and a", 1, "something is missing before it"),
        ("a and", 6, "was expected"),
        ("since yesterday", 7, "7d, 12h"),
        ("since 2026-13-01", 7, "7d, 12h"),
        ("colour:red", 7, "one of tag, name"),
        ("a > \"b", 5, "not closed"),
        ("a ; b", 3, "has no meaning"),
        ("min(a) b", 8, "a comparison such as"),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.message.contains(words), "{text}: {error}");
    }
    assert!(parse(&"(".repeat(3000)).is_err_and(|error| error.message.contains("nested")));
    assert!(parse(&"a ".repeat(3000)).is_err());
    assert!(parse(&"not ".repeat(900)).is_err());
}

fn filters() -> impl Strategy<Value = Filter> {
    let name =
        prop_oneof!["[a-z]{1,6}[/_][a-z]{1,4}", any::<String>().prop_filter("not empty", |s| !s.is_empty())];
    let field = (name.clone(), 0..3).prop_map(|(name, kind)| match kind {
        0 => Field::Plain(name),
        1 => Field::Min(name),
        _ => Field::Max(name),
    });
    let op =
        prop_oneof![Just(Op::Above), Just(Op::AtMost), Just(Op::Is), Just(Op::IsNot), Just(Op::Contains)];
    let operand = prop_oneof![
        any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(Operand::Number),
        "[a-z ]{1,8}x".prop_map(Operand::Text)
    ];
    let leaf = prop_oneof![
        (field, op, operand).prop_map(|(field, op, operand)| Filter::Compare(field, op, operand)),
        name.clone().prop_map(|text| Filter::Has("tag", text)),
        (0_u32..1000).prop_map(|days| Filter::Since(When::Ago(f64::from(days) * 86_400.0))),
        (0_u32..20_000).prop_map(|days| Filter::Before(When::At(f64::from(days) * 86_400.0))),
        name.prop_map(Filter::Word),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Any),
            inner.prop_map(|part| Filter::Not(Box::new(part))),
        ]
    })
}

proptest! {
    #[test]
    fn a_filter_that_is_printed_reads_the_same(filter in filters()) {
        let text = filter.to_string();
        prop_assume!(text.chars().count() <= 4000);
        prop_assert_eq!(parse(&text), Ok(filter), "{}", text);
    }

    #[test]
    fn noise_is_refused_or_read_and_never_more(text in "[a-z0-9<>=!~():\"' .%]{0,60}|\\PC{0,40}") {
        match parse(&text) {
            Ok(filter) => { filter.takes(&Run, 0.0); }
            Err(error) => prop_assert!(error.at <= text.chars().count() + 1),
        }
    }
}

/// A run that is only a file.
struct Nameless;

impl Subject for Nameless {
    fn number(&self, _: &Field) -> Option<f64> {
        None
    }

    fn texts(&self, key: &str) -> Vec<String> {
        if key == "path" { vec!["q/exp-2.jsonl".into()] } else { Vec::new() }
    }

    fn began(&self) -> Option<f64> {
        None
    }
}

#[test]
fn a_run_without_a_name_is_called_as_its_file_is() {
    for (text, takes) in [
        ("name:exp-2", true),
        ("name:exp-2.jsonl", true),
        ("name:exp-*", true),
        ("name ~ xp", true),
        ("name == \"exp-2\"", true),
        ("name:exp", false),
        ("name:q", false),
    ] {
        assert_eq!(parse(text).expect(text).takes(&Nameless, 0.0), takes, "{text}");
    }
    assert_eq!(normal("val accuracy"), normal("val/acc"));
}
