//! What config.json may ask of gVisor: the OCI features document of a handler whose runtime it is.

use serde_json::{Value, json};

/// Nothing that [`super::spec`] would refuse. No `rro` and no idmap: containerd takes these for promises. No user
/// namespace.
pub fn features() -> Value {
    let mut features = crate::host::features();
    let known = [
        "ro", "rw", "bind", "rbind", "noexec", "exec", "nosuid", "suid", "nodev", "dev", "noatime", "slave", "rslave",
        "private", "rprivate", "size", "mode", "uid", "gid",
    ];
    let mut options = known.to_vec();
    options.sort_unstable();
    features["mountOptions"] = json!(options);
    features["hooks"] = json!(["prestart", "createRuntime", "poststart", "poststop"]);
    features["linux"]["namespaces"] = json!(["ipc", "mount", "network", "pid", "uts"]);
    features["linux"]["mountExtensions"]["idmap"]["enabled"] = json!(false);
    for module in ["apparmor", "selinux"] {
        features["linux"][module]["enabled"] = json!(false);
    }
    let seccomp = &mut features["linux"]["seccomp"];
    for (list, refused) in [
        ("actions", "SCMP_ACT_NOTIFY"),
        ("knownFlags", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
        ("supportedFlags", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
    ] {
        if let Some(list) = seccomp[list].as_array_mut() {
            list.retain(|known| known != refused);
        }
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gvisor_cannot_have_is_not_claimed() {
        let features = features();
        serde_json::from_value::<oci_spec::runtime::Features>(features.clone()).unwrap();
        let options = features["mountOptions"].as_array().unwrap();
        assert!(!options.contains(&json!("rro")) && !options.contains(&json!("rshared")));
        assert!(
            !features["linux"]["namespaces"]
                .as_array()
                .unwrap()
                .contains(&json!("user"))
        );
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], false);
        assert_eq!(features["linux"]["cgroup"], crate::host::features()["linux"]["cgroup"]);
        assert_eq!(features["linux"]["apparmor"]["enabled"], false);
        assert_eq!(features["linux"]["selinux"]["enabled"], false);
        let actions = features["linux"]["seccomp"]["actions"].as_array().unwrap();
        assert!(!actions.contains(&json!("SCMP_ACT_NOTIFY")) && actions.contains(&json!("SCMP_ACT_TRACE")));
        assert!(
            !features["hooks"]
                .as_array()
                .unwrap()
                .contains(&json!("createContainer"))
        );
    }
}
