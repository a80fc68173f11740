//! Model checks: every reachable state of small worlds in which controllers,
//! agents, providers and messages fail in every order. The rules hold; and
//! without any one of those that carry the weight, the checker finds what
//! goes wrong. When a rule changes, the model changes first.

mod fencing;
mod join;
mod stream;

use std::time::Instant;

use stateright::{Checker as _, HasDiscoveries, Model};

/// No world may grow beyond this: the checks belong to the ordinary tests.
const LARGEST: usize = 500_000;

/// Visits everything; every property must hold.
#[track_caller]
fn holds<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: std::hash::Hash + Eq + Send + Sync + Clone + std::fmt::Debug + 'static,
    M::Action: Send + Sync + Clone + std::fmt::Debug + PartialEq + 'static,
{
    let began = Instant::now();
    let checker = model.checker().threads(2).target_state_count(20 * LARGEST).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{name}: {states} states, {:.1} s", began.elapsed().as_secs_f32());
    checker.assert_properties();
    assert!(states < LARGEST, "{name}: {states} states are too many for a test");
}

/// Finds a world in which `property` fails.
#[track_caller]
fn fails<M>(name: &str, model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: std::hash::Hash + Eq + Send + Sync + Clone + std::fmt::Debug + 'static,
    M::Action: Send + Sync + Clone + std::fmt::Debug + PartialEq + 'static,
{
    let began = Instant::now();
    let wanted = HasDiscoveries::AllOf([property].into());
    let checker = model.checker().finish_when(wanted).target_state_count(20 * LARGEST).spawn_bfs().join();
    let states = checker.unique_state_count();
    let path =
        checker.discovery(property).unwrap_or_else(|| panic!("{name}: `{property}` holds without the rule"));
    let steps: Vec<String> = path.into_actions().iter().map(|step| format!("{step:?}")).collect();
    println!(
        "{name}: `{property}` fails in {} steps ({states} states, {:.1} s): {}",
        steps.len(),
        began.elapsed().as_secs_f32(),
        steps.join(", ")
    );
}
