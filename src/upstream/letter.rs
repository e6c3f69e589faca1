//! Letters to somebody who is not Google: the trace collector.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Uri, header};

use super::{AGENT, JSON, connect};
use crate::body;
use crate::error::Result;
use crate::telemetry::otlp::Post;

const CONNECT: Duration = Duration::from_secs(3);
const WITHIN: Duration = Duration::from_secs(10);

/// What posts JSON to `uri` with these headers; a letter counts as taken when the answer says so in ten seconds.
///
/// # Errors
/// When TLS cannot be set up.
pub fn letters(uri: Uri, headers: HeaderMap) -> Result<Post> {
    let client = connect::client(CONNECT)?;
    let head = Arc::new((uri, headers));
    Ok(Box::new(move |letter| {
        let (client, head) = (client.clone(), Arc::clone(&head));
        Box::pin(async move {
            let mut request = Request::new(body::full(letter));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = head.0.clone();
            *request.headers_mut() = head.1.clone();
            request.headers_mut().insert(header::CONTENT_TYPE, JSON);
            request.headers_mut().insert(header::USER_AGENT, AGENT);
            let answered = tokio::time::timeout(WITHIN, client.request(request)).await;
            matches!(answered, Ok(Ok(response)) if response.status().is_success())
        })
    }))
}
