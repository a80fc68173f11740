//! Tells people what happens to their runs: a webhook or a program of theirs
//! for each event that `notify.toml` names.
//!
//! The journal is the source: a cursor turns its entries into messages, one row
//! for each message and receiver, in the transaction that moves the cursor.
//! Every message is therefore made once, whatever ends this process; it is sent
//! at least once, under an id that stays. Nothing here decides about a run, and
//! a receiver that is slow or gone holds up nothing but its own messages.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use lifecycle::RunId;
use proto::v1;
use reqwest::Client;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::core::{Changes, Core, CoreError};
use crate::execute::SELF;
use crate::model::{Machine, Record as _, Run, Versioned};
use crate::money::Room;
use crate::reconcile::chain;
use crate::store::Kind;

mod command;
mod notice;
mod outbox;
mod settings;
#[cfg(test)]
mod tests;
mod webhook;

use notice::{Event, Notice};
use outbox::{Cursor, Message, Outcome};
use settings::{How, Settings, Target};

/// Entries of the journal read at once.
const PAGE: usize = 200;
/// Looked at this often even if nothing happens: costs, and clocks.
const PERIOD: Duration = Duration::from_secs(5);
/// Many things that happen at once are looked at once.
const GATHER: Duration = Duration::from_millis(200);

/// What is known of a receiver besides its messages.
#[derive(Debug, Clone, Default)]
struct Lane {
    busy: bool,
    fails: u32,
    /// Milliseconds of the steady clock.
    not_before_ms: u64,
    trouble: String,
}

/// What the task that sends and those who ask about it share.
#[derive(Debug, Default)]
pub struct Desk {
    home: OnceLock<PathBuf>,
    lanes: Mutex<BTreeMap<String, Lane>>,
}

impl Desk {
    fn lanes(&self) -> MutexGuard<'_, BTreeMap<String, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> Result<Settings, String> {
        match self.home.get() {
            Some(home) => settings::read(home).map_err(|error| error.to_string()),
            None => Ok(Settings::default()),
        }
    }
}

/// A share of what may be spent of a cap was reached: adds to `changes` the
/// entry that people are told of.
#[must_use]
pub fn budget(core: &Core, changes: Changes, run: RunId, percent: u32, room: &Room) -> Changes {
    let detail = json!({
        "scope": room.scope, "percent": percent, "spent_usd": room.spent_usd, "cap_usd": room.cap_usd,
        "kept_back_usd": room.reserved_usd, "may_spend_usd": room.may_spend_usd(),
    });
    changes.note(core, SELF, "budget-crossed", run, Some(run), detail)
}

/// Tells until it is stopped.
pub async fn run(core: Arc<Core>, home: PathBuf, stop: CancellationToken) {
    let _ = core.notify.home.set(home);
    core.notify.lanes().clear();
    let client = match webhook::client() {
        Ok(client) => client,
        Err(why) => return core.alert("notify", Some(format!("nobody is told of events: {why}"))),
    };
    let mut sending = JoinSet::new();
    let mut changed = core.changed.subscribe();
    loop {
        changed.mark_unchanged();
        match pass(&core, &client, &mut sending).await {
            Ok(()) => core.alert("notify", None),
            Err(why) => core.alert("notify", Some(format!("nobody is told of events: {why}"))),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(done) = sending.join_next() => {
                if let Ok((key, outcome)) = done
                    && let Err(error) = settle(&core, &key, outcome).await
                {
                    tracing::warn!(error = chain(&error), "what became of a message was not written down");
                }
            }
            _ = changed.changed() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(next_look(&core)) => {}
        }
    }
}

/// Until the first receiver that failed may be tried again, or a while.
fn next_look(core: &Core) -> Duration {
    let now = core.clock.mono_ms();
    let lanes = core.notify.lanes();
    let soonest =
        lanes.values().filter(|l| l.fails > 0 && !l.busy).map(|l| l.not_before_ms.saturating_sub(now)).min();
    soonest.map_or(PERIOD, |ms| Duration::from_millis(ms.max(50)).min(PERIOD))
}

