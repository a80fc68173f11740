//! Any evidence at all: something is said, shortly, and nothing is certain
//! without positive evidence.

use proptest::prelude::*;

use super::*;

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
        Some(LossCause::Noticed),
    ][usize::from(pick % 8)]
}

proptest! {
    #[test]
    fn anything_is_judged_and_only_positive_evidence_is_certain(
        (exit, loss, asked, n) in (0u8..5, 0u8..8, 0u8..4, any::<i32>()),
        (stderr, kernel) in (proptest::collection::vec("\\PC{0,60}", 0..6), proptest::collection::vec("\\PC{0,60}", 0..4)),
        (oom, hang, leave, tail) in (proptest::option::of("\\PC{0,20}"), "\\PC{0,20}", "\\PC{0,20}", 0usize..46),
        (spoke, boot, superseded, provider, silent) in (any::<bool>(), any::<bool>(), any::<bool>(), 0u8..4, any::<u64>()),
        farewell in proptest::option::of("[a-z]{0,12}"),
        notice in proptest::option::of("[a-z ]{0,12}"),
    ) {
        let mut stderr = stderr;
        if n % 3 == 0 { stderr.extend(lines(TAILS[tail].1)); }
        let e = Evidence {
            run: "r".into(), attempt: 1, exit: some_exit(exit, n), loss: some_loss(loss), superseded,
            asked: [None, Some(Asked::Person), Some(Asked::Budget), Some(Asked::Rule)][usize::from(asked)],
            last_error_line: stderr.last().cloned().unwrap_or_default(), stderr, kernel,
            out_of_memory: oom.unwrap_or_default(), hang, leave_machine: leave, spoke_again: spoke, new_boot: boot,
            provider: [None, Some(ProviderSays::Alive), Some(ProviderSays::Ended), Some(ProviderSays::Absent)][usize::from(provider)],
            silent_ms: silent, farewell, notice, ..Evidence::default()
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
                C::EarlyStop => e.asked == Some(Asked::Rule),
                C::NeverJoined => e.loss == Some(LossCause::NeverJoined),
                C::Hang => !e.hang.is_empty(),
                C::Preempted => e.farewell.is_some() || e.notice.is_some() || e.loss == Some(LossCause::Noticed),
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
