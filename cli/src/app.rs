//! From the command line to the exit code. Hidden verbs are told apart before
//! anything else happens: guard and keeper are single-threaded and must meet
//! no runtime and no argument parser.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::args::{Args, ControllerVerb, Verb};
use crate::commands::analyze::follow::Followers;
use crate::config::ConfigErrors;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{Printer, Verbosity};
use crate::{commands, daemon};

/// What every verb is given.
#[derive(Clone)]
pub struct Context {
    /// Writes everything that is seen.
    pub printer: Printer,
    /// The environment of the process.
    pub env: BTreeMap<String, String>,
    /// Runs that this process looked at: what is asked again reads on.
    pub(crate) followers: Arc<Mutex<Followers>>,
}

impl Context {
    /// One that has looked at nothing yet.
    #[must_use]
    pub fn new(printer: Printer, env: BTreeMap<String, String>) -> Self {
        Self { printer, env, followers: Arc::default() }
    }

    /// The data directory: `OUTLAST_HOME`, or `outlast` in the user's data
    /// directory. Absolute.
    ///
    /// # Errors
    /// Where nothing says whose home this is.
    pub fn home(&self) -> Result<PathBuf, Failure> {
        home_of(&self.env)
    }
}

fn home_of(env: &BTreeMap<String, String>) -> Result<PathBuf, Failure> {
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = set("OUTLAST_HOME") {
        let refuse =
            |why: String| Failure::new(ExitCode::BadInput, format!("OUTLAST_HOME={}: {why}", home.display()));
        // Where `..` leads depends on links: the system says it once, before
        // any machine is told a path.
        if home.components().any(|part| part == std::path::Component::ParentDir) {
            return home.canonicalize().map_err(|error| {
                refuse(format!("{error}")).help("write it without `..`, or make the directory first")
            });
        }
        return std::path::absolute(&home).map_err(|error| refuse(error.to_string()));
    }
    // Relative values are to be ignored, says the specification.
    let data = set("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let user = set("HOME").filter(|path| path.is_absolute());
    data.or_else(|| user.map(|user| user.join(".local/share"))).map(|base| base.join("outlast")).ok_or_else(
        || {
            Failure::new(ExitCode::BadInput, "no home directory is known")
                .help("set OUTLAST_HOME to a directory that outlast may keep its state in")
        },
    )
}

/// The whole program.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    hidden(&argv).unwrap_or_else(|| visible(argv).into())
}

/// What the program does for itself, told apart from the arguments alone.
fn hidden(argv: &[OsString]) -> Option<std::process::ExitCode> {
    if matches!(argv, [_, verb, flag] if verb == "agent" && flag == "--version") {
        return Some(agent::command::version());
    }
    if let [_, verb, state, dir, flag, lane] = argv
        && verb == "link"
        && state == "--state"
        && flag == "--lane"
    {
        return Some(agent::command::link(Path::new(dir), &lane.to_string_lossy()));
    }
    let [_, verb, flag, dir] = argv else { return None };
    let (verb, flag, dir) = (verb.to_str()?, flag.to_str()?, Path::new(dir));
    match (verb, flag) {
        ("guard" | "agent", "--state") | ("keeper", "--attempt") => Some(agent::command::hidden(verb, dir)),
        ("controller-serve", "--home") => {
            // It must outlive the terminal that it was started from.
            daemon::detach();
            Some(serve(dir).into())
        }
        _ => None,
    }
}

