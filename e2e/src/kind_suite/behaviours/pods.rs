//! Single pods.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::super::cluster::eventually;
use super::super::engine::run;
use super::super::manifests::web;
use super::super::store::{BUSYBOX, HOSTILE};
use super::super::workload::{LIMIT, Space, ending, is_ready, restarts};
use super::{Behaviour, common, ours};

pub fn all() -> Vec<Behaviour> {
    vec![
        common("pods", "a pod writes a log, ends, and its exit code is told", |space| {
            Box::pin(ends(space))
        }),
        common("pods", "exec gives output, input, exit codes and a terminal", |space| {
            Box::pin(exec(space))
        }),
        common(
            "pods",
            "volumes, the environment and the token are in the pod",
            |space| Box::pin(volumes(space)),
        ),
        common("pods", "probes by exec, http and tcp make a pod ready", |space| {
            Box::pin(probes(space))
        }),
        common("pods", "a liveness probe that fails restarts the container", |space| {
            Box::pin(liveness(space))
        }),
        common(
            "pods",
            "preStop and SIGTERM come before the grace period is over",
            |space| Box::pin(graceful(space)),
        ),
        common(
            "pods",
            "what ignores SIGTERM is killed when the grace period is over",
            |space| Box::pin(killed(space)),
        ),
        common("pods", "a container that takes too much memory is OOMKilled", |space| {
            Box::pin(oom(space))
        }),
        common("pods", "init containers run first, a sidecar beside", |space| {
            Box::pin(sidecar(space))
        }),
        common(
            "pods",
            "containers see each other's processes if they are to",
            |space| Box::pin(shared(space)),
        ),
        common("pods", "an ephemeral container joins a pod", |space| {
            Box::pin(ephemeral(space))
        }),
        ours("pods", "a user namespace of its own has a mapped root", |space| {
            Box::pin(user_namespace(space))
        }),
        common("pods", "a pod without privileges has none", |space| {
            Box::pin(unprivileged(space))
        }),
        common("pods", "resize in place changes the limits of what runs", |space| {
            Box::pin(resize(space))
        }),
        common("pods", "an image's labels change nothing of its pod", |space| {
            Box::pin(labels(space))
        }),
        common("pods", "port forward reaches a pod", |space| {
            Box::pin(port_forward(space))
        }),
        common("pods", "kubelet's summary tells what a pod uses", |space| {
            Box::pin(summary(space))
        }),
    ]
}

async fn ends(space: &Space<'_>) -> Result<()> {
    let script = "echo to stdout; echo to stderr >&2; echo last words > /dev/termination-log; exit 3";
    space.pod("ends", script, json!({"restartPolicy": "Never"})).await?;
    let pod = space.until_ended("ends").await?;
    let (code, reason, message) = ending(&pod)?;
    ensure!(
        (code, reason.as_str(), message.trim()) == (3, "Error", "last words"),
        "it ended with {code}, {reason}, {message:?}"
    );
    let log = space.log("ends").await?;
    ensure!(
        log.contains("to stdout") && log.contains("to stderr"),
        "its log is {log:?}"
    );
    Ok(())
}

async fn exec(space: &Space<'_>) -> Result<()> {
    space.pod("exec", "exec sleep 1000", json!({})).await?;
    space.until_ready("exec").await?;
    let said = space.exec("exec", &["echo", "hello"]).await?;
    ensure!(said == "hello\n", "echo said {said:?}");
    let mut failing = space.kubectl(&["exec", "exec", "--", "sh", "-c", "echo no >&2; exit 7"]);
    let output = failing.output().await.context("run kubectl")?;
    ensure!(output.status.code() == Some(7), "exit 7 gave {}", output.status);
    let directory = &space.cluster.setting.directory;
    let input = directory.join(format!("{}-input", space.name));
    super::super::write(&input, "one\ntwo\n")?;
    let mut counting = space.kubectl(&["exec", "-i", "exec", "--", "wc", "-l"]);
    counting.stdin(std::fs::File::open(&input).context("open the input")?);
    let output = counting.output().await.context("run kubectl")?;
    let lines = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(lines == "2", "wc -l counted {lines:?}");
    let missing = space.exec("exec", &["/no/such/program"]).await;
    ensure!(missing.is_err(), "a program that is not there was run");
    // As many as there may be at once, none may be lost.
    for round in 0..20 {
        let said = space.exec("exec", &["sh", "-c", &format!("echo {round}")]).await?;
        ensure!(said.trim() == round.to_string(), "round {round} said {said:?}");
    }
    Ok(())
}

