//! What the rounds gave, as a table.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::drive::{Run, quantile};
use crate::memory::Memory;
use crate::targets::Name;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    Chat16,
    Chat512,
    Open,
    Burst,
    Paced,
    Prompt,
    Image,
    Vectors,
    VectorsBase64,
    VectorsRescaled,
    NativeChat,
    NativeBurst,
}

impl Scenario {
    pub(crate) const ALL: [Self; 12] = [
        Self::Chat16,
        Self::Chat512,
        Self::Open,
        Self::Burst,
        Self::Paced,
        Self::Prompt,
        Self::Image,
        Self::Vectors,
        Self::VectorsBase64,
        Self::VectorsRescaled,
        Self::NativeChat,
        Self::NativeBurst,
    ];

    /// The word by which `--only` names it.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Chat16 => "chat16",
            Self::Chat512 => "chat512",
            Self::Open => "open",
            Self::Burst => "burst",
            Self::Paced => "paced",
            Self::Prompt => "prompt",
            Self::Image => "image",
            Self::Vectors => "vectors",
            Self::VectorsBase64 => "vectors-base64",
            Self::VectorsRescaled => "vectors-rescaled",
            Self::NativeChat => "native",
            Self::NativeBurst => "native-burst",
        }
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Chat16 => "small chat, 16 connections",
            Self::Chat512 => "small chat, 512 connections",
            Self::Open => "small chat, 1 000 a second",
            Self::Burst => "stream of 50 events, no gaps",
            Self::Paced => "200 streams, 100 events, 20 ms apart",
            Self::Prompt => "1 MiB prompt",
            Self::Image => "10 MiB inline image",
            Self::Vectors => "100 x 768 embeddings",
            Self::VectorsBase64 => "100 x 768 embeddings, as base64",
            Self::VectorsRescaled => "100 x 768 embeddings, brought to length one",
            Self::NativeChat => "native generateContent, 16 connections",
            Self::NativeBurst => "native stream of 50 events",
        }
    }
}

/// One round of one target: microseconds, except for the rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Processor time for each request.
    pub(crate) cpu: f64,
    /// Requests a second.
    pub(crate) rate: f64,
    pub p50: f64,
    pub p99: f64,
    pub lag50: f64,
    pub lag99: f64,
    /// Of the events that opened a stream.
    pub first50: f64,
    pub first99: f64,
    /// Of those that came after.
    pub later50: f64,
    pub later99: f64,
}

/// One figure of a round.
type Of = fn(&Sample) -> f64;

#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<(Scenario, Name), Vec<Sample>>);

pub(crate) fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}

impl Results {
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
    pub(crate) fn add(&mut self, scenario: Scenario, name: Name, run: &Run) {
        let requests = run.requests.max(1) as f64;
        let sample = Sample {
            cpu: micros(run.spent) / requests,
            rate: requests / run.took.as_secs_f64(),
            p50: micros(quantile(&run.latencies, 0.5)),
            p99: micros(quantile(&run.latencies, 0.99)),
            lag50: micros(quantile(&run.lags, 0.5)),
            lag99: micros(quantile(&run.lags, 0.99)),
            first50: micros(quantile(&run.first_lags, 0.5)),
            first99: micros(quantile(&run.first_lags, 0.99)),
            later50: micros(quantile(&run.later_lags, 0.5)),
            later99: micros(quantile(&run.later_lags, 0.99)),
        };
        self.0.entry((scenario, name)).or_default().push(sample);
    }

