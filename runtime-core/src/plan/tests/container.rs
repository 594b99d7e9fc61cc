//! Whole specs, translated: names, devices, paths, hooks, and what is refused.

use serde_json::{Value, json};

use super::*;

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
    ]);
    let mut host = with("/hostname", json!("web"));
    host["linux"]["namespaces"] = json!([{"type": "mount"}]);
    assert_eq!(
        translated(host).unwrap_err(),
        "hostname: the container needs its own uts namespace for this"
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
fn where_no_systemd_runs_a_scope_is_a_name_like_any_other_unless_that_driver_is_asked_for() {
    let cgroup = |systemd_cgroup| {
        let request = Request {
            id: "c1".into(),
            systemd: false,
            systemd_cgroup,
            ..Request::default()
        };
        translated_with(
            with("/linux/cgroupsPath", json!("test.slice:cri-containerd:c1")),
            &request,
        )
    };
    assert_eq!(cgroup(false).unwrap().cgroup, "/test.slice:cri-containerd:c1");
    assert!(cgroup(true).unwrap_err().contains("the systemd cgroup driver"));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    assert_refused(vec![
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "run/agent",
                "syscalls": [{"names": ["chown"], "action": "SCMP_ACT_NOTIFY"}]}),
            "linux.seccomp.listenerPath: …",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000}),
            "linux.seccomp.defaultErrnoRet: 5000 is more than the 4095 that SCMP_ACT_ERRNO can give",
        ),
        (
            "/linux/mountLabel",
            json!("system_u:x"),
            "linux.mountLabel is not supported: SELinux is not enabled on this host; remove the label or run the \
             container where it is",
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
fn a_scope_of_systemd_is_told_by_its_form_whatever_the_options_say() {
    let cgroup = |path: Value, systemd_cgroup| {
        let request = Request {
            id: "c1".into(),
            systemd_cgroup,
            ..Request::default()
        };
        translated_with(with("/linux/cgroupsPath", path), &request).map(|plan| plan.cgroup)
    };
    for systemd_cgroup in [false, true] {
        let scope = json!("kubepods.slice:cri-containerd:c1");
        assert_eq!(
            cgroup(scope, systemd_cgroup).unwrap(),
            "kubepods.slice:cri-containerd:c1"
        );
    }
    assert_eq!(cgroup(json!(""), true).unwrap(), ":nucleus:c1");
    let error = cgroup(json!("/default/c1"), true).unwrap_err();
    assert!(error.contains("takes slice:prefix:name"), "{error}");
}