async fn volumes(space: &Space<'_>) -> Result<()> {
    let map = json!({"metadata": {"name": "settings"}, "data": {"colour": "blue"}});
    space.create::<ConfigMap>(map).await?;
    let secret = json!({"metadata": {"name": "secret"}, "stringData": {"word": "sesame"}});
    space.create::<Secret>(secret).await?;
    let script = "set -e; cat /settings/colour; echo; cat /secret/word; echo; echo $COLOUR $NAME; \
                  test -s /var/run/secrets/kubernetes.io/serviceaccount/token; \
                  echo kept > /scratch/file; cat /scratch/file; cat /part; touch /settings/x 2>/dev/null && echo writable; exit 0";
    let more = json!({
        "restartPolicy": "Never",
        "volumes": [
            {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "secret", "secret": {"secretName": "secret"}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
        "main": {
            "volumeMounts": [
                {"name": "settings", "mountPath": "/settings"},
                {"name": "secret", "mountPath": "/secret", "readOnly": true},
                {"name": "scratch", "mountPath": "/scratch"},
                {"name": "memory", "mountPath": "/memory"},
                {"name": "settings", "mountPath": "/part", "subPath": "colour"},
            ],
            "env": [
                {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
        },
    });
    space.pod("volumes", script, more).await?;
    let pod = space.until_ended("volumes").await?;
    let log = space.log("volumes").await?;
    ensure!(
        log == "blue\nsesame\nblue volumes\nkept\nblue" && ending(&pod)?.0 == 0,
        "it ended with {:?} and wrote {log:?}",
        ending(&pod)?
    );
    Ok(())
}

async fn probes(space: &Space<'_>) -> Result<()> {
    let mut http = web("http");
    http["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1});
    let more = json!({
        "main": {"readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}},
        "beside": [http],
    });
    space
        .pod("probed", "sleep 2; touch /tmp/ready; exec sleep 1000", more)
        .await?;
    let mut tcp = web("tcp");
    tcp["readinessProbe"] = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1});
    let mut spec = space.spec("true", json!({}));
    spec["containers"] = json!([tcp]);
    space
        .create::<Pod>(json!({"metadata": {"name": "tcp"}, "spec": spec}))
        .await?;
    space.until_ready("probed").await?;
    space.until_ready("tcp").await?;
    space.exec("probed", &["rm", "/tmp/ready"]).await?;
    let pod = space
        .until("probed", "not to be ready any more", |pod| !is_ready(pod))
        .await?;
    ensure!(restarts(&pod) == 0, "it was restarted");
    Ok(())
}

async fn liveness(space: &Space<'_>) -> Result<()> {
    let probe = json!({"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 2,
        "initialDelaySeconds": 1});
    let more = json!({"main": {"livenessProbe": probe}});
    space
        .pod(
            "dying",
            "touch /tmp/alive; sleep 4; rm /tmp/alive; exec sleep 1000",
            more,
        )
        .await?;
    space
        .until("dying", "to be restarted", |pod| restarts(pod) > 0)
        .await
        .map(drop)
}

async fn graceful(space: &Space<'_>) -> Result<()> {
    let script = "trap 'echo term; exit 0' TERM; echo up; while true; do sleep 1; done";
    let more = json!({
        "terminationGracePeriodSeconds": 60,
        "main": {"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo pre > /proc/1/fd/1"]}}}},
    });
    space.pod("graceful", script, more).await?;
    space.until_ready("graceful").await?;
    let mut follow = space.kubectl(&["logs", "--follow", "graceful"]);
    follow.stdout(std::process::Stdio::piped());
    let follow = follow.spawn().context("run kubectl logs")?;
    let begun = Instant::now();
    space
        .api::<Pod>()
        .delete("graceful", &DeleteParams::default())
        .await
        .context("delete the pod")?;
    space.until_gone("graceful").await?;
    let took = begun.elapsed();
    ensure!(
        took < Duration::from_secs(50),
        "it took {took:?}: SIGTERM was not enough"
    );
    let output = tokio::time::timeout(LIMIT, follow.wait_with_output()).await;
    let output = output
        .context("kubectl logs does not end")?
        .context("wait for kubectl logs")?;
    let log = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(log == "up\npre\nterm\n", "it wrote {log:?}");
    Ok(())
}

async fn killed(space: &Space<'_>) -> Result<()> {
    let more = json!({"terminationGracePeriodSeconds": 4});
    space
        .pod("stubborn", "trap '' TERM; while true; do sleep 1; done", more)
        .await?;
    space.until_ready("stubborn").await?;
    let begun = Instant::now();
    space
        .api::<Pod>()
        .delete("stubborn", &DeleteParams::default())
        .await
        .context("delete the pod")?;
    space.until_gone("stubborn").await?;
    let took = begun.elapsed();
    ensure!(took >= Duration::from_secs(4), "it was killed after {took:?}");
    Ok(())
}

