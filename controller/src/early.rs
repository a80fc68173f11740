//! Ends runs before their time, by the rules of their configuration: reads what
//! came to their files of points, lets [`curves::early`] judge it, and asks for
//! the stop as a person would. What is kept here is a copy of what those files
//! say; after a restart they are read again. It never ends a run for what
//! another attempt or another run logged, but for the median that a rule names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use curves::early::{Condition, Course, Courses, MAX_RULES, Met, Rule, Watch};
use curves::format::Outlast;
use curves::judge::Settings;
use curves::log::{Reader as _, Record, Sink};
use lifecycle::RunId;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::core::{Changes, Core, CoreError};
use crate::execute::{SELF, bound_attempt};
use crate::kept::Shared;
use crate::model::{Attempt, Machine, Position, Run, StopReason, Versioned, Wish};
use crate::reconcile::chain;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
const FILE: &str = "points.jsonl";
const CHUNK: usize = 256 << 10;
/// Other runs that a median looks at: the newest.
const PEERS: usize = 64;

/// What was read of one run's points.
#[derive(Default)]
struct Followed {
    /// Attempts before this one were read to their ends.
    attempt: u32,
    offset: u64,
    reader: Option<Outlast>,
    /// The run is final and was read to its end.
    whole: bool,
}

/// A run with rules.
struct Watched {
    followed: Followed,
    watch: Watch,
    /// Metrics whose median is asked for.
    medians: Vec<String>,
    /// Something came that its rules were not asked about.
    pending: bool,
    /// What is odd about its rules and was noted.
    told: BTreeSet<String>,
}

/// Another run, the metrics that are wanted of it, and its name.
type Peer = (RunId, Vec<String>, String);

/// What is watched; gone with the process.
#[derive(Default)]
struct Memory {
    watched: BTreeMap<RunId, Watched>,
    peers: BTreeMap<Peer, (Followed, Courses)>,
}

/// Watches until it is stopped.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut memory = Memory::default();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        if let Err(error) = pass(&core, &mut memory).await {
            tracing::warn!(error = chain(&error), "rules of early stops could not be looked at");
        }
    }
}

async fn pass(core: &Core, memory: &mut Memory) -> Result<(), CoreError> {
    let runs = core.every::<Run>().await?;
    let live: Vec<Arc<Run>> = runs
        .iter()
        .map(|row| row.body.clone())
        .filter(|run| !run.spec.early_stop.rules.is_empty())
        .filter(|run| run.wish == Wish::Run && !run.status.is_final())
        .collect();
    let over: Vec<RunId> =
        memory.watched.keys().filter(|id| live.iter().all(|run| run.id != **id)).copied().collect();
    for id in over {
        let Some(mut watched) = memory.watched.remove(&id) else { continue };
        let Some(run) = runs.iter().map(|row| &row.body).find(|run| run.id == id) else { continue };
        if let Err(error) = part(core, run, &mut watched).await {
            tracing::warn!(error = chain(&error), run = run.name, "its rules could not be looked at");
        }
    }
    let mut asked = BTreeSet::new();
    for run in &live {
        // One whose files cannot be read keeps no rule of another from being looked at.
        if let Err(error) = look(core, memory, run, &runs, &mut asked).await {
            tracing::warn!(error = chain(&error), run = run.name, "its rules could not be looked at");
        }
    }
    memory.peers.retain(|key, _| asked.contains(key) || live.iter().any(|run| run.spec.name == key.2));
    Ok(())
}

