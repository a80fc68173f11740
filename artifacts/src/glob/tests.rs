//! Held against `globset`, over patterns and paths of the characters that mean
//! something; and what no pattern may do.

use proptest::prelude::*;

use super::*;

fn theirs(text: &str) -> Option<globset::GlobMatcher> {
    let built = globset::GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
    built.ok().map(|glob| glob.compile_matcher())
}

#[track_caller]
fn compare(text: &str, path: &str) {
    match (Glob::new(text), theirs(text)) {
        (Ok(ours), Some(theirs)) => {
            assert_eq!(ours.is_match(path), theirs.is_match(path), "{text:?} on {path:?}");
            assert_eq!(ours.recorded(path), theirs.is_match(path), "{text:?} on {path:?}, recorded");
        }
        (Err(_), None) => {}
        (ours, theirs) => panic!("{text:?}: {ours:?}, and globset {}", theirs.is_some()),
    }
}

#[test]
fn what_people_write_matches_what_they_mean() {
    for (text, yes, no) in [
        ("*.pt", "a.pt", "d/a.pt"),
        ("**/*.pt", "d/e/a.pt", "a.pth"),
        ("**/*.pt", "a.pt", "a/pt"),
        ("out/**", "out/a/b", "out"),
        ("a/**/b", "a/b", "ab"),
        ("a/**/b", "a/x/y/b", "a/x/yb"),
        ("checkpoint-*", "checkpoint-10", "checkpoint-10/x"),
        ("step_[0-9]", "step_7", "step_x"),
        ("step_[!0-9]", "step_x", "step_/"),
        ("{a,b}/c", "b/c", "c"),
        ("**", "any/thing", "\n/"),
        (r"\*.pt", "*.pt", "a.pt"),
        ("é?", "éà", "é"),
        ("[[:digit:]]x", "4x", "ax"),
    ] {
        let glob = Glob::new(text).unwrap();
        assert!(glob.is_match(yes), "{text} {yes}");
        assert!(text == "**" || !glob.is_match(no), "{text} {no}");
    }
}

#[test]
fn what_is_no_pattern_says_why() {
    for (text, why) in [
        ("a[b", "unclosed character class; missing ']'"),
        ("[z-a]", "invalid character range; 'z' > 'a'"),
        ("{a", "unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)"),
        ("a}", "unopened alternate group; missing '{' (maybe escape '}' with '[}]'?)"),
        ("a\\", "dangling '\\'"),
        (&"{".repeat(200), "alternate groups are nested too deeply"),
        (&"a".repeat(4097), "it is longer than 4096 bytes"),
    ] {
        assert_eq!(Glob::new(text).unwrap_err().to_string(), why, "{text}");
    }
}

#[test]
fn no_pattern_makes_a_match_take_long() {
    for text in ["*a".repeat(300), "**/".repeat(300) + "x", "{a,aa}".repeat(150), "{*,?}".repeat(200)] {
        let glob = Glob::new(&text).unwrap();
        for path in ["a".repeat(2_000), "a/".repeat(1_000)] {
            let steps = glob.steps.len() + 1;
            assert_eq!(glob.recorded(&path), glob.is_match(&path));
            assert!(steps < 4 * text.len() + 8, "{steps} steps of {} bytes", text.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn it_means_what_globset_means(text in "[ab/*?.{},\\[\\]!^\\\\-]{0,10}", path in "[ab/.*-]{0,8}") {
        compare(&text, &path);
    }

    #[test]
    fn stars_between_separators_mean_what_globset_means(
        parts in proptest::collection::vec("(\\*\\*|\\*|a|b|[ab]\\*|\\{a,b\\}|\\{\\*\\*/a,b\\}|[?])", 0..5),
        path in "[ab/]{0,8}",
    ) {
        compare(&parts.join("/"), &path);
    }

    #[test]
    fn what_is_escaped_matches_itself_alone(text in "[a*?{}\\[\\]!,\\\\/.^-]{0,8}", other in "[a*?/]{0,8}") {
        let glob = Glob::new(&escape(&text)).unwrap();
        prop_assert!(glob.is_match(&text));
        prop_assert_eq!(glob.is_match(&other), text == other);
    }

    #[test]
    fn no_text_breaks_it(text in "\\PC{0,40}", path in "\\PC{0,40}") {
        if let Ok(glob) = Glob::new(&text) {
            prop_assert_eq!(glob.is_match(&path), glob.recorded(&path));
        }
    }
}
