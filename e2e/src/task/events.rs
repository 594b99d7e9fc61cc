//! Which events there are, and in which order.

use serde_json::json;

use crate::expect::refused;
use crate::harness::Registry;
use crate::{same, spec};

pub fn register(t: &mut Registry) {
    of_tasks(t);
    of_execs(t);
    of_other_things(t);
}

/// Seen twice in a row in one of these: where the shim's last container goes, the shim may go first.
const DELETE_MAY_BE_LOST: &str = "its shim may end with the delete event unpublished";

fn of_tasks(t: &mut Registry) {
    t.add("a container's life is create, start, exit, delete", async |c| {
        let container = c.container().args(&["probe", "exit", "5"]).start().await?;
        container.wait().await?;
        // runc's shim of containerd 2 may end with its exit event unpublished if it is deleted at once.
        c.events()
            .wait_for(&container.id, "exit", |event| event.process == container.id)
            .await?;
        container.delete().await?;
        c.events().wait_for(&container.id, "delete", |_| true).await?;
        same!(c.events().kinds(&container.id), ["create", "start", "exit", "delete"]);
        Ok(())
    })
    .new_runc_differs(DELETE_MAY_BE_LOST);
    t.add("events of a task tell its pid, its status and its bundle", async |c| {
        let container = c.container().args(&["probe", "exit", "5"]).start().await?;
        container.wait().await?;
        // runc's shim of containerd 2 may end with its exit event unpublished if it is deleted at once.
        c.events()
            .wait_for(&container.id, "exit", |event| event.process == container.id)
            .await?;
        container.delete().await?;
        c.events().wait_for(&container.id, "delete", |_| true).await?;
        for event in c.events().of(&container.id) {
            same!(event.pid, container.pid.get(), "{event:?}");
            match event.kind() {
                "create" => same!(
                    event.bundle,
                    c.daemon.bundle(&c.namespace, &container.id).display().to_string()
                ),
                "exit" => same!((event.status, &event.process), (5, &container.id)),
                "delete" => same!(event.status, 5),
                _ => {}
            }
        }
        Ok(())
    })
    .new_runc_differs(DELETE_MAY_BE_LOST);
    t.add("start comes before exit, however short the program", async |c| {
        for _ in 0..8 {
            let container = c.container().args(&["true"]).start().await?;
            container.wait().await?;
            c.events().wait_for(&container.id, "exit", |_| true).await?;
            same!(c.events().kinds(&container.id), ["create", "start", "exit"]);
            container.delete().await?;
        }
        Ok(())
    });
    t.add(
        "waiting is answered before or with the exit event, which comes once",
        async |c| {
            let container = c.container().waiting().start().await?;
            container.kill(9).await?;
            same!(container.wait().await?, 137);
            c.events()
                .wait_for(&container.id, "exit", |event| event.status == 137)
                .await?;
            container.delete().await?;
            c.events().wait_for(&container.id, "delete", |_| true).await?;
            let exits = c
                .events()
                .of(&container.id)
                .iter()
                .filter(|event| event.kind() == "exit")
                .count();
            same!(exits, 1);
            Ok(())
        },
    )
    .new_runc_differs(DELETE_MAY_BE_LOST);
    t.add("a create that fails has no exit event", async |c| {
        let container = c.container().args(&["no-such-program"]);
        let id = container.id.clone();
        refused(container.create().await)?;
        // An event of a later container says that those before it are here.
        let marker = c.container().create().await?;
        c.events().wait_for(&marker.id, "create", |_| true).await?;
        same!(
            c.events().kinds(&id).contains(&"exit".to_owned()),
            false,
            "{:?}",
            c.events().of(&id)
        );
        Ok(())
    });
    t.add(
        "a created task that is killed has an exit event and no start event",
        async |c| {
            let container = c.container().waiting().create().await?;
            container.kill(9).await?;
            container.wait().await?;
            c.events()
                .wait_for(&container.id, "exit", |event| event.status == 137)
                .await?;
            same!(c.events().kinds(&container.id), ["create", "exit"]);
            Ok(())
        },
    );
}

