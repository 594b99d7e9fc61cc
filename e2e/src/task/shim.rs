//! The shim by itself: how it starts, which services it has, what it answers to calls that make no sense, how it ends.

use std::os::unix::fs::PermissionsExt;

use containerd_shim_protos::api;
use protobuf::Message;
use serde_json::json;
use ttrpc::Code;

use crate::harness::Registry;
use crate::shim_process::{Form, Shim, any, new_bundle, refused, run_start};
use crate::{processes, same, spec};

pub fn register(t: &mut Registry) {
    starting(t);
    services(t);
    order(t);
    ending(t);
}

fn starting(t: &mut Registry) {
    t.add(
        "start with nothing on stdin answers with an address, as containerd 1.6 wants it",
        async |c| {
            let id = c.new_id();
            let config = spec::base(&c.namespace, &id).to_string();
            let bundle = new_bundle(c, &id, Some(config.as_bytes()))?;
            let shim = Shim::start_in(c, &id, bundle, Form::Bare).await?;
            let text = String::from_utf8(shim.answer.text.clone())?;
            anyhow::ensure!(text.starts_with("unix:///run/containerd/s/"), "{text:?}");
            shim.end().await
        },
    )
    .new_runc_differs("it always wants the form of its own containerd");
    t.add(
        "start with options on stdin answers in a form that containerd 2.0 reads",
        async |c| {
            let id = c.new_id();
            let config = spec::base(&c.namespace, &id).to_string();
            let bundle = new_bundle(c, &id, Some(config.as_bytes()))?;
            let shim = Shim::start_in(c, &id, bundle, Form::Options).await?;
            anyhow::ensure!([2, 3].contains(&shim.answer.version), "{:?}", shim.answer);
            anyhow::ensure!(std::str::from_utf8(&shim.answer.text).is_ok(), "{:?}", shim.answer);
            shim.end().await
        },
    )
    .differs("the runc shim of containerd 2.4 has given up this form");
    t.add(
        "start with bootstrap parameters answers with a bootstrap result",
        async |c| {
            let id = c.new_id();
            let config = spec::base(&c.namespace, &id).to_string();
            let bundle = new_bundle(c, &id, Some(config.as_bytes()))?;
            let shim = Shim::start_in(c, &id, bundle, Form::Bootstrap).await?;
            same!(shim.answer.version, 3);
            anyhow::ensure!(
                shim.answer.address.starts_with("unix:///run/containerd/s/"),
                "{:?}",
                shim.answer
            );
            shim.end().await
        },
    )
    .old_runc_differs("it does not know bootstrap parameters yet");
    t.add("the shim's socket is its owner's alone", async |c| {
        let shim = Shim::start(c).await?;
        let mode = std::fs::metadata(shim.answer.address.trim_start_matches("unix://"))?
            .permissions()
            .mode();
        same!(mode & 0o777, 0o600);
        shim.end().await
    });
    t.add(
        "the shim's address is made of containerd's address, the namespace and the container",
        async |c| {
            let shim = Shim::start(c).await?;
            let wanted = crate::leaks::socket_path(&c.daemon, &c.namespace, &shim.id);
            same!(shim.answer.address, format!("unix://{wanted}"));
            shim.end().await
        },
    );
    t.add(
        "a second start of the same group answers with the same address",
        async |c| {
            c.own_group("pod");
            let grouped = |spec: &mut serde_json::Value| {
                spec["annotations"] = json!({"io.containerd.runc.v2.group": "pod"});
            };
            let first = Shim::start_with(c, grouped).await?;
            let id = c.new_id();
            let mut config = spec::base(&c.namespace, &id);
            grouped(&mut config);
            let bundle = new_bundle(c, &id, Some(config.to_string().as_bytes()))?;
            let form = if c.is_containerd_2() {
                Form::Bootstrap
            } else {
                Form::Bare
            };
            same!(run_start(c, &id, &bundle, form).await?.address, first.answer.address);
            // runc's shim of containerd 2 leaves a group's socket behind.
            if c.is_nucleus() {
                first.end().await
            } else {
                first.end_process().await
            }
        },
    );
    t.add(
        "a dead shim's socket does not keep a new one from starting",
        async |c| {
            let shim = Shim::start(c).await?;
            shim.crash().await?;
            std::fs::remove_dir_all(&shim.bundle)?;
            let config = spec::base(&c.namespace, &shim.id).to_string();
            let bundle = new_bundle(c, &shim.id, Some(config.as_bytes()))?;
            let form = if c.is_containerd_2() {
                Form::Bootstrap
            } else {
                Form::Bare
            };
            let again = Shim::start_in(c, &shim.id, bundle, form).await?;
            same!(again.answer.address, shim.answer.address);
            again.end().await
        },
    );
    t.add("the shim's OOM score is one more than its parent's", async |c| {
        let shim = Shim::start(c).await?;
        let (pid, _) = shim.connect("").await?;
        let own: i32 = processes::text(std::process::id(), "oom_score_adj").trim().parse()?;
        same!(processes::text(pid, "oom_score_adj").trim(), (own + 1).to_string());
        shim.end().await
    })
    .differs("its parent is the test here, and the runc shim takes containerd's score from the program's own parent");
}

