//! One line, word by word: names and their values, addresses with passwords,
//! words of a key's shape. What lies between stays as it is.

use super::names::{is_secret_name, may_count};
use super::shapes::{is_blob, is_blob_char, is_dotted_key, is_word_char};
use super::{MASK, Masker};

/// The longest user and password that is looked for in an address.
const PASSWORD: usize = 256;
/// A word that is longer than this and follows `Bearer` alone is a key.
const BEARER: usize = 12;
const BLANKS: [char; 2] = [' ', '\t'];

/// Adds the line without its secrets.
pub(super) fn hide(line: &str, masker: &Masker, out: &mut String) {
    Scan { masker, rest: line, before: ' ', judged: line.len() + 1, out }.run();
}

/// The text without the passwords of its addresses.
pub(super) fn without_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        rest = tail;
        if let Some(sign) = user_length(tail) {
            out.push_str(MASK);
            rest = &tail[sign..];
        }
    }
    out.push_str(rest);
    out
}

/// What is no secret under whatever name.
pub(super) fn is_trivial(value: &str) -> bool {
    matches!(
        value,
        "" | "0" | "1" | "true" | "false" | "True" | "False" | "null" | "None" | "none" | "yes" | "no"
    )
}

/// Bytes before the `@` of an address whose scheme and slashes are gone.
fn user_length(tail: &str) -> Option<usize> {
    if tail.strip_prefix(MASK).is_some_and(|rest| rest.starts_with('@')) {
        return None;
    }
    let outside = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`');
    let mut sign = None;
    let mut is_path = false;
    let mut colon = None;
    for (at, c) in tail.char_indices().take(PASSWORD) {
        match c {
            c if outside(c) => break,
            '@' if !is_path => sign = Some(at),
            // A password with a slash: no port is made of letters.
            '@' if sign.is_none() => {
                let from = colon?;
                let port = &tail[from..at];
                let digits = port.chars().take_while(char::is_ascii_digit).count();
                sign = (!port[digits..].starts_with(['/', '?', '#'])).then_some(at);
                break;
            }
            '/' | '?' | '#' => is_path = true,
            ':' if !is_path => colon = colon.or(Some(at + 1)),
            _ => {}
        }
    }
    sign.filter(|sign| !matches!(&tail[..*sign], "" | "git"))
}

/// Where the value of a name ends.
fn ends_value(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | '}' | ')' | '&' | ';')
}

fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "token", "digest", "negotiate", "apikey"].iter().any(|s| word.eq_ignore_ascii_case(s))
}

/// How a value is bound to its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bond {
    /// `name=`, `"name": `.
    Sign,
    /// `--name `, and the next word is the value unless it is a flag.
    Flag,
    /// `Bearer `, without a name.
    Bearer,
}

/// Whether a value follows this word, and after how many bytes.
fn bond(word: &str, before: char, after: &str) -> Option<(Bond, usize)> {
    let quotes = after.len() - after.trim_start_matches(['"', '\'', '\\']).len();
    let spaces = after[quotes..].len() - after[quotes..].trim_start_matches(BLANKS).len();
    let next = &after[quotes + spaces..];
    let sign = next.starts_with(['=', ':']) && !next.starts_with("::") && !next.starts_with("==");
    let is_query = word == "sig" && matches!(before, '?' | '&');
    if sign && (is_query || is_secret_name(word.trim_start_matches('-'))) {
        let gap = next[1..].len() - next[1..].trim_start_matches(BLANKS).len();
        return Some((Bond::Sign, quotes + spaces + 1 + gap));
    }
    if word.starts_with("--") && is_secret_name(word.trim_start_matches('-')) {
        // A list of arguments: `'--token', 'x'`.
        let listed = next.strip_prefix(',').filter(|_| quotes > 0).map(|rest| rest.trim_start_matches(' '));
        if let Some(rest) = listed.filter(|rest| rest.starts_with(['"', '\''])) {
            return Some((Bond::Flag, after.len() - rest.len()));
        }
        return (quotes == 0 && spaces > 0).then_some((Bond::Flag, spaces));
    }
    (word.eq_ignore_ascii_case("bearer") && quotes == 0 && spaces > 0).then_some((Bond::Bearer, spaces))
}

/// `user:password@host` without a scheme, seen at the user: bytes of the
/// password after the colon.
fn password_length(word: &str, after: &str) -> Option<usize> {
    let rest = after.strip_prefix(':').filter(|_| word != "mailto")?;
    // Passwords are short; a line may be long.
    let ends = |(_, c): &(usize, char)| matches!(c, '@' | '/') || c.is_whitespace();
    let (at, _) = rest.char_indices().take(PASSWORD).find(ends)?;
    let host = rest[at..].strip_prefix('@')?;
    // The digest of an image follows its version.
    let is_host = host.starts_with(char::is_alphanumeric) && !host.starts_with("sha256:");
    let is_host = is_host || host.starts_with(MASK);
    (at > 0 && is_host).then_some(at)
}

struct Scan<'a> {
    masker: &'a Masker,
    rest: &'a str,
    /// The character before `rest`.
    before: char,
    /// Bytes that were left when a run of base64 that is none ended: no word
    /// before that is the start of one.
    judged: usize,
    out: &'a mut String,
}

impl<'a> Scan<'a> {
    fn run(mut self) {
        while let Some(c) = self.rest.chars().next() {
            if self.rest.starts_with(MASK) {
                self.pass(MASK.len());
            } else if is_word_char(c) {
                self.word();
            } else if self.rest.starts_with("://") {
                self.pass(3);
                if let Some(sign) = user_length(self.rest) {
                    self.mask(sign);
                }
            } else {
                self.pass(c.len_utf8());
            }
        }
    }

    /// So many bytes stay.
    fn pass(&mut self, bytes: usize) {
        let (stays, rest) = self.rest.split_at(bytes);
        self.out.push_str(stays);
        self.before = stays.chars().next_back().unwrap_or(self.before);
        self.rest = rest;
    }

    /// So many bytes go.
    fn mask(&mut self, bytes: usize) {
        self.out.push_str(MASK);
        self.before = ']';
        self.rest = &self.rest[bytes..];
    }

    fn word(&mut self) {
        let rest: &'a str = self.rest;
        let end = rest.find(|c| !is_word_char(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if let Some(password) = password_length(word, after) {
            self.pass(end + 1);
            return self.mask(password);
        }
        if let Some(length) = self.blob() {
            return self.mask(length);
        }
        if is_dotted_key(word, after) {
            return self.mask(dotted_length(rest));
        }
        if self.masker.is_key(word) {
            return self.mask(end + padding(after));
        }
        let bond = bond(word, self.before, after);
        self.pass(end);
        if let Some((bond, gap)) = bond {
            self.pass(gap);
            self.value(word, bond);
        }
    }

    /// Bytes of base64 with slashes in it that begins here.
    fn blob(&mut self) -> Option<usize> {
        if self.rest.len() > self.judged || matches!(self.before, '/' | '.') {
            // Within a run that was judged, or within a path.
            return None;
        }
        let end = self.rest.find(|c| !is_blob_char(c)).unwrap_or(self.rest.len());
        let (run, after) = self.rest.split_at(end);
        self.judged = after.len();
        (run.contains(['/', '+']) && is_blob(run)).then(|| end + padding(after))
    }

    /// What stands where the value of a name is expected.
    fn value(&mut self, name: &str, bond: Bond) {
        if self.rest.starts_with(['[', '(']) && !self.rest.starts_with(MASK) {
            self.pass(1);
        }
        if let Some(quoted) = self.quoted() {
            if !(is_trivial(quoted) || is_count(quoted) && may_count(name)) {
                self.mask(quoted.len());
            }
            return;
        }
        if self.rest.starts_with(['"', '\'', '`']) {
            // Cut before its end.
            self.pass(1);
        }
        if bond == Bond::Flag && self.rest.starts_with('-') {
            return;
        }
        let header = name.to_ascii_lowercase();
        let is_long =
            header.ends_with("cookie") || header.contains("passphrase") || header.contains("mnemonic");
        if is_long && self.before == ' ' {
            // `Cookie: a=b; c=d`, `Passphrase: open sesame`: all of it.
            let end = self.rest.find(['"', '\'', '\n', '\r']).unwrap_or(self.rest.len());
            if end > 0 {
                self.mask(end);
            }
            return;
        }
        let first = self.unquoted();
        let followed = self.rest[first.len()..].starts_with(' ');
        if followed && bond == Bond::Sign && is_scheme(first) {
            self.pass(first.len() + 1);
            let second = self.unquoted().len();
            return if second > 0 {
                self.mask(second);
            };
        }
        let is_key = bond != Bond::Bearer
            || first.len() >= BEARER
            || first.contains(|c: char| c.is_ascii_digit() || matches!(c, '.' | '_'));
        if first.is_empty() || !is_key || is_trivial(first) || is_count(first) && may_count(name) {
            return;
        }
        let is_word = first.len() <= 20 && first.chars().all(|c| c.is_ascii_alphabetic() || c == '-');
        self.mask(first.len());
        if followed && is_word && header.ends_with("authorization") {
            // A scheme that is not known, and what it is given.
            self.pass(1);
            let second = self.unquoted().len();
            if second > 0 {
                self.mask(second);
            }
        }
    }

    /// The value that begins here and ends at a blank or a sign.
    fn unquoted(&self) -> &'a str {
        let rest: &'a str = self.rest;
        let mut value = &rest[..rest.find(ends_value).unwrap_or(rest.len())];
        // What closes a bracket that was opened before is not the value's.
        let mut open = value.matches('[').count();
        open = value.matches(']').count().saturating_sub(open);
        while open > 0 && value.ends_with(']') {
            value = &value[..value.len() - 1];
            open -= 1;
        }
        value
    }

    /// What is between quotes, where they begin here: the opening one is
    /// passed over.
    fn quoted(&mut self) -> Option<&'a str> {
        let rest: &'a str = self.rest;
        let prefix = usize::from(rest.starts_with(['b', 'r', 'f', 'u']));
        let quote = ["\\\"", "\"", "'", "`"].into_iter().find(|q| rest[prefix..].starts_with(q))?;
        let inside = &rest[prefix + quote.len()..];
        let mut from = 0;
        let end = loop {
            let at = from + inside[from..].find(quote)?;
            let escapes = inside[..at].bytes().rev().take_while(|b| *b == b'\\').count();
            if quote.len() > 1 || escapes % 2 == 0 {
                break at;
            }
            from = at + quote.len();
        };
        self.pass(prefix + quote.len());
        Some(&inside[..end])
    }
}

/// Plain numbers are counts: `tokens: 4096`.
fn is_count(word: &str) -> bool {
    word.len() <= 7 && word.bytes().all(|b| b.is_ascii_digit())
}

/// Bytes of words that are apart by single dots.
fn dotted_length(text: &str) -> usize {
    let mut length = 0;
    let mut before = '.';
    for (at, c) in text.char_indices() {
        match c {
            c if is_word_char(c) => length = at + c.len_utf8(),
            '.' if before != '.' => {}
            _ => break,
        }
        before = c;
    }
    length
}

/// Bytes of the equals signs that fill base64 up.
fn padding(after: &str) -> usize {
    let signs = after.bytes().take_while(|b| *b == b'=').count();
    if signs <= 2 && !after[signs..].starts_with(is_word_char) { signs } else { 0 }
}
