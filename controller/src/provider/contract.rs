//! What every provider must do, as one suite that runs over each of them.

use std::time::{Duration, Instant};

use super::{
    CreateOutcome, CreateRequest, DestroyOutcome, Idempotency, InstanceState, Listing, Presence, Provider,
};

/// Runs the whole suite; panics where the provider breaks the contract. The
/// script must bring a machine up and keep it so.
pub async fn run(provider: &dyn Provider, user_data: &str) {
    life_of_a_machine(provider, user_data).await;
    a_repeated_create_makes_one(provider, user_data).await;
    a_taken_name_is_refused(provider, user_data).await;
    what_never_was_is_absent(provider).await;
    lists_go_by_prefix(provider, user_data).await;
    sabotage_leaves_nothing(provider, user_data).await;
}

/// A machine id that no other test on this host uses.
#[must_use]
pub fn fresh_id() -> String {
    let mut random = fastrand::Rng::new();
    (0..26).map(|_| char::from(ALPHABET[random.usize(..32)])).collect()
}

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A machine id for the n-th machine of a test.
#[must_use]
pub fn machine_id(n: usize) -> String {
    let letter = |k: usize| char::from(ALPHABET[k % 32]);
    format!("contract{}{}{}", "x".repeat(16), letter(n / 32), letter(n))
}

/// A request to make a machine.
#[must_use]
pub fn request(machine_id: &str, label: &str, user_data: &str) -> CreateRequest {
    CreateRequest {
        avoid: Vec::new(),
        machine_id: machine_id.into(),
        label: label.into(),
        user_data: user_data.into(),
        machine: lifecycle::spec::MachineSpec::default(),
        max_usd_per_hour: None,
        appraisal: lifecycle::choice::Appraisal::default(),
    }
}

async fn create(provider: &dyn Provider, request: &CreateRequest) -> String {
    match provider.create(request).await {
        CreateOutcome::Created { instance } => instance,
        other => panic!("not created: {other:?}"),
    }
}

async fn ids(provider: &dyn Provider, prefix: &str) -> Vec<(String, String)> {
    match provider.list(prefix).await {
        Listing::Complete(found) => found.into_iter().map(|i| (i.id, i.label)).collect(),
        other => panic!("no complete list: {other:?}"),
    }
}

/// Waits until a machine is in a state.
pub async fn wait_for(provider: &dyn Provider, instance: &str, wanted: &Presence) {
    let deadline = Instant::now() + Duration::from_mins(3);
    loop {
        let seen = provider.get(instance).await;
        if seen == *wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{instance} is {seen:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const UP: Presence = Presence::Present(InstanceState::Up);

async fn life_of_a_machine(provider: &dyn Provider, user_data: &str) {
    let request = request(&fresh_id(), "life/1", user_data);
    assert_eq!(ids(provider, "life/").await, []);
    let instance = create(provider, &request).await;
    let at_once = provider.get(&instance).await;
    assert!(
        matches!(at_once, Presence::Present(InstanceState::Booting | InstanceState::Up)),
        "never seen as ended: {at_once:?}"
    );
    assert_eq!(ids(provider, "life/").await, [(instance.clone(), "life/1".to_owned())]);
    wait_for(provider, &instance, &UP).await;
    assert_eq!(provider.destroy(&instance).await, DestroyOutcome::Accepted);
    wait_for(provider, &instance, &Presence::Absent).await;
    assert_eq!(ids(provider, "life/").await, []);
    assert_eq!(provider.destroy(&instance).await, DestroyOutcome::Absent, "a second time is no error");
    assert_eq!(provider.get(&instance).await, Presence::Absent);
}

async fn a_repeated_create_makes_one(provider: &dyn Provider, user_data: &str) {
    if provider.idempotency() == Idempotency::LabelOnly {
        return;
    }
    let request = request(&fresh_id(), "twice/1", user_data);
    let (first, second) = tokio::join!(create(provider, &request), create(provider, &request));
    assert_eq!(first, second);
    wait_for(provider, &first, &UP).await;
    assert_eq!(create(provider, &request).await, first);
    assert_eq!(ids(provider, "twice/").await.len(), 1);
    assert_eq!(provider.destroy(&first).await, DestroyOutcome::Accepted);
}

async fn a_taken_name_is_refused(provider: &dyn Provider, user_data: &str) {
    if provider.idempotency() != Idempotency::ClientChosenName {
        return;
    }
    let name = fresh_id();
    let instance = create(provider, &request(&name, "mine/1", user_data)).await;
    let other = request(&name, "other/1", user_data);
    assert!(matches!(provider.create(&other).await, CreateOutcome::Rejected { .. }));
    assert_eq!(ids(provider, "mine/").await.len(), 1);
    assert_eq!(provider.destroy(&instance).await, DestroyOutcome::Accepted);
}

async fn what_never_was_is_absent(provider: &dyn Provider) {
    let never = fresh_id();
    assert_eq!(provider.get(&never).await, Presence::Absent);
    assert_eq!(provider.destroy(&never).await, DestroyOutcome::Absent);
    assert!(provider.sabotage(&never).await.is_err());
}

async fn lists_go_by_prefix(provider: &dyn Provider, user_data: &str) {
    let a = create(provider, &request(&fresh_id(), "hub-a/1", user_data)).await;
    let b = create(provider, &request(&fresh_id(), "hub-b/1", user_data)).await;
    assert_eq!(ids(provider, "hub-a/").await, [(a.clone(), "hub-a/1".to_owned())]);
    assert_eq!(ids(provider, "hub-").await.len(), 2);
    assert_eq!(provider.destroy(&a).await, DestroyOutcome::Accepted);
    wait_for(provider, &b, &UP).await;
    assert_eq!(ids(provider, "hub-").await, [(b.clone(), "hub-b/1".to_owned())]);
    assert_eq!(provider.destroy(&b).await, DestroyOutcome::Accepted);
}

async fn sabotage_leaves_nothing(provider: &dyn Provider, user_data: &str) {
    let instance = create(provider, &request(&fresh_id(), "drill/1", user_data)).await;
    wait_for(provider, &instance, &UP).await;
    provider.sabotage(&instance).await.expect("a machine that is up can be sabotaged");
    assert_eq!(provider.get(&instance).await, Presence::Absent);
    assert_eq!(ids(provider, "drill/").await, []);
}
