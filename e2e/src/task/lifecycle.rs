//! Create, start, exit: one container's life.

use containerd_client::services::v1::{GetRequest, StartRequest, WaitRequest};
use containerd_client::tonic::Code;
use containerd_client::types::v1::Status;
use prost_types::Any;

use crate::expect::refused;
use crate::harness::Registry;
use crate::{processes, same};

pub fn register(t: &mut Registry) {
    t.add("a container runs its program and gives back its output", async |c| {
        let output = c.run(&["echo", "hello"]).await?;
        same!(output.ok()?, "hello\n");
        Ok(())
    });
    t.add("the exit code is the program's", async |c| {
        same!(c.run(&["probe", "exit", "42"]).await?.code, 42);
        Ok(())
    });
    t.add(
        "a program ended by a signal exits with 128 and the signal's number",
        async |c| {
            let container = c.container().waiting().start().await?;
            container.kill(9).await?;
            same!(container.wait().await?, 137);
            same!(container.delete().await?, 137);
            Ok(())
        },
    );
    t.add("a program that aborts exits with 134", async |c| {
        // From a child, as the first process of a PID namespace ignores its own signals.
        let container = c.container().waiting().start().await?;
        same!(container.sh("kill -ABRT $$").await?.code, 134);
        Ok(())
    });
    t.add("a created task waits and start runs it", async |c| {
        let container = c.container().args(&["echo", "now"]).create().await?;
        same!(container.status().await?, Status::Created);
        same!(container.stdout.text(), "");
        container.start().await?;
        same!(container.output().await?.ok()?, "now\n");
        same!(container.status().await?, Status::Stopped);
        same!(container.delete().await?, 0);
        Ok(())
    });
    t.add(
        "a created task has a pid and a process that is not yet the program",
        async |c| {
            let container = c.container().waiting().create().await?;
            let pid = container.pid.get();
            anyhow::ensure!(processes::is_alive(pid), "no process {pid}");
            same!(processes::text(pid, "cmdline").contains("probe\0wait"), false);
            container.start().await?;
            same!(container.pid.get(), pid);
            c.eventually("the program runs in that process", async || {
                Ok(processes::text(pid, "cmdline") == "probe\0wait\0")
            })
            .await
        },
    );
    t.add("a running task tells its state, pid and streams", async |c| {
        let container = c.container().waiting().stdin().start().await?;
        let state = container.state().await?;
        same!(state.status(), Status::Running);
        same!(state.pid, container.pid.get());
        same!([state.stdin, state.stdout, state.stderr], container.uris.clone());
        same!(state.terminal, false);
        Ok(())
    });
    t.add("a stopped task tells its exit status and when", async |c| {
        let container = c.container().args(&["probe", "exit", "3"]).start().await?;
        same!(container.wait().await?, 3);
        let state = container.state().await?;
        same!(state.status(), Status::Stopped);
        same!(state.exit_status, 3);
        anyhow::ensure!(
            state.exited_at.is_some_and(|at| at.seconds > 1_600_000_000),
            "{:?}",
            state.exited_at
        );
        Ok(())
    });
    t.add("start twice is refused", async |c| {
        let container = c.container().waiting().start().await?;
        refused(container.start().await)?;
        same!(container.status().await?, Status::Running);
        Ok(())
    });
    t.add("start after the end is refused", async |c| {
        let container = c.container().start().await?;
        container.wait().await?;
        refused(container.start().await)?;
        same!(container.status().await?, Status::Stopped);
        Ok(())
    });
    t.add(
        "a second task of the same container is refused as existing",
        async |c| {
            let prepared = c.container().waiting().prepare().await?;
            let (id, rootfs) = (prepared.id().to_owned(), prepared.rootfs.clone());
            let container = prepared.create().await?;
            let api = c.api()?;
            let request = containerd_client::services::v1::CreateTaskRequest {
                container_id: id,
                rootfs,
                ..Default::default()
            };
            refused(api.tasks().create(api.request(request)).await)?.with_code(Code::AlreadyExists)?;
            same!(container.status().await?, Status::Created);
            Ok(())
        },
    );
    t.add("a task can be made again after its delete", async |c| {
        let prepared = c.container().args(&["echo", "again"]).prepare().await?;
        let id = prepared.id().to_owned();
        let first = prepared.create().await?;
        first.start().await?;
        first.output().await?;
        first.delete().await?;
        let api = c.api()?;
        let request = containerd_client::services::v1::snapshots::MountsRequest {
            snapshotter: crate::api::SNAPSHOTTER.to_owned(),
            key: id.clone(),
        };
        let rootfs = api.snapshots().mounts(api.request(request)).await?.into_inner().mounts;
        let request = containerd_client::services::v1::CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            ..Default::default()
        };
        api.tasks().create(api.request(request)).await?;
        api.tasks()
            .start(api.request(StartRequest {
                container_id: id.clone(),
                exec_id: String::new(),
            }))
            .await?;
        let request = WaitRequest {
            container_id: id,
            exec_id: String::new(),
        };
        same!(
            api.tasks().wait(api.request(request)).await?.into_inner().exit_status,
            0
        );
        Ok(())
    });
    t.add("calls about an unknown container are refused as not found", async |c| {
        let api = c.api()?;
        let container_id = "no-such-container".to_owned();
        let request = GetRequest {
            container_id: container_id.clone(),
            exec_id: String::new(),
        };
        refused(api.tasks().get(api.request(request)).await)?.with_code(Code::NotFound)?;
        let request = StartRequest {
            container_id: container_id.clone(),
            exec_id: String::new(),
        };
        refused(api.tasks().start(api.request(request)).await)?.with_code(Code::NotFound)?;
        let request = WaitRequest {
            container_id,
            exec_id: String::new(),
        };
        refused(api.tasks().wait(api.request(request)).await)?.with_code(Code::NotFound)?;
        Ok(())
    });
    t.add(
        "wait is answered by the end of a task that was only created when it was called",
        async |c| {
            let container = c.container().args(&["probe", "exit", "5"]).create().await?;
            let (waited, started) = tokio::join!(container.wait(), container.start());
            started?;
            same!(waited?, 5);
            Ok(())
        },
    );
    t.add("wait after the end is answered at once", async |c| {
        let container = c.container().args(&["probe", "exit", "6"]).start().await?;
        same!(container.wait().await?, 6);
        same!(container.wait().await?, 6);
        Ok(())
    });
    t.add("many waits on one task are all answered", async |c| {
        let container = c.container().waiting().start().await?;
        let (first, second, killed, third) =
            tokio::join!(container.wait(), container.wait(), container.kill(9), container.wait());
        killed?;
        same!([first?, second?, third?], [137, 137, 137]);
        Ok(())
    });
    t.add("a created task that is killed stops without ever running", async |c| {
        let container = c.container().args(&["touch", "/ran"]).create().await?;
        container.kill(9).await?;
        same!(container.wait().await?, 137);
        same!(container.status().await?, Status::Stopped);
        same!(container.delete().await?, 137);
        same!(container.stdout.text(), "");
        Ok(())
    });
    t.add("a created task can be deleted without a start", async |c| {
        let container = c.container().create().await?;
        let pid = container.pid.get();
        container.delete().await?;
        c.eventually("its process is gone", async || Ok(!processes::is_alive(pid)))
            .await
    });
    t.add(
        "two containers run beside each other and do not see each other's processes",
        async |c| {
            let first = c.container().waiting().start().await?;
            let second = c.container().args(&["ps"]).start().await?;
            let output = second.output().await?;
            same!(output.ok()?.contains("probe wait"), false, "{}", output.stdout);
            same!(first.status().await?, Status::Running);
            Ok(())
        },
    );
    t.add(
        "what init leaves running in its PID namespace ends with it",
        async |c| {
            let container = c
                .container()
                .sh("probe wait & probe wait & echo ready; read x")
                .stdin()
                .start()
                .await?;
            container.stdout.wait_for("ready").await?;
            let pids: Vec<u32> = container.pids().await?.iter().map(|process| process.pid).collect();
            same!(pids.len(), 3);
            container.end_stdin().await?;
            container.wait().await?;
            c.eventually("all processes are gone", async || {
                Ok(!pids.iter().any(|&pid| processes::is_alive(pid)))
            })
            .await
        },
    );
    t.add(
        "files that a container writes stay until its snapshot goes",
        async |c| {
            let container = c.container().waiting().start().await?;
            container.sh("echo kept > /kept").await?.ok()?;
            same!(container.sh("cat /kept").await?.ok()?, "kept\n");
            same!(c.run(&["ls", "/kept"]).await?.code, 1);
            Ok(())
        },
    );
    t.add(
        "a container that ends at once still gives its whole output",
        async |c| {
            let output = c.run(&["probe", "lines", "4000"]).await?;
            same!(output.ok()?.len(), 4000 * 64);
            Ok(())
        },
    );
    t.add("ten containers at once all run and end", async |c| {
        let mut running = Vec::new();
        for number in 0..10 {
            running.push(c.container().args(&["echo", &number.to_string()]).start().await?);
        }
        for (number, container) in running.iter().enumerate() {
            same!(container.output().await?.ok()?, format!("{number}\n"));
        }
        Ok(())
    });
    t.add(
        "options of runc's shim are taken: no keyring, an owner for the streams",
        async |c| {
            // no_new_keyring is field 2, io_uid 4, io_gid 5 of containerd.runc.v1.Options.
            let value = vec![0x10, 1, 0x20, 0xe8, 0x07, 0x28, 0xe8, 0x07];
            let options = Any {
                type_url: "containerd.runc.v1.Options".to_owned(),
                value,
            };
            let container = c.container().args(&["cat", "/proc/keys"]).options(options);
            let container = container.spec(|spec| spec["linux"]["maskedPaths"] = serde_json::json!([]));
            let unwanted = format!("_ses.{}:", container.id);
            let output = container.output().await?;
            same!(output.ok()?.contains(&unwanted), false, "{}", output.stdout);
            Ok(())
        },
    );
    t.add("options that no runtime knows are refused by their type", async |c| {
        let options = Any {
            type_url: "example.test.Options".to_owned(),
            value: vec![8, 1],
        };
        let refusal = refused(c.container().options(options).create().await)?;
        if c.is_nucleus() {
            refusal.saying("example.test.Options")?;
        }
        Ok(())
    });
    t.add("options as Kubernetes sends them are taken", async |c| {
        // runtimeoptions.v1.Options with an empty ConfigBody: TypeUrl is field 1.
        let name = b"io.containerd.nucleus.v2.Options";
        let value = [&[0x0a, u8::try_from(name.len())?], name.as_slice()].concat();
        let type_url = "runtimeoptions.v1.Options".to_owned();
        let container = c.container().args(&["echo", "fine"]).options(Any { type_url, value });
        same!(container.output().await?.ok()?, "fine\n");
        Ok(())
    })
    .differs("Kubernetes sends runc's shim its own type");
}
