//! Admission: how big a request is, what it may cost at most, and whether its key may make it.

use super::Gateway;
use crate::api::Ctx;
use crate::error::Result;
use crate::limits::{Amount, Claim, Tokens};
use crate::usage::Tier;
use crate::wire::Rope;

/// What an answer takes where nothing is known of it: enough for a short one, and the truth settles it.
const ANSWER: u64 = 256;

/// What an inline image, a page or a few seconds of sound take, about.
const INLINE: u64 = 1300;

/// How big a request is, as far as that can be told before it is answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// Tokens of the prompt, about.
    pub(super) input: u64,
    /// The most tokens of the answer, where the client named it.
    pub(super) most: Option<u64>,
    /// It may be served as a priority, at that price.
    dear: bool,
    /// It uses no tokens at all.
    free: bool,
}

impl Size {
    /// A request that uses no tokens: it counts as a request, and costs nothing.
    pub(super) const FREE: Self = Self { input: 0, most: None, dear: false, free: true };

    /// A prompt of about so many tokens.
    pub(super) fn about(input: u64) -> Self {
        Self { input, ..Self::default() }
    }

    /// The size of what will be sent to Google: text by its length, inline media by the piece.
    pub(super) fn of(body: &Rope) -> Self {
        let tokens = body.pieces().map(|piece| {
            // The encoder leaves long base64 as a piece of its own.
            let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte);
            if piece.len() > 1024 && piece.iter().take(512).all(base64) {
                INLINE
            } else {
                piece.len() as u64 / 4
            }
        });
        // Inside of a text the quotes would be escaped.
        let dear = body.pieces().any(|piece| memchr::memmem::find(piece, b"\"priority\"").is_some());
        Self { dear, ..Self::about(tokens.sum()) }
    }

    /// A request that was not looked into: it may ask for the dearest tier.
    pub(super) fn unread(self) -> Self {
        Self { dear: true, ..self }
    }

    /// With the client's own bound on the answer.
    pub(super) fn bounded(self, most: Option<u64>) -> Self {
        Self { most, ..self }
    }
}

impl Gateway {
    /// Lets a request in for `model`, or refuses it. The meter holds the permit from here on, settles it with
    /// what was really used, and tells the client where its limits stand.
    ///
    /// # Errors
    /// As [`crate::limits::Limiter::admit`].
    pub(super) async fn admit(&self, cx: &Ctx, model: &str, size: Size) -> Result<()> {
        // What serves when nothing is known of the model is generous: a worst case must not be too small.
        let cap = self.catalog.traits(model).max_output_tokens.unwrap_or(65_536);
        let most = size.most.unwrap_or(cap);
        let worst = cx.tenant.budget().and_then(|budget| match budget.amount {
            _ if size.free => Some(0),
            Amount::Tokens(_) => Some(size.input.saturating_add(most)),
            Amount::Nanos(_) => {
                let price = self.prices.of(model, self.clock.unix_seconds())?;
                let dear = size.dear.then(|| price.worst(size.input, most, Tier::Priority)).flatten();
                dear.or_else(|| price.worst(size.input, most, Tier::Standard))
            }
        });
        let estimate = Tokens {
            input: size.input,
            output: if size.free { 0 } else { size.most.map_or(ANSWER, |most| most.min(cap)) },
        };
        let claim = Claim {
            key: cx.tenant.name(),
            model,
            quota: cx.tenant.quota(),
            budget: cx.tenant.budget(),
            estimate,
            worst,
            bounded: size.most.is_some() || size.free,
        };
        match self.limiter.admit(&claim).await {
            Ok(permit) => {
                cx.meter.admitted(permit, estimate);
                Ok(())
            }
            Err(refusal) => {
                cx.meter.tell(refusal.headers);
                Err(refusal.error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn media_count_by_the_piece_and_text_by_its_length() {
        let mut body = Rope::default();
        body.push(Bytes::from(vec![b' '; 400]));
        body.push(Bytes::from(vec![b'A'; 1_000_000]));
        assert_eq!(Size::of(&body).input, 100 + INLINE);
    }

    #[test]
    fn only_a_wish_for_priority_is_dear() {
        let size = |text: &'static str| {
            let mut body = Rope::default();
            body.push(Bytes::from_static(text.as_bytes()));
            Size::of(&body).dear
        };
        assert!(size(r#"{"serviceTier":"priority","contents":[]}"#));
        assert!(!size(r#"{"serviceTier":"flex","contents":[{"parts":[{"text":"a \"priority\" of"}]}]}"#));
    }
}
