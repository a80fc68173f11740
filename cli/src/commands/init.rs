//! `outlast init`: an `outlast.toml` to begin with, made of what lies in the
//! directory. What was found is said; what was not is left out, never guessed. A
//! file that is there is not touched without `--force`, and never half written.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::app::Context;
use crate::args::InitArgs;
use crate::config;
use crate::exit_code::{ExitCode, Failure};

const FILE: &str = "outlast.toml";
/// Files that a training is usually begun with, the likeliest first.
const PROGRAMS: [&str; 6] = ["train.py", "main.py", "run.py", "finetune.py", "pretrain.py", "src/train.py"];
/// Files that say which packages are used.
const PACKAGES: [&str; 5] =
    ["requirements.txt", "pyproject.toml", "environment.yml", "environment.yaml", "setup.py"];
/// Bytes of such a file that are looked at.
const LOOKED_AT: usize = 1 << 20;

/// What was found in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Found {
    program: Option<&'static str>,
    /// A template of metrics, and what says so.
    template: Option<(&'static str, &'static str)>,
}

/// Does it.
///
/// # Errors
/// The directory is not there, has the file already, or cannot be written; the name is none.
pub fn perform(ctx: &Context, args: &InitArgs) -> anyhow::Result<ExitCode> {
    let dir = fs::canonicalize(&args.dir).map_err(|error| {
        Failure::new(ExitCode::NotFound, format!("{}: {error}", args.dir.display()))
            .help("make the directory first")
    })?;
    let own = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = match &args.name {
        Some(name) => named(name)?,
        None => Some(config::project_name(&own)).filter(|name| !name.is_empty()).unwrap_or("project".into()),
    };
    let found = look(&dir);
    let text = text(&name, &args.command, args.template.as_deref(), &found);
    let file = dir.join(FILE);
    write(&file, &text, args.force)?;
    if args.json {
        let template = args.template.as_deref().or(found.template.map(|(template, _)| template));
        ctx.printer.json(&json!({
            "file": file, "name": name, "program": found.program, "template": template,
        }));
        return Ok(ExitCode::Ok);
    }
    ctx.printer.note(&format!("{} is written for the project {name}", file.display()));
    if let Some((template, file)) = found.template.filter(|_| args.template.is_none()) {
        ctx.printer.note(&format!("{file} names {template}: its metrics are read so"));
    }
    let next = if args.command.is_empty() && found.program.is_none() {
        "no training program was found: write [run] command, or give it with outlast run -- COMMAND"
    } else {
        "outlast config show tells all settings, outlast run begins"
    };
    ctx.printer.note(next);
    Ok(ExitCode::Ok)
}

/// A name that a project may have.
fn named(name: &str) -> Result<String, Failure> {
    let good = config::project_name(name);
    if good == name && !good.is_empty() {
        return Ok(good);
    }
    let failure = Failure::new(ExitCode::Usage, "a name holds a-z, 0-9 and single hyphens between them");
    Err(if good.is_empty() { failure } else { failure.help(format!("for example: --name {good}")) })
}

fn look(dir: &Path) -> Found {
    let program = PROGRAMS.into_iter().find(|name| dir.join(name).is_file());
    let template = PACKAGES.into_iter().find_map(|name| {
        let text = beginning(&dir.join(name)).ok()?;
        Some((template_of(&text)?, name))
    });
    Found { program, template }
}

fn beginning(path: &Path) -> io::Result<String> {
    use io::Read as _;
    // A pipe of that name would hold this up for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LOOKED_AT as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The template of the training library that a list of packages names.
fn template_of(packages: &str) -> Option<&'static str> {
    let known = [
        ("lightning", "lightning"),
        ("pytorch-lightning", "lightning"),
        ("pytorch_lightning", "lightning"),
        ("transformers", "transformers"),
        ("keras", "keras"),
    ];
    let uncommented = packages.lines().map(|line| line.split('#').next().unwrap_or_default());
    let names: Vec<String> = uncommented
        .flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))))
        .map(str::to_ascii_lowercase)
        .collect();
    known.iter().find(|(package, _)| names.iter().any(|name| name == package)).map(|(_, template)| *template)
}

