//! Input that makes no sense: it is refused in words that name it, and nothing is left behind.

use std::time::Instant;

use anyhow::Result;
use containerd_client::tonic::Code;
use containerd_client::types::v1::Status;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::context::Ctx;
use crate::expect;
use crate::harness::Registry;
use crate::shim_process::{Shim, refused};
use crate::spec::{self, mount, push};
use crate::{processes, same};

pub fn register(t: &mut Registry) {
    configs(t);
    values(t);
    streams(t);
    resources(t);
    races(t);
}

/// Create with these bytes as config.json is refused; the words of the refusal. The shim ends well afterwards.
async fn config_refused(c: &Ctx, config: Option<&[u8]>) -> Result<String> {
    let id = c.new_id();
    // Where the shim's program reads the file itself, `start` may refuse already.
    let shim = match Shim::start_raw(c, &id, config).await {
        Ok(shim) => shim,
        Err(error) => return Ok(format!("{error:#}")),
    };
    let (_, text) = refused(shim.create().await)?;
    same!(refused(shim.start_task().await)?.0, ttrpc::Code::NOT_FOUND);
    shim.end().await?;
    Ok(text)
}

fn with(c: &Ctx, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut config = spec::base(&c.namespace, "bad");
    change(&mut config);
    config.to_string().into_bytes()
}

fn says(c: &Ctx, text: &str, words: &str) -> Result<()> {
    // runc's words are its own; ours name the object.
    anyhow::ensure!(!c.is_nucleus() || text.contains(words), "no {words:?} in {text:?}");
    Ok(())
}

fn configs(t: &mut Registry) {
    t.add("a config.json that is cut off is refused", async |c| {
        let whole = with(c, |_| ());
        let text = config_refused(c, Some(&whole[..whole.len() / 2])).await?;
        says(c, &text, "config.json")
    });
    t.add("an empty config.json is refused", async |c| {
        let text = config_refused(c, Some(b"")).await?;
        says(c, &text, "config.json")
    });
    t.add("a config.json that is no JSON is refused", async |c| {
        let text = config_refused(c, Some(&[0xff; 4096])).await?;
        says(c, &text, "config.json")
    });
    t.add("a missing config.json is refused", async |c| {
        let text = config_refused(c, None).await?;
        says(c, &text, "config.json")
    });
    t.add("a config.json with a value of the wrong type is refused", async |c| {
        let text = config_refused(c, Some(&with(c, |spec| spec["process"]["args"] = json!("true")))).await?;
        says(c, &text, "config.json")
    });
    t.add(
        "a config.json of a hundred thousand nested lists is refused and harms nothing",
        async |c| {
            let text = config_refused(c, Some("[".repeat(100_000).as_bytes())).await?;
            says(c, &text, "config.json")
        },
    );
    t.add(
        "a config.json of a hundred megabytes is refused without taking the memory for it",
        async |c| {
            let big = with(c, |spec| spec["annotations"] = json!({"big": "x".repeat(100 << 20)}));
            let text = config_refused(c, Some(&big)).await?;
            says(c, &text, "config.json")
        },
    )
    .differs("runc reads it")
    .within(60);
    t.add("a spec without a process is refused", async |c| {
        let spec = with(c, |spec| drop(spec.as_object_mut().map(|spec| spec.remove("process"))));
        says(c, &config_refused(c, Some(&spec)).await?, "process")
    });
    t.add("a spec without a root is refused", async |c| {
        let spec = with(c, |spec| drop(spec.as_object_mut().map(|spec| spec.remove("root"))));
        says(c, &config_refused(c, Some(&spec)).await?, "root")
    });
    t.add("a root filesystem that is missing is refused by its path", async |c| {
        let spec = with(c, |spec| spec["root"]["path"] = json!("no-such-root"));
        says(c, &config_refused(c, Some(&spec)).await?, "no-such-root")
    });
}

