//! devices: Documentation/admin-guide/cgroup-v1/devices.rst.
//!
//! The spec's rules are an ordered list; the kernel holds a default and exceptions from it. The list is played through
//! first, so that what is written is the end of it, and a rule that the kernel would silently not follow is refused.

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::LinuxDeviceCgroup;
use rustix::fs::OFlags;

use crate::cgroup::Error;
use crate::cgroup::device_rules::{ALWAYS, ANY, FULL, Rule, describe, letters};
use crate::cgroup::directory::Directory;

/// Devices that one exception is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Which {
    kind: char,
    major: Option<u32>,
    minor: Option<u32>,
}

/// What the kernel is to hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    allow: bool,
    exceptions: BTreeMap<Which, u8>,
}

pub(super) fn set(part: &Directory, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
    let state = State::of(rules)?;
    let (default, exception) = if state.allow {
        ("devices.allow", "devices.deny")
    } else {
        ("devices.deny", "devices.allow")
    };
    part.write(default, "a")?;
    if state.exceptions.is_empty() {
        return Ok(());
    }
    // One open for all: a container has a dozen of them, and the kernel takes one a write.
    let file = part.open(exception, OFlags::WRONLY | OFlags::APPEND)?;
    for (which, access) in &state.exceptions {
        let line = format!("{which} {}", letters(*access));
        rustix::io::write(&file, line.as_bytes()).map_err(|error| part.write_error(exception, &line, error))?;
    }
    Ok(())
}

impl State {
    fn of(rules: &[LinuxDeviceCgroup]) -> Result<Self, Error> {
        let mut state = Self::default();
        for rule in rules {
            state.play(rule).map_err(|fault| Error::DeviceRule {
                rule: describe(rule),
                fault,
            })?;
        }
        for (kind, major, minor, access) in ALWAYS {
            let which = Which { kind, major, minor };
            // Where everything is allowed that was not denied by name, the denied stays so.
            if !state.allow {
                *state.exceptions.entry(which).or_default() |= access;
            }
        }
        Ok(state)
    }

    fn play(&mut self, rule: &LinuxDeviceCgroup) -> Result<(), &'static str> {
        let Rule {
            kind,
            major,
            minor,
            access,
            ..
        } = Rule::parse(rule)?;
        let Some(kind) = kind else {
            // The kernel takes "a" for everything, whatever follows it.
            if rule.allow() && (access != FULL || major.is_some() || minor.is_some()) {
                return Err("a rule for all types of devices can only allow everything");
            }
            *self = Self {
                allow: rule.allow(),
                exceptions: BTreeMap::new(),
            };
            return Ok(());
        };
        let which = Which { kind, major, minor };
        if rule.allow() == self.allow {
            self.remove(which, access)
        } else {
            *self.exceptions.entry(which).or_default() |= access;
            Ok(())
        }
    }

    /// Takes an exception back. The kernel would pass over one that is part of a wider one.
    fn remove(&mut self, which: Which, access: u8) -> Result<(), &'static str> {
        let Which { kind, major, minor } = which;
        let wider = [(ANY, minor), (major, ANY), (ANY, ANY)].map(|(major, minor)| Which { kind, major, minor });
        let held = |other: &Which| self.exceptions.get(other).is_some_and(|held| held & access != 0);
        if wider.iter().any(|other| *other != which && held(other)) {
            return Err("it would cut a hole into a wider rule, which cgroup v1 cannot do");
        }
        if let Some(held) = self.exceptions.get_mut(&which) {
            *held &= !access;
            if *held == 0 {
                self.exceptions.remove(&which);
            }
        }
        Ok(())
    }
}

impl fmt::Display for Which {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(out, "{} {}:{}", self.kind, number(self.major), number(self.minor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> LinuxDeviceCgroup {
        let json =
            format!(r#"{{"allow":{allow},"type":"{kind}","major":{major},"minor":{minor},"access":"{access}"}}"#);
        serde_json::from_str(&json).unwrap()
    }

    fn lines(state: &State) -> Vec<String> {
        state
            .exceptions
            .iter()
            .map(|(which, access)| format!("{which} {}", letters(*access)))
            .collect()
    }

    #[test]
    fn without_rules_only_the_usual_devices_are_allowed() {
        let state = State::of(&[]).unwrap();
        assert!(!state.allow);
        assert_eq!(
            lines(&state),
            [
                "b *:* m",
                "c *:* m",
                "c 1:3 rwm",
                "c 1:5 rwm",
                "c 1:7 rwm",
                "c 1:8 rwm",
                "c 1:9 rwm",
                "c 5:0 rwm",
                "c 5:2 rwm",
                "c 10:200 rwm",
                "c 136:* rwm"
            ]
        );
    }

    #[test]
    fn a_privileged_container_is_allowed_everything() {
        let state = State::of(&[rule(false, "a", -1, -1, "rwm"), rule(true, "a", -1, -1, "rwm")]).unwrap();
        assert_eq!(
            state,
            State {
                allow: true,
                exceptions: BTreeMap::new()
            }
        );
    }

    #[test]
    fn what_is_denied_by_name_stays_denied_where_the_rest_is_allowed() {
        let state = State::of(&[rule(true, "a", -1, -1, "rwm"), rule(false, "c", 10, 200, "w")]).unwrap();
        assert!(state.allow);
        assert_eq!(lines(&state), ["c 10:200 w"]);
    }

    #[test]
    fn rules_add_up_in_their_order() {
        let state = State::of(&[
            rule(true, "b", 8, 0, "rw"),
            rule(true, "b", 8, 0, "m"),
            rule(false, "b", 8, 0, "w"),
        ])
        .unwrap();
        assert!(lines(&state).contains(&"b 8:0 rm".to_owned()));
    }

    #[test]
    fn a_rule_that_cgroup_v1_would_not_follow_is_refused_by_name() {
        let cases = [
            (
                vec![rule(true, "c", -1, -1, "rw"), rule(false, "c", 1, 3, "w")],
                "deny c 1:3 w: it would cut a hole",
            ),
            (
                vec![rule(true, "a", 5, -1, "r")],
                "allow a 5:-1 r: a rule for all types",
            ),
            (vec![rule(true, "c", 1, 3, "")], "access is empty"),
            (vec![rule(true, "c", 1, 3, "x")], "access is made of"),
            (vec![rule(true, "c", -7, 3, "r")], "out of range"),
            (vec![rule(true, "p", 1, 3, "r")], "none of a, b, c"),
        ];
        for (rules, text) in cases {
            let error = State::of(&rules).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
