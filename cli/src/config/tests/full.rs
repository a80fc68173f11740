//! A configuration that sets every key, and where each of them arrives.

use super::*;

pub(super) const FULL: &str = r#"
[project]
name = "vision"
[run]
command = "python train.py --name 'a b'"
name = "resnet"
workdir = "./src/"
env = { SEED = 7, LR = 0.5, DEBUG = true, EMPTY = "" }
provider = "local"
grace = "1m30s"
pty = true
cache = true
local_store = "accept"
[secrets]
HF_TOKEN = { env = "MY_TOKEN" }
WANDB_API_KEY = { file = "~/.wandb" }
OTHER = { keyring = "service/name" }
[data]
hf = ["org/model", "dataset:org/name@v1.0"]
urls = [{ url = "https://host/x.bin", sha256 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", to = "data/x.bin" }]
[source]
include = ["configs/*.bin"]
exclude = ["data/**"]
[environment]
setup = ["pip install -e ."]
kind = "auto"
image = "docker.io/library/python:3.12"
[limits]
memory = "32GiB"
cpus = 1.5
pids = 4096
open_files = 65536
[checkpoints]
paths = ["out/*.pt"]
restore = "in-place"
resume_args = ["--resume={path}"]
quiet = "5s"
marker = "{name}.done"
check = ["python", "check.py"]
keep_local = 2
uplink_percent = 50
keep_latest = 4
keep_all = "36h"
keep_daily = "14d"
keep_weekly = "52d"
keep_best = 2
encrypt = true
cadence = "adaptive"
best = "val_loss:min"
[artifacts]
globs = ["results/**"]
[retry]
failures = 0
losses = 4
[budget]
max_usd = 5
max_usd_per_hour = 0.75
max_usd_project = 30
max_usd_day = 9
[machine]
gpus = ["RTX_4090", "RTX 3090"]
gpu_count = 2
gpu_memory = "24GB"
memory = "64GB"
cpus = 8
disk = "50GB"
regions = ["no", "SE"]
reliability = 0.95
image = "pytorch/pytorch:latest"
market = "interruptible"
when_stopped = "return"
filter = ["cuda_max_good >= 12.4", "gpu_arch in [nvidia, amd]"]
avoid = ["10034", "host:5"]
speculate = true
speculate_after = "20s"
lost_after = "1m"
[logs]
spool = "2GiB"
[health]
interval = "5s"
disk_percent = 80
inodes_percent = 85.5
memory_percent = 92
pressure_percent = 40
gpu_celsius = 85
forecast = "20m"
[hang]
action = "move"
after = "15m"
[notice]
signal = "usr2"
source = "azure"
hook = ["./taken", "--soon"]
file = "/run/taken"
[early_stop]
rules = ["nan", "val_acc < 0.5 after 10k"]
[metrics]
template = "lightning"
step = "trainer/step"
time = "wall"
primary = "val/loss"
validation = ["val/*"]
per_step = "loss_step_{n}"
sensitivity = 0.5
stages = [{ name = "warm-up", from = 0 }, { name = "main", from = 1000 }]
groups = { optimizer = ["lr", "grad_norm"] }
[metrics.keys."val/loss"]
role = "loss"
direction = "lower"
split = "validation"
display = "validation loss"
unit = "nats"
group = "quality"
pair = "train/loss"
target = 0.35
sensitivity = 2
plateau_window = 0.2
plateau_threshold = 0.02
[local]
usd_per_hour = 0.25
"#;

#[test]
fn every_key_reaches_the_specification() {
    let loaded = case(FULL).load().unwrap();
    let spec = loaded.run_spec(&[]).unwrap();
    assert_eq!((spec.project.as_str(), spec.name.as_str()), ("vision", "resnet"));
    assert_eq!(spec.command, ["python", "train.py", "--name", "a b"]);
    assert_eq!(spec.workdir, "src");
    let env: Vec<_> = spec.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["DEBUG=true", "EMPTY=", "LR=0.5", "SEED=7"]);
    assert_eq!(spec.secrets, ["HF_TOKEN", "OTHER", "WANDB_API_KEY"]);
    assert_eq!(loaded.config.secrets.sources["HF_TOKEN"], super::Secret::Env("MY_TOKEN".into()));
    let hf: Vec<String> = spec.data.hf.iter().map(ToString::to_string).collect();
    assert_eq!(hf, ["org/model", "dataset:org/name@v1.0"]);
    assert_eq!((spec.data.urls[0].to.as_str(), spec.data.urls[0].sha256.len()), ("data/x.bin", 64));
    assert_eq!(spec.grace_seconds, 90);
    assert_eq!(spec.environment.kind, EnvironmentKind::Auto);
    assert_eq!(spec.environment.image, "docker.io/library/python:3.12");
    let limits = &spec.limits;
    assert_eq!((limits.memory_bytes, limits.cpus, limits.pids), (Some(32 << 30), Some(1.5), Some(4096)));
    assert_eq!((limits.open_files, spec.pty), (Some(65_536), true));
    assert_eq!(spec.environment.setup, ["pip install -e ."]);
    assert_eq!(spec.checkpoints.paths, ["out/*.pt"]);
    assert_eq!(spec.checkpoints.restore, RestoreMode::InPlace);
    assert_eq!(spec.checkpoints.resume_args, ["--resume={path}"]);
    assert_eq!((spec.checkpoints.marker.as_str(), spec.checkpoints.check.len()), ("{name}.done", 2));
    assert_eq!((spec.checkpoints.quiet_seconds, spec.checkpoints.keep_local), (5, 2));
    assert_eq!(spec.checkpoints.uplink_percent, 50);
    // Days are rounded up: what is asked for is kept.
    assert_eq!(spec.checkpoints.encrypt, lifecycle::spec::Encrypt::Always);
    assert_eq!(spec.checkpoints.cadence, lifecycle::spec::Cadence::Adaptive);
    let keep = spec.checkpoints.keep;
    assert_eq!((keep.latest, keep.all_days, keep.daily_days, keep.weekly_days), (4, 2, 14, 52));
    assert_eq!(spec.artifacts, ["results/**"]);
    assert_eq!((spec.retry.failures, spec.retry.losses), (0, Some(4)));
    assert_eq!((spec.max_usd, spec.spool_bytes), (Some(5.0), 2 << 30));
    assert_eq!(spec.max_usd_per_hour, Some(0.75));
    assert_eq!((spec.max_usd_project, spec.max_usd_day), (Some(30.0), Some(9.0)));
    assert!(loaded.config.run.accepts_local_store);
    let machine = &spec.machine;
    assert_eq!(machine.gpus, ["RTX_4090", "RTX 3090"]);
    assert_eq!((machine.gpu_count, machine.cpus, machine.min_reliability), (2, 8, 0.95));
    assert_eq!((machine.gpu_memory_bytes, machine.memory_bytes), (24_000_000_000, 64_000_000_000));
    assert_eq!((machine.disk_bytes, machine.regions.join(" ")), (50_000_000_000, "NO SE".into()));
    let filter: Vec<String> = machine.filter.iter().map(ToString::to_string).collect();
    assert_eq!(filter, ["cuda_max_good >= 12.4", "gpu_arch in [nvidia, amd]"]);
    assert_eq!(machine.avoid, ["10034", "host:5"]);
    assert_eq!(
        (machine.image.as_str(), machine.market),
        ("pytorch/pytorch:latest", lifecycle::spec::Market::Interruptible)
    );
    assert_eq!((machine.speculate, machine.speculate_after_seconds), (true, 20));
    assert_eq!((machine.lost_after_seconds, machine.own_patience()), (60, Some(60)));
    let health = &spec.health;
    assert_eq!((health.interval_seconds, health.forecast_seconds), (5, 1_200));
    assert_eq!((health.disk_percent, health.inodes_percent, health.memory_percent), (80.0, 85.5, 92.0));
    assert_eq!((health.pressure_percent, health.gpu_celsius), (40.0, 85.0));
    assert_eq!((health.hang.action, health.hang.after_seconds), (HangAction::Move, 900));
    let notice = &spec.notice;
    assert_eq!((notice.signal, notice.source), (NoticeSignal::Usr2, NoticeSource::Azure));
    assert_eq!((notice.hook.join(" "), notice.file.as_str()), ("./taken --soon".into(), "/run/taken"));
    assert_eq!(spec.early_stop.rules, ["nan", "val_acc < 0.5 after 10k"]);
    assert_eq!(loaded.config.source.include, ["configs/*.bin"]);
    assert_eq!(loaded.config.source.exclude, ["data/**"]);
    assert_eq!(loaded.config.local.usd_per_hour, 0.25);
    let metrics = &loaded.config.metrics;
    assert_eq!((metrics.template, metrics.stages.len()), (Some(Template::Lightning), 2));
    let of_one = &metrics.keys["val/loss"];
    assert_eq!((of_one.sensitivity, of_one.target), (Some(2.0), Some(0.35)));
    for setting in settings().iter().filter(|setting| *setting != "run.env") {
        assert!(matches!(loaded.origins[setting], Origin::ProjectFile { .. }), "{setting} is not in FULL");
    }
}

/// Patience with a silent machine: never shorter than its lease, and what is
/// made before it ends is made before it ends.
#[test]
fn patience_with_a_silent_machine_has_its_bounds() {
    let refused = |keys: &str| {
        let text = format!("[run]\ncommand = \"true\"\n[machine]\n{keys}");
        case(&text).load().map(|_| ()).map_err(|errors| errors.to_string())
    };
    assert_eq!(refused("lost_after = \"25s\"\nspeculate = true"), Ok(()));
    assert_eq!(refused("speculate_after = \"40s\""), Ok(()), "nothing is made early");
    assert!(refused("lost_after = \"24s\"").unwrap_err().contains("at least 25s"));
    assert!(refused("lost_after = \"2d\"").unwrap_err().contains("at most a day"));
    assert!(refused("speculate_after = \"2s\"").unwrap_err().contains("at least 3s"));
    let late = refused("speculate = true\nspeculate_after = \"30s\"").unwrap_err();
    assert!(late.contains("must be less than machine.lost_after (30s)"), "{late}");
}
