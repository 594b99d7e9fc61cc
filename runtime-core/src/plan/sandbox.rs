//! A pod's sandbox, where the shim makes it itself (containerd's `sandboxer = "shim"`): what CRI asks for, as an OCI
//! spec of which only namespaces and what belongs to them matter, since no program of anybody's runs in it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{self as oci, LinuxNamespaceType as Kind};
use serde::{Deserialize, Serialize};

use super::{Container, Error, IdMap, Namespace, identity, namespace, own_uts, path, sysctl};

/// CRI's NamespaceMode: how far a namespace of the pod's reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The pod's containers share it.
    #[default]
    Pod,
    /// Each container has its own.
    Container,
    /// The host's.
    Node,
    /// Another container's; of a container alone.
    Target,
}

/// What of CRI's PodSandboxConfig says how the sandbox is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SandboxConfig {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub hostname: String,
    pub log_directory: String,
    /// The pod's own cgroup, which whoever asks for the pod has made.
    pub cgroup_parent: String,
    pub network: Mode,
    pub pid: Mode,
    pub ipc: Mode,
    /// Maps of uids and gids, where the pod has a user namespace of its own.
    pub user: Option<(Vec<IdMap>, Vec<IdMap>)>,
    pub sysctls: BTreeMap<String, String>,
}

/// What a sandbox is to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sandbox {
    /// The same as a spec that is told to people and plugins.
    #[serde(skip)]
    pub spec: oci::Spec,
    /// Its namespaces and what belongs to them; the rest is empty.
    pub container: Container,
    /// The user namespace is there already: it is the network namespace's owner. containerd makes both.
    pub user_of_network: bool,
    /// Root of the user namespace, as the host numbers it: whose the pod's files and its shared memory are.
    pub root: (u32, u32),
    /// Whether the containers share memory of the pod's, rather than the host's.
    pub shares_memory: bool,
    /// The pod's cgroup, as CRI names it.
    pub cgroup_parent: Option<String>,
}

/// What containerd sets in every pod's network namespace unless its configuration says otherwise
/// (`enable_unprivileged_ports`, `enable_unprivileged_icmp`), of which a shim is not told.
const PORTS: (&str, &str) = ("net.ipv4.ip_unprivileged_port_start", "0");
const PING: (&str, &str) = ("net.ipv4.ping_group_range", "0 2147483647");

/// The sandbox `id` of `config`, in the network namespace at `network`, which is empty for the host's.
///
/// # Errors
/// What cannot be meant or done, by its field.
pub fn translate(config: &SandboxConfig, id: &str, bundle: &Path, network: &str) -> Result<Sandbox, Error> {
    identity::check_id(id)?;
    let spec = spec(config, id, network)?;
    let none = || Error::missing("linux");
    let linux = spec.linux().as_ref().ok_or_else(none)?;
    let namespaces = namespace::namespaces(linux)?;
    let root = |map: &[IdMap]| map.iter().find(|line| line.container == 0).map_or(0, |line| line.host);
    let container = Container {
        id: id.to_owned(),
        bundle: bundle.to_owned(),
        hostname: own_uts("hostname", spec.hostname(), &namespaces)?,
        sysctls: sysctl::sysctls(linux.sysctl(), &namespaces)?,
        namespaces,
        ..Container::default()
    };
    let namespaces = &container.namespaces;
    Ok(Sandbox {
        user_of_network: namespaces.user == Namespace::New && namespaces.net != Namespace::Host,
        root: (root(&namespaces.uid_map), root(&namespaces.gid_map)),
        shares_memory: namespaces.ipc != Namespace::Host,
        cgroup_parent: Some(config.cgroup_parent.clone()).filter(|parent| !parent.is_empty()),
        container,
        spec,
    })
}

