//! What a link can do: be down, be somebody else's, be cut at any moment.

use std::path::Path;

use super::super::*;
use super::rig::{Sshd, config, executable, provider, until};
use super::{make, refused};
use crate::provider::InstanceState;
use crate::provider::contract::{fresh_id, request};

/// Nothing that is asked may be taken for an answer.
async fn no_answer(provider: &SshProvider, part: &str) {
    let reason = refused(provider).await;
    assert!(reason.contains(part), "{reason}");
    let name = format!("box/0/{}", fresh_id());
    for told in [
        match provider.list("l/").await {
            Listing::Error(why) => why,
            other => panic!("{other:?}"),
        },
        match provider.get(&name).await {
            Presence::Error(why) => why,
            other => panic!("{other:?}"),
        },
        match provider.destroy(&name).await {
            DestroyOutcome::Unknown(why) => why,
            other => panic!("{other:?}"),
        },
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(provider.sabotage(&name).await.is_err());
}

#[tokio::test]
async fn only_a_known_host_key_is_believed() {
    let Some(sshd) = Sshd::start() else { return };
    let provider = sshd.provider(1);
    let other = std::fs::read_to_string(sshd.path("other.pub")).unwrap();
    sshd.know(&other);
    no_answer(&provider, "host key has CHANGED").await;
    let route = provider.route(&format!("box/0/{}", fresh_id())).await;
    assert!(matches!(route, Err(RouteError::Never(why)) if why.contains("ssh-keygen -R")));
    std::fs::write(sshd.path("known"), "").unwrap();
    no_answer(&provider, "its host key is not known").await;
    assert!(sshd.claims().is_empty());
    assert_eq!(std::fs::read_to_string(sshd.path("known")).unwrap(), "", "and none is learnt");
    sshd.know(&std::fs::read_to_string(sshd.path("host.pub")).unwrap());
    make(&provider, &fresh_id()).await;
}

#[tokio::test]
async fn a_wrong_key_a_wrong_user_and_no_client_are_told_apart() {
    let Some(sshd) = Sshd::start() else { return };
    let host = sshd.host("box", 1);
    let wrong_key = SshHost { identity_file: Some(sshd.path("other")), ..host.clone() };
    no_answer(&provider("h", vec![wrong_key]), "it refuses the login").await;
    let mut wrong_user = host.clone();
    wrong_user.address.user = Some("nobody-of-that-name".into());
    no_answer(&provider("h", vec![wrong_user]), "it refuses the login").await;
    let mut nowhere = host.clone();
    nowhere.address.host = "no-such-host.invalid".into();
    let told = refused(&provider("h", vec![nowhere])).await;
    assert!(told.contains("there is no such host") || told.contains("cannot be reached"), "{told}");
    let no_client = SshConfig { client: "/nowhere/ssh".into(), ..config("h", vec![host]) };
    no_answer(&SshProvider::new(no_client), "OUTLAST_SSH").await;
    no_hosts().await;
}

async fn no_hosts() {
    let none = provider("h", vec![]);
    assert!(refused(&none).await.contains("providers.toml"));
    assert_eq!(none.list("").await, Listing::Complete(vec![]));
    assert!(
        matches!(none.get(&format!("gone/0/{}", fresh_id())).await, Presence::Error(why) if why.contains("put it back"))
    );
}

#[tokio::test]
async fn a_host_that_is_down_hides_nothing_and_holds_nobody_up() {
    let Some(mut sshd) = Sshd::start() else { return };
    let mut down = sshd.host("down", 1);
    down.address.port = Some(1);
    let both = provider("hub-a", vec![down, sshd.host("box", 1)]);
    let id = fresh_id();
    let instance = make(&both, &id).await;
    assert_eq!(instance, format!("box/0/{id}"));
    let Listing::Partial(seen) = both.list("l/").await else { panic!("a missing host is no empty one") };
    assert_eq!(seen.len(), 1);
    assert_eq!(both.get(&id).await, Presence::Present(InstanceState::Booting));
    let gone = both.get(&fresh_id()).await;
    assert!(matches!(gone, Presence::Error(_)), "it may be on the host that is down: {gone:?}");
    sshd.down();
    let Listing::Error(why) = both.list("l/").await else { panic!("no host answered") };
    assert!(why.contains("`down`") && why.contains("`box`"), "{why}");
    assert!(matches!(both.destroy(&instance).await, DestroyOutcome::Unknown(_)));
    sshd.up();
    assert_eq!(both.destroy(&instance).await, DestroyOutcome::Accepted);
}

#[tokio::test]
async fn a_host_that_comes_back_is_tried_again() {
    let Some(mut sshd) = Sshd::start() else { return };
    sshd.down();
    let mut config = config("hub-a", vec![sshd.host("box", 1)]);
    config.patience.change = Duration::from_secs(60);
    let provider = SshProvider::new(config);
    let id = fresh_id();
    let (instance, ()) = tokio::join!(make(&provider, &id), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        sshd.up();
    });
    assert_eq!(instance, format!("box/0/{id}"));
}

#[tokio::test]
async fn a_failure_over_there_is_never_tried_again() {
    let Some(sshd) = Sshd::start() else { return };
    let mut config = config("hub-a", vec![sshd.host("box", 1)]);
    config.patience.change = Duration::from_secs(600);
    config.patience.look = Duration::from_secs(600);
    let provider = SshProvider::new(config);
    let count = sshd.path("count");
    for (command, part) in [
        ("echo no login >&2; exit 1", "no shell: it ended with 1: no login"),
        ("exit 0", "no shell"),
        ("read -r _ _ _ tag; echo \"$tag begin\"; echo broken >&2; exit 255", "ended before the answer did"),
    ] {
        sshd.wrap(&format!("echo x >> {}\n{command}", count.display()));
        let Presence::Error(why) = provider.get(&format!("box/0/{}", fresh_id())).await else {
            panic!("{command}")
        };
        assert!(why.contains(part), "{why}");
        assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\n", "{command}");
        std::fs::remove_file(&count).unwrap();
    }
}

