//! What a container is to be: one value, made by a pure function, that a backend only carries out.

mod types;

pub use types::*;

use oci_spec::runtime as oci;

use crate::bundle::Bundle;

/// Why a spec is refused. Each variant names the field, and the value where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {}

/// What containerd says beside the bundle.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The container's id.
    pub id: String,
    /// The rootfs as containerd's snapshotter gives it; empty: the bundle's rootfs directory is ready.
    pub rootfs: Vec<RootfsMount>,
    /// The shim's `no_new_keyring` option: keep the session keyring.
    pub no_new_keyring: bool,
    /// uid and gid that own the stdio pipes (`runc.v1.Options.io_uid`, `io_gid`) are the shim's own affair.
    pub systemd_cgroup: bool,
}

/// Translates a bundle and what containerd asked for into a [`Plan`].
pub fn translate(_bundle: &Bundle, _request: &Request) -> Result<Plan, Error> {
    unimplemented!()
}

/// Translates an exec's OCI process, for a container of `plan`.
pub fn translate_exec(_plan: &Plan, _process: &oci::Process) -> Result<Process, Error> {
    unimplemented!()
}
