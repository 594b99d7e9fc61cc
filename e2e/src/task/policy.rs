//! What a node demands: the handler's options, the pod's annotations, and what becomes of a container under them.

use anyhow::{Context as _, Result};
use containerd_client::tonic::Code;
use prost_types::Any;
use serde_json::{Value, json};

use crate::container::Builder;
use crate::expect::refused;
use crate::harness::Registry;
use crate::{same, spec};

const DIFFERS: &str = "the policy is nucleus' own";

/// The runtime's `options` table as containerd hands it on: `runtimeoptions.v1.Options`, field 3.
pub fn handler(options: &str) -> Any {
    let mut value = vec![0x1a];
    let mut length = options.len();
    while length >= 0x80 {
        value.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    value.push(length as u8);
    value.extend(options.as_bytes());
    Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        value,
    }
}

/// Lets the pod ask for something.
pub fn annotated<'a>(container: Builder<'a>, annotations: &Value) -> Builder<'a> {
    container.spec(|spec| spec["annotations"] = annotations.clone())
}

fn may_escalate(spec: &mut Value) {
    spec["process"]["noNewPrivileges"] = json!(false);
}

fn status(facts: &Value, field: &str) -> String {
    facts["status"][field].as_str().unwrap_or_default().to_owned()
}

pub fn register(t: &mut Registry) {
    t.add("without a policy a process may escalate as its spec says", async |c| {
        let facts = c.probe(may_escalate).await?;
        same!(status(&facts, "NoNewPrivs"), "0");
        Ok(())
    });
    t.add("the handler's options hold for init and for execs", async |c| {
        let options = handler("no_new_privs = true\n[capabilities]\nallow = [\"CAP_CHOWN\", \"CAP_KILL\"]\n");
        let container = c
            .container()
            .waiting()
            .spec(may_escalate)
            .options(options)
            .start()
            .await?;
        let exec = container.exec(&["probe"]).process(|process| {
            process["noNewPrivileges"] = json!(false);
            process["capabilities"] = json!({
                "bounding": spec::CAPABILITIES, "permitted": spec::CAPABILITIES, "effective": spec::CAPABILITIES,
            });
        });
        let exec = exec.output().await?.json()?;
        let init = crate::processes::text(container.pid.get(), "status");
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            same!(status(&exec, set), "0000000000000021", "an exec's {set}");
            anyhow::ensure!(
                init.contains(&format!("{set}:\t0000000000000021\n")),
                "init's {set}: {init}"
            );
        }
        same!(status(&exec, "NoNewPrivs"), "1");
        anyhow::ensure!(init.contains("NoNewPrivs:\t1\n"), "{init}");
        Ok(())
    })
    .differs(DIFFERS);
    t.add(
        "a pod's annotation tightens, and the record says who decided",
        async |c| {
            let container = annotated(
                c.container().waiting().spec(may_escalate),
                &json!({
                    "nucleus.dev/no_new_privs": "true", "example.com/other": "x",
                }),
            );
            let container = container.start().await?;
            let init = crate::processes::text(container.pid.get(), "status");
            anyhow::ensure!(init.contains("NoNewPrivs:\t1\n"), "{init}");
            let record = c.daemon.bundle(&c.namespace, &container.id).join("nucleus.json");
            let record: Value = serde_json::from_slice(&std::fs::read(record)?)?;
            same!(record["policy"]["no_new_privs"], json!({"value": true, "from": "pod"}));
            same!(record["policy"]["mode"], json!({"value": "agent", "from": "default"}));
            Ok(())
        },
    )
    .differs(DIFFERS);
    t.add(
        "an annotation that loosens, or that is no setting, is refused by name",
        async |c| {
            for (annotation, value, words) in [
                ("no_new_privs", "false", "true is demanded by the handler's options"),
                ("no_new_priv", "true", "\"no_new_privs\" may be meant"),
                ("capabilities.allow", "CAP_TIME_TRAVEL", "CAP_TIME_TRAVEL"),
                ("runtime", "/bin/sh", "\"native\" or \"gvisor\""),
                ("gvisor.path", "/bin/sh", "only the node's configuration"),
            ] {
                let container = c.container().waiting().options(handler("no_new_privs = true\n"));
                let container = annotated(container, &json!({format!("nucleus.dev/{annotation}"): value}));
                refused(container.create().await)?
                    .with_code(Code::InvalidArgument)?
                    .saying(words)?;
            }
            Ok(())
        },
    )
    .differs(DIFFERS);
    t.add("an option that is no setting is refused with its line", async |c| {
        let container = c
            .container()
            .waiting()
            .options(handler("mode = \"agent\"\nmood = \"good\"\n"));
        refused(container.create().await)?
            .with_code(Code::InvalidArgument)?
            .saying("line 2: there is no setting \"mood\"; \"mode\" may be meant")?;
        Ok(())
    })
    .differs(DIFFERS);
    t.add(
        "production refuses a container without a memory limit, but not a sandbox",
        async |c| {
            let production = || handler("mode = \"production\"\n");
            refused(c.container().waiting().options(production()).create().await)?
                .with_code(Code::InvalidArgument)?
                .saying("require.memory_limit = true")?;
            let limited = c.container().args(&["true"]).options(production());
            let limited = limited.spec(|spec| spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20}));
            same!(limited.output().await?.code, 0);
            let sandbox = c.container().args(&["true"]).options(production());
            let sandbox = annotated(sandbox, &json!({"io.kubernetes.cri.container-type": "sandbox"}));
            same!(sandbox.output().await?.code, 0);
            Ok(()) as Result<()>
        },
    )
    .differs(DIFFERS);
    t.add(
        "host paths that give the host away are refused, also behind a link",
        async |c| {
            let link = c.directory.join("link");
            std::os::unix::fs::symlink("/etc", &link)?;
            let harmless = c.directory.join("harmless");
            std::fs::create_dir_all(&harmless)?;
            for (source, words) in [
                ("/".to_owned(), "the host's root"),
                ("/var/run/docker.sock".to_owned(), "a container runtime's socket"),
                (link.display().to_string(), "leads to \"/etc\""),
            ] {
                let container = c.container().waiting().options(handler("host_paths = 'refuse'\n"));
                let container = container.spec(|spec| {
                    spec::push(spec, "/mounts", spec::mount("/mnt", "bind", &source, &["rbind", "ro"]));
                });
                refused(container.create().await)?
                    .saying("host_paths = \"refuse\"")?
                    .saying(words)?;
            }
            let container = c
                .container()
                .args(&["true"])
                .options(handler("host_paths = 'refuse'\n"));
            let container = container.spec(|spec| {
                let source = harmless.display().to_string();
                spec::push(spec, "/mounts", spec::mount("/mnt", "bind", &source, &["rbind", "ro"]));
            });
            same!(container.output().await?.code, 0);
            Ok(())
        },
    )
    .differs(DIFFERS);
    t.add(
        "a hidden proc shows a user its own processes and nothing else",
        async |c| {
            let script = "ls /proc | grep -v '^[0-9]' | tr '\\n' ' '; ls -d /proc/1 /proc/self";
            let container = c
                .container()
                .waiting()
                .options(handler("proc = 'hidden'\n"))
                .start()
                .await?;
            let exec = container.exec(&["sh", "-c", script]).process(|process| {
                process["user"] = json!({"uid": 1000, "gid": 1000});
                process["capabilities"] = json!({});
            });
            same!(exec.output().await?.stdout, "self thread-self /proc/self\n");
            Ok(())
        },
    )
    .differs(DIFFERS);
    t.add(
        "memory that is writable and executable is denied to init and execs",
        async |c| {
            let directory = c.directory.join("programs");
            std::fs::create_dir_all(&directory)?;
            // A program whose data are to be mapped writable and executable: the kernel's own loader has to refuse it.
            let program = directory.join("p");
            std::fs::write(&program, with_executable_data(std::fs::read(&c.tools.probe)?)?)?;
            std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            let volume = |spec: &mut Value| {
                let source = directory.display().to_string();
                spec::push(spec, "/mounts", spec::mount("/mnt", "bind", &source, &["rbind", "ro"]));
            };
            same!(
                c.container()
                    .args(&["/mnt/p", "exit", "7"])
                    .spec(volume)
                    .output()
                    .await?
                    .code,
                7
            );
            let denied = || handler("memory_deny_write_execute = true\n");
            let container = c
                .container()
                .args(&["/mnt/p", "exit", "7"])
                .spec(volume)
                .options(denied());
            anyhow::ensure!(
                !container.output().await.is_ok_and(|output| output.code == 7),
                "init ran"
            );
            let container = c.container().waiting().spec(volume).options(denied()).start().await?;
            let exec = container.exec(&["/mnt/p", "exit", "7"]).output().await;
            anyhow::ensure!(!exec.is_ok_and(|output| output.code == 7), "an exec ran");
            same!(container.sh("probe exit 7").await?.code, 7);
            Ok(())
        },
    )
    .differs(DIFFERS);
    t.add("a kernel that is not what is demanded is refused by name", async |c| {
        for (options, words) in [
            (
                "require.lsm = ['no-such-module']\n",
                "no security module \"no-such-module\"",
            ),
            ("require.landlock_abi = 1000\n", "Landlock has ABI"),
        ] {
            let container = c.container().waiting().options(handler(options));
            refused(container.create().await)?.saying(words)?;
        }
        Ok(()) as Result<()>
    })
    .differs(DIFFERS);
}

/// The ELF file with its data segments made executable: p_flags of PT_LOAD (elf(5)), 64 bits, little endian.
fn with_executable_data(mut elf: Vec<u8>) -> Result<Vec<u8>> {
    const LOAD: usize = 1;
    let number = |elf: &[u8], at: usize, size: usize| -> Result<usize> {
        let bytes = elf.get(at..at + size).context("a short ELF file")?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (offset, size, count) = (number(&elf, 32, 8)?, number(&elf, 54, 2)?, number(&elf, 56, 2)?);
    for header in (0..count).map(|index| offset + index * size) {
        let (kind, flags) = (number(&elf, header, 4)?, number(&elf, header + 4, 4)?);
        if kind == LOAD && flags == 6 {
            elf[header + 4] = 7;
        }
    }
    Ok(elf)
}
