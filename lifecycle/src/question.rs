//! What only a person can decide: when it is asked, with which answers, and
//! which of them is taken when nobody says anything. Pure.
//!
//! Rules: the answer that is taken by default never spends what nobody agreed
//! to and never gives up what is stored; and a question says what it rests on,
//! since whoever answers sees nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};

const MINUTE_MS: u64 = 60_000;
/// A question about somebody's will waits a day.
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// Lines of evidence of one question, and characters of each.
const EVIDENCE: usize = 8;
const EVIDENCE_CHARS: usize = 600;

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// So many machines were made within the hour that no more may be.
    #[default]
    Storm,
    /// A source of machines keeps refusing.
    Refused(Trouble),
    /// Machine after machine is lost without any progress, or another try
    /// costs more than it can win.
    Fruitless,
    /// There was a checkpoint, and no good one is left.
    NoCheckpoint,
}

impl Kind {
    /// A short name that stays.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Storm => "storm",
            Self::Refused(trouble) => trouble.name(),
            Self::Fruitless => "fruitless",
            Self::NoCheckpoint => "no-checkpoint",
        }
    }
}

/// Why a source of machines refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// Nothing is to be had for this wish and price.
    NoOffer,
    /// The account has no money left.
    Credit,
    /// The key is missing, not accepted, or may not do this.
    Key,
    /// The provider answers no more questions for a while.
    Quota,
    /// The wish is refused as it is.
    Invalid,
    /// Anything that passes: a fault, a full host, a busy service.
    #[default]
    Passing,
}

impl Trouble {
    /// A short name that stays.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoOffer => "no-offer",
            Self::Credit => "credit",
            Self::Key => "key",
            Self::Quota => "quota",
            Self::Invalid => "invalid",
            Self::Passing => "passing",
        }
    }

    /// How often it must be met in a row, and for how long, before a person is
    /// asked: what heals by itself gets time for it.
    fn patience(self) -> (u32, u64) {
        match self {
            // Nobody but a person makes these better.
            Self::Credit | Self::Key | Self::Invalid => (2, 0),
            Self::NoOffer => (3, MINUTE_MS),
            Self::Passing | Self::Quota => (3, 15 * MINUTE_MS),
        }
    }

    /// How long after a question the provider is asked again by itself.
    fn pause_ms(self) -> u64 {
        match self {
            Self::NoOffer | Self::Passing | Self::Quota => 5 * MINUTE_MS,
            Self::Credit | Self::Key | Self::Invalid => 15 * MINUTE_MS,
        }
    }

    fn says(self) -> &'static str {
        match self {
            Self::NoOffer => "has no machine for it",
            Self::Credit => "wants money: the account has no credit left",
            Self::Key => "does not accept the key",
            Self::Quota => "answers no more questions for now",
            Self::Invalid => "refuses what is asked for",
            Self::Passing => "keeps failing",
        }
    }

    /// What a person can do about it besides answering.
    fn advice(self) -> &'static str {
        match self {
            Self::NoOffer => {
                "to take other machines, stop it, change [machine] or [budget] max_usd_per_hour and `outlast run` \
                 again; `outlast offers` shows what there is"
            }
            Self::Credit => "pay in at the provider, then let it go on",
            Self::Key => "put the key right, then let it go on",
            Self::Quota => "the provider's limit ends by itself",
            Self::Invalid => "stop it, correct [machine], and `outlast run` again",
            Self::Passing => "the provider's status page may know more",
        }
    }
}

/// Refusals in a row, kept with the run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refusals {
    /// Why, the last time.
    pub trouble: Trouble,
    /// In the provider's words.
    pub reason: String,
    /// Unix milliseconds of the first of the row.
    pub since_ms: u64,
    /// How many of this trouble.
    pub count: u32,
    /// Unix milliseconds before which there is no use in asking; 0: unknown.
    #[serde(default)]
    pub not_before_ms: u64,
    /// How often a person was asked about this row.
    #[serde(default)]
    pub asked: u32,
    /// How many there were when a person was last asked: the provider is
    /// asked once more before the person is.
    #[serde(default)]
    pub told: u32,
}

