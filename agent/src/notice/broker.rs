//! Has the sources asked that the run on this machine wants, and hands on what
//! they say. Without a run nobody is asked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lifecycle::spec::NoticeSpec;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::http::Place;
use super::poll::{self, Voice};
use super::{Cloud, Heard, Source};

const QUEUE: usize = 16;

/// What the run on this machine wants asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whom, and how.
    pub spec: NoticeSpec,
    /// Where its command runs and its file is.
    pub cwd: PathBuf,
    /// What its command finds in its environment.
    pub env: BTreeMap<String, String>,
    /// What was to be saved is durable.
    pub saved: bool,
    /// The machine's host plays a market, and writes its notice to a file. Looked
    /// for only then: elsewhere a file that some program wrote says nothing.
    pub played: bool,
}

/// The task.
pub struct Broker {
    place: Place,
    /// Where the machine's own host writes its notice, if it does.
    host: PathBuf,
    wanted: watch::Receiver<Option<Wanted>>,
    out: mpsc::Sender<Heard>,
}

/// The driver's side.
pub struct Handle {
    wanted: watch::Sender<Option<Wanted>>,
    heard: mpsc::Receiver<Heard>,
}

/// A broker that asks the service at `place`, and looks for the notice of the
/// machine's host in the file `host`.
#[must_use]
pub fn broker(place: Place, host: PathBuf) -> (Broker, Handle) {
    let (sender, wanted) = watch::channel(None);
    let (out, heard) = mpsc::channel(QUEUE);
    (Broker { place, host, wanted, out }, Handle { wanted: sender, heard })
}

impl Handle {
    /// From now on this is wanted.
    pub fn want(&self, wanted: Option<Wanted>) {
        self.wanted.send_if_modified(|now| {
            let changed = *now != wanted;
            *now = wanted;
            changed
        });
    }

    /// What was to be saved is durable.
    pub fn saved(&self, saved: bool) {
        self.wanted.send_if_modified(|now| match now {
            Some(wanted) if wanted.saved != saved => {
                wanted.saved = saved;
                true
            }
            _ => false,
        });
    }

    /// The next thing that is heard; never, once the broker has ended.
    pub async fn next(&mut self) -> Heard {
        match self.heard.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        }
    }
}

/// Whether the same are to be asked in the same way.
fn is_same(now: Option<&Wanted>, before: Option<&Wanted>) -> bool {
    let whom = |wanted: &Wanted| (wanted.spec.clone(), wanted.cwd.clone(), wanted.played);
    now.map(whom) == before.map(whom)
}

impl Broker {
    /// Serves for ever.
    pub async fn run(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let mut polls = JoinSet::new();
            if let Some(wanted) = &wanted {
                self.begin(wanted, &mut polls);
            }
            // Until something else is wanted: that it was saved changes nothing
            // in whom to ask.
            loop {
                if self.wanted.changed().await.is_err() {
                    return std::future::pending::<()>().await;
                }
                if !is_same(self.wanted.borrow().as_ref(), wanted.as_ref()) {
                    break;
                }
            }
        }
    }

    fn begin(&self, wanted: &Wanted, polls: &mut JoinSet<()>) {
        let voice = |source| Voice::new(source, self.out.clone());
        let (place, spec) = (self.place, &wanted.spec);
        match Cloud::wanted(spec.source) {
            Some(Cloud::Ec2) => drop(polls.spawn(poll::ec2(place, voice(Source::Ec2)))),
            Some(Cloud::Gce) => drop(polls.spawn(poll::gce(place, voice(Source::Gce)))),
            Some(Cloud::Azure) => {
                let mut saved = self.wanted.clone();
                saved.mark_unchanged();
                drop(polls.spawn(poll::azure(place, voice(Source::Azure), saved)));
            }
            None => {}
        }
        if wanted.played {
            polls.spawn(poll::file(self.host.clone(), voice(Source::Host)));
        }
        if !spec.hook.is_empty() {
            let (argv, cwd, env) = (spec.hook.clone(), wanted.cwd.clone(), wanted.env.clone());
            polls.spawn(poll::hook(argv, cwd, env, voice(Source::Hook)));
        }
        if !spec.file.is_empty() {
            polls.spawn(poll::file(wanted.cwd.join(&spec.file), voice(Source::File)));
        }
    }
}
