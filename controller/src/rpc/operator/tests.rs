//! New runs out of old work, as a person asks for them.

use artifacts::publish::About;
use artifacts::{KeySpace, Kind, publish_bytes};
use lifecycle::spec::difference::Change;
use lifecycle::{CheckpointState, RunId};
use serde_json::json;

use super::*;
use crate::model::{Checkpoint, ManifestRef, Versioned};
use crate::retain::tests::Bench;
use crate::retain::{Grace, Keeper};

fn service(bench: &Bench) -> OperatorService {
    let build = Build { id: "b".into(), schema: 1, started_ms: 0 };
    OperatorService::new(bench.core.clone(), TaskTracker::new(), CancellationToken::new(), build)
}

/// Nothing is known of any chunk.
struct Nothing;

#[tonic::async_trait]
impl artifacts::ChunkIndex for Nothing {
    async fn locate(
        &self,
        digests: &[artifacts::Digest],
    ) -> Result<Vec<Option<artifacts::Location>>, artifacts::StoreError> {
        Ok(vec![None; digests.len()])
    }
}

async fn put(bench: &Bench, scope: &str, generation: u64, kind: Kind, text: &str) -> (String, String) {
    let about = About { kind, step: Some(40), name: "c.npz".into(), single_file: true, created_ms: 1 };
    let about = if kind == Kind::Source {
        About { step: None, name: String::new(), single_file: false, ..about }
    } else {
        about
    };
    let mut keys = KeySpace { scope: scope.into(), generation, pack_seq: 0, manifest_seq: 0 };
    let files = [("c.npz".to_owned(), text.as_bytes().to_vec())];
    let put = publish_bytes(&files, &about, &mut keys, &*bench.core.objects, &Nothing).await.unwrap();
    (put.manifest_key.to_string(), put.manifest_digest.to_string())
}

fn fork(checkpoint: &str, token: &str, changes: &[Change]) -> v1::ForkRequest {
    v1::ForkRequest {
        checkpoint: checkpoint.into(),
        changes_json: serde_json::to_string(changes).unwrap(),
        token: token.into(),
        ..v1::ForkRequest::default()
    }
}

fn set(path: &[&str], to: serde_json::Value) -> Change {
    Change { path: path.iter().map(|word| (*word).to_owned()).collect(), from: None, to: Some(to) }
}

