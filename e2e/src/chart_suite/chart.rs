//! The chart, as helm renders it.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::helm::{Helm, chart};
use super::manifests::{containers, mounted, object, pod_spec, words};
use super::schema::{Schema, VERSIONS};
use super::{ChartTest, values};

pub const TESTS: &[ChartTest] = &[
    ChartTest {
        name: "chart: lints strictly, for every distribution",
        run: |helm| Box::pin(lints(helm)),
    },
    ChartTest {
        name: "chart: what it renders is valid for the oldest and the newest Kubernetes",
        run: |helm| Box::pin(is_valid(helm)),
    },
    ChartTest {
        name: "chart: values of a wrong type or against each other are refused with what to do",
        run: |helm| Box::pin(refuses(helm)),
    },
    ChartTest {
        name: "chart: pods scheduled before the node is ready: the label is false before the first write",
        run: |helm| Box::pin(labels_in_order(helm)),
    },
    ChartTest {
        name: "chart: the container that writes to the host has no token, no capability and only the paths it names",
        run: |helm| Box::pin(privileged_part(helm)),
    },
    ChartTest {
        name: "chart: containers with a token touch nothing of the host and are not root",
        run: |helm| Box::pin(token_part(helm)),
    },
    ChartTest {
        name: "chart: images are pinned",
        run: |helm| Box::pin(images_are_pinned(helm)),
    },
    ChartTest {
        name: "chart: a change of the installer's values or rights rolls the DaemonSet, any other does not",
        run: |helm| Box::pin(checksums(helm)),
    },
    ChartTest {
        name: "chart: helm removes RBAC before the clean-up runs: the hook has an account of its own",
        run: |helm| Box::pin(hook_stands_alone(helm)),
    },
    ChartTest {
        name: "chart: the uninstall's patch leaves the uninstalling container alone",
        run: |helm| Box::pin(patch_uninstalls(helm)),
    },
    ChartTest {
        name: "chart: a RuntimeClass for each enabled handler, and no other",
        run: |helm| Box::pin(classes(helm)),
    },
    ChartTest {
        name: "chart: the notes name the classes and the commands",
        run: |helm| Box::pin(notes(helm)),
    },
    ChartTest {
        name: "chart: README says what values.yaml says",
        run: |_| Box::pin(async { values::readme() }),
    },
    ChartTest {
        name: "chart: the schema knows every value and nothing else",
        run: |_| Box::pin(async { values::schema() }),
    },
];

const DISTRIBUTIONS: [&str; 5] = ["containerd", "k3s", "rke2", "k0s", "microk8s"];

