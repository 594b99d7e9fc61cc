//! linux.mountLabel: the SELinux context of the file systems that are made for the container.
//!
//! As runc has it: a mount option of every new file system but proc and sysfs, whose files the policy labels, and
//! mqueue, which has one superblock for all that share an IPC namespace and is labelled by its root directory. Binds
//! keep what their files have: relabelling a volume is containerd's.

use super::{Error, Mount, MountSource};

/// The file systems that are labelled by the policy alone.
const BY_POLICY: [&str; 2] = ["proc", "sysfs"];
/// What fsconfig(2) takes as a value.
const MAX: usize = 255;
const FIELD: &str = "linux.mountLabel";

/// The option that labels a new file system.
const OPTION: &str = "context=";

/// Gives the label to `mounts`; what it is. An option of a mount's own goes before it.
///
/// # Errors
/// A label on a host without SELinux, and one that the kernel could not be given.
pub(super) fn apply(label: Option<&str>, selinux: bool, mounts: &mut [Mount]) -> Result<Option<String>, Error> {
    let Some(label) = label.filter(|label| !label.is_empty()) else {
        return Ok(None);
    };
    if !selinux {
        let advice = "SELinux is not enabled on this host; remove the label or run the container where it is";
        return Err(Error::unsupported(FIELD, advice));
    }
    if label.len() > MAX || label.bytes().any(|byte| byte == 0 || byte == b'\n') {
        return Err(Error::invalid(
            FIELD,
            label,
            "is no label: it is too long, or has a NUL or a newline in it",
        ));
    }
    for mount in mounts {
        let is_labelled = match &mount.source {
            MountSource::New { kind, .. } => !BY_POLICY.contains(&kind.as_str()),
            MountSource::Cgroup => true,
            MountSource::NamespaceRoot { .. } => false,
            // What is copied into memory is a new file system.
            MountSource::Bind { .. } => mount.in_memory.is_some() || mount.digest.is_some(),
        };
        let has_own = mount.data.iter().any(|option| option.starts_with(OPTION));
        if is_labelled && !has_own {
            mount.data.push(format!("{OPTION}{label}"));
        }
    }
    Ok(Some(label.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts() -> Vec<Mount> {
        let new = |kind: &str, data: &[&str]| Mount {
            destination: format!("/{kind}"),
            source: MountSource::New {
                kind: kind.into(),
                source: kind.into(),
            },
            data: data.iter().map(|&option| option.to_owned()).collect(),
            ..Mount::default()
        };
        let bind = |in_memory| Mount {
            source: MountSource::Bind {
                path: "/srv".into(),
                recursive: true,
            },
            in_memory,
            ..Mount::default()
        };
        vec![
            new("proc", &[]),
            new("sysfs", &[]),
            new("tmpfs", &["mode=755"]),
            new("tmpfs", &["context=own"]),
            new("mqueue", &[]),
            bind(None),
            bind(Some((0, 0))),
        ]
    }

    #[test]
    fn new_file_systems_are_labelled_and_binds_are_not() {
        let mut mounts = mounts();
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        assert_eq!(apply(Some(label), true, &mut mounts).unwrap().as_deref(), Some(label));
        let data: Vec<String> = mounts.iter().map(|mount| mount.data.join(" ")).collect();
        let option = format!("context={label}");
        assert_eq!(
            data,
            [
                "",
                "",
                &format!("mode=755 {option}"),
                "context=own",
                &option,
                "",
                &option
            ]
        );
    }

    #[test]
    fn a_label_that_cannot_be_had_is_refused_and_none_is_none() {
        let mut given = mounts();
        let error = apply(Some("x:y:z"), false, &mut given).unwrap_err().to_string();
        assert!(
            error.contains("linux.mountLabel") && error.contains("SELinux is not enabled"),
            "{error}"
        );
        for label in ["a\nb", "a\0b", &"x".repeat(300)] {
            assert!(apply(Some(label), true, &mut given).is_err(), "{label:?}");
        }
        for label in [None, Some("")] {
            assert_eq!(apply(label, false, &mut given).unwrap(), None);
        }
        assert_eq!(given, mounts());
    }
}
