//! One machine's health in lines, cut to 80 columns on a terminal alone: alerts
//! first, then what there is of everything, and what works on it. All words and numbers
//! come from the machine: words are made harmless, numbers that are none are
//! shown as `-`.

use proto::v1;

use super::{ago, is_critical};
use crate::commands::{moment, short};
use crate::printer::{Printer, Style, bytes, duration, safe};

const WIDTH: usize = 80;
const BAR: usize = 10;
/// Rows of one kind on the screen; `--json` has all.
const MOUNTS: usize = 8;
const GPUS: usize = 8;
const ATTEMPTS: usize = 4;
const ALERTS: usize = 8;
/// A machine that reports each ten seconds and was silent for so long is
/// marked.
const SILENT_MS: u64 = 60_000;

/// One line and how it is marked on a terminal with colours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    style: Option<Style>,
    text: String,
}

impl Line {
    /// To stdout.
    pub(super) fn print(&self, printer: &Printer) {
        let text = self.shown(printer.settings().stdout.terminal);
        match self.style {
            Some(style) => printer.line(&printer.paint(style, &text)),
            None => printer.line(&text),
        }
    }

    /// What another program reads is whole.
    fn shown(&self, terminal: bool) -> String {
        if !terminal || self.text.chars().count() <= WIDTH {
            return self.text.clone();
        }
        let mut short: String = self.text.chars().take(WIDTH - 1).collect();
        short.push('…');
        short
    }
}

fn line(style: Option<Style>, text: &str) -> Line {
    Line { style, text: safe(text).trim_end().to_owned() }
}

/// Everything about one machine that fits a screen.
pub(super) fn screen(reply: &v1::HealthReply) -> Vec<Line> {
    let none = (v1::HealthReport::default(), v1::MachineSample::default());
    let report = reply.report.as_ref().unwrap_or(&none.0);
    let sample = report.sample.as_ref().unwrap_or(&none.1);
    let mut lines = vec![head(reply, report)];
    lines.extend(alerts(report));
    if report.sample.is_none() {
        lines.push(line(
            Some(Style::Dim),
            "no sample yet: the first comes within seconds of the agent's start",
        ));
    } else {
        lines.push(cpu(sample));
        lines.push(memory(report, sample));
        lines.extend(pressure(sample));
        lines.extend(mounts(report, sample));
        lines.extend(rates(sample));
        lines.extend(gpus(sample));
        let unread = sample.unreadable.iter().take(ALERTS);
        lines.extend(unread.map(|text| line(Some(Style::Dim), &format!("{:<9} {text}", "unread"))));
    }
    lines.extend(attempts(report));
    lines.push(agent(report));
    lines
}

fn head(reply: &v1::HealthReply, report: &v1::HealthReport) -> Line {
    let id = if report.machine_id.is_empty() { &reply.machine_id } else { &report.machine_id };
    let text = format!("machine   {id}  {}  said {}", reply.machine_state, ago(reply.age_ms));
    if reply.machine_state != "READY" || reply.age_ms > SILENT_MS {
        return line(Some(Style::Yellow), &format!("{text}: silent"));
    }
    line(Some(Style::Bold), &text)
}

/// Critical ones first, each whole: its text may take several lines.
fn alerts(report: &v1::HealthReport) -> Vec<Line> {
    let mut all: Vec<&v1::Alert> = report.alerts.iter().filter(|alert| alert.raised).collect();
    all.sort_by_key(|alert| match alert.level.as_str() {
        "critical" => 0,
        "warning" => 1,
        _ => 2,
    });
    let mut lines = Vec::new();
    for alert in all.iter().take(ALERTS) {
        let style = match alert.level.as_str() {
            "critical" => Some(Style::Red),
            "warning" => Some(Style::Yellow),
            _ => None,
        };
        let text = if alert.text.is_empty() {
            format!(
                "{} {}: {} (limit {})",
                alert.name,
                alert.subject,
                number(alert.value),
                number(alert.limit)
            )
        } else {
            alert.text.clone()
        };
        lines.extend(wrap(&format!("{:<9} {text}", alert.level.to_uppercase()), style));
    }
    lines.extend(more(all.len(), ALERTS, "alerts"));
    lines
}

