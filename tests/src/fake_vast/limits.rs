//! How often an identity may call an endpoint: the intervals the vendor
//! publishes, kept as the vendor keeps them, by refusing with 429.

use std::collections::{BTreeMap, VecDeque};

use serde_json::json;

use super::faults::quota;
use super::routes::Op;
use super::wire::Response;

/// Searches in a minute.
const SEARCHES: usize = 10;
const MINUTE_MS: u64 = 60_000;
/// After a create that came too early.
const CREATE_PENALTY_MS: u64 = 12_000;
/// Identities whose calls are remembered.
const MOST: usize = 65_536;

/// The shortest interval between two calls, in milliseconds.
pub(super) const fn interval(op: Op) -> Option<u64> {
    Some(match op {
        Op::Create | Op::CreateBulk => 4_500,
        Op::Launch => 5_000,
        Op::Destroy | Op::DestroyBulk | Op::Invoices | Op::InvoicesOld | Op::Deposit | Op::Secrets => 3_000,
        Op::Show | Op::Prepay | Op::Detach => 2_000,
        Op::List
        | Op::Set
        | Op::SetBulk
        | Op::Reboot
        | Op::Recycle
        | Op::SshCreate
        | Op::SshUpdate
        | Op::Charges => 1_000,
        Op::Bid | Op::Volumes => 5_500,
        Op::Execute => 1_500,
        _ => return None,
    })
}

/// What is remembered of calls.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    /// When an identity last called an endpoint, and when it may again.
    next: BTreeMap<(Op, String), (u64, u64)>,
    searches: BTreeMap<String, VecDeque<u64>>,
    today: (u64, u32),
}

impl Limits {
    /// Counts a call; the refusal, where it came too early.
    pub(super) fn admit(
        &mut self,
        op: Op,
        identity: &str,
        now: u64,
        daily: Option<u32>,
    ) -> Result<(), Box<Response>> {
        if self.next.len() + self.searches.len() > MOST {
            self.next.retain(|_, (_, next)| *next > now);
            self.searches.clear();
        }
        if op == Op::Search {
            return self.search(identity, now, daily);
        }
        let Some(interval) = interval(op) else { return Ok(()) };
        let (last, next) = self.next.entry((op, identity.to_owned())).or_insert((0, 0));
        if now < *next {
            if matches!(op, Op::Create | Op::CreateBulk) {
                // From the last good one, however often it is tried.
                *next = *last + CREATE_PENALTY_MS;
            }
            return Err(Box::new(too_frequent(interval)));
        }
        *last = now;
        *next = now + interval;
        Ok(())
    }

    fn search(&mut self, identity: &str, now: u64, daily: Option<u32>) -> Result<(), Box<Response>> {
        let day = now / 86_400_000;
        if self.today.0 != day {
            self.today = (day, 0);
        }
        if daily.is_some_and(|most| self.today.1 >= most) {
            return Err(Box::new(quota(now)));
        }
        let recent = self.searches.entry(identity.to_owned()).or_default();
        while recent.front().is_some_and(|at| at + MINUTE_MS <= now) {
            recent.pop_front();
        }
        if recent.len() >= SEARCHES {
            return Err(Box::new(too_frequent(MINUTE_MS / SEARCHES as u64)));
        }
        recent.push_back(now);
        self.today.1 += 1;
        Ok(())
    }
}

fn too_frequent(interval_ms: u64) -> Response {
    #[expect(clippy::cast_precision_loss, reason = "seconds of an interval")]
    let seconds = interval_ms as f64 / 1000.0;
    Response::json(
        429,
        &json!({"detail": format!("API requests too frequent endpoint threshold={seconds:.1}")}),
    )
}
