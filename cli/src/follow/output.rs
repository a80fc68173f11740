//! Output as it is printed: what was printed is remembered by its offsets, so
//! that connections may break and chunks come again, cut elsewhere. Never
//! prints a byte twice, never leaves one out without saying so.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use proto::v1;

use crate::client::{Client, failure};
use crate::link::Link;
use crate::printer::Printer;
use crate::screen::view::{How, View};

/// All output of a run.
#[must_use]
pub fn everything(run: &str, follow: bool) -> v1::LogsRequest {
    v1::LogsRequest { run: run.to_owned(), follow, ..Default::default() }
}

type Key = (u32, String);

/// Bytes of last lines that are held at most.
const LAST_BYTES: usize = 64 << 20;

/// Prints output and remembers how far.
pub struct Output {
    printer: Printer,
    /// Where error streams go.
    errors: Printer,
    how: Arc<How>,
    how_errors: Arc<How>,
    views: BTreeMap<Key, View>,
    newest: Option<Key>,
    printed: BTreeMap<Key, u64>,
    /// Attempts below are not printed.
    first: u32,
    line_is_whole: bool,
    /// Lines are held back: only the last of them will be printed.
    last: Option<Last>,
}

/// The last lines of what would have been printed.
struct Last {
    most: usize,
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    cut: bool,
}

impl Last {
    fn push(&mut self, out: &[u8]) {
        for line in out.split_inclusive(|byte| *byte == b'\n') {
            self.bytes += line.len();
            self.lines.push_back(line.to_vec());
            while self.lines.len() > self.most || self.bytes > LAST_BYTES {
                self.cut |= self.lines.len() <= self.most;
                self.bytes -= self.lines.pop_front().map_or(self.bytes, |line| line.len());
            }
        }
    }
}

impl Output {
    /// Prints to stdout; error and set-up streams to stderr if `split`. On a
    /// terminal as the terminal would show it, elsewhere byte for byte.
    #[must_use]
    pub fn new(printer: &Printer, split: bool) -> Self {
        let settings = *printer.settings();
        // A printer whose data go to stderr: the bytes are the program's own.
        let aside = || Printer::to(settings, Box::new(io::stderr()), Box::new(io::stderr()));
        let errors = if split { aside() } else { printer.clone() };
        let on = |output: crate::printer::Output| {
            Arc::new(How { screen: output.terminal, colour: output.colour, ..How::default() })
        };
        Self {
            printer: printer.clone(),
            errors,
            how: on(settings.stdout),
            how_errors: on(if split { settings.stderr } else { settings.stdout }),
            views: BTreeMap::new(),
            newest: None,
            printed: BTreeMap::new(),
            first: 0,
            line_is_whole: true,
            last: None,
        }
    }

    /// From now on prints nothing until [`Output::release`], and then only so
    /// many last lines of what was chosen.
    pub fn hold_last(&mut self, lines: u64) {
        let most = usize::try_from(lines).unwrap_or(usize::MAX);
        self.last = Some(Last { most, lines: VecDeque::new(), bytes: 0, cut: false });
    }

    /// Prints the lines that were held.
    pub fn release(&mut self) {
        let Some(last) = self.last.take() else { return };
        if last.cut {
            self.printer.note(&format!("[of these lines only the last {} MiB are shown]", LAST_BYTES >> 20));
        }
        for line in &last.lines {
            self.put("stdout", line);
        }
    }

    /// Prints everything to stdout, in this way.
    #[must_use]
    pub fn shown(printer: &Printer, how: How) -> Self {
        let how = Arc::new(how);
        Self { how_errors: how.clone(), how, ..Self::new(printer, false) }
    }

    /// Leaves out what attempts below this number wrote.
    pub fn skip_before(&mut self, attempt: u32) {
        self.first = attempt;
    }

    /// Whether the cursor stands at the beginning of a line.
    #[must_use]
    pub fn line_is_whole(&self) -> bool {
        self.line_is_whole
    }

