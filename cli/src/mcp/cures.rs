//! Ways out in the words of a tool: the views name flags of the command line,
//! which a client does not have. Words of others are left as they are.

use super::reply::MOST;
use super::tools::{Entry, Kind};
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

/// Commands that a person has, and which tool does the same.
const COMMANDS: [(&str, &str); 4] = [
    ("`outlast config show` lists all settings", "a person can list all settings: outlast config show"),
    ("(outlast checkpoints ", "(checkpoints "),
    ("`outlast doctor` tries every provider", "a person can try every provider: outlast doctor"),
    ("`outlast checkpoints`", "`checkpoints`"),
];

/// A failure of a tool with a way out that a client has.
pub(super) fn of(failure: Failure, entry: &Entry) -> Failure {
    let mut failure = self::failure(failure);
    let known = |text: &str| {
        COMMANDS.iter().fold(text.to_owned(), |text, (command, tool)| text.replace(command, tool))
    };
    failure.message = known(&failure.message);
    for help in &mut failure.help {
        *help = known(help);
        if (help.contains("`outlast ") || help.contains(": outlast ")) && !help.starts_with("a person") {
            *help = format!("for a person: {help}");
        }
    }
    if failure.help.is_empty() {
        failure.help.push(usual(failure.code, entry));
    }
    failure
}

/// What helps where nobody said it.
fn usual(code: ExitCode, entry: &Entry) -> String {
    let of_files = entry.kind == Kind::Analysis;
    match code {
        ExitCode::Usage => entry.usage(),
        ExitCode::NotFound | ExitCode::BadInput if of_files => {
            "`find` with the path of a directory names the runs below it".to_owned()
        }
        ExitCode::NotFound => "`list` with all = true names every run".to_owned(),
        ExitCode::BadInput if matches!(entry.name, "run" | "fork" | "resume") => {
            format!("dry_run = true shows price and cap and begins nothing; {}", entry.usage())
        }
        ExitCode::BadInput if entry.name == "offers" => {
            "give provider, the name of one that rents machines, such as vast".to_owned()
        }
        ExitCode::BadInput => format!("`status` says how the run is; {}", entry.usage()),
        ExitCode::Configuration | ExitCode::Denied | ExitCode::CannotWrite => {
            "a person must change that on this computer".to_owned()
        }
        ExitCode::Internal => "a person can report it; other tools go on working".to_owned(),
        _ => "try again later".to_owned(),
    }
}

/// A text of ours with arguments for flags.
pub(super) fn arguments(text: &str) -> String {
    WORDS.iter().fold(text.to_owned(), |text, (flag, argument)| text.replace(flag, argument))
}

/// A failure of a view.
pub(super) fn failure(mut failure: Failure) -> Failure {
    failure.help.iter_mut().for_each(|help| *help = arguments(help));
    failure
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
    use super::super::tools::{ALL, find};
    use super::*;

    #[test]
    fn whatever_goes_wrong_has_a_cure_that_a_client_can_follow() {
        let failed = |code, tool: &str, message: &str| of(Failure::new(code, message), find(tool).unwrap());
        for entry in ALL {
            for code in
                [ExitCode::Usage, ExitCode::NotFound, ExitCode::BadInput, ExitCode::Busy, ExitCode::Internal]
            {
                assert!(!failed(code, entry.name, "it is wrong").help[0].is_empty());
            }
        }
        let missing = failed(ExitCode::Usage, "status", "`run` is missing");
        assert_eq!(missing.help, ["status takes run (needed), max_tokens"]);
        let step = failed(ExitCode::NotFound, "fork", "none is durable (outlast checkpoints toy-1)");
        assert_eq!((step.message.as_str(), step.help.len()), ("none is durable (checkpoints toy-1)", 1));
        let told = failed(ExitCode::BadInput, "run", "budget.max_usd must be more");
        assert!(told.help[0].contains("dry_run"), "{told:?}");
        assert!(failed(ExitCode::BadInput, "offers", "`local` has no market").help[0].contains("provider"));
        let known = Failure::new(ExitCode::NotFound, "x").help("`outlast status --all` lists every run");
        assert_eq!(of(known, find("status").unwrap()).help, ["`list` with all = true names every run"]);
    }

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
