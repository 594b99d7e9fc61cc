//! The kernel's cache of allowed calls, and what is left for those that are not in it.

use runtime_core::security::seccomp::{Architecture, Machine, compile_for, names};

use super::interpreter::{Call, is_cached, run};
use super::{ALLOW, known};

#[test]
fn every_call_that_is_allowed_whatever_its_arguments_is_in_the_kernel_s_cache() {
    for (profile_name, profile) in known() {
        let program = compile_for(&profile, Machine::X86_64).unwrap().program;
        let conditional = ["socket", "personality", "clone", "socketcall", "ipc"];
        for architecture in [Architecture::X86_64, Architecture::X86] {
            let mut cached = 0;
            for (name, number) in names(architecture) {
                let call = Call {
                    audit: architecture.audit(),
                    number,
                    args: [0; 6],
                };
                if run(&program, &call).0 == ALLOW && !conditional.contains(&name) {
                    assert!(is_cached(&program, call.audit, number), "{profile_name}: {name}");
                    cached += 1;
                }
            }
            assert!(cached > 250, "{profile_name}: {cached} calls");
        }
    }
}

#[test]
fn the_search_takes_few_instructions() {
    for (name, profile) in known() {
        let program = compile_for(&profile, Machine::X86_64).unwrap().program;
        let steps = |architecture: Architecture| {
            let calls = names(architecture).map(|(_, number)| Call {
                audit: architecture.audit(),
                number,
                args: [u64::MAX; 6],
            });
            calls.map(|call| run(&program, &call).1).max().unwrap()
        };
        let (native, i386) = (steps(Architecture::X86_64), steps(Architecture::X86));
        println!(
            "{name}: {} instructions; at most {native} a call, {i386} of i386",
            program.len()
        );
        assert!(native <= 40, "{name}: {native}");
    }
}

#[test]
fn containerd_s_default_compiles_in_microseconds() {
    for (name, profile) in known() {
        let mut least = std::time::Duration::MAX;
        for _ in 0..200 {
            let start = std::time::Instant::now();
            let filter = compile_for(&profile, Machine::X86_64).unwrap();
            least = least.min(start.elapsed());
            assert!(!filter.program.is_empty());
        }
        println!("{name}: {least:?}");
        // Without optimisation it says nothing.
        assert!(cfg!(debug_assertions) || least.as_micros() <= 300, "{name}: {least:?}");
    }
}
