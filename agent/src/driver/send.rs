//! Facts on their way up: lifecycle first, then metrics, then output; within
//! a window per stream, in frames of at most 64 KiB. The end of an attempt is
//! sent after everything that came before it is acknowledged.

use proto::v1::{self, fact, up};
use proto::wire::Message as _;
use tokio::sync::mpsc;

use super::Driver;
use super::attempt::{Attempt, stream_of};
use crate::outbox::{Lane, Record};
use crate::world::{Output, Piece, World};

/// Unacknowledged bytes of one output.
const WINDOW: u64 = 512 << 10;
/// Unacknowledged records of one numbered stream.
const RECORDS: u64 = 256;
const FRAME: usize = 60 << 10;

impl Driver {
    /// Sends what fits.
    pub(super) fn send(&mut self) {
        if !self.connected || !self.welcomed {
            return;
        }
        let now = (self.wall_ms)();
        for (id, attempt) in &mut self.attempts {
            let sent = attempt.send_records(id, Lane::Events, &*self.world, &self.up)
                && attempt.send_records(id, Lane::Metrics, &*self.world, &self.up)
                && Output::ALL.into_iter().all(|o| attempt.send_output(id, o, now, &*self.world, &self.up));
            if !sent {
                return;
            }
        }
    }
}

fn is_end(fact: &v1::Fact) -> bool {
    matches!(&fact.body, Some(fact::Body::Event(v1::Event { kind: Some(v1::event::Kind::Ended(_)) })))
}

impl Attempt {
    fn batch(&self, facts: Vec<v1::Fact>) -> v1::Up {
        v1::Up {
            body: Some(up::Body::Facts(v1::FactBatch {
                attempt_id: self.work.attempt_id.clone(),
                generation: self.work.generation,
                facts,
            })),
        }
    }

    /// `false`: the uplink is full.
    fn send_records(&mut self, id: &str, lane: Lane, world: &dyn World, up: &mpsc::Sender<v1::Up>) -> bool {
        let stream = match lane {
            Lane::Events => v1::Stream::Events,
            Lane::Metrics => v1::Stream::Metrics,
        };
        loop {
            let (sent, acked) = *self.sent(stream);
            let mut facts = Vec::new();
            let mut size = 0;
            let mut next = sent;
            let mut held_back = false;
            while next < acked + RECORDS && size < FRAME {
                let Some((seq, record, after)) = self.outbox.at(lane, next) else { break };
                let fact = match record {
                    Record::Fact(bytes) => match v1::Fact::decode(bytes.as_slice()) {
                        Ok(fact) => fact,
                        Err(_) => break,
                    },
                    Record::Gap(to) => {
                        let reason = "thinned: the controller was away too long".to_owned();
                        let body = Some(fact::Body::Gap(v1::Gap { to: *to, reason }));
                        v1::Fact { stream: stream.into(), seq, at_ms: 0, body }
                    }
                };
                if is_end(&fact) && !self.is_output_delivered(id, world) {
                    held_back = true;
                    break;
                }
                size += fact.encoded_len();
                facts.push(fact);
                next = after;
            }
            if facts.is_empty() {
                return true;
            }
            let Ok(permit) = up.try_reserve() else { return false };
            permit.send(self.batch(facts));
            self.sent(stream).0 = next;
            if held_back {
                return true;
            }
        }
    }

    fn send_output(
        &mut self,
        id: &str,
        output: Output,
        now: u64,
        world: &dyn World,
        up: &mpsc::Sender<v1::Up>,
    ) -> bool {
        let stream = stream_of(output);
        loop {
            let (sent, acked) = *self.sent(stream);
            if sent >= acked + WINDOW {
                return true;
            }
            let (body, next) = match world.read(id, output, sent, FRAME) {
                Piece::Bytes(data) => {
                    let next = sent + data.len() as u64;
                    (fact::Body::Bytes(v1::Bytes { data }), next)
                }
                Piece::Gap(to) => {
                    let reason = "dropped over the spool's quota".to_owned();
                    (fact::Body::Gap(v1::Gap { to, reason }), to)
                }
                Piece::Nothing => return true,
            };
            let Ok(permit) = up.try_reserve() else { return false };
            let fact = v1::Fact { stream: stream.into(), seq: sent, at_ms: now, body: Some(body) };
            permit.send(self.batch(vec![fact]));
            self.sent(stream).0 = next;
        }
    }
}
