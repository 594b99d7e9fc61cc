//! runc for a machine whose root lacks capabilities: what a privileged container is to have beyond them is left out, so
//! that `docker run --privileged` gives what there is instead of failing.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::Value;

use super::write;

/// dockerd's containerd calls this in runc's place.
#[derive(Args)]
pub struct LesserRuntimeArgs {
    runc: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Capabilities by number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Takes what the machine lacks out of the bundle or the process, and becomes runc.
pub fn lesser_runtime(args: &LesserRuntimeArgs) -> Result<ExitCode> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let here = bounding_set(&status).context("/proc/self/status has no CapBnd")?;
    let bundle = option(&args.args, "--bundle", "-b").map(|bundle| Path::new(bundle).join("config.json"));
    let process = option(&args.args, "--process", "-p").map(PathBuf::from);
    for file in bundle.into_iter().chain(process) {
        let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let mut spec: Value = serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))?;
        lessen(&mut spec, here);
        write(&file, spec.to_string())?;
    }
    let error = Command::new(&args.runc).args(&args.args).exec();
    Err(anyhow!(error).context(format!("execute {}", args.runc.display())))
}

fn bounding_set(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn option<'a>(args: &'a [String], long: &str, short: &str) -> Option<&'a str> {
    args.iter().enumerate().find_map(|(index, arg)| {
        if arg == long || arg == short {
            return args.get(index + 1).map(String::as_str);
        }
        arg.strip_prefix(long)?.strip_prefix('=')
    })
}

/// Works on a container's specification as on a process's.
fn lessen(spec: &mut Value, here: u64) {
    let has = |name: &str| {
        let number = name
            .strip_prefix("CAP_")
            .and_then(|name| NAMES.iter().position(|known| *known == name));
        number.is_some_and(|number| here & (1 << number) != 0)
    };
    for capabilities in ["/process/capabilities", "/capabilities"] {
        let Some(Value::Object(sets)) = spec.pointer_mut(capabilities) else {
            continue;
        };
        for set in sets.values_mut().filter_map(Value::as_array_mut) {
            set.retain(|name| name.as_str().is_some_and(has));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_machine_lacks_is_left_out_of_a_specification_and_of_a_process() {
        let here = bounding_set("Name:\tx\nCapBnd:\t000001fffeffffff\n").expect("a set");
        let mut spec =
            json!({"process": {"capabilities": {"bounding": ["CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_NEW"]}}});
        lessen(&mut spec, here);
        assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_SYS_ADMIN"]));
        let mut process = json!({"capabilities": {"effective": ["CAP_CHOWN", "CAP_SYS_RESOURCE"]}});
        lessen(&mut process, here);
        assert_eq!(process["capabilities"]["effective"], json!(["CAP_CHOWN"]));
    }

    #[test]
    fn options_are_found_however_they_are_written() {
        let args: Vec<String> = ["--root", "/r", "create", "--bundle", "/b", "--process=/p", "id"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(option(&args, "--bundle", "-b"), Some("/b"));
        assert_eq!(option(&args, "--process", "-p"), Some("/p"));
        assert_eq!(option(&args, "--console-socket", "-c"), None);
    }
}
