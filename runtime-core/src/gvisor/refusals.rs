//! What gVisor cannot have, each by the name of its field and with what to do instead. Pure.

use oci_spec::runtime::{LinuxDeviceType, LinuxResources};

use super::config::Network;
use super::spec::{Role, network};
use super::{Error, wishes};
use crate::plan::{Domain, Mount, MountSource, Namespace, Plan, Process};
use crate::policy::Scopes;

/// Sysctls that a sentry need not be told of, and why.
///
/// containerd sets the first two for every pod (`enable_unprivileged_ports`, `enable_unprivileged_icmp`): in a sentry
/// any user may bind any port and send pings. The third is read by runsc itself.
const SYSCTLS: [&str; 3] = [
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/ping_group_range",
    "net/ipv6/conf/all/disable_ipv6",
];

/// Character devices that every sentry has: null, zero, full, random, urandom, tty, by major and minor.
const DEVICES: [(u32, u32); 6] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)];

/// Why gVisor cannot run this, if so. What is not named here is honoured by the sentry, or by the host's side around
/// it.
pub fn check(plan: &Plan, role: &Role, chosen: Network) -> Result<(), Error> {
    let container = &plan.container;
    let spaces = &container.namespaces;
    let process = &plan.process;
    let joins = |space: &Namespace| matches!(space, Namespace::Path(_)) && *role == Role::Root;
    let refused: [(&str, bool, &'static str); _] = [
        (
            "linux.namespaces: user",
            spaces.user != Namespace::Host,
            "a sentry has user namespaces of its own, which the host's ids are not mapped into; use the native runtime",
        ),
        (
            "linux.seccomp: SCMP_ACT_NOTIFY, or seccomp.mode",
            process.listener.is_some(),
            "a sentry's calls are not the workload's, and it tells nobody of those; use the native runtime",
        ),
        (
            "landlock.tier = \"strict\", or a rule of landlock.…",
            container.domain.as_ref().is_some_and(Domain::has_rules)
                || plan.policy.landlock_scope.value != Scopes::default(),
            "Landlock is the host kernel's, which a sentry's processes do not meet; use the native runtime",
        ),
        (
            "seccomp.profile",
            process.seccomp.len() > 1,
            "a sentry holds a container to one filter, and its spec has one already; use the native runtime",
        ),
        (
            // The host's is honoured as far as a sandbox has one: its containers are in the sandbox's.
            "linux.namespaces: pid",
            joins(&spaces.pid),
            "processes in a sandbox cannot be among those of the host; use the native runtime",
        ),
        (
            "linux.namespaces: ipc",
            spaces.ipc == Namespace::Host || joins(&spaces.ipc),
            "the sentry keeps System V IPC and message queues inside; use the native runtime",
        ),
        (
            "linux.namespaces: uts",
            joins(&spaces.uts),
            "a sandbox cannot share its host name with processes outside; use the native runtime",
        ),
        (
            "linux.namespaces: mount",
            matches!(spaces.mount, Namespace::Path(_)),
            "the sentry keeps the mount table inside; use the native runtime",
        ),
        (
            "init",
            container.init,
            "the first process of a sandbox is the sentry's to start; use the native runtime, or an init of the image",
        ),
        (
            "egress",
            container.egress.is_some() && (spaces.net == Namespace::New || network(plan, chosen) == Network::Sandbox),
            "a sentry with a network stack of its own sends past the host's rules; set gvisor.network to \"host\" or \
             \"none\", \
             in a network namespace that exists",
        ),
        (
            "linux.namespaces: time",
            spaces.time != Namespace::Host,
            "the sentry has clocks of its own; use the native runtime",
        ),
        (
            "hooks.createContainer",
            !container.hooks.create_container.is_empty(),
            "nothing of the host's can run in a sentry's namespaces; use createRuntime",
        ),
        (
            "hooks.startContainer",
            !container.hooks.start_container.is_empty(),
            "nothing of the host's can run in a sentry's namespaces; use createRuntime",
        ),
        (
            "process.scheduler",
            process.scheduler.is_some(),
            "the sentry's threads are scheduled as one; remove the field",
        ),
        (
            "process.ioPriority",
            process.io_priority.is_some(),
            "the sentry does the input and output of all its processes; remove the field",
        ),
        (
            "process.execCPUAffinity",
            process.cpu_affinity.is_some(),
            "the sentry's threads run where its cgroup lets them; remove the field",
        ),
        (
            "process.user.umask",
            process.umask.is_some_and(|umask| umask != 0o022),
            "the sentry starts processes with 0022; set it in the program",
        ),
        (
            "memory_deny_write_execute",
            process.deny_write_execute,
            "the sentry lets programs make code as they run; use the native runtime",
        ),
        (
            "linux.mountLabel",
            container.mount_label.is_some(),
            "the sentry's file systems have no labels; remove the field",
        ),
        (
            "linux.personality",
            process.personality.is_some_and(|personality| personality != 0),
            "the sentry has one personality; remove the field",
        ),
    ];
    if let Some((field, _, reason)) = refused.into_iter().find(|(_, present, _)| *present) {
        return Err(unsupported(field, reason));
    }
    check_labels(process)?;
    if *role != Role::Root {
        let resources = plan.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        check_member_limits(resources)?;
    }
    let linux = plan.spec.linux().as_ref();
    let given = linux.and_then(|linux| linux.devices().as_ref());
    // A privileged container's list is all that the host has: nobody chose one of them. It gets the sentry's.
    let given = given.filter(|_| !may_use_all_devices(linux.and_then(|linux| linux.resources().as_ref())));
    for device in given.into_iter().flatten() {
        let number = (device.major() as u32, device.minor() as u32);
        if !DEVICES.contains(&number) {
            let field = format!("linux.devices: {}", device.path().display());
            return Err(unsupported(
                field,
                "the host's devices cannot be reached from a sentry; use the native runtime",
            ));
        }
    }
    if let Some((key, _)) = container
        .sysctls
        .iter()
        .find(|(key, _)| !SYSCTLS.contains(&key.as_str()))
    {
        let field = format!("linux.sysctl: {key}");
        return Err(unsupported(
            field,
            "the sentry has no such setting; use the native runtime",
        ));
    }
    if let Some((key, _)) = container
        .annotations
        .iter()
        .find(|(key, _)| key.starts_with("dev.gvisor.") && !key.starts_with(wishes::ANNOTATIONS))
    {
        let field = format!("annotation {key}");
        return Err(unsupported(
            field,
            "how the sentry runs is the node's choice; remove the annotation",
        ));
    }
    wishes::check(plan)?;
    container.mounts.iter().try_for_each(check_mount)
}

/// AppArmor profiles that container managers give to whoever asks for none: what they deny is the host's kernel, which
/// a sentry's processes do not meet. Any other was chosen, and is not left out.
const DEFAULT_PROFILES: [&str; 4] = [
    "unconfined",
    "cri-containerd.apparmor.d",
    "docker-default",
    "nerdctl-default",
];

/// What a process's labels demand. A sentry cannot run under them: it mounts and traces, which they are made to deny.
pub fn check_labels(process: &Process) -> Result<(), Error> {
    if let Some(profile) = &process.apparmor_profile
        && !DEFAULT_PROFILES.contains(&profile.as_str())
    {
        return Err(unsupported(
            format!("process.apparmorProfile {profile:?}"),
            "AppArmor cannot tell a sentry's processes apart; use the native runtime, or the profile RuntimeDefault",
        ));
    }
    if let Some(label) = &process.selinux_label {
        return Err(unsupported(
            format!("process.selinuxLabel {label:?}"),
            "SELinux cannot tell a sentry's processes apart; use the native runtime, or no label",
        ));
    }
    Ok(())
}

/// A limit that would hold for a member's gofer alone, and that cannot be added to those of others.
pub fn check_member_limits(resources: Option<&LinuxResources>) -> Result<(), Error> {
    let pids = resources.and_then(|resources| resources.pids().as_ref());
    if pids.is_some_and(|pids| pids.limit() > 0) {
        return Err(unsupported(
            "linux.resources.pids",
            "a pod's processes are threads of one sentry; limit the pod's first container, or the pod's own cgroup",
        ));
    }
    Ok(())
}

/// Whether the last rule of the device cgroup allows everything, which is how container managers write `privileged`.
fn may_use_all_devices(resources: Option<&LinuxResources>) -> bool {
    let rules = resources.and_then(|resources| resources.devices().as_ref());
    rules.and_then(|rules| rules.last()).is_some_and(|rule| {
        let any = |number: Option<i64>| number.is_none_or(|number| number < 0);
        rule.allow()
            && rule.typ().is_none_or(|kind| kind == LinuxDeviceType::A)
            && any(rule.major())
            && any(rule.minor())
    })
}

fn check_mount(mount: &Mount) -> Result<(), Error> {
    let refuse = |what: &str, reason| Err(unsupported(format!("mounts: {} ({what})", mount.destination), reason));
    if mount.propagation.iter().any(|flags| flags & libc::MS_SHARED != 0) {
        return refuse(
            "shared propagation",
            "what is mounted in a sentry cannot appear on the host; use rslave",
        );
    }
    if mount.idmap.is_some() {
        return refuse(
            "idmap",
            "files are opened by the sentry, with the host's ids; use the native runtime",
        );
    }
    if mount.copy_up {
        return refuse("tmpcopyup", "the sentry's tmpfs starts empty; use the native runtime");
    }
    let kind = match &mount.source {
        MountSource::New { kind, .. } => kind,
        MountSource::NamespaceRoot { .. } => {
            return refuse(
                "memory of the pod's",
                "a sentry is no part of a sandbox of the shim's; leave the handler's sandboxer at podsandbox",
            );
        }
        MountSource::Bind { .. } | MountSource::Cgroup => return Ok(()),
    };
    match kind.as_str() {
        "proc" if !mount.data.is_empty() => refuse(&mount.data.join(","), "the sentry's proc has no options"),
        "proc" | "sysfs" | "devpts" | "mqueue" | "cgroup" | "cgroup2" => Ok(()),
        "tmpfs" => match mount.data.iter().find(|option| !is_tmpfs_option(option)) {
            Some(option) => refuse(
                option,
                "the sentry's tmpfs knows mode, size, uid and gid; remove the option",
            ),
            None => Ok(()),
        },
        _ => refuse(kind, "the sentry has no such file system; use the native runtime"),
    }
}

fn is_tmpfs_option(option: &str) -> bool {
    let name = option.split_once('=').map_or(option, |(name, _)| name);
    matches!(name, "mode" | "size" | "uid" | "gid")
}

fn unsupported(field: impl Into<String>, reason: &'static str) -> Error {
    Error::Unsupported {
        field: field.into(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::spec::role;
    use super::super::spec::tests::{plan, plan_under};
    use super::*;

    #[test]
    fn landlock_s_rules_are_refused_and_its_tiers_below_strict_are_not() {
        for rule in [
            "landlock.tier = 'strict'",
            "landlock.read = ['/']",
            "landlock.write = []",
            "landlock.execute = []",
            "landlock.ioctl = []",
            "landlock.tcp_bind = []",
            "landlock.tcp_connect = ['443']",
            "landlock.scope = ['signal']",
            "landlock.scope = ['abstract_unix_socket']",
        ] {
            let error = check(&plan_under(rule, |_| ()), &Role::Root, Network::Sandbox).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("landlock.tier = \"strict\", or a rule of landlock.…"),
                "{rule}: {text}"
            );
        }
        for tier in ["none", "baseline", "hardened"] {
            let plan = plan_under(&format!("landlock.tier = '{tier}'"), |_| ());
            check(&plan, &Role::Root, Network::Sandbox).unwrap();
        }
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let plan = plan(change);
        check(&plan, &role(&plan), Network::Sandbox).unwrap_err().to_string()
    }

    #[test]
    fn confined_connections_need_a_network_that_the_host_s_rules_see_and_an_init_of_ours_is_refused() {
        let confined = |network| {
            let mut plan = plan(|_| ());
            plan.container.egress = Some(Vec::new());
            check(&plan, &Role::Root, network).map_err(|error| error.to_string())
        };
        assert!(confined(Network::Sandbox).unwrap_err().contains("gvisor.network"));
        assert_eq!(confined(Network::Host), Ok(()));
        assert_eq!(confined(Network::None), Ok(()));
        let mut with_new_network = plan(|spec| spec["linux"]["namespaces"][4] = json!({"type": "network"}));
        with_new_network.container.egress = Some(Vec::new());
        assert!(check(&with_new_network, &Role::Root, Network::Host).is_err());
        let mut with_init = plan(|_| ());
        with_init.container.init = true;
        let error = check(&with_init, &Role::Root, Network::Sandbox)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("init"), "{error}");
    }

    #[test]
    fn what_gvisor_cannot_have_is_refused_by_name() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); _] = [
            ("linux.namespaces: ipc", |spec| {
                spec["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}, {"type": "uts"}]);
            }),
            ("linux.namespaces: pid", |spec| {
                spec["linux"]["namespaces"][0]["path"] = json!("/proc/7/ns/pid");
            }),
            ("linux.namespaces: user", |spec| {
                spec["linux"]["namespaces"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"type": "user"}));
                spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
                spec["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            }),
            ("hooks.createContainer", |spec| {
                spec["hooks"] = json!({"createContainer": [{"path": "/bin/true"}]});
            }),
            ("hooks.startContainer", |spec| {
                spec["hooks"] = json!({"startContainer": [{"path": "/bin/true"}]});
            }),
            ("linux.devices: /dev/fuse", |spec| {
                spec["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]);
            }),
            ("linux.sysctl: net/core/somaxconn", |spec| {
                spec["linux"]["sysctl"] = json!({"net.core.somaxconn": "1"});
            }),
            ("annotation dev.gvisor.flag.host-uds", |spec| {
                spec["annotations"] = json!({"dev.gvisor.flag.host-uds": "all"});
            }),
            ("mounts: /data (shared propagation)", |spec| {
                spec["mounts"][2]["options"] = json!(["rbind", "rshared"]);
            }),
            ("mounts: /tmp (huge=always)", |spec| {
                spec["mounts"][1]["options"] = json!(["huge=always"]);
            }),
            ("mounts: /tmp (bpf)", |spec| {
                spec["mounts"][1] = json!({"destination": "/tmp", "type": "bpf", "source": "bpf"});
            }),
            ("process.user.umask", |spec| {
                spec["process"]["user"]["umask"] = json!(0);
            }),
        ];
        for (field, change) in cases {
            let text = refusal(change);
            assert!(
                text.starts_with(&format!("{field} is not supported with runtime = \"gvisor\": ")),
                "{text}"
            );
        }
    }

    #[test]
    fn the_list_of_all_devices_of_a_privileged_container_is_no_choice() {
        let listed = |rules: Value| {
            move |spec: &mut Value| {
                spec["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]);
                spec["linux"]["resources"] = json!({"devices": rules});
            }
        };
        let all = json!({"allow": true, "access": "rwm"});
        let none = json!({"allow": false, "access": "rwm"});
        let privileged = plan(listed(json!([none, all])));
        check(&privileged, &Role::Root, Network::Sandbox).unwrap();
        let text = refusal(listed(json!([all, none])));
        assert!(text.starts_with("linux.devices: /dev/fuse"), "{text}");
    }

    #[test]
    fn a_label_that_was_chosen_is_refused_and_the_managers_own_default_is_not() {
        let labelled = |profile: Option<&str>, label: Option<&str>| {
            check_labels(&Process {
                apparmor_profile: profile.map(str::to_owned),
                selinux_label: label.map(str::to_owned),
                ..plan(|_| {}).process
            })
            .map_err(|error| error.to_string())
        };
        labelled(None, None).unwrap();
        labelled(Some("cri-containerd.apparmor.d"), None).unwrap();
        let refused = labelled(Some("k8s-nginx"), None).unwrap_err();
        assert!(
            refused.starts_with("process.apparmorProfile \"k8s-nginx\" is not supported"),
            "{refused}"
        );
        let refused = labelled(None, Some("system_u:system_r:container_t:s0")).unwrap_err();
        assert!(refused.starts_with("process.selinuxLabel \"system_u"), "{refused}");
    }

    #[test]
    fn a_member_s_limit_of_processes_is_refused_and_the_first_container_s_is_not() {
        let limited = |spec: &mut Value| spec["linux"]["resources"] = json!({"pids": {"limit": 10}});
        let first = plan(limited);
        check(&first, &role(&first), Network::Sandbox).unwrap();
        let text = refusal(|spec| {
            limited(spec);
            spec["annotations"] =
                json!({"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "p1"});
        });
        assert!(text.starts_with("linux.resources.pids is not supported"), "{text}");
    }

    #[test]
    fn the_sysctls_and_devices_that_every_sentry_has_are_no_reason_to_refuse() {
        let plan = plan(|spec| {
            spec["linux"]["sysctl"] =
                json!({"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 1"});
            spec["linux"]["devices"] = json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]);
        });
        check(&plan, &Role::Root, Network::Sandbox).unwrap();
    }
}
