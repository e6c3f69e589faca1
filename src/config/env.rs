//! The variables of Google's own SDKs: what they say when no site is written down.

use super::resolve::{GEMINI_VERSION, VERTEX_VERSION, base_url, vertex_host};
use super::{ConfigError, Env, GoogleCredentials, Site, SiteKind};

const GEMINI_BASE: &str = "https://generativelanguage.googleapis.com";

/// The one site the environment describes; the simulator if it describes none.
pub(super) fn site(env: Env<'_>, warnings: &mut Vec<String>) -> Result<Site, ConfigError> {
    let named = |name: &str, kind| Site {
        name: name.to_owned(),
        quota_group: name.to_owned(),
        kind,
        caller_place: false,
    };
    // Google's SDK prefers GOOGLE_API_KEY when both are set.
    let api_key = env("GOOGLE_API_KEY").or_else(|| env("GEMINI_API_KEY")).map(|key| key.trim().to_owned());
    let url = |name: &str, default: String| match env(name) {
        None => Ok(default),
        Some(text) => base_url(&text).map_err(|problem| ConfigError::new(format!("{name}: {problem}"))),
    };
    if truthy(env, "GOOGLE_GENAI_USE_VERTEXAI")? {
        let project = env("GOOGLE_CLOUD_PROJECT");
        let location = env("GOOGLE_CLOUD_LOCATION").unwrap_or_else(|| "global".to_owned());
        let host = vertex_host(&location)
            .map_err(|problem| ConfigError::new(format!("GOOGLE_CLOUD_LOCATION: {problem}")))?;
        let credentials = match (&project, api_key) {
            // With both, Google's SDK goes by project and default credentials too.
            (Some(_), _) => GoogleCredentials::Adc,
            (None, Some(key)) => GoogleCredentials::ApiKey(key.into()),
            (None, None) => {
                return Err(ConfigError::new(
                    "GOOGLE_GENAI_USE_VERTEXAI is set, but neither GOOGLE_CLOUD_PROJECT (with default \
                     credentials) nor GOOGLE_API_KEY (express mode) is",
                ));
            }
        };
        let (host, location) = if project.is_some() {
            (host, location)
        } else {
            ("https://aiplatform.googleapis.com".to_owned(), "global".to_owned())
        };
        let kind = SiteKind::Vertex {
            base_url: url("GOOGLE_VERTEX_BASE_URL", host)?,
            api_version: VERTEX_VERSION.to_owned(),
            project,
            location,
            credentials,
            quota_project: env("GOOGLE_CLOUD_QUOTA_PROJECT"),
        };
        return Ok(named("vertex", kind));
    }
    if let Some(key) = api_key {
        let kind = SiteKind::GeminiApi {
            base_url: url("GOOGLE_GEMINI_BASE_URL", GEMINI_BASE.to_owned())?,
            api_version: GEMINI_VERSION.to_owned(),
            api_key: key.into(),
        };
        return Ok(named("gemini", kind));
    }
    if env("GOOGLE_APPLICATION_CREDENTIALS").is_some() {
        warnings.push(
            "GOOGLE_APPLICATION_CREDENTIALS is set, but Vertex AI is used only with \
             GOOGLE_GENAI_USE_VERTEXAI=true and GOOGLE_CLOUD_PROJECT, or a vertex site in the file"
                .to_owned(),
        );
    }
    Ok(named("simulator", SiteKind::Simulator))
}

/// The address Google's Gemini API has.
pub(super) fn gemini_base() -> String {
    GEMINI_BASE.to_owned()
}

/// A switch in the environment; anything but yes and no is a mistake worth naming.
pub(super) fn truthy(env: Env<'_>, name: &str) -> Result<bool, ConfigError> {
    let Some(value) = env(name) else { return Ok(false) };
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(ConfigError::new(format!("{name}: \"{value}\" is neither true nor false"))),
    }
}
