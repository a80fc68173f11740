//! What every provider must do, as one suite that runs over each of them.

use std::time::{Duration, Instant};

use super::{
    CreateOutcome, CreateRequest, DestroyOutcome, Idempotency, InstanceState, Listing, Presence, Provider,
};

/// Runs the whole suite; panics where the provider breaks the contract. The
/// script must bring a machine up and keep it so.
pub async fn run(provider: &dyn Provider, user_data: &str) {
    run_where(provider, user_data, &fresh_id()).await;
}

/// As [`run`], where `never` is a name that the provider could have given and
/// has given to nothing.
pub async fn run_where(provider: &dyn Provider, user_data: &str, never: &str) {
    life_of_a_machine(provider, user_data).await;
    a_repeated_create_makes_one(provider, user_data).await;
    a_taken_name_is_refused(provider, user_data).await;
    what_never_was_is_absent(provider, never).await;
    lists_go_by_prefix(provider, user_data).await;
    sabotage_leaves_nothing(provider, user_data).await;
    it_declares_what_it_does(provider, never).await;
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

/// What is declared agrees with what the rest of the interface says and does.
async fn it_declares_what_it_does(provider: &dyn Provider, never: &str) {
    let declared = provider.capabilities();
    let (name, paid) = (provider.name(), provider.is_paid());
    assert_eq!(declared.idempotency_token, provider.idempotency() == Idempotency::NativeKey, "{name}");
    assert!(paid || !declared.billed_while_stopped, "{name}: nobody bills");
    assert!(
        declared.interruptible || !declared.resumes_itself,
        "{name}: what is never taken never comes back"
    );
    assert!(declared.interruptible || declared.notice_s == 0, "{name}: a notice of nothing");
    assert!(!declared.snapshot && !declared.clone, "{name}: there is no call for it");
    // Who bills for what is stopped leaves it a way to end without a controller.
    assert!(declared.self_destroy_key || !declared.billed_while_stopped, "{name}: nothing would end it");
    assert!(provider.stopped(never).await.is_none(), "{name}: what never was never stopped");
    if !declared.billed_while_stopped {
        assert!(provider.go_on(never, None).await.is_err(), "{name}: nothing of it stops and goes on");
    }
    let labelled = provider.label(never).await;
    assert!(labelled.is_none(), "{name}: what never was has no label: {labelled:?}");
}

async fn what_never_was_is_absent(provider: &dyn Provider, never: &str) {
    assert_eq!(provider.get(never).await, Presence::Absent);
    assert_eq!(provider.destroy(never).await, DestroyOutcome::Absent);
    assert!(provider.sabotage(never).await.is_err());
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

/// What a provider may say while its vendor misbehaves. `vendor` sets a fault
/// (`None`: none) and tells the labels of the machines that the vendor really
/// has; every fault passes by itself or with the next `None`.
///
/// The rules: no machine is told as gone that is there (one list that lacks it
/// is no proof: list and get must not agree on it); what is told as made is
/// there, what is told as refused is not and never comes; what is told as
/// destroyed is gone, and a destroy that is repeated without a fault succeeds.
pub async fn hold_under(
    provider: &dyn Provider,
    faults: usize,
    vendor: impl Fn(Option<usize>) -> Vec<String>,
) {
    let kept = create(provider, &request(&fresh_id(), "kept/1", "")).await;
    wait_for(provider, &kept, &UP).await;
    for fault in 0..faults {
        let told = format!("fault {fault}");
        vendor(Some(fault));
        let lacks = match provider.list("kept/").await {
            Listing::Complete(found) => found.iter().all(|one| one.id != kept),
            Listing::Partial(_) | Listing::Error(_) => false,
        };
        vendor(Some(fault));
        let gone = provider.get(&kept).await == Presence::Absent;
        assert!(!(lacks && gone), "{told}: it is there and told as gone");
        assert!(!gone, "{told}: a machine that is there is told as gone");

        vendor(Some(fault));
        let label = format!("asked/{fault}");
        let asked = request(&fresh_id(), &label, "");
        let outcome = provider.create(&asked).await;
        let made = vendor(None).iter().filter(|one| **one == label).count();
        assert!(made <= 1, "{told}: {made} machines for one wish, after {outcome:?}");
        match &outcome {
            CreateOutcome::Created { .. } => assert_eq!(made, 1, "{told}: {outcome:?}"),
            CreateOutcome::Rejected { .. } => assert_eq!(made, 0, "{told}: {outcome:?}"),
            CreateOutcome::Unknown { .. } => {}
        }
        let listed = match provider.list(&label).await {
            Listing::Complete(found) => found,
            other => panic!("{told} is over, and the list is {other:?}"),
        };
        assert_eq!(listed.len(), made, "{told}: after the fault the list is the vendor's");
        for one in listed {
            vendor(Some(fault));
            let said = provider.destroy(&one.id).await;
            let left = vendor(None).contains(&label);
            assert!(matches!(said, DestroyOutcome::Unknown(_)) || !left, "{told}: {said:?}, and it is there");
            if left {
                assert_eq!(provider.destroy(&one.id).await, DestroyOutcome::Accepted, "{told}");
            }
            wait_for(provider, &one.id, &Presence::Absent).await;
        }
    }
    assert_eq!(provider.destroy(&kept).await, DestroyOutcome::Accepted);
    wait_for(provider, &kept, &Presence::Absent).await;
    assert_eq!(vendor(None), Vec::<String>::new(), "nothing stays rented");
}
