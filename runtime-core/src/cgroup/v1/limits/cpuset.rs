//! cpuset: which processors and memory nodes.

use oci_spec::runtime::{LinuxCpu, LinuxResources};
use rustix::io::Errno;

use crate::cgroup::Error;
use crate::cgroup::directory::Directory;

const CPUS: &str = "cpuset.cpus";
const MEMS: &str = "cpuset.mems";

/// Gives a new cgroup its processors and nodes: what the spec says, else what the parent has. Both files are empty
/// after mkdir, and nothing can be placed in the cgroup before they are filled (ENOSPC, cgroup-v1/cpusets.rst).
pub(in crate::cgroup::v1) fn fill(part: &Directory, cpu: Option<&LinuxCpu>) -> Result<(), Error> {
    fill_file(part, CPUS, cpu.and_then(|cpu| given(cpu.cpus())))?;
    fill_file(part, MEMS, cpu.and_then(|cpu| given(cpu.mems())))
}

/// An empty list is as good as none.
fn given(list: &Option<String>) -> Option<&str> {
    list.as_deref().filter(|list| !list.is_empty())
}

fn fill_file(part: &Directory, file: &'static str, asked: Option<&str>) -> Result<(), Error> {
    let Some(asked) = asked else { return inherit(part, file) };
    match part.try_write(file, asked) {
        Ok(()) => Ok(()),
        // A parent that was made a moment ago has none to give.
        Err(Errno::ACCESS | Errno::INVAL) => {
            if let Some(parent) = part.parent() {
                ensure(&parent, file)?;
            }
            part.write(file, asked)
        }
        Err(error) => Err(part.write_error(file, asked, error)),
    }
}

/// Copies the parent's list down; the parent gets one first if it has none.
fn inherit(part: &Directory, file: &'static str) -> Result<(), Error> {
    let list = match part.parent() {
        Some(parent) => ensure(&parent, file)?,
        None => part.read_of_root(file)?.trim_end().to_owned(),
    };
    part.write(file, &list)
}

/// The cgroup's list, copied down from the nearest ancestor that has one where it is empty.
fn ensure(part: &Directory, file: &'static str) -> Result<String, Error> {
    let list = part.read(file)?;
    if !list.trim_end().is_empty() {
        return Ok(list.trim_end().to_owned());
    }
    inherit(part, file)?;
    Ok(part.read(file)?.trim_end().to_owned())
}

/// The same for a cgroup that was there before the container.
pub(in crate::cgroup::v1) fn fill_existing(part: &Directory) -> Result<(), Error> {
    ensure(part, CPUS)?;
    ensure(part, MEMS).map(drop)
}

pub(super) fn is_set(cpu: &LinuxCpu) -> bool {
    given(cpu.cpus()).is_some() || given(cpu.mems()).is_some()
}

/// Sets what the spec says, and nothing else.
pub(super) fn set(part: &Directory, resources: &LinuxResources) -> Result<(), Error> {
    let Some(cpu) = resources.cpu() else { return Ok(()) };
    for (file, list) in [(CPUS, cpu.cpus()), (MEMS, cpu.mems())] {
        if let Some(list) = given(list) {
            part.write(file, list)?;
        }
    }
    Ok(())
}
