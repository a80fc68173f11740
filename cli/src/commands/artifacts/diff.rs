//! `outlast artifacts diff`: in what two checkpoints differ.

use artifacts::inspect::{Differing, How, Piece, difference};
use artifacts::seal::Keyring;
use serde_json::{Value, json};

use super::{find, name, typed};
use crate::app::Context;
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::printer::bytes;
use crate::pull::refusal;

/// Pieces of one file that are shown; JSON has all.
const SHOWN: usize = 50;

/// Does it. That they differ is no error.
///
/// # Errors
/// Where there is no such checkpoint, or it cannot be read.
pub(super) async fn perform(
    ctx: &Context,
    from: &str,
    to: &str,
    keys: Option<&Keyring>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let client = Box::pin(daemon::needed(ctx)).await?;
    let (one, other) = (find(&client, from, keys).await?, find(&client, to, keys).await?);
    let found = difference(&client.store, &one.tree, &other.tree).await.map_err(|error| refusal(&error))?;
    if json {
        let entries: Vec<Value> = found.entries.iter().map(entry_json).collect();
        ctx.printer.json(&json!({
            "from": name(&one.view), "to": name(&other.view), "entries": entries,
            "same_files": found.same_files, "same_bytes": found.same_bytes,
        }));
        return Ok(ExitCode::Ok);
    }
    let mut rows = Vec::new();
    for entry in &found.entries {
        rows.push(vec![sign(&entry.how).into(), size(entry.before), size(entry.after), entry.path.clone()]);
        for (how, before, after) in entry.pieces.iter().take(SHOWN) {
            let sizes = [before, after].map(|piece| size(piece.as_ref().map(|piece| piece.bytes)));
            let [was, is] = sizes;
            rows.push(vec![
                format!("  {}", sign(how)),
                was,
                is,
                format!("  {}", told(before.as_ref(), after.as_ref())),
            ]);
        }
        let more = entry.pieces.len().saturating_sub(SHOWN);
        if more > 0 {
            rows.push(vec![
                String::new(),
                String::new(),
                String::new(),
                format!("  {more} more: --json shows all"),
            ]);
        }
        if entry.same_pieces > 0 {
            rows.push(vec![
                "  =".into(),
                String::new(),
                String::new(),
                format!("  {} more are the same", entry.same_pieces),
            ]);
        }
    }
    if !rows.is_empty() {
        ctx.printer.table(&["", "BEFORE", "AFTER", "PATH"], &rows);
    }
    let differing = found.entries.len();
    let same = match found.same_files {
        0 => String::new(),
        files => format!(", {files} the same ({})", bytes(found.same_bytes)),
    };
    let summary = match differing {
        0 => "nothing differs".to_owned(),
        1 => "1 differs".to_owned(),
        more => format!("{more} differ"),
    };
    ctx.printer.note(&format!("{} -> {}: {summary}{same}", name(&one.view), name(&other.view)));
    Ok(ExitCode::Ok)
}

fn sign(how: &How) -> &'static str {
    match how {
        How::Added => "+",
        How::Removed => "-",
        How::Changed => "~",
    }
}

fn size(size: Option<u64>) -> String {
    size.map_or_else(|| "-".to_owned(), bytes)
}

/// The piece, and of one that is another kind of piece now, what it was.
fn told(before: Option<&Piece>, after: Option<&Piece>) -> String {
    let kind = |piece: &Piece| typed(piece.dtype.as_deref(), piece.shape.as_deref());
    match (before, after) {
        (Some(before), Some(after)) if kind(before) != kind(after) => {
            format!("{}{} ->{}", after.name, kind(before), kind(after))
        }
        (Some(piece), _) | (None, Some(piece)) => format!("{}{}", piece.name, kind(piece)),
        (None, None) => String::new(),
    }
}

fn how_json(how: &How) -> &'static str {
    match how {
        How::Added => "added",
        How::Removed => "removed",
        How::Changed => "changed",
    }
}

fn entry_json(entry: &Differing) -> Value {
    let piece = |piece: &Piece| json!({"dtype": piece.dtype, "shape": piece.shape, "bytes": piece.bytes});
    let pieces: Vec<Value> = entry
        .pieces
        .iter()
        .map(|(how, before, after)| {
            let name = before.as_ref().or(after.as_ref()).map(|piece| &piece.name);
            json!({
                "name": name, "how": how_json(how),
                "before": before.as_ref().map(piece), "after": after.as_ref().map(piece),
            })
        })
        .collect();
    json!({
        "path": entry.path, "how": how_json(&entry.how), "before_bytes": entry.before,
        "after_bytes": entry.after, "pieces": pieces, "same_pieces": entry.same_pieces,
    })
}
