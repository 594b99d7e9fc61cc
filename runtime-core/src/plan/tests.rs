//! Whole specs, translated.

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

#[test]
fn processes_that_make_no_sense_are_refused_by_field() {
    assert_refused(vec![
        ("/process", Value::Null, "process is missing"),
        ("/root", Value::Null, "root is missing"),
        ("/linux", Value::Null, "linux is missing"),
        ("/process/args", json!([]), "process.args is missing"),
        ("/process/args", Value::Null, "process.args is missing"),
        ("/process/args", json!([""]), "process.args[0] is missing"),
        (
            "/process/args",
            json!(["a", "b\0"]),
            r#"process.args: "b\0" has a NUL in it"#,
        ),
        ("/process/cwd", json!(""), "process.cwd is missing"),
        (
            "/process/cwd",
            json!("tmp"),
            r#"process.cwd: "tmp" is not an absolute path"#,
        ),
        (
            "/process/cwd",
            json!("/t\0mp"),
            r#"process.cwd: "/t\0mp" has a NUL in it"#,
        ),
        ("/process/cwd", json!("/a".repeat(10_000)), r#"process.cwd: "/a/a/a…"#),
        ("/process/env", json!(["PATH"]), r#"process.env: "PATH" has no `=`"#),
        (
            "/process/env",
            json!(["=x"]),
            r#"process.env: "=x" has no name before the `=`"#,
        ),
        (
            "/process/env",
            json!(["A=\0"]),
            r#"process.env: "A=\0" has a NUL in it"#,
        ),
        (
            "/process/user/uid",
            json!(4294967295u32),
            "process.user.uid: 4294967295 is nobody's id",
        ),
        (
            "/process/user/gid",
            json!(4294967295u32),
            "process.user.gid: 4294967295 is nobody's id",
        ),
        (
            "/process/user/additionalGids",
            json!([4294967295u32]),
            "process.user.additionalGids: 4294967295 is nobody's id",
        ),
        (
            "/process/user/umask",
            json!(0o1000),
            "process.user.umask: 512 is not a file mode mask",
        ),
        (
            "/process/user/username",
            json!("me"),
            "process.user.username is not supported: it is for Windows; …",
        ),
        (
            "/process/commandLine",
            json!("cmd"),
            "process.commandLine is not supported: it is for Windows; …",
        ),
        (
            "/process/oomScoreAdj",
            json!(1001),
            "process.oomScoreAdj: 1001 is not between -1000 and 1000",
        ),
        (
            "/process/rlimits/-",
            json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}),
            r#"process.rlimits: "RLIMIT_NOFILE" is there twice"#,
        ),
        (
            "/process/rlimits/0",
            json!({"type": "RLIMIT_CORE", "soft": 2, "hard": 1}),
            "process.rlimits: RLIMIT_CORE: soft: 2 is above the hard limit",
        ),
        (
            "/process/apparmorProfile",
            json!("docker-default"),
            "process.apparmorProfile is not supported: …",
        ),
        (
            "/process/selinuxLabel",
            json!("system_u:x"),
            "process.selinuxLabel is not supported: …",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "nice": 20}),
            "process.scheduler.nice: 20 is not between -20 and 19",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "priority": 5}),
            "process.scheduler.priority: 5 is for SCHED_FIFO and SCHED_RR only",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO"}),
            "process.scheduler.priority: 0 is not between 1 and 99",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "period": 5}),
            "process.scheduler.period: 5 is for SCHED_DEADLINE only",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_ISO"}),
            "process.scheduler.policy is not supported: …",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            "process.ioPriority.priority: 8 is not between 0 and 7",
        ),
        (
            "/process/execCPUAffinity",
            json!({"initial": "0-4294967295"}),
            r#"process.execCPUAffinity.initial: "0-4294967295" is not a list of CPUs like 0-3,7"#,
        ),
        (
            "/process/execCPUAffinity",
            json!({"final": "3-1"}),
            r#"process.execCPUAffinity.final: "3-1" is not a list of CPUs like 0-3,7"#,
        ),
    ]);
}

