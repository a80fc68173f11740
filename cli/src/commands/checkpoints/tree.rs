//! `outlast checkpoints --tree`: a run's whole family, each checkpoint below the
//! one that its program had before it.

use std::collections::{BTreeMap, BTreeSet};

use proto::v1;

use super::super::{answer, moment};
use crate::app::Context;
use crate::client::selector;
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::printer::bytes;

/// Checkpoints of one run that are shown at its beginning and at its end; those
/// that something was forked from always are.
const ENDS: usize = 3;

/// Does it.
///
/// # Errors
/// Where there is no such run, or the controller cannot be asked.
pub async fn perform(ctx: &Context, run: &str, json: bool) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    let family = answer(client.operator.clone().lineage(selector(run)).await)?;
    if json {
        ctx.printer.json(&family.runs);
        return Ok(ExitCode::Ok);
    }
    let rows = rows(&family.runs);
    ctx.printer.table(&["RUN / STEP", "STATE", "TYPE", "SIZE", "DURABLE SINCE", "MACHINE", ""], &rows);
    Ok(ExitCode::Ok)
}

/// What is drawn: the runs that began from nothing, each with what followed.
fn rows(runs: &[v1::FamilyMember]) -> Vec<Vec<String>> {
    let names: BTreeSet<&str> = runs.iter().filter_map(|m| m.run.as_ref()).map(|r| r.name.as_str()).collect();
    let mut children: BTreeMap<&str, Vec<&v1::FamilyMember>> = BTreeMap::new();
    for member in runs {
        let parent = if names.contains(member.parent.as_str()) { member.parent.as_str() } else { "" };
        children.entry(parent).or_default().push(member);
    }
    let mut rows = Vec::new();
    let mut drawn = BTreeSet::new();
    for root in children.get("").into_iter().flatten() {
        draw(root, &children, "", &mut drawn, &mut rows);
    }
    rows
}

fn draw<'a>(
    member: &'a v1::FamilyMember,
    children: &BTreeMap<&str, Vec<&'a v1::FamilyMember>>,
    indent: &str,
    drawn: &mut BTreeSet<&'a str>,
    rows: &mut Vec<Vec<String>>,
) {
    let Some(run) = &member.run else { return };
    // Every run is drawn once, whatever the rows say.
    if !drawn.insert(&run.name) {
        return;
    }
    rows.push(head(run, indent));
    let own: &[&v1::FamilyMember] = children.get(run.name.as_str()).map_or(&[], Vec::as_slice);
    let forked = |key: &str| -> Vec<&'a v1::FamilyMember> {
        own.iter().filter(|child| child.origin == key).copied().collect()
    };
    let all = &member.checkpoints;
    let inner = format!("{indent}  ");
    let mut hidden = 0_usize;
    for (at, checkpoint) in all.iter().enumerate() {
        let below = forked(&checkpoint.key);
        let shown = at < ENDS || at + ENDS >= all.len() || !below.is_empty() || checkpoint.head;
        let told = shown || !checkpoint.trouble.is_empty();
        if !told {
            hidden += 1;
            continue;
        }
        between(&mut hidden, &inner, rows);
        rows.push(line(checkpoint, &inner));
        for child in below {
            draw(child, children, &format!("{inner}  "), drawn, rows);
        }
    }
    between(&mut hidden, &inner, rows);
    // Resumed runs begin from whatever was newest.
    for child in own {
        draw(child, children, &inner, drawn, rows);
    }
}

fn between(hidden: &mut usize, indent: &str, rows: &mut Vec<Vec<String>>) {
    if *hidden > 0 {
        rows.push(vec![format!("{indent}... {hidden} more")]);
        *hidden = 0;
    }
}

fn head(run: &v1::RunView, indent: &str) -> Vec<String> {
    let from = match (run.forked_from.as_str(), run.changes.as_slice()) {
        ("", _) => String::new(),
        (from, []) => format!("forked from {from}, nothing changed"),
        (from, changes) => format!("forked from {from}: {}", changes.join("; ")),
    };
    let empty = String::new;
    vec![format!("{indent}{}", run.name), run.state.clone(), empty(), empty(), empty(), empty(), from]
}

fn line(checkpoint: &v1::CheckpointView, indent: &str) -> Vec<String> {
    let step = checkpoint.step.map_or_else(|| checkpoint.name.clone(), |step| format!("@{step}"));
    let mut more = Vec::new();
    if checkpoint.head {
        more.push("head".to_owned());
    }
    if let Some(score) = checkpoint.score {
        more.push(format!("score {score}"));
    }
    if !checkpoint.trouble.is_empty() {
        more.push(checkpoint.trouble.clone());
    }
    vec![
        format!("{indent}{step}"),
        checkpoint.state.clone(),
        super::kind(checkpoint),
        bytes(checkpoint.bytes),
        moment(checkpoint.committed_ms),
        super::machine(checkpoint),
        more.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(key: &str, step: u64) -> v1::CheckpointView {
        v1::CheckpointView {
            key: key.into(),
            step: Some(step),
            state: "COMMITTED".into(),
            ..Default::default()
        }
    }

    fn member(name: &str, parent: &str, origin: &str, steps: &[u64]) -> v1::FamilyMember {
        let checkpoints = steps.iter().map(|step| checkpoint(&format!("{name}/{step}"), *step)).collect();
        let run = v1::RunView {
            name: name.into(),
            state: "SUCCEEDED".into(),
            forked_from: if origin.is_empty() { String::new() } else { origin.replace('/', "@") },
            changes: if origin.is_empty() { Vec::new() } else { vec!["run.env.LR: 1 -> 2".into()] },
            ..Default::default()
        };
        v1::FamilyMember { run: Some(run), checkpoints, parent: parent.into(), origin: origin.into() }
    }

    #[test]
    fn a_fork_stands_below_its_checkpoint_and_a_resumed_run_below_its_parent() {
        let steps: Vec<u64> = (1..=10).collect();
        let family = [
            member("a", "", "", &steps),
            member("b", "a", "a/5", &[6]),
            member("c", "a", "", &[11]),
            member("d", "b", "b/6", &[]),
        ];
        let drawn: Vec<String> = rows(&family).into_iter().map(|row| row[0].clone()).collect();
        assert_eq!(
            drawn,
            [
                "a",
                "  @1",
                "  @2",
                "  @3",
                "  ... 1 more",
                "  @5",
                "    b",
                "      @6",
                "        d",
                "  ... 2 more",
                "  @8",
                "  @9",
                "  @10",
                "  c",
                "    @11"
            ]
        );
        let told = rows(&family).into_iter().find(|row| row[0] == "    b").unwrap();
        assert_eq!(told[6], "forked from a@5: run.env.LR: 1 -> 2");
    }

    #[test]
    fn a_family_that_goes_in_circles_is_drawn_once() {
        let drawn = rows(&[member("a", "b", "", &[1]), member("b", "a", "", &[2])]);
        assert!(drawn.len() <= 4);
    }
}
