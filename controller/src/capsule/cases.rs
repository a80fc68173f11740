//! Twelve ways to end and more, as the rows, journals and files that they
//! leave: what golden capsules are made of.

use lifecycle::mask::Masker;
use lifecycle::{Exit, LossCause};
use serde_json::{Value, json};

use super::{Inputs, Moment, StreamEnd};
use crate::model::{Attempt, Checkpoint, Machine, Run};

const RUN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa";
const ATTEMPT: &str = "aeaqcaibaeaqcaibaeaqcaibae";
const MACHINE: &str = "aibaeaqcaibaeaqcaibaeaqcai";
/// The moment of the bind, unix milliseconds.
const BOUND: u64 = 1_790_000_000_000;
/// What must never be seen.
pub(super) const CANARY: &str = "canary-4f9Zq81LmX2";

fn id(text: &str) -> Value {
    json!(text)
}

fn run(status: &Value) -> Run {
    let body = json!({
        "id": id(RUN), "name": "digits-k3x", "status": status, "created_ms": BOUND - 20_000, "generation": 1,
        "bound": id(ATTEMPT), "attempts": 1, "source": {"key": "source/g1/m0", "digest": "00"}, "head": null,
        "outputs": null, "produced_step": 400, "endings": [], "wish": "run", "token": "t",
        "spec": {
            "project": "digits", "name": "digits", "command": ["python", "train.py", "--token", "abc", "--lr", "3e-4"],
            "env": {"API_TOKEN": CANARY, "EPOCHS": "3"}, "provider": "local", "max_usd": 5.0,
        },
    });
    serde_json::from_value(body).unwrap()
}

fn attempt(status: &Value) -> Attempt {
    let body = json!({
        "id": id(ATTEMPT), "run": id(RUN), "number": 1, "generation": 1, "machine": id(MACHINE), "status": status,
        "bound_ms": BOUND, "started_ms": BOUND + 4_000, "ended_ms": BOUND + 90_000, "resume": [],
        "prepare_ms": 4_000, "program_started": true, "first_step": 1, "last_step": 431,
    });
    serde_json::from_value(body).unwrap()
}

fn machine(state: &Value) -> Machine {
    let body = json!({
        "id": id(MACHINE), "provider": "local", "label": "l", "run": id(RUN), "status": state, "instance": "i-1",
        "created_ms": BOUND - 15_000, "called_ms": BOUND - 15_000, "ready_ms": BOUND - 1_000, "usd_per_hour": 1.5,
    });
    serde_json::from_value(body).unwrap()
}

fn checkpoint(step: u64) -> Checkpoint {
    let body = json!({
        "manifest": {"key": format!("{RUN}/g1/m{step}"), "digest": "00", "step": step}, "run": id(RUN),
        "attempt": id(ATTEMPT), "generation": 1, "status": "committed", "name": format!("step-{step}"),
        "bytes": 1_048_576, "committed_ms": BOUND + 10_000 + step * 150,
    });
    serde_json::from_value(body).unwrap()
}

pub(super) fn note(after_ms: u64, verb: &str, object: &str, detail: Value) -> Moment {
    let actor = if verb == "farewell" || object == ATTEMPT {
        format!("machine:{MACHINE}")
    } else {
        "controller".into()
    };
    Moment { at_ms: BOUND + after_ms, actor, verb: verb.into(), object: object.into(), detail }
}

pub(super) fn stream(text: &str) -> StreamEnd {
    StreamEnd { bytes: text.as_bytes().to_vec(), from: 0, total: text.len() as u64, missing: 0 }
}

fn jsonl(values: &[Value]) -> Vec<u8> {
    values.iter().flat_map(|value| format!("{value}\n").into_bytes()).collect()
}

