//! The two threads that look after the machine: one samples, the other does
//! what may wait for a disk or for a process. Each has a short queue; what does
//! not fit is refused and counted, never waited for.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use lifecycle::spec::HealthSpec;
use proto::v1;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::evidence::{self, Part};
use crate::health::Outcome;
use crate::keeper::STARTED_FILE;
use crate::os;
use crate::world::layout::AttemptDir;
use crate::world::materialise::Launch;
use crate::world::{Relief, World};

/// Orders that wait for a thread.
const QUEUE: usize = 32;
/// All of py-spy's time in one dump, and the processes that it is asked about.
const PY_SPY: Duration = Duration::from_secs(10);
const PY_SPY_PROCESSES: usize = 4;

/// What is sampled, and against which limits.
pub(super) struct Ask {
    pub(super) spec: HealthSpec,
    pub(super) extra: Vec<(String, std::path::PathBuf)>,
    /// Names of runs and their programs' processes.
    pub(super) programs: Vec<(String, i32)>,
}

/// What the second thread does. Each has one answer.
pub(super) enum Chore {
    /// What these trees use: attempt and process.
    Look(Vec<(String, i32)>),
    /// The first part of an attempt's evidence, with the names of the GPUs.
    Begin(String, Value),
    /// A line of evidence.
    Note(String, &'static str, Value),
    /// Where its processes wait; with its work and durable step it is also
    /// remembered that it hung.
    Dump { attempt: String, why: String, pids: Vec<i32>, moves: Option<(Box<v1::Work>, Option<u64>)> },
    /// Room on the disk of its checkpoints, which fills so fast.
    Relieve(Box<v1::Work>, f64),
    /// What the next process of the agent must know.
    Keep(String, Vec<u8>),
}

/// The answers.
pub(in crate::driver) enum Told {
    Nothing,
    Looked(Vec<(String, Seen)>),
    /// The attempt, and whether its run hung here before.
    Dumped(String, bool),
    Relieved(String, Relief),
}

/// What a look at a program's processes found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::driver) struct Seen {
    pub(super) usage: os::Usage,
    /// `false`: the program runs in a container whose processes are not among
    /// these, so that they tell nothing of it.
    pub(super) is_whole: bool,
}

/// What a driver hears of its threads.
pub(in crate::driver) enum Heard {
    Sampled(Box<Outcome>),
    Told(Told),
}

/// A thread that answers each order once.
pub(super) struct Worker<I, O> {
    name: &'static str,
    orders: SyncSender<I>,
    answers: mpsc::Receiver<O>,
    refused: u64,
}

impl<I: Send + 'static, O: Send + 'static> Worker<I, O> {
    /// `None`: the system gives no thread.
    pub(super) fn new(name: &'static str, mut perform: impl FnMut(I) -> O + Send + 'static) -> Option<Self> {
        let (orders, taken) = sync_channel::<I>(QUEUE);
        let (answer, answers) = mpsc::channel(QUEUE);
        let body = move || {
            while let Ok(order) = taken.recv() {
                if answer.blocking_send(perform(order)).is_err() {
                    break;
                }
            }
        };
        // Detached: a thread that waits for a dead disk must not be joined.
        match std::thread::Builder::new().name(name.into()).stack_size(512 << 10).spawn(body) {
            Ok(_) => Some(Self { name, orders, answers, refused: 0 }),
            Err(error) => {
                tracing::error!(%error, name, "a thread could not be started: nothing is looked after");
                None
            }
        }
    }

