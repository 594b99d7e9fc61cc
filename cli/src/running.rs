//! What a running container was given, from its record and its first process.

use std::path::{Path, PathBuf};

use runtime_core::record::{self, Record};

use crate::report::{Report, capabilities};

/// Why a running container cannot be explained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("read {path:?}: is containerd's state there?")]
    State { path: PathBuf, source: std::io::Error },
    #[error("there is no container {id:?} of nucleus below {path:?}")]
    NotFound { id: String, path: PathBuf },
    #[error("container {id:?} is in several namespaces, {namespaces}: say which, with --namespace")]
    Several { id: String, namespaces: String },
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error("the record of container {id:?} is of a version of nucleus that kept no policy")]
    NoPolicy { id: String },
}

/// The record of container `id`, and what /proc tells of its first process.
pub fn explain(state: &Path, namespace: Option<&str>, id: &str) -> Result<Report, Error> {
    let tasks = state.join("io.containerd.runtime.v2.task");
    let namespaces = match namespace {
        Some(namespace) => vec![namespace.to_owned()],
        None => directories(&tasks)?,
    };
    let mut found = Vec::new();
    for namespace in namespaces {
        if let Some(record) = Record::read(&tasks.join(&namespace).join(id))? {
            found.push((namespace, record));
        }
    }
    let (namespace, record) = match found.len() {
        0 => {
            return Err(Error::NotFound {
                id: id.to_owned(),
                path: tasks,
            });
        }
        1 => found.remove(0),
        _ => {
            let namespaces: Vec<String> = found.into_iter().map(|(namespace, _)| namespace).collect();
            return Err(Error::Several {
                id: id.to_owned(),
                namespaces: namespaces.join(", "),
            });
        }
    };
    let enforced = match record.init.filter(|init| init.is_alive()) {
        Some(init) => enforced(init.pid),
        None => vec![("process", "it has ended, or was never there".to_owned())],
    };
    let policy = record.policy.ok_or_else(|| Error::NoPolicy { id: id.to_owned() })?;
    Ok(Report {
        about: format!("container {id}, namespace {namespace}"),
        policy,
        enforced,
        spec: None,
    })
}

fn directories(path: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::State {
        path: path.to_owned(),
        source,
    };
    let entries = std::fs::read_dir(path).map_err(failed)?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect())
}

/// As the kernel has it.
fn enforced(pid: i32) -> Vec<(&'static str, String)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map_or("-".to_owned(), |value| {
            value.split_whitespace().collect::<Vec<_>>().join(" ")
        })
    };
    let set = |name: &str| u64::from_str_radix(&field(name), 16).map_or("-".to_owned(), capabilities);
    let own: Vec<&str> = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"]
        .into_iter()
        .filter(|kind| {
            let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
            link(&pid.to_string()) != link("self")
        })
        .collect();
    vec![
        ("process", pid.to_string()),
        ("user", field("Uid")),
        ("capabilities, at most", set("CapBnd")),
        ("capabilities, now", set("CapEff")),
        (
            "no_new_privs",
            if field("NoNewPrivs") == "1" { "yes" } else { "no" }.to_owned(),
        ),
        (
            "system calls",
            match field("Seccomp").as_str() {
                "2" => format!("filtered, filters: {}", field("Seccomp_filters")),
                _ => "not filtered".to_owned(),
            },
        ),
        ("namespaces unlike ours", own.join(", ")),
    ]
}

#[cfg(test)]
mod tests {
    use runtime_core::policy::Policy;
    use runtime_core::record::{ProcessId, VERSION};

    use super::*;

    #[test]
    fn a_running_container_is_found_in_its_namespace_and_shown_as_the_kernel_has_it() {
        let state = tempfile::tempdir().unwrap();
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        let bundle = |namespace: &str| {
            let bundle = state
                .path()
                .join("io.containerd.runtime.v2.task")
                .join(namespace)
                .join("c1");
            std::fs::create_dir_all(&bundle).unwrap();
            let record = Record {
                version: VERSION,
                id: "c1".into(),
                group: "c1".into(),
                shim: own,
                socket: None,
                init: Some(own),
                cgroup: None,
                poststop: vec![],
                annotations: vec![],
                policy: Some(Policy::default()),
                sandbox: None,
            };
            record.write(&bundle).unwrap();
        };
        bundle("one");
        let report = explain(state.path(), None, "c1").unwrap();
        assert!(report.enforced.contains(&("process", own.pid.to_string())), "{report}");
        let error = explain(state.path(), None, "c2").unwrap_err().to_string();
        assert!(error.starts_with("there is no container \"c2\""), "{error}");
        bundle("two");
        let error = explain(state.path(), None, "c1").unwrap_err().to_string();
        assert!(error.contains("say which"), "{error}");
        assert!(explain(state.path(), Some("two"), "c1").is_ok());
    }
}
