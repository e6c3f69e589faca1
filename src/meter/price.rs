//! What tokens cost: a table of prices that is data (`prices.toml`), and one sum.
//!
//! An unknown price is no price, never zero. Money is counted in nano-dollars, rounded once a request.

use std::sync::Arc;

use serde::Deserialize;

use crate::catalog::{Found, Pattern};
use crate::error::{Error, Kind, Origin, Result};
use crate::usage::{ByModality, Modality, Tier, Usage};

/// Nano-dollars in a dollar.
pub const NANOS: f64 = 1e9;

/// All prices that are known.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    /// Where several fit, the earlier one is asked first.
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    version: String,
    entries: Vec<Entry>,
    /// The entries that fit each name, whatever the date: the best first.
    found: Found<Arc<[usize]>>,
}

#[derive(Clone, Debug)]
struct Entry {
    models: Vec<Pattern>,
    /// Seconds since 1970, the first of them and the first after them.
    dates: (u64, u64),
    price: Price,
}

/// What one model costs, in dollars for a million tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    base: Rates,
    long: Option<(u64, Rates)>,
    thoughts: Option<f64>,
    input_by: [(Modality, f64); 4],
    output_by: [(Modality, f64); 4],
    batch: Option<f64>,
    flex: Option<f64>,
    priority: Option<f64>,
    cached_discount: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    input: f64,
    cached: f64,
    output: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(default)]
    price: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    models: Vec<String>,
    from: Option<String>,
    until: Option<String>,
    input: f64,
    cached: Option<f64>,
    output: f64,
    thoughts: Option<f64>,
    input_audio: Option<f64>,
    input_image: Option<f64>,
    input_video: Option<f64>,
    output_audio: Option<f64>,
    output_image: Option<f64>,
    output_video: Option<f64>,
    long: Option<Long>,
    batch: Option<f64>,
    flex: Option<f64>,
    priority: Option<f64>,
    #[serde(default = "yes")]
    cached_discount: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    above: u64,
    input: f64,
    cached: Option<f64>,
    output: f64,
}

const fn yes() -> bool {
    true
}

impl Prices {
    /// The prices this release knows.
    ///
    /// # Errors
    /// When the built-in file is broken, which a test excludes.
    pub fn builtin() -> Result<Self> {
        Ok(Self { layers: vec![Layer::read(include_str!("../prices.toml"))?] })
    }

    /// These prices under an operator's file of the same form.
    ///
    /// # Errors
    /// `Invalid` with the place, when the file cannot be read as prices.
    pub fn with_override(mut self, text: &str) -> Result<Self> {
        self.layers.insert(0, Layer::read(text)?);
        Ok(self)
    }

    /// The version of the file that is asked first.
    pub fn version(&self) -> &str {
        self.layers.first().map_or("none", |layer| &layer.version)
    }

    /// What `model` costs at a time (seconds since 1970), if that is known.
    pub fn of(&self, model: &str, at: u64) -> Option<&Price> {
        self.layers.iter().find_map(|layer| layer.of(model, at))
    }
}

impl Layer {
    fn read(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let entries = file.price.into_iter().map(Entry::new).collect::<Result<_>>()?;
        Ok(Self { version: file.version, entries, found: Found::default() })
    }

    fn of(&self, model: &str, at: u64) -> Option<&Price> {
        let found = self.found.of(model, || self.search(model));
        let mut fitting = found.iter().filter_map(|place| self.entries.get(*place));
        fitting.find(|entry| (entry.dates.0..entry.dates.1).contains(&at)).map(|entry| &entry.price)
    }

    fn search(&self, model: &str) -> Arc<[usize]> {
        let weighed = self.entries.iter().enumerate().filter_map(|(place, entry)| {
            let fitting = entry.models.iter().filter(|pattern| pattern.matches(model));
            Some((fitting.map(Pattern::weight).max()?, place))
        });
        let mut weighed: Vec<_> = weighed.collect();
        // Of two that fit equally well the later one counts.
        weighed.sort_unstable_by(|a, b| b.cmp(a));
        weighed.into_iter().map(|(_, place)| place).collect()
    }
}

impl Entry {
    fn new(written: Written) -> Result<Self> {
        let rates =
            |input, cached: Option<f64>, output| Rates { input, cached: cached.unwrap_or(input), output };
        let base = rates(written.input, written.cached, written.output);
        let long = written.long.map(|long| (long.above, rates(long.input, long.cached, long.output)));
        let price = Price {
            base,
            long,
            thoughts: written.thoughts,
            input_by: by(written.input, [written.input_audio, written.input_image, written.input_video]),
            output_by: by(written.output, [written.output_audio, written.output_image, written.output_video]),
            batch: written.batch,
            flex: written.flex,
            priority: written.priority,
            cached_discount: written.cached_discount,
        };
        if written.models.is_empty() || !price.numbers().all(|number| number.is_finite() && number >= 0.0) {
            return Err(wrong(format!(
                "the entry for {:?} has no models, or a price below zero",
                written.models
            )));
        }
        Ok(Self {
            models: written.models.into_iter().map(Pattern::new).collect(),
            dates: (day(written.from.as_deref(), 0)?, day(written.until.as_deref(), u64::MAX)?),
            price,
        })
    }
}

