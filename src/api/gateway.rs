//! The one walk of a request: key → model → site → ask → call → reply.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{Ctx, Engine, EventSource, Readiness, Reply, Stream};
use crate::catalog::{self, Catalog, Pattern};
use crate::clock::Clock;
use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::ids::Ids;
use crate::keys::{Keys, Tenant};
use crate::limits::{Limiter, Permit};
use crate::openai::models::Model;
use crate::translate::chat::stream::ChatMachine;
use crate::translate::chat::{Ask, Shape, reply, request};
use crate::translate::{Machine, Signatures, Stamp, Target};
use crate::upstream::{AnswerBody, Call, Events, Method, Site, Upstream};
use crate::usage::Usage;
use crate::wire;

const DROPPED: HeaderName = HeaderName::from_static("x-gemway-dropped-params");
const SERVED_BY: HeaderName = HeaderName::from_static("x-gemway-served-by");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-gemway-attempts");

/// How long a list of models is believed.
const LIST_AGE: Duration = Duration::from_mins(5);

/// Which models go where, in order of preference.
#[derive(Clone, Debug)]
pub struct Route {
    /// Patterns of model ids.
    pub models: Vec<Pattern>,
    /// Names of sites.
    pub sites: Vec<String>,
}

/// Everything the walk stands on; made by `app`.
#[derive(Debug)]
pub struct Gateway {
    /// Client keys.
    pub keys: Keys,
    /// Limits by key.
    pub limiter: Limiter,
    /// Other names for models.
    pub aliases: std::collections::BTreeMap<String, String>,
    /// Which models go where; a model that no route names goes to the first site.
    pub routes: Vec<Route>,
    /// What models can do.
    pub catalog: Catalog,
    /// Google, or the simulator.
    pub upstream: Upstream,
    /// The memory of thought signatures.
    pub signatures: Arc<dyn Signatures>,
    /// Names.
    pub ids: Arc<Ids>,
    /// Time.
    pub clock: Clock,
    /// Refuse what would be dropped.
    pub strict: bool,
    /// Upstream's models, and when they were read.
    pub listed: Mutex<Option<(Instant, Arc<[Model]>)>>,
    /// Model ids that may become metric labels: those the catalogue names.
    pub labels: HashSet<String>,
}

