//! Each rule with ends as they are met, and that nothing is certain without
//! positive evidence.

mod anything;
mod exceptions;
mod tails;

use tails::TAILS;

use super::*;
use Cause as C;
use Confidence::{Certain, Likely, Possible};

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn failed(code: i32, stderr: &str) -> Evidence {
    Evidence {
        run: "digits-abc".into(),
        attempt: 2,
        exit: Some(Exit::Code { code }),
        started: true,
        stderr: lines(stderr),
        last_error_line: stderr.lines().last().unwrap_or_default().to_owned(),
        ..Evidence::default()
    }
}

fn killed(signal: i32, stderr: &str) -> Evidence {
    Evidence { exit: Some(Exit::Signal { signal, core: false }), ..failed(0, stderr) }
}

fn lost(loss: LossCause) -> Evidence {
    Evidence { run: "digits-abc".into(), attempt: 1, loss: Some(loss), started: true, ..Evidence::default() }
}

#[test]
fn the_end_of_the_error_stream_names_the_cause() {
    for (code, tail, cause, confidence) in TAILS {
        let verdict = judge(&failed(code, tail));
        assert_eq!((verdict.cause, verdict.confidence), (cause, confidence), "{tail}\n{verdict:#?}");
        assert!(!verdict.because.is_empty() && !verdict.next.is_empty(), "{verdict:#?}");
        assert!(
            verdict.because.iter().chain(&verdict.next).all(|t| t.chars().count() <= QUOTED),
            "{verdict:#?}"
        );
    }
}

#[test]
fn what_follows_from_a_failure_does_not_hide_it() {
    let text = "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n\
                [rank0]:[E1 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)\n\
                terminate called after throwing an instance of 'c10::DistBackendError'";
    let verdict = judge(&killed(6, text));
    assert_eq!(verdict.cause, C::GpuOutOfMemory, "{verdict:#?}");
    assert!(verdict.because.iter().any(|b| b == "it was rank 1"), "{verdict:#?}");

    let wrapped = "ValueError: bad shape\n\
                   torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n\
                   train.py FAILED\nRoot Cause (first observed failure):\n[0]:\n  rank      : 1 (local_rank: 1)\n  exitcode  : 1 (pid: 14)";
    let verdict = judge(&failed(1, wrapped));
    assert_eq!((verdict.cause, verdict.confidence), (C::UserError, Certain), "{verdict:#?}");
    assert!(verdict.because[0].contains("ValueError"), "{verdict:#?}");
}

#[test]
fn an_error_that_the_program_survived_is_not_certain() {
    let text = "torch.OutOfMemoryError: CUDA out of memory, retrying with a smaller batch\nstep 5\nmylib.StopTrainingError: validation got worse";
    let verdict = judge(&failed(1, text));
    assert!(verdict.confidence == Possible || verdict.cause != C::GpuOutOfMemory, "{verdict:#?}");
    let text = "PermissionError: ignored\nstep 5\nmylib.StopTrainingError: validation got worse";
    let verdict = judge(&failed(1, text));
    assert!(verdict.because[0].contains("StopTrainingError"), "{verdict:#?}");
}

#[test]
fn a_rank_that_was_killed_is_named_and_not_called_out_of_memory() {
    let text = "Root Cause (first observed failure):\n[0]:\n  time      : 2025-05-21\n  rank      : 0 (local_rank: 0)\n  exitcode  : -9 (pid: 14750)\n  traceback : Signal 9 (SIGKILL) received by PID 14750";
    let verdict = judge(&failed(1, text));
    assert_eq!((verdict.cause, verdict.confidence), (C::Unknown, Possible), "{verdict:#?}");
    assert!(verdict.because[0].contains("rank 0 (local_rank: 0)"), "{verdict:#?}");
}

