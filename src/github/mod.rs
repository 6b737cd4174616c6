//! The Actions results service (artifacts), REST through octocrab, dispatch.

pub mod artifact;
pub mod rest;
