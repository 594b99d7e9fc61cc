//! The OCI spec of a container, as containerd's CRI service would write it out of what a manifest says; and what only
//! the node knows.

use serde_json::{Value, json};

use super::pods::Pod;

/// A spec, and what is not in it because no manifest says it.
#[derive(Debug)]
pub struct Translated {
    pub spec: Value,
    pub unknown: Vec<String>,
}

/// What containerd gives a container that says nothing of capabilities.
const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The spec of `container` in `pod`.
pub fn of(pod: &Pod, container: &Value) -> Translated {
    let mut unknown = vec!["the image's program, environment, groups and labels".to_owned()];
    let (own, pods) = (&container["securityContext"], &pod.spec["securityContext"]);
    // A container's word counts before its pod's.
    let said = |field: &str| {
        if own[field].is_null() {
            &pods[field]
        } else {
            &own[field]
        }
    };
    let privileged = own["privileged"] == true;
    if said("runAsUser").is_null() {
        unknown.push("its user: the image's, shown as 0".to_owned());
    }
    let seccomp = match said("seccompProfile")["type"].as_str() {
        _ if privileged => None,
        Some("RuntimeDefault") => Some("containerd's default filter of system calls".to_owned()),
        Some("Localhost") => Some(format!(
            "the filter of system calls in kubelet's {}",
            said("seccompProfile")["localhostProfile"]
                .as_str()
                .unwrap_or("directory")
        )),
        Some(_) => None,
        None => {
            Some("whether kubelet gives it containerd's default filter of system calls (seccompDefault)".to_owned())
        }
    };
    unknown.extend(seccomp);
    if let Some(kind) = said("appArmorProfile")["type"].as_str() {
        unknown.push(format!("its AppArmor profile, {kind}"));
    }
    if !said("seLinuxOptions").is_null() {
        unknown.push("its SELinux label".to_owned());
    }
    let sets = capabilities(own, privileged);
    let mut spec = json!({
        "ociVersion": "1.1.0",
        "process": {
            "user": {
                "uid": said("runAsUser").as_u64().unwrap_or(0),
                "gid": said("runAsGroup").as_u64().unwrap_or(0),
                "additionalGids": pods["supplementalGroups"].as_array().cloned().unwrap_or_default(),
            },
            "args": args(container),
            "cwd": container["workingDir"].as_str().unwrap_or("/"),
            "noNewPrivileges": own["allowPrivilegeEscalation"] == false,
            "capabilities": {"bounding": sets, "permitted": sets, "effective": sets},
        },
        "root": {"path": "rootfs", "readonly": own["readOnlyRootFilesystem"] == true},
        "mounts": mounts(pod, container, privileged, &mut unknown),
        "annotations": pod.annotations,
        "linux": {
            "namespaces": namespaces(pod, &mut unknown),
            "resources": resources(container, &mut unknown),
        },
    });
    spec["annotations"]["io.kubernetes.cri.container-type"] = json!("container");
    if !privileged && own["procMount"] != "Unmasked" {
        spec["linux"]["maskedPaths"] = json!(MASKED);
        spec["linux"]["readonlyPaths"] = json!(READ_ONLY);
    }
    if privileged {
        unknown.push("the host's devices, all of which it has".to_owned());
    }
    Translated { spec, unknown }
}

fn args(container: &Value) -> Vec<String> {
    let of = |field: &str| container[field].as_array().cloned().unwrap_or_default();
    let words = of("command").into_iter().chain(of("args"));
    let words: Vec<String> = words.filter_map(|word| word.as_str().map(str::to_owned)).collect();
    match words.is_empty() {
        true => vec!["(the image's)".to_owned()],
        false => words,
    }
}

