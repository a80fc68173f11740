//! Ways out in the words of a tool: the views name flags of the command line,
//! which a client does not have. Words of others are left as they are.

use super::reply::MOST;
use super::tools::Kind;
use crate::exit_code::{ExitCode, Failure};

/// What a flag is called as an argument; longer ones first.
const WORDS: [(&str, &str); 34] = [
    (", everything with --json", ""),
    (", all in a file with --out FILE", ""),
    ("; --metric NAME shows fewer, --csv all", "; fewer with metrics"),
    ("; fewer lines with --metric, a picture with --out", "; fewer lines with metrics"),
    (", all with --csv --samples N", ""),
    ("--tokens N", "max_tokens"),
    ("--from and --to", "from and to"),
    ("--metric or --threshold", "metrics"),
    ("say by which: --best METRIC", "say by which metric: best = NAME"),
    ("say which: --metric NAME", "say which: metric = NAME"),
    ("--metric NAME", "metrics"),
    ("--metric", "metrics"),
    ("--top N", "top"),
    ("--only TEXT", "only"),
    ("add --max or --min", "write best as max:METRIC or min:METRIC"),
    ("--run NAME", "run = NAME"),
    ("choose other arms with --by or --arm", "choose other arms with by"),
    ("--arm", "by"),
    ("--base", "base"),
    ("--by", "by"),
    ("such as --pair seed", "such as pair = seed"),
    ("--pair", "pair"),
    ("`--format NAME`", "`format`"),
    ("`outlast metrics PATH` lists", "`metrics` lists"),
    ("`outlast analyze PATH` says", "`analyze` says"),
    ("`outlast history` shows", "`history` shows"),
    ("`outlast hypothesis PATH` lists", "`notes` lists"),
    ("`outlast group` can", "`group` can"),
    ("`outlast note`", "`notes`"),
    ("`outlast status --all` lists", "`list` with all = true names"),
    ("give --memory DIR", "set it for the server"),
    ("--keep shows", "keep shows"),
    ("--pr https://...", "https://..."),
    ("--commit HASH", "HASH"),
];

/// A text of ours with arguments for flags.
pub(super) fn arguments(text: &str) -> String {
    WORDS.iter().fold(text.to_owned(), |text, (flag, argument)| text.replace(flag, argument))
}

/// A failure of a view.
pub(super) fn failure(mut failure: Failure) -> Failure {
    failure.help.iter_mut().for_each(|help| *help = arguments(help));
    failure
}

/// A failure of any tool: in words that its caller has, and never without a way out.
pub(super) fn of(tool: &str, kind: Kind, failed: Failure) -> Failure {
    let mut failed = failure(failed);
    failed.message = without_commands(&failed.message);
    for help in &mut failed.help {
        if help.contains("`outlast ") || help.contains(": outlast ") && !help.starts_with("a person") {
            *help = format!("for a person: {help}");
        }
    }
    if failed.help.is_empty() {
        failed.help.push(usual(tool, kind, failed.code).to_owned());
    }
    failed
}

/// The controller names a command where it lists what there is.
fn without_commands(message: &str) -> String {
    let Some((before, rest)) = message.split_once(" (outlast checkpoints ") else {
        return message.to_owned();
    };
    let after = rest.split_once(')').map_or("", |(_, after)| after);
    format!("{before} (`checkpoints` lists them){after}")
}

/// The way out where a failure names none.
fn usual(tool: &str, kind: Kind, code: ExitCode) -> &'static str {
    match (tool, kind, code) {
        ("offers", ..) => "give provider, the name of one that rents machines, such as vast",
        (_, Kind::Analysis, ExitCode::NotFound) => "`find` names the runs below a path",
        (_, _, ExitCode::NotFound) => "`list` with all = true names every run",
        (_, _, ExitCode::Unreachable | ExitCode::Busy) => "call again in a minute",
        (_, _, ExitCode::Denied) => "a person must allow it",
        ("run" | "fork" | "resume", _, ExitCode::BadInput | ExitCode::Budget) => {
            "correct the arguments; dry_run = true shows price and cap and begins nothing"
        }
        (_, _, ExitCode::Usage | ExitCode::BadInput | ExitCode::Configuration) => {
            "correct the argument and call again"
        }
        _ => "call again; the server's stderr says more to a person",
    }
}

