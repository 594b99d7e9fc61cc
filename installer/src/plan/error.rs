//! Why a node cannot be changed; it stays as it was.

use crate::config::DocumentError;
use crate::distribution::Distribution;

/// What stands against a plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The distribution's configuration is not there.
    #[error(
        "there is no {path}: is this a node of {distribution}, and has it been started once? Set `distribution` to \
         what \
         runs here"
    )]
    Missing {
        /// The file.
        path: String,
        /// What was declared.
        distribution: Distribution,
    },
    /// A file that containerd reads cannot be understood.
    #[error("containerd's configuration {path} cannot be changed: repair it first")]
    Broken {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// The CRI plugin is off: kubelet does not talk to this containerd.
    #[error(
        "{path} switches the CRI plugin off (`disabled_plugins`), so Kubernetes uses another containerd here: set \
         `distribution` to the one that it uses, or enable the plugin"
    )]
    CriDisabled {
        /// The file.
        path: String,
    },
    /// Another release of the chart has its block there.
    #[error("{path} belongs to the release {owner}, this is {us}: uninstall one of the two, one release serves a node")]
    OtherRelease {
        /// The file.
        path: String,
        /// The release that wrote it.
        owner: String,
        /// This release.
        us: String,
    },
    /// Somebody else has a handler of that name.
    #[error("{path} has a handler `{handler}` that nucleus-installer did not make: remove or rename it first")]
    Taken {
        /// The handler.
        handler: &'static str,
        /// The file.
        path: String,
    },
    /// k0s does not write its configuration any more.
    #[error(
        "{path} has no line `# k0s_managed=true`, so k0s does not read {directory}: put the line back, or add the \
         handler \
         by hand"
    )]
    NotManaged {
        /// The file.
        path: String,
        /// The directory that would be read.
        directory: &'static str,
    },
    /// The tables cannot stand beside what is there, as where `plugins` is an inline table.
    #[error("{path} has no room for further tables (is `plugins` an inline table?); add this to it by hand:\n{tables}")]
    NoRoom {
        /// The file.
        path: String,
        /// What was to be added.
        tables: String,
    },
}
