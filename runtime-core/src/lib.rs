//! Containers, from an OCI bundle to clean-up.
