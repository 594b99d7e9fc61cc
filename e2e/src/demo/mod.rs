//! `cargo e2e demo`: what nucleus does, on real containerd, for somebody who sees it for the first time.

mod compare;
mod enforced;
mod gvisor;
mod pod;

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::bench::idle;
use crate::containerd::{Daemon, Version};
use crate::context::{Ctx, Runtime, Worker};
use crate::gvisor::Installed;
use crate::prepare::Profile;
use crate::{harness, image, leaks, prepare, processes};

use pod::Pod;

/// A pod of two containers on nucleus, what holds them, and how long it took.
#[derive(Args)]
#[command(after_help = "\
Examples:
  sudo -E cargo e2e demo           shows it and cleans up
  sudo -E cargo e2e demo --runtime gvisor
                                   the same in gVisor's sentry
  sudo -E cargo e2e demo --keep    leaves containerd and the pod running, with commands to try")]
pub struct DemoArgs {
    /// Leave containerd and the pod running, and say how to end them
    #[arg(long)]
    pub keep: bool,
    /// What runs the containers
    #[arg(long, value_enum, default_value_t = DemoRuntime::Native)]
    runtime: DemoRuntime,
    #[command(flatten)]
    prepare: prepare::PrepareArgs,
}

/// What the demo's containers are run by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DemoRuntime {
    /// The kernel's own means
    Native,
    /// gVisor's sentry
    Gvisor,
}

/// `cargo e2e demo`.
pub async fn demo(args: DemoArgs) -> Result<ExitCode> {
    let in_sentry = args.runtime == DemoRuntime::Gvisor;
    if in_sentry && args.keep {
        bail!("--keep leaves a pod of the native runtime: the runsc of a demo goes with it");
    }
    let what = if in_sentry {
        "three containers in gVisor"
    } else {
        "two containers"
    };
    println!("nucleus: a pod of {what}, on a containerd of its own\n");
    let begun = Instant::now();
    let mut tools = prepare::prepare(&args.prepare).await?;
    let installed = if in_sentry {
        let installed = Installed::new(&prepare::gvisor().await?.join("runsc"))?;
        tools.node = Some(installed.configuration("")?);
        Some(installed)
    } else {
        None
    };
    let tools = Rc::new(tools);
    step("prepared", begun);
    line("containerd", &format!("2.4.2, {}", tools.containerd_2.display()));
    line("shim", &shim(&args));
    if let Some(installed) = &installed {
        line("runsc", &installed.runsc().display().to_string());
    }

    let begun = Instant::now();
    let daemon = Rc::new(Daemon::start(&tools, Version::V2).await?);
    step("started containerd", begun);
    line("its files", &daemon.directory().display().to_string());

    let begun = Instant::now();
    let image = Rc::new(image::build(&tools, &harness::image_file()?)?);
    let namespace = format!("e2e{}-demo", std::process::id());
    let worker = Worker::new(daemon.clone(), tools, image, namespace.clone()).await?;
    step("imported an image made of busybox", begun);
    line("image", image::NAME);

    let before = leaks::snapshot(&daemon, &namespace, &[]).await?;
    let runtime = if in_sentry { Runtime::Gvisor } else { Runtime::Nucleus };
    let ctx = Ctx::new(runtime, &worker, 0)?;
    let outcome = if in_sentry {
        gvisor::show(&ctx, &worker).await
    } else {
        show(&ctx, &worker, args.keep).await
    };
    if args.keep && outcome.is_ok() {
        daemon.keep.set(true);
        print!("{}", how_to_go_on(&daemon, &namespace));
        return Ok(ExitCode::SUCCESS);
    }
    let cleaned = ctx.clean_up().await.context("clean up");
    let left = leaks::nothing_more_than(&before, &daemon, &namespace, &ctx.socket_names()).await;
    harness::remove_namespace_cgroups(&namespace);
    outcome?;
    cleaned?;
    left?;
    println!("\ncleaned up: no process, mount, cgroup, socket or file of the containers is left");
    Ok(ExitCode::SUCCESS)
}

