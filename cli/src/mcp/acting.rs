//! Tools that change something. They exist where a person allowed control. What
//! costs money, destroys, or would run a model's words here or with secrets is
//! not done but given a code, which only a person redeems; what an allowance
//! covers is reserved first and then done. A dry run shows price and cap.

use data_encoding::HEXLOWER;
use lifecycle::RunSpec;
use proto::v1;
use serde_json::json;

use super::action::{Action, Outlook, cap, changed, fits, places};
use super::allowance::{self, Grant};
use super::approval;
use super::arguments::Arguments;
use super::desk::Desk;
use super::reply::{Reply, quoted};
use super::shelf::Shelf;
use crate::args::{ConfigArgs, setting};
use crate::client::{Client, selector};
use crate::commands::analyze::words;
use crate::commands::{answer, load, moment, short};
use crate::config::changes;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::bytes;
use crate::source;

/// How far a call goes.
struct Wish {
    dry: bool,
    /// A model wrote what is run, or may have.
    own_words: bool,
    /// It is never done without a person.
    destroys: bool,
}

fn settings(texts: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let parse =
        |text: &String| setting(text).map_err(|why| Failure::new(ExitCode::Usage, format!("`set`: {why}")));
    texts.iter().map(parse).collect()
}

/// `run`
pub(super) async fn run(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let command = given.texts("command")?;
    let set = given.texts("set")?;
    let name = given.text("name")?;
    let max_usd = given.dollars("max_usd")?.map(|usd| usd.to_string());
    let hourly = given.dollars("max_usd_per_hour")?.map(|usd| usd.to_string());
    let dry = given.flag("dry_run")?;
    given.end()?;
    let flags = [
        ("run.name", name.as_deref()),
        ("budget.max_usd", max_usd.as_deref()),
        ("budget.max_usd_per_hour", hourly.as_deref()),
    ];
    let own_words = !command.is_empty() || !set.is_empty();
    let args = ConfigArgs { config: None, set: settings(&set)? };
    let loaded = load(&desk.ctx, &desk.project, &args, &flags)?;
    let spec = loaded.run_spec(&command)?;
    let (chosen, total) = source::choose(&desk.ctx, &loaded.root, &loaded.config.source)?;
    fits(total)?;
    let client = desk.ensured().await?;
    let action = Action::Run {
        spec: serde_json::to_string(&spec)?,
        root: loaded.root.clone(),
        include: loaded.config.source.include.clone(),
        exclude: loaded.config.source.exclude.clone(),
        tree: format!("{} files, {}", chosen.paths.len(), bytes(total)),
        reuse: loaded.config.run.cache,
        secrets: places(&loaded),
        set,
    };
    let outlook = action.outlook(&client).await?;
    if !dry {
        capped(&spec, &outlook)?;
    }
    decide(desk, client, action, outlook, &Wish { dry, own_words, destroys: false }).await
}

/// Rented machines have caps, and a model must say which.
fn capped(spec: &RunSpec, outlook: &Outlook) -> Result<(), Failure> {
    let missing = outlook.paid && (spec.max_usd.is_none() || spec.max_usd_per_hour.is_none());
    if missing {
        let why = "it rents machines and has no cap";
        return Err(Failure::new(ExitCode::Usage, why).help(
            "give max_usd (for the run) and max_usd_per_hour (for its machine); dry_run shows prices",
        ));
    }
    Ok(())
}

/// `fork`
pub(super) async fn fork(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let checkpoint = given.needed("checkpoint")?;
    let (set, command) = (given.texts("set")?, given.texts("command")?);
    let (name, dry) = (given.text("name")?, given.flag("dry_run")?);
    given.end()?;
    let client = desk.needed().await?;
    let from = answer(client.operator.clone().find_checkpoint(selector(&checkpoint)).await)?;
    let spec = spec_of(&client.run(&from.run).await?)?;
    let name = name.map(|name| ("run.name".to_owned(), name));
    let flags: Vec<(String, String)> = settings(&set)?.into_iter().chain(name).collect();
    let wanted = changes(&spec, &flags, &command)?;
    let exact = from.step.map_or(checkpoint, |step| format!("{}@{step}", from.run));
    let spec = changed(&spec, &wanted)?;
    let changes = serde_json::to_string(&wanted)?;
    let action = Action::Fork { checkpoint: exact, changes, spec: serde_json::to_string(&spec)? };
    let outlook = action.outlook(&client).await?;
    if !dry {
        capped(&spec, &outlook)?;
    }
    // Whose words the run began with is not known any more: perhaps a model's,
    // agreed to once.
    decide(desk, client, action, outlook, &Wish { dry, own_words: true, destroys: false }).await
}

