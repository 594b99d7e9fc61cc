//! Writing settings into a cgroup's files.

use rustix::io::Errno;

use super::settings::{Absent, Setting};
use crate::cgroup::Error;
use crate::cgroup::directory::Directory;

/// Writes all of them in order. The burst and the quota depend on each other: the one that is refused first is tried
/// again after the other, so that the order is right both up and down.
pub(super) fn all(part: &Directory, settings: &[Setting]) -> Result<(), Error> {
    let mut again = Vec::new();
    for setting in settings {
        match one(part, setting) {
            Err(Error::Write {
                source: Errno::INVAL, ..
            }) if setting.file.starts_with("cpu.max") => again.push(setting),
            result => result?,
        }
    }
    again.into_iter().try_for_each(|setting| one(part, setting))
}

fn one(part: &Directory, setting: &Setting) -> Result<(), Error> {
    let Setting { file, value, .. } = setting;
    match (part.try_write(file, value), &setting.absent) {
        (Ok(()), _) | (Err(Errno::NOENT), Absent::Pass) => Ok(()),
        (Err(Errno::NOENT), Absent::Instead(file, value)) => match part.try_write(file, value) {
            Ok(()) => Ok(()),
            Err(error) => Err(refused(part, setting, file, value, error)),
        },
        (Err(error), _) => Err(refused(part, setting, file, value, error)),
    }
}

/// A file that is missing may be so because the controller is not enabled here: the error says which, and where.
fn refused(part: &Directory, setting: &Setting, file: &str, value: &str, error: Errno) -> Error {
    let enabled = part.try_read("cgroup.controllers").unwrap_or_default();
    let controller = setting.controller();
    if matches!(error, Errno::NOENT | Errno::ACCESS)
        && controller != "cgroup"
        && !enabled.split_whitespace().any(|name| name == controller)
    {
        return Error::NotEnabled {
            controller: controller.into(),
            field: setting.field,
            directory: part.full(),
        };
    }
    part.write_error(file, value, error)
}