#[test]
fn mounts_that_make_no_sense_are_refused_by_field() {
    let mount = |value: Value| ("/mounts/0", value);
    let refused = [
        (
            json!({"destination": "", "type": "tmpfs"}),
            "mounts[0].destination is missing",
        ),
        (
            json!({"destination": "/a\0", "type": "tmpfs"}),
            r#"mounts[0].destination: "/a\0" has a NUL in it"#,
        ),
        (
            json!({"destination": "/a".repeat(10_000), "type": "tmpfs"}),
            r#"mounts[0].destination: "/a/a…"#,
        ),
        (
            json!({"destination": "/", "type": "tmpfs"}),
            r#"mounts[0].destination: "/" is the rootfs itself"#,
        ),
        (
            json!({"destination": "/a/..", "type": "tmpfs"}),
            r#"mounts[0].destination: "/" is the rootfs itself"#,
        ),
        (
            json!({"destination": "/proc", "type": "tmpfs"}),
            r#"mounts[0].destination: "/proc" takes a mount of type proc only"#,
        ),
        (
            json!({"destination": "/x/../proc/self/attr", "source": "/x", "options": ["bind"]}),
            r#"mounts[0].destination: "/proc/self/attr" is inside /proc, where nothing may be mounted"#,
        ),
        (json!({"destination": "/a"}), "mounts[0].type is missing"),
        (
            json!({"destination": "/a", "type": "a/b"}),
            r#"mounts[0].type: "a/b" is not a file system type"#,
        ),
        (
            json!({"destination": "/a", "type": "bind"}),
            "mounts[0].source is missing",
        ),
        (
            json!({"destination": "/a", "source": "/s\0", "options": ["rbind"]}),
            r#"mounts[0].source: "/s\0" has a NUL in it"#,
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "options": ["remount"]}),
            r#"mounts[0].options: the option "remount" is not supported: …"#,
        ),
        (
            json!({"destination": "/a", "source": "/s", "options": ["rbind", "noexc"]}),
            r#"mounts[0].options: "noexc" means nothing for a bind; remove it"#,
        ),
        (
            json!({"destination": "/a", "source": "/s", "options": ["rbind", "sync"]}),
            r#"mounts[0].options: "sync" means nothing for a bind; remove it"#,
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "options": ["size=\0"]}),
            r#"mounts[0].options: "size=\0" has a NUL in it"#,
        ),
        (
            json!({"destination": "/a", "type": "proc", "options": ["tmpcopyup"]}),
            "mounts[0].options: tmpcopyup is not supported: …",
        ),
        (
            json!({"destination": "/a", "source": "/s", "options": ["bind", "idmap"]}),
            "mounts[0].options: idmap without mappings: the container needs a user namespace of its own for this",
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "options": ["idmap"],
                "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            "mounts[0].options: idmap is not supported: only binds can be mapped; leave it out",
        ),
        (
            json!({"destination": "/a", "source": "/s", "options": ["bind"],
                "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            "mounts[0].gidMappings is missing",
        ),
        (
            json!({"destination": "/a", "source": "/s", "options": ["bind"],
                "uidMappings": [{"containerID": 0, "hostID": 1, "size": 0}], "gidMappings": []}),
            r#"mounts[0].uidMappings[0]: "0 1 0" maps nothing: its size is 0"#,
        ),
    ];
    assert_refused(
        refused
            .into_iter()
            .map(|(value, error)| (mount(value), error))
            .map(|((p, v), e)| (p, v, e))
            .collect(),
    );
}

#[test]
fn destinations_are_cleaned_and_sources_are_below_the_bundle() {
    let mount = |value| translated(with("/mounts/0", value)).unwrap().container.mounts.remove(0);
    assert_eq!(
        mount(json!({"destination": "a/./b/", "type": "tmpfs"})).destination,
        "/a/b"
    );
    assert_eq!(
        mount(json!({"destination": "/../../etc/x", "type": "tmpfs"})).destination,
        "/etc/x"
    );
    assert_eq!(
        mount(json!({"destination": "/proc/uptime", "source": "/u", "type": "bind"})).destination,
        "/proc/uptime"
    );
    let bind = mount(json!({"destination": "/a", "source": "s", "type": "bind"}));
    assert_eq!(
        bind.source,
        MountSource::Bind {
            path: "/run/b/s".into(),
            recursive: false
        }
    );
    let disk = mount(json!({"destination": "/a", "source": "/dev/vdb", "type": "ext4", "options": ["ro", "sync"]}));
    assert_eq!(
        (disk.set, disk.superblock),
        (MOUNT_ATTR_RDONLY, vec!["sync".to_owned(), "ro".to_owned()])
    );
    let sysfs = mount(json!({"destination": "/sys", "source": "sysfs", "type": "sysfs", "options": ["ro"]}));
    assert_eq!((sysfs.set, sysfs.superblock.len()), (MOUNT_ATTR_RDONLY, 0));
}

