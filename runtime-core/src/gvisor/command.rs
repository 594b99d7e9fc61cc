//! runsc's command lines. Pure.

use std::path::Path;

use super::config::{Config, Network, Overlay};

/// The fd at which runsc finds the file for its messages.
pub const LOG_FD: i32 = 3;
/// The fd of the directory with the console's socket.
pub const CONSOLE_FD: i32 = 4;

/// What comes before runsc's verb, always the same for one sandbox: the sentry is started with it.
///
/// cgroups are ours. seccomp profiles, set-user-ID programs and raw sockets are as the spec says of each container;
/// without these flags the sentry would ignore the first, refuse the second where it is allowed, and take CAP_NET_RAW
/// away in silence. `logs` is the directory for this pod's debug logs.
pub fn global(config: &Config, state: &Path, network: Network, overlay: Overlay, logs: Option<&Path>) -> Vec<String> {
    let mut line = vec![
        "runsc".into(),
        format!("--root={}", state.display()),
        format!("--log=/proc/self/fd/{LOG_FD}"),
        "--log-format=json".into(),
        format!("--platform={}", config.platform.flag()),
        format!("--network={}", network.flag()),
        "--ignore-cgroups=true".into(),
        format!("--file-access={}", config.file_access.flag()),
        format!("--overlay2={}", overlay.flag()),
        "--oci-seccomp=true".into(),
        "--allow-suid=true".into(),
        "--net-raw=true".into(),
        "--host-settings=ignore".into(),
    ];
    if let Some(logs) = logs {
        // A name that ends so is a directory to runsc.
        line.extend(["--debug=true".into(), format!("--debug-log={}/", logs.display())]);
    }
    line.extend(config.flags.iter().map(|(name, value)| format!("--{name}={value}")));
    line
}

/// `create`: afterwards the sandbox, or the container in it, waits for its start.
pub fn create(id: &str, bundle: &Path, pid_file: Option<&Path>, terminal: bool) -> Vec<String> {
    let mut arguments = vec!["create".into(), format!("--bundle={}", bundle.display())];
    arguments.extend(pid_file.map(|path| format!("--pid-file={}", path.display())));
    if terminal {
        // By the fd: a socket's path is short, a bundle's need not be.
        arguments.push(format!("--console-socket=/proc/self/fd/{CONSOLE_FD}/console"));
    }
    arguments.push(id.into());
    arguments
}

/// `create` and `start` in one, for a container that joins a sandbox: what it has to say beforehand, it says to the
/// sentry alone.
pub fn run(id: &str, bundle: &Path) -> Vec<String> {
    vec![
        "run".into(),
        "--detach".into(),
        format!("--bundle={}", bundle.display()),
        id.into(),
    ]
}

/// `start`.
pub fn start(id: &str) -> Vec<String> {
    vec!["start".into(), id.into()]
}

/// `exec` that stays until the process has ended, for one with a terminal: it hands signals of its terminal on.
pub fn exec(id: &str, process: &Path, pid_file: &Path) -> Vec<String> {
    vec![
        "exec".into(),
        format!("--process={}", process.display()),
        format!("--pid-file={}", pid_file.display()),
        id.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_says_what_the_node_chose() {
        let mut config = Config::of(&crate::policy::Policy::default());
        let state = Path::new("/run/nucleus/gvisor/k8s.io/p1");
        let line = global(&config, state, Network::Host, Overlay::RootSelf, None).join(" ");
        for flag in [
            "--root=/run/nucleus/gvisor/k8s.io/p1",
            "--platform=systrap",
            "--network=host",
            "--ignore-cgroups=true",
            "--file-access=exclusive",
            "--overlay2=root:self",
        ] {
            assert!(line.contains(flag), "{line}");
        }
        assert!(!line.contains("debug"), "{line}");
        config.flags = vec![("dcache".into(), "100".into())];
        let logs = Some(Path::new("/var/log/runsc/p1"));
        let line = global(&config, state, Network::Host, Overlay::None, logs).join(" ");
        assert!(
            line.ends_with("--debug=true --debug-log=/var/log/runsc/p1/ --dcache=100"),
            "{line}"
        );
        assert_eq!(
            create("c1", Path::new("/b"), Some(Path::new("/p")), true),
            [
                "create",
                "--bundle=/b",
                "--pid-file=/p",
                "--console-socket=/proc/self/fd/4/console",
                "c1"
            ]
        );
        assert_eq!(run("c1", Path::new("/b")), ["run", "--detach", "--bundle=/b", "c1"]);
        assert_eq!(
            create("c1", Path::new("/b"), None, false),
            ["create", "--bundle=/b", "c1"]
        );
    }
}
