//! Google's grounding as the `url_citation` annotations of the other dialect.

use crate::gemini::answer::{CitationMetadata, Count, GroundingChunk, GroundingMetadata, SourcePage, each};
use crate::openai::completion::{Annotation, UrlCitation};
use crate::wire::Text;

/// Where characters begin in the text so far: one bit per byte, and none at all while the text is ASCII.
///
/// Google counts UTF-8 bytes, its clients here count characters; keeping the whole text for that would be eight times
/// as dear.
#[derive(Clone, Debug, Default)]
pub struct Characters {
    bytes: usize,
    starts: Vec<u64>,
}

impl Characters {
    /// The text grows.
    pub fn push(&mut self, text: &str) {
        if self.starts.is_empty() && text.is_ascii() {
            self.bytes += text.len();
            return;
        }
        if self.starts.is_empty() {
            self.starts = vec![u64::MAX; self.bytes / 64];
            self.starts.push((1_u64 << (self.bytes % 64)) - 1);
        }
        for byte in text.bytes() {
            let (word, bit) = (self.bytes / 64, self.bytes % 64);
            if word >= self.starts.len() {
                self.starts.push(0);
            }
            if let Some(word) = self.starts.get_mut(word)
                && byte & 0xC0 != 0x80
            {
                *word |= 1 << bit;
            }
            self.bytes += 1;
        }
    }

    /// The length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many characters begin before this byte.
    pub fn before(&self, byte: usize) -> usize {
        let byte = byte.min(self.bytes);
        if self.starts.is_empty() {
            return byte;
        }
        let whole: u32 = self.starts.iter().take(byte / 64).map(|word| word.count_ones()).sum();
        let rest =
            self.starts.get(byte / 64).map_or(0, |word| (word & ((1 << (byte % 64)) - 1)).count_ones());
        usize::try_from(whole + rest).unwrap_or(byte)
    }
}

/// More recitations than this in one answer are noise, and would cost memory.
const MOST_RECITED: usize = 1024;

/// What Google has said about sources so far. Each list of grounding replaces the one before; recitations add up,
/// since every event of a stream tells only of its own.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pages: Vec<Option<(String, String)>>,
    supports: Vec<Support>,
    recited: Vec<Recited>,
}

/// A stretch of the whole text, in bytes, that stands elsewhere too.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Recited {
    start: usize,
    end: usize,
    url: String,
    title: String,
}

#[derive(Clone, Debug)]
struct Support {
    part: usize,
    start: usize,
    end: usize,
    pages: Vec<usize>,
}

impl Sources {
    /// Takes what one event says.
    pub fn take(&mut self, said: &GroundingMetadata<'_>) {
        if let Some(pages) = said.grounding_chunks.as_ref().filter(|list| !list.is_empty()) {
            self.pages = pages.iter().map(|page| page.as_ref().and_then(page_of)).collect();
        }
        if said.grounding_supports.as_ref().is_some_and(|list| !list.is_empty()) {
            self.supports = each(&said.grounding_supports)
                .map(|support| {
                    let segment = support.segment.as_ref();
                    Support {
                        part: place(segment.and_then(|segment| segment.part_index)),
                        start: place(segment.and_then(|segment| segment.start_index)),
                        end: place(segment.and_then(|segment| segment.end_index)),
                        pages: each(&support.grounding_chunk_indices)
                            .map(|count| usize::try_from(count.0).unwrap_or(usize::MAX))
                            .collect(),
                    }
                })
                .collect();
        }
    }

    /// Takes the recitations that one event tells of. Those without an address have no place in a `url_citation`.
    pub fn recite(&mut self, said: &CitationMetadata<'_>) {
        for citation in each(&said.citations) {
            let Some(uri) = citation.uri.as_ref().filter(|uri| !uri.is_empty()) else { continue };
            let url = uri.decode().into_owned();
            let title = citation.title.as_ref().filter(|title| !title.is_empty()).map(Text::decode);
            let title = title.map_or_else(|| url.clone(), std::borrow::Cow::into_owned);
            let recited =
                Recited { start: place(citation.start_index), end: place(citation.end_index), url, title };
            if self.recited.len() < MOST_RECITED && !self.recited.contains(&recited) {
                self.recited.push(recited);
            }
        }
    }

    /// The annotations, with offsets in characters of the content. `parts` says at which byte each part of the
    /// answer began. Without supports every source stands for the whole text.
    pub fn annotations(&self, text: &Characters, parts: &[usize]) -> Vec<Annotation<'_>> {
        let annotation = |start: usize, end: usize, page: &'_ (String, String)| {
            let start_index = text.before(start);
            (start_index, text.before(end).max(start_index), page.0.clone(), page.1.clone())
        };
        let mut found = Vec::new();
        if self.supports.is_empty() {
            found.extend(self.pages.iter().flatten().map(|page| annotation(0, text.bytes(), page)));
        }
        for support in &self.supports {
            let base = parts.get(support.part).copied().unwrap_or(0);
            for page in support.pages.iter().filter_map(|&page| self.pages.get(page)?.as_ref()) {
                found.push(annotation(
                    base.saturating_add(support.start),
                    base.saturating_add(support.end),
                    page,
                ));
            }
        }
        for Recited { start, end, url, title } in &self.recited {
            found.push(annotation(*start, *end, &(url.clone(), title.clone())));
        }
        found
            .into_iter()
            .map(|(start_index, end_index, url, title)| Annotation {
                kind: "url_citation",
                url_citation: UrlCitation { start_index, end_index, url: url.into(), title: title.into() },
            })
            .collect()
    }
}

fn place(count: Option<Count>) -> usize {
    usize::try_from(count.unwrap_or_default().0).unwrap_or(0)
}

fn page_of(chunk: &GroundingChunk<'_>) -> Option<(String, String)> {
    let page: &SourcePage<'_> = chunk
        .web
        .as_ref()
        .or(chunk.retrieved_context.as_ref())
        .or(chunk.maps.as_ref())
        .or(chunk.image.as_ref())?;
    // Documents of the caller's own stores have names but no addresses.
    let named = [&page.uri, &page.document_name, &page.file_search_store];
    let url = named.into_iter().flatten().find(|name| !name.is_empty())?.decode().into_owned();
    let title = page.title.as_ref().or(page.domain.as_ref());
    let title = title.map_or_else(|| url.clone(), |title| title.decode().into_owned());
    Some((url, title))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_characters() {
        let mut text = Characters::default();
        let whole = format!("{}é€😀 end", "a".repeat(130));
        text.push(&whole[..100]);
        text.push(&whole[100..]);
        for (nth, (byte, _)) in whole.char_indices().enumerate() {
            assert_eq!(text.before(byte), nth);
        }
        assert_eq!(text.before(usize::MAX), whole.chars().count());
    }
}
