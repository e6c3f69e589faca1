//! How inputs become calls.

use std::ops::Range;

use bytes::Bytes;

use super::Shape;
use crate::error::{Error, Result};
use crate::gemini::embed::{
    BatchEmbedRequest, Content, EmbedConfig, EmbedRequest, Instance, Parameters, PredictRequest,
    VertexEmbedRequest, model_name,
};
use crate::wire::{self, Rope, Text};

/// Inputs in one `batchEmbedContents`.
const MOST_REQUESTS: usize = 100;
/// Bytes of one call's inputs: Google closes the door at four megabytes of a batch.
const MOST_BYTES: usize = 3 << 20;
/// Tokens of one `predict`.
const MOST_TOKENS: usize = 20_000;

/// Which of Google's methods is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `embedContent`: one input.
    One,
    /// `batchEmbedContents`: up to a hundred.
    Batch,
    /// `predict`: as many as the model takes.
    Predict,
}

/// Where the calls of a plan go, which decides their form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Gemini,
    Vertex,
    Predict { inputs: usize },
}

/// What the request says about all inputs, or about each.
#[derive(Debug, Default)]
pub(super) struct Options<'a> {
    pub(super) task: Option<&'static str>,
    /// None, one for all, or one for each.
    pub(super) titles: Vec<Text<'a>>,
    pub(super) dimensions: Option<u32>,
    pub(super) auto_truncate: Option<bool>,
    pub(super) document_ocr: Option<bool>,
    pub(super) audio_track_extraction: Option<bool>,
}

/// One request, split into calls.
#[derive(Debug)]
pub struct Plan<'a> {
    form: Form,
    model: String,
    inputs: Vec<Content<'a>>,
    options: Options<'a>,
    calls: Vec<Range<usize>>,
    shape: Shape,
    pub(super) dropped: Vec<String>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        form: Form,
        model: &str,
        inputs: Vec<Content<'a>>,
        options: Options<'a>,
        shape: Shape,
    ) -> Self {
        let calls = split(form, &inputs, 0);
        Self { form, model: model.to_owned(), inputs, options, calls, shape, dropped: Vec::new() }
    }

    /// The calls: which inputs each carries. Together they carry every input once, in order.
    pub fn calls(&self) -> &[Range<usize>] {
        &self.calls
    }

    /// The calls that carry these inputs, and no others.
    pub fn within(&self, inputs: &Range<usize>) -> Vec<Range<usize>> {
        split(self.form, self.inputs.get(inputs.clone()).unwrap_or_default(), inputs.start)
    }

    /// What the answering half must know.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Fields that Gemini has no equal of, for `x-gemway-dropped-params`.
    pub fn dropped(&self) -> &[String] {
        &self.dropped
    }

    /// How a call is made.
    pub fn way(&self, call: &Range<usize>) -> Way {
        match self.form {
            Form::Predict { .. } => Way::Predict,
            Form::Gemini if call.len() > 1 => Way::Batch,
            Form::Gemini | Form::Vertex => Way::One,
        }
    }

    /// Tokens of some inputs, as far as their length tells: four bytes each.
    pub fn estimate(&self, call: &Range<usize>) -> u64 {
        let inputs = self.inputs.get(call.clone()).unwrap_or_default();
        inputs.iter().map(|input| (bytes(input) as u64).div_ceil(4)).sum()
    }

    /// The body of one call. Long pieces of `source`, the client's body, are not copied.
    ///
    /// # Errors
    /// Only if JSON cannot be written.
    pub fn body(&self, call: &Range<usize>, source: &Bytes) -> Result<Rope> {
        let inputs = self.inputs.get(call.clone()).unwrap_or_default().iter();
        let mut numbered = inputs.zip(call.clone());
        let model = model_name(&self.model);
        let rope = match self.form {
            Form::Gemini => {
                let mut requests: Vec<EmbedRequest<'_>> = numbered
                    .map(|(content, at)| EmbedRequest {
                        model: &model,
                        content,
                        task_type: self.options.task,
                        title: self.title(at),
                        output_dimensionality: self.options.dimensions,
                    })
                    .collect();
                match requests.pop() {
                    Some(only) if requests.is_empty() => wire::encode(&only, source),
                    last => {
                        requests.extend(last);
                        wire::encode(&BatchEmbedRequest { requests }, source)
                    }
                }
            }
            Form::Vertex => {
                let Some((content, at)) = numbered.next() else { return Ok(Rope::default()) };
                let config = EmbedConfig {
                    task_type: self.options.task,
                    title: self.title(at),
                    output_dimensionality: self.options.dimensions,
                    auto_truncate: self.options.auto_truncate,
                    document_ocr: self.options.document_ocr,
                    audio_track_extraction: self.options.audio_track_extraction,
                };
                wire::encode(&VertexEmbedRequest { content, embed_content_config: config }, source)
            }
            Form::Predict { .. } => {
                let instances = numbered.filter_map(|(content, at)| match content {
                    Content::Text(content) => {
                        Some(Instance { content, task_type: self.options.task, title: self.title(at) })
                    }
                    Content::Parts(_) => None,
                });
                let parameters = Parameters {
                    output_dimensionality: self.options.dimensions,
                    auto_truncate: self.options.auto_truncate,
                };
                wire::encode(&PredictRequest { instances: instances.collect(), parameters }, source)
            }
        };
        rope.map_err(Error::internal)
    }

    fn title(&self, at: usize) -> Option<&Text<'a>> {
        match self.options.titles.as_slice() {
            [one] => Some(one),
            titles => titles.get(at),
        }
    }
}

