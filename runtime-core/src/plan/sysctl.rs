//! Kernel settings: only those that belong to a namespace of the container's own.

use std::collections::HashMap;

use super::{Error, Namespace, Namespaces};

/// `linux.sysctl`, as paths below /proc/sys, sorted.
pub(super) fn sysctls(
    given: &Option<HashMap<String, String>>,
    namespaces: &Namespaces,
) -> Result<Vec<(String, String)>, Error> {
    // In the order of their names, so that of several mistakes it is always the same one that is told.
    let mut given: Vec<_> = given.iter().flatten().collect();
    given.sort_unstable();
    let mut sysctls = Vec::with_capacity(given.len());
    for (key, value) in given {
        let path = path_of(key)?;
        check_namespace(key, &path, namespaces)?;
        if value.contains('\0') {
            return Err(Error::invalid(format!("linux.sysctl.{key}"), value, "has a NUL in it"));
        }
        sysctls.push((path, value.clone()));
    }
    sysctls.sort_unstable();
    if let Some(pair) = sysctls.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        // Dotted and slashed: whichever came last would win, and maps have no order.
        return Err(Error::duplicate("linux.sysctl", &pair[0].0));
    }
    Ok(sysctls)
}

/// A key as a path. sysctl.d(5): the first separator decides which of `.` and `/` separates; the other one then is part
/// of a name (`net.ipv4.conf.eno2/100.rp_filter` is about the interface `eno2.100`).
///
/// Strict on purpose: what `+`, newlines and `..` did elsewhere is CVE-2022-0811.
fn path_of(key: &str) -> Result<String, Error> {
    let wrong = || Error::invalid("linux.sysctl", key, "is not the name of a kernel setting");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    if key.is_empty() || key.len() > 255 || !key.bytes().all(plain) {
        return Err(wrong());
    }
    let dotted = key.find(['.', '/']).is_some_and(|first| key.as_bytes()[first] == b'.');
    let path: String = match dotted {
        false => key.into(),
        true => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    };
    let names = path.split('/').collect::<Vec<_>>();
    if names.len() < 2 || names.iter().any(|name| matches!(*name, "" | "." | "..")) {
        return Err(wrong());
    }
    Ok(path)
}

/// Which settings the kernel keeps apart, and by which namespace. The same list as runc's.
fn check_namespace(key: &str, path: &str, namespaces: &Namespaces) -> Result<(), Error> {
    let (namespace, name) = match path {
        "kernel/msgmax"
        | "kernel/msgmnb"
        | "kernel/msgmni"
        | "kernel/sem"
        | "kernel/shmall"
        | "kernel/shmmax"
        | "kernel/shmmni"
        | "kernel/shm_rmid_forced" => (&namespaces.ipc, "ipc"),
        "kernel/domainname" => (&namespaces.uts, "uts"),
        "kernel/hostname" => {
            return Err(Error::invalid(
                "linux.sysctl",
                key,
                "has a field of its own: use `hostname`",
            ));
        }
        path if path.starts_with("fs/mqueue/") => (&namespaces.ipc, "ipc"),
        path if path.starts_with("net/") => (&namespaces.net, "network"),
        _ => {
            return Err(Error::invalid(
                "linux.sysctl",
                key,
                "is the whole host's, in no namespace of the container",
            ));
        }
    };
    match namespace {
        Namespace::Host => Err(Error::NeedsNamespace {
            field: format!("linux.sysctl.{key}"),
            namespace: name,
        }),
        _ => Ok(()),
    }
}