#[test]
fn maps_on_a_mount_mean_the_mount_alone_unless_it_says_ridmap() {
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    for (option, recursive) in [("bind", false), ("idmap", false), ("ridmap", true)] {
        let mount = json!({"destination": "/a", "source": "/s", "type": "bind", "options": ["rbind", option],
            "uidMappings": map, "gidMappings": map});
        let mount = translated(with("/mounts/0", mount)).unwrap().container.mounts.remove(0);
        let expected = vec![IdMap {
            container: 0,
            host: 1000,
            size: 10,
        }];
        assert_eq!(
            mount.idmap,
            Some(MountIdMap {
                recursive,
                uid_map: expected.clone(),
                gid_map: expected
            }),
            "{option}"
        );
    }
}

#[test]
fn a_snapshotters_mounts_become_the_rootfs() {
    let mount = |kind: &str, source: &str, target: &str, options: &[&str]| RootfsMount {
        kind: kind.into(),
        source: source.into(),
        target: target.into(),
        options: options.iter().map(|option| option.to_string()).collect(),
    };
    let overlay = [
        "index=off",
        "workdir=/s/2/work",
        "upperdir=/s/2/fs",
        "lowerdir=/s/1/fs",
        "volatile",
        "uidmap=0:5:9",
    ];
    let request = |rootfs| Request {
        id: "c1".into(),
        rootfs,
        ..Request::default()
    };
    let rootfs = vec![
        mount("overlay", "overlay", "", &overlay),
        mount(
            "bind",
            "/data",
            "/srv/../data",
            &["rbind", "ro", "uidmap=0:1000:5,5:2000:1", "gidmap=0:1:1"],
        ),
        mount("erofs", "/s/3/layer.erofs", "", &["ro"]),
    ];
    let plan = translated_with(base(), &request(rootfs)).unwrap();
    let [root, data, layer] = plan.container.rootfs.mounts.as_slice() else {
        panic!()
    };
    assert_eq!(
        (root.destination.as_str(), root.data.as_slice()),
        ("/", overlay.map(String::from).as_slice())
    );
    assert_eq!((data.destination.as_str(), data.set), ("/data", MOUNT_ATTR_RDONLY));
    assert_eq!(
        data.idmap.as_ref().unwrap().uid_map[1],
        IdMap {
            container: 5,
            host: 2000,
            size: 1
        }
    );
    assert_eq!(layer.superblock, ["ro"]);

    let error = translated_with(
        base(),
        &request(vec![mount("bind", "/x", "", &["uidmap=a", "gidmap=b"])]),
    )
    .unwrap_err();
    assert_eq!(error, r#"rootfs[0].options: "a" is not a map like 0:100000:65536"#);
    let error = translated_with(base(), &request(vec![mount("", "/x", "", &[])])).unwrap_err();
    assert_eq!(error, "rootfs[0].type is missing");
}

#[test]
fn namespaces_and_maps_that_make_no_sense_are_refused_by_field() {
    let user = |maps: Value| {
        let mut linux = base()["linux"].clone();
        linux["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
        linux["uidMappings"] = maps.clone();
        linux["gidMappings"] = maps;
        linux
    };
    let line = |container: u64, host: u64, size: u64| json!({"containerID": container, "hostID": host, "size": size});
    let many: Vec<Value> = (0..341).map(|id| line(id, id, 1)).collect();
    assert_refused(vec![
        (
            "/linux/namespaces/-",
            json!({"type": "pid"}),
            r#"linux.namespaces[5].type: "pid" is there twice"#,
        ),
        (
            "/linux/namespaces/0",
            json!({"type": "pid", "path": "proc/1/ns/pid"}),
            r#"linux.namespaces[0].path: "proc/1/ns/pid" is not an absolute path"#,
        ),
        (
            "/linux/namespaces",
            json!([{"type": "pid"}]),
            "linux.namespaces: an entry of type mount is missing",
        ),
        (
            "/linux/uidMappings",
            json!([line(0, 0, 1)]),
            "linux.uidMappings: the container needs a user namespace of its own for this",
        ),
        ("/linux", user(json!([])), "linux.uidMappings is missing"),
        (
            "/linux",
            user(json!([line(1, 1, 5)])),
            "linux.uidMappings: 0 is not mapped in the container's user namespace",
        ),
        (
            "/linux",
            user(json!([line(0, 1, 0)])),
            r#"linux.uidMappings[0]: "0 1 0" maps nothing: its size is 0"#,
        ),
        (
            "/linux",
            user(json!([line(0, 1, 4294967295)])),
            r#"linux.uidMappings[0]: "0 1 4294967295" reaches beyond 4294967294, the last id"#,
        ),
        (
            "/linux",
            user(json!([line(0, 10, 5), line(5, 14, 1)])),
            r#"linux.uidMappings[1]: "5 14 1" overlaps an earlier line"#,
        ),
        (
            "/linux",
            user(json!([line(0, 10, 5), line(4, 100, 1)])),
            r#"linux.uidMappings[1]: "4 100 1" overlaps an earlier line"#,
        ),
        (
            "/linux",
            user(json!(many)),
            "linux.uidMappings: 341 lines are more than the 340 that the kernel takes",
        ),
        (
            "/linux",
            user(json!([line(0, 1000, 10)])),
            "process.user.additionalGids: 10 is not mapped in the container's user namespace",
        ),
        (
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 1}}),
            "linux.timeOffsets: the container needs a new time namespace of its own for this",
        ),
    ]);
    let mut spec = with("/linux/namespaces/-", json!({"type": "time"}));
    spec["linux"]["timeOffsets"] = json!({"monotonic": {"secs": -3, "nanosecs": 5}, "boottime": {"secs": 7}});
    assert_eq!(
        translated(spec.clone()).unwrap().container.namespaces.time_offsets,
        [(1, -3, 5), (7, 7, 0)]
    );
    spec["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}});
    let error = translated(spec.clone()).unwrap_err();
    assert_eq!(
        error,
        r#"linux.timeOffsets: "realtime" is neither monotonic nor boottime"#
    );
    spec["linux"]["timeOffsets"] = json!({"boottime": {"nanosecs": 1_000_000_000}});
    let error = translated(spec).unwrap_err();
    assert_eq!(
        error,
        "linux.timeOffsets.boottime.nanosecs: 1000000000 is a second or more"
    );
}

