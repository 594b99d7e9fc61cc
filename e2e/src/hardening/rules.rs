//! Landlock's rules of one's own, and the tier `strict`: what is outside of them is out of reach, for init and for
//! execs.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::canary::Canary;
use super::{attacked, shown};
use crate::container::{Builder, Container};
use crate::context::{Ctx, Output};
use crate::expect::refused;
use crate::harness::Registry;
use crate::task::policy::{annotated, handler};
use crate::{same, spec};

const DIFFERS: &str = "runc has no Landlock";

/// A container under these options, with the canary's directory as its volume.
fn with_volume<'a>(c: &'a Ctx, options: &str, canary: &Canary) -> Builder<'a> {
    let source = canary.directory.display().to_string();
    c.container().options(handler(options)).spec(|spec| {
        spec::push(
            spec,
            "/mounts",
            spec::mount("/volume", "bind", &source, &["rbind", "rw"]),
        );
    })
}

/// What a script comes to, as init and as an exec of such a container.
async fn tried<'a>(made: impl Fn() -> Builder<'a>, script: &str) -> Result<[Output; 2]> {
    let init = made().sh(script).output().await?;
    let container = made().waiting().start().await?;
    let exec = container.sh(script).await?;
    Ok([init, exec])
}

/// A process that listens in a network namespace that others join.
async fn listener<'a>(c: &'a Ctx, args: &[&str]) -> Result<Container<'a>> {
    let server = c.container().args(args).start().await?;
    c.eventually("the server listens", async || {
        Ok(server.stdout.text().contains("ready"))
    })
    .await?;
    Ok(server)
}

fn in_network_of<'a>(c: &'a Ctx, server: &Container<'_>, options: &str) -> Builder<'a> {
    let path = format!("/proc/{}/ns/net", server.pid.get());
    c.container()
        .options(handler(options))
        .spec(|spec| spec::with_namespace_path(spec, "network", &path))
}

fn read_only_root(spec: &mut Value) {
    spec["root"]["readonly"] = json!(true);
}

