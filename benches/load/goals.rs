//! The goals, each with what this run gave: pass or miss.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::memory::Memory;
use crate::table::{Results, Sample, Scenario, micros};
use crate::targets::Name;

/// agentgateway is in no package registry: what it took on the machine on which all were measured once, by what the
/// bare pass-through took there.
const AGENTGATEWAY: f64 = 238.0 / 19.0;

struct Goal {
    text: &'static str,
    /// Nothing where it was not measured.
    value: Option<f64>,
    bound: f64,
    /// More is better.
    least: bool,
    unit: &'static str,
}

/// Bytes of the binary without its symbols; nothing where there is no `strip`.
pub(crate) fn size(gateway: &Path) -> Option<f64> {
    let stripped = std::env::temp_dir().join(format!("gemway-stripped-{}", std::process::id()));
    let done = Command::new("strip").arg("-o").arg(&stripped).arg(gateway).status().ok()?;
    let length = std::fs::metadata(&stripped).ok()?.len();
    std::fs::remove_file(&stripped).ok()?;
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    done.success().then_some(length as f64)
}

pub(crate) fn print(results: &Results, memories: &BTreeMap<Name, Memory>, size: Option<f64>) {
    let ours = Name::Gateway;
    let by = |scenario, whom, of: fn(&Sample) -> f64| {
        Some(results.median(scenario, ours, of)? / results.median(scenario, whom, of)?)
    };
    let cpu = |scenario| by(scenario, Name::PassThrough, |sample| sample.cpu);
    let rate = |whom| by(Scenario::Chat16, whom, |sample| sample.rate);
    let added = |scenario, whom, of: fn(&Sample) -> f64| {
        Some(results.added(scenario, ours, of)? / results.added(scenario, whom, of)?)
    };
    let growth = || {
        let cpu = |scenario| results.median(scenario, ours, |sample| sample.cpu);
        Some(cpu(Scenario::Chat512)? / cpu(Scenario::Chat16)?)
    };
    let memory = memories.get(&ours);
    let held = memory.and_then(|memory| memory.held.last().map(|(held, _)| *held));
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let held = held.map(|held| held as f64);
    let goal = |text, value, bound, unit| Goal { text, value, bound, least: false, unit };
    let least = |text, value, bound, unit| Goal { text, value, bound, least: true, unit };
    let goals = [
        goal("1 small chat: CPU, by pass-through", cpu(Scenario::Chat16), 2.0, "x"),
        least(
            "1 small chat: throughput, by agentgateway (recorded)",
            cpu(Scenario::Chat16).map(|cpu| AGENTGATEWAY / cpu),
            6.0,
            "x",
        ),
        least("1 small chat: throughput, by LiteLLM", rate(Name::Litellm), 200.0, "x"),
        goal(
            "1 added p50 at 1 000 a second, by nginx's",
            added(Scenario::Open, Name::Nginx, |sample| sample.p50),
            1.5,
            "x",
        ),
        goal("2 paced streams: CPU, by pass-through", cpu(Scenario::Paced), 1.25, "x"),
        goal(
            "2 paced streams: added lag p50, by nginx's",
            added(Scenario::Paced, Name::Nginx, |sample| sample.lag50),
            1.25,
            "x",
        ),
        goal(
            "2 paced streams: added lag p99, by nginx's",
            added(Scenario::Paced, Name::Nginx, |sample| sample.lag99),
            2.0,
            "x",
        ),
        goal("3 unpaced streams: CPU, by pass-through", cpu(Scenario::Burst), 0.7, "x"),
        goal("4 1 MiB prompt: CPU, by pass-through", cpu(Scenario::Prompt), 1.6, "x"),
        goal("4 10 MiB image: CPU, by pass-through", cpu(Scenario::Image), 1.6, "x"),
        goal("4 10 MiB image: peak memory, by the body", memory.map(|memory| memory.image), 2.2, "x"),
        goal("5 embeddings: CPU, by pass-through", cpu(Scenario::Vectors), 2.5, "x"),
        goal("embeddings as base64: CPU, by pass-through", cpu(Scenario::VectorsBase64), 2.5, "x"),
        goal(
            "embeddings brought to length one: CPU, by pass-through",
            cpu(Scenario::VectorsRescaled),
            2.5,
            "x",
        ),
        goal("6 RSS of an open stream, at 5 000", memory.and_then(|memory| memory.each(5_000)), 24.0, " KiB"),
        goal("6 idle RSS", memory.map(|memory| memory.idle / 1024.0), 12.0, " MiB"),
        least("6 streams held (as files allow)", held, 9_500.0, ""),
        goal("7 CPU at 512 connections, by that at 16", growth(), 1.3, "x"),
        goal(
            "7 p99 at 512 connections, by nginx's",
            by(Scenario::Chat512, Name::Nginx, |sample| sample.p99),
            1.3,
            "x",
        ),
        goal("8 start to ready", memory.map(|memory| micros(memory.start) / 1e3), 100.0, " ms"),
        goal("8 binary, stripped", size.map(|size| size / 1e6), 20.0, " MB"),
        goal("native generateContent: CPU, by pass-through", cpu(Scenario::NativeChat), 1.3, "x"),
        goal("native stream: CPU, by pass-through", cpu(Scenario::NativeBurst), 1.3, "x"),
    ];
    println!("\n| goal | bound | here | |\n|---|---|---|---|");
    for Goal { text, value, bound, least, unit } in goals {
        let sign = if least { "≥" } else { "≤" };
        let (value, verdict) = match value {
            None => ("not measured".to_owned(), ""),
            Some(value) => {
                let kept = if least { value >= bound } else { value <= bound };
                (format!("{value:.2}{unit}"), if kept { "pass" } else { "MISS" })
            }
        };
        println!("| {text} | {sign} {bound}{unit} | {value} | {verdict} |");
    }
}
