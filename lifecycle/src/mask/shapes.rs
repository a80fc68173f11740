//! What a key looks like where nothing names it: by its beginning, or by being
//! long and as mixed as only chance makes it.

/// Beginnings that only keys have, with the shortest whole length.
const PREFIXES: [(&str, usize); 32] = [
    ("hf_", 20),
    ("sk-", 20),
    ("sk_live_", 20),
    ("sk_test_", 20),
    ("rk_live_", 20),
    ("rk_test_", 20),
    ("pk_live_", 20),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghs_", 20),
    ("ghu_", 20),
    ("ghr_", 20),
    ("github_pat_", 24),
    ("glpat-", 16),
    ("xoxb-", 16),
    ("xoxp-", 16),
    ("xapp-", 16),
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 20),
    ("eyJ", 24),
    ("npm_", 20),
    ("pypi-", 20),
    ("dop_v1_", 20),
    ("r8_", 20),
    ("gsk_", 20),
    ("nvapi-", 20),
    ("wandb_v1_", 20),
    ("AGE-SECRET-KEY-", 20),
    ("rpa_", 20),
    ("tskey-", 20),
    ("dckr_pat_", 20),
];
/// Base64 with its own signs: a secret access key has so many characters.
const BLOB: usize = 40;

pub(super) fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+')
}

pub(super) fn is_uuid(text: &str) -> bool {
    let hyphens = |(at, c): (usize, char)| {
        if matches!(at, 8 | 13 | 18 | 23) { c == '-' } else { c.is_ascii_hexdigit() }
    };
    text.len() == 36 && text.char_indices().all(hyphens)
}

/// Whether a word looks like a key.
#[must_use]
pub fn is_key(word: &str) -> bool {
    // Words alone (`sk-learn-pipeline-with-scaler`) are no key.
    let is_mixed = |rest: &str| rest.contains(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase());
    let begins = |(prefix, least): &(&str, usize)| {
        word.len() >= *least && word.strip_prefix(prefix).is_some_and(is_mixed)
    };
    if PREFIXES.iter().any(begins) {
        return true;
    }
    // Names of C++ symbols are long and mixed, too.
    let chars = |c: char| is_word_char(c) || c == '=';
    if word.len() < 20 || word.starts_with("_Z") || !word.chars().all(chars) || is_uuid(word) {
        return false;
    }
    if word.len() >= 32 && word.chars().all(|c| c.is_ascii_hexdigit()) {
        return word.chars().any(|c| c.is_ascii_digit()) && word.chars().any(|c| c.is_ascii_alphabetic());
    }
    word.split(['_', '-', '=']).any(is_random)
}

/// Parts of JSON web tokens and the like are apart by dots.
pub(super) fn is_dotted_key(word: &str, after: &str) -> bool {
    let long = word.starts_with("eyJ") && word.len() >= 12;
    (long || matches!(word, "ya29" | "SG"))
        && after
            .strip_prefix('.')
            .is_some_and(|rest| rest.chars().take_while(|c| is_word_char(*c)).take(16).count() >= 8)
}

/// Base64 with slashes in it, as secret access keys have them; a path is less
/// mixed. `run` is all that can belong to it.
pub(super) fn is_blob(run: &str) -> bool {
    let classes = Classes::of(run);
    run.len() >= BLOB
        && classes.lower >= 4
        && classes.upper * 5 >= run.len()
        && classes.digits >= 1
        && classes.breaks * 9 >= run.len()
        && entropy(run) >= 4.2
}

pub(super) fn is_blob_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/')
}

#[derive(Default)]
struct Classes {
    lower: usize,
    upper: usize,
    digits: usize,
    /// How often a character is of another class than the one before.
    changes: usize,
    /// How often a capital follows a small letter, or a letter a digit: names
    /// of things rarely have that.
    breaks: usize,
}

impl Classes {
    fn of(text: &str) -> Self {
        let mut found = Self::default();
        let mut before = None;
        for c in text.chars() {
            let class = match c {
                'a'..='z' => 0,
                'A'..='Z' => 1,
                '0'..='9' => 2,
                _ => 3,
            };
            match class {
                0 => found.lower += 1,
                1 => found.upper += 1,
                2 => found.digits += 1,
                _ => {}
            }
            found.breaks += usize::from(matches!((before, class), (Some(0), 1) | (Some(2), 0 | 1)));
            found.changes += usize::from(before.replace(class).is_some_and(|before| before != class));
        }
        found
    }
}

fn is_random(part: &str) -> bool {
    if part.len() < 16 {
        return false;
    }
    let classes = Classes::of(part);
    classes.digits >= 2
        && classes.lower + classes.upper >= 2
        && classes.changes * 4 >= part.len()
        && entropy(part) >= 3.2
}

/// Bits per character, by the characters' own frequencies.
fn entropy(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    text.bytes().for_each(|b| counts[usize::from(b)] = counts[usize::from(b)].saturating_add(1));
    let all: f64 = counts.iter().copied().map(f64::from).sum();
    let shares = counts.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / all);
    shares.map(|share| -share * share.log2()).sum()
}
