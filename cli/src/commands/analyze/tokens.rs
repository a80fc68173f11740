//! How many tokens of a language model a text has at most, in the vocabulary
//! `o200k_base`.
//!
//! That tokenizer cuts a text by one regular expression into pieces and then
//! joins bytes within each piece, so that a piece of n bytes has n tokens at
//! most. [`bound`] finds the same pieces in ASCII text and knows of six of
//! their kinds that they have fewer:
//!
//! - digits, up to three a piece: all of those are one token;
//! - a word of [`WORDS`], alone or behind a space: one token, behind another
//!   sign two;
//! - other letters: every pair of small letters but `jkqxz` is a token, and so is
//!   a space with a letter. Neighbours that are a token together are joined, so
//!   that no two tokens of one such letter stand side by side in the end, and n
//!   letters in a row have (2n + 1) / 3 tokens at most;
//! - any other letter, and a sign before a word: one more;
//! - the runs of signs in [`SIGNS`]: one token;
//! - spaces, up to [`SPACES`] of them in a row: one token.
//!
//! The tests hold all of this against the vocabulary itself.
//!
//! Other vocabularies count differently, most of them not by more than a
//! quarter.

use std::collections::HashSet;
use std::sync::LazyLock;

/// So many spaces side by side are one token, and fewer are too.
const SPACES: usize = 64;

static KNOWN: LazyLock<HashSet<&str>> = LazyLock::new(|| WORDS.split(' ').collect());
static JOINED: LazyLock<HashSet<&[u8]>> = LazyLock::new(|| SIGNS.iter().map(|run| run.as_bytes()).collect());

/// Words of this program's sentences that are one token each, alone and behind
/// a space, and at most two behind any other printed sign.
const WORDS: &str = "\
    Adam Ahead CSV Clear Flat Gi It JSON Loss MAX ML Na Nothing PK There Trainer a about above acc \
    accepted account add address after again age ago agree ahead alert alerts alive all allowed alone \
    already always amount an and another answer any approve archive archives are arrival artifact as \
    ask asked assistant at attempt auc aux available await back batch be been before begin being \
    below best better between board bound bounds branches budget but by byte bytes call called came \
    can cap case cases cause ce cells cer change changed changes check checkpoint checksum client \
    clip clock code codes collapse come comes command commit config console constant container \
    content context controller copy cost could count course cpu csv current cursor cut data database \
    day days dead decision deep default destroy detail dev device devices dice did different digits \
    directory disk done down drive drop dry duration each early easy eer elapsed else em empty \
    enabled end ended ends entries entry env environment epoch epochs equal err error errors eta eval \
    evaluation event events ever every exit expect expected expired export fails failure falls far \
    fault fell few fid file files find finding finish finite first fit fits fixed folder for fork \
    form format found fps free from full gain getting given global go going gone good got gpu grad \
    gradient graph group gzip had halve hard has have health healthy heat help high higher history \
    holds host hour hours https id if image imgs in inf input inputs instead interval into is it iter \
    iteration iterations its jobs json judge jump keep key keys kind kl known labels lack last later \
    learning least leave left length less lets level levels lies like limit line lines link links \
    list loading local location log logged logs long look looks loop los loss lost low lower lr \
    machine machines made makes many map mark matches max may mean means measure mem memory message \
    meta meteor method metric metrics might min minute minutes missing model money monitor month more \
    most ms much must name named names near need needs network never new news next no noise non none \
    nor norm not note notes nothing now num number obj object objective odd of offer offers often on \
    once one only oom open operation optimizer option or order other others out output over overflow \
    own owner pace packed page paid pair part passed path paths peak per perhaps period permission \
    person pg pipes place placed planned plots points power precision price prices primary print \
    printed process program project provider quota quoted raised ran random rate reach read reading \
    reads reason record region regular remote removed rent repeat report reports request requests \
    reserved reset resolved resource rest restart results resume retry return revision reward rise \
    role root rose row rows rss rule run running runs runtime safe said same sample samples save \
    saved scalar scale schedule schema score script sd sec second seconds secret secs see seen select \
    sent sentence server service set settings share shares shell show sign signal silent since size \
    skip small snake so source space speed spent spread stage stall standard start started starts \
    state stats status stderr stdout step steps still stood stop store stream stretch string style \
    such sum super system table tag tags tail take takes target task tasks tell temp temperature ten \
    tensor terms test text than that the them then there they third this those threshold tick time \
    times timestamp to token tokens too tool tools top torch total tr train trainer training tree try \
    two txt type unable under unfinished uniform unit units unknown unlikely until up update uri url \
    use used user users usual util val valid validation value values version view wait wall warm was \
    way weights went wer were what when where whether which while whole why width will window with \
    without word works world would write writes written wrong xe yaml yes yet you your zero zip";