/// The text of a view: what was cut is had by its arguments. `share` are the parts of
/// an answer that are for the text, of three.
pub(super) fn text(text: &str, share: u64) -> String {
    text.lines().map(|line| format!("{}\n", worded(line, share))).collect()
}

/// Only lines of our own: in others a file may say whatever it likes.
fn worded(line: &str, share: u64) -> String {
    let ours = ["cut: ", "  more with ", "  one run each"].iter().any(|begin| line.starts_with(begin));
    if !ours {
        return line.to_owned();
    }
    let numbered =
        line.rsplit_once("--tokens ").filter(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    let Some((before, after)) = numbered else { return arguments(line) };
    let (number, rest) = after.split_at(after.bytes().take_while(u8::is_ascii_digit).count());
    let need = number.parse::<u64>().map_or(0, |need| need.saturating_mul(3).div_ceil(share * 100) * 100);
    match before.strip_suffix("all with ").filter(|_| need > MOST as u64) {
        Some(before) => arguments(&format!("{before}more with max_tokens {MOST}{rest}")),
        None => arguments(&format!("{before}max_tokens {need}{rest}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_is_had_by_an_argument() {
        let told = text("a --top N\ncut: 9 lines; all with --tokens 400, everything with --json\n", 2);
        assert_eq!(told, "a --top N\ncut: 9 lines; all with max_tokens 600\n");
        let told = text(
            "cut: 9 lines; all with --tokens 400, everything with --json, fewer with --top N or a filter",
            3,
        );
        assert_eq!(told, "cut: 9 lines; all with max_tokens 400, fewer with top or a filter\n");
        let told = text("cut: 9 lines; all with --tokens 40000, everything with --json\n", 2);
        assert_eq!(told, "cut: 9 lines; more with max_tokens 20000\n");
        let told =
            text("  more with --tokens N, a range with --from and --to, all with --csv --samples N\n", 3);
        assert_eq!(told, "  more with max_tokens, a range with from and to\n");
    }

    #[test]
    fn no_failure_is_without_a_way_out_that_its_caller_has() {
        let none = "a-1 has no durable checkpoint at step 10: none is durable (outlast checkpoints a-1)";
        let told = of("fork", Kind::Act, Failure::new(ExitCode::NotFound, none));
        assert_eq!(
            told.message,
            "a-1 has no durable checkpoint at step 10: none is durable (`checkpoints` lists them)"
        );
        assert_eq!(told.help, ["`list` with all = true names every run"]);
        let told = of("offers", Kind::Look, Failure::new(ExitCode::BadInput, "`local` has no market"));
        assert!(told.help[0].contains("provider"), "{told:?}");
        let told = of("run", Kind::Act, Failure::new(ExitCode::BadInput, "budget.max_usd must be more"));
        assert!(told.help[0].contains("dry_run"), "{told:?}");
        let shown = Failure::new(ExitCode::Configuration, "unknown key")
            .help("`outlast config show` lists all settings");
        assert_eq!(
            of("run", Kind::Act, shown).help,
            ["for a person: `outlast config show` lists all settings"]
        );
        let listed = Failure::new(ExitCode::NotFound, "there is no run")
            .help("`outlast status --all` lists every run");
        assert_eq!(of("status", Kind::Look, listed).help, ["`list` with all = true names every run"]);
        for code in
            [ExitCode::Usage, ExitCode::Unreachable, ExitCode::Denied, ExitCode::Internal, ExitCode::Busy]
        {
            assert_eq!(of("logs", Kind::Look, Failure::new(code, "it is wrong")).help.len(), 1);
        }
    }

    #[test]
    fn ways_out_name_arguments() {
        for (help, expected) in [
            ("name one of these paths, or add --run NAME", "name one of these paths, or add run = NAME"),
            ("`outlast metrics PATH` lists all of them", "`metrics` lists all of them"),
            ("add --max or --min", "write best as max:METRIC or min:METRIC"),
        ] {
            let told = failure(Failure::new(ExitCode::BadInput, "it is wrong").help(help));
            assert_eq!(told.help, [expected]);
        }
    }
}
