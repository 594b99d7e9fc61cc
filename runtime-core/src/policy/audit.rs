//! Where the audit trail goes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::values::{Given, Value};

/// Where the audit trail goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audit {
    /// There is none.
    #[default]
    None,
    /// journald.
    Journal,
    /// A file, by its absolute path.
    File(String),
}

impl Value for Audit {
    const EXPECTED: &'static str = "\"none\", \"journal\", or an absolute path";

    fn parse(given: Given<'_>) -> Option<Self> {
        match given.text()? {
            "none" => Some(Self::None),
            "journal" => Some(Self::Journal),
            path if path.starts_with('/') && !path.ends_with('/') => Some(Self::File(path.to_owned())),
            _ => None,
        }
    }

    /// Pods have no say, and the node's own choice needs no comparison.
    fn stricter(&self, other: &Self) -> Self {
        other.clone()
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::None => "none",
            Self::Journal => "journal",
            Self::File(path) => path,
        };
        write!(f, "{text:?}")
    }
}