/// Signs that are one token where nothing but they stands in their piece.
const SIGNS: [&str; 70] = [
    "\":\"", "\",\"", "\":", "{\"", ",\"", "\"}", "\":[", "\"]", "\":{\"", "\"},{\"", "\":[\"", "},{\"",
    "}]", "}}", "],\"", "},\"", "--", "...", "):", "),", "(\"", "\")", "\";", "\".\"", "://", "->", "=>",
    "==", "\".", "%,", "%)", "()", "[]", "{}", "\",", "\"]]", "]]", "]}", " (", " \"", " $", " -", " =",
    " {", " [", " <", " >", " /", " (\"", " ->", " --", " >=", " <=", " \"$", ".\n", ")\n", "\"\n", ":\n",
    ",\n", ").\n", "\"}\n", " \"./", "\",\n", " \"--", "...\n", "]\n", "[\"", "\"\":", " \"<", "%\n",
];

/// A number that is not below the count of tokens of an ASCII text.
pub(crate) fn bound(text: &str) -> usize {
    let mut rest = text.as_bytes();
    let mut sum = 0;
    while !rest.is_empty() {
        let (length, tokens) = piece(rest);
        sum += tokens;
        rest = rest.get(length.max(1)..).unwrap_or_default();
    }
    sum
}

/// The same for any text: what is not ASCII counts as its bytes, which never is
/// too few, and what lies between as [`bound`] says.
pub(crate) fn bound_of_any(text: &str) -> usize {
    let runs = text.as_bytes().chunk_by(|a, b| a.is_ascii() == b.is_ascii());
    let cost = |run: &[u8]| match std::str::from_utf8(run) {
        Ok(ascii) if run.is_ascii() => bound(ascii),
        _ => run.len(),
    };
    runs.map(cost).sum()
}

/// Length of the first piece, and its tokens at most.
fn piece(rest: &[u8]) -> (usize, usize) {
    let run = |from: usize, is: fn(&u8) -> bool| {
        rest.get(from..).unwrap_or_default().iter().take_while(|byte| is(byte)).count()
    };
    let at = |index: usize| rest.get(index).copied().unwrap_or(b'\n');
    let first = at(0);
    let lead = usize::from(!first.is_ascii_alphanumeric() && first != b'\n' && first != b'\r');
    if at(lead).is_ascii_alphabetic() {
        let upper = run(lead, u8::is_ascii_uppercase);
        let letters = upper + run(lead + upper, u8::is_ascii_lowercase);
        let short = contraction(rest.get(lead + letters..).unwrap_or_default());
        let word = rest.get(lead..lead + letters).unwrap_or_default();
        let known = || std::str::from_utf8(word).is_ok_and(|word| KNOWN.contains(word));
        let tokens = match first {
            _ if short > 0 => lead + letters + short,
            b' ' if known() => 1,
            b' ' => most(1, word),
            _ if (lead == 0 || first.is_ascii_punctuation()) && known() => 1 + lead,
            _ => lead + most(0, word),
        };
        return (lead + letters + short, tokens);
    }
    if first.is_ascii_digit() {
        return (run(0, u8::is_ascii_digit).min(3), 1);
    }
    let space = usize::from(first == b' ');
    let signs = run(space, |byte| !byte.is_ascii_alphanumeric() && !byte.is_ascii_whitespace());
    if signs > 0 {
        let ends = run(space + signs, |byte| matches!(byte, b'\n' | b'\r' | b'/'));
        let length = space + signs + ends;
        let joined = rest.get(..length).is_some_and(|run| JOINED.contains(run));
        return (length, if joined { 1 } else { length });
    }
    // White space: byte by byte, which is never too few. Before a word its last
    // one belongs to the word.
    let blank = run(0, u8::is_ascii_whitespace);
    let joins = blank > 1 && blank < rest.len() && !matches!(at(blank - 1), b'\n' | b'\r');
    let length = if joins { blank - 1 } else { blank.max(1) };
    let spaces = length <= SPACES && rest.iter().take(length).all(|byte| *byte == b' ');
    (length, if spaces { 1 } else { length })
}

/// The most tokens of letters behind so many spaces.
fn most(spaces: usize, word: &[u8]) -> usize {
    let easy = |byte: &u8| byte.is_ascii_lowercase() && !b"jkqxz".contains(byte);
    let in_row = |length: usize| if length == 0 { 0 } else { (2 * length + 1) / 3 };
    let (mut sum, mut row) = (0, spaces);
    for byte in word {
        if easy(byte) {
            row += 1;
        } else {
            sum += in_row(row) + 1;
            row = 0;
        }
    }
    sum + in_row(row)
}

