//! The AppArmor profile and the SELinux label that a program is to run under: handed to the kernel for the next execve.
//!
//! The files are opened below the host's /proc, which the holder opened before it entered anything: a /proc of the
//! container's may be anything (CVE-2019-16884, CVE-2025-52881). They are opened while the process is still root,
//! written right before its execve, since startContainer hooks would inherit what is written before, and read back.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::plan::Process;

const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Why a process could not be labelled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("{field} {label:?}: opening /proc/{file}")]
    Open {
        field: &'static str,
        label: String,
        file: &'static str,
        source: io::Error,
    },
    #[error("{field} {label:?}: /proc/{file} is not of a proc file system")]
    NotProc {
        field: &'static str,
        label: String,
        file: &'static str,
    },
    #[error("{field}: there is no profile {label:?} in the kernel: load it on this node (apparmor_parser)")]
    NotLoaded { field: &'static str, label: String },
    #[error("{field} {label:?}: writing /proc/{file}")]
    Write {
        field: &'static str,
        label: String,
        file: &'static str,
        source: io::Error,
    },
    #[error("{field} {label:?}: the kernel says {found:?} instead")]
    Differs {
        field: &'static str,
        label: String,
        found: String,
    },
}

/// A label that waits for the execve.
#[derive(Debug)]
pub struct Label {
    attribute: OwnedFd,
    field: &'static str,
    file: &'static str,
    label: String,
    /// What is written is this and the label.
    word: &'static str,
}

/// Opens what the labels of `plan` are written to. Needs root.
pub fn open(proc: BorrowedFd<'_>, plan: &Process) -> Result<Vec<Label>, Error> {
    let apparmor = (
        "process.apparmorProfile",
        &plan.apparmor_profile,
        "self/attr/apparmor/exec",
        "exec ",
    );
    let selinux = ("process.selinuxLabel", &plan.selinux_label, "self/attr/exec", "");
    let mut labels = Vec::new();
    for (field, label, file, word) in [apparmor, selinux] {
        let Some(label) = label.clone() else { continue };
        let opened = rustix::fs::openat(proc, file, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .and_then(|attribute| Ok((rustix::fs::fstatfs(&attribute)?.f_type, attribute)));
        let (kind, attribute) = match opened {
            Ok(opened) => opened,
            Err(errno) => {
                return Err(Error::Open {
                    field,
                    label,
                    file,
                    source: errno.into(),
                });
            }
        };
        if kind as u64 != PROC_SUPER_MAGIC {
            return Err(Error::NotProc { field, label, file });
        }
        labels.push(Label {
            attribute,
            field,
            file,
            label,
            word,
        });
    }
    Ok(labels)
}

impl Label {
    /// Hands the label to the kernel, for the next execve of this very process, and looks whether it has it.
    pub fn set(&self) -> Result<(), Error> {
        let Self { field, label, file, .. } = self;
        let text = format!("{}{label}", self.word);
        match rustix::io::write(&self.attribute, text.as_bytes()) {
            Ok(_) => {}
            // AppArmor's word for a profile that it does not know.
            Err(Errno::NOENT) if !self.word.is_empty() => {
                return Err(Error::NotLoaded {
                    field,
                    label: label.clone(),
                });
            }
            Err(errno) => {
                return Err(Error::Write {
                    field,
                    label: label.clone(),
                    file,
                    source: errno.into(),
                });
            }
        }
        let mut found = [0; 4096];
        let length = rustix::io::pread(&self.attribute, &mut found, 0).map_err(|errno| Error::Write {
            field,
            label: label.clone(),
            file,
            source: errno.into(),
        })?;
        let found = String::from_utf8_lossy(&found[..length]);
        if is_same(label, &found) {
            Ok(())
        } else {
            Err(Error::Differs {
                field,
                label: label.clone(),
                found: found.trim_end().to_owned(),
            })
        }
    }
}

/// The kernel ends a label with NUL or newline, and AppArmor adds the profile's mode: `docker-default (enforce)`.
fn is_same(label: &str, found: &str) -> bool {
    let found = found.trim_end_matches(['\0', '\n']);
    let name = match found.rsplit_once(" (") {
        Some((name, mode)) if mode.ends_with(')') => name,
        _ => found,
    };
    found == label || name == label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_known_with_its_mode_and_end() {
        for found in [
            "docker-default (enforce)\n",
            "docker-default (complain)",
            "docker-default",
        ] {
            assert!(is_same("docker-default", found), "{found}");
        }
        assert!(is_same(
            "system_u:system_r:container_t:s0:c1,c2",
            "system_u:system_r:container_t:s0:c1,c2\0"
        ));
        for found in ["", "unconfined\n", "docker (enforce)\n", "docker-default-2 (enforce)\n"] {
            assert!(!is_same("docker-default", found), "{found}");
        }
    }

    #[test]
    fn without_labels_nothing_is_opened() {
        let nowhere = std::fs::File::open("/dev/null").unwrap();
        let plan = Process::default();
        assert!(open(std::os::fd::AsFd::as_fd(&nowhere), &plan).unwrap().is_empty());
    }

    #[test]
    fn a_proc_that_is_none_is_not_written_to() {
        let fake = tempfile::tempdir().unwrap();
        let directory = fake.path().join("self/attr/apparmor");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("exec"), "").unwrap();
        let root = std::fs::File::open(fake.path()).unwrap();
        let plan = Process {
            apparmor_profile: Some("docker-default".into()),
            ..Process::default()
        };
        let error = open(std::os::fd::AsFd::as_fd(&root), &plan).unwrap_err().to_string();
        assert!(error.contains("is not of a proc file system"), "{error}");
        assert_eq!(std::fs::read_to_string(directory.join("exec")).unwrap(), "");
    }
}
