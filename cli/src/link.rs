//! A connection that outlives controllers: when one goes away, the next is
//! looked for, and started where none runs. Only questions and wishes that may
//! be repeated go through it.

use std::time::Duration;

use tonic::Status;

use crate::app::Context;
use crate::client::{Client, failure, passing};
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::remote;

/// So many failures in a row end the patience.
const TRIES: u32 = 20;
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// The connection, if there is one now.
pub struct Link<'a> {
    ctx: &'a Context,
    client: Option<Client>,
    failures: u32,
}

impl<'a> Link<'a> {
    /// Begins with a connection that is there.
    #[must_use]
    pub fn new(ctx: &'a Context, client: Client) -> Self {
        Self { ctx, client: Some(client), failures: 0 }
    }

    /// The connection; it may turn out to be broken.
    ///
    /// # Errors
    /// Where none comes up.
    pub async fn client(&mut self) -> anyhow::Result<Client> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        loop {
            // Whatever build serves is taken: only new work replaces controllers.
            match Box::pin(daemon::ensure(self.ctx, false)).await {
                Ok(client) => {
                    self.client = Some(client.clone());
                    return Ok(client);
                }
                // One on another computer cannot be started, only waited for.
                Err(error) if self.failures < TRIES && self.may_come_back(&error) => self.pause().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a way to another computer is only cut for now.
    fn may_come_back(&self, error: &anyhow::Error) -> bool {
        let home = self.ctx.home();
        let elsewhere = home.is_ok_and(|home| remote::path(&home).exists());
        elsewhere && ExitCode::of(error) == ExitCode::Unreachable
    }

    async fn pause(&mut self) {
        self.failures += 1;
        let pause = FIRST * 2_u32.saturating_pow(self.failures - 1);
        tokio::time::sleep(pause.min(LONGEST)).await;
    }

    /// Something arrived: the connection is good.
    pub fn works(&mut self) {
        self.failures = 0;
    }

    /// The connection broke: waits a little before the next.
    ///
    /// # Errors
    /// What broke it, when it breaks all the time.
    pub async fn broke(&mut self, status: &Status) -> anyhow::Result<()> {
        self.client = None;
        if self.failures + 1 >= TRIES {
            return Err(failure(status).into());
        }
        self.pause().await;
        Ok(())
    }

    /// Asks until there is an answer.
    ///
    /// # Errors
    /// A refusal, or no answer after many tries.
    pub async fn ask<T>(&mut self, call: impl AsyncFn(Client) -> Result<T, Status>) -> anyhow::Result<T> {
        loop {
            let client = self.client().await?;
            match call(client).await {
                Ok(answer) => {
                    self.works();
                    return Ok(answer);
                }
                Err(status) if passing(&status) => self.broke(&status).await?,
                Err(status) => return Err(failure(&status).into()),
            }
        }
    }
}
