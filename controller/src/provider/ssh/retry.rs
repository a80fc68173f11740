//! When a host is tried again: only where there was no connection, after 2, 4,
//! 8, 16 and 32 seconds, and within a total for the whole call. What a script
//! did or failed to do is never tried again here.

use std::time::Duration;

use tokio::time::Instant;

use super::link::LinkError;

/// The pauses before the second try, the third, and so on.
const PAUSES: [u64; 5] = [2, 4, 8, 16, 32];

/// How long to wait after so many failed tries; `None`: it is given up.
pub(super) fn pause(failed: usize, spent: Duration, total: Duration) -> Option<Duration> {
    let pause = Duration::from_secs(*PAUSES.get(failed.checked_sub(1)?)?);
    (spent + pause < total).then_some(pause)
}

/// Tries until there is a connection, or no further try is due.
pub(super) async fn connected<T, F: Future<Output = Result<T, LinkError>>>(
    total: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, LinkError> {
    let began = Instant::now();
    let mut failed = 0;
    loop {
        let trouble = match attempt().await {
            Err(LinkError::Before(trouble)) if trouble.passes() => trouble,
            other => return other,
        };
        failed += 1;
        let Some(pause) = pause(failed, began.elapsed(), total) else {
            return Err(LinkError::Before(trouble));
        };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use proptest::prelude::*;

    use super::*;
    use crate::provider::ssh::trouble::Trouble;

    fn unreachable() -> LinkError {
        LinkError::Before(Trouble::Unreachable("x".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_tried_after_2_4_8_16_and_32_seconds() {
        let began = Instant::now();
        let mut at = Vec::new();
        let done: Result<(), _> = connected(Duration::from_secs(600), || {
            at.push(began.elapsed().as_secs());
            ready(Err(unreachable()))
        })
        .await;
        assert_eq!(done, Err(unreachable()));
        assert_eq!(at, [0, 2, 6, 14, 30, 62]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_but_a_missing_connection_is_tried_again() {
        for error in [
            LinkError::Cut("x".into()),
            LinkError::Before(Trouble::NoShell("x".into())),
            LinkError::Before(Trouble::ChangedKey),
            LinkError::Before(Trouble::Refused("x".into())),
        ] {
            let mut tries = 0;
            let done: Result<(), _> = connected(Duration::from_secs(600), || {
                tries += 1;
                ready(Err(error.clone()))
            })
            .await;
            assert_eq!((done, tries), (Err(error), 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_comes_back_is_reached() {
        let mut tries = 0;
        let done = connected(Duration::from_secs(600), || {
            tries += 1;
            ready(if tries < 3 { Err(unreachable()) } else { Ok(tries) })
        })
        .await;
        assert_eq!(done, Ok(3));
    }

    proptest! {
        #[test]
        fn no_call_waits_beyond_its_total(failed in 0_usize..20, spent in 0_u64..200, total in 0_u64..200) {
            let (spent, total) = (Duration::from_secs(spent), Duration::from_secs(total));
            if let Some(pause) = pause(failed, spent, total) {
                prop_assert!((1..=5).contains(&failed) && spent + pause < total);
            }
        }
    }
}
