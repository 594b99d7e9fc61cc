//! Filters under the real kernel: in a thread of this process, which takes the filter and ends.

use std::thread;

use runtime_core::sys::{process, seccomp};
use serde_json::{Value, json};

use super::interpreter::{Call, run};
use super::random::Random;
use super::{ALLOW, compiled, errno, known, profile};
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

/// Calls that look at none of their arguments: they can be made with any.
const HARMLESS: [(&str, libc::c_long); 6] = [
    ("getpid", libc::SYS_getpid),
    ("gettid", libc::SYS_gettid),
    ("getuid", libc::SYS_getuid),
    ("geteuid", libc::SYS_geteuid),
    ("getgid", libc::SYS_getgid),
    ("getegid", libc::SYS_getegid),
];

/// What the kernel makes of a call: 0, or the errno.
#[expect(unsafe_code, reason = "no library makes a call with arguments that it does not have")]
fn call(number: libc::c_long, args: [u64; 6]) -> i32 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: none of the calls above looks at its arguments, nor at memory.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
        _ => 0,
    }
}

#[test]
fn the_kernel_says_of_calls_by_chance_what_the_interpreter_says() {
    const PROFILES: u64 = 100;
    const CALLS: usize = 100;
    const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let mut denied = 0;
    for round in 0..PROFILES {
        let mut random = Random::new(11 << 32 | round);
        let rules: Vec<Value> = (0..1 + random.below(6))
            .map(|_| {
                let args: Vec<Value> = (0..random.below(4))
                    .map(|_| {
                        let op = format!("SCMP_CMP_{}", random.pick(&OPERATORS));
                        json!({"index": random.below(6), "value": random.value(), "valueTwo": random.value(), "op": op})
                    })
                    .collect();
                let name = random.pick(&HARMLESS).0;
                json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 + random.below(4000), "args": args})
            })
            .collect();
        let filter = compile_for(
            &profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})),
            Machine::HOST,
        )
        .unwrap();
        let thread = thread::spawn(move || {
            let mut calls = Vec::new();
            for _ in 0..CALLS {
                let args = std::array::from_fn(|_| random.value());
                calls.push((random.pick(&HARMLESS).1, args));
            }
            process::set_no_new_privileges().unwrap();
            assert!(seccomp::load(&filter).unwrap().is_none());
            let said = calls
                .iter()
                .map(|(number, args)| call(*number, *args))
                .collect::<Vec<_>>();
            (filter.program, calls, said)
        });
        let (program, calls, said) = thread.join().unwrap();
        for ((number, args), said) in calls.into_iter().zip(said) {
            let asked = Call {
                audit: Machine::HOST.native().audit(),
                number: number as u32,
                args,
            };
            let expected = if said == 0 { ALLOW } else { errno(said) };
            assert_eq!(run(&program, &asked).0, expected, "round {round}: {asked:x?}");
            denied += usize::from(said != 0);
        }
    }
    assert!((1_000..9_000).contains(&denied), "{denied} of 10,000 were denied");
}
