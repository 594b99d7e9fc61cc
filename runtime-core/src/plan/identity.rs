//! Names of the container: its id, its hostname, its cgroup.

use oci_spec::runtime::Linux;

use super::{Error, Request, path};
use crate::cgroup::is_systemd_path as is_systemd;

/// Bytes of an id: containerd's own limit.
const ID_MAX: usize = 76;
/// Bytes of a nodename or domainname, see uname(2).
const UTS_MAX: usize = 64;

/// What containerd lets through as an id. It becomes part of paths, so it is checked here again.
pub(super) fn check_id(id: &str) -> Result<(), Error> {
    let words = |id: &str| {
        id.split(['.', '_', '-'])
            .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    if id.len() <= ID_MAX && words(id) {
        Ok(())
    } else {
        Err(Error::Id {
            id: id.chars().take(ID_MAX + 1).collect(),
        })
    }
}

/// `hostname` or `domainname`; empty is none.
pub(super) fn uts_name(field: &str, name: Option<&String>) -> Result<Option<String>, Error> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    if name.len() > UTS_MAX {
        return Err(Error::invalid(field, name, "has more than 64 bytes"));
    }
    if name.contains('\0') {
        return Err(Error::invalid(field, name, "has a NUL in it"));
    }
    Ok(Some(name.clone()))
}

/// `linux.cgroupsPath`: cleaned, absolute or relative as it was, `..` does not climb; or `slice:prefix:name`, as
/// clients of the systemd driver write it, which is that driver's whatever the options say. Default: `/<id>`, or a
/// scope of that name.
pub(super) fn cgroup(linux: &Linux, request: &Request) -> Result<String, Error> {
    const FIELD: &str = "linux.cgroupsPath";
    const NO_SCOPE: &str = "the systemd cgroup driver (SystemdCgroup = true) takes slice:prefix:name; let the kubelet \
        use it \
        as well (cgroupDriver: systemd), or set SystemdCgroup = false";
    const NO_SYSTEMD: &str = "the systemd cgroup driver is asked for (SystemdCgroup = true), and systemd does not run \
        here; \
        use cgroupfs";
    let given = match linux.cgroups_path() {
        Some(path) => path::text(&FIELD, path)?,
        None => "",
    };
    // containerd's CRI service before 2.0 writes that form for every parent that ends in `.slice`, also where no
    // systemd runs: there it is a name like any other, as runc takes it.
    let scope = !given.starts_with('/') && given.split(':').count() == 3;
    if is_systemd(given) && request.systemd {
        path::check(&FIELD, given)?;
        return Ok(given.to_owned());
    }
    match (request.systemd_cgroup, given) {
        (true, given) if !request.systemd => {
            return Err(Error::unsupported(format!("{FIELD} {given:?}"), NO_SYSTEMD));
        }
        (true, "") => return Ok(format!(":nucleus:{}", request.id)),
        (true, given) => return Err(Error::unsupported(format!("{FIELD} {given:?}"), NO_SCOPE)),
        (false, _) => {}
    }
    if given.is_empty() {
        return Ok(format!("/{}", request.id));
    }
    path::check(&FIELD, given)?;
    let mut cleaned = path::clean(given);
    if cleaned == "/" {
        return Err(Error::invalid(
            FIELD,
            given,
            "is the root of all cgroups, which is nobody's own",
        ));
    }
    // Absolute, a name in that form is nobody's scope.
    if !given.starts_with('/') && !scope {
        cleaned.remove(0);
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_containerd_lets_through() {
        for id in ["a", "c1", "A-b_c.d", &"x".repeat(76)] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in [
            "",
            ".",
            "..",
            "a/b",
            "../a",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a\0",
            "ä",
            &"x".repeat(77),
        ] {
            assert!(check_id(id).is_err(), "{id}");
        }
        let error = check_id("a/b").unwrap_err().to_string();
        assert!(error.starts_with(r#"container id "a/b" is not one: "#), "{error}");
    }
}