#[tokio::test(start_paused = true)]
async fn a_fork_is_the_other_run_but_for_what_was_set() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=3).await;
    bench.change(|run| drop(run.spec.env.insert("TOKEN".into(), "hunter2hunter2".into()))).await;
    let service = service(&bench);
    let changes = [set(&["env", "LR"], json!("0.1")), set(&["name"], json!("forked"))];
    let run = service.forked("test", fork("r@2", "t1", &changes)).await.unwrap();
    assert_eq!((run.spec.env["LR"].as_str(), run.spec.env["TOKEN"].as_str()), ("0.1", "hunter2hunter2"));
    assert!(run.name.starts_with("forked-"), "{}", run.name);
    let made = run.fork.clone().unwrap();
    assert_eq!((run.parent, made.checkpoint.step, made.other_source), (Some(bench.run), Some(2), false));
    assert_eq!(made.changes.len(), 2);
    let view = crate::rpc::views::run(&bench.core, &run).await.unwrap();
    assert_eq!(
        (view.forked_from.as_str(), view.changes),
        ("r@2", vec!["run.env.LR: nothing -> 0.1".to_owned()])
    );
    let again = service.forked("test", fork("r@2", "t1", &changes)).await.unwrap();
    assert_eq!(again.id, run.id, "the same token is the same run");
    let newest = service.forked("test", fork("r", "t2", &[])).await.unwrap();
    assert_eq!(newest.fork.unwrap().checkpoint.step, Some(3));

    for (ask, code) in [
        (fork("r@9", "t3", &[]), tonic::Code::NotFound),
        (fork("nobody@1", "t3", &[]), tonic::Code::NotFound),
        (fork("r@2", "", &[]), tonic::Code::InvalidArgument),
        (fork("r@2", "t3", &[set(&["command"], json!([]))]), tonic::Code::InvalidArgument),
        (fork("r@2", "t3", &[set(&["project"], json!("other"))]), tonic::Code::FailedPrecondition),
        (fork("r@best", "t3", &[]), tonic::Code::FailedPrecondition),
    ] {
        let refused = service.forked("test", ask.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{ask:?}: {refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_run_at_a_time_goes_on_from_another() {
    let bench = Bench::new(0).await;
    let service = service(&bench);
    let old: Versioned<Run> = bench.core.need(&bench.run.to_string()).await.unwrap();
    let wish = |token: &str| {
        let wish = Submission::new(old.body.spec.clone(), old.body.source.clone(), token.into());
        service.submit_run("test", Submission { parent: Some(bench.run), ..wish })
    };
    let (one, two) = tokio::join!(wish("t1"), wish("t2"));
    let (next, refused) = (one.unwrap(), two.unwrap_err());
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains(&next.name), "{refused}");
    // Who asks again with its token is told the same.
    assert_eq!(wish("t1").await.unwrap().id, next.id);
    let ends = |run: &mut Run| {
        run.status = RunState::Cancelled;
        Ok(())
    };
    service.change_run(&next.name, "test", "ended", ends).await.unwrap();
    assert_ne!(wish("t2").await.unwrap().id, next.id, "what has ended goes on again");
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_of_a_fork_is_never_let_go_nor_one_that_goes_forked() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=9).await;
    bench.change(|run| run.status = RunState::Succeeded).await;
    tokio::time::advance(Duration::from_hours(24 * 400)).await;
    let service = service(&bench);
    service.forked("test", fork("r@2", "t1", &[])).await.unwrap();
    Keeper::default().turn(&bench.core, Grace::default()).await.unwrap();
    assert_eq!(bench.durable().await, [2, 7, 8, 9]);
    let gone = service.forked("test", fork("r@3", "t2", &[])).await.unwrap_err();
    assert_eq!(gone.code(), tonic::Code::NotFound);
    assert!(gone.message().contains("step 2 to 9"), "{gone}");
    // Read before the fork and written after it: it must fail.
    let rows = bench.core.of_run::<Checkpoint>(bench.run).await.unwrap();
    let mut stale = rows.into_iter().find(|row| row.body.manifest.step == Some(7)).unwrap();
    service.forked("test", fork("r@7", "t3", &[])).await.unwrap();
    stale.body.status = CheckpointState::Unlinked;
    assert!(!bench.core.commit(Changes::default().put(&stale)).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_imported_checkpoint_is_a_run_that_is_held() {
    let bench = Bench::new(0).await;
    let service = service(&bench);
    let id = RunId::from_bytes([33; 16]);
    let (source_key, source_digest) = put(&bench, "source", 5, Kind::Source, "print(1)").await;
    let (manifest_key, manifest_digest) = put(&bench, &id.to_string(), 0, Kind::Checkpoint, "weights").await;
    let spec = json!({"project": "p", "name": "imp", "command": ["x"], "provider": "local"});
    let ask = v1::ImportRequest {
        run_id: id.to_string(),
        spec_json: spec.to_string(),
        source_key,
        source_digest,
        manifest_key,
        manifest_digest,
        secrets: Vec::new(),
    };
    let run = service.imported("test", ask.clone()).await.unwrap();
    assert_eq!((run.status.clone(), run.head.as_ref().unwrap().step), (RunState::Paused, Some(40)));
    assert_eq!(service.imported("test", ask.clone()).await.unwrap().id, id, "asked twice it is one run");
    let views = crate::rpc::lineage::checkpoints(&bench.core, &run).await.unwrap();
    assert_eq!((views[0].r#type.as_str(), views[0].attempt, views[0].head), ("npz", 0, true));
    let forked = service.forked("test", fork("imp@40", "t1", &[])).await.unwrap();
    let offered = crate::durable::offered(&bench.core, &forked).await.unwrap();
    assert_eq!(offered.iter().map(|m| m.step).collect::<Vec<_>>(), [Some(40)]);
    let own = crate::durable::offered(&bench.core, &run).await.unwrap();
    assert_eq!(own.len(), 1, "resumed, it begins from it itself");

    let elsewhere = put(&bench, &bench.run.to_string(), 7, Kind::Checkpoint, "w").await;
    let other = RunId::from_bytes([34; 16]);
    let stolen = v1::ImportRequest {
        run_id: other.to_string(),
        manifest_key: elsewhere.0,
        manifest_digest: elsewhere.1,
        ..ask.clone()
    };
    assert_eq!(service.imported("test", stolen).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let (tree, digest) = put(&bench, &other.to_string(), 0, Kind::Outputs, "w").await;
    let no_checkpoint =
        v1::ImportRequest { run_id: other.to_string(), manifest_key: tree, manifest_digest: digest, ..ask };
    assert!(service.imported("test", no_checkpoint).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_not_whole_stands_for_nothing() {
    let bench = Bench::new(0).await;
    let service = service(&bench);
    let (key, digest) = put(&bench, &bench.run.to_string(), 1, Kind::Outputs, "result").await;
    bench
        .change(|run| {
            run.outputs = Some(ManifestRef { key: key.clone(), digest: digest.clone(), step: None });
        })
        .await;
    let run = async || bench.core.need::<Run>(&bench.run.to_string()).await.unwrap().body;
    assert!(service.is_whole(&run().await).await.unwrap());
    for pack in bench.core.objects.list(&format!("{}/", bench.run)).await.unwrap() {
        if pack.as_str() != key {
            bench.core.objects.delete(&pack).await.unwrap();
        }
    }
    assert!(!service.is_whole(&run().await).await.unwrap());
    bench.change(|run| run.outputs = None).await;
    assert!(service.is_whole(&run().await).await.unwrap(), "a run without results has all of them");
}

#[tokio::test(start_paused = true)]
async fn a_verification_is_asked_for_and_asked_about() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=3).await;
    let service = service(&bench);
    let ask = |of: &str, all| v1::VerifyRequest { of: of.into(), all, ..v1::VerifyRequest::default() };
    let begun = service.verification("test", ask("r", true)).await.unwrap();
    assert_eq!((begun.state.as_str(), begun.checkpoints), ("waiting", 3));
    let one = service.verification("test", ask("r@2", false)).await.unwrap();
    assert_eq!((one.checkpoints, one.job), (1, begun.job + 1));
    let stop = CancellationToken::new();
    let (core, end) = (bench.core.clone(), stop.clone());
    let tasks = TaskTracker::new();
    tasks.spawn(crate::verify::run(core, end));
    let about = |job| v1::VerifyRequest { job, ..v1::VerifyRequest::default() };
    let done = loop {
        let now = service.verification("test", about(begun.job)).await.unwrap();
        if now.state == "done" {
            break now;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    stop.cancel();
    assert_eq!((done.rows.len(), done.bytes_done > 0), (3, true));
    assert!(done.rows.iter().all(|row| row.run == "r" && row.trouble.is_empty()));
    for (ask, code) in [
        (ask("r@2", true), tonic::Code::InvalidArgument),
        (ask("r@7", false), tonic::Code::NotFound),
        (about(99), tonic::Code::NotFound),
        (v1::VerifyRequest { sample: 101, ..ask("r", false) }, tonic::Code::InvalidArgument),
    ] {
        assert_eq!(service.verification("test", ask).await.unwrap_err().code(), code);
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_work_is_returned_only_where_that_is_wanted_and_it_succeeded() {
    let bench = Bench::new(0).await;
    let service = service(&bench);
    let (source_key, source_digest) = put(&bench, "source", 5, Kind::Source, "print(1)").await;
    // The same files, packed another time.
    let (later_key, later_digest) = put(&bench, "source", 6, Kind::Source, "print(1)").await;
    let spec = json!({"project": "p", "name": "work", "command": ["x"], "provider": "local"});
    let ask = |token: &str, reuse: bool| v1::SubmitRequest {
        spec_json: spec.to_string(),
        source_key: later_key.clone(),
        source_digest: later_digest.clone(),
        token: token.into(),
        reuse,
        secrets: Vec::new(),
    };
    let first = v1::SubmitRequest { source_key, source_digest, ..ask("t1", true) };
    let first = service.submitted("test", first).await.unwrap();
    let ended = async |status: RunState| {
        let mut row: Versioned<Run> = bench.core.need(&first.id).await.unwrap();
        row.body.status = status;
        assert!(bench.core.commit(Changes::default().put(&row)).await.unwrap());
    };
    let other = service.submitted("test", ask("t2", true)).await.unwrap();
    assert!(!other.reused && other.id != first.id, "one that is at work has no result");
    ended(RunState::Failed { reason: "x".into() }).await;
    assert!(!service.submitted("test", ask("t3", true)).await.unwrap().reused);
    ended(RunState::Succeeded).await;
    let same = service.submitted("test", ask("t4", true)).await.unwrap();
    assert_eq!((same.reused, same.id.as_str()), (true, first.id.as_str()));
    let again = service.submitted("test", ask("t5", false)).await.unwrap();
    assert_eq!((again.reused, again.same_as.as_str()), (false, first.name.as_str()));
    let mut elsewhere = ask("t6", true);
    elsewhere.spec_json = spec.to_string().replace("[\"x\"]", "[\"y\"]");
    assert!(!service.submitted("test", elsewhere).await.unwrap().reused);
}
