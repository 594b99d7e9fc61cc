//! The controllers with a file or two: pids, hugetlb, rdma, net_cls, net_prio.

use oci_spec::runtime::LinuxResources;
use rustix::io::Errno;

use crate::cgroup::Error;
use crate::cgroup::directory::Directory;

pub(super) fn check(resources: &LinuxResources) -> Result<(), Error> {
    for limit in resources.hugepage_limits().iter().flatten() {
        // It becomes part of a file's name.
        let size = limit.page_size();
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::Value {
                setting: "resources.hugepageLimits.pageSize",
                value: size.clone(),
                fault: "it is a number and KB, MB or GB",
            });
        }
    }
    Ok(())
}

/// A negative limit is none.
pub(super) fn set_pids(part: &Directory, resources: &LinuxResources) -> Result<(), Error> {
    let Some(pids) = resources.pids() else { return Ok(()) };
    let value = if pids.limit() < 0 {
        "max".into()
    } else {
        pids.limit().to_string()
    };
    part.write("pids.max", &value)
}

/// Limits both use and, where the kernel has it (5.7), reservation: a program that cannot be given its huge pages
/// learns it from mmap rather than by SIGBUS.
pub(super) fn set_hugepages(part: &Directory, resources: &LinuxResources) -> Result<(), Error> {
    for limit in resources.hugepage_limits().iter().flatten() {
        let (size, value) = (limit.page_size(), limit.limit().to_string());
        part.write(&format!("hugetlb.{size}.limit_in_bytes"), &value)?;
        let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        match part.try_write(&reserved, &value) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(part.write_error(&reserved, &value, error)),
        }
    }
    Ok(())
}

pub(super) fn set_rdma(part: &Directory, resources: &LinuxResources) -> Result<(), Error> {
    for (device, limit) in resources.rdma().iter().flatten() {
        let mut line = device.clone();
        for (name, value) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
            if let Some(value) = value {
                line += &format!(" {name}={value}");
            }
        }
        part.write("rdma.max", &line)?;
    }
    Ok(())
}

pub(super) fn set_class(part: &Directory, resources: &LinuxResources) -> Result<(), Error> {
    let class = resources.network().as_ref().and_then(|network| network.class_id());
    class.map_or(Ok(()), |class| part.write("net_cls.classid", &class.to_string()))
}

pub(super) fn set_priorities(part: &Directory, resources: &LinuxResources) -> Result<(), Error> {
    let Some(network) = resources.network() else {
        return Ok(());
    };
    for priority in network.priorities().iter().flatten() {
        part.write(
            "net_prio.ifpriomap",
            &format!("{} {}", priority.name(), priority.priority()),
        )?;
    }
    Ok(())
}
