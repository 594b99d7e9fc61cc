//! Which files and values `linux.resources` becomes, field by field; and a create on a directory that looks like a
//! hierarchy. What only a kernel does is tried in the suite `node`.

use super::settings::{NO_QUOTA, Setting, settings, weight_of_shares};
use crate::cgroup::Error;
use oci_spec::runtime::LinuxResources;

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn read(json: &str, quota_now: &str) -> Result<Vec<(String, String)>, Error> {
    let pair = |setting: Setting| (setting.file, setting.value);
    Ok(settings(&resources(json), quota_now)?.into_iter().map(pair).collect())
}

/// What is written for `json`, as `file value` lines.
fn lines(json: &str) -> String {
    let lines = read(json, NO_QUOTA).unwrap_or_else(|error| panic!("{json}: {error}"));
    let lines: Vec<String> = lines.iter().map(|(file, value)| format!("{file} {value}")).collect();
    lines.join("\n")
}

#[test]
fn every_field_of_the_resources_has_its_file() {
    let device = r#"[{"major":8,"minor":16,"rate":7}]"#;
    let cases = [
        (r#"{}"#, ""),
        (r#"{"cpu":{"shares":1024}}"#, "cpu.weight 100"),
        (r#"{"cpu":{"quota":20000}}"#, "cpu.max 20000 100000"),
        (r#"{"cpu":{"quota":20000,"period":50000}}"#, "cpu.max 20000 50000"),
        (r#"{"cpu":{"quota":-1,"period":50000}}"#, "cpu.max max 50000"),
        (r#"{"cpu":{"period":50000}}"#, "cpu.max max 50000"),
        (r#"{"cpu":{"quota":0,"period":0,"shares":0}}"#, ""),
        (
            r#"{"cpu":{"quota":9000,"burst":500}}"#,
            "cpu.max 9000 100000\ncpu.max.burst 500",
        ),
        (r#"{"cpu":{"cpus":"0-3","mems":"0"}}"#, "cpuset.cpus 0-3\ncpuset.mems 0"),
        (r#"{"cpu":{"cpus":"","mems":""}}"#, ""),
        (r#"{"cpu":{"idle":1,"shares":77}}"#, "cpu.idle 1"),
        (r#"{"cpu":{"idle":0,"shares":1024}}"#, "cpu.idle 0\ncpu.weight 100"),
        (r#"{"cpu":{"realtimePeriod":0,"realtimeRuntime":0}}"#, ""),
        (r#"{"memory":{"limit":4096}}"#, "memory.max 4096"),
        (r#"{"memory":{"limit":-1}}"#, "memory.swap.max max\nmemory.max max"),
        (r#"{"memory":{"limit":0,"swap":0,"reservation":0}}"#, ""),
        (
            r#"{"memory":{"limit":4096,"swap":4096}}"#,
            "memory.swap.max 0\nmemory.max 4096",
        ),
        (
            r#"{"memory":{"limit":4096,"swap":9000}}"#,
            "memory.swap.max 4904\nmemory.max 4096",
        ),
        (
            r#"{"memory":{"limit":4096,"swap":-1}}"#,
            "memory.swap.max max\nmemory.max 4096",
        ),
        (r#"{"memory":{"swap":-1}}"#, "memory.swap.max max"),
        (r#"{"memory":{"reservation":2048}}"#, "memory.low 2048"),
        (r#"{"memory":{"reservation":-1}}"#, "memory.low max"),
        (
            r#"{"memory":{"kernel":-1,"kernelTCP":0,"disableOOMKiller":false,"useHierarchy":true}}"#,
            "",
        ),
        (
            r#"{"memory":{"swappiness":18446744073709551615,"checkBeforeUpdate":true}}"#,
            "",
        ),
        (r#"{"pids":{"limit":17}}"#, "pids.max 17"),
        (r#"{"pids":{"limit":-1}}"#, "pids.max max"),
        (r#"{"pids":{"limit":0}}"#, ""),
        (r#"{"blockIO":{"weight":10}}"#, "io.bfq.weight 10"),
        (r#"{"blockIO":{"weight":0}}"#, ""),
        (
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":500}]}}"#,
            "io.bfq.weight 8:0 500",
        ),
        (
            &format!(r#"{{"blockIO":{{"throttleReadBpsDevice":{device}}}}}"#),
            "io.max 8:16 rbps=7",
        ),
        (
            &format!(r#"{{"blockIO":{{"throttleWriteBpsDevice":{device}}}}}"#),
            "io.max 8:16 wbps=7",
        ),
        (
            &format!(r#"{{"blockIO":{{"throttleReadIOPSDevice":{device}}}}}"#),
            "io.max 8:16 riops=7",
        ),
        (
            &format!(r#"{{"blockIO":{{"throttleWriteIOPSDevice":{device}}}}}"#),
            "io.max 8:16 wiops=7",
        ),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":16,"rate":0}]}}"#,
            "io.max 8:16 rbps=max",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
            "hugetlb.2MB.max 4194304\nhugetlb.2MB.rsvd.max 4194304",
        ),
        (
            r#"{"rdma":{"mlx5_1":{"hcaHandles":3},"mlx4_0":{"hcaHandles":1,"hcaObjects":2}}}"#,
            "rdma.max mlx4_0 hca_handle=1 hca_object=2\nrdma.max mlx5_1 hca_handle=3",
        ),
        (r#"{"network":{"classID":0,"priorities":[]}}"#, ""),
        (
            r#"{"unified":{"memory.high":"100","io.max":"8:0 rbps=1\n8:16 wbps=2\n","memory.oom.group":"1"}}"#,
            "io.max 8:0 rbps=1\nio.max 8:16 wbps=2\nmemory.high 100\nmemory.oom.group 1",
        ),
        (
            r#"{"memory":{"limit":4096},"unified":{"memory.max":"max"}}"#,
            "memory.max 4096\nmemory.max max",
        ),
        (r#"{"devices":[{"allow":true,"access":"rwm"}]}"#, ""),
    ];
    for (json, expected) in cases {
        assert_eq!(lines(json), expected, "{json}");
    }
}

#[test]
fn what_an_update_does_not_name_of_a_quota_stays() {
    let cpu_max = |json, now| read(json, now).unwrap()[0].1.clone();
    assert_eq!(cpu_max(r#"{"cpu":{"quota":100}}"#, "max 40000\n"), "100 40000");
    assert_eq!(cpu_max(r#"{"cpu":{"period":20000}}"#, "500 40000\n"), "500 20000");
}

#[test]
fn what_cgroup_v2_lacks_or_cannot_mean_is_refused_by_name() {
    for (json, text) in [
        (
            r#"{"cpu":{"realtimePeriod":1}}"#,
            "resources.cpu.realtimePeriod cannot be set",
        ),
        (r#"{"cpu":{"realtimeRuntime":1}}"#, "resources.cpu.realtimeRuntime"),
        (r#"{"cpu":{"shares":1}}"#, "resources.cpu.shares 1: it is 2 to 262144"),
        (r#"{"memory":{"kernel":1}}"#, "resources.memory.kernel cannot"),
        (r#"{"memory":{"kernelTCP":1}}"#, "resources.memory.kernelTCP"),
        (r#"{"memory":{"swappiness":60}}"#, "resources.memory.swappiness"),
        (
            r#"{"memory":{"disableOOMKiller":true}}"#,
            "resources.memory.disableOOMKiller",
        ),
        (r#"{"memory":{"useHierarchy":false}}"#, "resources.memory.useHierarchy"),
        (
            r#"{"memory":{"swap":1}}"#,
            "resources.memory.swap 1: without a memory limit",
        ),
        (
            r#"{"memory":{"limit":2,"swap":1}}"#,
            "resources.memory.swap 1: memory and swap together",
        ),
        (r#"{"blockIO":{"weight":9}}"#, "resources.blockIO.weight 9"),
        (r#"{"blockIO":{"weight":1001}}"#, "resources.blockIO.weight 1001"),
        (r#"{"blockIO":{"leafWeight":10}}"#, "resources.blockIO.leafWeight"),
        (r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, "pageSize ../x"),
        (r#"{"network":{"classID":1}}"#, "resources.network.classID"),
        (
            r#"{"network":{"priorities":[{"name":"eth0","priority":1}]}}"#,
            "resources.network.priorities",
        ),
        (
            r#"{"unified":{"../x.y":"1"}}"#,
            "is not the name of a controller's file",
        ),
        (
            r#"{"unified":{"memory":"1"}}"#,
            "is not the name of a controller's file",
        ),
        (r#"{"unified":{"cgroup.procs":"1"}}"#, "is the runtime's own"),
        (r#"{"unified":{"cgroup.kill":"1"}}"#, "is the runtime's own"),
        (
            r#"{"memory":{"limit":10},"unified":{"memory.high":"11"}}"#,
            "memory.high 11: it is above",
        ),
    ] {
        let error = read(json, NO_QUOTA).unwrap_err().to_string();
        assert!(error.contains(text), "{json}: {error}");
    }
}

#[test]
fn shares_become_weights_along_the_curve_of_runc() {
    let table = [
        (0, 1),
        (2, 1),
        (102, 17),
        (512, 59),
        (1024, 100),
        (262_144, 10_000),
        (300_000, 10_000),
    ];
    for (shares, weight) in table {
        assert_eq!(weight_of_shares(shares), weight, "{shares}");
    }
    let weights: Vec<u64> = (2..=262_144).step_by(97).map(weight_of_shares).collect();
    assert!(weights.is_sorted() && weights.iter().all(|weight| (1..=10_000).contains(weight)));
}
