//! A run on slots of a host of `providers.toml`: the real provider, carrier,
//! guard and agent together, over a real SSH server.

use std::fs;

use super::super::stage::{Stage, wait_or};
use super::give_agent;
use super::sshd::{Sshd, programs};

const PROGRAM: &str = r#"#!/bin/sh
echo "$CUDA_VISIBLE_DEVICES" >>"$SEEN"
i=0
while [ "$i" -lt 20 ]; do
  i=$((i + 1))
  echo "step=$i loss=0.$i"
  if [ $((i % 10)) = 0 ]; then
    echo "$i" >"$OUTLAST_CHECKPOINT_DIR/.part"
    mv "$OUTLAST_CHECKPOINT_DIR/.part" "$OUTLAST_CHECKPOINT_DIR/step-$i.txt"
  fi
  sleep 0.05
done
"#;

#[test]
fn a_run_has_a_slot_of_a_host_with_its_gpus_and_gives_it_back() {
    let Some(programs) = programs() else { return };
    let stage = Stage::new();
    let mut server = Sshd::prepare(&stage, programs);
    server.start();
    give_agent(&stage.home);
    let known = stage.path("known");
    fs::write(&known, format!("[127.0.0.1]:{} {}", server.port, server.host_key())).unwrap();
    let host = stage.path("host");
    let settings = format!(
        "[ssh.hosts.lab]\ndestination = \"{}@127.0.0.1\"\nport = {}\nslots = 2\ngpus = [0, 1, 2, 3]\nroot = {host:?}\n\
         identity_file = {:?}\nknown_hosts = {known:?}\n",
        Sshd::user(),
        server.port,
        server.identity()
    );
    fs::write(stage.home.join("providers.toml"), settings).unwrap();
    let seen = stage.path("seen");
    let project = format!(
        "[run]\ncommand = [\"sh\", \"program.sh\"]\nprovider = \"ssh\"\nenv = {{ SEEN = {seen:?} }}\n\
         [environment]\nkind = \"none\"\n[checkpoints]\nquiet = \"1s\"\n"
    );
    let root = stage.project("p", &[("program.sh", PROGRAM), ("outlast.toml", &project)]);
    let run = stage.submit(&root, &[]);
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["run"]["durable_step"], 20, "{detail:#}");
    assert_eq!(detail["machines"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(fs::read_to_string(&seen).unwrap(), "0,1\n");
    // Its slot is free again, and nothing of the machine is left on the host.
    let names = |dir: &str| -> Vec<String> {
        let found = fs::read_dir(host.join(dir)).into_iter().flatten().flatten();
        found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let is_free =
        || !names("slots").iter().any(|name| name.ends_with(".claim")) && names("machines").is_empty();
    wait_or(
        "a free slot",
        || is_free().then_some(()),
        || format!("{:?} {:?}", names("slots"), names("machines")),
    );
}
