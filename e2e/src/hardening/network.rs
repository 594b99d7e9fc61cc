//! Where a pod's packets may go. Each pod's network is a pair of interfaces between two containers, in namespaces that
//! end with them: real packets, none of which leaves the machine.

use anyhow::{Result, ensure};
use containerd_client::tonic::Code;
use serde_json::json;
use tokio::process::Command;

use super::{attacked, shown};
use crate::container::{Builder, Container};
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::task::policy::{annotated, handler};
use crate::{same, spec};

const DIFFERS: &str = "runc has no egress policy";

/// The pod's addresses and those of who is outside.
const OUTSIDE: &str = "10.99.0.2";
const OUTSIDE_6: &str = "fd99::2";

/// A pod's network, and a server at the other end of it.
pub struct Network<'a> {
    /// Holds the pod's network; no policy.
    pod: Container<'a>,
    outside: Container<'a>,
    with_ipv6: bool,
}

impl<'a> Network<'a> {
    async fn new(c: &'a Ctx) -> Result<Self> {
        Self::of(c, None).await
    }

    /// Of containers with these options, where they are not what the node's have.
    pub async fn of(c: &'a Ctx, options: Option<&str>) -> Result<Self> {
        let container = || match options {
            Some(options) => c.container().options(handler(options)),
            None => c.container(),
        };
        let pod = container().waiting().start().await?;
        let script = "for port in 53 80 81; do probe serve $port & done; wait";
        let outside = container().sh(script).start().await?;
        let busybox = c.tools.busybox.display().to_string();
        let inside = async |container: &Container<'_>, script: &str| -> Result<bool> {
            let script = format!("busybox() {{ {busybox} \"$@\"; }}\n{script}");
            let mut command = Command::new(&busybox);
            let pid = container.pid.get().to_string();
            command.args(["nsenter", "-t", &pid, "-n", &busybox, "sh", "-ec", &script]);
            Ok(command.status().await?.success())
        };
        let pair = format!(
            "busybox ip link add eth0 type veth; busybox ip link set veth0 netns {}",
            outside.pid.get()
        );
        ensure!(inside(&pod, &pair).await?, "no pair of interfaces");
        let up = |name: &str, number: u8| {
            format!(
                "busybox ip link set lo up; busybox ip addr add 10.99.0.{number}/24 dev {name}; busybox ip link set \
                 {name} up"
            )
        };
        ensure!(
            inside(&pod, &up("eth0", 1)).await? && inside(&outside, &up("veth0", 2)).await?,
            "no addresses"
        );
        // Addresses that nobody else can have need no time to be tried.
        let up = |name: &str, number: u8| {
            format!(
                "cd /proc/sys/net/ipv6/conf; echo 0 > {name}/disable_ipv6; echo 0 > {name}/accept_dad; \
                 busybox ip -6 addr add fd99::{number}/64 dev {name}"
            )
        };
        let with_ipv6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
        if with_ipv6 {
            ensure!(
                inside(&pod, &up("eth0", 1)).await? && inside(&outside, &up("veth0", 2)).await?,
                "no IPv6"
            );
        }
        c.within(60, "the servers listen", async || {
            Ok(outside.stdout.text().matches("ready").count() == 3)
        })
        .await?;
        Ok(Self {
            pod,
            outside,
            with_ipv6,
        })
    }

    /// A container of the pod.
    pub fn container(&self, c: &'a Ctx, egress: Option<&str>) -> Builder<'a> {
        let path = format!("/proc/{}/ns/net", self.pod.pid.get());
        let container = c
            .container()
            .spec(|spec| spec::with_namespace_path(spec, "network", &path));
        match egress {
            Some(egress) => annotated(container, &json!({"nucleus.dev/egress": egress})),
            None => container,
        }
    }

    pub fn outside(&self, port: u16) -> [String; 2] {
        [format!("{OUTSIDE}:{port}"), format!("[{OUTSIDE_6}]:{port}")]
    }
}

/// Whether it can be reached from a container.
pub async fn reaches(from: &Container<'_>, protocol: &str, address: &str) -> Result<bool> {
    let output = from.exec(&["probe", "dial", protocol, address]).output().await?;
    let answered = output.stdout == "answered\n";
    ensure!(answered || output.stdout.starts_with("refused"), "{output:?}");
    Ok(answered)
}

