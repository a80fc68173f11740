//! Why a file has nothing to show, in words that say what to do. It looks at the
//! beginning of the file again and never at more.

use std::io::Read as _;
use std::path::Path;

use curves::format::{Format, HEAD_BYTES};

use super::source::{Inside, Part, Skipped, Source};
use super::{find, packed, words};

/// Files whose reasons are told one by one.
const TOLD: usize = 4;
/// How W&B's files begin: a mark of six bytes and a version.
const WANDB: &[u8] = b":W&B\xe1\xbe";
const WANDB_HEADER: usize = 7;

/// Why a run has no values.
pub(super) fn nothing(source: &Source) -> Option<String> {
    let [part] = source.parts.as_slice() else { return None };
    let head = head(part)?;
    of_head(&head, source.format)
}

fn head(part: &Part) -> Option<Vec<u8>> {
    match part.inside {
        Inside::Bytes => {
            let mut head = Vec::new();
            find::open(part.file()).ok()?.take(HEAD_BYTES as u64).read_to_end(&mut head).ok()?;
            Some(head)
        }
        Inside::Gzip => packed::gzip_head(part.file()).ok(),
        _ => None,
    }
}

/// What is wrong with a file that begins so and was read as that.
pub(super) fn of_head(head: &[u8], format: Format) -> Option<String> {
    let begin = head.iter().find(|byte| !byte.is_ascii_whitespace());
    Some(match format {
        _ if head.is_empty() => "is empty".to_owned(),
        Format::Wandb if WANDB.starts_with(&head[..head.len().min(WANDB.len())]) => match head.len() {
            WANDB_HEADER => "has the header of W&B's files and no record behind it yet".to_owned(),
            length if length < WANDB_HEADER => "is cut off within the header of W&B's files".to_owned(),
            _ => return None,
        },
        Format::Wandb => "does not begin with the mark of W&B's files, and no record was found in it".to_owned(),
        _ if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) => {
            "is text in UTF-16: write it in UTF-8, such as with `iconv -f UTF-16 -t UTF-8`".to_owned()
        }
        Format::Console | Format::JsonLines if begin == Some(&b'[') => {
            "is a JSON list, and none that a known tool writes: one object a line is read, as `jq -c '.[]'` prints them".to_owned()
        }
        _ => return None,
    })
}

/// What is said of a table that was read all the same.
pub(super) fn of_table(source: &Source, logged: &[String]) -> Option<String> {
    let part = source.parts.last().filter(|_| source.format == Format::Delimited)?;
    if !logged.is_empty() && logged.iter().all(|name| name.starts_with("column ")) {
        return Some(
            "its first line holds numbers, so that its columns have no names: \"column 1\" and so on, none of them the step"
                .to_owned(),
        );
    }
    let head = head(part)?;
    let text = String::from_utf8_lossy(&head);
    let cell = text.lines().skip(1).take(20).flat_map(|line| line.split(['\t', ';', '"'])).find(|cell| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let cell = cell.trim().trim_start_matches('-');
        cell.split_once(',').is_some_and(|(whole, part)| digits(whole) && digits(part))
    })?;
    // In a table that is cut at commas only what stands in quotes is one cell.
    let cut_at_commas = !text.lines().next().unwrap_or_default().contains(['\t', ';']);
    (!cut_at_commas || text.contains(&format!("\"{cell}\""))).then(|| {
        format!(
            "cells such as {} are no numbers here: write decimal points, not commas",
            words::quoted(cell.trim())
        )
    })
}

/// The reasons of a path, file by file where they are few, else counted.
pub(super) fn told(path: &Path, skipped: &[Skipped]) -> String {
    if skipped.len() <= TOLD {
        let one = |skipped: &Skipped| match skipped.path.strip_prefix(path) {
            Ok(below) if !below.as_os_str().is_empty() => format!("{}: {}", words::path(below), skipped.why),
            _ => skipped.why.clone(),
        };
        return skipped.iter().map(one).collect::<Vec<_>>().join("; ");
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for skipped in skipped {
        match counts.iter_mut().find(|(why, _)| *why == skipped.why) {
            Some((_, count)) => *count += 1,
            None => counts.push((&skipped.why, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let said = counts
        .iter()
        .take(TOLD)
        .map(|(why, count)| if *count > 1 { format!("{why} ({count} times)") } else { (*why).to_owned() });
    said.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_told_by_its_beginning() {
        for (head, format, says) in [
            (&b""[..], Format::JsonLines, Some("is empty")),
            (b":W&B\xe1\xbe\0", Format::Wandb, Some("no record behind it")),
            (b":W&", Format::Wandb, Some("cut off within the header")),
            (b"junk", Format::Wandb, Some("mark of W&B's files")),
            (b":W&B\xe1\xbe\0more", Format::Wandb, None),
            (b"\xff\xfes\0t\0", Format::Delimited, Some("UTF-16")),
            (b" [{\"a\": 1}]", Format::Console, Some("is a JSON list")),
            (b"step,loss", Format::Delimited, None),
        ] {
            let found = of_head(head, format);
            assert_eq!(found.is_some(), says.is_some(), "{head:?}: {found:?}");
            assert!(says.is_none_or(|says| found.is_some_and(|found| found.contains(says))), "{head:?}");
        }
    }

    #[test]
    fn few_reasons_are_told_by_file_and_many_are_counted() {
        let skipped =
            |name: &str, why: &str| Skipped { path: format!("d/{name}").into(), why: why.to_owned() };
        let few = [skipped("a", "is empty"), skipped("b", "of no known format")];
        assert_eq!(told(Path::new("d"), &few), "a: is empty; b: of no known format");
        assert_eq!(told(Path::new("d/a"), &few[..1]), "is empty");
        let many: Vec<Skipped> = (0..9).map(|index| skipped(&index.to_string(), "is empty")).collect();
        assert_eq!(told(Path::new("d"), &many), "is empty (9 times)");
    }
}
