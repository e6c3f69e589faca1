//! The gateway under load, beside proxies that translate nothing and gateways that do.
//!
//! `cargo bench --bench load`; `benches/README.md` says what it does and what it takes.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its table, and how far it is")]
#![expect(clippy::indexing_slicing, reason = "a bench may end with a panic")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

mod double;
mod drive;
mod goals;
mod memory;
mod passthrough;
mod process;
mod table;
mod targets;
mod wire;
mod work;

use drive::{Run, closed, open_loop, paced};
use table::{Results, Scenario};
use targets::{Name, Place, Target};
use work::Work;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Clone, Debug)]
struct Options {
    /// For one target in one round of one scenario.
    time: Duration,
    rounds: usize,
    full: bool,
    pin: bool,
    gateway: PathBuf,
    only: Option<Vec<String>>,
    targets: Option<Vec<String>>,
}

impl Options {
    fn read(arguments: &[String]) -> Fallible<Self> {
        let mut options = Self {
            time: Duration::from_millis(800),
            rounds: 3,
            full: false,
            pin: true,
            gateway: env!("CARGO_BIN_EXE_gemway").into(),
            only: None,
            targets: None,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().cloned().ok_or(format!("{name} wants a value"));
            let list = |text: String| Some(text.split(',').map(str::to_owned).collect());
            match name.as_str() {
                "--seconds" => options.time = Duration::from_secs_f64(value()?.parse()?),
                "--rounds" => options.rounds = value()?.parse::<usize>()?.max(1),
                "--gateway" => options.gateway = value()?.into(),
                "--only" => options.only = list(value()?),
                "--targets" => options.targets = list(value()?),
                "--no-pin" => options.pin = false,
                "--full" => {
                    (options.full, options.rounds, options.time) = (true, 5, Duration::from_secs(3));
                }
                // Cargo's own.
                "--bench" => {}
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, scenario: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|one| one == scenario))
    }

    fn measures(&self, name: Name) -> bool {
        self.targets.as_ref().is_none_or(|targets| targets.iter().any(|one| one == name.text()))
    }
}

/// Starts this program again as the one that measures: with as many files as it may have, and on a core that the
/// target does not use.
fn again(arguments: &[String], pin: bool) -> Fallible<()> {
    let run = if pin { "exec taskset -c 1 \"$0\" \"$@\"" } else { "exec \"$0\" \"$@\"" };
    let script = format!("ulimit -n \"$(ulimit -Hn)\"; {run}");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(std::env::current_exe()?).args(["--role", "measure"]);
    let status = command.args(arguments).status()?;
    if status.success() { Ok(()) } else { Err("it failed".into()) }
}

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--role", "double", at] => runtime()?.block_on(double::run(at.parse()?)),
        ["--role", "pass", at, to] => runtime()?.block_on(passthrough::run(at.parse()?, to.parse()?)),
        ["--role", "measure", ..] => {
            let options = Options::read(&arguments[2..])?;
            let folder = std::env::temp_dir().join(format!("gemway-load-{}", std::process::id()));
            std::fs::create_dir_all(&folder)?;
            let measured = runtime()?.block_on(measure(&options, &folder));
            if measured.is_ok() {
                std::fs::remove_dir_all(&folder)?;
            } else {
                println!("what the targets said is in {}", folder.display());
            }
            measured
        }
        _ => {
            let options = Options::read(&arguments)?;
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            again(&arguments, options.pin && cores > 1 && process::installed("taskset"))
        }
    }
}

/// Where the setup script puts what is not Debian's: beside the build's profiles.
fn tools() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().nth(3).unwrap_or(Path::new("target")).join("load")
}

