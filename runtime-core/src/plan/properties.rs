//! What holds for every plan, whatever the spec says.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What a backend relies on without looking again.
fn assert_sound(plan: &Plan) {
    let clean = |path: &str| {
        let proper = path.split('/').skip(1).all(|name| !matches!(name, "" | "." | ".."));
        assert!(path.starts_with('/') && proper && !path.contains('\0'), "{path:?}");
    };
    let container = &plan.container;
    container.mounts.iter().for_each(|mount| clean(&mount.destination));
    for mount in container.mounts.iter().chain(&container.rootfs.mounts) {
        assert_eq!(mount.set & mount.clear & !MOUNT_ATTR_ATIME, 0);
        assert_eq!(mount.recursive_set & mount.recursive_clear & !MOUNT_ATTR_ATIME, 0);
        for (set, clear) in [(mount.set, mount.clear), (mount.recursive_set, mount.recursive_clear)] {
            // mount_setattr(2): EINVAL for anything else.
            assert!(matches!(clear & MOUNT_ATTR_ATIME, 0 | MOUNT_ATTR_ATIME));
            assert!(set & MOUNT_ATTR_ATIME == 0 || clear & MOUNT_ATTR_ATIME != 0);
        }
        match &mount.source {
            MountSource::Bind { path, .. } => assert!(path.is_absolute() && mount.data.is_empty()),
            MountSource::New { kind, .. } => assert!(!kind.is_empty()),
            MountSource::Cgroup | MountSource::NamespaceRoot { .. } => {}
        }
        assert!(mount.data.iter().all(|option| !option.contains('\0')));
    }
    container
        .masked_paths
        .iter()
        .chain(&container.readonly_paths)
        .for_each(|path| clean(path));
    container.devices.iter().for_each(|device| clean(&device.path));
    container
        .sysctls
        .iter()
        .for_each(|(path, _)| clean(&format!("/{path}")));
    let absolute = if plan.cgroup.starts_with('/') {
        plan.cgroup.clone()
    } else {
        format!("/{}", plan.cgroup)
    };
    clean(&absolute);
    assert!(!plan.process.args.is_empty() && plan.process.cwd.starts_with('/'));
    assert!(plan.process.uid != u32::MAX && plan.process.gid != u32::MAX);
    let sets = plan.process.capabilities.expect("a translated process has them");
    assert_eq!(
        (sets.effective & !sets.permitted, sets.ambient & !sets.permitted),
        (0, 0)
    );
    for entry in &plan.process.env {
        assert!(entry.find('=').is_some_and(|end| end > 0), "{entry:?}");
    }
}

/// Paths as an attacker would write them, and ordinary ones.
fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        "[a-z\0é]{1,3}",
        Just("proc".into())
    ];
    (any::<bool>(), proptest::collection::vec(name, 0..6))
        .prop_map(|(absolute, names)| format!("{}{}", if absolute { "/" } else { "" }, names.join("/")))
}

fn option() -> impl Strategy<Value = String> {
    let known: Vec<String> = known_mount_options().collect();
    prop_oneof![4 => proptest::sample::select(known), 1 => "[a-z]{1,4}(=[a-z0:,]{0,5})?", 1 => Just("remount".to_owned())]
}

fn mount() -> impl Strategy<Value = Value> {
    let kind = proptest::sample::select(vec!["bind", "tmpfs", "proc", "cgroup", "cgroup2", "overlay", "", "a/b"]);
    (path(), path(), kind, proptest::collection::vec(option(), 0..5)).prop_map(
        |(to, from, kind, options)| json!({"destination": to, "source": from, "type": kind, "options": options}),
    )
}

/// Any JSON, small.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        path().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::hash_map("[a-zA-Z./]{0,6}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place in a document.
fn pointers(document: &Value, at: String, all: &mut Vec<String>) {
    match document {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(key, value)| pointers(value, format!("{at}/{key}"), all)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(i, value)| pointers(value, format!("{at}/{i}"), all)),
        _ => {}
    }
    all.push(at);
}

fn translated(spec: &Value) -> Option<Plan> {
    let bundle = Bundle::parse(Path::new("/run/b"), &spec.to_string()).ok()?;
    translate(
        &bundle,
        &Request {
            id: "c".into(),
            ..Request::default()
        },
    )
    .ok()
}

proptest! {
    #[test]
    fn whatever_stands_anywhere_in_a_spec_it_is_refused_or_sound(seed in any::<proptest::sample::Index>(), value in value()) {
        let mut spec = tests::base();
        let mut places = Vec::new();
        pointers(&spec, String::new(), &mut places);
        *spec.pointer_mut(&places[seed.index(places.len())]).expect("a place of this very document") = value;
        if let Some(plan) = translated(&spec) {
            assert_sound(&plan);
        }
    }

    #[test]
    fn whatever_mounts_are_asked_for_the_plan_keeps_them_inside(mounts in proptest::collection::vec(mount(), 1..4)) {
        let mut spec = tests::base();
        spec["mounts"] = mounts.into();
        if let Some(plan) = translated(&spec) {
            assert_sound(&plan);
            prop_assert!(plan.container.mounts.iter().all(|mount| mount.destination != "/"));
        }
    }

    #[test]
    fn whatever_paths_are_masked_and_wherever_the_cgroup_is_the_plan_keeps_them_clean(
        masked in path(), readonly in path(), cgroup in path(), device in path(), cwd in path(), sysctl in "[a-z./+]{0,12}",
    ) {
        let mut spec = tests::base();
        spec["linux"]["maskedPaths"] = json!([masked]);
        spec["linux"]["cgroupsPath"] = json!(cgroup);
        if let Some(plan) = translated(&spec) {
            assert_sound(&plan);
        }
        let mut spec = tests::base();
        spec["linux"]["readonlyPaths"] = json!([readonly]);
        spec["linux"]["devices"] = json!([{"path": device, "type": "c", "major": 1, "minor": 3}]);
        spec["process"]["cwd"] = json!(cwd);
        if let Some(plan) = translated(&spec) {
            assert_sound(&plan);
        }
        let mut spec = tests::base();
        spec["linux"]["sysctl"] = json!({format!("net.{sysctl}"): "1"});
        if let Some(plan) = translated(&spec) {
            assert_sound(&plan);
        }
    }

    #[test]
    fn a_snapshotters_mount_is_refused_or_sound(
        kind in "(bind|overlay|ext4|)", source in path(), target in path(), options in proptest::collection::vec(option(), 0..5),
    ) {
        let rootfs = vec![RootfsMount { kind, source, target, options }];
        let bundle = Bundle::parse(Path::new("/run/b"), &tests::base().to_string()).expect("the base is right");
        if let Ok(plan) = translate(&bundle, &Request { id: "c".into(), rootfs, ..Request::default() }) {
            assert_sound(&plan);
        }
    }
}
