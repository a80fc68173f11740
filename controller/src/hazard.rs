//! How often machines of one kind are lost, from the rows of all that there
//! were. Pure. A machine that was given back has told of its time and of no
//! loss; one of which nobody knows why it ended counts as given back.

use std::collections::BTreeMap;

use lifecycle::cadence::{ByAge, Prior};
use lifecycle::spec::Market;
use lifecycle::{LossCause, MachineId, RunId};

use crate::model::{Machine, Run};

/// Whether the row of a machine says that it was lost.
fn is_lost(machine: &Machine) -> bool {
    use LossCause as C;
    let taken = [C::Terminated, C::Gone, C::Silent, C::Farewell, C::Noticed];
    taken.iter().any(|cause| machine.reason == cause.to_string())
}

/// For each machine that lives and was ready, how often its like is lost, in
/// milliseconds: by provider, market and age.
#[must_use]
pub fn between_losses_ms<'a>(
    machines: impl Iterator<Item = &'a Machine> + Clone,
    runs: &BTreeMap<RunId, &Run>,
    now_ms: u64,
) -> BTreeMap<MachineId, u64> {
    let market = |machine: &Machine| {
        runs.get(&machine.run).map_or_else(Market::default, |run| run.steer.machine(&run.spec.machine).market)
    };
    let mut kinds: BTreeMap<(&str, bool), ByAge> = BTreeMap::new();
    let interruptible = |machine: &Machine| market(machine) == Market::Interruptible;
    for machine in machines.clone().filter(|m| m.ready_ms > 0) {
        let end = if machine.ended_ms > 0 { machine.ended_ms } else { now_ms };
        let kind = kinds.entry((machine.provider.as_str(), interruptible(machine))).or_default();
        kind.add(0, end.saturating_sub(machine.ready_ms), is_lost(machine));
    }
    machines
        .filter(|m| m.ready_ms > 0 && !m.status.is_final())
        .map(|machine| {
            let bid = interruptible(machine);
            let prior = if bid { Prior::SPOT } else { Prior::KEPT };
            let kind = kinds.get(&(machine.provider.as_str(), bid)).copied().unwrap_or_default();
            let mean_s = if bid {
                kind.mean_s(now_ms.saturating_sub(machine.ready_ms), &prior)
            } else {
                // The shape by age is that of machines that are taken back.
                kind.all().mean_s(&prior)
            };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates, not negative"
            )]
            let ms = (mean_s * 1_000.0) as u64;
            (machine.id, ms.max(1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::MachineState;

    const HOUR: u64 = 3_600_000;

    fn machine(n: u8, provider: &str, ready_ms: u64, ended_ms: u64, reason: &str) -> Machine {
        let status = if ended_ms > 0 { MachineState::Destroyed } else { MachineState::Ready };
        serde_json::from_value(serde_json::json!({
            "id": MachineId::from_bytes([n; 16]), "provider": provider, "label": "", "run": RunId::from_bytes([9; 16]),
            "status": status, "instance": null, "created_ms": ready_ms, "ready_ms": ready_ms, "ended_ms": ended_ms,
            "usd_per_hour": 0.0, "reason": reason
        }))
        .unwrap()
    }

    #[test]
    fn what_was_lost_makes_the_like_of_it_less_trusted_and_nobody_else() {
        let live = [machine(1, "vast", HOUR, 0, ""), machine(2, "ssh", HOUR, 0, "")];
        let mean = |more: &[Machine], id: u8| {
            let all: Vec<Machine> = live.iter().chain(more).cloned().collect();
            between_losses_ms(all.iter(), &BTreeMap::new(), 2 * HOUR)[&MachineId::from_bytes([id; 16])]
        };
        let before = mean(&[], 1);
        let lost = LossCause::Gone.to_string();
        let more: Vec<Machine> = (10..14).map(|n| machine(n, "vast", HOUR, 2 * HOUR, &lost)).collect();
        assert!(mean(&more, 1) < before / 3, "{before} {}", mean(&more, 1));
        assert_eq!(mean(&more, 2), mean(&[], 2));
        let kept: Vec<Machine> =
            (10..14).map(|n| machine(n, "vast", HOUR, 2 * HOUR, "its run has ended")).collect();
        assert!(mean(&kept, 1) > before);
        // Machines that never joined tell nothing here.
        let never: Vec<Machine> = (10..14).map(|n| machine(n, "vast", 0, 2 * HOUR, &lost)).collect();
        assert_eq!(mean(&never, 1), before);
    }
}
