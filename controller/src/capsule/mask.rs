//! Takes secrets out of everything that a capsule shows: what the run was given
//! as a secret is replaced wherever it occurs, also in its usual encodings;
//! what is named like a secret loses its value; what looks like a key is taken
//! for one. A machine may have masked already: that is never relied upon.
//! Masking too much costs a word, masking too little costs a key.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What stands in a secret's place.
pub const MASK: &str = "[masked]";
/// A literal shorter than this occurs by chance.
const LITERAL: usize = 6;
/// The longest password that is looked for in an address.
const PASSWORD: usize = 256;
/// Literals that are looked for.
const LITERALS: usize = 300;

/// Words of a name that make its value a secret.
const SECRET_WORDS: [&str; 19] = [
    "token",
    "secret",
    "secrets",
    "password",
    "passwd",
    "passphrase",
    "pass",
    "pwd",
    "credential",
    "credentials",
    "cookie",
    "auth",
    "authorization",
    "key",
    "apikey",
    "dsn",
    "pat",
    "bearer",
    "signature",
];
/// Parts that make a secret of a name also without a break between words.
const SECRET_PARTS: [&str; 7] =
    ["apikey", "accesskey", "secretkey", "authtoken", "accesstoken", "privatekey", "password"];
/// Names that only look so.
const HARMLESS: [&str; 6] = ["pwd", "oldpwd", "key", "keys", "keyring", "ssh_auth_sock"];
/// Beginnings that only keys have, with the shortest whole length.
const PREFIXES: [(&str, usize); 26] = [
    ("hf_", 20),
    ("sk-", 20),
    ("sk_", 20),
    ("rk_", 20),
    ("pk_live_", 20),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghs_", 20),
    ("ghu_", 20),
    ("github_pat_", 24),
    ("glpat-", 16),
    ("xoxb-", 16),
    ("xoxp-", 16),
    ("xapp-", 16),
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 20),
    ("ya29.", 16),
    ("eyJ", 24),
    ("npm_", 20),
    ("pypi-", 20),
    ("dop_v1_", 20),
    ("r8_", 20),
    ("gsk_", 20),
    ("nvapi-", 20),
    ("AGE-SECRET-KEY-", 20),
];

/// Knows what to hide.
#[derive(Debug, Default)]
pub struct Masker {
    literals: Vec<String>,
    /// Ids of this installation's own things: as mixed as keys, and none.
    known: BTreeSet<String>,
}

/// Whether a variable, flag or field of this name holds a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let mut lower = String::with_capacity(name.len() + 4);
    let mut before = ' ';
    for c in name.chars().take(200) {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            lower.push('_');
        }
        lower.push(c.to_ascii_lowercase());
        before = c;
    }
    // `KeyError: ...` names no key.
    let raised = ["error", "exception", "interrupt"].iter().any(|end| lower.ends_with(end));
    if raised || HARMLESS.contains(&lower.as_str()) {
        return false;
    }
    let joined: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    SECRET_PARTS.iter().any(|part| joined.contains(part))
        || lower.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| SECRET_WORDS.contains(&word))
}

impl Masker {
    /// From the variables that a run was given: those that are named or look
    /// like secrets are hidden everywhere.
    #[must_use]
    pub fn new(variables: &BTreeMap<String, String>) -> Self {
        let mut literals = BTreeSet::new();
        for (name, value) in variables {
            if value.len() < LITERAL || !(is_secret_name(name) || is_key(value)) {
                continue;
            }
            let bytes = value.as_bytes();
            literals.insert(value.clone());
            literals.insert(data_encoding::BASE64.encode(bytes));
            literals.insert(data_encoding::BASE64URL_NOPAD.encode(bytes));
            literals.insert(data_encoding::HEXLOWER.encode(bytes));
            literals.insert(percent(value));
            literals.insert(serde_json::to_string(value).unwrap_or_default().trim_matches('"').to_owned());
            literals.extend(value.lines().filter(|line| line.len() >= 2 * LITERAL).map(str::to_owned));
        }
        // Longest first, so that none is cut by a shorter one within it.
        let mut literals: Vec<String> = literals.into_iter().collect();
        literals.sort_by_key(|literal| std::cmp::Reverse(literal.len()));
        literals.truncate(LITERALS);
        Self { literals, known: BTreeSet::new() }
    }

    /// With ids that are no secrets, whatever they look like.
    #[must_use]
    pub fn knowing(mut self, ids: impl IntoIterator<Item = String>) -> Self {
        self.known.extend(ids);
        self
    }

    fn is_key(&self, word: &str) -> bool {
        is_key(word) && !self.known.contains(word)
    }

