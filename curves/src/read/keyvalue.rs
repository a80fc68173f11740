//! `name=value` and `name: value` lines, however they are strung together.
//!
//! Most lines of a log are prose that may hold numbers. A pair counts only
//! where the line shows that it is about metrics: by a step or an epoch, by a
//! metric's usual name, or by holding nothing but `name=value`.

mod token;

use super::line::{LineMetrics, Role, StepChoice, epoch, is_known, role};
use crate::number;
use token::{Kind, Token, tokens};

/// How a pair was written, from the plainest to the least.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `name=1`.
    TightEquals,
    /// `name = 1`, which source code in tracebacks is written like too.
    Equals,
    /// `name: 1`.
    Colon,
    /// `name:1`, which hosts, files and times are written like too.
    TightColon,
    /// `name 1`.
    Bare,
}

struct Pair {
    name: String,
    value: f64,
    form: Form,
}

/// Metrics of a line, `None` when it shows no sign of being about them.
pub(super) fn parse(line: &str) -> Option<LineMetrics> {
    let mut tokens = tokens(line)?;
    let mut walk = Walk::new(false);
    match lead(&tokens) {
        Lead::Index(step) => {
            walk.steps.offer(0, step, None);
            tokens.drain(..4);
        }
        Lead::Place(done, total) => {
            walk.place = Some((done, total));
            tokens.remove(0);
        }
        Lead::PartOfEpoch => return None,
        Lead::None => {}
    }
    walk.line(&tokens);
    walk.judge()
}

/// The title and the postfix of a progress bar: surely about metrics.
pub(super) fn parse_postfix(text: &str) -> LineMetrics {
    let mut walk = Walk::new(true);
    if let Some(tokens) = tokens(text) {
        walk.line(&tokens);
    }
    walk.judge().unwrap_or_default()
}

enum Lead {
    /// `[5]<TAB>`: a boosting round.
    Index(u64),
    /// `12/44 ... - loss: 0.3`: averages so far within an epoch, drawn anew
    /// many times.
    PartOfEpoch,
    /// `12/600 loss 2.7`.
    Place(u64, u64),
    None,
}