async fn look(
    core: &Core,
    memory: &mut Memory,
    run: &Arc<Run>,
    runs: &[Shared<Run>],
    asked: &mut BTreeSet<Peer>,
) -> Result<(), CoreError> {
    let watched = memory.watched.entry(run.id).or_insert_with(|| watched(run));
    watched.pending |= watched.followed.read(core, run, &mut watched.watch).await?;
    if !watched.pending {
        return Ok(());
    }
    let odd = watched.watch.odd(false);
    watched.tell(core, run, odd).await?;
    let medians = watched.medians.clone();
    let mut keys = Vec::new();
    if !medians.is_empty() {
        for other in peers(run, runs.iter().map(|row| &*row.body)) {
            let key = (other.id, medians.clone(), other.spec.name.clone());
            let fresh = || (Followed::default(), Courses::new(medians.iter().cloned()));
            let (followed, courses) = memory.peers.entry(key.clone()).or_insert_with(fresh);
            followed.read(core, other, courses).await?;
            asked.insert(key.clone());
            keys.push(key);
        }
    }
    let courses = |metric: &str| -> Vec<&Course> {
        keys.iter().filter_map(|key| memory.peers.get(key)?.1.of(metric)).collect()
    };
    let met = memory.watched.get(&run.id).and_then(|watched| watched.watch.met(courses));
    let settled = match met {
        Some(met) => end(core, run.id, &met).await?,
        None => true,
    };
    if let Some(watched) = memory.watched.get_mut(&run.id).filter(|_| settled) {
        watched.pending = false;
    }
    Ok(())
}

/// Rules that cannot be read are left out: they were checked at the submission.
fn watched(run: &Run) -> Watched {
    let rules: Vec<Rule> = run.spec.early_stop.rules.iter().filter_map(|rule| rule.parse().ok()).collect();
    let medians = rules
        .iter()
        .flat_map(Rule::parts)
        .filter(|rule| rule.condition == Condition::BehindMedian)
        .filter_map(|r| r.metric.clone());
    let medians = medians.collect();
    let given = curves::settings::of_command(run.spec.command.iter().map(String::as_str));
    let settings = Settings { planned_steps: curves::settings::planned(&given), ..Settings::default() };
    Watched {
        followed: Followed::default(),
        watch: Watch::new(rules, settings),
        medians,
        pending: false,
        told: BTreeSet::new(),
    }
}

/// The newest other runs of the same project and name.
fn peers<'a>(run: &Run, runs: impl Iterator<Item = &'a Run>) -> Vec<&'a Run> {
    let mut alike: Vec<&Run> = runs
        .filter(|other| other.id != run.id && other.spec.project == run.spec.project)
        .filter(|other| other.spec.name == run.spec.name)
        .collect();
    alike.sort_by_key(|other| std::cmp::Reverse((other.created_ms, other.id)));
    alike.truncate(PEERS);
    alike
}

impl Followed {
    /// Reads what is durable and new; whether there was any.
    async fn read(
        &mut self,
        core: &Core,
        run: &Run,
        sink: &mut (dyn Sink + Send),
    ) -> Result<bool, CoreError> {
        if self.whole {
            return Ok(false);
        }
        let mut attempts: Vec<Versioned<Attempt>> = core.of_run(run.id).await?;
        attempts.retain(|row| row.body.number >= self.attempt);
        attempts.sort_by_key(|row| row.body.number);
        let positions: Vec<Versioned<Position>> = core.of_run(run.id).await?;
        let mut any = false;
        for attempt in attempts.iter().map(|row| &row.body) {
            let mine = |p: &&Versioned<Position>| p.body.attempt == attempt.id && p.body.stream == "metrics";
            let end = positions.iter().find(mine).map_or(0, |p| p.body.file_len);
            if attempt.number > self.attempt {
                if end == 0 {
                    continue;
                }
                if self.attempt > 0 {
                    let resumed = attempt.restored.as_ref().and_then(|restored| restored.step);
                    sink.record(Record::Segment { from: attempt.first_step.or(resumed) });
                }
                *self = Self { attempt: attempt.number, reader: Some(Outlast::new()), ..Self::default() };
            }
            let Some(reader) = &mut self.reader else { continue };
            while self.offset < end {
                let most = usize::try_from(end - self.offset).unwrap_or(CHUNK).min(CHUNK);
                let bytes = core.files.read(&run.name, attempt.number, FILE, self.offset, most)?;
                if bytes.is_empty() {
                    break;
                }
                self.offset += bytes.len() as u64;
                reader.feed(&bytes, sink);
                any = true;
                tokio::task::yield_now().await;
            }
            reader.finish(sink);
        }
        self.whole = run.status.is_final();
        Ok(any)
    }
}

