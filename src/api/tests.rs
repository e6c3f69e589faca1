//! Nothing is served to strangers: the whole table, asked without a key and with wrong ones.

use http::header::AUTHORIZATION;
use parking_lot::Mutex;

use super::*;
use crate::keys::{KeyConfig, Keys, Proof};
use crate::meter::{Entry, Sink};

/// Knows one key, and counts what gets past it.
struct Door {
    keys: Keys,
    served: Mutex<usize>,
}

impl Engine for Door {
    fn authenticate(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Arc<Tenant>> {
        self.keys.authenticate(headers, query)
    }
    fn serve(self: Arc<Self>, _: Ctx, _: Endpoint, _: Incoming) -> BoxFuture<'static, Result<Reply>> {
        *self.served.lock() += 1;
        Box::pin(async { Reply::json(&"served") })
    }
    fn uploader(&self, token: &str) -> Result<Arc<Tenant>> {
        let unknown = Error::new(Kind::NotFound, crate::error::Origin::Client, token.to_owned());
        Err(unknown)
    }
    fn ready(&self) -> Readiness {
        Readiness::default()
    }
}

#[derive(Debug)]
struct Nowhere;

impl Sink for Nowhere {
    fn settle(&self, _: &Entry) {}
}

#[tokio::test]
async fn every_route_wants_a_key() {
    let keys = Keys::new(&[KeyConfig::new("team", Proof::Secret("good".to_owned().into()))]);
    let door = Arc::new(Door { keys, served: Mutex::new(0) });
    let engine: Arc<dyn Engine> = Arc::<Door>::clone(&door);
    let front = Front::new(engine, Arc::new(Metrics::new()), Intake::default(), CancellationToken::new());
    let ask = async |method: &Method, path: &str, header: Option<(HeaderName, &str)>| {
        let mut request = Request::builder().method(method).uri(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let arrival =
            Arrival { request_id: "req_1".into(), meter: Meter::start(Arc::new(Nowhere), Entry::default()) };
        let response = front.handle(request.body(body::empty()).unwrap(), arrival).await;
        let status = response.status().as_u16();
        let text = body::read(response.into_body(), 1 << 16).await.unwrap();
        (status, serde_json::from_slice::<serde_json::Value>(&text).unwrap())
    };
    let google = HeaderName::from_static("x-goog-api-key");
    let table = routes::all().into_iter().chain(native_routes::all());
    let mut seen = 0;
    for (method, path) in table {
        for header in [
            None,
            Some((AUTHORIZATION, "Bearer wrong")),
            Some((AUTHORIZATION, "good")),
            Some((google.clone(), "wrong")),
            Some((google.clone(), "")),
        ] {
            let shown = format!("{method} {path} {header:?}");
            let headers =
                header.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
            let native = native_routes::find(&method, &path, None, &headers.collect());
            let (status, said) = ask(&method, &path, header).await;
            if native.is_none() && said["error"]["code"] == "unsupported_endpoint" {
                // OpenAI has an endpoint of this name, which is not served to anybody.
                continue;
            }
            assert_eq!(status, 401, "{shown}: {said}");
            let google = native.is_some().then(|| native_routes::shape(&path));
            let word = match google {
                None => {
                    said["error"]["type"] == "authentication_error"
                        || said["error"]["code"] == "invalid_api_key"
                }
                Some(render_google::Shape::Rpc) => said["error"]["status"] == "UNAUTHENTICATED",
                Some(render_google::Shape::Word) => said["error"]["code"] == "authentication",
            };
            assert!(word, "{shown}: {said}");
        }
        seen += 1;
    }
    assert!(seen > 1000, "{seen}");
    assert_eq!(*door.served.lock(), 0);
    // The table is the one that is served.
    for (method, path) in routes::all().into_iter().chain(native_routes::all()) {
        let (status, said) = ask(&method, &path, Some((google.clone(), "good"))).await;
        assert_eq!(status, 200, "{method} {path}: {said}");
    }
}
