//! The container's filesystem: its root, its mounts, what is hidden in them.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::same;
use crate::spec::{mount, push};

/// One line of mountinfo(5).
struct Mounted {
    /// Per-mount options.
    options: Vec<String>,
    /// `shared:N`, `master:N` …
    propagation: Vec<String>,
    kind: String,
    /// The superblock's options.
    super_options: Vec<String>,
}

impl Mounted {
    fn has(&self, option: &str) -> bool {
        self.options.iter().chain(&self.super_options).any(|one| one == option)
    }
}

/// The topmost mount on a path, as a process saw it.
fn mounted(seen: &Value, path: &str) -> Result<Mounted> {
    let lines = seen["mounts"].as_array().context("no mounts")?;
    let line = lines
        .iter()
        .rev()
        .filter_map(Value::as_str)
        .find(|line| line.split(' ').nth(4) == Some(path));
    let line = line.with_context(|| format!("nothing is mounted on {path}: {lines:#?}"))?;
    let (first, second) = line.split_once(" - ").context("a line without ` - `")?;
    let (first, second): (Vec<&str>, Vec<&str>) = (first.split(' ').collect(), second.split(' ').collect());
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    Ok(Mounted {
        options: list(first[5]),
        propagation: first[6..].iter().map(|&tag| tag.to_owned()).collect(),
        kind: second[0].to_owned(),
        super_options: list(second[2]),
    })
}

/// A directory on the host with a file in it, for bind mounts.
fn shared(c: &Ctx) -> Result<String> {
    let directory = c.directory.join("shared");
    std::fs::create_dir_all(&directory).context("make a directory to share")?;
    std::fs::write(directory.join("file"), "from the host\n").context("write a file to share")?;
    Ok(directory.display().to_string())
}

pub fn register(t: &mut Registry) {
    defaults(t);
    binds(t);
    filesystems(t);
    propagation(t);
    hidden(t);
    root(t);
    refusals(t);
}

