//! Settings that a program was given on its command line: `--lr 0.1`,
//! `--lr=0.1`, `optim.lr=0.1`, and flags that stand alone.
//!
//! Nothing is guessed beyond that: what a word means is the program's to say.

use crate::log::Value;

/// Settings of one command at most.
pub const MAX_SETTINGS: usize = 200;
/// Settings that say how many steps a run is to have.
pub const PLANNED: [&str; 6] =
    ["max_steps", "total_steps", "num_training_steps", "max_iters", "train_steps", "steps"];

/// The settings in the order of the command, whose first word is the program.
#[must_use]
pub fn of_command<'a>(command: impl IntoIterator<Item = &'a str>) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let mut words = command.into_iter().skip(1).peekable();
    while let Some(word) = words.next() {
        if found.len() >= MAX_SETTINGS {
            break;
        }
        let bare = word.trim_start_matches('-');
        let is_option = bare.len() < word.len() && bare.starts_with(|c: char| c.is_ascii_alphabetic());
        match bare.split_once('=') {
            Some((key, value)) if is_option || is_key(key) => {
                found.push((key.trim_start_matches('+').to_owned(), typed(value)));
            }
            _ if is_option && bare.len() > 1 => {
                let next = words.next_if(|next| !next.starts_with("--") && !is_flag(next));
                found.push((bare.to_owned(), next.map_or(Value::Bool(true), typed)));
            }
            _ => {}
        }
    }
    found
}

/// How many steps the settings say that the run is to have.
#[must_use]
pub fn planned(settings: &[(String, Value)]) -> Option<u64> {
    let named = |key: &str| PLANNED.contains(&key.replace('-', "_").as_str());
    let steps = settings.iter().filter(|(key, _)| named(key)).find_map(|(_, value)| value.number())?;
    (1.0..1e15).contains(&steps).then_some(steps as u64)
}

/// `-v`, but not `-1`.
fn is_flag(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn is_key(text: &str) -> bool {
    let text = text.trim_start_matches('+');
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c))
}

fn typed(text: &str) -> Value {
    match (text.parse::<i64>(), text.parse::<f64>(), text) {
        (Ok(whole), _, _) => Value::Integer(whole),
        (_, Ok(number), _) if number.is_finite() => Value::Float(number),
        (_, _, "true" | "True") => Value::Bool(true),
        (_, _, "false" | "False") => Value::Bool(false),
        _ => Value::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_taken_out_of_commands() {
        let command = "python train.py data.csv --lr 3e-4 --batch-size=32 --amp --shift -1 optim.wd=0.1 -v +seed=7 --max-steps 90";
        let text = |name: &str, value| (name.to_owned(), value);
        let found = of_command(command.split(' '));
        let expected = vec![
            text("lr", Value::Float(3e-4)),
            text("batch-size", Value::Integer(32)),
            text("amp", Value::Bool(true)),
            text("shift", Value::Integer(-1)),
            text("optim.wd", Value::Float(0.1)),
            text("seed", Value::Integer(7)),
            text("max-steps", Value::Integer(90)),
        ];
        assert_eq!(found, expected);
        assert_eq!(planned(&found), Some(90));
        assert_eq!(planned(&[]), None);
    }

    #[test]
    fn a_command_without_end_is_cut() {
        let words: Vec<String> = (0..1_000).map(|n| format!("--k{n}=1")).collect();
        assert_eq!(of_command(words.iter().map(String::as_str)).len(), MAX_SETTINGS);
    }
}
