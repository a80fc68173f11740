//! Machines of other installations, as people's tools ask for them. Translates
//! and decides nothing.

use lifecycle::meter::Billed;
use proto::v1;
use serde_json::json;
use tonic::Status;

use crate::core::{Changes, Core};
use crate::foreign::{self, Foreign};
use crate::label;
use crate::provider::InstanceState;

/// Asks the providers.
///
/// # Errors
/// Where there is no such provider, or it bills nothing.
pub(super) async fn list(core: &Core, provider: &str) -> Result<v1::ForeignList, Status> {
    if !provider.is_empty() && !core.provider(provider)?.is_paid() {
        return Err(Status::invalid_argument(format!("machines of `{provider}` cost nobody money")));
    }
    let (found, problems) = foreign::list(core, provider).await;
    Ok(v1::ForeignList { machines: found.into_iter().map(view).collect(), problems })
}

fn view(found: Foreign) -> v1::ForeignMachine {
    let state = match found.instance.state {
        InstanceState::Booting => "BOOTING",
        InstanceState::Up => "UP",
        InstanceState::Terminal => "TERMINAL",
    };
    let billed = found.terms.as_ref().map_or("", |terms| match terms.billed {
        Billed::Nothing => "nothing",
        Billed::Disk => "disk",
        Billed::All => "all",
    });
    let rates = found.terms.as_ref().and_then(|terms| terms.rates);
    v1::ForeignMachine {
        provider: found.provider,
        installation: label::installation(&found.instance.label).unwrap_or_default().to_owned(),
        instance: found.instance.id,
        label: found.instance.label,
        state: state.to_owned(),
        usd_per_hour: rates.map_or(0.0, |rates| rates.hourly()),
        billed: billed.to_owned(),
        says: found.terms.map(|terms| terms.said).unwrap_or_default(),
    }
}

/// Destroys one, and says so in the journal first and after.
///
/// # Errors
/// As [`foreign::destroy`].
pub(super) async fn destroy(
    core: &Core,
    actor: &str,
    ask: v1::DestroyForeignRequest,
) -> Result<v1::DestroyForeignReply, Status> {
    let provider = core.provider(&ask.provider)?;
    if !provider.is_paid() {
        return Err(Status::invalid_argument(format!("machines of `{}` cost nobody money", ask.provider)));
    }
    let note = |verb: &str, detail| {
        Changes::default().note(core, actor, verb, format!("{}/{}", ask.provider, ask.instance), None, detail)
    };
    core.commit_quietly(note("destroy-foreign", json!({"label": ask.label}))).await?;
    let left = foreign::destroy(core, &*provider, &ask.instance, &ask.label).await?;
    let says = left.unwrap_or_default();
    core.commit_quietly(note("foreign-destroyed", json!({"gone": says.is_empty(), "says": says}))).await?;
    Ok(v1::DestroyForeignReply { gone: says.is_empty(), says })
}
