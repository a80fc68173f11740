//! The monitor as a whole: samples, alerts, a disk that fills.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::*;

/// A machine made of files.
struct Machine {
    dir: tempfile::TempDir,
    monitor: Monitor,
    at: u64,
}

impl Machine {
    fn new(spec: &HealthSpec) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_path_buf();
        for sub in ["proc/pressure", "proc/self/net", "sys/fs/cgroup", "state", "cache"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        fs::write(root.join("kmsg"), "").unwrap();
        let places = Places { state: root.join("state"), cache: root.join("cache"), extra: Vec::new() };
        let nvidia = Nvidia::new();
        let monitor = Monitor::below(&root, &root.join("kmsg"), nvidia, places, spec);
        let machine = Self { dir, monitor, at: 5_000_000 };
        machine.memory(64_000_000, 60_000_000);
        machine.write("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\n");
        machine.write("proc/diskstats", "8 0 sda 5 0 100 7 9 0 200 1 0 1 1\n");
        machine.write("proc/self/net/dev", "eth0: 1000 2 0 0 0 0 0 0 3000 4 0 0 0 0 0 0\n");
        machine.write("proc/self/cgroup", "0::/\n");
        for file in ["cpu", "memory", "io"] {
            machine.pressure(file, 0.0);
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.dir.path().join(path), text).unwrap();
    }

    fn memory(&self, total_kb: u64, available_kb: u64) {
        self.write("proc/meminfo", &format!("MemTotal: {total_kb} kB\nMemAvailable: {available_kb} kB\n"));
    }

    fn pressure(&self, file: &str, some: f64) {
        let text = format!(
            "some avg10={some:.2} avg60=0 avg300=0 total=1\nfull avg10=0.50 avg60=0 avg300=0 total=1\n"
        );
        self.write(&format!("proc/pressure/{file}"), &text);
    }

    fn sample(&mut self) -> Outcome {
        self.at += 10_000;
        self.monitor.sample(self.at, 1_700_000_000_000 + self.at)
    }
}

fn named<'a>(alerts: &'a [v1::Alert], name: &str) -> Vec<&'a v1::Alert> {
    alerts.iter().filter(|a| a.name == name).collect()
}

#[test]
fn a_sample_tells_the_machine_and_rates_since_the_one_before() {
    let mut machine = Machine::new(&HealthSpec::default());
    let first = machine.sample().sample;
    assert_eq!((first.cpu_percent, first.disk_read_per_s, first.net_sent_per_s), (None, None, None));
    assert_eq!((first.memory_total_bytes, first.memory_available_bytes), (65_536_000_000, 61_440_000_000));
    assert_eq!(first.pressure.unwrap().memory_full, 0.5);
    assert!(first.cores > 0 && first.unreadable.is_empty(), "{:?}", first.unreadable);
    let state = first.mounts.iter().find(|m| m.holds.iter().any(|h| h == "state")).unwrap();
    assert!(state.holds.iter().any(|h| h == "cache"), "{state:?}");
    assert!(first.mounts.iter().any(|m| m.path == "/"));

    machine.write("proc/stat", "cpu  150 0 100 850 0 0 0 0 0 0\n");
    machine.write("proc/diskstats", "8 0 sda 5 0 300 7 9 0 200 1 0 1 1\n");
    machine.write("proc/self/net/dev", "eth0: 21000 2 0 0 0 0 0 0 2000 4 0 0 0 0 0 0\n");
    let second = machine.sample().sample;
    assert_eq!(second.cpu_percent, Some(50.0));
    assert_eq!((second.disk_read_per_s, second.disk_write_per_s), (Some(10_240.0), Some(0.0)));
    assert_eq!(
        (second.net_received_per_s, second.net_sent_per_s),
        (Some(2000.0), None),
        "a counter went backwards"
    );
}

#[test]
fn what_cannot_be_read_is_a_line_and_nothing_else_is_missing() {
    let mut machine = Machine::new(&HealthSpec::default());
    fs::remove_dir_all(machine.dir.path().join("proc")).unwrap();
    fs::create_dir_all(machine.dir.path().join("proc")).unwrap();
    machine.write("proc/stat", "\0\u{fffd} nonsense");
    let outcome = machine.sample();
    let lines = outcome.sample.unreadable.join("\n");
    for file in
        ["proc/stat: holds nothing", "proc/meminfo", "proc/diskstats", "proc/self/net/dev", "pressure/cpu"]
    {
        assert!(lines.contains(file), "{file} in {lines}");
    }
    assert_eq!(outcome.sample.unreadable.len(), 5);
    assert!(!outcome.sample.mounts.is_empty());
    assert_eq!((outcome.sample.pressure, outcome.active.len()), (None, 0));
}

