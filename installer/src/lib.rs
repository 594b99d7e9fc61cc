//! Puts the nucleus shim on a node and takes it away again.
//!
//! [`plan`] decides: from what the node's configuration says to which bytes change and whether containerd has to be
//! restarted. It is pure. [`node`] reads what it decides on and carries the plan out, [`systemd`] restarts, [`cri`]
//! asks containerd what it knows afterwards.

pub mod config;
pub mod cri;
pub mod distribution;
pub mod node;
pub mod plan;
pub mod systemd;
