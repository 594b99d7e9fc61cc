//! The filter as a program: the architecture, then a binary search for the number, then the arguments.

use super::assembler::{Assembler, Jump, Label, MAX_INSTRUCTIONS};
use super::decision::{FOREIGN, Outcome, Rule, Space, Span, Test};
use super::profile::Compare;
use super::{Error, SockFilter};

/// Offsets in struct seccomp_data of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The program for `spaces`; the first one is asked for first.
pub(super) fn program(spaces: &[Space]) -> Result<Vec<SockFilter>, Error> {
    let mut code = Assembler::new();
    let mut next = Label::Return(FOREIGN);
    for space in spaces.iter().rev() {
        let search = search(&mut code, &space.spans);
        let search = code.load(NUMBER, u32::MAX, search);
        next = code.jump(Jump::Equal, space.audit, search, next);
    }
    let start = code.load(ARCHITECTURE, u32::MAX, next);
    let program = code.finish(start);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong {
            instructions: program.len(),
            most: MAX_INSTRUCTIONS,
        });
    }
    Ok(program)
}

/// Finds the number's span by halves.
fn search(code: &mut Assembler, spans: &[Span]) -> Label {
    match spans {
        [] => Label::Return(FOREIGN),
        [only] => outcome(code, &only.outcome),
        // One number in the midst of others is told from them by one comparison.
        [before, single, after]
            if after.first - single.first == 1
                && before.outcome == after.outcome
                && matches!(before.outcome, Outcome::Return(_)) =>
        {
            let inside = outcome(code, &single.outcome);
            let outside = outcome(code, &before.outcome);
            code.jump(Jump::Equal, single.first, inside, outside)
        }
        _ => {
            let (lower, upper) = spans.split_at(spans.len() / 2);
            let first = upper[0].first;
            let upper = search(code, upper);
            let lower = search(code, lower);
            code.jump(Jump::GreaterOrEqual, first, upper, lower)
        }
    }
}

fn outcome(code: &mut Assembler, outcome: &Outcome) -> Label {
    match outcome {
        Outcome::Return(value) => Label::Return(*value),
        Outcome::Rules(rules, otherwise) => self::rules(code, rules, Label::Return(*otherwise)),
    }
}

fn rules(code: &mut Assembler, rules: &[Rule], otherwise: Label) -> Label {
    let mut next = otherwise;
    let mut left = rules;
    while let Some((last, before)) = left.split_last() {
        // Neighbours that ask for one value each of the same argument share what they load.
        let alike = before.iter().rev().take_while(|rule| asks_alike(rule, last)).count();
        if alike > 0 {
            let start = before.len() - alike;
            next = values(code, &left[start..], next);
            left = &left[..start];
        } else {
            next = all(code, &last.tests, Label::Return(last.action), next);
            left = before;
        }
    }
    next
}

/// Whether both ask only for a value of the same argument, with the same upper half.
fn asks_alike(one: &Rule, other: &Rule) -> bool {
    let value = |rule: &Rule| match rule.tests.as_slice() {
        [test] if test.condition.compare == Compare::Equal => Some((
            test.condition.argument,
            test.wide,
            if test.wide { test.condition.value >> 32 } else { 0 },
        )),
        _ => None,
    };
    value(one).is_some() && value(one) == value(other)
}

/// The rules of [`asks_alike`].
fn values(code: &mut Assembler, rules: &[Rule], otherwise: Label) -> Label {
    let mut next = otherwise;
    for rule in rules.iter().rev() {
        let value = rule.tests[0].condition.value as u32;
        next = code.jump(Jump::Equal, value, Label::Return(rule.action), next);
    }
    let test = rules[0].tests[0];
    let argument = test.condition.argument;
    let lower = code.load(lower(argument), u32::MAX, next);
    if !test.wide {
        return lower;
    }
    let matched = code.jump(Jump::Equal, (test.condition.value >> 32) as u32, lower, otherwise);
    code.load(upper(argument), u32::MAX, matched)
}

/// All `tests` must hold.
fn all(code: &mut Assembler, tests: &[Test], then: Label, otherwise: Label) -> Label {
    let tests = tests.iter().rev();
    tests.fold(then, |then, test| one(code, test, then, otherwise))
}

fn one(code: &mut Assembler, test: &Test, then: Label, otherwise: Label) -> Label {
    match test.condition.compare {
        Compare::Equal | Compare::Masked => equal(code, test, then, otherwise),
        Compare::NotEqual => equal(code, test, otherwise, then),
        Compare::Greater => above(code, test, Jump::Greater, then, otherwise),
        Compare::GreaterOrEqual => above(code, test, Jump::GreaterOrEqual, then, otherwise),
        Compare::Less => above(code, test, Jump::GreaterOrEqual, otherwise, then),
        Compare::LessOrEqual => above(code, test, Jump::Greater, otherwise, then),
    }
}

fn equal(code: &mut Assembler, test: &Test, then: Label, otherwise: Label) -> Label {
    let condition = test.condition;
    let mut half = |offset: u32, mask: u32, value: u32, then: Label| match mask {
        0 => then,
        _ => {
            let compared = code.jump(Jump::Equal, value, then, otherwise);
            code.load(offset, mask, compared)
        }
    };
    let (mask, value) = (condition.mask, condition.value);
    let lower = half(lower(condition.argument), mask as u32, value as u32, then);
    if !test.wide {
        return lower;
    }
    half(
        upper(condition.argument),
        (mask >> 32) as u32,
        (value >> 32) as u32,
        lower,
    )
}

/// `jump` is what the lower halves are compared by where the upper ones are equal.
fn above(code: &mut Assembler, test: &Test, jump: Jump, then: Label, otherwise: Label) -> Label {
    let condition = test.condition;
    let compared = code.jump(jump, condition.value as u32, then, otherwise);
    let lower = code.load(lower(condition.argument), u32::MAX, compared);
    if !test.wide {
        return lower;
    }
    let value = (condition.value >> 32) as u32;
    let same = code.jump(Jump::Equal, value, lower, otherwise);
    let greater = code.jump(Jump::Greater, value, then, same);
    code.load(upper(condition.argument), u32::MAX, greater)
}

/// Where the lower 32 bits of an argument are: this runs on little-endian machines alone.
fn lower(argument: u8) -> u32 {
    ARGUMENTS + 8 * u32::from(argument)
}

fn upper(argument: u8) -> u32 {
    lower(argument) + 4
}