    /// A text of any number of lines without its secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut text = Cow::Borrowed(text);
        for literal in &self.literals {
            if text.contains(literal.as_str()) {
                text = Cow::Owned(text.replace(literal.as_str(), MASK));
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut in_key = false;
        for line in text.split_inclusive('\n') {
            if line.contains("-----BEGIN ") && line.contains("PRIVATE KEY-----") {
                in_key = true;
                out.push_str(MASK);
                out.push('\n');
            } else if in_key {
                in_key = !line.contains("-----END ");
            } else {
                self.line(line, &mut out);
            }
        }
        out
    }

    /// A value by its name.
    #[must_use]
    pub fn value(&self, name: &str, value: &str) -> String {
        let trivial = value.is_empty() || matches!(value, "0" | "1" | "true" | "false");
        if is_secret_name(name) && !trivial
            || value.split(['/', ':', ',', ';', ' ']).any(|part| self.is_key(part) || is_uuid(part))
        {
            return MASK.to_owned();
        }
        self.text(value)
    }

    /// Strings of any depth, by the names that they stand under.
    pub fn json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(fields) => {
                for (name, field) in fields.iter_mut() {
                    match field {
                        Value::String(text) => *text = self.field(name, text),
                        other => self.json(other),
                    }
                }
            }
            _ => {}
        }
    }

    fn field(&self, name: &str, text: &str) -> String {
        if is_secret_name(name) && !text.is_empty() { MASK.to_owned() } else { self.text(text) }
    }

    /// A command and its arguments: `--token X` and `--token=X` too.
    #[must_use]
    pub fn command(&self, command: &[String]) -> Vec<String> {
        let mut hide = false;
        let masked = command.iter().map(|argument| {
            let flag = argument.starts_with('-') && !argument.contains('=');
            let shown =
                if std::mem::take(&mut hide) && !flag { MASK.to_owned() } else { self.text(argument) };
            hide = flag && is_secret_name(argument.trim_start_matches('-'));
            shown
        });
        masked.collect()
    }
}

impl Masker {
    /// Goes over words; what lies between them stays as it is.
    fn line(&self, line: &str, out: &mut String) {
        let mut rest = line;
        let mut hide_next = false;
        while !rest.is_empty() {
            let start = rest.find(is_token_char).unwrap_or(rest.len());
            let (between, from) = rest.split_at(start);
            // A value ends its name's power at anything but quotes and spaces.
            hide_next &= between.chars().all(|c| matches!(c, ' ' | '\t' | '"' | '\'' | ':' | '\\'));
            out.push_str(between);
            let end = from.find(|c: char| !(is_token_char(c) && c != '=')).unwrap_or(from.len());
            if end == 0 {
                // An equals sign that begins no word.
                let next = from.chars().next().map_or(0, char::len_utf8);
                out.push_str(&from[..next]);
                rest = &from[next..];
                continue;
            }
            let (word, after) = from.split_at(end);
            if hide_next && !is_scheme(word) && !is_count(word) {
                hide_next = false;
                out.push_str(MASK);
                rest = &after[after.find(ends_value).unwrap_or(after.len())..];
                continue;
            }
            hide_next = hide_next && is_scheme(word);
            if let Some((user, tail)) = credentials(word, after) {
                out.push_str(user);
                out.push_str(MASK);
                rest = tail;
                continue;
            }
            if self.is_key(word) || is_dotted_key(word, after) {
                out.push_str(MASK);
                rest = &after[after.find(ends_part).unwrap_or(after.len())..];
                continue;
            }
            out.push_str(word);
            rest = after;
            hide_next |= names_a_value(word, after);
        }
    }
}

fn percent(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '=')
}

/// Where the value of a name ends.
fn ends_value(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '}' | ')' | '&' | ';')
}

/// Where a key without a name ends.
fn ends_part(c: char) -> bool {
    ends_value(c) || matches!(c, '/' | '?' | '@' | ':')
}

/// `Bearer` and the like stand between a name and its value.
fn is_scheme(word: &str) -> bool {
    matches!(word.to_ascii_lowercase().as_str(), "bearer" | "basic" | "token" | "digest")
}

/// Plain numbers are counts: `tokens: 4096`.
fn is_count(word: &str) -> bool {
    word.len() <= 7 && word.chars().all(|c| c.is_ascii_digit())
}

/// `NAME=`, `"name": `, `Authorization: Bearer` and `--flag value`.
fn names_a_value(word: &str, after: &str) -> bool {
    let next = after.trim_start_matches(['"', '\'', '\\']).trim_start_matches(' ');
    let flag = word.starts_with("--") && after.starts_with([' ', '=']);
    let scheme = word.eq_ignore_ascii_case("bearer") && after.starts_with(' ');
    scheme
        || (next.starts_with(['=', ':']) && !next.starts_with("::") && !next.starts_with("==") || flag)
            && is_secret_name(word.trim_start_matches('-'))
}

