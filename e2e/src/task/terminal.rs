//! Containers and execs with a terminal.

use serde_json::json;

use crate::expect::refused;
use crate::harness::Registry;
use crate::same;

pub fn register(t: &mut Registry) {
    t.add("a container with a terminal has it on all three streams", async |c| {
        let container = c
            .container()
            .args(&["sh", "-c", "tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all"])
            .terminal();
        let output = container.stdin().output().await?;
        same!(output.ok()?, "/dev/pts/0\r\nall\r\n");
        Ok(())
    });
    t.add(
        "a container with a terminal leads a session that controls it",
        async |c| {
            let output = c.container().args(&["probe"]).terminal().output().await?;
            let seen = output.json()?;
            same!(seen["session"], 1);
            same!(seen["pgrp"], 1);
            // Major 136 is the first of Unix98 pseudo-terminals: tty_nr is 136 << 8.
            same!(seen["tty"], 136 << 8);
            Ok(())
        },
    );
    t.add("a container without a terminal has none", async |c| {
        let seen = c.probe(|_| ()).await?;
        same!(seen["tty"], 0);
        same!(
            seen["dev"].as_array().map(|dev| dev.contains(&json!("console"))),
            Some(false)
        );
        Ok(())
    });
    t.add("a container with a terminal has it as /dev/console", async |c| {
        let output = c
            .container()
            .sh("echo to the console > /dev/console")
            .terminal()
            .output()
            .await?;
        same!(output.ok()?, "to the console\r\n");
        Ok(())
    });
    t.add("the terminal begins with the size that the spec says", async |c| {
        let container = c.container().args(&["stty", "size"]).terminal();
        let container = container
            .stdin()
            .spec(|spec| spec["process"]["consoleSize"] = json!({"height": 33, "width": 77}));
        same!(container.output().await?.ok()?, "33 77\r\n");
        Ok(())
    });
    t.add("resizing tells the program", async |c| {
        let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done";
        let container = c.container().sh(script).terminal().stdin().start().await?;
        container.stdout.wait_for("ready").await?;
        container.resize(120, 40).await?;
        container.stdout.wait_for("40 120\r\n").await?;
        same!(container.wait().await?, 0);
        Ok(())
    });
    t.add("what is typed is echoed and read", async |c| {
        let container = c
            .container()
            .sh("read word; echo \"got $word\"")
            .terminal()
            .stdin()
            .start()
            .await?;
        container.write("apple\n").await?;
        same!(container.output().await?.ok()?, "apple\r\ngot apple\r\n");
        Ok(())
    });
    t.add("the interrupt key interrupts", async |c| {
        let script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.1; done";
        let container = c.container().sh(script).terminal().stdin().start().await?;
        container.stdout.wait_for("ready").await?;
        container.write("\x03").await?;
        same!(container.wait().await?, 9);
        container.stdout.wait_for("interrupted").await?;
        Ok(())
    });
    t.add("an exec can have a terminal of its own", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container
            .exec(&["sh", "-c", "tty; read word; echo \"got $word\""])
            .terminal()
            .stdin()
            .start()
            .await?;
        exec.stdout.wait_for("/dev/pts/0").await?;
        exec.write("pear\n").await?;
        exec.stdout.wait_for("got pear").await?;
        same!(exec.wait().await?, 0);
        Ok(())
    });
    t.add("an exec's terminal is resized apart from init's", async |c| {
        let container = c.container().waiting().start().await?;
        let script = "echo ready; read x; stty size";
        let exec = container.exec(&["sh", "-c", script]).terminal().stdin().start().await?;
        exec.stdout.wait_for("ready").await?;
        exec.resize(90, 30).await?;
        exec.write("\n").await?;
        exec.stdout.wait_for("30 90").await?;
        Ok(())
    });
    t.add("an exec's terminal controls its session", async |c| {
        let container = c.container().waiting().start().await?;
        let seen = container.exec(&["probe"]).terminal().output().await?.json()?;
        same!(seen["tty"], 136 << 8);
        same!(seen["session"], seen["pid"]);
        Ok(())
    });
    t.add("resizing without a terminal is answered with success", async |c| {
        let container = c.container().waiting().start().await?;
        container.resize(80, 25).await
    });
    t.add("resizing an exec that has ended is refused", async |c| {
        let container = c.container().waiting().start().await?;
        let exec = container.exec(&["true"]).terminal().start().await?;
        exec.wait().await?;
        refused(exec.resize(80, 25).await)?;
        Ok(())
    });
    t.add("a terminal belongs to the user of its program", async |c| {
        let container = c.container().args(&["stat", "-c", "%u", "/dev/pts/0"]).terminal();
        let container = container.spec(|spec| spec["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
        same!(container.output().await?.ok()?, "1000\r\n");
        Ok(())
    });
    t.add("much output through a terminal arrives complete", async |c| {
        let output = c
            .container()
            .args(&["probe", "lines", "8000"])
            .terminal()
            .output()
            .await?;
        same!(output.ok()?.len(), 8000 * 65);
        Ok(())
    });
}
