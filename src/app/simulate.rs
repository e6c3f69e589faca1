//! `gemway simulate`: the simulator alone, on a socket of its own.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::body::Body;
use crate::cli::SimulateArgs;
use crate::error::{Error, Kind, Origin, Result};
use crate::server::{self, Shutdown};
use crate::simulator::{Config, Simulator};

/// Runs the simulator until told to end.
///
/// # Errors
/// When the address cannot be had.
pub async fn run(args: SimulateArgs) -> Result<()> {
    let listener = TcpListener::bind(args.listen.as_str()).await.map_err(|error| {
        Error::new(Kind::Conflict, Origin::Gateway, format!("cannot listen on {}: {error}", args.listen))
    })?;
    let simulator = Arc::new(Simulator::new(Config {
        time_to_first_token: args.ttft,
        tokens_per_second: args.tokens_per_second,
        fault: args.fault,
        ..Config::default()
    }));
    let address = listener.local_addr().map_err(Error::internal)?;
    tracing::info!(%address, "simulating Gemini");
    let shutdown = Shutdown::default();
    tokio::select! {
        () = accept(listener, simulator) => Ok(()),
        () = shutdown.begin.cancelled() => Ok(()),
        failed = server::watch(&shutdown) => failed,
    }
}

async fn accept(listener: TcpListener, simulator: Arc<Simulator>) {
    let mut connections = JoinSet::new();
    loop {
        let socket = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, _)) = socket else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        // Without it small events wait for an acknowledgement; failing to set it only costs time.
        let _ = socket.set_nodelay(true);
        let simulator = Arc::clone(&simulator);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&simulator), request));
            if let Err(error) =
                Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await
            {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}

async fn answer(simulator: Arc<Simulator>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(simulator.pass(request.map(|body| body.map_err(Into::into).boxed_unsync())).await)
}
