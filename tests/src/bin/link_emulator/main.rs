//! A link between two TUN devices with whatever a bad network does to packets:
//! delay, jitter, loss, duplicates, reordering, little bandwidth, a black hole in
//! one or both directions, a stall, a NAT that forgets idle connections, refused
//! and reset connections. Kernels without `netem` need nothing else.
//!
//! `link_emulator SOCKET SEED`, with the near (the controller's) TUN device as
//! standard input and the far (the machine's) as standard output. *Up* is from
//! far to near. One datagram to SOCKET is one command:
//!
//! ```text
//! clear                      back to a perfect link
//! set KEY=VALUE...           delay_ms jitter_ms loss duplicate reorder (0..1)
//!                            rate_bps queue_bytes nat_idle_ms
//!                            up=pass|drop down=pass|drop connect=pass|drop|refuse
//! stall MS                   hold every packet for so long from now
//! reset                      reset every connection that was seen, both ends
//! ```
//!
//! and is answered with `ok` and counters. It only ever touches these two devices.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use segment::{ACK, End, RST, SYN, Segment, reset, segment};

mod segment;

/// Larger than any packet of a TUN device here.
const PACKET: usize = 1 << 16;
/// Flows kept at most; the one idle for longest goes first.
const FLOWS: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    fn back(self) -> Self {
        if self == Self::Up { Self::Down } else { Self::Up }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Connect {
    #[default]
    Pass,
    Drop,
    Refuse,
}

/// What the link does. The default does nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Profile {
    delay_ms: f64,
    jitter_ms: f64,
    loss: f64,
    duplicate: f64,
    reorder: f64,
    /// 0: as fast as it can.
    rate_bps: f64,
    /// What waits for the rate at most; 0: 64 KiB.
    queue_bytes: f64,
    /// A connection idle for longer is forgotten; 0: never.
    nat_idle_ms: f64,
    drop_up: bool,
    drop_down: bool,
    connect: Connect,
}

