//! How the machine is: figures, alerts and forecasts, one sample at a time. Only
//! looks: what is done about it is decided elsewhere. A sample must never wait
//! for the GPU tool or for a file system, and never fail: what cannot be read is
//! a line in the sample.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle::spec::HealthSpec;
use proto::v1;

use self::alerts::Board;
use self::amd::Amd;
use self::judge::Forecaster;
use self::kmsg::KernelLog;
use self::mounts::{Place, Prober, Space};
use self::nvidia::Nvidia;
use self::proc::{CpuTime, MemoryLimit, Source};
use self::programs::Programs;
use self::xid::Remedy;

pub(crate) use self::proc::bytes_moved;

pub mod hang;
pub mod prune;

pub(crate) mod alerts;
mod amd;
mod forecast;
mod judge;
mod kmsg;
mod mounts;
mod nvidia;
mod proc;
mod programs;
mod swing;
mod threshold;
mod xid;

/// Names another file to read kernel messages from, in place of `/dev/kmsg`.
const KERNEL_LOG: &str = "OUTLAST_KMSG";
/// Samples between two searches for the own memory limit, which may be changed
/// while we run.
const LIMIT_EVERY: u32 = 32;
/// Lines of what could not be read.
const UNREADABLE_MAX: usize = 16;

/// The directories whose file systems are watched, besides `/`, `/tmp` and `/dev/shm`.
#[derive(Debug, Clone)]
pub struct Places {
    /// The agent's state: facts and output that are not yet acknowledged.
    pub state: PathBuf,
    /// What can be fetched or made again.
    pub cache: PathBuf,
    /// More, each with the word for what it holds: "checkpoints".
    pub extra: Vec<(String, PathBuf)>,
}

/// What one sample gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The figures.
    pub sample: v1::MachineSample,
    /// Alerts that were raised (or have become critical) or cleared by this sample.
    pub edges: Vec<v1::Alert>,
    /// Alerts that stand.
    pub active: Vec<v1::Alert>,
    /// What will be used up when; only where it is clear.
    pub forecasts: Vec<v1::Forecast>,
    /// Why no work should stay here: a GPU is lost, or has an error that only a
    /// reset, a restart or an exchange ends. In every sample while it is so.
    pub leave_machine: Option<String>,
}

/// Takes samples. Not for use from two threads at a time.
#[derive(Debug)]
pub struct Monitor {
    places: Places,
    spec: HealthSpec,
    tables: Tables,
    limit: Option<MemoryLimit>,
    cgroup_root: PathBuf,
    own_cgroup: Source,
    until_limit: u32,
    prober: Prober,
    nvidia: Nvidia,
    amd: Amd,
    kernel_log: KernelLog,
    board: Board,
    forecaster: Forecaster,
    programs: Programs,
    corrected: BTreeMap<String, u64>,
    before: Option<Before>,
    buffer: Vec<u8>,
}

/// The kernel's tables.
#[derive(Debug)]
struct Tables {
    stat: Source,
    meminfo: Source,
    pressure: [Source; 3],
    diskstats: Source,
    net: Source,
}

/// Counters of the sample before.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    boottime_ms: u64,
    cpu: Option<CpuTime>,
    disk: Option<(u64, u64)>,
    net: Option<(u64, u64)>,
}

impl Monitor {
    /// Opens what it reads; looks at nothing yet.
    #[must_use]
    pub fn new(places: Places, spec: &HealthSpec) -> Self {
        let log = std::env::var_os(KERNEL_LOG).map_or_else(|| PathBuf::from("/dev/kmsg"), PathBuf::from);
        Self::below(Path::new("/"), &log, Nvidia::new(), places, spec)
    }

    fn below(root: &Path, log: &Path, nvidia: Nvidia, places: Places, spec: &HealthSpec) -> Self {
        let table = |name: &str| Source::new(root.join("proc").join(name));
        Self {
            places,
            spec: spec.clone(),
            tables: Tables {
                stat: table("stat"),
                meminfo: table("meminfo"),
                pressure: ["pressure/cpu", "pressure/memory", "pressure/io"].map(table),
                diskstats: table("diskstats"),
                net: table("self/net/dev"),
            },
            limit: None,
            cgroup_root: root.join("sys/fs/cgroup"),
            own_cgroup: table("self/cgroup"),
            until_limit: 0,
            prober: Prober::default(),
            nvidia,
            amd: Amd::new(&root.join("sys")),
            kernel_log: KernelLog::open(log),
            board: Board::default(),
            forecaster: Forecaster::default(),
            programs: Programs::below(root),
            corrected: BTreeMap::new(),
            before: None,
            buffer: Vec::new(),
        }
    }