#[test]
fn a_process_that_failed_is_named_by_its_launcher_and_by_the_kernel() {
    let srun = "step 4\nsrun: error: n1: task 3: Exited with exit code 4";
    let verdict = judge(&failed(1, srun));
    assert_eq!((verdict.cause, verdict.confidence), (C::UserError, Possible), "{verdict:#?}");
    assert_eq!(verdict.because[0], "by its launcher rank 3 ended first, with exit code 4");
    let with_error = format!("mylib.StopTrainingError: bad batch\n{srun}");
    let verdict = judge(&failed(1, &with_error));
    assert_eq!((verdict.cause, verdict.confidence), (C::UserError, Likely), "{verdict:#?}");
    assert!(verdict.because.iter().any(|b| b.contains("rank 3 ended first")), "{verdict:#?}");
    // DeepSpeed speaks on the output.
    let killed = "['python3', '-u', 'train.py', '--local_rank=1'] exits with return code = -9";
    let verdict = judge(&Evidence { stdout: lines(killed), ..failed(1, "") });
    assert_eq!((verdict.cause, verdict.confidence), (C::Unknown, Possible), "{verdict:#?}");
    let kernel = "[ 2112.001234] python3[2174]: segfault at 0 ip 00007f2 sp 00007ffe error 4 in libc.so.6";
    let verdict = judge(&Evidence { kernel: lines(kernel), ..failed(1, "worker failed -11") });
    assert_eq!((verdict.cause, verdict.confidence), (C::UserError, Possible), "{verdict:#?}");
    assert!(verdict.because.iter().any(|b| b.contains("python3[2174]: segfault")), "{verdict:#?}");
    assert!(verdict.next[0].contains("PYTHONFAULTHANDLER"), "{verdict:#?}");
}

#[test]
fn signals_are_what_they_are() {
    for (signal, cause) in [
        (9, C::Unknown),
        (15, C::Unknown),
        (11, C::UserError),
        (6, C::UserError),
        (7, C::OutOfMemory),
        (4, C::EnvironmentFailed),
        (25, C::DiskFull),
        (8, C::UserError),
    ] {
        let verdict = judge(&killed(signal, "step 3"));
        assert_eq!(verdict.cause, cause, "signal {signal}: {verdict:#?}");
        assert!(verdict.confidence < Certain, "signal {signal}: {verdict:#?}");
    }
    let shell = judge(&failed(137, "train.sh: line 3: 12345 Killed  python train.py"));
    assert_eq!(
        (shell.cause, shell.confidence),
        (C::Unknown, Possible),
        "no SIGKILL is called out of memory: {shell:#?}"
    );
}

#[test]
fn counters_make_out_of_memory_certain_and_a_bare_kill_does_not() {
    let with = |counted: &str, oom: Option<(i32, String)>| {
        let verdict =
            judge(&Evidence { out_of_memory: counted.into(), oom_process: oom, ..killed(9, "step 3") });
        (verdict.cause, verdict.confidence)
    };
    assert_eq!(
        with("certain: memory.events of the attempt's cgroup counts 1 more oom_kill", None),
        (C::OutOfMemory, Certain)
    );
    assert_eq!(with("", Some((4711, "python3".into()))), (C::OutOfMemory, Certain));
    assert_eq!(
        with("likely: memory.oom_control of the machine's cgroup counts 1 more oom_kill", None),
        (C::OutOfMemory, Likely)
    );
    assert_eq!(
        with("probable: /proc/vmstat of the host counts 1 more oom_kill", None),
        (C::OutOfMemory, Likely)
    );
    assert_eq!(with("", None), (C::Unknown, Possible));
    let other = Evidence {
        out_of_memory: "probable: /proc/vmstat of the host counts 9 more oom_kill".into(),
        ..failed(1, "ValueError: x")
    };
    assert_eq!(judge(&other).cause, C::UserError, "the host's counter is about somebody else");
}

#[test]
fn the_kernels_words_count() {
    let with = |kernel: &str| {
        let verdict = judge(&Evidence { kernel: lines(kernel), ..killed(6, "") });
        (verdict.cause, verdict.confidence)
    };
    assert_eq!(
        with("NVRM: Xid (PCI:0000:44:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."),
        (C::GpuFault, Certain)
    );
    assert_eq!(
        with("NVRM: Xid (PCI:0000:b3:00): 94, pid=7, Contained: SM (0x1). RST: No"),
        (C::GpuFault, Certain)
    );
    assert_eq!(with("NVRM: Xid (PCI:0000:b3:00): 31, pid=7, Ch 0000000f, MMU Fault"), (C::UserError, Likely));
    assert_eq!(with("NVRM: Xid (PCI:0000:b3:00): 13, Graphics SM Warp Exception"), (C::UserError, Likely));
    assert_eq!(with("blk_update_request: I/O error, dev vda, sector 12345"), (C::HostDead, Likely));
    let victim = "Memory cgroup out of memory: Killed process 71 (python3) total-vm:1kB";
    let ended = judge(&Evidence { kernel: lines(victim), ..killed(9, "") });
    assert_eq!((ended.cause, ended.confidence), (C::OutOfMemory, Likely));
    // Another machine's victim on the same kernel.
    assert_ne!(with(victim).0, C::OutOfMemory);
    let exits = judge(&Evidence { kernel: lines(victim), ..failed(1, "RuntimeError: x") });
    assert_eq!(exits.cause, C::UserError);
    let leave =
        Evidence { leave_machine: "GPU 3 does not answer nvidia-smi".into(), ..failed(1, "RuntimeError: x") };
    assert_eq!(judge(&leave).cause, C::GpuFault);
}

