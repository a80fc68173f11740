//! `outlast machines`: what exists, as the providers see it, and the exchange
//! of the agent's program.

use std::path::{Path, PathBuf};

use agent::upgrade::{MAX_PROGRAM, PROGRAM};
use anyhow::Context as _;
use artifacts::index::Plain;
use artifacts::{KeySpace, Kind, Selection, publish};
use proto::v1;

use super::{answer, now_ms, short, span};
use crate::app::Context;
use crate::args::UpgradeArgs;
use crate::client::Client;
use crate::daemon;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{bytes, money, safe};
use crate::source::SCOPE;

/// Does it.
///
/// # Errors
/// Where the controller cannot be asked.
pub async fn perform(ctx: &Context, all: bool, json: bool) -> anyhow::Result<ExitCode> {
    let machines = match Box::pin(daemon::existing(ctx)).await? {
        Some(client) => {
            answer(client.operator.clone().list_machines(v1::ListMachinesRequest { all }).await)?.machines
        }
        None => Vec::new(),
    };
    if json {
        ctx.printer.json(&machines);
    } else if machines.is_empty() {
        ctx.printer.note("there are no machines");
    } else {
        table(ctx, &machines);
    }
    Ok(ExitCode::Ok)
}

/// Prints machines.
pub fn table(ctx: &Context, machines: &[v1::MachineView]) {
    let rows: Vec<Vec<String>> = machines.iter().map(row).collect();
    ctx.printer.table(&["MACHINE", "PROVIDER", "STATE", "SAYS", "RUN", "AGE", "COST", "REASON"], &rows);
}

fn row(machine: &v1::MachineView) -> Vec<String> {
    let says = if machine.provider_says.is_empty() { "-" } else { &machine.provider_says };
    vec![
        machine.id.clone(),
        machine.provider.clone(),
        machine.state.clone(),
        says.to_owned(),
        short(&machine.run_id).to_owned(),
        span(machine.created_ms, machine.ended_ms),
        money(machine.cost_usd),
        machine.reason.clone(),
    ]
}

/// What a machine answered to an upgrade.
#[derive(Debug, serde::Serialize)]
struct Upgraded {
    machine: String,
    upgraded: bool,
    problem: String,
    version: String,
}

/// `outlast machines upgrade`: sends a program and has machines try it, one
/// after the other.
///
/// # Errors
/// Where the program cannot be sent or nobody can be asked.
pub async fn upgrade(ctx: &Context, args: UpgradeArgs) -> anyhow::Result<ExitCode> {
    let none = || Failure::new(ExitCode::NotFound, "there is no machine to upgrade");
    let client = Box::pin(daemon::existing(ctx)).await?.ok_or_else(none)?;
    let all =
        answer(client.operator.clone().list_machines(v1::ListMachinesRequest { all: false }).await)?.machines;
    let wanted = |machine: &&v1::MachineView| match &args.machine {
        Some(text) => machine.id.starts_with(text.as_str()),
        None => machine.state == "READY",
    };
    let chosen: Vec<v1::MachineView> = all.iter().filter(wanted).cloned().collect();
    let program = program_for(&args, &chosen)?;
    if chosen.is_empty() {
        let why = match &args.machine {
            Some(text) => format!("no machine that is there matches `{text}`"),
            None => "there is no machine that is ready to upgrade".to_owned(),
        };
        return Err(Failure::new(ExitCode::NotFound, why).help("`outlast machines` lists them").into());
    }
    if args.machine.is_some() && chosen.len() > 1 {
        let ids: Vec<&str> = chosen.iter().map(|machine| machine.id.as_str()).collect();
        let why = format!("several machines match: {}", ids.join(", "));
        return Err(Failure::new(ExitCode::NotFound, why).help("write more of the id").into());
    }
    let offer = Box::pin(publish_program(ctx, &client, &program)).await?;
    let mut done = Vec::new();
    for machine in &chosen {
        let request = v1::UpgradeRequest { machine: machine.id.clone(), ..offer.clone() };
        ctx.printer.note(&format!("machine {}: the new program is tried", short(&machine.id)));
        // One that went away meanwhile is no reason to leave out the others.
        let (problem, version) = match client.operator.clone().upgrade_machine(request).await {
            Ok(reply) => (reply.get_ref().problem.clone(), reply.get_ref().version.clone()),
            Err(status) => (status.message().to_owned(), String::new()),
        };
        done.push(Upgraded { machine: machine.id.clone(), upgraded: problem.is_empty(), problem, version });
    }
    if args.json {
        ctx.printer.json(&done);
    } else {
        for one in &done {
            let id = short(&one.machine);
            if one.upgraded {
                ctx.printer.line(&format!("{id} runs the new program, version {}", safe(&one.version)));
            } else {
                ctx.printer.line(&format!("{id} was not upgraded: {}", safe(&one.problem)));
            }
        }
    }
    Ok(if done.iter().all(|one| one.upgraded) { ExitCode::Ok } else { ExitCode::BadInput })
}

