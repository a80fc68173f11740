//! The provider against a real sshd: slots, trees and installations. What a
//! broken link and a hostile host do is in the modules beside.

use std::fs;

use super::*;
use crate::provider::InstanceState;
use crate::provider::contract::{self, fresh_id, request, wait_for};
use rig::{Booted, Sshd, bring_up, comes_to_rest, marked, provider, until};

mod hostile;
mod links;
mod rig;

const UP: Presence = Presence::Present(InstanceState::Up);
const TERMINAL: Presence = Presence::Present(InstanceState::Terminal);

pub(super) async fn make(provider: &dyn Provider, id: &str) -> String {
    match provider.create(&request(id, "l/x", "")).await {
        CreateOutcome::Created { instance } => instance,
        other => panic!("not created: {other:?}"),
    }
}

async fn refused(provider: &dyn Provider) -> String {
    match provider.create(&request(&fresh_id(), "l/x", "")).await {
        CreateOutcome::Rejected { reason, .. } => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let Some(sshd) = Sshd::start() else { return };
    contract::run(&Booted(sshd.provider(4)), "").await;
    assert!(sshd.claims().is_empty());
    let left = fs::read_dir(sshd.path("base/machines")).unwrap().count();
    assert_eq!(left, 0, "nothing of a machine stays");
}

#[tokio::test]
async fn any_posix_shell_will_do() {
    let Some(sshd) = Sshd::start() else { return };
    let bin = sshd.path("bin");
    fs::create_dir(&bin).unwrap();
    let mut tried = 0;
    for shell in ["/bin/dash", "/bin/bash", "/bin/busybox"] {
        if !std::path::Path::new(shell).exists() {
            eprintln!("SKIPPED any_posix_shell_will_do: there is no {shell}");
            continue;
        }
        let mut names = vec!["sh"];
        if shell.ends_with("busybox") {
            // Its tools as well, besides flock, which not every build has.
            names.extend([
                "awk", "find", "grep", "head", "mkdir", "mv", "od", "rm", "sed", "sleep", "tr", "uname",
            ]);
        }
        for name in names {
            let _ = fs::remove_file(bin.join(name));
            std::os::unix::fs::symlink(shell, bin.join(name)).unwrap();
        }
        sshd.wrap(&format!("PATH={}:$PATH; export PATH; exec $SSH_ORIGINAL_COMMAND", bin.display()));
        let provider = Booted(sshd.provider(2));
        let instance = make(&provider, &fresh_id()).await;
        wait_for(&provider, &instance, &UP).await;
        assert_eq!(provider.destroy(&instance).await, DestroyOutcome::Accepted, "{shell}");
        assert_eq!(provider.get(&instance).await, Presence::Absent, "{shell}");
        tried += 1;
    }
    assert!(tried > 0);
}

#[tokio::test]
async fn a_slot_is_taken_until_its_machine_is_destroyed() {
    let Some(sshd) = Sshd::start() else { return };
    let provider = sshd.provider(1);
    let id = fresh_id();
    let instance = make(&provider, &id).await;
    assert_eq!(instance, format!("box/0/{id}"));
    assert_eq!(provider.get(&instance).await, Presence::Present(InstanceState::Booting));
    let reason = refused(&provider).await;
    assert!(
        reason.contains(&format!("slot 0: machine {} of this installation, booting", &id[..8])),
        "{reason}"
    );
    bring_up(&provider, &instance, "").await;
    wait_for(&provider, &instance, &UP).await;
    comes_to_rest(&id);
    // Its guard dies: the machine ends, its slot stays taken.
    for pid in marked(&id) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    wait_for(&provider, &instance, &TERMINAL).await;
    assert!(refused(&provider).await.contains("ended and not given back"));
    assert_eq!(make(&provider, &id).await, instance, "a repeated create changes nothing");
    assert_eq!(provider.get(&instance).await, TERMINAL);
    assert_eq!(provider.destroy(&instance).await, DestroyOutcome::Accepted);
    let next = make(&provider, &fresh_id()).await;
    assert!(next.starts_with("box/0/"));
}

#[tokio::test]
async fn a_machine_that_was_up_before_the_host_booted_is_terminal() {
    let Some(sshd) = Sshd::start() else { return };
    let provider = sshd.provider(1);
    let instance = make(&provider, &fresh_id()).await;
    let claim = sshd.path("base/slots/0.claim");
    let text = fs::read_to_string(&claim).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(boot.trim()));
    fs::write(&claim, text.replace(boot.trim(), "0-0")).unwrap();
    assert_eq!(provider.get(&instance).await, TERMINAL);
}

