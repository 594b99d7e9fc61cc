//! Every field of `linux.resources`, read back from the kernel: one table for cgroup v1 and v2, which runc's shim has
//! to agree with. Devices have a subject of their own.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::container::Container;
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::node;

/// One field, what the spec says of it, and where it is found then.
struct Field {
    name: &'static str,
    resources: Value,
    v1: Found,
    v2: Found,
    /// runc 1.1, Debian's, knows it too.
    runc: bool,
}

/// Where a value is found: any of these files, each with a line or a word of it. None where the mode of cgroups has no
/// such limit.
type Found = Vec<(&'static str, String)>;

impl Field {
    fn found(&self) -> &Found {
        if node::has_cgroup_v2() { &self.v2 } else { &self.v1 }
    }
}

/// A file, and what it says.
fn says(file: &'static str, value: impl ToString) -> (&'static str, String) {
    (file, value.to_string())
}

const MIB: u64 = 1 << 20;

/// All that can be set together. `disk` is a disk of the node's.
fn fields(disk: &Disk) -> Vec<Field> {
    let field = |name, resources, v1, v2| Field {
        name,
        resources,
        v1,
        v2,
        runc: true,
    };
    let ours = |field: Field| Field { runc: false, ..field };
    let rate = |number: u64| json!([{"major": disk.major, "minor": disk.minor, "rate": number}]);
    let throttle = |name: &'static str, file: &'static str, key: &str, number: u64| {
        let v1 = vec![says(file, disk.line(number))];
        let v2 = vec![says("io.max", format!("{key}={number}"))];
        field(name, json!({"blockIO": {name: rate(number)}}), v1, v2)
    };
    vec![
        field(
            "memory.limit",
            json!({"memory": {"limit": 64 * MIB}}),
            vec![says("memory.limit_in_bytes", 64 * MIB)],
            vec![says("memory.max", 64 * MIB)],
        ),
        field(
            "memory.swap",
            json!({"memory": {"swap": 96 * MIB}}),
            vec![says("memory.memsw.limit_in_bytes", 96 * MIB)],
            vec![says("memory.swap.max", 32 * MIB)],
        ),
        field(
            "memory.reservation",
            json!({"memory": {"reservation": 32 * MIB}}),
            vec![says("memory.soft_limit_in_bytes", 32 * MIB)],
            vec![says("memory.low", 32 * MIB)],
        ),
        ours(field(
            "memory.kernelTCP",
            json!({"memory": {"kernelTCP": 8 * MIB}}),
            vec![says("memory.kmem.tcp.limit_in_bytes", 8 * MIB)],
            vec![],
        )),
        field(
            "memory.swappiness",
            json!({"memory": {"swappiness": 30}}),
            vec![says("memory.swappiness", 30)],
            vec![],
        ),
        field(
            "memory.disableOOMKiller",
            json!({"memory": {"disableOOMKiller": true}}),
            vec![says("memory.oom_control", "oom_kill_disable 1")],
            vec![],
        ),
        field(
            "memory.useHierarchy",
            json!({"memory": {"useHierarchy": true}}),
            vec![says("memory.use_hierarchy", 1)],
            vec![],
        ),
        field(
            "cpu.quota",
            json!({"cpu": {"quota": 30_000}}),
            vec![says("cpu.cfs_quota_us", 30_000)],
            vec![says("cpu.max", "30000 60000")],
        ),
        field(
            "cpu.period",
            json!({"cpu": {"period": 60_000}}),
            vec![says("cpu.cfs_period_us", 60_000)],
            vec![says("cpu.max", "30000 60000")],
        ),
        ours(field(
            "cpu.burst",
            json!({"cpu": {"burst": 5_000}}),
            vec![says("cpu.cfs_burst_us", 5_000)],
            vec![says("cpu.max.burst", 5_000)],
        )),
        field(
            "cpu.realtimePeriod",
            json!({"cpu": {"realtimePeriod": 500_000}}),
            vec![says("cpu.rt_period_us", 500_000)],
            vec![],
        ),
        field(
            "cpu.cpus",
            json!({"cpu": {"cpus": "0"}}),
            vec![says("cpuset.cpus", 0)],
            vec![says("cpuset.cpus", 0)],
        ),
        field(
            "cpu.mems",
            json!({"cpu": {"mems": "0"}}),
            vec![says("cpuset.mems", 0)],
            vec![says("cpuset.mems", 0)],
        ),
        field(
            "pids.limit",
            json!({"pids": {"limit": 55}}),
            vec![says("pids.max", 55)],
            vec![says("pids.max", 55)],
        ),
        field(
            "blockIO.weight",
            json!({"blockIO": {"weight": 500}}),
            vec![says("blkio.weight", 500), says("blkio.bfq.weight", 500)],
            vec![says("io.bfq.weight", 500), says("io.weight", "default 4950")],
        ),
        // With the cost model of io.weight no disk has a weight of its own before somebody calibrates it.
        field(
            "blockIO.weightDevice",
            json!({"blockIO": {"weightDevice": [{"major": disk.major, "minor": disk.minor, "weight": 500}]}}),
            if disk.has_bfq {
                vec![says("blkio.bfq.weight_device", disk.line(500))]
            } else {
                vec![]
            },
            if disk.has_bfq {
                vec![says("io.bfq.weight", disk.line(500))]
            } else {
                vec![]
            },
        ),
        throttle("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", MIB),
        throttle(
            "throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            "wbps",
            2 * MIB,
        ),
        throttle(
            "throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            "riops",
            300,
        ),
        throttle(
            "throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            "wiops",
            400,
        ),
        ours(field(
            "hugepageLimits",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}),
            vec![],
            vec![says("hugetlb.2MB.max", 4 * MIB)],
        )),
        ours(field(
            "hugepageLimits, reserved",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}),
            vec![],
            vec![says("hugetlb.2MB.rsvd.max", 4 * MIB)],
        )),
        field(
            "unified memory.high",
            json!({"unified": {"memory.high": (48 * MIB).to_string()}}),
            vec![],
            vec![says("memory.high", 48 * MIB)],
        ),
        field(
            "unified memory.min",
            json!({"unified": {"memory.min": (16 * MIB).to_string()}}),
            vec![],
            vec![says("memory.min", 16 * MIB)],
        ),
        field(
            "unified memory.oom.group",
            json!({"unified": {"memory.oom.group": "1"}}),
            vec![],
            vec![says("memory.oom.group", 1)],
        ),
    ]
}

