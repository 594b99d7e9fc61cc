//! The installer on nodes with real containerd. Names begin with the trouble as it is known from other installers.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, bail, ensure};

use super::NodeTest;
use super::cri::{self, Cri};
use super::node::{Node, forms, usual};
use super::systemd::Seen;
use crate::containerd::Version;
use crate::gvisor::Installed;
use crate::prepare::{self, Tools};

pub const TESTS: &[NodeTest] = &[
    NodeTest {
        name: "node: a pod runs by the handler, and uninstall is refused until it is gone",
        run: |tools, version| Box::pin(pod(tools, version)),
    },
    NodeTest {
        name: "node: wrong plugin key: containerd knows the handler from every form of configuration",
        run: |tools, version| Box::pin(every_form(tools, version)),
    },
    NodeTest {
        name: "node: artifacts deleted before containerd restarted: the shim is there at every restart",
        run: |tools, version| Box::pin(order(tools, version)),
    },
    NodeTest {
        name: "node: restart though nothing changed: installed again, and upgraded, without one",
        run: |tools, version| Box::pin(no_needless_restart(tools, version)),
    },
    NodeTest {
        name: "node: an installer that was killed before the restart makes up for it",
        run: |tools, version| Box::pin(owed_restart(tools, version)),
    },
    NodeTest {
        name: "node: handlers that were removed stay after an upgrade: they go",
        run: |tools, version| Box::pin(removed_handler(tools, version)),
    },
    NodeTest {
        name: "node: Text file busy: a shim that runs is replaced and goes on",
        run: |tools, version| Box::pin(busy_shim(tools, version)),
    },
    NodeTest {
        name: "node: no containerd, another distribution: refused, the node as it was",
        run: |tools, version| Box::pin(no_containerd(tools, version)),
    },
    NodeTest {
        name: "node: a broken or unknown configuration is refused, the node as it was",
        run: |tools, version| Box::pin(broken_configuration(tools, version)),
    },
    NodeTest {
        name: "node: a handler of somebody else by our name is refused, the node as it was",
        run: |tools, version| Box::pin(taken(tools, version)),
    },
    NodeTest {
        name: "node: read-only host paths are refused, the node as it was",
        run: |tools, version| Box::pin(read_only(tools, version)),
    },
    NodeTest {
        name: "node: of two releases the second is refused and takes nothing of the first away",
        run: |tools, version| Box::pin(two_releases(tools, version)),
    },
    NodeTest {
        name: "node: containerd that does not come back gets its old configuration",
        run: |tools, version| Box::pin(does_not_come_back(tools, version)),
    },
    NodeTest {
        name: "node: containerd that reads another file is found out, the node as it was",
        run: |tools, version| Box::pin(another_file(tools, version)),
    },
];

fn restarts(node: &Node) -> usize {
    node.unit.restarts.borrow().len()
}

/// Nothing differs from what was there before.
fn same(node: &Node, before: &std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>) -> Result<()> {
    let after = node.tree()?;
    let paths =
        |tree: &std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| tree.keys().cloned().collect::<Vec<_>>();
    ensure!(
        paths(&after) == paths(before),
        "{:?} instead of {:?}",
        paths(&after),
        paths(before)
    );
    match after.iter().find(|(path, bytes)| before.get(*path) != Some(bytes)) {
        Some((path, bytes)) => bail!(
            "{} has other bytes:\n{}",
            path.display(),
            String::from_utf8_lossy(bytes)
        ),
        None => Ok(()),
    }
}

