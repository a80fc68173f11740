//! The configuration as a person meets it: whole files in, whole reports out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use lifecycle::spec::{EnvironmentKind, HangAction, NoticeSignal, NoticeSource, RestoreMode, RunSpec};
use proptest::prelude::*;

use super::layers::settings;
use super::*;
use full::FULL;

mod full;

/// A project directory with everything that can configure it.
struct Case {
    dir: tempfile::TempDir,
    env: BTreeMap<String, String>,
    flags: Vec<(String, String)>,
}

fn case(project: &str) -> Case {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".git")).unwrap();
    fs::write(dir.path().join("outlast.toml"), project).unwrap();
    Case { dir, env: BTreeMap::new(), flags: Vec::new() }
}

impl Case {
    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.push((name.to_owned(), value.to_owned()));
        self
    }

    fn user(self, text: &str) -> Self {
        fs::write(self.dir.path().join("user.toml"), text).unwrap();
        self
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn load(&self) -> Result<Loaded, ConfigErrors> {
        let user = self.path().join("user.toml");
        load(&Sources {
            start_dir: self.path(),
            user_file: Some(&user),
            env: &self.env,
            flags: &self.flags,
            file: None,
        })
    }

    /// The report, without the name of the temporary directory.
    fn report(&self) -> String {
        let report = self.load().expect_err("the case should be refused").to_string();
        report.replace(&self.path().display().to_string(), "<dir>")
    }
}

#[test]
fn an_empty_file_and_none_at_all_are_valid() {
    let loaded = case("").load().unwrap();
    assert!(loaded.file.is_some());
    assert!(loaded.origins.values().all(|origin| *origin == Origin::Default));

    let bare = case("");
    fs::remove_file(bare.path().join("outlast.toml")).unwrap();
    let loaded = bare.load().unwrap();
    assert_eq!((loaded.file.as_ref(), loaded.root.as_path()), (None, bare.path()));
    let spec = loaded.run_spec(&["python".to_owned(), "x.py".to_owned()]).unwrap();
    assert_eq!(spec.command, ["python", "x.py"]);
    let least = serde_json::json!({
        "project": spec.project, "name": spec.name, "command": ["python", "x.py"], "provider": "local",
    });
    let least: RunSpec = serde_json::from_value(least).unwrap();
    assert_eq!(spec, least, "the defaults here and in the specification are the same");
}

#[test]
fn higher_sources_win_one_setting_at_a_time() {
    let case = case("[run]\ngrace = \"2s\"\nenv.B = \"file\"\n[budget]\nmax_usd = 2\n")
        .user("[run]\ngrace = \"1s\"\nenv = { A = \"user\", B = \"user\" }\n[retry]\nfailures = 9\n")
        .env("OUTLAST_CONFIG_BUDGET__MAX_USD", "3")
        .env("OUTLAST_CONFIG_RUN__ENV__My__Name", "env")
        .env("OUTLAST_CONFIG_RUN__COMMAND", "python 'a b.py'")
        .env("OUTLAST_CONFIG_ARTIFACTS__GLOBS", "[\"a\", \"b{c,d}\"]")
        .env("OUTLAST_HOME", "/nowhere")
        .flag("budget.max_usd", "4.5")
        .flag("source.exclude", "data/**")
        .flag("run.env.C", "5");
    let loaded = case.load().unwrap();
    let config = &loaded.config;
    assert_eq!(config.run.grace, Duration::from_secs(2));
    assert_eq!(config.retry.failures, 9);
    assert_eq!(config.budget.max_usd, Some(4.5));
    assert_eq!(config.run.command, ["python", "a b.py"]);
    assert_eq!(config.artifacts.globs, ["a", "b{c,d}"]);
    assert_eq!(config.source.exclude, ["data/**"]);
    let env: Vec<_> = config.run.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["A=user", "B=file", "C=5", "My__Name=env"]);

    let origin =
        |name: &str| loaded.origins[name].to_string().replace(&case.path().display().to_string(), "");
    assert_eq!(origin("run.grace"), "/outlast.toml:2");
    assert_eq!(origin("run.env.A"), "/user.toml:3");
    assert_eq!(origin("run.env.B"), "/outlast.toml:3");
    assert_eq!(origin("run.env.My__Name"), "variable OUTLAST_CONFIG_RUN__ENV__My__Name");
    assert_eq!(origin("budget.max_usd"), "flag budget.max_usd");
    assert_eq!(origin("retry.losses"), "default");
}