fn of_execs(t: &mut Registry) {
    t.add("an exec's life is added, started, exit", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["probe", "exit", "6"]).start().await?;
        exec.wait().await?;
        let exit = c
            .events()
            .wait_for(&container.id, "exit", |event| event.process == exec.exec_id)
            .await?;
        same!((exit.status, exit.pid), (6, exec.pid.get()));
        same!(
            c.events().kinds(&container.id),
            ["create", "start", "exec-added", "exec-started", "exit"]
        );
        let started = c.events().wait_for(&container.id, "exec-started", |_| true).await?;
        same!((started.process, started.pid), (exec.exec_id.clone(), exec.pid.get()));
        Ok(())
    });
    t.add(
        "exec-started comes before the exec's exit, however short the program",
        async |c| {
            let container = c.container().waiting().start().await?;
            for _ in 0..8 {
                let exec = container.exec(&["true"]).start().await?;
                exec.wait().await?;
                c.events()
                    .wait_for(&container.id, "exit", |event| event.process == exec.exec_id)
                    .await?;
                let events = c.events().of(&container.id);
                let of_exec = events.iter().filter(|event| event.process == exec.exec_id);
                same!(
                    of_exec.map(|event| event.kind()).collect::<Vec<_>>(),
                    ["exec-added", "exec-started", "exit"]
                );
                exec.delete().await?;
            }
            Ok(())
        },
    );
    t.add("an exec whose start fails has no exit event", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["no-such-program"]).create().await?;
        refused(exec.start().await)?;
        container.sh("true").await?;
        c.events().wait_for(&container.id, "exit", |_| true).await?;
        let events = c.events().of(&container.id);
        let kinds: Vec<&str> = events
            .iter()
            .filter(|event| event.process == exec.exec_id)
            .map(|event| event.kind())
            .collect();
        same!(kinds, ["exec-added"]);
        Ok(())
    });
    t.add("the delete of an exec has no event", async |c| {
        let container = c.container().waiting().start().await?;
        container.sh("true").await?;
        container.kill(9).await?;
        container.wait().await?;
        // runc's shim of containerd 2 may end with its exit event unpublished if it is deleted at once.
        c.events()
            .wait_for(&container.id, "exit", |event| event.process == container.id)
            .await?;
        container.delete().await?;
        c.events().wait_for(&container.id, "delete", |_| true).await?;
        let deletes = c
            .events()
            .of(&container.id)
            .iter()
            .filter(|event| event.kind() == "delete")
            .count();
        same!(deletes, 1);
        Ok(())
    })
    .new_runc_differs(DELETE_MAY_BE_LOST);
    t.add("execs end before their init: their exits come first", async |c| {
        let container = c.container().waiting().start().await?;
        let execs = [
            container.exec(&["probe", "wait"]).start().await?,
            container.exec(&["probe", "wait"]).start().await?,
        ];
        container.kill(9).await?;
        container.wait().await?;
        c.events()
            .wait_for(&container.id, "exit", |event| event.process == container.id)
            .await?;
        let events = c.events().of(&container.id);
        let exits: Vec<&str> = events
            .iter()
            .filter(|event| event.kind() == "exit")
            .map(|event| event.process.as_str())
            .collect();
        same!(exits.len(), 3, "{exits:?}");
        same!(exits[2], container.id);
        for exec in &execs {
            anyhow::ensure!(exits.contains(&exec.exec_id.as_str()), "{exits:?}");
        }
        Ok(())
    });
    t.add(
        "execs of a container in the host's PID namespace end before their init too",
        async |c| {
            let container = c
                .container()
                .waiting()
                .spec(|spec| spec::without_namespace(spec, "pid"))
                .start()
                .await?;
            let exec = container.exec(&["probe", "wait"]).start().await?;
            container.kill(9).await?;
            container.wait().await?;
            c.events()
                .wait_for(&container.id, "exit", |event| event.process == container.id)
                .await?;
            let events = c.events().of(&container.id);
            let exits: Vec<&str> = events
                .iter()
                .filter(|event| event.kind() == "exit")
                .map(|event| event.process.as_str())
                .collect();
            same!(exits, [exec.exec_id.as_str(), container.id.as_str()]);
            Ok(())
        },
    )
    .old_runc_differs("it holds nothing back");
}

fn of_other_things(t: &mut Registry) {
    t.add("pause and resume have events", async |c| {
        let container = c.container().waiting().start().await?;
        container.pause().await?;
        container.resume().await?;
        c.events().wait_for(&container.id, "resumed", |_| true).await?;
        same!(
            c.events().kinds(&container.id),
            ["create", "start", "paused", "resumed"]
        );
        Ok(())
    });
    t.add("a kill for lack of memory has an event before the exit", async |c| {
        let memory = json!({"limit": 16 << 20, "swap": 16 << 20});
        let container = c.container().args(&["probe", "memory", "64"]);
        let container = container
            .spec(|spec| spec["linux"]["resources"]["memory"] = memory)
            .start()
            .await?;
        container.wait().await?;
        c.events().wait_for(&container.id, "exit", |_| true).await?;
        c.events().wait_for(&container.id, "oom", |_| true).await?;
        if c.is_nucleus() {
            same!(c.events().kinds(&container.id), ["create", "start", "oom", "exit"]);
        }
        Ok(())
    })
    .old_runc_differs("on a busy machine it tells of the exit and not of what came before");
    t.add("every exit of thirty execs is seen exactly once", async |c| {
        let container = c.container().waiting().start().await?;
        let mut execs = Vec::new();
        for _ in 0..30 {
            execs.push(container.exec(&["true"]).streams(["", "", ""]).start().await?);
        }
        for exec in &execs {
            exec.wait().await?;
            c.events()
                .wait_for(&container.id, "exit", |event| event.process == exec.exec_id)
                .await?;
        }
        let events = c.events().of(&container.id);
        same!(events.iter().filter(|event| event.kind() == "exit").count(), 30);
        Ok(())
    });
}
