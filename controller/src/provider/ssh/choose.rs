//! What follows from the answers of hosts: where a machine goes, whether it is
//! there, and what a list of all hosts is worth. Pure.

use std::collections::BTreeMap;

use super::answer::{Claim, Look, Slot, State};
use super::host::SshHost;
use super::{Failure, MARKER, SLOT_LOCK};
use crate::provider::route::SshRoute;
use crate::provider::{Instance, InstanceState, Listing, Presence};

/// Said where there is nothing to choose from.
pub(super) const NO_HOSTS: &str =
    "no host is set up: name one in providers.toml of the data directory ([ssh.hosts.NAME])";
/// The longest reason that is made of others.
const MAX_REASON: usize = 1500;
/// So many slots of a host are named one by one.
const NAMED: usize = 8;

/// Several reasons as one.
pub(super) fn joined(reasons: &[String]) -> String {
    if reasons.is_empty() {
        return NO_HOSTS.to_owned();
    }
    let mut text = reasons.join("; ");
    if text.len() > MAX_REASON {
        let cut = (0..=MAX_REASON).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// A claim of this machine, wherever it is.
fn slot_of<'a>(look: &'a Look, machine: &str) -> Option<(&'a Slot, &'a Claim)> {
    let claims = look.slots.iter().filter_map(|slot| Some((slot, slot.claim.as_ref()?)));
    claims.into_iter().find(|(_, claim)| claim.machine == machine)
}

/// Why a claim is not this installation's on this host, if so.
fn not_ours(look: &Look, claim: &Claim, hub: &str) -> Option<String> {
    if claim.hub != hub {
        return Some("the slot is claimed by another installation".into());
    }
    (claim.node != look.node).then(|| {
        format!(
            "it was claimed on host {}, and this one is {}: a shared home directory, or a host with a new name",
            claim.node, look.node
        )
    })
}

/// The slot that a machine has already.
pub(super) fn own(look: &Look, machine: &str, hub: &str) -> Option<Result<u32, String>> {
    let (slot, claim) = slot_of(look, machine)?;
    Some(not_ours(look, claim, hub).map_or(Ok(slot.number), Err))
}

/// Hosts in the order in which they are tried: those that answered first, and
/// of them the ones with the most free slots; the order of the settings else.
pub(super) fn in_turn(
    mut looks: Vec<(SshHost, Result<Look, Failure>)>,
) -> Vec<(SshHost, Result<Look, Failure>)> {
    looks.sort_by_key(|(host, look)| match look {
        Ok(look) => (0, std::cmp::Reverse(free(host, look))),
        Err(_) => (1, std::cmp::Reverse(0)),
    });
    looks
}

/// How many slots of a host are free.
pub(super) fn free(host: &SshHost, look: &Look) -> u32 {
    let taken =
        |number: &u32| look.slots.iter().any(|slot| slot.number == *number) || look.held.contains(number);
    u32::try_from((0..host.slots).filter(|number| !taken(number)).count()).unwrap_or(0)
}

/// What one slot is taken by.
pub(super) fn taker(look: &Look, slot: &Slot, hub: &str) -> String {
    let Some(claim) = &slot.claim else {
        return format!("slot {}: something whose claim cannot be read", slot.number);
    };
    let whose = if claim.hub == hub {
        "this installation".to_owned()
    } else {
        format!("installation {}", claim.hub.chars().take(8).collect::<String>())
    };
    let state = match slot.state {
        _ if claim.node != look.node => "on another host with the same home",
        State::Booting => "booting",
        State::Up => "up",
        State::Ended => "ended and not given back",
        State::Unclear => "unclear",
    };
    format!(
        "slot {}: machine {} of {whose}, {state}",
        slot.number,
        claim.machine.chars().take(8).collect::<String>()
    )
}

/// That no slot of a host is free, and who has them.
pub(super) fn taken(host: &SshHost, look: &Look, hub: &str) -> String {
    let mut who: Vec<String> = look.slots.iter().take(NAMED).map(|slot| taker(look, slot, hub)).collect();
    let held = look.held.iter().take(NAMED);
    who.extend(held.map(|slot| format!("slot {slot}: a guard that nobody claims it for")));
    format!("host `{}` has no free slot ({})", host.name, who.join("; "))
}

/// Whether a machine is on a host.
pub(super) fn presence(look: &Look, machine: &str, hub: &str) -> Presence {
    match slot_of(look, machine) {
        Some((slot, claim)) => {
            if let Some(why) = not_ours(look, claim, hub) {
                return Presence::Error(why);
            }
            match slot.state {
                State::Booting => Presence::Present(InstanceState::Booting),
                State::Up => Presence::Present(InstanceState::Up),
                State::Ended => Presence::Present(InstanceState::Terminal),
                State::Unclear => Presence::Error("its claim cannot be read".into()),
            }
        }
        // Its claim was taken away, its processes or files are still there.
        None if look.marked > 0 || look.left > 0 => Presence::Present(InstanceState::Terminal),
        // One of these may be its own.
        None if look.slots.iter().any(|slot| slot.claim.is_none()) => {
            Presence::Error("a claim on the host cannot be read".into())
        }
        None => Presence::Absent,
    }
}

/// Whether a machine is on any of the hosts.
pub(super) fn anywhere(each: impl Iterator<Item = Presence>) -> Presence {
    let mut found = Presence::Absent;
    for presence in each {
        match presence {
            Presence::Present(_) => return presence,
            Presence::Error(_) => found = presence,
            Presence::Absent => {}
        }
    }
    found
}

/// The list of all hosts, and why it is not whole.
pub(super) fn merged(looks: &[(SshHost, Result<Look, Failure>)], prefix: &str) -> (Listing, Vec<String>) {
    let (mut found, mut troubles, mut answered) = (Vec::new(), Vec::new(), looks.is_empty());
    for (host, look) in looks {
        let look = match look {
            Ok(look) => look,
            Err(failure) => {
                troubles.push(failure.told(host));
                continue;
            }
        };
        answered = true;
        for slot in &look.slots {
            let Some(claim) = &slot.claim else {
                troubles
                    .push(format!("host `{}`: the claim of slot {} cannot be read", host.name, slot.number));
                continue;
            };
            // Another host of the same home lists it.
            if claim.node != look.node || !claim.label.starts_with(prefix) {
                continue;
            }
            let state = match slot.state {
                State::Booting => InstanceState::Booting,
                State::Up => InstanceState::Up,
                State::Ended => InstanceState::Terminal,
                State::Unclear => {
                    troubles.push(format!("host `{}`: slot {} makes no sense", host.name, slot.number));
                    continue;
                }
            };
            let id = format!("{}/{}/{}", host.name, slot.number, claim.machine);
            found.push(Instance { id, label: claim.label.clone(), state });
        }
    }
    let listing = if !answered {
        Listing::Error(joined(&troubles))
    } else if troubles.is_empty() {
        Listing::Complete(found)
    } else {
        Listing::Partial(found)
    };
    (listing, troubles)
}

/// The way to a machine that has a slot.
pub(super) fn route(host: &SshHost, look: &Look, machine: &str, hub: &str) -> Result<SshRoute, String> {
    let (slot, claim) = slot_of(look, machine).ok_or("the host has no slot that it claims")?;
    if let Some(why) = not_ours(look, claim, hub) {
        return Err(why);
    }
    let mut env = BTreeMap::from([
        (MARKER.to_owned(), machine.to_owned()),
        (SLOT_LOCK.to_owned(), format!("{}/slots/{}.lock", look.base, slot.number)),
    ]);
    if let Some(gpus) = &claim.gpus {
        env.insert("CUDA_VISIBLE_DEVICES".into(), gpus.clone());
        // Counted as `nvidia-smi` counts, and not by their speed.
        env.insert("CUDA_DEVICE_ORDER".into(), "PCI_BUS_ID".into());
    }
    Ok(SshRoute {
        address: host.address.clone(),
        fallback: None,
        identity: host.identity_file.clone(),
        host_keys: host.host_keys(),
        options: Vec::new(),
        base: host.root.clone(),
        env,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::provider::ssh::Gpus;
    use crate::provider::ssh::answer::Refusal;
    use crate::provider::ssh::link::LinkError;
    use crate::provider::ssh::trouble::Trouble;
    use crate::provider::{HostKeys, SshAddress};

    const MACHINE: &str = "abcdefghijklmnopqrstuvwxyz";

    fn host(name: &str, slots: u32) -> SshHost {
        SshHost {
            name: name.into(),
            address: SshAddress { host: name.into(), port: None, user: None },
            slots,
            gpus: Gpus::Auto,
            root: ".outlast".into(),
            usd_per_hour: 0.0,
            identity_file: None,
            known_hosts: None,
        }
    }

    fn claim(hub: &str, node: &str, machine: &str) -> Claim {
        Claim {
            hub: hub.into(),
            machine: machine.into(),
            label: format!("outlast:{hub}/{machine}"),
            node: node.into(),
            gpus: Some("0,1".into()),
        }
    }

    fn look(slots: Vec<Slot>) -> Look {
        Look { base: "/b".into(), node: "n".into(), slots, ..Look::default() }
    }

    fn slot(number: u32, state: State, claim: Option<Claim>) -> Slot {
        Slot { number, state, claim }
    }

    fn down() -> Failure {
        Failure::Link(LinkError::Before(Trouble::Unreachable("x".into())))
    }

    #[test]
    fn a_machine_is_present_absent_or_not_known() {
        let one = |state, hub: &str, node: &str| look(vec![slot(0, state, Some(claim(hub, node, MACHINE)))]);
        let present = |state| Presence::Present(state);
        let other = look(vec![slot(0, State::Up, Some(claim("h", "n", "zzzzzzzzzzzzzzzzzzzzzzzzzz")))]);
        let cases = [
            (one(State::Booting, "h", "n"), Some(present(InstanceState::Booting))),
            (one(State::Up, "h", "n"), Some(present(InstanceState::Up))),
            (one(State::Ended, "h", "n"), Some(present(InstanceState::Terminal))),
            (one(State::Unclear, "h", "n"), None),
            (one(State::Up, "another", "n"), None),
            (one(State::Up, "h", "another"), None),
            (other, Some(Presence::Absent)),
            (look(vec![]), Some(Presence::Absent)),
            (look(vec![slot(3, State::Unclear, None)]), None),
            (Look { marked: 1, ..look(vec![]) }, Some(present(InstanceState::Terminal))),
            (Look { left: 1, ..look(vec![]) }, Some(present(InstanceState::Terminal))),
        ];
        for (look, wanted) in cases {
            let seen = presence(&look, MACHINE, "h");
            match wanted {
                Some(wanted) => assert_eq!(seen, wanted, "{look:?}"),
                None => assert!(matches!(seen, Presence::Error(_)), "{look:?}: {seen:?}"),
            }
        }
        let error = || Presence::Error("x".into());
        let found = present(InstanceState::Up);
        assert_eq!(anywhere([Presence::Absent, error(), found.clone()].into_iter()), found);
        assert_eq!(anywhere([Presence::Absent, error(), Presence::Absent].into_iter()), error());
        assert_eq!(anywhere([Presence::Absent, Presence::Absent].into_iter()), Presence::Absent);
    }

    #[test]
    fn the_emptiest_host_is_first_and_the_silent_ones_are_last() {
        let full = look(vec![slot(0, State::Up, None)]);
        let held = Look { held: vec![1], ..look(vec![]) };
        let looks = vec![
            (host("silent", 9), Err(down())),
            (host("full", 1), Ok(full)),
            (host("some", 2), Ok(held)),
            (host("most", 2), Ok(look(vec![]))),
            // Beyond what is configured now: it takes nothing away.
            (host("shrunk", 1), Ok(look(vec![slot(5, State::Up, None)]))),
        ];
        let order: Vec<String> = in_turn(looks).into_iter().map(|(host, _)| host.name).collect();
        assert_eq!(order, ["most", "some", "shrunk", "full", "silent"]);
    }

    #[test]
    fn the_way_to_a_machine_tells_its_guard_what_its_slot_is() {
        let seen = look(vec![slot(3, State::Booting, Some(claim("h", "n", MACHINE)))]);
        let found = route(&host("a", 4), &seen, MACHINE, "h").unwrap();
        let env: Vec<(&str, &str)> =
            found.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            env,
            [
                ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
                ("CUDA_VISIBLE_DEVICES", "0,1"),
                ("OUTLAST_MACHINE_ID", MACHINE),
                ("OUTLAST_SLOT_LOCK", "/b/slots/3.lock")
            ]
        );
        assert_eq!(
            (found.base.as_str(), found.host_keys),
            (".outlast", HostKeys::Known { known_hosts: None })
        );
        assert!(route(&host("a", 4), &seen, MACHINE, "another").is_err());
        assert!(route(&host("a", 4), &look(vec![]), MACHINE, "h").is_err());
    }

    #[test]
    fn reasons_are_bounded() {
        let long = joined(&["é".repeat(1000), "x".repeat(9000)]);
        assert!(long.len() <= MAX_REASON + 4, "{}", long.len());
    }

    /// What one host may answer.
    fn answers() -> impl Strategy<Value = Result<Look, Failure>> {
        let mine = || slot(0, State::Up, Some(claim("h", "n", MACHINE)));
        prop_oneof![
            Just(Err(down())),
            Just(Err(Failure::Link(LinkError::Cut("x".into())))),
            Just(Err(Failure::Refused(Refusal::Nonsense("x".into())))),
            Just(Ok(look(vec![]))),
            Just(Ok(look(vec![mine()]))),
            Just(Ok(look(vec![mine(), slot(1, State::Ended, Some(claim("other", "n", MACHINE)))]))),
            Just(Ok(look(vec![slot(2, State::Unclear, None)]))),
            Just(Ok(look(vec![slot(1, State::Up, Some(claim("h", "elsewhere", MACHINE)))]))),
        ]
    }

    proptest! {
        #[test]
        fn only_whole_answers_of_all_hosts_make_a_complete_list(all in proptest::collection::vec(answers(), 0..6)) {
            let looks: Vec<_> = all.into_iter().enumerate().map(|(n, look)| (host(&format!("h{n}"), 2), look)).collect();
            let answered: Vec<&Look> = looks.iter().filter_map(|(_, look)| look.as_ref().ok()).collect();
            let whole = answered.len() == looks.len()
                && answered.iter().all(|look| look.slots.iter().all(|slot| slot.claim.is_some()));
            let mine = answered.iter().flat_map(|look| &look.slots).filter(|slot| {
                slot.claim.as_ref().is_some_and(|claim| claim.hub == "h" && claim.node == "n")
            });
            let mine = mine.count();
            let (listing, troubles) = merged(&looks, "outlast:h/");
            prop_assert_eq!(whole, troubles.is_empty());
            match listing {
                Listing::Complete(found) => prop_assert!(whole && found.len() == mine),
                Listing::Partial(found) => prop_assert!(!whole && !answered.is_empty() && found.len() == mine),
                Listing::Error(_) => prop_assert!(answered.is_empty() && !looks.is_empty()),
            }
        }
    }
}
