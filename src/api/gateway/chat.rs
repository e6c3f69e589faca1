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
use crate::wire;

impl Gateway {
    /// `POST /v1/chat/completions`.
    pub(super) async fn chat(&self, cx: Ctx, incoming: Incoming) -> Result<Reply> {
        let body = incoming.json(&cx).await?;
        let asked = request::parse(&body)?;
        let model = match &cx.deployment {
            Some(deployment) if asked.model.is_empty() => deployment.to_string(),
            _ => asked.model.to_string(),
        };
        let streams = asked.stream;
        let named = asked.max_completion_tokens.or(asked.max_tokens);
        let choices = asked.n.and_then(|n| u64::try_from(n).ok()).unwrap_or(1).max(1);
        let most = named.and_then(|most| u64::try_from(most).ok()).map(|most| most.saturating_mul(choices));
        let (wanted, media) = (Vec::new(), BTreeMap::new());
        self.walk(&cx, Chat { body: &body, asked: Some(asked), model, streams, most, choices, wanted, media })
            .await
    }
}

struct Chat<'b> {
    body: &'b Bytes,
    /// The request, until it is asked the first time; parsed anew should it be asked again.
    asked: Option<Request<'b>>,
    model: String,
    streams: bool,
    most: Option<u64>,
    choices: u64,
    /// Media that the request still waits for.
    wanted: Vec<Wanted>,
    media: BTreeMap<String, Media>,
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
        let key = serde_json::from_slice(self.body).ok().and_then(|key: Key<'_>| key.prompt_cache_key);
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
            None => request::parse(self.body)?,
        };
        let Ask { mut request, shape, dropped } = request::ask(asked, target, signatures)?;
        self.wanted = fill(&mut request, &self.media);
        let body = wire::encode(&request, self.body).map_err(Error::internal)?;
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
