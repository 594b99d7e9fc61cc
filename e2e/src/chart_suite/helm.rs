//! helm, and what it renders.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::prepare::{root, target};

/// helm, with a home of its own.
pub struct Helm {
    program: PathBuf,
    home: PathBuf,
}

/// The release's name and namespace in every rendering.
pub const RELEASE: &str = "rel";
pub const NAMESPACE: &str = "nucleus-system";

/// The chart.
pub fn chart() -> PathBuf {
    root().join("charts/nucleus")
}

impl Helm {
    pub fn new(directory: &Path) -> Result<Self> {
        let home = target().join("e2e/helm");
        std::fs::create_dir_all(&home).with_context(|| format!("make {}", home.display()))?;
        Ok(Self {
            program: directory.join("helm"),
            home,
        })
    }

    /// Runs helm; its standard output, or as an error what it wrote to the other one.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(args)
            .env("HELM_CONFIG_HOME", &self.home)
            .env("HELM_CACHE_HOME", &self.home)
            .env("HELM_DATA_HOME", &self.home)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("run helm")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{text}{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(text)
    }

    /// `helm template` with values of the form `a.b=c`.
    pub async fn render(&self, values: &[&str]) -> Result<Vec<Value>> {
        let chart = chart().display().to_string();
        let mut args = vec!["template", RELEASE, &chart, "--namespace", NAMESPACE];
        for value in values {
            args.extend(["--set", value]);
        }
        documents(&self.run(&args).await?)
    }
}

/// The objects of a stream of YAML.
fn documents(text: &str) -> Result<Vec<Value>> {
    use serde::Deserialize as _;
    let mut found = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document).context("read what helm rendered")?;
        if !value.is_null() {
            found.push(value);
        }
    }
    Ok(found)
}