#[tokio::test]
async fn the_last_slot_goes_to_one_of_two() {
    let Some(sshd) = Sshd::start() else { return };
    // Two controllers of one installation, and one that asks for two at once.
    let (one, two) = (sshd.provider(1), sshd.provider(1));
    for _ in 0..5 {
        let requests = [
            request(&fresh_id(), "l/x", ""),
            request(&fresh_id(), "l/x", ""),
            request(&fresh_id(), "l/x", ""),
        ];
        let (a, b, c) =
            tokio::join!(one.create(&requests[0]), two.create(&requests[1]), two.create(&requests[2]));
        let made: Vec<String> = [a, b, c]
            .into_iter()
            .filter_map(|outcome| match outcome {
                CreateOutcome::Created { instance } => Some(instance),
                CreateOutcome::Rejected { reason, .. } => {
                    assert!(reason.contains("no free slot"), "{reason}");
                    None
                }
                CreateOutcome::Unknown { reason } => panic!("{reason}"),
            })
            .collect();
        assert_eq!(made.len(), 1, "{made:?}");
        assert_eq!(sshd.claims().len(), 1);
        assert_eq!(one.destroy(&made[0]).await, DestroyOutcome::Accepted);
    }
}

#[tokio::test]
async fn a_claim_waits_for_the_lock_of_its_host() {
    let Some(sshd) = Sshd::start() else { return };
    let provider = sshd.provider(1);
    let earlier = make(&provider, &fresh_id()).await;
    let (claim, rival) = (sshd.path("base/slots/0.claim"), sshd.path("rival"));
    fs::copy(&claim, &rival).unwrap();
    assert_eq!(provider.destroy(&earlier).await, DestroyOutcome::Accepted);
    let logins = sshd.path("logins");
    sshd.wrap(&format!("echo x >> {}; exec $SSH_ORIGINAL_COMMAND", logins.display()));
    let lock = fs::File::open(sshd.path("base/slots/.lock")).unwrap();
    let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let wish = request(&fresh_id(), "l/x", "");
    let (outcome, ()) = tokio::join!(provider.create(&wish), async {
        // It has looked, found room, and has come to claim it.
        while fs::read_to_string(&logins).unwrap_or_default().len() < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Time enough for one that does not wait.
        tokio::time::sleep(Duration::from_millis(700)).await;
        fs::rename(&rival, &claim).unwrap();
        drop(lock);
    });
    let CreateOutcome::Rejected { reason, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("no free slot"), "{reason}");
    assert_eq!(sshd.claims().len(), 1);
}