impl Refusals {
    /// The row after one more refusal.
    #[must_use]
    pub fn and(
        before: Option<Self>,
        trouble: Trouble,
        reason: &str,
        not_before_ms: u64,
        now_ms: u64,
    ) -> Self {
        let reason = clip(reason);
        match before {
            // Another trouble is another row, but the provider refuses since then.
            Some(row) if row.since_ms <= now_ms => {
                let count = if row.trouble == trouble { row.count.saturating_add(1) } else { 1 };
                let (asked, told) = if row.trouble == trouble { (row.asked, row.told) } else { (0, 0) };
                Self { trouble, reason, since_ms: row.since_ms, count, not_before_ms, asked, told }
            }
            // None before, or a clock that was set back.
            _ => Self { trouble, reason, since_ms: now_ms, count: 1, not_before_ms, asked: 0, told: 0 },
        }
    }

    /// Whether a person is to be asked now.
    #[must_use]
    pub fn is_due(&self, now_ms: u64) -> bool {
        let (count, ms) = self.trouble.patience();
        let long = now_ms.saturating_sub(self.since_ms) >= ms;
        // A limit that ends soon is waited for; one that does not is told of.
        let (early, far) = (self.is_early(now_ms), self.not_before_ms > now_ms + 10 * MINUTE_MS);
        let due = self.asked > 0 || early && far || self.count >= count && long && !early;
        self.count > self.told && due
    }

    /// A person was asked now.
    pub fn was_told(&mut self) {
        self.asked = self.asked.saturating_add(1);
        self.told = self.count;
    }

    /// Whether there is no use in asking the provider yet.
    #[must_use]
    pub fn is_early(&self, now_ms: u64) -> bool {
        // What is further off than a day comes from a clock that was set back.
        (now_ms + 1..=now_ms + DAY_MS).contains(&self.not_before_ms)
    }
}

/// What an answer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Wait until the question's deadline, then go on as before.
    Wait,
    /// Go on now, with fresh patience.
    GoOn,
    /// Begin the work anew, without a checkpoint.
    StartOver,
    /// End the run; what is stored stays.
    Stop,
}

impl Verb {
    /// A short name that stays.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::GoOn => "go-on",
            Self::StartOver => "start-over",
            Self::Stop => "stop",
        }
    }
}

/// One answer that is understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Choice {
    /// What it does.
    pub verb: Verb,
    /// That in words.
    pub text: String,
}

/// Older rows had the words alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Words(String),
    Choice { verb: Verb, text: String },
}

impl From<Written> for Choice {
    fn from(written: Written) -> Self {
        match written {
            Written::Words(text) if text == "stop" => Self { verb: Verb::Stop, text },
            // Their default waited for the hour's end.
            Written::Words(text) => Self { verb: Verb::GoOn, text },
            Written::Choice { verb, text } => Self { verb, text },
        }
    }
}

/// What only a person can decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What it is about.
    #[serde(default)]
    pub kind: Kind,
    /// The question in one sentence.
    pub text: String,
    /// What it rests on, and what can be done besides answering.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// The answers that are understood, numbered from 1.
    pub options: Vec<Choice>,
    /// The number of the answer that is taken at the deadline.
    #[serde(default = "first")]
    pub default: u32,
    /// Unix milliseconds after which the default is taken.
    pub deadline_ms: u64,
    /// Unix milliseconds when it was asked; tells two questions apart.
    #[serde(default)]
    pub asked_ms: u64,
    /// It was asked before, and nothing has changed since.
    #[serde(default)]
    pub again: bool,
}

fn first() -> u32 {
    1
}

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuchAnswer(u32, Vec<String>);

impl fmt::Display for NoSuchAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no answer {}; the answers are: {}", self.0, self.1.join("; "))
    }
}

impl Question {
    /// The answer with this number.
    ///
    /// # Errors
    /// Where there is none; says which there are.
    pub fn answer(&self, number: u32) -> Result<&Choice, NoSuchAnswer> {
        let index = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
        index.and_then(|index| self.options.get(index)).ok_or_else(|| {
            let all = self.options.iter().zip(1..).map(|(choice, n)| format!("{n} {}", choice.text));
            NoSuchAnswer(number, all.collect())
        })
    }

    /// What is done at the deadline.
    #[must_use]
    pub fn by_default(&self) -> Verb {
        self.answer(self.default).map_or(Verb::Stop, |choice| choice.verb)
    }

    /// The number of an answer that does this.
    #[must_use]
    pub fn number_of(&self, verb: Verb) -> Option<u32> {
        self.options.iter().zip(1..).find(|(choice, _)| choice.verb == verb).map(|(_, n)| n)
    }

