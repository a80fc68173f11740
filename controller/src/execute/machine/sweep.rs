//! Compares what providers list with the rows, once a minute: what carries this
//! hub's label and serves no row is destroyed. It never touches what this hub did
//! not label, and a list that is partial or missing proves nothing.

use lifecycle::MachineState;
use serde_json::json;

use super::LIST_PATIENCE;
use super::ending::reappeared;
use crate::core::{Changes, Core, CoreError};
use crate::execute::SELF;
use crate::label;
use crate::model::{Machine, Versioned};
use crate::provider::Listing;

async fn has_machines(core: &Core, provider: &str) -> Result<bool, CoreError> {
    let all: Vec<Versioned<Machine>> = core.all().await?;
    Ok(all.iter().any(|row| row.body.provider == provider && !row.body.status.is_final()))
}

/// Compares the provider's list with the rows: what carries this hub's label
/// and serves no row is destroyed. A partial list or an error proves nothing.
///
/// # Errors
/// Where the store fails.
pub async fn sweep(core: &Core) -> Result<u32, CoreError> {
    let mut orphans = 0;
    for (name, provider) in &core.providers {
        // Whoever never gave a key has no machines there to look for.
        if provider.ready().is_err() && !has_machines(core, name).await? {
            continue;
        }
        let listed_ms = core.clock.wall_ms();
        // Whoever does not answer holds up nothing else for long.
        let listed = tokio::time::timeout(LIST_PATIENCE, provider.list(&label::prefix(core.hub))).await;
        let (instances, all) = match listed {
            Ok(Listing::Complete(instances)) => (instances, true),
            // What is in a part of a list is there, whatever else is.
            Ok(Listing::Partial(instances)) => (instances, false),
            Ok(Listing::Error(_)) | Err(_) => (Vec::new(), false),
        };
        let trouble = (!all).then(|| format!("provider `{name}` could not be listed in full"));
        core.alert(&format!("sweep {name}"), trouble);
        // What the list said of each is at hand; what it did not is not waited for.
        if provider.is_paid() && all {
            match tokio::time::timeout(LIST_PATIENCE, super::look::look_at_all(core, name)).await {
                Ok(done) => done?,
                Err(_) => tracing::warn!(provider = %name, "not every price could be read back"),
            }
        }
        for instance in instances {
            let Some(id) = label::read(&instance.label, core.hub, &core.label_key) else { continue };
            let row: Option<Versioned<Machine>> = core.load(&id.to_string()).await?;
            let wanted = row.as_ref().is_some_and(|r| {
                let live = !r.body.status.is_final() && r.body.status != MachineState::Abandoned;
                // Two under one label: an order that came twice. One of them is
                // the machine.
                let open = matches!(r.body.status, MachineState::Calling | MachineState::Unknown);
                live && (open || r.body.instance.as_ref().is_none_or(|known| *known == instance.id))
            });
            if wanted {
                continue;
            }
            orphans += 1;
            if let Some(row) = &row
                && reappeared(core, &**provider, row.clone(), (&instance, listed_ms)).await?
            {
                // The plan destroys it, until it is confirmed gone.
                continue;
            }
            let outcome = provider.destroy(&instance.id).await;
            let detail = json!({"instance": instance.id, "outcome": format!("{outcome:?}")});
            let run = row.map(|r| r.body.run);
            core.commit(Changes::default().note(core, SELF, "orphan-destroyed", id, run, detail)).await?;
        }
    }
    Ok(orphans)
}
