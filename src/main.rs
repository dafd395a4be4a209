//! Arguments in, exit code out; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use weir::{app, cli, config};

/// The request path allocates a few small objects per request; this allocator makes them nearly free.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let hooks = cli::Hooks { run, check: app::check, schema, demo, simulate: app::simulate };
    cli::main_with(cli::Cli::parse(), hooks)
}

fn run(options: cli::RunOptions) -> ExitCode {
    app::run(app::Options {
        config: config::find(options.config.as_deref(), &|name| std::env::var(name).ok()),
        last_good: options.last_good,
        ignore_state: options.ignore_state,
        color: options.color,
        signals: true,
    })
}

fn demo(options: cli::DemoOptions) -> ExitCode {
    app::demo(options.seconds)
}

fn schema() -> String {
    serde_json::to_string_pretty(&config::schema()).unwrap_or_default()
}