/// What is sent, and to what row its end belongs.
type Sending = JoinSet<(String, Outcome)>;

async fn pass(core: &Arc<Core>, client: &Client, sending: &mut Sending) -> Result<(), String> {
    let settings = core.notify.settings()?;
    if settings.targets.is_empty() {
        return Ok(());
    }
    let failed = |error: CoreError| chain(&error);
    derive(core, &settings).await.map_err(failed)?;
    cost(core, &settings).await.map_err(failed)?;
    expire(core, &settings).await.map_err(failed)?;
    let waiting: Vec<Message> =
        core.all::<Message>().await.map_err(failed)?.into_iter().map(|row| row.body).collect();
    let (wall_ms, now_ms) = (core.clock.wall_ms(), core.clock.mono_ms());
    for target in &settings.targets {
        let mut lanes = core.notify.lanes();
        let lane = lanes.entry(target.name.clone()).or_default();
        if lane.busy || lane.not_before_ms > now_ms {
            continue;
        }
        let Some(message) = outbox::next(&waiting, &target.name, wall_ms) else { continue };
        lane.busy = true;
        let (key, notice, target) = (message.key(), message.notice.clone(), target.clone());
        let (client, hub) = (client.clone(), core.hub.to_string());
        sending.spawn(async move { (key, send(&client, &target, &notice, &hub, wall_ms).await) });
    }
    Ok(())
}

async fn send(client: &Client, target: &Target, notice: &Notice, hub: &str, wall_ms: u64) -> Outcome {
    match &target.how {
        How::Webhook { url, secret, format } => {
            webhook::send(client, (url, secret.as_ref(), *format), notice, hub, wall_ms / 1_000).await
        }
        How::Command { argv } => command::send(argv, &notice.json(hub).to_string()).await,
    }
}

/// The last entry's number, found without reading them all.
async fn journal_end(core: &Core) -> Result<u64, CoreError> {
    let (mut low, mut high) = (0_u64, 1_u64);
    let beyond = |at| async move { Ok::<_, CoreError>(core.store.journal(at, 1, None).await?.is_empty()) };
    while !beyond(high).await? {
        (low, high) = (high, high.saturating_mul(2));
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if beyond(middle).await? { high = middle } else { low = middle + 1 }
    }
    Ok(low)
}

async fn cursor(core: &Core) -> Result<Versioned<Cursor>, CoreError> {
    let new = Cursor::default();
    if let Some(known) = core.load::<Cursor>(&new.key()).await? {
        return Ok(known);
    }
    // What happened before anybody wanted to be told is no news.
    Ok(Versioned::new(Cursor { seq: journal_end(core).await?, cost_ms: core.clock.wall_ms(), ..new }))
}

/// Turns entries of the journal into messages.
async fn derive(core: &Core, settings: &Settings) -> Result<(), CoreError> {
    let mut cursor = cursor(core).await?;
    let hub = core.hub.to_string();
    let now = core.clock.wall_ms();
    let mut waiting = pending(core).await?;
    loop {
        let rows = core.store.journal(cursor.body.seq, PAGE, None).await?;
        let Some(last) = rows.last() else {
            if cursor.version.is_none() {
                core.commit_quietly(Changes::default().put(&cursor)).await?;
            }
            return Ok(());
        };
        cursor.body.seq = last.seq;
        let mut changes = Changes::default();
        for row in &rows {
            let run = match &row.run {
                Some(id) => core.load::<Run>(id).await?.map(|row| row.body),
                None => None,
            };
            let cost = match &run {
                Some(run) if is_news(&row.verb) => spent(core, run.id).await?,
                _ => 0.0,
            };
            for notice in notice::of(row, &hub, run.as_ref(), cost) {
                changes = spread(&notice, row.seq, now, settings, &mut cursor.body, &mut waiting, changes);
            }
        }
        if !core.commit_quietly(changes.put(&cursor)).await? {
            return Ok(());
        }
        cursor.version = Some(cursor.version.unwrap_or(0) + 1);
    }
}

