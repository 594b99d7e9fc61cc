//! What a container may use: `linux.resources` written into the v1 controllers' files.

pub(super) mod cpuset;