async fn pod(tools: &Tools, version: Version) -> Result<()> {
    let node = Node::start(tools, version, usual(version)).await?;
    let before = node.tree()?;
    cri::import(tools, &node.unit.program, &node.directory).await?;
    let runsc = Installed::new(&prepare::gvisor().await?.join("runsc"))?;
    let at = format!("--gvisor-path={}", runsc.runsc().display());
    let handlers = ["nucleus", "nucleus-production", "nucleus-gvisor", "nucleus-sandboxed"]
        .map(|name| format!("--handler={name}"));
    let arguments: Vec<&str> = handlers.iter().chain([&at]).map(String::as_str).collect();
    node.install(&arguments).await?.ok()?;
    let connection = Cri::connect(&node.unit.socket).await?;
    let pod = connection.run("try", "nucleus", &[]).await?;
    let done = async {
        let text = connection.exec(&pod, &["/bin/busybox", "echo", "hello"]).await?;
        ensure!(text == "hello\n", "{text:?}");
        let shims = std::fs::read_dir("/proc")?
            .flatten()
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .filter(|line| line.starts_with(node.installed_shim().as_os_str().as_encoded_bytes()))
            .count();
        ensure!(shims > 0, "no process runs {}", node.installed_shim().display());
        let refused = node.uninstall(&[]).await?.refused("delete their pods first")?;
        ensure!(
            refused.contains("2 containers of nucleus run on this node"),
            "{refused}"
        );
        // The policy of the handler, and what the pod asks for, reach the shim.
        match connection.run("greedy", "nucleus-production", &[]).await {
            Ok(pod) => {
                connection.remove(&pod).await?;
                bail!("a container without a memory limit was created in production mode")
            }
            Err(error) => ensure!(format!("{error:#}").contains("memory"), "{error:#}"),
        }
        let inside = connection.run("inside", "nucleus-gvisor", &[]).await?;
        let log = connection.exec(&inside, &["/bin/busybox", "dmesg"]).await;
        connection.remove(&inside).await?;
        ensure!(
            log?.contains("gVisor"),
            "the handler nucleus-gvisor does not run in gVisor"
        );
        // Without a pause container, where this containerd can do that.
        let sandboxed = connection.run("sandboxed", "nucleus-sandboxed", &[]).await?;
        let text = connection.exec(&sandboxed, &["/bin/busybox", "echo", "hello"]).await;
        let counted = node.uninstall(&[]).await?.refused("delete their pods first")?;
        connection.remove(&sandboxed).await?;
        ensure!(
            text? == "hello\n" && counted.contains("4 containers of nucleus run on this node"),
            "{counted}"
        );
        match connection.run("wrong", "nucleus", &[("nucleus.dev/mode", "lax")]).await {
            Ok(pod) => {
                connection.remove(&pod).await?;
                bail!("an annotation that means nothing was taken")
            }
            Err(error) => ensure!(format!("{error:#}").contains("mode"), "{error:#}"),
        }
        Ok(())
    }
    .await;
    connection.remove(&pod).await?;
    done?;
    node.uninstall(&[]).await?.ok()?;
    same(&node, &before)?;
    node.unit.stop().await
}

async fn every_form(tools: &Tools, version: Version) -> Result<()> {
    for form in forms(version) {
        let node = Node::start(tools, version, form)
            .await
            .with_context(|| format!("{form:?}"))?;
        let before = node.tree()?;
        let tried = async {
            let said = node.install(&[]).await?.ok()?;
            ensure!(said.contains("containerd knows nucleus"), "{said}");
            node.uninstall(&[]).await?.ok()?;
            same(&node, &before)?;
            ensure!(restarts(&node) == 2, "{} restarts", restarts(&node));
            Ok(())
        };
        tried
            .await
            .with_context(|| format!("{form:?}; containerd: {}", node.unit.log_tail()))?;
        node.unit.stop().await?;
    }
    Ok(())
}

async fn order(tools: &Tools, version: Version) -> Result<()> {
    let node = Node::start(tools, version, usual(version)).await?;
    node.install(&[]).await?.ok()?;
    node.uninstall(&[]).await?.ok()?;
    let seen = node.unit.restarts.borrow().clone();
    let of = |handler| Seen { shim: true, handler };
    ensure!(seen == [of(true), of(false)], "{seen:?}");
    ensure!(!node.installed_shim().exists(), "the shim stays");
    node.unit.stop().await
}

async fn no_needless_restart(tools: &Tools, version: Version) -> Result<()> {
    let mut node = Node::start(tools, version, usual(version)).await?;
    node.install(&[]).await?.ok()?;
    let installed = node.tree()?;
    let said = node.install(&[]).await?.ok()?;
    ensure!(said.contains("no restart"), "{said}");
    same(&node, &installed)?;
    // Another binary, as an upgrade brings it: containerd starts it anew for each pod.
    node.shim.clone_from(&tools.busybox);
    node.install(&[]).await?.ok()?;
    ensure!(
        std::fs::read(node.installed_shim())? == std::fs::read(&tools.busybox)?,
        "the old shim is there"
    );
    ensure!(restarts(&node) == 1, "{} restarts", restarts(&node));
    let dry = node
        .install(&["--dry-run", "--handler=nucleus-production"])
        .await?
        .ok()?;
    ensure!(
        dry.contains("would have restarted containerd") && restarts(&node) == 1,
        "{dry}"
    );
    node.unit.stop().await
}