#[test]
fn memory_is_held_against_the_smaller_of_machine_and_cgroup() {
    let mut machine = Machine::new(&HealthSpec::default());
    let cgroup = machine.dir.path().join("sys/fs/cgroup/job");
    fs::create_dir_all(&cgroup).unwrap();
    machine.write("sys/fs/cgroup/cgroup.controllers", "memory");
    machine.write("proc/self/cgroup", "0::/job\n");
    machine.write("sys/fs/cgroup/job/memory.max", "1000000000\n");
    machine.write("sys/fs/cgroup/job/memory.stat", "inactive_file 0\n");
    let mut edges = Vec::new();
    for used in [500, 970, 980, 980] {
        machine.write("sys/fs/cgroup/job/memory.current", &format!("{used}000000\n"));
        let outcome = machine.sample();
        assert_eq!(outcome.sample.memory_limit_bytes, 1_000_000_000);
        edges.extend(outcome.edges);
    }
    let raised = named(&edges, "memory");
    assert_eq!((raised.len(), raised[0].raised, raised[0].limit), (1, true, 95.0));
    assert!(
        raised[0].text.starts_with("memory of the cgroup 98 % used (limit 95 %), "),
        "{}",
        raised[0].text
    );
    assert!(raised[0].text.contains("20 MB free"), "{}", raised[0].text);
    machine.write("sys/fs/cgroup/job/memory.current", "100000000\n");
    let cleared = machine.sample().edges;
    assert!(!named(&cleared, "memory")[0].raised);
    // Above what the machine has, a limit is none.
    machine.write("sys/fs/cgroup/job/memory.max", "90000000000000\n");
    assert_eq!(machine.sample().sample.memory_limit_bytes, 0);
}

#[test]
fn a_leak_is_forecast_before_memory_is_used_up() {
    let mut machine = Machine::new(&HealthSpec::default());
    let mut outcome = machine.sample();
    for step in 1..=8 {
        machine.memory(64_000_000, 60_000_000 - step * 1_000_000);
        outcome = machine.sample();
    }
    let forecast = outcome.forecasts.iter().find(|f| f.what == "out-of-memory").unwrap();
    assert!((forecast.in_seconds - 520.0).abs() < 52.0, "{forecast:?}");
    assert!((forecast.slope_per_s + 102_400_000.0).abs() < 1e7, "{forecast:?}");
    let alert = named(&outcome.active, "out-of-memory-soon")[0].clone();
    assert!(
        alert.text.starts_with("memory used up in 9 min (limit 10 min), +102 MB/s, 53 GB free"),
        "{}",
        alert.text
    );
    assert_eq!(alert.level, "warning");
    for _ in 0..8 {
        outcome = machine.sample();
    }
    assert!(outcome.forecasts.iter().all(|f| f.what != "out-of-memory"), "the leak has stopped");
    assert!(named(&outcome.active, "out-of-memory-soon").is_empty());
}

#[test]
fn garbage_that_is_collected_is_no_leak() {
    // What is taken in seventy seconds and given back, in kilobytes of the ten
    // million that are left; and after how many samples there is no word of it.
    for (tooth, quiet_after) in [(840_000, 0), (2_800_000, 9)] {
        let mut machine = Machine::new(&HealthSpec::default());
        let mut told = Vec::new();
        for n in 0..120_u64 {
            machine.memory(64_000_000, 10_000_000 - n % 8 * tooth / 7);
            let outcome = machine.sample();
            let soon = named(&outcome.edges, "out-of-memory-soon").iter().any(|alert| alert.raised);
            if soon || outcome.forecasts.iter().any(|f| f.what == "out-of-memory") {
                told.push(n);
            }
        }
        assert!(told.iter().all(|n| *n < quiet_after), "{tooth}: {told:?}");
        // A leak beside it is told: it goes where no tooth went.
        let mut soon = false;
        for n in 0..20 {
            machine.memory(64_000_000, 7_000_000 - n * 300_000);
            soon |= !named(&machine.sample().active, "out-of-memory-soon").is_empty();
        }
        assert!(soon, "{tooth}");
    }
}

