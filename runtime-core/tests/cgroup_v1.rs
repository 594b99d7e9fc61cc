//! Containers' cgroups on a real kernel. Needs root and cgroup v1: ignored unless asked for,
//! `cargo test -p runtime-core --test cgroup_v1 -- --ignored`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use runtime_core::cgroup::{Cgroup, Error, Request, Stats};

const LIMIT: Duration = Duration::from_secs(5);

fn create(path: &str, resources: Option<&LinuxResources>) -> Result<Cgroup, Error> {
    let request = Request {
        resources,
        ..Request::default()
    };
    Cgroup::create(path, request)
}

/// A cgroup of this test's own, removed in the end, and its children reaped.
struct Fixture {
    cgroup: Cgroup,
    parent: Cgroup,
    children: Vec<Child>,
}

impl Fixture {
    fn new(test: &str, json: &str) -> Self {
        let parent = format!("/nucleus-cgroup-test-{test}-{}", std::process::id());
        let cgroup = create(&format!("{parent}/c"), Some(&resources(json))).unwrap();
        Self {
            cgroup,
            parent: Cgroup::open(&parent).unwrap(),
            children: Vec::new(),
        }
    }

    fn directory(&self, controller: &str) -> PathBuf {
        let places = self.cgroup.places();
        let place = places
            .iter()
            .find(|place| place.controllers.iter().any(|own| own == controller));
        place.unwrap().directory.clone()
    }

    fn read(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.directory(controller).join(file))
            .unwrap()
            .trim_end()
            .to_owned()
    }

    /// Runs a shell script in the cgroup; returns once it is in all of them.
    fn run(&mut self, script: &str) -> i32 {
        let join: String = self
            .cgroup
            .places()
            .iter()
            .map(|place| {
                let file = if place.controllers.is_empty() {
                    "cgroup.procs"
                } else {
                    "tasks"
                };
                format!("echo 0 > {}/{file}\n", place.directory.display())
            })
            .collect();
        let script = format!("set -e\n{join}echo joined\n{script}");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "joined\n");
        let pid = child.id() as i32;
        self.children.push(child);
        pid
    }

    fn wait_for(&self, count: usize) {
        let deadline = std::time::Instant::now() + LIMIT;
        while self.cgroup.pids().unwrap().len() < count {
            assert!(std::time::Instant::now() < deadline, "{count} processes never came");
            std::thread::yield_now();
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.cgroup.delete(LIMIT).unwrap();
        self.parent.delete(LIMIT).unwrap();
        for child in &mut self.children {
            child.wait().unwrap();
        }
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

#[test]
#[ignore = "needs root and cgroup v1"]
fn a_cgroup_is_in_every_hierarchy_and_gone_after_delete() {
    let fixture = Fixture::new("life", "{}");
    for place in fixture.cgroup.places() {
        assert!(place.directory.is_dir(), "{}", place.directory.display());
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&place.directory).unwrap()) & 0o777;
        assert_eq!(mode, 0o755);
    }
    assert_eq!(
        fixture.cgroup.join_files().unwrap().len() + 1,
        fixture.cgroup.places().len().max(1)
    );
    assert_eq!(
        fixture.read("cpuset", "cpuset.cpus"),
        fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.cpus").unwrap().trim()
    );
    assert!(fixture.read("devices", "devices.list").contains("c 1:3 rwm"));
    assert!(!fixture.read("devices", "devices.list").contains("a *:*"));
    fixture.cgroup.delete(LIMIT).unwrap();
    assert!(!fixture.cgroup.exists());
    fixture.cgroup.delete(LIMIT).unwrap();
}

#[test]
#[ignore = "needs root and cgroup v1"]
fn processes_are_listed_and_killed_with_those_in_cgroups_below() {
    let mut fixture = Fixture::new("kill", "{}");
    let below = fixture.directory("devices").join("sub/deeper");
    fs::create_dir_all(&below).unwrap();
    let first = fixture.run("exec sleep 60");
    let second = fixture.run(&format!("echo 0 > {}/tasks; exec sleep 60", below.display()));
    fixture.wait_for(2);
    let pids = fixture.cgroup.pids().unwrap();
    assert!(pids.contains(&first) && pids.contains(&second), "{pids:?}");
    let again = create(&path_of(&fixture), None).unwrap_err();
    assert!(matches!(again, Error::Busy { .. }), "{again}");
    fixture.cgroup.kill(9).unwrap();
    assert!(fixture.cgroup.pids().unwrap().is_empty());
    fixture.cgroup.delete(LIMIT).unwrap();
    assert!(!below.exists());
}

fn path_of(fixture: &Fixture) -> String {
    let place = fixture.cgroup.places().into_iter().next().unwrap();
    format!(
        "/{}",
        place.directory.strip_prefix(&place.mount_point).unwrap().display()
    )
}

#[test]
#[ignore = "needs root and cgroup v1"]
fn another_signal_reaches_every_process_once() {
    let mut fixture = Fixture::new("term", "{}");
    for _ in 0..3 {
        fixture.run("exec sleep 60");
    }
    fixture.cgroup.kill(15).unwrap();
    for mut child in std::mem::take(&mut fixture.children) {
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()),
            Some(15)
        );
    }
}

