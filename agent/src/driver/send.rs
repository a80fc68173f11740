//! Facts on their way up: lifecycle first, then metrics, then output; within
//! a window per stream, in frames of at most 64 KiB. No record goes before the
//! disk has it. The end of an attempt is
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
/// What a fact costs on the wire beside its bytes, generously.
const OVERHEAD: usize = 64;
/// Places in the uplink's queue that output leaves free: for heartbeats and
/// for the facts of what happens.
const RESERVED: usize = 4;

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
                && (!self.pace.fresh
                    || attempt.outputs().all(|o| attempt.send_output(id, o, now, &*self.world, &self.up)));
            if !sent {
                self.pace.again();
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

    /// What a controller of an earlier version would refuse becomes a gap: its
    /// number is taken, and everything after it arrives. The same goes for what
    /// a later agent left here before the guard took its program back: this one
    /// cannot read it, so it cannot pass it on.
    fn understood(&self, fact: v1::Fact, after: u64) -> v1::Fact {
        use v1::event::Kind;
        let needs = match &fact.body {
            Some(fact::Body::Event(v1::Event { kind: Some(Kind::Alert(_)) })) => 1,
            Some(fact::Body::Event(v1::Event { kind: Some(Kind::Exited(_)) })) => 2,
            Some(fact::Body::Event(v1::Event { kind: None })) | None => u32::MAX,
            _ => 0,
        };
        if self.wire >= needs {
            return fact;
        }
        let whose = if needs == u32::MAX { "agent" } else { "controller" };
        let reason = format!("not known to this version of the {whose}");
        v1::Fact { body: Some(fact::Body::Gap(v1::Gap { to: after, reason })), ..fact }
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
            while next < (acked + RECORDS).min(self.outbox.ready(lane)) && size < FRAME {
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
                let fact = self.understood(fact, after);
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

    /// Pieces of an output, each with the time of its first byte, several in
    /// one batch. `false`: the uplink is full.
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
            let mut facts = Vec::new();
            let mut size = 0;
            let mut next = sent;
            while next < acked + WINDOW && size + OVERHEAD < FRAME {
                let Some((fact, after)) = next_piece(id, output, next, FRAME - size, now, world) else {
                    break;
                };
                size += usize::try_from(after - next).unwrap_or(FRAME).min(FRAME) + OVERHEAD;
                facts.push(fact);
                next = after;
            }
            if facts.is_empty() {
                return true;
            }
            if up.capacity() <= RESERVED {
                return false;
            }
            let Ok(permit) = up.try_reserve() else { return false };
            permit.send(self.batch(facts));
            self.sent(stream).0 = next;
        }
    }
}

/// What lies at an offset of an output, as a fact, and where the next begins.
/// A piece ends where the program fell silent for more than a second, so that
/// output that is sent late keeps its times.
fn next_piece(
    id: &str,
    output: Output,
    at: u64,
    most: usize,
    now: u64,
    world: &dyn World,
) -> Option<(v1::Fact, u64)> {
    let (body, next, at_ms) = match world.read(id, output, at, most) {
        Piece::Bytes(mut data) => {
            let written = world.written(id, output, at);
            let until = usize::try_from(written.until.saturating_sub(at)).unwrap_or(usize::MAX);
            data.truncate(until.max(1));
            // Nobody notes when a set-up wrote what; it is sent as it comes.
            let at_ms = if output == Output::Setup { now } else { written.at_ms };
            let next = at + data.len() as u64;
            (fact::Body::Bytes(v1::Bytes { data }), next, at_ms)
        }
        Piece::Gap(to) => {
            let reason = "dropped over the spool's quota".to_owned();
            (fact::Body::Gap(v1::Gap { to, reason }), to, world.written(id, output, at).at_ms)
        }
        Piece::Nothing => return None,
    };
    Some((v1::Fact { stream: stream_of(output).into(), seq: at, at_ms, body: Some(body) }, next))
}