#[test]
fn every_key_refuses_a_date() {
    for setting in settings() {
        let (section, key) = setting.split_once('.').unwrap();
        let report = case(&format!("[{section}]\n{key} = 1979-05-27")).report();
        assert!(report.contains(&format!("`{setting}` must be")), "{setting}: {report}");
        assert!(report.contains("outlast.toml:2:"), "{setting}: {report}");
    }
}

#[test]
fn a_value_in_the_place_of_a_secret_is_refused_and_not_shown() {
    let text = "[run]\nenv = { TWICE = \"1\" }\n[secrets]\nA = \"canary\"\nB = { value = \"canary\" }\nC = { env = \"X\", \
                file = \"/canary\" }\nD = { file = \"token\" }\nE = { keyring = \"alone\" }\nOUTLAST_RUN_ID = { env = \"X\" }\n\
                PATH = { env = \"X\" }\nF = [\"canary\"]\nTWICE = { env = \"X\" }\n";
    let report = case(text).report();
    assert!(!report.contains("canary"), "{report}");
    insta::assert_snapshot!(report);
    let report = case("[secrets]\nHF_TOKEN = canary\n").report();
    assert!(report.contains("not valid TOML") && !report.contains("canary"), "without quotes: {report}");
    let report = case("").flag("secrets.HF_TOKEN", "canary").report();
    assert!(report.contains("unknown setting `secrets.HF_TOKEN`") && !report.contains("canary"), "{report}");
}

#[test]
fn data_that_cannot_be_fetched_is_refused() {
    let sum = "a".repeat(64);
    let text = format!(
        "[data]\nhf = [\"org/model\", \"../etc\"]\nurls = [{{ url = \"https://h/x\", sha256 = \"{sum}\", to = \"../x\" }}]\n"
    );
    insta::assert_snapshot!(case(&text).report());
    for bad in [
        "urls = \"x\"",
        "urls = [1]",
        "urls = [{ url = \"https://h/x\" }]",
        "urls = [{ uri = \"x\" }]",
        "hf = \"org/model\"",
    ] {
        assert!(case(&format!("[data]\n{bad}\n")).report().contains("data."), "{bad}");
    }
    let twice = case("[run]\nenv = { HF_HOME = \"/x\" }\n[data]\nhf = [\"a/b\"]\n").report();
    assert!(twice.contains("`HF_HOME` stands in [run] env"), "{twice}");
    let flagged = format!("[{{ url = \"https://h/x\", sha256 = \"{sum}\", to = \"x\" }}]");
    let loaded = case("").flag("data.urls", &flagged).flag("data.hf", "a/b").load().unwrap();
    assert_eq!((loaded.config.data.spec.urls.len(), loaded.config.data.spec.hf.len()), (1, 1));
}

#[test]
fn unknown_names_are_refused_with_a_suggestion() {
    let text = "[run]\ncomand = \"x\"\nmax_usd = 3\nzzz = 1\n[chekpoints]\n[zebra]\n";
    insta::assert_snapshot!(case(text).report());
}

#[test]
fn keys_outside_sections_are_refused() {
    insta::assert_snapshot!(case("command = \"x\"\nrun = 5\nname = \"a\"\n[[budget]]\n").report());
}

#[test]
fn wrong_types_are_refused() {
    let text = "[run]\ncommand = 5\ngrace = 30\nworkdir = \"\"\nenv = { A = [1], B = 1 }\n[source]\n\
                include = \"a\"\nexclude = [1, \"b\"]\n[retry]\nfailures = \"2\"\n[budget]\nmax_usd = \"5\"\n";
    insta::assert_snapshot!(case(text).report());
}

