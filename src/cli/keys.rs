//! `gemway keys`: client keys in the store, and digests for the configuration.

#![expect(
    clippy::doc_markdown,
    reason = "doc comments of flags are the help text, where backticks would show"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::UsageFormat;
use crate::clock::Clock;
use crate::config::{Config, Overrides};
use crate::error::Result;
use crate::keys::stored::{self, Fresh, Shelf, Spec, SpecBudget, SpecCredentials, SpecPeriod, StoredKey};
use crate::meter::ledger;
use crate::store::Place;

/// What `keys` is told.
#[derive(Clone, Debug, Args)]
pub struct KeysArgs {
    /// The configuration file, which names the store (GEMWAY_CONFIG).
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// How it is shown.
    #[arg(long, value_name = "FORMAT", default_value = "table", global = true)]
    pub format: UsageFormat,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What can be done with keys.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Make a key and show its secret, this once. Without `[store]` it is only shown, for the configuration.
    Create(Box<CreateArgs>),
    /// List the store's keys.
    List,
    /// Give a key a new secret; the old one is refused within a second, or after a while.
    Rotate {
        /// The key.
        name: String,
        /// How long the old secret is let in beside the new one (24h).
        #[arg(long, value_name = "SPAN")]
        grace: Option<String>,
    },
    /// End a key for good; it is refused within a second.
    Revoke {
        /// The key.
        name: String,
    },
}

/// Flags of `keys create`.
#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// Its name in logs, metrics and the ledger.
    pub name: String,
    /// Patterns of models it may ask for; all unless given.
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub models: Vec<String>,
    /// A label for the ledger; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// A limit.
    #[arg(long, value_name = "NUMBER")]
    pub requests_per_minute: Option<u32>,
    /// A limit.
    #[arg(long, value_name = "NUMBER")]
    pub requests_per_day: Option<u32>,
    /// A limit.
    #[arg(long, value_name = "NUMBER")]
    pub tokens_per_minute: Option<u64>,
    /// A limit.
    #[arg(long, value_name = "NUMBER")]
    pub input_tokens_per_minute: Option<u64>,
    /// A limit.
    #[arg(long, value_name = "NUMBER")]
    pub output_tokens_per_minute: Option<u64>,
    /// A limit.
    #[arg(long, value_name = "NUMBER")]
    pub concurrent_requests: Option<u32>,
    /// A budget in dollars.
    #[arg(long, value_name = "DOLLARS", conflicts_with = "budget_tokens")]
    pub budget_usd: Option<f64>,
    /// A budget in tokens.
    #[arg(long, value_name = "NUMBER")]
    pub budget_tokens: Option<u64>,
    /// The budget's span.
    #[arg(long, value_name = "SPAN", default_value = "day")]
    pub budget_per: Span,
    /// From this day (2027-01-31, UTC) or time (RFC 3339) on, or after this span (90d), it is not let in any more.
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// Whose Google credential goes upstream; unless given, as the configuration says for everybody.
    #[arg(long, value_name = "WHOSE")]
    pub credentials: Option<Whose>,
}

/// Whose Google credential goes upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Whose {
    /// The gateway's own.
    Gateway,
    /// The caller's own.
    Caller,
}

/// The span of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Span {
    /// A calendar day, UTC.
    Day,
    /// A calendar month, UTC.
    Month,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a label is written NAME=VALUE".to_owned()),
    }
}

/// Does what was asked; the answer goes to `out`, complaints to `err`. Returns the exit code.
pub fn run(args: &KeysArgs, flags: &Overrides, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let written = match Config::from_process(flags) {
        Err(error) => writeln!(err, "error: {error}").map(|()| 2),
        Ok(config) => match answer(args, &config) {
            Err(problem) => writeln!(err, "error: {problem}").map(|()| 1),
            Ok(text) => out.write_all(text.as_bytes()).and_then(|()| out.flush()).map(|()| 0),
        },
    };
    written.unwrap_or(1)
}

