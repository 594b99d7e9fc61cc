//! What happens for every number of every architecture.

use std::cmp::Ordering;

use super::architecture::{Architecture, X32_BIT};
use super::profile::{Compare, Condition, Profile, RET_ERRNO, RET_KILL_PROCESS};
use super::{multiplexed, width};

/// A call that nobody knew when the profile was written: the C library then takes an older one instead, where EPERM
/// would end it.
const UNKNOWN: u32 = RET_ERRNO | libc::ENOSYS as u32;
/// A calling convention that the filter has no section for: no program comes there by mistake. libseccomp ends the
/// thread alone, which leaves the others of an attacker's to go on.
pub(super) const FOREIGN: u32 = RET_KILL_PROCESS;
/// -1 is what a tracer leaves as a number when it wants a call skipped (seccomp(2)): not x32's, whatever its bits say.
const SKIPPED: u32 = u32::MAX;

/// All numbers that the kernel reports under one architecture.
pub(super) struct Space {
    /// seccomp_data's `arch`.
    pub audit: u32,
    /// Whole and ascending: the first one starts at 0, each reaches to the next one's start.
    pub spans: Vec<Span>,
}

/// Numbers with one outcome.
pub(super) struct Span {
    pub first: u32,
    pub outcome: Outcome,
}

/// What a filter says of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The same, whatever the arguments.
    Return(u32),
    /// The first of these whose tests all hold; else the last value.
    Rules(Vec<Rule>, u32),
}

/// Tests that must all hold, and what is returned then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub tests: Vec<Test>,
    pub action: u32,
}

/// A condition as it is compared on one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub condition: Condition,
    /// All 64 bits are looked at, not only the lower 32.
    pub wide: bool,
}

/// What happens for all numbers of all `architectures`, the first of which is the native one; for no other.
pub(super) fn spaces(profile: &Profile<'_>, architectures: &[Architecture]) -> Vec<Space> {
    let x32 = architectures.contains(&Architecture::X32);
    let spaces = architectures
        .iter()
        .filter(|&&architecture| architecture != Architecture::X32);
    spaces
        .map(|&architecture| {
            let mut space = Painter::new(profile.default);
            match architecture {
                Architecture::X86_64 => x86_64(&mut space, profile, x32),
                _ => space.section(0, u32::MAX, Section::new(profile, architecture)),
            }
            Space {
                audit: architecture.audit(),
                spans: space.spans,
            }
        })
        .collect()
}

/// x86_64 and x32 share an architecture; bit 30 tells them apart, wherever bit 31 stands.
fn x86_64(space: &mut Painter, profile: &Profile<'_>, with_x32: bool) {
    const SIGN: u32 = 1 << 31;
    let native = Section::new(profile, Architecture::X86_64);
    let unknown = native.unknown();
    space.section(0, X32_BIT - 1, native);
    if with_x32 {
        let x32 = Section::new(profile, Architecture::X32);
        let unknown_x32 = x32.unknown();
        space.section(X32_BIT, SIGN - 1, x32);
        space.fill(SIGN, unknown.unwrap_or(profile.default));
        space.fill(SIGN | X32_BIT, unknown_x32.unwrap_or(profile.default));
    } else {
        space.fill(X32_BIT, FOREIGN);
        space.fill(SIGN, unknown.unwrap_or(FOREIGN));
        space.fill(SIGN | X32_BIT, FOREIGN);
        space.fill(SKIPPED, profile.default);
    }
}

/// What the rules say of one architecture.
struct Section {
    decisions: Vec<(u32, Outcome)>,
    /// The largest number that the profile names, if numbers above it are unknown to it. Rules that repeat the default
    /// count; 0 alone does not; calls behind socketcall and ipc do not. All as runc has it since 1.0.0-rc93.
    known: Option<u32>,
}

impl Section {
    fn new(profile: &Profile<'_>, architecture: Architecture) -> Self {
        let mut known = 0;
        let mut rules = Vec::with_capacity(512);
        for rule in &profile.rules {
            let redundant = rule.action == profile.default;
            for &(name, numbers) in &rule.calls {
                let number = numbers.on(architecture);
                let shared = match architecture {
                    Architecture::X86 => multiplexed::i386(name),
                    _ => None,
                };
                if shared.is_none() {
                    known = known.max(number.unwrap_or(0));
                }
                if redundant {
                    continue;
                }
                let mut add = |number: u32, selector: Option<u32>| {
                    let mut add = |conditions: &[Condition]| {
                        let tests = tests(architecture, name, conditions, selector);
                        let action = rule.action;
                        rules.push((number, Rule { tests, action }));
                    };
                    match rule.alternatives.as_slice() {
                        [] => add(&[]),
                        alternatives => alternatives.iter().for_each(|conditions| add(conditions)),
                    }
                };
                if let Some((selector, number)) = shared {
                    add(number, Some(selector));
                }
                if let Some(number) = number {
                    add(number, None);
                }
            }
        }
        // Stable: the rules for one number keep their order.
        rules.sort_by_key(|(number, _)| *number);
        let mut decisions: Vec<(u32, Outcome)> = Vec::with_capacity(rules.len());
        for (number, rule) in rules {
            match decisions.last_mut() {
                Some((last, outcome)) if *last == number => add(outcome, rule),
                _ => {
                    let mut outcome = Outcome::Rules(Vec::new(), profile.default);
                    add(&mut outcome, rule);
                    decisions.push((number, outcome));
                }
            }
        }
        for (_, outcome) in &mut decisions {
            if let Outcome::Rules(rules, _) = outcome {
                rules.sort_by(|one, other| precedence(&one.tests, &other.tests));
                rules.dedup();
            }
        }
        Self {
            decisions,
            known: (known != 0 && !profile.permissive).then_some(known),
        }
    }