#[test]
#[ignore = "needs root and cgroup v1"]
fn a_frozen_cgroup_stands_still_and_can_be_killed() {
    let mut fixture = Fixture::new("freeze", "{}");
    fixture.run("while :; do :; done");
    assert!(!fixture.cgroup.is_frozen().unwrap());
    fixture.cgroup.freeze().unwrap();
    assert!(fixture.cgroup.is_frozen().unwrap());
    assert_eq!(fixture.read("freezer", "freezer.state"), "FROZEN");
    fixture.cgroup.thaw().unwrap();
    assert!(!fixture.cgroup.is_frozen().unwrap());
    fixture.cgroup.freeze().unwrap();
    fixture.cgroup.kill(9).unwrap();
    assert!(fixture.cgroup.pids().unwrap().is_empty());
}

#[test]
#[ignore = "needs root and cgroup v1"]
fn a_fork_bomb_is_killed_and_its_cgroups_removed() {
    let mut fixture = Fixture::new("bomb", r#"{"pids":{"limit":100}}"#);
    let script = "set +e; bomb() { while :; do (bomb) & (sleep 0) ; done 2>/dev/null; }; bomb 2>/dev/null";
    fixture.run(script);
    fixture.wait_for(50);
    fixture.cgroup.delete(LIMIT).unwrap();
    assert!(!fixture.cgroup.exists());
}

#[test]
#[ignore = "needs root and cgroup v1"]
fn limits_go_up_and_down_in_any_order_and_again() {
    let fixture = Fixture::new("update", r#"{"memory":{"limit":33554432,"swap":33554432}}"#);
    for (limit, swap) in [
        (67108864, 134217728),
        (16777216, 16777216),
        (33554432, 33554432),
        (33554432, 33554432),
    ] {
        let json = format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#);
        fixture.cgroup.update(&resources(&json)).unwrap();
        assert_eq!(fixture.read("memory", "memory.limit_in_bytes"), limit.to_string());
        assert_eq!(fixture.read("memory", "memory.memsw.limit_in_bytes"), swap.to_string());
    }
    fixture.cgroup.update(&resources(r#"{"memory":{"limit":-1}}"#)).unwrap();
    for (quota, period, burst) in [(50000, 100000, 50000), (5000, 10000, 1000), (500000, 100000, 400000)] {
        let json = format!(r#"{{"cpu":{{"quota":{quota},"period":{period},"burst":{burst}}}}}"#);
        fixture.cgroup.update(&resources(&json)).unwrap();
        assert_eq!(fixture.read("cpu", "cpu.cfs_quota_us"), quota.to_string());
        assert_eq!(fixture.read("cpu", "cpu.cfs_burst_us"), burst.to_string());
    }
    for _ in 0..2 {
        fixture
            .cgroup
            .update(&resources(r#"{"cpu":{"idle":1,"shares":77}}"#))
            .unwrap();
    }
    let error = fixture
        .cgroup
        .update(&resources(r#"{"cpu":{"cpus":"4000"}}"#))
        .unwrap_err();
    assert!(
        matches!(&error, Error::Write { value, .. } if value == "4000"),
        "{error}"
    );
}

#[test]
#[ignore = "needs root and cgroup v1"]
fn a_refused_limit_leaves_no_cgroup_behind() {
    let path = format!("/nucleus-cgroup-test-refused-{}/c", std::process::id());
    let error = create(&path, Some(&resources(r#"{"pids":{"limit":99999999999}}"#))).unwrap_err();
    assert!(
        matches!(&error, Error::Write { file, .. } if file.ends_with("pids.max")),
        "{error}"
    );
    let parent = Path::new(&path).parent().unwrap().to_str().unwrap();
    assert!(!Cgroup::open(parent).unwrap().exists());
}

#[test]
#[ignore = "needs root and cgroup v1"]
fn an_oom_kill_is_counted_once_and_statistics_outlive_the_processes() {
    let limits = r#"{"memory":{"limit":16777216,"swap":16777216},"cpu":{"quota":50000,"period":100000}}"#;
    let mut fixture = Fixture::new("oom", limits);
    let mut watch = fixture.cgroup.watch_oom().unwrap();
    assert_eq!(watch.take().unwrap(), 0);
    fixture.run("x=$(head -c 64m /dev/zero | tr '\\0' x)");
    fixture.children.pop().unwrap().wait().unwrap();
    // What is left of the pipeline.
    fixture.cgroup.kill(9).unwrap();
    assert!(watch.take().unwrap() > 0);
    assert_eq!(watch.take().unwrap(), 0);
    assert!(!watch.pending());
    let Stats::V1(stats) = fixture.cgroup.stats().unwrap() else {
        panic!("not of v1")
    };
    let memory = stats.memory.unwrap();
    assert!(memory.oom.get("oom_kill") > 0);
    assert_eq!(
        (memory.usage.limit, memory.stat.get("hierarchical_memory_limit")),
        (16777216, 16777216)
    );
    let cpu = stats.cpu.unwrap();
    assert!(cpu.total > 0 && cpu.total == cpu.per_cpu.iter().sum::<u64>());
    assert_eq!(stats.pids.unwrap().limit, None);
    fixture.cgroup.delete(LIMIT).unwrap();
    assert!(matches!(fixture.cgroup.stats(), Err(Error::Gone { .. })));
    assert_eq!(watch.take().unwrap(), 0);
}