#[tokio::test]
async fn i27_two_installations_on_one_host_never_touch_each_other() {
    let Some(sshd) = Sshd::start() else { return };
    let a = Booted(provider("hub-a", vec![sshd.host("box", 2)]));
    let b = Booted(provider("hub-b", vec![sshd.host("box", 2)]));
    let (first, second) = (fresh_id(), fresh_id());
    let (of_a, of_b) = (make(&a, &first).await, make(&b, &second).await);
    wait_for(&a, &of_a, &UP).await;
    wait_for(&b, &of_b, &UP).await;
    let reason = refused(&a).await;
    assert!(reason.contains(&format!("machine {} of installation hub-b, up", &second[..8])), "{reason}");
    // What is another's is neither there nor absent, and stays as it is.
    for stolen in [of_a.clone(), format!("box/1/{first}"), first.clone()] {
        assert!(matches!(b.get(&stolen).await, Presence::Error(_)), "{stolen}");
        assert!(matches!(b.destroy(&stolen).await, DestroyOutcome::Unknown(_)), "{stolen}");
        assert!(b.sabotage(&stolen).await.is_err(), "{stolen}");
        assert!(b.0.route(&stolen).await.is_err(), "{stolen}");
    }
    assert_eq!(a.get(&of_a).await, UP);
    assert_eq!(a.destroy(&of_a).await, DestroyOutcome::Accepted);
    assert_eq!(b.get(&of_b).await, UP);
    assert_eq!(sshd.claims(), [second]);
    assert_eq!(b.destroy(&of_b).await, DestroyOutcome::Accepted);
}

#[tokio::test]
async fn destroy_ends_the_whole_tree_however_it_hides() {
    let Some(sshd) = Sshd::start() else { return };
    let provider = sshd.provider(2);
    let (id, other) = (fresh_id(), fresh_id());
    let instance = make(&provider, &id).await;
    let spared = make(&provider, &other).await;
    bring_up(&provider, &spared, "").await;
    // A session of its own twice over, a deaf one, one without the marker, one
    // that forks for ever, and a directory that cannot be entered.
    let tree = r#"
setsid sh -c 'setsid sh -c "echo \$\$ > a.pid; exec sleep 1000" & exit' &
sh -c 'trap "" TERM INT HUP; echo $$ > b.pid; while :; do sleep 1000; done' &
sh -c 'env -i /bin/sh -c "echo \$\$ > c.pid; exec /bin/sleep 1000" & wait' &
sh -c 'echo $$ > d.pid; while :; do sh -c "sleep 0.01" & wait; done' &
mkdir -p closed/inner; touch closed/inner/file; chmod 0 closed/inner closed
"#;
    bring_up(&provider, &instance, tree).await;
    let state = sshd.path("base/machines").join(&id);
    let mut pids = Vec::new();
    for name in ["a.pid", "b.pid", "c.pid", "d.pid"] {
        let read = || fs::read_to_string(state.join(name)).ok()?.trim().parse::<i32>().ok();
        until(name, || read().is_some());
        pids.push(read().unwrap());
    }
    wait_for(&provider, &spared, &UP).await;
    let mut stranger =
        std::process::Command::new("sleep").arg("1000").env(MARKER, format!("{id}2")).spawn().unwrap();
    assert_eq!(provider.destroy(&instance).await, DestroyOutcome::Accepted);
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
    assert!(marked(&id).is_empty() && !state.exists());
    assert_eq!(provider.get(&instance).await, Presence::Absent);
    assert_eq!(provider.get(&spared).await, UP, "nobody else was touched");
    assert!(stranger.try_wait().unwrap().is_none(), "a longer name is another name");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(provider.destroy(&spared).await, DestroyOutcome::Accepted);
}

#[tokio::test]
async fn processes_without_their_claim_are_not_absent_and_keep_their_slot() {
    let Some(sshd) = Sshd::start() else { return };
    let provider = sshd.provider(1);
    let id = fresh_id();
    let instance = make(&provider, &id).await;
    bring_up(&provider, &instance, "").await;
    wait_for(&provider, &instance, &UP).await;
    comes_to_rest(&id);
    fs::remove_file(sshd.path("base/slots/0.claim")).unwrap();
    fs::remove_dir_all(sshd.path("base/machines").join(&id)).unwrap();
    assert_eq!(provider.get(&instance).await, TERMINAL);
    let reason = refused(&provider).await;
    assert!(reason.contains("slot 0: a guard that nobody claims it for"), "the lock is held: {reason}");
    assert_eq!(provider.destroy(&instance).await, DestroyOutcome::Accepted);
    assert_eq!(provider.get(&instance).await, Presence::Absent);
    make(&provider, &fresh_id()).await;
}

