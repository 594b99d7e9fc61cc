//! The five capability sets.

use serde_json::{Value, json};

use crate::expect::refused;
use crate::harness::Registry;
use crate::{same, spec};

/// Bits of capabilities(7).
const KILL: u64 = 1 << 5;
const NET_RAW: u64 = 1 << 13;
/// Those of an ordinary container.
const ORDINARY: &str = "00000000a80425fb";

fn mask(bits: u64) -> String {
    format!("{bits:016x}")
}

fn sets(seen: &Value) -> [String; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .map(|name| seen["status"][name].as_str().unwrap_or("?").to_owned())
}

pub fn register(t: &mut Registry) {
    t.add(
        "root of an ordinary container has exactly the usual capabilities",
        async |c| {
            let none = mask(0);
            same!(
                sets(&c.probe(|_| ()).await?),
                [&none, ORDINARY, ORDINARY, ORDINARY, &none].map(str::to_owned)
            );
            Ok(())
        },
    );
    t.add("every set is the spec's", async |c| {
        let (both, one) = (json!(["CAP_KILL", "CAP_NET_RAW"]), json!(["CAP_KILL"]));
        let wanted = json!({"bounding": both, "permitted": both, "effective": one, "inheritable": one, "ambient": one});
        let seen = c.probe(|spec| spec["process"]["capabilities"] = wanted).await?;
        // As root, execve raises the permitted and effective sets to the bounding one: capabilities(7).
        same!(
            sets(&seen),
            [KILL, KILL | NET_RAW, KILL | NET_RAW, KILL | NET_RAW, KILL].map(mask)
        );
        Ok(())
    });
    t.add("without capabilities in the spec there are none", async |c| {
        let seen = c.probe(|spec| spec["process"]["capabilities"] = json!({})).await?;
        same!(sets(&seen), [0; 5].map(mask));
        Ok(())
    });
    t.add(
        "another user than root has none of them without ambient ones",
        async |c| {
            let seen = c
                .probe(|spec| spec["process"]["user"] = json!({"uid": 1000, "gid": 1000}))
                .await?;
            same!(sets(&seen)[1..4], [mask(0), mask(0), ORDINARY.to_owned()]);
            Ok(())
        },
    );
    t.add("ambient capabilities reach a user who is not root", async |c| {
        let seen = c.probe(|spec| {
            let one = json!(["CAP_NET_RAW"]);
            spec["process"]["capabilities"] =
                json!({"bounding": one, "permitted": one, "effective": one, "inheritable": one, "ambient": one});
            spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        });
        same!(sets(&seen.await?), [NET_RAW; 5].map(mask));
        Ok(())
    });
    t.add("a capability that no kernel knows is refused by its name", async |c| {
        let wanted = json!({"bounding": ["CAP_TIME_TRAVEL"], "permitted": ["CAP_TIME_TRAVEL"]});
        let container = c.container().spec(|spec| spec["process"]["capabilities"] = wanted);
        refused(container.create().await)?.saying("CAP_TIME_TRAVEL")?;
        Ok(())
    })
    .differs("runc leaves unknown capabilities out with a warning; nothing is ignored in silence here");
    t.add("a capability that the host lacks is refused", async |c| {
        let status = crate::processes::text(std::process::id(), "status");
        let bounding = status
            .lines()
            .find_map(|line| line.strip_prefix("CapBnd:\t"))
            .unwrap_or_default();
        let bounding = u64::from_str_radix(bounding, 16)?;
        // CAP_SYS_RESOURCE: where the host has it, the capability is simply given.
        let has = bounding & (1 << 24) != 0;
        let one = json!(["CAP_SYS_RESOURCE"]);
        let wanted = json!({"bounding": one, "permitted": one, "effective": one});
        let container = c
            .container()
            .args(&["true"])
            .spec(|spec| spec["process"]["capabilities"] = wanted);
        if has {
            same!(container.output().await?.code, 0);
        } else {
            let refusal = refused(container.create().await)?;
            if c.is_nucleus() {
                refusal.saying("CAP_SYS_RESOURCE")?;
            }
        }
        Ok(())
    });
    t.add("exec has the capabilities of its own description", async |c| {
        let container = c.container().waiting().start().await?;
        let one = json!(["CAP_KILL"]);
        let exec = container.exec(&["probe"]).process(|process| {
            process["capabilities"] = json!({"bounding": one, "permitted": one, "effective": one});
        });
        same!(sets(&exec.output().await?.json()?)[1..4], [KILL; 3].map(mask));
        Ok(())
    });
    t.add("exec's capabilities can be more than init's", async |c| {
        let container = c
            .container()
            .waiting()
            .spec(|spec| spec["process"]["capabilities"] = json!({}))
            .start()
            .await?;
        let exec = container.exec(&["probe"]).process(|process| {
            process["capabilities"] = json!({
                "bounding": spec::CAPABILITIES, "permitted": spec::CAPABILITIES, "effective": spec::CAPABILITIES,
            });
        });
        same!(sets(&exec.output().await?.json()?)[2], ORDINARY);
        Ok(())
    });
}
