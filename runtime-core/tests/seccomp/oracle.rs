//! Our programs beside those of libseccomp, as runc uses it: with `--features oracle`, which needs libseccomp-dev
//! (`cargo e2e test unit` fetches it).

#[cfg(feature = "oracle")]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{Read, Seek};

    use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
    use oci_spec::runtime::{
        Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    };
    use runtime_core::security::seccomp::{Architecture, Machine, SockFilter, compile_for, is_int, names};

    use super::super::interpreter::{Call, run};
    use super::super::random::{self, Random};
    use super::super::reference;
    use super::super::{errno, known};

    /// Profiles of each kind, and calls made under each of them.
    const PROFILES: usize = 1_500;
    const CALLS: usize = 60;

    /// libseccomp's program, and what runc puts before it.
    struct Theirs {
        program: Vec<SockFilter>,
        /// The largest number that the profile names, by architecture.
        known: Vec<(Architecture, u32)>,
    }

    fn action(action: Action, errno_ret: Option<u32>) -> ScmpAction {
        match action {
            Action::ScmpActKill | Action::ScmpActKillThread => ScmpAction::KillThread,
            Action::ScmpActKillProcess => ScmpAction::KillProcess,
            Action::ScmpActTrap => ScmpAction::Trap,
            Action::ScmpActErrno => ScmpAction::Errno(errno_ret.unwrap_or(1) as i32),
            Action::ScmpActTrace => ScmpAction::Trace(errno_ret.unwrap_or(1) as u16),
            Action::ScmpActLog => ScmpAction::Log,
            Action::ScmpActAllow => ScmpAction::Allow,
            Action::ScmpActNotify => ScmpAction::Notify,
        }
    }

    fn comparison(arg: &LinuxSeccompArg) -> ScmpArgCompare {
        let op = match arg.op() {
            Operator::ScmpCmpNe => ScmpCompareOp::NotEqual,
            Operator::ScmpCmpLt => ScmpCompareOp::Less,
            Operator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
            Operator::ScmpCmpEq => ScmpCompareOp::Equal,
            Operator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
            Operator::ScmpCmpGt => ScmpCompareOp::Greater,
            Operator::ScmpCmpMaskedEq => {
                let two = arg.value_two().unwrap_or(0);
                return ScmpArgCompare::new(arg.index() as u32, ScmpCompareOp::MaskedEqual(arg.value()), two);
            }
        };
        ScmpArgCompare::new(arg.index() as u32, op, arg.value())
    }

    fn their(architecture: Architecture) -> ScmpArch {
        match architecture {
            Architecture::X86_64 => ScmpArch::X8664,
            Architecture::X86 => ScmpArch::X86,
            Architecture::X32 => ScmpArch::X32,
            Architecture::Aarch64 => ScmpArch::Aarch64,
            Architecture::Arm => ScmpArch::Arm,
        }
    }

    fn sections(profile: &LinuxSeccomp, machine: Machine) -> Vec<Architecture> {
        let named = profile.architectures().as_deref().unwrap_or_default();
        let foreign = match machine {
            Machine::Aarch64 => vec![(Arch::ScmpArchArm, Architecture::Arm)],
            _ => vec![
                (Arch::ScmpArchX86, Architecture::X86),
                (Arch::ScmpArchX32, Architecture::X32),
            ],
        };
        let named = foreign.into_iter().filter(|(name, _)| named.contains(name));
        std::iter::once(machine.native())
            .chain(named.map(|(_, architecture)| architecture))
            .collect()
    }

    /// What runc makes of a profile, step by step as it does (libcontainer/seccomp). None: libseccomp refuses a rule,
    /// and with it runc the container.
    fn theirs(profile: &LinuxSeccomp, machine: Machine) -> Option<Theirs> {
        let default = action(profile.default_action(), profile.default_errno_ret());
        let mut context = ScmpFilterContext::new(default).unwrap();
        let sections = sections(profile, machine);
        if machine.native() != Architecture::X86_64 {
            context.remove_arch(ScmpArch::X8664).unwrap();
            context.add_arch(their(machine.native())).unwrap();
        }
        for &architecture in &sections[1..] {
            context.add_arch(their(architecture)).unwrap();
        }
        // runc leaves it at the thread; we end the process.
        context.set_act_badarch(ScmpAction::KillProcess).unwrap();
        // As runc has it for profiles of this size.
        context.set_ctl_optimize(2).unwrap();
        let mut largest = vec![0; sections.len()];
        for rule in profile.syscalls().iter().flatten() {
            let action = action(rule.action(), rule.errno_ret());
            let args = rule.args().as_deref().unwrap_or_default();
            for name in rule.names() {
                for (&architecture, largest) in sections.iter().zip(&mut largest) {
                    let number = ScmpSyscall::from_name_by_arch(name, their(architecture));
                    *largest = number.map_or(*largest, |number| number.as_raw_syscall().max(*largest));
                }
                let Ok(number) = ScmpSyscall::from_name(name) else {
                    continue;
                };
                if action == default {
                    continue;
                }
                let conditions: Vec<_> = args.iter().map(comparison).collect();
                let indexes: BTreeSet<_> = args.iter().map(LinuxSeccompArg::index).collect();
                let added = if indexes.len() < args.len() {
                    let mut each = conditions.iter();
                    each.try_for_each(|one| context.add_rule_conditional(action, number, &[*one]).map(drop))
                } else {
                    context.add_rule_conditional(action, number, &conditions).map(drop)
                };
                added.ok()?;
            }
        }
        let permissive = matches!(
            profile.default_action(),
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
        );
        let known = sections.into_iter().zip(largest);
        let known = known.filter(|&(_, largest)| largest != 0 && !permissive);
        Some(Theirs {
            program: exported(&context),
            known: known
                .map(|(architecture, largest)| (architecture, largest as u32))
                .collect(),
        })
    }

    fn exported(context: &ScmpFilterContext) -> Vec<SockFilter> {
        let mut file = tempfile::tempfile().unwrap();
        context.export_bpf(&file).unwrap();
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let instruction = |bytes: &[u8]| SockFilter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        };
        bytes.chunks_exact(8).map(instruction).collect()
    }

    impl Theirs {
        fn says(&self, call: &Call) -> (u32, usize) {
            let x32 = call.audit == Architecture::X32.audit() && call.number & 1 << 30 != 0;
            let mut known = self.known.iter().filter(|(architecture, _)| {
                architecture.audit() == call.audit && (*architecture == Architecture::X32) == x32
            });
            match known.next() {
                // jset, jgt, ret and what leads there: runc's stub before libseccomp's program.
                Some(&(_, largest)) if call.number > largest => (errno(libc::ENOSYS), 6),
                _ => {
                    let (returned, steps) = run(&self.program, call);
                    (returned, steps + 5)
                }
            }
        }
    }

    /// Names that this version of libseccomp knows.
    fn common(names: Vec<&'static str>) -> Vec<&'static str> {
        names
            .into_iter()
            .filter(|name| ScmpSyscall::from_name(name).is_ok())
            .collect()
    }

    /// How many lists of conditions the profile has for a call.
    fn alternatives(profile: &LinuxSeccomp, name: Option<&str>) -> usize {
        let rules = profile.syscalls().iter().flatten();
        let rules = rules.map(|rule| {
            let named = rule.names().iter().filter(|own| Some(own.as_str()) == name).count();
            named * rule.args().as_ref().map_or(0, Vec::len)
        });
        rules.sum()
    }

    struct Tally {
        compared: usize,
        refused: usize,
        /// libseccomp says what no rule says: its tree of several comparisons of one argument loses some of them
        /// (`a < 2 || a < 9` is false for 5 there, as 64 bits). We do not follow it in that.
        mistaken: usize,
        /// Two rules hold that say different things, and libseccomp takes the other one.
        contradictory: usize,
        differing: Vec<String>,
    }

    fn differential(machine: Machine, seed: u64, conflicts: bool) -> Tally {
        let (names, listed) = random::names_on(machine);
        let names = common(names);
        let mut tally = Tally {
            compared: 0,
            refused: 0,
            mistaken: 0,
            contradictory: 0,
            differing: Vec::new(),
        };
        for round in 0..PROFILES as u64 {
            let mut random = Random::new(seed << 32 | round);
            let profile = random::profile(&mut random, &names, &listed, conflicts);
            let Some(theirs) = theirs(&profile, machine) else {
                tally.refused += 1;
                continue;
            };
            let ours = compile_for(&profile, machine).unwrap().program;
            for _ in 0..CALLS {
                let mut call = random::call(&mut random, &profile, machine, &names);
                let name = reference::name(&call);
                for (index, argument) in call.args.iter_mut().enumerate() {
                    // Upper bits that the kernel ignores: there we are stricter on purpose.
                    if name.is_some_and(|name| is_int(name, index as u8)) {
                        *argument &= 0xffff_ffff;
                    }
                }
                let (expected, returned) = (theirs.says(&call).0, run(&ours, &call).0);
                tally.compared += 1;
                if expected == returned {
                    continue;
                }
                let meant = reference::says(&profile, machine, &call).unwrap_or_default();
                let several = alternatives(&profile, name) > 1;
                match (meant.contains(&returned), meant.contains(&expected)) {
                    (true, false) if several => tally.mistaken += 1,
                    (true, true) if several => tally.contradictory += 1,
                    _ => tally.differing.push(format!(
                        "seed {seed} round {round}: {name:?} {call:x?}: {returned:#x}, libseccomp {expected:#x}"
                    )),
                }
            }
        }
        tally
    }

    fn compare(machine: Machine, seed: u64, conflicts: bool) -> Tally {
        let tally = differential(machine, seed, conflicts);
        println!(
            "{machine:?}: {} calls compared, {} that libseccomp mistakes, {} contradictory, {} others differ; \
             libseccomp refuses {} profiles",
            tally.compared,
            tally.mistaken,
            tally.contradictory,
            tally.differing.len(),
            tally.refused,
        );
        let first = &tally.differing[..tally.differing.len().min(10)];
        assert!(
            first.is_empty(),
            "{} of {}: {first:#?}",
            tally.differing.len(),
            tally.compared
        );
        assert!(tally.compared >= 50_000);
        // One in five hundred: or the exceptions would be the rule.
        assert!((tally.mistaken + tally.contradictory) * 500 < tally.compared);
        tally
    }

    #[test]
    fn every_call_comes_to_what_libseccomp_says() {
        for (machine, seed) in [(Machine::X86_64, 1), (Machine::Aarch64, 2)] {
            assert_eq!(compare(machine, seed, false).contradictory, 0);
        }
    }

    #[test]
    fn rules_that_contradict_each_other_come_to_what_libseccomp_says() {
        for (machine, seed) in [(Machine::X86_64, 3), (Machine::Aarch64, 4)] {
            compare(machine, seed, true);
        }
    }

    #[test]
    fn known_profiles_come_to_what_libseccomp_says_in_fewer_instructions() {
        let all = [Architecture::X86_64, Architecture::X86, Architecture::X32];
        let common = common(random::names_on(Machine::X86_64).0);
        for (name, mut profile) in known() {
            // What an older libseccomp does not know it skips: left out for both.
            let rules = profile.syscalls().as_deref().unwrap_or_default().iter().cloned();
            let rules = rules.filter_map(|mut rule| {
                let known = rule
                    .names()
                    .iter()
                    .filter(|name| common.contains(&name.as_str()))
                    .cloned();
                let known: Vec<_> = known.collect();
                rule.set_names(known);
                (!rule.names().is_empty()).then_some(rule)
            });
            let rules = rules.collect();
            profile.set_syscalls(Some(rules));
            let theirs = theirs(&profile, Machine::X86_64).unwrap();
            let ours = compile_for(&profile, Machine::X86_64).unwrap().program;
            let mut random = Random::new(7);
            let (mut worst, mut their_worst, mut sum, mut their_sum, mut count) = (0, 0, 0, 0, 0);
            for architecture in all {
                for number in (0..600).map(|number| match architecture {
                    Architecture::X32 => number | 1 << 30,
                    _ => number,
                }) {
                    let cut = names(architecture)
                        .find(|(_, known)| *known == number)
                        .map(|(name, _)| name);
                    for value in
                        (0..50_u64).chain([131_072, 131_080, 0xffff_ffff, 0x1_0000_0000, 0x7e02_0000, u64::MAX])
                    {
                        let mut args = [value, random.value(), 0, 0, 0, 0];
                        for (index, argument) in args.iter_mut().enumerate() {
                            if cut.is_some_and(|name| is_int(name, index as u8)) {
                                *argument &= 0xffff_ffff;
                            }
                        }
                        let call = Call {
                            audit: architecture.audit(),
                            number,
                            args,
                        };
                        let ((expected, their_steps), (returned, steps)) = (theirs.says(&call), run(&ours, &call));
                        assert_eq!(returned, expected, "{name}: {architecture:?} {number} {args:x?}");
                        if architecture == Architecture::X86_64 {
                            (worst, their_worst) = (worst.max(steps), their_worst.max(their_steps));
                            (sum, their_sum, count) = (sum + steps, their_sum + their_steps, count + 1);
                        }
                    }
                }
            }
            println!(
                "{name}: {} instructions, at most {worst} a call, {:.1} on average; libseccomp {} (and runc's stub), \
                 at most {their_worst}, {:.1} on average",
                ours.len(),
                sum as f64 / count as f64,
                theirs.program.len(),
                their_sum as f64 / count as f64,
            );
            assert!(ours.len() <= theirs.program.len() && worst <= their_worst);
        }
    }

    #[test]
    fn speed_beside_libseccomp_s() {
        for (name, profile) in known() {
            let ours = super::super::speed::quickest(|| compile_for(&profile, Machine::X86_64).unwrap());
            let theirs = super::super::speed::quickest(|| theirs(&profile, Machine::X86_64).unwrap());
            println!("{name}: compiled in {ours:?}, by libseccomp in {theirs:?}");
            // Not in an optimised build alone: a whole order of magnitude lies between the two.
            assert!(ours < theirs);
        }
    }
}
