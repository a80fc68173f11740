//! The shell of a server that stands in for somebody's service: a program that
//! ends with its standard input, and bounded HTTP/1 connections on loopback.
//! What is answered is decided by the service itself, never here.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What a service answers; an error closes the connection without a word.
pub(crate) type Answered = Result<hyper::Response<Full<Bytes>>, io::Error>;

/// Runs a server on this thread until it fails.
pub(crate) fn run(name: &str, server: impl Future<Output = io::Result<Infallible>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(server)) {
        Ok(never) => match never {},
        Err(error) => {
            let _ = writeln!(io::stderr(), "{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the program when whoever started it is gone.
pub(crate) fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
}

/// Serves connections, `most` at once, beside the tasks that are under way.
pub(crate) async fn accept<A, F>(
    listener: TcpListener,
    most: usize,
    mut tasks: JoinSet<()>,
    answer: A,
) -> io::Result<Infallible>
where
    A: Fn(hyper::Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Answered> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    loop {
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        let answer = answer.clone();
        tasks.spawn(async move {
            // What a client does wrong ends its connection and nothing else.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
            drop(place);
        });
        while tasks.try_join_next().is_some() {}
    }
}