#[test]
fn impossible_values_are_refused() {
    let text = "[project]\nname = \"My Project\"\n[run]\nprovider = \"locl\"\ngrace = \"500ms\"\n\
                [environment]\nkind = \"pip\"\n[checkpoints]\nresume_args = [\"--resume\"]\nquiet = \"0s\"\n\
                keep_local = 0\nuplink_percent = 101\nrestore = \"inplace\"\n[retry]\nlosses = -1\n[budget]\nmax_usd = 0\n\
                [logs]\nspool = \"2Gig\"\n[local]\nusd_per_hour = -0.1\n";
    insta::assert_snapshot!(case(text).report());
}

#[test]
fn paths_that_leave_the_tree_are_refused() {
    let text = "[run]\nworkdir = \"../x\"\n[checkpoints]\npaths = [\"/data/*.pt\", \"ok\", \"a/../../b\", \"[\"]\n\
                [source]\nexclude = [\"!x\", \"~/y\", \"\"]\n";
    insta::assert_snapshot!(case(text).report());
}

#[test]
fn commands_that_need_a_shell_are_refused() {
    insta::assert_snapshot!(case("[run]\ncommand = \"python train.py | tee log\"\n").report());
}

#[test]
fn reserved_variables_are_refused_and_their_values_not_shown() {
    let case = case("[run.env]\nOUTLAST_RUN_ID = \"x\"\n\"A B\" = 1\n")
        .env("OUTLAST_CONFIG_RUN__ENV__OUTLAST_RESUME_FROM", "s3cret")
        .env("OUTLAST_CONFIG_TOKEN", "s3cret")
        .flag("run.env.OUTLAST_HOME", "s3cret");
    let report = case.report();
    assert!(!report.contains("s3cret"), "{report}");
    insta::assert_snapshot!(report);
}

#[test]
fn variables_and_flags_are_checked_like_files() {
    let case = case("[budget]\nmax_usd = -1\n")
        .user("[local]\nusd = 1\n")
        .env("OUTLAST_CONFIG_BUDGET__MAXUSD", "1")
        .env("OUTLAST_CONFIG_BUDGET__max_usd", "1")
        .env("OUTLAST_CONFIG_RETRY__FAILURES", "many")
        .env("OUTLAST_CONFIG_ARTIFACTS__GLOBS", "[\"a\"")
        .env("OUTLAST_CONFIG_RUN__ENV", "A=1")
        .env("OUTLAST_CONFIG_", "")
        .flag("budget.max_usd", "lots")
        .flag("budget.max_usd.x", "1")
        .flag("nonsense", "1");
    insta::assert_snapshot!(case.report());
}

#[test]
fn broken_syntax_is_reported_with_its_line_and_the_rest_is_still_checked() {
    let case =
        case("[run]\ncommand = [\"python\", \n\n[budget]\nmax_usd = = 5\n").flag("budget.max_usd", "0");
    insta::assert_snapshot!(case.report());
    insta::assert_snapshot!("duplicate_keys", self::case("[run]\nname = \"a\"\nname = \"b\"\n").report());
}

#[test]
fn in_place_needs_paths_wherever_they_come_from() {
    let text = "[checkpoints]\nrestore = \"in-place\"\n";
    insta::assert_snapshot!(case(text).report());
    assert!(case(text).flag("checkpoints.paths", "*.pt").load().is_ok());
}

#[test]
fn impossible_limits_and_images_are_refused() {
    let text = "[run]\npty = \"yes\"\n[environment]\nkind = \"venv\"\nimage = \"python 3\"\n[limits]\nmemory = 5\n\
                cpus = 0\npids = 1\nopen_files = \"many\"\n";
    insta::assert_snapshot!(case(text).report());
    let both = case("[environment]\nkind = \"conda\"\nimage = \"python:3.12\"\n");
    assert!(both.report().contains("outlast.toml:2:"), "{}", both.report());
    let flags = case("").flag("run.pty", "true").flag("limits.memory", "64MiB").flag("limits.pids", "9");
    let config = flags.load().unwrap().config;
    assert_eq!((config.run.pty, config.limits.memory, config.limits.pids), (true, Some(64 << 20), Some(9)));
    for (flag, value, why) in [
        ("environment.image", "3", "cannot be the name of a container image"),
        ("environment.image", "3.12", "docker.io/library/python:3.12"),
        ("limits.memory", "-1", "is not a size"),
        ("limits.memory", "99999999999TiB", "is too large"),
    ] {
        let report = case("").flag(flag, value).report();
        assert!(report.contains(why), "{flag}={value}: {report}");
    }
    let negative = case("[limits]\nmemory = -1\n[run]\ngrace = -5\n").report();
    assert_eq!(negative.matches("cannot be negative").count(), 2, "{negative}");
    assert!(!negative.contains("-1B") && !negative.contains("-5s"), "{negative}");
    let grace = case("[run]\ngrace = \"soon\"\n").report();
    assert!(grace.contains("(s, m, h, d)"), "{grace}");
    assert!(case("").flag("run.pty", "yes").report().contains("must be true or false"));
}

