//! Asks one source again and again, and passes on what is new. Where nobody
//! answers, the pauses grow to minutes: a machine without the service does not
//! pay for it. What is not understood is passed on once.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::broker::Wanted;
use super::http::{Answer, Ask, Place, ask};
use super::{Heard, Source, Word, azure, ec2, gce, own};
use crate::os;

/// What the clouds advise.
const EVERY: Duration = Duration::from_secs(5);
const SELDOM: Duration = Duration::from_mins(10);
/// A file costs next to nothing.
const FILE_EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);
/// Google's service answers when something changes, or after this long.
const LONG_POLL_S: u64 = 20;
/// The first answer of Azure's takes so long: it switches the service on.
const AZURE_FIRST: Duration = Duration::from_secs(125);
/// Failures in a row that are told.
const TOLD_AFTER: u32 = 3;
/// Different oddities that are told of one source.
const ODDITIES: usize = 3;
/// A deadline that comes nearer by less is the same.
const NEARER_MS: u64 = 5_000;

/// Passes on what is new of one source.
pub(super) struct Voice {
    source: Source,
    out: mpsc::Sender<Heard>,
    /// The last word that was understood.
    last: Option<Word>,
    odd: Vec<String>,
    failures: u32,
}

impl Voice {
    pub(super) fn new(source: Source, out: mpsc::Sender<Heard>) -> Self {
        Self { source, out, last: None, odd: Vec::new(), failures: 0 }
    }

    /// Takes an answer, and says how long to wait for the next.
    async fn heard(&mut self, word: Word, every: Duration) -> Duration {
        self.failures = 0;
        if is_new(self.last.as_ref(), &word, &self.odd) {
            match &word {
                Word::Odd(why) => self.odd.push(why.clone()),
                word => self.last = Some(word.clone()),
            }
            let _ = self.out.send(Heard { source: self.source, word }).await;
        }
        every
    }

    /// Nobody answered.
    async fn failed(&mut self, error: &io::Error) -> Duration {
        self.failures += 1;
        tracing::debug!(source = %self.source, %error, "no answer");
        let failures = self.failures;
        if failures == TOLD_AFTER {
            let why =
                Word::Odd("its metadata service does not answer: no notice can be heard from it".into());
            self.heard(why, EVERY).await;
            self.failures = failures;
        }
        pause(failures)
    }