fn capabilities(own: &Value, privileged: bool) -> Vec<String> {
    let all = || {
        runtime_core::plan::CAPABILITY_NAMES
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    if privileged {
        return all();
    }
    let named = |field: &str| -> Vec<String> {
        let names = own["capabilities"][field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        names
            .map(|name| name.trim_start_matches("CAP_").to_ascii_uppercase())
            .collect()
    };
    let (add, drop) = (named("add"), named("drop"));
    let is_all = |names: &[String]| names.iter().any(|name| name == "ALL");
    let mut sets = match (is_all(&add), is_all(&drop)) {
        (true, _) => all(),
        (false, true) => Vec::new(),
        (false, false) => CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect(),
    };
    for name in add
        .iter()
        .filter(|name| *name != "ALL")
        .map(|name| format!("CAP_{name}"))
    {
        if !sets.contains(&name) {
            sets.push(name);
        }
    }
    sets.retain(|name| {
        !drop
            .iter()
            .any(|dropped| Some(dropped.as_str()) == name.strip_prefix("CAP_"))
    });
    sets
}

fn mounts(pod: &Pod, container: &Value, privileged: bool, unknown: &mut Vec<String>) -> Vec<Value> {
    let new = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    let mut mounts = vec![
        new("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        new("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        new(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        new("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        new(
            "/sys",
            "sysfs",
            if privileged {
                &["nosuid", "noexec", "nodev"]
            } else {
                &["nosuid", "noexec", "nodev", "ro"]
            },
        ),
        new(
            "/sys/fs/cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
        new("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
    ];
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        let name = mount["name"].as_str().unwrap_or_default();
        let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
        let Some(volume) = volumes.into_iter().find(|volume| volume["name"] == name) else {
            unknown.push(format!("the volume {name:?}, which the manifest does not define"));
            continue;
        };
        let mut options = vec![
            "rbind",
            match mount["mountPropagation"].as_str() {
                Some("Bidirectional") => "rshared",
                Some("HostToContainer") => "rslave",
                _ => "rprivate",
            },
        ];
        options.push(if mount["readOnly"] == true { "ro" } else { "rw" });
        let source = match (source(name, volume), mount["subPath"].as_str()) {
            (source, None) => source,
            _ if volume["hostPath"].is_null() => format!(
                "{POD}/volume-subpaths/{name}/{}/0",
                container["name"].as_str().unwrap_or("c")
            ),
            (source, Some(part)) => format!("{source}/{part}"),
        };
        mounts.push(json!({"destination": mount["mountPath"], "type": "bind", "source": source, "options": options}));
    }
    unknown.push("what is mounted for its service account, and its hosts and resolv.conf".to_owned());
    mounts
}

/// Where kubelet keeps a pod's volumes, its uid being known later.
const POD: &str = "/var/lib/kubelet/pods/uid";

fn source(name: &str, volume: &Value) -> String {
    if let Some(path) = volume["hostPath"]["path"].as_str() {
        return path.to_owned();
    }
    let kind = volume
        .as_object()
        .into_iter()
        .flatten()
        .map(|(kind, _)| kind.as_str())
        .find(|kind| *kind != "name");
    let (plugin, name) = match kind.unwrap_or("emptyDir") {
        "configMap" => ("configmap", name.to_owned()),
        "secret" => ("secret", name.to_owned()),
        "projected" => ("projected", name.to_owned()),
        "downwardAPI" => ("downward-api", name.to_owned()),
        "emptyDir" => ("empty-dir", name.to_owned()),
        // Of a persistent one the node knows which it is.
        _ => ("csi", format!("{name}/mount")),
    };
    format!("{POD}/volumes/kubernetes.io~{plugin}/{name}")
}

fn namespaces(pod: &Pod, unknown: &mut Vec<String>) -> Vec<Value> {
    let joined = |kind: &str| {
        let name = if kind == "network" { "net" } else { kind };
        json!({"type": kind, "path": format!("/proc/1/ns/{name}")})
    };
    let is = |field: &str| pod.spec[field] == true;
    let mut namespaces = vec![json!({"type": "mount"}), joined("uts")];
    if !is("hostNetwork") {
        namespaces.push(joined("network"));
    }
    if !is("hostIPC") {
        namespaces.push(joined("ipc"));
    }
    match (is("hostPID"), is("shareProcessNamespace")) {
        (true, _) => {}
        (false, true) => namespaces.push(joined("pid")),
        (false, false) => namespaces.push(json!({"type": "pid"})),
    }
    if pod.spec["hostUsers"] == false {
        namespaces.push(joined("user"));
        unknown.push("which ids of the host its user namespace has".to_owned());
    }
    namespaces
}

fn resources(container: &Value, unknown: &mut Vec<String>) -> Value {
    let limit = &container["resources"]["limits"]["memory"];
    let text = limit
        .as_str()
        .map(str::to_owned)
        .or_else(|| limit.as_number().map(ToString::to_string));
    match text.as_deref().map(bytes) {
        None => json!({}),
        Some(Some(bytes)) => json!({"memory": {"limit": bytes}}),
        Some(None) => {
            unknown.push(format!("its memory limit: {} is no quantity", text.unwrap_or_default()));
            json!({})
        }
    }
}

/// A quantity (resource.Quantity): a number, perhaps with a fraction, and a suffix by powers of 1000 or of 1024.
fn bytes(text: &str) -> Option<i64> {
    const SUFFIXES: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("m", 0.001),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let suffix = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (number, factor) = suffix.unwrap_or((text, 1.0));
    let value = number
        .parse::<f64>()
        .ok()
        .filter(|value| value.is_finite() && *value >= 0.0)?
        * factor;
    Some(value.ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("64Mi", Some(64 << 20)),
            ("1.5Gi", Some(3 << 29)),
            ("128974848", Some(128_974_848)),
            ("129e6", Some(129_000_000)),
            ("129M", Some(129_000_000)),
            ("128974848000m", Some(128_974_848)),
            ("much", None),
            ("-1", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn capabilities_are_added_to_and_dropped_from_containerd_s_own() {
        let of = |own: Value| capabilities(&own, false);
        assert_eq!(of(json!({})).len(), 14);
        assert_eq!(
            of(json!({"capabilities": {"drop": ["ALL"], "add": ["net_admin"]}})),
            ["CAP_NET_ADMIN"]
        );
        assert_eq!(of(json!({"capabilities": {"drop": ["CAP_KILL"]}})).len(), 13);
        assert!(of(json!({"capabilities": {"add": ["ALL"], "drop": ["SYS_ADMIN"]}})).len() > 35);
        assert!(capabilities(&json!({}), true).contains(&"CAP_SYS_ADMIN".to_owned()));
    }
}
