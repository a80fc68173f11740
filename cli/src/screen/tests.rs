//! What the parent module promises, tested: a corpus of what programs and
//! attackers write, and whatever bytes there are.

use proptest::prelude::*;

use super::*;

/// Lines as shown, with colours; `|` marks the end of one.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut screen = Screen::default();
    let mut add = |line: &Line<'_>| {
        text.push_str(&line.coloured());
        text.push_str(if line.ends { "|" } else { "" });
    };
    screen.feed(bytes, 0, &mut add);
    screen.finish(&mut add);
    text
}

#[test]
fn the_corpus_is_shown_as_a_terminal_would_and_commands_nothing() {
    let corpus: &[(&str, &[u8], &str)] = &[
        ("plain", b"a\nb\n", "a|b|"),
        ("no end", b"a\nb", "a|b"),
        ("windows", b"a\r\nb\r\n", "a|b|"),
        ("title", b"\x1b]0;evil\x07a\n", "a|"),
        ("title, ST", b"\x1b]2;evil\x1b\\a\n", "a|"),
        ("clipboard", b"x\x1b]52;c;cm0gLXJmIH4=\x07y\n", "xy|"),
        ("hyperlink", b"\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\\n", "text|"),
        ("clear screen", b"\x1b[2J\x1b[H\x1b[3Ja\n", "a|"),
        ("cursor up", b"one\n\x1b[1A\x1b[5Ctwo\n", "one|two|"),
        ("alternate screen", b"\x1b[?1049ha\x1b[?1049l\n", "a|"),
        ("reset", b"\x1bca\x1b7\x1b8\x1b(Bb\x1b#8\n", "ab|"),
        ("answers", b"\x1b[6n\x1b[c\x1b[>0qa\n", "a|"),
        ("sixel", b"\x1bPq#0;2;0;0;0~~\x1b\\a\n", "a|"),
        ("kitty", b"\x1b_Gf=24;AAAA\x1b\\a\n", "a|"),
        ("pm, sos", b"\x1b^x\x1b\\\x1bXy\x1b\\a\n", "a|"),
        ("string without end", b"a\x1b]0;never\nb\n", "a|b|"),
        ("string cut by CAN", b"\x1b]0;x\x18b\n", "b|"),
        ("string cut by CSI", b"\x1b]0;x\x1b[31mb\n", "\x1b[31mb\x1b[0m|"),
        ("control without end", b"a\x1b[12;\nb\n", "a|b|"),
        ("private control", b"\x1b[>4;2ma\n", "a|"),
        ("colours", b"\x1b[1;31mred\x1b[0m plain\n", "\x1b[1;31mred\x1b[0m plain|"),
        ("short reset", b"\x1b[32mok\x1b[m.\n", "\x1b[32mok\x1b[0m.|"),
        ("reset and set", b"\x1b[0;33mw\x1b[0m\n", "\x1b[33mw\x1b[0m|"),
        (
            "256 and true colour",
            b"\x1b[38;5;8ma\x1b[48;2;1;8;3mb\x1b[m\n",
            "\x1b[38;5;8ma\x1b[0m\x1b[38;5;8m\x1b[48;2;1;8;3mb\x1b[0m|",
        ),
        ("hidden text", b"\x1b[8msecret\x1b[0m\n", "secret|"),
        ("colour over lines", b"\x1b[31ma\nb\x1b[0mc\n", "\x1b[31ma\x1b[0m|\x1b[31mb\x1b[0mc|"),
        ("progress bar", b"  0%|  |\r 50%|# |\r100%|##|\n", "100%|##||"),
        ("shorter repaint", b"abcdef\rxy\n", "xycdef|"),
        ("repaint, erased", b"abcdef\r\x1b[Kxy\n", "xy|"),
        ("erase line", b"abcdef\x1b[2K\rxy\n", "xy|"),
        ("erase left", b"abc\x1b[1K\n", "   |"),
        ("backspace", b"ab\x08c\n", "ac|"),
        ("backspace at start", b"\x08\x08a\n", "a|"),
        ("tabs", b"a\tb\n", "a       b|"),
        ("nul, bell, del", b"a\0b\x07c\x7f\n", "a\\x00b\\x07c\\x7f|"),
        ("invalid", b"a\xff\xc3(\xe2\x82\n", "a\\xff\\xc3(\\xe2\\x82|"),
        ("overlong", b"\xc0\xaf\xed\xa0\x80\n", "\\xc0\\xaf\\xed\\xa0\\x80|"),
        ("C1 byte", b"\x9b31mx\n", "\\x9b31mx|"),
        ("C1 character", "\u{9b}31mx\u{85}\n".as_bytes(), "\\u{9b}31mx\\u{85}|"),
        ("bidi", "if \u{202e}evil\u{2066}\n".as_bytes(), "if \\u{202e}evil\\u{2066}|"),
        ("letters", "häuser 模型 👩‍🔬\n".as_bytes(), "häuser 模型 👩‍🔬|"),
        ("two escapes", b"\x1b\x1b[31\x1b[32mx\n", "\x1b[32mx\x1b[0m|"),
    ];
    for (name, bytes, expected) in corpus {
        assert_eq!(&shown(bytes), expected, "{name}");
    }
    assert_eq!(plain(b"\x1b[31mred\x1b[0m\r\x1b[Kx\ny"), "x\ny");
}