/// Values that between them reach every branch of the templates.
const RENDERINGS: &[&[&str]] = &[
    &[],
    &["distribution=k3s", "runtimeClasses.production.enabled=true"],
    &["distribution=rke2", "admissionPolicy.enabled=false"],
    &[
        "distribution=k0s",
        "installer.waitForHandlers=false",
        "installer.seLinuxType=",
    ],
    &["distribution=microk8s", "imagePullSecrets={a,b}"],
    &[
        "installer.config=/etc/other/config.toml",
        "installer.socket=/run/other/containerd.sock",
        "installer.state=/run/other/state",
        "installer.unit=other.service",
        "installer.maxUnavailable=10%",
        "installer.podLabels.team=a",
        "installer.podAnnotations.note=b",
    ],
    &[
        "runtimeClasses.nodeSelector.pool=a",
        "runtimeClasses.tolerations[0].key=a",
        "runtimeClasses.tolerations[0].operator=Exists",
        "image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ],
];

async fn lints(helm: &Helm) -> Result<()> {
    let chart = chart().display().to_string();
    for distribution in DISTRIBUTIONS {
        let set = format!("distribution={distribution}");
        helm.run(&["lint", "--strict", &chart, "--set", &set]).await?;
    }
    Ok(())
}

async fn is_valid(helm: &Helm) -> Result<()> {
    for (name, module) in VERSIONS {
        let schema = Schema::of(module).await?;
        for values in RENDERINGS {
            for object in helm.render(values).await? {
                let what = format!("{} {}", object["kind"], object["metadata"]["name"]);
                schema
                    .check(&object)
                    .with_context(|| format!("Kubernetes {name}, {values:?}: {what}"))?;
            }
        }
    }
    Ok(())
}

async fn refuses(helm: &Helm) -> Result<()> {
    for (values, words) in [
        ("distribution=docker", "must be one of 'containerd', 'k3s'"),
        ("distribution=1", "/distribution"),
        ("installer.timeoutSeconds=soon", "got string, want integer"),
        ("installer.timeoutSeconds=0", "minimum"),
        ("installer.directory=opt/nucleus", "does not match pattern"),
        ("installer.directory=/usr/bin", "name a directory of its own"),
        ("installer.unit=containerd", "does not match pattern"),
        ("installer.maxUnavailable=0", "minimum"),
        ("installer.tolerations=all", "want array"),
        ("image=nucleus", "want object"),
        ("image.tag=latest", "name a version or a digest"),
        ("image.digest=abc", "does not match pattern"),
        ("image.pullPolicy=Sometimes", "must be one of"),
        ("kubectl.image.tag=", "does not match pattern"),
        ("runtimeClasses.nucleus.enabled=yes", "got string, want boolean"),
        ("runtimeClasses.nucleus.enabled=false", "enable at least one"),
        ("runtimeClasses.gvisor.path=runsc", "does not match pattern"),
        ("runtimeClasses.gvisor.sha256=abc", "does not match pattern"),
        (
            "runtimeClasses.overhead.disk=1",
            "additional properties 'disk' not allowed",
        ),
        (
            "runtimeClasses.nodeSelector.nucleus\\.dev/ready=x",
            "is set by the chart",
        ),
        ("admissionPolicy.action=Maybe", "must be one of"),
        (
            "instaler.unit=x.service",
            "additional properties 'instaler' not allowed",
        ),
        ("distribution=k3s,installer.config=/x", "has it in one place only"),
        ("distribution=k0s,installer.unit=k0s.service", "leave it empty"),
    ] {
        match helm.render(&[values]).await {
            Ok(_) => bail!("{values} was rendered"),
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(text.contains(words), "{values}: {words:?} is not in\n{text}");
            }
        }
    }
    Ok(())
}

fn installer(objects: &[Value]) -> Result<&Value> {
    object(objects, "DaemonSet", "-installer").map(|set| &set["spec"]["template"])
}

async fn labels_in_order(helm: &Helm) -> Result<()> {
    let objects = helm.render(&["runtimeClasses.production.enabled=true"]).await?;
    let spec = &installer(&objects)?["spec"];
    let inits = spec["initContainers"].as_array().context("no init containers")?;
    let names: Vec<&str> = inits.iter().filter_map(|one| one["name"].as_str()).collect();
    let expected = [
        "not-ready",
        "node",
        "reported-nucleus",
        "reported-nucleus-production",
        "ready",
    ];
    ensure!(names == expected, "{names:?}");
    ensure!(
        words(&inits[0], "args").contains(&"nucleus.dev/ready=false"),
        "{}",
        inits[0]
    );
    let condition = r#"--for=jsonpath={.status.runtimeHandlers[?(@.name=="nucleus")].name}=nucleus"#;
    ensure!(words(&inits[2], "args").contains(&condition), "{}", inits[2]);
    ensure!(
        words(&inits[4], "args").contains(&"nucleus.dev/ready=true"),
        "{}",
        inits[4]
    );

    // containerd 1.x reports nothing: the installer's own look at containerd is what the label waits for.
    let objects = helm.render(&["installer.waitForHandlers=false"]).await?;
    let spec = &installer(&objects)?["spec"];
    let names: Vec<&Value> = containers(spec).map(|one| &one["name"]).collect();
    ensure!(names == ["not-ready", "node", "ready", "wait"], "{names:?}");
    Ok(())
}

async fn privileged_part(helm: &Helm) -> Result<()> {
    for distribution in DISTRIBUTIONS {
        let objects = helm.render(&[&format!("distribution={distribution}")]).await?;
        let spec = &installer(&objects)?["spec"];
        for field in ["hostPID", "hostNetwork", "hostIPC"] {
            ensure!(spec.get(field).is_none(), "{field} is set");
        }
        ensure!(
            spec["automountServiceAccountToken"] == false,
            "a token is mounted into all"
        );
        let node = containers(spec)
            .find(|one| one["name"] == "node")
            .context("no container `node`")?;
        let context = &node["securityContext"];
        ensure!(
            context["privileged"] == false && context["readOnlyRootFilesystem"] == true,
            "{context}"
        );
        ensure!(context["capabilities"] == json!({"drop": ["ALL"]}), "{context}");
        ensure!(context["allowPrivilegeEscalation"] == false, "{context}");
        let allowed = [
            "/opt/nucleus",
            "/etc/",
            "/run/",
            "/var/lib/rancher/",
            "/var/snap/microk8s",
        ];
        for volume in mounted(spec, node) {
            let path = volume["hostPath"]["path"]
                .as_str()
                .context("a volume that is none of the host's")?;
            ensure!(allowed.iter().any(|start| path.starts_with(start)), "{path} is mounted");
        }
        for mount in node["volumeMounts"].as_array().into_iter().flatten() {
            let path = mount["mountPath"].as_str().unwrap_or_default();
            let writable = mount.get("readOnly").is_none();
            ensure!(!(writable && path.starts_with("/host/run")), "{path} can be written");
        }
    }
    Ok(())
}

