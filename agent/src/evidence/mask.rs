//! Takes secrets out of what is kept: by the name that they have, by their
//! look (long, and as random as a key), and as the password of an address.
//! Pure. It rather takes too much than too little.

const NAMES: [&str; 12] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "KEY",
    "CREDENTIAL",
    "AUTH",
    "COOKIE",
    "PRIVATE",
    "SIGNATURE",
    "DSN",
];
/// Names of the contract and of places, whose long values are ids and paths.
const PLACES: [&str; 9] = [
    "PATH",
    "HOME",
    "PWD",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "TMPDIR",
    "CUDA_HOME",
];
const CONTRACT: &str = "OUTLAST_";
/// Shorter than this nothing is held for a key.
const KEY_CHARS: usize = 20;
/// Bits per character from which on it is.
const KEY_BITS: f64 = 3.5;

/// Shannon entropy in bits per character.
fn entropy(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    text.bytes().for_each(|b| counts[usize::from(b)] += 1);
    let total = f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX).max(1));
    counts
        .iter()
        .filter(|n| **n > 0)
        .map(|n| {
            let share = f64::from(*n) / total;
            -share * share.log2()
        })
        .sum()
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '_' | '-' | '=' | '~')
}

fn looks_random(word: &str) -> bool {
    word.len() >= KEY_CHARS
        && word.bytes().any(|b| b.is_ascii_digit())
        && word.bytes().any(|b| b.is_ascii_alphabetic())
        && entropy(word) >= KEY_BITS
}

fn stars(chars: usize) -> String {
    format!("***({chars})")
}

/// The password, and the user, of every address in the text are taken out.
fn without_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end =
            tail.find(|c: char| c == '/' || c == '?' || c == '#' || c.is_whitespace()).unwrap_or(tail.len());
        rest = tail;
        if let Some(sign) = tail[..end].rfind('@') {
            out.push_str("***");
            rest = &tail[sign..];
        }
    }
    out.push_str(rest);
    out
}

/// Free text without what looks like a secret.
#[must_use]
pub fn masked_text(text: &str) -> String {
    let text = without_passwords(text);
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    // One more, so that the last word is closed too.
    for c in text.chars().map(Some).chain([None]) {
        match c {
            Some(c) if is_token_char(c) => word.push(c),
            other => {
                if looks_random(&word) {
                    out.push_str(&stars(word.len()));
                } else {
                    out.push_str(&word);
                }
                word.clear();
                out.extend(other);
            }
        }
    }
    out
}

/// A variable's value, or what may be told of it.
#[must_use]
pub fn masked(name: &str, value: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if value.is_empty() || PLACES.contains(&upper.as_str()) && value.starts_with('/') {
        return without_passwords(value);
    }
    if upper.starts_with(CONTRACT) {
        return value.to_owned();
    }
    if NAMES.iter().any(|part| upper.contains(part)) || upper.ends_with("_PASS") || upper == "PASS" {
        return stars(value.chars().count());
    }
    // A slash belongs to a key unless the value is a path or an address.
    let is_place = value.starts_with(['/', '.', '~']) || value.contains("://") || value.contains(':');
    if !is_place && value.chars().all(|c| is_token_char(c) || c == '/') && looks_random(value) {
        return stars(value.chars().count());
    }
    masked_text(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_say_so_are_masked() {
        for name in
            ["HF_TOKEN", "wandb_api_key", "AWS_SECRET_ACCESS_KEY", "DB_PASS", "Password", "AUTH", "X_COOKIE"]
        {
            assert_eq!(masked(name, "short"), "***(5)", "{name}");
        }
        assert_eq!(masked("HF_TOKEN", ""), "");
        assert_eq!(masked("SEED", "7"), "7");
    }

    #[test]
    fn what_looks_like_a_key_is_masked_wherever_it_stands() {
        let key = "hf_aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789";
        for value in
            [key.to_owned(), format!("x={key}"), format!("--with {key} --lr 3e-4"), format!("a:{key}")]
        {
            let shown = masked("EXTRA", &value);
            assert!(!shown.contains(&key[4..]) && shown.contains("***("), "{value} {shown}");
        }
        let aws = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1";
        assert_eq!(masked("WHAT", aws), format!("***({})", aws.len()));
        assert_eq!(masked("DATABASE", "postgres://me:hunter2@db:5432/x"), "postgres://***@db:5432/x");
        assert_eq!(masked_text("see http://a:b@c/d and ftp://e@f"), "see http://***@c/d and ftp://***@f");
    }

    #[test]
    fn what_is_no_secret_stays() {
        let path = "/opt/cache/env-0123456789abcdef/bin:/usr/local/bin:/usr/bin";
        assert_eq!(masked("PATH", path), path);
        for (name, value) in [
            ("OUTLAST_ATTEMPT", "eyagym7z4vxou7tdfb4tceggbid4"),
            ("LANG", "C.UTF-8"),
            ("DATA", "/data/imagenet-1k/train"),
            ("MODEL", "meta-llama/Llama-3.1-8B"),
            ("NAME", "a-quite-long-name-without-digits"),
            ("PIP_INDEX_URL", "https://pypi.org/simple"),
            ("OPTIONS", "--epochs 10 --learning-rate 0.0003"),
        ] {
            assert_eq!(masked(name, value), value, "{name}");
        }
    }

    proptest! {
        #[test]
        fn random_keys_never_pass(key in "[A-Za-z0-9]{32,64}", around in "[ ,;:\"']{1,3}") {
            prop_assume!(looks_random(&key));
            let shown = masked("EXTRA", &format!("{around}{key}{around}"));
            prop_assert!(!shown.contains(&key));
        }

        #[test]
        fn random_text_never_panics(name in "\\PC{0,20}", value in "\\PC{0,80}") {
            let _ = masked(&name, &value);
        }
    }
}
