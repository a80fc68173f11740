//! Each fault of the simulated provider, and what a caller that repeats sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::provider::contract::{self, machine_id, request};

fn provider(change: impl FnOnce(&mut SimulatedConfig)) -> SimulatedProvider {
    let mut config = SimulatedConfig::new(7, || 0);
    change(&mut config);
    SimulatedProvider::new(config)
}

#[tokio::test]
async fn keeps_the_contract() {
    contract::run(&provider(|_| {}), "").await;
}

#[tokio::test]
async fn a_lost_create_can_be_repeated() {
    for (n, fault) in
        [Fault::CreateLost, Fault::CreateReplyLost, Fault::CreateVisibleLate].into_iter().enumerate()
    {
        let provider = provider(|config| config.settle_window_ms = 0);
        let id = machine_id(n);
        let request = request(&id, "l/x", "");
        provider.inject(fault);
        assert!(matches!(provider.create(&request).await, CreateOutcome::Unknown { .. }));
        assert_eq!(provider.made(), u64::from(fault != Fault::CreateLost));
        assert_eq!(provider.create(&request).await, CreateOutcome::Created { instance: id });
        assert_eq!((provider.truth().len(), provider.made()), (1, 1));
    }
}

#[tokio::test]
async fn a_lost_destroy_can_be_repeated() {
    for (fault, second) in
        [(Fault::DestroyLost, DestroyOutcome::Accepted), (Fault::DestroyReplyLost, DestroyOutcome::Absent)]
    {
        let provider = provider(|_| {});
        let id = machine_id(1);
        provider.create(&request(&id, "l/x", "")).await;
        provider.inject(fault);
        assert!(matches!(provider.destroy(&id).await, DestroyOutcome::Unknown(_)));
        assert_eq!(provider.destroy(&id).await, second);
        assert!(provider.truth().is_empty());
    }
}

#[tokio::test]
async fn without_a_key_a_repeated_create_makes_a_second_machine() {
    let provider = provider(|config| config.idempotency = Idempotency::LabelOnly);
    let request = request(&machine_id(1), "l/x", "");
    provider.create(&request).await;
    provider.create(&request).await;
    assert_eq!(provider.truth().len(), 2);
    assert_eq!(provider.machine_of("i-2"), Some(machine_id(1)));
}

#[tokio::test]
async fn a_machine_can_be_hidden_and_slow() {
    let clock = Arc::new(AtomicU64::new(0));
    let read = clock.clone();
    let mut config = SimulatedConfig::new(1, move || read.load(Ordering::Relaxed));
    (config.settle_window_ms, config.boot_ms) = (100, 250);
    let provider = SimulatedProvider::new(config);
    let id = machine_id(1);
    provider.inject(Fault::CreateVisibleLate);
    provider.create(&request(&id, "l/x", "")).await;
    assert_eq!(provider.get(&id).await, Presence::Absent);
    assert_eq!(provider.list("l/").await, Listing::Complete(vec![]));
    assert_eq!(provider.truth().len(), 1, "the oracle sees it");
    clock.store(100, Ordering::Relaxed);
    assert_eq!(provider.get(&id).await, Presence::Present(InstanceState::Booting));
    clock.store(250, Ordering::Relaxed);
    assert_eq!(provider.get(&id).await, Presence::Present(InstanceState::Up));
    assert!(provider.preempt(&id));
    assert!(!provider.preempt(&id));
    assert_eq!(provider.get(&id).await, Presence::Present(InstanceState::Terminal));
}

#[tokio::test]
async fn no_answer_is_never_an_empty_answer() {
    let provider = provider(|_| {});
    let id = machine_id(1);
    provider.create(&request(&id, "l/x", "")).await;
    for fault in [Fault::ListError, Fault::ListPartial, Fault::GetError, Fault::CreateRejected] {
        provider.inject(fault);
    }
    assert!(matches!(provider.list("l/").await, Listing::Error(_)));
    assert!(matches!(provider.list("l/").await, Listing::Partial(_)));
    assert!(matches!(provider.get(&id).await, Presence::Error(_)));
    let other = request(&machine_id(2), "l/y", "");
    assert!(matches!(provider.create(&other).await, CreateOutcome::Rejected { .. }));
    assert_eq!(provider.made(), 1);
}

#[tokio::test]
async fn hooks_follow_what_really_happens() {
    let (starts, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (on_start, on_end) = (starts.clone(), ends.clone());
    let provider = provider(|config| {
        config.on_create = Box::new(move |_| {
            on_start.fetch_add(1, Ordering::Relaxed);
        });
        config.on_destroy = Box::new(move |_| {
            on_end.fetch_add(1, Ordering::Relaxed);
        });
    });
    let seen = || (starts.load(Ordering::Relaxed), ends.load(Ordering::Relaxed));
    let (a, b) = (machine_id(1), machine_id(2));
    provider.inject(Fault::CreateLost);
    provider.create(&request(&a, "l/a", "")).await;
    assert_eq!(seen(), (0, 0));
    provider.create(&request(&a, "l/a", "")).await;
    provider.create(&request(&a, "l/a", "")).await;
    provider.create(&request(&b, "l/b", "")).await;
    assert_eq!(seen(), (2, 0));
    provider.preempt(&a);
    provider.destroy(&a).await;
    assert_eq!(seen(), (2, 1), "one that ended does not end again");
    provider.sabotage(&b).await.unwrap();
    assert_eq!(seen(), (2, 2));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    async fn story(seed: u64) -> Vec<String> {
        let mut config = SimulatedConfig::new(seed, || 0);
        config.faults = Faults { create_lost: 0.3, list_partial: 0.3, get_error: 0.3, ..Faults::default() };
        let provider = SimulatedProvider::new(config);
        let mut story = Vec::new();
        for n in 0..40 {
            let id = machine_id(n);
            story.push(format!("{:?}", provider.create(&request(&id, "l/x", "")).await));
            story.push(format!("{:?} {:?}", provider.get(&id).await, provider.list("l/").await));
        }
        story
    }
    assert_eq!(story(3).await, story(3).await);
    assert_ne!(story(3).await, story(4).await);
}