fn is_news(verb: &str) -> bool {
    matches!(
        verb,
        "attempt-lost"
            | "bound"
            | "asked"
            | "budget-crossed"
            | "settled"
            | "deadline-answered"
            | "closed"
            | "destroy-run"
    )
}

/// One message for everybody who wants to know.
fn spread(
    notice: &Notice,
    seq: u64,
    now: u64,
    settings: &Settings,
    cursor: &mut Cursor,
    waiting: &mut BTreeMap<String, usize>,
    mut changes: Changes,
) -> Changes {
    for target in settings.targets.iter().filter(|target| target.events.contains(&notice.event)) {
        let count = waiting.entry(target.name.clone()).or_default();
        let old = now.saturating_sub(notice.at_ms) >= outbox::EXPIRES_MS;
        if *count >= outbox::PENDING || old {
            cursor.drop_one(&target.name);
            continue;
        }
        *count += 1;
        let message = Message {
            seq,
            target: target.name.clone(),
            notice: notice.clone(),
            since_ms: now,
            tries: 0,
            due_ms: 0,
        };
        changes = changes.put(&Versioned::new(message));
    }
    changes
}

async fn pending(core: &Core) -> Result<BTreeMap<String, usize>, CoreError> {
    let mut count = BTreeMap::new();
    for row in core.all::<Message>().await? {
        *count.entry(row.body.target).or_default() += 1;
    }
    Ok(count)
}

async fn spent(core: &Core, run: RunId) -> Result<f64, CoreError> {
    let now = core.clock.wall_ms();
    let machines: Vec<Versioned<Machine>> = core.of_run(run).await?;
    Ok(machines.iter().map(|machine| machine.body.cost_usd(now)).sum())
}

/// Every so many hours, what runs cost; silence where none has run.
async fn cost(core: &Core, settings: &Settings) -> Result<(), CoreError> {
    let Some(every_ms) = settings.cost_every_ms else { return Ok(()) };
    let mut cursor = cursor(core).await?;
    let (now, since) = (core.clock.wall_ms(), cursor.body.cost_ms);
    if since <= now && now - since < every_ms {
        return Ok(());
    }
    cursor.body.cost_ms = now;
    let mut runs = Vec::new();
    for run in core.all::<Run>().await?.into_iter().map(|row| row.body) {
        if !run.status.is_final() || run.ended_ms >= since {
            runs.push((run.name.clone(), run.status.name().to_owned(), spent(core, run.id).await?));
        }
    }
    let mut changes = Changes::default();
    if !runs.is_empty() {
        let notice = notice::cost(&core.hub.to_string(), now, every_ms / 3_600_000, &runs);
        let mut waiting = pending(core).await?;
        let seq = cursor.body.seq;
        changes = spread(&notice, seq, now, settings, &mut cursor.body, &mut waiting, changes);
    }
    core.commit_quietly(changes.put(&cursor)).await?;
    Ok(())
}

/// Gives up what is no news any more, and what nobody is left to be told.
async fn expire(core: &Core, settings: &Settings) -> Result<(), CoreError> {
    let now = core.clock.wall_ms();
    let rows: Vec<Versioned<Message>> = core.all().await?;
    let known = |name: &str| settings.targets.iter().any(|target| target.name == name);
    let over: Vec<_> = rows.iter().filter(|row| row.body.is_over(now) || !known(&row.body.target)).collect();
    if over.is_empty() {
        return Ok(());
    }
    let mut cursor = cursor(core).await?;
    let mut changes = Changes::default();
    for row in over {
        cursor.body.drop_one(&row.body.target);
        changes = changes.expect(row);
        changes.0.delete.push((Kind::Notice, row.body.key()));
    }
    core.commit_quietly(changes.put(&cursor)).await?;
    Ok(())
}