/// The bytes of an input, as they will be sent.
fn bytes(input: &Content<'_>) -> usize {
    let text = |text: &Text<'_>| match text {
        Text::Raw(raw) => raw.get().len().saturating_sub(2),
        Text::Plain(text) => text.len(),
    };
    match input {
        Content::Text(said) => text(said),
        Content::Parts(parts) => parts
            .iter()
            .map(|part| {
                let media = part.inline_data.as_ref().map_or(0, |blob| blob.data.as_str().len());
                part.text.as_ref().map_or(0, &text) + media + 64
            })
            .sum(),
    }
}

/// An upper guess at an input's tokens: two bytes each, and one for each figure and sign, which are tokens alone.
fn weight(input: &Content<'_>) -> usize {
    let Content::Text(text) = input else { return bytes(input) / 2 };
    let text = match text {
        Text::Raw(raw) => raw.get(),
        Text::Plain(text) => text,
    };
    let alone = text.bytes().filter(|byte| byte.is_ascii_digit() || byte.is_ascii_punctuation()).count();
    usize::midpoint(text.len(), alone)
}

/// Cuts the inputs into calls that Google takes: by number, by bytes and, for `predict`, by tokens. An input that
/// alone is too much goes alone, and Google says so. `first` is the index of the first of them.
fn split(form: Form, inputs: &[Content<'_>], first: usize) -> Vec<Range<usize>> {
    let (most, tokens) = match form {
        Form::Gemini => (MOST_REQUESTS, usize::MAX),
        Form::Vertex => (1, usize::MAX),
        Form::Predict { inputs } => (inputs.max(1), MOST_TOKENS),
    };
    let mut calls = Vec::with_capacity(inputs.len().div_ceil(most));
    let (mut start, mut heavy, mut long) = (0, 0_usize, 0_usize);
    for (at, input) in inputs.iter().enumerate() {
        let (weight, bytes) = (if tokens == usize::MAX { 0 } else { weight(input) }, bytes(input));
        let full = at - start >= most
            || heavy.saturating_add(weight) > tokens
            || long.saturating_add(bytes) > MOST_BYTES;
        if full && at > start {
            calls.push(first + start..first + at);
            (start, heavy, long) = (at, 0, 0);
        }
        heavy = heavy.saturating_add(weight);
        long = long.saturating_add(bytes);
    }
    if start < inputs.len() {
        calls.push(first + start..first + inputs.len());
    }
    calls
}