fn services(t: &mut Registry) {
    t.add("the Task service answers under the name of containerd 2", async |c| {
        let shim = Shim::start(c).await?;
        let request = api::ConnectRequest {
            id: shim.id.clone(),
            ..Default::default()
        };
        let reply = shim.call("containerd.task.v3.Task", "Connect", &request).await?;
        anyhow::ensure!(api::ConnectResponse::parse_from_bytes(&reply)?.shim_pid > 1);
        shim.end().await
    })
    .old_runc_differs("it does not have it yet");
    t.add("the Task service answers under the name of containerd 1", async |c| {
        let shim = Shim::start(c).await?;
        let request = api::ConnectRequest {
            id: shim.id.clone(),
            ..Default::default()
        };
        let reply = shim.call("containerd.task.v2.Task", "Connect", &request).await?;
        anyhow::ensure!(api::ConnectResponse::parse_from_bytes(&reply)?.shim_pid > 1);
        shim.end().await
    })
    .new_runc_differs("it has given up the older name");
    t.add(
        "connect tells the shim's pid, the version and the task's pid",
        async |c| {
            let shim = Shim::start(c).await?;
            let pid = shim.create().await?;
            let (shim_pid, task_pid) = shim.connect(&shim.id).await?;
            anyhow::ensure!(processes::is_alive(shim_pid));
            same!(task_pid, pid);
            same!(processes::shim_of(pid), Some(shim_pid));
            shim.end_all().await
        },
    );
    t.add(
        "connect about an unknown task is no error and tells no task",
        async |c| {
            let shim = Shim::start(c).await?;
            let (shim_pid, task_pid) = shim.connect("no-such-task").await?;
            anyhow::ensure!(processes::is_alive(shim_pid));
            same!(task_pid, 0);
            shim.end().await
        },
    );
    t.add("a method that no shim has is refused as unimplemented", async |c| {
        let shim = Shim::start(c).await?;
        let (code, _) = refused(shim.task::<api::Empty>("Levitate", &api::Empty::new()).await)?;
        same!(code, Code::UNIMPLEMENTED);
        shim.end().await
    });
    t.add("a checkpoint is refused and leaves the task running", async |c| {
        let shim = Shim::start(c).await?;
        shim.create().await?;
        shim.start_task().await?;
        let request = api::CheckpointTaskRequest {
            id: shim.id.clone(),
            path: c.directory.join("checkpoint").display().to_string(),
            ..Default::default()
        };
        let (code, text) = refused(shim.task::<api::Empty>("Checkpoint", &request).await)?;
        if c.is_nucleus() {
            same!(code, Code::UNIMPLEMENTED, "{text}");
        }
        same!(shim.connect(&shim.id).await?.1 > 0, true);
        shim.end_all().await
    });
}