fn more(there: usize, shown: usize, what: &str) -> Option<Line> {
    let left = there.saturating_sub(shown);
    (left > 0).then(|| line(Some(Style::Dim), &format!("{:<9} {left} more {what}: --json shows all", "")))
}

/// Breaks a text between words; what follows is indented.
fn wrap(text: &str, style: Option<Style>) -> Vec<Line> {
    const INDENT: &str = "          ";
    const MOST: usize = 4;
    let text = safe(text);
    let mut rows: Vec<String> = vec![String::new()];
    // The first word keeps the spaces that align what follows it.
    for (n, word) in text.split(' ').enumerate() {
        let last = rows.len() - 1;
        let row = &mut rows[last];
        if n > 0 && row.chars().count() + 1 + word.chars().count() > WIDTH && !row.trim().is_empty() {
            rows.push(format!("{INDENT}{word}"));
        } else {
            if n > 0 {
                row.push(' ');
            }
            row.push_str(word);
        }
    }
    if rows.len() > MOST {
        rows.truncate(MOST);
        rows[MOST - 1].push_str(" …");
    }
    rows.iter().map(|row| line(style, row)).collect()
}

fn number(value: f64) -> String {
    if value.is_finite() { format!("{value:.1}") } else { "-".to_owned() }
}

fn percent(share: Option<f64>) -> String {
    let share = share.filter(|share| share.is_finite());
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share.clamp(0.0, 999.0)))
}

/// `label [####------]  41%  rest`
fn row(label: &str, share: Option<f64>, rest: &str) -> Line {
    let filled = share.filter(|share| share.is_finite()).unwrap_or(0.0).clamp(0.0, 100.0) / 100.0;
    let full = (filled * BAR as f64).round() as usize;
    let bar = "#".repeat(full) + &"-".repeat(BAR - full.min(BAR));
    line(None, &format!("{label:<9} [{bar}] {:>4}  {rest}", percent(share)))
}

fn share(used: u64, total: u64) -> Option<f64> {
    (total > 0).then(|| used as f64 / total as f64 * 100.0)
}

fn cpu(sample: &v1::MachineSample) -> Line {
    row("cpu", sample.cpu_percent, &format!("of {} cores", sample.cores))
}

/// Used and total: of the machine's own limit where it has one.
fn memory_of(sample: &v1::MachineSample) -> (u64, u64) {
    if sample.memory_limit_bytes > 0 {
        (sample.memory_used_in_limit_bytes, sample.memory_limit_bytes)
    } else {
        let used = sample.memory_total_bytes.saturating_sub(sample.memory_available_bytes);
        (used, sample.memory_total_bytes)
    }
}

fn memory(report: &v1::HealthReport, sample: &v1::MachineSample) -> Line {
    let (used, total) = memory_of(sample);
    let what = if sample.memory_limit_bytes > 0 { " (its limit)" } else { "" };
    let until = forecast(report, "out-of-memory", "used up");
    row("memory", share(used, total), &format!("{} of {}{what}{until}", bytes(used), bytes(total)))
}

/// `; full in 1h 05m`, where the machine foresees it.
fn forecast(report: &v1::HealthReport, what: &str, word: &str) -> String {
    let found = report.forecasts.iter().find(|forecast| forecast.what == what);
    let seconds = found.map(|forecast| forecast.in_seconds).filter(|seconds| (0.0..1e9).contains(seconds));
    seconds.map_or_else(String::new, |seconds| format!("; {word} in {}", duration(seconds as u64)))
}

fn pressure(sample: &v1::MachineSample) -> Option<Line> {
    let stalls = sample.pressure?;
    let text = format!(
        "{:<9} cpu {}, memory {}, io {} of the time somebody waits",
        "pressure",
        percent(Some(stalls.cpu_some)),
        percent(Some(stalls.memory_some)),
        percent(Some(stalls.io_some))
    );
    Some(line(None, &text))
}