/// Machines on this computer run this very file; others need the static agent.
fn program_for(args: &UpgradeArgs, chosen: &[v1::MachineView]) -> anyhow::Result<PathBuf> {
    if let Some(program) = &args.program {
        return Ok(program.clone());
    }
    if let Some(far) = chosen.iter().find(|machine| machine.provider != "local") {
        let why = format!("machine {} is not on this computer", short(&far.id));
        let help = "name the static agent with --program FILE";
        return Err(Failure::new(ExitCode::BadInput, why).help(help).into());
    }
    daemon::own_exe().context("cannot find the file of this program")
}

/// A directory that goes away with its content.
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Puts the program into the store as a tree of one file.
async fn publish_program(
    ctx: &Context,
    client: &Client,
    program: &Path,
) -> anyhow::Result<v1::UpgradeRequest> {
    let staging = Staging(ctx.home()?.join(format!("upgrade-{:016x}", fastrand::u64(..))));
    let unreadable = |error: std::io::Error| {
        Failure::new(ExitCode::BadInput, format!("cannot read {}: {error}", program.display()))
    };
    let size = std::fs::metadata(program).map_err(unreadable)?.len();
    if size == 0 || size > MAX_PROGRAM {
        let why = format!("{} has {size} bytes, at most {MAX_PROGRAM} are taken", program.display());
        return Err(Failure::new(ExitCode::BadInput, why).into());
    }
    std::fs::create_dir(&staging.0).context("make a directory for the program")?;
    let copy = staging.0.join(PROGRAM);
    std::fs::copy(program, &copy).map_err(unreadable)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(&copy)?).context("read the program")?;
    let selection = Selection {
        root: std::fs::canonicalize(&staging.0)?,
        paths: vec![PROGRAM.to_owned()],
        kind: Kind::Source,
        step: None,
        name: String::new(),
        single_file: false,
        created_ms: now_ms(),
    };
    // Drawn at random, so that no two publications share a key.
    let generation = u64::from_le_bytes(proto::pki::random()?) >> 1;
    let mut keys = KeySpace { scope: SCOPE.to_owned(), generation, pack_seq: 0, manifest_seq: 0 };
    let store = client.store.clone();
    // Whoever is to be upgraded is older: every version must be able to read it.
    let index = Plain(&store);
    let published = Box::pin(publish(&selection, &mut keys, &store, &index)).await.map_err(|error| {
        Failure::new(ExitCode::CannotWrite, format!("the program cannot be sent: {error}"))
    })?;
    ctx.printer.note(&format!(
        "program: {}, {} were new",
        bytes(published.total_bytes),
        bytes(published.new_bytes)
    ));
    Ok(v1::UpgradeRequest {
        machine: String::new(),
        program_key: published.manifest_key.to_string(),
        program_digest: published.manifest_digest.to_string(),
        file_digest: hasher.finalize().to_hex().to_string(),
    })
}
