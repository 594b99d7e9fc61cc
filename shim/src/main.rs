//! `containerd-shim-nucleus-v2`: containerd's shim v2 protocol over runtime-core.
//!
//! One binary, several actions. containerd runs `start`, `delete` and `-info`; `start` runs `serve`, which is the shim;
//! and `serve` runs `init` for each container, or `runsc` for each call of gVisor's, and `pause` for a pod whose
//! sandbox is its own. `start` and `delete` stand on every container's critical path: nothing is set up here before it
//! is known to be needed.

mod args;
mod container;
mod delete;
mod events;
mod info;
mod input;
mod io;
mod listener;
mod logger;
mod metrics;
mod reaper;
mod rest;
mod sandbox;
mod serve;
mod service;
mod shim;
mod signals;
mod start;
mod timestamp;

use std::process::ExitCode;

use args::Args;

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("command line")]
    Args(#[from] args::Error),
    #[error("unknown action {0:?}: start, delete and -info are for containerd to call")]
    Action(String),
    #[error("start")]
    Start(#[from] start::Error),
    #[error("delete")]
    Delete(#[from] delete::Error),
    #[error("info")]
    Info(#[from] info::Error),
    #[error("serve")]
    Serve(#[from] serve::Error),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|action| action == "init") {
        runtime_core::native::holder_main();
    }
    if arguments
        .peek()
        .is_some_and(|action| action == runtime_core::native::MEMBER_ACTION)
    {
        runtime_core::native::member_main();
    }
    if arguments
        .peek()
        .is_some_and(|action| action == runtime_core::native::PAUSE_ACTION)
    {
        runtime_core::native::pause_main();
    }
    if arguments.peek().is_some_and(|action| action == "runsc") {
        runtime_core::gvisor::launcher_main();
    }
    match Args::parse(arguments).map_err(Error::Args).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Of the server nobody sees stderr; of the other actions containerd shows it to the user.
            log::error!("{}", service::errors::chain(&error));
            eprintln!("containerd-shim-nucleus-v2: {}", service::errors::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Error> {
    // Whatever the parent's is: nothing that a shim makes is for others to write to (containerd's CVE-2024-25621 was
    // that).
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if args.version {
        return Ok(info::print_version()?);
    }
    if args.info {
        return Ok(info::run()?);
    }
    match args.action.as_str() {
        "start" => Ok(start::run(&args)?),
        "delete" => Ok(delete::run(&args)?),
        "serve" => Ok(serve::run(args)?),
        action => Err(Error::Action(action.into())),
    }
}
