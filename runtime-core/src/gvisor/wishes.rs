//! What a pod's annotations `dev.gvisor.spec.mount.<volume>.<field>` ask for: those that gVisor's own shim goes by. Pure.

use std::collections::BTreeMap;

use super::Error;
use crate::plan::Plan;

/// What runsc's annotations about mounts begin with.
pub const ANNOTATIONS: &str = "dev.gvisor.spec.mount.";

/// What a pod's annotations say of one volume.
#[derive(Debug, Default)]
pub struct Wish<'a> {
    /// `type`: tmpfs, or bind.
    pub kind: Option<&'a str>,
    /// container, pod or shared.
    pub share: Option<&'a str>,
    /// The volume's directory on the host.
    pub source: Option<&'a str>,
}

/// Whether the pod's annotations can be honoured, as far as they say.
pub fn check(plan: &Plan) -> Result<(), Error> {
    wishes(plan).map(drop)
}

/// What the pod's annotations ask for, by the volume's name.
pub fn wishes(plan: &Plan) -> Result<BTreeMap<&str, Wish<'_>>, Error> {
    let mut wishes: BTreeMap<&str, Wish<'_>> = BTreeMap::new();
    for (key, value) in &plan.container.annotations {
        let Some(rest) = key.strip_prefix(ANNOTATIONS) else {
            continue;
        };
        let Some((name, field)) = rest.split_once('.').filter(|(name, _)| is_name(name)) else {
            return Err(refused(rest, "", "it is to name a volume and a field: remove it"));
        };
        let wish = wishes.entry(name).or_default();
        match (field, value.as_str()) {
            ("type", "tmpfs" | "bind") => wish.kind = Some(value),
            ("type", _) => return Err(refused(name, field, "it is to be tmpfs or bind")),
            ("share", "container" | "pod" | "shared") => wish.share = Some(value),
            ("share", _) => return Err(refused(name, field, "it is to be container, pod or shared")),
            ("source", _) => wish.source = Some(value),
            ("options", "rw") => {}
            ("options", _) => {
                return Err(refused(
                    name,
                    field,
                    "each container has its own: write rw, or remove it",
                ));
            }
            _ => return Err(refused(name, field, "there are type, share and source: remove it")),
        }
    }
    for (name, wish) in &wishes {
        for (field, value) in [("type", wish.kind), ("share", wish.share)] {
            if value.is_none() {
                return Err(refused(
                    name,
                    field,
                    "it is missing beside the volume's other annotations: add it",
                ));
            }
        }
    }
    Ok(wishes)
}

/// Whether it can be that of a volume or a pod: no path, and nothing that the annotations' names would be divided by.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['/', '\0', '.'])
}

/// The refusal of one of the annotations.
pub fn refused(name: &str, field: &str, reason: &'static str) -> Error {
    let separator = if field.is_empty() { "" } else { "." };
    Error::Unsupported {
        field: format!("annotation {ANNOTATIONS}{name}{separator}{field}"),
        reason,
    }
}