fn spec_of(detail: &v1::RunDetail) -> anyhow::Result<RunSpec> {
    Ok(serde_json::from_str(&detail.spec_json)?)
}

/// `resume`
pub(super) async fn resume(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let (run, dry) = (given.needed("run")?, given.flag("dry_run")?);
    given.end()?;
    let client = desk.needed().await?;
    let detail = client.run(&run).await?;
    let run = detail.run.clone().unwrap_or_default();
    let action = Action::Resume { id: run.id, name: run.name, spec: detail.spec_json };
    let mut outlook = action.outlook(&client).await?;
    // Going on would answer a question that was put to a person.
    let question = run.question.map(|question| question.text).filter(|_| run.state == "WAITING");
    if let Some(question) = &question {
        outlook
            .lines
            .push(format!("it waits for an answer, and this gives it: go on. Asked was: {question}"));
    }
    let destroys = question.is_some();
    decide(desk, client, action, outlook, &Wish { dry, own_words: true, destroys }).await
}

/// `stop`
pub(super) async fn stop(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let run = given.needed("run")?;
    given.end()?;
    let ask = v1::StopRequest { run, grace_seconds: 0 };
    let run = answer(desk.needed().await?.operator.clone().stop(ask).await)?;
    let name = words::name(&run.name);
    Ok(Reply::default()
        .line(format!("{name} was asked to save and end"))
        .fact("run", run.name)
        .fact("state", run.state))
}

/// `destroy`
pub(super) async fn destroy(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let target = given.needed("target")?;
    given.end()?;
    let client = desk.needed().await?;
    let action = match client.run(&target).await {
        Ok(detail) => {
            let run = detail.run.clone().unwrap_or_default();
            if run.ended_ms > 0 && detail.machines.iter().all(crate::report::is_released) {
                let why = format!("{} has ended, and all its machines are gone", words::name(&run.name));
                return Err(Failure::new(ExitCode::BadInput, why).help("nothing is left to destroy").into());
            }
            Action::DestroyRun { id: run.id, name: run.name }
        }
        Err(failure) if failure.code == ExitCode::NotFound && !failure.message.contains("ambiguous") => {
            machine(&client, &target).await?
        }
        Err(failure) => return Err(failure.into()),
    };
    let outlook = action.outlook(&client).await?;
    decide(desk, client, action, outlook, &Wish { dry: false, own_words: false, destroys: true }).await
}

async fn machine(client: &Client, target: &str) -> anyhow::Result<Action> {
    let ask = v1::ListMachinesRequest { all: false };
    let machines = answer(client.operator.clone().list_machines(ask).await)?.machines;
    let mut named = machines.into_iter().filter(|machine| machine.id.starts_with(target));
    match (named.next(), named.next()) {
        (Some(machine), None) => Ok(Action::DestroyMachine { id: machine.id, provider: machine.provider }),
        (None, _) => {
            let why = format!("there is no run and no machine {}", words::name(target));
            Err(Failure::new(ExitCode::NotFound, why).help("`list` with all = true names every run").into())
        }
        (Some(_), Some(_)) => {
            let why = format!("{} is ambiguous", words::name(target));
            Err(Failure::new(ExitCode::NotFound, why).help("write more of the id").into())
        }
    }
}

