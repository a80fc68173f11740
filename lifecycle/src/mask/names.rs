//! Which names say that their value is a secret.

/// Words of a name that make its value a secret.
const SECRET_WORDS: [&str; 20] = [
    "token",
    "secret",
    "secrets",
    "password",
    "passwd",
    "passphrase",
    "mnemonic",
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
const SECRET_PARTS: [&str; 8] = [
    "apikey",
    "accesskey",
    "secretkey",
    "authtoken",
    "accesstoken",
    "privatekey",
    "password",
    "clientsecret",
];
/// Names that only look so. The tokens are those of vocabularies.
const HARMLESS: [&str; 13] = [
    "pwd",
    "oldpwd",
    "key",
    "keys",
    "keyring",
    "ssh_auth_sock",
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
    "sep_token",
    "cls_token",
    "mask_token",
];
/// A longer name is judged by its end.
const NAME: usize = 200;

fn lowered(name: &str) -> String {
    let cut = name.char_indices().rev().nth(NAME - 1).map_or(0, |(at, _)| at);
    let mut lower = String::with_capacity(name.len().min(NAME) + 4);
    let mut before = ' ';
    for c in name[cut..].chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            lower.push('_');
        }
        lower.push(c.to_ascii_lowercase());
        before = c;
    }
    lower
}

/// Whether a variable, flag or field of this name holds a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let lower = lowered(name);
    // `KeyError: ...` names no key.
    let raised = ["error", "exception", "interrupt"].iter().any(|end| lower.ends_with(end));
    if raised || HARMLESS.contains(&lower.as_str()) {
        return false;
    }
    let joined: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    SECRET_PARTS.iter().any(|part| joined.contains(part))
        || lower
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| SECRET_WORDS.contains(&word) || word.ends_with("token") || word.ends_with("secret"))
}

/// Whether what it names may be a short plain number: `token: 7` is a count,
/// `password: 7` is none.
pub(super) fn may_count(name: &str) -> bool {
    !["pass", "pwd", "secret", "credential"].iter().any(|part| name.to_ascii_lowercase().contains(part))
}