/// A modality that is newer than this release costs what the dearest known one does.
fn by(text: f64, [audio, image, video]: [Option<f64>; 3]) -> [(Modality, f64); 4] {
    let known = [audio, image, video].map(|rate| rate.unwrap_or(text));
    let dearest = known.into_iter().fold(text, f64::max);
    let [audio, image, video] = known;
    [(Modality::Audio, audio), (Modality::Image, image), (Modality::Video, video), (Modality::Other, dearest)]
}

/// The beginning of a day, UTC.
fn day(text: Option<&str>, absent: u64) -> Result<u64> {
    let Some(text) = text else { return Ok(absent) };
    let date: jiff::civil::Date = text
        .parse()
        .map_err(|error| wrong(format!("\"{text}\" is not a date such as \"2026-12-01\": {error}")))?;
    let start = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| wrong(error.to_string()))?;
    Ok(u64::try_from(start.timestamp().as_second()).unwrap_or(0))
}

fn wrong(problem: String) -> Error {
    Error::new(Kind::Invalid, Origin::Gateway, problem)
}

impl Price {
    fn numbers(&self) -> impl Iterator<Item = f64> + '_ {
        let rates = |rates: Rates| [rates.input, rates.cached, rates.output];
        let long = self.long.map(|(_, long)| rates(long));
        let by = self.input_by.iter().chain(&self.output_by).map(|(_, rate)| *rate);
        let rest = [self.thoughts, self.batch, self.flex, self.priority];
        rates(self.base)
            .into_iter()
            .chain(long.into_iter().flatten())
            .chain(by)
            .chain(rest.into_iter().flatten())
    }

    /// Dollars for a million tokens of text: in, in from a cache, out. Other modalities, long prompts and tiers differ.
    pub fn plain(&self) -> (f64, f64, f64) {
        (self.base.input, self.base.cached, self.base.output)
    }

    /// What so many tokens cost, in nano-dollars; nothing where the tier's price is not known.
    pub fn nanos(&self, usage: &Usage, tier: Tier) -> Option<u64> {
        let factor = match tier {
            Tier::Standard => 1.0,
            Tier::Batch => self.batch?,
            Tier::Flex => self.flex?,
            Tier::Priority => self.priority?,
        };
        let cached_factor = if factor < 1.0 && !self.cached_discount { 1.0 } else { factor };
        let rates = match &self.long {
            Some((above, long)) if usage.input > *above => long,
            _ => &self.base,
        };
        // What is said of modalities scales with the long-context rates.
        let (stretch_in, stretch_out) =
            (ratio(rates.input, self.base.input), ratio(rates.output, self.base.output));
        let cached = usage.cached.min(usage.input);
        let fresh = split(usage.input, &usage.input_by, &self.input_by, rates.input, stretch_in)
            - split(cached, &usage.cached_by, &self.input_by, rates.input, stretch_in);
        let kept = split(cached, &usage.cached_by, &self.input_by, rates.input, stretch_in)
            * ratio(rates.cached, rates.input);
        let fed = split(usage.tool_use, &usage.tool_use_by, &self.input_by, rates.input, stretch_in);
        let said = split(usage.output, &usage.output_by, &self.output_by, rates.output, stretch_out);
        let thought = count(usage.thoughts) * self.thoughts.map_or(rates.output, |rate| rate * stretch_out);
        let dollars = (fresh.max(0.0) + fed + said + thought) * factor + kept * cached_factor;
        whole(dollars * (NANOS / 1e6))
    }

    /// The most that so many tokens can cost.
    pub fn worst(&self, input: u64, output: u64, tier: Tier) -> Option<u64> {
        let dearest =
            |rate: f64, by: &[(Modality, f64)]| by.iter().fold(rate, |most, (_, rate)| most.max(*rate));
        let rates = match &self.long {
            Some((above, long)) if input > *above => long,
            _ => &self.base,
        };
        let factor = match tier {
            Tier::Standard | Tier::Batch | Tier::Flex => 1.0,
            Tier::Priority => self.priority?,
        };
        let answer = dearest(rates.output, &self.output_by).max(self.thoughts.unwrap_or(0.0));
        let dollars = count(input) * dearest(rates.input, &self.input_by) + count(output) * answer;
        whole(dollars * factor * (NANOS / 1e6))
    }
}

/// The price of `total` tokens, of which some are told apart by modality; the rest is text.
fn split(total: u64, told: &ByModality, rates: &[(Modality, f64)], text: f64, stretch: f64) -> f64 {
    let mut left = total;
    let mut sum = 0.0;
    for (modality, rate) in rates {
        let part = told[*modality].min(left);
        left -= part;
        sum += count(part) * rate * stretch;
    }
    sum + count(left) * text
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 1.0 }
}

#[expect(clippy::cast_precision_loss, reason = "token counts stay far below 2^53")]
fn count(tokens: u64) -> f64 {
    tokens as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be in range just before"
)]
fn whole(nanos: f64) -> Option<u64> {
    (nanos.is_finite() && (0.0..9e18).contains(&nanos)).then(|| nanos.round() as u64)
}

