//! The operator's side: `/livez`, `/readyz`, `/metrics`, on a thread and a runtime of its own, so that no load of
//! requests can make the gateway look dead.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::stack::{REQUEST_ID, request_id, sign, tried};
use crate::api::{Engine, Operator};
use crate::body;
use crate::error::{Error, Result};
use crate::ids::Ids;
use crate::telemetry::Metrics;

/// What the operator's side looks at.
#[derive(Clone)]
pub(super) struct Admin {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) draining: CancellationToken,
    /// Who answers below `/admin/`, where that is served.
    pub(super) operator: Option<Arc<dyn Operator>>,
    /// Cancelled at the very end.
    pub(super) stop: CancellationToken,
}

/// Starts the thread. It ends when `stop` is cancelled.
pub(super) fn start(listener: TcpListener, admin: Admin) -> Result<std::thread::JoinHandle<()>> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::internal)?;
    std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime.block_on(serve(listener, admin)))
        .map_err(Error::internal)
}

async fn serve(listener: TcpListener, admin: Admin) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin listener does not work");
            return;
        }
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = admin.stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) if connections.len() < 256 => {
                    connections.spawn(connection(socket, admin.clone()));
                }
                Ok(_) => tracing::warn!("too many admin connections"),
                Err(error) => {
                    tracing::warn!(%error, "an admin connection could not be accepted");
                    tokio::time::sleep(super::AFTER_ACCEPT_ERROR).await;
                }
            },
        }
    }
}

async fn connection(socket: tokio::net::TcpStream, admin: Admin) {
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = admin.clone();
        async move {
            let (began, id) = (Instant::now(), request_id(request.headers().get(REQUEST_ID), &Ids::Random));
            let mut response = match &admin.operator {
                Some(operator) if request.uri().path().starts_with("/admin/") => {
                    operate(request, &**operator).await
                }
                _ => answer(&request, &admin),
            };
            sign(response.headers_mut(), &id, began.elapsed(), began.elapsed());
            tried(response.headers_mut(), 0, None);
            Ok::<_, Infallible>(response)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(std::time::Duration::from_secs(30))
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection broke");
    }
}

/// The largest body that an operator may send, and how long that may take.
const LARGEST: usize = 1 << 20;
const WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

async fn operate(request: Request<Incoming>, operator: &dyn Operator) -> Response<Full<Bytes>> {
    let (head, incoming) = request.into_parts();
    let whole =
        body::read(incoming.map_err(|error| -> body::BoxError { error.into() }).boxed_unsync(), LARGEST);
    match tokio::time::timeout(WITHIN, whole).await {
        Ok(Ok(bytes)) => operator.handle(Request::from_parts(head, bytes)).await.map(Full::new),
        Ok(Err(_)) | Err(_) => {
            text(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", "the body could not be read\n")
        }
    }
}

fn answer(request: &Request<Incoming>, admin: &Admin) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "method not allowed\n");
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
        "/readyz" | "/startupz" => readiness(admin),
        "/metrics" => {
            admin.engine.observe(&admin.metrics);
            text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", admin.metrics.render())
        }
        _ => text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "/livez /readyz /metrics\n"),
    }
}

fn readiness(admin: &Admin) -> Response<Full<Bytes>> {
    let known = admin.engine.ready();
    let draining = admin.draining.is_cancelled();
    let ready = known.ready && !draining;
    let mut detail = Map::new();
    for (name, value) in known.detail {
        detail.insert(name, Value::String(value));
    }
    let body = serde_json::json!({
        "ready": ready,
        "draining": draining,
        "simulator": known.simulator,
        "detail": detail,
    });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(status, "application/json", body.to_string())
}

fn text(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}
