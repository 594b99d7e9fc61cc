//! What of the behaviours of `task` is not asked of gVisor, and why: by name, all of it.

use crate::harness::Behaviour;

/// The subjects that are tried; each is as short as CI allows.
pub const SUBJECTS: [&str; 13] = [
    "lifecycle",
    "exec",
    "io",
    "terminal",
    "signals",
    "pause",
    "process",
    "mounts",
    "hooks",
    "update",
    "events",
    "delete",
    "grouping",
];

/// Those of them that are tried on the ptrace platform as well, and what they are called then: how system calls are
/// intercepted shows in how processes start, run and end.
pub const ON_PTRACE: [(&str, &str); 4] = [
    ("lifecycle", "lifecycle on ptrace"),
    ("exec", "exec on ptrace"),
    ("signals", "signals on ptrace"),
    ("terminal", "terminal on ptrace"),
];

/// Behaviours that a sentry cannot have, or has otherwise: the reason, and each by its name.
const LIMITS: &[(&str, &[&str])] = &[
    (
        "on the host there is one pid, the sentry's",
        &[
            "exec/an exec's pid is listed with its id",
            "exec/an exec's orphan stays in the container and is reaped at its end",
            "lifecycle/what init leaves running in its PID namespace ends with it",
            "signals/kill of all reaches every process of the container",
        ],
    ),
    (
        "on the host there is the sentry, not the program",
        &["lifecycle/a created task has a pid and a process that is not yet the program"],
    ),
    (
        "the sentry has no keyrings",
        &[
            "lifecycle/options of runc's shim are taken: no keyring, an owner for the streams",
            "process/a program has a session keyring of its own",
        ],
    ),
    (
        "a sentry has no processes before its container was started: refused by name",
        &["exec/exec works in a task that is created and not started"],
    ),
    (
        "the sentry's /proc does not show it",
        &[
            "exec/exec has the limits and no_new_privs of its own description",
            "process/no_new_privs is set or not as the spec says",
            "process/the umask is 022 where the spec says none",
            "signals/a program begins with no signal blocked or ignored",
            "signals/an exec begins with no signal blocked or ignored",
        ],
    ),
    (
        "a sentry's program has its terminal on its streams, and no name for it below /dev",
        &[
            "terminal/a container with a terminal has it on all three streams",
            "terminal/a container with a terminal leads a session that controls it",
            "terminal/a terminal belongs to the user of its program",
            "terminal/an exec can have a terminal of its own",
            "terminal/an exec's terminal controls its session",
        ],
    ),
    (
        "a sentry's /dev has no console",
        &["terminal/a container with a terminal has it as /dev/console"],
    ),
    (
        "signals reach a sentry's first process as they reach any other",
        &["signals/an init without a handler survives SIGTERM and not SIGKILL"],
    ),
    (
        "processes in a sandbox cannot be among the host's: hostPID is the sandbox's own PID namespace \
         (docs/gvisor.md)",
        &[
            "delete/delete of a container in the host's namespaces works",
            "events/execs of a container in the host's PID namespace end before their init too",
            "signals/kill of all reaches everything where the PID namespace is the host's",
            "signals/what is left of a container in the host's PID namespace ends with its init",
        ],
    ),
    (
        "the sentry stops its processes itself, the host's freezer is not used: see pods/",
        &[
            "pause/a paused container is frozen and goes on when resumed",
            "update/an update works on a created and on a paused task",
        ],
    ),
    (
        "runsc looks for the program at start: it is an error there",
        &[
            "events/a create that fails has no exit event",
            "process/a directory is not a program",
            "process/a missing program by its path fails at create and is named",
            "process/a missing program fails at create and is named",
            "process/a program that may not be executed fails at create and is named",
        ],
    ),
    (
        "on the host there is the sentry, which is not stopped",
        &["signals/init can be stopped and continued"],
    ),
    (
        "the sentry's /proc shows groups as they were given, not sorted",
        &["process/user, group and additional groups are the spec's"],
    ),
    (
        "refused by name: the sentry has it not",
        &[
            "hooks/a createContainer hook can mount into the container",
            "hooks/createContainer runs in the container's namespaces with the host's files",
            "hooks/startContainer runs inside the container at start",
            "mounts/an overlay can be mounted",
            "mounts/rshared mounts give to the host",
            "mounts/tmpcopyup fills a tmpfs with what the image has there",
            "process/a namespaced sysctl is set",
            "process/a personality is the spec's",
            "process/a scheduling policy is the spec's",
            "process/an I/O priority is the spec's",
            "process/the umask is the spec's",
        ],
    ),
    (
        "it is the sentry's on the host; in the sentry it is 0",
        &["process/the OOM score adjustment is the spec's"],
    ),
    (
        "a sentry's network stack is its own, whichever namespace it is in",
        &["process/a network sysctl is refused by its key where the joined network is the host's"],
    ),
    (
        "the sentry's own mounts, with its own options",
        &["mounts/the usual mounts are there with their options"],
    ),
    (
        "the sentry mounts a tmpfs at /tmp where the image has nothing there",
        &["mounts/a container sees none of the host's mounts"],
    ),
    (
        "the sentry's mount table does not show nodev, which holds for all of them",
        &["mounts/flags of a bind mount are set: nosuid, nodev, noexec, noatime"],
    ),
    (
        "the sentry makes cgroups of its own up, for its own processes",
        &[
            "mounts/a cgroup mount names every hierarchy of the host",
            "mounts/a cgroup mount shows the container's own cgroup, read-only",
        ],
    ),
    (
        "the sentry has mq_open, and shows no files for it",
        &["mounts/message queues work and are the container's own"],
    ),
    (
        "not claimed in -info: containerd refuses it",
        &["mounts/bind mounts with mapped ids show the container's ids"],
    ),
    (
        "the sentry's mount table shows no propagation",
        &["mounts/rslave mounts take from the host and give nothing"],
    ),
    (
        "the sentry's /proc/sys has other files",
        &["mounts/read-only paths can be read and not written to"],
    ),
    (
        "there is nothing of the host's kernel in a sentry's /proc",
        &["mounts/the usual masks hide the kernel's secrets"],
    ),
    (
        "it is refused, by runsc and in fewer words",
        &["mounts/a directory cannot be mounted on a file"],
    ),
    (
        "a limit of processes counts the sentry's threads: at one it cannot go on",
        &["update/an updated limit holds for execs"],
    ),
    (
        "a sentry needs more than the limit of this test: see pods/",
        &["events/a kill for lack of memory has an event before the exit"],
    ),
    (
        "a pod in a sentry is told by CRI's annotations, not by paths of the host",
        &["grouping/a pod's containers can share the first one's namespaces"],
    ),
];

/// Marks them. An entry that is no behaviour's name stops the suite: it would be a reason for nothing.
pub fn apply(behaviours: &mut [Behaviour]) {
    let each = LIMITS
        .iter()
        .flat_map(|(reason, titles)| titles.iter().map(move |title| (*title, *reason)));
    for (title, reason) in each {
        let mut known = false;
        for behaviour in behaviours.iter_mut() {
            if format!("{}/{}", behaviour.subject, behaviour.name) == title {
                behaviour.gvisor_differs(reason);
                known = true;
            }
        }
        assert!(
            known,
            "e2e/src/gvisor/limits.rs names {title:?}, and there is no such behaviour"
        );
    }
}