/// `user:password@host` after `://`, seen at the user.
fn credentials<'a>(word: &'a str, after: &'a str) -> Option<(&'a str, &'a str)> {
    let rest = after.strip_prefix(':')?;
    // Passwords are short; a line may be long.
    let ends = |(_, c): &(usize, char)| matches!(c, '@' | '/') || c.is_whitespace();
    let (at, _) = rest.char_indices().take(PASSWORD).find(ends)?;
    if at == 0
        || !rest[at..].starts_with('@')
        || !rest[at..].chars().nth(1).is_some_and(char::is_alphanumeric)
    {
        return None;
    }
    Some((word, &rest[at..]))
}

/// JSON web tokens and the like, whose parts are apart by dots.
fn is_dotted_key(word: &str, after: &str) -> bool {
    word.starts_with("eyJ") && word.len() >= 12 && after.starts_with('.')
        || word == "ya29" && after.starts_with('.')
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|p| p.len()).eq([8, 4, 4, 4, 12])
        && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

/// Whether a word looks like a key: by its beginning, or by being long and as
/// mixed as only chance makes it.
#[must_use]
pub fn is_key(word: &str) -> bool {
    if PREFIXES.iter().any(|(prefix, least)| word.starts_with(prefix) && word.len() >= *least) {
        return true;
    }
    // Names of C++ symbols are long and mixed, too.
    if word.len() < 20 || word.starts_with("_Z") || !word.chars().all(is_token_char) || is_uuid(word) {
        return false;
    }
    let hex = word.len() >= 32 && word.chars().all(|c| c.is_ascii_hexdigit());
    if hex {
        return word.chars().any(|c| c.is_ascii_digit()) && word.chars().any(|c| c.is_ascii_alphabetic());
    }
    word.split(['_', '-', '=']).any(is_random)
}

fn is_random(part: &str) -> bool {
    if part.len() < 16 {
        return false;
    }
    let class = |c: char| match c {
        'a'..='z' => 0,
        'A'..='Z' => 1,
        '0'..='9' => 2,
        _ => 3,
    };
    let classes: Vec<u8> = part.chars().map(class).collect();
    let changes = classes.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let digits = classes.iter().filter(|c| **c == 2).count();
    let letters = classes.iter().filter(|c| **c < 2).count();
    digits >= 2 && letters >= 2 && changes * 4 >= classes.len() && entropy(part) >= 3.2
}

