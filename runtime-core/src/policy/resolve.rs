//! From what the layers say to what holds.

use std::borrow::Cow;

use super::landlock::Ports;
use super::settings::{Layer, Policy};
use super::values::{Given, Mode, Tier, Value};
use super::{Decided, Error, Origin, toml};

/// What a pod's annotations start with that are meant for us.
pub const ANNOTATION_PREFIX: &str = "nucleus.dev/";

/// With the name of a volume behind it: an annotation for each says the same as `volume_digest`.
const VOLUME_DIGEST: &str = "volume-digest.";

/// The policy for one container: what node and handler say, tightened by the annotations that start with
/// [`ANNOTATION_PREFIX`].
///
/// # Errors
/// An annotation that is unknown, that has no such value, or that would loosen what is demanded.
pub fn resolve<'a>(
    node: &Layer,
    handler: &Layer,
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Policy, Error> {
    let mut pod = Layer::default();
    for (key, value) in annotations {
        if let Some(name) = key.strip_prefix(ANNOTATION_PREFIX) {
            if let Some(volume) = name.strip_prefix(VOLUME_DIGEST) {
                pod.add_volume_digest(volume, value)?;
                continue;
            }
            // A key of TOML cannot be a value and a table at once, so the setting has a longer name.
            let name = if name == "seccomp" { "seccomp.mode" } else { name };
            let before = pod.volume_digest.take();
            pod.set(&"annotations", name, Given::Annotation(value))?;
            for (volume, digest) in before.into_iter().flat_map(|before| before.0) {
                pod.add_volume_digest(&volume, &digest)?;
            }
        }
    }
    let (mut node, mut handler) = (Cow::Borrowed(node), Cow::Borrowed(handler));
    if node.landlock_tcp_connect.is_none() && handler.landlock_tcp_connect.is_none() {
        // With the tier `strict` comes a list of ports, of whoever demands the tier: a pod cannot loosen it, as it
        // could a default.
        match (handler.landlock_tier, node.landlock_tier) {
            (Some(Tier::Strict), _) => handler.to_mut().landlock_tcp_connect = Some(Ports::NONE),
            (None, Some(Tier::Strict)) => node.to_mut().landlock_tcp_connect = Some(Ports::NONE),
            _ if pod.landlock_tier == Some(Tier::Strict) => {
                pod.landlock_tcp_connect.get_or_insert(Ports::NONE);
            }
            _ => {}
        }
    }
    Policy::of(&node, &handler, &pod)
}

impl Layer {
    fn add_volume_digest(&mut self, volume: &str, digest: &str) -> Result<(), Error> {
        let digests = self.volume_digest.get_or_insert_default();
        digests.add(volume, digest).ok_or_else(|| Error::Value {
            place: format!(
                "annotation {ANNOTATION_PREFIX}{VOLUME_DIGEST}{}",
                super::shortened(volume)
            ),
            name: "volume_digest",
            expected: "one digest for a volume's name, `sha256:` and 64 hex digits",
            given: Given::Annotation(digest).to_string(),
        })
    }

    /// Takes in one entry of a configuration.
    pub fn set_entry(&mut self, place: &str, entry: &toml::Entry) -> Result<(), Error> {
        struct Line<'a>(&'a str, usize);
        impl std::fmt::Display for Line<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}, line {}", self.0, self.1)
            }
        }
        self.set(&Line(place, entry.line), &entry.key, Given::Toml(&entry.value))
    }
}

/// One setting, of its two defaults and what node, handler and pod say. `modes` are those of node and handler, and of
/// the pod, which may have raised it: then production's default counts as if the pod had asked for it, in each setting
/// of which it says nothing.
pub(super) fn decide<T: Value>(
    name: &'static str,
    [agent, production]: [T; 2],
    [node, handler, pod]: [&Option<T>; 3],
    (given, raised): (Mode, Mode),
) -> Result<Decided<T>, Error> {
    let default = match given {
        Mode::Agent => &agent,
        Mode::Production => &production,
    };
    let (floor, from) = match (handler, node) {
        (Some(value), _) => (value, Origin::Handler),
        (None, Some(value)) => (value, Origin::Node),
        (None, None) => (default, Origin::Default),
    };
    let asked = match pod {
        Some(asked) if !asked.is_as_strict_as(floor) => {
            return Err(Error::Loosens {
                name,
                demanded: floor.to_string(),
                by: from,
                asked: asked.to_string(),
            });
        }
        Some(asked) => asked.clone(),
        None if raised > given => floor.stricter(&production),
        None => floor.clone(),
    };
    let from = if asked == *floor { from } else { Origin::Pod };
    Ok(Decided { value: asked, from })
}