    /// Other thresholds from the next sample on; alerts that stand are held
    /// against them then.
    pub fn set_spec(&mut self, spec: &HealthSpec) {
        self.spec = spec.clone();
    }

    /// The directories of the attempts that are here now.
    pub fn set_extra(&mut self, extra: Vec<(String, PathBuf)>) {
        self.places.extra = extra;
    }

    /// The programs that run now, whose own memory limits are watched: the names
    /// of their runs, and their processes.
    pub fn set_programs(&mut self, programs: Vec<(String, i32)>) {
        self.programs.set(programs);
    }

    /// One sample. Bounded work; run by the caller on a blocking thread, one at a
    /// time. `boottime_ms` is `CLOCK_BOOTTIME`, `wall_ms` Unix time for display.
    pub fn sample(&mut self, boottime_ms: u64, wall_ms: u64) -> Outcome {
        let mut sample =
            v1::MachineSample { at_ms: wall_ms, boottime_ms, cores: cores(), ..v1::MachineSample::default() };
        self.read_tables(&mut sample);
        self.read_limit(&mut sample);
        let answer = self.prober.spaces(&self.watched());
        sample.mounts = answer.spaces.iter().map(|s| s.mount.clone()).collect();
        sample.unreadable.extend(answer.problems);
        let new_xids = self.read_gpus(&mut sample);
        sample.unreadable.truncate(UNREADABLE_MAX);

        self.board.begin(boottime_ms, wall_ms);
        judge::refusals(&mut self.board, &answer.kept);
        let forecasts = self.judge(&sample, &answer.spaces, &new_xids);
        let edges = self.board.finish();
        Outcome { edges, active: self.board.active(), forecasts, leave_machine: self.nvidia.leave(), sample }
    }

    fn judge(
        &mut self,
        sample: &v1::MachineSample,
        spaces: &[Space],
        new_xids: &[(String, xid::Xid)],
    ) -> Vec<v1::Forecast> {
        let board = &mut self.board;
        let mut forecasts = self.forecaster.judge(board, &self.spec, sample, spaces);
        forecasts.extend(self.programs.judge(board, &self.spec, sample, &mut self.buffer));
        judge::pressure(board, &self.spec, sample.pressure.as_ref());
        // Between two answers of the tool nothing is known that was not known before.
        if self.nvidia.is_present() && !self.nvidia.is_fresh() {
            board.keep(|name| name.starts_with("gpu-") && name != "gpu-lost");
        } else {
            judge::gpus(board, &self.spec, &sample.gpus, &mut self.corrected);
            board.keep(|name| name == "gpu-xid");
        }
        for (subject, xid) in new_xids {
            let level = match xid.remedy {
                Remedy::LeaveMachine => "critical",
                Remedy::ResetGpu => "warning",
                Remedy::RestartProgram | Remedy::None => "info",
            };
            let text = format!("{subject}: Xid {} (limit: none), new: {}", xid.number, xid.text);
            board.latch(
                "gpu-xid",
                &format!("{subject} xid {}", xid.number),
                level,
                f64::from(xid.number),
                &text,
            );
        }
        if let Some(lost) = self.nvidia.lost() {
            board.latch("gpu-lost", "", "critical", 1.0, &format!("{lost} (1 lost, limit 0, steady)"));
        }
        forecasts
    }

    fn watched(&self) -> Vec<Place> {
        let place = |holds: &str, path: &Path| Place { holds: holds.to_owned(), path: path.to_path_buf() };
        let mut places = vec![
            place("state", &self.places.state),
            place("cache", &self.places.cache),
            place("root", Path::new("/")),
            place("tmp", Path::new("/tmp")),
            place("shm", Path::new("/dev/shm")),
        ];
        places.extend(self.places.extra.iter().map(|(holds, path)| place(holds, path)));
        places
    }

