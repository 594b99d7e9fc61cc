//! From what there is on a node to what it means for containers: pure.

use installer::cri::RuntimeVersion;
use runtime_core::cgroup::Mode;

use super::node::{Containerd, Node};

/// The type of a handler that is ours.
const OURS: &str = "io.containerd.nucleus.v2";

/// How good what was found is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// Containers run; something that they may ask for cannot be had.
    Partly,
    /// No container runs.
    Missing,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partly => "partly",
            Self::Missing => "missing",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub part: &'static str,
    pub name: &'static str,
    pub state: State,
    pub found: String,
    /// What does not work because of it.
    pub without: &'static str,
    /// What to do about it.
    pub todo: &'static str,
}

/// All rows, in the order of docs/nodes.md.
pub fn rows(node: &Node) -> Vec<Row> {
    let mut rows = Vec::new();
    kernel(&mut rows, node);
    cgroups(&mut rows, node);
    security_modules(&mut rows, node);
    if node.containerds.is_empty() {
        rows.push(
            row("containerd", "containerd", "no socket where a containerd has one").partly(
                "nobody asks for containers",
                "start containerd; in a container, give it containerd's socket",
            ),
        );
    }
    for containerd in &node.containerds {
        daemon(&mut rows, containerd);
    }
    rows
}

fn row(part: &'static str, name: &'static str, found: impl Into<String>) -> Row {
    Row {
        part,
        name,
        state: State::Ok,
        found: found.into(),
        without: "",
        todo: "",
    }
}

impl Row {
    fn partly(self, without: &'static str, todo: &'static str) -> Self {
        Self {
            state: State::Partly,
            without,
            todo,
            ..self
        }
    }

    fn missing(self, without: &'static str, todo: &'static str) -> Self {
        Self {
            state: State::Missing,
            ..self.partly(without, todo)
        }
    }

    fn unless(self, fine: bool, without: &'static str, todo: &'static str) -> Self {
        if fine { self } else { self.partly(without, todo) }
    }
}

fn present(is: bool, word: &str) -> String {
    if is { word.to_owned() } else { format!("not {word}") }
}

/// Major and minor of a release; a kernel that gives itself another name is taken for the oldest.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    (number(), number())
}

fn kernel(rows: &mut Vec<Row>, node: &Node) {
    const PART: &str = "kernel";
    let version = version(&node.release);
    let linux = row(PART, "Linux", &node.release);
    rows.push(if version >= (5, 14) {
        linux
    } else {
        linux.missing("system calls that every container needs", "run Linux 5.14 or later")
    });
    let architecture = row(PART, "architecture", &node.architecture);
    rows.push(match node.architecture.as_str() {
        "x86_64" | "aarch64" => architecture,
        _ => architecture.missing("everything", "use a node with x86_64 or aarch64"),
    });
    let landlock = match node.landlock {
        0 => "none".to_owned(),
        abi => format!("ABI {abi}"),
    };
    rows.push(match node.landlock {
        0 => row(PART, "Landlock", landlock).partly(
            "containers can change their mounts where their capabilities let them; \
             `require.landlock_abi` and the tiers of mode production refuse them",
            "boot with lsm=landlock,… in front of the others, on a kernel that has it",
        ),
        1 => row(PART, "Landlock", landlock).partly(
            "no domain: with ABI 1 files could not be moved between directories",
            "run Linux 5.19 or later",
        ),
        abi => row(PART, "Landlock", landlock).unless(
            abi >= 6,
            "abstract sockets of the host can be connected to from pods in the host's network",
            "run Linux 6.12 or later",
        ),
    });
    rows.push(row(PART, "seccomp", present(node.seccomp, "built in")).unless(
        node.seccomp,
        "containers with a profile are refused: those of Kubernetes and Docker have one",
        "run a kernel with CONFIG_SECCOMP_FILTER",
    ));
    let namespaces = row(PART, "user namespaces", format!("at most {}", node.user_namespaces));
    rows.push(match (node.user_namespaces, version >= (5, 19)) {
        (0, _) => namespaces.partly("pods with hostUsers: false", "sysctl -w user.max_user_namespaces=15000"),
        (_, false) => namespaces.partly(
            "pods with hostUsers: false on overlay: its layers cannot be idmapped",
            "run Linux 5.19 or later",
        ),
        _ => namespaces,
    });
    rows.push(row(PART, "pressure", present(node.pressure, "counted")).unless(
        node.pressure,
        "pressure (PSI) is left out of the metrics",
        "boot with psi=1",
    ));
    let new = version >= (5, 19);
    rows.push(row(PART, "memory.peak", present(new, "counted")).unless(
        new,
        "the highest use of memory is left out of the metrics of cgroup v2",
        "run Linux 5.19 or later",
    ));
}