    /// The state of a line that has not ended, if output goes to a terminal.
    #[must_use]
    pub fn unfinished(&self) -> Option<String> {
        self.views.get(self.newest.as_ref()?)?.unfinished()
    }

    /// Prints what of a chunk is new.
    pub fn print(&mut self, chunk: &v1::LogChunk) {
        let key = (chunk.attempt, chunk.stream.clone());
        let from = self.printed.get(&key).copied().unwrap_or(0);
        let end = end_of(chunk);
        if end <= from || chunk.attempt < self.first {
            return;
        }
        self.printed.insert(key.clone(), end);
        if chunk.data.is_empty() && chunk.gap_to == 0 {
            // What comes before was not asked for.
            return;
        }
        let older: Vec<Key> =
            self.views.range(..(chunk.attempt, String::new())).map(|(k, _)| k.clone()).collect();
        for key in older {
            self.end(&key);
        }
        if chunk.data.is_empty() {
            self.end(&key);
            let lost = end - chunk.offset.max(from);
            let text = format!("[{lost} bytes of {} of attempt {} are missing]", chunk.stream, chunk.attempt);
            self.printer.note(&text);
            return;
        }
        let known = usize::try_from(from.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
        let fresh = chunk.data.get(known..).unwrap_or_default();
        let how = if chunk.stream == "stdout" { &self.how } else { &self.how_errors };
        let mut out = Vec::with_capacity(fresh.len());
        let view = self.views.entry(key.clone()).or_insert_with(|| View::new(how));
        view.feed(fresh, chunk.at_ms, &mut out);
        self.newest = Some(key);
        self.put(&chunk.stream, &out);
    }

    fn put(&mut self, stream: &str, out: &[u8]) {
        let Some(end) = out.last() else { return };
        if let Some(last) = &mut self.last {
            last.push(out);
            return;
        }
        self.line_is_whole = *end == b'\n';
        self.printer.clear_progress();
        if stream == "stdout" { &self.printer } else { &self.errors }.raw(out);
    }

    /// A stream has ended, or goes on elsewhere: prints what is left of a line.
    fn end(&mut self, key: &Key) {
        if let Some(mut view) = self.views.remove(key) {
            let mut out = Vec::new();
            view.finish(&mut out);
            self.put(&key.1, &out);
        }
    }

    /// Nothing more will be printed: prints lines that have no end.
    pub fn finish(&mut self) {
        let all: Vec<Key> = self.views.keys().cloned().collect();
        for key in all {
            self.end(&key);
        }
    }

    /// Prints what arrived after the streams ended. The newest attempt's last
    /// line tells where each stream ends now; only if that is news, all is
    /// read again.
    ///
    /// # Errors
    /// As the controller says.
    pub async fn catch_up(&mut self, link: &mut Link<'_>, run: &str) -> anyhow::Result<()> {
        let ends = collect(link, &v1::LogsRequest { tail: Some(1), ..everything(run, false) }).await?;
        let behind = ends.iter().any(|chunk| {
            let printed = self.printed.get(&(chunk.attempt, chunk.stream.clone()));
            printed.copied().unwrap_or(0) < end_of(chunk)
        });
        if behind {
            let client = link.client().await?;
            let reply = client.operator.clone().logs(everything(run, false)).await;
            let mut logs = reply.map_err(|status| failure(&status))?.into_inner();
            while let Some(chunk) = logs.message().await.map_err(|status| failure(&status))? {
                self.print(&chunk);
            }
        }
        Ok(())
    }
}

async fn collect(link: &mut Link<'_>, ask: &v1::LogsRequest) -> anyhow::Result<Vec<v1::LogChunk>> {
    link.ask(async |client: Client| {
        let mut logs = client.operator.clone().logs(ask.clone()).await?.into_inner();
        let mut chunks = Vec::new();
        while let Some(chunk) = logs.message().await? {
            chunks.push(chunk);
        }
        Ok(chunks)
    })
    .await
}

fn end_of(chunk: &v1::LogChunk) -> u64 {
    chunk.offset.saturating_add(chunk.data.len() as u64).max(chunk.gap_to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printer::{Settings, Verbosity};
    use std::io::Write;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Sheet(Arc<Mutex<Vec<u8>>>);

    impl Write for Sheet {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn chunk(attempt: u32, offset: u64, data: &str) -> v1::LogChunk {
        v1::LogChunk { attempt, stream: "stdout".into(), offset, data: data.into(), gap_to: 0, at_ms: 0 }
    }

    #[test]
    fn bytes_that_come_again_are_printed_once() {
        let screen = Sheet::default();
        let settings = Settings {
            verbosity: Verbosity::Normal,
            stdout: crate::printer::Output::default(),
            stderr: crate::printer::Output::default(),
            width: 80,
        };
        let printer = Printer::to(settings, Box::new(screen.clone()), Box::new(screen.clone()));
        let mut output = Output::new(&printer, false);
        // The connection breaks in the middle; all is sent anew, cut elsewhere.
        for part in [chunk(1, 0, "one\n"), chunk(1, 4, "tw")] {
            output.print(&part);
        }
        assert!(!output.line_is_whole);
        for part in [chunk(1, 0, "one\ntwo\nth"), chunk(1, 10, "ree\n"), chunk(2, 0, "four\n")] {
            output.print(&part);
        }
        assert!(output.line_is_whole);
        output.print(&v1::LogChunk { gap_to: 15, ..chunk(2, 5, "") });
        output.print(&v1::LogChunk { gap_to: 15, ..chunk(2, 5, "") });
        let text = String::from_utf8(screen.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "one\ntwo\nthree\nfour\n[10 bytes of stdout of attempt 2 are missing]\n");
    }

    fn printer(terminal: bool) -> (Printer, Sheet) {
        let sheet = Sheet::default();
        let output = crate::printer::Output { terminal, colour: terminal };
        let settings = Settings { verbosity: Verbosity::Normal, stdout: output, stderr: output, width: 80 };
        (Printer::to(settings, Box::new(sheet.clone()), Box::new(sheet.clone())), sheet)
    }

    #[test]
    fn a_terminal_gets_lines_that_command_nothing_and_a_pipe_the_bytes() {
        let parts = [chunk(1, 0, "\x1b]0;t\x07 10%\r 20%"), chunk(1, 16, "\r 30%\nhalf")];
        for (terminal, expected) in
            [(true, " 30%\nhalf\nnext\n"), (false, "\x1b]0;t\x07 10%\r 20%\r 30%\nhalfnext\n")]
        {
            let (printer, sheet) = printer(terminal);
            let mut output = Output::new(&printer, false);
            output.print(&parts[0]);
            assert_eq!(output.unfinished().as_deref(), terminal.then_some(" 20%"));
            output.print(&parts[1]);
            output.print(&chunk(2, 0, "next\n"));
            output.finish();
            assert_eq!(String::from_utf8(sheet.0.lock().unwrap().clone()).unwrap(), expected);
        }
    }

    #[test]
    fn the_last_lines_are_those_that_were_chosen() {
        let (printer, sheet) = printer(false);
        let pattern = Some(crate::screen::view::pattern("a").unwrap());
        let mut output = Output::shown(&printer, How { pattern, ..How::default() });
        output.hold_last(2);
        output.print(&chunk(1, 0, "a1\nb\na2\na3\nb\na"));
        output.print(&v1::LogChunk { stream: "stderr".into(), ..chunk(1, 0, "a4\n") });
        assert_eq!(*sheet.0.lock().unwrap(), b"");
        output.release();
        // Who follows sees all again and then more.
        output.print(&chunk(1, 0, "a1\nb\na2\na3\nb\na5\n"));
        assert_eq!(*sheet.0.lock().unwrap(), b"a3\na4\na5\n");
    }

    #[test]
    fn what_was_left_out_at_first_stays_out_when_all_comes_again() {
        let (printer, sheet) = printer(false);
        let mut output = Output::new(&printer, false);
        output.print(&chunk(1, 4, ""));
        output.print(&chunk(1, 0, "one\ntwo\n"));
        assert_eq!(*sheet.0.lock().unwrap(), b"two\n");
    }
}