async fn owed_restart(tools: &Tools, version: Version) -> Result<()> {
    let node = Node::start(tools, version, usual(version)).await?;
    node.install(&[]).await?.ok()?;
    let installed = node.tree()?;
    std::fs::write(node.directory.join("opt/nucleus/restart-pending"), "")?;
    let said = node.install(&[]).await?.ok()?;
    ensure!(
        said.contains("restarted containerd.service") && restarts(&node) == 2,
        "{said}"
    );
    same(&node, &installed)?;
    node.unit.stop().await
}

async fn removed_handler(tools: &Tools, version: Version) -> Result<()> {
    let node = Node::start(tools, version, usual(version)).await?;
    let before = node.tree()?;
    let said = node
        .install(&["--handler=nucleus", "--handler=nucleus-production"])
        .await?
        .ok()?;
    ensure!(said.contains("containerd knows nucleus, nucleus-production"), "{said}");
    node.install(&["--handler=nucleus-production"]).await?.ok()?;
    let texts = node
        .tree()?
        .into_values()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let with_old = texts.filter(|text| text.contains("runtimes.nucleus]")).count();
    ensure!(with_old == 0, "the old handler is still configured");
    ensure!(restarts(&node) == 2, "{} restarts", restarts(&node));
    node.uninstall(&[]).await?.ok()?;
    same(&node, &before)?;
    node.unit.stop().await
}

async fn busy_shim(tools: &Tools, version: Version) -> Result<()> {
    let mut node = Node::start(tools, version, usual(version)).await?;
    let shim = node.shim.clone();
    node.shim.clone_from(&tools.busybox);
    node.install(&[]).await?.ok()?;
    let mut command = std::process::Command::new(node.installed_shim());
    let mut running = command
        .arg0("sleep")
        .arg("1000")
        .spawn()
        .context("run what was installed")?;
    node.shim = shim;
    let done = async {
        node.install(&[]).await?.ok()?;
        ensure!(
            std::fs::read(node.installed_shim())? == std::fs::read(&node.shim)?,
            "the old shim is there"
        );
        ensure!(running.try_wait()?.is_none(), "the program that ran has ended");
        Ok(())
    }
    .await;
    running.kill().context("end what was started")?;
    running.wait().context("wait for its end")?;
    done?;
    node.unit.stop().await
}

async fn no_containerd(tools: &Tools, version: Version) -> Result<()> {
    let mut node = Node::start(tools, version, usual(version)).await?;
    let before = node.tree()?;
    node.distribution = "k0s";
    node.install(&[]).await?.refused("k0s_managed=true")?;
    node.distribution = "containerd";
    node.unit.stop().await?;
    node.install(&[])
        .await?
        .refused("no containerd to be found on this node as containerd has it")?;
    node.distribution = "docker";
    let said = node.install(&[]).await;
    // clap refuses it before there is a termination log to write to.
    ensure!(
        said.is_err_and(|error| format!("{error:#}").contains("there is no distribution `docker`")),
        "taken"
    );
    same(&node, &before)
}

async fn broken_configuration(tools: &Tools, version: Version) -> Result<()> {
    let node = Node::start(tools, version, usual(version)).await?;
    let good = std::fs::read_to_string(node.config())?;
    let plugin = "\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nruntimes = { x = { runtime_type = \"y\" } }\n";
    for (text, words) in [
        (format!("{good}\n[broken\n"), "not valid TOML"),
        (good.replace("version = ", "version = 1"), "versions 1 to 4 are known"),
        (
            format!("disabled_plugins = [\"cri\"]\n{good}"),
            "switches the CRI plugin off",
        ),
        (format!("version = 2\n{plugin}"), "no room for further tables"),
    ] {
        std::fs::write(node.config(), text)?;
        let before = node.tree()?;
        node.install(&[]).await?.refused(words)?;
        same(&node, &before).with_context(|| words.to_owned())?;
    }
    let link = node.directory.join("etc/containerd/elsewhere.toml");
    std::fs::rename(node.config(), &link)?;
    std::os::unix::fs::symlink(&link, node.config())?;
    node.install(&[]).await?.refused("is a symbolic link")?;
    ensure!(restarts(&node) == 0, "{} restarts", restarts(&node));
    node.unit.stop().await
}

