//! The Plan as the OCI spec that runsc is given. Pure.
//!
//! Only what the sentry enforces goes in. The hooks are run by the shim; cgroups, the rootfs, what the mounts show,
//! masked and read-only paths of the image are made on the host's side.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::config::{Network, Overlay};
use super::empty_dirs::{EmptyDirs, Kept};
use crate::plan::{
    Container, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, Mount,
    MountSource, Namespace, Plan,
};

/// CRI's annotations (containerd's `internal/cri/annotations`), which runsc reads as well.
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";

/// What a container is to its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It starts the sandbox: a pod's first container, or one that is its own pod.
    Root,
    /// It joins the sandbox of this id.
    Member(String),
}

/// What the annotations say of it.
pub fn role(plan: &Plan) -> Role {
    let annotation = |name| plan.container.annotation(name);
    match (annotation(CONTAINER_TYPE), annotation(SANDBOX_ID)) {
        (Some("container"), Some(sandbox)) => Role::Member(sandbox.to_owned()),
        _ => Role::Root,
    }
}

/// Whose network stack it gets: a pod of the host's network has only the host's.
pub fn network(plan: &Plan, chosen: Network) -> Network {
    match (&plan.container.namespaces.net, chosen) {
        (Namespace::Host, Network::None) => Network::None,
        (Namespace::Host, _) => Network::Host,
        (_, chosen) => chosen,
    }
}

/// Whether a path is one of the image's: /proc, /sys and /dev are the sentry's own.
#[allow(clippy::ptr_arg, reason = "for `Vec<String>::retain`")]
pub fn is_of_the_image(path: &String) -> bool {
    let path = Path::new(path);
    !["/proc", "/sys", "/dev"].iter().any(|top| path.starts_with(top))
}

/// The overlay of a container. One that has masked or read-only paths in its image has none: they are mounts on the
/// host's side, and whoever writes to an overlay does not meet what is mounted below it.
pub fn overlay(container: &Container, chosen: Overlay) -> Overlay {
    let mut paths = container.masked_paths.iter().chain(&container.readonly_paths);
    if paths.any(is_of_the_image) {
        Overlay::None
    } else {
        chosen
    }
}

/// What of the host's side the document tells of.
#[derive(Debug)]
pub struct Host<'a> {
    /// Where the sources of bind mounts appear, each under its name.
    pub mounts: &'a Path,
    /// The pod's volumes that the sentry keeps.
    pub empty_dirs: &'a EmptyDirs,
    /// Which of the container's mounts, by their index, are of those.
    pub kept: &'a BTreeMap<usize, Kept>,
    /// The host's own name, for a container that has it.
    pub hostname: &'a str,
}

/// What the source of a container's mount is called among those of its sandbox.
pub fn source_name(index: usize, kept: &BTreeMap<usize, Kept>) -> String {
    kept.get(&index)
        .map_or_else(|| index.to_string(), |kept| kept.name.clone())
}

/// The document.
pub fn document(plan: &Plan, role: &Role, host: &Host<'_>) -> Result<Value, serde_json::Error> {
    let container = &plan.container;
    let mut process = serde_json::to_value(plan.spec.process())?;
    if let Some(fields) = process.as_object_mut() {
        // Set from outside, or the host's alone.
        for field in ["oomScoreAdj", "apparmorProfile", "selinuxLabel"] {
            fields.remove(field);
        }
    }
    let mut entries: Vec<Value> = container
        .mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| {
            let is_tmpfs = host.kept.get(&index).is_some_and(|kept| kept.in_memory);
            entry(mount, &host.mounts.join(source_name(index, host.kept)), is_tmpfs)
        })
        .collect();
    if is_readonly_or_masked(container, "/tmp") && !container.mounts.iter().any(|mount| mount.destination == "/tmp") {
        // Where the image has nothing there the sentry mounts a tmpfs on it, for everybody to write to: this one goes
        // first. Files that the image has there are not seen then.
        entries
            .push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "mode=1777"]}));
    }
    let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "ipc"}), json!({"type": "uts"})];
    for (kind, space) in [
        ("pid", &container.namespaces.pid),
        ("network", &container.namespaces.net),
    ] {
        match space {
            Namespace::Host => {}
            Namespace::New => namespaces.push(json!({"type": kind})),
            Namespace::Path(path) => namespaces.push(json!({"type": kind, "path": path})),
        }
    }
    let mut linux = json!({"namespaces": namespaces});
    if let Some(given) = plan.spec.linux() {
        if let Some(seccomp) = given.seccomp() {
            linux["seccomp"] = serde_json::to_value(seccomp)?;
        }
        let sysctls = given.sysctl().iter().flatten();
        let known: serde_json::Map<String, Value> = sysctls
            .filter(|(key, _)| key.ends_with("disable_ipv6"))
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        if !known.is_empty() {
            linux["sysctl"] = Value::Object(known);
        }
    }
    Ok(json!({
        "ociVersion": "1.1.0",
        "process": process,
        "root": {"path": container.rootfs.path, "readonly": container.rootfs.readonly},
        "hostname": container.hostname.as_deref().unwrap_or(host.hostname),
        "mounts": entries,
        "annotations": annotations(plan, role, host),
        "linux": linux,
    }))
}

