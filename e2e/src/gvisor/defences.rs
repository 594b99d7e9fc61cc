//! What is done on the host's side around a sentry: secrets kept in memory, and where packets may go.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use containerd_client::tonic::Code;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::expect::refused;
use crate::hardening::{Network, links_that_lead_nowhere, mounted, reaches, secret_volume};
use crate::harness::Registry;
use crate::processes;
use crate::task::policy::handler;
use crate::{same, spec};

const MEMORY: &str = "secrets = 'memory'\n";
/// A sentry whose packets are the host kernel's, and a pod beside it without one.
const ON_THE_HOST_S_STACK: &str = "[gvisor]\nnetwork = \"host\"\n";
const NATIVE: &str = "runtime = \"native\"\n";

pub fn register(t: &mut Registry) {
    t.add(
        "a Secret is in memory that only the container's gofer and user can see",
        async |c| {
            let volume = secret_volume(c)?;
            std::fs::copy(&c.tools.probe, volume.join("..data/program"))?;
            std::fs::set_permissions(volume.join("..data/program"), std::fs::Permissions::from_mode(0o755))?;
            let user = json!({"uid": 1000, "gid": 1000});
            let with = |options: &str| {
                c.container().waiting().options(handler(options)).spec(|spec| {
                    mounted(spec, "/keys", &volume);
                    spec["process"]["user"] = user.clone();
                    spec["process"]["capabilities"] = json!({});
                })
            };
            let run = async |container: &crate::container::Container<'_>, uid: u32, script: &str| {
                let exec = container.exec(&["sh", "-c", script]).process(|process| {
                    process["user"] = json!({"uid": uid, "gid": 1000});
                    process["capabilities"] = json!({});
                });
                exec.output().await
            };
            let open = with("").start().await?;
            // Where the policy does not ask for it the program runs, others read, and what changes outside is seen.
            same!(run(&open, 1000, "/keys/..data/program exit 7").await?.code, 7);
            same!(run(&open, 1001, "cat /keys/password").await?.ok()?, "opensesame");

            let container = with(MEMORY).start().await?;
            same!(run(&container, 1000, "cat /keys/password").await?.ok()?, "opensesame");
            let shim = processes::shim_of(container.pid.get()).context("no shim")?;
            let gofer = processes::descendants(shim)
                .into_iter()
                .find(|process| process.command.starts_with("runsc-gofer"))
                .context("no gofer")?;
            let table = processes::text(gofer.pid, "mountinfo");
            let mount = table
                .lines()
                .find(|line| line.contains("nucleus-secrets"))
                .with_context(|| format!("not in memory: {table}"))?;
            ensure!(mount.contains("- ramfs ") || mount.contains("noswap"), "{mount}");
            ensure!(mount.contains(" ro,nosuid,nodev,noexec"), "{mount}");
            ensure!(
                !std::fs::read_to_string("/proc/self/mountinfo")?.contains("nucleus-secrets"),
                "the host sees it"
            );
            std::fs::write(volume.join("password"), "changed")?;
            same!(run(&container, 1000, "cat /keys/password").await?.ok()?, "opensesame");
            for (uid, attack) in [
                (1001, "cat /keys/password"),
                (1000, "echo x > /keys/password"),
                (1000, "rm /keys/password"),
                (1000, "touch /keys/new"),
                (1000, "/keys/..data/program exit 0"),
            ] {
                ensure!(run(&container, uid, attack).await?.code != 0, "{attack} as {uid}");
            }
            Ok(()) as Result<()>
        },
    );
    t.add("links of a Secret volume lead nowhere outside", async |c| {
        let (canary, _) = links_that_lead_nowhere(c).await?;
        canary.is_untouched()
    });
    t.add(
        "packets of a sentry on the host's stack leave only for where the policy says",
        async |c| {
            let network = Network::of(c, Some(NATIVE)).await?;
            let free = network
                .container(c, None)
                .waiting()
                .options(handler(ON_THE_HOST_S_STACK));
            let free = free.start().await?;
            let [closed, _] = network.outside(81);
            let [allowed, _] = network.outside(80);
            for protocol in ["tcp", "udp"] {
                ensure!(
                    reaches(&free, protocol, &closed).await?,
                    "no policy, and {protocol} is not reached"
                );
            }
            let policy = format!("{allowed},tcp");
            let confined = network
                .container(c, Some(&policy))
                .waiting()
                .options(handler(ON_THE_HOST_S_STACK))
                .start()
                .await?;
            ensure!(reaches(&confined, "tcp", &allowed).await?, "what is allowed");
            for (protocol, address) in [("tcp", &closed), ("udp", &closed), ("udp", &allowed)] {
                ensure!(!reaches(&confined, protocol, address).await?, "{protocol} {address}");
            }
            // One with a stack of its own sends frames: no rule of the host's sees an address in them.
            refused(network.container(c, Some(&policy)).waiting().create().await)?
                .with_code(Code::InvalidArgument)?
                .saying("egress is not supported with runtime = \"gvisor\"")?
                .saying("set gvisor.network to \"host\" or \"none\"")?;
            Ok(())
        },
    )
    .within(120);
    t.add(
        "a pod on the host's network reaches the host's servers, and one that is not does not",
        async |c| {
            let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let port = server.local_addr()?.port();
            let serving = tokio::task::spawn_local(async move {
                while let Ok((mut stream, _)) = server.accept().await {
                    // Who has gone needs no greeting.
                    stream.write_all(b"greetings\n").await.ok();
                }
            });
            let dial = format!("nc 127.0.0.1 {port} </dev/null");
            let on_host = c
                .container()
                .sh(&dial)
                .spec(|spec| spec::without_namespace(spec, "network"));
            let (reached, apart) = (on_host.output().await, c.container().sh(&dial).output().await);
            serving.abort();
            same!(reached?.ok()?, "greetings\n");
            same!(apart?.stdout, "");
            Ok(())
        },
    );
    t.add("a sentry without a network reaches nothing", async |c| {
        let network = Network::of(c, Some(NATIVE)).await?;
        let [address, _] = network.outside(80);
        let none = network.container(c, Some("deny")).waiting();
        let none = none.options(handler("[gvisor]\nnetwork = \"none\"\n")).start().await?;
        ensure!(!reaches(&none, "tcp", &address).await?, "{address}");
        same!(
            none.sh("ls /sys/class/net; ip -o link | grep -c .")
                .await?
                .stdout
                .trim(),
            "1"
        );
        Ok(())
    })
    .within(120);
}