impl Profile {
    fn set(&mut self, word: &str) -> Result<(), String> {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is no KEY=VALUE"))?;
        let gate = || match value {
            "pass" => Ok(false),
            "drop" => Ok(true),
            _ => Err(format!("{key} is pass or drop")),
        };
        let number = |most: f64| match value.parse::<f64>() {
            Ok(n) if (0.0..=most).contains(&n) => Ok(n),
            _ => Err(format!("{key} is a number from 0 to {most}")),
        };
        match key {
            "delay_ms" => self.delay_ms = number(60_000.0)?,
            "jitter_ms" => self.jitter_ms = number(60_000.0)?,
            "loss" => self.loss = number(1.0)?,
            "duplicate" => self.duplicate = number(1.0)?,
            "reorder" => self.reorder = number(1.0)?,
            "rate_bps" => self.rate_bps = number(1e10)?,
            "queue_bytes" => self.queue_bytes = number(1e8)?,
            "nat_idle_ms" => self.nat_idle_ms = number(1e9)?,
            "up" => self.drop_up = gate()?,
            "down" => self.drop_down = gate()?,
            "connect" => {
                self.connect = match value {
                    "pass" => Connect::Pass,
                    "drop" => Connect::Drop,
                    "refuse" => Connect::Refuse,
                    _ => return Err("connect is pass, drop or refuse".into()),
                };
            }
            _ => return Err(format!("`{key}` is not known")),
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    heard: Duration,
    /// The next sequence number of the far end and of the near end.
    far: Option<u32>,
    near: Option<u32>,
}

type Ends = (End, End);
/// When it leaves, its number, where to, and the packet.
type Waiting = (Duration, u64, Direction, Vec<u8>);

#[derive(Debug, Default, Clone, Copy)]
struct Counters {
    passed: u64,
    lost: u64,
    held_out: u64,
    duplicated: u64,
    overflowed: u64,
    refused: u64,
    resets: u64,
}

/// The link, without IO: packets in at a time, packets out at a time.
struct Link {
    profile: Profile,
    random: fastrand::Rng,
    counters: Counters,
    /// Keyed by (far end, near end).
    flows: BTreeMap<Ends, Flow>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    number: u64,
    stalled_until: Duration,
    /// By direction: when the last packet is through the rate, and when it leaves.
    busy: [Duration; 2],
    last: [Duration; 2],
}

impl Link {
    fn new(seed: u64) -> Self {
        Self {
            profile: Profile::default(),
            random: fastrand::Rng::with_seed(seed),
            counters: Counters::default(),
            flows: BTreeMap::new(),
            waiting: BinaryHeap::new(),
            number: 0,
            stalled_until: Duration::ZERO,
            busy: [Duration::ZERO; 2],
            last: [Duration::ZERO; 2],
        }
    }

    fn command(&mut self, now: Duration, text: &str) -> Result<(), String> {
        let mut words = text.split_whitespace();
        match words.next() {
            Some("clear") => {
                self.profile = Profile::default();
                self.stalled_until = now;
            }
            Some("set") => {
                let mut wanted = self.profile;
                words.try_for_each(|word| wanted.set(word))?;
                self.profile = wanted;
            }
            Some("stall") => {
                let ms = words.next().and_then(|ms| ms.parse().ok()).filter(|ms| *ms <= 600_000_u64);
                self.stalled_until = now + Duration::from_millis(ms.ok_or("stall wants milliseconds")?);
            }
            Some("reset") => self.reset_all(now),
            _ => return Err("clear, set, stall or reset is wanted".into()),
        }
        Ok(())
    }

    fn reset_all(&mut self, now: Duration) {
        for ((far, near), flow) in std::mem::take(&mut self.flows) {
            let (Some(of_far), Some(of_near)) = (flow.far, flow.near) else { continue };
            self.counters.resets += 1;
            self.release(now, Direction::Up, reset(far, near, of_far, of_near, RST | ACK));
            self.release(now, Direction::Down, reset(near, far, of_near, of_far, RST | ACK));
        }
    }

    /// Whether the NAT knows the connection; keeps what is known of it.
    fn track(&mut self, now: Duration, direction: Direction, seen: Segment) -> bool {
        let ends = if direction == Direction::Up { (seen.from, seen.to) } else { (seen.to, seen.from) };
        let idle = Duration::from_secs_f64(self.profile.nat_idle_ms / 1e3);
        let flow = self.flows.entry(ends).or_insert(Flow { heard: now, far: None, near: None });
        let fresh = seen.flags & SYN != 0;
        if !fresh && !idle.is_zero() && now.saturating_sub(flow.heard) > idle {
            return false;
        }
        flow.heard = now;
        let side = if direction == Direction::Up { &mut flow.far } else { &mut flow.near };
        let next = seen.seq.wrapping_add(seen.length);
        // What was sent again is older.
        if fresh || side.is_none_or(|before| next.wrapping_sub(before) < 1 << 31) {
            *side = Some(next);
        }
        if self.flows.len() > FLOWS
            && let Some(oldest) = self.flows.iter().min_by_key(|(_, flow)| flow.heard).map(|(ends, _)| *ends)
        {
            self.flows.remove(&oldest);
        }
        true
    }

    /// Takes one packet.
    fn offer(&mut self, now: Duration, direction: Direction, packet: Vec<u8>) {
        let profile = self.profile;
        let dropped = if direction == Direction::Up { profile.drop_up } else { profile.drop_down };
        if dropped {
            self.counters.held_out += 1;
            return;
        }
        if let Some(seen) = segment(&packet) {
            if seen.flags & (SYN | ACK) == SYN && profile.connect != Connect::Pass {
                self.counters.refused += 1;
                if profile.connect == Connect::Refuse {
                    let answer = reset(seen.to, seen.from, 0, seen.seq.wrapping_add(1), RST | ACK);
                    self.release(now, direction.back(), answer);
                }
                return;
            }
            if !self.track(now, direction, seen) {
                self.counters.held_out += 1;
                return;
            }
        }
        if self.random.f64() < profile.loss {
            self.counters.lost += 1;
            return;
        }
        let side = direction as usize;
        let mut through = now;
        if profile.rate_bps > 0.0 {
            let queue = if profile.queue_bytes > 0.0 { profile.queue_bytes } else { 65_536.0 };
            let backlog = self.busy[side].saturating_sub(now).as_secs_f64() * profile.rate_bps / 8.0;
            #[expect(clippy::cast_precision_loss, reason = "a packet has at most 64 KiB")]
            let bytes = packet.len() as f64;
            if backlog + bytes > queue {
                self.counters.overflowed += 1;
                return;
            }
            through = self.busy[side].max(now) + Duration::from_secs_f64(bytes * 8.0 / profile.rate_bps);
            self.busy[side] = through;
        }
        let jitter = profile.jitter_ms * (2.0 * self.random.f64() - 1.0);
        let mut at = through + Duration::from_secs_f64((profile.delay_ms + jitter).max(0.0) / 1e3);
        if self.random.f64() < profile.reorder {
            at = through;
        } else {
            // A link keeps the order unless it is asked not to.
            at = at.max(self.last[side]);
            self.last[side] = at;
        }
        if self.random.f64() < profile.duplicate {
            self.counters.duplicated += 1;
            self.release(at, direction, packet.clone());
        }
        self.release(at, direction, packet);
    }

    fn release(&mut self, at: Duration, direction: Direction, packet: Vec<u8>) {
        self.number += 1;
        self.waiting.push(Reverse((at, self.number, direction, packet)));
    }

    /// When something leaves next.
    fn next(&self) -> Option<Duration> {
        self.waiting.peek().map(|Reverse((at, ..))| (*at).max(self.stalled_until))
    }

    /// What leaves now.
    fn due(&mut self, now: Duration) -> Option<(Direction, Vec<u8>)> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, _, direction, packet)) = self.waiting.pop()?;
        self.counters.passed += 1;
        Some((direction, packet))
    }
}