/// The last look at a run whose rules count no longer: nothing ends it any more, but
/// what a rule waited for in vain is said.
async fn part(core: &Core, run: &Run, watched: &mut Watched) -> Result<(), CoreError> {
    watched.followed.read(core, run, &mut watched.watch).await?;
    let odd = watched.watch.odd(true);
    watched.tell(core, run, odd).await
}

impl Watched {
    /// Notes what is odd about the rules with the run's newest attempt, once. Where
    /// somebody changes that meanwhile the next look does.
    async fn tell(&mut self, core: &Core, run: &Run, odd: Vec<String>) -> Result<(), CoreError> {
        if odd.iter().all(|text| self.told.contains(text)) {
            return Ok(());
        }
        let attempts: Vec<Versioned<Attempt>> = core.of_run(run.id).await?;
        let Some(mut attempt) = attempts.into_iter().max_by_key(|row| row.body.number) else {
            return Ok(());
        };
        let mut fresh = odd.clone();
        fresh.retain(|text| !attempt.body.notes.contains(text));
        let id = attempt.body.id;
        let detail = json!({ "level": "warning", "text": fresh.join("; ") });
        attempt.body.notes.extend(fresh.iter().take(MAX_RULES).cloned());
        let changes = Changes::default().put(&attempt).note(core, SELF, "note", id, Some(run.id), detail);
        if fresh.is_empty() || core.commit(changes).await? {
            self.told.extend(odd);
        }
        Ok(())
    }
}

/// Asks for the stop, unless somebody did before or the program has ended by
/// itself; `false`: somebody changed the run meanwhile, and it is to be asked again.
async fn end(core: &Core, id: RunId, met: &Met) -> Result<bool, CoreError> {
    let mut run: Versioned<Run> = core.need(&id.to_string()).await?;
    if run.body.wish != Wish::Run || run.body.status.is_final() {
        return Ok(true);
    }
    let attempt = bound_attempt(core, &run.body).await?;
    if attempt.as_ref().is_some_and(|a| a.body.exited.is_some() || a.body.status.is_final()) {
        return Ok(true);
    }
    run.body.wish = Wish::Stop;
    run.body.stop_reason = Some(StopReason::Rule);
    let mut hourly = None;
    if let Some(attempt) = &attempt {
        let machine: Option<Versioned<Machine>> = core.load(&attempt.body.machine.to_string()).await?;
        hourly = machine.map(|machine| machine.body.usd_per_hour);
    }
    let spared_usd = met.seconds_left.zip(hourly).map(|(seconds, usd)| usd * seconds / 3_600.0);
    let spares = match (met.seconds_left, spared_usd) {
        (Some(seconds), Some(usd)) if usd > 0.0 => {
            format!("; about {} and ${usd:.2} are not spent", span(seconds))
        }
        (Some(seconds), _) => format!("; about {} are not spent", span(seconds)),
        _ => String::new(),
    };
    let stopped_by = format!("{} (rule `{}`){spares}", met.why, met.rule);
    run.body.stopped_by = stopped_by.chars().take(600).collect();
    let detail = json!({
        "rule": met.rule, "why": met.why, "spared_seconds": met.seconds_left, "spared_usd": spared_usd,
    });
    let changes = Changes::default().put(&run).note(core, SELF, "early-stop", id, Some(id), detail);
    let settled = core.commit(changes).await?;
    if let Some(attempt) = attempt.filter(|_| settled) {
        core.poke(attempt.body.machine);
    }
    Ok(settled)
}

/// Time that was spared, in a unit that shows it.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spared_is_told_in_a_unit_that_shows_it() {
        for (seconds, told) in [(27.0, "27 s"), (600.0, "10 min"), (9_000.0, "2.5 h")] {
            assert_eq!(span(seconds), told);
        }
    }
}
