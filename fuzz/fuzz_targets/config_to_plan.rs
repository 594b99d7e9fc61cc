//! config.json's text → Plan: an error or a plan whose paths are clean; never a panic, and the same answer twice.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use runtime_core::bundle::Bundle;
use runtime_core::plan::{self, MountSource, Request};

fn is_clean(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains('\0')
        && path.split('/').skip(1).all(|name| !matches!(name, "" | "." | ".."))
}

fuzz_target!(|text: &str| {
    let Ok(bundle) = Bundle::parse(Path::new("/run/bundle"), text) else {
        return;
    };
    let request = Request {
        id: "fuzz".into(),
        ..Request::default()
    };
    let plan = match plan::translate(&bundle, &request) {
        Ok(plan) => plan,
        Err(error) => {
            // Bounded, whatever the document holds: it goes into logs and into gRPC's messages.
            assert!(error.to_string().len() < 8192, "{error}");
            return;
        }
    };
    let container = &plan.container;
    for mount in &container.mounts {
        assert!(is_clean(&mount.destination) && mount.destination != "/", "{mount:?}");
        if let MountSource::Bind { path, .. } = &mount.source {
            assert!(path.is_absolute(), "{mount:?}");
        }
    }
    let paths = container.masked_paths.iter().chain(&container.readonly_paths);
    assert!(
        paths
            .chain(container.devices.iter().map(|device| &device.path))
            .all(|path| is_clean(path))
    );
    assert!(
        container.sysctls.iter().all(|(path, _)| is_clean(&format!("/{path}"))),
        "{:?}",
        container.sysctls
    );
    assert!(
        is_clean(&format!("/{}", plan.cgroup.trim_start_matches('/'))),
        "{}",
        plan.cgroup
    );
    assert!(!plan.process.args.is_empty() && plan.process.uid != u32::MAX);

    let again = plan::translate_owned(bundle, &request).expect("what was right stays right");
    let written = |plan: &plan::Plan| serde_json::to_value((&plan.container, &plan.process)).expect("a plan is JSON");
    assert_eq!(written(&plan), written(&again));
});