/// A run in full swing, whose attempt has this state.
pub(super) fn base(status: &Value) -> Inputs {
    let points: Vec<Value> = (1..=60)
        .map(|n| json!({"t": BOUND + n, "name": "train/loss", "step": 371 + n, "value": 2.0 / n as f64}))
        .chain((1..=3).map(|n| json!({"t": BOUND, "name": "epoch", "step": n, "value": n})))
        .collect();
    let evidence = [
        json!({"at_ms": BOUND, "kind": "environment", "variables": {"API_TOKEN": CANARY, "PATH": "/usr/bin", "EPOCHS": "3"}, "python": "3.11.9"}),
        json!({"at_ms": BOUND, "kind": "packages", "packages": ["torch==2.4.1", "numpy==1.26.4"]}),
        json!({"at_ms": BOUND, "kind": "machine", "cores": 8, "memory_bytes": 34_359_738_368_u64, "kernel": "6.1.0"}),
        json!({"at_ms": BOUND + 60_000, "kind": "sample", "memory_available_bytes": 20_000_000_000_u64, "mounts": [{"path": "/", "free_bytes": 90_000_000_000_u64}], "gpus": [{"index": 0, "name": "NVIDIA A10", "temperature_celsius": 61.0}]}),
    ];
    let run = run(&json!({"state": "running"}));
    Inputs {
        now_ms: BOUND + 100_000,
        mask: Masker::new(&run.spec.env),
        run,
        attempt: attempt(status),
        machine: Some(machine(&json!({"state": "ready"}))),
        run_cost_usd: 0.05,
        journal: vec![
            note(0, "bound", ATTEMPT, json!({"generation": 1, "number": 1})),
            note(4_000, "started", ATTEMPT, json!({"pid": 77, "prepare_ms": 4_000})),
        ],
        checkpoints: vec![checkpoint(200), checkpoint(400)],
        stdout: stream("step 430 loss 0.0339\nstep 431 loss 0.0333\n"),
        stderr: stream(""),
        setup: stream("Collecting torch==2.4.1\nSuccessfully installed torch-2.4.1\n"),
        points: jsonl(&points),
        evidence: jsonl(&evidence),
        reached_before: None,
        replacement_works: false,
        others_silent: 0,
    }
}

fn ended(exit: &Exit) -> Inputs {
    base(&json!({"state": "ended", "exit": exit}))
}

fn code(code: i32, stderr: &str) -> Inputs {
    let mut inputs = ended(&Exit::Code { code });
    inputs.stderr = stream(stderr);
    inputs.attempt.last_error_line = stderr.lines().last().unwrap_or_default().to_owned();
    inputs.journal.push(note(90_000, "ended", ATTEMPT, json!({"exit": {"kind": "code", "code": code}})));
    inputs
}

fn signal(signal: i32, stderr: &str) -> Inputs {
    let mut inputs = ended(&Exit::Signal { signal, core: false });
    inputs.stderr = stream(stderr);
    inputs.journal.push(note(
        90_000,
        "ended",
        ATTEMPT,
        json!({"exit": {"kind": "signal", "signal": signal}}),
    ));
    inputs
}

fn lost(cause: LossCause) -> Inputs {
    let mut inputs = base(&json!({"state": "lost", "cause": cause}));
    inputs.machine = Some(machine(&json!({"state": "lost", "cause": cause})));
    inputs.evidence.clear();
    inputs.journal.push(note(90_000, "attempt-lost", ATTEMPT, json!({"cause": cause})));
    inputs
}

fn with_evidence(mut inputs: Inputs, values: &[Value]) -> Inputs {
    inputs.evidence.extend(jsonl(values));
    inputs
}

fn never_started(reason: &str, setup: &str) -> Inputs {
    let mut inputs = ended(&Exit::NotStarted { reason: reason.into() });
    let a = &mut inputs.attempt;
    (a.started_ms, a.program_started, a.first_step, a.last_step) = (0, false, None, None);
    (inputs.stdout, inputs.stderr, inputs.setup) = (stream(""), stream(""), stream(setup));
    (inputs.points, inputs.checkpoints) = (Vec::new(), Vec::new());
    inputs
}

const TRACEBACK: &str = "Traceback (most recent call last):\n  File \"train.py\", line 88, in <module>\n    main()\n  File \"train.py\", line 61, in main\n    batch = rows[index]\n            ~~~~^^^^^^^\nIndexError: list index out of range\n";
const CUDA: &str = "Traceback (most recent call last):\n  File \"train.py\", line 40, in <module>\n    loss.backward()\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 22.06 GiB of which 1.02 GiB is free.\n";
const NCCL: &str = "[rank0]:[E1206 18:44:12.715298746 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7753, OpType=ALLREDUCE, NumelIn=544997376, NumelOut=68124672, Timeout(ms)=600000) ran for 600061 milliseconds before timing out.\n[rank0]:[E1206 18:44:12.715588844 ProcessGroupNCCL.cpp:1664] [PG 1 Rank 0] Exception (either an error or timeout) detected by watchdog at work: 7753, last enqueued NCCL work: 7755, last completed NCCL work: 7752.\n";
const PIP: &str = "Collecting torch==99.0\nERROR: Could not find a version that satisfies the requirement torch==99.0 (from versions: 2.4.0, 2.4.1)\nERROR: No matching distribution found for torch==99.0\n";

