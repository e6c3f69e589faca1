//! Models that turn out to take less than the catalogue believes, and signatures that turn out to be foreign.
//!
//! Google's 400 names what it does not take. The request is then translated anew for a model without that, which
//! drops it and says so, or does the same in another way; what was learned is kept for a while.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Gateway;
use super::walk::{Asked, Heard, Operation, Unheard};
use crate::api::Ctx;
use crate::catalog::{Level, Thinking, Traits};
use crate::error::{Error, Kind, Result};
use crate::translate::{Signatures, Stamp, Target};
use crate::upstream::Leg;
use crate::usage::Usage;

/// How long a lesson is believed: models change.
const BELIEVED: Duration = Duration::from_hours(1);
/// Models that lessons are kept of; names come from clients, so there is an end.
const MOST_MODELS: usize = 512;
/// Lessons that one request may learn.
const MOST_LESSONS: u32 = 4;

/// What a model turned out not to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lesson {
    Penalties,
    Logprobs,
    Candidates,
    System,
    Schema,
    ToolsWithSchema,
    Sampling,
    Thinking,
    /// One of its levels.
    Level(Level),
    ThinkingOff,
    Seed,
    Stops,
    Tiers,
    MediaResolution,
}

impl Lesson {
    /// Reads Google's sentence.
    fn of(error: &Error) -> Option<Self> {
        if error.kind() != Kind::Invalid {
            return None;
        }
        let said = error.message().to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().all(|word| said.contains(word));
        let refused = ["not enabled", "not supported", "unsupported", "cannot find field"];
        let refused = refused.iter().any(|word| said.contains(word));
        if says(&["budget 0 is invalid"]) || says(&["only works in thinking mode"]) {
            return Some(Self::ThinkingOff);
        }
        if !refused {
            return None;
        }
        let levels = [Level::Minimal, Level::Low, Level::Medium, Level::High, Level::Xhigh]
            .map(|level| (level, level.word()));
        let level = levels.iter().find(|(_, word)| said.contains(&format!("thinking level {word} ")));
        if let Some((level, _)) = level {
            return Some(Self::Level(*level));
        }
        let table: [(&[&str], Self); 20] = [
            (&["penalty"], Self::Penalties),
            (&["logprobs"], Self::Logprobs),
            (&["multiple candidates"], Self::Candidates),
            (&["developer instruction"], Self::System),
            (&["system instruction"], Self::System),
            (&["json_schema"], Self::Schema),
            (&["jsonschema"], Self::Schema),
            (&["function calling with a response mime type"], Self::ToolsWithSchema),
            (&["temperature"], Self::Sampling),
            (&["top_p"], Self::Sampling),
            (&["top_k"], Self::Sampling),
            (&["seed"], Self::Seed),
            (&["stop sequence"], Self::Stops),
            (&["stop_sequence"], Self::Stops),
            (&["service tier"], Self::Tiers),
            (&["service_tier"], Self::Tiers),
            (&["media resolution"], Self::MediaResolution),
            (&["media_resolution"], Self::MediaResolution),
            (&["thinking level"], Self::Thinking),
            (&["thinking", "this model"], Self::Thinking),
        ];
        table.iter().find(|(words, _)| says(words)).map(|(_, lesson)| *lesson)
    }

    fn apply(self, traits: &mut Traits) {
        match self {
            Self::Penalties => traits.penalties = false,
            Self::Logprobs => traits.logprobs = false,
            Self::Candidates => traits.max_candidates = 1,
            Self::System => traits.system_instruction = false,
            Self::Schema => traits.json_schema = false,
            Self::ToolsWithSchema => traits.tools_with_schema = false,
            Self::Sampling => traits.sampling = false,
            Self::Seed => traits.seed = false,
            Self::Stops => traits.stops = false,
            Self::Tiers => traits.tiers = false,
            Self::MediaResolution => traits.media_resolution = false,
            Self::Thinking => traits.thinking = Thinking::None,
            Self::Level(refused) => {
                if let Thinking::Levels(levels) = &mut traits.thinking {
                    levels.retain(|level| *level != refused);
                }
            }
            Self::ThinkingOff => {
                if let Thinking::Budget { can_be_off, .. } = &mut traits.thinking {
                    *can_be_off = false;
                }
            }
        }
    }
}

/// What was learned of models lately.
#[derive(Debug, Default)]
pub struct Learned(Mutex<HashMap<String, Vec<(Lesson, Instant)>>>);

impl Learned {
    /// What a model can do, as far as is known now.
    pub(super) fn traits<'t>(&self, model: &str, believed: &'t Traits) -> Cow<'t, Traits> {
        let mut traits = Cow::Borrowed(believed);
        for (lesson, learned) in self.0.lock().get(model).into_iter().flatten() {
            if learned.elapsed() < BELIEVED {
                lesson.apply(traits.to_mut());
            }
        }
        traits
    }

    /// Keeps a lesson. False when it changes nothing: then Google means something else.
    fn learn(&self, model: &str, believed: &Traits, lesson: Lesson) -> bool {
        let known = self.traits(model, believed).into_owned();
        let mut taught = known.clone();
        lesson.apply(&mut taught);
        if taught == known {
            return false;
        }
        let mut all = self.0.lock();
        for lessons in all.values_mut() {
            lessons.retain(|(_, learned)| learned.elapsed() < BELIEVED);
        }
        all.retain(|_, lessons| !lessons.is_empty());
        if all.len() < MOST_MODELS || all.contains_key(model) {
            let lessons = all.entry(model.to_owned()).or_default();
            lessons.retain(|(known, _)| *known != lesson);
            lessons.push((lesson, Instant::now()));
            return true;
        }
        false
    }
}

