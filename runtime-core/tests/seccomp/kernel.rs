//! Filters under the real kernel: in a thread of this process, which takes the filter and ends.

use std::thread;

use runtime_core::sys::{process, seccomp};
use serde_json::{Value, json};

use super::{compiled, known};
use runtime_core::security::seccomp::{Machine, compile_for};

/// What `call` comes to in a thread under the profile.
fn under<T: Send + 'static>(profile: Value, call: impl FnOnce() -> T + Send + 'static) -> T {
    let filter = compiled(profile);
    let thread = thread::spawn(move || {
        process::set_no_new_privileges().unwrap();
        assert!(seccomp::load(&filter).unwrap().is_none());
        call()
    });
    thread.join().unwrap()
}

#[test]
fn the_kernel_gives_the_errno_of_the_rule() {
    let rule = json!({"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77});
    let errno = under(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}), || {
        rustix::process::getpriority_process(None).unwrap_err().raw_os_error()
    });
    assert_eq!(errno, 77);
}

#[test]
fn the_kernel_looks_at_the_arguments() {
    let args = json!([{"index": 0, "value": libc::AF_NETLINK, "op": "SCMP_CMP_EQ"}]);
    let rule = json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 78, "args": args});
    let errno = under(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}), || {
        use rustix::net::{AddressFamily, SocketType, socket};
        socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        socket(AddressFamily::NETLINK, SocketType::RAW, None)
            .unwrap_err()
            .raw_os_error()
    });
    assert_eq!(errno, 78);
}

#[test]
fn the_kernel_takes_every_known_profile_s_program() {
    for (name, profile) in known() {
        let filter = compile_for(&profile, Machine::HOST).unwrap();
        let thread = thread::spawn(move || {
            process::set_no_new_privileges().unwrap();
            seccomp::load(&filter).map(drop)
        });
        thread.join().unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