/// The pod's life, told as it goes.
async fn show(ctx: &Ctx, worker: &Worker, keep: bool) -> Result<()> {
    let begun = Instant::now();
    let pod = Pod::start(ctx, "").await?;
    let pids = [pod.web.pid.get(), pod.sidecar.pid.get()];
    step("started a pod: two containers behind one shim", begun);
    line(
        "web",
        &format!("process {}, created and started in {:.1} ms", pids[0], pod.web_ms),
    );
    line(
        "sidecar",
        &format!("process {}, created and started in {:.1} ms", pids[1], pod.sidecar_ms),
    );
    let shims = pids.map(processes::shim_of);
    let [Some(shim), Some(other)] = shims else {
        bail!("a container of the pod has ended too early");
    };
    if shim != other {
        bail!("the pod's containers have two shims: {shim} and {other}");
    }
    let helpers = idle::helpers_of(&pids)?;
    let memory = idle::memory(&helpers, "Pss:")?;
    line(
        "their shim",
        &format!(
            "process {shim}; with its {} helpers {memory:.0} KiB (PSS)",
            helpers.len() - 1
        ),
    );
    line("web wrote", pod.web.stdout.wait_for("up").await?.trim_end());

    let begun = Instant::now();
    let output = pod
        .web
        .sh("echo \"hello from $(hostname), user $(id -u)\"; ps -o pid,args")
        .await?;
    step("ran a command in web", begun);
    for text in output.ok()?.lines() {
        line("", text);
    }

    println!("\nwhat is enforced, read from the running processes");
    for (what, found) in enforced::of_the_process(ctx, &pod)? {
        line(&what, &found);
    }
    println!("\nwhat a root process in the container gets when it tries");
    for (what, found) in enforced::by_trying(&pod).await? {
        line(what, &found);
    }

    println!(
        "\nhow long it takes beside containerd's runc shim (medians of {} pods each)",
        compare::PODS
    );
    for text in compare::compare(worker).await? {
        println!("    {text}");
    }
    if keep {
        return Ok(());
    }

    let begun = Instant::now();
    let (web, sidecar) = pod.end().await?;
    step("ended the pod", begun);
    line("web", &format!("got SIGTERM and exited with {web}, as its script says"));
    line("sidecar", &format!("got SIGKILL: status {sidecar}"));
    // Of web itself; what was run in it had events of its own.
    let mut kinds = ctx.events().kinds(pod::WEB);
    kinds.retain(|kind| !kind.starts_with("exec"));
    kinds.dedup();
    line("containerd saw", &kinds.join(", "));
    Ok(())
}

fn shim(args: &DemoArgs) -> String {
    match (&args.prepare.shim, args.prepare.profile) {
        (Some(path), _) => path.display().to_string(),
        (None, Profile::Release) => "containerd-shim-nucleus-v2, as it is shipped".to_owned(),
        (None, Profile::Quick) => "containerd-shim-nucleus-v2, of the quick profile".to_owned(),
    }
}

/// For `--keep`.
fn how_to_go_on(daemon: &Daemon, namespace: &str) -> String {
    let ctr = daemon.ctr(namespace);
    let ctr = ctr.as_std();
    let words: Vec<_> = std::iter::once(ctr.get_program()).chain(ctr.get_args()).collect();
    let ctr = words
        .iter()
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    let (web, sidecar, directory) = (pod::WEB, pod::SIDECAR, daemon.directory().display());
    let pid = daemon.pid().unwrap_or_default();
    format!(
        "
the pod and containerd are left running; try
    {ctr} tasks list
    {ctr} tasks exec -t --exec-id shell {web} sh
    {ctr} tasks metrics {web}
    {ctr} run --rm -t --runtime {} {} mine sh
and to end it
    {ctr} tasks delete --force {web} {sidecar}
    kill {pid} && rm -rf {directory}; rmdir /sys/fs/cgroup/*/{namespace}
",
        Runtime::Nucleus.name(),
        image::NAME,
    )
}

fn step(what: &str, begun: Instant) {
    println!("\n{what} in {:.2} s", begun.elapsed().as_secs_f64());
}

fn line(what: &str, text: &str) {
    println!("    {what:<18} {text}");
}