#[test]
fn silence_is_never_certain_until_the_machine_speaks_again() {
    let base = Evidence { silent_ms: 33_000, ..lost(LossCause::Silent) };
    let verdict = |e: Evidence| {
        let v = judge(&e);
        (v.cause, v.confidence)
    };
    let alive = Evidence { provider: Some(ProviderSays::Alive), ..base.clone() };
    assert_eq!(verdict(base.clone()), (C::NetworkPartition, Possible));
    assert_eq!(verdict(alive.clone()), (C::NetworkPartition, Likely));
    assert_eq!(verdict(Evidence { others_silent: 4, ..alive.clone() }), (C::NetworkPartition, Likely));
    assert_eq!(
        verdict(Evidence { provider: Some(ProviderSays::Absent), ..base.clone() }),
        (C::HostDead, Likely)
    );
    assert_eq!(verdict(Evidence { spoke_again: true, ..alive.clone() }), (C::NetworkPartition, Certain));
    assert_eq!(verdict(Evidence { spoke_again: true, new_boot: true, ..alive }), (C::Rebooted, Certain));
    let superseded = Evidence { superseded: true, loss: None, ..base };
    assert_eq!(verdict(superseded).0, C::NetworkPartition);
}

#[test]
fn the_providers_word_and_the_machines_farewell_count() {
    let verdict = |e: &Evidence| {
        let v = judge(e);
        (v.cause, v.confidence)
    };
    for reason in ["preempted", "spot instance interruption", "evicted"] {
        for loss in [LossCause::Farewell, LossCause::Gone, LossCause::Terminated, LossCause::Silent] {
            let e = Evidence { farewell: Some(reason.into()), ..lost(loss) };
            assert_eq!(verdict(&e), (C::Preempted, Certain), "{reason} {loss}");
        }
    }
    let shut = Evidence { farewell: Some("shutdown".into()), ..lost(LossCause::Farewell) };
    assert_eq!(verdict(&shut), (C::Preempted, Likely));
    let reboot = Evidence { farewell: Some("reboot".into()), ..lost(LossCause::Farewell) };
    assert_eq!(verdict(&reboot), (C::Rebooted, Certain));
    assert_eq!(verdict(&lost(LossCause::Gone)), (C::HostDead, Likely));
    assert_eq!(verdict(&lost(LossCause::Terminated)), (C::HostDead, Likely));
    assert_eq!(
        verdict(&Evidence { spoke_again: true, ..lost(LossCause::Gone) }),
        (C::ProviderLying, Certain)
    );
    assert_eq!(verdict(&lost(LossCause::NeverJoined)), (C::NeverJoined, Certain));
    assert_eq!(verdict(&lost(LossCause::Operator)), (C::Operator, Certain));
}

#[test]
fn a_notice_makes_a_preemption_certain_whatever_became_of_the_machine() {
    let told = "notice from ec2 at 10:00:00 UTC: terminate";
    for loss in [LossCause::Noticed, LossCause::Gone, LossCause::Terminated, LossCause::Silent] {
        for spoke_again in [false, true] {
            let verdict = judge(&Evidence { notice: Some(told.into()), spoke_again, ..lost(loss) });
            assert_eq!((verdict.cause, verdict.confidence), (C::Preempted, Certain), "{loss}");
            assert_eq!(verdict.because, [told]);
        }
    }
    let asked = Evidence { notice: Some(told.into()), ..lost(LossCause::Operator) };
    assert_eq!(judge(&asked).cause, C::Operator);
}

#[test]
fn a_program_that_failed_before_its_machine_was_lost_is_to_blame() {
    let text = "Traceback (most recent call last):\n  File \"t.py\", line 3\nKeyError: 'label'";
    let before = Evidence {
        exited: Some(Exit::Code { code: 1 }),
        exit: None,
        loss: Some(LossCause::Terminated),
        ..failed(1, text)
    };
    let verdict = judge(&before);
    assert_eq!(verdict.cause, C::UserError, "{verdict:#?}");
    assert!(verdict.because[0].contains("KeyError"), "{verdict:#?}");
    assert!(verdict.because.iter().any(|b| b.contains("its machine was lost")), "{verdict:#?}");
    let well = judge(&Evidence { exited: Some(Exit::Code { code: 0 }), ..before.clone() });
    assert_eq!(well.cause, C::HostDead, "{well:#?}");
    assert!(well.because.iter().any(|b| b.contains("had ended with exit code 0")), "{well:#?}");
    let publishing = judge(&Evidence { loss: None, ..before });
    assert_eq!(publishing.cause, C::Running);
    assert!(publishing.because[0].contains("exit code 1"), "{publishing:#?}");
}