#[test]
fn in_a_user_namespace_of_its_own_a_container_can_have_what_the_host_lacks() {
    let mut spec = with("/linux/namespaces/-", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
    let request = Request {
        id: "c1".into(),
        host_capabilities: 1,
        ..Request::default()
    };
    assert_eq!(translated_with(spec, &request).unwrap().capability_limit, u64::MAX);
    let error = translated_with(base(), &request).unwrap_err();
    assert_eq!(
        error,
        "process.capabilities.bounding: this host does not have CAP_KILL; remove it, or give it to containerd"
    );
}

#[test]
fn sysctls_are_namespaced_and_strictly_named() {
    let set = |key: &str| ("/linux/sysctl", json!({key: "1"}));
    let name = |key: &str| format!("linux.sysctl: {key:?} is not the name of a kernel setting");
    for key in [
        "",
        "net",
        "net..ipv4",
        "net.ipv4.",
        ".net.ipv4",
        "../net/x",
        "net/../kernel/x",
        "/net/x",
        "net.a+b",
        "net.a\nb",
        "net.a b",
        "net.\0",
        "net.//.x",
        "net/./x",
    ] {
        let (pointer, value) = set(key);
        assert_eq!(translated(with(pointer, value)).unwrap_err(), name(key));
    }
    assert_refused(vec![
        (
            "/linux/sysctl",
            json!({"kernel.core_pattern": "|/x"}),
            r#"linux.sysctl: "kernel.core_pattern" is the whole host's, in no namespace of the container"#,
        ),
        (
            "/linux/sysctl",
            json!({"kernel.hostname": "x"}),
            r#"linux.sysctl: "kernel.hostname" has a field of its own: use `hostname`"#,
        ),
        (
            "/linux/sysctl",
            json!({"net.ipv4.ip_forward": "1", "net/ipv4/ip_forward": "0"}),
            r#"linux.sysctl: "net/ipv4/ip_forward" is there twice"#,
        ),
        (
            "/linux/sysctl",
            json!({"kernel.sem": "1\0"}),
            r#"linux.sysctl.kernel.sem: "1\0" has a NUL in it"#,
        ),
    ]);
    let mut host = with("/linux/sysctl", json!({"kernel.shmmax": "1"}));
    host["linux"]["namespaces"] = json!([{"type": "mount"}]);
    assert_eq!(
        translated(host).unwrap_err(),
        "linux.sysctl.kernel.shmmax: the container needs a ipc namespace of its own for this"
    );
    let spec = with(
        "/linux/sysctl",
        json!({"net.ipv4.conf.eno2/100.rp_filter": "1", "fs.mqueue.msg_max": "9", "net/ipv4/ip_forward": "1",
            "kernel.domainname": "d"}),
    );
    let paths: Vec<String> = translated(spec)
        .unwrap()
        .container
        .sysctls
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    assert_eq!(
        paths,
        [
            "fs/mqueue/msg_max",
            "kernel/domainname",
            "net/ipv4/conf/eno2.100/rp_filter",
            "net/ipv4/ip_forward"
        ]
    );
}

#[test]
fn names_devices_and_paths_that_make_no_sense_are_refused_by_field() {
    let device = |path: &str, kind: &str, major: i64| json!([{"path": path, "type": kind, "major": major, "minor": 1}]);
    assert_refused(vec![
        ("/hostname", json!("x".repeat(65)), r#"hostname: "xxx…"#),
        ("/domainname", json!("a\0"), r#"domainname: "a\0" has a NUL in it"#),
        ("/root/path", json!(""), "root.path is missing"),
        ("/root/path", json!("../x"), r#"root.path: "../x" has a `..` in it"#),
        (
            "/linux/maskedPaths/0",
            json!("proc"),
            r#"linux.maskedPaths[0]: "proc" is not an absolute path"#,
        ),
        (
            "/linux/readonlyPaths/0",
            json!("/a/.."),
            r#"linux.readonlyPaths[0]: "/a/.." is the rootfs itself"#,
        ),
        (
            "/linux/rootfsPropagation",
            json!("rrshared"),
            r#"linux.rootfsPropagation: "rrshared" is not one of (r)private, (r)slave, (r)shared, (r)unbindable"#,
        ),
        (
            "/linux/devices",
            device("dev/x", "c", 1),
            r#"linux.devices[0].path: "dev/x" is not an absolute path"#,
        ),
        (
            "/linux/devices",
            device("/", "c", 1),
            r#"linux.devices[0].path: "/" is not the path of a device"#,
        ),
        (
            "/linux/devices",
            device("/dev/x", "a", 1),
            r#"linux.devices[0].type: "a" is no device: …"#,
        ),
        (
            "/linux/devices",
            device("/dev/x", "c", -1),
            "linux.devices[0].major: -1 is not a device number",
        ),
        (
            "/linux/devices",
            device("/dev/x", "b", 4096),
            "linux.devices[0].major: 4096 is not a device number",
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 1},
                {"path": "/dev/./x", "type": "c", "major": 1, "minor": 2}]),
            r#"linux.devices[1].path: "/dev/x" is there twice"#,
        ),
        (
            "/linux/resources/devices/0",
            json!({"allow": true, "access": ""}),
            r#"linux.resources.devices[0].access: "" is not made of the letters r, w and m"#,
        ),
        (
            "/linux/resources/devices/0",
            json!({"allow": true, "access": "r", "type": "p"}),
            r#"linux.resources.devices[0].type: "p" is not one of a, b, c"#,
        ),
        (
            "/linux/resources/devices/0",
            json!({"allow": true, "access": "r", "major": -2}),
            "linux.resources.devices[0].major: -2 is not a device number",
        ),
        (
            "/linux/cgroupsPath",
            json!("/a/.."),
            r#"linux.cgroupsPath: "/a/.." is the root of all cgroups, …"#,
        ),
        (
            "/linux/cgroupsPath",
            json!("a\0"),
            r#"linux.cgroupsPath: "a\0" has a NUL in it"#,
        ),
        (
            "/linux/cgroupsPath",
            json!("system.slice:nucleus:c1"),
            r#"linux.cgroupsPath "system.slice:nucleus:c1" is not supported: the systemd cgroup driver …"#,
        ),
    ]);
    let mut host = with("/hostname", json!("web"));
    host["linux"]["namespaces"] = json!([{"type": "mount"}]);
    assert_eq!(
        translated(host).unwrap_err(),
        "hostname: the container needs a uts namespace of its own for this"
    );
    assert!(
        translated_with(
            base(),
            &Request {
                id: "a/b".into(),
                ..Request::default()
            }
        )
        .is_err()
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    assert_refused(vec![
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ERRNO"}),
            "linux.seccomp is not supported: …",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_ERRNO"}]}),
            "linux.seccomp is not supported: …",
        ),
        (
            "/linux/mountLabel",
            json!("system_u:x"),
            "linux.mountLabel is not supported: …",
        ),
        (
            "/linux/intelRdt",
            json!({"closID": "x"}),
            "linux.intelRdt is not supported: …",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND"}),
            "linux.memoryPolicy is not supported: …",
        ),
        (
            "/linux/netDevices",
            json!({"eth0": {}}),
            "linux.netDevices is not supported: …",
        ),
        (
            "/linux/resources/unified",
            json!({"memory.high": "1"}),
            "linux.resources.unified is not supported: …",
        ),
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["X"]}),
            "linux.personality.flags is not supported: …",
        ),
        ("/vm", json!({"kernel": {"path": "/k"}}), "vm is not supported: …"),
        (
            "/solaris",
            json!({}),
            "solaris is not supported: this is a runtime for Linux; remove the field",
        ),
        (
            "/zos",
            json!({}),
            "zos is not supported: this is a runtime for Linux; remove the field",
        ),
    ]);
    for (pointer, value) in [
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"})),
        ("/linux/mountLabel", json!("")),
        ("/linux/netDevices", json!({})),
        ("/linux/resources/unified", json!({})),
        ("/process/apparmorProfile", json!("unconfined")),
        ("/process/selinuxLabel", json!("")),
    ] {
        translated(with(pointer, value)).unwrap_or_else(|error| panic!("{pointer}: {error}"));
    }
}

