//! What this host can do, read once: kernel, cgroup mode, namespaces; and the OCI features document that says so.
