//! Streams without a terminal: FIFOs, files, logging programs.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::io::Capture;
use crate::same;

pub fn register(t: &mut Registry) {
    fifos(t);
    files_and_programs(t);
}

fn fifos(t: &mut Registry) {
    t.add("stdout and stderr are kept apart", async |c| {
        let output = c.container().sh("echo out; echo err >&2").output().await?;
        same!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
        Ok(())
    });
    t.add("stdin reaches the program and ends when it is closed", async |c| {
        let container = c.container().args(&["cat"]).stdin().start().await?;
        container.write("typed\n").await?;
        container.stdout.wait_for("typed").await?;
        container.end_stdin().await?;
        same!(container.output().await?.ok()?, "typed\n");
        Ok(())
    });
    t.add("stdin stays open when the client goes and comes back", async |c| {
        let container = c.container().args(&["cat"]).stdin().start().await?;
        container.write("first\n").await?;
        container.stdout.wait_for("first").await?;
        container.drop_stdin();
        let path = container.uris[0].clone();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| {
                use std::io::Write;
                file.write_all(b"second\n")
            })?;
        container.stdout.wait_for("second").await?;
        container.close_io().await?;
        same!(container.wait().await?, 0);
        Ok(())
    });
    t.add("closing stdin twice does no harm", async |c| {
        let container = c.container().args(&["cat"]).stdin().start().await?;
        container.end_stdin().await?;
        same!(container.wait().await?, 0);
        let second = container.close_io().await;
        // After the end either answer is right; it must only come.
        drop(second);
        Ok(())
    });
    t.add("without a stdin the program reads an end at once", async |c| {
        let output = c.container().sh("cat; echo ended").output().await?;
        same!(output.ok()?, "ended\n");
        Ok(())
    });
    t.add("a container without any stream runs", async |c| {
        let container = c
            .container()
            .sh("echo lost; echo lost >&2; exit 3")
            .streams(["", "", ""])
            .start()
            .await?;
        same!(container.wait().await?, 3);
        Ok(())
    });
    t.add("four megabytes of output arrive complete and in order", async |c| {
        let output = c.run(&["probe", "lines", "65536"]).await?;
        let text = output.ok()?;
        same!(text.len(), 65536 * 64);
        for (number, line) in text.lines().enumerate() {
            same!(line.parse::<usize>().ok(), Some(number));
        }
        Ok(())
    });
    t.add("a megabyte of input arrives complete", async |c| {
        let container = c.container().args(&["wc", "-c"]).stdin().start().await?;
        container.write(&"x".repeat(1 << 20)).await?;
        container.end_stdin().await?;
        same!(container.output().await?.ok()?, "1048576\n");
        Ok(())
    });
    t.add(
        "a child that keeps stdout open does not hold init's exit or delete",
        async |c| {
            let begun = std::time::Instant::now();
            let container = c.container().sh("probe wait & exit 0").start().await?;
            same!(container.wait().await?, 0);
            container.delete().await?;
            anyhow::ensure!(begun.elapsed().as_secs() < 15, "took {:?}", begun.elapsed());
            Ok(())
        },
    );
    t.add("a reader that goes away does not end the program", async |c| {
        let path = c.directory.join("left");
        crate::io::make_fifo(&path)?;
        let reader = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&path)?;
        let uri = path.display().to_string();
        let container = c
            .container()
            .sh("while :; do echo x; done")
            .streams(["", &uri, &uri])
            .start()
            .await?;
        reader.readable().await?;
        drop(reader);
        let again = Capture::of_fifo(&path)?;
        again.wait_for("x\n").await?;
        same!(container.status().await?, containerd_client::types::v1::Status::Running);
        Ok(())
    });
    t.add(
        "output written before the client opens its end is not lost",
        async |c| {
            let path = c.directory.join("late");
            crate::io::make_fifo(&path)?;
            let uri = path.display().to_string();
            let create = c
                .container()
                .sh("echo early; exit 0")
                .streams(["", &uri, &uri])
                .create();
            let (container, capture) = tokio::join!(create, async { Capture::of_fifo(&path) });
            let (container, capture) = (container?, capture?);
            container.start().await?;
            same!(container.wait().await?, 0);
            same!(capture.to_end().await?, "early\n");
            Ok(())
        },
    );
}

