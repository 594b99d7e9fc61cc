//! cgroup v1, with or without the unified hierarchy beside it; directories made by ourselves (cgroupfs driver).

mod create;
mod delete;
mod freezer;
mod kill;
mod limits;
mod oom;
mod stats;

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use super::directory::Directory;
use super::hierarchy::{Hierarchy, Host};
use super::path::CgroupsPath;
use super::{Error, Place};
pub(super) use oom::Watch;
use std::sync::Arc;

/// A container's cgroups.
#[derive(Debug, Clone)]
pub(super) struct V1 {
    /// One a v1 hierarchy.
    parts: Vec<Directory>,
    /// In the unified hierarchy of a hybrid host. runc (since 1.1) places containers there too; left in the shim's own,
    /// they would be processes of containerd's service to systemd.
    unified: Option<Directory>,
}

impl V1 {
    pub fn of(host: &Host, path: &CgroupsPath) -> Result<Self, Error> {
        let part = |hierarchy: &Arc<Hierarchy>| -> Result<Directory, Error> {
            Ok(Directory {
                hierarchy: hierarchy.clone(),
                path: path.below(hierarchy)?,
            })
        };
        let parts = host.v1.iter().map(part).collect::<Result<_, _>>()?;
        Ok(Self {
            parts,
            unified: host.unified.as_ref().map(part).transpose()?,
        })
    }

    /// The cgroup in the hierarchy of `controller`.
    fn of_controller(&self, controller: &str) -> Option<&Directory> {
        self.parts.iter().find(|part| part.hierarchy.has(controller))
    }

    /// In every hierarchy, the unified one last.
    fn all(&self) -> impl Iterator<Item = &Directory> {
        self.parts.iter().chain(&self.unified)
    }

    /// The hierarchy whose list of processes is taken for all: the one that a process cannot leave by its own doing,
    /// then any. runc takes the same.
    fn main(&self) -> Result<&Directory, Error> {
        let named = ["devices", "pids", "freezer", "memory"]
            .into_iter()
            .find_map(|name| self.of_controller(name));
        named.or(self.parts.first()).ok_or(Error::NoHierarchy)
    }

    pub fn places(&self) -> Vec<Place> {
        let place = |part: &Directory| Place {
            controllers: part.hierarchy.controllers.clone(),
            mount_point: part.hierarchy.mount_point.clone(),
            directory: part.full(),
        };
        self.all().map(place).collect()
    }

    pub fn exists(&self) -> bool {
        self.all().any(|part| part.has(""))
    }

    pub fn join_files(&self) -> Result<Vec<OwnedFd>, Error> {
        self.parts
            .iter()
            .map(|part| part.open("tasks", OFlags::WRONLY))
            .collect()
    }

    /// The cgroup in the unified hierarchy of a hybrid host.
    pub fn unified(&self) -> Option<&Directory> {
        self.unified.as_ref()
    }

    pub fn clone_into(&self) -> Result<Option<OwnedFd>, Error> {
        self.unified
            .as_ref()
            .map(|part| part.open("", OFlags::PATH | OFlags::DIRECTORY))
            .transpose()
    }
}
