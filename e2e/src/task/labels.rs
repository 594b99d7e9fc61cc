//! Labels of security modules that a node does not have.

use serde_json::json;

use crate::expect::refused;
use crate::harness::Registry;

pub fn register(t: &mut Registry) {
    t.add(
        "a profile or label of a security module that is not enabled starts nothing",
        async |c| {
            let has_apparmor = std::path::Path::new("/sys/kernel/security/apparmor").exists();
            let has_selinux = std::path::Path::new("/sys/fs/selinux/enforce").exists();
            let label = json!("system_u:system_r:container_t:s0:c1,c2");
            for (pointer, value, enabled) in [
                ("/process/apparmorProfile", json!("docker-default"), has_apparmor),
                ("/process/selinuxLabel", label.clone(), has_selinux),
                ("/linux/mountLabel", label, has_selinux),
            ] {
                if enabled {
                    continue;
                }
                let (part, name) = pointer.rsplit_once('/').unwrap_or_default();
                let container = c.container().waiting().spec(|spec| {
                    if let Some(part) = spec.pointer_mut(part) {
                        part[name] = value;
                    }
                });
                refused(container.create().await)?
                    .saying(name)?
                    .saying("is not supported")?;
            }
            // Without a profile there is nothing that the node would have to have.
            let container = c.container().args(&["true"]);
            let container = container.spec(|spec| spec["process"]["apparmorProfile"] = json!("unconfined"));
            container.output().await?.ok()?;
            Ok(())
        },
    )
    .differs("runc passes over labels of SELinux where it is not enabled");
}
