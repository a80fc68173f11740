//! Kills a run's machines on purpose, as a power cut does, at moments drawn
//! from a seed: the proof that a run survives. It asks the controller to do
//! it, so it can reach nothing but machines of this run.

use std::time::Duration;

use proto::v1;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::app::Context;
use crate::client::{failure, passing, selector};
use crate::link::Link;

/// A machine is given so long to get to work.
const SOONEST: f64 = 0.3;
const WITHIN: Duration = Duration::from_secs(15);
const MOST: u32 = 1_000;

/// What shall be done to a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// How many machines are killed.
    pub kills: u32,
    /// The latest moment after an attempt began to run.
    pub within: Duration,
}

/// Reads `machine=N[,within=15s]`.
///
/// # Errors
/// Where it is written otherwise.
pub fn parse(text: &str) -> Result<Plan, String> {
    let mut plan = Plan { kills: 0, within: WITHIN };
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("machine", count)) => {
                plan.kills = count.parse().map_err(|_| format!("`{count}` is not a number of kills"))?;
            }
            Some(("within", time)) => plan.within = crate::args::duration(time)?,
            _ => return Err(format!("`{part}` is not known: it is written machine=N[,within=15s]")),
        }
    }
    if !(1..=MOST).contains(&plan.kills) {
        return Err(format!("machine=N wants 1 to {MOST} kills"));
    }
    if plan.within.as_secs_f64() < SOONEST {
        return Err(format!("within must be at least {SOONEST} s"));
    }
    Ok(plan)
}

/// The delays of all kills, decided before the first.
#[must_use]
pub fn draw(plan: &Plan, seed: u64) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(seed);
    let span = plan.within.as_secs_f64() - SOONEST;
    (0..plan.kills).map(|_| Duration::from_secs_f64(SOONEST + random.f64() * span)).collect()
}

/// One machine that was killed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kill {
    /// Which.
    pub machine: String,
    /// The attempt that ran on it.
    pub attempt: u32,
    /// Seconds after the attempt was seen to run.
    pub after_seconds: f64,
    /// The step the run was at.
    pub step: Option<u64>,
    /// The newest durable step.
    pub durable_step: Option<u64>,
}

/// What became of the plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Repeats the draw.
    pub seed: u64,
    /// How many kills were wanted.
    pub wanted: u32,
    /// Those that happened.
    pub kills: Vec<Kill>,
}

impl Outcome {
    /// Whether the run ended too soon.
    #[must_use]
    pub fn fell_short(&self) -> bool {
        self.kills.len() < self.wanted as usize
    }
}

/// What is known of the run; `None` until the first news.
pub type News = watch::Receiver<Option<v1::RunDetail>>;

/// Carries out a plan until it is done or the run is over.
///
/// # Errors
/// Where the controller refuses for good.
pub async fn torment(
    ctx: &Context,
    mut link: Link<'_>,
    run: &str,
    plan: &Plan,
    seed: u64,
    mut news: News,
) -> anyhow::Result<Outcome> {
    ctx.printer.note(&format!("chaos: seed {seed}"));
    let mut outcome = Outcome { seed, wanted: plan.kills, kills: Vec::new() };
    let mut last = 0;
    for delay in draw(plan, seed) {
        loop {
            let Some(attempt) = running_after(&mut news, last).await else { return Ok(outcome) };
            tokio::select! {
                biased;
                () = over(&mut news) => return Ok(outcome),
                () = sleep(delay) => {}
            }
            let Some(at) = still_running(&news, attempt) else { continue };
            let client = link.client().await?;
            match client.operator.clone().sabotage(selector(run)).await {
                Ok(machine) => {
                    let machine = machine.into_inner().id;
                    let kill = Kill {
                        machine,
                        attempt,
                        after_seconds: (delay.as_secs_f64() * 10.0).round() / 10.0,
                        step: at.step,
                        durable_step: at.durable_step,
                    };
                    ctx.printer.note(&sentence(&kill));
                    outcome.kills.push(kill);
                    last = attempt;
                    break;
                }
                // Between two attempts there is nothing to kill.
                Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                    sleep(Duration::from_millis(100)).await;
                }
                Err(status) if passing(&status) => link.broke(&status).await?,
                Err(status) => return Err(failure(&status).into()),
            }
        }
    }
    Ok(outcome)
}

