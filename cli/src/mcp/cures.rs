//! Ways out in the words of a tool: the views name flags of the command line,
//! which a client does not have. Words of others are left as they are.

use super::reply::MOST;
use crate::exit_code::Failure;

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
    use crate::exit_code::ExitCode;

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
