//! The way to the shim, from inside (CVE-2020-15257, containerd 2024-25621, 2026-53488).

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{attacked, shown};
use crate::container::Builder;
use crate::context::Ctx;
use crate::harness::Registry;
use crate::task::policy::handler;
use crate::{processes, same, spec};

/// A container on the host's network that connects to an abstract socket.
fn connecting<'a>(c: &'a Ctx, name: &str) -> Builder<'a> {
    c.container()
        .args(&["probe", "connect", &format!("@{name}")])
        .spec(|spec| spec::without_namespace(spec, "network"))
}

pub fn register(t: &mut Registry) {
    t.add(
        "nobody but root reaches the shim, even with its directory at hand",
        async |c| {
            let target = c.container().waiting().start().await?;
            let shim = processes::shim_of(target.pid.get()).context("no shim")?;
            let address =
                std::fs::read_to_string(c.daemon.bundle(&c.namespace, &target.id).join("address")).or_else(|_| {
                    let name = crate::leaks::socket_path(&c.daemon, &c.namespace, &target.id);
                    Ok::<_, std::io::Error>(format!("unix://{name}"))
                })?;
            let path = address.trim().trim_start_matches("unix://").to_owned();
            let directory = std::path::Path::new(&path)
                .parent()
                .context("a socket in no directory")?;
            for (uid, gid) in [(1000, 1000), (1, 0)] {
                let container = c.container().args(&["probe", "connect", &path]).spec(|spec| {
                    spec["process"]["user"] = json!({"uid": uid, "gid": gid});
                    spec["process"]["capabilities"] = json!({});
                    let source = directory.display().to_string();
                    spec::push(spec, "/mounts", spec::mount(&source, "bind", &source, &["rbind", "rw"]));
                    spec::without_namespace(spec, "network");
                });
                let output = container.output().await?;
                ensure!(!output.stdout.contains("connected"), "{output:?}");
                attacked(1);
            }
            let unix = processes::text(shim, "net/unix");
            let abstract_ones: Vec<&str> = unix
                .lines()
                .filter(|line| line.contains(" @") && line.contains("containerd"))
                .collect();
            same!(abstract_ones, Vec::<&str>::new());
            let mode = std::fs::metadata(&path)?.permissions().mode();
            same!(mode & 0o077, 0, "the socket's mode");
            Ok(())
        },
    );

    t.add(
        "abstract sockets of the host are out of reach on its network",
        async |c| {
            let name = format!("canary-{}", c.namespace);
            let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
            listener.set_nonblocking(true)?;
            let output = connecting(c, &name).output().await?;
            ensure!(!output.stdout.contains("connected"), "{output:?}");
            let container = connecting(c, &name).args(&["probe", "wait"]).start().await?;
            let output = container
                .exec(&["probe", "connect", &format!("@{name}")])
                .output()
                .await?;
            ensure!(!output.stdout.contains("connected"), "{output:?}");
            ensure!(listener.accept().is_err(), "somebody connected");
            attacked(2);
            let unprotected = connecting(c, &name).options(handler("landlock.tier = \"none\"\n"));
            let output = unprotected.output().await?;
            ensure!(
                output.stdout.contains("connected"),
                "without the domain it is no attack: {output:?}"
            );
            shown(1);
            Ok(())
        },
    )
    .differs("runc has no Landlock: CVE-2020-15257 was about such sockets");

    t.add(
        "processes of one pod still meet at abstract sockets of their network",
        async |c| {
            let server = c.container().args(&["probe", "listen", "@meeting"]).start().await?;
            c.eventually("the server listens", async || {
                Ok(server.stdout.text().contains("ready"))
            })
            .await?;
            let path = format!("/proc/{}/ns/net", server.pid.get());
            let client = c.container().args(&["probe", "connect", "@meeting"]);
            let client = client.spec(|spec| spec::with_namespace_path(spec, "network", &path));
            same!(client.output().await?.stdout, "connected\n");
            Ok(())
        },
    );

    t.add(
        "a container on the host's processes, without rights, signals and traces none of the runtime",
        async |c| {
            let target = c.container().waiting().start().await?;
            let shim = processes::shim_of(target.pid.get()).context("no shim")?;
            let script = format!(
                "kill -9 {shim}; cat /proc/{shim}/environ; ls -l /proc/{shim}/fd /proc/{shim}/root; for p in \
             /proc/[0-9]*; do \
             if grep -q nucleus $p/comm 2>/dev/null; then head -c 1 $p/mem; ls $p/root/; kill -9 ${{p#/proc/}}; fi; \
             done; echo end"
            );
            let unprivileged = |process: &mut Value| {
                process["user"] = json!({"uid": 1000, "gid": 1000});
                process["capabilities"] = json!({});
            };
            let on_host = || {
                c.container().spec(|spec| {
                    spec::without_namespace(spec, "pid");
                    unprivileged(&mut spec["process"]);
                })
            };
            let waiting = on_host().waiting().start().await?;
            let exec = waiting.exec(&["sh", "-c", &script]).process(unprivileged);
            for output in [on_host().sh(&script).output().await?, exec.output().await?] {
                ensure!(output.stdout.ends_with("end\n"), "{output:?}");
                ensure!(!output.stdout.contains("TTRPC_ADDRESS"), "{output:?}");
                attacked(1);
            }
            ensure!(processes::is_alive(shim), "the shim was killed");
            same!(target.sh("true").await?.code, 0);
            Ok(()) as Result<()>
        },
    );
}