pub fn register(t: &mut Registry) {
    t.add(
        "packets leave a pod only for where its policy says, by IPv4 and IPv6",
        async |c| {
            let network = Network::new(c).await?;
            let free = network.container(c, None).waiting().start().await?;
            let families = if network.with_ipv6 { 2 } else { 1 };
            for protocol in ["tcp", "udp"] {
                for address in &network.outside(81)[..families] {
                    ensure!(
                        reaches(&free, protocol, address).await?,
                        "no policy, and {protocol} {address} is not reached"
                    );
                    shown(1);
                }
            }
            let policy = format!("{OUTSIDE}:80,tcp; [fd99::/64]:80,udp");
            let confined = network.container(c, Some(&policy)).sh("probe serve 90").start().await?;
            let [four, six] = network.outside(80);
            ensure!(reaches(&confined, "tcp", &four).await?, "what is allowed");
            ensure!(reaches(&confined, "tcp", "127.0.0.1:90").await?, "loopback");
            if network.with_ipv6 {
                ensure!(reaches(&confined, "udp", &six).await?, "what is allowed by IPv6");
                ensure!(!reaches(&confined, "tcp", &six).await?, "TCP by IPv6");
            }
            ensure!(!reaches(&confined, "udp", &four).await?, "UDP by IPv4");
            for protocol in ["tcp", "udp"] {
                for address in &network.outside(81)[..families] {
                    ensure!(!reaches(&confined, protocol, address).await?, "{protocol} {address}");
                    attacked(1);
                }
            }
            // kubelet's probes and clients come from outside, and are answered.
            c.within(60, "the pod's server listens", async || {
                Ok(confined.stdout.text().contains("ready"))
            })
            .await?;
            ensure!(reaches(&network.outside, "tcp", "10.99.0.1:90").await?, "from outside");
            ensure!(
                reaches(&network.outside, "udp", "10.99.0.1:90").await?,
                "from outside by UDP"
            );
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS)
    .within(120);

    t.add(
        "later containers of a pod only tighten where its packets may go",
        async |c| {
            let network = Network::new(c).await?;
            let [web, _] = network.outside(80);
            let first = network
                .container(c, Some(&format!("{OUTSIDE}:80")))
                .waiting()
                .start()
                .await?;
            ensure!(reaches(&first, "tcp", &web).await?, "what is allowed");
            let same = network
                .container(c, Some(&format!("{OUTSIDE}:80")))
                .waiting()
                .start()
                .await?;
            ensure!(reaches(&same, "tcp", &web).await?, "the same policy again");
            for policy in [None, Some("0.0.0.0/0")] {
                let looser = network.container(c, policy).waiting().start().await?;
                ensure!(
                    !reaches(&looser, "tcp", &network.outside(81)[0]).await?,
                    "under {policy:?}"
                );
                attacked(1);
            }
            let _stricter = network.container(c, Some("deny")).waiting().start().await?;
            ensure!(!reaches(&first, "tcp", &web).await?, "after a stricter one");
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS)
    .within(120);

    t.add(
        "a confined container has no capability to change the rules or to send past them",
        async |c| {
            let network = Network::new(c).await?;
            let with_rights = |spec: &mut serde_json::Value| {
                let mut all = spec::CAPABILITIES.to_vec();
                all.push("CAP_NET_ADMIN");
                spec["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
            };
            // A frame of one's own making meets no rule of IP's.
            let frame = format!("arping -c 1 -w 5 -I eth0 {OUTSIDE}");
            let free = network.container(c, None).sh(&frame).spec(with_rights).output().await?;
            same!(free.code, 0, "without the policy it is no attack");
            shown(1);
            let confined = network
                .container(c, Some("deny"))
                .waiting()
                .spec(with_rights)
                .start()
                .await?;
            let exec = confined.exec(&["sh", "-c", &frame]).process(|process| {
                let mut all = spec::CAPABILITIES.to_vec();
                all.push("CAP_NET_ADMIN");
                process["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
            });
            ensure!(exec.output().await?.code != 0, "an exec sent a frame");
            for script in [&frame, "ip link set eth0 name lo2", "unshare -Ur ip link set eth0 down"] {
                ensure!(confined.sh(script).await?.code != 0, "{script}");
                attacked(1);
            }
            ensure!(
                !reaches(&confined, "tcp", &network.outside(80)[0]).await?,
                "the rules are there"
            );
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS)
    .within(120);

    t.add(
        "dns is the name servers of the pod's resolv.conf, and the host's network is refused",
        async |c| {
            let network = Network::new(c).await?;
            let file = c.directory.join("resolv.conf");
            std::fs::write(&file, format!("search example.com\nnameserver {OUTSIDE}\n"))?;
            let with_dns = |spec: &mut serde_json::Value| {
                let source = file.display().to_string();
                spec::push(
                    spec,
                    "/mounts",
                    spec::mount("/etc/resolv.conf", "bind", &source, &["rbind", "ro"]),
                );
            };
            let confined = network
                .container(c, Some("dns"))
                .waiting()
                .spec(with_dns)
                .start()
                .await?;
            ensure!(
                reaches(&confined, "udp", &network.outside(53)[0]).await?,
                "the name server"
            );
            ensure!(
                reaches(&confined, "tcp", &network.outside(53)[0]).await?,
                "the name server by TCP"
            );
            ensure!(
                !reaches(&confined, "tcp", &network.outside(80)[0]).await?,
                "another port of it"
            );
            let without = network.container(c, Some("dns")).waiting();
            refused(without.create().await)?
                .with_code(Code::InvalidArgument)?
                .saying("no name server")?;
            let own = format!("/proc/{}/ns/net", std::process::id());
            let on_host = c.container().waiting().options(handler("egress = 'deny'\n"));
            let on_host = on_host.spec(|spec| spec::without_namespace(spec, "network"));
            refused(on_host.create().await)?
                .with_code(Code::InvalidArgument)?
                .saying("the whole node")?;
            let by_path = c.container().waiting().options(handler("egress = 'deny'\n"));
            let by_path = by_path.spec(|spec| spec::with_namespace_path(spec, "network", &own));
            refused(by_path.create().await)?.saying("the host's own network namespace")?;
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS)
    .within(120);
}
