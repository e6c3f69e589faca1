//! Which models there are: upstream's list with what the catalogue knows of each, and the aliases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::{Ctx, Reply};
use super::Gateway;
use crate::catalog;
use crate::error::{Error, Kind, Origin, Result};
use crate::openai::models::{Model, ModelList};
use crate::upstream::Site;

/// How long a list of models is believed.
const LIST_AGE: Duration = Duration::from_mins(5);

impl Gateway {
    /// `GET /v1/models`: those that the caller may use.
    pub(super) async fn models(&self, cx: Ctx) -> Result<Reply> {
        let models = self.list().await?;
        let seen = |model: &&Model| self.dispatched(&model.id).is_ok_and(|id| cx.tenant.sees(&id));
        Reply::json(&ModelList::new(models.iter().filter(seen).cloned().collect()))
    }

    /// `GET /v1/models/{id}`, by the client's name for it.
    pub(super) async fn model(&self, cx: Ctx, id: String) -> Result<Reply> {
        let bare = catalog::model_id(&id)?;
        let models = self.list().await?;
        let found = models.iter().find(|model| model.id == bare || model.id == id);
        let seen = |model: &&Model| self.dispatched(&model.id).is_ok_and(|id| cx.tenant.sees(&id));
        let Some(model) = found.filter(seen) else {
            let message = format!("The model '{bare}' does not exist.");
            return Err(Error::new(Kind::NotFound, Origin::Client, message)
                .at("model")
                .code("model_not_found"));
        };
        Reply::json(model)
    }

    /// Upstream's models with what the catalogue knows of them; read again when five minutes old.
    async fn list(&self) -> Result<Arc<[Model]>> {
        if let Some((read, models)) = &*self.listed.lock()
            && read.elapsed() < LIST_AGE
        {
            return Ok(Arc::clone(models));
        }
        let site = self.upstream.sites().next().ok_or_else(|| Error::internal("no site"))?;
        let mut models = match site.backend() {
            crate::translate::Backend::GeminiApi => self.read_list(site).await?,
            // Vertex lists publisher models without limits and methods; the catalogue knows more.
            crate::translate::Backend::Vertex => {
                self.catalog.models().map(|model| Model::google(&*model.id)).collect()
            }
        };
        for model in &mut models {
            let traits = self.catalog.traits(&model.id);
            model.context_window = model.context_window.or(traits.context_window);
            model.max_output_tokens = model.max_output_tokens.or(traits.max_output_tokens);
            let known = self.catalog.models().find(|known| known.id == model.id);
            model.created = known.and_then(|known| known.created).unwrap_or(0);
        }
        for alias in self.aliases.keys() {
            models.push(Model::google(alias.as_str()));
        }
        let models: Arc<[Model]> = models.into();
        *self.listed.lock() = Some((Instant::now(), Arc::clone(&models)));
        Ok(models)
    }

    async fn read_list(&self, site: &Site) -> Result<Vec<Model>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            #[serde(default)]
            models: Vec<Listed>,
            #[serde(default)]
            next_page_token: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Listed {
            name: String,
            input_token_limit: Option<u64>,
            output_token_limit: Option<u64>,
            #[serde(default)]
            supported_generation_methods: Vec<String>,
        }
        let served = |methods: &[String]| {
            let ours = ["generateContent", "embedContent", "predict", "bidiGenerateContent"];
            methods.is_empty() || methods.iter().any(|method| ours.contains(&method.as_str()))
        };
        let (mut models, mut token) = (Vec::new(), None::<String>);
        // A list that never ends is a fault of upstream's, not a reason to hang.
        for _ in 0..20 {
            let path = match &token {
                None => "models?pageSize=1000".to_owned(),
                Some(token) => {
                    let all = percent_encoding::NON_ALPHANUMERIC;
                    format!(
                        "models?pageSize=1000&pageToken={}",
                        percent_encoding::utf8_percent_encode(token, all)
                    )
                }
            };
            let page: Page =
                serde_json::from_slice(&self.upstream.get(site, &path).await?).map_err(|error| {
                    Error::new(
                        Kind::UpstreamBroken,
                        Origin::Upstream,
                        "Google's list of models cannot be read.",
                    )
                    .code("upstream_invalid_response")
                    .because(error)
                })?;
            for listed in page.models {
                if served(&listed.supported_generation_methods) {
                    let id = listed.name.strip_prefix("models/").unwrap_or(&listed.name);
                    let mut model = Model::google(id);
                    model.context_window = listed.input_token_limit;
                    model.max_output_tokens = listed.output_token_limit;
                    models.push(model);
                }
            }
            token = page.next_page_token.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        Ok(models)
    }
}
