//! The binary: commands, configuration, wiring, exit codes.
//!
//! Exit codes: 0 done; 1 it failed here (files, configuration, no peer answered); 2 the command line is wrong, or the peer refused.

mod announce;
mod cli;
mod client;
mod commands;
mod config;
mod descriptors;
mod go_peers;
mod memory;
mod names;
mod output;
mod reach;
mod routing;
mod signing;
mod try_it;
mod units;
mod up;
mod upload;
mod wiring;

use clap::Parser;
use cli::{Cli, Command};
use client::{ApiError, Client};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// A fifth of a peer's time goes into allocating small things on many threads, where the C library's allocator waits for itself and keeps
/// what it once had. Without huge pages (`no_thp`): with them a small peer takes 26 MB instead of 6.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match memory::prepare(&mut tokio::runtime::Builder::new_multi_thread()).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: starting: {error}");
            return ExitCode::FAILURE;
        }
    };
    log(&cli.command);
    let outcome = runtime.block_on(memory::watched(run(cli.command)));
    // What still runs (a reader of standard input) must not hold the exit up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            std::io::stdout().flush().ok();
            eprintln!("error: {error:#}");
            if error.downcast_ref::<ApiError>().is_some() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Peers log what an operator cares about; one-off commands only what went wrong.
fn log(command: &Command) {
    let default = if matches!(command, Command::Up(_) | Command::Join(_)) {
        "info,libp2p=error,libp2p_kad=error,yamux=error,quinn=error,fjall=warn,lsm_tree=warn"
    } else {
        "warn"
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("PINFOLD_LOG").unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).init();
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Try(args) => try_it::run(args).await,
        Command::Up(args) => up::up(args).await,
        Command::Join(args) => up::join(args).await,
        Command::Invite { target, ttl } => commands::state::invite(&target, &ttl).await,
        Command::Add(args) => commands::add::run(args).await,
        Command::Get { target, path, output } => commands::content::get(&Client::new(&target.api)?, &path, output, target.json).await,
        Command::Cat { target, path } => commands::content::cat(&Client::new(&target.api)?, &path).await,
        Command::Ls { target, path } => commands::content::ls(&Client::new(&target.api)?, &path, target.json).await,
        Command::Pin(command) => commands::pins::run(command).await,
        Command::MigrateKubo(args) => Box::pin(commands::migrate_kubo::run(args)).await,
        Command::Migrate(args) => commands::migrate::run(args).await,
        Command::State(command) => commands::pinset::run(command).await,
        Command::Status { target, cid, filter, shards } => commands::state::status(&target, cid, filter, shards).await,
        Command::Why { target, cid } => commands::state::why(&target, &cid).await,
        Command::Peers { target } => commands::state::peers(&target).await,
        Command::Recover { target, cid } => commands::state::recover(&target, cid).await,
        Command::Removals(cli::RemovalsCommand::Approve { target }) => commands::state::approve(&target).await,
        Command::Key(command) => commands::keys::run(command).await,
        Command::Name(command) => commands::names::run(command).await,
        Command::Routing(command) => commands::routing::run(command).await,
        Command::Limits(args) => commands::limits::run(args).await,
        Command::Scrub(args) => commands::scrub::run(args).await,
        Command::Drain(args) => commands::moving::drain(args).await,
        Command::Cordon(args) => commands::moving::duty(args, "cordon").await,
        Command::Uncordon(args) => commands::moving::duty(args, "uncordon").await,
        Command::Rebalance(args) => commands::moving::rebalance(args).await,
        Command::Plan(command) => commands::moving::plan(command).await,
        Command::Leave { target, force, purge } => commands::state::leave(&target, purge, force).await,
    }
}
