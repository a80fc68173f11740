//! The end of a machine: taken, dead, unreachable, or not at all. Silence is
//! no evidence of death; only the provider's word, the machine's own farewell
//! or its return make anything certain.

use super::{Cause, Confidence, Evidence, ProviderSays, Verdict, judge};
use crate::attempt::LossCause;
use crate::exit::Exit;

/// Words of a farewell that mean that the provider takes the machine.
const TAKEN: [&str; 9] = [
    "preempt",
    "spot",
    "reclaim",
    "evict",
    "interruption",
    "outbid",
    "maintenance",
    "low-priority",
    "termination notice",
];

/// A verdict where the machine was lost, or its attempt superseded.
pub(super) fn machine_lost(e: &Evidence) -> Option<Verdict> {
    let loss = match e.loss {
        Some(loss) => loss,
        None if e.superseded && e.exit.is_none() => LossCause::Silent,
        None => return None,
    };
    Some(match loss {
        LossCause::Operator => {
            Verdict::new(Cause::Operator, Confidence::Certain, "a person destroyed its machine")
                .try_next(format!("outlast resume {}", e.run))
        }
        LossCause::NeverJoined => Verdict::new(
            Cause::NeverJoined,
            Confidence::Certain,
            "no agent joined from the machine before its deadline",
        )
        .and(said(e))
        .try_next("outlast machines --all (what the provider says)")
        .try_next("see that the machine can reach the controller: outlast controller status"),
        // Also where it speaks on: it was left before its end.
        LossCause::Noticed => noticed(e, "its provider gave notice"),
        _ if e.notice.is_some() => noticed(e, ""),
        _ if e.spoke_again => came_back(e, loss),
        LossCause::Farewell => farewell(e, e.farewell.as_deref().unwrap_or_default()),
        LossCause::Gone | LossCause::Terminated => ended(e, loss),
        LossCause::Silent => silent(e),
    })
}

/// Its program had ended before, and what it left was being published. A
/// failure of the program is why there is no more of it; a success was lost with
/// the machine.
pub(super) fn lost_after_the_end(e: &Evidence) -> Option<Verdict> {
    let exit = e.exited.as_ref()?;
    let lost = machine_lost(e)?;
    if exit.is_success() || matches!(exit, Exit::Unknown { .. }) {
        return Some(
            lost.and(format!("the program itself had ended with {exit}; what it left was being published")),
        );
    }
    let of_program =
        Evidence { exit: Some(exit.clone()), exited: None, loss: None, superseded: false, ..e.clone() };
    let verdict = judge(&of_program);
    Some(
        verdict
            .and(format!("then its machine was lost while what it left was being published: {}", lost.cause)),
    )
}

/// The provider said before that it takes it.
fn noticed(e: &Evidence, otherwise: &str) -> Verdict {
    let told = e.notice.clone().unwrap_or_else(|| otherwise.to_owned());
    Verdict::new(Cause::Preempted, Confidence::Certain, told)
        .try_next(format!("outlast status {} (which step it went on from)", e.run))
        .try_next("see that the program saves when it is told: [notice] in the guide")
}

/// What the provider said, in words.
fn said(e: &Evidence) -> &'static str {
    match e.provider {
        Some(ProviderSays::Alive) => "the provider says that it runs",
        Some(ProviderSays::Ended) => "the provider says that it has ended",
        Some(ProviderSays::Absent) => "the provider says that there is no such machine",
        None => "the provider gave no word about it",
    }
}

fn came_back(e: &Evidence, loss: LossCause) -> Verdict {
    let silence = format!("it was silent for {} s and then spoke again", e.silent_ms / 1_000);
    if e.new_boot {
        return Verdict::new(Cause::Rebooted, Confidence::Certain, "it came back with another boot id")
            .try_next(format!("outlast status {} (the run goes on from its checkpoint)", e.run));
    }
    if matches!(loss, LossCause::Gone | LossCause::Terminated) {
        return Verdict::new(Cause::ProviderLying, Confidence::Certain, format!("{loss}, said the provider"))
            .and("the machine spoke after that")
            .try_next("outlast machines --all; tell the provider, and use another one for a while");
    }
    Verdict::new(Cause::NetworkPartition, Confidence::Certain, silence)
        .and("its boot is the same: it had lived on")
        .try_next("nothing is to be done: what it stored counts, and the run goes on")
        .try_next("outlast events (how often machines of this provider fall silent)")
}

