//! What the container's Landlock domain takes away, and what it must leave.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::policy::{annotated, handler};
use crate::container::Builder;
use crate::expect::refused;
use crate::harness::Registry;
use crate::{same, spec};

const DIFFERS: &str = "runc has no Landlock";

/// Lets an ordinary user of the container make a user namespace, and mount in it.
const MOUNT_IN_USER_NAMESPACE: &str = "unshare -Urm mount -t tmpfs none /mnt";

fn may_trace(spec: &mut Value) {
    for set in ["bounding", "permitted", "effective"] {
        spec::push(spec, &format!("/process/capabilities/{set}"), json!("CAP_SYS_PTRACE"));
    }
}

fn may_administer(spec: &mut Value) {
    for set in ["bounding", "permitted", "effective"] {
        spec::push(spec, &format!("/process/capabilities/{set}"), json!("CAP_SYS_ADMIN"));
    }
}

fn tier<'a>(container: Builder<'a>, tier: &str) -> Builder<'a> {
    annotated(container, &json!({"nucleus.dev/landlock.tier": tier}))
}

/// As it is pinned.
fn sha256(text: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn register(t: &mut Registry) {
    t.add("an exec sees, traces and signals init", async |c| {
        let container = c
            .container()
            .sh("trap 'exit 9' TERM; export SEEN=1; while :; do sleep 1; done");
        let container = container.spec(|spec| spec["process"]["env"] = json!([spec::PATH, "SECRET=canary"]));
        let container = container.start().await?;
        let script = "tr '\\0' '\\n' < /proc/1/environ; ls /proc/1/root/bin/probe; readlink /proc/1/exe; readlink \
            /proc/1/cwd; \
                      ls /proc/1/fd | wc -l; head -c 0 /proc/1/mem && echo mem; head -n 1 /proc/1/maps | wc -l; \
                      ps -o pid,args | grep -c SEEN";
        let seen = container.sh(script).await?;
        let lines: Vec<&str> = seen.stdout.lines().collect();
        // As `ps` and `strace -p 1` do.
        same!(container.sh("probe trace 1").await?.ok()?, "traced\n");
        same!(
            container
                .sh("kill -STOP 1 && kill -CONT 1 && kill -0 1 && echo signalled")
                .await?
                .ok()?,
            "signalled\n"
        );
        same!(container.sh("ps -o pid,comm | grep -c '^ *1 '").await?.ok()?, "1\n");
        for wanted in ["SECRET=canary", "/proc/1/root/bin/probe", "/bin/busybox", "/", "mem"] {
            ensure!(lines.contains(&wanted), "{wanted} is not seen: {seen:?}");
        }
        container.sh("kill -TERM 1").await?;
        same!(container.wait().await?, 9);
        Ok(())
    });
    t.add("files are renamed and linked across directories, and programs run from anywhere", async |c| {
        let script = "mkdir -p /tmp/a /tmp/b /mnt/x && cd /tmp && cp /bin/probe a/one && mv a/one b/two && ln b/two \
            a/three \
                      && mv a /mnt/x/ && /mnt/x/a/three exit 0 && echo from the image && cp /bin/probe /run/p \
                      && /run/p exit 0 && echo from a tmpfs && mv b/two /usr/data/four && /usr/data/four exit 0 && \
                      echo all";
        let output = c.run(&["sh", "-c", script]).await?;
        same!(output.ok()?, "from the image\nfrom a tmpfs\nall\n");
        Ok(())
    });
    t.add("a user namespace of the workload's own mounts nothing", async |c| {
        let unrestricted = c.container().sh(MOUNT_IN_USER_NAMESPACE);
        let outcome = tier(unrestricted, "baseline").output().await?;
        ensure!(outcome.code != 0, "it mounted: {outcome:?}");
        let container = c.container().waiting().start().await?;
        let outcome = container.sh(MOUNT_IN_USER_NAMESPACE).await?;
        ensure!(outcome.code != 0, "an exec mounted: {outcome:?}");
        // The attack is one: without the domain it mounts.
        let attacked = c
            .container()
            .sh(MOUNT_IN_USER_NAMESPACE)
            .options(handler("landlock.tier = 'none'\n"));
        same!(attacked.output().await?.code, 0, "mounting without a domain");
        Ok(())
    })
    .differs(DIFFERS);
    t.add("a container with CAP_SYS_ADMIN mounts", async |c| {
        let output = c
            .container()
            .sh("mount -t tmpfs none /mnt && echo mounted")
            .spec(may_administer);
        same!(output.output().await?.ok()?, "mounted\n");
        Ok(())
    });
    t.add("what joins a PID namespace looks at those who are there", async |c| {
        let target = c.container().waiting().start().await?;
        let path = format!("/proc/{}/ns/pid", target.pid.get());
        let debugger = c
            .container()
            .sh("ls /proc/1/root/bin/probe && readlink /proc/1/exe")
            .spec(|spec| {
                spec::with_namespace_path(spec, "pid", &path);
                may_trace(spec);
            });
        same!(debugger.output().await?.ok()?, "/proc/1/root/bin/probe\n/bin/probe\n");
        Ok(())
    });
    t.add(
        "the hardened tier executes nothing from where the workload can write",
        async |c| {
            let script = "for d in /tmp /run /dev/shm /vol; do \
                      cp /bin/probe $d/p && if $d/p exit 0; then echo $d ran; else echo $d did not; fi; \
                      done 2>/dev/null; /ro/p exit 0 && echo read-only ran";
            let volume = c.directory.join("volume");
            let scripts = c.directory.join("scripts");
            for directory in [&volume, &scripts] {
                std::fs::create_dir_all(directory)?;
            }
            std::fs::copy(&c.tools.probe, scripts.join("p"))?;
            let container = tier(c.container().sh(script), "hardened").spec(|spec| {
                let source = volume.display().to_string();
                spec::push(spec, "/mounts", spec::mount("/vol", "bind", &source, &["rbind", "rw"]));
                let source = scripts.display().to_string();
                spec::push(spec, "/mounts", spec::mount("/ro", "bind", &source, &["rbind", "ro"]));
                spec["annotations"]["nucleus.dev/landlock.tier"] = json!("hardened");
            });
            let output = container.output().await?;
            same!(
                output.ok()?,
                "/tmp ran\n/run did not\n/dev/shm did not\n/vol did not\nread-only ran\n"
            );
            Ok(())
        },
    )
    .differs(DIFFERS);
    t.add("in every tier an exec sees, traces and signals init, also under rules of one's own", async |c| {
        const RULES: &str = "landlock.read = ['/bin', '/proc']\nlandlock.write = ['/tmp', '/proc']\nlandlock.execute \
            = ['/bin']\n";
        for options in ["landlock.tier = 'none'\n", "landlock.tier = 'hardened'\n", "landlock.tier = \
            'strict'\n", RULES] {
            let container = c.container().sh("trap 'exit 9' TERM; while :; do sleep 1; done");
            let container = container.options(handler(options)).start().await?;
            let script = "probe trace 1; head -c 5 /proc/1/environ; echo; ls /proc/1/root/bin/probe; kill -TERM 1 && \
                echo signalled";
            let seen = container.sh(script).await?;
            same!(seen.ok()?, "traced\nPATH=\n/proc/1/root/bin/probe\nsignalled\n", "{options}");
            same!(container.wait().await?, 9, "{options}");
        }
        Ok(())
    })
    .differs(DIFFERS);
    t.add(
        "under rules about reading and writing a container is all that it is elsewhere",
        async |c| {
            const RULES: &str = "landlock.read = ['/bin', '/etc', '/proc', '-/no/such']\nlandlock.write = ['/tmp', \
            '/etc/hosts']\n";
            let made = || {
                c.container().options(handler(RULES)).spec(|spec| {
                    spec["process"]["oomScoreAdj"] = json!(77);
                    if let Some(env) = spec["process"]["env"].as_array_mut() {
                        env.retain(|entry| !entry.as_str().unwrap_or_default().starts_with("HOME="));
                    }
                })
            };
            let script = "cat /proc/self/oom_score_adj; echo $HOME; echo x > /dev/null && echo null; echo out > \
            /dev/stdout; \
                      echo x > /etc/hosts && echo hosts; rm /etc/hosts 2> /dev/null || echo kept; ls /usr 2> \
                      /dev/null || echo usr; \
                      readlink /proc/self/exe; [ \"$(cat /proc/1/comm)\" ] && echo proc";
            let expected = "77\n/root\nnull\nout\nhosts\nkept\nusr\n/bin/busybox\nproc\n";
            same!(made().sh(script).output().await?.stdout, expected);
            let container = made().waiting().start().await?;
            same!(container.sh(script).await?.stdout, expected, "an exec");
            let terminal = container.exec(&["sh", "-c", "tty; stty -echo && echo sized; echo x > /dev/tty"]);
            let output = terminal.terminal().output().await?;
            same!(output.stdout.replace('\r', ""), "/dev/pts/0\nsized\nx\n");
            let terminal = made()
                .sh("stty -echo && echo sized > /dev/tty")
                .terminal()
                .output()
                .await?;
            same!(terminal.stdout.replace('\r', ""), "sized\n");
            Ok(())
        },
    )
    .differs(DIFFERS);
    t.add("rules hold in a user namespace of the pod's own too", async |c| {
        const RULES: &str = "landlock.read = ['/bin', '/proc']\nlandlock.write = ['/tmp', \
            '/proc']\nlandlock.tcp_connect = []\n";
        let root = c.mapped_root().await?;
        let made = || {
            let container = c.container().options(handler(RULES)).root_at(&root);
            container.spec(spec::with_user_namespace)
        };
        let script = "cat /etc/passwd > /dev/null 2>&1 || echo unread; echo x > /etc/x 2> /dev/null || echo unwritten; \
                      echo x > /tmp/x && echo written; cat /proc/self/uid_map | wc -l; echo 9 > \
                      /proc/self/oom_score_adj && echo proc; \
                      probe dial tcp 127.0.0.1:1";
        let expected = "unread\nunwritten\nwritten\n1\nproc\nrefused: Permission denied (os error 13)\n";
        same!(made().sh(script).output().await?.stdout, expected);
        let container = made().waiting().start().await?;
        same!(container.sh(script).await?.stdout, expected, "an exec");
        Ok(())
    })
    .differs(DIFFERS);
    t.add("a server runs in the strict tier", async |c| {
        let container = c.container().args(&["probe", "serve", "8080"]);
        let options = handler("landlock.tier = 'strict'\nlandlock.tcp_connect = ['8080']\n");
        let container = container.options(options).start().await?;
        c.eventually("the server listens", async || {
            Ok(container.stdout.text().contains("ready"))
        })
        .await?;
        same!(container.sh("probe dial tcp 127.0.0.1:8080").await?.ok()?, "answered\n");
        let script = "cp /bin/probe /tmp/p && /tmp/p exit 0 && echo ran; mv /tmp/p /usr/data/p && echo moved; kill -0 \
            1 && echo signalled; \
                      (sleep 1000 & kill $!) && echo child";
        same!(container.sh(script).await?.ok()?, "ran\nmoved\nsignalled\nchild\n");
        Ok(())
    })
    .differs(DIFFERS);
    t.add("rules that cannot be kept are refused by name", async |c| {
        for (options, words) in [
            (
                "landlock.read = ['/no/such']",
                "landlock.read: there is no /no/such in the container",
            ),
            (
                "landlock.read = ['/', '/etc/passwd/x']",
                "landlock.read: there is no /etc/passwd/x in the container",
            ),
            (
                "landlock.write = ['/proc/sys']",
                "landlock.write: /proc/sys: /proc is a proc file system",
            ),
            (
                "landlock.execute = ['/proc']",
                "landlock.execute: /proc: /proc is a proc file system",
            ),
            (
                "landlock.tier = 'none'\nlandlock.tcp_bind = ['80']",
                "landlock.tcp_bind = [\"80\"] (the handler's options)",
            ),
            (
                "landlock.read = ['bin']",
                "landlock.read is \"any\", or a list of absolute paths",
            ),
            ("landlock.tcp_bind = ['http']", "a list of port numbers"),
            (
                "landlock.profile = ['web']",
                "landlock.profile: \"web\" is not in landlock.pinned",
            ),
        ] {
            let container = c.container().waiting().options(handler(&format!("{options}\n")));
            refused(container.create().await)?.saying(words)?;
        }
        let shared = c
            .container()
            .waiting()
            .options(handler("landlock.scope = ['signal']\n"));
        let shared = shared.spec(|spec| spec::without_namespace(spec, "pid"));
        refused(shared.create().await)?
            .saying("landlock.scope = [\"signal\"]")?
            .saying("processes of a pod that share one signal each other")?;
        Ok(()) as Result<()>
    })
    .differs(DIFFERS);
    t.add(
        "policy files of the node's, with the pinned content alone, tighten what they are about",
        async |c| {
            let directory = c.directory.join("policies");
            std::fs::create_dir_all(&directory)?;
            let file = directory.join("web.toml");
            let text = "tier = \"hardened\"\nwrite = [\"/tmp\"]\n";
            std::fs::write(&file, text)?;
            let digest = sha256(text);
            let options = |digest: &str| {
                let directory = directory.display();
                handler(&format!(
                    "[landlock]\ndirectory = '{directory}'\npinned = ['web=sha256:{digest}']\n"
                ))
            };
            let container = c.container().waiting().options(options(&digest));
            let container = annotated(container, &json!({"nucleus.dev/landlock.profile": "web"}));
            let container = container.start().await?;
            let script = "echo x > /tmp/x && echo tmp; echo x > /etc/x 2> /dev/null || echo not";
            same!(container.sh(script).await?.stdout, "tmp\nnot\n");
            let record = c.daemon.bundle(&c.namespace, &container.id).join("nucleus.json");
            let record: Value = serde_json::from_slice(&std::fs::read(record)?)?;
            same!(
                record["policy"]["landlock_write"],
                json!({"value": {"only": ["/tmp"]}, "from": "pod"})
            );
            let other = annotated(
                c.container().waiting().options(options(&"0".repeat(64))),
                &json!({"nucleus.dev/landlock.profile": "web"}),
            );
            refused(other.create().await)?
                .saying("landlock.profile: ")?
                .saying("is pinned")?;
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
            let open = annotated(
                c.container().waiting().options(options(&digest)),
                &json!({"nucleus.dev/landlock.profile": "web"}),
            );
            refused(open.create().await)?.saying("nobody else can write to")?;
            let text = "allow = [\"CAP_KILL\"]\n";
            std::fs::write(directory.join("few.toml"), text)?;
            let options = format!(
                "[capabilities]\nprofile = ['few']\ndirectory = '{}'\npinned = ['few=sha256:{}']\n",
                directory.display(),
                sha256(text)
            );
            let few = c.container().args(&["probe"]).options(handler(&options));
            let facts = few.output().await?.json()?;
            same!(facts["status"]["CapBnd"], "0000000000000020");
            Ok(())
        },
    )
    .differs(DIFFERS);
    t.add("what cannot be had is refused where it is demanded", async |c| {
        let container = tier(c.container().waiting().spec(may_administer), "hardened");
        refused(container.create().await)?
            .saying("landlock.tier = \"hardened\" (the pod)")?
            .saying("CAP_SYS_ADMIN")?;
        let container = c
            .container()
            .waiting()
            .options(handler("require.landlock_abi = 1000\n"));
        refused(container.create().await)?.saying("require.landlock_abi = 1000 (the handler's options)")?;
        Ok(()) as Result<()>
    })
    .differs(DIFFERS);
}