    async fn took(&mut self, answer: io::Result<Word>, every: Duration) {
        let pause = match answer {
            Ok(word) => self.heard(word, every).await,
            Err(error) => self.failed(&error).await,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Whether a word is news. A deadline that is counted from the moment of the
/// answer is none; one that came nearer is.
fn is_new(last: Option<&Word>, word: &Word, odd: &[String]) -> bool {
    match (last, word) {
        (_, Word::Odd(why)) => odd.len() < ODDITIES && !odd.contains(why),
        (Some(Word::Notice(a)), Word::Notice(b)) => {
            let nearer = match (a.until_unix_ms, b.until_unix_ms) {
                (Some(before), Some(now)) => now.saturating_add(NEARER_MS) < before,
                (before, now) => before.is_none() && now.is_some(),
            };
            nearer || (a.kind, &a.text, &a.event) != (b.kind, &b.text, &b.event)
        }
        (last, word) => last != Some(word),
    }
}

/// The pause after the `n`th failure in a row.
fn pause(n: u32) -> Duration {
    EVERY.saturating_mul(1 << n.saturating_sub(1).min(10)).min(SELDOM)
}

async fn get(place: Place, host: &str, path: &str, header: (&str, &str)) -> io::Result<Answer> {
    ask(place, &Ask { method: "GET", host, path, header, body: b"", patience: PATIENCE }).await
}

/// Asks EC2's.
pub(super) async fn ec2(place: Place, mut voice: Voice) {
    let mut token = None;
    loop {
        let word = ec2_once(place, &mut token).await;
        if word.is_err() {
            token = None;
        }
        voice.took(word, EVERY).await;
    }
}

async fn ec2_once(place: Place, token: &mut Option<String>) -> io::Result<Word> {
    // A token that has run out is replaced once.
    for _ in 0..2 {
        let held = match token.take() {
            Some(held) => held,
            None => ec2_token(place).await?,
        };
        let header = (ec2::TOKEN_HEADER, held.as_str());
        let action = get(place, ec2::HOST, ec2::ACTION, header).await?;
        if action.status == 401 {
            continue;
        }
        let rebalance = get(place, ec2::HOST, ec2::REBALANCE, header).await?;
        let action = ec2::action(action.status, &action.body);
        let rebalance = ec2::rebalance(rebalance.status, &rebalance.body);
        *token = Some(held);
        return Ok(ec2::both(action, rebalance));
    }
    Ok(Word::Odd("every token of its metadata service is refused".into()))
}

async fn ec2_token(place: Place) -> io::Result<String> {
    let asked = Ask {
        method: "PUT",
        host: ec2::HOST,
        path: ec2::TOKEN,
        header: ec2::TOKEN_TTL,
        body: b"",
        patience: PATIENCE,
    };
    let answer = ask(place, &asked).await?;
    let token = ec2::token(answer.status, &answer.body);
    token
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no token, but {}", answer.status)))
}

/// Asks Google's.
pub(super) async fn gce(place: Place, mut voice: Voice) {
    let mut tag: Option<String> = None;
    loop {
        let began = Instant::now();
        let word = gce_once(place, &mut tag).await;
        if word.is_err() {
            tag = None;
        }
        // An answer that was waited for has taken its time.
        let waited = tag.is_some() && began.elapsed() >= EVERY;
        voice
            .took(
                word,
                if waited {
                    Duration::ZERO
                } else if tag.is_some() {
                    FILE_EVERY
                } else {
                    EVERY
                },
            )
            .await;
    }
}

async fn gce_once(place: Place, tag: &mut Option<String>) -> io::Result<Word> {
    let wait = tag.as_deref().map(|tag| {
        format!("{}?wait_for_change=true&timeout_sec={LONG_POLL_S}&last_etag={tag}", gce::PREEMPTED)
    });
    let path = wait.as_deref().unwrap_or(gce::PREEMPTED);
    let patience = if wait.is_some() { Duration::from_secs(LONG_POLL_S) + PATIENCE } else { PATIENCE };
    let asked = Ask { method: "GET", host: gce::HOST, path, header: gce::FLAVOR, body: b"", patience };
    let preempted = ask(place, &asked).await?;
    *tag = preempted.etag.as_deref().and_then(gce::etag).map(str::to_owned);
    let maintenance = get(place, gce::HOST, gce::MAINTENANCE, gce::FLAVOR).await?;
    let now = os::unix_ms();
    let preempted = gce::preempted(preempted.status, &preempted.body, now);
    Ok(gce::both(preempted, gce::maintenance(maintenance.status, &maintenance.body, now)))
}

/// Asks Azure's, and lets an event begin once what it ends is saved.
pub(super) async fn azure(place: Place, mut voice: Voice, mut wanted: watch::Receiver<Option<Wanted>>) {
    let mut own = None;
    let mut acknowledged: Option<String> = None;
    let mut patience = AZURE_FIRST;
    loop {
        if own.is_none()
            && let Ok(answer) = get(place, azure::HOST, azure::NAME, azure::HEADER).await
        {
            own = azure::name(answer.status, &answer.body);
        }
        let word = azure_once(place, own.as_deref(), patience).await;
        if word.is_ok() {
            patience = PATIENCE;
        }
        let event = match &word {
            Ok(Word::Notice(notice)) => notice.event.clone(),
            _ => None,
        };
        let saved = wanted.borrow_and_update().as_ref().is_some_and(|wanted| wanted.saved);
        if let Some(event) = event
            && saved
            && acknowledged.as_ref() != Some(&event)
        {
            let body = azure::acknowledgement(&event);
            let path = azure::EVENTS;
            let asked = Ask {
                method: "POST",
                host: azure::HOST,
                path,
                header: azure::HEADER,
                body: &body,
                patience: PATIENCE,
            };
            match ask(place, &asked).await {
                Ok(answer) if answer.status == 200 => acknowledged = Some(event),
                Ok(answer) => tracing::warn!(status = answer.status, "an acknowledgement was refused"),
                Err(error) => tracing::warn!(%error, "an event could not be acknowledged"),
            }
        }
        tokio::select! {
            () = voice.took(word, EVERY) => {}
            // It is saved: the event may begin now. What was to be told is told
            // with the next answer.
            Ok(()) = wanted.changed() => {}
        }
    }
}

async fn azure_once(place: Place, own: Option<&str>, patience: Duration) -> io::Result<Word> {
    let asked = Ask {
        method: "GET",
        host: azure::HOST,
        path: azure::EVENTS,
        header: azure::HEADER,
        body: b"",
        patience,
    };
    let answer = ask(place, &asked).await?;
    Ok(azure::events(answer.status, &answer.body, own, os::unix_ms()))
}

/// Runs the user's command.
pub(super) async fn hook(argv: Vec<String>, cwd: PathBuf, env: BTreeMap<String, String>, mut voice: Voice) {
    loop {
        let (argv, cwd, env) = (argv.clone(), cwd.clone(), env.clone());
        let word = tokio::task::spawn_blocking(move || own::hook(&argv, &cwd, &env, os::unix_ms())).await;
        voice.took(word.map_err(io::Error::other), EVERY).await;
    }
}

/// Looks for the user's file.
pub(super) async fn file(path: PathBuf, mut voice: Voice) {
    loop {
        let path = path.clone();
        let word = tokio::task::spawn_blocking(move || own::file(&path, os::unix_ms())).await;
        voice.took(word.map_err(io::Error::other), FILE_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Notice};
    use super::*;

    #[test]
    fn a_notice_is_news_once_and_an_oddity_is_told_once() {
        let at = |until| Word::Notice(Notice::new(Kind::Ends, "preempted", Some(until)));
        assert!(is_new(None, &Word::Quiet, &[]), "what stood before is taken back");
        assert!(!is_new(Some(&Word::Quiet), &Word::Quiet, &[]));
        assert!(is_new(Some(&Word::Quiet), &at(5), &[]));
        assert!(!is_new(Some(&at(5)), &at(6), &[]), "counted from each answer");
        assert!(is_new(Some(&at(60_000)), &at(6), &[]), "it came nearer");
        assert!(is_new(Some(&at(5)), &Word::Quiet, &[]), "taken back");
        let odd = Word::Odd("x".into());
        assert!(is_new(Some(&at(5)), &odd, &[]));
        assert!(!is_new(Some(&at(5)), &odd, &["x".into()]));
        assert!(!is_new(Some(&at(5)), &odd, &["a".into(), "b".into(), "c".into()]));
    }

    #[test]
    fn who_does_not_answer_is_asked_ever_more_seldom() {
        assert_eq!(pause(1), EVERY);
        assert_eq!(pause(2), 2 * EVERY);
        assert_eq!(pause(40), SELDOM);
    }
}
