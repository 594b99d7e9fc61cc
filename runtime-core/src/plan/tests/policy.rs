//! What the policy makes of a spec.

use super::*;
use crate::policy::{self, Layer, toml};

fn under_policy(spec: Value, handler: &str, abi: u32) -> Result<Plan, String> {
    let mut layer = Layer::default();
    for entry in toml::parse(handler).unwrap() {
        layer.set_entry("test", &entry).unwrap();
    }
    let request = Request {
        id: "c1".into(),
        landlock_abi: abi,
        policy: policy::resolve(&Layer::default(), &layer, []).unwrap(),
        ..Request::default()
    };
    translated_with(spec, &request)
}

fn domain(spec: Value, handler: &str, abi: u32) -> Option<Domain> {
    under_policy(spec, handler, abi).unwrap().container.domain
}

fn with_capability(name: &str) -> Value {
    let mut spec = base();
    for set in ["bounding", "permitted"] {
        spec["process"]["capabilities"][set]
            .as_array_mut()
            .unwrap()
            .push(json!(name));
    }
    spec
}

#[test]
fn an_ordinary_container_has_a_domain_where_the_kernel_has_what_it_takes() {
    let unscoped = Some(Domain::default());
    for (abi, expected) in [(0, &None), (1, &None), (2, &unscoped), (7, &unscoped)] {
        assert_eq!(&domain(base(), "", abi), expected, "ABI {abi}");
    }
    assert_eq!(domain(base(), "landlock.tier = 'none'", 7), None);
}

#[test]
fn abstract_sockets_are_scoped_on_the_host_s_network_and_in_the_hardened_tier() {
    let scoped = |spec, handler, abi| domain(spec, handler, abi).unwrap().scope_abstract_sockets;
    let on_host = || {
        let mut spec = base();
        spec["linux"]["namespaces"].as_array_mut().unwrap().pop();
        spec
    };
    assert!(scoped(on_host(), "", 6));
    assert!(!scoped(on_host(), "", 5), "scopes came with ABI 6");
    assert!(scoped(base(), "landlock.tier = 'hardened'", 6));
}

#[test]
fn what_a_domain_would_deny_has_none_or_is_refused_where_one_is_demanded() {
    let shared = with(
        "/mounts/-",
        json!({"destination": "/s", "type": "bind", "source": "s", "options": ["rbind", "rshared"]}),
    );
    let fuse = with(
        "/linux/devices",
        json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]),
    );
    for (spec, named) in [
        (with_capability("CAP_SYS_ADMIN"), "CAP_SYS_ADMIN"),
        (shared, "shared mount propagation"),
        (fuse, "/dev/fuse"),
        (
            with("/linux/rootfsPropagation", json!("rshared")),
            "shared mount propagation",
        ),
    ] {
        assert_eq!(domain(spec.clone(), "", 7), None, "{named}");
        let error = under_policy(spec, "landlock.tier = 'hardened'", 7).unwrap_err();
        assert!(
            error.contains(named) && error.contains("landlock.tier = \"hardened\""),
            "{error}"
        );
    }
    let error = under_policy(base(), "landlock.tier = 'hardened'", 1).unwrap_err();
    assert!(error.contains("has ABI 1"), "{error}");
    let error = under_policy(base(), "require.landlock_abi = 6", 4).unwrap_err();
    assert!(
        error.contains("require.landlock_abi = 6 (the handler's options)"),
        "{error}"
    );
}

#[test]
fn what_looks_at_the_processes_of_others_has_no_domain_unless_one_is_demanded() {
    let joined = with("/linux/namespaces/0", json!({"type": "pid", "path": "/proc/7/ns/pid"}));
    assert_eq!(domain(joined.clone(), "", 7), None);
    assert!(domain(joined, "landlock.tier = 'hardened'", 7).is_some());
    let mut host = with_capability("CAP_SYS_PTRACE");
    host["linux"]["namespaces"].as_array_mut().unwrap().remove(0);
    assert_eq!(domain(host.clone(), "", 7), None);
    host["process"]["capabilities"] = json!({});
    assert!(domain(host, "", 7).is_some());
}