impl Gateway {
    /// What the client calls `name`, as Google calls it.
    fn dispatched(&self, name: &str) -> Result<String> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        let id = catalog::model_id(name)?;
        match self.aliases.get(&id) {
            Some(aliased) => catalog::model_id(aliased),
            None => Ok(id),
        }
    }

    fn site(&self, model: &str) -> Result<&Site> {
        let named = self
            .routes
            .iter()
            .find(|route| route.models.iter().any(|pattern| pattern.matches(model)))
            .and_then(|route| route.sites.first());
        let mut sites = self.upstream.sites();
        let found = match named {
            Some(name) => sites.find(|site| site.name() == name),
            None => sites.next(),
        };
        found.ok_or_else(|| Error::internal("a route names a site that does not exist"))
    }

    async fn run(&self, cx: Ctx, body: Bytes) -> Result<Reply> {
        let mut asked = request::parse(&body)?;
        if asked.model.is_empty()
            && let Some(deployment) = &cx.deployment
        {
            asked.model = deployment.to_string().into();
        }
        let name = asked.model.to_string();
        let streams = asked.stream;
        let model = self.dispatched(&name)?;
        cx.meter.model(&name, self.labels.get(&model).map(String::as_str));
        cx.tenant.may_use(&model)?;
        let site = self.site(&model)?;
        let traits = self.catalog.traits(&model);
        let target = Target { model: &model, traits, backend: site.backend(), strict: self.strict };
        let Ask { request, shape, dropped } = request::ask(asked, &target, &*self.signatures)?;
        // Four bytes a token is close enough for a reservation; the truth settles it.
        let permit = self.limiter.admit(cx.tenant.name(), body.len() as u64 / 4)?;
        // Families with an output cap per request are always streamed upstream.
        // Several candidates never stream at Google: their whole answer becomes one event.
        let several = shape.choices > 1;
        let live = (streams && !several) || traits.long_decode;
        let method = if live { Method::Stream } else { Method::Generate };
        let ask = wire::encode(&request, &body).map_err(Error::internal)?;
        drop(request);
        let call = Call { model, method, body: ask, preview: false };
        let mut headers = HeaderMap::new();
        for (name, value) in permit.headers() {
            headers.insert(name.clone(), value.clone());
        }
        if !dropped.is_empty()
            && let Ok(value) = HeaderValue::from_str(&dropped.join(","))
        {
            headers.insert(DROPPED, value);
        }
        headers
            .insert(SERVED_BY, HeaderValue::from_str(site.name()).unwrap_or(HeaderValue::from_static("-")));
        let stamp = Stamp {
            id: self.ids.mint("chatcmpl-"),
            created: self.clock.unix_seconds(),
            model: name,
            ids: Arc::clone(&self.ids),
            signatures: Arc::clone(&self.signatures),
        };
        if streams {
            let (events, attempts) = self.events(&cx, site, &call, &shape, &stamp).await?;
            headers.insert(ATTEMPTS, attempts.into());
            let machine = Settling { machine: ChatMachine::new(shape, stamp), permit: Some(permit) };
            return Ok(Reply::Stream(Stream { events, machine: Box::new(machine), headers }));
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let (answers, attempts) = self.whole(&cx, site, &call).await?;
            match reply::reply(&shape, &stamp, &answers) {
                Ok((body, usage)) => {
                    cx.meter.usage(usage);
                    permit.settle(usage.total());
                    headers.insert(ATTEMPTS, (attempts + tries - 1).into());
                    return Ok(Reply::Whole { body, headers });
                }
                // An empty or malformed answer: the model deserves one more chance, and nothing was sent yet.
                Err(error) if error.retries() == Retry::Soon && tries < 2 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The upstream's events, the first of them looked at: an answer that is over before it said anything is
    /// still an HTTP error, and deserves one more chance.
    async fn events(
        &self,
        cx: &Ctx,
        site: &Site,
        call: &Call,
        shape: &Shape,
        stamp: &Stamp,
    ) -> Result<(Box<dyn EventSource>, u32)> {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.call(cx, site, call).await?;
            let (mut first, mut inner) = (Vec::new(), None);
            match answer.body {
                AnswerBody::Whole(bytes) => first.push(bytes),
                AnswerBody::Stream(mut events) => {
                    if events.next(&mut first).await? {
                        inner = Some(events);
                    }
                }
            }
            match verdict(&first, inner.is_none(), shape, stamp) {
                Ok(()) => return Ok((Box::new(Primed { first, inner }), answer.attempts + tries - 1)),
                Err(error) if error.retries() == Retry::Soon && tries < 2 => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn whole(&self, cx: &Ctx, site: &Site, call: &Call) -> Result<(Vec<Bytes>, u32)> {
        let answer = self.call(cx, site, call).await?;
        match answer.body {
            AnswerBody::Whole(bytes) => Ok((vec![bytes], answer.attempts)),
            AnswerBody::Stream(mut events) => {
                let mut all = Vec::new();
                while events.next(&mut all).await? {}
                Ok((all, answer.attempts))
            }
        }
    }

    async fn call(&self, cx: &Ctx, site: &Site, call: &Call) -> Result<crate::upstream::Answer> {
        let answer = self.upstream.call(site, call).await;
        let code = if answer.is_ok() { "ok" } else { "error" };
        let label =
            self.labels.get(&call.model).map_or(crate::telemetry::metrics::UNRESOLVED, String::as_str);
        cx.metrics.attempt(site.name(), label, code);
        cx.meter.attempt(site.name(), answer.is_ok().then_some(200));
        answer
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

/// A stream's machine that settles the permit when it goes: at the end, on failure, or when the client leaves.
struct Settling {
    machine: ChatMachine,
    permit: Option<Permit>,
}

impl Machine for Settling {
    fn push(&mut self, event: &[u8], out: &mut BytesMut) -> Result<()> {
        self.machine.push(event, out)
    }
    fn usage(&self) -> Usage {
        self.machine.usage()
    }
    fn finish(&mut self, out: &mut BytesMut) -> Result<Usage> {
        self.machine.finish(out)
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        let used = self.machine.usage().total();
        if let Some(permit) = self.permit.take() {
            // Without a word from Google the estimate stands.
            if used > 0 { permit.settle(used) } else { drop(permit) }
        }
    }
}

/// Tries the first events on a machine of their own, if they may already be the end.
fn verdict(first: &[Bytes], over: bool, shape: &Shape, stamp: &Stamp) -> Result<()> {
    let says = |event: &Bytes, word: &str| memchr::memmem::find(event, word.as_bytes()).is_some();
    if !over && !first.iter().any(|event| says(event, "finishReason") || !says(event, "candidates")) {
        return Ok(());
    }
    let (mut machine, mut out) = (ChatMachine::new(shape.clone(), stamp.clone()), BytesMut::new());
    for event in first {
        machine.push(event, &mut out)?;
    }
    // Something was said, or more may come: whatever happens next happens inside the stream.
    let ended = over || first.iter().any(|event| says(event, "finishReason"));
    if ended && out.is_empty() { machine.finish(&mut out).map(|_| ()) } else { Ok(()) }
}

/// A stream whose first events are in hand.
struct Primed {
    first: Vec<Bytes>,
    inner: Option<Events>,
}

impl EventSource for Primed {
    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        if !self.first.is_empty() {
            batch.append(&mut self.first);
            return Poll::Ready(Ok(self.inner.is_some()));
        }
        match &mut self.inner {
            Some(events) => events.poll_next(cx, batch),
            None => Poll::Ready(Ok(false)),
        }
    }
}

impl Engine for Gateway {
    fn authenticate(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Arc<Tenant>> {
        self.keys.authenticate(headers, query)
    }

    fn chat(&self, cx: Ctx, body: Bytes) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(self.run(cx, body))
    }

    fn models(&self, cx: Ctx) -> BoxFuture<'_, Result<Vec<Model>>> {
        Box::pin(async move {
            let models = self.list().await?;
            let seen = |model: &&Model| self.dispatched(&model.id).is_ok_and(|id| cx.tenant.sees(&id));
            Ok(models.iter().filter(seen).cloned().collect())
        })
    }

    fn model(&self, cx: Ctx, id: String) -> BoxFuture<'_, Result<Model>> {
        Box::pin(async move {
            let bare = catalog::model_id(&id)?;
            let models = self.list().await?;
            let found = models.iter().find(|model| model.id == bare || model.id == id);
            found
                .filter(|model| self.dispatched(&model.id).is_ok_and(|id| cx.tenant.sees(&id)))
                .cloned()
                .ok_or_else(|| {
                    Error::new(Kind::NotFound, Origin::Client, format!("The model '{bare}' does not exist."))
                        .at("model")
                        .code("model_not_found")
                })
        })
    }

    fn ready(&self) -> Readiness {
        let simulator = self.upstream.sites().any(Site::is_simulator);
        let sites: Vec<_> = self.upstream.sites().map(Site::name).collect();
        let mut detail = vec![("sites".to_owned(), sites.join(","))];
        if simulator {
            let words = "answers are made up: no Google credential is configured";
            detail.push(("upstream".to_owned(), words.to_owned()));
        }
        Readiness { ready: true, simulator, detail }
    }
}
