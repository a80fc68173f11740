//! Which alerts stand, and what they say. Every text names the value, the limit
//! and the trend. Pure: figures in, edges out; bounded in number.

use std::collections::BTreeMap;

use proto::v1;

use super::forecast::Series;
use super::threshold::{Change, Rule, State};

/// Alerts that are kept at a time; a machine with more has said enough.
const ALERTS_MAX: usize = 256;

type Key = (&'static str, String);

/// All alerts of the machine.
#[derive(Debug, Default)]
pub(super) struct Board {
    entries: BTreeMap<Key, Entry>,
    now: Now,
    edges: Vec<v1::Alert>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Now {
    boottime_ms: u64,
    wall_ms: u64,
}

#[derive(Debug, Default)]
struct Entry {
    state: State,
    series: Series,
    alert: Option<v1::Alert>,
    is_touched: bool,
}

/// One figure against its limit.
#[derive(Debug)]
pub(super) struct Figure<'a> {
    pub(super) name: &'static str,
    pub(super) subject: &'a str,
    /// `None` is far from the limit.
    pub(super) value: Option<f64>,
    pub(super) rule: Rule,
}

impl Board {
    /// Begins a sample.
    pub(super) fn begin(&mut self, boottime_ms: u64, wall_ms: u64) {
        self.now = Now { boottime_ms, wall_ms };
        self.edges.clear();
        for entry in self.entries.values_mut() {
            entry.is_touched = false;
        }
    }

    /// Takes one figure; `text` is given its trend per second, and asked only
    /// where the alert stands or has just been cleared.
    pub(super) fn judge(&mut self, figure: &Figure<'_>, text: impl FnOnce(f64) -> String) {
        let now = self.now;
        let Some(entry) = self.entry(figure.name, figure.subject) else { return };
        if let Some(value) = figure.value {
            entry.series.push(now.boottime_ms, value);
        }
        let change = entry.state.step(figure.value, &figure.rule);
        if !entry.state.is_raised() && change != Change::Cleared {
            return;
        }
        let trend = entry.series.slope();
        let alert = v1::Alert {
            name: figure.name.to_owned(),
            subject: figure.subject.to_owned(),
            level: if entry.state.is_critical() { "critical" } else { "warning" }.to_owned(),
            raised: entry.state.is_raised(),
            value: figure.value.unwrap_or_default(),
            limit: figure.rule.limit,
            trend_per_s: trend,
            text: text(trend),
            at_ms: entry.alert.as_ref().map_or(now.wall_ms, |a| a.at_ms),
        };
        entry.alert = alert.raised.then(|| alert.clone());
        if change != Change::None {
            self.edges.push(v1::Alert { at_ms: now.wall_ms, ..alert });
        }
    }

    /// Raises something that is not a figure and stays until `release`d.
    pub(super) fn latch(&mut self, name: &'static str, subject: &str, level: &str, value: f64, text: &str) {
        let now = self.now;
        let Some(entry) = self.entry(name, subject) else { return };
        if entry.alert.is_some() {
            return;
        }
        let alert = v1::Alert {
            name: name.to_owned(),
            subject: subject.to_owned(),
            level: level.to_owned(),
            raised: true,
            value,
            limit: 0.0,
            trend_per_s: 0.0,
            text: text.to_owned(),
            at_ms: now.wall_ms,
        };
        // Information is said once and does not stand.
        entry.alert = (level != "info").then(|| alert.clone());
        self.edges.push(alert);
    }

    /// Lets the alerts of this name stand as they are: there is nothing new.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        for ((name, _), entry) in &mut self.entries {
            entry.is_touched |= is_kept(name);
        }
    }

    /// Ends a sample: what nobody spoke of any more is gone, and its alert with it.
    /// The edges of this sample.
    pub(super) fn finish(&mut self) -> Vec<v1::Alert> {
        let now = self.now.wall_ms;
        let edges = &mut self.edges;
        self.entries.retain(|_, entry| {
            if !entry.is_touched
                && let Some(alert) = entry.alert.take()
            {
                let text = format!("{} is over", alert.text);
                edges.push(v1::Alert { raised: false, at_ms: now, text, ..alert });
            }
            entry.is_touched
        });
        std::mem::take(&mut self.edges)
    }

    /// What stands.
    pub(super) fn active(&self) -> Vec<v1::Alert> {
        self.entries.values().filter_map(|e| e.alert.clone()).collect()
    }

    fn entry(&mut self, name: &'static str, subject: &str) -> Option<&mut Entry> {
        let key = (name, subject.to_owned());
        if self.entries.len() >= ALERTS_MAX && !self.entries.contains_key(&key) {
            return None;
        }
        let entry = self.entries.entry(key).or_default();
        entry.is_touched = true;
        Some(entry)
    }
}

