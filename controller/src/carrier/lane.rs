//! Carries one lane: runs the client, waits for the agent's words, and hands
//! the client's pipes to the servers as a connection. Looks at no byte after
//! the words.

use std::time::Duration;

use lifecycle::MachineId;
use proto::link::{Finder, Lane, TAKEN};
use tokio::io::{AsyncRead, AsyncReadExt as _, BufReader};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::child::{Pipes, Ssh};
use super::command::{self, Talk};
use super::plan::{Address, End, Input};
use super::wire::{Carried, Wire};
use crate::provider::SshRoute;

/// Until the agent's words must have come: connecting, a slow login, its noise.
const WORDS: Duration = Duration::from_secs(30);
/// A client that nobody needs any more ends by itself within this.
const GRACE: Duration = Duration::from_secs(2);

/// One lane of one machine.
pub(super) struct Carry<'a> {
    pub(super) id: MachineId,
    pub(super) lane: Lane,
    pub(super) route: &'a SshRoute,
    pub(super) address: Address,
    /// Where the servers take it.
    pub(super) door: mpsc::Sender<Wire>,
    /// Says that the words came.
    pub(super) tell: mpsc::Sender<Input>,
    pub(super) hang: CancellationToken,
}

enum Word {
    Came,
    /// Nothing more comes.
    Over,
    Nonsense(String),
}

async fn word(from: &mut (impl AsyncRead + Unpin), wanted: &str) -> Word {
    let mut finder = Finder::default();
    loop {
        let Ok(byte) = from.read_u8().await else { return Word::Over };
        match finder.push(byte, wanted) {
            Ok(true) => return Word::Came,
            Ok(false) => {}
            Err(error) => return Word::Nonsense(error.to_string()),
        }
    }
}

impl Carry<'_> {
    /// Until it ends. `dialling` is given back once it is connected.
    pub(super) async fn run(self, dialling: OwnedSemaphorePermit) -> End {
        let state = match command::base(self.route) {
            Ok(base) => format!("{base}/machines/{}", self.id),
            Err(error) => return End::Here(error.to_string()),
        };
        let remote = format!("exec {state}/outlast-agent link --state {state} --lane {}", self.lane);
        let talk = if self.lane == Lane::Bulk { Talk::Heavy } else { Talk::Brisk };
        let arguments = match command::arguments(self.route, self.address, talk, &remote) {
            Ok(arguments) => arguments,
            Err(error) => return End::Here(error.to_string()),
        };
        let (mut ssh, pipes) = match Ssh::start(&arguments) {
            Ok(started) => started,
            Err(end) => return end,
        };
        let hang = self.hang.clone();
        tokio::select! {
            biased;
            () = hang.cancelled() => End::Closed,
            end = self.carry(&mut ssh, pipes, dialling) => end,
        }
    }

    async fn carry(self, ssh: &mut Ssh, pipes: Pipes, dialling: OwnedSemaphorePermit) -> End {
        let Pipes { to, from } = pipes;
        let mut from = BufReader::with_capacity(32 << 10, from);
        let nonsense = |why: String| End::Remote { code: 0, text: why };
        match tokio::time::timeout(WORDS, word(&mut from, &self.lane.line())).await {
            Ok(Word::Came) => {}
            Ok(Word::Over) => {
                drop((to, from));
                return match ssh.outcome(&[]).await {
                    Ok(()) => nonsense("no link came".into()),
                    Err(end) => end,
                };
            }
            Ok(Word::Nonsense(why)) => return nonsense(why),
            Err(_) => return End::Unconnected(format!("no link came within {} s", WORDS.as_secs())),
        }
        drop(dialling);
        let _ = self.tell.send(Input::Open(self.lane)).await;
        // The agent takes it up when it needs it, however late that is; then it
        // speaks TLS, which the servers give little time to.
        match word(&mut from, TAKEN).await {
            Word::Came => {}
            Word::Over | Word::Nonsense(_) => return End::Closed,
        }
        let (held, mut dropped) = oneshot::channel();
        let wire = Wire::Carried(Carried { from, to, _held: held });
        if self.door.send(wire).await.is_err() {
            return End::Closed;
        }
        tokio::select! {
            biased;
            _ = ssh.ended() => {}
            // Sent by nobody: it is dropped with the connection.
            _ = &mut dropped => {
                let _ = tokio::time::timeout(GRACE, ssh.ended()).await;
            }
        }
        End::Closed
    }
}