/// Lays what `from` says into `into`.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

struct Disk {
    major: u64,
    minor: u64,
    /// Whether the I/O scheduler is in use that knows weights.
    has_bfq: bool,
}

impl Disk {
    /// As the files of cgroups name it.
    fn line(&self, number: u64) -> String {
        format!("{}:{} {number}", self.major, self.minor)
    }
}

/// A whole disk of the node's, which limits can name.
fn disk() -> Result<Disk> {
    let entries = std::fs::read_dir("/sys/block").context("read /sys/block")?;
    let is_disk = |name: &str| ["vd", "sd", "nvme", "xvd"].iter().any(|start| name.starts_with(start));
    let disk = entries
        .flatten()
        .find(|entry| is_disk(&entry.file_name().to_string_lossy()))
        .context("this node has no disk that limits could name")?;
    let text = std::fs::read_to_string(disk.path().join("dev")).context("read the disk's numbers")?;
    let (major, minor) = text.trim().split_once(':').context("a disk has two numbers")?;
    let schedulers = std::fs::read_to_string(disk.path().join("queue/scheduler")).unwrap_or_default();
    Ok(Disk {
        major: major.parse()?,
        minor: minor.parse()?,
        has_bfq: schedulers.contains("[bfq]"),
    })
}

/// The controller whose directory of cgroup v1 a file is in.
fn controller(file: &str) -> &str {
    file.split('.').next().unwrap_or(file)
}

/// What is wrong with a field; nothing where the kernel says what the spec says.
fn fault(container: &Container<'_>, field: &Field) -> Option<String> {
    let found: Vec<String> = field
        .found()
        .iter()
        .map(|(file, value)| {
            let path = container.cgroup(controller(file)).join(file);
            match std::fs::read_to_string(&path) {
                Ok(text) if text.lines().any(|line| line == value) => String::new(),
                Ok(text) if text.split_whitespace().any(|word| word == value) => String::new(),
                Ok(text) => format!("{file} says {:?} instead of {value:?}", text.trim_end()),
                Err(error) => format!("{}: {error}", path.display()),
            }
        })
        .collect();
    (!found.iter().any(String::is_empty)).then(|| format!("{}: {}", field.name, found.join("; ")))
}