fn answer(args: &KeysArgs, config: &Config) -> Result<String, String> {
    let said = |error: crate::error::Error| error.message().to_owned();
    let shelf = match &config.store {
        None => None,
        Some(store) => Some(Place::parse(&store.url).map(Shelf::new).map_err(said)?),
    };
    let kept = || shelf.as_ref().ok_or("no [store] is configured, so there are no keys in it");
    match &args.verb {
        Verb::Create(create) => {
            if config.keys.iter().any(|key| key.name == create.name) {
                return Err(format!("the configuration has a key named {} already", create.name));
            }
            let fresh = match &shelf {
                None => Fresh::make().map_err(said)?,
                Some(shelf) => shelf
                    .create(&create.name, &create.spec(), create.expiry().map_err(said)?)
                    .map_err(said)?,
            };
            Ok(show(args.format, &create.name, &fresh, shelf.is_some()))
        }
        Verb::Rotate { name, grace } => {
            let grace = grace.as_deref().map_or(Ok(Duration::ZERO), stored::grace).map_err(said)?;
            let fresh = kept()?.rotate(name, grace).map_err(said)?;
            Ok(show(args.format, name, &fresh, true))
        }
        Verb::Revoke { name } => {
            kept()?.revoke(name).map_err(said)?;
            Ok(format!("{name} is revoked\n"))
        }
        Verb::List => Ok(list(args.format, &kept()?.list().map_err(said)?)),
    }
}

impl CreateArgs {
    fn spec(&self) -> Spec {
        let budgeted = self.budget_usd.is_some() || self.budget_tokens.is_some();
        Spec {
            models: self.models.clone(),
            labels: self.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
            requests_per_minute: self.requests_per_minute,
            requests_per_day: self.requests_per_day,
            tokens_per_minute: self.tokens_per_minute,
            input_tokens_per_minute: self.input_tokens_per_minute,
            output_tokens_per_minute: self.output_tokens_per_minute,
            concurrent_requests: self.concurrent_requests,
            budget: budgeted.then_some(SpecBudget {
                usd: self.budget_usd,
                tokens: self.budget_tokens,
                per: match self.budget_per {
                    Span::Day => SpecPeriod::Day,
                    Span::Month => SpecPeriod::Month,
                },
            }),
            credentials: self.credentials.map(|whose| match whose {
                Whose::Gateway => SpecCredentials::Gateway,
                Whose::Caller => SpecCredentials::Caller,
            }),
        }
    }

    fn expiry(&self) -> Result<Option<u64>> {
        let now = Clock::System.unix_seconds();
        self.expires.as_deref().map(|text| stored::expiry(text, now)).transpose()
    }
}

fn show(format: UsageFormat, name: &str, fresh: &Fresh, kept: bool) -> String {
    let Fresh { secret, hash } = fresh;
    match format {
        UsageFormat::Json => {
            format!(
                "{}\n",
                serde_json::json!({ "name": name, "secret": secret, "hash": hash, "stored": kept })
            )
        }
        UsageFormat::Csv => format!("name,secret,hash\n{},{secret},{hash}\n", ledger::csv(name)),
        UsageFormat::Table => {
            let rest = if kept {
                "It is in force within a second."
            } else {
                "There is no [store], so it is not kept: put the hash into [[keys]] of the configuration."
            };
            format!(
                "{secret}\n\nname = {}\nhash = \"{hash}\"\n\nThe secret is shown this once. {rest}\n",
                serde_json::Value::from(name)
            )
        }
    }
}

fn list(format: UsageFormat, keys: &[StoredKey]) -> String {
    if format == UsageFormat::Json {
        let mut text = serde_json::to_string_pretty(keys).unwrap_or_default();
        text.push('\n');
        return text;
    }
    let now = Clock::System.unix_seconds();
    let time = |at: Option<u64>| {
        let at =
            at.and_then(|at| i64::try_from(at).ok()).and_then(|at| jiff::Timestamp::from_second(at).ok());
        at.map_or_else(|| "-".to_owned(), |at| at.to_string())
    };
    let (comma, named): (_, fn(&str) -> String) =
        if format == UsageFormat::Csv { (",", ledger::csv) } else { ("\t", str::to_owned) };
    let mut text = ["name", "secret", "state", "created", "expires"].join(comma) + "\n";
    for key in keys {
        let state = match (key.revoked, key.expires) {
            (Some(_), _) => "revoked",
            (None, Some(at)) if at <= now => "expired",
            (None, _) => "live",
        };
        let hint = format!("…{}", key.hint);
        let line =
            [&named(&key.name), &hint, state, &time(Some(key.created)), &time(key.expires)].join(comma);
        text.push_str(&line);
        text.push('\n');
    }
    text
}
