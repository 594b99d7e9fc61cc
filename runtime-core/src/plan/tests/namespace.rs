//! Whole specs, translated: namespaces, maps and kernel settings.

use serde_json::{Value, json};

use super::*;

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
            "linux.uidMappings: the container needs its own user namespace for this",
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
            "linux.timeOffsets: the container needs its own new time namespace for this",
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
        "linux.sysctl.kernel.shmmax: the container needs its own ipc namespace for this"
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
