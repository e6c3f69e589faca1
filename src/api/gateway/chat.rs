//! Chat Completions on the walk.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Gateway;
use super::walk::{Asked, Operation};
use crate::api::{Ctx, Incoming, Reply};
use crate::error::{Error, Result};
use crate::openai::chat::Request;
use crate::translate::chat::stream::ChatMachine;
use crate::translate::chat::{Ask, Shape, fill, reply, request};
use crate::translate::{Media, Signatures, Stamp, Target, Wanted, counts};
use crate::upstream;
use crate::usage::Usage;
use crate::wire::{self, Aside, Rope};

impl Gateway {
    /// `POST /v1/chat/completions`.
    pub(super) async fn chat(&self, cx: Ctx, incoming: Incoming) -> Result<Reply> {
        let whole = incoming.json(&cx).await?;
        let mut aside = Aside::of(whole.clone());
        if !aside.is_whole() && request::parse(&aside.body).is_err() {
            // What is wrong is told of the body that the client knows.
            aside = Aside::from(whole.clone());
        }
        // In a box: it is large, and passed along by value.
        let asked = Box::new(request::parse(&aside.body)?);
        let model = match &cx.deployment {
            Some(deployment) if asked.model.is_empty() => deployment.to_string(),
            _ => asked.model.to_string(),
        };
        let streams = asked.stream;
        let named = asked.max_completion_tokens.or(asked.max_tokens);
        let choices = asked.n.and_then(|n| u64::try_from(n).ok()).unwrap_or(1).max(1);
        let most = named.and_then(|most| u64::try_from(most).ok()).map(|most| most.saturating_mul(choices));
        let (wanted, media) = (Vec::new(), BTreeMap::new());
        let (whole, aside) = (&whole, &aside);
        let asked = Some(asked);
        self.walk(&cx, Chat { whole, aside, asked, model, streams, most, choices, wanted, media }).await
    }
}

struct Chat<'b> {
    whole: &'b Bytes,
    /// The same without what need not be read.
    aside: &'b Aside,
    /// The request, until it is asked the first time; parsed anew should it be asked again.
    asked: Option<Box<Request<'b>>>,
    model: String,
    streams: bool,
    most: Option<u64>,
    choices: u64,
    /// Media that the request still waits for.
    wanted: Vec<Wanted>,
    media: BTreeMap<String, Media>,
}

impl<'b> Chat<'b> {
    /// The request as a target is asked, and what must be known of it.
    fn written(
        &mut self,
        asked: Request<'b>,
        source: &Bytes,
        target: &Target<'_>,
        signatures: &dyn Signatures,
    ) -> Result<(Rope, Shape, Vec<String>)> {
        let Ask { mut request, shape, dropped } = request::ask(asked, target, signatures)?;
        self.wanted = fill(&mut request, &self.media);
        let body = wire::encode(&request, source).map_err(Error::internal)?;
        Ok((body, shape, dropped))
    }
}

impl Operation for Chat<'_> {
    type Shape = Shape;
    type Machine = ChatMachine;
    const PREFIX: &'static str = "chatcmpl-";

    fn model(&self) -> &str {
        &self.model
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn session(&self) -> Option<u64> {
        #[derive(serde::Deserialize)]
        struct Key<'k> {
            #[serde(borrow, default)]
            prompt_cache_key: Option<std::borrow::Cow<'k, str>>,
        }
        let key = serde_json::from_slice(&self.aside.body).ok().and_then(|key: Key<'_>| key.prompt_cache_key);
        if let Some(key) = key {
            return Some(upstream::hash(key.as_bytes()));
        }
        // How a conversation begins stays the same while it grows.
        let messages = &self.asked.as_ref()?.messages;
        let opening = messages.iter().position(|message| message.role == "user").map_or(0, |at| at + 1);
        let said = messages.iter().take(opening).filter_map(|message| message.content);
        Some(said.fold(0, |hash, content| upstream::hash(content.get().as_bytes()) ^ hash.rotate_left(1)))
    }

    fn most(&self) -> Option<u64> {
        self.most
    }

    fn ask(&mut self, target: &Target<'_>, signatures: &dyn Signatures) -> Result<Asked<Shape>> {
        let asked = match self.asked.take() {
            Some(asked) => asked,
            None => Box::new(request::parse(&self.aside.body)?),
        };
        let (body, shape, dropped) = self.written(*asked, &self.aside.body, target, signatures)?;
        let (body, shape, dropped) = match self.aside.restore(body) {
            Some(body) => (body, shape, dropped),
            None => self.written(request::parse(self.whole)?, self.whole, target, signatures)?,
        };
        let several = shape.choices > 1 && shape.fan < 2;
        Ok(Asked { body, shape, dropped, several })
    }

    fn wanted(&self) -> &[Wanted] {
        &self.wanted
    }

    fn given(&mut self, media: BTreeMap<String, Media>) {
        self.media.extend(media);
    }

    fn choices(&self) -> u64 {
        self.choices
    }

    fn branches(&self, shape: &Shape) -> usize {
        usize::try_from(shape.fan).unwrap_or(1)
    }

    fn served(&self, shape: &mut Shape, tier: &str) {
        shape.tier = counts::service_tier(tier);
    }

    fn machine(&self, shape: Shape, stamp: Stamp) -> ChatMachine {
        ChatMachine::new(shape, stamp)
    }

    fn reply(&self, shape: &Shape, stamp: &Stamp, answers: &[Bytes]) -> Result<(Bytes, Usage)> {
        reply::reply(shape, stamp, answers)
    }
}