/// Bytes of `'s` and its like at the beginning.
fn contraction(rest: &[u8]) -> usize {
    if rest.first() != Some(&b'\'') {
        return 0;
    }
    let rest = rest[1..].iter().take(2).map(u8::to_ascii_lowercase).collect::<Vec<_>>();
    match rest.as_slice() {
        [b'r' | b'v', b'e'] | [b'l', b'l'] => 3,
        [b's' | b't' | b'm' | b'd', ..] => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tiktoken_rs::{CoreBPE, o200k_base_singleton};

    fn count(text: &str) -> usize {
        let tokenizer: &CoreBPE = o200k_base_singleton();
        tokenizer.encode_ordinary(text).len()
    }

    #[test]
    fn what_the_bound_rests_on_is_true_of_the_vocabulary() {
        for word in WORDS.split(' ') {
            assert_eq!((count(word), count(&format!(" {word}"))), (1, 1), "{word}");
            for sign in (b'!'..=b'~').filter(u8::is_ascii_punctuation).map(char::from) {
                assert!(count(&format!("{sign}{word}")) <= 2, "{sign}{word}");
            }
        }
        let easy = |byte: &u8| !b"jkqxz".contains(byte);
        for a in (b'a'..=b'z').filter(easy).chain([b' ']) {
            for b in (b'a'..=b'z').filter(easy) {
                let pair: String = [a, b].map(char::from).into_iter().collect();
                assert_eq!(count(&pair), 1, "{pair:?}");
            }
        }
        for length in 1..=SPACES {
            assert_eq!(count(&" ".repeat(length)), 1, "{length} spaces");
        }
        for run in SIGNS {
            assert_eq!(count(run), 1, "{run:?}");
        }
        for number in 0..1000 {
            assert_eq!((count(&format!("{number}")), count(&format!("{number:03}"))), (1, 1));
        }
    }

    #[test]
    fn sentences_are_not_counted_far_too_high() {
        let text =
            "  train/loss went from 2.531 to 0.2913 by step 1719 (1720 values, best 0.25 at step 1600).\n";
        assert!(bound(text) * 2 <= count(text) * 3, "{} of {}", bound(text), count(text));
    }

    #[test]
    fn what_a_tool_answers_is_not_counted_far_too_high() {
        for text in [
            r#"{"durable":90,"rows":[{"run":"toy-one","state":"RUNNING","step":120,"usd":0.42},{"run":"toy-two","state":"FAILED","usd":1.5}]}"#,
            "toy-one RUNNING step 120 durable 90 $0.42\nmachine of \"vast\" at $0.31/h, 2h 07m: $0.66\n",
            "not done: a person must agree on a terminal: outlast approve ABCD-EFGH-JKLM-NPQR\n",
        ] {
            assert!(bound(text) * 3 <= count(text) * 5, "{} of {}: {text}", bound(text), count(text));
        }
    }

    proptest! {
        #[test]
        fn no_text_of_objects_has_more_tokens(text in "([{}\\[\\]\":,.()$ -]{1,6}([a-z]{0,6}|[0-9]{0,4})\n?){0,40}") {
            prop_assert!(count(&text) <= bound(&text), "{} of {}: {text:?}", bound(&text), count(&text));
        }

        #[test]
        fn no_text_has_more_tokens(text in "[ -~\n]{0,200}") {
            prop_assert!(count(&text) <= bound(&text), "{} of {}: {text:?}", bound(&text), count(&text));
        }

        #[test]
        fn no_text_of_words_has_more_tokens(text in "([ (/\"'.-]{0,2}([a-z]{1,9}|[A-Z]{1,4}[a-z]{0,5}|[0-9.]{1,6}|'s|loss|step|\n){1,2}){0,40}") {
            prop_assert!(count(&text) <= bound(&text), "{} of {}: {text:?}", bound(&text), count(&text));
        }

        #[test]
        fn no_picture_has_more_tokens(text in "([ ]{0,70}[*o+x|^!]{0,5}[ ]{0,9}\n?){0,12}") {
            prop_assert!(count(&text) <= bound(&text), "{} of {}: {text:?}", count(&text), bound(&text));
        }

        #[test]
        fn lines_add_up(lines in proptest::collection::vec("  [!-.0-~]{1,3}[ -~]{0,60}", 1..6)) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let sum: usize = lines.iter().map(|line| bound(&format!("{line}\n"))).sum();
            prop_assert!(count(&text) <= sum);
        }
    }
}
