//! Takes comments, strings and tests out of Rust source, so that the other
//! rules neither see a word in a comment nor miss one in code. Whatever goes
//! is replaced by spaces: lines and offsets stay what they were.

use std::ops::Range;

/// A source file in three forms of the same length.
pub(super) struct Masked {
    /// Without comments and without the insides of strings.
    pub(super) code: String,
    /// Without comments.
    pub(super) text: String,
    /// Where items for tests stand.
    pub(super) tests: Vec<Range<usize>>,
}

/// Masks a file.
pub(super) fn mask(source: &str) -> Masked {
    let bytes = source.as_bytes();
    let (mut code, mut text) = (bytes.to_vec(), bytes.to_vec());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(b"//") {
            let end = at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            blank(&mut code, at..end);
            blank(&mut text, at..end);
            at = end;
        } else if rest.starts_with(b"/*") {
            let end = at + block_comment(rest);
            blank(&mut code, at..end);
            blank(&mut text, at..end);
            at = end;
        } else if let Some((open, end)) = string(bytes, at) {
            blank(&mut code, open..end);
            at = end;
        } else {
            at += 1;
        }
    }
    let code = String::from_utf8(code).expect("only whole strings and comments were blanked");
    let text = String::from_utf8(text).expect("only whole comments were blanked");
    let tests = test_items(&code);
    Masked { code, text, tests }
}

/// Replaces everything but line ends by spaces.
pub(super) fn blank(bytes: &mut [u8], range: Range<usize>) {
    for byte in &mut bytes[range] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// If a string or character literal begins at `at`: from where to where its
/// inside goes, with the closing quote.
fn string(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = &bytes[at..];
    let starts_word = at == 0 || !is_word(bytes[at - 1]);
    match rest.first()? {
        b'"' => Some((at + 1, at + 1 + quoted(&rest[1..], b'"'))),
        b'\'' => character(rest).map(|length| (at + 1, at + length)),
        b'r' | b'b' | b'c' if starts_word => {
            let prefix = rest.iter().take_while(|byte| matches!(byte, b'r' | b'b' | b'c')).count();
            let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
            let raw = prefix <= 2 && rest[prefix - 1] == b'r' && rest.get(prefix + hashes) == Some(&b'"');
            raw.then(|| {
                let open = prefix + hashes + 1;
                let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
                let end = rest[open..].windows(close.len()).position(|window| window == close);
                (at + open, end.map_or(bytes.len(), |end| at + open + end + close.len()))
            })
        }
        _ => None,
    }
}

/// The length of the rest of a string with its closing quote.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return Some(1 + quoted(&rest[1..], b'\''));
    }
    let width = std::str::from_utf8(&rest[1..rest.len().min(5)])
        .map_or_else(|error| error.valid_up_to(), str::len)
        .min(4);
    let first = std::str::from_utf8(&rest[1..=width]).ok()?.chars().next()?.len_utf8();
    (rest.get(1 + first) == Some(&b'\'')).then_some(first + 2)
}

/// Whether a byte can be part of a name.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Where items under `#[cfg(test)]` or `#[cfg(all(test, ...))]` stand.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut items: Vec<Range<usize>> = Vec::new();
    for attribute in ["#[cfg(test)]", "#[cfg(all(test,"] {
        for (start, _) in code.match_indices(attribute) {
            if !items.iter().any(|item| item.contains(&start)) {
                items.push(start..item_end(code, start));
            }
        }
    }
    items
}

/// The end of the item whose attributes begin at `start`.
fn item_end(code: &str, start: usize) -> usize {
    let bytes = code.as_bytes();
    let (mut at, mut depth) = (start, 0_i32);
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' => depth -= 1,
            b'}' => {
                depth -= 1;
                if depth <= 0 {
                    return at + 1;
                }
            }
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The end of the bracket that opens at `open`; the end of the text if none.
pub(super) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, byte) in code.as_bytes()[open..].iter().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset;
        }
    }
    code.len()
}

#[test]
fn comments_and_strings_are_masked_and_code_is_not() {
    let source = r##"
let a = "in // string \" end"; // comment "x"
/* block /* nested */ still */ let b = 'x'; let c: &'a str = r#"raw " word"#;
let d = b"bytes"; let e = '\''; let f = 'é'; let g = br"x\"; call(r, b);
"##;
    let masked = mask(source);
    assert_eq!((masked.code.len(), masked.text.len()), (source.len(), source.len()));
    for hidden in ["string", "comment", "nested", "still", "raw", "bytes", "'x'", "é", "x\\"] {
        assert!(!masked.code.contains(hidden), "{hidden}: {}", masked.code);
    }
    for kept in ["let a", "let b", "&'a str", "let d", "let e", "let g", "call(r, b);"] {
        assert!(masked.code.contains(kept), "{kept}: {}", masked.code);
    }
    assert!(masked.text.contains("in // string"));
    assert!(!masked.text.contains("comment"));
}

#[test]
fn items_for_tests_are_found_with_all_their_braces() {
    let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { '{' }\n}\n#[cfg(test)]\nmod sim;\nfn c() {}";
    let masked = mask(code);
    let items: Vec<&str> = masked.tests.iter().map(|range| &code[range.clone()]).collect();
    assert_eq!(items, ["#[cfg(test)]\nmod tests {\n fn b() { '{' }\n}", "#[cfg(test)]\nmod sim;"]);
}

#[test]
fn unfinished_source_does_not_panic() {
    for source in ["\"", "'", "r#\"", "/*", "#[cfg(test)]", "'\\", "b'", "\"\\"] {
        mask(source);
    }
}
