//! What the way out is told: sites, credentials, deadlines.

use std::fmt::Debug;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use secrecy::SecretString;

use super::route::{Defaults, RouteConfig};
use crate::body::Body;

/// Everything the way out needs to know. Printing it shows no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// The places that can be called, in order of preference.
    pub sites: Vec<SiteConfig>,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// Which models go where; a model that no route names goes to the first site.
    pub routes: Vec<RouteConfig>,
    /// How often one request may return to a place that failed.
    pub retries: u32,
    /// How many short whole calls in a hundred may be made twice when they are late; 0 is none.
    pub hedge_percent: u32,
    /// The longest wait that a request sits through before it returns; longer ones are the client's.
    pub longest_wait: Duration,
    /// A call that takes longer to begin counts against its site, though it works.
    pub slow_start: Option<Duration>,
    /// Calls in flight at one site.
    pub max_in_flight: u32,
    /// What stands between us and Google.
    pub network: Network,
    /// Credential files may name programs to run.
    pub programs: bool,
}

/// What stands between us and Google.
#[derive(Clone, Debug)]
pub struct Network {
    /// The proxy for `https`, with its user and password if it wants them.
    pub https_proxy: Option<SecretString>,
    /// Hosts, domains and networks that are called without it, separated by commas.
    pub no_proxy: Option<String>,
    /// Certificates of authorities to trust beside the machine's own, as PEM.
    pub ca_file: Option<PathBuf>,
    /// How long connections take new calls.
    pub max_age: Duration,
    /// Finds addresses, in place of the machine's resolver.
    pub names: Option<Arc<dyn Names>>,
}

