//! The command line: `serve` (the default), `simulate`, `check`, `usage`, `keys`.

#![expect(
    clippy::doc_markdown,
    reason = "doc comments of flags are the help text, where backticks would show"
)]

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::clock::Clock;
use crate::config::{Config, Env, LogFormat, Overrides, ReadFile, duration};
use crate::meter::ledger;
use crate::store::Place;

pub mod keys;

/// The OpenAI-compatible gateway in front of Google Gemini.
///
/// Without a subcommand it serves. With no credential and no configuration it serves over the built-in
/// simulator.
#[derive(Clone, Debug, Parser)]
#[command(name = "gemway", version, about)]
pub struct Cli {
    /// What to do; `serve` unless said.
    #[command(subcommand)]
    pub command: Option<Verb>,
    /// Flags of `serve`, which may also stand before or without it.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Serve clients (the default).
    Serve(ServeArgs),
    /// Serve the simulator alone: something that answers as Gemini does, for load tests of anything.
    Simulate(SimulateArgs),
    /// Validate a configuration and print what is in effect, secrets masked.
    Check(CheckArgs),
    /// Sum up what was used, from the ledger.
    Usage(UsageArgs),
    /// Make, list, rotate and revoke client keys.
    Keys(keys::KeysArgs),
}

/// Flags of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// The configuration file (GEMWAY_CONFIG).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where clients are served, 127.0.0.1:8080 unless said (GEMWAY_LISTEN).
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where probes and metrics are served, 127.0.0.1:9090 unless said (GEMWAY_ADMIN_LISTEN).
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<String>,
    /// Refuse requests of which something would be dropped (GEMWAY_STRICT).
    #[arg(long)]
    pub strict: bool,
    /// Serve other machines although there are no client keys.
    #[arg(long)]
    pub insecure_no_auth: bool,
    /// How log lines look (GEMWAY_LOG_FORMAT).
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// The built-in simulator's time to first token.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub simulator_ttft: Option<Duration>,
    /// The built-in simulator's pace; 0 is at once.
    #[arg(long, value_name = "NUMBER", value_parser = pace)]
    pub simulator_tokens_per_second: Option<f64>,
}

impl ServeArgs {
    /// These flags over those that stood before the subcommand.
    fn over(self, before: Self) -> Overrides {
        Overrides {
            config: self.config.or(before.config),
            listen: self.listen.or(before.listen),
            admin_listen: self.admin_listen.or(before.admin_listen),
            strict: self.strict || before.strict,
            insecure_no_auth: self.insecure_no_auth || before.insecure_no_auth,
            log_format: self.log_format.or(before.log_format),
            simulator_ttft: self.simulator_ttft.or(before.simulator_ttft),
            simulator_tokens_per_second: self
                .simulator_tokens_per_second
                .or(before.simulator_tokens_per_second),
        }
    }
}

/// Flags of `simulate`.
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// Where to serve.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
    pub listen: String,
    /// Time to the first token.
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = duration)]
    pub ttft: Duration,
    /// Pace after it; 0 is at once.
    #[arg(long, value_name = "NUMBER", default_value = "100", value_parser = pace)]
    pub tokens_per_second: f64,
    /// A fault that every answer shows.
    #[arg(long, value_name = "NAME")]
    pub fault: Option<String>,
}

/// Flags of `check`.
#[derive(Clone, Debug, Default, Args)]
pub struct CheckArgs {
    /// The configuration file (GEMWAY_CONFIG).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Flags of `usage`.
#[derive(Clone, Debug, Args)]
pub struct UsageArgs {
    /// The configuration file, which names the ledger (GEMWAY_CONFIG).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Another ledger: sqlite:PATH or postgres://...
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
    /// By what: key, model, site, route, outcome, tier, asked, error, hour, day, month, label.NAME.
    #[arg(long, value_name = "NAMES", default_value = "key,model", value_delimiter = ',')]
    pub by: Vec<String>,
    /// From when on: a time ago (24h, 7d), a day (2026-11-01) or a time (RFC 3339).
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub since: String,
    /// Until when, in the same forms; now unless said.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only this key.
    #[arg(long, value_name = "NAME")]
    pub key: Option<String>,
    /// How it is shown.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: UsageFormat,
}

/// How usage is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum UsageFormat {
    /// For people.
    Table,
    /// Comma-separated values.
    Csv,
    /// An array of objects.
    Json,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Run the gateway with [`Config::load`] under these flags.
    Serve(Overrides),
    /// Run the simulator alone.
    Simulate(SimulateArgs),
    /// Call [`check`].
    Check(Overrides),
    /// Call [`usage`].
    Usage(UsageArgs, Overrides),
    /// Call [`keys::run`].
    Keys(keys::KeysArgs, Overrides),
}

/// Reads the command line, the program's own name first. The error is also how `--help` and `--version`
/// arrive: print it where `use_stderr` says, and leave with its `exit_code`.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let cli = Cli::try_parse_from(args)?;
    Ok(match cli.command {
        None => Command::Serve(cli.serve.over(ServeArgs::default())),
        Some(Verb::Serve(args)) => Command::Serve(args.over(cli.serve)),
        Some(Verb::Simulate(args)) => Command::Simulate(args),
        Some(Verb::Check(args)) => {
            let args = ServeArgs { config: args.config, ..ServeArgs::default() };
            Command::Check(args.over(cli.serve))
        }
        Some(Verb::Keys(args)) => {
            let flags = ServeArgs { config: args.config.clone(), ..ServeArgs::default() };
            Command::Keys(args, flags.over(cli.serve))
        }
        Some(Verb::Usage(args)) => {
            let flags = ServeArgs { config: args.config.clone(), ..ServeArgs::default() };
            Command::Usage(args, flags.over(cli.serve))
        }
    })
}

