//! `outlast cost`: what runs have cost, per run, project, day and in all, in the
//! parts that the ledger holds, beside the caps; or one run machine by machine.

use proto::v1;
use serde_json::{Value, json};

use super::{answer, moment, short, span};
use crate::app::Context;
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::printer::money;

/// Does it.
///
/// # Errors
/// Where there is no such run, or the controller cannot be asked.
pub async fn perform(
    ctx: &Context,
    (run, project): (Option<&str>, Option<&str>),
    json: bool,
) -> anyhow::Result<ExitCode> {
    let ask = v1::SpendingRequest {
        run: run.unwrap_or_default().to_owned(),
        project: project.unwrap_or_default().to_owned(),
    };
    let client = match run {
        Some(_) => Some(Box::pin(daemon::needed(ctx)).await?),
        None => Box::pin(daemon::existing(ctx)).await?,
    };
    let reply = match client {
        Some(client) => answer(client.operator.clone().spending(ask).await)?,
        None => v1::SpendingReply::default(),
    };
    match reply.runs.first().filter(|_| run.is_some()) {
        Some(one) if json => ctx.printer.json(&one_json(one, &reply)),
        Some(one) => show_one(ctx, one, &reply.rooms),
        None if json => ctx.printer.json(&all_json(&reply)),
        None => show_all(ctx, &reply),
    }
    Ok(ExitCode::Ok)
}

/// The parts of a sum, as they are written to JSON.
fn parts(sums: Option<&v1::Sums>) -> Value {
    let sums = sums.copied().unwrap_or_default();
    json!({
        "cost_usd": sums.total_usd, "gpu_usd": sums.gpu_usd, "disk_usd": sums.disk_usd, "up_usd": sums.up_usd,
        "down_usd": sums.down_usd, "open_usd": sums.open_usd, "kept_back_usd": sums.kept_back_usd,
    })
}

/// The same with what they are the parts of.
fn with(of: Value, sums: Option<&v1::Sums>) -> Value {
    let (Value::Object(mut map), Value::Object(more)) = (of, parts(sums)) else { return Value::Null };
    map.extend(more);
    Value::Object(map)
}

fn day(purse: &v1::Purse) -> String {
    moment(purse.day_ms).chars().take(10).collect()
}

fn all_json(reply: &v1::SpendingReply) -> Value {
    let run = |r: &v1::RunSpending| {
        let of = json!({
            "id": r.id, "name": r.name, "project": r.project, "state": r.state, "max_usd": r.cap_usd,
        });
        with(of, r.sums.as_ref())
    };
    let project = |purse: &v1::Purse| {
        with(json!({ "project": purse.name, "max_usd_project": purse.cap_usd }), purse.sums.as_ref())
    };
    // Of a day no parts are known.
    let by_day = |purse: &v1::Purse| {
        let sums = purse.sums.unwrap_or_default();
        json!({
            "day": day(purse), "max_usd_day": purse.cap_usd, "cost_usd": sums.total_usd, "open_usd": sums.open_usd,
            "kept_back_usd": sums.kept_back_usd,
        })
    };
    json!({
        "runs": reply.runs.iter().map(run).collect::<Vec<_>>(),
        "projects": reply.projects.iter().map(project).collect::<Vec<_>>(),
        "days": reply.days.iter().map(by_day).collect::<Vec<_>>(),
        "total": parts(reply.total.as_ref()),
        "total_usd": reply.total.unwrap_or_default().total_usd,
    })
}

fn one_json(run: &v1::RunSpending, reply: &v1::SpendingReply) -> Value {
    let machine = |m: &v1::MachineSpending| {
        let of = json!({
            "id": m.id, "provider": m.provider, "state": m.state, "created_ms": m.created_ms,
            "ended_ms": m.ended_ms, "usd_per_hour": m.usd_per_hour, "settled": m.settled,
        });
        with(of, m.sums.as_ref())
    };
    let of = json!({
        "id": run.id, "name": run.name, "project": run.project, "state": run.state, "max_usd": run.cap_usd,
        "caps": reply.rooms, "machines": run.machines.iter().map(machine).collect::<Vec<_>>(),
    });
    with(of, run.sums.as_ref())
}

/// Columns of a sum: its parts, all of it, and what is kept back besides.
const PARTS: [&str; 6] = ["GPU", "DISK", "UP", "DOWN", "COST", "KEPT BACK"];

