//! What a machine asks of the gateway besides objects: that a stored manifest
//! be made durable, and that one which does not verify be looked at.

use async_trait::async_trait;
use proto::gateway::{Client, RemoteStore, passing};
use proto::v1::{self, commit_reply};

use crate::world::{Commit, Gateway};

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
            Err(status) => Commit::Unknown(status.message().to_owned()),
        }
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
