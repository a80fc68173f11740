//! What one screen of a machine says, also where the machine lies.

use super::*;

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

fn gpu(index: u32) -> v1::Gpu {
    v1::Gpu {
        index,
        name: "NVIDIA H100 80GB HBM3".into(),
        utilization_percent: Some(98.0),
        memory_total_bytes: Some(80 << 30),
        memory_used_bytes: Some(71 << 30),
        power_watts: Some(512.4),
        power_limit_watts: Some(700.0),
        temperature_celsius: Some(61.0),
        throttle: vec!["sw-power-cap".into()],
        ..v1::Gpu::default()
    }
}

fn reply() -> v1::HealthReply {
    let mount = |path: &str, free: u64, holds: &[&str]| v1::Mount {
        path: path.into(),
        total_bytes: 100 << 30,
        free_bytes: free << 30,
        inodes: 1_000,
        inodes_free: 990,
        holds: holds.iter().map(ToString::to_string).collect(),
    };
    let sample = v1::MachineSample {
        cpu_percent: Some(61.2),
        cores: 16,
        memory_total_bytes: 32 << 30,
        memory_available_bytes: 6 << 30,
        pressure: Some(v1::Pressure { io_some: 12.4, ..v1::Pressure::default() }),
        mounts: vec![mount("/", 60, &["state"]), mount("/data", 3, &["checkpoints", "shm"])],
        disk_read_per_s: Some(1_500_000.0),
        disk_write_per_s: Some(0.0),
        net_received_per_s: Some(f64::NAN),
        gpus: vec![gpu(0)],
        ..v1::MachineSample::default()
    };
    let alert = |level: &str, raised, text: &str| v1::Alert {
        name: "x".into(),
        level: level.into(),
        raised,
        text: text.into(),
        ..v1::Alert::default()
    };
    let attempt = v1::AttemptHealth {
        run_name: "digits-4vxou7".into(),
        phase: "running".into(),
        step: Some(1_234),
        step_seconds: 0.52,
        since_progress_ms: 3_000,
        rss_bytes: 3 << 29,
        processes: 12,
        cpu_seconds: 10_925.0,
        ..v1::AttemptHealth::default()
    };
    let report = v1::HealthReport {
        machine_id: "abcdefghijklmnopqrstuvwx23".into(),
        version: "1.2.3".into(),
        agent_uptime_ms: 60_000,
        sample: Some(sample),
        attempts: vec![attempt],
        forecasts: vec![v1::Forecast {
            what: "disk-full /data".into(),
            in_seconds: 3_900.0,
            slope_per_s: 1.0,
        }],
        alerts: vec![
            alert("warning", true, "GPU 0 is slowed"),
            alert(
                "critical",
                true,
                "/data is 97 % full, the limit is 90 %; it grows by 80 MiB a second and is full in an hour",
            ),
            alert("critical", false, "over"),
        ],
        ..v1::HealthReport::default()
    };
    v1::HealthReply {
        report: Some(report),
        age_ms: 3_400,
        machine_state: "READY".into(),
        machine_id: "abcdefghijklmnopqrstuvwx23".into(),
        ..v1::HealthReply::default()
    }
}

