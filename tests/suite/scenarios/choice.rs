//! Whom to rent from: a cheaper host that failed before is passed over, a person
//! is told what is rented and asked, and a measured rate says what is best. Against
//! the fake vendor, with the real program.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::carried::give_agent;
use super::stage::{Said, Stage, wait};
use super::vast::{CAPS, Project, Vendor};

/// A machine of the market, without a price for traffic and disk.
fn host(id: u64, gpu: &str, usd: f64) -> Value {
    json!({
        "machine_id": id, "gpu_name": gpu, "num_gpus": 1, "price": usd, "storage_cost": 0.0,
        "storage_cost_stopped": 0.0, "inet_up_cost": 0.0, "inet_down_cost": 0.0, "reliability": 0.99,
        "direct_port_count": 50, "disk_space": 200.0, "verification": "verified", "geolocation": "Norway, NO\u{1b}[2J",
        "inet_down": 900.0
    })
}

fn market(stage: &Stage, test: &str, machines: &[Value]) -> Option<Vendor> {
    let vendor = Vendor::with(stage, test, &["--offers", "0", "--speed", "20"])?;
    vendor.control("POST", "offers", &json!({"machines": machines}));
    Some(vendor)
}

fn remembered(stage: &Stage, of: &str, name: &str) -> Option<Value> {
    let all = stage.ok(&["hosts", "--json"]).json();
    all.as_array().unwrap().iter().find(|row| row["of"] == of && row["name"] == name).cloned()
}

#[test]
fn the_cheaper_host_that_failed_before_is_not_rented_again() {
    let stage = Stage::new();
    let test = "the_cheaper_host_that_failed_before_is_not_rented_again";
    let Some(vendor) = market(&stage, test, &[host(1, "RTX 4090", 0.30)]) else { return };
    let stage = stage.with(vendor.environment());
    give_agent(&stage.home);
    let project = Project::new(&stage, CAPS);
    let path = project.root.to_str().unwrap();

    // There is one host, and what is started there does not start.
    let fate = json!({"kind": "startup_failure", "message": "OCI runtime create failed: no such device"});
    let rule = json!({"on": ["create"], "fault": {"kind": "fate", "fate": fate}});
    vendor.control("POST", "faults", &json!({"add": [rule]}));
    let first = stage.submit(&project.root, &[]);
    let failed =
        |least: f64| remembered(&stage, "host", "1").filter(|row| row["failed"].as_f64().unwrap() >= least);
    let known = wait("a failed start in the books", || failed(0.9));
    assert!(known["score"].as_f64().unwrap() < 45.0 && known["came_up"] == 0.0, "{known:#}");
    stage.ok(&["destroy", &first, "--yes"]);
    wait("nothing rented", || vendor.rented().is_empty().then_some(()));
    vendor.control("POST", "faults", &json!({"clear": true}));

    // Now there is another one, a little dearer, and both work.
    let others = [host(2, "RTX 4090", 0.305), host(3, "RTX 3090", 0.29)];
    vendor.control("POST", "offers", &json!({"machines": others}));
    let wish = ["--set", "machine.gpus=[\"RTX 4090\"]"];
    let offers = stage.ok(&[&["offers", path, "--json", "--work", "1h"][..], &wish].concat()).json();
    assert_eq!((&offers[0]["machine"], &offers[1]["machine"]), (&json!("2"), &json!("1")), "{offers:#}");
    assert!(offers[0]["usd_per_hour"].as_f64() > offers[1]["usd_per_hour"].as_f64());
    let usd = |n: usize| offers[n]["outlook"]["usd"].as_f64().unwrap();
    assert!(usd(0) < usd(1) && usd(0) > 0.305, "{offers:#}");
    assert_eq!((&offers[0]["known"], &offers[1]["known"]), (&json!(false), &json!(true)));
    let table = stage.ok(&[&["offers", path, "--work", "1h"][..], &wish].concat()).text();
    assert!(table.contains("TO FINISH") && !table.contains('\u{1b}'), "{table}");

    fs::write(&project.gate, "60").unwrap();
    let second = stage.submit(&project.root, &["machine.gpus=[\"RTX 4090\"]"]);
    stage.ends_as(&second, "SUCCEEDED");
    let state = wait("nothing rented", || Some(vendor.state()).filter(|s| s["instances"] == json!([])));
    let hosts: Vec<u64> =
        state["ended"].as_array().unwrap().iter().map(|one| one["machine"].as_u64().unwrap()).collect();
    assert_eq!(hosts.last(), Some(&2), "{state:#}");
    assert!(hosts[..hosts.len() - 1].iter().all(|host| *host == 1), "{hosts:?}");
    let good = wait("its record", || remembered(&stage, "host", "2"));
    assert!(good["came_up"].as_f64().unwrap() > 0.9 && good["failed"] == 0.0, "{good:#}");
    assert!(remembered(&stage, "kind", "on-demand rtx 4090").is_some());

    // The rate of that run, on the other kinds: an estimate, and told as one.
    let ask = ["recommend", second.as_str(), "--trial", "--steps", "1000000", "--path", path, "--json"];
    let told = stage.ok(&ask).json();
    assert_eq!((&told["measured_on"], &told["estimate"]), (&json!("RTX 4090"), &json!(true)), "{told:#}");
    let kinds = told["kinds"].as_array().unwrap();
    assert_eq!(kinds.len(), 2, "{told:#}");
    let of = |gpu: &str| kinds.iter().find(|kind| kind["offer"]["gpu"] == gpu).unwrap().clone();
    let (own, other) = (of("RTX 4090"), of("RTX 3090"));
    assert_eq!((&own["estimated"], &other["estimated"]), (&json!(false), &json!(true)));
    let rate = |kind: &Value| kind["steps_per_second"].as_f64().unwrap();
    // 32.4 and 92.2 in the vendor's measure.
    assert!((rate(&other) / rate(&own) - 32.4 / 92.2).abs() < 0.01, "{told:#}");
    let text = stage.ok(&["recommend", "--steps-per-second", "2", "--steps", "90000", "--path", path]);
    assert!(text.text().contains("STEPS/S") && text.stderr.contains("DLPerf"), "{text:?}");
    stage.verify();
}

