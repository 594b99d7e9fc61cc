//! Whole specs, translated: init and execs.

use serde_json::{Value, json};

use super::*;

#[test]
fn processes_that_make_no_sense_are_refused_by_field() {
    assert_refused(vec![
        ("/process", Value::Null, "process is missing"),
        ("/root", Value::Null, "root is missing"),
        ("/linux", Value::Null, "linux is missing"),
        ("/process/args", json!([]), "process.args is missing"),
        ("/process/args", Value::Null, "process.args is missing"),
        ("/process/args", json!([""]), "process.args[0] is missing"),
        (
            "/process/args",
            json!(["a", "b\0"]),
            r#"process.args: "b\0" has a NUL in it"#,
        ),
        ("/process/cwd", json!(""), "process.cwd is missing"),
        (
            "/process/cwd",
            json!("tmp"),
            r#"process.cwd: "tmp" is not an absolute path"#,
        ),
        (
            "/process/cwd",
            json!("/t\0mp"),
            r#"process.cwd: "/t\0mp" has a NUL in it"#,
        ),
        ("/process/cwd", json!("/a".repeat(10_000)), r#"process.cwd: "/a/a/a…"#),
        ("/process/env", json!(["PATH"]), r#"process.env: "PATH" has no `=`"#),
        (
            "/process/env",
            json!(["=x"]),
            r#"process.env: "=x" has no name before the `=`"#,
        ),
        (
            "/process/env",
            json!(["A=\0"]),
            r#"process.env: "A=\0" has a NUL in it"#,
        ),
        (
            "/process/user/uid",
            json!(4294967295u32),
            "process.user.uid: 4294967295 is nobody's id",
        ),
        (
            "/process/user/gid",
            json!(4294967295u32),
            "process.user.gid: 4294967295 is nobody's id",
        ),
        (
            "/process/user/additionalGids",
            json!([4294967295u32]),
            "process.user.additionalGids: 4294967295 is nobody's id",
        ),
        (
            "/process/user/umask",
            json!(0o1000),
            "process.user.umask: 512 is not a file mode mask",
        ),
        (
            "/process/user/username",
            json!("me"),
            "process.user.username is not supported: it is for Windows; …",
        ),
        (
            "/process/commandLine",
            json!("cmd"),
            "process.commandLine is not supported: it is for Windows; …",
        ),
        (
            "/process/oomScoreAdj",
            json!(1001),
            "process.oomScoreAdj: 1001 is not between -1000 and 1000",
        ),
        (
            "/process/rlimits/-",
            json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}),
            r#"process.rlimits: "RLIMIT_NOFILE" is there twice"#,
        ),
        (
            "/process/rlimits/0",
            json!({"type": "RLIMIT_CORE", "soft": 2, "hard": 1}),
            "process.rlimits: RLIMIT_CORE: soft: 2 is above the hard limit",
        ),
        (
            "/process/apparmorProfile",
            json!("docker-default"),
            r#"process.apparmorProfile "docker-default" is not supported: the kernel of this host …"#,
        ),
        (
            "/process/selinuxLabel",
            json!("system_u:x"),
            r#"process.selinuxLabel "system_u:x" is not supported: …"#,
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "nice": 20}),
            "process.scheduler.nice: 20 is not between -20 and 19",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "priority": 5}),
            "process.scheduler.priority: 5 is for SCHED_FIFO and SCHED_RR only",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO"}),
            "process.scheduler.priority: 0 is not between 1 and 99",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "period": 5}),
            "process.scheduler.period: 5 is for SCHED_DEADLINE only",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_ISO"}),
            "process.scheduler.policy is not supported: …",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            "process.ioPriority.priority: 8 is not between 0 and 7",
        ),
        (
            "/process/execCPUAffinity",
            json!({"initial": "0-4294967295"}),
            r#"process.execCPUAffinity.initial: "0-4294967295" is not a list of CPUs like 0-3,7"#,
        ),
        (
            "/process/execCPUAffinity",
            json!({"final": "3-1"}),
            r#"process.execCPUAffinity.final: "3-1" is not a list of CPUs like 0-3,7"#,
        ),
    ]);
}

#[test]
fn a_process_without_capabilities_has_none_and_an_exec_without_has_the_containers() {
    let plan = translated(with("/process/capabilities", Value::Null)).unwrap();
    assert_eq!(plan.process.capabilities, Some(Capabilities::default()));
    let plan = translated(base()).unwrap();
    let exec = |json: Value| translate_exec(&plan, &serde_json::from_value(json).unwrap());
    let process = exec(json!({"user": {}, "cwd": "/", "args": ["true"]})).unwrap();
    assert_eq!(process.capabilities, plan.process.capabilities);
    let own = json!({"user": {}, "cwd": "/", "args": ["true"], "capabilities": {"bounding": ["CAP_CHOWN"]}});
    assert_eq!(exec(own).unwrap().capabilities.unwrap().bounding, 1);
    let error = exec(json!({"user": {}, "cwd": "x", "args": ["true"]}))
        .unwrap_err()
        .to_string();
    assert_eq!(error, r#"process.cwd: "x" is not an absolute path"#);
}

#[test]
fn an_exec_inherits_what_belongs_to_the_container() {
    let mut spec = base();
    spec["process"]["user"]["umask"] = json!(0o077);
    spec["process"]["oomScoreAdj"] = json!(500);
    spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 7});
    spec["process"]["execCPUAffinity"] = json!({"initial": "0,2-3", "final": "1"});
    spec["linux"]["personality"] = json!({"domain": "LINUX32"});
    let plan = translated(spec).unwrap();
    assert_eq!((plan.process.personality, &plan.process.cpu_affinity), (Some(8), &None));
    let process = serde_json::from_value(json!({"user": {}, "cwd": "/", "args": ["true"]})).unwrap();
    let process = translate_exec(&plan, &process).unwrap();
    assert_eq!(
        (process.umask, process.oom_score_adj, process.personality),
        (Some(0o077), Some(500), Some(8))
    );
    assert_eq!(process.io_priority, Some(3 << 13 | 7));
    let affinity = CpuAffinity {
        initial: Some(vec![0, 2, 3]),
        last: Some(vec![1]),
    };
    assert_eq!(process.cpu_affinity, Some(affinity));
}

#[test]
fn a_console_size_counts_only_with_a_terminal() {
    let mut spec = base();
    spec["process"]["consoleSize"] = json!({"height": 24, "width": 80});
    assert_eq!(translated(spec.clone()).unwrap().process.console_size, None);
    spec["process"]["terminal"] = json!(true);
    assert_eq!(translated(spec.clone()).unwrap().process.console_size, Some((24, 80)));
    spec["process"]["consoleSize"] = json!({"height": 24, "width": 65536});
    let error = translated(spec).unwrap_err();
    assert_eq!(
        error,
        "process.consoleSize.width: 65536 is more than a terminal can have (65535)"
    );
}