    fn unknown(&self) -> Option<u32> {
        self.known.map(|_| UNKNOWN)
    }
}

/// The first rule without conditions is the whole answer for its call, whatever stands before or after it: libseccomp
/// takes it for the most inclusive.
fn add(outcome: &mut Outcome, rule: Rule) {
    if let Outcome::Rules(rules, _) = outcome {
        if rule.tests.is_empty() {
            *outcome = Outcome::Return(rule.action);
        } else {
            rules.push(rule);
        }
    }
}

/// What is compared on `architecture`; what cannot fail is left out. With `selector` the first argument is that of a
/// call that stands for many, and a condition on it is lost.
fn tests(architecture: Architecture, name: &str, conditions: &[Condition], selector: Option<u32>) -> Vec<Test> {
    let selected = selector.map(|selector| Test {
        condition: Condition {
            argument: 0,
            compare: Compare::Equal,
            mask: u64::from(u32::MAX),
            value: selector.into(),
        },
        wide: false,
    });
    let own = conditions
        .iter()
        .filter(|condition| selector.is_none() || condition.argument != 0)
        .map(|&condition| test(architecture, name, condition))
        .filter(|test| test.condition.mask != 0);
    selected.into_iter().chain(own).collect()
}

fn test(architecture: Architecture, name: &str, mut condition: Condition) -> Test {
    const LOWER: u64 = u32::MAX as u64;
    let fits = condition.value <= LOWER && (condition.compare != Compare::Masked || condition.mask <= LOWER);
    let wide = architecture.is_wide() && !(fits && width::is_int(name, condition.argument));
    if !wide {
        condition.mask &= LOWER;
        condition.value &= LOWER;
    }
    Test { condition, wide }
}

/// Among rules with conditions, which is asked first: it matters only where two hold and say different things. The
/// order is that of libseccomp's tree: later arguments before earlier ones; equality before order; larger values
/// first, but smaller ones first for "less"; of two that begin alike, the one with less to say.
fn precedence(one: &[Test], other: &[Test]) -> Ordering {
    let class = |compare| match compare {
        Compare::Equal | Compare::NotEqual | Compare::Masked => 3,
        Compare::Less | Compare::LessOrEqual => 2,
        Compare::Greater | Compare::GreaterOrEqual => 1,
    };
    let key = |test: &Test| {
        let Condition {
            argument,
            compare,
            value,
            ..
        } = test.condition;
        let class = class(compare);
        (argument, class, if class == 2 { !value } else { value })
    };
    for (one, other) in one.iter().zip(other) {
        match key(other).cmp(&key(one)) {
            Ordering::Equal => {}
            order => return order,
        }
    }
    one.len().cmp(&other.len())
}

/// Builds spans in ascending order, joining neighbours with one outcome.
struct Painter {
    default: u32,
    spans: Vec<Span>,
}

impl Painter {
    fn new(default: u32) -> Self {
        Self {
            default,
            spans: Vec::new(),
        }
    }

    fn push(&mut self, first: u32, outcome: Outcome) {
        let same = |last: &Span| matches!(outcome, Outcome::Return(_)) && last.outcome == outcome;
        if !self.spans.last().is_some_and(same) {
            self.spans.push(Span { first, outcome });
        }
    }

    fn fill(&mut self, first: u32, returned: u32) {
        self.push(first, Outcome::Return(returned));
    }

    /// From `first` to `last` what the section says.
    fn section(&mut self, first: u32, last: u32, section: Section) {
        let known = section.known.unwrap_or(last);
        let mut next = first;
        for (number, outcome) in section.decisions {
            if number > known {
                break;
            }
            if number > next {
                self.fill(next, self.default);
            }
            self.push(number, outcome);
            next = number + 1;
        }
        if next <= known {
            self.fill(next, self.default);
        }
        if known < last {
            self.fill(known + 1, UNKNOWN);
        }
    }
}
