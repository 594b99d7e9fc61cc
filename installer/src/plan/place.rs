//! Where the handlers go: the one file that containerd reads them from.

use super::{Facts, File, PlanError, parse};
use crate::config::{Document, Version, block, glob_matches};
use crate::distribution::Method;

/// The name of a file of our own.
const DROP_IN: &str = "nucleus.toml";
/// All that a template of k3s or RKE2 needs in front of additions.
pub(super) const BASE_TEMPLATE: &str = "{{ template \"base\" . }}\n";
/// The line by which k0s knows that the configuration is its own to write.
const MANAGED_BY_K0S: &str = "k0s_managed=true";

pub(super) struct Place {
    pub(super) path: String,
    /// The version of the file there: it decides the name of the plugin.
    pub(super) version: Version,
    /// What a new file begins with.
    pub(super) preamble: String,
    pub(super) is_template: bool,
    pub(super) makes_directory: bool,
}

impl Place {
    fn new(path: String, version: Version) -> Self {
        Self {
            path,
            version,
            preamble: format!("version = {version}\n"),
            is_template: false,
            makes_directory: false,
        }
    }
}

pub(super) fn choose(facts: &Facts) -> Result<Place, PlanError> {
    let layout = facts.distribution.layout();
    let Some(config) = &facts.config else {
        // containerd alone runs without a file; 2 is the version that 1.6 to 2.x read.
        return if facts.distribution == crate::distribution::Distribution::Containerd {
            Ok(Place::new(facts.config_path.clone(), Version::V2))
        } else {
            Err(PlanError::Missing {
                path: facts.config_path.clone(),
                distribution: facts.distribution,
            })
        };
    };
    let document = own_words(config)?;
    if document.disables_cri() {
        return Err(PlanError::CriDisabled {
            path: config.path.clone(),
        });
    }
    let version = document.version;
    match layout.method {
        Method::Merged { directory } => {
            if !config.text.contains(MANAGED_BY_K0S) {
                return Err(PlanError::NotManaged {
                    path: config.path.clone(),
                    directory,
                });
            }
            Ok(drop_in(facts, directory, version))
        }
        Method::File | Method::Rendered => {
            if version.merges_imports()
                && let Some(directory) = imported_directory(&document)
            {
                return Ok(drop_in(facts, &directory, version));
            }
            if layout.method == Method::Rendered {
                return Ok(template(config, version));
            }
            winner(facts, config, version)
        }
    }
}

/// The file without our block.
fn own_words(file: &File) -> Result<Document, PlanError> {
    match block::find(&file.text) {
        Some(block) => parse(&file.path, &block.without),
        None => parse(&file.path, &file.text),
    }
}

fn drop_in(facts: &Facts, directory: &str, version: Version) -> Place {
    Place {
        makes_directory: !facts.directories.iter().any(|one| one == directory),
        ..Place::new(format!("{directory}/{DROP_IN}"), version)
    }
}

/// The directory that an import reads our file from, if there is one.
fn imported_directory(document: &Document) -> Option<String> {
    document.imports.iter().find_map(|pattern| {
        let (directory, name) = pattern.rsplit_once('/')?;
        let plain = directory.starts_with('/') && !directory.contains(['*', '?', '[']);
        (plain && name.contains('*') && glob_matches(name, DROP_IN)).then(|| directory.to_owned())
    })
}

/// The template that the rendered configuration comes from: its name says the version.
fn template(config: &File, version: Version) -> Place {
    let directory = config.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let name = if version.merges_imports() {
        "config-v3.toml.tmpl"
    } else {
        "config.toml.tmpl"
    };
    Place {
        preamble: BASE_TEMPLATE.to_owned(),
        is_template: true,
        ..Place::new(format!("{directory}/{name}"), version)
    }
}

/// The file itself; or of files whose sections of the CRI plugin replace each other (before containerd 2.0), the last.
fn winner(facts: &Facts, config: &File, version: Version) -> Result<Place, PlanError> {
    if !version.merges_imports() {
        for file in facts.imported.iter().rev() {
            let document = own_words(file)?;
            if document.configures_cri() {
                return Ok(Place::new(file.path.clone(), document.version));
            }
        }
    }
    Ok(Place::new(config.path.clone(), version))
}
