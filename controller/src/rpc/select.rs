//! From what a person types to one run or machine: a name, an id, or an
//! unambiguous prefix of either.

use tonic::Status;

use crate::core::Core;
use crate::model::{Machine, Run, Versioned};

mod checkpoint;

pub use checkpoint::{checkpoint, durable_or_condemned};

const SHOWN: usize = 10;

/// Finds the one candidate that `text` means: one that is called so, else one
/// whose name without its suffix is that, else one whose name begins so.
///
/// # Errors
/// `NotFound`, or `FailedPrecondition` with the candidates.
fn one<T>(what: &str, text: &str, all: Vec<T>, names: impl Fn(&T) -> Vec<String>) -> Result<T, Status> {
    if text.is_empty() {
        return Err(Status::invalid_argument(format!("which {what}? its name is empty")));
    }
    let (mut exact, mut based, mut starting) = (Vec::new(), Vec::new(), Vec::new());
    for item in all {
        let own = names(&item);
        if own.iter().any(|n| n == text) {
            exact.push(item);
        } else if own.iter().any(|n| n.rsplit_once('-').is_some_and(|(base, _)| base == text)) {
            based.push(item);
        } else if own.iter().any(|n| n.starts_with(text)) {
            starting.push(item);
        }
    }
    let tiers = [exact, based, starting];
    let mut found = tiers.into_iter().find(|tier| !tier.is_empty()).unwrap_or_default();
    match (found.pop(), found.len()) {
        (None, _) => Err(Status::not_found(format!("there is no {what} `{text}`"))),
        (Some(only), 0) => Ok(only),
        (Some(last), more) => {
            let mut list: Vec<String> =
                found.iter().chain([&last]).filter_map(|item| names(item).into_iter().next()).collect();
            list.sort();
            list.truncate(SHOWN);
            Err(Status::failed_precondition(format!(
                "`{text}` is ambiguous, {} {what}s match: {}",
                more + 1,
                list.join(", ")
            )))
        }
    }
}

/// The run that `text` means.
///
/// # Errors
/// Where none or several match, or the store fails.
pub async fn run(core: &Core, text: &str) -> Result<Versioned<Run>, Status> {
    let all = core.every::<Run>().await?;
    let found = one("run", text, all, |r| {
        let id = r.body.id.to_string();
        let suffix = r.body.name.rsplit('-').next().unwrap_or_default().to_owned();
        vec![r.body.name.clone(), id, suffix]
    });
    Ok(found?.own())
}

/// The machine that `text` means.
///
/// # Errors
/// Where none or several match, or the store fails.
pub async fn machine(core: &Core, text: &str) -> Result<Versioned<Machine>, Status> {
    let all = core.every::<Machine>().await?;
    Ok(one("machine", text, all, |m| vec![m.body.id.to_string()])?.own())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(text: &str) -> Result<&'static str, Status> {
        one("run", text, vec!["digits-abc", "digits-abd", "jax-x", "jax"], |s| vec![(*s).to_owned()])
    }

    #[test]
    fn a_prefix_selects_only_when_it_is_alone() {
        assert_eq!(pick("digits-abc").unwrap(), "digits-abc");
        assert_eq!(pick("jax").unwrap(), "jax", "an exact name wins over a longer one");
        let error = pick("digits").unwrap_err();
        assert!(error.message().contains("digits-abc, digits-abd"), "{error}");
        assert!(pick("nothing").is_err());
        let pick = |text: &str| one("run", text, vec!["many-abc", "manyout-abd"], |s| vec![(*s).to_owned()]);
        assert_eq!(pick("many").unwrap(), "many-abc", "a whole name wins over the beginning of another");
        assert!(pick("man").unwrap_err().message().contains("many-abc, manyout-abd"));
        assert!(pick("").is_err());
    }
}
