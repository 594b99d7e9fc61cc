//! `nucleus explain` before anything runs, of bundles and manifests, and `nucleus digest`: what it says is what then
//! comes. Of containers that run: `audit`.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::context::Ctx;
use crate::expect::refused;
use crate::harness::Registry;
use crate::task::policy::{annotated, handler};
use crate::{same, spec};

const DIFFERS: &str = "the command is about nucleus";

fn nucleus(c: &Ctx, arguments: &[&str]) -> Result<Output> {
    let mut command = std::process::Command::new(&c.tools.cli);
    command
        .args(arguments)
        .current_dir(&c.directory)
        .output()
        .context("run nucleus")
}

fn said(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn file(c: &Ctx, name: &str, text: &str) -> Result<String> {
    let path = c.directory.join(name);
    std::fs::create_dir_all(path.parent().context("no directory")?)?;
    std::fs::write(&path, text).with_context(|| format!("write {name}"))?;
    Ok(name.to_owned())
}

const OPTIONS: &str = "no_new_privs = true\n[capabilities]\nallow = ['CAP_CHOWN', 'CAP_KILL']\n";

async fn bundle(c: &Ctx) -> Result<()> {
    let mut config = spec::base(&c.namespace, "explained");
    config["process"]["noNewPrivileges"] = json!(false);
    config["annotations"] = json!({"nucleus.dev/capabilities.allow": "CAP_KILL"});
    file(c, "bundle/config.json", &config.to_string())?;
    let options = file(c, "handler.toml", OPTIONS)?;
    let node = file(c, "node.toml", "version = 1\nproc = 'hidden'\n")?;
    let arguments = ["explain", "bundle", "--options", &options, "--config", &node];
    let (ok, text, error) = said(&nucleus(c, &arguments)?);
    ensure!(ok, "{error}");
    for line in [
        "the handler's options",
        "the node's configuration",
        "the pod",
        "1: CAP_KILL",
    ] {
        ensure!(text.contains(line), "without {line:?}: {text}");
    }
    ensure!(!text.contains("\"ociVersion\""), "the spec was not asked for: {text}");
    let (ok, text, _) = said(&nucleus(c, &[arguments.as_slice(), &["--json", "--spec"]].concat())?);
    same!(ok, true);
    let explained: Value = serde_json::from_str(&text)?;
    same!(
        explained["settings"]["no_new_privs"],
        json!({"value": "true", "from": "handler"})
    );
    same!(explained["settings"]["proc"]["from"], "node");
    same!(explained["settings"]["capabilities.allow"]["from"], "pod");
    same!(explained["spec"]["process"]["noNewPrivileges"], true);
    same!(
        explained["spec"]["process"]["capabilities"]["bounding"],
        json!(["CAP_KILL"])
    );
    // And so it is.
    let container = c
        .container()
        .args(&["probe"])
        .options(handler(&format!("proc = 'hidden'\n{OPTIONS}")));
    let container = annotated(container, &json!({"nucleus.dev/capabilities.allow": "CAP_KILL"}));
    let facts = container
        .spec(|spec| spec["process"]["noNewPrivileges"] = json!(false))
        .output()
        .await?
        .json()?;
    same!(facts["status"]["CapBnd"], "0000000000000020");
    same!(facts["status"]["NoNewPrivs"], "1");
    Ok(())
}

async fn refusals(c: &Ctx) -> Result<()> {
    let mut config = spec::base(&c.namespace, "explained");
    config["annotations"] = json!({"nucleus.dev/no_new_privs": "false"});
    file(c, "bundle/config.json", &config.to_string())?;
    let options = file(c, "handler.toml", OPTIONS)?;
    let (ok, _, told) = said(&nucleus(c, &["explain", "bundle", "--options", &options])?);
    same!(ok, false);
    // In the words of the shim itself.
    let container = annotated(
        c.container().waiting().options(handler(OPTIONS)),
        &config["annotations"],
    );
    let shim = refused(container.create().await)?;
    let words = "annotation nucleus.dev/no_new_privs: true is demanded by the handler's options";
    ensure!(shim.text.contains(words) && told.contains(words), "{shim:?}: {told}");
    for (arguments, words) in [
        (vec!["explain"], "required"),
        (vec!["explain", "missing"], "missing"),
        (vec!["explain", "bundle", "--running", "x"], "cannot be used with"),
        (vec!["explain", "bundle", "--options", "missing.toml"], "missing.toml"),
        (vec!["explain", "handler.toml"], "document 1"),
        (vec!["digest"], "required"),
        (vec!["digest", "missing"], "missing"),
    ] {
        let (ok, _, error) = said(&nucleus(c, &arguments)?);
        ensure!(!ok && error.contains(words), "{arguments:?}: {error}");
    }
    let node = file(c, "node.toml", "version = 1\nmood = 'good'\n")?;
    let (ok, _, error) = said(&nucleus(c, &["explain", "bundle", "--config", &node])?);
    ensure!(
        !ok && error.contains("line 2: there is no setting \"mood\"; \"mode\" may be meant"),
        "{error}"
    );
    Ok(())
}

const MANIFEST: &str = r#"
kind: Service
metadata: {name: web}
---
kind: Deployment
metadata: {name: web}
spec:
  template:
    metadata:
      annotations: {nucleus.dev/capabilities.allow: "CAP_KILL,CAP_CHOWN"}
    spec:
      runtimeClassName: nucleus
      containers:
      - name: web
        securityContext: {runAsUser: 1000, allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [KILL]}}
        resources: {limits: {memory: 64Mi}}
      - name: helper
