//! What is printed, and what becomes of it when nobody reads.

use super::*;

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Broken(ErrorKind);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings(verbosity: Verbosity, terminal: bool) -> Settings {
    let output = Output { terminal, colour: terminal };
    Settings { verbosity, stdout: output, stderr: output, width: 20 }
}

fn printer(verbosity: Verbosity, terminal: bool) -> (Printer, Screen, Screen) {
    let (out, err) = (Screen::default(), Screen::default());
    let settings = settings(verbosity, terminal);
    (Printer::to(settings, Box::new(out.clone()), Box::new(err.clone())), out, err)
}

fn say_all(printer: &Printer) {
    printer.line("data");
    printer.note("note");
    printer.detail("detail");
    printer.warn("warn");
    printer.error("error");
    printer.help("help");
}

#[test]
fn data_and_talk_are_apart_and_quiet_keeps_the_data() {
    for (verbosity, talk) in [
        (Verbosity::Quiet, "error: error\nhelp: help\n"),
        (Verbosity::Normal, "note\nwarning: warn\nerror: error\nhelp: help\n"),
        (Verbosity::Verbose, "note\ndetail\nwarning: warn\nerror: error\nhelp: help\n"),
    ] {
        let (printer, out, err) = printer(verbosity, false);
        say_all(&printer);
        assert_eq!((out.text().as_str(), err.text().as_str()), ("data\n", talk));
    }
}

#[test]
fn colour_and_progress_are_for_terminals_only() {
    let (plain, out, err) = printer(Verbosity::Normal, false);
    plain.progress("1 of 2");
    plain.warn("x");
    plain.line(&plain.paint(Style::Green, "ok"));
    assert_eq!((out.text().as_str(), err.text().as_str()), ("ok\n", "warning: x\n"));

    let (colourful, out, err) = printer(Verbosity::Normal, true);
    colourful.progress("a line that is much longer than the terminal");
    colourful.line(&colourful.paint(Style::Green, "ok"));
    assert_eq!(out.text(), "\x1b[32mok\x1b[0m\n");
    assert_eq!(err.text(), "\r\x1b[2Ka line that is much\r\x1b[2K", "cleared before other output");
    colourful.note("x");
    assert!(err.text().ends_with("\x1b[2Kx\n"), "cleared once");

    let (quiet, _, err) = printer(Verbosity::Quiet, true);
    quiet.progress("1 of 2");
    assert_eq!(err.text(), "");
}

#[test]
fn a_reader_that_went_away_is_no_error_and_a_full_disk_is() {
    let to = |kind| {
        let out = Box::new(Broken(kind));
        Printer::to(settings(Verbosity::Normal, false), out, Box::new(Screen::default()))
    };
    let gone = to(ErrorKind::BrokenPipe);
    gone.line("x");
    gone.raw(b"y");
    assert!(gone.is_closed());
    assert!(gone.finish().is_ok());
    let full = to(ErrorKind::StorageFull);
    full.line("x");
    assert!(!full.is_closed());
    assert_eq!(full.finish().unwrap_err().kind(), ErrorKind::StorageFull);
}

#[test]
fn tables_are_aligned_and_harmless() {
    let (printer, out, _) = printer(Verbosity::Normal, false);
    let rows = [vec!["a\x1b[2J".to_owned(), "é".to_owned(), "1".to_owned()], vec!["b".to_owned()]];
    printer.table(&["NAME", "STATE"], &rows);
    assert_eq!(out.text(), "NAME        STATE\na\\u{1b}[2J  é      1\nb\n");
}

#[test]
fn logs_pass_unchanged_and_json_fits_the_reader() {
    let (plain, out, _) = printer(Verbosity::Normal, false);
    plain.raw(b"\x1b[1m\xff\r\n");
    assert_eq!(*out.0.lock().unwrap(), b"\x1b[1m\xff\r\n");
    let (plain, out, _) = printer(Verbosity::Normal, false);
    plain.json(&BTreeMap::from([("a", 1)]));
    assert_eq!(out.text(), "{\"a\":1}\n");
    let (pretty, out, _) = printer(Verbosity::Normal, true);
    pretty.json(&BTreeMap::from([("a", 1)]));
    assert_eq!(out.text(), "{\n  \"a\": 1\n}\n");
}

#[test]
fn terminal_commands_are_spelt_out() {
    assert!(matches!(safe("häuser 模型"), Cow::Borrowed(_)));
    assert_eq!(safe("a\x1b]0;x\x07\r\n\u{9b}\u{202e}"), "a\\u{1b}]0;x\\u{7}\\r\\n\\u{9b}\\u{202e}");
    assert_eq!(safe_lines("a\n\tb\r"), "a\n\tb\\r");
    let (printer, _, err) = printer(Verbosity::Normal, false);
    printer.error("bad \x1b[2J name");
    assert!(!err.text().contains('\x1b'));
}