/// Shows it, does it, or gives out a code.
async fn decide(
    desk: &Desk,
    client: Client,
    action: Action,
    outlook: Outlook,
    wish: &Wish,
) -> anyhow::Result<Reply> {
    if wish.dry {
        let reply = Reply::default().line("dry run: nothing was begun");
        return Ok(priced(told(reply, &outlook), &outlook).fact("dry_run", true));
    }
    let secrets = action.spec()?.is_some_and(|spec| !spec.secrets.is_empty());
    let takes_along = action.takes_along();
    let person = wish.destroys || takes_along || wish.own_words && (secrets || !outlook.paid);
    if !outlook.paid && !person {
        return done(desk, client, &action, &random()?).await;
    }
    let shelf = Shelf::open(&desk.home)?;
    let refused = match (person, desk.spend, outlook.cap.and_then(allowance::micro)) {
        (false, Some(limit), Some(most)) => {
            let what = action.name(&desk.ctx)?;
            match allowance::reserve(&shelf, limit, most, (&what, &random()?)) {
                Ok(grant) => return spent(desk, client, &action, &grant, &shelf).await,
                Err(failure) => Some(failure.message),
            }
        }
        _ => None,
    };
    let (code, until_ms) = approval::ask(&shelf, &action)?;
    let mut reply = Reply::default()
        .line(format!("not done: a person must agree on a terminal: outlast approve {code}"))
        .firm("code", code)
        .firm("done", false);
    if let Some(why) = refused {
        reply = reply.line(format!("the allowance does not cover it: {why}"));
    } else if takes_along {
        reply = reply.line("no allowance covers what changes which files are sent");
    }
    let until = moment(until_ms);
    Ok(priced(
        told(reply.line(format!("good once, until {until}; tell the person what it is for")), &outlook),
        &outlook,
    )
    .fact("until", until))
}

fn told(reply: Reply, outlook: &Outlook) -> Reply {
    outlook.lines.iter().fold(reply, |reply, line| reply.line(quoted(line.trim())))
}

fn priced(reply: Reply, outlook: &Outlook) -> Reply {
    let reply = reply.fact("paid", outlook.paid).fact("max_usd", outlook.cap);
    match &outlook.price {
        // What nobody offers has no price: zeros would read as free.
        Some(price) if price.offers == 0 => reply.fact("offers", 0),
        Some(price) => reply
            .fact("offers", price.offers)
            .fact("usd_per_hour", json!([price.least_usd_per_hour, price.most_usd_per_hour])),
        None => reply,
    }
}

/// Does what was reserved; gives it back only where surely nothing was begun.
async fn spent(
    desk: &Desk,
    client: Client,
    action: &Action,
    grant: &Grant,
    shelf: &Shelf,
) -> anyhow::Result<Reply> {
    let packed = match action.pack(&desk.ctx, &client).await {
        Ok(packed) => packed,
        Err(error) => {
            if grant.since_ms.is_none() {
                allowance::give_back(shelf, &grant.id)?;
            }
            return Err(error);
        }
    };
    let begun = Box::pin(action.begin(&desk.ctx, client, &grant.id, packed)).await;
    match begun.map(|name| told_done(action, name)) {
        Ok(reply) => {
            let most = cap(action.spec()?.and_then(|s| s.max_usd));
            Ok(match grant.since_ms {
                None => reply.line(format!("reserved of the allowance: {most}")),
                Some(ms) => reply
                    .line(format!(
                        "an equal call {} s ago began it already: this one began and cost nothing; \
                         for another run give another name",
                        ms / 1000
                    ))
                    .fact("again", true),
            })
        }
        Err(error) => {
            let code = ExitCode::of(&error);
            let surely = matches!(
                code,
                ExitCode::BadInput | ExitCode::NotFound | ExitCode::Denied | ExitCode::Configuration
            );
            // What an equal call before this one reserved stays its own.
            if surely && grant.since_ms.is_none() {
                allowance::give_back(shelf, &grant.id)?;
            }
            Err(error)
        }
    }
}

async fn done(desk: &Desk, client: Client, action: &Action, token: &str) -> anyhow::Result<Reply> {
    Ok(told_done(action, Box::pin(action.perform(&desk.ctx, client, token)).await?))
}

fn told_done(action: &Action, name: String) -> Reply {
    let line = match action {
        Action::Run { .. } | Action::Fork { .. } => format!("{} was accepted", words::name(&name)),
        Action::Resume { .. } => format!("{} goes on", words::name(&name)),
        Action::DestroyRun { .. } | Action::DestroyMachine { .. } => {
            format!("{} is being removed", words::name(short(&name)))
        }
    };
    Reply::default().line(line).firm("done", true).firm("run", name)
}

fn random() -> anyhow::Result<String> {
    Ok(HEXLOWER.encode(&proto::pki::random::<16>()?))
}
