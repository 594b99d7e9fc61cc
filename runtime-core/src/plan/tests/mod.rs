//! Whole specs, translated.

mod container;
mod mount;
mod namespace;
mod policy;
mod process;
mod seccomp;

use serde_json::{Value, json};

use super::*;

/// What `ctr run` writes for a container, in the parts that matter.
pub(super) fn base() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]},
            "args": ["sleep", "60"],
            "env": ["PATH=/bin", "A=1", "B=2", "A=3"],
            "cwd": "/",
            "capabilities": {
                "bounding": ["CAP_CHOWN", "CAP_KILL"],
                "effective": ["CAP_CHOWN", "CAP_KILL"],
                "permitted": ["CAP_CHOWN", "CAP_KILL"]
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]},
            {"destination": "/etc/hosts", "type": "bind", "source": "hosts", "options": ["rbind", "rprivate", "ro"]}
        ],
        "annotations": {"b": "2", "a": "1"},
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "cgroupsPath": "/default/c1",
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}],
            "maskedPaths": ["/proc/acpi"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

/// [`base`] with one value put at a JSON pointer; `null` takes it away.
fn with(pointer: &str, value: Value) -> Value {
    let mut spec = base();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = spec
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("{pointer} has no parent"));
    match parent {
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        parent => parent[key] = value,
    }
    spec
}

fn translated_with(spec: Value, request: &Request) -> Result<Plan, String> {
    let spec = serde_json::from_value(spec).unwrap();
    translate(
        &Bundle {
            dir: "/run/b".into(),
            spec,
        },
        request,
    )
    .map_err(|error| error.to_string())
}

fn translated(spec: Value) -> Result<Plan, String> {
    translated_with(
        spec,
        &Request {
            id: "c1".into(),
            ..Request::default()
        },
    )
}

/// `(pointer, value, error)`: the error is matched as a whole, or up to a final `…`.
fn assert_refused(cases: Vec<(&str, Value, &str)>) {
    for (pointer, value, expected) in cases {
        let error = translated(with(pointer, value.clone())).expect_err(&format!("{pointer} = {value} is accepted"));
        match expected.strip_suffix('…') {
            Some(start) => assert!(error.starts_with(start), "{pointer}: {error}\n  lacks {start}"),
            None => assert_eq!(error, expected, "{pointer}"),
        }
    }
}

#[test]
fn an_ordinary_spec_becomes_a_plan() {
    let plan = translated(base()).unwrap();
    assert_eq!((plan.id.as_str(), plan.cgroup.as_str()), ("c1", "/default/c1"));
    let container = &plan.container;
    assert_eq!(container.rootfs.path, Path::new("/run/b/rootfs"));
    assert_eq!(
        container.annotations,
        [("a".into(), "1".into()), ("b".into(), "2".into())]
    );
    assert_eq!(
        (&container.namespaces.pid, &container.namespaces.user),
        (&Namespace::New, &Namespace::Host)
    );
    assert!(container.default_dev);
    assert_eq!(container.devices.len(), 6);
    let [proc, dev, cgroup, hosts] = container.mounts.as_slice() else {
        panic!("{:?}", container.mounts)
    };
    assert_eq!(
        proc.source,
        MountSource::New {
            kind: "proc".into(),
            source: "proc".into()
        }
    );
    assert_eq!(proc.set, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV);
    assert_eq!(
        (dev.set, dev.clear),
        (MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME)
    );
    assert_eq!(dev.data, ["mode=755", "size=65536k"]);
    assert_eq!(
        (&cgroup.source, cgroup.set),
        (&MountSource::Cgroup, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID)
    );
    assert_eq!(
        hosts.source,
        MountSource::Bind {
            path: "/run/b/hosts".into(),
            recursive: true
        }
    );
    assert_eq!(hosts.propagation, [libc::MS_PRIVATE | libc::MS_REC]);
    let process = &plan.process;
    assert_eq!(process.env, ["PATH=/bin", "B=2", "A=3"]);
    assert_eq!(process.groups, [0, 10]);
    assert!(process.no_new_privileges);
    assert_eq!(
        process.rlimits,
        [Rlimit {
            resource: 7,
            soft: 512,
            hard: 1024
        }]
    );
    assert_eq!(process.capabilities.unwrap().bounding, 0b100001);
}

#[test]
fn a_plan_survives_being_written_down() {
    let plan = translated(base()).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    let back: Plan = serde_json::from_str(&text).unwrap();
    assert_eq!(
        serde_json::to_string(&back.container.mounts).unwrap(),
        serde_json::to_string(&plan.container.mounts).unwrap()
    );
    assert_eq!(back.spec, plan.spec);
}
