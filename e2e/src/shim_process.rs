//! A shim started by the test itself, as containerd starts it.
