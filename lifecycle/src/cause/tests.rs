//! Each rule with ends as they are met, and that nothing is certain without
//! positive evidence.

use proptest::prelude::*;

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

/// Ends of error streams as they are met, and what they mean.
const TAILS: [(i32, &str, Cause, Confidence); 46] = [
    (
        1,
        "Traceback (most recent call last):\n  File \"train.py\", line 9, in <module>\n    main()\nValueError: boom",
        C::UserError,
        Certain,
    ),
    (
        1,
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.20 GiB is free.",
        C::GpuOutOfMemory,
        Certain,
    ),
    (
        1,
        "[rank3]: torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 3; 23.69 GiB total capacity)",
        C::GpuOutOfMemory,
        Certain,
    ),
    (
        1,
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 7406166528 bytes.",
        C::GpuOutOfMemory,
        Likely,
    ),
    (
        1,
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating tensor with shape[16,112,112,147] and type float",
        C::GpuOutOfMemory,
        Likely,
    ),
    (
        1,
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        C::GpuOutOfMemory,
        Certain,
    ),
    (1, "OSError: [Errno 28] No space left on device: '/ckpt/step-400.pt'", C::DiskFull, Certain),
    (
        1,
        "RuntimeError: [enforce fail at inline_container.cc:595] . unexpected pos 64 vs 0\nOSError: [Errno 122] Disk quota exceeded",
        C::DiskFull,
        Certain,
    ),
    (
        1,
        "RuntimeError: DataLoader worker (pid 46794) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory. Please try to raise your shared memory limit.",
        C::OutOfMemory,
        Likely,
    ),
    (1, "RuntimeError: DataLoader worker (pid 3002) is killed by signal: Killed. ", C::OutOfMemory, Likely),
    (
        1,
        "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 184. GiB for an array with shape (64, 26) and data type float32",
        C::OutOfMemory,
        Certain,
    ),
    (1, "Traceback (most recent call last):\n  File \"a.py\", line 1\nMemoryError", C::OutOfMemory, Certain),
    (
        134,
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc",
        C::OutOfMemory,
        Certain,
    ),
    (
        1,
        "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes.",
        C::OutOfMemory,
        Certain,
    ),
    (1, "OSError: [Errno 12] Cannot allocate memory", C::OutOfMemory, Certain),
    (
        1,
        "RuntimeError: CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some other API call",
        C::UserError,
        Certain,
    ),
    (1, "RuntimeError: CUDA error: an illegal memory access was encountered", C::UserError, Likely),
    (1, "RuntimeError: CUDA error: uncorrectable ECC error encountered", C::GpuFault, Likely),
    (1, "RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", C::GpuFault, Possible),
    (1, "RuntimeError: No CUDA GPUs are available", C::EnvironmentFailed, Certain),
    (
        1,
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        C::EnvironmentFailed,
        Certain,
    ),
    (
        1,
        "ImportError: /lib/x86_64-linux-gnu/libm.so.6: version `GLIBC_2.29' not found (required by /venv/lib/python3.8/site-packages/tokenizers/tokenizers.so)",
        C::EnvironmentFailed,
        Certain,
    ),
    (
        1,
        "ImportError: libcudart.so.11.0: cannot open shared object file: No such file or directory",
        C::EnvironmentFailed,
        Certain,
    ),
    (1, "ModuleNotFoundError: No module named 'transformers'", C::EnvironmentFailed, Certain),
    (1, "ImportError: cannot import name 'is_flash_attn' from 'transformers'", C::EnvironmentFailed, Likely),
    (
        1,
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-66)\n\nCannot access gated repo for url https://huggingface.co/meta-llama/x.\nAccess to model meta-llama/x is restricted. You must have access to it and be authenticated to access it. Please log in.",
        C::UserError,
        Certain,
    ),
    (
        1,
        "requests.exceptions.HTTPError: 403 Client Error: Forbidden for url: https://example.org/data.tar",
        C::UserError,
        Likely,
    ),
    (
        1,
        "wandb.errors.UsageError: api_key not configured (no-tty). call wandb login [your_api_key]",
        C::UserError,
        Certain,
    ),
    (
        1,
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: /x (Caused by NameResolutionError)",
        C::RemoteService,
        Likely,
    ),
    (
        1,
        "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: https://huggingface.co/api",
        C::RemoteService,
        Likely,
    ),
    (
        1,
        "RuntimeError: The server socket has failed to listen on any local network address. EADDRINUSE, port: 29500",
        C::UserError,
        Certain,
    ),
    (1, "OSError: [Errno 98] Address already in use", C::UserError, Certain),
    (1, "OSError: [Errno 24] Too many open files: '/data/shard-17'", C::UserError, Certain),
    (1, "PermissionError: [Errno 13] Permission denied: '/checkpoints'", C::UserError, Likely),
    (1, "FileNotFoundError: [Errno 2] No such file or directory: 'data/train.csv'", C::UserError, Certain),
    (
        1,
        "datasets.exceptions.DatasetNotFoundError: Dataset 'x/y' doesn't exist on the Hub or cannot be accessed.",
        C::UserError,
        Certain,
    ),
    (
        1,
        "RuntimeError: Error(s) in loading state_dict for Net:\n\tsize mismatch for fc.weight: copying a param with shape torch.Size([10, 512])",
        C::UserError,
        Certain,
    ),
    (1, "RuntimeError: mat1 and mat2 shapes cannot be multiplied (32x100 and 128x10)", C::UserError, Certain),
    (2, "usage: train.py [-h]\ntrain.py: error: unrecognized arguments: --epoch 3", C::UserError, Certain),
    (
        1,
        "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
        C::UserError,
        Likely,
    ),
    (1, "OSError: [Errno 5] Input/output error", C::HostDead, Likely),
    (
        134,
        "[rank0]:[E1206 18:44:12.715298746 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7753, OpType=_REDUCE_SCATTER_BASE, NumelIn=544997376, NumelOut=68124672, Timeout(ms)=600000) ran for 600061 milliseconds before timing out.",
        C::Hang,
        Likely,
    ),
    (127, "sh: 1: accelerate: not found", C::UserError, Likely),
    (101, "thread 'main' panicked at src/main.rs:4:5:\nindex out of bounds", C::UserError, Certain),
    (
        1,
        "torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/ProcessGroupNCCL.cpp:1333, unhandled cuda error",
        C::RemoteService,
        Possible,
    ),
    (7, "", C::UserError, Possible),
];

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
    assert_eq!(
        with("Memory cgroup out of memory: Killed process 71 (python3) total-vm:1kB"),
        (C::OutOfMemory, Likely)
    );
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
fn who_asked_for_the_end_comes_first() {
    let stopped = Evidence { asked: Some(Asked::Person), ..killed(15, "KeyError: 'x'") };
    assert_eq!((judge(&stopped).cause, judge(&stopped).confidence), (C::Operator, Certain));
    let spent = Evidence { asked: Some(Asked::Budget), ..failed(0, "") };
    assert_eq!(judge(&spent).cause, C::Budget);
    assert!(judge(&spent).next[0].contains("max_usd"));
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

fn some_exit(pick: u8, n: i32) -> Option<Exit> {
    match pick % 5 {
        0 => None,
        1 => Some(Exit::Code { code: n.rem_euclid(256) }),
        2 => Some(Exit::Signal { signal: n.rem_euclid(65), core: n % 2 == 0 }),
        3 => Some(Exit::NotStarted { reason: format!("x{n}") }),
        _ => Some(Exit::Unknown { reason: format!("y{n}") }),
    }
}

fn some_loss(pick: u8) -> Option<LossCause> {
    [
        None,
        Some(LossCause::Gone),
        Some(LossCause::Terminated),
        Some(LossCause::Silent),
        Some(LossCause::NeverJoined),
        Some(LossCause::Operator),
        Some(LossCause::Farewell),
    ][usize::from(pick % 7)]
}

proptest! {
    #[test]
    fn anything_is_judged_and_only_positive_evidence_is_certain(
        (exit, loss, asked, n) in (0u8..5, 0u8..7, 0u8..3, any::<i32>()),
        (stderr, kernel) in (proptest::collection::vec("\\PC{0,60}", 0..6), proptest::collection::vec("\\PC{0,60}", 0..4)),
        (oom, hang, leave, tail) in (proptest::option::of("\\PC{0,20}"), "\\PC{0,20}", "\\PC{0,20}", 0usize..46),
        (spoke, boot, superseded, provider, silent) in (any::<bool>(), any::<bool>(), any::<bool>(), 0u8..4, any::<u64>()),
        farewell in proptest::option::of("[a-z]{0,12}"),
    ) {
        let mut stderr = stderr;
        if n % 3 == 0 { stderr.extend(lines(TAILS[tail].1)); }
        let e = Evidence {
            run: "r".into(), attempt: 1, exit: some_exit(exit, n), loss: some_loss(loss), superseded,
            asked: [None, Some(Asked::Person), Some(Asked::Budget)][usize::from(asked)],
            last_error_line: stderr.last().cloned().unwrap_or_default(), stderr, kernel,
            out_of_memory: oom.unwrap_or_default(), hang, leave_machine: leave, spoke_again: spoke, new_boot: boot,
            provider: [None, Some(ProviderSays::Alive), Some(ProviderSays::Ended), Some(ProviderSays::Absent)][usize::from(provider)],
            silent_ms: silent, farewell, ..Evidence::default()
        };
        let verdict = judge(&e);
        prop_assert!(!verdict.because.is_empty());
        prop_assert!(verdict.because.iter().chain(&verdict.next).all(|t| t.chars().count() <= QUOTED && !t.contains('\n')));
        if verdict.confidence == Certain {
            let positive = match verdict.cause {
                C::Running => e.exit.is_none() && e.loss.is_none() && !e.superseded,
                C::Finished => e.exit.as_ref().is_some_and(Exit::is_success),
                C::Operator => e.asked == Some(Asked::Person) || e.loss == Some(LossCause::Operator),
                C::Budget => e.asked == Some(Asked::Budget),
                C::NeverJoined => e.loss == Some(LossCause::NeverJoined),
                C::Hang => !e.hang.is_empty(),
                C::Preempted => e.farewell.is_some(),
                C::NetworkPartition => e.spoke_again,
                C::ProviderLying => e.spoke_again && matches!(e.loss, Some(LossCause::Gone | LossCause::Terminated)),
                C::Rebooted => e.new_boot || e.farewell.as_deref().is_some_and(|f| f.contains("reboot")) || matches!(&e.exit, Some(Exit::Unknown { reason }) if reason.contains("boot")),
                C::OutOfMemory | C::GpuOutOfMemory | C::DiskFull | C::UserError | C::EnvironmentFailed | C::GpuFault => {
                    let why = &verdict.because[0];
                    why.starts_with("last error: ") || why.starts_with("certain") || why.starts_with("kernel: ")
                        || why.starts_with("the agent: ") || why.starts_with("not started: ") || why.contains("kernel's log")
                }
                C::HostDead | C::RemoteService | C::Unknown => false,
            };
            prop_assert!(positive, "{e:#?}\n{verdict:#?}");
        }
    }
}
