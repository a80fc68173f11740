//! The controller that is measured: this program again, with a provider whose
//! machines are simply there.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use controller::app::{self, Config, Providers};
use controller::liveness::Clocks;
use controller::provider::{
    CreateOutcome, CreateRequest, DestroyOutcome, Idempotency, InstanceState, Listing, Presence, Provider,
    Reach,
};

/// Whatever is asked for is there and runs.
struct There;

#[async_trait::async_trait]
impl Provider for There {
    fn name(&self) -> &'static str {
        "bench"
    }
    fn reach(&self) -> Reach {
        Reach::MachineDials
    }
    fn idempotency(&self) -> Idempotency {
        Idempotency::ClientChosenName
    }
    fn usd_per_hour(&self) -> f64 {
        0.0
    }
    fn settle_window_ms(&self) -> u64 {
        1_000
    }
    async fn create(&self, _: &CreateRequest) -> CreateOutcome {
        CreateOutcome::rejected("no machine is made here")
    }
    async fn list(&self, _: &str) -> Listing {
        Listing::Partial(Vec::new())
    }
    async fn get(&self, _: &str) -> Presence {
        Presence::Present(InstanceState::Up)
    }
    async fn destroy(&self, _: &str) -> DestroyOutcome {
        DestroyOutcome::Absent
    }
}

pub(super) fn serve(home: PathBuf) {
    let exe = std::env::current_exe().expect("a program has a file");
    let config = Config { build_id: "bench".into(), home, agent_exe: exe, clocks: Clocks::default() };
    let more: Providers = BTreeMap::from([("bench".to_owned(), Arc::new(There) as Arc<dyn Provider>)]);
    let filter = std::env::var("OUTLAST_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(filter).init();
    if let Err(error) = super::runtime(2).block_on(app::run_with(config, more)) {
        eprintln!("the controller failed: {error}");
        std::process::exit(70);
    }
}

/// The controller, and when it had planned for the first time.
pub(super) struct Served {
    pub(super) child: Child,
    pub(super) began: Instant,
    pub(super) planned: Arc<Mutex<Option<f64>>>,
}

pub(super) fn start(home: &Path) -> Served {
    let exe = std::env::current_exe().expect("a program has a file");
    let began = Instant::now();
    let mut child = Command::new(exe)
        .args(["serve", "--home"])
        .arg(home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a controller");
    let planned = Arc::new(Mutex::new(None));
    let (said, out) = (planned.clone(), child.stderr.take().expect("its log"));
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if line.contains("planned for the first time") {
                said.lock().expect("nobody panics").get_or_insert(began.elapsed().as_secs_f64());
            }
            if std::env::var_os("BENCH_LOG").is_some() {
                eprintln!("{line}");
            }
        }
    });
    Served { child, began, planned }
}

/// Where the controller of this process serves.
pub(super) async fn rendezvous(home: &Path, served: &Served) -> (String, String) {
    loop {
        let at = controller::home::rendezvous(home).filter(|at| at.pid == served.child.id());
        if let Some(at) = at {
            return (at.agents, at.join);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
