//! `cargo e2e`: the demo, the test suites and the benchmarks.

fn main() {}
