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
    let Driver::V1(v1) = &cgroup.driver;
    v1.create(Some(&resources(json)))?;
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
fn a_host_with_v2_alone_is_refused_clearly() {
    let (_root, host) = host(&["unified"]);
    let error = Cgroup::of(&host, "/a").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cgroup v2 alone, which is not supported yet"),
        "{error}"
    );
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