fn lead(tokens: &[Token<'_>]) -> Lead {
    let word = |i: usize| tokens.get(i).filter(|t| t.kind == Kind::Word).map(|t| t.text);
    if let [open, index, close, tab, ..] = tokens
        && (open.text, close.text, tab.text) == ("[", "]", "\t")
        && let Some((step, None)) = number::step(index.text)
    {
        return Lead::Index(step);
    }
    match word(0).and_then(number::step) {
        Some((done, Some(total))) if done < total && tokens.iter().any(|t| t.text == "-") => {
            Lead::PartOfEpoch
        }
        Some((done, Some(total))) if done <= total => Lead::Place(done, total),
        _ => Lead::None,
    }
}

/// One pass over the tokens of a line.
struct Walk {
    certain: bool,
    pairs: Vec<Pair>,
    steps: StepChoice,
    epoch: Option<f64>,
    epochs: Option<u64>,
    /// What the line begins with; it is a step if the rest is plainly metrics.
    place: Option<(u64, u64)>,
    /// Words that belong to no pair: signs of prose.
    strays: usize,
    /// Where the words not yet used begin.
    from: usize,
}

impl Walk {
    fn new(certain: bool) -> Self {
        Self {
            certain,
            pairs: Vec::new(),
            steps: StepChoice::default(),
            epoch: None,
            epochs: None,
            place: None,
            strays: 0,
            from: 0,
        }
    }

    fn line(&mut self, tokens: &[Token<'_>]) {
        let mut i = 0;
        while i < tokens.len() {
            let used = match tokens[i].kind {
                Kind::Word => self.word(tokens, i),
                Kind::Open => call_length(tokens, i),
                _ => 0,
            };
            if used == 0 && tokens[i].kind == Kind::Word {
                i += 1;
                continue;
            }
            if tokens[i].kind != Kind::Word {
                self.strays += i - self.from + usize::from(tokens[i].kind == Kind::Equals);
            }
            i += used.max(1);
            self.from = i;
        }
        self.strays += tokens.len() - self.from;
    }

    /// Tries a step mark or a pair whose name ends at `i`: tokens used.
    fn word(&mut self, tokens: &[Token<'_>], i: usize) -> usize {
        let name = tokens[i].text;
        let used = match role(name) {
            Role::Value if name == "s" && i == 0 => self.mark(tokens, i, Role::Step(99), true),
            mark @ (Role::Step(_) | Role::Epoch) => {
                self.mark(tokens, i, mark, name.eq_ignore_ascii_case("it"))
            }
            _ => 0,
        };
        if used > 0 {
            let others = tokens[self.from..i].iter().filter(|t| !is_qualifier(t.text)).count();
            self.strays += others;
            return used;
        }
        if is_name(name) { self.pair(tokens, i) } else { 0 }
    }

    /// `step 5`, `step=5/10`, `Step [5/10]`, `iteration  5/ 10`.
    fn mark(&mut self, tokens: &[Token<'_>], i: usize, mark: Role, explicit: bool) -> usize {
        let mut j = i + 1;
        let separated = tokens.get(j).is_some_and(|t| matches!(t.kind, Kind::Equals | Kind::Colon));
        j += usize::from(separated);
        let bracket = tokens.get(j).is_some_and(|t| t.text == "[");
        j += usize::from(bracket);
        let Some(text) = tokens.get(j).filter(|t| t.kind == Kind::Word).map(|t| t.text) else { return 0 };
        if explicit && !separated {
            return 0;
        }
        let Some((value, mut total)) = counter(text, mark) else { return 0 };
        j += 1;
        if text.ends_with('/')
            && let Some((all, None)) = tokens.get(j).and_then(|t| number::step(t.text))
        {
            total = Some(all);
            j += 1;
        }
        if !ends_value(tokens, j) {
            return 0;
        }
        match mark {
            Role::Step(rank) => {
                if let Some(step) = super::line::step(value) {
                    self.steps.offer(rank, step, total);
                }
            }
            _ => {
                self.epoch = self.epoch.or(epoch(value));
                self.epochs = self.epochs.or(total);
            }
        }
        // A colon after a mark only leads over to the metrics.
        j += usize::from(tokens.get(j).is_some_and(|t| t.text == "]" && bracket));
        if mark == Role::Epoch {
            j += self.within_epoch(&tokens[j..], value);
        }
        j += usize::from(tokens.get(j).is_some_and(|t| t.kind == Kind::Colon));
        j - i
    }

    /// `[640/60000 (1%)]` or `[ 500/5005]` behind an epoch: how far in it. Steps go
    /// on from epoch to epoch. Gives the tokens used.
    fn within_epoch(&mut self, tokens: &[Token<'_>], epoch: f64) -> usize {
        let [open, place, close, ..] = tokens else { return 0 };
        let ends = matches!(close.text, "]" | "(");
        if open.text != "[" || place.kind != Kind::Word || !ends {
            return 0;
        }
        let Some((done, Some(total))) =
            number::step(place.text).filter(|(done, total)| Some(*done) <= *total)
        else {
            return 0;
        };
        let passed = super::line::step(epoch).and_then(|epoch| epoch.checked_mul(total)?.checked_add(done));
        let Some(step) = passed.filter(|step| *step <= 1 << 53) else { return 0 };
        // A step that the line names is surer.
        self.steps.offer(usize::MAX - 1, step, None);
        2 + usize::from(close.text == "]")
    }

    fn pair(&mut self, tokens: &[Token<'_>], i: usize) -> usize {
        let name = tokens[i].text;
        let sign = tokens.get(i + 1).filter(|t| matches!(t.kind, Kind::Equals | Kind::Colon));
        let at = if sign.is_some() { i + 2 } else { i + 1 };
        let Some(token) = tokens.get(at).filter(|t| t.kind == Kind::Word) else { return 0 };
        let form = match sign {
            None if is_known(name) => Form::Bare,
            None => return 0,
            Some(sign) => match (sign.kind == Kind::Equals, sign.spaced || token.spaced) {
                (true, true) => Form::Equals,
                (true, false) => Form::TightEquals,
                (false, true) => Form::Colon,
                (false, false) => Form::TightColon,
            },
        };
        let value = number::whole(token.text).or_else(|| share(name, token.text));
        let Some(value) = value.filter(|_| ends_value(tokens, at + 1)) else { return 0 };
        if form == Form::Colon && !self.certain && runs_into_prose(tokens, at + 1) {
            return 0;
        }
        if role(name) == Role::Ignored {
            return at + 1 - i;
        }
        let first =
            if matches!(form, Form::TightEquals | Form::TightColon) { i } else { self.name_start(tokens, i) };
        let words: Vec<&str> = tokens[first..=i].iter().map(|t| t.text).collect();
        self.strays += first - self.from;
        self.pairs.push(Pair { name: words.join(" "), value, form });
        at + 1 - i
    }

    /// Where the name that ends at `i` begins: all the words since the last
    /// separator if they are few and plain, else only what qualifies it.
    fn name_start(&self, tokens: &[Token<'_>], i: usize) -> usize {
        let before = &tokens[self.from..i];
        if before.len() <= 3 && before.iter().all(|t| is_name(t.text)) {
            return self.from;
        }
        i - before.iter().rev().take(3).take_while(|t| is_qualifier(t.text)).count()
    }

    fn judge(mut self) -> Option<LineMetrics> {
        let plainly = self.strays == 0 && self.pairs.iter().any(|pair| is_known(&pair.name));
        match self.place {
            Some((done, total)) if plainly => self.steps.offer(usize::MAX - 1, done, Some(total)),
            Some(_) => self.strays += 1,
            None => {}
        }
        let counted = self.certain || self.steps.found() || self.epoch.is_some();
        let known = self.pairs.iter().any(|pair| pair.form != Form::Bare && is_known(&pair.name));
        let alone = self.strays == 0;
        let mut metrics = LineMetrics { epoch: self.epoch, ..LineMetrics::default() };
        for pair in self.pairs {
            let taken = match pair.form {
                Form::TightEquals => counted || known || alone,
                Form::Equals | Form::Colon => counted || known,
                Form::TightColon => {
                    !pair.name.contains('.') && (is_known(&pair.name) || alone && (counted || known))
                }
                Form::Bare => counted,
            };
            if taken {
                metrics.push(pair.name, pair.value);
            }
        }
        if metrics.values.is_empty() && metrics.dropped == 0 && !alone {
            return None;
        }
        let both = self.steps.found() && self.epochs.is_some();
        self.steps.store(&mut metrics);
        if both {
            // Whether the steps count within an epoch is not known.
            metrics.progress = None;
        } else if let Some(epoch) = self.epoch.and_then(super::line::step) {
            metrics.progress = metrics.progress.or(self.epochs.map(|all| (epoch, all)));
        }
        Some(metrics)
    }
}

/// `Accuracy: 9831/10000`: how many of how many.
fn share(name: &str, text: &str) -> Option<f64> {
    let named = ["accuracy", "acc"].iter().any(|word| name.eq_ignore_ascii_case(word));
    let (right, all) = text.split_once('/').filter(|_| named)?;
    let (right, all): (u64, u64) = (right.parse().ok()?, all.parse().ok()?);
    (right <= all && all > 0).then(|| right as f64 / all as f64)
}

/// The value of a counter; epochs may be fractions.
fn counter(text: &str, mark: Role) -> Option<(f64, Option<u64>)> {
    if let Some((step, total)) = number::step(text) {
        return Some((step as f64, total));
    }
    let plain = mark == Role::Epoch && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| number::whole(text)).flatten().map(|value| (value, None))
}

/// Whether a value may end before token `j`.
fn ends_value(tokens: &[Token<'_>], j: usize) -> bool {
    match tokens.get(j).map(|t| t.kind) {
        Some(Kind::Equals) => false,
        Some(Kind::Colon) => tokens.get(j + 1).is_none_or(|t| t.spaced),
        _ => true,
    }
}

/// `error: 404 not found`: words follow the value, and no further pair does.
fn runs_into_prose(tokens: &[Token<'_>], j: usize) -> bool {
    for (n, token) in tokens[j..].iter().take(6).enumerate() {
        match token.kind {
            Kind::Equals | Kind::Colon => return false,
            Kind::Word if is_known(token.text) || !matches!(role(token.text), Role::Value) => return false,
            Kind::Word => {}
            _ => return n > 0,
        }
    }
    tokens.len() > j
}

/// Length of the arguments of `Adam(lr=0.1, eps=1e-8)`, which are settings;
/// 0 where a parenthesis follows no name.
fn call_length(tokens: &[Token<'_>], i: usize) -> usize {
    let called =
        i > 0 && !tokens[i].spaced && tokens[i - 1].kind == Kind::Word && is_name(tokens[i - 1].text);
    if !called || tokens[i].text != "(" {
        return 0;
    }
    let mut depth = 0_usize;
    for (n, token) in tokens[i..].iter().enumerate() {
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return n + 1;
        }
    }
    tokens.len() - i
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && word.chars().all(|c| c.is_alphanumeric() || "_./'@%#+-".contains(c))
        && !word.contains("//")
}

/// Words that belong to the metric's name behind them.
fn is_qualifier(word: &str) -> bool {
    const QUALIFIERS: [&str; 24] = [
        "train",
        "training",
        "trn",
        "val",
        "valid",
        "validation",
        "eval",
        "test",
        "dev",
        "lm",
        "grad",
        "gradient",
        "learning",
        "avg",
        "avg.",
        "mean",
        "total",
        "best",
        "final",
        "current",
        "running",
        "train's",
        "valid's",
        "at",
    ];
    QUALIFIERS.iter().any(|q| word.eq_ignore_ascii_case(q))
}