fn is_readonly_or_masked(container: &Container, path: &str) -> bool {
    let mut paths = container.readonly_paths.iter().chain(&container.masked_paths);
    paths.any(|one| one == path)
}

/// Only what makes runsc see the pod as we do. Nothing of the tenant's: `dev.gvisor.flag.*` would change how the sentry
/// runs.
fn annotations(plan: &Plan, role: &Role, host: &Host<'_>) -> Value {
    match role {
        Role::Root => {
            let mut all = host.empty_dirs.annotations(host.mounts);
            if plan.container.annotation(CONTAINER_TYPE) == Some("sandbox") {
                all.insert(CONTAINER_TYPE.into(), "sandbox".into());
                all.insert(SANDBOX_ID.into(), plan.id.clone().into());
            }
            Value::Object(all)
        }
        Role::Member(sandbox) => {
            json!({CONTAINER_TYPE: "container", SANDBOX_ID: sandbox, CONTAINER_NAME: plan.id})
        }
    }
}

/// `is_tmpfs`: of a bind mount that the sentry has a tmpfs for, of which the host has nothing.
fn entry(mount: &Mount, source: &Path, is_tmpfs: bool) -> Value {
    let all = mount.set | mount.recursive_set;
    let mut options: Vec<String> = [
        (MOUNT_ATTR_RDONLY, "ro"),
        (MOUNT_ATTR_NOEXEC, "noexec"),
        (MOUNT_ATTR_NOSUID, "nosuid"),
        (MOUNT_ATTR_NODEV, "nodev"),
        (MOUNT_ATTR_NOATIME, "noatime"),
    ]
    .into_iter()
    .filter(|(attribute, _)| all & attribute != 0)
    .map(|(_, name)| name.to_owned())
    .collect();
    match &mount.source {
        MountSource::Bind { .. } if is_tmpfs => {
            json!({"destination": mount.destination, "type": "tmpfs", "source": source, "options": options})
        }
        MountSource::Bind { .. } => {
            options.push("rbind".into());
            if mount.propagation.iter().any(|flags| flags & libc::MS_SLAVE != 0) {
                options.push("rslave".into());
            }
            json!({"destination": mount.destination, "type": "bind", "source": source, "options": options})
        }
        MountSource::New { kind, source } => {
            if kind == "tmpfs" {
                options.extend(mount.data.iter().cloned());
            }
            json!({"destination": mount.destination, "type": kind, "source": source, "options": options})
        }
        // Refused by `check`: the sentry's shared memory is the sandbox's own.
        MountSource::NamespaceRoot { .. } => {
            json!({"destination": mount.destination, "type": "tmpfs", "source": "shm", "options": options})
        }
        MountSource::Cgroup => {
            json!({"destination": mount.destination, "type": "cgroup", "source": "cgroup", "options": options})
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::bundle::Bundle;
    use crate::plan::{Request, translate};
    use crate::policy::{self, Layer, toml};

    fn document_of(plan: &Plan, role: &Role) -> Value {
        let host = Host {
            mounts: Path::new("/m"),
            empty_dirs: &EmptyDirs::default(),
            kept: &BTreeMap::new(),
            hostname: "node",
        };
        document(plan, role, &host).unwrap()
    }

    /// The plan of a container like most, changed.
    pub fn plan(change: impl FnOnce(&mut Value)) -> Plan {
        plan_under("", change)
    }

    pub fn plan_under(policy: &str, change: impl FnOnce(&mut Value)) -> Plan {
        let mut layer = Layer::default();
        for entry in toml::parse(policy).unwrap() {
            layer.set_entry("test", &entry).unwrap();
        }
        let mut spec = json!({
            "ociVersion": "1.1.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "oomScoreAdj": 100},
            "root": {"path": "rootfs"},
            "hostname": "web",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "noexec"]},
                {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro"]},
            ],
            "linux": {
                "namespaces": [
                    {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                    {"type": "network", "path": "/run/netns/a"},
                ],
            },
        });
        change(&mut spec);
        let bundle = Bundle::parse(Path::new("/bundles/c1"), &spec.to_string()).unwrap();
        let request = Request {
            id: "c1".into(),
            landlock_abi: 7,
            policy: policy::resolve(&layer, &Layer::default(), []).unwrap(),
            ..Request::default()
        };
        translate(&bundle, &request).unwrap()
    }

    #[test]
    fn what_is_protected_in_the_image_is_not_written_to_by_way_of_an_overlay() {
        let overlay_of = |paths: &[&str]| {
            let mut plan = plan(|_| ());
            plan.container.readonly_paths = paths.iter().map(|&path| path.to_owned()).collect();
            overlay(&plan.container, Overlay::RootSelf)
        };
        assert_eq!(
            overlay_of(&["/proc/sys", "/sys/firmware", "/dev/kmsg"]),
            Overlay::RootSelf
        );
        assert_eq!(overlay_of(&["/proc/sys", "/etc"]), Overlay::None);
        assert_eq!(overlay_of(&["/process"]), Overlay::None);
    }

    #[test]
    fn runsc_gets_what_the_sentry_enforces_and_nothing_of_the_host_s_side() {
        let plan = plan(|spec| spec["hooks"] = json!({"poststop": [{"path": "/bin/true"}]}));
        let document = document_of(&plan, &Role::Root);
        assert_eq!(document["root"]["path"], "/bundles/c1/rootfs");
        assert_eq!(document["hostname"], "web");
        assert_eq!(document["process"].get("oomScoreAdj"), None);
        assert_eq!(document.get("hooks"), None);
        assert_eq!(document["annotations"], json!({}));
        let data = json!({"destination": "/data", "type": "bind", "source": "/m/2", "options": ["ro", "rbind"]});
        assert_eq!(document["mounts"][2], data);
        let tmp = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "size=1m"]});
        assert_eq!(document["mounts"][1], tmp);
        let network = json!({"type": "network", "path": "/run/netns/a"});
        assert!(document["linux"]["namespaces"].as_array().unwrap().contains(&network));
    }

    #[test]
    fn a_pod_s_containers_join_its_sandbox() {
        let member = plan(|spec| {
            spec["annotations"] = json!({
                "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "p1", "x": "y",
            });
        });
        let member_role = role(&member);
        assert_eq!(member_role, Role::Member("p1".into()));
        let document = document_of(&member, &member_role);
        let expected = json!({CONTAINER_TYPE: "container", SANDBOX_ID: "p1", CONTAINER_NAME: "c1"});
        assert_eq!(document["annotations"], expected);
        assert_eq!(role(&plan(|_| {})), Role::Root);
    }

    #[test]
    fn the_host_s_network_is_used_where_the_pod_has_it() {
        let own = plan(|_| {});
        assert_eq!(network(&own, Network::Sandbox), Network::Sandbox);
        assert_eq!(network(&own, Network::None), Network::None);
        let shared = plan(|spec| {
            spec["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}])
        });
        assert_eq!(network(&shared, Network::Sandbox), Network::Host);
    }

    #[test]
    fn a_tmp_that_is_to_be_read_only_is_not_left_to_the_sentry() {
        let plan = plan(|spec| {
            spec["mounts"] = json!([]);
            spec["linux"]["readonlyPaths"] = json!(["/tmp"]);
        });
        let document = document_of(&plan, &Role::Root);
        assert_eq!(document["mounts"][0]["destination"], "/tmp");
        assert_eq!(document["mounts"][0]["options"][0], "ro");
    }
}
