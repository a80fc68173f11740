//! One attempt as the driver holds it: its supervisor, its outbox, its
//! metering, and how far each stream was sent and acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use proto::v1::{self, fact};
use proto::wire::Message as _;
use tokio::time::Instant;

use super::care::AttemptCare;
use crate::metering::Metering;
use crate::outbox::{Lane, Outbox, Pen};
use crate::supervisor::{Phase, Supervisor};
use crate::world::{Cancelled, Candidate, Output, Piece, World};

/// Read from the spool at once.
const READ: usize = 64 << 10;
/// Bytes metered in one look, so that a flood cannot hold the heartbeat up.
const METER: usize = 1 << 20;
/// The same in time, for machines that are slow or busy.
const METER_TIME: Duration = Duration::from_millis(20);

/// An attempt on this machine.
pub struct Attempt {
    /// The assignment.
    pub work: v1::Work,
    /// Decides.
    pub supervisor: Supervisor,
    /// Facts on their way.
    pub(super) outbox: Outbox,
    metering: Metering,
    metered_to_end: bool,
    /// Stream -> (next to send, acknowledged below).
    pub(super) positions: BTreeMap<i32, (u64, u64)>,
    pub(super) cancelled: Cancelled,
    pub(super) prepare_began: Option<Instant>,
    pub(super) environment_cached: bool,
    /// A scan, a publish or the finish is under way.
    pub(super) publishing: bool,
    pub(super) queue: Vec<Candidate>,
    pub(super) published_step: Option<u64>,
    /// The last publish, which waits for the one that is under way.
    pub(super) finish: Option<Cancelled>,
    /// It was told that metric names are left out.
    names_told: bool,
    pub(super) announced: BTreeMap<String, ()>,
    pub(super) retry_at: Option<Instant>,
    /// What its publishes meet.
    pub(super) strain: super::strain::Strain,
    /// When what is stored is looked after.
    pub(super) settle: super::settle::Due,
    /// What the controller understands: `Welcome.wire`.
    pub(super) wire: u32,
    /// It ended, and something that it left is on this machine alone.
    pub(super) unpublished: bool,
    /// The agent itself ended it, because no controller spoke.
    pub(super) alone: bool,
    /// How it is looked after.
    pub(super) care: AttemptCare,
    /// It was asked to save, and has not.
    pub(super) asked: Option<super::notice::Asked>,
    /// How often it saves.
    pub(super) saves: crate::saves::Saves,
    /// Its run wants it asked to save at the best interval.
    adaptive: bool,
}

/// The wire stream of an output.
pub(super) fn stream_of(output: Output) -> v1::Stream {
    match output {
        Output::Stdout => v1::Stream::Stdout,
        Output::Stderr => v1::Stream::Stderr,
        Output::Setup => v1::Stream::Setup,
        Output::Evidence => v1::Stream::Evidence,
    }
}

fn output_of(stream: v1::Stream) -> Option<Output> {
    Output::ALL.into_iter().find(|output| stream_of(*output) == stream)
}

impl Attempt {
    /// Takes up an attempt: its outbox is replayed, its metering goes on where
    /// it was.
    ///
    /// # Errors
    /// Where the outbox cannot be read.
    pub fn open(work: v1::Work, world: &dyn World, pen: Pen) -> io::Result<Self> {
        let outbox = Outbox::open(&work.attempt_id, world.outbox(&work.attempt_id).as_deref(), pen)?;
        let ended = outbox.events().find_map(|bytes| match v1::Fact::decode(bytes).ok()?.body {
            Some(fact::Body::Event(v1::Event { kind: Some(v1::event::Kind::Ended(ended)) })) => Some(ended),
            _ => None,
        });
        let reported = ended.is_some();
        let metering = Metering::restore(outbox.cursor());
        let care = AttemptCare::open(&work, world);
        let mut supervisor = Supervisor::new(reported);
        supervisor.was_hung(care.found_hang().to_owned(), work.grace_seconds.saturating_mul(1_000));
        Ok(Self {
            supervisor,
            outbox,
            metering,
            metered_to_end: false,
            positions: BTreeMap::new(),
            cancelled: Cancelled::default(),
            prepare_began: None,
            environment_cached: false,
            publishing: false,
            queue: Vec::new(),
            published_step: None,
            finish: None,
            names_told: false,
            announced: BTreeMap::new(),
            retry_at: None,
            strain: super::strain::Strain::default(),
            settle: super::settle::Due::now(),
            care,
            asked: None,
            saves: crate::saves::Saves::default(),
            adaptive: super::cadence::is_adaptive(&work.spec_json),
            wire: 0,
            alone: false,
            unpublished: ended.is_some_and(|ended| !ended.unpublished.is_empty()),
            work,
        })
    }

    /// Whether it is asked to save at the best interval.
    pub(super) fn is_adaptive(&self) -> bool {
        self.adaptive
    }