#[tokio::test]
async fn a_lock_that_somebody_unmarked_holds_is_not_given_away() {
    let Some(sshd) = Sshd::start() else { return };
    let provider = sshd.provider(1);
    let instance = make(&provider, &fresh_id()).await;
    let lock = sshd.path("base/slots/0.lock");
    let held =
        nix::fcntl::Flock::lock(fs::File::open(&lock).unwrap(), nix::fcntl::FlockArg::LockExclusive).unwrap();
    let DestroyOutcome::Unknown(why) = provider.destroy(&instance).await else { panic!("destroyed") };
    assert!(why.contains("slot 0 is held"), "{why}");
    assert_eq!(sshd.claims().len(), 1);
    drop(held);
    assert_eq!(provider.destroy(&instance).await, DestroyOutcome::Accepted);
}

#[tokio::test]
async fn each_slot_has_its_share_of_the_gpus() {
    let Some(sshd) = Sshd::start() else { return };
    let bin = sshd.path("bin");
    fs::create_dir(&bin).unwrap();
    let listing = |gpus: u32| {
        let lines: String =
            (0..gpus).map(|n| format!("echo 'GPU {n}: NVIDIA H200 (UUID: GPU-{n})'\n")).collect();
        rig::executable(&bin.join("nvidia-smi"), &format!("#!/bin/sh\n{lines}"));
    };
    sshd.wrap(&format!("PATH={}:$PATH; export PATH; exec $SSH_ORIGINAL_COMMAND", bin.display()));
    let provider = sshd.provider(2);
    listing(1);
    let reason = refused(&provider).await;
    assert!(reason.contains("1 GPUs for 2 slots"), "{reason}");
    listing(3);
    let env = async |provider: &SshProvider, instance: &str| provider.route(instance).await.unwrap().env;
    let (first, second) = (make(&provider, &fresh_id()).await, make(&provider, &fresh_id()).await);
    assert_eq!(env(&provider, &first).await["CUDA_VISIBLE_DEVICES"], "0");
    assert_eq!(env(&provider, &second).await["CUDA_VISIBLE_DEVICES"], "1,2");
    listing(0);
    // A driver that fails later changes nothing: the share is written down.
    let later = env(&sshd.provider(2), &second).await;
    assert_eq!(later["CUDA_VISIBLE_DEVICES"], "1,2");
    assert_eq!(later["CUDA_DEVICE_ORDER"], "PCI_BUS_ID");
    assert_eq!(later[SLOT_LOCK], sshd.path("base/slots/1.lock").display().to_string());
}

#[tokio::test]
async fn a_machine_goes_to_the_host_with_room_and_is_found_there() {
    let Some(sshd) = Sshd::start() else { return };
    let host =
        |name: &str, slots| SshHost { root: sshd.path(name).display().to_string(), ..sshd.host(name, slots) };
    let provider = provider("hub-a", vec![host("small", 1), host("large", 2)]);
    let (a, b, c) = (fresh_id(), fresh_id(), fresh_id());
    let mut made = Vec::new();
    for id in [&a, &b, &c] {
        made.push(make(&provider, id).await);
    }
    made.sort();
    assert!(
        made[0].starts_with("large/") && made[1].starts_with("large/") && made[2].starts_with("small/"),
        "{made:?}"
    );
    let reason = refused(&provider).await;
    assert!(
        reason.contains("`small` has no free slot") && reason.contains("`large` has no free slot"),
        "{reason}"
    );
    assert_eq!(make(&provider, &b).await, *made.iter().find(|name| name.ends_with(&b)).unwrap());
    // By its name alone, wherever it is.
    assert_eq!(provider.get(&c).await, Presence::Present(InstanceState::Booting));
    assert_eq!(provider.destroy(&c).await, DestroyOutcome::Accepted);
    let Listing::Complete(all) = provider.list("l/").await else { panic!("not complete") };
    assert_eq!(all.len(), 2);
}
