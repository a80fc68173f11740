//! What a move does next, from the mark here and from what lies there. Pure.
//! The rule behind the table: the state may be started on one side only, so a
//! copy there is released only after this side is marked, and the mark is taken
//! back only where the copy there cannot be started.

use controller::moved::{Moved, Standing};
use lifecycle::HubId;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Bring the state there, all of it and anew.
    Move,
    /// The mark here is of a copy that cannot be started: it is taken back
    /// first, then as [`Next::Move`].
    MoveAnew,
    /// The copy is there and this side is marked: start it.
    Start,
    /// Nothing, and why.
    Refuse(String),
}

/// What to do.
pub(super) fn next(hub: HubId, mark: Option<&Moved>, there: &Standing) -> Next {
    let other = |found: HubId| {
        Next::Refuse(format!("it has an installation of its own already ({found}); this one is {hub}"))
    };
    let foreign = || {
        Next::Refuse("its data directory holds something that is no installation; empty it, or name another one with --remote-home".into())
    };
    match (mark, there) {
        (None, Standing::Nothing) => Next::Move,
        // Never released: it was left there by a move that did not get further.
        (None, Standing::Arriving(found)) if found.hub == hub => Next::Move,
        (None, Standing::Arrived(found)) if found.hub == hub => Next::Refuse(
            "it has a copy of this installation that was released, and this side is not marked: two controllers of one \
             installation must never run; remove that copy there, or this directory here"
                .into(),
        ),
        (None, Standing::Installation(found)) if *found == hub => Next::Refuse(
            "it has this installation already, and this side is not marked as moved: two controllers of one installation \
             must never run; remove the older of the two"
                .into(),
        ),
        (Some(mark), Standing::Arriving(found) | Standing::Arrived(found))
            if found.hub == hub && found.token == mark.token =>
        {
            Next::Start
        }
        (Some(_), Standing::Installation(found)) if *found == hub => Next::Start,
        (Some(mark), Standing::Arriving(found)) if !mark.settled && found.hub == hub => Next::MoveAnew,
        // A disk that is not mounted looks the same.
        (Some(_), Standing::Nothing) => Next::Refuse(
            "the state of this data directory was brought there and is there no more; if it is gone for good, remove \
             moved.json here, and this side goes on from where it was then"
                .into(),
        ),
        (Some(_), Standing::Arriving(found) | Standing::Arrived(found)) if found.hub == hub => {
            Next::Refuse("what lies there came with another move than the one this side is marked with".into())
        }
        (_, Standing::Arriving(found) | Standing::Arrived(found)) => other(found.hub),
        (_, Standing::Installation(found)) => other(*found),
        (_, Standing::Foreign) => foreign(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use controller::moved::Arrival;
    use proptest::prelude::*;

    fn hub(n: u8) -> HubId {
        HubId::from_bytes([n; 16])
    }

    fn mark(token: &str, settled: bool) -> Moved {
        let to = "box".to_owned();
        Moved { to, remote_home: None, program: "p".into(), hub: hub(1), token: token.into(), settled }
    }

    fn copy(n: u8, token: &str) -> Arrival {
        Arrival { hub: hub(n), token: token.into() }
    }

    #[test]
    fn the_table() {
        let going = mark("a", false);
        let gone = mark("a", true);
        let refused = |mark: Option<&Moved>, there| matches!(next(hub(1), mark, &there), Next::Refuse(_));
        assert_eq!(next(hub(1), None, &Standing::Nothing), Next::Move);
        assert_eq!(next(hub(1), None, &Standing::Arriving(copy(1, "z"))), Next::Move);
        assert!(refused(None, Standing::Arrived(copy(1, "a"))));
        assert!(refused(None, Standing::Installation(hub(1))));
        assert!(refused(None, Standing::Installation(hub(2))));
        assert!(refused(None, Standing::Foreign));
        assert!(refused(Some(&going), Standing::Nothing));
        assert_eq!(next(hub(1), Some(&going), &Standing::Arriving(copy(1, "b"))), Next::MoveAnew);
        for there in [
            Standing::Arriving(copy(1, "a")),
            Standing::Arrived(copy(1, "a")),
            Standing::Installation(hub(1)),
        ] {
            assert_eq!(next(hub(1), Some(&going), &there), Next::Start);
            assert_eq!(next(hub(1), Some(&gone), &there), Next::Start);
        }
        assert!(refused(Some(&gone), Standing::Nothing));
        assert!(refused(Some(&going), Standing::Arrived(copy(1, "b"))));
        assert!(refused(Some(&going), Standing::Installation(hub(2))));
    }

    fn standings() -> impl Strategy<Value = Standing> {
        let arrival = || (1..3_u8, "[ab]").prop_map(|(n, token)| copy(n, &token));
        prop_oneof![
            Just(Standing::Nothing),
            Just(Standing::Foreign),
            arrival().prop_map(Standing::Arriving),
            arrival().prop_map(Standing::Arrived),
            (1..3_u8).prop_map(|n| Standing::Installation(hub(n))),
        ]
    }

    proptest! {
        #[test]
        fn two_sides_can_never_be_started(there in standings(), marked in proptest::option::of(("[ab]", any::<bool>()))) {
            let marked = marked.map(|(token, settled)| mark(&token, settled));
            let can_run = matches!(there, Standing::Arrived(_) | Standing::Installation(_));
            match next(hub(1), marked.as_ref(), &there) {
                // This side is or becomes free to run: nothing there can.
                Next::Move | Next::MoveAnew => prop_assert!(!can_run),
                // That side is to run: this one is marked.
                Next::Start => prop_assert!(marked.is_some()),
                Next::Refuse(why) => prop_assert!(!why.is_empty()),
            }
        }
    }
}