    fn read_tables(&mut self, sample: &mut v1::MachineSample) {
        let Self { tables, buffer, .. } = self;
        let unreadable = &mut sample.unreadable;
        let cpu = read(&mut tables.stat, buffer, unreadable, proc::cpu);
        if let Some((total, available)) = read(&mut tables.meminfo, buffer, unreadable, proc::memory) {
            (sample.memory_total_bytes, sample.memory_available_bytes) = (total, available);
        }
        let disk = read(&mut tables.diskstats, buffer, unreadable, proc::disks);
        let net = read(&mut tables.net, buffer, unreadable, proc::network);
        // Kernels without PSI are common; one line for its three files.
        let mut absent = Vec::new();
        let [of_cpu, of_memory, of_io] =
            tables.pressure.each_mut().map(|table| read(table, buffer, &mut absent, proc::pressure));
        unreadable.extend(absent.into_iter().take(1));
        sample.pressure =
            (of_cpu.is_some() || of_memory.is_some() || of_io.is_some()).then(|| v1::Pressure {
                cpu_some: of_cpu.unwrap_or_default().0,
                memory_some: of_memory.unwrap_or_default().0,
                memory_full: of_memory.unwrap_or_default().1,
                io_some: of_io.unwrap_or_default().0,
                io_full: of_io.unwrap_or_default().1,
            });

        (sample.net_received_bytes, sample.net_sent_bytes) = net.unzip();
        let now = Before { boottime_ms: sample.boottime_ms, cpu, disk, net };
        if let Some(before) = self.before.replace(now).filter(|b| b.boottime_ms < sample.boottime_ms) {
            let seconds = proc::to_f64(sample.boottime_ms - before.boottime_ms) / 1000.0;
            let rates = |now: Option<(u64, u64)>, before: Option<(u64, u64)>| {
                let (now, before) = (now?, before?);
                Some((proc::rate(now.0, before.0, seconds), proc::rate(now.1, before.1, seconds)))
            };
            sample.cpu_percent = cpu.and_then(|c| c.percent_since(before.cpu?));
            (sample.disk_read_per_s, sample.disk_write_per_s) = rates(disk, before.disk).unwrap_or_default();
            (sample.net_received_per_s, sample.net_sent_per_s) = rates(net, before.net).unwrap_or_default();
        }
    }

    fn read_limit(&mut self, sample: &mut v1::MachineSample) {
        if self.until_limit == 0 {
            self.until_limit = LIMIT_EVERY;
            let own = self.own_cgroup.read(&mut self.buffer).unwrap_or_default().into_owned();
            self.limit = MemoryLimit::find(&self.cgroup_root, &own);
        }
        self.until_limit -= 1;
        let Some(memory) = self.limit.as_mut().and_then(|l| l.read(&mut self.buffer)) else { return };
        // A limit above what the machine has limits nothing.
        if memory.limit < sample.memory_total_bytes || sample.memory_total_bytes == 0 {
            sample.memory_limit_bytes = memory.limit;
            sample.memory_used_in_limit_bytes = memory.used;
        }
    }

    fn read_gpus(&mut self, sample: &mut v1::MachineSample) -> Vec<(String, xid::Xid)> {
        self.nvidia.sample(sample.boottime_ms);
        let xids = self.kernel_log.poll(&mut self.buffer);
        let new = self.nvidia.take_xids(xids);
        sample.gpus = self.nvidia.gpus();
        let first = sample.gpus.iter().map(|g| g.index + 1).max().unwrap_or(0);
        sample.gpus.extend(self.amd.sample(sample.boottime_ms, first));
        self.nvidia.problem().clone_into(&mut sample.gpu_problem);
        if self.nvidia.is_present() {
            sample.unreadable.extend(self.kernel_log.problem());
        }
        if self.nvidia.abandoned() > 0 {
            let count = self.nvidia.abandoned();
            sample.unreadable.push(format!("nvidia-smi: {count} of its processes could not be killed"));
        }
        if self.kernel_log.overruns > 0 {
            let count = self.kernel_log.overruns;
            sample.unreadable.push(format!("kernel log: overwritten {count} times before it was read"));
        }
        new
    }
}

fn read<T>(
    source: &mut Source,
    buffer: &mut Vec<u8>,
    unreadable: &mut Vec<String>,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let why = match source.read(buffer) {
        Ok(text) => match parse(&text) {
            Some(value) => return Some(value),
            None => "holds nothing that could be read".to_owned(),
        },
        Err(e) => e.to_string(),
    };
    unreadable.push(format!("{}: {why}", source.path().display()));
    None
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
