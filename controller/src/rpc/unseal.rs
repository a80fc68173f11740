//! The keys of sealed manifests, one at a time. An operator gets that of any; a
//! machine that of the checkpoint which its own attempt goes on from and of the
//! results before it, while it is the one that works on the run, and of no other
//! tree, whatever it asks for.

use artifacts::ObjectKey;
use artifacts::manifest::Description;
use artifacts::restore::{RestoreError, load_description, opening_failed};
use lifecycle::MachineId;
use proto::convert;
use proto::identity::Identity;
use proto::v1;
use tonic::{Request, Response, Status};

use crate::core::Core;
use crate::durable;
use crate::model::{Attempt, Checkpoint, Run, Versioned};

/// Answers with the key of one manifest.
pub(super) async fn unseal(
    core: &Core,
    request: Request<v1::UnsealRequest>,
) -> Result<Response<v1::UnsealReply>, Status> {
    let peer = super::peer_of(&request)?;
    super::current(core, &peer)?;
    let ask = request.into_inner();
    let key: ObjectKey = ask.manifest_key.parse().map_err(|_| Status::invalid_argument("no object key"))?;
    match peer.identity {
        Identity::Operator(_) => {}
        Identity::Machine(id) => may_open(core, id, &ask).await?,
        Identity::Controller => return Err(Status::permission_denied("a controller is no client")),
    }
    let found = load_description(&*core.objects, &key, None).await;
    let found = found.map_err(|error| match durable::is_passing(&error) {
        true => Status::unavailable(error.to_string()),
        false => Status::failed_precondition(error.to_string()),
    })?;
    let Description::Sealed(sealed) = found else {
        return Err(Status::invalid_argument(format!("{key} is not sealed")));
    };
    match core.keys.ring().key_of(&key, &sealed) {
        Ok(opens) => Ok(Response::new(v1::UnsealReply { manifest_opens: opens.expose().to_vec() })),
        Err(error) => Err(Status::failed_precondition(match opening_failed(&key, error) {
            // Whoever asked knows which manifest it is.
            RestoreError::Sealed { what, .. } => what,
            other => other.to_string(),
        })),
    }
}

async fn may_open(core: &Core, machine: MachineId, ask: &v1::UnsealRequest) -> Result<(), Status> {
    let no = || Status::permission_denied("that tree was not given to this machine");
    let attempt = convert::attempt_id(&ask.attempt_id)?;
    let attempt: Versioned<Attempt> = core.need(&attempt.to_string()).await?;
    let run: Versioned<Run> = core.need(&attempt.body.run.to_string()).await?;
    let is_bound = run.body.bound == Some(attempt.body.id) && run.body.generation == attempt.body.generation;
    if attempt.body.machine != machine || !is_bound || run.body.status.is_final() {
        return Err(no());
    }
    let key = ask.manifest_key.as_str();
    if run.body.outputs.as_ref().is_some_and(|outputs| outputs.key == key) {
        return Ok(());
    }
    // One after another: an older one counts once all newer ones are bad.
    for offer in &attempt.body.resume {
        if offer.key == key {
            return Ok(());
        }
        let row = core.load::<Checkpoint>(&offer.key).await?;
        if row.is_some_and(|row| row.body.status.is_durable()) {
            break;
        }
    }
    Err(no())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Changes;
    use crate::durable::tests::Bench;
    use crate::model::ManifestRef;

    async fn asks(bench: &Bench, machine: u8, key: &str) -> bool {
        let ask = v1::UnsealRequest { attempt_id: bench.attempt.to_string(), manifest_key: key.to_owned() };
        may_open(&bench.core, MachineId::from_bytes([machine; 16]), &ask).await.is_ok()
    }

    #[tokio::test]
    async fn a_machine_gets_the_key_of_what_it_goes_on_from_and_of_nothing_else() {
        let mut bench = Bench::sealed().await;
        let saves = [bench.save_sealed(1).await, bench.save_sealed(2).await, bench.save_sealed(3).await];
        let mut attempt: Versioned<Attempt> = bench.core.need(&bench.attempt.to_string()).await.unwrap();
        let offer = |step: usize| ManifestRef { ..saves[step - 1].clone() };
        attempt.body.resume = vec![offer(2), offer(1)];
        assert!(bench.core.commit(Changes::default().put(&attempt)).await.unwrap());
        let [first, second, third] = [1, 2, 3].map(|step| offer(step).key);
        assert!(asks(&bench, 9, &second).await);
        assert!(!asks(&bench, 9, &first).await, "the newer one is whole");
        assert!(!asks(&bench, 9, &third).await, "it was not offered");
        assert!(!asks(&bench, 8, &second).await, "another machine");
        durable::condemn(&bench.core, "test", &second, "damaged", None).await.unwrap();
        assert!(asks(&bench, 9, &first).await);
        // A newer generation is bound.
        let mut run: Versioned<Run> = bench.core.need(&bench.run.to_string()).await.unwrap();
        run.body.generation = lifecycle::Generation::from_u64(2);
        assert!(bench.core.commit(Changes::default().put(&run)).await.unwrap());
        assert!(!asks(&bench, 9, &first).await);
    }
}
