//! Names whose addresses change, and a gateway whose configuration does, under way.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gemway::error::{Error, Kind};
use gemway::upstream::{
    Call, Config, Leg, Method, Names, Network, SiteConfig, SiteKind, Trip, Upstream, Wish,
};

use super::stage::{Act, Site, Step, site_at};

/// One page for every name, and how often it was opened.
#[derive(Debug, Default)]
struct Book(Mutex<(Vec<IpAddr>, usize)>);

impl Book {
    fn write(&self, hosts: &[IpAddr]) {
        self.0.lock().unwrap().0 = hosts.to_vec();
    }
    fn opened(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

impl Names for Book {
    fn find(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        assert_eq!(host, "google.test");
        let mut page = self.0.lock().unwrap();
        page.1 += 1;
        if page.0.is_empty() { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(page.0.clone()) }
    }
}

/// Two sites at the same port of two addresses.
async fn twins(first: Vec<Act>, second: Vec<Act>) -> (Site, Site) {
    let first = site_at("127.0.0.1:0".parse().unwrap(), first).await;
    let second = site_at(SocketAddr::new([127, 0, 0, 2].into(), first.address.port()), second).await;
    (first, second)
}

fn config(port: u16, book: &Arc<Book>, max_age: Duration) -> Config {
    let kind = SiteKind::GeminiApi {
        base_url: format!("http://google.test:{port}"),
        api_version: "v1beta".into(),
        api_key: "the-key".into(),
    };
    let network = Network { names: Some(Arc::<Book>::clone(book)), max_age, ..Network::default() };
    let sites = vec![SiteConfig { name: "g".into(), kind, quota_group: None }];
    Config { sites, network, ..Config::default() }
}

async fn call(upstream: &Upstream) -> Result<(), Error> {
    let body = Bytes::from_static(b"{\"contents\":[]}").into();
    let call = Call { model: "m".into(), method: Method::Generate, body, preview: false, trace: None };
    upstream.call(upstream.sites().next().unwrap(), &call).await.map(|_| ())
}

fn asked(sites: &[&Site]) -> Vec<usize> {
    sites.iter().map(|site| site.asked.load(SeqCst)).collect()
}

#[tokio::test]
async fn a_name_that_moves_is_followed_when_connections_grow_old() {
    let (old, new) = twins(vec![vec![Step::Serve]], vec![vec![Step::Serve]]).await;
    let book = Arc::new(Book::default());
    book.write(&[old.address.ip()]);
    let age = Duration::from_millis(400);
    let upstream = Upstream::new(config(old.address.port(), &book, age)).unwrap();
    for _ in 0..3 {
        call(&upstream).await.unwrap();
    }
    assert_eq!((asked(&[&old, &new]), book.opened()), (vec![3, 0], 1));
    book.write(&[new.address.ip()]);
    // A connection that works is used for as long as it is young.
    call(&upstream).await.unwrap();
    assert_eq!(asked(&[&old, &new]), [4, 0]);
    tokio::time::sleep(age + Duration::from_millis(50)).await;
    for _ in 0..3 {
        call(&upstream).await.unwrap();
    }
    assert_eq!((asked(&[&old, &new]), book.opened()), (vec![4, 3], 2));
}

#[tokio::test]
async fn a_name_is_looked_up_again_when_its_host_is_gone() {
    let goodbye = b"HTTP/1.1 503 X\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}".to_vec();
    let (old, new) = twins(vec![vec![Step::Say(goodbye), Step::Close]], vec![vec![Step::Serve]]).await;
    let book = Arc::new(Book::default());
    book.write(&[old.address.ip()]);
    let upstream = Upstream::new(config(old.address.port(), &book, Duration::from_mins(10))).unwrap();
    assert_eq!(call(&upstream).await.unwrap_err().kind(), Kind::Overloaded);
    book.write(&[new.address.ip()]);
    call(&upstream).await.unwrap();
    assert_eq!(asked(&[&old, &new]), [1, 1]);
}

#[tokio::test]
async fn the_second_address_is_tried_and_a_name_without_any_is_unreachable() {
    let only = site_at("127.0.0.2:0".parse().unwrap(), vec![vec![Step::Serve]]).await;
    let book = Arc::new(Book::default());
    let upstream = Upstream::new(config(only.address.port(), &book, Duration::from_mins(10))).unwrap();
    let error = call(&upstream).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.explicit_code()),
        (Kind::UpstreamUnreachable, Some("upstream_unreachable"))
    );
    // Nobody listens at the first.
    book.write(&[[127, 0, 0, 1].into(), only.address.ip()]);
    call(&upstream).await.unwrap();
    assert_eq!(asked(&[&only]), [1]);
}