#[test]
fn a_process_that_memory_ended_is_told_of_a_program_that_ended_well() {
    let oom = "certain: memory.events of the attempt's cgroup counts 1 more oom_kill";
    for oom_process in [None, Some((71, "python3".to_owned()))] {
        let verdict = judge(&Evidence { out_of_memory: oom.into(), oom_process, ..failed(0, "") });
        assert_eq!(verdict.cause, C::Finished);
        assert!(verdict.because.iter().any(|b| b.contains("memory")), "{verdict:#?}");
    }
}

#[test]
fn who_asked_for_the_end_comes_first() {
    let stopped = Evidence { asked: Some(Asked::Person), ..killed(15, "KeyError: 'x'") };
    assert_eq!((judge(&stopped).cause, judge(&stopped).confidence), (C::Operator, Certain));
    let spent = Evidence { asked: Some(Asked::Budget), ..failed(0, "") };
    assert_eq!(judge(&spent).cause, C::Budget);
    assert!(judge(&spent).next[0].contains("max_usd"));
    let ruled = Evidence { asked: Some(Asked::Rule), rule: "loss: non finite".into(), ..killed(15, "") };
    assert_eq!((judge(&ruled).cause, judge(&ruled).because[0].as_str()), (C::EarlyStop, "loss: non finite"));
    let hung = Evidence { hang: "no step for 612 s, GPU idle".into(), ..killed(9, "") };
    assert_eq!((judge(&hung).cause, judge(&hung).confidence), (C::Hang, Certain));
}

#[test]
fn what_was_never_started_says_why() {
    let with = |reason: &str, setup: &str| {
        let exit = Some(Exit::NotStarted { reason: reason.into() });
        judge(&Evidence { exit, setup: lines(setup), run: "r".into(), ..Evidence::default() })
    };
    let pip = with(
        "the environment: `pip install -r requirements.txt` failed with exit code 1",
        "Collecting nosuch\nERROR: Could not find a version that satisfies the requirement nosuch (from versions: none)\nERROR: No matching distribution found for nosuch",
    );
    assert_eq!((pip.cause, pip.confidence), (C::EnvironmentFailed, Certain));
    assert!(pip.because.iter().any(|b| b.contains("No matching distribution found for nosuch")), "{pip:#?}");
    assert_eq!(with("No such file or directory (os error 2)", "").cause, C::UserError);
    let image = with("the environment: `podman pull --quiet nosuch/image` failed with exit code 125", "");
    assert!(image.next.iter().any(|next| next.contains("[environment] image")), "{image:#?}");
    assert!(!image.next.iter().any(|next| next.contains("requirements.txt")), "{image:#?}");
    assert_eq!(with("the environment: no space left", "").cause, C::DiskFull);
    let gone = Exit::Unknown { reason: "its keeper is gone and left no record (it was killed)".into() };
    let unseen = Evidence { exit: Some(gone), ..Evidence::default() };
    assert_eq!((judge(&unseen).cause, judge(&unseen).confidence), (C::Unknown, Possible));
    assert_eq!(judge(&Evidence { new_boot: true, ..unseen }).cause, C::Rebooted);
    let crash = Evidence {
        exit: Some(Exit::Signal { signal: 11, core: false }),
        out_of_memory: "likely: memory.oom_control of the machine's cgroup counts 1 more oom_kill".into(),
        ..Evidence::default()
    };
    assert_eq!(judge(&crash).cause, C::UserError, "another's lack of memory is not the crash");
    let reason = "the machine restarted while it ran: this is another boot".into();
    let said = Evidence {
        exit: Some(Exit::Unknown { reason }),
        stderr: vec!["OSError: [Errno 5] Input/output error".into()],
        ..Evidence::default()
    };
    assert_eq!((judge(&said).cause, judge(&said).confidence), (C::Rebooted, Certain));
}

#[test]
fn success_and_a_run_that_goes_on_are_no_failures() {
    assert_eq!(judge(&failed(0, "KeyError: 'survived'")).cause, C::Finished);
    assert_eq!(judge(&Evidence::default()).cause, C::Running);
    let unstored =
        Evidence { unpublished: "its last checkpoint: No space left on device".into(), ..failed(0, "") };
    assert_eq!(judge(&unstored).cause, C::DiskFull);
}

#[test]
fn every_cause_has_words_of_its_own() {
    let mut names: Vec<&str> = C::ALL.iter().map(|c| c.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), C::ALL.len());
}
