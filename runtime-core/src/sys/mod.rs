//! Every unsafe block and raw system call, behind safe functions over owned fds.
#![allow(unsafe_code)]

pub mod signal;
