//! The only place that writes to the terminal. Data goes to stdout, talk to
//! stderr, so that `outlast ... | other` always works. One printer decides
//! quiet and verbose, colour and progress; whoever prints says only what it
//! is. Text that came from machines can hold terminal commands: all talk and
//! every cell of a table is made harmless; only [`Printer::raw`] passes bytes
//! on as they are, since logs are the program's own output. A reader who went
//! away (`| head`) ends the printing quietly, never with a panic.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

mod quantity;
mod untrusted;

pub use quantity::{bytes, digits, duration, money, value};
pub use untrusted::{safe, safe_lines};

/// How much talk there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verbosity {
    /// Only errors.
    Quiet,
    /// Notes, warnings and errors.
    #[default]
    Normal,
    /// Details too.
    Verbose,
}

/// What is known of one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Output {
    /// A person looks at it.
    pub terminal: bool,
    /// It may be coloured.
    pub colour: bool,
}

/// How the printer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How much talk there is.
    pub verbosity: Verbosity,
    /// What stdout is.
    pub stdout: Output,
    /// What stderr is.
    pub stderr: Output,
    /// Columns of the terminal.
    pub width: usize,
}

/// Ways of marking text on a terminal that has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Headings.
    Bold,
    /// What matters less.
    Dim,
    /// Errors and losses.
    Red,
    /// What went well.
    Green,
    /// Warnings.
    Yellow,
    /// Names.
    Cyan,
}

impl Style {
    fn sgr(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Cyan => "36",
        }
    }

    fn paint(self, text: &str) -> String {
        format!("\x1b[{}m{text}\x1b[0m", self.sgr())
    }
}

/// Writes everything that people and programs see; cheap to clone.
#[derive(Clone)]
pub struct Printer {
    settings: Settings,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// A progress line stands on the terminal and must go before other text.
    progress: bool,
    /// Nobody reads stdout any more.
    closed: bool,
    /// The first failure to write to stdout that is not a closed reader.
    failed: Option<io::Error>,
}