#[test]
fn impossible_limits_of_health_are_refused() {
    let text = "[health]\ninterval = 10\ndisk_percent = 101\nmemory_percent = 0\ngpu_celsius = \"hot\"\n\
                [hang]\naction = \"reboot\"\nafter = \"0s\"\n";
    insta::assert_snapshot!(case(text).report());
}

#[test]
fn a_missing_command_says_how_to_give_one() {
    let case = case("");
    let report = || case.load().unwrap().run_spec(&[]).unwrap_err().to_string();
    assert!(report().contains("outlast run -- python train.py\n"), "{}", report());
    fs::write(case.path().join("main.py"), "").unwrap();
    insta::assert_snapshot!(report());
    assert!(case.load().unwrap().run_spec(&["a\0".to_owned()]).is_err());
    assert!(case.load().unwrap().run_spec(&[String::new()]).is_err());
}

#[test]
fn a_named_file_is_taken_and_must_exist() {
    let case = case("");
    fs::create_dir(case.path().join("conf")).unwrap();
    let load = || {
        let file = Some(Path::new("conf/other.toml"));
        let user = Some(Path::new("/nonexistent"));
        load(&Sources { start_dir: case.path(), user_file: user, env: &case.env, flags: &[], file })
    };
    assert!(load().unwrap_err().to_string().contains("cannot read conf/other.toml"));
    fs::write(case.path().join("conf/other.toml"), "[budget]\nmax_usd = 1").unwrap();
    let loaded = load().unwrap();
    assert_eq!(loaded.config.budget.max_usd, Some(1.0));
    assert_eq!(loaded.root, case.path().join("conf"));
    assert_eq!(loaded.config.project.name, "conf");
}

#[test]
fn what_is_shown_reads_back_to_the_same() {
    for text in ["", FULL] {
        let first = case(text).load().unwrap();
        for shown in [first.show(false), first.show(true)] {
            assert_eq!(case(&shown).load().unwrap().config, first.config, "{shown}");
        }
    }
    let case = case(FULL).flag("budget.max_usd", "4.5");
    let shown = case.load().unwrap().show(true);
    insta::assert_snapshot!(shown.replace(&case.path().display().to_string(), "<dir>"));
    let json = case.load().unwrap().show_json();
    assert_eq!(json["config"]["budget"]["max_usd"], 4.5);
    assert_eq!(json["origins"]["budget.max_usd"]["kind"], "flag");
    assert_eq!(json["origins"]["run.env.SEED"]["line"], 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_text_never_panics(text in "(\\[[a-z]{0,4}\\]|[a-z_]{1,6} = |\"|'|\\[|\\]|,|[0-9.-]{1,4}|\\n|\\PC|\\t|=|#){0,40}") {
        let case = case(&text);
        if let Err(errors) = case.load() {
            prop_assert!(errors.to_string().starts_with("error: "));
        }
    }

    #[test]
    fn random_values_never_panic(index in 0_usize..100, value in "\\PC{0,30}|\\[\\PC{0,20}\\]") {
        let settings = settings();
        let case = case("").flag(&settings[index % settings.len()], &value);
        if let Err(errors) = case.load() {
            let report = errors.to_string();
            prop_assert!(!report.contains('\x1b'));
        }
    }
}