fn columns(sums: Option<&v1::Sums>, cap: Option<f64>) -> [String; 6] {
    let sums = sums.copied().unwrap_or_default();
    let of = cap.map_or_else(String::new, |cap| format!(" of {}", money(cap)));
    let kept = if sums.kept_back_usd > 0.0 { money(sums.kept_back_usd) } else { "-".to_owned() };
    let cost = format!("{}{of}", money(sums.total_usd));
    [money(sums.gpu_usd), money(sums.disk_usd), money(sums.up_usd), money(sums.down_usd), cost, kept]
}

fn row(first: Vec<String>, sums: Option<&v1::Sums>, cap: Option<f64>) -> Vec<String> {
    first.into_iter().chain(columns(sums, cap)).collect()
}

fn head<'a>(first: &[&'a str]) -> Vec<&'a str> {
    first.iter().copied().chain(PARTS).collect()
}

fn show_all(ctx: &Context, reply: &v1::SpendingReply) {
    let none = String::new;
    let mut rows: Vec<Vec<String>> = reply
        .runs
        .iter()
        .map(|run| {
            let took = span(run.created_ms, run.ended_ms);
            let first = vec![run.name.clone(), run.project.clone(), run.state.clone(), took];
            row(first, run.sums.as_ref(), run.cap_usd)
        })
        .collect();
    rows.push(row(vec!["total".into(), none(), none(), none()], reply.total.as_ref(), None));
    ctx.printer.table(&head(&["RUN", "PROJECT", "STATE", "TOOK"]), &rows);
    let projects: Vec<Vec<String>> =
        reply.projects.iter().map(|p| row(vec![p.name.clone()], p.sums.as_ref(), p.cap_usd)).collect();
    if !projects.is_empty() {
        ctx.printer.line("");
        ctx.printer.table(&head(&["PROJECT"]), &projects);
    }
    let days: Vec<Vec<String>> = reply
        .days
        .iter()
        .map(|purse| {
            let [.., cost, kept] = columns(purse.sums.as_ref(), purse.cap_usd);
            vec![day(purse), cost, kept]
        })
        .collect();
    if !days.is_empty() {
        ctx.printer.line("");
        ctx.printer.table(&["DAY (UTC)", "COST", "KEPT BACK"], &days);
    }
    for line in words(reply.total.as_ref()) {
        ctx.printer.note(&line);
    }
}

fn show_one(ctx: &Context, run: &v1::RunSpending, rooms: &[v1::RoomView]) {
    let none = String::new;
    let mut rows: Vec<Vec<String>> = run
        .machines
        .iter()
        .map(|machine| {
            let took = span(machine.created_ms, machine.ended_ms);
            let price = format!("{}/h", money(machine.usd_per_hour));
            let standing = if machine.settled { "settled" } else { "open" }.to_owned();
            let first = vec![short(&machine.id).to_owned(), machine.provider.clone(), took, price, standing];
            row(first, machine.sums.as_ref(), None)
        })
        .collect();
    let first = vec!["total".into(), none(), none(), none(), none()];
    rows.push(row(first, run.sums.as_ref(), run.cap_usd));
    ctx.printer.table(&head(&["MACHINE", "PROVIDER", "TOOK", "PRICE", "LEDGER"]), &rows);
    for room in rooms {
        ctx.printer.note(&room_line(room));
    }
    if run.state == "BUDGET_STOPPED" {
        ctx.printer.note(BUDGET_STOPPED);
    }
    for line in words(run.sums.as_ref()) {
        ctx.printer.note(&line);
    }
}

/// Why such a run has not spent all of its cap.
pub(super) const BUDGET_STOPPED: &str = "a run is ended when all that may be spent of a cap is spent: the rest was \
    kept back for the end of its machine (the last save, ten minutes of asking for its end, two days of its disk), \
    and what was not needed of it is free again";