"#;

async fn manifests(c: &Ctx) -> Result<()> {
    let manifest = file(c, "web.yaml", MANIFEST)?;
    let node = file(c, "node.toml", "version = 1\n")?;
    let (ok, text, error) = said(&nucleus(c, &["explain", &manifest, "--config", &node])?);
    ensure!(ok, "{text}{error}");
    for words in [
        "Deployment web; runtimeClassName nucleus",
        "container web",
        "container helper",
        "known on the node alone",
    ] {
        ensure!(text.contains(words), "without {words:?}: {text}");
    }
    let (_, text, _) = said(&nucleus(
        c,
        &["explain", &manifest, "--config", &node, "--json", "--spec"],
    )?);
    let explained: Value = serde_json::from_str(&text)?;
    same!(explained["skipped"], json!(["Service web"]));
    let web = &explained["pods"][0]["containers"][0];
    same!(web["enforced"]["capabilities"], "1: CAP_KILL");
    same!(web["enforced"]["no_new_privs"], "yes");
    same!(web["spec"]["process"]["user"]["uid"], 1000);
    // Where the node demands a limit, the helper is refused, and the others are still told of.
    let node = file(c, "limits.toml", "version = 1\nrequire.memory_limit = true\n")?;
    let (ok, text, _) = said(&nucleus(c, &["explain", &manifest, "--config", &node, "--json"])?);
    same!(ok, false);
    let explained: Value = serde_json::from_str(&text)?;
    let containers = &explained["pods"][0]["containers"];
    ensure!(containers[0]["refused"].is_null(), "{containers}");
    let refusal = containers[1]["refused"].as_str().unwrap_or_default().to_owned();
    let shim = refused(
        c.container()
            .waiting()
            .options(handler("require.memory_limit = true\n"))
            .create()
            .await,
    )?;
    let words = "linux.resources.memory.limit: refused by the policy, require.memory_limit = true";
    ensure!(
        shim.text.contains(words) && refusal.contains(words),
        "{shim:?}: {refusal}"
    );
    Ok(())
}

pub fn register(t: &mut Registry) {
    t.add("a bundle is explained as its container then is", async |c| {
        bundle(c).await
    })
    .differs(DIFFERS);
    t.add(
        "what would be refused is told in the shim's words, and what is no question by name",
        async |c| refusals(c).await,
    )
    .differs(DIFFERS);
    t.add(
        "the pods of a manifest are explained, and what only the node knows is said",
        async |c| manifests(c).await,
    )
    .differs(DIFFERS);
}
