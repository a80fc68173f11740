//! How a setting goes with the result, in a line.

use curves::judge::short;
use curves::statistics::ALPHA;
use curves::view::Importance;

use crate::commands::analyze::words;
use crate::commands::views::numbers;

/// See the module.
pub(super) fn line(one: &Importance) -> String {
    let sure = if one.p_adjusted < ALPHA { "goes with it" } else { "not shown to matter" };
    let mut text = format!("  {}: {sure}", words::metric(&one.name));
    if one.numeric || one.share.is_none() {
        let (low, high) = (short(one.interval.0), short(one.interval.1));
        text.push_str(&format!(", correlation {} ({low} to {high})", short(one.correlation)));
    }
    if let (Some(share), Some((low, high))) = (one.share, one.share_interval) {
        let percent = |share: f64| format!("{:.0}", share * 100.0);
        text.push_str(&format!(
            ", explains {} % of the order ({} to {})",
            percent(share),
            percent(low),
            percent(high)
        ));
    }
    if let Some((least, most)) = one.ends.as_ref().filter(|_| one.p_adjusted < ALPHA) {
        text.push_str(&format!(", smallest at {}, largest at {}", range(least), range(most)));
    }
    text.push_str(&format!(
        ", p {} adjusted, {}",
        short(one.p_adjusted),
        numbers::count(one.values, "value", "values")
    ));
    if !one.together.is_empty() {
        let names: Vec<String> = one.together.iter().take(5).map(|name| words::metric(name)).collect();
        text.push_str(&format!("; cannot be told from {}", names.join(", ")));
    }
    text
}

/// Values are the log's: a number, `number to number`, or any text.
fn range(text: &str) -> String {
    let number = |text: &str| text.parse::<f64>().ok().map(short);
    match text.split_once(" to ") {
        Some((low, high)) => match (number(low), number(high)) {
            (Some(low), Some(high)) => format!("{low} to {high}"),
            _ => words::name(text),
        },
        None => words::name(text),
    }
}