#[test]
fn stalls_are_told_with_their_trend() {
    let mut machine = Machine::new(&HealthSpec::default());
    let mut edges = Vec::new();
    for some in [40.0, 55.0, 60.0, 65.0] {
        machine.pressure("io", some);
        edges.extend(machine.sample().edges);
    }
    // The disk is the real one, and may be full.
    let raised = named(&edges, "pressure-io");
    assert_eq!((raised.len(), raised[0].raised, raised[0].value), (1, true, 60.0));
    assert_eq!(raised[0].text, "programs wait for IO 60 % of the time (limit 50 %), steady");
    assert!(edges.iter().all(|a| a.name.starts_with("disk") || a.name == "pressure-io"), "{edges:?}");
    let active = machine.sample().active;
    let stalled = named(&active, "pressure-io");
    assert!(stalled[0].trend_per_s > 0.0 && stalled[0].text.contains("points/s"), "{active:?}");
    machine.monitor.set_spec(&HealthSpec { pressure_percent: 90.0, ..HealthSpec::default() });
    assert!(named(&machine.sample().active, "pressure-io").is_empty(), "held against the new limit");
}

#[test]
fn an_xid_is_told_once_and_a_broken_gpu_means_to_leave() {
    let mut machine = Machine::new(&HealthSpec::default());
    machine.sample();
    let say = |line: &str| {
        use std::io::Write;
        let mut log = fs::OpenOptions::new().append(true).open(machine.dir.path().join("kmsg")).unwrap();
        writeln!(log, "4,1,2,-;NVRM: Xid (PCI:0000:65:00): {line}").unwrap();
    };
    say("31, pid=7, name=python, MMU Fault");
    say("79, pid=7, name=python, GPU has fallen off the bus.");
    let outcome = machine.sample();
    let edges = named(&outcome.edges, "gpu-xid");
    assert_eq!(edges.iter().map(|a| a.level.as_str()).collect::<Vec<_>>(), ["info", "critical"]);
    assert!(edges[1].text.contains("Xid 79") && edges[1].text.contains("fallen off the bus"));
    assert!(outcome.leave_machine.unwrap().starts_with("Xid 79"));
    let later = machine.sample();
    assert_eq!((named(&later.edges, "gpu-xid").len(), named(&later.active, "gpu-xid").len()), (0, 1));
    assert!(later.leave_machine.is_some());
}

#[test]
fn heat_throttling_and_memory_errors_of_gpus_are_told() {
    let mut board = Board::default();
    let spec = HealthSpec::default();
    let mut before = BTreeMap::new();
    let gpu = |celsius: f64, reason: &str, uncorrected| v1::Gpu {
        index: 3,
        uuid: "GPU-x".to_owned(),
        temperature_celsius: Some(celsius),
        throttle: vec!["sw-power-cap".to_owned(), reason.to_owned()],
        ecc_uncorrected: Some(uncorrected),
        ecc_corrected: Some(0),
        ..v1::Gpu::default()
    };
    let mut edges = Vec::new();
    for (at, (celsius, reason, errors)) in
        (1..).zip([(70.0, "", 0), (92.0, "hw-thermal", 2), (93.0, "hw-thermal", 2), (93.0, "hw-thermal", 2)])
    {
        board.begin(at * 10_000, 5);
        judge::gpus(&mut board, &spec, &[gpu(celsius, reason, errors)], &mut before);
        edges.extend(board.finish());
    }
    let texts: Vec<&str> = edges.iter().map(|a| a.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "gpu3 at 93 °C (limit 90 °C), steady",
            "gpu3 slowed down at 93 °C, reasons 1 (limit 1), steady: hw-thermal",
            "gpu3: 2 uncorrected memory errors (limit 1), steady",
        ]
    );
    assert!(edges.iter().all(|a| a.subject == "gpu3" && a.raised));
}

/// A tmpfs of this test's own.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&path).ok()?;
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options.as_str(), "tmpfs"])
            .arg(&path)
            .output()
            .ok()?;
        mounted.status.success().then_some(Self(path))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn fill(path: &Path, megabytes: usize) {
    fs::write(path, vec![7_u8; megabytes << 20]).unwrap();
}