async fn oom(space: &Space<'_>) -> Result<()> {
    let more = json!({
        "restartPolicy": "Never",
        "main": {"resources": {"limits": {"memory": "24Mi"}}},
    });
    space.pod("greedy", "exec tail /dev/zero", more).await?;
    let pod = space.until_ended("greedy").await?;
    let (code, reason, _) = ending(&pod)?;
    ensure!(
        (code, reason.as_str()) == (137, "OOMKilled"),
        "it ended with {code}, {reason}"
    );
    Ok(())
}

async fn sidecar(space: &Space<'_>) -> Result<()> {
    let spec = space.spec("x", json!({}));
    let image = spec["containers"][0]["image"].clone();
    let container = |name: &str, script: &str| {
        json!({"name": name, "image": image, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]})
    };
    let mut beside = container(
        "beside",
        "echo side >> /shared/order; trap 'exit 0' TERM; while true; do sleep 1; done",
    );
    beside["restartPolicy"] = json!("Always");
    beside["startupProbe"] = json!({"exec": {"command": ["grep", "side", "/shared/order"]}, "periodSeconds": 1});
    let more = json!({
        "restartPolicy": "Never",
        "volumes": [{"name": "shared", "emptyDir": {}}],
        "initContainers": [container("first", "echo first >> /shared/order"), beside],
        "main": {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
    });
    space.pod("order", "cat /shared/order", more).await?;
    space.until_ended("order").await?;
    let mut log = space.kubectl(&["logs", "order", "--container", "main"]);
    let log = run(&mut log).await?;
    ensure!(log == "first\nside\n", "the order was {log:?}");
    Ok(())
}

async fn shared(space: &Space<'_>) -> Result<()> {
    let other = json!({"name": "other", "image": BUSYBOX, "imagePullPolicy": "Never",
        "command": ["sleep", "1234"]});
    let more = json!({"shareProcessNamespace": true, "beside": [other]});
    space.pod("shared", "exec sleep 1000", more).await?;
    space.until_ready("shared").await?;
    let said = space.exec("shared", &["ps", "-o", "pid,args"]).await?;
    ensure!(
        said.contains("sleep 1234") && said.contains("/pause"),
        "the first container sees\n{said}"
    );
    Ok(())
}

async fn ephemeral(space: &Space<'_>) -> Result<()> {
    space.pod("plain", "exec sleep 1000", json!({})).await?;
    space.until_ready("plain").await?;
    let container = json!({
        "name": "visitor", "image": BUSYBOX, "imagePullPolicy": "Never",
        "targetContainerName": "main", "command": ["sh", "-c", "ps -o args; exec sleep 1000"],
    });
    let patch = json!({"spec": {"ephemeralContainers": [container]}});
    let pods = space.api::<Pod>();
    pods.patch_subresource(
        "ephemeralcontainers",
        "plain",
        &PatchParams::default(),
        &Patch::Strategic(patch),
    )
    .await
    .context("add an ephemeral container")?;
    let log = eventually("the visitor to say what it sees", LIMIT, async || {
        let log = run(&mut space.kubectl(&["logs", "plain", "--container", "visitor"])).await?;
        Ok((!log.is_empty()).then_some(log))
    })
    .await?;
    ensure!(log.contains("sleep 1000"), "it sees {log:?}");
    Ok(())
}

async fn user_namespace(space: &Space<'_>) -> Result<()> {
    let more = json!({
        "hostUsers": false,
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "main": {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
    });
    let script = "touch /scratch/file && stat -c '%u' /scratch/file && cat /proc/self/uid_map && exec sleep 1000";
    space.pod("mapped", script, more).await?;
    space.until_ready("mapped").await?;
    let log = space.log("mapped").await?;
    let words: Vec<&str> = log.split_whitespace().collect();
    let [owner, inside, outside, length] = words.as_slice() else {
        bail!("it wrote {log:?}");
    };
    ensure!(
        *owner == "0" && *inside == "0" && *outside != "0" && *length == "65536",
        "it wrote {log:?}"
    );
    Ok(())
}

async fn unprivileged(space: &Space<'_>) -> Result<()> {
    let more = json!({
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "supplementalGroups": [3000],
            "supplementalGroupsPolicy": "Strict", "seccompProfile": {"type": "RuntimeDefault"}},
        "restartPolicy": "Never",
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "main": {
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        },
    });
    let script = "id -u; id -G; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t' ' '; \
                  touch /x 2>/dev/null && echo written; touch /scratch/x && stat -c %g /scratch/x";
    space.pod("nobody", script, more).await?;
    space.until_ended("nobody").await?;
    let log = space.log("nobody").await?;
    let expected =
        "1000\n1000 2000 3000\nCapEff: 0000000000000000\nCapBnd: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n2000\n";
    ensure!(log == expected, "it wrote {log:?}");
    Ok(())
}

