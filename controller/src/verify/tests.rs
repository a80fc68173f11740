//! Verification: what is found, what is condemned, and what never is.

use std::sync::Arc;

use artifacts::publish::Keyframe;
use lifecycle::CheckpointState;

use super::*;
use crate::bench::{named, noise};
use crate::retain::tests::Bench;

impl Bench {
    async fn rows(&self) -> Vec<Checkpoint> {
        let rows = self.core.of_run::<Checkpoint>(self.run).await.unwrap();
        rows.into_iter().map(|row| row.body).collect()
    }

    /// Verifies everything durable; the verdicts by step.
    async fn verify(&self, percent: u32) -> Vec<(u64, Verdict)> {
        self.verify_with(percent, false).await
    }

    /// The same, of the condemned ones too.
    async fn verify_with(&self, percent: u32, condemned: bool) -> Vec<(u64, Verdict)> {
        let what = self.rows().await.into_iter().map(|c| c.manifest.key).collect();
        let ask = Ask { what, percent, condemned, slowly: false, actor: "test".into() };
        let id = self.core.verify.ask(ask).unwrap();
        let (next, ask) = self.core.verify.next().unwrap();
        assert_eq!(next, id);
        perform(&self.core, id, &ask).await.unwrap();
        let progress = self.core.verify.progress(id).unwrap();
        progress.found.into_iter().map(|found| (found.step.unwrap(), found.verdict)).collect()
    }

    /// The pack that holds what is a checkpoint's own.
    async fn own_pack(&self, step: u64) -> ObjectKey {
        let rows = self.rows().await;
        let row = rows.iter().find(|c| c.manifest.step == Some(step)).unwrap();
        row.packs.iter().max().unwrap().parse().unwrap()
    }