/// Makes one container with all the fields, by create or by update, and compares.
async fn read_back(c: &Ctx, by_update: bool) -> Result<()> {
    let mut chosen = fields(&disk()?);
    chosen.retain(|field| !field.found().is_empty() && (c.is_nucleus() || field.runc));
    if by_update {
        // Containers hold pages by then, and real-time scheduling and the set of hierarchies are for empty cgroups.
        let fixed = ["memory.useHierarchy", "cpu.realtimePeriod"];
        chosen.retain(|field| !fixed.contains(&field.name));
    }
    let mut resources = json!({});
    for field in &chosen {
        merge(&mut resources, field.resources.clone());
    }
    let mut container = c.container().waiting();
    if !by_update {
        container = container.spec(|spec| merge(&mut spec["linux"]["resources"], resources.clone()));
    }
    let container = container.start().await?;
    if by_update {
        container.update(&resources).await?;
    }
    let faults: Vec<String> = chosen.iter().filter_map(|field| fault(&container, field)).collect();
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

pub fn register(t: &mut Registry) {
    t.add("each field of the spec is read back from the kernel", async |c| {
        read_back(c, false).await
    });
    t.add("each field of an update is read back from the kernel", async |c| {
        read_back(c, true).await
    })
    .differs("runc's shim of containerd 1.6 and runc 1.1 leave fields of an update out");
    t.add("shares and idle are read back from the kernel", async |c| {
        let container = c.container().waiting();
        let container = container.spec(|spec| spec["linux"]["resources"]["cpu"] = json!({"shares": 512}));
        let container = container.start().await?;
        container.has_shares(512)?;
        if c.is_nucleus() {
            container.update(&json!({"cpu": {"idle": 1}})).await?;
            let path = container.cgroup("cpu").join("cpu.idle");
            crate::same!(std::fs::read_to_string(path)?.trim_end(), "1");
        }
        Ok(())
    });
    t.add(
        "a limit below what is in use is refused where an update asks for a look first",
        async |c| {
            let container = c.container().args(&["probe", "memory", "20"]);
            let memory = json!({"limit": 64 * MIB});
            let container = container
                .spec(|spec| spec["linux"]["resources"]["memory"] = memory)
                .start()
                .await?;
            container.stdout.wait_for("ready").await?;
            let lower = json!({"memory": {"limit": 8 * MIB, "checkBeforeUpdate": true}});
            refused(container.update(&lower).await)?.saying("bytes are in use")?;
            let limit = container.cgroup_value("memory", "memory.limit_in_bytes")?;
            crate::same!(limit, (64 * MIB).to_string());
            Ok(())
        },
    )
    .differs("runc 1.1 does not know checkBeforeUpdate");
    t.add("a field that this node cannot have is refused by its name", async |c| {
        for (resources, words) in impossible(&disk()?) {
            let container = c
                .container()
                .spec(|spec| merge(&mut spec["linux"]["resources"], resources.clone()));
            let outcome = container.create().await;
            refused(outcome).with_context(|| resources.to_string())?.saying(words)?;
        }
        Ok(())
    })
    .differs("runc passes over what a node does not have");
}

/// What is refused here, and what the error says.
fn impossible(disk: &Disk) -> Vec<(Value, &'static str)> {
    let devices = json!({"mlx5_nowhere": {"hcaHandles": 3}});
    let mut all = vec![
        (
            json!({"memory": {"limit": 64 * MIB, "swap": 32 * MIB}}),
            "resources.memory.swap",
        ),
        (json!({"cpu": {"shares": 1}}), "resources.cpu.shares"),
        (
            json!({"cpu": {"realtimeRuntime": 900_000}}),
            if node::has_cgroup_v2() {
                "resources.cpu.realtimeRuntime"
            } else {
                "cpu.rt_runtime_us"
            },
        ),
        (json!({"memory": {"kernel": 8 * MIB}}), "resources.memory.kernel"),
        (json!({"blockIO": {"leafWeight": 300}}), "leaf"),
        (json!({"rdma": devices}), "rdma"),
        (
            json!({"hugepageLimits": [{"pageSize": "../2MB", "limit": 0}]}),
            "resources.hugepageLimits.pageSize",
        ),
    ];
    if !disk.has_bfq {
        let weight = json!([{"major": disk.major, "minor": disk.minor, "weight": 500}]);
        let file = if node::has_cgroup_v2() {
            "io.weight"
        } else {
            "weight_device"
        };
        all.push((json!({"blockIO": {"weightDevice": weight}}), file));
    }
    if node::has_cgroup_v2() {
        let high = json!({"memory": {"limit": 8 * MIB}, "unified": {"memory.high": (9 * MIB).to_string()}});
        all.extend([
            (high, "memory.high"),
            (json!({"memory": {"swappiness": 10}}), "resources.memory.swappiness"),
            (json!({"memory": {"kernelTCP": 4096}}), "resources.memory.kernelTCP"),
            (json!({"memory": {"disableOOMKiller": true}}), "disableOOMKiller"),
            (json!({"memory": {"useHierarchy": false}}), "useHierarchy"),
            (json!({"cpu": {"realtimePeriod": 500_000}}), "realtimePeriod"),
            (json!({"network": {"classID": 5}}), "resources.network.classID"),
            (
                json!({"network": {"priorities": [{"name": "lo", "priority": 1}]}}),
                "resources.network.priorities",
            ),
            (json!({"unified": {"memory.nonsense": "1"}}), "memory.nonsense"),
            (json!({"unified": {"cgroup.freeze": "1"}}), "cgroup.freeze"),
        ]);
    } else {
        all.push((json!({"unified": {"memory.high": "1"}}), "linux.resources.unified"));
        let mounted = |controller: &str| std::path::Path::new("/sys/fs/cgroup").join(controller).exists();
        if !mounted("net_cls") {
            all.push((json!({"network": {"classID": 5}}), "net_cls"));
        }
        if !mounted("net_prio") {
            let priorities = json!([{"name": "lo", "priority": 1}]);
            all.push((json!({"network": {"priorities": priorities}}), "net_prio"));
        }
        if !mounted("hugetlb") {
            all.push((json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}), "hugetlb"));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number and text in `value`, by its path; what is in a list by the list's.
    fn paths(value: &Value, path: &str, into: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let below = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    paths(value, &below, into);
                }
            }
            _ => into.push(path.to_owned()),
        }
    }

    /// runtime-spec's config-linux.md, "Control groups", version 1.2.
    const OF_THE_SPEC: [&str; 32] = [
        "memory.limit",
        "memory.reservation",
        "memory.swap",
        "memory.kernel",
        "memory.kernelTCP",
        "memory.swappiness",
        "memory.disableOOMKiller",
        "memory.useHierarchy",
        "memory.checkBeforeUpdate",
        "cpu.shares",
        "cpu.quota",
        "cpu.burst",
        "cpu.period",
        "cpu.realtimeRuntime",
        "cpu.realtimePeriod",
        "cpu.cpus",
        "cpu.mems",
        "cpu.idle",
        "pids.limit",
        "blockIO.weight",
        "blockIO.leafWeight",
        "blockIO.weightDevice",
        "blockIO.throttleReadBpsDevice",
        "blockIO.throttleWriteBpsDevice",
        "blockIO.throttleReadIOPSDevice",
        "blockIO.throttleWriteIOPSDevice",
        "hugepageLimits",
        "network.classID",
        "network.priorities",
        "rdma",
        "unified",
        "devices",
    ];

    /// Those that have a behaviour of their own: here, and in the subject `devices`.
    const ELSEWHERE: [&str; 4] = ["cpu.shares", "cpu.idle", "memory.checkBeforeUpdate", "devices"];

    #[test]
    fn every_field_of_the_spec_is_read_back_or_refused() {
        let disk = Disk {
            major: 8,
            minor: 0,
            has_bfq: true,
        };
        let mut tried: Vec<String> = ELSEWHERE.map(str::to_owned).to_vec();
        for field in fields(&disk) {
            assert!(
                !field.v1.is_empty() || !field.v2.is_empty(),
                "{} is nowhere",
                field.name
            );
            paths(&field.resources, "", &mut tried);
        }
        for (resources, _) in impossible(&disk) {
            paths(&resources, "", &mut tried);
        }
        for field in OF_THE_SPEC {
            let is_tried = |path: &String| path == field || path.starts_with(&format!("{field}."));
            assert!(tried.iter().any(is_tried), "{field} is not tried");
        }
    }
}
