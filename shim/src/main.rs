//! `containerd-shim-nucleus-v2`.
#![allow(dead_code)]

mod events;
mod io;

fn main() {}
