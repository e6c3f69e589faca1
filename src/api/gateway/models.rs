//! Which models there are: every site's list with what the catalogue knows of each, and the aliases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::super::{Ctx, Reply};
use super::Gateway;
use crate::catalog;
use crate::error::{Error, Kind, Origin, Result};
use crate::openai::models::{Modalities, Model, ModelList, Pricing};
use crate::translate::Backend;
use crate::upstream::Site;

/// How long a list of models is believed.
const LIST_AGE: Duration = Duration::from_mins(5);
/// How long the catalogue stands in for sites that do not answer.
const STANDIN_AGE: Duration = Duration::from_secs(15);
/// Pages of one site's list; one that never ends is a fault of upstream's, not a reason to hang.
const MOST_PAGES: usize = 20;

/// The list as it was read last, and until when it is believed. Whoever finds it too old reads it anew; others wait
/// for that instead of asking too.
#[derive(Debug, Default)]
pub struct Listing(Mutex<Option<Read>>);

/// One reading of the list.
#[derive(Debug)]
struct Read {
    until: Instant,
    models: Arc<[Model]>,
}

impl Read {
    fn new(models: Vec<Model>, now: Instant, age: Duration) -> Self {
        Self { until: now + age, models: models.into() }
    }

    /// The models, as long as they are believed.
    fn at(&self, now: Instant) -> Option<Arc<[Model]>> {
        (now < self.until).then(|| Arc::clone(&self.models))
    }
}

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

    /// The list, read again when it is too old.
    async fn list(&self) -> Result<Arc<[Model]>> {
        let mut kept = self.listed.0.lock().await;
        if let Some(models) = kept.as_ref().and_then(|read| read.at(Instant::now())) {
            return Ok(models);
        }
        let (models, age) = self.read_all().await?;
        let read = Read::new(models, Instant::now(), age);
        let models = Arc::clone(&read.models);
        *kept = Some(read);
        Ok(models)
    }

    /// Reads every site's list at once, and for how long it holds. A site that does not answer is represented by the
    /// catalogue: a list of what is known to exist serves a picker better than an error. A site that refuses our
    /// credential is no such case, for nothing can be called there either.
    async fn read_all(&self) -> Result<(Vec<Model>, Duration)> {
        let reads = join_all(self.upstream.sites().map(|site| self.read_site(site))).await;
        let (mut models, mut age, mut refused) = (Vec::<Model>::new(), LIST_AGE, None);
        let mut add = |list: Vec<Model>| {
            for model in list {
                if !models.iter().any(|known| known.id == model.id) {
                    models.push(model);
                }
            }
        };
        let mut served = false;
        for read in reads {
            match read {
                Ok(list) => {
                    served = true;
                    add(list);
                }
                Err(error) if matches!(error.kind(), Kind::UpstreamRefused | Kind::Forbidden) => {
                    refused.get_or_insert(error);
                }
                Err(error) => {
                    tracing::warn!(error = %error, "a site's models cannot be listed; the catalogue stands in");
                    served = true;
                    age = STANDIN_AGE;
                    add(self.known());
                }
            }
        }
        if let Some(error) = refused.filter(|_| !served) {
            return Err(error);
        }
        for model in &mut models {
            self.describe(model);
        }
        for (alias, target) in &self.aliases {
            let target = catalog::model_id(target).unwrap_or_else(|_| target.clone());
            let like = models.iter().find(|model| model.id == target).cloned();
            let mut model = like.unwrap_or_else(|| {
                let mut model = Model::google(target.as_str());
                self.describe(&mut model);
                model
            });
            model.id.clone_from(alias);
            models.retain(|known| known.id != *alias);
            models.push(model);
        }
        Ok((models, age))
    }

    /// What the catalogue knows to exist.
    fn known(&self) -> Vec<Model> {
        self.catalog.models().map(|model| Model::google(&*model.id)).collect()
    }

    /// Adds what the catalogue and the price list know.
    fn describe(&self, model: &mut Model) {
        let traits = self.catalog.traits(&model.id);
        model.context_window = model.context_window.or(traits.context_window);
        model.max_output_tokens = model.max_output_tokens.or(traits.max_output_tokens);
        model.modalities = (!traits.input.is_empty())
            .then(|| Modalities { input: traits.input.clone(), output: traits.output.clone() });
        if let Some(known) = self.catalog.models().find(|known| known.id == model.id) {
            model.created = known.created.unwrap_or(0);
            model.shutdown_date.clone_from(&known.retires);
        }
        model.pricing = self.prices.of(&model.id, self.clock.unix_seconds()).map(|price| {
            let (input, cached_input, output) = price.plain();
            Pricing { currency: "USD".into(), per_tokens: 1_000_000, input, cached_input, output }
        });
    }

    async fn read_site(&self, site: &Site) -> Result<Vec<Model>> {
        match site.backend() {
            Backend::GeminiApi => self.read_list(site).await,
            // Vertex lists publisher models without limits and methods; the catalogue knows more.
            Backend::Vertex => Ok(self.known()),
        }
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
        for _ in 0..MOST_PAGES {
            let path = match &token {
                None => "models?pageSize=1000".to_owned(),
                Some(token) => {
                    let all = percent_encoding::NON_ALPHANUMERIC;
                    let token = percent_encoding::utf8_percent_encode(token, all);
                    format!("models?pageSize=1000&pageToken={token}")
                }
            };
            let bytes = self.upstream.get(site, &path).await?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|error| {
                let message = "Google's list of models cannot be read.";
                Error::new(Kind::UpstreamBroken, Origin::Upstream, message)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_believed_for_five_minutes_and_no_longer() {
        let now = Instant::now();
        let read = Read::new(vec![Model::google("gemini-3.8-flash")], now, LIST_AGE);
        let after = |seconds| read.at(now + Duration::from_secs(seconds)).map(|models| models.len());
        assert_eq!(after(0), Some(1));
        assert_eq!(after(299), Some(1));
        assert_eq!(after(300), None);
        assert_eq!(after(86_400), None);
    }
}