/// A program on the host that takes a container's streams, as containerd's logging protocol says: descriptors 3 and 4
/// are stdout and stderr, closing 5 says that it is ready.
fn logger(c: &Ctx, body: &str) -> Result<(String, PathBuf)> {
    let program = c.directory.join("logger");
    let log = c.directory.join("log");
    std::fs::write(&program, body.replace("LOG", &log.display().to_string())).context("write the logging program")?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok((format!("binary://{}", program.display()), log))
}

fn files_and_programs(t: &mut Registry) {
    t.add("both streams go to one file by its URI", async |c| {
        let file = c.directory.join("output.log");
        let uri = format!("file://{}", file.display());
        let container = c
            .container()
            .sh("echo out; echo err >&2")
            .streams(["", &uri, &uri])
            .start()
            .await?;
        same!(container.wait().await?, 0);
        container.delete().await?;
        let text = std::fs::read_to_string(&file)?;
        anyhow::ensure!(text.contains("out\n") && text.contains("err\n"), "{text:?}");
        Ok(())
    });
    t.add("a file's missing directories are made", async |c| {
        let file = c.directory.join("a/b/output.log");
        let uri = format!("file://{}", file.display());
        let container = c
            .container()
            .args(&["echo", "deep"])
            .streams(["", &uri, &uri])
            .start()
            .await?;
        same!(container.wait().await?, 0);
        container.delete().await?;
        same!(std::fs::read_to_string(&file)?, "deep\n");
        Ok(())
    });
    t.add("a file is appended to, not replaced", async |c| {
        let file = c.directory.join("output.log");
        std::fs::write(&file, "before\n")?;
        let uri = format!("file://{}", file.display());
        let container = c
            .container()
            .args(&["echo", "after"])
            .streams(["", &uri, &uri])
            .start()
            .await?;
        container.wait().await?;
        container.delete().await?;
        same!(std::fs::read_to_string(&file)?, "before\nafter\n");
        Ok(())
    });
    t.add("an exec's streams can go to a file", async |c| {
        let file = c.directory.join("exec.log");
        let uri = format!("file://{}", file.display());
        let container = c.container().waiting().start().await?;
        let exec = container
            .exec(&["echo", "to a file"])
            .streams(["", &uri, &uri])
            .start()
            .await?;
        same!(exec.wait().await?, 0);
        exec.delete().await?;
        same!(std::fs::read_to_string(&file)?, "to a file\n");
        Ok(())
    });
    t.add("a logging program gets both streams and the container's name", async |c| {
        let (uri, log) = logger(
            c,
            "#!/bin/sh\ntrap '' TERM\nenv > LOG.env\nexec 5>&-\ncat <&3 > LOG.out &\ncat <&4 > LOG.err &\nwait\necho \
             done > LOG.end\n",
        )?;
        let container = c.container().sh("echo out; echo err >&2").streams(["", &uri, &uri]).start().await?;
        same!(container.wait().await?, 0);
        container.delete().await?;
        let read = |end: &str| std::fs::read_to_string(log.with_extension(end));
        c.eventually("the logging program ends", async || Ok(log.with_extension("end").exists())).await?;
        same!((read("out")?, read("err")?), ("out\n".to_owned(), "err\n".to_owned()));
        let environment = read("env")?;
        anyhow::ensure!(environment.contains(&format!("CONTAINER_ID={}\n", container.id)), "{environment}");
        anyhow::ensure!(environment.contains(&format!("CONTAINER_NAMESPACE={}\n", c.namespace)), "{environment}");
        Ok(())
    });
    t.add("a logging program gets its arguments from the URI", async |c| {
        let (uri, log) = logger(c, "#!/bin/sh\necho \"$@\" > LOG.args\nexec 5>&-\ncat <&3 >/dev/null\n")?;
        let uri = format!("{uri}?--tag=blue");
        let container = c.container().args(&["true"]).streams(["", &uri, &uri]).start().await?;
        same!(container.wait().await?, 0);
        let text = std::fs::read_to_string(log.with_extension("args"))?;
        anyhow::ensure!(text.contains("--tag") && text.contains("blue"), "{text:?}");
        Ok(())
    });
    t.add(
        "a logging program that is missing is an error that names it",
        async |c| {
            let uri = "binary:///no/such/logger";
            let created = c.container().args(&["true"]).streams(["", uri, uri]).create().await;
            refused(created)?.saying("/no/such/logger")?;
            Ok(())
        },
    );
    t.add("an unknown kind of stream is refused by its scheme", async |c| {
        let uri = "carrier-pigeon:///coop";
        refused(c.container().args(&["true"]).streams(["", uri, uri]).create().await)?.saying("carrier-pigeon")?;
        Ok(())
    });
}