/// By name: what golden capsules exist for.
pub(super) fn all() -> Vec<(&'static str, Inputs)> {
    vec![
        ("traceback", code(1, TRACEBACK)),
        ("out-of-memory", out_of_memory()),
        ("gpu-out-of-memory", code(1, CUDA)),
        ("disk-full", disk_full()),
        (
            "segfault",
            signal(
                11,
                "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n  File \"ext.py\", line 3 in call\n",
            ),
        ),
        ("hang", hang()),
        ("preempted", preempted()),
        ("partition", partition()),
        ("never-joined", never_joined()),
        (
            "environment",
            never_started("the environment: `pip install -r requirements.txt` failed with exit code 1", PIP),
        ),
        ("stopped", stopped("person")),
        ("budget", stopped("budget")),
        ("gpu-fault", gpu_fault()),
        (
            "nccl-timeout",
            with_evidence(signal(6, NCCL), &[json!({"kind": "rank", "rank": 0, "exit": "signal 6"})]),
        ),
        ("running", running()),
    ]
}

fn out_of_memory() -> Inputs {
    let mut inputs = signal(9, "step 431\n");
    inputs.attempt.out_of_memory =
        "certain: memory.events of the attempt's cgroup counts 1 more oom_kill".into();
    inputs.attempt.oom_process = Some((4711, "python3".into()));
    with_evidence(
        inputs,
        &[
            json!({"kind": "kernel", "line": "Memory cgroup out of memory: Killed process 4711 (python3) total-vm:34112340kB, anon-rss:8388600kB"}),
        ],
    )
}

fn disk_full() -> Inputs {
    let text = "Traceback (most recent call last):\n  File \"train.py\", line 70, in save\n    torch.save(state, path)\nOSError: [Errno 28] No space left on device: '/ckpt/step-432.pt'\n";
    with_evidence(code(1, text), &[json!({"kind": "sample", "mounts": [{"path": "/", "free_bytes": 4096}]})])
}

fn hang() -> Inputs {
    let mut inputs = signal(9, "");
    inputs.attempt.hang = "no step and no output for 612 s; processor 0.3 %, GPU 0 %".into();
    inputs.attempt.transient = true;
    inputs.journal.push(note(80_000, "alert", ATTEMPT, json!({"name": "hang", "text": inputs.attempt.hang})));
    with_evidence(
        inputs,
        &[
            json!({"kind": "stacks", "pid": 77, "command": "python3", "state": "S", "wchan": "futex_wait_queue", "stack": ["do_futex", "__x64_sys_futex"]}),
        ],
    )
}

fn preempted() -> Inputs {
    let mut inputs = lost(LossCause::Farewell);
    inputs.journal.push(note(88_000, "farewell", MACHINE, json!({"reason": "spot interruption notice"})));
    inputs
}

fn partition() -> Inputs {
    let mut inputs = lost(LossCause::Silent);
    inputs.journal.push(note(
        60_000,
        "suspect",
        MACHINE,
        json!({"hypothesis": "silent", "silent_ms": 3_004}),
    ));
    inputs.journal.push(note(61_000, "hypothesis", MACHINE, json!({"hypothesis": "network"})));
    inputs.journal.push(note(88_000, "given-up", MACHINE, json!({"silent_ms": 31_200})));
    inputs.journal.push(note(300_000, "spoke-again", MACHINE, json!({})));
    (inputs.now_ms, inputs.replacement_works) = (BOUND + 400_000, true);
    inputs
}

fn never_joined() -> Inputs {
    let mut inputs = lost(LossCause::NeverJoined);
    let a = &mut inputs.attempt;
    (a.started_ms, a.program_started, a.first_step, a.last_step) = (0, false, None, None);
    (inputs.stdout, inputs.setup, inputs.points, inputs.checkpoints) =
        (stream(""), stream(""), Vec::new(), Vec::new());
    inputs
}

fn stopped(by: &str) -> Inputs {
    let mut inputs = signal(15, "");
    inputs.run.stop_reason = Some(serde_json::from_value(json!(by)).unwrap());
    let verb = if by == "person" { "stop-asked" } else { "budget-reached" };
    inputs.journal.push(note(85_000, verb, RUN, json!({})));
    inputs
}

fn gpu_fault() -> Inputs {
    let inputs = code(1, "RuntimeError: CUDA error: unspecified launch failure\n");
    with_evidence(
        inputs,
        &[
            json!({"kind": "kernel", "line": "NVRM: Xid (PCI:0000:44:00): 79, pid=4711, name=python3, GPU has fallen off the bus."}),
        ],
    )
}

fn running() -> Inputs {
    let mut inputs = base(&json!({"state": "running"}));
    inputs.attempt.ended_ms = 0;
    inputs
}
