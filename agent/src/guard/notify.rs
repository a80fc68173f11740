//! What systemd is told: that the guard is up, alive and ending (the protocol
//! of sd_notify(3), one datagram a message). Without systemd it says nothing.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The variables of the protocol. They are the guard's alone: what it starts
/// must not speak in its name.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A path, or `@` and an abstract name; anything else is no address.
fn address(text: &OsStr) -> Option<SocketAddr> {
    match text.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(text).ok(),
        [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name).ok(),
        _ => None,
    }
}

/// How often a sign of life is due: twice in the time that was asked for, if
/// it was asked of this very process.
fn period(usec: Option<OsString>, pid: Option<OsString>, own: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str().and_then(|t| t.parse::<u64>().ok());
    if pid.is_some_and(|pid| number(pid) != Some(u64::from(own))) {
        return None;
    }
    let half = usec.and_then(number)? / 2;
    (half > 0).then(|| Duration::from_micros(half))
}

/// The way to systemd, if there is one.
pub(super) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    every: Option<Duration>,
    due: Instant,
}

impl Notifier {
    pub(super) fn from_env() -> Self {
        let var = |name: &str| std::env::var_os(name);
        let every = period(var("WATCHDOG_USEC"), var("WATCHDOG_PID"), std::process::id());
        Self::new(var("NOTIFY_SOCKET").and_then(|text| address(&text)), every)
    }

    fn new(address: Option<SocketAddr>, every: Option<Duration>) -> Self {
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            // A manager that does not read must not stop the guard.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        let every = every.filter(|_| socket.is_some());
        Self { socket, every, due: Instant::now() }
    }

    /// Says one state, such as `READY=1`.
    pub(super) fn say(&self, state: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(state.as_bytes(), address)
        {
            tracing::debug!(%error, state, "the service manager was not reached");
        }
    }

    /// Says that the guard's loop turns, when that is due.
    pub(super) fn turn(&mut self, now: Instant) {
        if let Some(every) = self.every
            && now >= self.due
        {
            self.due = now + every;
            self.say("WATCHDOG=1");
        }
    }

    /// How long until `turn` has something to say.
    pub(super) fn next_turn(&self, now: Instant) -> Option<Duration> {
        self.every.map(|_| self.due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        assert!(address("/run/systemd/notify".as_ref()).is_some());
        assert!(address("@/org/freedesktop/systemd1/notify".as_ref()).is_some());
        for none in ["", "@", "vsock:2:1", "relative/path"] {
            assert!(address(none.as_ref()).is_none(), "{none}");
        }
    }

    #[test]
    fn signs_are_due_twice_in_the_time_and_only_from_the_process_that_was_meant() {
        let text = |n: u64| Some(OsString::from(n.to_string()));
        assert_eq!(period(text(60_000_000), None, 7), Some(Duration::from_secs(30)));
        assert_eq!(period(text(60_000_000), text(7), 7), Some(Duration::from_secs(30)));
        assert_eq!(period(text(60_000_000), text(8), 7), None);
        for none in [Some(OsString::from("soon")), text(0), None] {
            assert_eq!(period(none, None, 7), None);
        }
    }

    #[test]
    fn states_arrive_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("@outlast-notify-{}", std::process::id());
        for (text, bound) in [
            (path.as_os_str().to_owned(), SocketAddr::from_pathname(&path).unwrap()),
            (name.clone().into(), SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap()),
        ] {
            let manager = UnixDatagram::bind_addr(&bound).unwrap();
            manager.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut notifier = Notifier::new(address(&text), Some(Duration::from_secs(10)));
            notifier.say("READY=1");
            let now = Instant::now();
            notifier.turn(now);
            notifier.turn(now + Duration::from_secs(9));
            notifier.turn(now + Duration::from_secs(10));
            notifier.say("STOPPING=1");
            let mut said = Vec::new();
            for _ in 0..4 {
                let mut bytes = [0; 64];
                let n = manager.recv(&mut bytes).unwrap();
                said.push(String::from_utf8(bytes[..n].to_vec()).unwrap());
            }
            assert_eq!(said, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]);
        }
    }
}