/// Nano-dollars as dollars.
#[expect(clippy::cast_precision_loss, reason = "a float shows fifteen digits of it, which is enough to read")]
pub fn dollars(nanos: u64) -> f64 {
    nanos as f64 / NANOS
}

/// Nano-dollars as dollars in decimal digits, exact: `0.000123`.
pub fn decimal(nanos: u64) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21.
    const NOW: u64 = 1_795_219_200;

    fn nanos(model: &str, usage: &Usage, tier: Tier) -> Option<u64> {
        Prices::builtin().unwrap().of(model, NOW)?.nanos(usage, tier)
    }

    fn tokens(input: u64, cached: u64, output: u64, thoughts: u64) -> Usage {
        Usage { input, cached, output, thoughts, ..Usage::default() }
    }

    #[test]
    fn thoughts_cost_as_output_and_cached_input_costs_less() {
        // 600 × 0.75 + 400 × 0.075 + 150 × 3.75 millionths.
        assert_eq!(nanos("gemini-3.8-flash", &tokens(1000, 400, 100, 50), Tier::Standard), Some(1_042_500));
    }

    #[test]
    fn a_long_prompt_moves_the_whole_request() {
        let short = tokens(200_000, 0, 1000, 0);
        let long = tokens(200_001, 1, 1000, 0);
        assert_eq!(nanos("gemini-2.5-pro", &short, Tier::Standard), Some(250_000_000 + 10_000_000));
        assert_eq!(nanos("gemini-2.5-pro", &long, Tier::Standard), Some(500_000_000 + 250 + 15_000_000));
    }

    #[test]
    fn tiers_have_factors_of_their_own() {
        let usage = tokens(1_000_000, 500_000, 0, 0);
        assert_eq!(nanos("gemini-2.5-flash", &usage, Tier::Batch), Some(75_000_000 + 15_000_000));
        assert_eq!(nanos("gemini-3.5-flash-lite", &usage, Tier::Flex), Some(75_000_000 + 7_500_000));
        assert_eq!(nanos("gemini-3.5-flash-lite", &usage, Tier::Priority), Some(270_000_000 + 27_000_000));
        assert_eq!(nanos("gemini-4-neon", &usage, Tier::Batch), None);
    }

    #[test]
    fn modalities_are_told_apart() {
        let mut usage = tokens(1100, 0, 1290, 0);
        usage.input_by[Modality::Audio] = 100;
        assert_eq!(nanos("gemini-2.5-flash", &usage, Tier::Standard), Some(300_000 + 100_000 + 3_225_000));
        usage.output_by[Modality::Image] = 1290;
        // Image output is ten times dearer than text.
        assert_eq!(nanos("gemini-2.5-flash-image", &usage, Tier::Standard), Some(330_000 + 38_700_000));
    }

    #[test]
    fn promotions_end_on_their_day() {
        let prices = Prices::builtin().unwrap();
        let usage = tokens(1_000_000, 0, 0, 0);
        let at = |at| prices.of("gemini-4-argon", at).and_then(|price| price.nanos(&usage, Tier::Standard));
        assert_eq!(at(1_796_083_199), Some(2_000_000_000));
        assert_eq!(at(1_796_083_200), Some(4_000_000_000));
    }

    #[test]
    fn what_is_unknown_is_not_free() {
        assert_eq!(nanos("gemini-9-unobtainium", &tokens(1, 0, 1, 0), Tier::Standard), None);
    }

    #[test]
    fn an_operator_is_asked_first() {
        let text = "version = \"mine\"\n[[price]]\nmodels = [\"gemini-*\"]\ninput = 1.0\noutput = 2.0\n";
        let prices = Prices::builtin().unwrap().with_override(text).unwrap();
        assert_eq!(prices.version(), "mine");
        let price = prices.of("gemini-3.8-flash", NOW).unwrap();
        assert_eq!(price.nanos(&tokens(1_000_000, 0, 1_000_000, 0), Tier::Standard), Some(3_000_000_000));
        assert!(prices.of("gemma-x", NOW).is_none());
        let bad = "version = \"x\"\n[[price]]\nmodels = [\"a\"]\ninput = -1.0\noutput = 2.0\n";
        assert!(Prices::default().with_override(bad).is_err());
    }

    #[test]
    fn every_worst_case_is_at_least_the_case() {
        let prices = Prices::builtin().unwrap();
        let usage = tokens(300_000, 10, 100, 65_000);
        for model in ["gemini-2.5-pro", "gemini-3-pro-image-preview", "gemini-4-argon"] {
            let price = prices.of(model, NOW).unwrap();
            assert!(
                price.worst(300_000, 65_100, Tier::Standard) >= price.nanos(&usage, Tier::Standard),
                "{model}"
            );
        }
    }

    #[test]
    fn money_reads_exactly() {
        assert_eq!(decimal(1_042_500), "0.0010425");
        assert_eq!(decimal(0), "0.0");
        assert_eq!(decimal(12_000_000_000), "12.0");
    }
}