async fn token_part(helm: &Helm) -> Result<()> {
    let objects = helm.render(&["runtimeClasses.production.enabled=true"]).await?;
    let mut seen = 0;
    for spec in objects.iter().filter_map(pod_spec) {
        for container in containers(spec) {
            let volumes = mounted(spec, container);
            if !volumes.iter().any(|volume| volume["name"] == "token") {
                continue;
            }
            seen += 1;
            ensure!(volumes.len() == 1, "{} mounts more than its token", container["name"]);
            let context = &container["securityContext"];
            ensure!(
                context["runAsNonRoot"] == true && context["readOnlyRootFilesystem"] == true,
                "{context}"
            );
            ensure!(context["capabilities"] == json!({"drop": ["ALL"]}), "{context}");
            let image = container["image"].as_str().unwrap_or_default();
            ensure!(image.starts_with("registry.k8s.io/kubectl:"), "{image} gets a token");
        }
    }
    ensure!(seen == 8, "{seen} containers have a token");
    Ok(())
}

async fn images_are_pinned(helm: &Helm) -> Result<()> {
    for values in RENDERINGS {
        for spec in helm.render(values).await?.iter().filter_map(pod_spec) {
            for container in containers(spec) {
                let image = container["image"].as_str().context("no image")?;
                let (_, pin) = image
                    .rsplit_once([':', '@'])
                    .with_context(|| format!("{image} has no tag"))?;
                ensure!(!pin.is_empty() && pin != "latest", "{image}");
                ensure!(
                    container["imagePullPolicy"] != "Always" && !container["resources"].is_null(),
                    "{container}"
                );
            }
        }
    }
    let digest = helm.render(RENDERINGS[6]).await?;
    let text = installer(&digest)?.to_string();
    ensure!(text.contains("nucleus-installer@sha256:0123"), "{text}");
    Ok(())
}

async fn checksums(helm: &Helm) -> Result<()> {
    let template = async |values: &[&str]| -> Result<Value> { Ok(installer(&helm.render(values).await?)?.clone()) };
    let plain = template(&[]).await?;
    let annotations = plain["metadata"]["annotations"].as_object().context("no annotations")?;
    for name in ["checksum/rbac", "checksum/installer"] {
        let sum = annotations.get(name).and_then(Value::as_str).unwrap_or_default();
        ensure!(sum.len() == 64, "{name}: {sum:?}");
    }
    ensure!(
        template(&["installer.waitSeconds=200"]).await? != plain,
        "a changed value does not roll it"
    );
    for same in [
        "admissionPolicy.action=Warn",
        "runtimeClasses.overhead.memory=4Mi",
        "uninstall.timeoutSeconds=100",
    ] {
        ensure!(template(&[same]).await? == plain, "{same} rolls it for nothing");
    }
    Ok(())
}

