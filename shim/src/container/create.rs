//! Creating a container: afterwards its init exists and waits.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use runtime_core::backend::{self, Choice, Launched, Stdio};
use runtime_core::bundle::Bundle;
use runtime_core::cgroup::{self, OomWatch};
use runtime_core::egress;
use runtime_core::host;
use runtime_core::plan::{self, Plan, RootfsMount};
use runtime_core::policy::{self, Audit, Layer, Policy};
use runtime_core::security::seccomp::named;
use tokio::sync::watch;

use super::audit::Subject;
use super::lifecycle::State;
use super::process::{Process, Streams, reap};
use super::{Container, Error, Inner, exit, oom};
use crate::io::{self, Io};
use crate::reaper::Child;
use crate::service::errors::chain;
use crate::service::options::Options;
use crate::shim::Shim;

/// What a Create request asks for.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Request {
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: Vec<RootfsMount>,
    pub streams: Streams,
    pub options: Options,
}

struct Created {
    runtime: Arc<dyn backend::Container>,
    launched: Launched,
    plan: Arc<Plan>,
    oom: Option<OomWatch>,
}

impl Container {
    /// Creates the container; on error nothing of it is left. `announce` is called before anybody can hear of its end.
    pub async fn create(shim: Arc<Shim>, request: Request, announce: impl FnOnce(&Self)) -> Result<Arc<Self>, Error> {
        let Request {
            id,
            bundle,
            rootfs,
            streams,
            options,
        } = request;
        let io_owner = (options.io_uid, options.io_gid);
        let spec = spec(&shim, &id, &streams, io_owner);
        let (mut io, stdio) = Io::open(spec)
            .await
            .map_err(|source| Error::Streams { id: id.clone(), source })?;
        let created = {
            let (shim_, id, bundle) = (Arc::clone(&shim), id.clone(), bundle.clone());
            shim.blocking(move || build(&shim_, &id, &bundle, rootfs, &options, stdio))
                .await??
        };
        let Created {
            runtime,
            launched,
            plan,
            oom,
        } = *created;
        let helper = runtime.helper().map(Child::register);
        let init = launched.process;
        let child = Child::register(init.pid());
        if let Some(master) = launched.console
            && let Err(source) = io.attach_console(master)
        {
            // Nobody was told of it: it has to go again.
            let (killed, of) = (Arc::clone(&init), Arc::clone(&runtime));
            if let Err(error) = shim.blocking(move || of.signal(&*killed, libc::SIGKILL)).await? {
                log::error!("kill container {id}: {}", chain(&error));
            }
            reap(init, child).await;
            let deleted = shim.blocking(move || runtime.delete()).await?;
            if let Err(error) = deleted {
                log::error!("delete container {id}: {}", chain(&error));
            }
            return Err(Error::Streams { id, source });
        }
        let container = Arc::new(Self {
            init: Process::new(streams),
            inner: Mutex::new(Inner {
                state: State::Created,
                init_reaped: false,
                deleted: false,
                execs: Default::default(),
            }),
            running_execs: watch::Sender::new(0),
            oom: Mutex::new(None),
            exclusive: Default::default(),
            killing: Default::default(),
            plan,
            id,
            bundle,
            shim,
            runtime,
            io_owner,
            helper: Mutex::new(helper),
        });
        container.init.launched(Arc::clone(&init), io);
        announce(&container);
        oom::watch(&container, oom);
        tokio::spawn(exit::follow_init(Arc::clone(&container), init, child));
        Ok(container)
    }
}

/// How streams are to be opened.
pub(super) fn spec<'a>(shim: &'a Shim, id: &'a str, streams: &'a Streams, owner: (u32, u32)) -> io::Spec<'a> {
    io::Spec {
        stdin: &streams.stdin,
        stdout: &streams.stdout,
        stderr: &streams.stderr,
        terminal: streams.terminal,
        id,
        namespace: &shim.namespace,
        io_uid: owner.0,
        io_gid: owner.1,
    }
}

/// All that blocks, on one thread; and what the audit trail is told of it.
fn build(
    shim: &Shim,
    id: &str,
    bundle: &Path,
    rootfs: Vec<RootfsMount>,
    options: &Options,
    stdio: Stdio,
) -> Result<Box<Created>, Error> {
    let mut sink = Audit::None;
    let subject = Subject { shim, id, exec: None };
    let created = decide_and_create(subject, bundle, rootfs, options, stdio, &mut sink);
    match &created {
        Ok(created) => subject.differs(&sink, &created.launched.differences),
        Err(error) => subject.fail(&sink, error),
    }
    created
}