#[test]
fn a_bar_that_is_painted_for_ever_and_a_line_without_end_are_not_held() {
    let mut screen = Screen::default();
    let mut bar = Vec::new();
    for i in 0..100_000 {
        bar.extend(format!("\rstep {i} \x1b[3{}m#\x1b[0m", i % 8).into_bytes());
    }
    screen.feed(&bar, 7, &mut |_| panic!("the line has not ended"));
    assert_eq!(screen.unfinished().unwrap().plain(), "step 99999 #");
    screen.feed(b"\n", 8, &mut |line| assert_eq!((line.plain().as_str(), line.at_ms), ("step 99999 #", 7)));

    let (mut pieces, mut ends, mut size) = (0, 0, 0);
    let mut count = |line: &Line<'_>| {
        assert_eq!(line.begins, pieces == 0);
        pieces += 1;
        ends += usize::from(line.ends);
        size += line.plain().len();
    };
    for _ in 0..160 {
        screen.feed(&[b'x'; 65_536], 1, &mut count);
        assert!(screen.cells.len() <= CELLS && screen.cells.capacity() <= 2 * CELLS);
    }
    screen.feed(b"\n", 1, &mut count);
    assert_eq!((ends, size), (1, 160 * 65_536));
    assert!(pieces >= 160);
}

#[test]
fn a_string_that_never_ends_hides_no_later_line() {
    let mut bytes = b"\x1b]52;c;".to_vec();
    bytes.extend(std::iter::repeat_n(b'A', 3 << 20));
    bytes.extend(b"\nvisible\n");
    assert!(plain(&bytes).ends_with("\nvisible\n"));
}

/// Everything that a terminal could be told with.
fn harmless(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        let tail = &rest[at + 1..];
        let Some(end) = tail.strip_prefix('[').and_then(|t| t.find('m')) else { return false };
        if !tail[1..=end].bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':') {
            return false;
        }
        rest = &tail[end + 2..];
    }
    let odd = |c: char| c != '\x1b' && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}'));
    !text.chars().any(odd)
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..12),
        3 => prop::sample::select(vec![
            "\x1b[", "\x1b]", "\x1bP", "\x1b_", "\x1b\\", "\x07", "m", "K", "2K", "31", ";", ":", "0", "\r", "\n",
            "\x1b", "\u{9b}", "\u{202e}", "text", "\t", "\x08", "\x18", "38;5;", "?25l",
        ]).prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop::collection::vec(token, 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_a_terminal_obeys_comes_through_however_it_is_cut(
        bytes in noise(),
        cuts in prop::collection::vec(1..7_usize, 1..20),
    ) {
        let whole = shown(&bytes);
        prop_assert!(harmless(&whole), "{:?}", whole);
        let mut pieces = String::new();
        let mut screen = Screen::default();
        let mut add = |line: &Line<'_>| {
            pieces.push_str(&line.coloured());
            pieces.push_str(if line.ends { "|" } else { "" });
        };
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            screen.feed(now, 0, &mut add);
            rest = later;
        }
        screen.finish(&mut add);
        prop_assert_eq!(pieces, whole);
    }

    #[test]
    fn plain_text_is_what_it_was(text in "[ -~äöü模]{0,80}(\n[ -~äöü模]{0,80}){0,4}") {
        prop_assert_eq!(plain(text.as_bytes()), text);
    }
}