/// One cap: what is spent, what is kept back, and of what.
pub(super) fn room_line(room: &v1::RoomView) -> String {
    let share = match room.may_spend_usd {
        may if may > 0.0 => (100.0 * room.spent_usd / may).min(100.0),
        _ => 100.0,
    };
    let kept = match room.machines {
        0 => String::new(),
        1 => format!(" and {} kept back for the end of 1 machine", money(room.kept_back_usd)),
        count => format!(" and {} kept back for the ends of {count} machines", money(room.kept_back_usd)),
    };
    format!(
        "cap of the {}: {} spent{kept}, of {}; {} may be spent, {share:.0} % of that is",
        room.scope,
        money(room.spent_usd),
        money(room.cap_usd),
        money(room.may_spend_usd),
    )
}

/// What the columns do not say by themselves.
fn words(sums: Option<&v1::Sums>) -> Vec<String> {
    let sums = sums.copied().unwrap_or_default();
    let mut lines = Vec::new();
    if sums.open_usd >= 0.005 {
        lines.push(format!(
            "{} of it is open: since the provider was last asked, and counted as if all of it ran",
            money(sums.open_usd)
        ));
    }
    if sums.kept_back_usd > 0.0 {
        lines.push(format!(
            "{} more are kept back for the ends of machines, and not spent",
            money(sums.kept_back_usd)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> v1::SpendingReply {
        let sums = v1::Sums {
            gpu_usd: 4.0,
            disk_usd: 0.4,
            up_usd: 0.1,
            down_usd: 0.03,
            total_usd: 4.53,
            open_usd: 1.1,
            kept_back_usd: 2.5,
        };
        let machine = v1::MachineSpending { id: "abcdefghij".into(), sums: Some(sums), ..Default::default() };
        let run = v1::RunSpending {
            name: "r".into(),
            project: "p".into(),
            sums: Some(sums),
            cap_usd: Some(9.0),
            machines: vec![machine],
            ..Default::default()
        };
        let project =
            v1::Purse { name: "p".into(), sums: Some(sums), cap_usd: Some(20.0), ..Default::default() };
        let today = v1::Purse { sums: Some(sums), day_ms: 1_709_164_800_000, ..Default::default() };
        v1::SpendingReply {
            runs: vec![run],
            projects: vec![project],
            days: vec![today],
            total: Some(sums),
            ..Default::default()
        }
    }

    #[test]
    fn parts_caps_projects_and_days_are_told_in_text_and_json_alike() {
        let reply = reply();
        let all = all_json(&reply);
        let parts = json!({
            "cost_usd": 4.53, "gpu_usd": 4.0, "disk_usd": 0.4, "up_usd": 0.1, "down_usd": 0.03, "open_usd": 1.1,
            "kept_back_usd": 2.5,
        });
        assert_eq!((&all["total"], &all["total_usd"]), (&parts, &json!(4.53)));
        for (name, value) in parts.as_object().unwrap() {
            assert_eq!((&all["runs"][0][name], &all["projects"][0][name]), (value, value), "{name}");
        }
        assert_eq!(
            (&all["projects"][0]["project"], &all["projects"][0]["max_usd_project"]),
            (&json!("p"), &json!(20.0))
        );
        assert_eq!(
            (&all["days"][0]["day"], &all["days"][0]["cost_usd"]),
            (&json!("2024-02-29"), &json!(4.53))
        );
        let one = one_json(&reply.runs[0], &reply);
        assert_eq!(
            (&one["cost_usd"], &one["max_usd"], &one["machines"][0]["up_usd"]),
            (&json!(4.53), &json!(9.0), &json!(0.1))
        );
        let run = &reply.runs[0];
        let cells = columns(run.sums.as_ref(), run.cap_usd);
        assert_eq!(cells, ["$4.00", "$0.40", "$0.10", "$0.03", "$4.53 of $9.00", "$2.50"]);
        assert!(words(run.sums.as_ref())[0].contains("$1.10 of it is open"));
    }

    #[test]
    fn a_cap_says_what_is_spent_and_kept_back_and_the_share_of_what_may_be_spent() {
        let room = v1::RoomView {
            scope: "run".into(),
            cap_usd: 6.0,
            spent_usd: 0.3,
            kept_back_usd: 5.41,
            may_spend_usd: 0.59,
            left_usd: 0.29,
            machines: 1,
        };
        let line = room_line(&room);
        assert!(
            line.contains("$0.30 spent and $5.41 kept back for the end of 1 machine, of $6.00"),
            "{line}"
        );
        assert!(line.contains("$0.59 may be spent, 51 % of that is"), "{line}");
    }
}
