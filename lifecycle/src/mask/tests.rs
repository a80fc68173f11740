//! Texts with and without secrets: tables, and properties.

use proptest::prelude::*;

use super::*;

fn with(name: &str, value: &str) -> Masker {
    Masker::new(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
}

fn plain(text: &str) -> String {
    Masker::default().text(text)
}

const HUGGING: &str = "hf_aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789";
const AMAZON: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const WANDB: &str = "3f2504e04f8911d39a0c0305e82c3301aa17b2c9";
const JWT: &str =
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";

#[test]
fn names_of_secrets_are_known_and_others_left() {
    for name in [
        "HF_TOKEN",
        "HFTOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "db.password",
        "WANDB_API_KEY",
        "apiKey",
        "authToken",
        "Authorization",
        "X-Api-Key",
        "GH_PAT",
        "sessionCookie",
        "DB_PASS",
        "AccountKey",
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
        "pad_token",
        "KeyError",
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
    assert!(!format!("{masker:?}").contains("canary"));
}

#[test]
fn a_named_secret_is_hidden_and_what_is_beside_it_stays() {
    for (text, wanted) in [
        ("export HF_TOKEN=abc", "export HF_TOKEN=[masked]"),
        ("(token=abc) [api_key=abc] done", "(token=[masked]) [api_key=[masked]] done"),
        ("password: hunter2!x, user: me", "password: [masked], user: me"),
        ("password=1234567 token=4096", "password=[masked] token=4096"),
        (r#"{"api_key": "k 1", "a": 1}"#, r#"{"api_key": "[masked]", "a": 1}"#),
        (r#""{\"api_key\": \"k 1\", \"a\": 1}""#, r#""{\"api_key\": \"[masked]\", \"a\": 1}""#),
        (r"{'secret': 'a\'b', 'lr': 3}", "{'secret': '[masked]', 'lr': 3}"),
        ("password: \"cut off", "password: \"[masked] off"),
        ("passwd:\tabc\tx", "passwd:\t[masked]\tx"),
        ("use_auth: true, secret: None, token=", "use_auth: true, secret: None, token="),
        ("Authorization: Bearer abc.def failed", "Authorization: Bearer [masked] failed"),
        ("authorization: Basic dXNlcjpwYXNz", "authorization: Basic [masked]"),
        ("Authorization: Hawk id=1 failed", "Authorization: [masked] [masked] failed"),
        ("-H \"Authorization: token abc\" https://x/y", "-H \"Authorization: token [masked]\" https://x/y"),
        ("Cookie: a=b; c=d", "Cookie: [masked]"),
        ("Passphrase: open sesame now", "Passphrase: [masked]"),
        ("ssh_passphrase = \"open sesame\" next", "ssh_passphrase = \"[masked]\" next"),
        ("sent Bearer abcdef0123 to it", "sent Bearer [masked] to it"),
        ("a bearer of good news", "a bearer of good news"),
        ("train.py --api-key xyz --lr 3", "train.py --api-key [masked] --lr 3"),
        ("train.py --token --lr 3", "train.py --token --lr 3"),
        ("['t', '--token', 'x y', '--lr']", "['t', '--token', '[masked]', '--lr']"),
        ("https://x/?token=abc&n=1", "https://x/?token=[masked]&n=1"),
        ("https://a.blob/x?se=2&sig=abc%3D&sp=r", "https://a.blob/x?se=2&sig=[masked]&sp=r"),
        ("token == other", "token == other"),
        ("pad_token=<pad> eos_token=</s>", "pad_token=<pad> eos_token=</s>"),
    ] {
        assert_eq!(plain(text), wanted);
    }
}

#[test]
fn what_has_the_shape_of_a_key_is_hidden_wherever_it_stands() {
    for key in [
        HUGGING,
        AMAZON,
        WANDB,
        JWT,
        "AKIAIOSFODNN7EXAMPLE",
        "sk-proj-aB1cD2eF3gH4iJ5kL6mN7",
        "sk-ant-api03-aB1cD2eF3gH4iJ5kL6mN7-x",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "github_pat_11ABCDEFG0aBcDeFgHiJkL",
        "wandb_v1_aB1cD2eF3gH4iJ5kL6mN7",
        "AIzaSyA1bC2dE3fG4hI5jK6lM7nO8pQ9",
        "xoxb-123456789012-aBcDeFgH",
        "ya29.a0AfH6SMBx1234567890",
    ] {
        for (before, after) in
            [("", ""), ("got ", " and went on"), ("key='", "'"), ("x:", ","), ("[", "]."), ("a=", ";")]
        {
            let text = format!("{before}{key}{after}");
            assert_eq!(plain(&text), format!("{before}{MASK}{after}"));
        }
    }
}

#[test]
fn passwords_of_addresses_are_hidden() {
    for (text, wanted) in [
        ("https://me:pw1@host/x", "https://[masked]@host/x"),
        ("see http://a:b@c/d and ftp://e@f.", "see http://[masked]@c/d and ftp://[masked]@f."),
        ("redis://:pw@host:6379/0", "redis://[masked]@host:6379/0"),
        ("postgres://u:p/w@host/x", "postgres://[masked]@host/x"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("https://host/a@b?c=d@e", "https://host/a@b?c=d@e"),
        ("git+ssh://git@github.com/x.git", "git+ssh://git@github.com/x.git"),
        ("root:hunter2@db.local", "root:[masked]@db.local"),
        ("docker.io/library/python:3.12@sha256:abc", "docker.io/library/python:3.12@sha256:abc"),
        ("mailto:me@example.com", "mailto:me@example.com"),
    ] {
        assert_eq!(plain(text), wanted);
    }
}

#[test]
fn private_keys_are_hidden_whole_and_nothing_else_is() {
    let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\nAgEAAoIBAQC7VJTUt9Us8cKj\nab==\n";
    let (begin, end) = ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----");
    let whole = format!("{begin}\n{body}{end}");
    for (text, wanted) in [
        (format!("a\n{whole}\nb\n"), "a\n[masked]\nb\n".to_owned()),
        (format!("{whole}\n{whole}\nb"), "[masked]\n[masked]\nb".to_owned()),
        // As a string within one line, as service accounts have it.
        (
            format!("{{\"k\": \"{}\", \"a\": 1}}\nb", whole.replace('\n', "\\n")),
            "{\"k\": \"[masked]\", \"a\": 1}\nb".to_owned(),
        ),
        // With the same words before each line.
        (
            whole.lines().fold("x\n".to_owned(), |all, line| all + "[rank0]: " + line + "\n") + "y",
            "x\n[rank0]: [masked]\ny".to_owned(),
        ),
        (
            format!("{begin}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB\n\n{body}{end} z"),
            "[masked] z".to_owned(),
        ),
        // Cut off at either side.
        (format!("a\n{begin}\n{body}went on\n"), "a\n[masked]\nwent on\n".to_owned()),
        (format!("it said\n{body}{end}\nb"), "it said\n[masked]\nb".to_owned()),
        (format!("a {end}{end} b"), "a [masked][masked] b".to_owned()),
        (format!("{begin}\ndone\nit goes on\n"), "[masked]\ndone\nit goes on\n".to_owned()),
        (format!("no {begin} was found\nb"), "no [masked] was found\nb".to_owned()),
        ("-----BEGIN CERTIFICATE-----\nMII\n".to_owned(), "-----BEGIN CERTIFICATE-----\nMII\n".to_owned()),
    ] {
        assert_eq!(plain(&text), wanted, "{text}");
    }
}

#[test]
fn what_a_person_needs_stays() {
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
        "--epochs 10 --learning-rate 0.0003 --model meta-llama/Llama-3.1-8B-Instruct-GGUF",
        "sk-learn-pipeline-with-scaler and npm_config_registry_url and a-quite-long-name-without-digits",
        "saved checkpoints/Run7/Step1000/Rank0/Model/OptimizerState/Shard0of8.bin",
    ] {
        assert_eq!(plain(text), text);
    }
}

#[test]
fn ids_of_ones_own_are_no_keys() {
    let id = "cm5ruv5klcrcszvjy7k4ye2ycm";
    let masker = Masker::default().knowing([id.to_owned()]);
    let path = format!("/h/attempts/{id}/src/train.py");
    assert_eq!((masker.text(&path), masker.value("X", &path)), (path.clone(), path.clone()));
    assert!(plain(&path).contains(MASK));
    // Nor are those that the contract hands to the program.
    assert_eq!(with("OUTLAST_ATTEMPT", id).knowing([id.to_owned()]).text(&path), path);
    let given = BTreeMap::from([("A_SECRET".to_owned(), id.to_owned())]);
    assert!(!Masker::new(&given).knowing([id.to_owned()]).text(&path).contains(id));
}

#[test]
fn values_are_hidden_by_name_and_by_look() {
    let masker = Masker::default();
    for (name, value, wanted) in [
        ("WANDB_API_KEY", "short", MASK),
        ("USE_AUTH", "true", "true"),
        ("HF_TOKEN", "", ""),
        ("SEED", "7", "7"),
        (
            "PATH",
            "/opt/cache/x3kq9ywz1v5b7n2c4d6f8g0h1/bin:/bin",
            "/opt/cache/x3kq9ywz1v5b7n2c4d6f8g0h1/bin:/bin",
        ),
        ("OUTLAST_ATTEMPT", "eyagym7z4vxou7tdfb4tceggbid4", "eyagym7z4vxou7tdfb4tceggbid4"),
        ("OUTLAST_API_TOKEN", "eyagym7z4vxou7tdfb4tceggbid4", MASK),
        ("X", "123e4567-e89b-12d3-a456-426614174000", MASK),
        ("SOME", "wJalrXUtnFEMI7K7MDENG", MASK),
        ("SOME", AMAZON, MASK),
        ("DATABASE", "postgres://me:hunter2@db:5432/x", "postgres://[masked]@db:5432/x"),
        ("DATA", "/data/imagenet-1k/train", "/data/imagenet-1k/train"),
        ("MODEL", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
    ] {
        assert_eq!(masker.value(name, value), wanted, "{name}={value}");
    }
    let command: Vec<String> = ["t", "--token", "x", "--lr", "3"].map(String::from).to_vec();
    assert_eq!(masker.command(&command), ["t", "--token", MASK, "--lr", "3"]);
    let mut value = serde_json::json!({"env": {"HF_TOKEN": "x", "A": [HUGGING]}, "n": 1});
    masker.json(&mut value);
    assert_eq!(value, serde_json::json!({"env": {"HF_TOKEN": MASK, "A": [MASK]}, "n": 1}));
}

/// How long the best of some tries takes: what else the machine does counts
/// the less, the more there are.
fn best(text: &str, tries: u32) -> std::time::Duration {
    let took = |_| {
        let began = std::time::Instant::now();
        assert!(!plain(text).is_empty());
        began.elapsed()
    };
    (0..tries).map(took).min().unwrap()
}

#[test]
fn hostile_text_costs_its_length() {
    for piece in [
        "a.",
        "a:",
        "a=",
        "a/",
        "a+/",
        "\\n",
        "hf_abcdefghijABCDEFGHIJ/",
        "token=a;",
        "token=\"",
        "token='\\\"",
        "token=[",
        "--",
        "\"",
        "://",
        "://a:b",
        "://a@",
        "eyJhbGciOiJIUzI1NiJ9.",
        "bearer ",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\na\n",
        "-----END PRIVATE KEY-----\n",
        "-----BEGIN ",
        "a\n-----BEGIN A PRIVATE KEY",
        "authorization: a ",
        "cookie: ",
        "[masked]",
    ] {
        // Work that grows with the square would be a thousand times as much, each
        // time; a machine that is busy with something else is so now and then.
        let (short, long) = (piece.repeat(8_192 / piece.len()), piece.repeat(262_144 / piece.len()));
        let mut measured = (0..5).map(|_| (best(&short, 9), best(&long, 3)));
        let is_linear = measured.any(|(short, long)| long < short * 256);
        assert!(is_linear, "{piece}: 256 KiB take more than 256 times as long as 8 KiB");
    }
}

/// Pieces that secrets and what is beside them are made of.
fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "token",
        "password",
        "Authorization",
        "Cookie",
        "--api-key",
        "Bearer",
        "Basic",
        "=",
        ": ",
        ":",
        " ",
        "\n",
        "\\n",
        "\"",
        "'",
        "\\\"",
        "[",
        "]",
        "(",
        ")",
        "{",
        ",",
        ";",
        "&",
        "@",
        "/",
        "://",
        ".",
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----END RSA PRIVATE KEY-----",
        "MIIEvQIBADANBgkqhkiG9w0BAQ",
        HUGGING,
        AMAZON,
        WANDB,
        JWT,
        MASK,
        "hunter2",
        "true",
        "-",
        "ab==",
        "host",
        "1234",
        "é",
    ]);
    prop_oneof![4 => fixed.prop_map(str::to_owned), 1 => "\\PC{0,3}"]
}

#[test]
fn given_secrets_are_hidden_whatever_they_look_like() {
    let mask = Masker::new(&BTreeMap::new()).hiding(["plain words", "abc"]);
    assert_eq!(mask.text("say plain words, abc and cGxhaW4gd29yZHM="), "say [masked], abc and [masked]");
    assert_eq!(mask.text("plain%20words"), MASK);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn masking_again_changes_nothing(pieces in proptest::collection::vec(piece(), 0..14), secret in "[a-z\\]\\[ ]{6,9}") {
        let text: String = pieces.concat();
        for masker in [Masker::default(), with("A_SECRET", &secret), with("A_SECRET", "hunter2")] {
            let once = masker.text(&text);
            prop_assert_eq!(masker.text(&once), once, "{:?}", text);
        }
    }

    #[test]
    fn no_key_survives_among_anything(
        before in proptest::collection::vec(piece(), 0..8), after in proptest::collection::vec(piece(), 0..8),
        key in prop::sample::select(vec![
            "hf_zYxWvUtSrQpOnMlKjIhGfEdCbA9876543210", "kR3vXq/L9sTmZp2+WbYc7NdFh5GjUa8EoQiV4xMt",
            "9b1deb4d3b7d4bad9bdd2b0d7b3dcb6d2b0d7b3d", "ghp_Zz16C7e42F292c6912E7710c838347Ae178B",
        ]),
    ) {
        let masked = plain(&format!("{} {key} {}", before.concat(), after.concat()));
        prop_assert!(!masked.contains(key), "{masked}");
    }

    #[test]
    fn no_registered_secret_survives(secret in "[!-~]{8,40}", before in "\\PC{0,40}", after in "\\PC{0,40}") {
        let masked = with("MY_SECRET", &secret).text(&format!("{before} {secret} {after}"));
        prop_assert!(!masked.contains(&secret) || MASK.contains(&secret), "{masked}");
    }

    #[test]
    fn a_named_secret_goes_alone(
        name in prop::sample::select(vec!["token", "DB_PASSWORD", "apiKey"]), sign in prop::sample::select(vec!["=", ": ", "\": \""]),
        secret in "[a-zA-Z0-9!#$%*+/?^_~-]{8,30}", end in prop::sample::select(vec![" ", "\"", ",", "\n"]),
        before in "[a-z ]{0,20}", after in "[a-z ]{0,20}",
    ) {
        prop_assume!(!secret.bytes().all(|b| b.is_ascii_digit()));
        let text = format!("{before} {name}{sign}{secret}{end}{after}");
        let wanted = format!("{before} {name}{sign}{MASK}{end}{after}");
        // A quote that is not closed ends at a blank, too.
        prop_assert_eq!(plain(&text), wanted);
    }

    #[test]
    fn random_keys_are_seen(key in "[A-Za-z0-9]{40}") {
        // Ten digits in forty on average; chance makes few exceptions.
        let digits = key.chars().filter(char::is_ascii_digit).count();
        prop_assume!(digits >= 3);
        prop_assert!(is_key(&key), "{key}");
    }

    #[test]
    fn plain_words_stay(words in "([a-z]{1,12}[ .,;()]){0,20}") {
        prop_assert_eq!(plain(&words), words);
    }
}

#[test]
fn however_many_lines_one_secret_has_the_others_are_hidden_too() {
    let lines: Vec<String> = (0..400).map(|n| format!("line{n:04}-of-a-very-long-key-file")).collect();
    let (file, token) = (lines.join("\n"), "s3cret-tok");
    let masker = Masker::default().hiding([file.as_str(), token]);
    assert_eq!(masker.text("said s3cret-tok loudly"), "said [masked] loudly");
    let more = masker.hiding(["another-one"]);
    assert_eq!(more.text("s3cret-tok and another-one"), "[masked] and [masked]");
}