/// Bits per character, by the characters' own frequencies.
fn entropy(text: &str) -> f64 {
    let mut counts: BTreeMap<char, f64> = BTreeMap::new();
    let mut all = 0.0;
    for c in text.chars() {
        *counts.entry(c).or_default() += 1.0;
        all += 1.0;
    }
    counts.values().map(|n| -(n / all) * (n / all).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(name: &str, value: &str) -> Masker {
        Masker::new(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn names_of_secrets_are_known_and_others_left() {
        for name in [
            "HF_TOKEN",
            "API_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "db.password",
            "WANDB_API_KEY",
            "apiKey",
            "authToken",
            "Authorization",
            "X-Api-Key",
            "GH_PAT",
            "sessionCookie",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "TOKENIZERS_PARALLELISM",
            "num_tokens",
            "PATH",
            "PWD",
            "key",
            "keyboard",
            "monkey",
            "author",
            "max_tokens",
            "passes",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn a_registered_secret_is_hidden_in_every_usual_form() {
        let secret = "canary /secret\"1234";
        let masker = with("API_TOKEN", secret);
        for text in [
            format!("got {secret} here"),
            format!("b64 {}", data_encoding::BASE64.encode(secret.as_bytes())),
            format!("hex {}", data_encoding::HEXLOWER.encode(secret.as_bytes())),
            format!("https://x/?q={}", percent(secret)),
            format!("json {}", serde_json::to_string(secret).unwrap()),
        ] {
            let masked = masker.text(&text);
            assert!(masked.contains(MASK) && !masked.contains("canary"), "{text} -> {masked}");
        }
        assert_eq!(with("EPOCHS", "1234567").text("1234567 rows"), "1234567 rows");
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden() {
        let masker = Masker::default();
        for (text, wanted) in [
            ("export HF_TOKEN=abc", "export HF_TOKEN=[masked]"),
            ("password: hunter2!x, user: me", "password: [masked], user: me"),
            ("{\"api_key\": \"k 1\", \"a\": 1}", "{\"api_key\": \"[masked] 1\", \"a\": 1}"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer [masked]"),
            ("train.py --api-key xyz --lr 3", "train.py --api-key [masked] --lr 3"),
            ("s3 AKIAIOSFODNN7EXAMPLE ok", "s3 [masked] ok"),
            ("login hf_abcdefghijABCDEFGHIJ now", "login [masked] now"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc end", "jwt [masked] end"),
            ("https://me:pw1@host/x", "https://me[masked]@host/x"),
            ("id 3f2504e04f8911d39a0c0305e82c3301aa", "id [masked]"),
            ("wJalrXUtnFEMI7K7MDENGbPxRfiCYEXAMPLEKEY9 x", "[masked] x"),
        ] {
            assert_eq!(masker.text(text), wanted);
        }
        let pem = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\nb\n";
        assert_eq!(masker.text(pem), "a\n[masked]\nb\n");
    }

    #[test]
    fn ids_of_ones_own_are_no_keys() {
        let id = "cm5ruv5klcrcszvjy7k4ye2ycm";
        let masker = Masker::default().knowing([id.to_owned()]);
        let path = format!("/h/attempts/{id}/src/train.py");
        assert_eq!((masker.text(&path), masker.value("X", &path)), (path.clone(), path.clone()));
        assert!(Masker::default().text(&path).contains(MASK));
        let given = BTreeMap::from([("A_SECRET".to_owned(), id.to_owned())]);
        assert!(!Masker::new(&given).knowing([id.to_owned()]).text(&path).contains(id));
    }

    #[test]
    fn a_long_line_costs_no_more_than_its_length() {
        let masker = Masker::default();
        let began = std::time::Instant::now();
        for piece in ["a.", "a:", "a=", "hf_abcdefghijABCDEFGHIJ/", "token=a;", "--", "\""] {
            assert!(!masker.text(&piece.repeat((256 << 10) / piece.len())).is_empty());
        }
        // Quadratic work would take minutes here.
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

    #[test]
    fn what_a_person_needs_stays() {
        let masker = Masker::default();
        for text in [
            "  File \"/usr/lib/python3.11/site-packages/torch/nn/modules/module.py\", line 1532, in _call_impl\n",
            "RuntimeError: Error(s) in loading state_dict for Qwen2_5_VLForConditionalGeneration:\n",
            "KeyError: 'model.layers.0.self_attn.q_proj.weight'",
            "tokens: 4096, lr=3e-4 loss=0.1234567890123 step=1200 max_tokens=512\n",
            "NVRM: Xid (PCI:0000:44:00): 79, pid='<unknown>', GPU has fallen off the bus.",
            "frame #1: c10d::ProcessGroupNCCL::WorkNCCL::checkTimeout(std::optional<x>) + 0x1d2",
            "_ZN4c10d16ProcessGroupNCCL8WorkNCCL12checkTimeoutENSt6chrono8durationI",
            "GPU-3f2504e0-4f89-11d3-9a0c-0305e82c3301",
            "[rank0]:[E1206 18:44:12.715298746 ProcessGroupNCCL.cpp:607] WorkNCCL(SeqNum=7753, Timeout(ms)=600000)",
            "2026-01-31T23:59:59.123Z torch==2.4.1+cu121 numpy==1.26.4\n",
        ] {
            assert_eq!(masker.text(text), text);
        }
    }

    #[test]
    fn values_are_hidden_by_name_and_by_look() {
        let masker = Masker::default();
        assert_eq!(masker.value("WANDB_API_KEY", "short"), MASK);
        assert_eq!(masker.value("USE_AUTH", "true"), "true");
        assert_eq!(masker.value("PATH", "/usr/bin:/bin"), "/usr/bin:/bin");
        assert_eq!(masker.value("X", "123e4567-e89b-12d3-a456-426614174000"), MASK);
        assert_eq!(masker.value("SOME", "wJalrXUtnFEMI7K7MDENG"), MASK);
        assert_eq!(masker.value("PYTHONPATH", "/a/b"), "/a/b");
        let command: Vec<String> = ["t", "--token", "x", "--lr", "3"].map(String::from).to_vec();
        assert_eq!(masker.command(&command), ["t", "--token", MASK, "--lr", "3"]);
        let mut value =
            serde_json::json!({"env": {"HF_TOKEN": "x", "A": ["hf_abcdefghijABCDEFGHIJ"]}, "n": 1});
        masker.json(&mut value);
        assert_eq!(value, serde_json::json!({"env": {"HF_TOKEN": MASK, "A": [MASK]}, "n": 1}));
    }

    proptest! {
        #[test]
        fn no_registered_secret_survives_and_nothing_panics(
            secret in "[!-~]{8,40}", before in "\\PC{0,40}", after in "\\PC{0,40}",
        ) {
            let masked = with("MY_SECRET", &secret).text(&format!("{before} {secret} {after}"));
            prop_assert!(!masked.contains(&secret) || MASK.contains(&secret), "{masked}");
        }

        #[test]
        fn random_keys_are_seen(key in "[A-Za-z0-9]{40}") {
            // Ten digits in forty on average; chance makes few exceptions.
            let digits = key.chars().filter(char::is_ascii_digit).count();
            prop_assume!(digits >= 3);
            prop_assert!(is_key(&key), "{key}");
        }
    }
}
