//! blkio: Documentation/admin-guide/cgroup-v1/blkio-controller.rst.

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice};
use rustix::io::Errno;

use crate::cgroup::Error;
use crate::cgroup::directory::Directory;

pub(super) fn is_set(blkio: &LinuxBlockIo) -> bool {
    let weights = [blkio.weight(), blkio.leaf_weight()];
    weights.into_iter().flatten().any(|weight| weight != 0)
        || blkio.weight_device().as_ref().is_some_and(|list| !list.is_empty())
        || throttles(blkio)
            .into_iter()
            .any(|(_, list)| list.as_ref().is_some_and(|list| !list.is_empty()))
}

fn throttles(blkio: &LinuxBlockIo) -> [(&'static str, &Option<Vec<LinuxThrottleDevice>>); 4] {
    [
        ("blkio.throttle.read_bps_device", blkio.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", blkio.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", blkio.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", blkio.throttle_write_iops_device()),
    ]
}

pub(super) fn set(part: &Directory, resources: &LinuxResources) -> Result<(), Error> {
    let Some(blkio) = resources.block_io() else {
        return Ok(());
    };
    let given = |weight: Option<u16>| weight.filter(|weight| *weight != 0);
    if let Some(weight) = given(blkio.weight()) {
        write_weight(part, ["blkio.weight", "blkio.bfq.weight"], &weight.to_string())?;
    }
    if let Some(weight) = given(blkio.leaf_weight()) {
        part.write("blkio.leaf_weight", &weight.to_string())?;
    }
    for device in blkio.weight_device().iter().flatten() {
        let line = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = given(device.weight()) {
            write_weight(part, ["blkio.weight_device", "blkio.bfq.weight_device"], &line(weight))?;
        }
        if let Some(weight) = given(device.leaf_weight()) {
            part.write("blkio.leaf_weight_device", &line(weight))?;
        }
    }
    for (file, list) in throttles(blkio) {
        for device in list.iter().flatten() {
            part.write(
                file,
                &format!("{}:{} {}", device.major(), device.minor(), device.rate()),
            )?;
        }
    }
    Ok(())
}

/// Weights were CFQ's, and are BFQ's since Linux 5.0.
fn write_weight(part: &Directory, [old, new]: [&str; 2], value: &str) -> Result<(), Error> {
    match part.try_write(old, value) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => part.write(new, value),
        Err(error) => Err(part.write_error(old, value, error)),
    }
}