/// `sink` is where the trail goes, as soon as that is known.
fn decide_and_create(
    subject: Subject<'_>,
    bundle: &Path,
    rootfs: Vec<RootfsMount>,
    options: &Options,
    stdio: Stdio,
    sink: &mut Audit,
) -> Result<Box<Created>, Error> {
    let Subject { shim, id, .. } = subject;
    let pod = match shim.sandbox() {
        None => None,
        Some(sandbox) => Some(sandbox.pod().ok_or_else(|| Error::NoPod { id: id.to_owned() })?),
    };
    let node = policy::node::read().map_err(|source| Error::Node {
        id: id.to_owned(),
        source,
    })?;
    // Not the pod's to choose: it is known before the pod is listened to.
    sink.clone_from(&options.policy.audit(&node));
    if !rootfs.is_empty() {
        make_mount_point(&bundle.join("rootfs"))?;
    }
    let bundle = Bundle::open(bundle).map_err(|source| Error::Bundle {
        id: id.to_owned(),
        source,
    })?;
    let mut policy = resolve(id, &bundle, &node, options)?;
    policy::profiles::tighten(&mut policy).map_err(|source| Error::PolicyFile {
        id: id.to_owned(),
        source,
    })?;
    let choice = Choice::of(&policy);
    if pod.is_some() && choice != Choice::Native {
        return Err(Error::GvisorInPod { id: id.to_owned() });
    }
    let seccomp_profiles = named::read(&policy).map_err(|source| Error::Profile {
        id: id.to_owned(),
        source,
    })?;
    let request = plan::Request {
        id: id.to_owned(),
        rootfs,
        no_new_keyring: options.no_new_keyring,
        systemd_cgroup: options.systemd_cgroup,
        systemd: host::systemd_runs(),
        host_capabilities: choice.capabilities(),
        lsms: host::lsms(),
        // A host without any is told by what makes the cgroups.
        cgroup_v2: cgroup::mode().is_ok_and(|mode| mode == cgroup::Mode::V2),
        landlock_abi: host::landlock_abi(),
        kernel: host::Kernel::read(&policy),
        seccomp_profiles,
        pod,
        name_servers: egress::name_servers(&bundle.spec, &policy),
        pod_volumes: plan::pod_volumes(&bundle.spec, &policy),
        policy,
    };
    let plan = plan::translate_owned(bundle, &request).map_err(|source| Error::Plan {
        id: id.to_owned(),
        source,
    })?;
    subject.allow(&plan.policy, &plan.process)?;
    let created = shim.backends.create(&choice, &plan, &shim.owner, stdio);
    let (runtime, launched) = created.map_err(Error::runtime("create", id))?;
    // Armed before anything of the workload runs. Without a watch its OOM kills are not told, but it runs.
    let oom = runtime
        .watch_oom()
        .inspect_err(|error| log::warn!("watch container {id} for OOM: {}", chain(error)));
    Ok(Box::new(Created {
        runtime,
        launched,
        plan: Arc::new(for_execs(plan)),
        oom: oom.ok(),
    }))
}

/// What the node demands of this container.
fn resolve(id: &str, bundle: &Bundle, node: &Layer, options: &Options) -> Result<Policy, Error> {
    let annotations = bundle.spec.annotations().iter().flatten();
    let annotations = annotations.map(|(key, value)| (key.as_str(), value.as_str()));
    policy::resolve(node, &options.policy, annotations).map_err(|source| Error::Policy {
        id: id.to_owned(),
        source,
    })
}

/// What [`plan::translate_exec`] looks at; the rest, a seccomp profile for one, is not kept for the container's life.
fn for_execs(mut plan: Plan) -> Plan {
    plan.spec
        .set_linux(None)
        .set_mounts(None)
        .set_hooks(None)
        .set_annotations(None);
    plan.container = plan::Container {
        namespaces: plan.container.namespaces,
        ..plan::Container::default()
    };
    plan
}

/// containerd makes it, but its clients need not: nothing else says where a snapshot goes.
fn make_mount_point(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::DirBuilder::new().mode(0o711).create(path) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::Directory {
            path: path.display().to_string(),
            source,
        }),
        _ => Ok(()),
    }
}
