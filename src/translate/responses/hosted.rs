//! What Google's own tools did: code, searches, pictures.

use serde::Serialize;

use super::Picture;
use super::desk::{Opened, Pen, With, json};
use crate::error::Result;
use crate::wire;

/// Code that Google runs.
#[derive(Debug, Default)]
pub(super) struct Code {
    container: String,
    code: String,
}

impl Pen<'_> {
    pub(super) fn code(&mut self, code: &str) -> Result<Opened<Code>> {
        #[derive(Serialize)]
        struct Delta<'e> {
            delta: &'e str,
        }
        #[derive(Serialize)]
        struct Done<'e> {
            code: &'e str,
        }
        let (id, container) = (self.desk.mint("ci_"), self.desk.mint("cntr_"));
        let begun = json(&CodeItem::new(&id, &container, "in_progress", "", None))?;
        let item = Code { container, code: code.to_owned() };
        let opened = self.add(id, item, &begun)?;
        let at = || Self::at(&opened.id, opened.index);
        self.event("response.code_interpreter_call.in_progress", &at())?;
        let delta = With { at: at(), more: Delta { delta: code } };
        self.event("response.code_interpreter_call_code.delta", &delta)?;
        let done = With { at: at(), more: Done { code } };
        self.event("response.code_interpreter_call_code.done", &done)?;
        self.event("response.code_interpreter_call.interpreting", &at())?;
        Ok(opened)
    }

    pub(super) fn close_code(
        &mut self,
        opened: Opened<Code>,
        printed: Option<&str>,
        status: &'static str,
    ) -> Result<()> {
        let Opened { id, index, item: Code { container, code }, .. } = opened;
        self.event("response.code_interpreter_call.completed", &Self::at(&id, index))?;
        let item = CodeItem::new(&id, &container, status, &code, printed);
        self.done(index, &item)
    }

    /// A whole search: Google tells of it when it is over.
    pub(super) fn search(&mut self, queries: &[String], sources: Option<&[String]>) -> Result<()> {
        #[derive(Serialize)]
        struct Source<'e> {
            #[serde(rename = "type")]
            kind: &'static str,
            url: &'e str,
        }
        #[derive(Serialize)]
        struct Action<'e> {
            #[serde(rename = "type")]
            kind: &'static str,
            query: &'e str,
            queries: &'e [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            sources: Option<Vec<Source<'e>>>,
        }
        #[derive(Serialize)]
        struct Item<'e> {
            id: &'e str,
            #[serde(rename = "type")]
            kind: &'static str,
            status: &'static str,
            action: Action<'e>,
        }
        let id = self.desk.mint("ws_");
        let sources =
            sources.map(|sources| sources.iter().map(|url| Source { kind: "url", url }).collect::<Vec<_>>());
        let query = queries.first().map(String::as_str).unwrap_or_default();
        let action = Action { kind: "search", query, queries, sources: None };
        let begun = json(&Item { id: &id, kind: "web_search_call", status: "in_progress", action })?;
        let opened = self.add(id, (), &begun)?;
        self.desk.searches.push(opened.index);
        let kinds = [
            "response.web_search_call.in_progress",
            "response.web_search_call.searching",
            "response.web_search_call.completed",
        ];
        for kind in kinds {
            self.event(kind, &Self::at(&opened.id, opened.index))?;
        }
        let action = Action { kind: "search", query, queries, sources };
        self.done(
            opened.index,
            &Item { id: &opened.id, kind: "web_search_call", status: "completed", action },
        )
    }

    /// A whole picture.
    pub(super) fn picture(
        &mut self,
        id: String,
        mime: &str,
        data: &str,
        asked: Option<&Picture>,
    ) -> Result<()> {
        #[derive(Serialize)]
        struct Item<'e> {
            id: &'e str,
            #[serde(rename = "type")]
            kind: &'static str,
            status: &'static str,
            result: Option<wire::Base64<'e>>,
            output_format: &'e str,
            #[serde(skip_serializing_if = "Option::is_none")]
            size: Option<&'e str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            quality: Option<&'e str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            background: Option<&'e str>,
        }
        fn item<'e>(
            id: &'e str,
            mime: &str,
            asked: Option<&'e Picture>,
            status: &'static str,
            result: Option<wire::Base64<'e>>,
        ) -> Item<'e> {
            let known = |value: Option<&str>, words: &[&'static str]| {
                let value = value?;
                words.iter().find(|word| **word == value).copied()
            };
            Item {
                id,
                kind: "image_generation_call",
                status,
                result,
                output_format: match mime {
                    "image/jpeg" => "jpeg",
                    "image/webp" => "webp",
                    "image/gif" => "gif",
                    _ => "png",
                },
                size: asked.and_then(|asked| asked.size.as_deref()),
                quality: known(
                    asked.and_then(|asked| asked.quality.as_deref()),
                    &["low", "medium", "high", "auto"],
                ),
                background: known(
                    asked.and_then(|asked| asked.background.as_deref()),
                    &["transparent", "opaque", "auto"],
                ),
            }
        }
        let begun = json(&item(&id, mime, asked, "in_progress", None))?;
        let opened = self.add(id, (), &begun)?;
        let kinds = [
            "response.image_generation_call.in_progress",
            "response.image_generation_call.generating",
            "response.image_generation_call.completed",
        ];
        for kind in kinds {
            self.event(kind, &Self::at(&opened.id, opened.index))?;
        }
        let whole = item(&opened.id, mime, asked, "completed", wire::Base64::new(data));
        self.done(opened.index, &whole)
    }
}

#[derive(Serialize)]
struct CodeItem<'e> {
    id: &'e str,
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'static str,
    container_id: &'e str,
    code: &'e str,
    outputs: Option<Vec<Logs<'e>>>,
}

#[derive(Serialize)]
struct Logs<'e> {
    #[serde(rename = "type")]
    kind: &'static str,
    logs: &'e str,
}

impl<'e> CodeItem<'e> {
    fn new(
        id: &'e str,
        container_id: &'e str,
        status: &'static str,
        code: &'e str,
        printed: Option<&'e str>,
    ) -> Self {
        let outputs = printed.map(|logs| vec![Logs { kind: "logs", logs }]);
        Self { id, kind: "code_interpreter_call", status, container_id, code, outputs }
    }
}