/// Validates the configuration: prints what is in effect to `out`, complaints to `err`. Returns the exit
/// code: 0 or, when there is an error, 2.
pub fn check(
    flags: &Overrides,
    env: Env<'_>,
    read: ReadFile<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let checked = Config::load(flags, env, read).and_then(|config| {
        config.catalogue(read)?;
        config.priced(read)?;
        Ok(config)
    });
    let written = match checked {
        Err(error) => writeln!(err, "error: {error}").map(|()| 2),
        Ok(config) => report(&config, out, err).map(|()| 0),
    };
    // A closed pipe is not the configuration's fault, and there is nobody left to tell.
    written.unwrap_or(1)
}

fn report(config: &Config, out: &mut dyn Write, err: &mut dyn Write) -> std::io::Result<()> {
    for warning in config.warnings() {
        writeln!(err, "warning: {warning}")?;
    }
    if config.simulated() {
        writeln!(err, "note: no credential is configured, every answer comes from the built-in simulator")?;
    }
    out.write_all(config.to_toml().as_bytes())?;
    out.flush()
}

/// [`check`] on this process's environment and files.
pub fn check_process(flags: &Overrides, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    check(flags, &crate::config::process_env, &|path| std::fs::read_to_string(path), out, err)
}

/// Prints what the ledger says to `out`, complaints to `err`. Returns the exit code: 0, 2 for a wrong question or
/// configuration, 1 when the ledger cannot be read.
pub fn usage(args: &UsageArgs, flags: &Overrides, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let written = match place(args, flags).and_then(|place| Ok((place, question(args)?))) {
        Err(error) => writeln!(err, "error: {error}").map(|()| 2),
        Ok((place, query)) => match ledger::ask(&place, &query) {
            Err(error) => writeln!(err, "error: {}", error.message()).map(|()| 1),
            Ok(groups) => {
                let format = match args.format {
                    UsageFormat::Table => ledger::Format::Table,
                    UsageFormat::Csv => ledger::Format::Csv,
                    UsageFormat::Json => ledger::Format::Json,
                };
                let text = ledger::render(&query.by, &groups, format);
                out.write_all(text.as_bytes()).and_then(|()| out.flush()).map(|()| 0)
            }
        },
    };
    written.unwrap_or(1)
}

fn place(args: &UsageArgs, flags: &Overrides) -> Result<Place, String> {
    if let Some(url) = &args.ledger {
        return Place::parse(&url.clone().into()).map_err(|error| format!("--ledger: {}", error.message()));
    }
    let config = Config::from_process(flags).map_err(|error| error.to_string())?;
    let found = config.ledger.map(|ledger| ledger.place);
    found.ok_or_else(|| "no ledger is configured: add [ledger] with a url, or say --ledger URL".to_owned())
}

fn question(args: &UsageArgs) -> Result<ledger::Query, String> {
    let now = i64::try_from(Clock::System.unix_millis()).unwrap_or(i64::MAX);
    let by = args.by.iter().map(|name| name.trim()).filter(|name| !name.is_empty());
    let query = || -> crate::error::Result<ledger::Query> {
        Ok(ledger::Query {
            by: by.map(ledger::Dimension::parse).collect::<Result<_, _>>()?,
            since: ledger::instant(&args.since, now)?,
            until: args.until.as_deref().map(|until| ledger::instant(until, now)).transpose()?,
            key: args.key.clone(),
        })
    };
    query().map_err(|error| error.message().to_owned())
}

fn pace(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("must be 0 or more".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Command {
        parse(line.split(' ').map(OsString::from)).unwrap()
    }

    #[test]
    fn serve_flags_stand_before_after_and_without_the_subcommand() {
        for line in [
            "gemway --listen 1.2.3.4:5 --strict",
            "gemway serve --listen 1.2.3.4:5 --strict",
            "gemway --listen 1.2.3.4:5 serve --strict",
            "gemway --listen 9.9.9.9:9 --strict serve --listen 1.2.3.4:5",
        ] {
            match parsed(line) {
                Command::Serve(flags) => {
                    assert_eq!((flags.listen.as_deref(), flags.strict), (Some("1.2.3.4:5"), true), "{line}");
                }
                other @ (Command::Simulate(_)
                | Command::Check(_)
                | Command::Usage(..)
                | Command::Keys(..)) => {
                    panic!("{line}: {other:?}")
                }
            }
        }
    }

    #[test]
    fn simulate_has_its_own_flags() {
        match parsed("gemway simulate --ttft 1s --fault stall") {
            Command::Simulate(args) => {
                assert_eq!(args.listen, "127.0.0.1:8090");
                assert_eq!((args.ttft, args.tokens_per_second), (Duration::from_secs(1), 100.0));
                assert_eq!(args.fault.as_deref(), Some("stall"));
            }
            other @ (Command::Serve(_) | Command::Check(_) | Command::Usage(..) | Command::Keys(..)) => {
                panic!("{other:?}")
            }
        }
        assert!(matches!(parsed("gemway check --config x"), Command::Check(flags) if flags.config.is_some()));
        assert!(matches!(parsed("gemway --config x check"), Command::Check(flags) if flags.config.is_some()));
    }

    #[test]
    fn mistakes_are_told_apart_from_help() {
        let code = |line: &str| parse(line.split(' ').map(OsString::from)).unwrap_err().exit_code();
        assert_eq!(code("gemway --listn x"), 2);
        assert_eq!(code("gemway simulate --ttft soon"), 2);
        assert_eq!(code("gemway simulate --tokens-per-second -1"), 2);
        assert_eq!(code("gemway --help"), 0);
    }
}
