//! The OCI bundle: config.json, read and checked.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

/// An OCI bundle directory and its parsed config.json.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The bundle's directory, absolute.
    pub dir: PathBuf,
    /// What config.json says.
    pub spec: Spec,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {}

impl Bundle {
    /// Reads `dir`/config.json.
    pub fn open(_dir: &Path) -> Result<Self, Error> {
        unimplemented!()
    }
}
