//! What kubelet relies on beyond critest: sentences about pods, each tried with both handlers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::context::Runtime;
use crate::harness::Tally;
use crate::prepare::Tools;

use super::daemon::{CriDaemon, Kit};
use super::pods::Cri;
use super::{
    attach, devices, events, hugepages, lifecycle, masking, namespaces, resources, sandboxes, termination, volumes,
};

type Outcome<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One sentence.
pub struct Behaviour {
    pub name: &'static str,
    run: for<'a> fn(&'a Cri<'a>) -> Outcome<'a>,
    /// Why it is not tried on runc, or nothing.
    differs: &'static str,
    /// Why it is not tried on containerd 1.6, or nothing.
    since_containerd_2: &'static str,
    /// Why gVisor is not asked it, or nothing.
    gvisor: &'static str,
    /// The one handler that it is about, where it is about one, and what it is about.
    alone: Option<(Runtime, &'static str)>,
    /// Whether nothing else may run beside it: no container of this machine.
    apart: bool,
}

macro_rules! behaviour {
    (
        $name:literal, $run:path
        $(, differs: $differs:literal)? $(, since_2: $since:literal)? $(, gvisor: $gvisor:literal)?
        $(, alone: $alone:expr)? $(, apart: $apart:literal)?
    ) => {
        Behaviour {
            name: $name,
            run: |cri| Box::pin($run(cri)),
            differs: concat!("" $(, $differs)?),
            since_containerd_2: concat!("" $(, $since)?),
            gvisor: concat!("" $(, $gvisor)?),
            alone: [$(Some($alone),)? None][0],
            apart: [$($apart,)? false][0],
        }
    };
}

const OWN_SANDBOX: &str = "it is about pods without a pause container";

/// All of them; those that disturb others stand last.
pub const BEHAVIOURS: &[Behaviour] = &[
    behaviour!(
        "a native pod and one in a sentry run side by side, each on its own kernel",
        lifecycle::side_by_side, alone: (Runtime::Gvisor, "it is about two kernels")
    ),
    behaviour!(
        "an exec that takes too long leaves no process behind",
        lifecycle::exec_timeout
    ),
    behaviour!(
        "a container that uses too much memory is OOMKilled",
        lifecycle::oom_killed
    ),
    behaviour!(
        "a container that heeds its stop signal ends with its own code",
        lifecycle::graceful_stop
    ),
    behaviour!(
        "a container that does not is killed when its time is over",
        lifecycle::forced_stop
    ),
    behaviour!("containers come and go in a pod that stays", lifecycle::restarts),
    behaviour!(
        "a container's last words are on the host, however it ends",
        termination::messages
    ),
    behaviour!("events tell how a pod and its containers go, in order and with their states", events::in_order,
        since_2: "1.6 has no stream of events"),
    behaviour!(
        "who attaches gives input and gets output and errors, and may leave and come again",
        attach::streams
    ),
    behaviour!(
        "the end of what is typed ends a container's input where it is taken once",
        attach::input_once
    ),
    behaviour!(
        "who attaches to a terminal gives it its size, and may leave and come again",
        attach::terminal
    ),
    behaviour!("limits of a running container can be changed", resources::update,
        gvisor: "the sentry makes cgroup files of its own up; that the limits hold is shown by the suite gvisor"),
    behaviour!("containers and pods have statistics", resources::statistics),
    behaviour!("limits of huge pages hold, and can be changed", hugepages::limits,
        gvisor: "a sentry's programs have no huge pages; a limit of them holds for the gofer", apart: true),
    behaviour!("a CDI device brings its node, variables, mounts, groups and hooks", devices::injected,
        since_2: "1.6 does not know CDI", gvisor: "nothing of the host's can run in a sentry's namespaces: refused by \
            name"),
    behaviour!("what kubelet names is masked or read-only", masking::by_default,
        gvisor: "a sentry's /proc has none of it"),
    behaviour!(
        "procMount: Unmasked leaves /proc as the kernel makes it",
        masking::unmasked
    ),
    behaviour!("procMount: Unmasked lets containers be made in a user namespace, if the policy \
        does", masking::unmasked_in_user_namespace,
        differs: "runc before 1.2 cannot map the ids of a pod's files", since_2: "1.6 does not know user namespaces",
        gvisor: "not claimed: containerd refuses it"),
    behaviour!("a container can share another one's processes", namespaces::target_processes,
        gvisor: "a pod in a sentry is told by CRI's annotations, not by paths of the host"),
    behaviour!("a recursive read-only mount is read-only all the way down", volumes::recursive_read_only,
        since_2: "1.6 does not know recursive read-only mounts", gvisor: "not claimed: containerd refuses it"),
    behaviour!("an image can be a volume", volumes::image_volume, since_2: "1.6 does not know image volumes"),
    behaviour!(
        "links in a volume lead no mount out of the container",
        volumes::hostile_links
    ),
    behaviour!("a pod in a user namespace sees its volumes as root", volumes::user_namespace,
        differs: "runc before 1.2 cannot map the ids of volumes", since_2: "1.6 does not know user namespaces",
        gvisor: "not claimed: containerd refuses it"),
    behaviour!("a pod's containers share its memory and its names", sandboxes::shared,
        gvisor: "a sentry's /proc has no namespaces that could be compared"),
    behaviour!("a pod has its own name servers and hosts", sandboxes::names),
    behaviour!("who is left behind in a pod that shares its processes is reaped", sandboxes::reaped,
        gvisor: "a pod in a sentry is told by CRI's annotations, not by paths of the host"),
    behaviour!("a pod's kernel settings hold in its containers", sandboxes::settings,
        gvisor: "the sentry has no such settings: refused by name"),
    behaviour!("a pod can have the host's namespaces", namespaces::of_host,
        gvisor: "the sentry keeps them inside: refused by name"),
    behaviour!("a pod with the host's namespaces has its processes, memory and interfaces, another has not",
        namespaces::things_of_host, gvisor: "the sentry keeps them inside: refused by name"),
    behaviour!("a container that asks for its pod's processes never gets the host's", namespaces::no_host_processes,
        gvisor: "a pod in a sentry is told by CRI's annotations, not by paths of the host"),
    behaviour!("a sandbox of the shim's is one process that has no right to anything", sandboxes::own_process,
        alone: (Runtime::Sandboxed, OWN_SANDBOX)),
    behaviour!("a sandbox of the shim's and a sentry exclude each other by name", sandboxes::no_sentry,
        alone: (Runtime::Sandboxed, OWN_SANDBOX)),
    behaviour!("the handler tells what it can do", resources::features,
        differs: "what this distribution's runc can do is another thing", since_2: "1.6 does not ask",
        gvisor: "that nothing is claimed is shown by the suite gvisor"),
    behaviour!("a pod whose first process was killed is not ready, and can be removed", sandboxes::first_process_killed,
        gvisor: "its first process is the sentry: the suite gvisor kills such, in churn/"),
    behaviour!(
        "pods live on while containerd starts again",
        lifecycle::containerd_restart
    ),
    behaviour!(
        "a pod whose shim was killed is not ready, and can be removed",
        lifecycle::shim_killed
    ),
];

/// The error of a behaviour that looked and found that this machine lacks what it is about. It is skipped, with that
/// reason.
#[derive(Debug)]
pub struct CannotBeTried(pub String);

impl fmt::Display for CannotBeTried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotBeTried {}

/// How long one may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Whether there are any that match and that nothing may run beside.
pub fn any_apart(filter: &[String]) -> bool {
    BEHAVIOURS.iter().any(|one| one.apart && one.is_wanted(filter))
}

/// Tries those whose names match, one after another: those that nothing may run beside, or all others.
pub async fn run(
    parts: (&Tools, &Kit),
    daemon: &CriDaemon,
    runtime: Runtime,
    filter: &[String],
    apart: bool,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let wanted = |one: &Behaviour| one.apart == apart && one.is_wanted(filter);
    for (number, behaviour) in BEHAVIOURS.iter().enumerate().filter(|(_, one)| wanted(one)) {
        let place = format!("{}, {}", runtime.short_name(), daemon.version.name());
        let cri = Cri::new(parts, daemon, runtime, number)?;
        let reasons = [
            (runtime == Runtime::Runc, behaviour.differs),
            (!cri.is_containerd_2(), behaviour.since_containerd_2),
            (runtime == Runtime::Gvisor, behaviour.gvisor),
            behaviour
                .alone
                .map_or((false, ""), |(alone, about)| (runtime != alone, about)),
        ];
        if let Some((_, reason)) = reasons.into_iter().find(|(there, reason)| *there && !reason.is_empty()) {
            println!("skip  pods/{} ({place}): {reason}", behaviour.name);
            tally.skipped += 1;
            continue;
        }
        let begun = Instant::now();
        let outcome = match tokio::time::timeout(LIMIT, (behaviour.run)(&cri)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow!("not done after {} s", LIMIT.as_secs())),
        };
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                println!("ok    pods/{} ({place}) {seconds:.2} s", behaviour.name);
                tally.passed += 1;
            }
            Err(error) if error.is::<CannotBeTried>() => {
                println!("skip  pods/{} ({place}): {error}", behaviour.name);
                tally.skipped += 1;
            }
            Err(error) => {
                let text = format!("{error:#}").replace('\n', "\n      ");
                println!("FAIL  pods/{} ({place}) {seconds:.2} s\n      {text}", behaviour.name);
                tally.failed += 1;
                // What it left is no other's concern.
                cri.remove_all().await?;
            }
        }
    }
    Ok(tally)
}

impl Behaviour {
    pub fn is_wanted(&self, filter: &[String]) -> bool {
        let title = format!("pods/{}", self.name);
        filter.is_empty() || filter.iter().any(|words| title.contains(words.as_str()))
    }
}
