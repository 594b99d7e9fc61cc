//! Device nodes and who may use them.

use serde_json::json;

use crate::expect::refused;
use crate::harness::Registry;
use crate::{same, spec};

pub fn register(t: &mut Registry) {
    t.add("the usual devices and links are there, and no others", async |c| {
        let seen = c.probe(|_| ()).await?;
        let wanted = [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
            "urandom", "zero",
        ];
        let mut names: Vec<&str> = seen["dev"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str())
            .collect();
        // runc links the host's kernel image where there is one.
        names.retain(|name| *name != "core");
        same!(names, wanted);
        Ok(())
    });
    t.add("the usual devices work", async |c| {
        let script = "echo x > /dev/null && head -c 8 /dev/zero | wc -c && head -c 8 /dev/urandom | wc -c \
            && head -c 8 /dev/random | wc -c; echo x > /dev/full || echo full";
        same!(c.container().sh(script).output().await?.ok()?, "8\n8\n8\nfull\n");
        Ok(())
    });
    t.add("the usual devices have the right numbers and modes", async |c| {
        let script = "stat -c '%n %t:%T %a %F' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty";
        let wanted = "\
/dev/null 1:3 666 character special file
/dev/zero 1:5 666 character special file
/dev/full 1:7 666 character special file
/dev/random 1:8 666 character special file
/dev/urandom 1:9 666 character special file
/dev/tty 5:0 666 character special file
";
        same!(c.container().sh(script).output().await?.ok()?, wanted);
        Ok(())
    });
    t.add(
        "the links in /dev lead to the process's own streams and the terminals",
        async |c| {
            let script = "for link in fd stdin stdout stderr ptmx; do readlink /dev/$link; done";
            let wanted = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
            same!(c.container().sh(script).output().await?.ok()?, wanted);
            Ok(())
        },
    );
    t.add("a device of the spec is made with its mode and owner", async |c| {
        let container = c
            .container()
            .args(&["stat", "-c", "%t:%T %a %u:%g", "/dev/my/null"])
            .spec(|spec| {
                let device = json!({"path": "/dev/my/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640,
                "uid": 7, "gid": 8});
                spec::push(spec, "/linux/devices", device);
            });
        same!(container.output().await?.ok()?, "1:3 640 7:8\n");
        Ok(())
    });
    t.add("a device that is not allowed cannot be opened", async |c| {
        let output = c
            .container()
            .sh("mknod /tmp/fuse c 10 229 && : < /tmp/fuse")
            .output()
            .await?;
        anyhow::ensure!(
            output.code != 0 && output.stderr.contains("not permitted"),
            "{output:?}"
        );
        Ok(())
    });
    t.add("a device that a rule allows can be opened", async |c| {
        let container = c
            .container()
            .sh("mknod /tmp/fuse c 10 229 && : < /tmp/fuse")
            .spec(|spec| {
                let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"});
                spec::push(spec, "/linux/resources/devices", rule);
            });
        // A kernel without FUSE says that there is no such device.
        let output = container.output().await?;
        same!(output.stderr.contains("not permitted"), false, "{output:?}");
        Ok(())
    });
    t.add("a rule's access is kept to: read is not write", async |c| {
        let container = c
            .container()
            .sh("mknod /tmp/fuse c 10 229; (: < /tmp/fuse) 2>&1; : > /tmp/fuse");
        let container = container.spec(|spec| {
            let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rm"});
            spec::push(spec, "/linux/resources/devices", rule);
        });
        let output = container.output().await?;
        same!(output.stdout.contains("not permitted"), false, "reading: {output:?}");
        same!(output.stderr.contains("not permitted"), true, "writing: {output:?}");
        Ok(())
    });
    t.add("a later rule wins over an earlier one", async |c| {
        let container = c
            .container()
            .sh("mknod /tmp/fuse c 10 229; : < /tmp/fuse")
            .spec(|spec| {
                for allow in [true, false] {
                    let rule = json!({"allow": allow, "type": "c", "major": 10, "minor": 229, "access": "rwm"});
                    spec::push(spec, "/linux/resources/devices", rule);
                }
            });
        let output = container.output().await?;
        same!(output.stderr.contains("not permitted"), true, "{output:?}");
        Ok(())
    });
    t.add("an exec is held to the same device rules", async |c| {
        let container = c.container().waiting().start().await?;
        let output = container.sh("mknod /tmp/fuse c 10 229 && : < /tmp/fuse").await?;
        anyhow::ensure!(
            output.code != 0 && output.stderr.contains("not permitted"),
            "{output:?}"
        );
        Ok(())
    });
    t.add("an unknown type of device is refused", async |c| {
        let device = json!({"path": "/dev/odd", "type": "q", "major": 1, "minor": 3});
        let refusal = refused(
            c.container()
                .spec(|spec| spec::push(spec, "/linux/devices", device))
                .create()
                .await,
        )?;
        if c.is_nucleus() {
            refusal.saying("linux.devices[0].type")?;
        }
        Ok(())
    });
    t.add("a FIFO of the spec is made", async |c| {
        let device = json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o600});
        let container = c.container().args(&["stat", "-c", "%F %a", "/dev/pipe"]);
        same!(
            container
                .spec(|spec| spec::push(spec, "/linux/devices", device))
                .output()
                .await?
                .ok()?,
            "fifo 600\n"
        );
        Ok(())
    });
}
