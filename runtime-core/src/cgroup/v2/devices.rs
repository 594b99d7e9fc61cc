//! Device rules: there is no file for them on cgroup v2, but a BPF program that the kernel asks (cgroup-v2.rst, "Device
//! controller").

use oci_spec::runtime::LinuxDeviceCgroup;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::program;
use crate::cgroup::Error;
use crate::cgroup::device_rules::Rule;
use crate::cgroup::directory::Directory;
use crate::sys::bpf;

/// Puts the program of `rules` on the cgroup. What an earlier container of the same path left there goes, but not
/// before the new one is in place.
pub(super) fn set(part: &Directory, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
    let rules = Rule::all(rules)?;
    let failed = |operation| {
        move |source: std::io::Error| Error::Devices {
            operation,
            directory: part.full(),
            source: Errno::from_io_error(&source).unwrap_or(Errno::IO),
        }
    };
    let program = bpf::load_device_program(&program::compile(&rules)).map_err(failed("load"))?;
    let directory = part.open("", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let before = bpf::attached(&directory).map_err(failed("look for"))?;
    bpf::attach(&directory, &program).map_err(failed("attach"))?;
    for old in &before {
        bpf::detach(&directory, old).map_err(failed("detach"))?;
    }
    Ok(())
}
