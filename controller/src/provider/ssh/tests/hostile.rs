//! Hosts that say too much, too little or what they should not.

use std::fs;

use super::super::*;
use super::make;
use super::rig::{Booted, Sshd};
use crate::provider::contract::{fresh_id, request, wait_for};

#[tokio::test]
async fn banners_and_noisy_start_up_files_are_passed_over() {
    let Some(sshd) = Sshd::start() else { return };
    sshd.wrap(
        "echo 'Welcome to box!'; printf 'no newline, \\033[2J\\000 and noise'; head -c 200000 /dev/zero; echo\n\
         echo outlast0000000000000000 slot 0 up; echo 'WARNING: Permission denied (' >&2\n\
         printf 'prompt> '; sh -c \"$SSH_ORIGINAL_COMMAND\"; echo outlast0000000000000000 end; seq 1 50000",
    );
    let provider = Booted(sshd.provider(1));
    let instance = make(&provider, &fresh_id()).await;
    wait_for(&provider, &instance, &super::UP).await;
    assert!(matches!(provider.list("l/").await, Listing::Complete(found) if found.len() == 1));
    assert_eq!(provider.destroy(&instance).await, DestroyOutcome::Accepted);
}

#[tokio::test]
async fn floods_and_fragments_are_no_answer() {
    let Some(sshd) = Sshd::start() else { return };
    let mut config = super::rig::config("hub-a", vec![sshd.host("box", 1)]);
    config.patience.answer = Duration::from_secs(3);
    config.patience.connect = Duration::from_secs(10);
    let provider = SshProvider::new(config);
    let name = format!("box/0/{}", fresh_id());
    let greet = "read -r _ _ _ tag; echo \"$tag begin\"; cat > /dev/null;";
    for answer in [
        "yes".to_owned(),
        "cat /dev/zero".to_owned(),
        format!("{greet} yes \"$tag slot 1 up 61\""),
        format!("{greet} yes \"$tag\""),
        format!("{greet} cat /dev/zero"),
        format!("{greet} exit 0"),
        format!("{greet} echo \"$tag end\""),
        format!("{greet} echo \"$tag base 2f\"; echo \"$tag node n\"; sleep 30"),
        format!("{greet} echo \"$tag base 2f\"; echo \"$tag node n\"; echo \"$tag evil\"; echo \"$tag end\""),
        format!("{greet} printf '%s node a\\033[2Jb\\n%s base 2f\\n%s end\\n' $tag $tag $tag"),
        format!(
            "{greet} echo \"$tag base 2f\"; echo \"$tag node n\"; echo \"$tag marked 99999999999999999999\"; echo \"$tag end\""
        ),
    ] {
        sshd.wrap(&answer);
        let presence = provider.get(&name).await;
        let Presence::Error(why) = &presence else { panic!("{answer}: {presence:?}") };
        assert!(why.len() < 1000 && !why.contains('\x1b') && !why.contains('\0'), "{why:?}");
        let listing = provider.list("l/").await;
        assert!(matches!(listing, Listing::Error(_)), "{answer}: {listing:?}");
    }
    // After the first line a script may have run.
    sshd.wrap(&format!("{greet} exit 3"));
    assert!(matches!(provider.destroy(&name).await, DestroyOutcome::Unknown(_)));
}

