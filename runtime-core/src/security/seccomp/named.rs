//! Profiles that a node names: the one that is built in, and files that only root can have written and whose content is
//! pinned.

use std::path::PathBuf;

use oci_spec::runtime::LinuxSeccomp;

use crate::policy::Policy;
use crate::policy::pinned::{self, Place};

/// The name of the profile that is built in.
pub const STRICT: &str = "strict";

/// What an ordinary server or tool needs on its native architecture: no tracing, no devices, no namespaces, no sockets
/// but Unix ones, those of the internet and rtnetlink's, none of what the kernel has mostly been attacked through.
const STRICT_PROFILE: &str = include_str!("strict.json");

/// What Landlock's rules about TCP do not see: MPTCP and SMC, which fall back to TCP, connecting by sending
/// (MSG_FASTOPEN), and two calls whose arguments no filter sees, socketcall(2) and io_uring's. Everything else passes.
const TCP_ALONE_PROFILE: &str = include_str!("tcp.json");

/// Why there is no profile of that name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    File(#[from] pinned::Error),
    #[error("seccomp.profile: {path:?} is not an OCI seccomp profile")]
    Content { path: PathBuf, source: serde_json::Error },
}

/// A profile and what it is called.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Named {
    pub name: String,
    pub profile: LinuxSeccomp,
}

/// The profiles that `policy` names, read and checked anew for each container. Nothing is read where it names none.
///
/// # Errors
/// A name that nothing is pinned for, a file that others could have written, or with another content than the pinned
/// one.
pub fn read(policy: &Policy) -> Result<Vec<Named>, Error> {
    let place = Place {
        table: "seccomp",
        directory: &policy.seccomp_directory.value,
        pins: &policy.seccomp_pinned.value,
        extension: "json",
    };
    let names = policy.seccomp_profile.value.0.iter();
    let profile = |name: &String| {
        if name == STRICT {
            return Ok(strict());
        }
        let pinned::Content { path, bytes } = place.read(name)?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Content { path, source })
    };
    names
        .map(|name| {
            let profile = profile(name)?;
            Ok(Named {
                name: name.clone(),
                profile,
            })
        })
        .collect()
}

/// The profile that is built in.
pub fn strict() -> LinuxSeccomp {
    serde_json::from_str(STRICT_PROFILE).expect("a test reads it")
}

/// The profile that keeps Landlock's rules about TCP from being passed by.
pub fn tcp_alone() -> LinuxSeccomp {
    serde_json::from_str(TCP_ALONE_PROFILE).expect("a test reads it")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::policy::{Layer, resolve, toml};

    fn named(configuration: &str) -> Result<Vec<Named>, Error> {
        let mut layer = Layer::default();
        for entry in toml::parse(configuration).unwrap() {
            layer.set_entry("test", &entry).unwrap();
        }
        read(&resolve(&layer, &Layer::default(), []).unwrap())
    }

    #[test]
    fn the_built_in_profile_compiles_on_every_machine_and_names_only_calls_that_there_are() {
        use super::super::{Architecture, Machine, compile_for, names};
        for machine in [Machine::X86_64, Machine::Aarch64] {
            assert!(compile_for(&strict(), machine).is_ok());
        }
        let known: Vec<_> = [Architecture::X86_64, Architecture::Aarch64]
            .into_iter()
            .flat_map(names)
            .collect();
        let strict = strict();
        for rule in strict.syscalls().iter().flatten() {
            for name in rule.names() {
                assert!(known.iter().any(|(known, _)| known == name), "{name}");
            }
        }
        let all: Vec<_> = strict
            .syscalls()
            .iter()
            .flatten()
            .flat_map(|rule| rule.names().clone())
            .collect();
        for dangerous in [
            "unshare",
            "setns",
            "mount",
            "bpf",
            "ptrace",
            "io_uring_setup",
            "keyctl",
            "userfaultfd",
        ] {
            assert!(!all.iter().any(|name| name == dangerous), "{dangerous}");
        }
    }

    #[test]
    fn the_profile_about_tcp_compiles_on_every_machine() {
        use super::super::{Machine, compile_for};
        for machine in [Machine::X86_64, Machine::Aarch64] {
            assert!(compile_for(&tcp_alone(), machine).is_ok());
        }
    }

    #[test]
    fn a_file_is_taken_only_with_the_pinned_content_and_from_root_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.json");
        let text = r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#;
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let digest: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        let configuration = |digest: &str| {
            let directory = directory.path().display();
            format!("[seccomp]\nprofile = ['web']\ndirectory = '{directory}'\npinned = ['web=sha256:{digest}']\n")
        };
        let refusal = |digest: &str| named(&configuration(digest)).unwrap_err().to_string();
        if !rustix::process::geteuid().is_root() {
            assert!(refusal(&digest).contains("not owned by root"));
            return;
        }
        assert_eq!(named(&configuration(&digest)).unwrap()[0].name, "web");
        assert!(refusal(&"0".repeat(64)).ends_with("is pinned"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).unwrap();
        assert!(refusal(&digest).contains("writable for others"));
        std::fs::rename(&path, directory.path().join("other")).unwrap();
        symlink("other", &path).unwrap();
        assert!(refusal(&digest).contains("opening"));
    }

    #[test]
    fn a_name_without_a_pin_is_refused_and_strict_needs_none() {
        assert!(matches!(
            named("seccomp.profile = ['web']"),
            Err(Error::File(pinned::Error::NotPinned { .. }))
        ));
        assert_eq!(named("seccomp.profile = ['strict']").unwrap().len(), 1);
        assert!(named("").unwrap().is_empty());
    }
}