fn order(t: &mut Registry) {
    t.add("every call about an unknown task is refused as not found", async |c| {
        let shim = Shim::start(c).await?;
        let id = "no-such-task".to_owned();
        let state = api::StateRequest {
            id: id.clone(),
            ..Default::default()
        };
        let start = api::StartRequest {
            id: id.clone(),
            ..Default::default()
        };
        let delete = api::DeleteRequest {
            id: id.clone(),
            ..Default::default()
        };
        let pids = api::PidsRequest {
            id: id.clone(),
            ..Default::default()
        };
        let pause = api::PauseRequest {
            id: id.clone(),
            ..Default::default()
        };
        let resume = api::ResumeRequest {
            id: id.clone(),
            ..Default::default()
        };
        let kill = api::KillRequest {
            id: id.clone(),
            signal: 9,
            ..Default::default()
        };
        let process = any(crate::api::PROCESS_TYPE, b"{}");
        let exec = api::ExecProcessRequest {
            id: id.clone(),
            exec_id: "e".into(),
            spec: process,
            ..Default::default()
        };
        let resize = api::ResizePtyRequest {
            id: id.clone(),
            ..Default::default()
        };
        let close = api::CloseIORequest {
            id: id.clone(),
            stdin: true,
            ..Default::default()
        };
        let resources = any(crate::api::RESOURCES_TYPE, b"{}");
        let update = api::UpdateTaskRequest {
            id: id.clone(),
            resources,
            ..Default::default()
        };
        let wait = api::WaitRequest {
            id: id.clone(),
            ..Default::default()
        };
        let stats = api::StatsRequest {
            id,
            ..Default::default()
        };
        let answers = [
            (
                "State",
                refused(shim.task::<api::StateResponse>("State", &state).await)?,
            ),
            (
                "Start",
                refused(shim.task::<api::StartResponse>("Start", &start).await)?,
            ),
            (
                "Delete",
                refused(shim.task::<api::DeleteResponse>("Delete", &delete).await)?,
            ),
            ("Pids", refused(shim.task::<api::PidsResponse>("Pids", &pids).await)?),
            ("Pause", refused(shim.task::<api::Empty>("Pause", &pause).await)?),
            ("Resume", refused(shim.task::<api::Empty>("Resume", &resume).await)?),
            ("Kill", refused(shim.task::<api::Empty>("Kill", &kill).await)?),
            ("Exec", refused(shim.task::<api::Empty>("Exec", &exec).await)?),
            (
                "ResizePty",
                refused(shim.task::<api::Empty>("ResizePty", &resize).await)?,
            ),
            ("CloseIO", refused(shim.task::<api::Empty>("CloseIO", &close).await)?),
            ("Update", refused(shim.task::<api::Empty>("Update", &update).await)?),
            ("Wait", refused(shim.task::<api::WaitResponse>("Wait", &wait).await)?),
            (
                "Stats",
                refused(shim.task::<api::StatsResponse>("Stats", &stats).await)?,
            ),
        ];
        for (method, (code, text)) in answers {
            same!(code, Code::NOT_FOUND, "{method}: {text}");
        }
        shim.end().await
    });
    t.add(
        "a second create of the same task is refused and harms nothing",
        async |c| {
            let shim = Shim::start(c).await?;
            let pid = shim.create().await?;
            let (code, text) = refused(shim.create().await)?;
            if c.is_nucleus() {
                same!(code, Code::ALREADY_EXISTS, "{text}");
            }
            same!(shim.start_task().await?, pid);
            shim.end_all().await
        },
    );
    t.add("start before create is refused as not found", async |c| {
        let shim = Shim::start(c).await?;
        same!(refused(shim.start_task().await)?.0, Code::NOT_FOUND);
        shim.end().await
    });
    t.add("delete before the end is refused and harms nothing", async |c| {
        let shim = Shim::start(c).await?;
        shim.create().await?;
        shim.start_task().await?;
        refused(shim.delete().await)?;
        shim.end_all().await
    });
    t.add("a second delete is refused as not found", async |c| {
        let shim = Shim::start(c).await?;
        shim.create().await?;
        shim.start_task().await?;
        shim.end_task().await?;
        same!(refused(shim.delete().await)?.0, Code::NOT_FOUND);
        shim.end().await
    });
    t.add("a request that is no message is refused and harms nothing", async |c| {
        let shim = Shim::start(c).await?;
        let garbage = protobuf::well_known_types::wrappers::BytesValue {
            value: vec![0xff; 64],
            ..Default::default()
        };
        refused(shim.task::<api::Empty>("Kill", &garbage).await)?;
        shim.create().await?;
        shim.end_all().await
    });
}

fn ending(t: &mut Registry) {
    t.add("shutdown ends a shim without tasks, and its socket goes", async |c| {
        Shim::start(c).await?.end().await
    });
    t.add("shutdown with a task left is answered and ends nothing", async |c| {
        let shim = Shim::start(c).await?;
        let pid = shim.create().await?;
        shim.start_task().await?;
        shim.shutdown().await?;
        same!(shim.connect(&shim.id).await?.1, pid);
        shim.end_all().await
    });
    t.add(
        "delete by the program alone cleans up after a shim that was killed",
        async |c| {
            let shim = Shim::start(c).await?;
            let pid = shim.create().await?;
            shim.start_task().await?;
            shim.crash().await?;
            let response = shim.run_delete().await?;
            same!(response.exit_status, 137);
            c.eventually("the task's process is gone", async || Ok(!processes::is_alive(pid)))
                .await?;
            // containerd's own next step: a socket that nobody serves.
            std::fs::remove_file(shim.answer.address.trim_start_matches("unix://")).ok();
            Ok(())
        },
    );
    t.add(
        "delete by the program works when there is nothing left to delete",
        async |c| {
            let shim = Shim::start(c).await?;
            shim.create().await?;
            shim.start_task().await?;
            shim.end_task().await?;
            for _ in 0..2 {
                shim.run_delete().await?;
            }
            shim.end().await
        },
    );
    t.add("delete by the program works when nothing was ever created", async |c| {
        let shim = Shim::start(c).await?;
        shim.run_delete().await?;
        shim.end().await
    })
    .old_runc_differs("it wants a file that create writes");
    t.add(
        "delete by the program cleans up after a shim that was killed between create and start",
        async |c| {
            let shim = Shim::start(c).await?;
            let pid = shim.create().await?;
            shim.crash().await?;
            shim.run_delete().await?;
            c.eventually("the task's process is gone", async || Ok(!processes::is_alive(pid)))
                .await?;
            std::fs::remove_file(shim.answer.address.trim_start_matches("unix://")).ok();
            Ok(())
        },
    );
}
