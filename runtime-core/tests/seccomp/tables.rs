//! Names and numbers, beside those of others.

use std::collections::BTreeMap;

use runtime_core::security::seccomp::{Architecture, names};

/// What the `syscalls` crate has otherwise than the kernel does: for aarch64 the calls that 32-bit machines alone have
/// for times of 64 bits, and `fstatat` for what the kernel's table names newfstatat.
fn is_the_crate_s_error(architecture: Architecture, name: &str) -> bool {
    let aarch64 = architecture == Architecture::Aarch64;
    let times = (name.ends_with("_time64") || name.ends_with("time64")) || name == "clock_adjtime64";
    aarch64 && (times || name == "fstatat")
}

#[test]
fn the_numbers_are_those_of_the_syscalls_crate() {
    macro_rules! table {
        ($architecture:ident) => {
            syscalls::$architecture::Sysno::iter()
                .map(|call| (call.name().trim_start_matches("r#"), call.id() as u32))
                .collect::<Vec<_>>()
        };
    }
    let tables = [
        (Architecture::X86_64, table!(x86_64)),
        (Architecture::X86, table!(x86)),
        (Architecture::Aarch64, table!(aarch64)),
        (Architecture::Arm, table!(arm)),
    ];
    for (architecture, theirs) in tables {
        let ours: BTreeMap<_, _> = names(architecture).collect();
        assert!(theirs.len() > 300);
        for (name, number) in theirs {
            if !is_the_crate_s_error(architecture, name) {
                assert_eq!(ours.get(name), Some(&number), "{name} on {architecture:?}");
            }
        }
    }
}

#[test]
fn no_two_names_have_one_number() {
    use Architecture::{Aarch64, Arm, X32, X86, X86_64};
    for architecture in [X86_64, X86, X32, Aarch64, Arm] {
        let mut seen = BTreeMap::new();
        for (name, number) in names(architecture) {
            if let Some(other) = seen.insert(number, name) {
                // arm's own order of arguments: the same call under its second name.
                let twins = ["arm_sync_file_range", "sync_file_range2"];
                assert!(
                    twins.contains(&name) && twins.contains(&other),
                    "{number}: {name} and {other} on {architecture:?}"
                );
            }
        }
    }
}