fn farewell(e: &Evidence, reason: &str) -> Verdict {
    let lower = reason.to_lowercase();
    let told = format!("the machine said farewell: {}", if reason.is_empty() { "no reason" } else { reason });
    if e.new_boot || lower.contains("reboot") {
        return Verdict::new(Cause::Rebooted, Confidence::Certain, told)
            .try_next(format!("outlast status {} (the run goes on from its checkpoint)", e.run));
    }
    let (cause, confidence) = if TAKEN.iter().any(|word| lower.contains(word)) {
        (Cause::Preempted, Confidence::Certain)
    } else {
        // Nobody here asked for it, and a rented machine does not shut itself
        // down: mostly it is the provider's doing.
        (Cause::Preempted, Confidence::Likely)
    };
    let verdict = Verdict::new(cause, confidence, told);
    let verdict = if e.provider.is_some() { verdict.and(said(e)) } else { verdict };
    verdict
        .try_next("save more often, so that less is repeated: outlast checkpoints")
        .try_next("[retry] losses limits how often this may happen")
}

fn ended(e: &Evidence, loss: LossCause) -> Verdict {
    if let Some(reason) = &e.farewell {
        return farewell(e, reason);
    }
    Verdict::new(
        Cause::HostDead,
        Confidence::Likely,
        format!("{loss}, says the provider, and nobody here asked for that"),
    )
    .and("it gave no notice; a preemption without notice looks the same")
    .try_next("outlast machines --all (is it always the same provider?)")
    .try_next("save more often, so that less is repeated: outlast checkpoints")
}

fn silent(e: &Evidence) -> Verdict {
    if let Some(reason) = &e.farewell {
        return farewell(e, reason);
    }
    let silence = match e.silent_ms {
        0 => "its machine fell silent".to_owned(),
        ms => format!("its machine was silent for {} s", ms / 1_000),
    };
    let how = if e.broke { "its stream broke" } else { "its stream stayed open and nothing came" };
    let lost = match e.provider {
        Some(ProviderSays::Alive) if e.others_silent > 0 => {
            let others = format!("{} other machines fell silent with it", e.others_silent);
            Verdict::new(Cause::NetworkPartition, Confidence::Likely, silence).and(others).and(said(e))
        }
        Some(ProviderSays::Alive) if e.broke => {
            Verdict::new(Cause::NetworkPartition, Confidence::Possible, silence)
                .and(said(e))
                .and("its stream was closed: the agent may have ended, too")
        }
        Some(ProviderSays::Alive) => {
            Verdict::new(Cause::NetworkPartition, Confidence::Likely, silence).and(said(e)).and(how)
        }
        Some(ProviderSays::Ended | ProviderSays::Absent) => {
            Verdict::new(Cause::HostDead, Confidence::Likely, silence).and(said(e)).and(how)
        }
        None if e.others_silent > 0 => {
            let others = format!("{} other machines fell silent with it", e.others_silent);
            Verdict::new(Cause::NetworkPartition, Confidence::Likely, silence).and(others)
        }
        None => Verdict::new(Cause::NetworkPartition, Confidence::Possible, silence)
            .and(said(e))
            .and(format!("{how}; a dead host looks the same")),
    };
    let lost = match e.replacement_works {
        true => lost.and("another machine of this provider works: the controller's own network is fine"),
        false => lost,
    };
    lost.try_next("outlast machines --all (what the provider says now)")
        .try_next(format!("outlast status {} (it goes on from the durable step)", e.run))
}