fn used_share(mount: &v1::Mount) -> Option<f64> {
    share(mount.total_bytes.saturating_sub(mount.free_bytes), mount.total_bytes)
}

/// The fullest first.
fn mounts(report: &v1::HealthReport, sample: &v1::MachineSample) -> Vec<Line> {
    let mut all: Vec<&v1::Mount> = sample.mounts.iter().collect();
    all.sort_by(|a, b| used_share(b).unwrap_or(0.0).total_cmp(&used_share(a).unwrap_or(0.0)));
    let mut lines = Vec::new();
    for mount in all.iter().take(MOUNTS) {
        let until = forecast(report, &format!("disk-full {}", mount.path), "full");
        let holds =
            if mount.holds.is_empty() { String::new() } else { format!(" ({})", mount.holds.join(", ")) };
        let rest = format!("{} free on {}{until}{holds}", bytes(mount.free_bytes), mount.path);
        lines.push(row("disk", used_share(mount), &rest));
        let inodes = share(mount.inodes.saturating_sub(mount.inodes_free), mount.inodes);
        if inodes.is_some_and(|share| share >= 80.0) {
            let rest = format!("{} inodes free, {}", mount.inodes_free, mount.path);
            lines.push(row("inodes", inodes, &rest));
        }
    }
    lines.extend(more(all.len(), MOUNTS, "disks"));
    lines
}

fn rates(sample: &v1::MachineSample) -> Option<Line> {
    let all = [
        ("disk read", sample.disk_read_per_s),
        ("write", sample.disk_write_per_s),
        ("net in", sample.net_received_per_s),
        ("out", sample.net_sent_per_s),
    ];
    let told: Vec<String> =
        all.iter().filter_map(|(name, rate)| Some(format!("{name} {}", per_second((*rate)?)))).collect();
    (!told.is_empty()).then(|| line(None, &format!("{:<9} {}", "rates", told.join(", "))))
}

fn per_second(rate: f64) -> String {
    if rate.is_finite() { format!("{}/s", bytes(rate.max(0.0) as u64)) } else { "-".to_owned() }
}

fn gpus(sample: &v1::MachineSample) -> Vec<Line> {
    let mut lines = Vec::new();
    for gpu in sample.gpus.iter().take(GPUS) {
        let mut told = Vec::new();
        if let (Some(used), Some(total)) = (gpu.memory_used_bytes, gpu.memory_total_bytes) {
            told.push(format!("{} of {}", bytes(used), bytes(total)));
        }
        told.extend(gpu.temperature_celsius.map(|celsius| format!("{} C", whole(celsius))));
        told.extend(gpu.power_watts.map(|watts| match gpu.power_limit_watts {
            Some(limit) => format!("{} of {} W", whole(watts), whole(limit)),
            None => format!("{} W", whole(watts)),
        }));
        told.push(gpu.name.clone());
        lines.push(row(&format!("gpu{}", gpu.index), gpu.utilization_percent, &told.join(", ")));
        let below = |style, text: String| line(Some(style), &format!("{:<9} {text}", ""));
        if !gpu.throttle.is_empty() {
            lines.push(below(Style::Yellow, format!("slowed: {}", gpu.throttle.join(", "))));
        }
        if let Some(errors) = gpu.ecc_uncorrected.filter(|errors| *errors > 0) {
            lines.push(below(Style::Red, format!("{errors} uncorrected memory errors")));
        }
        if !gpu.xids.is_empty() {
            let list: Vec<String> = gpu.xids.iter().take(16).map(ToString::to_string).collect();
            lines.push(below(Style::Red, format!("Xid {}", list.join(", "))));
        }
    }
    lines.extend(more(sample.gpus.len(), GPUS, "GPUs"));
    if !sample.gpu_problem.is_empty() {
        lines.push(line(Some(Style::Yellow), &format!("{:<9} {}", "gpu", sample.gpu_problem)));
    }
    lines
}

fn whole(value: f64) -> String {
    if value.is_finite() { format!("{value:.0}") } else { "-".to_owned() }
}

