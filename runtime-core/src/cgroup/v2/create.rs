//! Making a container's cgroup, with every controller that can be had.

use oci_spec::runtime::LinuxResources;

use super::settings::{NO_QUOTA, Setting, settings};
use super::{V2, devices, write};
use crate::cgroup::Error;
use crate::cgroup::device_rules::Rule;
use crate::cgroup::directory::{Directory, Made};
use crate::cgroup::processes::processes;
use crate::cgroup::stats::Keyed;

const CONTROLLERS: &str = "cgroup.controllers";
const SUBTREE: &str = "cgroup.subtree_control";

impl V2 {
    pub fn check_free(&self) -> Result<(), Error> {
        if self.part.has("") { unused(&self.part) } else { Ok(()) }
    }

    /// Refuses what cannot be meant or done here, before anything is touched.
    pub fn check_limits(&self, resources: &LinuxResources) -> Result<Vec<Setting>, Error> {
        Rule::all(resources.devices().as_deref().unwrap_or_default())?;
        settings(resources, NO_QUOTA)
    }

    /// `inhabited`: systemd made the cgroup a moment ago, with a process in it.
    pub fn create(&self, resources: Option<&LinuxResources>, inhabited: bool) -> Result<(), Error> {
        let settings = resources.map_or(Ok(Vec::new()), |resources| self.check_limits(resources))?;
        let made = self.part.make()?;
        let result = self.set_up(&made, resources, &settings, inhabited);
        if let (Err(_), Made::New(new)) = (&result, &made) {
            self.part.unmake(new);
        }
        result
    }

    fn set_up(
        &self,
        made: &Made,
        resources: Option<&LinuxResources>,
        settings: &[Setting],
        inhabited: bool,
    ) -> Result<(), Error> {
        refuse_threaded(&self.part)?;
        if matches!(made, Made::Existed) && !inhabited {
            unused(&self.part)?;
        }
        refuse_frozen(&self.part)?;
        enable_controllers(&self.part)?;
        let rules = resources.and_then(|resources| resources.devices().as_deref());
        devices::set(&self.part, rules.unwrap_or_default())?;
        write::all(&self.part, settings)
    }

    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        let settings = self.settings_now(resources)?;
        self.check_usage(resources)?;
        write::all(&self.part, &settings)
    }

    /// What an update writes: a quota without a period keeps the period, and the other way round.
    pub fn settings_now(&self, resources: &LinuxResources) -> Result<Vec<Setting>, Error> {
        let quota = self.part.read_if_there("cpu.max")?.unwrap_or_default();
        settings(resources, &quota)
    }

    /// checkBeforeUpdate: no limit below what is in use. The kernel would reclaim, and then kill.
    pub fn check_usage(&self, resources: &LinuxResources) -> Result<(), Error> {
        let Some(memory) = resources.memory() else {
            return Ok(());
        };
        let (Some(true), Some(limit @ 1..)) = (memory.check_before_update(), memory.limit()) else {
            return Ok(());
        };
        let usage = self.part.read("memory.current")?.trim_end().parse().unwrap_or_default();
        if usage > limit.unsigned_abs() {
            return Err(Error::MemoryInUse {
                file: self.part.file("memory.max"),
                value: limit,
                usage,
            });
        }
        Ok(())
    }

    /// Gives the cgroup to the root of the container's user namespace, so that it can make cgroups below (runtime-spec,
    /// "Cgroup ownership"): the directory and the files that the kernel says may be given away. The limits stay ours.
    pub fn delegate(&self, uid: u32, gid: u32) -> Result<(), Error> {
        const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
        // Kernels before 4.15 have no such list.
        let list = std::fs::read_to_string(DELEGATE)
            .unwrap_or_else(|_| "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n".into());
        for name in std::iter::once("").chain(list.lines()) {
            self.part.give(name, uid, gid)?;
        }
        Ok(())
    }
}

/// A threaded cgroup shares its parent's domain: it has neither memory limits nor a list of processes of its own.
fn refuse_threaded(part: &Directory) -> Result<(), Error> {
    const TYPE: &str = "cgroup.type";
    let text = part.read(TYPE)?;
    match text.trim_end() {
        "domain" | "domain threaded" => Ok(()),
        kind => Err(Error::Threaded {
            file: part.file(TYPE),
            kind: kind.into(),
        }),
    }
}

/// A cgroup that was there may be used, unless processes are in it.
fn unused(part: &Directory) -> Result<(), Error> {
    match processes(part)?.len() {
        0 => Ok(()),
        count => Err(Error::Busy {
            file: part.file("cgroup.procs"),
            count,
        }),
    }
}

/// In a frozen cgroup, or below one, no process would ever get as far as its program.
fn refuse_frozen(part: &Directory) -> Result<(), Error> {
    const EVENTS: &str = "cgroup.events";
    match Keyed::parse(&part.read(EVENTS)?).get("frozen") {
        0 => Ok(()),
        _ => Err(Error::AlreadyFrozen {
            file: part.file(EVENTS),
            state: "frozen 1".into(),
        }),
    }
}

/// Enables what the host has for the cgroup, in each one above it. One that cannot be had is no error here: a cgroup
/// with processes of its own hands none on, and not every container has a limit. Whoever needs the controller says so.
fn enable_controllers(part: &Directory) -> Result<(), Error> {
    let all = part.read_of_root(CONTROLLERS)?;
    let has = |text: &str, name: &str| text.split_whitespace().any(|own| own == name);
    let enabled = part.read(CONTROLLERS)?;
    if all.split_whitespace().all(|name| has(&enabled, name)) {
        return Ok(());
    }
    let mut above = vec![Directory {
        hierarchy: part.hierarchy.clone(),
        path: ".".into(),
    }];
    let slashes = part.path.match_indices('/').map(|(at, _)| at);
    above.extend(slashes.map(|at| Directory {
        hierarchy: part.hierarchy.clone(),
        path: part.path[..at].to_owned(),
    }));
    for directory in above {
        let enabled = directory.read(SUBTREE)?;
        let missing: Vec<String> = all
            .split_whitespace()
            .filter(|name| !has(&enabled, name))
            .map(|name| format!("+{name}"))
            .collect();
        // All in one write or, where one of them is refused, each by itself.
        if !missing.is_empty() && directory.try_write(SUBTREE, &missing.join(" ")).is_err() {
            for one in &missing {
                directory.try_write(SUBTREE, one).ok();
            }
        }
    }
    Ok(())
}
