//! Pods: one sentry, several containers; and what shows that it is a sentry.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::container::Builder;
use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::{processes, same, spec};

const TYPE: &str = "io.kubernetes.cri.container-type";
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";

/// A pod's first container, as CRI has it.
pub fn sandbox(c: &Ctx) -> Builder<'_> {
    let builder = c.container().waiting().streams(["", "", ""]);
    let id = builder.id.clone();
    builder.spec(|spec| spec["annotations"] = json!({TYPE: "sandbox", SANDBOX: id}))
}

/// Another one of that pod.
pub fn member<'a>(c: &'a Ctx, pod: &str) -> Builder<'a> {
    c.container()
        .waiting()
        .spec(|spec| spec["annotations"] = json!({TYPE: "container", SANDBOX: pod}))
}

/// How many sentries and gofers there are below a shim.
fn helpers(shim: u32) -> (usize, usize) {
    let all = processes::descendants(shim);
    let named = |name: &str| all.iter().filter(|process| process.command.starts_with(name)).count();
    (named("runsc-sandbox"), named("runsc-gofer"))
}

pub fn register(t: &mut Registry) {
    t.add("a container sees gVisor's kernel and not the host's", async |c| {
        let container = c.container().waiting().start().await?;
        let log = container.sh("dmesg").await?;
        ensure!(log.ok()?.contains("gVisor"), "{log:?}");
        Ok(())
    });
    t.add(
        "a pod of three containers is one sentry, and nothing stays to wait",
        async |c| {
            let pod = sandbox(c).start().await?;
            let shim = processes::shim_of(pod.pid.get()).context("no shim")?;
            let one = member(c, &pod.id).start().await?;
            let two = member(c, &pod.id).start().await?;
            for (container, word) in [(&one, "one"), (&two, "two")] {
                same!(container.pid.get(), pod.pid.get());
                same!(container.sh(&format!("echo {word}")).await?.ok()?, format!("{word}\n"));
            }
            same!(helpers(shim), (1, 3));
            let commands: Vec<String> = processes::descendants(shim)
                .into_iter()
                .filter(|process| process.parent == shim)
                .map(|process| process.command)
                .collect();
            ensure!(
                commands
                    .iter()
                    .all(|line| line.starts_with("runsc-sandbox") || line.starts_with("runsc-gofer")),
                "{commands:?}"
            );
            Ok(())
        },
    );
    t.add(
        "the containers of a pod end one by one, each with its own status",
        async |c| {
            let pod = sandbox(c).start().await?;
            let one = member(c, &pod.id).args(&["probe", "exit", "7"]).start().await?;
            same!(one.wait().await?, 7);
            one.delete().await?;
            let two = member(c, &pod.id).start().await?;
            two.kill(9).await?;
            same!(two.wait().await?, 137);
            let exit = c.events().wait_for(&two.id, "exit", |_| true).await?;
            same!(exit.status, 137);
            two.delete().await?;
            same!(pod.sh("echo still here").await?.ok()?, "still here\n");
            Ok(())
        },
    );
    t.add(
        "a container of a living pod can be started again and again",
        async |c| {
            let pod = sandbox(c).start().await?;
            for number in 0..5 {
                let code = number.to_string();
                let container = member(c, &pod.id).args(&["probe", "exit", &code]).start().await?;
                same!(container.wait().await?, number);
                container.delete().await?;
            }
            Ok(())
        },
    );
    t.add("a member that is never started can be killed and deleted", async |c| {
        let pod = sandbox(c).start().await?;
        let one = member(c, &pod.id).create().await?;
        one.kill(9).await?;
        same!(one.wait().await?, 137);
        one.delete().await?;
        let two = member(c, &pod.id).create().await?;
        two.delete().await?;
        Ok(())
    });
    t.add("a volume is shared between the containers of a pod", async |c| {
        let volume = c.directory.join("volume");
        std::fs::create_dir(&volume)?;
        let source = volume.display().to_string();
        let with = |spec: &mut serde_json::Value| {
            spec["mounts"]
                .as_array_mut()
                .into_iter()
                .for_each(|mounts| mounts.push(spec::mount("/data", "bind", &source, &["rbind", "rw"])));
        };
        let pod = sandbox(c).start().await?;
        let one = member(c, &pod.id).spec(with).start().await?;
        let two = member(c, &pod.id).spec(with).start().await?;
        one.sh("echo shared > /data/file").await?.ok()?;
        same!(two.sh("cat /data/file").await?.ok()?, "shared\n");
        same!(std::fs::read_to_string(volume.join("file"))?, "shared\n");
        Ok(())
    });
    t.add(
        "the containers of a pod share its /dev/shm and its emptyDir volumes, from its start on",
        async |c| {
            let volume = c.directory.join("volume");
            std::fs::create_dir(&volume)?;
            let source = volume.display().to_string();
            let with = |spec: &mut serde_json::Value| {
                let mounts = spec["mounts"].as_array_mut();
                mounts.into_iter().for_each(|mounts| {
                    mounts.retain(|mount| mount["destination"] != "/dev/shm");
                    mounts.push(spec::mount("/dev/shm", "bind", &source, &["rbind", "rw"]));
                    mounts.push(spec::mount("/scratch", "bind", &source, &["rbind", "rw"]));
                });
            };
            let pod = sandbox(c).spec(with).start().await?;
            let one = member(c, &pod.id).spec(with).start().await?;
            let two = member(c, &pod.id).spec(with).start().await?;
            one.sh("echo shared > /dev/shm/file").await?.ok()?;
            same!(
                two.sh("cat /dev/shm/file /scratch/file").await?.ok()?,
                "shared\nshared\n"
            );
            two.sh("rm /scratch/file; echo again > /scratch/other").await?.ok()?;
            same!(one.sh("ls /dev/shm; cat /dev/shm/other").await?.ok()?, "other\nagain\n");
            Ok(())
        },
    );
    t.add(
        "a sentry's death is the end of all its containers, with 137",
        async |c| {
            let pod = sandbox(c).start().await?;
            let one = member(c, &pod.id).start().await?;
            let exec = one.exec(&["probe", "wait"]).start().await?;
            processes::kill(pod.pid.get());
            for status in [pod.wait().await?, one.wait().await?, exec.wait().await?] {
                same!(status, 137);
            }
            for id in [&one.id, &pod.id] {
                c.events()
                    .wait_for(id, "exit", |event| event.status == 137 && event.process == *id)
                    .await?;
            }
            one.delete().await?;
            pod.delete().await?;
            Ok(())
        },
    );
    t.add(
        "a gofer's death does not keep its container from being deleted",
        async |c| {
            let pod = sandbox(c).start().await?;
            let shim = processes::shim_of(pod.pid.get()).context("no shim")?;
            let one = member(c, &pod.id).start().await?;
            for process in processes::descendants(shim) {
                if process.command.starts_with("runsc-gofer") {
                    processes::kill(process.pid);
                }
            }
            // A sentry whose gofer has died may end by itself.
            for container in [&one, &pod] {
                container.kill(9).await.ok();
                ensure!(container.wait().await? != 0);
                container.delete().await?;
            }
            Ok(())
        },
    );
    t.add(
        "a pod whose shim is killed leaves no sentry, no gofer and no file",
        async |c| {
            let pod = sandbox(c).start().await?;
            let one = member(c, &pod.id).start().await?;
            let shim = processes::shim_of(pod.pid.get()).context("no shim")?;
            let below: Vec<u32> = processes::descendants(shim)
                .into_iter()
                .map(|process| process.pid)
                .collect();
            ensure!(below.len() >= 3, "{below:?}");
            processes::kill(shim);
            c.eventually("all are gone", async || {
                Ok(!below.iter().any(|&pid| processes::is_alive(pid)))
            })
            .await?;
            let state = std::path::Path::new("/run/nucleus/gvisor")
                .join(&c.namespace)
                .join(&pod.id);
            c.eventually("its state is gone", async || Ok(!state.exists())).await?;
            for id in [&one.id, &pod.id] {
                c.events().wait_for(id, "exit", |event| event.process == *id).await?;
            }
            Ok(())
        },
    );
    t.add(
        "pausing a member alone is refused, as its whole pod would stand still",
        async |c| {
            let pod = sandbox(c).start().await?;
            let one = member(c, &pod.id).start().await?;
            refused(one.pause().await)?.saying("a sentry pauses all containers of its pod at once")?;
            same!(one.sh("echo runs").await?.ok()?, "runs\n");
            Ok(())
        },
    );
    t.add("a member of a sandbox that is not there is refused", async |c| {
        refused(member(c, "no-such-pod").create().await)?.saying("is to join the sandbox no-such-pod")?;
        Ok(())
    });
    t.add("a paused container stands still and goes on when resumed", async |c| {
        let volume = c.directory.join("volume");
        std::fs::create_dir(&volume)?;
        let source = volume.display().to_string();
        let count = "i=0; while :; do i=$((i+1)); echo $i > /data/count; sleep 0.02; done";
        let container = c.container().sh(count).spec(|spec| {
            let mounts = spec["mounts"].as_array_mut();
            mounts
                .into_iter()
                .for_each(|mounts| mounts.push(spec::mount("/data", "bind", &source, &["rbind", "rw"])));
        });
        let container = container.start().await?;
        let counted = || std::fs::read_to_string(volume.join("count")).unwrap_or_default();
        c.eventually("it counts", async || {
            Ok(counted().trim().parse::<u32>().is_ok_and(|count| count > 3))
        })
        .await?;
        container.pause().await?;
        same!(container.status().await?, containerd_client::types::v1::Status::Paused);
        let stopped = counted();
        // Nothing to wait for: what is looked for is that nothing happens.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        same!(counted(), stopped);
        container.resume().await?;
        c.eventually("it goes on", async || Ok(counted() != stopped)).await?;
        container.pause().await?;
        container.kill(9).await?;
        same!(container.wait().await?, 137);
        Ok(())
    });
    t.add("a sentry without memory is killed, and its exit says so", async |c| {
        let limit = 192 << 20;
        let container = c
            .container()
            .args(&["probe", "memory", "400"])
            .spec(|spec| spec["linux"]["resources"]["memory"] = json!({"limit": limit}));
        let container = container.start().await?;
        same!(container.wait().await?, 137);
        c.events().wait_for(&container.id, "oom", |_| true).await?;
        Ok(())
    });
    t.add(
        "a pod's containers may together use the memory that their limits sum to",
        async |c| {
            let pod = sandbox(c).start().await?;
            let limited = |mebibytes: u64| {
                move |spec: &mut serde_json::Value| {
                    spec["linux"]["resources"]["memory"] = json!({"limit": mebibytes << 20});
                }
            };
            let one = member(c, &pod.id).spec(limited(64)).start().await?;
            let two = member(c, &pod.id)
                .args(&["probe", "memory", "40"])
                .spec(limited(64))
                .start()
                .await?;
            let limit = |pod: &crate::container::Container<'_>| -> Result<u64> {
                Ok(pod.cgroup_value("memory", "memory.limit_in_bytes")?.parse()?)
            };
            let both = limit(&pod)?;
            ensure!((128 << 20..400 << 20).contains(&both), "{both}");
            // One without a limit may use what there is.
            let three = member(c, &pod.id).start().await?;
            ensure!(limit(&pod)? > 1 << 50, "{}", limit(&pod)?);
            three.update(&json!({"memory": {"limit": 16 << 20}})).await?;
            same!(limit(&pod)?, both + (16 << 20));
            let exec = one.exec(&["probe", "memory", "400"]).start().await?;
            // Who holds it all is the sentry: it ends, and all of them with it.
            same!(exec.wait().await?, 137);
            for container in [&one, &two, &three, &pod] {
                same!(container.wait().await?, 137);
                c.events().wait_for(&container.id, "oom", |_| true).await?;
            }
            Ok(())
        },
    );
    t.add("a member's statistics have its share of the sentry", async |c| {
        let pod = sandbox(c).start().await?;
        let idle = member(c, &pod.id).start().await?;
        let busy = member(c, &pod.id).args(&["probe", "memory", "60"]).start().await?;
        busy.stdout.wait_for("ready").await?;
        let before = busy.metrics().await?;
        busy.sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
            .await?
            .ok()?;
        let (busy, idle) = (busy.metrics().await?, idle.metrics().await?);
        let time = |metrics: &containerd_shim_protos::cgroups::metrics::Metrics| metrics.cpu.usage.total;
        ensure!(
            time(&busy) > time(&before) && time(&busy) > time(&idle),
            "{busy:?} {idle:?}"
        );
        ensure!(busy.memory.usage.usage > 25 << 20, "{busy:?}");
        Ok(())
    });
    t.add(
        "a limit of processes is refused for a member, which has none of its own",
        async |c| {
            let pod = sandbox(c).start().await?;
            let limits = json!({"limit": 100});
            let one = member(c, &pod.id).spec(|spec| spec["linux"]["resources"]["pids"] = limits.clone());
            refused(one.create().await)?.saying("linux.resources.pids is not supported")?;
            let two = member(c, &pod.id).start().await?;
            refused(two.update(&json!({"pids": limits})).await)?.saying("linux.resources.pids is not supported")?;
            Ok(())
        },
    );
    t.add("-info claims nothing that a sentry cannot have", async |c| {
        let features = crate::task::info::features(c).await?;
        let linux = &features["linux"];
        for (what, found) in [
            ("user namespaces", linux["namespaces"].to_string().contains("\"user\"")),
            ("mapped mounts", linux["mountExtensions"]["idmap"]["enabled"] == true),
            (
                "recursive read-only mounts",
                features["mountOptions"].to_string().contains("\"rro\""),
            ),
            (
                "hooks in the container",
                features["hooks"].to_string().contains("Container\""),
            ),
            ("AppArmor", linux["apparmor"]["enabled"] == true),
            ("SELinux", linux["selinux"]["enabled"] == true),
        ] {
            ensure!(!found, "{what}: {features}");
        }
        Ok(())
    });
    t.add("the ptrace platform runs containers and execs as well", async |c| {
        let options = crate::task::policy::handler("[gvisor]\nplatform = \"ptrace\"\n");
        let container = c.container().waiting().options(options).start().await?;
        same!(
            container.sh("echo fine; exit 3").await?,
            crate::context::Output {
                code: 3,
                stdout: "fine\n".to_owned(),
                stderr: String::new(),
            }
        );
        Ok(())
    });
    t.add("a container without gVisor runs beside one with it", async |c| {
        let options = crate::task::policy::handler("runtime = \"native\"\n");
        let native = c.container().args(&["uname", "-r"]).options(options).output().await?;
        let sentry = c.container().args(&["uname", "-r"]).output().await?;
        let host = rustix::system::uname().release().to_string_lossy().into_owned();
        same!(native.ok()?.trim(), host);
        ensure!(sentry.ok()?.trim() != host, "{sentry:?}");
        Ok(())
    });
    t.add(
        "a device node in the image is nothing that a process can open",
        async |c| {
            let root = c.directory.join("root");
            for directory in ["bin", "dev", "proc", "sys", "tmp", "run"] {
                std::fs::create_dir_all(root.join(directory))?;
            }
            std::fs::copy(&c.tools.busybox, root.join("bin/busybox"))?;
            let node = root.join("node");
            let mode = rustix::fs::Mode::from_raw_mode(0o666);
            let zero = rustix::fs::makedev(1, 5);
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &node,
                rustix::fs::FileType::CharacterDevice,
                mode,
                zero,
            )?;
            // The attack works where nothing stands against it.
            let mut byte = [1];
            std::io::Read::read_exact(&mut std::fs::File::open(&node)?, &mut byte)?;
            same!(byte, [0]);
            let script = "/bin/busybox head -c 1 /node && echo read";
            let container = c.container().args(&["/bin/busybox", "sh", "-c", script]);
            let output = container.root_at(&root).output().await?;
            ensure!(!output.stdout.contains("read"), "{output:?}");
            Ok(())
        },
    );
    t.add(
        "a hundred programs that end at once all give their own status",
        async |c| {
            let pod = sandbox(c).start().await?;
            for number in 0..50u32 {
                let code = (number % 120).to_string();
                let exec = pod.exec(&["probe", "exit", &code]).start().await?;
                same!(exec.wait().await?, number % 120);
            }
            for number in 0..50u32 {
                let code = (100 + number).to_string();
                let output = c.container().args(&["probe", "exit", &code]).output().await?;
                same!(output.code, 100 + number);
            }
            Ok(())
        },
    )
    .within(60);
}