#[test]
fn hooks_are_checked_for_their_form_and_have_ten_seconds_by_default() {
    let hooks = |hook: Value| ("/hooks", json!({"createContainer": [{"path": "/bin/ok"}, hook]}));
    for (hook, expected) in [
        (json!({"path": ""}), "hooks.createContainer[1].path is missing"),
        (
            json!({"path": "bin/x"}),
            r#"hooks.createContainer[1].path: "bin/x" is not an absolute path"#,
        ),
        (
            json!({"path": "/x", "timeout": 0}),
            "hooks.createContainer[1].timeout: 0 is not a number of seconds above 0",
        ),
        (
            json!({"path": "/x", "timeout": -5}),
            "hooks.createContainer[1].timeout: -5 is not a number of seconds above 0",
        ),
        (
            json!({"path": "/x", "args": ["\0"]}),
            r#"hooks.createContainer[1].args: "\0" has a NUL in it"#,
        ),
        (
            json!({"path": "/x", "env": ["LD_PRELOAD"]}),
            r#"hooks.createContainer[1].env: "LD_PRELOAD" has no `=`"#,
        ),
    ] {
        let (pointer, value) = hooks(hook);
        assert_eq!(translated(with(pointer, value)).unwrap_err(), expected);
    }
    let (pointer, value) = hooks(json!({"path": "/x", "args": ["x", "y"], "env": ["A=1"], "timeout": 3}));
    let hooks = translated(with(pointer, value))
        .unwrap()
        .container
        .hooks
        .create_container;
    assert_eq!(hooks[0].timeout, 10);
    let args = ["x", "y"].map(String::from).to_vec();
    assert_eq!(
        hooks[1],
        Hook {
            path: "/x".into(),
            args,
            env: vec!["A=1".into()],
            timeout: 3
        }
    );
}