fn values(t: &mut Registry) {
    t.add("user ids beyond 32 bits are refused", async |c| {
        for uid in [json!(4_294_967_296_u64), json!(-1), json!(1.5)] {
            config_refused(c, Some(&with(c, |spec| spec["process"]["user"]["uid"] = uid))).await?;
        }
        Ok(())
    });
    t.add("a NUL in an argument is refused", async |c| {
        config_refused(
            c,
            Some(&with(c, |spec| {
                spec["process"]["args"] = json!(["/bin/echo", "a\u{0}b"])
            })),
        )
        .await?;
        Ok(())
    })
    .differs("runc 1.1 fails at start only");
    t.add("a NUL in a mount's destination is refused", async |c| {
        let entry = mount("/tmp/a\u{0}b", "tmpfs", "tmpfs", &[]);
        config_refused(c, Some(&with(c, |spec| push(spec, "/mounts", entry)))).await?;
        Ok(())
    });
    t.add("a destination of ten thousand components is refused", async |c| {
        let entry = mount(&"/d".repeat(10_000), "tmpfs", "tmpfs", &[]);
        config_refused(c, Some(&with(c, |spec| push(spec, "/mounts", entry)))).await?;
        Ok(())
    });
    t.add("a directory that is no absolute path is refused", async |c| {
        let text = config_refused(
            c,
            Some(&with(c, |spec| spec["process"]["cwd"] = json!("relative/path"))),
        )
        .await?;
        says(c, &text, "cwd")
    });
    t.add("a hostname that is too long is refused", async |c| {
        config_refused(c, Some(&with(c, |spec| spec["hostname"] = json!("h".repeat(300))))).await?;
        Ok(())
    });
    t.add("a hostname without a UTS namespace is refused", async |c| {
        let spec = with(c, |spec| {
            spec::without_namespace(spec, "uts");
            spec["hostname"] = json!("everybody");
        });
        config_refused(c, Some(&spec)).await?;
        Ok(())
    });
    t.add("the same namespace twice is refused", async |c| {
        let spec = with(c, |spec| push(spec, "/linux/namespaces", json!({"type": "uts"})));
        config_refused(c, Some(&spec)).await?;
        Ok(())
    });
    t.add("a user namespace without mappings is refused", async |c| {
        let spec = with(c, |spec| push(spec, "/linux/namespaces", json!({"type": "user"})));
        config_refused(c, Some(&spec)).await?;
        Ok(())
    });
    t.add("mappings without a user namespace are refused", async |c| {
        let spec = with(c, |spec| {
            spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        });
        says(c, &config_refused(c, Some(&spec)).await?, "uidMappings")
    })
    .differs("runc 1.1 leaves them out in silence");
    t.add("an unknown rootfs propagation is refused", async |c| {
        let spec = with(c, |spec| spec["linux"]["rootfsPropagation"] = json!("sideways"));
        says(c, &config_refused(c, Some(&spec)).await?, "sideways")
    });
    t.add(
        "a masked path that leads out of the container by a link masks nothing of the host",
        async |c| {
            let before = std::fs::metadata("/etc/hostname").map(|metadata| metadata.len()).ok();
            let container = c
                .container()
                .sh("ln -s ../../../../../../../etc/hostname /mnt/out; true");
            container.output().await?.ok()?;
            let masked = c
                .container()
                .spec(|spec| spec["linux"]["maskedPaths"] = json!(["/mnt/escape/../etc/hostname"]));
            masked.output().await?.ok()?;
            same!(
                std::fs::metadata("/etc/hostname").map(|metadata| metadata.len()).ok(),
                before
            );
            Ok(())
        },
    );
    t.add("a long id with dots and dashes works", async |c| {
        let id = format!("a.b-c_d.{}", "x".repeat(60));
        c.own(&id);
        let mut container = c.container().args(&["echo", "fine"]);
        container.set_id(&id);
        same!(container.output().await?.ok()?, "fine\n");
        Ok(())
    });
}

fn streams(t: &mut Registry) {
    t.add("a FIFO that is missing is refused by its path", async |c| {
        let path = c.directory.join("no-such-fifo").display().to_string();
        let container = c.container().streams(["", &path, &path]);
        expect::refused(container.create().await)?.saying("no-such-fifo")?;
        Ok(())
    });
    t.add(
        "an ordinary file in the place of a FIFO is no reason to hang",
        async |c| {
            let path = c.directory.join("file");
            std::fs::write(&path, "")?;
            let path = path.display().to_string();
            match c
                .container()
                .args(&["echo", "x"])
                .streams(["", &path, &path])
                .create()
                .await
            {
                Err(error) => drop(expect::refused::<(), _>(Err(error))?),
                Ok(container) => {
                    container.start().await?;
                    container.wait().await?;
                    container.delete().await?;
                }
            }
            Ok(())
        },
    );
    t.add("a stdin that nobody opens does not hold the container", async |c| {
        let paths = ["stdin", "stdout", "stderr"].map(|name| c.directory.join(name));
        for path in &paths {
            crate::io::make_fifo(path)?;
        }
        let _out = [
            crate::io::Capture::of_fifo(&paths[1])?,
            crate::io::Capture::of_fifo(&paths[2])?,
        ];
        let uris = paths.map(|path| path.display().to_string());
        let container = c
            .container()
            .args(&["true"])
            .streams([&uris[0], &uris[1], &uris[2]])
            .start()
            .await?;
        same!(container.wait().await?, 0);
        container.delete().await?;
        Ok(())
    });
}