impl Printer {
    /// A printer for the real stdout and stderr. Colour is for terminals, and
    /// not where `NO_COLOR` is set or `TERM` is `dumb`.
    #[must_use]
    pub fn new(verbosity: Verbosity, env: &BTreeMap<String, String>) -> Self {
        let plain = env.get("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env.get("TERM").is_some_and(|term| term == "dumb");
        let output = |terminal: bool| Output { terminal, colour: terminal && !plain };
        let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
        let settings = Settings {
            verbosity,
            stdout: output(io::stdout().is_terminal()),
            stderr: output(io::stderr().is_terminal()),
            width: width.max(20),
        };
        Self::to(settings, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// A printer for any two outputs.
    #[must_use]
    pub fn to(settings: Settings, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        let inner = Inner { out, err, progress: false, closed: false, failed: None };
        Self { settings, inner: Arc::new(Mutex::new(inner)) }
    }

    /// How it behaves.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves at worst half a line.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes to stdout, exactly as they are.
    pub fn raw(&self, bytes: &[u8]) {
        self.lock().data(bytes);
    }

    /// One line of data to stdout. Untrusted parts must go through [`safe`].
    pub fn line(&self, text: &str) {
        self.lock().data(format!("{text}\n").as_bytes());
    }

    /// A value as JSON to stdout, indented where a person looks at it and one
    /// line elsewhere.
    pub fn json(&self, value: &impl Serialize) {
        let text = if self.settings.stdout.terminal {
            serde_json::to_string_pretty(value)
        } else {
            serde_json::to_string(value)
        };
        match text {
            Ok(text) => self.line(&text),
            Err(error) => self.lock().fail(io::Error::new(ErrorKind::InvalidData, error)),
        }
    }

    /// Aligned columns to stdout.
    pub fn table(&self, headers: &[&str], rows: &[Vec<String>]) {
        self.lock().data(self.layout(headers, rows).as_bytes());
    }

    fn layout(&self, headers: &[&str], rows: &[Vec<String>]) -> String {
        let head: Vec<Cow<'_, str>> = headers.iter().map(|text| safe(text)).collect();
        let body: Vec<Vec<Cow<'_, str>>> =
            rows.iter().map(|row| row.iter().map(|cell| safe(cell)).collect()).collect();
        let columns = body.iter().map(Vec::len).max().unwrap_or(0).max(head.len());
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = body.iter().chain([&head]).filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for (index, row) in [&head].into_iter().chain(&body).enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                let _ = write!(line, "{cell:<width$}  ");
            }
            let line = line.trim_end();
            if index == 0 && self.settings.stdout.colour {
                out.push_str(&Style::Bold.paint(line));
            } else {
                out.push_str(line);
            }
            out.push('\n');
        }
        out
    }

    /// Marks text for stdout, if stdout has colours.
    #[must_use]
    pub fn paint(&self, style: Style, text: &str) -> String {
        if self.settings.stdout.colour { style.paint(text) } else { text.to_owned() }
    }

    /// Something that is good to know.
    pub fn note(&self, text: &str) {
        self.talk(Verbosity::Normal, "", None, text);
    }

    /// Something that only the curious want to know.
    pub fn detail(&self, text: &str) {
        self.talk(Verbosity::Verbose, "", Some(Style::Dim), text);
    }

    /// Something that should not stay as it is.
    pub fn warn(&self, text: &str) {
        self.talk(Verbosity::Normal, "warning: ", Some(Style::Yellow), text);
    }

    /// Why it did not work; shown even when quiet.
    pub fn error(&self, text: &str) {
        self.talk(Verbosity::Quiet, "error: ", Some(Style::Red), text);
    }

    /// A whole report that names itself an error; shown even when quiet.
    pub fn report(&self, text: &str) {
        self.talk(Verbosity::Quiet, "", None, text);
    }

    /// A way out, after an error.
    pub fn help(&self, text: &str) {
        self.talk(Verbosity::Quiet, "help: ", Some(Style::Cyan), text);
    }

    fn talk(&self, from: Verbosity, prefix: &str, style: Option<Style>, text: &str) {
        if self.settings.verbosity < from {
            return;
        }
        let text = safe_lines(text);
        let style = style.filter(|_| self.settings.stderr.colour);
        let line = match style {
            Some(style) if prefix.is_empty() => style.paint(&text),
            Some(style) => format!("{}{text}", style.paint(prefix)),
            None => format!("{prefix}{text}"),
        };
        self.lock().say(format!("{line}\n").as_bytes());
    }

    /// Shows where things stand, on one line that replaces the last one. Only
    /// on a terminal, and not when quiet.
    pub fn progress(&self, text: &str) {
        if !self.settings.stderr.terminal || self.settings.verbosity == Verbosity::Quiet {
            return;
        }
        let shown: String = safe(text).chars().take(self.settings.width - 1).collect();
        let mut inner = self.lock();
        // A failing stderr has nobody to be told of it.
        let _ = write!(inner.err, "\r\x1b[2K{shown}").and_then(|()| inner.err.flush());
        inner.progress = true;
    }

    /// Takes the progress line away.
    pub fn clear_progress(&self) {
        self.lock().clear();
    }

    /// Whether nobody reads stdout any more: whoever follows something should
    /// stop.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Ends the printing.
    ///
    /// # Errors
    ///
    /// The first failure to write data, such as a full disk behind a
    /// redirection. A reader that went away is none.
    pub fn finish(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.clear();
        let flushed = inner.out.flush();
        if let Err(error) = flushed {
            inner.fail(error);
        }
        inner.failed.take().map_or(Ok(()), Err)
    }
}

impl Inner {
    fn data(&mut self, bytes: &[u8]) {
        if self.closed || self.failed.is_some() {
            return;
        }
        self.clear();
        if let Err(error) = self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            self.fail(error);
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.clear();
        // A failing stderr has nobody to be told of it.
        let _ = self.err.write_all(bytes).and_then(|()| self.err.flush());
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.progress) {
            let _ = self.err.write_all(b"\r\x1b[2K").and_then(|()| self.err.flush());
        }
    }

    fn fail(&mut self, error: io::Error) {
        if error.kind() == ErrorKind::BrokenPipe {
            self.closed = true;
        } else if self.failed.is_none() {
            self.failed = Some(error);
        }
    }
}

#[cfg(test)]
mod tests;