fn cgroups(rows: &mut Vec<Row>, node: &Node) {
    const PART: &str = "cgroups";
    let word = match node.cgroups {
        Some(Mode::V1) => "v1",
        Some(Mode::Hybrid) => "hybrid: v1, and v2 beside it",
        Some(Mode::V2) => "v2",
        None => "none mounted",
    };
    let mode = row(PART, "version", word);
    rows.push(match node.cgroups {
        Some(Mode::V2) => mode,
        Some(Mode::V1 | Mode::Hybrid) => mode.partly(
            "memory.high, memory.low, `unified`, pressure; Kubernetes maintains v1 no more",
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
        None => mode.missing(
            "limits, and with them every container",
            "mount cgroup2 at /sys/fs/cgroup",
        ),
    });
    let wanted = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];
    let absent: Vec<&str> = wanted
        .into_iter()
        .filter(|name| !node.controllers.contains(*name))
        .collect();
    let controllers: Vec<&str> = node.controllers.iter().map(String::as_str).collect();
    let found = match absent.as_slice() {
        [] => controllers.join(" "),
        absent => format!("{}; not there: {}", controllers.join(" "), absent.join(" ")),
    };
    rows.push(row(PART, "controllers", found).unless(
        absent.is_empty(),
        "a container with such a limit is refused, with the controller's name",
        "boot without cgroup_disable=, on a kernel that has them",
    ));
    rows.push(row(PART, "driver cgroupfs", "needs nothing"));
    rows.push(match (node.systemd, node.systemd_socket) {
        (true, true) => row(PART, "driver systemd", "systemd runs and can be asked"),
        (true, false) => row(PART, "driver systemd", "systemd runs; its sockets are not there").partly(
            "containers whose cgroupsPath is slice:prefix:name are refused",
            "give us /run/systemd/private or the system bus's socket",
        ),
        (false, _) => row(PART, "driver systemd", "systemd does not run").partly(
            "containers in scopes of systemd's are refused",
            "set SystemdCgroup = false for the handler, and cgroupDriver: cgroupfs for the kubelet",
        ),
    });
}

fn security_modules(rows: &mut Vec<Row>, node: &Node) {
    const PART: &str = "security modules";
    for (name, enabled, without, todo) in [
        (
            "AppArmor",
            node.apparmor,
            "a container with a profile other than unconfined is refused",
            "boot with apparmor=1 and lsm=…,apparmor, and install apparmor_parser; or ask for no profile",
        ),
        (
            "SELinux",
            node.selinux,
            "a container with a label is refused",
            "boot with selinux=1 and load a policy; or ask for no label",
        ),
    ] {
        // A node has one of them.
        let fine = enabled || node.apparmor || node.selinux;
        rows.push(row(PART, name, present(enabled, "enabled")).unless(fine, without, todo));
    }
}

fn daemon(rows: &mut Vec<Row>, containerd: &Containerd) {
    const PART: &str = "containerd";
    let socket = containerd.socket.display();
    let (version, handlers) = match &containerd.answer {
        Ok((version, handlers)) => (version, handlers),
        Err(reason) => {
            rows.push(row(PART, "containerd", format!("{socket}: {reason}")).partly(
                "nothing is known of its version and its handlers",
                "run this as root; see that containerd runs, with its CRI plugin",
            ));
            return;
        }
    };
    rows.push(row(PART, "containerd", told(version, &socket)).unless(
        version.is_supported(),
        "its protocol of shims is not spoken",
        "run containerd 1.6 or later",
    ));
    let ours: Vec<&str> = handlers
        .iter()
        .filter(|(_, kind)| kind == OURS)
        .map(|(name, _)| name.as_str())
        .collect();
    let found = match ours.as_slice() {
        [] => format!("none of {}", handlers.len()),
        ours => ours.join(" "),
    };
    rows.push(row(PART, "handlers", found).unless(
        !ours.is_empty(),
        "pods cannot ask for nucleus",
        "install the chart, or add a runtime of type io.containerd.nucleus.v2 to containerd's configuration",
    ));
}