#[tokio::test]
async fn what_lies_in_the_directories_is_no_command_and_no_lie_about_others() {
    let Some(sshd) = Sshd::start() else { return };
    let provider = Booted(sshd.provider(3));
    let id = fresh_id();
    let instance = make(&provider, &id).await;
    wait_for(&provider, &instance, &super::UP).await;
    let slots = sshd.path("base/slots");
    let victim = sshd.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("kept"), "").unwrap();
    let machines = sshd.path("base/machines").join(&id);
    std::os::unix::fs::symlink(&victim, machines.join("link")).unwrap();
    // Nothing of these is a slot.
    for name in ["$(touch x).claim", "-rf.claim", "1;x.claim", "007.claim", "99999.claim", "a b.lock"] {
        fs::write(slots.join(name), "x").unwrap();
    }
    assert!(matches!(provider.list("l/").await, Listing::Complete(found) if found.len() == 1));
    // These are slots whose claims cannot be read: taken, and told.
    nix::unistd::mkfifo(&slots.join("1.claim"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(slots.join("2.claim"), "outlast-claim 1\nhub `id`\nmachine ../../victim\nlabel l/x\n\x1b[2J\0")
        .unwrap();
    let listing = provider.list("l/").await;
    assert!(matches!(&listing, Listing::Partial(found) if found.len() == 1), "{listing:?}");
    let other = provider.get(&fresh_id()).await;
    assert!(matches!(other, Presence::Error(_)), "one of those may be its own: {other:?}");
    let full = provider.create(&request(&fresh_id(), "l/x", "")).await;
    let CreateOutcome::Rejected { reason, .. } = full else { panic!("{full:?}") };
    assert!(reason.contains("slot 2: something whose claim cannot be read"), "{reason}");
    assert_eq!(provider.destroy(&instance).await, DestroyOutcome::Accepted);
    assert!(victim.join("kept").exists() && !sshd.path("x").exists(), "links are not followed");
}

#[tokio::test]
async fn a_machine_that_forges_its_files_does_not_escape() {
    let Some(sshd) = Sshd::start() else { return };
    let provider = Booted(sshd.provider(2));
    let id = fresh_id();
    let instance = make(&provider, &id).await;
    wait_for(&provider, &instance, &super::UP).await;
    let guard = sshd.path("base/machines").join(&id).join("guard.json");
    let own = std::process::id();
    // It names another process, or a pipe that blocks who reads it.
    fs::write(&guard, format!("{{\"pid\":{own},\"start_time\":1}}")).unwrap();
    assert_eq!(provider.get(&instance).await, super::UP, "its lock is held");
    fs::remove_file(&guard).unwrap();
    nix::unistd::mkfifo(&guard, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(provider.get(&instance).await, super::UP);
    assert_eq!(provider.destroy(&instance).await, DestroyOutcome::Accepted);
    assert!(super::marked(&id).is_empty());
}

#[tokio::test]
async fn what_is_missing_on_a_host_is_named() {
    let Some(sshd) = Sshd::start() else { return };
    let bin = sshd.path("bin");
    fs::create_dir(&bin).unwrap();
    // The script puts the usual places behind: what cannot run there is missing.
    super::rig::executable(&bin.join("od"), "#!/bin/sh\nexit 1\n");
    sshd.wrap(&format!("PATH={}:$PATH; export PATH; exec $SSH_ORIGINAL_COMMAND", bin.display()));
    let reports = diagnose(super::rig::config("hub-a", vec![sshd.host("box", 1)])).await;
    let (problem, cure) = reports[0].problem.clone().unwrap();
    assert!(problem.contains("`od-tx1` is missing") && cure.contains("ssh "), "{problem}");
    assert_eq!(reports[0].free, None);
    sshd.plain_logins();
    let file = sshd.path("file");
    fs::write(&file, "").unwrap();
    let host = SshHost { root: file.join("x").display().to_string(), ..sshd.host("box", 1) };
    let reason = super::refused(&super::provider("hub-a", vec![host])).await;
    assert!(reason.contains("its directory cannot be used"), "{reason}");
}

#[tokio::test]
async fn the_doctor_says_who_has_which_slot() {
    let Some(sshd) = Sshd::start() else { return };
    let provider = sshd.provider(2);
    let id = fresh_id();
    make(&provider, &id).await;
    let mut down = sshd.host("down", 1);
    down.address.port = Some(1);
    let reports = diagnose(super::rig::config("hub-b", vec![sshd.host("box", 2), down])).await;
    assert_eq!((reports[0].free, reports[0].problem.clone()), (Some(1), None));
    assert!(reports[0].taken[0].contains("of installation hub-a, booting"), "{:?}", reports[0].taken);
    assert!(reports[1].problem.as_ref().unwrap().0.contains("cannot be reached"));
}
