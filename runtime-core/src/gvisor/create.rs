//! Create: a sentry of a container's own, or its place in one that runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use oci_spec::runtime::LinuxResources;
use rustix::process::{Pid, PidfdFlags};
use serde::de::IgnoredAny;

use super::config::{FileAccess, Overlay};
use super::container::{CGROUP_DELETE_LIMIT, Container, DESTROY, Inner, Launched, hook_error};
use super::empty_dirs::{EmptyDirs, Kept};
use super::launch::Call;
use super::limits::Limits;
use super::process::Process;
use super::sandbox::{Sandbox, Sandboxes};
use super::spec::{self, Role};
use super::state::{self, Directory};
use super::terminal::{accept, give, listen, resize};
use super::{Config, Error, command, failing, file, flags, refusals};
use crate::cgroup::{self, Cgroup};
use crate::native::lifecycle_hooks::{poststop, run_hooks, state_of};
use crate::native::{self, Executable, Member, Owner, Stdio};
use crate::plan::Plan;
use crate::record::{ProcessId, Record};

impl Container {
    /// Creates the container: its sentry, or its place in one that runs. On error nothing is left.
    ///
    /// # Errors
    /// What gVisor cannot have, what is wrong with runsc, what runsc says.
    pub fn create(
        sandboxes: &Sandboxes,
        executable: &Arc<Executable>,
        config: &Config,
        plan: &Plan,
        owner: &Owner,
        mut stdio: Stdio,
    ) -> Result<(Self, Launched), Error> {
        let role = spec::role(plan);
        refusals::check(plan, &role, config.network)?;
        flags::check(&config.flags)?;
        if config.file_access == FileAccess::Shared && config.overlay != Overlay::None {
            return Err(Error::SharedOverlay);
        }
        let sandbox = match &role {
            Role::Root => Arc::new(Sandbox::new(
                plan.id.clone(),
                config.clone(),
                sandboxes.runsc(config)?,
                Arc::clone(executable),
                Directory::of(&owner.namespace, &plan.id)?,
                spec::network(plan, config.network),
                EmptyDirs::find(plan, config)?,
            )),
            Role::Member(sandbox) => sandboxes.get(sandbox).ok_or_else(|| Error::NoSandbox {
                id: plan.id.clone(),
                sandbox: sandbox.clone(),
            })?,
        };
        let kept = sandbox.empty_dirs.of_container(&plan.container.mounts)?;
        let cgroup = Cgroup::open(&plan.cgroup)?;
        cgroup.check_free()?;
        let mut record = record(plan, owner, &sandbox)?;
        record.write(&plan.bundle)?;
        let mut attempt = Attempt {
            plan,
            role: &role,
            sandbox: &sandbox,
            kept: &kept,
            cgroup: None,
            place: None,
        };
        match attempt.run(&mut record, &mut stdio) {
            Ok((process, console, cgroup)) => {
                let place = attempt.place.take();
                if role == Role::Root {
                    sandboxes.add(&sandbox);
                }
                let process = Arc::new(process);
                let container = Self {
                    id: plan.id.clone(),
                    was_announced: announces(plan, &role),
                    role,
                    container: plan.container.clone(),
                    kept,
                    cgroup,
                    init: Arc::clone(&process),
                    sandbox,
                    inner: Mutex::new(Inner {
                        stdio: Some(stdio),
                        started: false,
                        deleted: false,
                        execs: 0,
                        place,
                    }),
                };
                Ok((container, Launched { process, console }))
            }
            Err(error) => {
                attempt.undo();
                // The error to be told is the first one.
                let hooks = &plan.container.hooks.poststop;
                let _ = poststop(hooks, &plan.bundle, || state_of(&plan.container, "stopped", 0));
                let _ = Record::remove(&plan.bundle);
                Err(error)
            }
        }
    }
}

fn record(plan: &Plan, owner: &Owner, sandbox: &Sandbox) -> Result<Record, Error> {
    Ok(Record {
        sandbox: (sandbox.id == plan.id).then(|| sandbox.directory.path().to_owned()),
        ..owner.record_of(plan).map_err(failing("reading our own start time"))?
    })
}

/// A create under way: what there is to undo.
struct Attempt<'a> {
    plan: &'a Plan,
    role: &'a Role,
    sandbox: &'a Arc<Sandbox>,
    kept: &'a BTreeMap<usize, Kept>,
    cgroup: Option<Cgroup>,
    /// What holds a scope's place, until there is something of the container's in it.
    place: Option<Member>,
}

