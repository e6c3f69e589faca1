use bytes::Bytes;

use super::site::Site;
use super::*;
use crate::error::Kind;

fn call(model: &str, method: Method) -> Call {
    Call { model: model.into(), method, body: Bytes::from_static(b"{}").into(), preview: false, trace: None }
}

fn site(kind: SiteKind) -> Result<Site> {
    let client = connect::Client::new(Duration::from_secs(1), &Network::default())?;
    Site::new(SiteConfig { name: "s".into(), kind, quota_group: None }, false, &client)
}

fn gemini(base: &str) -> Result<Site> {
    site(SiteKind::GeminiApi { base_url: base.into(), api_version: "v1beta".into(), api_key: "k".into() })
}

fn vertex(location: &str, project: Option<&str>, credentials: Credentials) -> Result<Site> {
    site(SiteKind::Vertex {
        base_url: None,
        api_version: "v1".into(),
        project: project.map(Into::into),
        location: location.into(),
        credentials,
        quota_project: None,
    })
}

async fn uri(site: &Site, call: &Call) -> Result<String> {
    let client = connect::Client::new(Duration::from_secs(1), &Network::default())?;
    Ok(site.uri(call, &client).await?.to_string())
}

#[tokio::test]
async fn every_call_has_its_address() {
    let google = gemini("https://generativelanguage.googleapis.com/").unwrap();
    let root = "https://generativelanguage.googleapis.com/v1beta";
    for (model, method, expected) in [
        ("g-1", Method::Generate, "models/g-1:generateContent"),
        ("models/g-1", Method::Stream, "models/g-1:streamGenerateContent?alt=sse"),
        ("tunedModels/t", Method::CountTokens, "tunedModels/t:countTokens"),
        ("g", Method::Embed, "models/g:embedContent"),
        ("g", Method::BatchEmbed, "models/g:batchEmbedContents"),
        ("llama3:8b ü", Method::Generate, "models/llama3%3A8b%20%C3%BC:generateContent"),
    ] {
        assert_eq!(uri(&google, &call(model, method)).await.unwrap(), format!("{root}/{expected}"));
    }
    assert_eq!(
        google.resource("models?pageSize=9").unwrap().to_string(),
        format!("{root}/models?pageSize=9")
    );
    assert!(google.resource("../x").is_err());
    assert!(google.resource("a b").is_err());

    let token = || Credentials::Static("t".into());
    let place = |location: &str| format!("v1/projects/p/locations/{location}");
    for (location, host) in [
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
    ] {
        let site = vertex(location, Some("p"), token()).unwrap();
        let place = place(location);
        for (model, rest) in [
            ("g-1", "publishers/google/models/g-1"),
            ("anthropic/c", "publishers/anthropic/models/c"),
            ("publishers/google/models/g", "publishers/google/models/g"),
            ("123456", "endpoints/123456"),
        ] {
            let expected = format!("https://{host}/{place}/{rest}:generateContent");
            assert_eq!(uri(&site, &call(model, Method::Generate)).await.unwrap(), expected);
        }
    }
    let preview = Call { preview: true, ..call("g", Method::Stream) };
    let express = vertex("global", None, Credentials::ApiKey("k".into())).unwrap();
    assert_eq!(
        uri(&express, &preview).await.unwrap(),
        "https://aiplatform.googleapis.com/v1beta1/publishers/google/models/g:streamGenerateContent?alt=sse"
    );
    let keyed = vertex("global", Some("p"), Credentials::ApiKey("k".into())).unwrap();
    assert!(
        uri(&keyed, &preview).await.unwrap().contains("/v1beta1/projects/p/locations/global/publishers/")
    );
    let homeless = vertex("global", None, token()).unwrap();
    assert_eq!(uri(&homeless, &preview).await.unwrap_err().kind(), Kind::UpstreamRefused);
}