/// Types answers on a terminal of its own: all that was shown, and the exit code.
fn typed(stage: &Stage, vendor: &Vendor, answers: &str, args: &[&str]) -> (i32, String) {
    const SCRIPT: &str = "import os,pty,sys\n\
        pid,fd=pty.fork()\n\
        if pid==0: os.execv(sys.argv[2],sys.argv[2:])\n\
        os.write(fd,sys.argv[1].encode())\n\
        out=b''\n\
        while True:\n\
        \ttry: part=os.read(fd,4096)\n\
        \texcept OSError: break\n\
        \tif not part: break\n\
        \tout+=part\n\
        sys.stdout.buffer.write(out)\n\
        sys.stdout.flush()\n\
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid,0)[1]))\n";
    let said = Command::new("python3")
        .args(["-c", SCRIPT, answers])
        .arg(stage.exe())
        .args(args)
        .env("OUTLAST_HOME", &stage.home)
        .env("XDG_CONFIG_HOME", stage.path("config"))
        .env("HOME", stage.path(""))
        .envs(vendor.environment())
        .output()
        .unwrap();
    (said.status.code().unwrap_or(-1), String::from_utf8_lossy(&said.stdout).into_owned())
}

#[test]
fn nothing_is_rented_before_a_person_or_a_script_said_yes() {
    let stage = Stage::new();
    let test = "nothing_is_rented_before_a_person_or_a_script_said_yes";
    let Some(vendor) = market(&stage, test, &[host(1, "RTX 4090", 0.30), host(2, "RTX 3090", 0.20)]) else {
        return;
    };
    let stage = stage.with(vendor.environment());
    give_agent(&stage.home);
    let project = Project::new(&stage, "");
    let path = project.root.to_str().unwrap();
    let untouched = || {
        assert_eq!(vendor.state()["journal"]["counts"].get("create"), None);
        assert!(stage.ok(&["status", "--all", "--json"]).json().as_array().unwrap().is_empty());
    };

    // Nobody to ask, and nobody said yes: as other confirmations do.
    let refused: Said = stage.call(&["run", path, "-d"]);
    assert!(refused.code == 64 && refused.stderr.contains("--yes"), "{refused:?}");
    untouched();
    // Yes is no cap.
    let capless = stage.call(&["run", path, "-d", "--yes"]);
    assert!(capless.code != 0 && capless.stderr.contains("max_usd"), "{capless:?}");
    untouched();
    // A person who types no amount, and one who sees it and says no.
    let (code, shown) = typed(&stage, &vendor, "y\n", &["run", path, "-d"]);
    assert!(code == 64 && shown.contains("no cap was given"), "{code} {shown}");
    let (code, shown) = typed(&stage, &vendor, "20\n5\nn\n", &["run", path, "-d"]);
    assert!(code == 92 && shown.contains("nothing was rented"), "{code} {shown}");
    for part in [
        "2 offers match, $0.20 to $0.30 an hour",
        "sh program.sh",
        "only while it is awake",
        "$20.00 at most",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(!shown.contains("\u{1b}[2J"), "{shown:?}");
    untouched();
    // Who says yes gives the caps with it.
    let (code, shown) = typed(&stage, &vendor, "20\n5\ny\n", &["run", path, "-d"]);
    assert!(code == 0, "{shown}");
    let runs = stage.ok(&["status", "--all", "--json"]).json();
    let run = runs[0]["name"].as_str().unwrap().to_owned();
    let cost = stage.ok(&["cost", &run, "--json"]).json();
    assert_eq!(cost["max_usd"], json!(20.0), "{cost:#}");
    stage.ok(&["destroy", &run, "--yes"]);
    wait("nothing rented", || vendor.rented().is_empty().then_some(()));
}