impl Attempt<'_> {
    fn run(&mut self, record: &mut Record, stdio: &mut Stdio) -> Result<(Process, Option<OwnedFd>, Cgroup), Error> {
        let (plan, sandbox) = (self.plan, self.sandbox);
        let directory = &sandbox.directory;
        if *self.role == Role::Root {
            directory.make()?;
            directory.keep(&sandbox.empty_dirs.filestores(&plan.id))?;
            if let Some(above) = &sandbox.config.debug_log {
                directory.make_logs(above)?;
            }
        }
        let bundle = directory.bundle(&plan.id);
        state::make(&bundle)?;
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host = spec::Host {
            mounts: &directory.mounts(),
            empty_dirs: &sandbox.empty_dirs,
            kept: self.kept,
            hostname: &hostname,
        };
        let document = spec::document(plan, self.role, &host);
        let document = document.map_err(|error| failing("writing runsc's config.json")(error.into()))?;
        write_private(&bundle.join("config.json"), &document)?;
        let resources = plan.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let description = format!("nucleus container {}", plan.id);
        if Cgroup::open(&plan.cgroup)?.needs_member() {
            self.place = Some(Member::spawn(&sandbox.executable, &plan.id).map_err(place_error)?);
        }
        let request = cgroup::Request {
            resources,
            member: self.place.as_ref().map(Member::pid),
            description: &description,
            ..cgroup::Request::default()
        };
        let cgroup = Cgroup::create(&plan.cgroup, request)?;
        self.cgroup = Some(cgroup.clone());
        match self.role {
            Role::Root => sandbox.set_limits(Limits::new(cgroup.clone(), resources)),
            // Without limits of its own it lifts the pod's: it may use whatever there is.
            Role::Member(_) => sandbox.limit(&plan.id, resources.unwrap_or(&LinuxResources::default()))?,
        }

        let terminal = plan.process.terminal;
        let listener = terminal.then(|| listen(&bundle)).transpose()?;
        for stream in [&stdio.stdin, &stdio.stdout, &stdio.stderr].into_iter().flatten() {
            give(stream, plan.process.uid);
        }
        let pid_file = bundle.join("pid");
        let root = *self.role == Role::Root;
        let overlay = spec::overlay(&plan.container, sandbox.config.overlay);
        let verb = command::create(&plan.id, &bundle, root.then_some(pid_file.as_path()), terminal);
        if announces(plan, self.role) {
            let call = Call {
                command: "create",
                arguments: sandbox.arguments(verb, overlay),
                executable: &sandbox.executable,
                runsc: &sandbox.runsc,
                files: root.then(|| sandbox.files(&plan.container, self.kept, overlay)),
                cgroup: &cgroup,
                console: terminal.then_some(bundle.as_path()),
                terminal: false,
            };
            call.run(if root { std::mem::take(stdio) } else { Stdio::default() })?;
        }
        let console = match listener {
            Some((listener, path)) => {
                let master = accept(&listener)?;
                // The whole directory goes with the container.
                let _ = std::fs::remove_file(path);
                if let Some((rows, columns)) = plan.process.console_size {
                    resize(&master, rows, columns)?;
                }
                Some(master)
            }
            None => None,
        };
        if root && let Some(place) = self.place.take() {
            // The sentry and its gofer are in it now.
            place.end().map_err(place_error)?;
        }
        let process = if root {
            let (id, pidfd) = sentry(&pid_file)?;
            record.init = Some(id);
            record.write(&plan.bundle)?;
            let own = pidfd.try_clone().map_err(failing("duplicating the sentry's pidfd"))?;
            sandbox.set_process(id, own);
            if let Some(score) = plan.process.oom_score_adj {
                let path = PathBuf::from(format!("/proc/{}/oom_score_adj", id.pid));
                std::fs::write(&path, score.to_string()).map_err(failing("setting process.oomScoreAdj"))?;
            }
            Process::root(
                Arc::clone(sandbox),
                plan.id.clone(),
                native::Process::new(id.pid, pidfd),
            )
        } else {
            Process::inside(Arc::clone(sandbox), plan.id.clone(), 0)?
        };
        let hooks = &plan.container.hooks;
        run_hooks(
            hooks.prestart.iter().chain(&hooks.create_runtime),
            &plan.container,
            "creating",
            process.pid(),
            &plan.bundle,
        )
        .map_err(hook_error)?;
        Ok((process, console, cgroup))
    }

    /// Best effort by nature: the caller's error is the one to be told.
    fn undo(&mut self) {
        match self.role {
            Role::Root => {
                let _ = self.sandbox.kill();
            }
            Role::Member(_) => {
                self.sandbox.unlimit(&self.plan.id);
                let _ = self.sandbox.call::<IgnoredAny>(DESTROY, &self.plan.id);
            }
        }
        if let Some(place) = self.place.take() {
            let _ = place.end();
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.delete(CGROUP_DELETE_LIMIT);
        }
        match self.role {
            Role::Root => {
                let _ = self.sandbox.directory.remove();
            }
            Role::Member(sandbox) => {
                let _ = self.sandbox.directory.remove_container(sandbox, &self.plan.id);
            }
        }
    }
}

pub(super) fn place_error(error: native::Error) -> Error {
    Error::Place(Box::new(error))
}

/// Whether a runsc is run for Create.
fn announces(plan: &Plan, role: &Role) -> bool {
    *role == Role::Root || plan.process.terminal
}

/// The sentry that runsc has left to us: we are its parent's subreaper.
fn sentry(pid_file: &Path) -> Result<(ProcessId, OwnedFd), Error> {
    let text = std::fs::read_to_string(pid_file).map_err(file("reading", pid_file))?;
    let gone = || std::io::Error::from_raw_os_error(libc::ESRCH);
    let pid: i32 = text.trim().parse().map_err(|_| file("reading", pid_file)(gone()))?;
    let name = Pid::from_raw(pid).ok_or_else(|| file("reading", pid_file)(gone()))?;
    // Nobody reaps meanwhile: the pid is still its own, even if it has ended.
    let pidfd = rustix::process::pidfd_open(name, PidfdFlags::empty())
        .map_err(|errno| failing("opening the sentry's pidfd")(errno.into()))?;
    let id = ProcessId::of(pid).ok_or_else(|| failing("looking at the sentry")(gone()))?;
    Ok((id, pidfd))
}

pub(super) fn write_private(path: &Path, document: &serde_json::Value) -> Result<(), Error> {
    let text = serde_json::to_vec(document).map_err(|error| file("writing", path)(error.into()))?;
    write_file(path, &text).map_err(file("writing", path))
}

/// For root alone.
pub(super) fn write_file(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text)
}