async fn resize(space: &Space<'_>) -> Result<()> {
    let resources = |memory: &str, cpu: &str| {
        let all = json!({"memory": memory, "cpu": cpu});
        json!({"requests": all, "limits": all})
    };
    let more = json!({"main": {"resources": resources("64Mi", "200m")}});
    space.pod("grows", "exec sleep 1000", more).await?;
    space.until_ready("grows").await?;
    let patch = json!({"spec": {"containers": [{"name": "main", "resources": resources("96Mi", "300m")}]}});
    let pods = space.api::<Pod>();
    pods.patch_subresource("resize", "grows", &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .context("resize the pod")?;
    let limits = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null \
                  || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max";
    eventually("the new limits in the container", LIMIT, async || {
        let said = space.exec("grows", &["sh", "-c", limits]).await?;
        let memory = (96 << 20).to_string();
        Ok((said.contains(&memory) && said.contains("30000")).then_some(()))
    })
    .await?;
    let pod = pods.get("grows").await.context("look at the pod")?;
    ensure!(restarts(&pod) == 0, "it was restarted");
    Ok(())
}

async fn labels(space: &Space<'_>) -> Result<()> {
    let what = "cat /proc/self/status | grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)'; hostname; exec sleep 1000";
    for (name, image) in [("plain", BUSYBOX), ("hostile", HOSTILE)] {
        let more = json!({"hostname": "same", "main": {"image": image}});
        space.pod(name, what, more).await?;
    }
    let mut said = Vec::new();
    for name in ["plain", "hostile"] {
        let pod = space.until_ready(name).await?;
        ensure!(restarts(&pod) == 0, "{name} was restarted");
        said.push(space.log(name).await?);
    }
    ensure!(said[0] == said[1], "one is {}, the other {}", said[0], said[1]);
    Ok(())
}

async fn port_forward(space: &Space<'_>) -> Result<()> {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    let mut spec = space.spec("true", json!({}));
    spec["containers"] = json!([web("web")]);
    space
        .create::<Pod>(json!({"metadata": {"name": "web"}, "spec": spec}))
        .await?;
    space.until_ready("web").await?;
    let mut forward = space.kubectl(&["port-forward", "--address", "127.0.0.1", "web", ":80"]);
    forward.stdout(std::process::Stdio::piped());
    let mut forward = forward.spawn().context("run kubectl port-forward")?;
    let stdout = forward.stdout.take().context("kubectl has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(LIMIT, lines.next_line())
        .await
        .context("kubectl says no port")?;
    let line = line.context("read the port")?.context("kubectl has ended")?;
    let address = line.split_whitespace().nth(2).context("kubectl says no address")?;
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .context("connect to the pod")?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.context("ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("read the answer")?;
    forward.kill().await.context("end kubectl port-forward")?;
    ensure!(
        answer.starts_with("HTTP/1") && answer.contains("200"),
        "it answered {answer:?}"
    );
    Ok(())
}

async fn summary(space: &Space<'_>) -> Result<()> {
    space
        .pod(
            "busy",
            "while true; do :; done",
            json!({"main": {"resources": {"limits": {"cpu": "50m"}}}}),
        )
        .await?;
    space.until_ready("busy").await?;
    let node = space.cluster.nodes().swap_remove(0);
    let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    eventually("figures of the pod in kubelet's summary", LIMIT, async || {
        let text = run(&mut space.kubectl(&["get", "--raw", &path])).await?;
        let summary: serde_json::Value = serde_json::from_str(&text)?;
        let pods = summary["pods"].as_array().context("no pods")?;
        let pod = pods
            .iter()
            .find(|pod| pod["podRef"]["namespace"] == space.name.as_str());
        let pod = pod.context("not this one")?;
        let container = &pod["containers"][0];
        let positive = |value: &serde_json::Value| value.as_u64().is_some_and(|value| value > 0);
        Ok(
            (positive(&container["cpu"]["usageNanoCores"]) && positive(&container["memory"]["workingSetBytes"]))
                .then_some(()),
        )
    })
    .await
}
