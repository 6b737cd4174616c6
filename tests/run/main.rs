//! The main job on the real kernel, as a user starts it.

#[path = "../support/mod.rs"]
mod support;

mod command_line;
mod kernel_only;
mod readme;