/// Is a controller until it is told to end. The log goes to stderr.
fn serve(home: &Path) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OUTLAST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(filter).init();
    let exe = match daemon::own_exe() {
        Ok(exe) => exe,
        Err(error) => {
            tracing::error!("the program's own file: {error}");
            return ExitCode::Internal;
        }
    };
    match controller::command::serve(home.to_owned(), exe) {
        Ok(()) => ExitCode::Ok,
        Err(error) if controller::command::exit_code(&error) == controller::command::EXIT_ELSEWHERE => {
            tracing::error!("{error}");
            ExitCode::Elsewhere
        }
        Err(error) if controller::command::exit_code(&error) == controller::command::EXIT_HELD => {
            tracing::info!(home = %home.display(), "another controller serves already");
            ExitCode::Busy
        }
        Err(error) => {
            let error = anyhow::Error::new(error);
            tracing::error!("{}", chain(&error));
            // A full disk may leave no room for that line: the code says it too.
            let full = ExitCode::of(&error) == ExitCode::CannotWrite;
            if full { ExitCode::CannotWrite } else { ExitCode::Internal }
        }
    }
}

fn visible(argv: Vec<OsString>) -> ExitCode {
    let args = match Args::try_parse_from(argv) {
        Ok(args) => args,
        Err(error) => {
            // A reader that went away is no failure.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::Ok,
                _ => ExitCode::Usage,
            };
        }
    };
    let text = |os: OsString| os.into_string().ok();
    let env: BTreeMap<String, String> =
        std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
    let verbosity = match (args.quiet, args.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    let context = Context::new(Printer::new(verbosity, &env), env);
    let printer = context.printer.clone();
    let done = perform(&context, args.verb);
    let code = done.unwrap_or_else(|error| tell(&printer, &error));
    match printer.finish() {
        Ok(()) => code,
        Err(error) => tell(&printer, &anyhow::Error::new(error).context("cannot write the output")),
    }
}

fn perform(context: &Context, verb: Verb) -> anyhow::Result<ExitCode> {
    if let Verb::Controller { verb: ControllerVerb::Serve { home } } = &verb {
        let home = home
            .clone()
            .map_or_else(|| context.home(), |home| Ok(std::path::absolute(&home).unwrap_or(home)))?;
        crate::remote::only_there(&home, "controller serve")?;
        return Ok(serve(&home));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(commands::perform(context, verb)))
}

/// Says why it did not work, and what to do.
fn tell(printer: &Printer, error: &anyhow::Error) -> ExitCode {
    printer.clear_progress();
    if let Some(errors) = error.downcast_ref::<ConfigErrors>() {
        printer.report(&errors.to_string());
    } else {
        printer.error(&chain(error));
    }
    // The nearest failure's advice, given as the error, a cause or context.
    let nearest = error.downcast_ref::<Failure>();
    let nearest = nearest.or_else(|| error.chain().find_map(|cause| cause.downcast_ref::<Failure>()));
    if let Some(failure) = nearest {
        for help in &failure.help {
            printer.help(help);
        }
    }
    ExitCode::of(error)
}

/// The causes in one line, each once.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(vars: &[(&str, &str)]) -> Result<PathBuf, Failure> {
        home_of(&vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn the_data_directory_is_where_it_was_asked_for() {
        assert_eq!(home(&[("OUTLAST_HOME", "/o"), ("HOME", "/h")]).unwrap(), Path::new("/o"));
        assert_eq!(home(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]).unwrap(), Path::new("/x/outlast"));
        assert_eq!(
            home(&[("XDG_DATA_HOME", "x"), ("HOME", "/h")]).unwrap(),
            Path::new("/h/.local/share/outlast")
        );
        assert_eq!(home(&[("HOME", "")]).unwrap_err().code, ExitCode::BadInput);
        assert_eq!(home(&[("OUTLAST_HOME", "/proc/../sys")]).unwrap(), Path::new("/sys"));
        let missing = home(&[("OUTLAST_HOME", "/nowhere/../at-all")]).unwrap_err();
        assert!(missing.help.iter().any(|line| line.contains("without `..`")), "{missing:?}");
    }

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("disk on fire");
        let error = anyhow::Error::new(inner).context("write x: disk on fire").context("saving");
        assert_eq!(chain(&error), "saving: write x: disk on fire");
    }
}