#[test]
fn devices_of_the_spec_take_the_place_of_default_ones() {
    let spec = with(
        "/linux/devices",
        json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 5, "fileMode": 0o100600},
            {"path": "/dev/fifo", "type": "p", "uid": 7, "gid": 8},
            {"path": "/dev/fuse", "type": "u", "major": 10, "minor": 229}]),
    );
    let devices = translated(spec).unwrap().container.devices;
    assert_eq!(devices.len(), 5 + 3);
    let null = devices.iter().find(|device| device.path == "/dev/null").unwrap();
    assert_eq!((null.minor, null.mode), (5, 0o600));
    let fifo = devices.iter().find(|device| device.path == "/dev/fifo").unwrap();
    assert_eq!((fifo.kind, fifo.mode, fifo.uid, fifo.gid), (libc::S_IFIFO, 0o666, 7, 8));
    let fuse = devices.iter().find(|device| device.path == "/dev/fuse").unwrap();
    assert_eq!((fuse.kind, fuse.major, fuse.minor), (libc::S_IFCHR, 10, 229));
}

#[test]
fn where_dev_is_the_hosts_nothing_is_made_in_it() {
    let spec = with(
        "/mounts/1",
        json!({"destination": "/dev/", "source": "/dev", "options": ["rbind"]}),
    );
    let container = translated(spec).unwrap().container;
    assert!(!container.default_dev);
    assert!(container.devices.is_empty());
}

