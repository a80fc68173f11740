//! `notify.toml` in the data directory: whom the controller tells of events. It
//! lies there and in no project, since whoever can write a project's files must
//! not send this installation's events elsewhere. Secrets are named, never
//! written in it, and read anew for each message.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::notice::Event;
use crate::provider::settings::{Section, SettingsErrors, read_file};

/// The file's name.
pub(super) const FILE: &str = "notify.toml";
const TARGETS: usize = 16;
const ARGUMENTS: usize = 64;
/// Longest secret or address that is read.
const SECRET_MAX: u64 = 4_096;

/// Where a text that may be secret stands.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    Given(String),
    Variable(String),
    File(PathBuf),
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Given(_) => f.write_str("given"),
            Self::Variable(name) => write!(f, "the variable {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Place {
    /// The text.
    ///
    /// # Errors
    /// Where it is not to be had; never quotes it.
    pub(super) fn text(&self) -> Result<Zeroizing<String>, String> {
        let text = match self {
            Self::Given(text) => Zeroizing::new(text.clone()),
            Self::Variable(name) => Zeroizing::new(
                std::env::var(name).map_err(|_| format!("the controller's environment has no {name}"))?,
            ),
            Self::File(path) => {
                let mut text = Zeroizing::new(String::new());
                std::fs::File::open(path)
                    .and_then(|file| file.take(SECRET_MAX).read_to_string(&mut text))
                    .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
                text
            }
        };
        let trimmed = text.trim();
        if trimmed.is_empty() || trimmed.len() as u64 >= SECRET_MAX {
            return Err(format!("{self:?} is empty or too long"));
        }
        Ok(Zeroizing::new(trimmed.to_owned()))
    }
}

/// How a webhook's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Slack,
}

/// How somebody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    Webhook { url: Place, secret: Option<Place>, format: Format },
    Command { argv: Vec<String> },
}

/// Somebody who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) events: BTreeSet<Event>,
    pub(super) how: How,
}

impl Target {
    pub(super) fn kind(&self) -> &'static str {
        match self.how {
            How::Webhook { .. } => "webhook",
            How::Command { .. } => "command",
        }
    }
}

/// Everything that the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) targets: Vec<Target>,
    pub(super) cost_every_ms: Option<u64>,
}

/// Reads and checks the file; without one nobody is told.
///
/// # Errors
/// All that is wrong with it.
pub(super) fn read(home: &Path) -> Result<Settings, SettingsErrors> {
    Ok(read_file(&home.join(FILE), |file| parse(file, home))?.unwrap_or_default())
}

fn parse(file: &Section<'_>, home: &Path) -> Settings {
    let hours = file.count("cost_every_hours", 1..=720, "24");
    let mut targets = Vec::new();
    let hooks = file.table("webhook", "[webhook.NAME]").map(|table| table.tables()).unwrap_or_default();
    for (name, table) in hooks {
        targets.extend(webhook(name, &table, home));
    }
    let commands = file.table("command", "[command.NAME]").map(|table| table.tables()).unwrap_or_default();
    for (name, table) in commands {
        targets.extend(command(name, &table));
    }
    let names: BTreeSet<&str> = targets.iter().map(|target: &Target| target.name.as_str()).collect();
    if names.len() < targets.len() {
        file.refuse::<()>("command", "has a name that a webhook has too", "give each its own name");
    }
    if targets.len() > TARGETS {
        file.refuse::<()>("webhook", &format!("and `command` are more than {TARGETS}"), "leave some out");
    }
    file.finish();
    Settings { targets, cost_every_ms: hours.map(|hours| u64::from(hours) * 3_600_000) }
}

fn webhook(name: String, table: &Section<'_>, home: &Path) -> Option<Target> {
    let events = events(table);
    let format = match table.string("format", "\"json\"").as_deref() {
        None | Some("json") => Format::Json,
        Some("slack") => Format::Slack,
        Some(_) => {
            table.refuse("format", "is not known", "use \"json\" or \"slack\"").unwrap_or(Format::Json)
        }
    };
    let url = place(table, home, ["url", "url_env", "url_file"], "\"https://example.org/hook\"");
    if let Some(Place::Given(text)) = &url
        && let Err(why) = address(text)
    {
        table.refuse::<()>("url", why, "use https://; http:// only to this computer, for example 127.0.0.1");
    }
    if url.is_none() {
        table.complain(
            "has no address",
            "for example: url = \"https://example.org/hook\", or url_env, url_file",
        );
    }
    let secret = place(table, home, ["", "secret_env", "secret_file"], "\"OUTLAST_HOOK_SECRET\"");
    if secret.is_none() && format == Format::Json {
        let why = "has no secret: its receiver could not tell its messages from anybody's";
        table.complain(
            why,
            "for example: secret_env = \"OUTLAST_HOOK_SECRET\", or secret_file = \"hook.secret\"",
        );
    }
    table.finish();
    Some(Target { name: named(name, table)?, events, how: How::Webhook { url: url?, secret, format } })
}