async fn measure(options: &Options, folder: &Path) -> Fallible<()> {
    let began = Instant::now();
    let pinned = options.pin && process::installed("taskset") && process::cores() > 1;
    let place = Place {
        folder: folder.to_owned(),
        tools: tools(),
        gateway: options.gateway.clone(),
        core: pinned.then_some(0),
        double_core: pinned.then_some(1),
    };
    let double = targets::double(&place).await?;
    let mut all = Vec::new();
    for name in Name::ALL.into_iter().filter(|name| options.measures(*name)) {
        match targets::start(name, &place, double.side.address).await {
            Ok(Some(target)) => all.push(target),
            Ok(None) => println!("{} is not installed (benches/load/setup)", name.text()),
            Err(error) => println!("{} is left out: {error}", name.text()),
        }
    }
    println!(
        "{} rounds of {:.1} s; the target {}, clients and double on the rest; load average {}",
        options.rounds,
        options.time.as_secs_f64(),
        if pinned { "alone on core 0" } else { "on any core" },
        std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()
    );
    let mut results = Results::default();
    for scenario in Scenario::ALL.into_iter().filter(|scenario| options.wants(scenario.key())) {
        eprintln!("{} …", scenario.text());
        for round in 0..options.rounds {
            for target in std::iter::once(&double).chain(&all) {
                let slow = target.name.is_slow();
                if slow && !options.full && (round > 0 || scenario != Scenario::Chat16) {
                    continue;
                }
                match one(scenario, target, options.time).await {
                    Ok(Some(run)) => results.add(scenario, target.name, &run),
                    Ok(None) => {}
                    Err(error) if slow => {
                        let text: String = error.to_string().chars().take(300).collect();
                        println!("{} cannot do {}: {text}", target.name.text(), scenario.key());
                    }
                    Err(error) => {
                        return Err(format!("{} at {}: {error}", target.name.text(), scenario.key()).into());
                    }
                }
            }
        }
    }
    let mut memories = BTreeMap::new();
    if options.wants("memory") {
        eprintln!("memory …");
        let names: Vec<Name> = all.iter().map(|target| target.name).filter(|name| !name.is_slow()).collect();
        drop(all);
        for name in names {
            let proxy = matches!(name, Name::Nginx | Name::Haproxy);
            let most = if proxy { 5_000 } else { 10_000 };
            memories.insert(name, memory::measure(name, &place, &double, most).await?);
        }
    }
    results.print();
    table::memories(&memories);
    goals::print(&results, &memories, goals::size(&options.gateway));
    println!("\ntook {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// One target in one round of one scenario; nothing where the two do not fit.
async fn one(scenario: Scenario, target: &Target, time: Duration) -> Fallible<Option<Run>> {
    let process = target.process.as_ref();
    let native = target.native();
    let gateway = target.name == Name::Gateway;
    let in_gemini = matches!(scenario, Scenario::NativeChat | Scenario::NativeBurst);
    if in_gemini && !gateway && target.name != Name::PassThrough {
        return Ok(None);
    }
    let side = if in_gemini && gateway { &native } else { &target.side };
    // The double alone is the floor of latencies; it takes no part in the rest.
    let floor = matches!(scenario, Scenario::Open | Scenario::Paced);
    if target.name == Name::Direct && !floor {
        return Ok(None);
    }
    let (work, connections) = match scenario {
        Scenario::Open if target.name.is_slow() => return Ok(None),
        Scenario::Open => return open_loop((side, process), Work::Chat, 1_000, time * 2).await.map(Some),
        Scenario::Paced => return paced((side, process), 200).await.map(Some),
        Scenario::Chat16 | Scenario::NativeChat => (Work::Chat, 16),
        Scenario::Chat512 => (Work::Chat, 512),
        Scenario::Burst | Scenario::NativeBurst => (Work::Burst, 16),
        Scenario::Prompt => (Work::Prompt, 4),
        Scenario::Image => (Work::Image, 2),
        Scenario::Vectors => (Work::Vectors, 4),
        Scenario::VectorsBase64 => (Work::VectorsBase64, 4),
        Scenario::VectorsRescaled => (Work::VectorsRescaled, 4),
    };
    closed((side, process), work, connections, time).await.map(Some)
}