#[tokio::test]
async fn what_is_passed_on_has_googles_addresses() {
    let vertex = |location: &str, project: Option<&str>, credentials| SiteKind::Vertex {
        base_url: None,
        api_version: "v1".into(),
        project: project.map(Into::into),
        location: location.into(),
        credentials,
        quota_project: None,
    };
    let token = || Credentials::Static("t".into());
    let studio = SiteKind::GeminiApi {
        base_url: "https://generativelanguage.googleapis.com".into(),
        api_version: "v1beta".into(),
        api_key: "k".into(),
    };
    let call = "publishers/google/models/g:generateContent";
    let placed = |there, rest| RawPath::Placed { version: None, place: (None, there), rest };
    for (kind, path, query, expected) in [
        (
            vertex("us-central1", Some("p"), token()),
            placed(None, call),
            None,
            "us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/publishers/google/models/g:generateContent",
        ),
        (
            vertex("global", Some("p"), token()),
            placed(None, call),
            None,
            "aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/google/models/g:generateContent",
        ),
        // Where the caller names a location, its host serves it.
        (
            vertex("global", Some("p"), token()),
            placed(Some("eu"), "endpoints/12:streamGenerateContent"),
            Some("alt=sse"),
            "aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/endpoints/12:streamGenerateContent?alt=sse",
        ),
        (
            vertex("us", Some("p"), token()),
            RawPath::Placed {
                version: Some("v1beta1"),
                place: (Some("q"), Some("europe-west4")),
                rest: "cachedContents/c",
            },
            Some("updateMask=ttl"),
            "europe-west4-aiplatform.googleapis.com/v1beta1/projects/q/locations/europe-west4/cachedContents/c?updateMask=ttl",
        ),
        // Express: no project, no location.
        (
            vertex("global", None, Credentials::ApiKey("k".into())),
            placed(None, call),
            None,
            "aiplatform.googleapis.com/v1/publishers/google/models/g:generateContent",
        ),
        (
            vertex("global", Some("p"), token()),
            RawPath::Bare { version: Some("v1beta1"), rest: "publishers/google/models" },
            Some("pageSize=9"),
            "aiplatform.googleapis.com/v1beta1/publishers/google/models?pageSize=9",
        ),
        (
            studio.clone(),
            RawPath::Bare { version: Some("v1alpha"), rest: "models/g:countTokens" },
            None,
            "generativelanguage.googleapis.com/v1alpha/models/g:countTokens",
        ),
        (
            studio.clone(),
            RawPath::Root("upload/v1beta/files"),
            Some("uploadType=media"),
            "generativelanguage.googleapis.com/upload/v1beta/files?uploadType=media",
        ),
        (
            studio,
            RawPath::Host("/upload/v1beta/files?upload_id=u"),
            Some("x=1"),
            "generativelanguage.googleapis.com/upload/v1beta/files?upload_id=u&x=1",
        ),
    ] {
        let sites = vec![SiteConfig { name: "s".into(), kind, quota_group: None }];
        let upstream = Upstream::new(Config { sites, ..Config::default() }).unwrap();
        let address = upstream.address(upstream.sites().next().unwrap(), path, query).await.unwrap();
        assert_eq!(address.to_string(), format!("https://{expected}"));
    }
}

#[tokio::test]
async fn no_model_name_leaves_its_place_in_the_path() {
    let sites =
        [gemini("https://h").unwrap(), vertex("global", Some("p"), Credentials::Static("t".into())).unwrap()];
    let long = "x".repeat(300);
    for model in [
        "",
        "../x?y",
        "models/..",
        "a/b/c",
        "models/../x",
        "x?alt=json",
        "x#y",
        "x%2f..",
        "a\\b",
        "a\nb",
        "/",
        "x/",
        &long,
    ] {
        for site in &sites {
            let error = uri(site, &call(model, Method::Generate)).await.unwrap_err();
            assert_eq!((error.kind(), error.param()), (Kind::Invalid, Some("model")), "{model:?}");
        }
    }
}

#[test]
fn unusable_settings_are_said_at_start() {
    for base in ["", "example.com", "ftp://h", "https://", "https://u:p@h", "https://h/?a=b", "https://h h"] {
        assert!(gemini(base).is_err(), "{base:?}");
    }
    for location in ["", "../us", "a/b", "us?x"] {
        assert!(vertex(location, Some("p"), Credentials::Static("t".into())).is_err(), "{location:?}");
    }
    let key = |key: &str| SiteKind::GeminiApi {
        base_url: "https://h".into(),
        api_version: "v1beta".into(),
        api_key: key.into(),
    };
    let error = site(key("se\ncret")).unwrap_err();
    assert!(!format!("{error:?}").contains("cret"));
    assert!(site(key("")).is_err());
    let site = site(key("secret")).unwrap();
    assert!(!format!("{site:?}").contains("secret"));
    assert!(vertex("us", None, Credentials::File("/nowhere/k.json".into())).is_err());
}
