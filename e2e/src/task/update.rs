//! Changing resources of a running container.

use prost_types::Any;
use serde_json::json;

use crate::api::RESOURCES_TYPE;
use crate::expect::refused;
use crate::harness::Registry;
use crate::same;

const MIB: u64 = 1 << 20;

pub fn register(t: &mut Registry) {
    t.add("the memory limit can be raised and lowered", async |c| {
        let memory = json!({"limit": 64 * MIB});
        let container = c
            .container()
            .waiting()
            .spec(|spec| spec["linux"]["resources"]["memory"] = memory)
            .start()
            .await?;
        for limit in [128 * MIB, 32 * MIB] {
            container.update(&json!({"memory": {"limit": limit}})).await?;
            same!(
                container.cgroup_value("memory", "memory.limit_in_bytes")?,
                limit.to_string()
            );
        }
        Ok(())
    });
    t.add("CPU shares, quota and period can be changed", async |c| {
        let container = c.container().waiting().start().await?;
        container
            .update(&json!({"cpu": {"shares": 256, "quota": 20_000, "period": 40_000}}))
            .await?;
        container.has_shares(256)?;
        same!(container.cgroup_value("cpu", "cpu.cfs_quota_us")?, "20000");
        same!(container.cgroup_value("cpu", "cpu.cfs_period_us")?, "40000");
        Ok(())
    });
    t.add("a CPU quota can be taken away", async |c| {
        let cpu = json!({"quota": 20_000, "period": 100_000});
        let container = c
            .container()
            .waiting()
            .spec(|spec| spec["linux"]["resources"]["cpu"] = cpu)
            .start()
            .await?;
        container.update(&json!({"cpu": {"quota": -1}})).await?;
        same!(container.cgroup_value("cpu", "cpu.cfs_quota_us")?, "-1");
        Ok(())
    });
    t.add("the set of CPUs can be changed", async |c| {
        let container = c.container().waiting().start().await?;
        container.update(&json!({"cpu": {"cpus": "0"}})).await?;
        same!(container.cgroup_value("cpuset", "cpuset.cpus")?, "0");
        Ok(())
    });
    t.add("the limit of processes can be changed", async |c| {
        let container = c.container().waiting().start().await?;
        container.update(&json!({"pids": {"limit": 33}})).await?;
        same!(container.cgroup_value("pids", "pids.max")?, "33");
        Ok(())
    });
    t.add("the same update again changes nothing", async |c| {
        let container = c.container().waiting().start().await?;
        let resources = json!({"memory": {"limit": 64 * MIB}, "cpu": {"shares": 300}});
        for _ in 0..3 {
            container.update(&resources).await?;
        }
        same!(
            container.cgroup_value("memory", "memory.limit_in_bytes")?,
            (64 * MIB).to_string()
        );
        container.has_shares(300)?;
        Ok(())
    });
    t.add("what an update does not name stays", async |c| {
        let resources = json!({"limit": 64 * MIB});
        let container = c.container().waiting().spec(|spec| {
            spec["linux"]["resources"]["memory"] = resources;
            spec["linux"]["resources"]["pids"] = json!({"limit": 50});
        });
        let container = container.start().await?;
        container.update(&json!({"cpu": {"shares": 400}})).await?;
        same!(
            container.cgroup_value("memory", "memory.limit_in_bytes")?,
            (64 * MIB).to_string()
        );
        same!(container.cgroup_value("pids", "pids.max")?, "50");
        Ok(())
    });
    t.add("an update that names nothing is accepted", async |c| {
        let container = c.container().waiting().start().await?;
        container.update(&json!({})).await
    });
    t.add("memory and swap can be raised and lowered together", async |c| {
        let memory = json!({"limit": 32 * MIB, "swap": 64 * MIB});
        let container = c
            .container()
            .waiting()
            .spec(|spec| spec["linux"]["resources"]["memory"] = memory)
            .start()
            .await?;
        // The swap limit may never be below the memory limit in between, in neither direction.
        for (limit, swap) in [(128 * MIB, 256 * MIB), (16 * MIB, 24 * MIB)] {
            container
                .update(&json!({"memory": {"limit": limit, "swap": swap}}))
                .await?;
            same!(
                container.cgroup_value("memory", "memory.limit_in_bytes")?,
                limit.to_string()
            );
            same!(
                container.cgroup_value("memory", "memory.memsw.limit_in_bytes")?,
                swap.to_string()
            );
        }
        Ok(())
    });
    t.add("an update that is no JSON is refused and changes nothing", async |c| {
        let container = c.container().waiting().start().await?;
        let garbage = Any {
            type_url: RESOURCES_TYPE.to_owned(),
            value: b"{\"memory\":".to_vec(),
        };
        refused(container.update_any(garbage).await)?;
        same!(container.sh("echo fine").await?.ok()?, "fine\n");
        Ok(())
    });
    t.add("an update with a value of the wrong type is refused", async |c| {
        let container = c.container().waiting().start().await?;
        let before = container.cgroup_value("memory", "memory.limit_in_bytes")?;
        refused(container.update(&json!({"memory": {"limit": "plenty"}})).await)?;
        same!(container.cgroup_value("memory", "memory.limit_in_bytes")?, before);
        Ok(())
    });
    t.add("an update with CPUs that the host lacks is refused", async |c| {
        let container = c.container().waiting().start().await?;
        refused(container.update(&json!({"cpu": {"cpus": "4000"}})).await)?;
        same!(container.sh("echo fine").await?.ok()?, "fine\n");
        Ok(())
    });
    t.add("an update works on a created and on a paused task", async |c| {
        let container = c.container().waiting().create().await?;
        container.update(&json!({"pids": {"limit": 40}})).await?;
        same!(container.cgroup_value("pids", "pids.max")?, "40");
        container.start().await?;
        container.pause().await?;
        container.update(&json!({"pids": {"limit": 41}})).await?;
        same!(container.cgroup_value("pids", "pids.max")?, "41");
        same!(container.cgroup_value("freezer", "freezer.state")?, "FROZEN");
        container.resume().await
    });
    t.add("an updated limit holds for execs", async |c| {
        let container = c.container().waiting().start().await?;
        // Room for the threads of a runtime's own first process, and none for what follows.
        container.update(&json!({"pids": {"limit": 20}})).await?;
        let forks = "i=0; while [ $i -lt 30 ]; do sleep 1 & i=$((i+1)); done; wait";
        let output = container.exec(&["sh", "-c", forks]).output().await?;
        anyhow::ensure!(output.stderr.contains("fork"), "{output:?}");
        Ok(())
    });
}
