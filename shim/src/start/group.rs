//! Which containers share one shim: those of one pod.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;

/// Longer than any config.json that containerd writes by far; keeps `start` from reading what was never one.
const CONFIG_LIMIT: u64 = 32 << 20;

/// Why a container's group is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// config.json is there and cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// config.json is longer than any real one.
    #[error("{path} is longer than {CONFIG_LIMIT} bytes")]
    TooLong {
        /// The file.
        path: String,
    },
    /// config.json is not the JSON of an OCI spec.
    #[error("parse {path}")]
    Parse {
        /// The file.
        path: String,
        /// Where it is wrong.
        source: serde_json::Error,
    },
}

/// The part of an OCI spec that grouping looks at; everything else is skipped without being kept.
#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow, default)]
    annotations: Option<Annotations<'a>>,
}

#[derive(Deserialize, Default)]
struct Annotations<'a> {
    #[serde(borrow, rename = "io.containerd.runc.v2.group")]
    group: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "io.kubernetes.cri.sandbox-id")]
    sandbox: Option<Cow<'a, str>>,
}

/// The group of container `id` in `bundle`: what its annotations say, as containerd's runc shim reads them, else the id
/// itself. A bundle without a config.json (containerd's sandbox API starts shims in one) is a group of its own.
pub fn of(bundle: &Path, id: &str) -> Result<String, Error> {
    let path = bundle.join("config.json");
    let name = || path.display().to_string();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(id.to_owned()),
        Err(source) => return Err(Error::Read { path: name(), source }),
    };
    let mut text = Vec::with_capacity(
        file.metadata()
            .map_or(0, |metadata| metadata.len().min(CONFIG_LIMIT) as usize + 1),
    );
    file.take(CONFIG_LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(|source| Error::Read { path: name(), source })?;
    if text.len() as u64 > CONFIG_LIMIT {
        return Err(Error::TooLong { path: name() });
    }
    in_spec(&text, id).map_err(|source| Error::Parse { path: name(), source })
}

fn in_spec(config: &[u8], id: &str) -> Result<String, serde_json::Error> {
    let annotations = serde_json::from_slice::<Spec>(config)?.annotations.unwrap_or_default();
    Ok(annotations
        .group
        .or(annotations.sandbox)
        .map_or_else(|| id.to_owned(), Cow::into_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_annotations_is_its_own_group() {
        assert_eq!(
            in_spec(br#"{"ociVersion":"1.1.0","process":{"args":["x"]}}"#, "c1").unwrap(),
            "c1"
        );
        assert_eq!(in_spec(br#"{"annotations":null}"#, "c1").unwrap(), "c1");
        assert_eq!(in_spec(br#"{"annotations":{"other":"y"}}"#, "c1").unwrap(), "c1");
    }

    #[test]
    fn containers_of_a_pod_share_the_sandbox_s_group() {
        let config = br#"{"annotations":{"a":"b","io.kubernetes.cri.sandbox-id":"pod\u0031"},"linux":{"seccomp":{}}}"#;
        assert_eq!(in_spec(config, "c1").unwrap(), "pod1");
    }

    #[test]
    fn the_explicit_group_goes_before_the_pod() {
        let config = br#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"mine"}}"#;
        assert_eq!(in_spec(config, "c1").unwrap(), "mine");
    }

    #[test]
    fn a_bundle_without_config_json_is_its_own_group() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(of(bundle.path(), "c1").unwrap(), "c1");
    }

    #[test]
    fn a_truncated_config_json_is_refused_with_its_path() {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join("config.json"), br#"{"annotations":{"#).unwrap();
        let error = of(bundle.path(), "c1").unwrap_err();
        assert!(error.to_string().contains("config.json"), "{error}");
    }
}
