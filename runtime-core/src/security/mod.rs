//! What confines a container beyond namespaces and cgroups.

pub mod seccomp;
