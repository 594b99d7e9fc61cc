//! Containers, from an OCI bundle to clean-up: no tokio, no ttrpc, no containerd.
//!
//! A container's way through this crate: [`bundle`] reads and checks, [`plan`] translates into one value that says
//! everything, [`backend`] carries it out ([`native`] with the kernel's own means, [`gvisor`] through runsc),
//! [`record`] keeps on disk what clean-up needs.

pub mod attest;
pub mod audit;
pub mod backend;
pub mod bundle;
pub mod cgroup;
pub mod egress;
pub mod error_chain;
pub mod gvisor;
pub mod hooks;
pub mod host;
pub mod mounts;
pub mod native;
pub mod plan;
pub mod pod_files;
pub mod policy;
pub mod record;
pub mod security;
pub mod sys;
