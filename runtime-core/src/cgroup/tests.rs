//! On directories that look like hierarchies. What only a kernel does is in `tests/cgroup_v1.rs`.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::hierarchy::Hierarchy;
use super::*;

/// A host with these hierarchies (controllers joined by commas; `unified` is v2), where we are in cgroup `/own`.
fn host(names: &[&str]) -> (TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let mut host = Host::default();
    for name in names {
        let mount_point = directory.path().join(name);
        fs::create_dir(&mount_point).unwrap();
        let controllers = name
            .split(',')
            .filter(|name| *name != "unified")
            .map(String::from)
            .collect();
        let root = OwnedFd::from(fs::File::open(&mount_point).unwrap());
        let own_line = "/own".into();
        let hierarchy = Arc::new(Hierarchy {
            controllers,
            mount_point,
            root,
            own: Ok("own".into()),
            own_line,
        });
        if *name == "unified" {
            host.unified = Some(hierarchy);
        } else {
            host.v1.push(hierarchy);
        }
    }
    (directory, host)
}

fn file(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn create(host: &Host, path: &str, json: &str) -> Result<Cgroup, Error> {
    let cgroup = Cgroup::of(host, path)?;
    let Driver::V1(v1) = &cgroup.driver else {
        panic!("a host with v1 hierarchies has another driver")
    };
    v1.create(Some(&resources(json)), false)?;
    Ok(cgroup)
}

#[test]
fn a_relative_path_is_below_our_own_cgroup_and_an_absolute_one_below_the_root() {
    let (root, host) = host(&["cpu,cpuacct", "devices", "unified"]);
    let directories = |path| {
        Cgroup::of(&host, path)
            .unwrap()
            .places()
            .into_iter()
            .map(|place| place.directory)
    };
    let below = |path: &str| ["cpu,cpuacct", "devices", "unified"].map(|name| root.path().join(name).join(path));
    assert!(directories("a/b").eq(below("own/a/b")));
    assert!(directories("/a/b").eq(below("a/b")));
}

#[test]
fn a_host_with_v2_alone_has_one_place_for_all() {
    let (root, host) = host(&["unified"]);
    let places = Cgroup::of(&host, "/a/b").unwrap().places();
    assert_eq!(places.len(), 1);
    assert_eq!(places[0].directory, root.path().join("unified/a/b"));
}

#[test]
fn a_scope_of_systemd_needs_a_process_to_be_made() {
    let (_root, host) = host(&["devices"]);
    assert!(Cgroup::of(&host, "a.slice:nucleus:c1").unwrap().needs_member());
    assert!(!Cgroup::of(&host, "/a").unwrap().needs_member());
}

#[test]
fn a_cgroup_in_use_is_refused_by_the_name_of_the_file() {
    let (root, host) = host(&["devices", "freezer"]);
    file(root.path(), "devices/a/cgroup.procs", "");
    file(root.path(), "devices/a/sub/cgroup.procs", "17\n18\n");
    let error = create(&host, "/a", "{}").unwrap_err().to_string();
    assert!(error.contains("devices/a/cgroup.procs lists 2 process(es)"), "{error}");
    assert!(matches!(
        Cgroup::of(&host, "/a").unwrap().check_free(),
        Err(Error::Busy { count: 2, .. })
    ));
    Cgroup::of(&host, "/b").unwrap().check_free().unwrap();

    fs::remove_dir_all(root.path().join("devices/a")).unwrap();
    file(root.path(), "freezer/a/freezer.state", "FROZEN\n");
    let error = create(&host, "/a", "{}").unwrap_err().to_string();
    assert!(error.contains("freezer/a/freezer.state says FROZEN"), "{error}");
    assert!(
        !root.path().join("devices/a").exists(),
        "what was made before is left behind"
    );
}

#[test]
fn a_hierarchy_in_which_nothing_can_be_made_is_told_by_the_directory() {
    // Not even root makes directories in sysfs.
    let mount_point = std::path::PathBuf::from("/sys/kernel");
    let hierarchy = Arc::new(Hierarchy {
        controllers: vec!["devices".into()],
        root: OwnedFd::from(fs::File::open(&mount_point).unwrap()),
        mount_point,
        own: Ok("own".into()),
        own_line: "/own".into(),
    });
    let host = Host {
        v1: vec![hierarchy],
        unified: None,
    };
    let error = create(&host, "/pods/c", "{}").unwrap_err().to_string();
    assert!(error.contains("cannot make /sys/kernel/pods/c"), "{error}");
}

#[test]
fn a_create_that_fails_takes_back_what_it_made_and_nothing_else() {
    let (root, host) = host(&["memory", "devices"]);
    fs::create_dir(root.path().join("memory/old")).unwrap();
    // No kernel makes devices.deny here.
    let error = create(&host, "/old/new/c", "{}").unwrap_err();
    assert!(
        matches!(&error, Error::Write { file, value, .. } if file.ends_with("devices.deny") && value == "a"),
        "{error}"
    );
    assert!(root.path().join("memory/old").is_dir());
    for gone in ["memory/old/new", "devices/old"] {
        assert!(!root.path().join(gone).exists(), "{gone}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name_before_anything_is_made() {
    let (root, host) = host(&["devices"]);
    for (json, text) in [
        (
            r#"{"memory":{"limit":1000}}"#,
            "resources.memory: the cgroup controller memory is not mounted",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#,
            "resources.hugepageLimits: the cgroup controller hugetlb",
        ),
        (r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, "pageSize ../x"),
        (
            r#"{"unified":{"memory.max":"1"}}"#,
            "resources.unified \"memory.max\" is for cgroup v2",
        ),
        (r#"{"memory":{"limit":1000,"swap":999}}"#, "resources.memory.swap 999"),
        (r#"{"memory":{"swappiness":101}}"#, "resources.memory.swappiness 101"),
        (r#"{"cpu":{"shares":1}}"#, "resources.cpu.shares 1"),
    ] {
        let error = create(&host, "/a", json).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert!(!root.path().join("devices/a").exists());
}

#[test]
fn zero_is_not_set_and_minus_one_is_no_limit() {
    let (root, host) = host(&["devices", "cpu", "memory", "pids"]);
    for name in [
        "cpu/a/cpu.cfs_quota_us",
        "pids/a/pids.max",
        "memory/a/memory.memsw.limit_in_bytes",
    ] {
        file(root.path(), name, "old");
    }
    file(root.path(), "memory/a/memory.limit_in_bytes", "old");
    let cgroup = Cgroup::of(&host, "/a").unwrap();
    let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
    let json = r#"{"cpu":{"quota":0,"shares":0,"period":0},"memory":{"limit":0,"swap":0},"pids":{"limit":0}}"#;
    cgroup.update(&resources(json)).unwrap();
    assert_eq!(
        [read("cpu/a/cpu.cfs_quota_us"), read("pids/a/pids.max")],
        ["old", "old"]
    );
    cgroup
        .update(&resources(
            r#"{"cpu":{"quota":-1},"memory":{"limit":-1},"pids":{"limit":-1}}"#,
        ))
        .unwrap();
    assert_eq!([read("cpu/a/cpu.cfs_quota_us"), read("pids/a/pids.max")], ["-1", "max"]);
    assert_eq!(read("memory/a/memory.memsw.limit_in_bytes"), "-1");
}

#[test]
fn block_weights_go_to_whichever_scheduler_has_the_file() {
    let (root, host) = host(&["devices", "blkio"]);
    file(root.path(), "blkio/a/blkio.bfq.weight", "");
    let cgroup = Cgroup::of(&host, "/a").unwrap();
    cgroup.update(&resources(r#"{"blockIO":{"weight":300}}"#)).unwrap();
    assert_eq!(
        fs::read_to_string(root.path().join("blkio/a/blkio.bfq.weight")).unwrap(),
        "300"
    );
    let error = cgroup
        .update(&resources(r#"{"blockIO":{"leafWeight":300}}"#))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot write \"300\" to") && error.ends_with("blkio/a/blkio.leaf_weight"),
        "{error}"
    );
}

#[test]
fn cpus_and_nodes_are_copied_down_from_the_nearest_ancestor_that_has_some() {
    let (root, host) = host(&["devices", "cpuset"]);
    for (file_name, text) in [("cpuset.cpus", "0-3\n"), ("cpuset.mems", "0\n")] {
        file(root.path(), &format!("cpuset/{file_name}"), text);
        file(root.path(), &format!("cpuset/a/{file_name}"), "\n");
        file(root.path(), &format!("cpuset/a/b/{file_name}"), "\n");
    }
    file(root.path(), "devices/a/b/devices.deny", "");
    file(root.path(), "devices/a/b/devices.allow", "");
    create(&host, "/a/b", r#"{"cpu":{"cpus":"1"}}"#).unwrap();
    let read = |name: &str| fs::read_to_string(root.path().join("cpuset").join(name)).unwrap();
    assert_eq!([read("a/cpuset.cpus"), read("a/cpuset.mems")], ["0-3", "0"]);
    assert_eq!([read("a/b/cpuset.cpus"), read("a/b/cpuset.mems")], ["1", "0"]);
}

#[test]
fn signals_and_delete_leave_our_own_process_alone() {
    let (root, host) = host(&["devices"]);
    file(
        root.path(),
        "devices/a/cgroup.procs",
        &format!("{}\n", std::process::id()),
    );
    let cgroup = Cgroup::of(&host, "/a").unwrap();
    for result in [cgroup.kill(0), cgroup.kill(65)] {
        assert!(matches!(result, Err(Error::Signal { .. })));
    }
    for result in [cgroup.kill(9), cgroup.kill(15), cgroup.delete(Duration::ZERO)] {
        assert!(matches!(result, Err(Error::Ourselves { .. })), "{result:?}");
    }
}

#[test]
fn a_process_that_a_stale_list_names_is_not_there_to_be_signalled() {
    let (root, host) = host(&["devices"]);
    // Above any pid_max: as of a process that ended since.
    file(root.path(), "devices/a/cgroup.procs", "2147483646\n");
    Cgroup::of(&host, "/a").unwrap().kill(15).unwrap();
}

#[test]
fn deleting_what_is_gone_is_no_error_and_nothing_is_counted_there() {
    let (_root, host) = host(&["devices", "unified"]);
    let cgroup = Cgroup::of(&host, "/a").unwrap();
    cgroup.delete(Duration::ZERO).unwrap();
    assert!(!cgroup.exists());
    assert!(cgroup.pids().unwrap().is_empty());
    assert!(matches!(cgroup.stats(), Err(Error::Gone { .. })));
}

/// Every file of cgroup v1 that a field of the spec is written to.
const V1_FILES: [&str; 36] = [
    "cpu/cpu.shares",
    "cpu/cpu.cfs_quota_us",
    "cpu/cpu.cfs_period_us",
    "cpu/cpu.cfs_burst_us",
    "cpu/cpu.rt_period_us",
    "cpu/cpu.rt_runtime_us",
    "cpu/cpu.idle",
    "cpuset/cpuset.cpus",
    "cpuset/cpuset.mems",
    "memory/memory.limit_in_bytes",
    "memory/memory.memsw.limit_in_bytes",
    "memory/memory.soft_limit_in_bytes",
    "memory/memory.kmem.tcp.limit_in_bytes",
    "memory/memory.kmem.limit_in_bytes",
    "memory/memory.swappiness",
    "memory/memory.oom_control",
    "memory/memory.use_hierarchy",
    "pids/pids.max",
    "blkio/blkio.weight",
    "blkio/blkio.weight_device",
    "blkio/blkio.leaf_weight",
    "blkio/blkio.leaf_weight_device",
    "blkio/blkio.throttle.read_bps_device",
    "blkio/blkio.throttle.write_bps_device",
    "blkio/blkio.throttle.read_iops_device",
    "blkio/blkio.throttle.write_iops_device",
    "hugetlb/hugetlb.2MB.limit_in_bytes",
    "hugetlb/hugetlb.2MB.rsvd.limit_in_bytes",
    "rdma/rdma.max",
    "net_cls/net_cls.classid",
    "net_prio/net_prio.ifpriomap",
    "devices/devices.allow",
    "devices/devices.deny",
    "freezer/freezer.state",
    "devices/cgroup.procs",
    "memory/memory.usage_in_bytes",
];

/// What an update with `json` writes: `file value`, in the order of the files.
fn written(json: &str) -> String {
    let names = [
        "cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "rdma", "net_cls", "net_prio", "devices", "freezer",
    ];
    let (root, host) = host(&names);
    let path = |name: &str| name.replacen('/', "/a/", 1);
    for name in V1_FILES {
        file(root.path(), &path(name), "");
    }
    let cgroup = Cgroup::of(&host, "/a").unwrap();
    cgroup
        .update(&resources(json))
        .unwrap_or_else(|error| panic!("{json}: {error}"));
    let read = |name: &&str| {
        let text = fs::read_to_string(root.path().join(path(name))).unwrap();
        let short = name.split_once('/').unwrap().1;
        (!text.is_empty()).then(|| format!("{short} {text}"))
    };
    let lines: Vec<String> = V1_FILES.iter().filter_map(read).collect();
    lines.join("\n")
}

#[test]
fn every_field_of_the_resources_has_its_file_on_v1() {
    for (json, expected) in [
        ("{}", ""),
        (r#"{"cpu":{"shares":1024}}"#, "cpu.shares 1024"),
        (
            r#"{"cpu":{"quota":20000,"period":50000,"burst":500}}"#,
            "cpu.cfs_quota_us 20000\ncpu.cfs_period_us 50000\ncpu.cfs_burst_us 500",
        ),
        (
            r#"{"cpu":{"realtimePeriod":9,"realtimeRuntime":8}}"#,
            "cpu.rt_period_us 9\ncpu.rt_runtime_us 8",
        ),
        (r#"{"cpu":{"idle":1}}"#, "cpu.idle 1"),
        (r#"{"cpu":{"cpus":"0-3","mems":"0"}}"#, "cpuset.cpus 0-3\ncpuset.mems 0"),
        (
            r#"{"memory":{"limit":4096,"swap":9000,"reservation":2048}}"#,
            "memory.limit_in_bytes 4096\nmemory.memsw.limit_in_bytes 9000\nmemory.soft_limit_in_bytes 2048",
        ),
        (
            r#"{"memory":{"kernelTCP":7,"swappiness":60,"disableOOMKiller":true,"useHierarchy":true}}"#,
            "memory.kmem.tcp.limit_in_bytes 7\nmemory.swappiness 60\nmemory.oom_control 1\nmemory.use_hierarchy 1",
        ),
        (r#"{"memory":{"kernel":7}}"#, "memory.kmem.limit_in_bytes 7"),
        (r#"{"pids":{"limit":17}}"#, "pids.max 17"),
        (
            r#"{"blockIO":{"weight":10,"leafWeight":20}}"#,
            "blkio.weight 10\nblkio.leaf_weight 20",
        ),
        (
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":500,"leafWeight":300}]}}"#,
            "blkio.weight_device 8:0 500\nblkio.leaf_weight_device 8:0 300",
        ),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],
                "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}],
                "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":4}]}}"#,
            "blkio.throttle.read_bps_device 8:0 1\nblkio.throttle.write_bps_device 8:0 2\n\
             blkio.throttle.read_iops_device 8:0 3\nblkio.throttle.write_iops_device 8:0 4",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
            "hugetlb.2MB.limit_in_bytes 4194304\nhugetlb.2MB.rsvd.limit_in_bytes 4194304",
        ),
        (
            r#"{"rdma":{"mlx4_0":{"hcaHandles":1,"hcaObjects":2}}}"#,
            "rdma.max mlx4_0 hca_handle=1 hca_object=2",
        ),
        (
            r#"{"network":{"classID":5,"priorities":[{"name":"eth0","priority":3}]}}"#,
            "net_cls.classid 5\nnet_prio.ifpriomap eth0 3",
        ),
        // An update leaves the rules of the devices as they are.
        (r#"{"devices":[{"allow":true,"access":"rwm"}]}"#, ""),
    ] {
        assert_eq!(written(json), expected, "{json}");
    }
}