    /// Gives an order; `false`: too many wait already.
    pub(super) fn ask(&mut self, order: I) -> bool {
        match self.orders.try_send(order) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.refused += 1;
                if self.refused.is_power_of_two() {
                    let (name, refused) = (self.name, self.refused);
                    tracing::warn!(name, refused, "a thread does not keep up: orders are left out");
                }
                false
            }
        }
    }

    /// The next answer; never, once the thread is gone.
    pub(super) async fn told(&mut self) -> O {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

/// The second thread.
pub(super) struct Hands {
    world: Arc<dyn World>,
}

impl Hands {
    pub(super) fn new(world: Arc<dyn World>) -> Self {
        Self { world }
    }

    pub(super) fn perform(&mut self, chore: Chore) -> Told {
        match chore {
            Chore::Look(trees) => {
                let look = |(id, pid): (String, i32)| {
                    let seen = seen(self.world.directory(&id).as_ref(), pid)?;
                    Some((id, seen))
                };
                return Told::Looked(trees.into_iter().filter_map(look).collect());
            }
            Chore::Begin(id, gpus) => self.with(&id, |dir| evidence::begin(dir, &gpus)),
            Chore::Note(id, kind, line) => {
                self.with(&id, |dir| evidence::note(dir, Part::Course, kind, line));
            }
            Chore::Dump { attempt, why, pids, moves } => {
                self.with(&attempt, |dir| super::hangs::dump(dir, &why, &pids));
                let again = moves.is_some_and(|(work, durable)| self.world.hangs_again(&work, durable));
                return Told::Dumped(attempt, again);
            }
            Chore::Relieve(work, filling_per_s) => {
                let relief = self.world.relieve(&work, filling_per_s);
                return Told::Relieved(work.attempt_id, relief);
            }
            Chore::Keep(id, bytes) => self.with(&id, |dir| {
                if let Err(error) = os::write_durable(&dir.care(), &bytes) {
                    tracing::warn!(%error, "what was learned of a program could not be written");
                }
            }),
        }
        Told::Nothing
    }

    fn with(&self, id: &str, act: impl FnOnce(&AttemptDir)) {
        // What was removed meanwhile is not made again.
        if let Some(dir) = self.world.directory(id).filter(|dir| dir.path().is_dir()) {
            act(&dir);
        }
    }
}

/// What a program uses, `pid` being what the keeper started for it.
fn seen(dir: Option<&AttemptDir>, pid: i32) -> Option<Seen> {
    let keeper = dir.and_then(|dir| {
        let bytes = os::read_bounded(&dir.path().join(STARTED_FILE), 64 << 10).ok()?;
        serde_json::from_slice::<os::ProcessRef>(&bytes).ok()
    });
    let usage = os::usage(keeper.as_ref(), pid)?;
    let launch = dir.and_then(launch);
    let is_whole = launch.and_then(|launch| launch.container).is_none_or(|container| {
        // Only podman's containers are below our own processes: what it wrote
        // is the first process of the container, while docker names it.
        let mark = os::read_bounded(&container.mark, 1 << 10).unwrap_or_default();
        let first = std::str::from_utf8(&mark).ok().and_then(|text| text.trim().parse::<i32>().ok());
        first.is_some_and(|first| usage.pids.contains(&first))
    });
    Some(Seen { usage, is_whole })
}

fn launch(dir: &AttemptDir) -> Option<Launch> {
    serde_json::from_slice(&os::read_bounded(&dir.launch(), 4 << 20).ok()?).ok()
}

/// What the interpreters of a program say of their threads, through py-spy
/// where it is installed.
pub(super) fn interpreters(dir: &AttemptDir, stacks: &[os::Stack], note: impl Fn(Value)) {
    let own = std::env::var("PATH").unwrap_or_default();
    let paths = launch(dir).and_then(|launch| launch.env.get("PATH").cloned()).into_iter().chain([own]);
    let Some(tool) = paths.into_iter().find_map(|path| os::find_in_path(&path, "py-spy")) else { return };
    let until = Instant::now() + PY_SPY;
    for stack in stacks.iter().filter(|s| s.name.starts_with("python")).take(PY_SPY_PROCESSES) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        note(match os::py_spy(&tool, stack.pid, left) {
            Ok(text) => json!({"tool": "py-spy", "pid": stack.pid, "text": text}),
            Err(problem) => json!({"tool": "py-spy", "pid": stack.pid, "problem": problem}),
        });
    }
}

