//! `containerd-shim-nucleus-v2`.

fn main() {}
