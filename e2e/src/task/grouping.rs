//! Several containers behind one shim.

use serde_json::{Value, json};

use crate::container::Builder;
use crate::context::Ctx;
use crate::harness::Registry;
use crate::{processes, same, spec};

const GROUP: &str = "io.containerd.runc.v2.group";
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";

/// A waiting container with an annotation that groups it.
fn member<'a>(c: &'a Ctx, annotation: &str, group: &str) -> Builder<'a> {
    c.own_group(group);
    let annotations = Value::from_iter([(annotation.to_owned(), json!(group))]);
    c.container().waiting().spec(|spec| spec["annotations"] = annotations)
}

pub fn register(t: &mut Registry) {
    for (name, annotation) in [
        ("containers of one pod share a shim", SANDBOX),
        ("containers of one group share a shim", GROUP),
    ] {
        t.add(name, async move |c| {
            let group = format!("{}-pod", c.new_id());
            let first = member(c, annotation, &group).start().await?;
            let second = member(c, annotation, &group).start().await?;
            same!(
                processes::shim_of(first.pid.get()),
                processes::shim_of(second.pid.get())
            );
            same!(first.sh("echo one").await?.ok()?, "one\n");
            same!(second.sh("echo two").await?.ok()?, "two\n");
            Ok(())
        });
    }
    t.add("containers without a group have a shim each", async |c| {
        let first = c.container().waiting().start().await?;
        let second = c.container().waiting().start().await?;
        anyhow::ensure!(processes::shim_of(first.pid.get()) != processes::shim_of(second.pid.get()));
        Ok(())
    });
    t.add("a group's shim stays until its last container is deleted", async |c| {
        let group = format!("{}-pod", c.new_id());
        let first = member(c, SANDBOX, &group).start().await?;
        let second = member(c, SANDBOX, &group).start().await?;
        let shim = processes::shim_of(first.pid.get()).unwrap_or(0);
        for (container, alive) in [(second, true), (first, false)] {
            container.kill(9).await?;
            container.wait().await?;
            container.delete().await?;
            if alive {
                anyhow::ensure!(processes::is_alive(shim), "the shim ended too early");
            }
        }
        c.eventually("the shim is gone", async || Ok(!processes::is_alive(shim)))
            .await
    });
    t.add("the group's first container can go before the others", async |c| {
        let group = format!("{}-pod", c.new_id());
        let first = member(c, SANDBOX, &group).start().await?;
        let second = member(c, SANDBOX, &group).start().await?;
        first.kill(9).await?;
        first.wait().await?;
        first.delete().await?;
        same!(second.sh("echo still here").await?.ok()?, "still here\n");
        Ok(())
    });
    t.add(
        "exits of one container do not touch the others of its group",
        async |c| {
            let group = format!("{}-pod", c.new_id());
            let first = member(c, SANDBOX, &group).start().await?;
            let second = member(c, SANDBOX, &group).start().await?;
            second.kill(9).await?;
            same!(second.wait().await?, 137);
            let events = c.events().wait_for(&second.id, "exit", |_| true).await?;
            same!(events.pid, second.pid.get());
            same!(first.status().await?, containerd_client::types::v1::Status::Running);
            same!(c.events().kinds(&first.id), ["create", "start"]);
            Ok(())
        },
    );
    t.add("a pod's containers can share the first one's namespaces", async |c| {
        let group = format!("{}-pod", c.new_id());
        let first = member(c, SANDBOX, &group)
            .spec(|spec| spec["hostname"] = json!("the-pod"))
            .start()
            .await?;
        let pid = first.pid.get();
        let second = member(c, SANDBOX, &group).spec(|spec| {
            for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
                spec::with_namespace_path(spec, kind, &format!("/proc/{pid}/ns/{name}"));
            }
        });
        let second = second.start().await?;
        same!(second.sh("hostname").await?.ok()?, "the-pod\n");
        Ok(())
    });
    t.add(
        "a pod whose shim is killed is cleaned up with all its containers",
        async |c| {
            let group = format!("{}-pod", c.new_id());
            let first = member(c, SANDBOX, &group).start().await?;
            let second = member(c, SANDBOX, &group).start().await?;
            let pids = [first.pid.get(), second.pid.get()];
            processes::kill(processes::shim_of(pids[0]).unwrap_or(0));
            c.eventually("all are gone", async || {
                Ok(!pids.iter().any(|&pid| processes::is_alive(pid)))
            })
            .await?;
            for container in [&first, &second] {
                c.events()
                    .wait_for(&container.id, "exit", |event| event.status != 0)
                    .await?;
            }
            Ok(())
        },
    );
}
