//! What a machine asks of the gateway besides objects: that a stored manifest
//! be made durable, that one which does not verify be looked at, and signed
//! URLs for what comes next. What comes is bounded and checked by whoever takes
//! it; a URL is never shown.

use artifacts::restore::RestoreError;
use artifacts::store::booklet::{Booklet, Leaf, MOST_LEAVES, SignedUrl, Trust};
use artifacts::{Digest, Manifest, ObjectKey};
use async_trait::async_trait;
use proto::gateway::{Client, RemoteStore, passing};
use proto::v1::{self, commit_reply};
use tonic::{Code, Status, Streaming};

use crate::world::{BookletAsk, Commit, Gateway, Handed};

/// No collection of a store's own authorities is longer.
const LONGEST_PEM: usize = 1 << 20;

#[async_trait]
impl Gateway for RemoteStore {
    async fn commit(&self, work: &v1::Work, key: &str, digest: &str) -> Commit {
        let ask = || v1::CommitRequest {
            attempt_id: work.attempt_id.clone(),
            generation: work.generation,
            manifest_key: key.to_owned(),
            manifest_digest: digest.to_owned(),
        };
        let call = |mut client: Client| {
            let ask = ask();
            async move { client.commit(ask).await }
        };
        match self.call(call).await.map(tonic::Response::into_inner) {
            Ok(v1::CommitReply { outcome: Some(commit_reply::Outcome::Durable(_)) }) => Commit::Durable,
            Ok(v1::CommitReply { outcome: Some(commit_reply::Outcome::SupersededBy(_)) }) => {
                Commit::Superseded
            }
            Ok(v1::CommitReply { outcome: Some(commit_reply::Outcome::Refused(why)) }) => {
                Commit::Refused(why)
            }
            Ok(_) => Commit::Unknown("an outcome of a newer version".into()),
            Err(status) => unanswered(&status),
        }
    }

    async fn pin(&self, work: &v1::Work, repository: &str, commit: &str) -> Result<String, (String, bool)> {
        let ask = || v1::PinDataRequest {
            attempt_id: work.attempt_id.clone(),
            generation: work.generation,
            repository: repository.to_owned(),
            commit: commit.to_owned(),
        };
        let call = |mut client: Client| {
            let ask = ask();
            async move { client.pin_data(ask).await }
        };
        match self.call(call).await {
            Ok(reply) => Ok(reply.into_inner().commit),
            Err(status) => Err((status.message().to_owned(), passing(&status))),
        }
    }

    fn reachable(&self) -> bool {
        self.is_connected()
    }

    async fn booklet(&self, work: &v1::Work, ask: &BookletAsk) -> Handed {
        let between = ask.measured.map_or(0, |measured| measured.between_saves.as_millis().max(1));
        let request = || v1::BookletRequest {
            attempt_id: work.attempt_id.clone(),
            generation: work.generation,
            next_pack: ask.next.pack,
            next_manifest: ask.next.manifest,
            between_saves_ms: u64::try_from(between).unwrap_or(u64::MAX),
            packs_per_save: ask.measured.map_or(0, |measured| measured.packs_per_save),
        };
        let call = |mut client: Client| {
            let request = request();
            async move { collect(work, client.booklet(request).await?.into_inner()).await }
        };
        match self.call(call).await {
            Ok(handed) => handed,
            Err(status) if passing(&status) => Handed::Unknown(status.message().to_owned()),
            Err(status) => Handed::Never(status.message().to_owned()),
        }
    }

    async fn tree(&self, work: &v1::Work, key: &ObjectKey, digest: Digest) -> Result<Manifest, RestoreError> {
        self.open_manifest(&work.attempt_id, key, digest).await
    }

    async fn condemn(&self, work: &v1::Work, key: &str, detail: &str) {
        let ask = || v1::CondemnRequest {
            attempt_id: work.attempt_id.clone(),
            generation: work.generation,
            manifest_key: key.to_owned(),
            detail: detail.to_owned(),
        };
        let call = |mut client: Client| {
            let ask = ask();
            async move { client.condemn(ask).await }
        };
        if let Err(status) = self.call(call).await {
            let passing = passing(&status);
            tracing::warn!(
                key,
                passing,
                error = status.message(),
                "a corrupt checkpoint was not taken note of"
            );
        }
    }
}

/// A commit that came to nothing: nobody answered, or somebody did and what
/// was wrong is gone once it is published again.
fn unanswered(status: &Status) -> Commit {
    let why = status.message().to_owned();
    match status.code() {
        // About the manifest: published anew, it may be another's turn.
        Code::Aborted | Code::NotFound | Code::InvalidArgument | Code::OutOfRange => Commit::Again(why),
        // About the controller: its disk is full, its database fails. What is
        // stored waits, as if nobody had answered.
        _ => Commit::Unknown(why),
    }
}

/// Puts the parts together. Where they make no sense nothing is used.
async fn collect(work: &v1::Work, mut parts: Streaming<v1::BookletPart>) -> Result<Handed, Status> {
    let mut head = None;
    let (mut packs, mut manifests) = (Vec::new(), Vec::new());
    let leaf = |leaf: v1::BookletLeaf| Leaf {
        seq: leaf.seq,
        put: SignedUrl::new(leaf.put),
        look: SignedUrl::new(leaf.look),
    };
    while let Some(part) = parts.message().await? {
        head = head.or(part.head);
        packs.extend(part.packs.into_iter().map(leaf));
        manifests.extend(part.manifests.into_iter().map(leaf));
        if packs.len() > MOST_LEAVES || manifests.len() > MOST_LEAVES {
            return Ok(Handed::Unknown("it has more URLs than a booklet has".into()));
        }
    }
    let Some(head) = head.filter(|head| head.ca_pem.len() <= LONGEST_PEM) else {
        return Ok(Handed::Unknown("it has no head that makes sense".into()));
    };
    // A stream that was cut off ends like one that is whole.
    if (head.packs as usize, head.manifests as usize) != (packs.len(), manifests.len()) {
        return Err(Status::unavailable("fewer URLs came than were announced"));
    }
    let booklet = Booklet {
        scope: work.run_id.clone(),
        generation: work.generation,
        expires_ms: 0,
        trust: Trust { ca_pem: head.ca_pem, allow_http: head.allow_http },
        packs,
        manifests,
    };
    Ok(Handed::Booklet { booklet: Box::new(booklet), valid_ms: head.valid_ms, covers_ms: head.covers_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with the controller takes nothing off the list of what is
    /// stored.
    #[test]
    fn only_what_is_said_of_a_manifest_has_it_published_again() {
        for (code, again) in [
            (Code::Aborted, true),
            (Code::NotFound, true),
            (Code::ResourceExhausted, false),
            (Code::Internal, false),
            (Code::FailedPrecondition, false),
            (Code::Unavailable, false),
            (Code::DeadlineExceeded, false),
            (Code::Unknown, false),
        ] {
            let answer = unanswered(&Status::new(code, "why"));
            assert_eq!(matches!(answer, Commit::Again(_)), again, "{code:?}");
            assert_eq!(matches!(answer, Commit::Unknown(_)), !again, "{code:?}");
        }
    }
}