    async fn head(&self) -> Option<u64> {
        self.core.need::<Run>(&self.run.to_string()).await.unwrap().body.head.unwrap().step
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_whole_is_told_with_the_time_and_the_share() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=3).await;
    let good = |list: Vec<(u64, Verdict)>| list.into_iter().all(|(_, verdict)| verdict == Verdict::Good);
    assert!(good(bench.verify(100).await));
    for row in bench.rows().await {
        assert_eq!((row.verified_ms, row.verified_percent), (bench.core.clock.wall_ms(), 100));
    }
    assert!(good(bench.verify(10).await));
    assert_eq!(bench.rows().await[0].verified_percent, 10);
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_found_and_the_next_newest_good_one_is_used() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=3).await;
    let pack = bench.own_pack(3).await;
    let size = bench.core.objects.size(&pack).await.unwrap().unwrap();
    let mut bytes = bench.core.objects.get(&pack, 0, size).await.unwrap();
    bytes[50_000] ^= 1;
    bench.core.objects.delete(&pack).await.unwrap();
    bench.core.objects.put_if_absent(&pack, &bytes).await.unwrap();
    let rows = bench.rows().await;
    let held = |rows: &[Checkpoint], step: u64| {
        rows.iter().find(|c| c.manifest.step == Some(step)).cloned().unwrap()
    };
    let tree_key: ObjectKey = held(&rows, 3).manifest.key.parse().unwrap();
    let tree = artifacts::restore::load_manifest(&*bench.core.objects, &tree_key, None).await.unwrap();
    let own = durable::chunks(&tree).find(|chunk| chunk.pack == pack).unwrap().digest;
    assert!(bench.core.store.locate(&[*own.as_bytes()]).await.unwrap()[0].is_some());

    let found = bench.verify(100).await;
    let (_, bad) = found.iter().find(|(step, _)| *step == 3).unwrap();
    assert!(matches!(bad, Verdict::Bad(why) if why.contains(pack.as_str())), "{bad:?}");
    assert_eq!(found.iter().filter(|(_, verdict)| *verdict == Verdict::Good).count(), 2);
    let row = held(&bench.rows().await, 3);
    assert_eq!(row.status, CheckpointState::Corrupt);
    assert!(row.trouble.contains("damaged"), "{}", row.trouble);
    assert_eq!(bench.head().await, Some(2));
    let run: Versioned<Run> = bench.core.need(&bench.run.to_string()).await.unwrap();
    let offered = durable::offered(&bench.core, &run.body).await.unwrap();
    assert_eq!(offered.iter().map(|m| m.step.unwrap()).collect::<Vec<_>>(), [2, 1]);
    let known = bench.core.store.locate(&[*own.as_bytes()]).await.unwrap();
    assert!(known[0].is_none(), "nothing new may rest on the damaged pack");
    assert_eq!(bench.verify(100).await.len(), 2, "what is condemned is not looked at again");

    // Asked for by name it is: still damaged.
    let select = |condemned: bool| {
        let core = bench.core.clone();
        async move {
            match condemned {
                true => crate::rpc::select::durable_or_condemned(&core, "r@3").await,
                false => crate::rpc::select::checkpoint(&core, "r@3").await,
            }
        }
    };
    let told = select(false).await.unwrap_err();
    assert!(told.message().contains("is damaged: ") && told.message().contains(pack.as_str()), "{told}");
    assert_eq!(select(true).await.unwrap().1.status, CheckpointState::Corrupt);
    let verdict = async |percent| {
        let found = bench.verify_with(percent, true).await;
        found.into_iter().find(|(step, _)| *step == 3).unwrap().1
    };
    assert!(matches!(verdict(100).await, Verdict::Bad(_)));
    assert_eq!(held(&bench.rows().await, 3).status, CheckpointState::Corrupt);
    // Brought back: a part of it says nothing, all of it does.
    bytes[50_000] ^= 1;
    bench.core.objects.delete(&pack).await.unwrap();
    bench.core.objects.put_if_absent(&pack, &bytes).await.unwrap();
    assert_eq!(verdict(99).await, Verdict::Good);
    assert_eq!(held(&bench.rows().await, 3).status, CheckpointState::Corrupt);
    assert_eq!(verdict(100).await, Verdict::Good);
    let row = held(&bench.rows().await, 3);
    assert_eq!((row.status, row.trouble.as_str()), (CheckpointState::Committed, ""));
    assert_eq!(bench.head().await, Some(3));
    assert!(select(false).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_sample_too_sees_that_an_object_is_gone_or_cut() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=3).await;
    let (gone, cut) = (bench.own_pack(2).await, bench.own_pack(3).await);
    bench.core.objects.delete(&gone).await.unwrap();
    let bytes = bench.core.objects.get(&cut, 0, 1_000).await.unwrap();
    bench.core.objects.delete(&cut).await.unwrap();
    bench.core.objects.put_if_absent(&cut, &bytes).await.unwrap();
    let found = bench.verify(1).await;
    let bad = |step| found.iter().any(|(at, verdict)| *at == step && matches!(verdict, Verdict::Bad(_)));
    assert!(!bad(1) && bad(2) && bad(3), "{found:?}");
    assert_eq!(bench.head().await, Some(1));
}

/// A safetensors file of one tensor, some last places further at each step.
fn tensor(step: u32) -> Vec<u8> {
    let weights = noise(7, 6 << 20);
    let moved = weights.as_chunks::<4>().0.iter().zip(noise(u64::from(step), 6 << 18));
    let moved = moved.flat_map(|(weight, by)| {
        let weight = u32::from_le_bytes(*weight) >> 6 | 0x3c00_0000;
        (weight + u32::from(by) * step).to_le_bytes()
    });
    let header = r#"{"t":{"dtype":"F32","shape":[1572864],"data_offsets":[0,6291456]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &moved.collect::<Vec<u8>>()].concat()
}