/// Bytes as people read them: `1.5 GB`.
pub(crate) fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = value;
    let mut unit = 0;
    while value.abs() >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value.abs() < 9.95);
    format!("{value:.digits$} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// A time as people read it: `41 s`, `12 min`, `3.0 h`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// A trend as people read it: `+120 MB/s`, `steady`.
pub(super) fn byte_trend(per_s: f64) -> String {
    if per_s.abs() < 1.0 || !per_s.is_finite() {
        return "steady".to_owned();
    }
    let sign = if per_s > 0.0 { "+" } else { "" };
    format!("{sign}{}/s", bytes(per_s))
}

/// A trend of a plain figure: `+0.50 points/s`, `steady`.
pub(super) fn trend(per_s: f64, unit: &str) -> String {
    if per_s.abs() < 0.005 || !per_s.is_finite() {
        "steady".to_owned()
    } else {
        format!("{per_s:+.2} {unit}/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(board: &mut Board, at: u64, value: Option<f64>) -> Vec<v1::Alert> {
        board.begin(at * 10_000, 1_000_000 + at);
        if value.is_some() {
            let figure = Figure { name: "disk-full", subject: "/data", value, rule: Rule::percent(90.0) };
            board.judge(&figure, |t| format!("disk /data (limit 90 %), {}", trend(t, "points")));
        }
        board.finish()
    }

    #[test]
    fn an_alert_is_raised_once_stands_and_is_cleared_once() {
        let mut board = Board::default();
        assert!(sample(&mut board, 1, Some(95.0)).is_empty());
        let edges = sample(&mut board, 2, Some(96.0));
        assert_eq!((edges.len(), edges[0].raised, edges[0].value, edges[0].limit), (1, true, 96.0, 90.0));
        assert_eq!(edges[0].at_ms, 1_000_002);
        assert!(sample(&mut board, 3, Some(92.0)).is_empty());
        assert_eq!(board.active().len(), 1);
        assert_eq!((board.active()[0].value, board.active()[0].at_ms), (92.0, 1_000_002));
        let edges = sample(&mut board, 4, Some(50.0));
        assert_eq!(
            (edges.len(), edges[0].raised, edges[0].value, edges[0].at_ms),
            (1, false, 50.0, 1_000_004)
        );
        assert!(board.active().is_empty());
    }

    #[test]
    fn what_is_gone_is_cleared_and_what_is_kept_stands() {
        let mut board = Board::default();
        sample(&mut board, 1, Some(95.0));
        sample(&mut board, 2, Some(95.0));
        board.begin(25_000, 7);
        board.keep(|name| name == "disk-full");
        assert!(board.finish().is_empty());
        assert_eq!(board.active().len(), 1);
        let edges = sample(&mut board, 3, None);
        assert_eq!((edges.len(), edges[0].raised), (1, false));
        assert!(board.active().is_empty() && board.entries.is_empty());
    }

    #[test]
    fn information_is_said_and_does_not_stand() {
        let mut board = Board::default();
        board.begin(1, 1);
        board.latch("gpu-xid", "gpu0 31", "info", 31.0, "page fault");
        board.latch("gpu-xid", "gpu0 79", "critical", 79.0, "off the bus");
        board.latch("gpu-xid", "gpu0 79", "critical", 79.0, "off the bus");
        assert_eq!(board.finish().len(), 2);
        assert_eq!(board.active().len(), 1);
    }

    #[test]
    fn the_number_of_alerts_is_bounded() {
        let mut board = Board::default();
        board.begin(1, 1);
        for i in 0..10_000 {
            board.latch("gpu-lost", &format!("gpu{i}"), "critical", 0.0, "gone");
        }
        assert_eq!(board.finish().len(), ALERTS_MAX);
        assert_eq!(board.active().len(), ALERTS_MAX);
    }

    #[test]
    fn figures_are_told_as_people_read_them() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(1_500_000.0), "1.5 MB");
        assert_eq!(bytes(120e6), "120 MB");
        assert_eq!(bytes(-2.5e9), "-2.5 GB");
        assert_eq!(bytes(999_999.0), "1.0 MB");
        assert_eq!(byte_trend(120e6), "+120 MB/s");
        assert_eq!(byte_trend(-1500.0), "-1.5 kB/s");
        assert_eq!(byte_trend(0.3), "steady");
        assert_eq!(trend(0.5, "points"), "+0.50 points/s");
        assert_eq!(duration(41.2), "41 s");
        assert_eq!(duration(720.0), "12 min");
        assert_eq!(duration(7200.0), "2.0 h");
    }
}