/// A memory for a request whose signatures are not believed: every call counts as unsigned.
#[derive(Debug)]
struct Unsigned<'s>(&'s dyn Signatures);

impl Signatures for Unsigned<'_> {
    fn remember(&self, call_id: &str, signature: &str) {
        self.0.remember(call_id, signature);
    }
    fn recall(&self, _: &str) -> Option<Arc<str>> {
        None
    }
    fn believed(&self) -> bool {
        false
    }
}

/// Google does not know the signatures as its own: another project, model or place made them.
fn foreign(error: &Error) -> bool {
    let said = error.message().to_ascii_lowercase();
    error.kind() == Kind::Invalid
        && (said.contains("thought signature") || said.contains("thought_signature"))
}

/// What came of asking one leg.
pub(super) struct Attempt<S> {
    pub(super) heard: Heard,
    pub(super) shape: S,
    pub(super) dropped: Vec<String>,
}

impl Gateway {
    /// What one leg's site is asked.
    ///
    /// # Errors
    /// The operation's, and when the caller may not use the model.
    pub(super) fn ask<O: Operation>(
        &self,
        cx: &Ctx,
        leg: &Leg<'_>,
        operation: &mut O,
        signatures: &dyn Signatures,
    ) -> Result<Asked<O::Shape>> {
        let model = leg.model();
        cx.tenant.may_use(model)?;
        let traits = self.learned.traits(model, self.catalog.traits(model));
        let target = Target { model, traits: &traits, backend: leg.site().backend(), strict: self.strict };
        let asked = operation.ask(&target, signatures)?;
        self.fetches(operation.wanted())?;
        Ok(asked)
    }

    /// Asks one leg; asks it anew without what it turns out not to take, each thing once.
    ///
    /// # Errors
    /// When there is no answer, or one that says nothing.
    pub(super) async fn attempt<O: Operation>(
        &self,
        cx: &Ctx,
        leg: &Leg<'_>,
        operation: &mut O,
        asked: Asked<O::Shape>,
        (stamp, vain): (&Stamp, Option<&Usage>),
    ) -> Result<Attempt<O::Shape>, Unheard> {
        let (mut asked, mut believed, mut lessons) = (asked, true, 0);
        loop {
            let error = match self.hear(cx, leg, operation, &mut asked, (stamp, vain)).await {
                Ok(mut heard) => {
                    heard.again(lessons);
                    return Ok(Attempt { heard, shape: asked.shape, dropped: asked.dropped });
                }
                Err(Unheard::Call(error)) if lessons < MOST_LESSONS => error,
                Err(unheard) => return Err(unheard),
            };
            let model = leg.model();
            if believed && foreign(&error) {
                believed = false;
            } else if Lesson::of(&error)
                .is_none_or(|lesson| !self.learned.learn(model, self.catalog.traits(model), lesson))
            {
                return Err(Unheard::Call(error));
            }
            lessons += 1;
            let unsigned = Unsigned(&*stamp.signatures);
            let signatures: &dyn Signatures = if believed { &*stamp.signatures } else { &unsigned };
            asked = self.ask(cx, leg, operation, signatures).map_err(Unheard::Call)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Origin;

    fn lesson(message: &'static str) -> Option<Lesson> {
        Lesson::of(&Error::new(Kind::Invalid, Origin::Client, message))
    }

    #[test]
    fn googles_sentences_are_read() {
        for (message, expected) in [
            ("Penalty is not enabled for models/x", Some(Lesson::Penalties)),
            ("Logprobs is not enabled for models/x.", Some(Lesson::Logprobs)),
            ("Multiple candidates is not enabled for models/x", Some(Lesson::Candidates)),
            ("Developer instruction is not enabled for models/x", Some(Lesson::System)),
            ("Thinking level is not supported for this model.", Some(Lesson::Thinking)),
            ("Thinking level MINIMAL is not supported for this model.", Some(Lesson::Level(Level::Minimal))),
            ("Seed is not enabled for models/x", Some(Lesson::Seed)),
            ("Stop sequences are not supported for models/x", Some(Lesson::Stops)),
            ("Service tier flex is not supported for models/x", Some(Lesson::Tiers)),
            ("Media resolution is not enabled for models/x", Some(Lesson::MediaResolution)),
            ("Budget 0 is invalid. This model only works in thinking mode.", Some(Lesson::ThinkingOff)),
            (
                "Function calling with a response mime type: 'application/json' is unsupported",
                Some(Lesson::ToolsWithSchema),
            ),
            (
                "Invalid JSON payload received. Unknown name \"responseJsonSchema\" at 'generation_config': Cannot find field.",
                Some(Lesson::Schema),
            ),
            ("Function calling is not enabled for models/x", None),
            ("Request contains an invalid argument.", None),
            ("temperature: 3 is outside of the supported range", None),
        ] {
            assert_eq!(lesson(message), expected, "{message}");
        }
        assert_eq!(Lesson::of(&Error::internal("Penalty is not enabled")), None);
    }

    #[test]
    fn a_lesson_is_learned_once_and_a_flood_of_models_is_bounded() {
        let learned = Learned::default();
        let believed = Traits { penalties: true, ..Traits::default() };
        assert!(learned.learn("m", &believed, Lesson::Penalties));
        assert!(!learned.traits("m", &believed).penalties && learned.traits("n", &believed).penalties);
        assert!(!learned.learn("m", &believed, Lesson::Penalties), "asking again would say the same");
        for model in 0..2 * MOST_MODELS {
            learned.learn(&model.to_string(), &believed, Lesson::Penalties);
        }
        assert_eq!(learned.0.lock().len(), MOST_MODELS);
    }
}