/// A book of names.
pub trait Names: Send + Sync + Debug {
    /// The addresses of a host, at any port; asked once for each connection that is made.
    ///
    /// # Errors
    /// When there are none.
    fn find(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;
}

impl Default for Network {
    fn default() -> Self {
        Self {
            https_proxy: None,
            no_proxy: None,
            ca_file: None,
            max_age: Duration::from_mins(10),
            names: None,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sites: Vec::new(),
            timeouts: Timeouts::default(),
            routes: Vec::new(),
            retries: 2,
            hedge_percent: 0,
            longest_wait: Duration::from_secs(5),
            slow_start: None,
            max_in_flight: 20_000,
            network: Network::default(),
            programs: false,
        }
    }
}

impl Config {
    /// What a route is that changes nothing.
    pub(super) fn defaults(&self) -> Defaults {
        Defaults { times: self.timeouts, retries: self.retries, hedge_percent: self.hedge_percent }
    }
}

/// One place that can be called.
#[derive(Clone, Debug)]
pub struct SiteConfig {
    /// Its name in logs and metrics.
    pub name: String,
    /// What it is.
    pub kind: SiteKind,
    /// Its Google project: sites of one project share its quota. The name, where nothing is known.
    pub quota_group: Option<String>,
}

/// What a site is.
#[derive(Clone, Debug)]
pub enum SiteKind {
    /// The Gemini Developer API.
    GeminiApi {
        /// Scheme and host, and a path prefix if there is one.
        base_url: String,
        /// `v1beta`, as a rule.
        api_version: String,
        /// Goes into the `x-goog-api-key` header, never into the URL.
        api_key: SecretString,
    },
    /// Vertex AI.
    Vertex {
        /// Instead of the host that the location implies.
        base_url: Option<String>,
        /// `v1`, as a rule.
        api_version: String,
        /// The project; without one, the credential's own.
        project: Option<String>,
        /// `global`, `us`, `eu` or a region.
        location: String,
        /// Who we are.
        credentials: Credentials,
        /// Who pays for quota, if not the credential's own.
        quota_project: Option<String>,
    },
    /// A site inside this process (the simulator); it speaks the Gemini API.
    Local(Arc<dyn Local>),
}

/// A site inside this process.
pub trait Local: Send + Sync + Debug {
    /// Answers one request as Google would.
    fn respond(&self, request: Request<Bytes>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

    /// The same for a request whose body is still coming.
    fn pass(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
}

/// Who we are to Vertex AI.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Express mode: a key in a header. The path names a project only if the site does.
    ApiKey(SecretString),
    /// Application default credentials without a look at the environment: gcloud's own file, else the metadata
    /// server. [`Credentials::adc`] is the full search.
    Adc,
    /// A service account's key file, or what `gcloud auth application-default login` wrote.
    File(PathBuf),
    /// The metadata server of the machine we run on.
    Metadata,
    /// A metadata server at another `host[:port]` (`GCE_METADATA_HOST`).
    MetadataAt(String),
    /// A ready access token, which nobody renews.
    Static(SecretString),
}

impl Credentials {
    /// Where application default credentials come from, given a way to look up environment variables:
    /// `GOOGLE_APPLICATION_CREDENTIALS`, else gcloud's own file where it exists, else the metadata server.
    pub fn adc(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(path) = variable("GOOGLE_APPLICATION_CREDENTIALS") {
            return Self::File(path.into());
        }
        let gcloud = variable("CLOUDSDK_CONFIG").map(PathBuf::from).or_else(|| {
            let home = variable("HOME").map(PathBuf::from).or_else(std::env::home_dir)?;
            Some(home.join(".config").join("gcloud"))
        });
        if let Some(file) = gcloud.map(|directory| directory.join("application_default_credentials.json"))
            && file.is_file()
        {
            return Self::File(file);
        }
        match variable("GCE_METADATA_HOST") {
            Some(host) => Self::MetadataAt(host),
            None => Self::Metadata,
        }
    }
}

/// How long each phase of a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name lookup, TCP and TLS together.
    pub connect: Duration,
    /// From sending to the status line of a streamed answer. Google holds the status line back until the model
    /// speaks, so a thinking model needs minutes.
    pub head: Duration,
    /// From the status line to the first event; also from sending to the status line of a whole answer, which
    /// comes only when all of it is there.
    pub first_event: Duration,
    /// Between two reads of a body.
    pub idle: Duration,
    /// The whole call.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            head: Duration::from_mins(10),
            first_event: Duration::from_mins(10),
            idle: Duration::from_mins(5),
            total: Duration::from_hours(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_credentials_are_searched_in_googles_order() {
        let directory = std::env::temp_dir().join(format!("gemway-adc-{}", std::process::id()));
        let gcloud = directory.join(".config/gcloud");
        std::fs::create_dir_all(&gcloud).unwrap();
        let home = directory.to_string_lossy().into_owned();
        let with = |pairs: &[(&str, &str)]| {
            Credentials::adc(|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(matches!(with(&[("HOME", &home)]), Credentials::Metadata));
        assert!(matches!(
            with(&[("HOME", &home), ("GCE_METADATA_HOST", "m:1")]),
            Credentials::MetadataAt(host) if host == "m:1"
        ));
        std::fs::write(gcloud.join("application_default_credentials.json"), "{}").unwrap();
        assert!(matches!(
            with(&[("HOME", &home), ("GOOGLE_APPLICATION_CREDENTIALS", "")]),
            Credentials::File(path) if path.starts_with(&gcloud)
        ));
        assert!(matches!(
            with(&[("HOME", &home), ("GOOGLE_APPLICATION_CREDENTIALS", "/k.json")]),
            Credentials::File(path) if path == std::path::Path::new("/k.json")
        ));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn printing_the_settings_shows_no_secret() {
        let config = Config {
            sites: vec![SiteConfig {
                name: "g".into(),
                kind: SiteKind::GeminiApi {
                    base_url: "https://example.com".into(),
                    api_version: "v1beta".into(),
                    api_key: "hush-hush".into(),
                },
                quota_group: None,
            }],
            ..Config::default()
        };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