/// Writes down what became of a message.
async fn settle(core: &Core, key: &str, outcome: Outcome) -> Result<(), CoreError> {
    let Some(mut row) = core.load::<Message>(key).await? else { return Ok(()) };
    {
        let now = core.clock.mono_ms();
        let mut lanes = core.notify.lanes();
        let lane = lanes.entry(row.body.target.clone()).or_default();
        lane.busy = false;
        match &outcome {
            Outcome::Taken => *lane = Lane::default(),
            Outcome::Refused(why) => *lane = Lane { trouble: why.clone(), ..Lane::default() },
            Outcome::Away(why) => {
                lane.fails = lane.fails.saturating_add(1);
                lane.not_before_ms = now + outbox::pause_ms(lane.fails);
                lane.trouble.clone_from(why);
            }
        }
    }
    let mut changes = Changes::default();
    match outcome {
        Outcome::Taken => {
            changes = changes.expect(&row);
            changes.0.delete.push((Kind::Notice, key.to_owned()));
        }
        Outcome::Refused(_) => {
            row.body.failed(core.clock.wall_ms());
            changes = changes.put(&row);
        }
        // The receiver waits, and its messages with it, in their order.
        Outcome::Away(_) => return Ok(()),
    }
    core.commit_quietly(changes).await?;
    Ok(())
}

/// Who is told, how that goes, and where asked a test of it.
///
/// # Errors
/// Where the store fails, or there is no such receiver.
pub(crate) async fn ask(core: &Core, ask: v1::NotifyRequest) -> Result<v1::NotifyReply, Status> {
    let settings = match core.notify.settings() {
        Ok(settings) => settings,
        Err(trouble) => return Ok(v1::NotifyReply { targets: Vec::new(), trouble }),
    };
    let chosen: Vec<Target> =
        settings.targets.into_iter().filter(|t| ask.target.is_empty() || t.name == ask.target).collect();
    if chosen.is_empty() && !ask.target.is_empty() {
        let name: String = ask.target.chars().take(40).collect();
        return Err(Status::not_found(format!("notify.toml has no receiver `{name}`")));
    }
    let mut tried = BTreeMap::new();
    if ask.test {
        let client = webhook::client().map_err(Status::internal)?;
        let mut sending = JoinSet::new();
        for target in chosen.clone() {
            let (client, hub, now) = (client.clone(), core.hub.to_string(), core.clock.wall_ms());
            sending.spawn(async move {
                let outcome = send(&client, &target, &notice::test(&hub, now), &hub, now).await;
                (target.name, outcome)
            });
        }
        while let Some(Ok((name, outcome))) = sending.join_next().await {
            tried.insert(name, outcome);
        }
    }
    let waiting = pending(core).await?;
    let dropped =
        core.load::<Cursor>(&Cursor::default().key()).await?.map(|row| row.body.dropped).unwrap_or_default();
    let lanes = core.notify.lanes().clone();
    let mut view = |target: &Target| {
        let (delivered, trouble) = match tried.remove(&target.name) {
            Some(Outcome::Taken) => (true, String::new()),
            Some(Outcome::Refused(why) | Outcome::Away(why)) => (false, why),
            None => (false, lanes.get(&target.name).map(|lane| lane.trouble.clone()).unwrap_or_default()),
        };
        v1::TargetView {
            name: target.name.clone(),
            kind: target.kind().to_owned(),
            events: target.events.iter().map(|event: &Event| event.name().to_owned()).collect(),
            pending: waiting.get(&target.name).map_or(0, |count| u32::try_from(*count).unwrap_or(u32::MAX)),
            dropped: dropped.get(&target.name).copied().unwrap_or(0),
            trouble,
            delivered,
        }
    };
    Ok(v1::NotifyReply { targets: chosen.iter().map(&mut view).collect(), trouble: String::new() })
}
