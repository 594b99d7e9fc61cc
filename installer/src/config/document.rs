//! What a configuration file says, as far as it matters here.

use std::fmt;

use toml_edit::{DocumentMut, Item, TableLike};

/// The version that a file gives itself, which decides how plugins are named in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// No `version`, or 1: plugins by short names.
    V1,
    /// containerd 1.x, and 2.x too.
    V2,
    /// containerd 2.0 and later.
    V3,
    /// containerd 2.3 and later.
    V4,
}

impl Version {
    /// The CRI plugin's key as it is written in a table's header.
    pub fn plugin(self) -> &'static str {
        match self {
            Self::V1 => "cri",
            Self::V2 => "\"io.containerd.grpc.v1.cri\"",
            Self::V3 | Self::V4 => "\"io.containerd.cri.v1.runtime\"",
        }
    }

    /// Whether an import is merged into what is there. Before, it replaces the whole section of a plugin.
    pub fn merges_imports(self) -> bool {
        self >= Self::V3
    }

    /// The handler that containerd has where none is configured. Before 2.0 the first one that is configured replaces
    /// it, and then the CRI plugin does not load, for want of its default runtime.
    pub fn default_handler(self) -> String {
        let plugin = self.plugin();
        format!("[plugins.{plugin}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n")
    }

    fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            4 => Some(Self::V4),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 => 3,
            Self::V4 => 4,
        };
        write!(formatter, "{number}")
    }
}

/// Why a file cannot be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Not TOML.
    #[error("it is not valid TOML")]
    Syntax(#[source] Box<toml_edit::TomlError>),
    /// A version that nobody has seen yet, or no number.
    #[error("`version = {0}`: versions 1 to 4 are known, those of containerd 1.6 to 2.4")]
    Version(String),
    /// `imports` is something else.
    #[error("`imports` is not a list of strings")]
    Imports,
}

/// A file, parsed.
#[derive(Debug)]
pub struct Document {
    document: DocumentMut,
    /// Its version.
    pub version: Version,
    /// What it imports, as written.
    pub imports: Vec<String>,
}

/// Every name that the CRI plugin, or its part about runtimes, has or had.
const PLUGINS: [&str; 3] = ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"];

impl Document {
    /// Parses a file's text.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let document: DocumentMut = text.parse().map_err(|error| DocumentError::Syntax(Box::new(error)))?;
        let version = match document.get("version") {
            None => Version::V1,
            Some(item) => item
                .as_integer()
                .and_then(Version::from_number)
                .ok_or_else(|| DocumentError::Version(item.to_string().trim().to_owned()))?,
        };
        let imports = match document.get("imports") {
            None => Vec::new(),
            Some(item) => {
                let list = item.as_array().ok_or(DocumentError::Imports)?;
                list.iter()
                    .map(|one| one.as_str().map(str::to_owned).ok_or(DocumentError::Imports))
                    .collect::<Result<_, _>>()?
            }
        };
        Ok(Self {
            document,
            version,
            imports,
        })
    }

    /// Whether the CRI plugin is switched off.
    pub fn disables_cri(&self) -> bool {
        let disabled = self.document.get("disabled_plugins").and_then(Item::as_array);
        disabled.is_some_and(|list| {
            list.iter()
                .filter_map(|one| one.as_str())
                .any(|name| PLUGINS.contains(&name))
        })
    }

    /// Whether it has a section of the CRI plugin, which in an import of containerd 1.x replaces all others.
    pub fn configures_cri(&self) -> bool {
        self.sections().next().is_some()
    }

    /// The names of the handlers that it sets up.
    pub fn handlers(&self) -> Vec<String> {
        let mut names = Vec::new();
        for section in self.sections() {
            let runtimes = section
                .get("containerd")
                .and_then(Item::as_table_like)
                .and_then(|containerd| containerd.get("runtimes"))
                .and_then(Item::as_table_like);
            names.extend(
                runtimes
                    .into_iter()
                    .flat_map(|table| table.iter())
                    .map(|(name, _)| name.to_owned()),
            );
        }
        names
    }

    fn sections(&self) -> impl Iterator<Item = &dyn TableLike> {
        let plugins = self.document.get("plugins").and_then(Item::as_table_like);
        PLUGINS
            .iter()
            .filter_map(move |name| plugins?.get(name)?.as_table_like())
    }
}

#[cfg(test)]
mod tests {
    use super::{Document, Version};

    #[test]
    fn the_version_is_the_one_that_the_file_gives_itself() {
        for (text, version) in [
            ("", Version::V1),
            ("version = 1", Version::V1),
            ("version = 2\n", Version::V2),
            ("# version = 2\nversion = 3", Version::V3),
            ("version = 4", Version::V4),
        ] {
            assert_eq!(Document::parse(text).unwrap().version, version, "{text}");
        }
        for text in ["version = 5", "version = 0", "version = \"2\"", "version = [2]"] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn handlers_are_found_however_their_tables_are_written() {
        for text in [
            "[plugins.cri.containerd.runtimes.mine]\nruntime_type = \"x\"",
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.mine]\nruntime_type = \"x\"",
            "[plugins.'io.containerd.cri.v1.runtime'.containerd]\nruntimes = { mine = { runtime_type = \"x\" } }",
            "plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.mine.runtime_type = 'x'",
        ] {
            assert_eq!(Document::parse(text).unwrap().handlers(), ["mine"], "{text}");
        }
    }

    #[test]
    fn a_switched_off_cri_plugin_is_seen_under_each_of_its_names() {
        assert!(Document::parse("disabled_plugins = [\"cri\"]").unwrap().disables_cri());
        assert!(
            Document::parse("disabled_plugins = [\"io.containerd.grpc.v1.cri\"]")
                .unwrap()
                .disables_cri()
        );
        assert!(
            !Document::parse("disabled_plugins = [\"restart\"]")
                .unwrap()
                .disables_cri()
        );
    }
}