fn sentence(kill: &Kill) -> String {
    let step = |step: Option<u64>| step.map_or_else(|| "none".to_owned(), |step| step.to_string());
    format!(
        "chaos: machine {} killed (power cut and disk erased) after {:.1} s at step {}, durable step {}",
        kill.machine,
        kill.after_seconds,
        step(kill.step),
        step(kill.durable_step)
    )
}

/// The number of an attempt that runs and is newer than `last`; `None` when
/// the run is over.
async fn running_after(news: &mut News, last: u32) -> Option<u32> {
    loop {
        {
            let detail = news.borrow_and_update();
            if let Some(detail) = detail.as_ref() {
                if is_over(detail) {
                    return None;
                }
                let newest = detail.attempts.iter().max_by_key(|attempt| attempt.number);
                if let Some(attempt) = newest.filter(|a| a.number > last && a.state == "RUNNING") {
                    return Some(attempt.number);
                }
            }
        }
        news.changed().await.ok()?;
    }
}

/// Returns when the run is over, or nobody tells of it any more.
async fn over(news: &mut News) {
    // An error says that the teller is gone.
    let _ = news.wait_for(|detail| detail.as_ref().is_some_and(is_over)).await;
}

fn still_running(news: &News, attempt: u32) -> Option<v1::RunView> {
    let detail = news.borrow();
    let detail = detail.as_ref()?;
    let runs = detail.attempts.iter().any(|a| a.number == attempt && a.state == "RUNNING");
    if runs { detail.run.clone() } else { None }
}

/// Whether a run is in a state that it never leaves.
#[must_use]
pub fn is_over(detail: &v1::RunDetail) -> bool {
    let state = detail.run.as_ref().map_or("", |run| run.state.as_str());
    matches!(state, "SUCCEEDED" | "FAILED" | "CANCELLED" | "BUDGET_STOPPED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_and_nonsense_is_not() {
        assert_eq!(parse("machine=3").unwrap(), Plan { kills: 3, within: WITHIN });
        assert_eq!(parse("machine=1,within=5s").unwrap().within, Duration::from_secs(5));
        for bad in ["", "machine", "machine=0", "machine=x", "within=3s", "machine=1,within=0.1s", "disk=1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_seed_repeats_its_draw_within_the_bounds() {
        let plan = Plan { kills: 50, within: Duration::from_secs(5) };
        let drawn = draw(&plan, 7);
        assert_eq!(drawn, draw(&plan, 7));
        assert_ne!(drawn, draw(&plan, 8));
        assert!(drawn.iter().all(|d| (0.3..=5.0).contains(&d.as_secs_f64())), "{drawn:?}");
    }

    #[test]
    fn the_names_of_final_states_are_those_of_the_diagram() {
        use lifecycle::RunState as S;
        let finals = [S::Succeeded, S::Failed { reason: String::new() }, S::Cancelled, S::BudgetStopped];
        for (state, over) in
            finals.iter().map(|s| (s, true)).chain([(&S::Running, false), (&S::Paused, false)])
        {
            let run = v1::RunView { state: state.name().to_owned(), ..Default::default() };
            let detail = v1::RunDetail { run: Some(run), ..Default::default() };
            assert_eq!((is_over(&detail), state.is_final()), (over, over), "{}", state.name());
        }
    }

    #[tokio::test]
    async fn only_a_newer_attempt_that_runs_is_a_target() {
        let detail = |number: u32, state: &str, run: &str| v1::RunDetail {
            run: Some(v1::RunView { state: run.into(), ..Default::default() }),
            attempts: vec![v1::AttemptView { number, state: state.into(), ..Default::default() }],
            ..Default::default()
        };
        let (tell, mut news) = watch::channel(Some(detail(1, "RUNNING", "RUNNING")));
        assert_eq!(running_after(&mut news, 0).await, Some(1));
        let waiting = running_after(&mut news, 1);
        let telling = async {
            tell.send(Some(detail(2, "PREPARING", "RUNNING"))).unwrap();
            tokio::task::yield_now().await;
            tell.send(Some(detail(2, "RUNNING", "RUNNING"))).unwrap();
        };
        assert_eq!(tokio::join!(waiting, telling).0, Some(2));
        assert!(still_running(&news, 2).is_some() && still_running(&news, 1).is_none());
        tell.send(Some(detail(2, "ENDED", "SUCCEEDED"))).unwrap();
        assert_eq!(running_after(&mut news, 2).await, None);
    }
}