fn attempts(report: &v1::HealthReport) -> Vec<Line> {
    let mut lines = Vec::new();
    for attempt in report.attempts.iter().take(ATTEMPTS) {
        let step = attempt.step.map_or_else(String::new, |step| format!(", step {step}"));
        let each = attempt.step_seconds;
        let cadence =
            if each.is_finite() && each > 0.0 { format!(" ({each:.2} s each)") } else { String::new() };
        let text = format!(
            "{:<9} {} {}{step}{cadence}, progress {}",
            "run",
            attempt.run_name,
            attempt.phase,
            ago(attempt.since_progress_ms)
        );
        lines.push(line(None, &text));
        if attempt.processes > 0 {
            let cpu = if attempt.cpu_seconds.is_finite() { attempt.cpu_seconds.max(0.0) as u64 } else { 0 };
            let text = format!(
                "{:<9} {} in {} processes, {} of processor time",
                "",
                bytes(attempt.rss_bytes),
                attempt.processes,
                duration(cpu)
            );
            lines.push(line(None, &text));
        }
    }
    lines.extend(more(report.attempts.len(), ATTEMPTS, "attempts"));
    lines
}

fn agent(report: &v1::HealthReport) -> Line {
    let mut told = vec![format!("version {}", report.version)];
    if report.agent_uptime_ms > 0 {
        told.push(format!("up {}", duration(report.agent_uptime_ms / 1_000)));
    }
    if report.agent_rss_bytes > 0 {
        told.push(bytes(report.agent_rss_bytes));
    }
    line(Some(Style::Dim), &format!("{:<9} {}", "agent", told.join(", ")))
}

/// Columns of [`machine_row`].
pub(super) const MACHINE_HEAD: [&str; 8] =
    ["MACHINE", "STATE", "SAID", "CPU", "MEMORY", "DISK", "ALERTS", "RUN"];

/// One machine of several.
pub(super) fn machine_row(reply: &v1::HealthReply) -> Vec<String> {
    let report = reply.report.clone().unwrap_or_default();
    let sample = report.sample.clone().unwrap_or_default();
    let (used, total) = memory_of(&sample);
    let fullest = sample.mounts.iter().filter_map(used_share).reduce(f64::max);
    let standing = report.alerts.iter().filter(|alert| alert.raised).count();
    let critical = report.alerts.iter().filter(is_critical).count();
    let alerts = match (standing, critical) {
        (0, _) => "-".to_owned(),
        (all, 0) => all.to_string(),
        (all, bad) => format!("{all} ({bad} critical)"),
    };
    let run = report.attempts.first().map_or_else(String::new, |attempt| attempt.run_name.clone());
    vec![
        short(&reply.machine_id).to_owned(),
        reply.machine_state.clone(),
        ago(reply.age_ms),
        percent(sample.cpu_percent),
        percent(share(used, total)),
        percent(fullest),
        alerts,
        run,
    ]
}

/// Columns of [`sample_row`].
pub(super) const SAMPLE_HEAD: [&str; 7] = ["AT", "CPU", "MEMORY", "DISK", "IO WAIT", "GPU", "GPU MEMORY"];

/// One earlier sample; of GPUs and disks the fullest.
pub(super) fn sample_row(sample: &v1::MachineSample) -> Vec<String> {
    let (used, total) = memory_of(sample);
    let gpu = sample.gpus.iter().filter_map(|gpu| gpu.utilization_percent).reduce(f64::max);
    let gpu_memory = sample
        .gpus
        .iter()
        .filter_map(|gpu| share(gpu.memory_used_bytes?, gpu.memory_total_bytes?))
        .reduce(f64::max);
    // The date is the same in nearly all of them.
    let at = moment(sample.at_ms);
    vec![
        at.get(11..19).unwrap_or(&at).to_owned(),
        percent(sample.cpu_percent),
        percent(share(used, total)),
        percent(sample.mounts.iter().filter_map(used_share).reduce(f64::max)),
        percent(sample.pressure.map(|stalls| stalls.io_some)),
        percent(gpu),
        percent(gpu_memory),
    ]
}

#[cfg(test)]
mod tests;
