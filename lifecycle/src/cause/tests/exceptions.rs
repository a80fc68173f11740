//! Exceptions that ended a program, and those that it survived.

use super::*;

fn told(verdict: &Verdict) -> (Cause, Confidence, &str) {
    (verdict.cause, verdict.confidence, verdict.because[0].as_str())
}

const TRACE: &str =
    "Traceback (most recent call last):\n  File \"train.py\", line 9, in <module>\n    main()\n";

#[test]
fn what_the_program_went_on_after_is_not_certain() {
    let handled =
        |error: &str, after: &str, code: i32| judge(&failed(code, &format!("{TRACE}{error}\n{after}")));
    // Its own exit code, nothing after it.
    let chosen = handled("ValueError: bad row 17 skipped", "", 7);
    assert_eq!(told(&chosen), (C::UserError, Likely, "last error: ValueError: bad row 17 skipped"));
    let said = handled("ZeroDivisionError: division by zero", "error: dataset /data/x is missing", 4);
    assert_eq!((said.cause, said.confidence), (C::UserError, Likely));
    assert!(said.because.iter().any(|b| b.contains("dataset /data/x is missing")), "{said:#?}");
    let optional = handled("ImportError: no module named 'apex'", "could not reach tracker ... giving up", 1);
    assert!(optional.confidence < Certain, "{optional:#?}");
    assert!(optional.because.iter().any(|b| b.contains("giving up")), "{optional:#?}");
    // Steps were done after it.
    let steps =
        handled("ValueError: bad row 17 skipped", "step 5: loss 0.3\nstep 6: loss 0.2\nout of patience", 1);
    assert_eq!(told(&steps), (C::UserError, Possible, "exit code 1"), "{steps:#?}");
    assert!(steps.because.iter().any(|b| b == "last line: out of patience"), "{steps:#?}");
    assert!(steps.because.iter().any(|b| b.contains("went on: ValueError: bad row 17")), "{steps:#?}");
    let long: String = (0..300).map(|n| format!("cleanup: closing worker {n}\n")).collect();
    let far = handled("ValueError: the real reason", &long, 1);
    assert_eq!(far.confidence, Possible);
    assert!(far.because.iter().any(|b| b.contains("the real reason")), "{far:#?}");
}

#[test]
fn what_is_printed_after_the_end_changes_nothing() {
    for after in [
        "wandb: Run history:\nwandb: loss 0.3\nwandb: You can sync this run to the cloud",
        "srun: error: n1: task 3: Exited with exit code 1",
        "make: *** [Makefile:2: train] Error 1",
        "Exception ignored in: <function Pool.__del__ at 0x7f>",
        "/usr/lib/python3.11/multiprocessing/resource_tracker.py:224: UserWarning: leaked semaphores\n  warnings.warn(",
        "Epoch 3:  45%|████▌     | 45/100 [00:03<00:04, 12.4it/s]",
        "E1124 12:00:00.100 77 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: 1)",
        "[rank1]:[W1124 12:00:00 ProcessGroupNCCL.cpp:1250] process group has NOT been destroyed",
    ] {
        let code = if after.starts_with("make") { 2 } else { 1 };
        let verdict = judge(&failed(code, &format!("{TRACE}ValueError: boom\n{after}")));
        assert_eq!(told(&verdict), (C::UserError, Certain, "last error: ValueError: boom"), "{after}");
    }
}

#[test]
fn the_rank_that_failed_first_is_named_and_not_those_that_lost_it() {
    let text = format!(
        "{TRACE}FloatingPointError: loss is nan\n{TRACE}ConnectionError: NCCL peer closed connection\n\
         {TRACE}ConnectionError: NCCL peer closed connection"
    );
    let verdict = judge(&failed(1, &text));
    assert!(verdict.because[0].contains("FloatingPointError"), "{verdict:#?}");
    // A cache that misses is no reason.
    let text = format!(
        "{TRACE}KeyError: 'https://x'\n\nDuring handling of the above exception, another exception occurred:\n\n\
         {TRACE}ConnectionResetError: [Errno 104] Connection reset by peer"
    );
    let verdict = judge(&failed(1, &text));
    assert_eq!(verdict.cause, C::RemoteService, "{verdict:#?}");
}

#[test]
fn other_languages_name_their_errors() {
    for (code, text, named) in [
        (
            1,
            "Exception in thread \"main\" java.lang.IllegalStateException: no batch\n\tat Main.main(Main.java:7)",
            "java.lang.IllegalStateException: no batch",
        ),
        (
            1,
            "Exception in thread \"main\" java.lang.IllegalStateException: x\n\tat Main.main(Main.java:7)\n\
             Caused by: java.io.IOException: disk went away\n\tat Main.read(Main.java:3)\n\t... 1 more",
            "Caused by: java.io.IOException: disk went away",
        ),
        (
            2,
            "panic: runtime error: index out of range [5] with length 3\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:7 +0x1d\nexit status 2",
            "panic: runtime error: index out of range [5]",
        ),
        (
            1,
            "ERROR: LoadError: DimensionMismatch: arrays differ\nStacktrace:\n [1] top-level scope\nin expression starting at /t.jl:3",
            "DimensionMismatch: arrays differ",
        ),
        (
            134,
            "Unhandled exception. System.InvalidOperationException: x\n   at Program.Main()",
            "System.InvalidOperationException: x",
        ),
        (
            1,
            "/x.js:3\n  throw new TypeError('x')\n  ^\n\nTypeError: x\n    at Object.<anonymous> (/x.js:3:9)\n\nNode.js v18",
            "TypeError: x",
        ),
        (
            1,
            "  | ExceptionGroup: several (2 sub-exceptions)\n  +-+---- 1 ----\n    | Traceback (most recent call last):\n    | ValueError: second\n    +----",
            "ValueError: second",
        ),
    ] {
        let verdict = judge(&failed(code, text));
        assert!(verdict.because.iter().any(|b| b.contains(named)), "{text}\n{verdict:#?}");
    }
}

#[test]
fn who_has_the_fault_handler_is_not_told_to_switch_it_on() {
    let verdict = judge(&killed(
        11,
        "Fatal Python error: Segmentation fault\n\nThread 0x7f (most recent call first):\n  File \"a.py\", line 3",
    ));
    assert!(verdict.because[0].contains("Fatal Python error"), "{verdict:#?}");
    assert!(!verdict.next.iter().any(|n| n.contains("PYTHONFAULTHANDLER")), "{verdict:#?}");
}
