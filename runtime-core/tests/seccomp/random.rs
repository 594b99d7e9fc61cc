//! Profiles and calls by chance, the same ones for the same seed.

use std::collections::BTreeSet;

use oci_spec::runtime::LinuxSeccomp;
use runtime_core::security::seccomp::{Architecture, Machine, names};
use serde_json::{Value, json};

use super::interpreter::Call;

/// xorshift64*, which is enough here.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Few different values, at the edges of 32 and 64 bits, so that conditions and calls often meet.
    pub fn value(&mut self) -> u64 {
        const EDGES: [u64; 16] = [
            0,
            1,
            2,
            8,
            0xff,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_fffe,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0001,
            0x1_0000_0008,
            0x2_0000_0000,
            0x7fff_ffff_ffff_ffff,
            0xffff_ffff_0000_0000,
            u64::MAX,
        ];
        let edge = *self.pick(&EDGES);
        match self.below(4) {
            0 => edge.wrapping_add(1),
            1 => edge.wrapping_sub(1),
            _ => edge,
        }
    }
}

const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_LOG",
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

/// A profile over `names`. With `conflicts` rules with conditions may say different things of one call.
pub fn profile(random: &mut Random, names: &[&str], architectures: &[&str], conflicts: bool) -> LinuxSeccomp {
    let mut profile = json!({"defaultAction": random.pick(&ACTIONS)});
    if random.chance(30) {
        profile["defaultErrnoRet"] = (random.below(200) as u32).into();
    }
    let listed: Vec<&str> = architectures.iter().copied().filter(|_| random.chance(70)).collect();
    if !listed.is_empty() {
        profile["architectures"] = listed.into();
    }
    let most = if random.chance(10) { 60 } else { 12 };
    let rules = 1 + random.below(most);
    // A few favourites, so that calls have several rules.
    let favourites: Vec<&str> = (0..4).map(|_| *random.pick(names)).collect();
    let conditional = random.pick(&ACTIONS).to_string();
    let rules: Vec<Value> = (0..rules)
        .map(|_| rule(random, names, &favourites, (!conflicts).then_some(&conditional)))
        .collect();
    profile["syscalls"] = rules.into();
    serde_json::from_value(profile).unwrap()
}

fn rule(random: &mut Random, names: &[&str], favourites: &[&str], conditional: Option<&String>) -> Value {
    let list = if random.chance(50) { favourites } else { names };
    let many = if random.chance(15) { 40 } else { 3 };
    let called: Vec<&str> = (0..1 + random.below(many)).map(|_| *random.pick(list)).collect();
    let mut rule = json!({"names": called, "action": random.pick(&ACTIONS)});
    if random.chance(40) {
        rule["errnoRet"] = (random.below(200) as u32).into();
    }
    if random.chance(60) {
        let args: Vec<Value> = (0..1 + random.below(3)).map(|_| condition(random)).collect();
        rule["args"] = args.into();
        if let Some(action) = conditional {
            rule["action"] = action.as_str().into();
            rule["errnoRet"] = 7.into();
        }
    }
    rule
}

fn condition(random: &mut Random) -> Value {
    let op = *random.pick(&OPERATORS);
    json!({
        "index": if random.chance(70) { random.below(2) } else { random.below(6) },
        "op": op,
        "value": random.value(),
        "valueTwo": random.value(),
    })
}

fn architectures(machine: Machine) -> &'static [Architecture] {
    match machine {
        Machine::X86_64 => &[Architecture::X86_64, Architecture::X86, Architecture::X32],
        Machine::Aarch64 => &[Architecture::Aarch64, Architecture::Arm],
    }
}

/// All calls that a machine has, and what profiles for it may list as architectures.
pub fn names_on(machine: Machine) -> (Vec<&'static str>, Vec<&'static str>) {
    let all = architectures(machine).iter().flat_map(|&one| names(one));
    let all: BTreeSet<_> = all.map(|(name, _)| name).collect();
    let listed = match machine {
        Machine::X86_64 => vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        Machine::Aarch64 => vec!["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    };
    (all.into_iter().collect(), listed)
}

/// A call that meets the profile's rules more often than not.
pub fn call(random: &mut Random, profile: &LinuxSeccomp, machine: Machine, all: &[&str]) -> Call {
    let architecture = *random.pick(architectures(machine));
    let rules = profile.syscalls().as_deref().unwrap();
    let name = match random.below(10) {
        0..=6 => {
            let rule = random.pick(rules);
            random.pick(rule.names()).as_str()
        }
        7 => *random.pick(&["socketcall", "ipc"]),
        _ => *random.pick(all),
    };
    let mut args = [0; 6].map(|_: u64| random.value());
    let mut own = names(architecture).filter(|(known, _)| *known == name);
    let number = match own.next() {
        Some((_, number)) if !random.chance(3) => number,
        _ => {
            let edges = [
                0,
                1 << 30,
                1 << 31,
                3 << 30,
                u32::MAX,
                u32::MAX - 1,
                460,
                500,
                (1 << 30) + 460,
            ];
            let away = random.below(2) * random.below(600);
            random.pick(&edges).wrapping_add(away as u32)
        }
    };
    if architecture == Architecture::X86 || architecture == Architecture::Arm {
        args = args.map(|argument| argument & 0xffff_ffff);
    }
    // The selectors of socketcall and ipc are small.
    if matches!(name, "socketcall" | "ipc") && random.chance(80) {
        args[0] = random.below(26) as u64;
    }
    Call {
        audit: architecture.audit(),
        number,
        args,
    }
}