    /// The median of the rounds.
    pub(crate) fn median(&self, scenario: Scenario, name: Name, of: Of) -> Option<f64> {
        let mut values: Vec<f64> = self.0.get(&(scenario, name))?.iter().map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// What a target adds to the double alone.
    pub(crate) fn added(&self, scenario: Scenario, name: Name, of: Of) -> Option<f64> {
        Some(self.median(scenario, name, of)? - self.median(scenario, Name::Direct, of)?)
    }

    pub(crate) fn print(&self) {
        self.section("CPU, µs a request (in brackets: by the pass-through's)", |scenario, name| {
            let own = self.median(scenario, name, |sample| sample.cpu).filter(|_| name != Name::Direct)?;
            let pass = self.median(scenario, Name::PassThrough, |sample| sample.cpu);
            let ratio = pass.filter(|pass| *pass > 0.0).map(|pass| format!(" ({:.2})", own / pass));
            Some(format!("{own:.0}{}", ratio.unwrap_or_default()))
        });
        self.section("requests a second", |scenario, name| {
            let paced = matches!(scenario, Scenario::Open | Scenario::Paced);
            let rate = self.median(scenario, name, |sample| sample.rate).filter(|_| !paced)?;
            Some(format!("{rate:.0}"))
        });
        self.section("latency p50 / p99, ms", |scenario, name| {
            let latency = |of| self.median(scenario, name, of).filter(|_| scenario != Scenario::Paced);
            let (p50, p99) = (latency(|sample| sample.p50)?, latency(|sample| sample.p99)?);
            Some(format!("{:.2} / {:.2}", p50 / 1e3, p99 / 1e3))
        });
        let ages: [(&str, Of, Of); 3] = [
            ("age of an event p50 / p99, ms", |sample| sample.lag50, |sample| sample.lag99),
            ("of those that open a stream", |sample| sample.first50, |sample| sample.first99),
            ("of those that come after", |sample| sample.later50, |sample| sample.later99),
        ];
        for (title, p50, p99) in ages {
            self.section(title, |scenario, name| {
                let age = |of| self.median(scenario, name, of).filter(|_| scenario == Scenario::Paced);
                Some(format!("{:.2} / {:.2}", age(p50)? / 1e3, age(p99)? / 1e3))
            });
        }
    }

    fn section(&self, title: &str, cell: impl Fn(Scenario, Name) -> Option<String>) {
        let mut names: Vec<Name> = self.0.keys().map(|(_, name)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let mut rows = Vec::new();
        for scenario in Scenario::ALL {
            let cells: Vec<_> = names.iter().map(|name| cell(scenario, *name)).collect();
            if cells.iter().any(Option::is_some) {
                rows.push((scenario, cells));
            }
        }
        let used = |at: usize| rows.iter().any(|(_, cells)| cells.get(at).is_some_and(Option::is_some));
        let columns: Vec<usize> = (0..names.len()).filter(|at| used(*at)).collect();
        if columns.is_empty() {
            return;
        }
        println!("\n| {title} | {} |", join(columns.iter().map(|at| names[*at].text().to_owned())));
        println!("|---|{}", "---|".repeat(columns.len()));
        for (scenario, cells) in &rows {
            let cells = columns.iter().map(|at| cells[*at].clone().unwrap_or_else(|| "–".to_owned()));
            println!("| {} | {} |", scenario.text(), join(cells));
        }
    }
}

fn join(cells: impl Iterator<Item = String>) -> String {
    cells.collect::<Vec<_>>().join(" | ")
}

pub(crate) fn memories(memories: &BTreeMap<Name, Memory>) {
    if memories.is_empty() {
        return;
    }
    println!("\n| memory and start | {} |", join(memories.keys().map(|name| name.text().to_owned())));
    println!("|---|{}", "---|".repeat(memories.len()));
    let row = |title: &str, cell: &dyn Fn(&Memory) -> String| {
        println!("| {title} | {} |", join(memories.values().map(cell)));
    };
    row("idle RSS, MiB", &|memory| format!("{:.1}", memory.idle / 1024.0));
    row("RSS at so many open streams, MiB", &|memory| {
        let held = memory.held.iter().map(|(streams, kib)| format!("{streams}: {:.0}", kib / 1024.0));
        held.collect::<Vec<_>>().join(", ")
    });
    row("KiB an open stream, at 5 000", &|memory| {
        memory.each(5_000).map_or_else(|| "–".to_owned(), |kib| format!("{kib:.1}"))
    });
    row("CPU to open a stream, µs", &|memory| format!("{:.0}", micros(memory.opening)));
    row("peak for a 10 MiB image, by its body", &|memory| format!("{:.2}", memory.image));
    row("start to ready, ms", &|memory| format!("{:.0}", micros(memory.start) / 1e3));
}
