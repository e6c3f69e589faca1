//! Shortening a conversation: the model sums it up, and the client carries the sum.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::marks::{self, Mark};
use super::{Ask, History, Shape, Whole, request};
use crate::catalog::Traits;
use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::gemini::ask::{Content, Part, Role};
use crate::openai::responses::Request;
use crate::translate::{Signatures, Stamp, Target};
use crate::usage::Usage;
use crate::wire::Text;

/// What the model is asked behind the conversation.
const TASK: &str = "Sum up our conversation so far, for someone who has to go on with it and will see nothing \
    but your summary. Keep what the user asked for, as literally as matters; the decisions and their reasons; \
    what tools were called and what they found; names, paths, numbers, code and identifiers exactly; and what is \
    still to be done. Leave out pleasantries. Do not go on with the work, and do not address the user.";

/// Translates a request to compact for one target.
///
/// # Errors
/// As [`request::ask`].
pub fn ask<'a>(
    mut asked: Request<'a>,
    history: &'a History,
    target: &Target<'_>,
    signatures: &dyn Signatures,
) -> Result<Ask<'a>> {
    // Only what was said counts; nothing may be called and no form is asked for.
    asked.tools = None;
    asked.tool_choice = None;
    asked.text = None;
    asked.stream = false;
    asked.stream_options = None;
    // Most conversations end with the answer; it is the task that comes last.
    let traits = Traits { prefill: true, ..target.traits.clone() };
    let mut ask = request::ask(asked, history, &Target { traits: &traits, ..*target }, signatures)?;
    let task = Part::text(Text::plain(TASK));
    match ask.request.contents.last_mut() {
        Some(last) if last.role == Role::User => last.parts.push(task),
        _ => ask.request.contents.push(Content { role: Role::User, parts: vec![task] }),
    }
    Ok(ask)
}

/// The compacted conversation.
///
/// # Errors
/// As [`super::reply`]; and when the model said nothing, or not all of it.
pub fn reply(shape: &Shape, stamp: &Stamp, answers: &[Bytes]) -> Result<(Bytes, Usage)> {
    #[derive(Deserialize)]
    struct Response {
        status: String,
        output: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        content: Vec<Said>,
    }
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        text: String,
    }
    #[derive(Serialize)]
    struct Compaction<'c> {
        id: String,
        #[serde(rename = "type")]
        kind: &'static str,
        encrypted_content: &'c str,
    }
    #[derive(Serialize)]
    struct Compacted<'c> {
        id: &'c str,
        object: &'static str,
        created_at: u64,
        output: [Compaction<'c>; 1],
        usage: super::desk::Counted,
    }
    let Whole { finished, usage } = super::reply(shape, stamp, answers)?;
    let response: Response = serde_json::from_slice(&finished.response).map_err(Error::internal)?;
    let text: String =
        response.output.into_iter().flat_map(|item| item.content).map(|said| said.text).collect();
    if text.trim().is_empty() || response.status != "completed" {
        let message = "The model did not sum up the conversation.";
        return Err(Error::new(Kind::UpstreamBroken, Origin::Upstream, message)
            .code("upstream_malformed_output")
            .retry(Retry::Soon));
    }
    let sealed = marks::seal(&[Mark::Summary { text }]);
    let compaction =
        Compaction { id: stamp.ids.mint("cmp_"), kind: "compaction", encrypted_content: &sealed };
    let compacted = Compacted {
        id: &stamp.id,
        object: "response.compaction",
        created_at: stamp.created,
        output: [compaction],
        usage: super::desk::counted(&usage),
    };
    let body = serde_json::to_vec(&compacted).map_err(Error::internal)?;
    Ok((body.into(), usage))
}