#[test]
fn a_disk_that_fills_is_forecast_then_told_then_cleared() {
    let mut machine = Machine::new(&HealthSpec::default());
    let Some(disk) = Tmpfs::mount(machine.dir.path().join("data"), "200m") else {
        println!("skipped: a_disk_that_fills: a tmpfs cannot be mounted here");
        return;
    };
    machine.monitor.set_extra(vec![("checkpoints".to_owned(), disk.0.join("run/checkpoints"))]);
    let path = disk.0.display().to_string();
    let about = |outcome: &Outcome, name: &str| -> Vec<v1::Alert> {
        named(&outcome.active, name).into_iter().filter(|a| a.subject == path).cloned().collect()
    };
    let mut first_forecast = None;
    let mut first_soon = None;
    let mut first_full = None;
    // 10 MB in each ten seconds: full after 200 s.
    for step in 0..20 {
        let outcome = machine.sample();
        let mount = outcome.sample.mounts.iter().find(|m| m.path == path).unwrap();
        assert_eq!(
            (mount.holds.as_slice(), mount.total_bytes),
            (["checkpoints".to_owned()].as_slice(), 200 << 20)
        );
        if let Some(forecast) = outcome.forecasts.iter().find(|f| f.what == format!("disk-full {path}")) {
            let truth = f64::from(200 - step * 10);
            assert!(
                (forecast.in_seconds - truth).abs() <= truth * 0.1 + 1.0,
                "{forecast:?} instead of {truth}"
            );
            first_forecast.get_or_insert(step);
        }
        if !about(&outcome, "disk-full-soon").is_empty() {
            first_soon.get_or_insert(step);
        }
        if let Some(alert) = about(&outcome, "disk-full").first() {
            first_full.get_or_insert_with(|| (step, alert.text.clone()));
        }
        fill(&disk.0.join(format!("{step}")), 10);
    }
    let (at, text) = first_full.unwrap();
    assert_eq!((first_forecast, first_soon, at), (Some(3), Some(4), 19));
    assert_eq!(text, format!("disk {path} 95 % used (limit 90 %), +1.0 MB/s, full in 10 s"));
    for step in 0..20 {
        fs::remove_file(disk.0.join(format!("{step}"))).unwrap();
    }
    let outcome = machine.sample();
    assert!(outcome.edges.iter().any(|a| a.name == "disk-full" && !a.raised && a.subject == path));
    drop(disk);
    let outcome = machine.sample();
    assert!(outcome.sample.mounts.iter().all(|m| m.path != path));
    assert!(about(&outcome, "disk-full-soon").is_empty());
}

#[test]
fn inodes_run_out_too() {
    let mut machine = Machine::new(&HealthSpec::default());
    let Some(disk) = Tmpfs::mount(machine.dir.path().join("data"), "8m,nr_inodes=100") else {
        println!("skipped: inodes_run_out_too: a tmpfs cannot be mounted here");
        return;
    };
    machine.monitor.set_extra(vec![("checkpoints".to_owned(), disk.0.clone())]);
    let path = disk.0.display().to_string();
    for i in 0..92 {
        fs::write(disk.0.join(format!("{i}")), "").unwrap();
    }
    machine.sample();
    let outcome = machine.sample();
    let mut alerts = named(&outcome.edges, "inodes");
    alerts.retain(|a| a.subject == path);
    assert_eq!(alerts.len(), 1, "{:?}", outcome.edges);
    assert!(alerts[0].text.contains("% of its inodes used (limit 90 %), steady"), "{}", alerts[0].text);
}

