//! Machines that some Outlast made and this one did not: who lost a data
//! directory must still be able to find what bills, and to end it. Nothing here
//! happens by itself, and nothing of this installation is ever touched here:
//! that is the sweep's.

use std::time::Duration;

use crate::core::{Core, CoreError};
use crate::label;
use crate::provider::{DestroyOutcome, Instance, Listing, Presence, Provider, Terms};

/// A list that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(60);
/// Machines told at most.
const MOST: usize = 1_000;
/// How long a destroyed one may be listed still.
const GONE: Duration = Duration::from_secs(20);

/// A machine of another installation.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    /// Where it is rented.
    pub provider: String,
    /// As its provider lists it.
    pub instance: Instance,
    /// What it costs, if that is told.
    pub terms: Option<Terms>,
}

/// The providers that bill and can be asked, or the one that is named.
fn billing<'c>(core: &'c Core, only: &'c str) -> impl Iterator<Item = &'c std::sync::Arc<dyn Provider>> {
    let named = move |name: &str| only.is_empty() || name == only;
    core.providers.iter().filter(move |(name, p)| named(name) && p.is_paid()).map(|(_, provider)| provider)
}

fn is_foreign(core: &Core, text: &str) -> bool {
    text.starts_with(label::EVERYBODY) && !label::is_ours(text, core.hub, &core.label_key)
}

/// Lists them, with what could not be listed. A part of a list is told, and
/// that it is one.
pub async fn list(core: &Core, only: &str) -> (Vec<Foreign>, Vec<String>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for provider in billing(core, only) {
        let name = provider.name();
        if let Err(why) = provider.ready() {
            problems.push(format!("{name}: {why}"));
            continue;
        }
        let listed = tokio::time::timeout(PATIENCE, provider.list(label::EVERYBODY)).await;
        let instances = match listed {
            Ok(Listing::Complete(instances)) => instances,
            Ok(Listing::Partial(instances)) => {
                problems.push(format!("{name}: the list is not whole; there may be more"));
                instances
            }
            Ok(Listing::Error(why)) => {
                problems.push(format!("{name}: {why}"));
                continue;
            }
            Err(_) => {
                problems.push(format!("{name}: no list within {} s", PATIENCE.as_secs()));
                continue;
            }
        };
        for instance in instances.into_iter().filter(|instance| is_foreign(core, &instance.label)) {
            if found.len() >= MOST {
                problems.push(format!("{name}: more than {MOST}; the others are not shown"));
                break;
            }
            let terms = tokio::time::timeout(PATIENCE, provider.terms(&instance.id)).await.ok().flatten();
            found.push(Foreign { provider: name.to_owned(), instance, terms });
        }
    }
    (found, problems)
}

/// Destroys one that is still what was listed: its number and its label. `None`:
/// it is gone; otherwise what the provider said.
///
/// # Errors
/// Where it is not there, not what was listed, or this installation's own.
pub async fn destroy(
    core: &Core,
    provider: &dyn Provider,
    instance: &str,
    text: &str,
) -> Result<Option<String>, CoreError> {
    let impossible = |why: String| Err(CoreError::Impossible(why));
    if !is_foreign(core, text) {
        return impossible(format!("{instance} is no machine of another installation: its label says so"));
    }
    // The number may be another machine's by now.
    let listed = tokio::time::timeout(PATIENCE, provider.list(label::EVERYBODY)).await;
    let (instances, whole) = match listed {
        Ok(Listing::Complete(instances)) => (instances, true),
        Ok(Listing::Partial(instances)) => (instances, false),
        Ok(Listing::Error(why)) => return impossible(format!("the provider could not be asked: {why}")),
        Err(_) => return impossible("the provider did not answer".into()),
    };
    match instances.iter().find(|i| i.id == instance) {
        Some(found) if found.label == text => {}
        Some(_) => return impossible(format!("{instance} carries another label now; list them again")),
        None if whole => return impossible(format!("{instance} is not there any more")),
        None => {
            return impossible(format!("{instance} was not in the part of the list that came; try again"));
        }
    }
    let until = tokio::time::Instant::now() + GONE;
    let mut said = match provider.destroy(instance).await {
        DestroyOutcome::Absent => return Ok(None),
        DestroyOutcome::Accepted => "it is being removed".to_owned(),
        DestroyOutcome::Unknown(why) => why,
    };
    loop {
        match provider.get(instance).await {
            Presence::Absent => return Ok(None),
            Presence::Error(why) => said = why,
            Presence::Present(_) => {}
        }
        if tokio::time::Instant::now() >= until {
            return Ok(Some(said));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