    fn new(kind: Kind, text: String, now_ms: u64, deadline_ms: u64) -> Self {
        Self {
            kind,
            text,
            evidence: Vec::new(),
            options: Vec::new(),
            default: 1,
            // A question that is over when it is asked would be asked for ever.
            deadline_ms: deadline_ms.max(now_ms + 1),
            asked_ms: now_ms,
            again: false,
        }
    }

    fn option(mut self, verb: Verb, text: impl Into<String>) -> Self {
        self.options.push(Choice { verb, text: text.into() });
        self
    }

    /// Adds what it rests on; more than a few lines are left out.
    #[must_use]
    pub fn because(mut self, line: impl AsRef<str>) -> Self {
        if self.evidence.len() < EVIDENCE && !line.as_ref().trim().is_empty() {
            self.evidence.push(clip(line.as_ref()));
        }
        self
    }
}

fn clip(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(EVIDENCE_CHARS).collect::<String>().trim().to_owned()
}

const KEEP: &str = "stop: end the run and keep what is stored";

/// No more machines may be made for it within the hour, which ends at `over_ms`.
#[must_use]
pub fn storm(made: usize, now_ms: u64, over_ms: u64) -> Question {
    let text =
        format!("{made} machines were made for it within an hour; go on now, or wait for the hour to end?");
    Question::new(Kind::Storm, text, now_ms, over_ms)
        .option(Verb::Wait, "wait: make the next machine when the hour is over")
        .option(Verb::GoOn, "go on now")
        .option(Verb::Stop, KEEP)
        .because("something takes its machines away, or the program destroys them: outlast why")
}

/// The same where no agent ever came from the newest `unstarted` of them: the
/// program has no part in it. With why the last of these ended.
#[must_use]
pub fn storm_unstarted(made: usize, unstarted: usize, last: &str, now_ms: u64, over_ms: u64) -> Question {
    let mut question = storm(made, now_ms, over_ms);
    question.evidence.clear();
    question
        .because(format!("no agent ever came from {unstarted} of them: the program did not run there"))
        .because(format!("the last one: {last}"))
}

/// A provider keeps refusing.
#[must_use]
pub fn refused(provider: &str, row: &Refusals, now_ms: u64) -> Question {
    let trouble = row.trouble;
    let pause = trouble.pause_ms();
    // What has lasted for hours is asked after less often.
    let pause = pause.saturating_mul(u64::from(row.asked.min(5)) + 1).min(60 * MINUTE_MS);
    let deadline = (now_ms + pause).max(row.not_before_ms.min(now_ms + DAY_MS));
    let minutes = now_ms.saturating_sub(row.since_ms) / MINUTE_MS;
    let text = format!("`{provider}` {}; wait, go on or stop?", trouble.says());
    let mut question = Question::new(Kind::Refused(trouble), text, now_ms, deadline)
        .option(Verb::Wait, "wait: ask the provider again later")
        .option(Verb::GoOn, "ask the provider again now")
        .option(Verb::Stop, KEEP)
        .because(&row.reason)
        .because(format!("refused {} times in a row, for {minutes} minutes", row.count))
        .because(trouble.advice());
    question.again = row.asked > 0;
    question
}

/// Tries bring nothing.
#[must_use]
pub fn fruitless(why: &str, now_ms: u64) -> Question {
    Question::new(Kind::Fruitless, format!("{why}; go on or stop?"), now_ms, now_ms + DAY_MS)
        .option(Verb::Stop, KEEP)
        .option(Verb::GoOn, "go on: try again on another machine")
        .option(Verb::StartOver, "start over: begin anew, without a checkpoint")
        .because("outlast why tells what each of them ended of")
}

/// What it could go on from is gone or damaged.
#[must_use]
pub fn no_checkpoint(step: Option<u64>, now_ms: u64) -> Question {
    let at = step.map_or_else(String::new, |step| format!(" (the newest was of step {step})"));
    let text = format!("none of its checkpoints is good any more{at}; start over, or stop?");
    Question::new(Kind::NoCheckpoint, text, now_ms, now_ms + DAY_MS)
        .option(Verb::Stop, KEEP)
        .option(Verb::GoOn, "look again: a copy was brought back")
        .option(Verb::StartOver, "start over: begin anew, without a checkpoint")
        .because("starting over pays for all that was done so far once more")
        .because("outlast checkpoints and outlast artifacts verify show what is wrong with each")
}

#[cfg(test)]
mod tests;
