//! The Actions results service (artifacts), REST through octocrab, dispatch.

pub mod rest;