fn told(version: &RuntimeVersion, socket: &dyn std::fmt::Display) -> String {
    format!("{} {}, {socket}", version.name, version.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Node {
        Node {
            architecture: "x86_64".into(),
            release: "6.12.3-amd64".into(),
            cgroups: Some(Mode::V2),
            controllers: ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma"]
                .map(str::to_owned)
                .into(),
            systemd: true,
            systemd_socket: true,
            landlock: 6,
            seccomp: true,
            apparmor: true,
            selinux: false,
            pressure: true,
            user_namespaces: 100,
            containerds: vec![Containerd {
                socket: "/run/containerd/containerd.sock".into(),
                answer: Ok((
                    RuntimeVersion {
                        name: "containerd".into(),
                        version: "v2.1.0".into(),
                    },
                    vec![
                        ("nucleus".into(), OURS.into()),
                        ("runc".into(), "io.containerd.runc.v2".into()),
                    ],
                )),
            }],
        }
    }

    /// The rows that are not as they should be.
    fn faults(change: impl FnOnce(&mut Node)) -> Vec<Row> {
        let mut node = good();
        change(&mut node);
        rows(&node).into_iter().filter(|row| row.state != State::Ok).collect()
    }

    #[test]
    fn a_node_that_has_everything_lacks_nothing() {
        assert_eq!(faults(|_| ()), []);
    }

    type Change = fn(&mut Node);

    #[test]
    fn each_thing_that_is_missing_is_one_row_with_what_to_do() {
        let cases: [(Change, &str, State); 17] = [
            (|node| node.release = "5.10.0-8".into(), "Linux", State::Missing),
            (|node| node.release = "custom".into(), "Linux", State::Missing),
            (
                |node| node.architecture = "riscv64".into(),
                "architecture",
                State::Missing,
            ),
            (|node| node.landlock = 0, "Landlock", State::Partly),
            (|node| node.landlock = 1, "Landlock", State::Partly),
            (|node| node.landlock = 5, "Landlock", State::Partly),
            (|node| node.seccomp = false, "seccomp", State::Partly),
            (|node| node.user_namespaces = 0, "user namespaces", State::Partly),
            (|node| node.pressure = false, "pressure", State::Partly),
            (|node| node.cgroups = None, "version", State::Missing),
            (|node| node.cgroups = Some(Mode::Hybrid), "version", State::Partly),
            (
                |node| {
                    node.controllers.remove("memory");
                },
                "controllers",
                State::Partly,
            ),
            (|node| node.systemd = false, "driver systemd", State::Partly),
            (|node| node.systemd_socket = false, "driver systemd", State::Partly),
            (|node| node.containerds.clear(), "containerd", State::Partly),
            (
                |node| node.containerds[0].answer = Err("connection refused".into()),
                "containerd",
                State::Partly,
            ),
            (
                |node| node.containerds[0].answer.as_mut().unwrap().1.clear(),
                "handlers",
                State::Partly,
            ),
        ];
        for (change, name, state) in cases {
            let faults = faults(change);
            let found = faults.iter().find(|row| row.name == name);
            let found = found.unwrap_or_else(|| panic!("no {name} in {faults:?}"));
            assert_eq!(found.state, state, "{found:?}");
            assert!(!found.without.is_empty() && !found.todo.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn a_node_needs_one_module_that_labels_processes() {
        assert_eq!(
            faults(|node| {
                node.apparmor = false;
                node.selinux = true;
            }),
            []
        );
        let without = faults(|node| node.apparmor = false);
        assert_eq!(
            without.iter().map(|row| row.name).collect::<Vec<_>>(),
            ["AppArmor", "SELinux"]
        );
    }

    #[test]
    fn what_another_containerd_lacks_is_told() {
        let old = faults(|node| node.containerds[0].answer.as_mut().unwrap().0.version = "1.5.2".into());
        assert_eq!(old[0].todo, "run containerd 1.6 or later");
    }

    /// The first cells of the page's tables below a heading.
    fn cells<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
        let lines = page.lines().skip_while(|line| *line != heading).skip(1);
        let section = lines.take_while(|line| !line.starts_with('#'));
        let rows = section.filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        rows.filter(|cell| !cell.starts_with('|')).collect()
    }

    #[test]
    fn the_page_about_nodes_has_the_same_rows_in_the_same_order() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/nodes.md");
        let page = std::fs::read_to_string(page).unwrap();
        let all = rows(&good());
        for (heading, part) in [
            ("## Kernel", "kernel"),
            ("## cgroups", "cgroups"),
            ("## Security modules", "security modules"),
            ("## containerd", "containerd"),
        ] {
            // What the page says beside is of what containers ask for, not of what a node has.
            let beside = ["hybrid", "a profile that is not loaded", "`linux.mountLabel`"];
            let not_a_fact =
                |cell: &&str| cell.contains(", driver ") || cell.starts_with("neither") || beside.contains(cell);
            let written: Vec<&str> = cells(&page, heading)
                .into_iter()
                .filter(|cell| !not_a_fact(cell))
                .collect();
            let own = all.iter().filter(|row| row.part == part);
            let own: Vec<&str> = own.map(|row| row.name).collect();
            assert_eq!(written, own, "{heading}");
        }
    }

    #[test]
    fn every_row_of_the_page_about_nodes_names_its_test_or_says_that_there_is_none() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/nodes.md");
        let page = std::fs::read_to_string(page).unwrap();
        let lines: Vec<&str> = page.lines().collect();
        let mut has_tests = false;
        for pair in lines.windows(2) {
            let (line, next) = (pair[0], pair[1]);
            if next.starts_with("|---") {
                has_tests = line.ends_with("| test |");
            } else if has_tests && line.starts_with("| ") {
                let test = line.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
                let named = ["`", "unit tests", "not tried"].iter().any(|word| test.contains(word));
                assert!(named, "no test: {line}");
            }
        }
    }
}