#[test]
fn one_screen_tells_alerts_first_and_fits_80_columns() {
    let lines = screen(&reply());
    let expected = [
        "machine   abcdefghijklmnopqrstuvwx23  READY  said 3s ago",
        "CRITICAL  /data is 97 % full, the limit is 90 %; it grows by 80 MiB a second and",
        "          is full in an hour",
        "WARNING   GPU 0 is slowed",
        "cpu       [######----]  61%  of 16 cores",
        "memory    [########--]  81%  26.0 GiB of 32.0 GiB",
        "pressure  cpu 0%, memory 0%, io 12% of the time somebody waits",
        "disk      [##########]  97%  3.0 GiB free on /data; full in 1h 05m (checkpoints…",
        "disk      [####------]  40%  60.0 GiB free on / (state)",
        "rates     disk read 1.4 MiB/s, write 0 B/s, net in -",
        "gpu0      [##########]  98%  71.0 GiB of 80.0 GiB, 61 C, 512 of 700 W, NVIDIA H…",
        "          slowed: sw-power-cap",
        "run       digits-4vxou7 running, step 1234 (0.52 s each), progress 3s ago",
        "          1.5 GiB in 12 processes, 3h 02m of processor time",
        "agent     version 1.2.3, up 1m 00s",
    ];
    let shown = |terminal| -> Vec<String> { lines.iter().map(|line| line.shown(terminal)).collect() };
    assert_eq!(shown(true), expected);
    assert!(shown(true).iter().all(|text| text.chars().count() <= WIDTH));
    // What another program reads is not cut.
    assert!(shown(false).iter().any(|text| text.ends_with("(checkpoints, shm)")), "{lines:#?}");
    assert!(!shown(false).concat().contains('…'));
    assert_eq!((lines[1].style, lines[3].style), (Some(Style::Red), Some(Style::Yellow)));
}

#[test]
fn a_silent_machine_is_marked_and_one_without_samples_says_so() {
    let silent = v1::HealthReply { age_ms: 65_000, ..reply() };
    assert_eq!(
        texts(&screen(&silent))[0],
        "machine   abcdefghijklmnopqrstuvwx23  READY  said 1m 05s ago: silent"
    );
    let suspect = v1::HealthReply { machine_state: "SUSPECT".into(), ..reply() };
    assert!(screen(&suspect)[0].text.ends_with("SUSPECT  said 3s ago: silent"));
    let empty = v1::HealthReply { report: Some(v1::HealthReport::default()), ..reply() };
    assert!(screen(&empty)[1].text.starts_with("no sample yet"));
}

#[test]
fn what_a_machine_says_cannot_break_the_screen() {
    let mut hostile = reply();
    let report = hostile.report.as_mut().unwrap();
    let evil = "\x1b[2J\n".to_owned() + &"x".repeat(500);
    report.version.clone_from(&evil);
    report.alerts[0].text = evil.repeat(20);
    report.alerts[1].level.clone_from(&evil);
    report.attempts[0].run_name.clone_from(&evil);
    report.attempts[0].cpu_seconds = f64::NEG_INFINITY;
    report.forecasts[0].in_seconds = f64::NAN;
    let sample = report.sample.as_mut().unwrap();
    sample.cpu_percent = Some(f64::INFINITY);
    sample.mounts = vec![v1::Mount { path: evil, free_bytes: u64::MAX, ..v1::Mount::default() }; 64];
    sample.gpus = vec![gpu(u32::MAX); 64];
    let lines = screen(&hostile);
    assert!(lines.len() < 60, "{} lines", lines.len());
    for line in &lines {
        assert!(line.shown(true).chars().count() <= WIDTH && !line.text.contains(['\x1b', '\n']), "{line:?}");
    }
    assert_eq!(machine_row(&hostile).len(), MACHINE_HEAD.len());
    assert_eq!(sample_row(hostile.report.unwrap().sample.as_ref().unwrap()).len(), SAMPLE_HEAD.len());
}

#[test]
fn several_machines_are_a_line_each() {
    let row = machine_row(&reply());
    assert_eq!(row, ["abcdefgh", "READY", "3s ago", "61%", "81%", "97%", "2 (1 critical)", "digits-4vxou7"]);
    let reply = reply();
    let sample = reply.report.as_ref().unwrap().sample.as_ref().unwrap();
    assert_eq!(sample_row(sample), ["00:00:00", "61%", "81%", "97%", "12%", "98%", "89%"]);
}

#[test]
fn only_a_standing_critical_alert_is_unhealthy() {
    use crate::exit_code::ExitCode;
    let mut reply = reply();
    assert_eq!(super::super::code(&reply), ExitCode::Unhealthy);
    reply.report.as_mut().unwrap().alerts.retain(|alert| !is_critical(&alert));
    assert_eq!(super::super::code(&reply), ExitCode::Ok);
}