fn defaults(t: &mut Registry) {
    t.add("the usual mounts are there with their options", async |c| {
        let seen = c.probe(|_| ()).await?;
        for (path, kind, options) in [
            ("/proc", "proc", ["rw", "nosuid", "nodev", "noexec"].as_slice()),
            ("/dev", "tmpfs", &["rw", "nosuid", "size=65536k", "mode=755"]),
            (
                "/dev/pts",
                "devpts",
                &["rw", "nosuid", "noexec", "gid=5", "mode=620", "ptmxmode=666"],
            ),
            ("/dev/shm", "tmpfs", &["rw", "nosuid", "nodev", "noexec", "size=65536k"]),
            ("/dev/mqueue", "mqueue", &["rw", "nosuid", "nodev", "noexec"]),
            ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
            ("/run", "tmpfs", &["rw", "nosuid", "size=65536k", "mode=755"]),
        ] {
            let found = mounted(&seen, path)?;
            same!(found.kind, kind, "{path}");
            for option in options {
                anyhow::ensure!(
                    found.has(option),
                    "{path} lacks {option}: {:?} {:?}",
                    found.options,
                    found.super_options
                );
            }
        }
        Ok(())
    });
    t.add("the spec's mounts are made in the spec's order", async |c| {
        let container = c.container().args(&["ls", "/mnt/a"]).spec(|spec| {
            push(spec, "/mounts", mount("/mnt/a", "tmpfs", "tmpfs", &[]));
            push(spec, "/mounts", mount("/mnt/a/b", "tmpfs", "tmpfs", &[]));
        });
        same!(container.output().await?.ok()?, "b\n");
        Ok(())
    });
    t.add("the host sees none of a container's mounts", async |c| {
        let id = c.container().waiting().start().await?.id.clone();
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        let bundle = c.daemon.bundle(&c.namespace, &id).display().to_string();
        let inside = table
            .lines()
            .filter(|line| line.contains(&format!("{bundle}/rootfs/")))
            .count();
        same!(inside, 0);
        Ok(())
    });
    t.add("a container sees none of the host's mounts", async |c| {
        let seen = c.probe(|_| ()).await?;
        let lines: Vec<&str> = seen["mounts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let known = ["/", "/proc", "/dev", "/sys", "/run"];
        for line in &lines {
            let path = line.split(' ').nth(4).unwrap_or_default();
            let expected = known
                .iter()
                .any(|root| path == *root || (*root != "/" && path.starts_with(&format!("{root}/"))));
            anyhow::ensure!(expected, "unexpected: {line}");
        }
        Ok(())
    });
}

fn binds(t: &mut Registry) {
    t.add(
        "a bind mount shows the host's directory, and writes reach it",
        async |c| {
            let source = shared(c)?;
            let container = c.container().sh("cat /mnt/data/file; echo from inside > /mnt/data/new");
            let container =
                container.spec(|spec| push(spec, "/mounts", mount("/mnt/data", "bind", &source, &["rbind", "rw"])));
            same!(container.output().await?.ok()?, "from the host\n");
            same!(std::fs::read_to_string(format!("{source}/new"))?, "from inside\n");
            Ok(())
        },
    );
    t.add("a read-only bind mount cannot be written to", async |c| {
        let source = shared(c)?;
        let container = c.container().sh("cat /mnt/data/file && touch /mnt/data/new");
        let container =
            container.spec(|spec| push(spec, "/mounts", mount("/mnt/data", "bind", &source, &["rbind", "ro"])));
        let output = container.output().await?;
        anyhow::ensure!(output.code != 0 && output.stderr.contains("Read-only"), "{output:?}");
        anyhow::ensure!(!std::path::Path::new(&format!("{source}/new")).exists());
        Ok(())
    });
    t.add("a single file can be bind mounted", async |c| {
        let source = format!("{}/file", shared(c)?);
        let container = c.container().args(&["cat", "/etc/from-host"]);
        let container = container.spec(|spec| {
            push(
                spec,
                "/mounts",
                mount("/etc/from-host", "bind", &source, &["bind", "ro"]),
            )
        });
        same!(container.output().await?.ok()?, "from the host\n");
        Ok(())
    });
    t.add(
        "flags of a bind mount are set: nosuid, nodev, noexec, noatime",
        async |c| {
            let source = shared(c)?;
            let options = ["bind", "nosuid", "nodev", "noexec", "noatime"];
            let seen = c
                .probe(|spec| push(spec, "/mounts", mount("/mnt/data", "bind", &source, &options)))
                .await?;
            let found = mounted(&seen, "/mnt/data")?;
            for option in &options[1..] {
                anyhow::ensure!(
                    found.options.iter().any(|one| one == option),
                    "no {option} in {:?}",
                    found.options
                );
            }
            Ok(())
        },
    );
    t.add("noexec keeps programs from running", async |c| {
        let source = shared(c)?;
        std::fs::copy(&c.tools.probe, format!("{source}/probe"))?;
        let container = c.container().sh("/mnt/data/probe exit 0");
        let container = container.spec(|spec| {
            push(
                spec,
                "/mounts",
                mount("/mnt/data", "bind", &source, &["bind", "noexec"]),
            )
        });
        same!(container.output().await?.code, 126);
        Ok(())
    });
    t.add("rbind brings the mounts below along and bind does not", async |c| {
        let below = format!("{}/below", shared(c)?);
        std::fs::create_dir(&below)?;
        let tmpfs = HostMount::tmpfs(&below, "")?;
        std::fs::write(format!("{below}/deep"), "")?;
        let source = shared(c)?;
        for (option, wanted) in [("rbind", "deep\n"), ("bind", "")] {
            let container = c.container().args(&["ls", "/mnt/data/below"]);
            let container =
                container.spec(|spec| push(spec, "/mounts", mount("/mnt/data", "bind", &source, &[option])));
            same!(container.output().await?.ok()?, wanted, "{option}");
        }
        drop(tmpfs);
        Ok(())
    });
    t.add("rro makes the mounts below read-only too", async |c| {
        let below = format!("{}/below", shared(c)?);
        std::fs::create_dir(&below)?;
        let tmpfs = HostMount::tmpfs(&below, "")?;
        let source = shared(c)?;
        let container = c.container().sh("touch /mnt/data/below/new");
        let container =
            container.spec(|spec| push(spec, "/mounts", mount("/mnt/data", "bind", &source, &["rbind", "rro"])));
        let output = container.output().await?;
        anyhow::ensure!(output.code != 0 && output.stderr.contains("Read-only"), "{output:?}");
        drop(tmpfs);
        Ok(())
    });
    t.add("a destination that is missing is made", async |c| {
        let source = shared(c)?;
        let container = c.container().args(&["cat", "/deep/er/still/file"]);
        let container =
            container.spec(|spec| push(spec, "/mounts", mount("/deep/er/still", "bind", &source, &["rbind"])));
        same!(container.output().await?.ok()?, "from the host\n");
        Ok(())
    });
    t.add(
        "a destination through a link of the image stays in the container",
        async |c| {
            let source = shared(c)?;
            // mnt/escape is a link to ../../../../../../tmp: the container's /tmp, not the host's.
            let container = c.container().args(&["cat", "/tmp/under/file"]);
            let container =
                container.spec(|spec| push(spec, "/mounts", mount("/mnt/escape/under", "bind", &source, &["rbind"])));
            same!(container.output().await?.ok()?, "from the host\n");
            anyhow::ensure!(!std::path::Path::new("/tmp/under").exists(), "it was made on the host");
            Ok(())
        },
    );
    t.add(
        "a destination through an absolute link of the image stays in the container",
        async |c| {
            let source = shared(c)?;
            let container = c.container().args(&["cat", "/usr/data/under/file"]);
            let container = container.spec(|spec| {
                push(
                    spec,
                    "/mounts",
                    mount("/mnt/absolute/under", "bind", &source, &["rbind"]),
                )
            });
            same!(container.output().await?.ok()?, "from the host\n");
            anyhow::ensure!(!std::path::Path::new("/usr/data").exists(), "it was made on the host");
            Ok(())
        },
    );
    t.add("a destination with dots stays in the container", async |c| {
        let source = shared(c)?;
        let container = c.container().args(&["cat", "/tmp/dots/file"]);
        let destination = "/usr/../../../../../tmp/dots";
        let container = container.spec(|spec| push(spec, "/mounts", mount(destination, "bind", &source, &["rbind"])));
        same!(container.output().await?.ok()?, "from the host\n");
        anyhow::ensure!(!std::path::Path::new("/tmp/dots").exists(), "it was made on the host");
        Ok(())
    });
}

/// A tmpfs on the host, gone with this value.
pub struct HostMount(PathBuf);

impl HostMount {
    /// With `data` as mount(8) would be given it.
    pub fn tmpfs(path: impl AsRef<Path>, data: &str) -> Result<Self> {
        let (path, data) = (path.as_ref(), CString::new(data)?);
        rustix::mount::mount(
            "e2e",
            path,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            data.as_c_str(),
        )
        .with_context(|| format!("mount a tmpfs on {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}

fn filesystems(t: &mut Registry) {
    t.add("a tmpfs has the size and mode of its options", async |c| {
        let options = ["nosuid", "mode=1750", "size=1m"];
        let container = c
            .container()
            .sh("stat -c %a /mnt/t; dd if=/dev/zero of=/mnt/t/big bs=1k count=2048 2>&1 | grep -c space");
        let container = container.spec(|spec| push(spec, "/mounts", mount("/mnt/t", "tmpfs", "tmpfs", &options)));
        same!(container.output().await?.ok()?, "1750\n1\n");
        Ok(())
    });
    t.add("tmpcopyup fills a tmpfs with what the image has there", async |c| {
        let container = c
            .container()
            .sh("cat /usr/data/seed; echo changed > /usr/data/seed; cat /usr/data/seed");
        let container =
            container.spec(|spec| push(spec, "/mounts", mount("/usr/data", "tmpfs", "tmpfs", &["tmpcopyup"])));
        same!(container.output().await?.ok()?, "from the image\nchanged\n");
        Ok(())
    });
    t.add("an overlay can be mounted", async |c| {
        let base = shared(c)?;
        for name in ["upper", "work"] {
            std::fs::create_dir(c.directory.join(name))?;
        }
        let directory = c.directory.display();
        let options = [
            format!("lowerdir={base}"),
            format!("upperdir={directory}/upper"),
            format!("workdir={directory}/work"),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let container = c.container().sh("cat /mnt/o/file; echo new > /mnt/o/new");
        let container = container.spec(|spec| push(spec, "/mounts", mount("/mnt/o", "overlay", "overlay", &options)));
        same!(container.output().await?.ok()?, "from the host\n");
        same!(std::fs::read_to_string(c.directory.join("upper/new"))?, "new\n");
        Ok(())
    });
    t.add(
        "a cgroup mount shows the container's own cgroup, read-only",
        async |c| {
            let container = c
                .container()
                .sh("cat /sys/fs/cgroup/memory/cgroup.procs | head -1; mkdir /sys/fs/cgroup/memory/x");
            let container = container.spec(|spec| {
                let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
                push(spec, "/mounts", mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
            });
            let output = container.output().await?;
            anyhow::ensure!(output.stdout.starts_with("1\n"), "{output:?}");
            anyhow::ensure!(output.stderr.contains("Read-only"), "{output:?}");
            Ok(())
        },
    );
    t.add("a cgroup mount names every hierarchy of the host", async |c| {
        let container = c.container().sh("ls /sys/fs/cgroup");
        let container = container.spec(|spec| {
            push(
                spec,
                "/mounts",
                mount(
                    "/sys/fs/cgroup",
                    "cgroup",
                    "cgroup",
                    &["nosuid", "noexec", "nodev", "ro"],
                ),
            );
        });
        let output = container.output().await?;
        let names: Vec<&str> = output.ok()?.lines().collect();
        for name in [
            "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids", "systemd",
        ] {
            anyhow::ensure!(names.contains(&name), "no {name} in {names:?}");
        }
        Ok(())
    });
    t.add("message queues work and are the container's own", async |c| {
        let container = c.container().sh("touch /dev/mqueue/mine && ls /dev/mqueue");
        same!(container.output().await?.ok()?, "mine\n");
        same!(c.run(&["ls", "/dev/mqueue"]).await?.ok()?, "");
        Ok(())
    });
    t.add("sysfs can be mounted to be written to", async |c| {
        let container = c.container().args(&["probe"]).spec(|spec| {
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                for mount in mounts.iter_mut().filter(|mount| mount["type"] == "sysfs") {
                    mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
                }
            }
        });
        let seen = container.output().await?.json()?;
        anyhow::ensure!(mounted(&seen, "/sys")?.options.contains(&"rw".to_owned()));
        Ok(())
    });
    t.add("bind mounts with mapped ids show the container's ids", async |c| {
        let source = shared(c)?;
        let container = c
            .container()
            .args(&["stat", "-c", "%u", "/mnt/data/file"])
            .spec(|spec| {
                let mut entry = mount("/mnt/data", "bind", &source, &["bind", "idmap"]);
                entry["uidMappings"] = json!([{"containerID": 0, "hostID": 4000, "size": 10}]);
                entry["gidMappings"] = entry["uidMappings"].clone();
                push(spec, "/mounts", entry);
            });
        same!(container.output().await?.ok()?, "4000\n");
        Ok(())
    })
    .differs("runc 1.1 does not know mounts with mapped ids yet");
}

async fn propagation_of(c: &Ctx, option: &str) -> Result<Vec<String>> {
    let source = shared(c)?;
    let below = format!("{source}/peer");
    std::fs::create_dir_all(&below)?;
    let host = HostMount::tmpfs(&below, "")?;
    rustix::mount::mount_change(below.as_str(), rustix::mount::MountPropagationFlags::SHARED)
        .context("make it shared")?;
    let seen = c
        .probe(|spec| push(spec, "/mounts", mount("/mnt/data", "bind", &below, &["rbind", option])))
        .await?;
    drop(host);
    Ok(mounted(&seen, "/mnt/data")?
        .propagation
        .iter()
        .filter_map(|tag| Some(tag.split_once(':')?.0.to_owned()))
        .collect())
}

fn propagation(t: &mut Registry) {
    t.add("rprivate mounts share nothing with the host", async |c| {
        same!(propagation_of(c, "rprivate").await?, Vec::<String>::new());
        Ok(())
    });
    t.add("rslave mounts take from the host and give nothing", async |c| {
        same!(propagation_of(c, "rslave").await?, ["master"]);
        Ok(())
    });
    t.add("rshared mounts give to the host", async |c| {
        anyhow::ensure!(propagation_of(c, "rshared").await?.contains(&"shared".to_owned()));
        Ok(())
    });
    t.add(
        "a mount on the host shows up in a running container through rslave",
        async |c| {
            let source = shared(c)?;
            let host = HostMount::tmpfs(&source, "")?;
            rustix::mount::mount_change(source.as_str(), rustix::mount::MountPropagationFlags::SHARED)?;
            std::fs::create_dir(format!("{source}/later"))?;
            let container = c.container().waiting();
            let container = container.spec(|spec| {
                push(
                    spec,
                    "/mounts",
                    mount("/mnt/data", "bind", &source, &["rbind", "rslave"]),
                );
                spec["linux"]["rootfsPropagation"] = json!("rslave");
            });
            let container = container.start().await?;
            let later = HostMount::tmpfs(format!("{source}/later"), "")?;
            std::fs::write(format!("{source}/later/new"), "")?;
            same!(container.sh("ls /mnt/data/later").await?.ok()?, "new\n");
            drop(later);
            drop(host);
            Ok(())
        },
    );
    t.add(
        "the root's own propagation is private unless the spec says otherwise",
        async |c| {
            let seen = c.probe(|_| ()).await?;
            same!(mounted(&seen, "/")?.propagation, Vec::<String>::new());
            Ok(())
        },
    );
}

fn hidden(t: &mut Registry) {
    t.add("masked files are empty and masked directories too", async |c| {
        let container = c
            .container()
            .sh("wc -c < /usr/data/seed; ls /etc | wc -l; touch /etc/new")
            .spec(|spec| {
                spec["linux"]["maskedPaths"] = json!(["/usr/data/seed", "/etc"]);
            });
        let output = container.output().await?;
        same!(output.stdout, "0\n0\n");
        anyhow::ensure!(output.stderr.contains("Read-only"), "{output:?}");
        Ok(())
    });
    t.add("masked paths that the image lacks are passed over", async |c| {
        let container = c
            .container()
            .spec(|spec| spec["linux"]["maskedPaths"] = json!(["/proc/no-such-file", "/nowhere"]));
        same!(container.output().await?.code, 0);
        Ok(())
    });
    t.add("the usual masks hide the kernel's secrets", async |c| {
        let output = c
            .container()
            .sh("wc -c < /proc/keys; ls /sys/firmware | wc -l")
            .output()
            .await?;
        same!(output.ok()?, "0\n0\n");
        Ok(())
    });
    t.add("read-only paths can be read and not written to", async |c| {
        let container = c
            .container()
            .sh("cat /proc/sys/kernel/ostype; echo 1 > /proc/sys/kernel/domainname");
        let output = container.output().await?;
        same!(output.stdout, "Linux\n");
        anyhow::ensure!(output.stderr.contains("Read-only"), "{output:?}");
        Ok(())
    });
    t.add("a read-only path of the image is read-only", async |c| {
        let container = c.container().sh("cat /usr/data/seed && touch /usr/data/x");
        let container = container.spec(|spec| push(spec, "/linux/readonlyPaths", json!("/usr/data")));
        let output = container.output().await?;
        anyhow::ensure!(
            output.stdout == "from the image\n" && output.stderr.contains("Read-only"),
            "{output:?}"
        );
        Ok(())
    });
}

fn root(t: &mut Registry) {
    t.add("a read-only root cannot be written to, and its mounts can", async |c| {
        let container = c.container().sh("touch /run/x /dev/shm/x && echo mounts; touch /x");
        let output = container
            .spec(|spec| spec["root"]["readonly"] = json!(true))
            .output()
            .await?;
        same!(output.stdout, "mounts\n");
        anyhow::ensure!(output.code != 0 && output.stderr.contains("Read-only"), "{output:?}");
        Ok(())
    });
    t.add("the root is nobody's business above: .. of / is /", async |c| {
        same!(
            c.container()
                .sh("cd /; cd ../../..; pwd; ls -d bin")
                .output()
                .await?
                .ok()?,
            "/\nbin\n"
        );
        Ok(())
    });
    t.add(
        "the container's root is not the bundle's directory of the host",
        async |c| {
            let container = c.container().waiting().start().await?;
            container.sh("touch /made-inside").await?.ok()?;
            let seen = std::fs::read_link(format!("/proc/{}/root", container.pid.get()))?;
            same!(seen, std::path::Path::new("/"));
            anyhow::ensure!(!std::path::Path::new("/made-inside").exists());
            Ok(())
        },
    );
    t.add(
        "a root filesystem of several layers is mounted as containerd says",
        async |c| {
            let prepared = c.container().args(&["cat", "/usr/data/seed"]).prepare().await?;
            anyhow::ensure!(
                prepared
                    .rootfs
                    .iter()
                    .any(|mount| mount.r#type == "overlay" || mount.r#type == "bind")
            );
            let container = prepared.create().await?;
            container.start().await?;
            same!(container.output().await?.ok()?, "from the image\n");
            Ok(())
        },
    );
}

fn refusals(t: &mut Registry) {
    t.add(
        "a bind mount whose source is missing is refused by its path",
        async |c| {
            let container = c.container();
            let container = container.spec(|spec| {
                push(
                    spec,
                    "/mounts",
                    mount("/mnt/data", "bind", "/no/such/source", &["rbind"]),
                )
            });
            refused(container.create().await)?.saying("/no/such/source")?;
            Ok(())
        },
    );
    t.add(
        "a filesystem that the kernel does not know is refused by its name",
        async |c| {
            let container = c
                .container()
                .spec(|spec| push(spec, "/mounts", mount("/mnt/data", "sandcastlefs", "none", &[])));
            let refusal = refused(container.create().await)?;
            refusal.saying(c.by_runtime("no such device", "sandcastlefs"))?;
            Ok(())
        },
    );
    t.add("an option that the filesystem does not know is refused", async |c| {
        let options = ["frobnicate=1"];
        let container = c
            .container()
            .spec(|spec| push(spec, "/mounts", mount("/mnt/data", "tmpfs", "tmpfs", &options)));
        let refusal = refused(container.create().await)?;
        refusal.saying(c.by_runtime("frobnicate", "frobnicate"))?;
        Ok(())
    });
    t.add("a directory cannot be mounted on a file", async |c| {
        let source = shared(c)?;
        let container = c.container();
        let container = container.spec(|spec| push(spec, "/mounts", mount("/etc/passwd", "bind", &source, &["rbind"])));
        refused(container.create().await)?.saying("/etc/passwd")?;
        Ok(())
    });
    t.add("a mount over /proc that is no proc is refused", async |c| {
        let source = shared(c)?;
        let container = c.container();
        let container = container.spec(|spec| push(spec, "/mounts", mount("/proc/sys", "bind", &source, &["rbind"])));
        refused(container.create().await)?.saying("/proc")?;
        Ok(())
    });
}