fn spec(config: &SandboxConfig, id: &str, network: &str) -> Result<oci::Spec, Error> {
    const OPTIONS: &str = "linux.security_context.namespace_options";
    let target = [("network", config.network), ("pid", config.pid), ("ipc", config.ipc)];
    if let Some((kind, _)) = target.into_iter().find(|(_, mode)| *mode == Mode::Target) {
        let advice = "only a container can name another one as its target";
        return Err(Error::unsupported(format!("{OPTIONS}.{kind}: TARGET"), advice));
    }
    let mut namespaces = vec![namespace_of(Kind::Mount, None)];
    if config.network == Mode::Node {
        if !network.is_empty() {
            let wrong = "is there although the pod is on the host's network";
            return Err(Error::invalid("netns_path", network, wrong));
        }
    } else {
        path::check_absolute(&"netns_path", network)?;
        namespaces.push(namespace_of(Kind::Network, Some(network)));
        namespaces.push(namespace_of(Kind::Uts, None));
    }
    // Always one of its own, also where no container is to share it: a container that asks for the pod's must not get
    // the host's.
    if config.pid != Mode::Node {
        namespaces.push(namespace_of(Kind::Pid, None));
    }
    if config.ipc != Mode::Node {
        namespaces.push(namespace_of(Kind::Ipc, None));
    }
    let mut sysctls: HashMap<_, _> = config.sysctls.clone().into_iter().collect();
    if config.network != Mode::Node {
        let defaults = [Some(PORTS), config.user.is_none().then_some(PING)];
        for (key, value) in defaults.into_iter().flatten() {
            let same = |other: &String| other.replace('/', ".") == key;
            if !sysctls.keys().any(same) {
                sysctls.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    let mut linux = oci::Linux::default();
    if let Some((uids, gids)) = &config.user {
        namespaces.push(namespace_of(Kind::User, None));
        linux
            .set_uid_mappings(Some(lines(uids)))
            .set_gid_mappings(Some(lines(gids)));
    }
    linux
        .set_namespaces(Some(namespaces))
        .set_sysctl(Some(sysctls))
        .set_resources(None)
        .set_masked_paths(None)
        .set_readonly_paths(None);
    let mut spec = oci::Spec::default();
    spec.set_version("1.1.0".into())
        .set_process(None)
        .set_root(None)
        .set_mounts(None)
        .set_hostname(Some(config.hostname.clone()).filter(|name| !name.is_empty()))
        .set_annotations(Some(annotations(config, id)))
        .set_linux(Some(linux));
    Ok(spec)
}

fn namespace_of(kind: Kind, path: Option<&str>) -> oci::LinuxNamespace {
    let mut namespace = oci::LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path.map(PathBuf::from));
    namespace
}

fn lines(map: &[IdMap]) -> Vec<oci::LinuxIdMapping> {
    let line = |line: &IdMap| {
        let mapping = oci::LinuxIdMappingBuilder::default()
            .container_id(line.container)
            .host_id(line.host)
            .size(line.size);
        mapping.build().expect("all that a line of a map has is there")
    };
    map.iter().map(line).collect()
}

/// As containerd writes them to a pause container's spec.
fn annotations(config: &SandboxConfig, id: &str) -> HashMap<String, String> {
    [
        ("container-type", "sandbox"),
        ("sandbox-id", id),
        ("sandbox-name", &config.name),
        ("sandbox-namespace", &config.namespace),
        ("sandbox-uid", &config.uid),
        ("sandbox-log-directory", &config.log_directory),
    ]
    .map(|(key, value)| (format!("io.kubernetes.cri.{key}"), value.to_owned()))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = "/run/netns/cni-1";

    fn translated(config: &SandboxConfig, network: &str) -> Result<Sandbox, Error> {
        translate(config, "pod1", Path::new("/bundle"), network)
    }

    fn error(config: &SandboxConfig, network: &str) -> String {
        translated(config, network).unwrap_err().to_string()
    }

    fn sysctl<'a>(sandbox: &'a Sandbox, key: &str) -> Option<&'a str> {
        let mut sysctls = sandbox.container.sysctls.iter();
        sysctls.find(|(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn an_ordinary_pod_has_namespaces_of_its_own_in_the_network_that_it_is_given() {
        let config = SandboxConfig {
            hostname: "web".into(),
            cgroup_parent: "/kubepods/pod1".into(),
            ..SandboxConfig::default()
        };
        let sandbox = translated(&config, NETWORK).unwrap();
        let namespaces = &sandbox.container.namespaces;
        assert_eq!(namespaces.net, Namespace::Path(NETWORK.into()));
        for namespace in [&namespaces.uts, &namespaces.ipc, &namespaces.pid] {
            assert_eq!(*namespace, Namespace::New);
        }
        assert_eq!(namespaces.user, Namespace::Host);
        assert_eq!(sandbox.container.hostname.as_deref(), Some("web"));
        assert_eq!(sandbox.cgroup_parent.as_deref(), Some("/kubepods/pod1"));
        assert!(sandbox.shares_memory && !sandbox.user_of_network);
        assert_eq!(sysctl(&sandbox, "net/ipv4/ip_unprivileged_port_start"), Some("0"));
        assert_eq!(sysctl(&sandbox, "net/ipv4/ping_group_range"), Some("0 2147483647"));
        let annotations = sandbox.spec.annotations().as_ref().unwrap();
        assert_eq!(annotations["io.kubernetes.cri.sandbox-id"], "pod1");
    }

    #[test]
    fn a_pod_that_shares_no_processes_has_a_pid_namespace_all_the_same() {
        let config = SandboxConfig {
            pid: Mode::Container,
            ..SandboxConfig::default()
        };
        assert_eq!(
            translated(&config, NETWORK).unwrap().container.namespaces.pid,
            Namespace::New
        );
    }

    #[test]
    fn what_is_the_host_s_stays_the_host_s() {
        let config = SandboxConfig {
            network: Mode::Node,
            pid: Mode::Node,
            ipc: Mode::Node,
            ..SandboxConfig::default()
        };
        let sandbox = translated(&config, "").unwrap();
        let namespaces = &sandbox.container.namespaces;
        for namespace in [&namespaces.net, &namespaces.uts, &namespaces.ipc, &namespaces.pid] {
            assert_eq!(*namespace, Namespace::Host);
        }
        assert!(!sandbox.shares_memory && sandbox.container.sysctls.is_empty());
    }

    #[test]
    fn a_user_namespace_is_that_of_the_network_or_a_new_one() {
        let map = vec![IdMap {
            container: 0,
            host: 100_000,
            size: 65536,
        }];
        let mut config = SandboxConfig {
            user: Some((map.clone(), map)),
            ..SandboxConfig::default()
        };
        let sandbox = translated(&config, NETWORK).unwrap();
        assert!(sandbox.user_of_network);
        assert_eq!(sandbox.root, (100_000, 100_000));
        assert_eq!(sysctl(&sandbox, "net/ipv4/ping_group_range"), None);
        config.network = Mode::Node;
        assert!(!translated(&config, "").unwrap().user_of_network);
        config.user = Some((Vec::new(), Vec::new()));
        assert_eq!(error(&config, ""), "linux.uidMappings is missing");
    }

    #[test]
    fn the_pod_s_own_settings_go_before_the_defaults() {
        let config = SandboxConfig {
            sysctls: [("net/ipv4/ip_unprivileged_port_start".to_owned(), "80".to_owned())].into(),
            ..SandboxConfig::default()
        };
        let sandbox = translated(&config, NETWORK).unwrap();
        assert_eq!(sysctl(&sandbox, "net/ipv4/ip_unprivileged_port_start"), Some("80"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let plain = SandboxConfig::default();
        assert_eq!(error(&plain, ""), "netns_path is missing");
        assert!(error(&plain, "netns").starts_with("netns_path: \"netns\" "));
        let target = SandboxConfig {
            pid: Mode::Target,
            ..plain.clone()
        };
        assert!(error(&target, NETWORK).contains("namespace_options.pid: TARGET"));
        let on_host = SandboxConfig {
            network: Mode::Node,
            hostname: "web".into(),
            ..plain.clone()
        };
        assert_eq!(
            error(&on_host, ""),
            "hostname: the container needs its own uts namespace for this"
        );
        let sysctls = SandboxConfig {
            sysctls: [("kernel.panic".to_owned(), "1".to_owned())].into(),
            ..plain
        };
        assert!(error(&sysctls, NETWORK).contains("kernel.panic"));
    }
}