#[test]
fn a_cgroup_path_is_cleaned_and_defaults_to_the_id() {
    for (path, expected) in [
        (json!(""), "/c1"),
        (Value::Null, "/c1"),
        (json!("a/../../b"), "b"),
        (json!("/a//b/"), "/a/b"),
    ] {
        assert_eq!(translated(with("/linux/cgroupsPath", path)).unwrap().cgroup, expected);
    }
}

#[test]
fn a_process_without_capabilities_has_none_and_an_exec_without_has_the_containers() {
    let plan = translated(with("/process/capabilities", Value::Null)).unwrap();
    assert_eq!(plan.process.capabilities, Some(Capabilities::default()));
    let plan = translated(base()).unwrap();
    let exec = |json: Value| translate_exec(&plan, &serde_json::from_value(json).unwrap());
    let process = exec(json!({"user": {}, "cwd": "/", "args": ["true"]})).unwrap();
    assert_eq!(process.capabilities, plan.process.capabilities);
    let own = json!({"user": {}, "cwd": "/", "args": ["true"], "capabilities": {"bounding": ["CAP_CHOWN"]}});
    assert_eq!(exec(own).unwrap().capabilities.unwrap().bounding, 1);
    let error = exec(json!({"user": {}, "cwd": "x", "args": ["true"]}))
        .unwrap_err()
        .to_string();
    assert_eq!(error, r#"process.cwd: "x" is not an absolute path"#);
}

#[test]
fn an_exec_inherits_what_belongs_to_the_container() {
    let mut spec = base();
    spec["process"]["user"]["umask"] = json!(0o077);
    spec["process"]["oomScoreAdj"] = json!(500);
    spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 7});
    spec["process"]["execCPUAffinity"] = json!({"initial": "0,2-3", "final": "1"});
    spec["linux"]["personality"] = json!({"domain": "LINUX32"});
    let plan = translated(spec).unwrap();
    assert_eq!((plan.process.personality, &plan.process.cpu_affinity), (Some(8), &None));
    let process = serde_json::from_value(json!({"user": {}, "cwd": "/", "args": ["true"]})).unwrap();
    let process = translate_exec(&plan, &process).unwrap();
    assert_eq!(
        (process.umask, process.oom_score_adj, process.personality),
        (Some(0o077), Some(500), Some(8))
    );
    assert_eq!(process.io_priority, Some(3 << 13 | 7));
    let affinity = CpuAffinity {
        initial: Some(vec![0, 2, 3]),
        last: Some(vec![1]),
    };
    assert_eq!(process.cpu_affinity, Some(affinity));
}

#[test]
fn a_console_size_counts_only_with_a_terminal() {
    let mut spec = base();
    spec["process"]["consoleSize"] = json!({"height": 24, "width": 80});
    assert_eq!(translated(spec.clone()).unwrap().process.console_size, None);
    spec["process"]["terminal"] = json!(true);
    assert_eq!(translated(spec.clone()).unwrap().process.console_size, Some((24, 80)));
    spec["process"]["consoleSize"] = json!({"height": 24, "width": 65536});
    let error = translated(spec).unwrap_err();
    assert_eq!(
        error,
        "process.consoleSize.width: 65536 is more than a terminal can have (65535)"
    );
}
