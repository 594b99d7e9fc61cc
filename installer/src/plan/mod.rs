//! Decides what changes on a node. Pure: from what was read to what is to be written.

mod error;
mod place;
#[cfg(test)]
mod tests;

pub use error::PlanError;

use crate::config::{Document, Handler, block};
use crate::distribution::{Distribution, Method};

/// What containerd's configuration looks like before anything is changed.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Who runs containerd.
    pub distribution: Distribution,
    /// Where the configuration is, or would be: the distribution's place unless told otherwise.
    pub config_path: String,
    /// The configuration.
    pub config: Option<File>,
    /// What it imports, in containerd's order; of a merged directory, its files.
    pub imported: Vec<File>,
    /// The templates that a rendered configuration is made of.
    pub templates: Vec<File>,
    /// Directories that the configuration imports from and that are there.
    pub directories: Vec<String>,
}

/// A file of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path on the node.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The handlers that containerd is to know.
    pub handlers: Vec<Handler>,
    /// The host's directory of our own files.
    pub directory: String,
    /// The release: `namespace/name`.
    pub owner: String,
    /// containerd finds a shim beside its own programs by path alone, as 1.6 does.
    pub named_by_path: bool,
}

/// A file that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path on the node.
    pub path: String,
    /// What is in it now; none where there is no file.
    pub before: Option<String>,
    /// What will be in it; none where it goes.
    pub after: Option<String>,
    /// Whether its directory comes or goes with it.
    pub directory: bool,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The files that change; none where everything is as it should be.
    pub changes: Vec<Change>,
    /// Whether containerd has to be restarted to see them.
    pub restart: bool,
}

/// What a file holds that was made from nothing, before our block.
const PREAMBLES: [&str; 5] = [
    "version = 1\n",
    "version = 2\n",
    "version = 3\n",
    "version = 4\n",
    place::BASE_TEMPLATE,
];

impl Facts {
    fn files(&self) -> impl Iterator<Item = &File> {
        self.config.iter().chain(&self.imported).chain(&self.templates)
    }

    /// A rendered configuration is written by its distribution: what stands in it came out of a template.
    fn is_rendered(&self, file: &File) -> bool {
        self.distribution.layout().method == Method::Rendered && file.path == self.config_path
    }

    fn changed(&self, changes: Vec<Change>) -> Plan {
        let merged = matches!(self.distribution.layout().method, Method::Merged { .. });
        Plan {
            restart: !changes.is_empty() && !merged,
            changes,
        }
    }
}

/// Plans what makes containerd know the handlers.
pub fn install(facts: &Facts, wanted: &Wanted) -> Result<Plan, PlanError> {
    for file in facts.files() {
        if let Some(block) = block::find(&file.text)
            && block.owner != wanted.owner
        {
            return Err(PlanError::OtherRelease {
                path: file.path.clone(),
                owner: block.owner,
                us: wanted.owner.clone(),
            });
        }
    }
    refuse_taken(facts, wanted)?;
    let place = place::choose(facts)?;
    let existing = facts.files().find(|file| file.path == place.path);
    let mut made = block::Made {
        file: existing.is_none(),
        directory: place.makes_directory,
    };
    let mut base = existing.map_or_else(String::new, |file| file.text.clone());
    if let Some(block) = block::find(&base) {
        made = block.made;
        base = block.without;
    }
    if made.file && (base.is_empty() || PREAMBLES.contains(&base.as_str())) {
        base.clone_from(&place.preamble);
    }
    let mut tables: Vec<String> = wanted
        .handlers
        .iter()
        .map(|handler| handler.toml(place.version, &wanted.directory, wanted.named_by_path))
        .collect();
    if facts.distribution.layout().method == Method::File
        && !place.version.merges_imports()
        && parse(&place.path, &base)?.handlers().is_empty()
    {
        tables.insert(0, place.version.default_handler());
    }
    let text = block::append(&base, &wanted.owner, made, &tables.join("\n"));
    if !place.is_template {
        let understood = Document::parse(&text).map(|document| document.handlers());
        let there = |names: &[String]| {
            let mut wanted = wanted.handlers.iter();
            wanted.all(|handler| names.iter().any(|name| name == handler.name()))
        };
        if !understood.is_ok_and(|names| there(&names)) {
            return Err(PlanError::NoRoom {
                path: place.path,
                tables: tables.join("\n"),
            });
        }
    }
    // What an earlier version wrote somewhere else goes.
    let mut changes: Vec<Change> = facts
        .files()
        .filter(|file| file.path != place.path && !facts.is_rendered(file))
        .filter_map(without_block)
        .collect();
    let before = existing.map(|file| file.text.clone());
    if before.as_deref() != Some(&text) {
        changes.push(Change {
            path: place.path,
            before,
            after: Some(text),
            directory: made.directory,
        });
    }
    Ok(facts.changed(changes))
}

/// Plans what makes containerd forget this release's handlers: the files get back the bytes that they had.
pub fn uninstall(facts: &Facts, owner: &str) -> Plan {
    let ours = |file: &&File| block::find(&file.text).is_some_and(|block| block.owner == owner);
    let changes = facts
        .files()
        .filter(|file| !facts.is_rendered(file))
        .filter(ours)
        .filter_map(without_block)
        .collect();
    facts.changed(changes)
}

fn without_block(file: &File) -> Option<Change> {
    let block = block::find(&file.text)?;
    // A file that was made for the block goes with it, unless somebody has found a use for it.
    let goes = block.made.file && (block.without.is_empty() || PREAMBLES.contains(&block.without.as_str()));
    Some(Change {
        path: file.path.clone(),
        before: Some(file.text.clone()),
        after: (!goes).then_some(block.without),
        directory: goes && block.made.directory,
    })
}

/// A handler of somebody else by one of our names: theirs stays.
fn refuse_taken(facts: &Facts, wanted: &Wanted) -> Result<(), PlanError> {
    for file in facts.files() {
        let text = block::find(&file.text).map_or_else(|| file.text.clone(), |block| block.without);
        let is_template = facts.templates.iter().any(|template| template.path == file.path);
        let names = if is_template {
            Vec::new()
        } else {
            parse(&file.path, &text)?.handlers()
        };
        for handler in &wanted.handlers {
            let name = handler.name();
            let header = ["runtimes.NAME]", "runtimes.\"NAME\"]", "runtimes.'NAME']"]
                .iter()
                .any(|shape| text.contains(&shape.replace("NAME", name)));
            if names.iter().any(|one| one == name) || (is_template && header) {
                return Err(PlanError::Taken {
                    handler: name,
                    path: file.path.clone(),
                });
            }
        }
    }
    Ok(())
}

fn parse(path: &str, text: &str) -> Result<Document, PlanError> {
    Document::parse(text).map_err(|source| PlanError::Broken {
        path: path.to_owned(),
        source,
    })
}
