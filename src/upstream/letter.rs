//! Letters to somebody who is not Google: the trace collector.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Uri, header};

use super::{AGENT, JSON, Upstream};
use crate::body;
use crate::telemetry::otlp::Post;

const WITHIN: Duration = Duration::from_secs(10);

impl Upstream {
    /// What posts JSON to `uri` with these headers, over the same proxy and with the same authorities as calls to
    /// Google; a letter counts as taken when the answer says so in ten seconds.
    pub fn letters(&self, uri: Uri, headers: HeaderMap) -> Post {
        let client = self.client.sibling();
        let head = Arc::new((uri, headers));
        Box::new(move |letter| {
            let (client, head) = (client.clone(), Arc::clone(&head));
            Box::pin(async move {
                let mut request = Request::new(body::full(letter));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = head.0.clone();
                *request.headers_mut() = head.1.clone();
                request.headers_mut().insert(header::CONTENT_TYPE, JSON);
                request.headers_mut().insert(header::USER_AGENT, AGENT);
                let answered = tokio::time::timeout(WITHIN, client.request(request, 1)).await;
                matches!(answered, Ok(Ok(response)) if response.status().is_success())
            })
        })
    }
}