async fn next<'u>(trip: &mut Trip<'u>) -> Leg<'u> {
    trip.next().await.unwrap()
}

/// What was learned of sites outlives a change of configuration, and so do their connections.
#[tokio::test]
async fn a_reload_forgets_nothing_of_the_sites_that_stay() {
    let (a, b) = twins(vec![vec![Step::Serve]], vec![vec![Step::Serve]]).await;
    let key = |name: &str, site: &Site, key: &str| SiteConfig {
        name: name.into(),
        kind: SiteKind::GeminiApi {
            base_url: format!("http://{}", site.address),
            api_version: "v1beta".into(),
            api_key: key.into(),
        },
        quota_group: Some(format!("project of {name}")),
    };
    let config = |secret: &str, in_flight| Config {
        sites: vec![key("a", &a, secret), key("b", &b, "k")],
        routes: vec![gemway::upstream::RouteConfig {
            models: vec![gemway::catalog::Pattern::new("*")],
            sites: vec!["a".into(), "b".into()],
            ..Default::default()
        }],
        max_in_flight: in_flight,
        ..Config::default()
    };
    let wish = |model| Wish { model, ..Wish::default() };
    let old = Upstream::new(config("k", 100)).unwrap();
    call(&old).await.unwrap();
    assert_eq!(a.open.load(SeqCst), 1);
    // One model fails five times at the first site, another one has no quota there.
    for _ in 0..5 {
        let mut trip = old.trip(&wish("broken"));
        let leg = next(&mut trip).await;
        assert_eq!(leg.site().name(), "a");
        trip.failed(
            leg,
            Error::new(Kind::Overloaded, gemway::error::Origin::Upstream, "x")
                .retry(gemway::error::Retry::Soon),
        )
        .unwrap();
    }
    let mut trip = old.trip(&wish("spent"));
    let leg = next(&mut trip).await;
    let wait = gemway::error::Retry::After(Duration::from_secs(30));
    trip.failed(leg, Error::new(Kind::RateLimited, gemway::error::Origin::Upstream, "x").retry(wait))
        .unwrap();
    drop(trip);

    let mut new = Upstream::new(config("k", 1)).unwrap();
    new.inherit(&old);
    for model in ["broken", "spent"] {
        assert_eq!(next(&mut new.trip(&wish(model))).await.site().name(), "b", "{model}");
    }
    let mut first = new.trip(&wish("well"));
    let leg = next(&mut first).await;
    assert_eq!(leg.site().name(), "a");
    // The new bound is in force.
    assert_eq!(next(&mut new.trip(&wish("well"))).await.site().name(), "b");
    drop(leg);
    call(&new).await.unwrap();
    assert_eq!(a.open.load(SeqCst), 1, "it goes on with the same connection");

    // Another key is another place, of the same project.
    let mut other = Upstream::new(config("another", 100)).unwrap();
    other.inherit(&new);
    assert_eq!(next(&mut other.trip(&wish("broken"))).await.site().name(), "a");
    assert_eq!(next(&mut other.trip(&wish("spent"))).await.site().name(), "b");
    call(&other).await.unwrap();
    assert_eq!(a.open.load(SeqCst), 2);
}