fn is_hook(object: &Value) -> bool {
    object["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
}

async fn hook_stands_alone(helm: &Helm) -> Result<()> {
    let objects = helm.render(&[]).await?;
    let job = object(&objects, "Job", "-uninstall")?;
    ensure!(is_hook(job), "the job is no hook");
    let account = &job["spec"]["template"]["spec"]["serviceAccountName"];
    for kind in [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
    ] {
        let own = object(&objects, kind, "-uninstall")?;
        ensure!(is_hook(own), "{kind} is no hook");
        let weight = own["metadata"]["annotations"]["helm.sh/hook-weight"]
            .as_str()
            .unwrap_or_default();
        ensure!(weight.starts_with('-'), "{kind} comes no earlier than the job");
        if kind.ends_with("Binding") {
            ensure!(own["subjects"][0]["name"] == *account, "{own}");
        }
    }
    Ok(())
}

/// As the API server applies a strategic merge patch to init containers: by name, `$patch: delete` removes.
async fn patch_uninstalls(helm: &Helm) -> Result<()> {
    for values in [
        &["runtimeClasses.production.enabled=true"][..],
        &["installer.waitForHandlers=false"],
        &["distribution=k3s"],
    ] {
        let objects = helm.render(values).await?;
        let job = object(&objects, "Job", "-uninstall")?;
        let patcher = containers(&job["spec"]["template"]["spec"]).find(|one| one["name"] == "clean-nodes");
        let args = words(patcher.context("nobody patches")?, "args");
        let patch = args
            .iter()
            .find_map(|word| word.strip_prefix("--patch="))
            .context("no patch")?;
        let patch: Value = serde_json::from_str(patch)?;
        let mut left = installer(&objects)?["spec"]["initContainers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let changes = patch["spec"]["template"]["spec"]["initContainers"]
            .as_array()
            .context("no init containers")?;
        for change in changes {
            let at = left.iter().position(|one| one["name"] == change["name"]);
            let at = at.with_context(|| format!("there is no container {}", change["name"]))?;
            if change["$patch"] == "delete" {
                left.remove(at);
            } else {
                left[at]["args"] = change["args"].clone();
            }
        }
        let installs = installer(&objects)?["spec"]["initContainers"][1].clone();
        ensure!(left.len() == 1 && left[0]["name"] == "node", "{left:?}");
        let (install, uninstall) = (words(&installs, "args"), words(&left[0], "args"));
        ensure!(install[0] == "install" && uninstall[0] == "uninstall", "{uninstall:?}");
        let same = install[1..].iter().filter(|word| !word.starts_with("--handler="));
        ensure!(same.eq(&uninstall[1..]), "{install:?} {uninstall:?}");
    }
    Ok(())
}

async fn classes(helm: &Helm) -> Result<()> {
    for (values, expected) in [
        ("runtimeClasses.nucleus.enabled=true", &["nucleus"][..]),
        (
            "runtimeClasses.production.enabled=true",
            &["nucleus", "nucleus-production"],
        ),
        (
            "runtimeClasses.nucleus.enabled=false,runtimeClasses.production.enabled=true",
            &["nucleus-production"],
        ),
        ("runtimeClasses.gvisor.enabled=true", &["nucleus", "nucleus-gvisor"]),
        (
            "runtimeClasses.sandboxed.enabled=true",
            &["nucleus", "nucleus-sandboxed"],
        ),
    ] {
        let objects = helm.render(&[values]).await?;
        let classes: Vec<&Value> = objects.iter().filter(|one| one["kind"] == "RuntimeClass").collect();
        let names: Vec<&str> = classes
            .iter()
            .filter_map(|one| one["metadata"]["name"].as_str())
            .collect();
        ensure!(names == expected, "{values}: {names:?}");
        for class in classes {
            ensure!(class["handler"] == class["metadata"]["name"], "{class}");
            ensure!(
                class["scheduling"]["nodeSelector"]["nucleus.dev/ready"] == "true",
                "{class}"
            );
            let overhead = if class["handler"] == "nucleus-gvisor" {
                "32Mi"
            } else {
                "2Mi"
            };
            ensure!(class["overhead"]["podFixed"]["memory"] == overhead, "{class}");
        }
        let node = installer(&objects)?["spec"]["initContainers"][1].clone();
        let asked = words(&node, "args")
            .into_iter()
            .filter_map(|word| word.strip_prefix("--handler="));
        ensure!(asked.eq(expected.iter().copied()), "{node}");
        let runsc = words(&node, "args").contains(&"--gvisor-path=/usr/local/bin/runsc");
        ensure!(runsc == expected.contains(&"nucleus-gvisor"), "{node}");
    }
    Ok(())
}

async fn notes(helm: &Helm) -> Result<()> {
    let chart = chart().display().to_string();
    let text = helm
        .run(&[
            "install",
            "rel",
            &chart,
            "--dry-run=client",
            "--namespace",
            "ns",
            "--set",
            "runtimeClasses.production.enabled=true",
        ])
        .await?;
    for words in [
        "nucleus or nucleus-production",
        "rollout status daemonset/rel-installer",
        "helm test rel --namespace ns",
    ] {
        ensure!(text.contains(words), "{words:?} is not in the notes");
    }
    Ok(())
}