#[test]
fn the_hardened_tier_makes_noexec_what_can_be_written_to() {
    let mut spec = base();
    let mounts = spec["mounts"].as_array_mut().unwrap();
    let bind = |destination: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": "bind", "source": source, "options": options});
    mounts.push(bind("/data", "/data", &["rbind", "rw", "exec"]));
    mounts.push(bind("/scripts", "/scripts", &["rbind", "ro"]));
    let secret = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~secret/s";
    mounts.push(bind("/secret", secret, &["bind", "ro"]));
    let plan = under_policy(spec, "landlock.tier = 'hardened'", 7).unwrap();
    let noexec = |destination: &str| {
        let mount = plan
            .container
            .mounts
            .iter()
            .find(|mount| mount.destination == destination);
        let mount = mount.unwrap();
        (
            (mount.set | mount.recursive_set) & MOUNT_ATTR_NOEXEC != 0,
            mount.clear & MOUNT_ATTR_NOEXEC != 0,
        )
    };
    assert_eq!(noexec("/dev"), (true, false));
    assert_eq!(noexec("/data"), (true, false));
    assert_eq!(noexec("/secret"), (true, false));
    assert_eq!(noexec("/scripts"), (false, false));
    assert_eq!(noexec("/etc/hosts"), (false, false));
}

#[test]
fn init_and_execs_are_cut_to_the_allowed_capabilities_and_gain_nothing() {
    let mut spec = base();
    spec["process"]["noNewPrivileges"] = json!(false);
    let plan = under_policy(spec, "no_new_privs = true\ncapabilities.allow = ['CAP_CHOWN']", 0).unwrap();
    let exec = serde_json::from_value(base()["process"].clone()).unwrap();
    for process in [&plan.process, &translate_exec(&plan, &exec).unwrap()] {
        assert!(process.no_new_privileges);
        let sets = process.capabilities.unwrap();
        assert_eq!((sets.bounding, sets.permitted, sets.effective), (1, 1, 1));
    }
    // The hardened spec says the same to any runtime.
    assert_eq!(plan.spec.process().as_ref().unwrap().no_new_privileges(), Some(true));
}

#[test]
fn confined_connections_take_the_capabilities_that_get_around_them() {
    let plan = under_policy(with_capability("CAP_NET_ADMIN"), "egress = '10.0.0.0/8:443,tcp'", 0).unwrap();
    let sets = plan.process.capabilities.unwrap();
    for set in [sets.bounding, sets.permitted, sets.effective] {
        assert_eq!(set & (1 << 12 | 1 << 13), 0);
    }
    let allowed: Vec<String> = plan.container.egress.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["10.0.0.0/8:443,tcp"]);
    assert_eq!(under_policy(base(), "", 0).unwrap().container.egress, None);
}

#[test]
fn confined_connections_on_the_host_s_network_or_without_name_servers_are_refused() {
    let mut on_host = base();
    on_host["linux"]["namespaces"].as_array_mut().unwrap().pop();
    let error = under_policy(on_host, "egress = 'deny'", 0).unwrap_err();
    assert!(error.contains("would hold for the whole node"), "{error}");
    let error = under_policy(base(), "egress = 'dns'", 0).unwrap_err();
    assert!(
        error.contains("/etc/resolv.conf") && error.contains("port 53"),
        "{error}"
    );
}

#[test]
fn the_strict_tier_is_by_port_device_and_writable_mount() {
    let strict = "landlock.tier = 'strict'\nlandlock.tcp_connect = ['5432', '443']";
    let found = domain(base(), strict, 7).unwrap();
    assert!(found.scope_abstract_sockets && found.scope_signals);
    assert_eq!((found.tcp_bind, found.tcp_connect), (None, Some(vec![443, 5432])));
    let ioctl = found.ioctl.unwrap();
    assert!(
        ["/dev/pts", "/dev/null"]
            .iter()
            .all(|path| ioctl.iter().any(|found| found == path))
    );
    assert_eq!(found.writable_mounts, None, "the root is writable, and all is below it");
    let read_only = with("/root", json!({"path": "rootfs", "readonly": true}));
    let found = domain(read_only.clone(), strict, 7).unwrap();
    assert_eq!(found.writable_mounts, Some(vec!["/proc".to_owned(), "/dev".to_owned()]));
    assert!(found.devices.iter().any(|path| path == "/dev/null"));
    let listed = format!("{strict}\nlandlock.write = ['/data']");
    let found = domain(read_only, &listed, 7).unwrap();
    assert_eq!(
        (found.write, found.writable_mounts),
        (Some(vec!["/data".to_owned()]), None)
    );
}

#[test]
fn rules_about_tcp_have_a_filter_beside_them() {
    let filters = |policy: &str| under_policy(base(), policy, 7).unwrap().process.seccomp.len();
    assert_eq!((filters(""), filters("landlock.tier = 'hardened'")), (0, 0));
    assert_eq!(
        (
            filters("landlock.tier = 'strict'"),
            filters("landlock.tcp_bind = ['80']")
        ),
        (1, 1)
    );
}