#[tokio::test(start_paused = true)]
async fn a_sample_of_what_is_stored_as_differences_condemns_nothing() {
    let mut bench = Bench::new(0).await;
    let mut base = None;
    for step in [1_u32, 2] {
        let path = bench.dir.path().join(format!("checkpoint-{step}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("m.safetensors"), tensor(step)).unwrap();
        let published = bench.publish_from(&path, u64::from(step), base.clone()).await;
        assert_eq!(published.manifest.bases.is_empty(), step == 1);
        bench.commit(&named(&published)).await.unwrap();
        let kept = bench.dir.path().join("keyframe");
        if step == 1 {
            base = Keyframe::take(&path, &published.manifest, &kept).unwrap().map(Arc::new);
        }
    }
    for percent in [10, 30, 60, 100] {
        let found = bench.verify(percent).await;
        assert!(found.len() == 2 && found.iter().all(|(_, verdict)| *verdict == Verdict::Good), "{found:?}");
    }
    // Where the pack of its bases is gone, any sample sees it.
    let pack = bench.own_pack(1).await;
    bench.core.objects.delete(&pack).await.unwrap();
    let found = bench.verify(1).await;
    assert!(found.iter().all(|(_, verdict)| matches!(verdict, Verdict::Bad(_))), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_everything_condemns_nothing() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=2).await;
    for key in bench.core.objects.list("").await.unwrap() {
        bench.core.objects.delete(&key).await.unwrap();
    }
    let found = bench.verify(100).await;
    assert!(
        found.iter().all(|(_, v)| matches!(v, Verdict::Unknown(why) if why.contains("mounted"))),
        "{found:?}"
    );
    assert!(bench.rows().await.iter().all(|c| c.status.is_durable() && c.verified_ms == 0));
    assert_eq!(bench.head().await, Some(2));
}

#[test]
fn what_cannot_be_asked_now_is_no_verdict() {
    for error in [RestoreError::Remote("timeout".into()), RestoreError::Full("disk".into())] {
        assert!(durable::is_passing(&error));
        assert!(durable::blamed(&error).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn once_a_day_those_come_first_that_were_looked_at_longest_ago() {
    let mut bench = Bench::new(0).await;
    bench.saves(1..=3).await;
    let keys: Vec<String> = bench.rows().await.into_iter().map(|c| c.manifest.key).collect();
    good(&bench.core, &keys[0], 100).await.unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    good(&bench.core, &keys[2], 100).await.unwrap();
    daily(&bench.core).await.unwrap();
    let (_, ask) = bench.core.verify.next().unwrap();
    assert_eq!(ask.what, [keys[1].clone(), keys[0].clone(), keys[2].clone()]);
    assert!(ask.slowly && ask.percent == SAMPLE);
    tokio::time::advance(Duration::from_hours(23)).await;
    daily(&bench.core).await.unwrap();
    assert!(bench.core.verify.next().is_none());
    tokio::time::advance(Duration::from_hours(1)).await;
    daily(&bench.core).await.unwrap();
    assert!(bench.core.verify.next().is_some());
}

#[test]
fn the_desk_is_bounded_and_a_person_comes_first() {
    let desk = Desk::default();
    let ask = |slowly| Ask { what: Vec::new(), percent: 1, condemned: false, slowly, actor: "test".into() };
    let slow = desk.ask(ask(true)).unwrap();
    for _ in 1..WAITING {
        assert!(desk.ask(ask(false)).is_some());
    }
    assert!(desk.ask(ask(false)).is_none());
    assert!(desk.somebody_waits());
    let mut order = Vec::new();
    while let Some((id, _)) = desk.next() {
        order.push(id);
        desk.change(id, |p| p.stage = Stage::Done);
    }
    assert_eq!((order.len(), order.last()), (WAITING, Some(&slow)));
    for _ in 0..ENDED + 20 {
        let id = desk.ask(ask(false)).unwrap();
        desk.next();
        desk.change(id, |p| p.stage = Stage::Done);
    }
    assert!(desk.state().jobs.len() <= ENDED + 1);
    assert!(desk.progress(slow).is_none());
}