fn command(name: String, table: &Section<'_>) -> Option<Target> {
    let events = events(table);
    let argv = match table.word_or_list("argv", "[\"notify-send\", \"outlast\"]") {
        Some((argv, false)) if !argv.is_empty() && argv.len() <= ARGUMENTS && !argv[0].is_empty() => {
            Some(argv)
        }
        Some(_) => table.refuse("argv", "must be a list: a program and its arguments", "no shell reads it"),
        None => {
            table.complain("has no `argv`", "for example: argv = [\"/home/me/tell.sh\"]");
            None
        }
    };
    table.finish();
    Some(Target { name: named(name, table)?, events, how: How::Command { argv: argv? } })
}

fn named(name: String, table: &Section<'_>) -> Option<String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(fits) {
        table.complain("is no name", "1 to 32 characters of a-z, 0-9 and -");
        return None;
    }
    Some(name)
}

fn events(table: &Section<'_>) -> BTreeSet<Event> {
    let Some((words, _)) = table.word_or_list("events", "[\"waiting\", \"done\"]") else {
        return Event::CHOSEN.into_iter().collect();
    };
    let mut events = BTreeSet::new();
    for word in words {
        match Event::CHOSEN.into_iter().find(|event| event.name() == word) {
            Some(event) => drop(events.insert(event)),
            None => {
                let known: Vec<&str> = Event::CHOSEN.iter().map(|event| event.name()).collect();
                table.refuse::<()>(
                    "events",
                    "holds what is no event",
                    &format!("known: {}", known.join(", ")),
                );
            }
        }
    }
    events
}

fn place(table: &Section<'_>, home: &Path, keys: [&'static str; 3], example: &str) -> Option<Place> {
    let [given, variable, file] = keys;
    let given = if given.is_empty() { None } else { table.string(given, example).map(Place::Given) };
    let variable = table.string(variable, "\"OUTLAST_HOOK\"").map(Place::Variable);
    let file = table.string(file, "\"hook.secret\"").map(|path| Place::File(home.join(path)));
    let mut all = [given, variable, file].into_iter().flatten();
    let first = all.next();
    if all.next().is_some() {
        table.complain(
            "names the same twice",
            "use one of the plain key, the one for a variable, the one for a file",
        );
    }
    first
}

/// Whether messages may be sent to an address.
pub(super) fn address(text: &str) -> Result<reqwest::Url, &'static str> {
    let url = reqwest::Url::parse(text).map_err(|_| "is no address")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a name or a password");
    }
    match (url.scheme(), url.host_str()) {
        ("https", Some(_)) => Ok(url),
        ("http", Some("127.0.0.1" | "localhost" | "[::1]")) => Ok(url),
        _ => Err("is not safe: anybody on the way could read it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        read(dir.path()).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_file_names_whom_to_tell_of_what() {
        let text = "cost_every_hours = 6\n[webhook.ops]\nurl = \"https://example.org/h\"\nsecret_env = \"S\"\n\
                    events = [\"waiting\", \"done\"]\n[webhook.chat]\nformat = \"slack\"\nurl_file = \"slack.url\"\n\
                    [command.desk]\nargv = [\"notify-send\", \"outlast\"]\n";
        let settings = read_text(text).unwrap();
        let names: Vec<_> =
            settings.targets.iter().map(|t| (t.name.as_str(), t.kind(), t.events.len())).collect();
        assert_eq!(names, [("chat", "webhook", 7), ("ops", "webhook", 2), ("desk", "command", 7)]);
        assert_eq!(settings.cost_every_ms, Some(6 * 3_600_000));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Settings::default());
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_no_value_is_quoted() {
        let text = "cost_every_hours = 0\n[webhook.a]\nurl = \"http://example.org/T0KEN\"\n[webhook.b]\nformat = \"xml\"\n\
                    secret_env = \"S\"\nsecret_file = \"s\"\n[webhook.\"C d\"]\nurl = \"https://u:T0KEN@x/\"\nsecret_env = \"S\"\n\
                    [command.d]\nargv = \"sh -c T0KEN\"\nevents = [\"everything\"]\n[command.e]\n[slack]\n";
        let said = read_text(text).unwrap_err();
        for part in [
            "line 1: `cost_every_hours`",
            "line 2: `webhook.a` has no secret",
            "line 3: `webhook.a.url` is not safe",
            "`webhook.b` has no address",
            "line 5: `webhook.b.format` is not known",
            "`webhook.b` names the same twice",
            "`webhook.C d` is no name",
            "`webhook.C d.url` holds a name or a password",
            "`command.d.argv` must be a list",
            "`command.d.events` holds what is no event",
            "`command.e` has no `argv`",
            "`slack` is not known",
        ] {
            assert!(said.contains(part), "{part} is not in:\n{said}");
        }
        assert!(!said.contains("T0KEN"), "{said}");
    }

    #[test]
    fn a_secret_that_is_not_there_says_where_it_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s");
        assert!(Place::File(file.clone()).text().unwrap_err().contains("/s cannot be read"));
        std::fs::write(&file, " \n").unwrap();
        assert!(Place::File(file.clone()).text().is_err());
        std::fs::write(&file, "hunter2\n").unwrap();
        assert_eq!(Place::File(file).text().unwrap().as_str(), "hunter2");
        assert!(Place::Variable("OUTLAST_NO_SUCH".into()).text().unwrap_err().contains("OUTLAST_NO_SUCH"));
        assert_eq!(format!("{:?}", Place::Given("hunter2".into())), "given");
    }
}