#[test]
fn what_a_rule_needs_is_refused_by_name_where_it_is_not_there() {
    for (rule, abi, words) in [
        ("landlock.tier = 'strict'", 5, "it needs ABI 6 (Linux 6.12)"),
        ("landlock.read = []", 1, "it needs ABI 2 (Linux 5.19)"),
        ("landlock.write = []", 2, "it needs ABI 3 (Linux 6.2)"),
        ("landlock.tcp_bind = ['80']", 3, "it needs ABI 4 (Linux 6.7)"),
        ("landlock.ioctl = []", 4, "it needs ABI 5 (Linux 6.10)"),
        ("landlock.scope = ['signal']", 5, "it needs ABI 6 (Linux 6.12)"),
    ] {
        let setting = rule.split(' ').next().unwrap();
        let error = under_policy(base(), rule, abi).unwrap_err();
        assert!(error.contains(setting) && error.contains(words), "{error}");
        assert!(under_policy(base(), rule, 7).is_ok(), "{rule}");
        if setting != "landlock.tier" {
            let error = under_policy(base(), &format!("{rule}\nlandlock.tier = 'none'"), 7).unwrap_err();
            assert!(
                error.contains(setting) && error.contains("a rule needs a domain"),
                "{error}"
            );
            let error = under_policy(with_capability("CAP_SYS_ADMIN"), rule, 7).unwrap_err();
            assert!(error.contains(setting) && error.contains("CAP_SYS_ADMIN"), "{error}");
        }
    }
}

#[test]
fn a_pod_s_sandbox_is_not_held_to_lists_of_the_workload_s_files() {
    let mut pause = base();
    pause["annotations"]["io.kubernetes.cri.container-type"] = json!("sandbox");
    let rules = "landlock.write = ['/data']\nlandlock.tcp_connect = []";
    let found = domain(pause, rules, 7).unwrap();
    assert_eq!((found.write, found.tcp_connect), (None, Some(vec![])));
}

#[test]
fn signals_are_never_scoped_where_a_pod_shares_its_processes() {
    let joined = with("/linux/namespaces/0", json!({"type": "pid", "path": "/proc/7/ns/pid"}));
    assert!(
        !domain(joined.clone(), "landlock.tier = 'strict'", 7)
            .unwrap()
            .scope_signals
    );
    let error = under_policy(joined, "landlock.scope = ['signal']", 7).unwrap_err();
    assert!(error.contains("landlock.scope = [\"signal\"]"), "{error}");
    assert!(domain(base(), "landlock.scope = ['signal']", 7).unwrap().scope_signals);
}

#[test]
fn a_digest_is_for_a_read_only_volume_that_the_pod_has() {
    let digest = "ab".repeat(32);
    let spec = |source: &str, option: &str| {
        let mut spec = base();
        let volume = json!({"destination": "/app", "type": "bind", "source": source, "options": ["rbind", option]});
        spec["mounts"].as_array_mut().unwrap().push(volume);
        spec
    };
    let volume = "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~configmap/app";
    let demand = |name: &str| format!("volume_digest = ['{name}=sha256:{digest}']");
    let marked = |source: &str, name: &str| {
        let plan = under_policy(spec(source, "ro"), &demand(name), 0)?;
        let marked: Vec<_> = plan
            .container
            .mounts
            .into_iter()
            .filter(|mount| mount.digest.is_some())
            .collect();
        Ok::<_, String>(marked.into_iter().map(|mount| mount.destination).collect::<Vec<_>>())
    };
    assert_eq!(marked(volume, "app").unwrap(), ["/app"]);
    assert_eq!(marked("/srv/app", "/app").unwrap(), ["/app"]);
    assert!(marked("/srv/app", "/other").unwrap().is_empty(), "another container's");
    let error = marked(volume, "apple").unwrap_err();
    assert!(
        error.contains("the pod has no volume \"apple\"") && error.contains("the handler's options"),
        "{error}"
    );
    let error = under_policy(spec(volume, "rw"), &demand("app"), 0).unwrap_err();
    assert!(error.contains("/app is mounted writable"), "{error}");
    let part = "/var/lib/kubelet/pods/uid/volume-subpaths/app/web/0";
    assert!(
        marked(part, "app")
            .unwrap_err()
            .contains("only a part of the volume \"app\"")
    );
    assert_eq!(marked(part, "/app").unwrap(), ["/app"]);
    // The pod's own containers say what it has; its pause container has nothing.
    let mut sandbox = spec("/srv/app", "ro");
    sandbox["annotations"] = json!({"io.kubernetes.cri.container-type": "sandbox"});
    assert!(under_policy(sandbox, &demand("app"), 0).is_ok());
}
