//! Whole specs, translated: mounts and the rootfs.

use serde_json::{Value, json};

use super::*;

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
            "mounts[0].options: idmap without mappings: the container needs its own user namespace for this",
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
        "gidmap=0:6:9",
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
        (
            "/",
            overlay[..5]
                .iter()
                .map(|text| text.to_string())
                .collect::<Vec<_>>()
                .as_slice()
        )
    );
    let layers = root.idmap.as_ref().unwrap();
    assert_eq!((layers.uid_map[0].host, layers.gid_map[0].host), (5, 6));
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
    let error = translated_with(
        base(),
        &request(vec![mount("overlay", "overlay", "", &["uidmap=0:5:9"])]),
    )
    .unwrap_err();
    assert_eq!(error, "rootfs[0].options: one of uidmap and gidmap is missing");
    let error = translated_with(base(), &request(vec![mount("", "/x", "", &[])])).unwrap_err();
    assert_eq!(error, "rootfs[0].type is missing");
}
