//! Digests as a policy demands them, for those who are to write them down.

use std::path::PathBuf;

use runtime_core::attest;
use serde_json::{Value, json};

/// One digest for all `paths` as the layers of an image, or one for each as a volume: what it is of, and 64 hex digits.
pub fn digests(paths: &[PathBuf], rootfs: bool) -> Result<Vec<(String, String)>, attest::Error> {
    if rootfs {
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Ok(vec![(names.join(" "), attest::digest(paths)?)]);
    }
    let digest = |path: &PathBuf| Ok((path.display().to_string(), attest::volume(path)?));
    paths.iter().map(digest).collect()
}

/// For people: the digest alone where there is one, as it can be pasted; else each with what it is of.
pub fn text(found: &[(String, String)]) -> String {
    match found {
        [(_, digest)] => format!("sha256:{digest}\n"),
        found => found
            .iter()
            .map(|(path, digest)| format!("sha256:{digest}  {path}\n"))
            .collect(),
    }
}

/// For programs.
pub fn json(found: &[(String, String)]) -> Value {
    let entry = |(path, digest): &(String, String)| json!({"path": path, "digest": format!("sha256:{digest}")});
    found.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_a_volume_or_a_layer_and_layers_have_one_digest() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(one.path().join("a"), "b").unwrap();
        let paths = [one.path().to_owned(), other.path().to_owned()];
        let volumes = digests(&paths, false).unwrap();
        assert_eq!(volumes.len(), 2);
        assert!(
            text(&volumes)
                .lines()
                .all(|line| line.starts_with("sha256:") && line.contains("  /"))
        );
        let layers = digests(&paths, true).unwrap();
        assert_eq!(text(&layers).len(), "sha256:\n".len() + 64);
        let single = digests(&paths[..1], true).unwrap();
        assert_eq!(single[0].1, volumes[0].1, "one layer is as a volume");
        assert_eq!(json(&single)[0]["digest"], format!("sha256:{}", single[0].1));
        let missing = digests(&[one.path().join("missing")], false).unwrap_err();
        assert!(missing.to_string().contains("missing"), "{missing}");
    }
}