    /// Whether it must be looked at often.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.supervisor.phase != Phase::Ended || !self.is_delivered()
    }

    /// Whether the controller has everything of it.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.supervisor.phase == Phase::Ended && self.acked_events() >= self.outbox.next(Lane::Events)
    }

    fn acked_events(&self) -> u64 {
        self.positions.get(&v1::Stream::Events.into()).map_or(0, |(_, acked)| *acked)
    }

    pub(super) fn sent(&mut self, stream: v1::Stream) -> &mut (u64, u64) {
        self.positions.entry(stream.into()).or_insert((0, 0))
    }

    /// A new stream: sending starts at what the controller says it has, or at
    /// the beginning where it says nothing.
    pub(super) fn rewind(&mut self) {
        self.positions.clear();
    }

    /// The controller has everything below `next`; with `rewind`, it also
    /// wants exactly that next. Returns the output whose bytes may go.
    pub(super) fn acked(&mut self, stream: v1::Stream, next: u64, rewind: bool) -> Option<Output> {
        let (sent, acked) = self.sent(stream);
        *acked = next.max(*acked);
        *sent = if rewind { next } else { next.max(*sent) };
        match stream {
            v1::Stream::Events => self.outbox.acked(Lane::Events, next),
            v1::Stream::Metrics => self.outbox.acked(Lane::Metrics, next),
            _ => {}
        }
        output_of(stream)
    }

    pub(super) fn thinned(&self) -> u64 {
        self.outbox.thinned
    }

    /// Has everything made durable that is not on its way there.
    pub(super) fn sync(&mut self) {
        self.outbox.catch_up();
        self.outbox.sync();
    }

    /// Adds a fact of the events stream.
    pub(super) fn record(&mut self, at_ms: u64, body: fact::Body) {
        self.outbox.event(|seq| {
            v1::Fact { stream: v1::Stream::Events.into(), seq, at_ms, body: Some(body) }.encode_to_vec()
        });
    }

    /// Reads metrics out of new output.
    pub(super) fn meter(&mut self, id: &str, world: &dyn World, wall_ms: &(dyn Fn() -> u64 + Send + Sync)) {
        let ended = matches!(self.supervisor.phase, Phase::Finishing(_) | Phase::Ended);
        if self.metered_to_end {
            return;
        }
        let mut at_end = true;
        for (stderr, output) in [(false, Output::Stdout), (true, Output::Stderr)] {
            let mut budget = METER;
            let until = Instant::now() + METER_TIME;
            loop {
                match world.read(id, output, self.metering.offset(stderr), READ) {
                    Piece::Bytes(bytes) => {
                        self.metering.feed(stderr, &bytes);
                        budget = if Instant::now() < until { budget.saturating_sub(bytes.len()) } else { 0 };
                    }
                    Piece::Gap(to) => self.metering.skip(stderr, to),
                    Piece::Nothing => break,
                }
                if budget == 0 {
                    at_end = false;
                    break;
                }
            }
        }
        if ended && at_end {
            self.metering.finish();
            self.metered_to_end = true;
        }
        if !self.names_told && self.metering.dropped_names() > 0 {
            self.names_told = true;
            let text = "it reports more metric names than are kept: new names are left out, known ones go on";
            let note = v1::Note { level: "warning".into(), text: text.to_owned() };
            let kind = Some(v1::event::Kind::Note(note));
            self.record(wall_ms(), fact::Body::Event(v1::Event { kind }));
        }
        for points in self.metering.take() {
            let cursor = self.metering.cursor();
            let at_ms = wall_ms();
            let body = Some(fact::Body::Points(points));
            self.outbox.metrics(
                |seq| v1::Fact { stream: v1::Stream::Metrics.into(), seq, at_ms, body }.encode_to_vec(),
                cursor,
            );
        }
    }

    /// What shows that it moves: steps, bytes of output, checkpoints.
    pub(super) fn signs(&self) -> (Option<u64>, u64, usize) {
        (self.step(), self.output_bytes(), self.announced.len())
    }

    /// Bytes of output that were read so far.
    pub(super) fn output_bytes(&self) -> u64 {
        self.metering.offset(false).saturating_add(self.metering.offset(true))
    }

    /// The outputs that the controller understands.
    pub(super) fn outputs(&self) -> impl Iterator<Item = Output> + use<> {
        let evidence = self.wire >= 1;
        Output::ALL.into_iter().filter(move |output| evidence || *output != Output::Evidence)
    }

    /// The step the program last reported.
    pub(super) fn step(&self) -> Option<u64> {
        self.metering.step()
    }

    /// Whether everything that must come before the end was acknowledged.
    pub(super) fn is_output_delivered(&self, id: &str, world: &dyn World) -> bool {
        let acked = |stream: v1::Stream| self.positions.get(&stream.into()).map_or(0, |(_, acked)| *acked);
        let outputs = self
            .outputs()
            .all(|output| world.read(id, output, acked(stream_of(output)), 1) == Piece::Nothing);
        outputs && self.metered_to_end && acked(v1::Stream::Metrics) >= self.outbox.next(Lane::Metrics)
    }
}
