//! `cargo e2e`: the demo, the test suites and the benchmarks, against real containerd.

mod aarch64;
mod api;
mod bench;
mod chart_suite;
mod churn;
mod client_suite;
mod container;
mod containerd;
mod context;
mod cri;
mod demo;
mod events;
mod exec;
mod expect;
mod gvisor;
mod hardening;
mod harness;
mod image;
mod io;
mod kind_suite;
mod leaks;
mod node;
mod node_suite;
mod prepare;
mod processes;
mod pty;
mod second_try;
mod shim_process;
mod software;
mod spec;
mod suites;
mod supervisor;
mod task;
mod unit;
mod words;
mod yardstick;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// nucleus, end to end: against a containerd of its own, with nothing installed by hand.
///
/// Needs Linux, root, Rust and Go. Whatever else is missing is fetched or built into target/, once.
#[derive(Parser)]
#[command(name = "cargo e2e", bin_name = "cargo e2e")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a pod on nucleus: how it runs, what holds it, how long it takes
    Demo(demo::DemoArgs),
    /// Run test suites (all of them by default) and end with `N passed, N failed, N skipped`
    Test(suites::TestArgs),
    /// Measure nucleus and the runc shim side by side: a table, JSON, charts
    Bench(bench::BenchArgs),
    /// Run behaviours on the node that this is, with its own containerd 1.6: what the suite `node` does in its machine
    #[command(hide = true)]
    Guest(node_suite::GuestArgs),
    /// Run the clusters of the suite `kind` in the namespaces that this is in
    #[command(hide = true)]
    Inside(kind_suite::InsideArgs),
    /// Run a container with the capabilities that this machine has
    #[command(hide = true)]
    LesserRuntime(kind_suite::LesserRuntimeArgs),
    /// Fetch and build what the suites need, and say where it is
    Prepare(prepare::PrepareArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Test(args) = &cli.command
        && args.list
    {
        return suites::list(args).unwrap_or_else(fail);
    }
    if let Command::LesserRuntime(args) = &cli.command {
        return kind_suite::lesser_runtime(args).unwrap_or_else(fail);
    }
    // What is kept is nobody's to clean up.
    let keep = matches!(&cli.command, Command::Demo(args) if args.keep);
    if !keep && !supervisor::is_supervised() {
        return supervisor::supervise().unwrap_or_else(fail);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error.into()),
    };
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            outcome = run(cli.command) => outcome,
            signal = supervisor::interrupted() => Err(anyhow::anyhow!("{}", signal)),
        }
    });
    // Blocking reads that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    outcome.unwrap_or_else(fail)
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::demo(args).await,
        Command::Test(args) => suites::test(args).await,
        Command::Guest(args) => node_suite::guest(args).await,
        Command::Inside(args) => kind_suite::inside(&args).await,
        Command::LesserRuntime(args) => kind_suite::lesser_runtime(&args),
        Command::Bench(args) => bench::bench(args).await,
        Command::Prepare(args) => prepare::report(args).await,
    }
}

fn fail(error: anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