/// A client that is killed a while after its start.
fn dying_client(at: &Path, after: f64) -> PathBuf {
    let path = at.join("dying-ssh");
    executable(&path, &format!("#!/bin/sh\nexec timeout --foreground -s KILL {after} ssh \"$@\"\n"));
    path
}

/// Logins that say while they run: a script may outlive its client.
fn counted_logins(sshd: &Sshd) {
    let dir = sshd.path("running");
    std::fs::create_dir_all(&dir).unwrap();
    let file = format!("{}/$$", dir.display());
    sshd.wrap(&format!("trap '' HUP PIPE; : > {file}; sh -c \"$SSH_ORIGINAL_COMMAND\"; rm -f {file}"));
}

fn all_over(sshd: &Sshd) {
    until("no script runs", || {
        // First who may still begin one.
        !sshd.is_serving() && std::fs::read_dir(sshd.path("running")).unwrap().next().is_none()
    });
}

#[tokio::test]
async fn a_create_cut_at_any_moment_leaves_one_slot_of_that_machine_or_none() {
    let Some(sshd) = Sshd::start() else { return };
    counted_logins(&sshd);
    let whole = sshd.provider(4);
    let (mut unknown, mut made, mut rejected) = (0, 0, 0);
    let mut after = 0.02;
    // At least until one gets through, however long that takes here.
    while after < 1.2 || made == 0 {
        assert!(after < 100.0, "no create ever gets through");
        let client = dying_client(sshd.dir.path(), after * fastrand::f64().mul_add(0.4, 0.8));
        let cut = SshProvider::new(SshConfig { client, ..config("hub-a", vec![sshd.host("box", 4)]) });
        let id = fresh_id();
        let outcome = cut.create(&request(&id, "l/x", "")).await;
        match &outcome {
            CreateOutcome::Created { .. } => made += 1,
            CreateOutcome::Rejected { .. } => rejected += 1,
            CreateOutcome::Unknown { .. } => unknown += 1,
        }
        all_over(&sshd);
        let settled = whole.list("l/").await;
        let Listing::Complete(found) = settled else { panic!("{settled:?}") };
        let mine = found.iter().filter(|instance| instance.id.ends_with(&id)).count();
        match &outcome {
            CreateOutcome::Created { instance } => assert!(found.iter().any(|i| i.id == *instance)),
            CreateOutcome::Rejected { reason, .. } => assert_eq!(mine, 0, "{reason}"),
            CreateOutcome::Unknown { .. } => assert!(mine <= 1),
        }
        // Asked again over a good link, it is that one slot, and only that.
        let instance = make(&whole, &id).await;
        assert_eq!(sshd.claims(), [id]);
        assert_eq!(whole.destroy(&instance).await, DestroyOutcome::Accepted);
        assert!(sshd.claims().is_empty());
        after *= 1.25;
    }
    assert!(made > 0 && rejected > 0, "made {made}, rejected {rejected}, unknown {unknown}");
}

#[tokio::test]
async fn a_cut_after_the_claim_is_unknown_and_no_other_host_is_asked() {
    let Some(sshd) = Sshd::start() else { return };
    let other = SshHost { root: sshd.path("other-base").display().to_string(), ..sshd.host("other", 1) };
    let provider = provider("hub-a", vec![sshd.host("box", 2), other]);
    // Looks get through; an answer to a claim does not.
    sshd.wrap(
        "sh -c \"$SSH_ORIGINAL_COMMAND\" | { read -r a; echo \"$a\"; text=$(cat)\n\
         case $text in *claimed*) exit 255 ;; *) printf '%s\\n' \"$text\" ;; esac; }",
    );
    let id = fresh_id();
    let lost = provider.create(&request(&id, "l/x", "")).await;
    assert!(matches!(lost, CreateOutcome::Unknown { .. }), "{lost:?}");
    assert_eq!(sshd.claims(), std::slice::from_ref(&id));
    sshd.wrap("exit 255");
    let again = provider.create(&request(&id, "l/x", "")).await;
    assert!(matches!(again, CreateOutcome::Unknown { .. }), "it may exist: {again:?}");
    sshd.plain_logins();
    let Listing::Complete(found) = provider.list("l/").await else { panic!("not complete") };
    assert_eq!(found.len(), 1);
    assert_eq!(make(&provider, &id).await, found[0].id);
    assert!(!sshd.path("other-base/slots/0.claim").exists());
}

#[tokio::test]
async fn a_destroy_cut_at_any_moment_can_be_finished() {
    let Some(sshd) = Sshd::start() else { return };
    counted_logins(&sshd);
    let whole = sshd.provider(1);
    for after in [0.15, 0.2, 0.3, 0.5] {
        let id = fresh_id();
        let instance = make(&whole, &id).await;
        super::bring_up(&whole, &instance, "").await;
        let client = dying_client(sshd.dir.path(), after);
        let cut = SshProvider::new(SshConfig { client, ..config("hub-a", vec![sshd.host("box", 1)]) });
        let outcome = cut.destroy(&instance).await;
        assert!(outcome != DestroyOutcome::Absent, "{outcome:?}");
        all_over(&sshd);
        let last = whole.destroy(&instance).await;
        assert!(matches!(last, DestroyOutcome::Accepted | DestroyOutcome::Absent), "{last:?}");
        assert_eq!(whole.get(&instance).await, Presence::Absent);
        assert!(sshd.claims().is_empty());
    }
}