/// The file's text.
fn text(name: &str, command: &[String], template: Option<&str>, found: &Found) -> String {
    let quoted = |text: &str| Value::from(text).to_string().replace('\u{7f}', "\\u007f");
    let listed = |words: &[String]| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ");
    let command = match (command, found.program) {
        ([], None) => "# command = [\"python\", \"train.py\"]".to_owned(),
        ([], Some(program)) => format!("command = [\"python\", {}]", quoted(program)),
        (words, _) => format!("command = [{}]", listed(words)),
    };
    let metrics = match template.or(found.template.map(|(template, _)| template)) {
        Some(template) => format!("template = {}", quoted(template)),
        None => "# template = \"transformers\"  # or lightning, keras, classification, regression".to_owned(),
    };
    format!(
        "# All settings with their meaning: outlast config show\n\
         [project]\nname = {}\n\n[run]\n{command}\n\n\
         # Where the program saves; what is complete there is kept, and a new machine goes on from it.\n\
         [checkpoints]\n# paths = [\"checkpoints/*\"]\n\n\
         # Files to bring back.\n[artifacts]\n# globs = [\"results/**\"]\n\n\
         # How curves are read: outlast analyze --write-schema makes this of a log.\n[metrics]\n{metrics}\n\n\
         # Nothing is rented without both.\n[budget]\n# max_usd = 20\n# max_usd_per_hour = 1\n",
        quoted(name)
    )
}

/// Writes it whole or not at all.
fn write(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let dir = file.parent().unwrap_or(Path::new("."));
    let cannot = |error: &io::Error| {
        Failure::new(ExitCode::CannotWrite, format!("{}: {error}", file.display()))
            .help("go to a directory that you may write to")
    };
    let mut beside = tempfile::Builder::new()
        .prefix(".outlast")
        .permissions(mode())
        .tempfile_in(dir)
        .map_err(|e| cannot(&e))?;
    beside.write_all(text.as_bytes()).and_then(|()| beside.as_file().sync_all()).map_err(|e| cannot(&e))?;
    let placed = if force { beside.persist(file) } else { beside.persist_noclobber(file) };
    match placed {
        Ok(_) => {}
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Failure::new(ExitCode::CannotWrite, format!("{} is there already", file.display()))
                .help("--force writes it anew; what is in it is lost then"));
        }
        Err(failed) => return Err(cannot(&failed.error)),
    }
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| cannot(&error))
}

/// As any file that a person writes; secrets do not belong in it.
fn mode() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packages_are_names_and_not_parts_of_names() {
        for (text, template) in [
            ("torch\ntransformers==4.44\n", Some("transformers")),
            ("pytorch-lightning>=2\n", Some("lightning")),
            ("dependencies = [\"keras~=3.0\"]", Some("keras")),
            ("# transformers\ntorch", None),
            ("sentence-transformers", None),
            ("", None),
        ] {
            assert_eq!(template_of(text), template, "{text}");
        }
    }

    #[test]
    fn what_is_there_is_kept_unless_somebody_insists() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        write(&file, "one", false).unwrap();
        let refused = write(&file, "two", false).unwrap_err();
        assert_eq!(
            (refused.code, fs::read_to_string(&file).unwrap().as_str()),
            (ExitCode::CannotWrite, "one")
        );
        write(&file, "three", true).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "three");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    proptest! {
        #[test]
        fn whatever_is_written_can_be_read(words in proptest::collection::vec("\\PC{1,20}|[\u{1}-\u{7f}]{1,5}", 0..4)) {
            let said = text("my-project", &words, Some("keras"), &Found::default());
            let read: toml::Value = toml::from_str(&said).unwrap();
            let command = read["run"].get("command").and_then(toml::Value::as_array).cloned().unwrap_or_default();
            let command: Vec<String> = command.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
            prop_assert_eq!(command, words);
        }
    }
}
