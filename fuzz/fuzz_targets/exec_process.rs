//! An exec's OCI process → Process, for an ordinary container: an error or a process that can be executed.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use runtime_core::bundle::{self, Bundle};
use runtime_core::plan::{self, Plan, Request};

const CONFIG: &str = r#"{"ociVersion": "1.0.0", "root": {"path": "rootfs"},
    "process": {"user": {"uid": 0, "gid": 0}, "args": ["sleep"], "cwd": "/"},
    "linux": {"namespaces": [{"type": "mount"}, {"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
        "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}]}}"#;

static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let bundle = Bundle::parse(Path::new("/run/bundle"), CONFIG).expect("the container's own spec is right");
    plan::translate(
        &bundle,
        &Request {
            id: "fuzz".into(),
            ..Request::default()
        },
    )
    .expect("and can be translated")
});

fuzz_target!(|json: &[u8]| {
    let Ok(given) = bundle::process(json) else { return };
    match plan::translate_exec(&PLAN, &given) {
        Ok(process) => {
            assert!(process.args.first().is_some_and(|program| !program.is_empty()));
            let mut strings = process.args.iter().chain(&process.env).chain([&process.cwd]);
            assert!(strings.all(|string| !string.contains('\0')));
            assert!(process.uid < 65536 && process.gid < 65536);
            assert!(process.cwd.starts_with('/'));
        }
        Err(error) => assert!(error.to_string().len() < 8192, "{error}"),
    }
});
