//! The Actions results service (artifacts), REST through octocrab, dispatch.

pub mod artifact;
mod clock;
pub mod rest;
pub mod transport;

pub use clock::clock_skew;