/// Prints what a sample costs; the real machine, its real tables.
#[test]
fn the_cost_of_a_sample() {
    const SAMPLES: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let places = Places { state: dir.path().into(), cache: dir.path().into(), extra: Vec::new() };
    let mut monitor = Monitor::new(places, &HealthSpec::default());
    let mut last = monitor.sample(1000, 1);
    let cpu = || {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
        let of = |t: nix::sys::time::TimeVal| {
            f64::from(i32::try_from(t.tv_sec()).unwrap()) + t.tv_usec() as f64 / 1e6
        };
        of(usage.user_time()) + of(usage.system_time())
    };
    let (begun, cpu_before) = (Instant::now(), cpu());
    for i in 1..=SAMPLES {
        last = monitor.sample(1000 + i * 1000, i);
    }
    let (wall, busy) = (begun.elapsed().as_secs_f64(), cpu() - cpu_before);
    #[expect(clippy::cast_precision_loss)]
    let each = busy / SAMPLES as f64;
    println!(
        "a sample costs {:.0} us of processor time, {:.0} us of time: {:.4} % of a core each 10 s, {:.3} % each second; {} mounts",
        each * 1e6,
        wall * 1e3,
        each * 10.0,
        each * 100.0,
        last.sample.mounts.len(),
    );
    assert!(last.sample.memory_total_bytes > 0 && !last.sample.mounts.is_empty());
    // Samples so close together may see no tick of the clock between them.
    assert!(last.sample.cpu_percent.is_none_or(|c| (0.0..=100.0).contains(&c)));
}

#[test]
fn a_place_of_work_that_turns_read_only_is_critical_until_it_is_written_again() {
    let mut machine = Machine::new(&HealthSpec::default());
    let Some(disk) = Tmpfs::mount(machine.dir.path().join("state"), "8m") else {
        println!("skipped: a_place_of_work_that_turns_read_only: a tmpfs cannot be mounted here");
        return;
    };
    let path = disk.0.display().to_string();
    let remount = |how: &str| {
        let done = Command::new("mount").args(["-o", how]).arg(&disk.0).status().unwrap();
        assert!(done.success(), "mount -o {how}");
    };
    assert!(named(&machine.sample().active, "read-only").is_empty());
    remount("remount,ro");
    machine.sample();
    let outcome = machine.sample();
    let raised = named(&outcome.active, "read-only");
    assert_eq!((raised.len(), raised[0].level.as_str(), raised[0].subject.as_str()), (1, "critical", &*path));
    assert!(raised[0].text.contains("is read-only (1 refusal, limit 0)"), "{}", raised[0].text);
    remount("remount,rw");
    machine.sample();
    let cleared = machine.sample();
    assert!(named(&cleared.active, "read-only").is_empty());
}

#[test]
fn a_leak_towards_a_runs_own_limit_is_foretold_while_the_machine_has_plenty() {
    let mut machine = Machine::new(&HealthSpec::default());
    fs::create_dir_all(machine.dir.path().join("sys/fs/cgroup/outlast-a")).unwrap();
    fs::create_dir_all(machine.dir.path().join("proc/77")).unwrap();
    machine.write("sys/fs/cgroup/cgroup.controllers", "memory");
    machine.write("proc/77/cgroup", "0::/outlast-a\n");
    machine.write("sys/fs/cgroup/outlast-a/memory.max", "1000000000\n");
    machine.write("sys/fs/cgroup/outlast-a/memory.stat", "inactive_file 0\n");
    let (mut soon, mut full) = (None, None);
    for step in 0..20 {
        machine.write("sys/fs/cgroup/outlast-a/memory.current", &format!("{}\n", step * 50_000_000));
        machine.monitor.set_programs(vec![("digits".to_owned(), 77)]);
        let outcome = machine.sample();
        let of_run =
            |name: &str| named(&outcome.active, name).into_iter().find(|a| a.subject == "digits").cloned();
        if let Some(alert) = of_run("out-of-memory-soon") {
            soon.get_or_insert((step, alert.text));
        }
        if let Some(alert) = of_run("memory") {
            full.get_or_insert((step, alert.text));
        }
        assert!(
            named(&outcome.active, "memory").iter().all(|a| a.subject == "digits"),
            "the machine has plenty"
        );
    }
    let (at, text) = soon.expect("it is foretold");
    assert!(at < 8 && text.starts_with("[limits] memory of the run used up in "), "{at}: {text}");
    machine.write("sys/fs/cgroup/outlast-a/memory.current", "990000000\n");
    machine.sample();
    let told =
        full.map_or_else(|| named(&machine.sample().active, "memory")[0].text.clone(), |(_, text)| text);
    assert!(told.starts_with("[limits] memory of the run 99 % used (limit 95 %)"), "{told}");
    machine.monitor.set_programs(Vec::new());
    machine.sample();
    machine.sample();
    assert!(named(&machine.sample().active, "memory").is_empty(), "a run that is gone has no limit");
}
