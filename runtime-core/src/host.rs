//! What this host can do, read once: kernel, cgroup mode, namespaces; and the OCI features document that says so.

/// Oldest version of the OCI runtime spec whose config.json is understood.
pub const OCI_VERSION_MIN: &str = "1.0.0";
/// Newest version of which every field is honoured or refused by name.
pub const OCI_VERSION_MAX: &str = "1.3.0";
