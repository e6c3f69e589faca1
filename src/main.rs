//! The binary: reads the command line, builds the runtime, turns an error into an exit code.

use std::io::Write;
use std::process::ExitCode;

use gemway::app;
use gemway::cli::{self, Command};
use gemway::config::Config;
use gemway::cork;
use gemway::error::Result;

/// A request makes some hundred small allocations, many of which another thread frees; the C library's allocator is
/// slow at both, and musl's, which the static binary would have, much slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a wrong configuration or command line ends with.
const MISUSE: u8 = 2;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => {
            // Help and version arrive this way too; a closed terminal leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(MISUSE));
        }
    };
    match command {
        Command::Check(flags) => {
            ExitCode::from(cli::check_process(&flags, &mut std::io::stdout(), &mut std::io::stderr()))
        }
        Command::Keys(args, flags) => {
            ExitCode::from(cli::keys::run(&args, &flags, &mut std::io::stdout(), &mut std::io::stderr()))
        }
        Command::Usage(args, flags) => {
            ExitCode::from(cli::usage(&args, &flags, &mut std::io::stdout(), &mut std::io::stderr()))
        }
        Command::Serve(flags) => match Config::from_process_seen(&flags) {
            (Err(error), _) => complain(&error.to_string(), MISUSE),
            (Ok(config), seen) => {
                app::log(&config);
                run(app::serve(config, flags, seen))
            }
        },
        Command::Simulate(args) => {
            gemway::telemetry::log::init(gemway::telemetry::log::Format::Auto, "info");
            run(app::simulate::run(args))
        }
    }
}

/// How often a worker looks into the queue that all workers share: every so many tasks. A worker's own queue holds 256
/// tasks; what hundreds of connections wake beyond that goes to the shared queue, where tokio's own rhythm (some
/// dozens of tasks) would let those that came first wait for those that came last. By turns, both are served alike.
const SHARED_QUEUE_EVERY: u32 = 2;

fn run(work: impl Future<Output = Result<()>>) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .enable_all()
        .global_queue_interval(SHARED_QUEUE_EVERY)
        .on_thread_park(cork::rest)
        .on_thread_stop(cork::rest);
    let runtime = match builder.build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.to_string(), 1),
    };
    let ended = runtime.block_on(work);
    // Whatever still blocks (a name being resolved, say) does not hold the process.
    runtime.shutdown_background();
    gemway::telemetry::log::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error.message(), 1),
    }
}

fn complain(message: &str, code: u8) -> ExitCode {
    // Standard error may be closed; the exit code still tells.
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::from(code)
}