async fn taken(tools: &Tools, version: Version) -> Result<()> {
    let node = Node::start(tools, version, usual(version)).await?;
    let plugin = if usual(version).version > 2 {
        "io.containerd.cri.v1.runtime"
    } else {
        "io.containerd.grpc.v1.cri"
    };
    let theirs =
        format!("\n[plugins.\"{plugin}\".containerd.runtimes.nucleus]\nruntime_type = \"io.containerd.runc.v2\"\n");
    let text = std::fs::read_to_string(node.config())?;
    std::fs::write(node.config(), text + &theirs)?;
    let before = node.tree()?;
    node.install(&[])
        .await?
        .refused("has a handler `nucleus` that nucleus-installer did not make")?;
    same(&node, &before)?;
    node.unit.stop().await
}

async fn read_only(tools: &Tools, version: Version) -> Result<()> {
    let node = Node::start(tools, version, usual(version)).await?;
    let before = node.tree()?;
    {
        let _mount = node.make_read_only("opt")?;
        node.install(&[]).await?.refused("Read-only file system")?;
    }
    same(&node, &before)?;
    if usual(version).imports {
        // The shim can be written and the configuration cannot.
        std::fs::create_dir(node.directory.join("etc/containerd/conf.d"))?;
        let before = node.tree()?;
        {
            let _mount = node.make_read_only("etc/containerd/conf.d")?;
            node.install(&[]).await?.refused("Read-only file system")?;
        }
        same(&node, &before)?;
    }
    ensure!(restarts(&node) == 0, "{} restarts", restarts(&node));
    node.unit.stop().await
}

async fn two_releases(tools: &Tools, version: Version) -> Result<()> {
    let mut node = Node::start(tools, version, usual(version)).await?;
    node.install(&[]).await?.ok()?;
    let before = node.tree()?;
    node.owner = "other/two".to_owned();
    let said = node
        .install(&[])
        .await?
        .refused("belongs to the release nucleus-system/one")?;
    ensure!(said.contains("this is other/two"), "{said}");
    let said = node.uninstall(&[]).await?.ok()?;
    ensure!(said.contains("belongs to the release nucleus-system/one"), "{said}");
    same(&node, &before)?;
    ensure!(restarts(&node) == 1, "{} restarts", restarts(&node));
    node.unit.stop().await
}

async fn does_not_come_back(tools: &Tools, version: Version) -> Result<()> {
    let node = Node::start(tools, version, usual(version)).await?;
    let before = node.tree()?;
    node.unit.fails.set(true);
    let said = node.install(&["--timeout=5"]).await?;
    // Its systemd does not start it the second time either, and that is said, too.
    said.refused("containerd.service is failed after its restart")?;
    same(&node, &before)?;
    ensure!(restarts(&node) == 2, "{} restarts", restarts(&node));
    node.unit.fails.set(false);
    node.unit.start().await?;
    node.install(&[]).await?.ok()?;
    node.unit.stop().await
}

async fn another_file(tools: &Tools, version: Version) -> Result<()> {
    let node = Node::start(tools, version, usual(version)).await?;
    // The unit goes on with the file that it has open, so to speak: a copy that nobody changes.
    let copy = node.directory.join("copy.toml");
    let text = std::fs::read_to_string(node.config())?.replace("conf.d", "other.d");
    std::fs::write(&copy, text)?;
    let before = node.tree()?;
    node.unit.config.replace(copy);
    node.install(&["--timeout=5"])
        .await?
        .refused("it reads another configuration file")?;
    same(&node, &before)?;
    ensure!(restarts(&node) == 2, "{} restarts", restarts(&node));
    node.unit.stop().await
}
