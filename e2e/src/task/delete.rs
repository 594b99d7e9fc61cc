//! Delete: bounded, complete, harmless when done again.

use containerd_client::services::v1::DeleteTaskRequest;
use containerd_client::tonic::Code;

use crate::expect::refused;
use crate::harness::Registry;
use crate::{processes, same, spec};

pub fn register(t: &mut Registry) {
    t.add("delete tells the exit status, the pid and when it ended", async |c| {
        let container = c.container().args(&["probe", "exit", "9"]).start().await?;
        container.wait().await?;
        let reply = container.delete_reply().await?;
        same!((reply.exit_status, reply.pid), (9, container.pid.get()));
        anyhow::ensure!(
            reply.exited_at.is_some_and(|at| at.seconds > 1_600_000_000),
            "{:?}",
            reply.exited_at
        );
        Ok(())
    });
    t.add("a second delete is refused as not found", async |c| {
        let container = c.container().start().await?;
        container.wait().await?;
        container.delete().await?;
        refused(container.delete().await)?.with_code(Code::NotFound)?;
        Ok(())
    });
    t.add("delete of an unknown task is refused as not found", async |c| {
        let api = c.api()?;
        let request = DeleteTaskRequest {
            container_id: "no-such-task".to_owned(),
        };
        refused(api.tasks().delete(api.request(request)).await)?.with_code(Code::NotFound)?;
        Ok(())
    });
    t.add("delete ends the shim and removes its bundle and socket", async |c| {
        let container = c.container().waiting().start().await?;
        let shim = processes::shim_of(container.pid.get()).unwrap_or(0);
        let bundle = c.daemon.bundle(&c.namespace, &container.id);
        let socket = crate::leaks::socket_path(&c.daemon, &c.namespace, &container.id);
        anyhow::ensure!(bundle.exists() && std::path::Path::new(&socket).exists());
        container.kill(9).await?;
        container.wait().await?;
        container.delete().await?;
        anyhow::ensure!(!bundle.exists());
        c.eventually("the shim is gone", async || Ok(!processes::is_alive(shim)))
            .await?;
        c.eventually("the socket is gone", async || {
            Ok(!std::path::Path::new(&socket).exists())
        })
        .await
    });
    t.add("delete unmounts the root filesystem", async |c| {
        let container = c.container().start().await?;
        container.wait().await?;
        container.delete().await?;
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        let bundle = c.daemon.bundle(&c.namespace, &container.id).display().to_string();
        same!(table.contains(&bundle), false);
        Ok(())
    });
    t.add(
        "delete of a task with execs that have ended removes them too",
        async |c| {
            let container = c.container().waiting().start().await?;
            let exec = container.exec(&["true"]).start().await?;
            exec.wait().await?;
            container.kill(9).await?;
            container.wait().await?;
            container.delete().await?;
            refused(exec.state().await)?.with_code(Code::NotFound)?;
            Ok(())
        },
    );
    t.add("delete of a container with a busy working directory works", async |c| {
        let container = c
            .container()
            .sh("cd /tmp && touch x && exec 9<x && probe wait")
            .start()
            .await?;
        container.kill_all(9).await?;
        container.wait().await?;
        container.delete().await?;
        Ok(())
    });
    t.add("delete of a container in the host's namespaces works", async |c| {
        let container = c.container().waiting().spec(|spec| {
            for kind in ["network", "pid", "uts"] {
                spec::without_namespace(spec, kind);
            }
        });
        let container = container.start().await?;
        container.kill(9).await?;
        container.wait().await?;
        container.delete().await?;
        Ok(())
    });
    t.add("delete waits for the output that is still on its way", async |c| {
        let container = c.container().args(&["probe", "lines", "16384"]).start().await?;
        container.wait().await?;
        container.delete().await?;
        same!(container.stdout.to_end().await?.len(), 16384 * 64);
        Ok(())
    });
    t.add(
        "delete of a container whose output nobody reads is bounded",
        async |c| {
            let paths = ["out", "err"].map(|name| c.directory.join(name));
            for path in &paths {
                crate::io::make_fifo(path)?;
            }
            let readers = paths
                .clone()
                .map(|path| tokio::net::unix::pipe::OpenOptions::new().open_receiver(path));
            let uris = paths.map(|path| path.display().to_string());
            let container = c
                .container()
                .args(&["probe", "lines", "8000"])
                .streams(["", &uris[0], &uris[1]])
                .start()
                .await?;
            container.kill(9).await?;
            container.wait().await?;
            container.delete().await?;
            drop(readers);
            Ok(())
        },
    )
    .within(60);
}