pub fn register(t: &mut Registry) {
    t.add("nothing is read outside the rules", async |c| {
        let canary = Canary::plant(c)?;
        let script = "cat /volume/file; cat /volume/inner/file; ls /volume; ln -s /volume/file /tmp/link; cat \
            /tmp/link; \
                      cd /volume && cat file; grep -r unread /volume; echo end";
        let rules = "landlock.read = ['/bin', '/tmp', '/proc']\n";
        for output in tried(|| with_volume(c, rules, &canary), script).await? {
            canary.is_unread(&output)?;
            ensure!(output.stdout == "end\n", "{output:?}");
            attacked(5);
        }
        let [open, _] = tried(|| with_volume(c, "", &canary), script).await?;
        ensure!(
            canary.is_unread(&open).is_err(),
            "without the rules it is no attack: {open:?}"
        );
        shown(1);
        Ok(())
    })
    .differs(DIFFERS);

    t.add("nothing is written, made, removed or renamed outside the rules", async |c| {
        let script = "echo x > /volume/file; true > /volume/inner/file; echo x >> /volume/file; rm /volume/inner/file; \
                      mkdir /volume/d; mknod /volume/p p; ln -s x /volume/l; ln /volume/file /volume/h; ln \
                      /volume/file /tmp/h; \
                      mv /volume/file /volume/other; mv /volume/file /tmp/stolen; truncate -s 0 /volume/inner/file; \
                      echo y > /tmp/mine && mv /tmp/mine /volume/; cat /tmp/h; echo end";
        let canary = Canary::plant(c)?;
        for output in tried(|| with_volume(c, "landlock.write = ['/tmp']\n", &canary), script).await? {
            ensure!(output.stdout.ends_with("end\n"), "{output:?}");
            canary.is_untouched()?;
            attacked(13);
        }
        let open = Canary::plant(c)?;
        with_volume(c, "", &open).sh(script).output().await?;
        ensure!(open.is_untouched().is_err(), "without the rules it is no attack");
        shown(1);
        Ok(())
    })
    .differs(DIFFERS);

    t.add("nothing is executed outside the rules", async |c| {
        let script = "cp /bin/probe /tmp/p; for p in /tmp/p /usr/data/p; do cp /bin/probe $p; \
                      ($p exit 0) 2>/dev/null && echo $p ran; done; ln /bin/probe /tmp/h 2>/dev/null && /tmp/h exit 0 \
                      && echo hard; \
                      ln -s /tmp/p /bin/s && /bin/s exit 0 && echo link; probe exit 0 && echo end";
        let made = |rules: &'static str| move || c.container().options(handler(rules));
        for output in tried(made("landlock.execute = ['/bin']\n"), script).await? {
            same!(output.stdout, "end\n", "{:?}", output.stderr);
            attacked(4);
        }
        let [open, _] = tried(made(""), script).await?;
        ensure!(
            open.stdout.contains("/tmp/p ran") && open.stdout.contains("link"),
            "{open:?}"
        );
        shown(1);
        Ok(())
    })
    .differs(DIFFERS);

    t.add("no port is reached or listened at but those of the rules", async |c| {
        let server = listener(c, &["probe", "serve", "9090"]).await?;
        let other = "probe dial tcp 127.0.0.1:9090; probe dial tcp '[::1]:9090'; probe bind 9091";
        for rules in [
            "landlock.tcp_connect = ['8080']\nlandlock.tcp_bind = ['8080']\n",
            "landlock.tier = 'strict'\nlandlock.tcp_bind = ['80']\n",
        ] {
            for output in tried(|| in_network_of(c, &server, rules), other).await? {
                let lines: Vec<&str> = output.stdout.lines().collect();
                ensure!(
                    lines.len() == 3 && lines.iter().all(|line| line.starts_with("refused: Permission denied")),
                    "{output:?}"
                );
                attacked(3);
            }
        }
        for rules in ["", "landlock.tcp_connect = ['9090']\nlandlock.tcp_bind = ['9091']\n"] {
            for output in tried(|| in_network_of(c, &server, rules), other).await? {
                same!(output.stdout, "answered\nanswered\nbound\n");
            }
        }
        shown(2);
        Ok(())
    })
    .differs(DIFFERS);

    t.add(
        "the rules about ports are not passed by: MPTCP, connecting by sending, for init and for an exec",
        async |c| {
            let server = listener(c, &["probe", "serve", "9090"]).await?;
            let script = "probe dial mptcp 127.0.0.1:9090; probe dial fastopen 127.0.0.1:9090";
            for rules in ["landlock.tcp_connect = ['80']\n", "landlock.tier = 'strict'\n"] {
                for output in tried(|| in_network_of(c, &server, rules), script).await? {
                    let lines: Vec<&str> = output.stdout.lines().collect();
                    ensure!(
                        lines.len() == 2 && lines[0].contains("(os error 93)") && lines[1].contains("(os error 95)"),
                        "{output:?}"
                    );
                    attacked(2);
                }
            }
            for output in tried(|| in_network_of(c, &server, ""), script).await? {
                same!(output.stdout, "answered\nanswered\n");
            }
            shown(2);
            Ok(())
        },
    )
    .differs(DIFFERS);

    t.add("a device that was not given takes no ioctl", async |c| {
        // The cgroup's rules let it be made and read; the node is the workload's own.
        let script = "mknod /run/own c 1 9; head -c 1 /run/own | wc -c; probe ioctl /run/own; probe ioctl /dev/urandom";
        let made = |rules: &'static str| move || c.container().options(handler(rules));
        for output in tried(made("landlock.tier = 'strict'\n"), script).await? {
            same!(
                output.stdout,
                "1\nrefused: Permission denied (os error 13)\nasked\n",
                "{:?}",
                output.stderr
            );
            attacked(1);
        }
        for output in tried(made("landlock.ioctl = ['/dev/null', '/run']\n"), script).await? {
            same!(output.stdout.matches("refused").count(), 2, "{output:?}");
            attacked(2);
        }
        let [open, _] = tried(made(""), script).await?;
        same!(open.stdout, "1\nasked\nasked\n", "without the rules");
        shown(1);
        Ok(())
    })
    .differs(DIFFERS);

    t.add(
        "no signal leaves the domain, into a PID namespace that others have joined",
        async |c| {
            for (rules, is_scoped) in [
                ("landlock.scope = ['signal']\n", true),
                ("landlock.tier = 'strict'\n", true),
                ("", false),
            ] {
                let script = "while ! pidof tail > /dev/null; do sleep 0.1; done; \
                          if kill -9 $(pidof tail) 2> /dev/null; then echo killed; else echo not; fi";
                let as_init = format!("{script}; exec probe wait");
                for by_init in [true, false] {
                    let target = c.container().options(handler(rules));
                    let target = if by_init { target.sh(&as_init) } else { target.waiting() };
                    let target = target.start().await?;
                    let path = format!("/proc/{}/ns/pid", target.pid.get());
                    let victim = c.container().args(&["tail", "-f", "/dev/null"]);
                    let victim = victim
                        .spec(|spec| spec::with_namespace_path(spec, "pid", &path))
                        .start()
                        .await?;
                    let said = if by_init {
                        c.eventually("init has tried", async || Ok(target.stdout.text().ends_with('\n')))
                            .await?;
                        target.stdout.text()
                    } else {
                        target.sh(script).await?.stdout
                    };
                    same!(
                        said,
                        if is_scoped { "not\n" } else { "killed\n" },
                        "{rules:?}, by init: {by_init}"
                    );
                    if is_scoped {
                        ensure!(crate::processes::is_alive(victim.pid.get()), "it was killed");
                        attacked(1);
                    } else {
                        shown(1);
                    }
                }
            }
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS);

    t.add(
        "abstract sockets outside are out of reach where they are scoped",
        async |c| {
            let server = listener(c, &["probe", "listen", "@outside"]).await?;
            let script = "probe connect @outside";
            for rules in [
                "landlock.scope = ['abstract_unix_socket']\n",
                "landlock.tier = 'strict'\n",
            ] {
                for output in tried(|| in_network_of(c, &server, rules), script).await? {
                    ensure!(output.stdout.contains("not permitted"), "{output:?}");
                    attacked(1);
                }
            }
            for output in tried(|| in_network_of(c, &server, ""), script).await? {
                same!(output.stdout, "connected\n");
            }
            shown(1);
            Ok(())
        },
    )
    .differs(DIFFERS);

    t.add("in the strict tier what is read-only is so for Landlock too", async |c| {
        let script = "echo x > /run/x && echo run; echo x > /dev/null && echo null; echo 7 > /proc/self/oom_score_adj \
            && echo proc; \
                      echo x > /volume/new && echo volume; echo x > /etc/x || echo etc";
        let canary = Canary::plant(c)?;
        let made = || with_volume(c, "landlock.tier = 'strict'\nmount_audit = \
            'refuse'\n", &canary).spec(read_only_root);
        for output in tried(made, script).await? {
            same!(output.stdout, "run\nnull\nproc\nvolume\netc\n", "{:?}", output.stderr);
            attacked(1);
        }
        Ok(())
    })
    .differs(DIFFERS);

    t.add("an image's links do not say what a rule means", async |c| {
        // /mnt/absolute is a link of the image's, to /usr/data.
        let rules = |list: &str| handler(&format!("landlock.write = [{list}]\n"));
        let container = c.container().waiting().options(rules("'/tmp', '/mnt/absolute'"));
        refused(container.create().await)?.saying(
            "landlock.write: /mnt/absolute leads over a symbolic link to \"/usr/data\", which the list does not cover",
        )?;
        attacked(1);
        let script = "echo x > /mnt/absolute/x && echo written; echo x > /mnt/x || echo not";
        let covered = c.container().sh(script).options(rules("'/usr', '/mnt/absolute'"));
        same!(covered.output().await?.stdout, "written\nnot\n");
        Ok(())
    })
    .differs(DIFFERS);

    t.add("a pod's rules only tighten the node's", async |c| {
        let options = || handler("landlock.write = ['/tmp', '/run']\nlandlock.tier = 'strict'\n");
        for (annotation, value, words) in [
            (
                "landlock.write",
                "/tmp,/etc",
                "[\"/run\", \"/tmp\"] is demanded by the handler's options",
            ),
            ("landlock.write", "any", "is demanded"),
            ("landlock.tcp_connect", "443", "[] is demanded by the handler's options"),
            ("landlock.tier", "hardened", "\"strict\" is demanded"),
            ("landlock.directory", "/tmp", "only the node's configuration"),
        ] {
            let container = c.container().waiting().options(options());
            let container = annotated(container, &json!({format!("nucleus.dev/{annotation}"): value}));
            refused(container.create().await)?.saying(words)?;
            attacked(1);
        }
        let script = "mkdir /tmp/a; echo x > /tmp/x && echo tmp; echo x > /run/x || echo not run";
        let tightened = c.container().sh(script).options(options());
        let tightened = annotated(tightened, &json!({"nucleus.dev/landlock.write": "/run/no, /tmp"}));
        refused(tightened.create().await)?.saying("landlock.write: there is no /run/no in the container")?;
        let tightened = c.container().sh(script).options(options());
        let tightened = annotated(tightened, &json!({"nucleus.dev/landlock.write": "/tmp"}));
        same!(tightened.output().await?.stdout, "tmp\nnot run\n");
        Ok(()) as Result<()>
    })
    .differs(DIFFERS);
}