fn resources(t: &mut Registry) {
    t.add(
        "a cgroup that exists with processes in it is not taken over or emptied",
        async |c| {
            let other = c.container().waiting().start().await?;
            let path = format!("/{}/{}", c.namespace, other.id);
            let container = c
                .container()
                .waiting()
                .spec(|spec| spec["linux"]["cgroupsPath"] = json!(path));
            match container.create().await {
                Err(error) => drop(expect::refused::<(), _>(Err(error))?),
                Ok(container) => {
                    container.kill(9).await?;
                    container.wait().await?;
                    container.delete().await.ok();
                }
            }
            same!(other.status().await?, Status::Running);
            anyhow::ensure!(processes::is_alive(other.pid.get()));
            Ok(())
        },
    )
    .differs("runc 1.1 takes the cgroup, and its delete kills everybody in it");
    t.add("an empty cgroup that exists already is used", async |c| {
        let container = c.container().args(&["echo", "fine"]);
        for controller in ["memory", "pids"] {
            std::fs::create_dir_all(format!("/sys/fs/cgroup/{controller}/{}/{}", c.namespace, container.id))?;
        }
        same!(container.output().await?.ok()?, "fine\n");
        Ok(())
    });
    t.add(
        "a full disk under the bundle is an error or no hindrance, and never a leak",
        async |c| {
            let id = c.new_id();
            let home = c.directory.join("bundles");
            std::fs::create_dir_all(&home)?;
            rustix::mount::mount(
                "e2e",
                &home,
                "tmpfs",
                rustix::mount::MountFlags::empty(),
                Some(c"size=32m"),
            )?;
            let outcome = async {
                let config = with(c, |spec| spec["process"]["args"] = json!(["/bin/probe", "wait"]));
                let shim = Shim::start_raw(c, &id, Some(&config)).await?;
                // Whatever is still free.
                std::fs::write(home.join("filler"), vec![1; 64 << 20]).ok();
                if shim.create().await.is_ok() {
                    shim.end_task().await?;
                }
                shim.end().await
            };
            let outcome = outcome.await;
            rustix::mount::unmount(&home, rustix::mount::UnmountFlags::DETACH)?;
            outcome
        },
    );
    t.add("two hundred execs at once all end", async |c| {
        let container = c.container().waiting().start().await?;
        let execs = join_all((0..200).map(|_| container.exec(&["true"]).streams(["", "", ""]).start())).await;
        for exec in execs {
            let exec = exec?;
            same!(exec.wait().await?, 0);
            exec.delete().await?;
        }
        same!(container.pids().await?.len(), 1);
        Ok(())
    })
    .differs("two minutes are not enough for runc; forty at once are tried on both")
    .within(120);
}

fn races(t: &mut Registry) {
    t.add(
        "a kill while the container starts ends it, or comes too early and says so",
        async |c| {
            for _ in 0..5 {
                let container = c.container().waiting().create().await?;
                let (started, killed) = tokio::join!(container.start(), container.kill(9));
                drop(started);
                if killed.is_err() {
                    container.kill(9).await?;
                }
                same!(container.wait().await?, 137);
                container.delete().await?;
            }
            Ok(())
        },
    );
    t.add(
        "a kill while an exec starts ends the container, and everybody gets an answer",
        async |c| {
            for _ in 0..3 {
                let container = c.container().waiting().start().await?;
                let exec = container.exec(&["probe", "wait"]).create().await?;
                let (started, killed) = tokio::join!(exec.start(), container.kill(9));
                killed?;
                same!(container.wait().await?, 137);
                if started.is_ok() {
                    exec.wait().await?;
                }
                container.delete().await?;
            }
            Ok(())
        },
    );
    t.add("two deletes at once: one is done, both are answered", async |c| {
        for _ in 0..3 {
            let container = c.container().start().await?;
            container.wait().await?;
            let (first, second) = tokio::join!(container.delete(), container.delete());
            // containerd asks the shim twice. runc's may fail the first request when the second one comes amid it, and
            // then tell both that it was the other.
            anyhow::ensure!(
                first.is_ok() || second.is_ok() || !c.is_nucleus(),
                "{first:?} {second:?}"
            );
            expect::refused(container.state().await)?.with_code(Code::NotFound)?;
        }
        Ok(())
    });
    t.add(
        "a create that fails twenty times leaves nothing and takes no time",
        async |c| {
            let begun = Instant::now();
            for _ in 0..20 {
                expect::refused(c.container().args(&["no-such-program"]).create().await)?;
            }
            anyhow::ensure!(begun.elapsed().as_secs() < 25, "took {:?}", begun.elapsed());
            Ok(())
        },
    )
    .within(60);
}