fn device(fd: BorrowedFd<'_>) -> io::Result<File> {
    let owned = fd.try_clone_to_owned()?;
    fcntl(&owned, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(File::from(owned))
}

/// Reads all that is there; `None` is nothing more.
fn read_packet(mut device: &File, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
    match device.read(buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(Some(buffer[..n].to_vec())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn obey(link: &mut Link, control: &UnixDatagram, now: Duration) {
    let mut text = [0; 4096];
    while let Ok((n, sender)) = control.recv_from(&mut text) {
        let said = match link.command(now, &String::from_utf8_lossy(&text[..n])) {
            Ok(()) => format!("ok {:?}", link.counters),
            Err(why) => format!("error: {why}"),
        };
        if let Some(path) = sender.as_pathname() {
            let _ = control.send_to(said.as_bytes(), path);
        }
    }
}

fn run(socket: &str, seed: u64) -> io::Result<()> {
    // It lives no longer than the rig that made the devices.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let (near, far) = (device(io::stdin().as_fd())?, device(io::stdout().as_fd())?);
    let control = UnixDatagram::bind(socket)?;
    control.set_nonblocking(true)?;
    let started = Instant::now();
    let mut link = Link::new(seed);
    let mut buffer = vec![0; PACKET];
    loop {
        let wait = link.next().map_or(Duration::from_secs(1), |at| at.saturating_sub(started.elapsed()));
        // Rounded up: waking too early would spin.
        let wait = PollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        let fds = [near.as_fd(), far.as_fd(), control.as_fd()];
        poll(&mut fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)), wait)?;
        obey(&mut link, &control, started.elapsed());
        for (device, direction) in [(&far, Direction::Up), (&near, Direction::Down)] {
            while let Some(packet) = read_packet(device, &mut buffer)? {
                link.offer(started.elapsed(), direction, packet);
            }
        }
        while let Some((direction, packet)) = link.due(started.elapsed()) {
            let mut device = if direction == Direction::Up { &near } else { &far };
            // A full or lost device loses the packet, as links do.
            let _ = device.write(&packet);
        }
    }
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [socket, seed] if seed.parse::<u64>().is_ok() => run(socket, seed.parse().unwrap_or(0)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: link_emulator SOCKET SEED")),
    }
}

#[cfg(test)]
mod tests {
    use super::segment::checksum;
    use super::*;

    const FAR: End = ([10, 0, 0, 2], 4000);
    const NEAR: End = ([10, 0, 0, 1], 22);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn link(commands: &[&str]) -> Link {
        let mut link = Link::new(7);
        for command in commands {
            link.command(Duration::ZERO, command).unwrap();
        }
        link
    }

    /// Every packet that leaves until then, with its time.
    fn all(link: &mut Link) -> Vec<(Duration, Direction, Vec<u8>)> {
        let mut out = Vec::new();
        while let Some(at) = link.next() {
            let (direction, packet) = link.due(at).unwrap();
            out.push((at, direction, packet));
        }
        out
    }

    #[test]
    fn a_perfect_link_changes_nothing() {
        let mut link = link(&[]);
        for n in 0..100_u8 {
            link.offer(ms(u64::from(n)), Direction::Up, vec![n]);
        }
        let out = all(&mut link);
        assert_eq!(out.len(), 100);
        assert!(out.iter().zip(0_u8..).all(|((at, _, packet), n)| *packet == [n] && *at == ms(u64::from(n))));
    }

    #[test]
    fn delay_keeps_the_order_and_loss_is_about_what_was_asked_for() {
        let mut link = link(&["set delay_ms=500 jitter_ms=400 loss=0.1"]);
        for n in 0..2_000_u64 {
            link.offer(ms(n), Direction::Down, n.to_be_bytes().to_vec());
        }
        let out = all(&mut link);
        assert!(out.windows(2).all(|pair| pair[0].2 < pair[1].2));
        assert!(out.iter().all(|(at, ..)| *at >= ms(100)));
        assert!((150..250).contains(&link.counters.lost), "{:?}", link.counters);
    }

    #[test]
    fn each_direction_drops_alone_and_a_stall_holds_everything() {
        let mut link = link(&["set up=drop", "stall 2000"]);
        link.offer(ms(1), Direction::Up, vec![1]);
        link.offer(ms(1), Direction::Down, vec![2]);
        assert_eq!(all(&mut link), [(ms(2_000), Direction::Down, vec![2])]);
    }

    #[test]
    fn a_rate_delays_and_its_queue_is_bounded() {
        let mut link = link(&["set rate_bps=80000 queue_bytes=3000"]);
        for _ in 0..5 {
            link.offer(ms(0), Direction::Up, vec![0; 1_000]);
        }
        let times: Vec<Duration> = all(&mut link).into_iter().map(|(at, ..)| at).collect();
        assert_eq!(times, [ms(100), ms(200), ms(300)]);
        assert_eq!(link.counters.overflowed, 2);
    }

    #[test]
    fn duplicates_and_reordering_happen_when_asked_for() {
        let mut link = link(&["set delay_ms=10 duplicate=1", "set reorder=0.5"]);
        for n in 0..50 {
            link.offer(ms(n), Direction::Up, vec![u8::try_from(n).unwrap()]);
        }
        let out = all(&mut link);
        assert_eq!(out.len(), 100);
        assert!(out.windows(2).any(|pair| pair[0].2 > pair[1].2));
    }

    #[test]
    fn an_idle_connection_is_forgotten_until_it_is_opened_again() {
        let mut link = link(&["set nat_idle_ms=5000"]);
        let packet = |flags| reset(FAR, NEAR, 100, 1, flags);
        link.offer(ms(0), Direction::Up, packet(SYN));
        link.offer(ms(4_000), Direction::Up, packet(ACK));
        link.offer(ms(9_500), Direction::Up, packet(ACK));
        link.offer(ms(9_600), Direction::Up, packet(ACK));
        link.offer(ms(9_700), Direction::Up, packet(SYN));
        link.offer(ms(9_800), Direction::Up, packet(ACK));
        assert_eq!(all(&mut link).len(), 4);
    }

    #[test]
    fn a_refused_connection_is_reset_and_a_blocked_one_hears_nothing() {
        let mut link = link(&["set connect=refuse"]);
        link.offer(ms(0), Direction::Up, reset(FAR, NEAR, 100, 0, SYN));
        let out = all(&mut link);
        let answer = segment(&out[0].2).unwrap();
        assert_eq!((out[0].1, answer.ack, answer.flags), (Direction::Down, 101, RST | ACK));
        link.command(ms(0), "set connect=drop").unwrap();
        link.offer(ms(0), Direction::Up, reset(FAR, NEAR, 100, 0, SYN));
        assert!(all(&mut link).is_empty());
    }

    #[test]
    fn a_reset_carries_the_numbers_that_both_ends_expect() {
        let mut link = link(&[]);
        link.offer(ms(0), Direction::Up, reset(FAR, NEAR, 100, 0, SYN));
        link.offer(ms(0), Direction::Down, reset(NEAR, FAR, 900, 101, SYN | ACK));
        all(&mut link);
        link.command(ms(1), "reset").unwrap();
        let out = all(&mut link);
        let numbers: Vec<(u32, u32)> =
            out.iter().map(|(.., p)| segment(p).unwrap()).map(|s| (s.seq, s.ack)).collect();
        assert_eq!(numbers, [(101, 901), (901, 101)]);
        // A header with its own checksum sums up to nothing.
        assert!(out.iter().all(|(.., packet)| checksum(&[&packet[..20]]) == 0));
    }

    #[test]
    fn what_is_not_understood_changes_nothing() {
        let mut link = link(&["set loss=0.5"]);
        for bad in ["", "boo", "set loss=2", "set loss=0.1 up=maybe", "stall x", "set speed=1", "set loss"] {
            assert!(link.command(ms(0), bad).is_err(), "{bad}");
        }
        assert!((link.profile.loss - 0.5).abs() < 1e-9);
        assert!(segment(&[0x45, 0]).is_none() && segment(&[0x60; 60]).is_none() && segment(&[]).is_none());
    }
}
