//! What this node would make of a bundle.

use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;
use runtime_core::bundle::{self, Bundle};
use runtime_core::cgroup;
use runtime_core::egress;
use runtime_core::host;
use runtime_core::plan::{self, Domain, Namespace, Plan};
use runtime_core::policy::{self, Layer, Policy, toml};
use runtime_core::security::seccomp::named;

use crate::report::{Report, capabilities};

/// Why a bundle cannot be explained. What a create would be refused for is among it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the bundle {path:?}")]
    Bundle { path: PathBuf, source: bundle::Error },
    #[error("read {path:?}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Node(#[from] policy::node::Error),
    #[error(transparent)]
    Policy(#[from] policy::Error),
    #[error(transparent)]
    PolicyFile(#[from] policy::profiles::Error),
    #[error(transparent)]
    Profile(#[from] named::Error),
    #[error("a container of {path:?} would be refused")]
    Plan { path: PathBuf, source: plan::Error },
}

/// What the node and the handler say.
#[derive(Debug, Default)]
pub struct Layers {
    pub node: Layer,
    pub handler: Layer,
}

impl Layers {
    /// Of the handler's options in the file `options`, and of the node's configuration, in `config` or where it is.
    pub fn read(options: Option<&Path>, config: Option<&Path>) -> Result<Self, Error> {
        Ok(Self {
            node: match config {
                Some(path) => policy::node::parse(&path.display().to_string(), &read(path)?)?,
                None => policy::node::read()?,
            },
            handler: options.map_or(Ok(Layer::default()), |path| {
                handler(&path.display().to_string(), &read(path)?)
            })?,
        })
    }
}

impl Layers {
    /// What holds for a pod with these annotations, files that it names itself included.
    pub fn policy<'a>(&self, annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Policy, Error> {
        let mut policy = policy::resolve(&self.node, &self.handler, annotations)?;
        policy::profiles::tighten(&mut policy)?;
        Ok(policy)
    }
}

/// What a spec is translated under: this machine, and `policy`.
pub fn request(spec: &oci::Spec, policy: &Policy) -> Result<plan::Request, Error> {
    Ok(plan::Request {
        id: "explained".into(),
        systemd: host::systemd_runs(),
        host_capabilities: host::capabilities(),
        lsms: host::lsms(),
        cgroup_v2: cgroup::mode().is_ok_and(|mode| mode == cgroup::Mode::V2),
        landlock_abi: host::landlock_abi(),
        kernel: host::Kernel::read(policy),
        seccomp_profiles: named::read(policy)?,
        name_servers: egress::name_servers(spec, policy),
        pod_volumes: plan::pod_volumes(spec, policy),
        policy: policy.clone(),
        ..plan::Request::default()
    })
}

/// The policy and the Plan for `directory`, under the given configurations.
pub fn explain(directory: &Path, layers: &Layers, with_spec: bool) -> Result<Report, Error> {
    let path = std::path::absolute(directory).map_err(|source| Error::Read {
        path: directory.to_owned(),
        source,
    })?;
    let bundle = Bundle::open(&path).map_err(|source| Error::Bundle {
        path: path.clone(),
        source,
    })?;
    let annotations = bundle.spec.annotations().iter().flatten();
    let annotations = annotations.map(|(key, value)| (key.as_str(), value.as_str()));
    let policy = layers.policy(annotations)?;
    let request = request(&bundle.spec, &policy)?;
    let plan = plan::translate_owned(bundle, &request).map_err(|source| Error::Plan {
        path: path.clone(),
        source,
    })?;
    Ok(Report {
        about: format!("bundle {}", path.display()),
        policy,
        enforced: enforced(&plan),
        spec: with_spec.then(|| serde_json::to_value(&plan.spec).unwrap_or_default()),
    })
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// The settings among a handler's options; the rest of them is containerd's.
fn handler(place: &str, text: &str) -> Result<Layer, Error> {
    let entries = toml::parse(text).map_err(|source| policy::Error::Toml {
        place: place.to_owned(),
        source,
    })?;
    let mut layer = Layer::default();
    for entry in entries {
        if !matches!(entry.key.as_str(), "SystemdCgroup" | "TypeUrl" | "ConfigPath") {
            layer.set_entry(place, &entry)?;
        }
    }
    Ok(layer)
}

/// What a Plan comes to.
pub fn enforced(plan: &Plan) -> Vec<(&'static str, String)> {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let (process, container) = (&plan.process, &plan.container);
    let sets = process.capabilities.unwrap_or_default();
    let domain = container.domain.as_ref();
    let names = &container.namespaces;
    let kinds = [
        ("user", &names.user),
        ("mount", &names.mount),
        ("pid", &names.pid),
        ("net", &names.net),
        ("ipc", &names.ipc),
        ("uts", &names.uts),
        ("cgroup", &names.cgroup),
        ("time", &names.time),
    ];
    let of = |wanted: fn(&Namespace) -> bool| {
        let kinds: Vec<&str> = kinds
            .iter()
            .filter(|(_, found)| wanted(found))
            .map(|(kind, _)| *kind)
            .collect();
        if kinds.is_empty() {
            "none".to_owned()
        } else {
            kinds.join(", ")
        }
    };
    vec![
        ("user", format!("{}:{}", process.uid, process.gid)),
        ("capabilities", capabilities(sets.bounding | sets.permitted)),
        ("no_new_privs", yes(process.no_new_privileges)),
        (
            "system calls",
            match process.seccomp.iter().map(|filter| filter.program.len()).sum::<usize>() {
                0 => "not filtered".into(),
                instructions => format!("filtered by {instructions} instructions"),
            },
        ),
        ("Landlock", domain.map_or("no domain".to_owned(), landlock)),
        ("write or execute, not both", yes(process.deny_write_execute)),
        (
            "connections to outside",
            match &container.egress {
                None => "anywhere".into(),
                Some(allowed) if allowed.is_empty() => "none".into(),
                Some(allowed) => allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            },
        ),
        ("read-only root", yes(container.rootfs.readonly)),
        ("masked paths", container.masked_paths.len().to_string()),
        ("read-only paths", container.readonly_paths.len().to_string()),
        ("namespaces of its own", of(|namespace| *namespace == Namespace::New)),
        (
            "namespaces joined",
            of(|namespace| matches!(namespace, Namespace::Path(_))),
        ),
        ("namespaces of the host", of(|namespace| *namespace == Namespace::Host)),
    ]
}

/// What a domain takes away.
fn landlock(domain: &Domain) -> String {
    let or_nowhere = |list: String| if list.is_empty() { "nowhere".to_owned() } else { list };
    let mut parts = vec!["no mounting".to_owned()];
    if domain.scope_abstract_sockets {
        parts.push("no foreign abstract sockets".to_owned());
    }
    if domain.scope_signals {
        parts.push("no signals to outside".to_owned());
    }
    for (what, paths) in [
        ("executes", &domain.execute),
        ("reads", &domain.read),
        ("writes", &domain.write),
        ("writes", &domain.writable_mounts),
        ("ioctls", &domain.ioctl),
    ] {
        let paths = paths.as_ref().map(|paths| or_nowhere(paths.join(", ")));
        parts.extend(paths.map(|paths| format!("{what} in {paths}")));
    }
    for (what, ports) in [("listens at", &domain.tcp_bind), ("connects to", &domain.tcp_connect)] {
        let text = |ports: &Vec<u16>| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let ports = ports.as_ref().map(|ports| or_nowhere(text(ports)));
        parts.extend(ports.map(|ports| format!("{what} TCP ports {ports}")));
    }
    parts
        .join("; ")
        .replace("in nowhere", "nowhere")
        .replace("TCP ports nowhere", "no TCP port")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{
        "ociVersion": "1.2.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "env": [], "cwd": "/", "noNewPrivileges": false,
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN"]}},
        "root": {"path": "rootfs"},
        "annotations": {"nucleus.dev/capabilities.allow": "CAP_KILL"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
    }"#;

    #[test]
    fn a_bundle_is_explained_with_who_decided_each_setting() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        file("config.json", CONFIG);
        let config = file("node.toml", "version = 1\nno_new_privs = true\n");
        let options = file("handler.toml", "SystemdCgroup = true\n[landlock]\ntier = 'none'\n");
        let report = explain(
            directory.path(),
            &Layers::read(Some(&options), Some(&config)).unwrap(),
            true,
        )
        .unwrap();
        let json = report.json();
        assert_eq!(
            json["settings"]["no_new_privs"],
            serde_json::json!({"value": "true", "from": "node"})
        );
        assert_eq!(json["settings"]["landlock.tier"]["from"], "handler");
        assert_eq!(json["settings"]["capabilities.allow"]["from"], "pod");
        assert_eq!(json["enforced"]["capabilities"], "1: CAP_KILL");
        assert_eq!(json["enforced"]["no_new_privs"], "yes");
        assert_eq!(json["spec"]["process"]["noNewPrivileges"], true);
        let text = report.to_string();
        assert!(
            text.contains("the node's configuration") && text.contains("no domain"),
            "{text}"
        );
    }

    #[test]
    fn a_domain_is_told_by_what_it_takes_away() {
        let domain = Domain {
            scope_signals: true,
            write: Some(vec!["/data".into(), "/tmp".into()]),
            execute: Some(vec![]),
            tcp_connect: Some(vec![]),
            tcp_bind: Some(vec![80, 443]),
            ..Domain::default()
        };
        assert_eq!(
            landlock(&domain),
            "no mounting; no signals to outside; executes nowhere; writes in /data, /tmp; listens at TCP ports 80, \
             443; \
             connects to no TCP port"
        );
    }

    #[test]
    fn what_would_be_refused_is_told_by_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), CONFIG).unwrap();
        let config = directory.path().join("node.toml");
        std::fs::write(&config, "version = 1\nmode = 'production'\n").unwrap();
        let error = explain(directory.path(), &Layers::read(None, Some(&config)).unwrap(), false).unwrap_err();
        let text = runtime_core::error_chain::chain(&error);
        assert!(
            text.contains("would be refused") && text.contains("require.memory_limit"),
            "{text}"
        );
    }
}
