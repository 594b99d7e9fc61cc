//! Device nodes in /dev.

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxResources};

use super::error::Entry;
use super::{Device, Error, path};

/// What every container gets, by the OCI spec ("Default Devices"): readable and writable by all.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];
const DEFAULT_MODE: u32 = 0o666;
/// The kernel's dev_t has 12 bits for the major number and 20 for the minor one.
const MAJOR_MAX: i64 = (1 << 12) - 1;
const MINOR_MAX: i64 = (1 << 20) - 1;

/// The default devices that the spec does not redefine, then the spec's.
pub(super) fn devices(linux: &Linux) -> Result<Vec<Device>, Error> {
    let given = linux.devices().as_deref().unwrap_or_default();
    let mut own = Vec::with_capacity(given.len());
    for (index, device) in given.iter().enumerate() {
        let device = translate(
            Entry {
                list: "linux.devices",
                index,
            },
            device,
        )?;
        match own.iter().find(|earlier: &&Device| earlier.path == device.path) {
            None => own.push(device),
            // Said twice, meant once.
            Some(same) if (same.kind, same.major, same.minor) == (device.kind, device.major, device.minor) => {}
            Some(_) => return Err(Error::duplicate(format!("linux.devices[{index}].path"), &device.path)),
        }
    }
    let default = |&(path, major, minor): &(&str, u32, u32)| Device {
        path: path.into(),
        kind: libc::S_IFCHR,
        major,
        minor,
        mode: DEFAULT_MODE,
        uid: 0,
        gid: 0,
    };
    let is_default = |(path, ..): &&(&str, u32, u32)| own.iter().all(|device| device.path != *path);
    let mut devices: Vec<Device> = DEFAULTS.iter().filter(is_default).map(default).collect();
    devices.append(&mut own);
    Ok(devices)
}

fn translate(field: Entry<'_>, device: &LinuxDevice) -> Result<Device, Error> {
    let path_field = field.field("path");
    let given = path::text(&path_field, device.path())?;
    path::check_absolute(&path_field, given)?;
    let path = path::clean(given);
    if path == "/" {
        return Err(Error::invalid(path_field, given, "is not the path of a device"));
    }
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => {
            return Err(Error::invalid(
                format!("{field}.type"),
                "a",
                "is no device: it is one of b, c, u, p",
            ));
        }
    };
    let number = |name, value: i64, max| match u32::try_from(value) {
        // A FIFO has no numbers, whatever is written there.
        _ if kind == libc::S_IFIFO => Ok(0),
        Ok(number) if value <= max => Ok(number),
        _ => Err(Error::number(
            format!("{field}.{name}"),
            value,
            "is not a device number",
        )),
    };
    let id = |name: &str, id: Option<u32>| match id {
        Some(u32::MAX) => Err(Error::number(format!("{field}.{name}"), u32::MAX, "is nobody's id")),
        id => Ok(id.unwrap_or(0)),
    };
    Ok(Device {
        path,
        kind,
        major: number("major", device.major(), MAJOR_MAX)?,
        minor: number("minor", device.minor(), MINOR_MAX)?,
        // The type bits, where somebody wrote st_mode here, are not permissions.
        mode: device.file_mode().map_or(DEFAULT_MODE, |mode| mode & 0o7777),
        uid: id("uid", device.uid())?,
        gid: id("gid", device.gid())?,
    })
}

/// `linux.resources.devices`: what an access rule has to look like.
pub(super) fn check_rules(resources: &LinuxResources) -> Result<(), Error> {
    for (index, rule) in resources.devices().iter().flatten().enumerate() {
        let field = || format!("linux.resources.devices[{index}]");
        let access = rule.access().as_deref().unwrap_or_default();
        if access.is_empty() || !access.bytes().all(|letter| b"rwm".contains(&letter)) {
            return Err(Error::invalid(
                field() + ".access",
                access,
                "is not made of the letters r, w and m",
            ));
        }
        if let Some(kind @ (LinuxDeviceType::U | LinuxDeviceType::P)) = rule.typ() {
            return Err(Error::invalid(
                field() + ".type",
                kind.as_str(),
                "is not one of a, b, c",
            ));
        }
        for (name, number) in [("major", rule.major()), ("minor", rule.minor())] {
            // -1 is how Go clients write "any".
            if number.is_some_and(|number| !(-1..=i64::from(u32::MAX)).contains(&number)) {
                let number = number.unwrap_or_default();
                return Err(Error::number(
                    format!("{}.{name}", field()),
                    number,
                    "is not a device number",
                ));
            }
        }
    }
    Ok(())
}
