//! The one pack that is on its way to the store while the next is made. It is
//! moved on whenever its publish waits for anything else; nothing may wait
//! without it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::PublishError;
use crate::digest::Digest;
use crate::key::ObjectKey;
use crate::pack::Held;
use crate::store::{Put, Store};

const TAKEN_LIMIT: u32 = 512;

/// What became of a pack.
pub(super) struct Landed {
    /// Its bytes, for their room.
    pub(super) bytes: Vec<u8>,
    pub(super) held: Vec<(Digest, Held)>,
    /// The next free number.
    pub(super) next: u64,
    pub(super) outcome: Result<ObjectKey, PublishError>,
    /// How long the store took, where that says anything of the link: the
    /// first number was free and the bytes were not there.
    pub(super) took: Option<Duration>,
}

/// A pack under way.
#[derive(Default)]
pub(super) enum Flight<'a> {
    #[default]
    None,
    Going(Pin<Box<dyn Future<Output = Landed> + Send + 'a>>),
    Over(Box<Landed>),
}

impl<'a> Flight<'a> {
    fn advance(&mut self, context: &mut Context<'_>) {
        if let Self::Going(going) = self
            && let Poll::Ready(landed) = going.as_mut().poll(context)
        {
            *self = Self::Over(Box::new(landed));
        }
    }

    /// Waits for `work`, and meanwhile the pack goes on.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.advance(context);
            work.as_mut().poll(context)
        })
        .await
    }

    /// Waits for the pack.
    pub(super) async fn land(&mut self) -> Option<Landed> {
        match std::mem::take(self) {
            Self::None => None,
            Self::Going(going) => Some(going.await),
            Self::Over(landed) => Some(*landed),
        }
    }

    /// What has landed already.
    pub(super) fn over(&mut self) -> Option<Landed> {
        match std::mem::take(self) {
            Self::Over(landed) => Some(*landed),
            Self::None | Self::Going(_) => None,
        }
    }

    /// Sends a pack, under the first number from `next` on that is free.
    pub(super) fn begin(
        store: &'a dyn Store,
        (scope, generation, next): (String, u64, u64),
        (bytes, held): (Vec<u8>, Vec<(Digest, Held)>),
        is_timed: bool,
    ) -> Self {
        Self::Going(Box::pin(async move {
            let (mut at, mut took) = (next, None);
            let outcome = loop {
                let key = match ObjectKey::pack(&scope, generation, at) {
                    Ok(key) => key,
                    Err(error) => break Err(error.into()),
                };
                let began = is_timed.then(Instant::now);
                let put = store.put_if_absent(&key, &bytes).await;
                // Used also where nobody knows what became of it: it may
                // arrive yet, over what a store that overwrites has there then.
                at += 1;
                let put = match put {
                    Ok(put) => put,
                    Err(error) => break Err(error.into()),
                };
                if put != Put::Different {
                    let counts = put == Put::Created && at == next + 1;
                    took = began.filter(|_| counts).map(|began| began.elapsed());
                    break Ok(key);
                }
                tracing::debug!(%key, "pack number is taken by other bytes, using the next");
                if at == next + u64::from(TAKEN_LIMIT) {
                    break Err(PublishError::PacksTaken { key });
                }
            };
            Landed { bytes, held, next: at, outcome, took }
        }))
    }
}