/// The names of the GPUs.
pub(super) fn gpu_names(sample: &v1::MachineSample) -> Value {
    sample
        .gpus
        .iter()
        .map(|g| json!({"index": g.index, "name": g.name, "uuid": g.uuid, "driver": g.driver}))
        .collect()
}

/// A sample as evidence keeps it: short.
pub(super) fn figures(sample: &v1::MachineSample, usage: &os::Usage, step: Option<u64>) -> Value {
    let disks: Vec<Value> = sample
        .mounts
        .iter()
        .take(8)
        .map(|m| json!({"path": m.path, "free_bytes": m.free_bytes, "total_bytes": m.total_bytes}))
        .collect();
    let gpus: Vec<Value> = sample
        .gpus
        .iter()
        .take(16)
        .map(|g| {
            json!({
                "index": g.index, "utilization_percent": g.utilization_percent,
                "memory_used_bytes": g.memory_used_bytes, "temperature_celsius": g.temperature_celsius,
                "power_watts": g.power_watts, "throttle": g.throttle, "xids": g.xids,
            })
        })
        .collect();
    json!({
        "step": step,
        "cpu_percent": sample.cpu_percent.map(f64::round),
        "memory_total_bytes": sample.memory_total_bytes,
        "memory_available_bytes": sample.memory_available_bytes,
        "memory_limit_bytes": sample.memory_limit_bytes,
        "memory_used_in_limit_bytes": sample.memory_used_in_limit_bytes,
        "tree": {"processes": usage.pids.len(), "rss_bytes": usage.rss_bytes, "cpu_ms": usage.cpu_ms},
        "disks": disks, "gpus": gpus, "sampled_ms": sample.at_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_uses_is_known_only_where_its_processes_are_below() {
        let root = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(root.path(), "a");
        std::fs::create_dir_all(dir.path()).unwrap();
        let own = std::process::id().cast_signed();
        let whole = |container: Value, mark: &str| {
            let launch = json!({"argv": ["x"], "cwd": "", "env": {}, "container": container});
            std::fs::write(dir.launch(), launch.to_string()).unwrap();
            std::fs::write(dir.path().join("mark"), mark).unwrap();
            seen(Some(&dir), own).map(|seen| (seen.usage.pids.contains(&own), seen.is_whole))
        };
        let tool = |tool: &str| json!({"tool": tool, "name": "n", "mark": dir.path().join("mark")});
        let id = "3f2504e04f8911d39a0c0305e82c33013f2504e04f8911d39a0c0305e82c3301";
        assert_eq!(whole(Value::Null, ""), Some((true, true)));
        assert_eq!(whole(tool("/usr/bin/docker"), id), Some((true, false)));
        assert_eq!(whole(tool("/usr/bin/podman"), &format!("{own}\n")), Some((true, true)));
        assert_eq!(whole(tool("/usr/bin/podman"), "1\n"), Some((true, false)), "not below us");
        assert_eq!(whole(tool("/usr/bin/podman"), ""), Some((true, false)), "not started yet");
        assert_eq!(seen(Some(&dir), i32::MAX), None);
    }

    #[tokio::test]
    async fn a_thread_that_waits_for_ever_refuses_orders_and_stops_nobody() {
        let (open, gate) = sync_channel::<()>(1);
        let (began, begun) = sync_channel::<()>(1);
        let mut worker = Worker::new("test", move |n: u32| {
            if n == 0 {
                began.send(()).unwrap();
                let _ = gate.recv();
            }
            n
        })
        .unwrap();
        assert!(worker.ask(0));
        // It has taken the first, and makes no more room.
        begun.recv().unwrap();
        let taken = (1..1_000).take_while(|n| worker.ask(*n)).count();
        assert_eq!(taken, QUEUE);
        assert!(!worker.ask(7) && worker.refused >= 2);
        open.send(()).unwrap();
        for expected in 0..u32::try_from(taken).unwrap() {
            assert_eq!(worker.told().await, expected);
        }
    }
}
